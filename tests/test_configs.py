import importlib.util
import itertools
import pathlib

import pytest

from vidpred_jax import build, data, metrics
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


CASES = list(
  itertools.chain.from_iterable(
    [(path, '')] + [(path, v) for v in load(path).VARIANTS] for path in FILES
  )
)


def ids(value):
  return getattr(value, 'stem', value)


@pytest.mark.parametrize('path, variant', CASES, ids=ids)
def test_every_variant_makes_its_system_and_optimiser(path, variant):
  config = load(path).get_config(variant)
  for frames in (config.frames, config.eval.frames):
    system = build.make_system(config, frames)
    assert system.frames.context == tuple(frames.context)
  for size in (config.augment.get('crop'), config.data.get('size')):
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
  settings = build.protocol_data(config)
  try:
    data.make_source(
      settings.pop('source'), split='test', num_frames=3, **settings
    )
  except FileNotFoundError as error:  # the data set is not on this disk
    assert 'http' in str(error) or settings['root'] in str(error)


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_every_config_has_a_smoke_variant_and_a_comment_per_field(path):
  assert 'smoke' in load(path).VARIANTS
  text = path.read_text()
  body = text[text.index('config = ConfigDict()') : text.index('config.lock()')]
  lines = body.splitlines()
  fields = [i for i, x in enumerate(lines) if x.startswith('  config.')]
  assert len(fields) > 20
  for i in fields:
    commented = '#' in lines[i] or lines[i - 1].startswith('  #')
    closing = '#' in ''.join(lines[i : i + 4])
    assert commented or closing, lines[i]


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_variants_combine(path):
  module = load(path)
  for pair in itertools.permutations(module.VARIANTS, 2):
    config = module.get_config(','.join(pair))
    settings = build.protocol_data(config)
    try:
      data.make_source(
        settings.pop('source'), split='test', num_frames=3, **settings
      )
    except FileNotFoundError:  # the data set is not on this disk
      continue


def test_variants_of_rvd_may_stand_in_any_order():
  module = load(ROOT / 'configs' / 'rvd.py')
  for pair in itertools.combinations(module.VARIANTS, 2):
    one, other = (module.get_config(','.join(x)) for x in (pair, pair[::-1]))
    assert one.to_dict() == other.to_dict(), pair
    for frames in (one.frames, one.eval.frames):
      build.make_system(one, frames)
  for name, asked in {'bair': 16, 'kth': 12, 'demo': 4}.items():
    config = module.get_config(f'rvd23,{name}')
    assert config.frames.target == (2, 3, 4)
    assert config.eval.frames.target == tuple(range(4, 4 + asked))
  config = module.get_config('dpm,smoke')
  assert config.model.sampler == 'dpm++' and config.model.steps == 20


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_unknown_variants_and_fields_are_refused(path):
  with pytest.raises(ValueError, match='smoek.*smoke'):
    load(path).get_config('smoek')
  config = load(path).get_config('')
  with pytest.raises((AttributeError, KeyError)):
    config.stepz = 3
  with pytest.raises((AttributeError, KeyError)):
    config.model.betta = 3


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_the_docstring_names_every_variant_and_the_command(path):
  module = load(path)
  assert 'python -m vidpred_jax.main --config=configs/' in module.__doc__
  for variant in module.VARIANTS:
    assert variant in module.__doc__, variant
