"""The published weights of RVD as Flax variables."""

import functools
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from vidpred_jax import checkpoint, convert, params, systems
from vidpred_jax.convert import weights
from vidpred_jax.convert.rvd import torch_names, torch_widths
from vidpred_jax.models import rvd
from vidpred_jax.ops import diffusion

SETTINGS = {
  'channels': 2,
  'dim': 8,
  'mults': (1, 2),
  'mean_mults': (1, 2),
  'num_timesteps': 20,
  'sigma': 1.0,
}
FRAMES = systems.Frames((0, 1), (2, 3, 4, 5, 6, 7))


def buffers():
  """Names and some values of what the reference keeps beside the weights."""
  schedule = diffusion.cosine(20)
  names = (
    'betas', 'alphas_cumprod', 'alphas_cumprod_prev', 'sqrt_alphas_cumprod',
    'sqrt_one_minus_alphas_cumprod', 'log_one_minus_alphas_cumprod',
    'sqrt_recip_alphas_cumprod', 'sqrt_recipm1_alphas_cumprod',
    'posterior_variance', 'posterior_log_variance_clipped',
    'posterior_mean_coef1', 'posterior_mean_coef2',
  )  # fmt: skip
  values = dict.fromkeys(names, np.ones(20, np.float32))
  return values | {'betas': schedule.betas.astype(np.float32)}


@functools.cache
def random_variables(seed, mode='residual'):
  system = systems.make('rvd', frames=FRAMES, **SETTINGS, mode=mode)
  clip = jax.ShapeDtypeStruct((1, 8, 8, 8, 2), np.float32)
  shapes = jax.eval_shape(system.init, jax.random.key(0), clip)
  random = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: random.normal(size=x.shape).astype(np.float32), shapes
  )


def published(variables):
  """A `state_dict` in PyTorch's layouts."""
  flat = params.flatten(variables)
  state = buffers()
  for name, (path, layout) in torch_names(flat).items():
    axes, x = weights.AXES[layout], flat[path]
    if layout == 'plane':
      state[name] = x.reshape(1, -1, 1, 1)
    else:
      state[name] = x.transpose(np.argsort(axes))
  return state


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('mode', ['residual', 'frame'])
def test_weights_find_their_places(mode):
  variables = random_variables(0, mode)
  state = published(variables)
  got = convert.from_torch('rvd', state, **SETTINGS, mode=mode)
  assert_equal(got, variables)
  prefixes = {name.split('.')[0] for name in state} - set(buffers())
  expected = {'denoise_fn', 'history_fn', 'transform_fn'}
  if mode == 'frame':
    expected -= {'transform_fn'}
  assert prefixes == expected
  # As data parallelism and trainers save it.
  for prefix in ('module.', 'model.', 'model.diffusion.'):
    others = {prefix + k: x for k, x in state.items()}
    got = convert.from_torch('rvd', others, **SETTINGS, mode=mode)
    assert_equal(got, variables)
    told = convert.trained_settings('rvd', others)
    assert told == convert.trained_settings('rvd', state) != {}


@pytest.mark.parametrize(
  'changes, settings, message',
  [
    ({}, {'sigma': 2.0}, 'trained with sigma=1; got sigma=2.0'),
    ({}, {'sigma': None}, 'sigma=None .None is the 2 of the paper'),
    ({}, {'num_timesteps': 30}, 'trained with num_timesteps=20; got 30'),
    ({'betas': np.ones(3)}, {}, 'trained with num_timesteps=3; got 20'),
    ({'alphas': np.ones(20)}, {}, 'alphas'),
    ({}, {'mode': 'frame'}, 'transform_fn'),
    ({}, {'dim': 16}, r'denoise_fn.*\(8,.*\(16,|denoise_fn.*\(16,.*\(8,'),
  ],
)
def test_other_weights_and_settings_are_refused(changes, settings, message):
  state = published(random_variables(0)) | changes
  with pytest.raises(ValueError, match=message) as error:
    convert.from_torch('rvd', state, **SETTINGS | settings)
  assert str(error.value).startswith('These weights cannot become rvd')


@pytest.mark.parametrize('mode', ['residual', 'frame'])
def test_the_file_tells_its_settings(mode):
  variables = random_variables(0, mode)
  state = published(variables)
  told = convert.trained_settings('rvd', state)
  expected = SETTINGS | {'mode': mode}
  del expected['sigma'], expected['mean_mults' if mode == 'frame' else 'mode']
  assert told == expected
  assert_equal(convert.from_torch('rvd', state, sigma=1.0), variables)
  # As it is of published sizes; what it does not hold it does not tell.
  shapes = {
    f'{net}.downs.{i}.0.block1.block.0.weight': (width, 3, 3, 3)
    for net, widths in (
      ('history_fn', (48, 96, 192, 384)),
      ('transform_fn', (48, 96, 96, 192)),
    )
    for i, width in enumerate(widths)
  }
  assert torch_widths(shapes) == {'channels': 3, **rvd.WIDTHS_64}
  assert convert.trained_settings('rvd', {'conv.weight': np.ones(3)}) == {}
  assert convert.trained_settings('dmvfn', state) == {}


def test_other_files_than_rvds_are_refused():
  with pytest.raises(ValueError, match='cannot become rvd.*conv.weight'):
    convert.from_torch('rvd', {'conv.weight': np.ones(3)}, sigma=1)


def test_a_stored_case_is_taken_over_whole(shared):
  path = shared / 'parity' / 'rvd' / 'case_a2_6level_dim16_C1_64x64.npz'
  case = dict(np.load(path))
  cfg = json.loads(bytes(case['meta_json']))['cfg']
  settings = {
    'dim': cfg['dim'],
    'mults': tuple(cfg['mults']),
    'mean_mults': tuple(cfg['tmults']),
    'num_timesteps': cfg['N'],
  }
  state = {k[2:]: x for k, x in case.items() if k.startswith('w/')}
  variables = convert.from_torch('rvd', state, **settings, sigma=1)
  kernel = variables['params']['mean_net']['readout']['kernel']
  stored = case['w/transform_fn.mu.weight']
  np.testing.assert_array_equal(kernel, stored.transpose(2, 3, 1, 0))
  assert sum(x.size for x in jax.tree.leaves(variables)) == 2_822_018


def test_a_file_of_two_sets_of_weights_needs_a_key():
  """Shown to the part that picks: `.npz` files have no second level."""
  first, second = (published(random_variables(seed)) for seed in (0, 1))
  tree = {'model': first, 'ema': second, 'step': 7}
  with pytest.raises(ValueError, match='by key: ema, model'):
    weights._named_arrays(tree, 'rvd.pt', None)
  for key, expected in (('model', first), ('ema', second)):
    assert weights._named_arrays(tree, 'rvd.pt', key) is expected


def test_the_command_exports_a_system_that_loads(tmp_path):
  variables = random_variables(0)
  np.savez(tmp_path / 'w.npz', **published(variables))
  subprocess.run(
    [
      sys.executable, '-m', 'vidpred_jax.convert', '--system=rvd',
      f'--input={tmp_path / "w.npz"}', f'--output={tmp_path / "out"}',
      '--set', 'sigma=1.0',
    ],
    check=True,
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
  )  # fmt: skip
  record, got = checkpoint.read(tmp_path / 'out')
  assert_equal(got, variables)
  stored = {k: list(x) if 'mults' in k else x for k, x in SETTINGS.items()}
  assert record['settings'] == stored
  system, _ = checkpoint.load(
    tmp_path / 'out', sampler='dpm++', sampling_steps=5
  )
  assert len(system.frames.context) == 4 and system.stochastic
