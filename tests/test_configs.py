import importlib.util
import itertools
import pathlib
import re

import pytest

from vidpred_jax import build, data, metrics, systems
from vidpred_jax.data import vortices
from vidpred_jax.train import optim

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / 'configs').glob('*.py'))


def load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(autouse=True)
def nothing_is_simulated(monkeypatch):
  """Films that are not there are missing, as other data sets are."""

  def refuse(root, settings):
    del settings
    raise FileNotFoundError(str(root))

  monkeypatch.setattr(vortices, '_simulate', refuse)


def given_channels(config):
  """The configuration, with what it leaves to data that are not here."""
  if config.model.get('channels', 0) is None:
    config.model.channels = 2
  return config


CASES = list(
  itertools.chain.from_iterable(
    [(path, '')] + [(path, v) for v in load(path).VARIANTS] for path in FILES
  )
)


def ids(value):
  return getattr(value, 'stem', value)


@pytest.mark.parametrize('path, variant', CASES, ids=ids)
def test_every_variant_makes_its_system_and_optimiser(path, variant):
  config = given_channels(load(path).get_config(variant))
  for frames in (config.frames, config.eval.frames):
    system = build.system(config, frames)
    assert system.frames.context == tuple(frames.context)
  for size in (config.augment.crop, config.data.get('size')):
    if size:
      assert all(n % system.multiple == 0 for n in size), (size, variant)
  schedule = optim.schedule(steps=config.steps, **config.schedule.to_dict())
  optim.make(
    {'kernel': 0.0}, schedule, **config.optim.to_dict() | {'frozen': ()}
  )
  for name in config.eval.metrics:
    if not name.startswith('lpips'):
      metrics.make(name)


@pytest.mark.parametrize('path, variant', CASES, ids=ids)
def test_every_field_of_the_data_is_known_to_its_source(path, variant):
  config = load(path).get_config(variant)
  settings = build.evaluated_data(config)
  try:
    data.make_source(
      settings.pop('source'), split='test', num_frames=3, **settings
    )
  except FileNotFoundError as error:  # the data set is not on this disk
    assert 'http' in str(error) or settings['root'] in str(error)


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_the_model_has_every_setting_of_its_system(path):
  config = load(path).get_config()
  assert set(config.model) == set(systems.SYSTEMS[path.stem].Settings._fields)


def test_every_field_has_a_comment():
  base = (ROOT / 'vidpred_jax' / 'config.py').read_text()
  places = [('  config.', base[: base.index('def apply')])]
  for path in FILES:
    text = path.read_text()
    places.append(('  config.model.', text[: text.index('return apply(')]))
  for start, text in places:
    lines = text.splitlines()
    fields = [i for i, x in enumerate(lines) if x.startswith(start)]
    assert len(fields) > 10
    for i in fields:
      assert '#' in lines[i] or lines[i - 1].startswith('  #'), lines[i]


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_two_variants_make_a_system_in_any_order_or_are_refused(path):
  module = load(path)
  refused = set()
  for pair in itertools.combinations(module.VARIANTS, 2):
    try:
      one, other = (
        given_channels(module.get_config(','.join(x)))
        for x in (pair, pair[::-1])
      )
    except ValueError as error:
      assert 'do not go with' in str(error)
      refused.add(pair)
      continue
    assert one.to_dict() == other.to_dict(), pair
    for frames in (one.frames, one.eval.frames):
      build.system(one, frames)
  little = ('small', 'demo', 'smoke', 'film1', 'film2', 'film3')
  keeps = [v for v in module.VARIANTS if v.startswith('keep_')]
  assert refused == set(itertools.product(little, keeps))


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_every_combination_that_is_documented_makes_its_systems(path):
  module = load(path)
  text = module.__doc__ + (ROOT / 'README.md').read_text()
  named = set(re.findall(r'\w+(?:,\w+)+', text))
  named = {x for x in named if set(x.split(',')) <= set(module.VARIANTS)}
  for variants in {'smoke', *named}:
    config = given_channels(module.get_config(variants))
    for frames in (config.frames, config.eval.frames):
      build.system(config, frames)


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_the_data_of_an_evaluation_can_be_changed_by_the_field(path):
  config = load(path).get_config('smoke')
  assert build.evaluated_data(config) == config.data.to_dict()
  config.eval.data.size = (48, 48)
  changed = config.data.to_dict() | {'size': (48, 48)}
  assert build.evaluated_data(config) == changed


def test_an_evaluation_with_a_source_of_its_own_stands_for_itself():
  config = load(ROOT / 'configs' / 'apr_vfi.py').get_config('demo,on_x4k')
  assert build.evaluated_data(config) == {
    'source': 'frames',
    'dataset': 'x4k1000fps',
    'root': 'data/x4k1000fps',
    'size': None,
  }


def test_later_variants_of_the_table_change_earlier_ones():
  module = load(ROOT / 'configs' / 'rvd.py')
  for name, asked in {'bair': 16, 'kth': 12, 'demo': 4}.items():
    config = module.get_config(f'rvd23,{name}')
    assert config.frames.target == (2, 3, 4)
    assert config.eval.frames.target == tuple(range(4, 4 + asked))
  config = module.get_config('dpm,smoke')
  assert config.model.sampler == 'dpm++' and config.model.steps == 20
  module = load(ROOT / 'configs' / 'simvp.py')
  for name, seen in {'kth': 10, 'demo': 5, 'weather': 12}.items():
    config = module.get_config(f'long,{name}')
    assert config.eval.frames.target == tuple(range(seen, seen + 40))


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_unknown_variants_and_fields_are_refused(path):
  with pytest.raises(ValueError, match='smoek.*smoke'):
    load(path).get_config('smoek')
  config = load(path).get_config('')
  with pytest.raises((AttributeError, KeyError)):
    config.stepz = 3
  for section in (config.model, config.data, config.eval.data, config.augment):
    with pytest.raises((AttributeError, KeyError)):
      section.betta = 3


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_the_docstring_names_every_variant_and_the_command(path):
  module = load(path)
  assert 'python -m vidpred_jax.main --config=configs/' in module.__doc__
  for variant in module.VARIANTS:
    assert variant in module.__doc__, variant
