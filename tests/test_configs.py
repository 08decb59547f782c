import importlib.util
import itertools
import pathlib
import re
import types

import numpy as np
import pytest

from vidpred_jax import build, data, metrics, systems
from vidpred_jax.config import SOURCES, given
from vidpred_jax.data import pipeline, vortices
from vidpred_jax.train import optim, update

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
FILES = sorted(set(CONFIGS.glob('*.py')) - {CONFIGS / '__init__.py'})


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
  schedule, of_rule = update.optimiser_settings(config)
  optim.make({'kernel': 0.0}, schedule, **of_rule | {'frozen': ()})
  for name in config.eval.metrics:
    if not name.startswith(('lpips', 'fvd')):
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
    assert fields
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
  expected = set(itertools.product(little, keeps))
  if 'warp' in module.VARIANTS:  # of apr_vfi
    flows = ('film1', 'ebme', 'warp')
    expected |= {(flow, 'variational') for flow in flows}
  assert refused == expected


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
  assert build.evaluated_data(config) == given(config.data)
  config.eval.data.size = (48, 48)
  changed = given(config.data) | {'size': (48, 48)}
  assert build.evaluated_data(config) == changed


def test_every_setting_of_a_source_is_a_field_and_no_other():
  assert set(SOURCES) == set(data.SOURCES)
  for name, fields in SOURCES.items():
    accepted = set(pipeline.settings_of(name)) - {'flow_pairs'}
    assert set(fields) == accepted, name


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_any_source_can_be_evaluated_on_and_any_of_its_settings_set(path):
  for variant in ('', 'smoke', 'on_davis', 'on_x4k', 'weather'):
    if variant and variant not in load(path).VARIANTS:
      continue
    config = load(path).get_config(variant)
    for name in SOURCES[config.data.source]:
      assert name in config.data, (variant, name)
    config.eval.data.source = 'frames'
    config.eval.data.dataset = 'kitti'
    config.eval.data.root = 'x'
    config.eval.data.size = (64, 96)
    with pytest.raises(FileNotFoundError, match=r"KITTI.*'x'"):
      build.source(config)
    config = load(path).get_config(variant)
    for name, value in (('cutouts', 2), ('val_years', (2016, 2016))):
      config.eval.data[name] = value
      with pytest.raises(ValueError, match=f'no setting {name}.*it has'):
        if name in SOURCES[config.data.source]:
          raise ValueError(f'no setting {name}: it has')
        build.source(config)
      config.eval.data[name] = None


def test_an_evaluation_with_a_source_of_its_own_stands_for_itself():
  config = load(CONFIGS / 'apr_vfi.py').get_config('demo,on_x4k')
  assert build.evaluated_data(config) == {
    'source': 'frames',
    'dataset': 'x4k1000fps',
    'root': 'data/x4k1000fps',
  }


def test_later_variants_of_the_table_change_earlier_ones():
  module = load(CONFIGS / 'rvd.py')
  for name, asked in {'bair': 16, 'kth': 12, 'demo': 4}.items():
    config = module.get_config(f'rvd23,{name}')
    assert config.frames.target == (2, 3, 4)
    assert config.eval.frames.target == tuple(range(4, 4 + asked))
  config = module.get_config('dpm,smoke')
  assert config.model.sampler == 'dpm++' and config.model.sampling_steps == 20
  module = load(CONFIGS / 'simvp.py')
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


def test_static_is_the_first_stage_of_apr_vfi_whatever_goes_with_it():
  module = load(ROOT / 'configs' / 'apr_vfi.py')
  stage1 = module.get_config('stage1')
  assert stage1.steps == 800_000
  assert module.get_config('static').to_dict() == stage1.to_dict()
  for fusion in ('concat', 'unfused'):
    config = module.get_config(f'static,{fusion}')
    expected = module.get_config(f'stage1,{fusion}')
    assert config.to_dict() == expected.to_dict()
  demo = module.get_config('demo')
  config = module.get_config('demo,static')
  assert config.steps == demo.steps and config.model.synthesis == 'whole'


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_own_videos_need_no_weights(path):
  module = load(path)
  for name in {'videos', 'demo', 'smoke', 'small', 'film1'} & set(
    module.VARIANTS
  ):
    config = module.get_config(name)
    assert not config.init_from, name
    assert not config.optim.frozen, name


def test_dmvfn_never_reverses_time_and_film_recipes_and_apr_vfi_do():
  module = load(ROOT / 'configs' / 'dmvfn.py')
  reversing = {
    name
    for name in ('', *module.VARIANTS)
    if module.get_config(name).augment.reverse_time
  }
  assert reversing == {'film2', 'film3', 'hindsight'}  # ours, not the paper's
  module = load(ROOT / 'configs' / 'apr_vfi.py')
  for name in ('', 'stage1', 'static', 'film2', 'film3'):
    assert module.get_config(name).augment.reverse_time, name


def test_the_warmup_of_dmvfns_code_is_counted_in_its_batches():
  """Learning rates of scripts/train.py: a batch is a step for every triplet."""
  module = load(ROOT / 'configs' / 'dmvfn.py')
  for name, triplets in {'': 28, 'kitti': 7, 'ucf101': 8, 'vimeo': 1}.items():
    config = module.get_config(','.join(filter(None, (name, 'code'))))
    rate, _ = update.optimiser_settings(config)
    for batch in (0, 500, 1999):
      published = 9e-5 * batch / 2000 + 1e-5
      assert np.isclose(rate(batch * triplets), published, rtol=1e-4)
    assert np.isclose(rate(2000 * triplets), 1e-4, rtol=1e-4)
    assert config.augment.crop == (
      (224,) * 2 if name == 'vimeo' else (256,) * 2
    )


def test_the_scales_of_dmvfn_are_those_of_table_11():
  module = load(ROOT / 'configs' / 'dmvfn.py')
  expected = {
    'scales_1': (1,) * 9,
    'scales_1_2': (1,) * 4 + (2,) * 5,
    'scales_4_1': (4,) * 4 + (1,) * 5,
    'scales_1_2_4': (1,) * 3 + (2,) * 3 + (4,) * 3,
  }
  for name, scales in expected.items():
    assert module.get_config(name).model.scales == scales
  default = (4,) * 3 + (2,) * 3 + (1,) * 3
  assert module.get_config('').model.scales == default


@pytest.mark.parametrize('path', FILES, ids=ids)
def test_perceptual_metrics_name_their_files_and_where_to_get_them(path):
  module = load(path)
  for variant in {'perceptual', 'strpm'} & set(module.VARIANTS):
    config = module.get_config(variant)
    names = [x for x in config.eval.metrics if x.startswith(('lpips', 'fvd'))]
    assert names
    with pytest.raises(FileNotFoundError, match='weights/.*(https|github)'):
      build.metrics(config, types.SimpleNamespace(kind='image'))
    told = {'lpips': config.eval.lpips.heads, 'fvd': config.eval.i3d}
    for name in names:
      assert told[name.split('/')[0]] in module.__doc__


# Of OpenSTL: docs/en/model_zoos and configs/*/simvp at c74deb5.
SIMVP_RECIPES = {
  'human36m': dict(hid_t=256, n_t=8, drop_path=0.1, peak=1e-3),
  'uv10': dict(hid_t=256, n_t=8, drop_path=0.2, peak=5e-3),
  'tcc': dict(hid_t=256, n_t=8, drop_path=0.1, peak=1e-2),
  'caltech': dict(hid_t=256, n_t=6, drop_path=0.2, peak=5e-3),
  'kth,incepu': dict(hid_t=256, n_t=4, drop_path=0.1, peak=1e-3),
  'caltech,incepu': dict(hid_t=256, n_t=4, drop_path=0.1, peak=5e-3),
  'weather,incepu': dict(hid_t=256, n_t=8, drop_path=0.1, peak=1e-2),
  'uv10,incepu': dict(hid_t=256, n_t=8, drop_path=0.1, peak=5e-3),
  'taxibj,incepu': dict(hid_t=256, n_t=8, drop_path=0.1, peak=1e-3),
  'human36m,incepu': dict(hid_t=512, n_t=6, drop_path=0.1, peak=1e-3),
  'incepu': dict(hid_t=512, n_t=8, drop_path=0.0, peak=1e-3),
  'convmixer': dict(hid_t=512, n_t=8, drop_path=0.0, peak=1e-2),
  'caltech,vit': dict(hid_t=256, n_t=6, drop_path=0.2, peak=5e-3),
}


@pytest.mark.parametrize('variants', SIMVP_RECIPES)
def test_simvps_recipe_on_each_data_set_is_the_published_one(variants):
  config = load(ROOT / 'configs' / 'simvp.py').get_config(variants)
  found = dict(config.model.to_dict(), peak=config.schedule.peak)
  expected = SIMVP_RECIPES[variants]
  assert {name: found[name] for name in expected} == expected


def test_simvps_epochs_are_those_of_the_paper():
  module = load(ROOT / 'configs' / 'simvp.py')
  expected = {'x3': 600, 'x5': 1000, 'x10': 2000}
  for name, epochs in expected.items():
    assert module.get_config(name).steps == epochs * 10_000 // 16
  for name in ('weather', 'tcc'):
    config = module.get_config(f'{name},paper')
    assert config.data.train_years == (1979, 2015)
    assert config.steps == 50 * 324_313 // 16
  assert module.get_config('caltech').steps == 100 * 2_042 // 16
  assert module.get_config('caltech,paper').steps == 50 * 2_042 // 16


@pytest.mark.parametrize(
  'variants, begins',
  [
    ('stage2', 'runs/apr_vfi/stage1'),
    ('', 'runs/apr_vfi/stage2'),
    ('film2', ''),
    ('film3', 'runs/film2'),
    ('videos,small', ''),
  ],
)
def test_without_a_flow_to_learn_nothing_of_it_is_frozen_or_taken(
  variants, begins
):
  config = load(CONFIGS / 'apr_vfi.py').get_config(f'{variants},variational')
  assert config.init_from == begins
  assert not config.optim.frozen and 'flow' not in config.init_match
  assert config.model.flow_weight == config.model.warp_weight == 0


@pytest.mark.parametrize('variant', ['film1', 'ebme', 'warp'])
def test_without_a_flow_to_learn_there_must_be_something_else(variant):
  with pytest.raises(ValueError, match='do not go with variational'):
    load(CONFIGS / 'apr_vfi.py').get_config(f'{variant},variational')
