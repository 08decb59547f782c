import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import params
from vidpred_jax.convert.ebme import torch_names
from vidpred_jax.models import ebme, initial


@functools.cache
def published(folder):
  """The published weights, for RGB."""
  flat = {}
  with np.load(folder / 'weights_ebme.npz') as arrays:
    for name, (path, kind, images) in torch_names().items():
      array = arrays[name]
      if kind == 'conv':
        array = array.transpose(2, 3, 1, 0)
      for i in images:
        array[:, :, i : i + 3] = array[:, :, i : i + 3][:, :, ::-1].copy()
      flat[path] = array
  return {'params': params.unflatten(flat)}


def nhwc(x):
  return np.moveaxis(np.asarray(x, np.float32), 1, -1)


def shapes():
  pair = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.float32)
  model = ebme.BiFlowNet()
  return jax.eval_shape(model.init, jax.random.key(0), pair)['params']


def test_has_the_published_number_of_parameters():
  tree = shapes()
  count = {
    name: sum(x.size for x in jax.tree.leaves(part))
    for name, part in tree.items()
  }
  assert count == {'encoder': 125_424, 'estimator': 507_476}
  paths = {path for path, _, _ in torch_names().values()}
  assert paths == set(params.flatten(tree))


@pytest.mark.parametrize(
  'width, levels', [(448, 3), (449, 4), (896, 4), (960, 5), (2048, 6), (9, 1)]
)
def test_levels_follow_the_width(width, levels):
  assert ebme.num_levels(width) == levels


@pytest.mark.parametrize('size, levels', [((30, 45), 1), ((37, 70), 4)])
def test_any_size_and_number_of_levels(size, levels):
  model = ebme.BiFlowNet()
  pair = jax.ShapeDtypeStruct((3, 2, *size, 3), jnp.float32)
  run = functools.partial(model.init_with_output, levels=levels)
  estimate, _ = jax.eval_shape(run, jax.random.key(0), pair)
  assert estimate.flow.shape == (3, *size, 4)
  assert len(estimate.pyramid) == levels
  multiple = 2 ** (levels + 1)
  finest = [-(-side // multiple) * multiple // 4 for side in size]
  assert estimate.pyramid[-1].shape == (3, *finest, 4)


@functools.cache
def run(levels):
  model = ebme.BiFlowNet()
  return jax.jit(functools.partial(model.apply, levels=levels))


def test_padding_is_grey_at_the_right_and_bottom(shared):
  variables = published(shared / 'parity' / 'ebme')
  pair = jax.random.uniform(jax.random.key(0), (1, 2, 25, 44, 3))
  pads = ((0, 0), (0, 0), (0, 7), (0, 4), (0, 0))
  wide = jnp.pad(pair, pads, constant_values=0.5)
  flow = run(2)(variables, pair).flow
  np.testing.assert_allclose(
    flow, run(2)(variables, wide).flow[:, :25, :44], atol=1e-5
  )


def test_swapped_frames_swap_the_flows_nearly(shared):
  """The estimator was trained both ways round; a sign or order would show."""
  folder = shared / 'parity' / 'ebme'
  case = np.load(folder / 'case_a_beanbags_pyr3.npz')
  pair = np.stack([nhwc(case['img0']), nhwc(case['img1'])], 1)[..., ::-1] / 255
  variables = published(folder)
  there = np.asarray(run(3)(variables, pair).flow)
  back = np.asarray(run(3)(variables, pair[:, ::-1]).flow)
  swapped = back[..., [2, 3, 0, 1]]
  error = np.median(np.abs(there - swapped))
  assert error < 0.5 < np.mean(np.abs(there))


def test_standardised_features_are_compared_whatever_their_scale():
  rng = np.random.default_rng(0)
  features = rng.normal(3, 2, (2, 2, 6, 7, 5)).astype(np.float32)
  out = np.asarray(ebme.standardise(features))
  np.testing.assert_allclose(out.mean((1, 2, 3)), 0, atol=1e-5)
  np.testing.assert_allclose(out.var((1, 2, 3)), 1, rtol=1e-4)
  np.testing.assert_allclose(
    out, ebme.standardise(features * 50 + 8), atol=1e-4
  )
  pair = rng.uniform(size=(1, 2, 32, 32, 3)).astype(np.float32)
  plain, other = ebme.BiFlowNet(), ebme.BiFlowNet(standardised=True)
  weights = initial.draw(jax.random.key(0), plain, jnp.asarray(pair))
  flows = [
    jax.jit(functools.partial(net.apply, levels=1))(weights, pair).flow
    for net in (plain, other)
  ]
  assert np.abs(flows[0] - flows[1]).max() > 1e-3
