import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.arrays import waves
from vidpred_jax import cost
from vidpred_jax.convert.dmvfn import torch_names
from vidpred_jax.models import dmvfn, dmvfn_layers, initial
from vidpred_jax.ops import persistence, routing

# The rows of the paper's table 11, as printed (some have ten blocks).
TABLE_11 = {
  '[1]': (1,) * 10,
  '[2]': (2,) * 10,
  '[4]': (4,) * 10,
  '[1,2]': (1,) * 4 + (2,) * 6,
  '[1,4]': (1,) * 4 + (4,) * 5,
  '[2,1]': (2,) * 4 + (1,) * 5,
  '[4,1]': (4,) * 4 + (1,) * 5,
  '[1,2,4]': (1, 1, 1, 2, 2, 2, 4, 4, 4),
  '[4,2,1]': (4, 4, 4, 2, 2, 2, 1, 1, 1),
}


@functools.cache
def small(**settings):
  """A model of three blocks, its parameters and three pairs of frames."""
  settings = {'scales': (4, 2, 1), 'widths': (12, 8, 8)} | settings
  model = dmvfn.DMVFN(**settings)
  side = dmvfn.size_multiple(model.scales, model.router_scale)
  pair = jax.ShapeDtypeStruct((1, 2, side, side, 3), jnp.float32)
  params = initial.draw(jax.random.key(0), model, pair)['params']
  # Flow of some pixels, else nothing is to be seen.
  for i in range(len(model.scales)):
    params[f'block_{i}']['head']['kernel'] *= 4
  pair = jax.random.uniform(jax.random.key(1), (3, 2, 32, 48, 3))
  return model, {'params': params}, pair


@functools.cache
def all_outputs():
  model, variables, pair = small()
  gates = jnp.asarray([[1.0, 0, 1], [0, 0, 0], [1, 1, 0]])
  return gates, jax.jit(model.apply)(variables, pair, gates)


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def test_has_the_published_number_of_parameters():
  model = dmvfn.DMVFN()
  pair = jax.ShapeDtypeStruct((1, 2, 16, 16, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), pair)['params']
  blocks = [count(params[f'block_{i}']) for i in range(9)]
  assert blocks == [883_437] * 3 + [226_957] * 3 + [72_481] * 3
  assert count(params['router']) == 11_008 + 297
  assert count(params) == 3_559_930


@pytest.mark.parametrize('row', TABLE_11)
def test_every_row_of_table_11_can_be_made(row):
  scales = TABLE_11[row]
  model = dmvfn.DMVFN(scales=scales)
  side = dmvfn.size_multiple(scales, 1)
  assert side == 4 * max(scales)
  pair = jax.ShapeDtypeStruct((2, 2, side, 3 * side, 3), jnp.float32)
  output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), pair)
  assert len(output.frames) == len(scales)
  assert output.flow.shape == (2, side, 3 * side, 4)


def test_sizes_it_can_take():
  assert dmvfn.size_multiple((4, 2, 1), 1) == 16
  assert dmvfn.size_multiple((2, 1), 1) == 8
  assert dmvfn.size_multiple((3, 2), 1) == 24
  assert dmvfn.size_multiple((4,), 32) == 32


def test_widths_follow_the_position():
  assert dmvfn.default_widths(9) == (160,) * 3 + (80,) * 3 + (44,) * 3
  assert dmvfn.default_widths(3) == (160, 80, 44)
  assert len(dmvfn.default_widths(10)) == 10


def test_initial_values_are_those_of_pytorch():
  model = dmvfn.DMVFN(scales=(4, 1), widths=(40, 40))
  pair = jnp.zeros((1, 2, 16, 16, 3))
  params = initial.draw(jax.random.key(0), model, pair)['params']
  bounds = {
    'motion_in_0': 17 * 9,
    'motion_in_1': 20 * 9,
    'motion_mid_1': 40 * 9,
    'spatial_1': 8 * 9,
    'head': 5 * 16,
  }
  for name, fan_in in bounds.items():
    for array in ('kernel', 'bias'):
      values = np.asarray(params['block_0'][name][array]) * fan_in**0.5
      assert np.abs(values).max() <= 1
      if values.size > 500:
        np.testing.assert_allclose(values.std(), 3**-0.5, atol=0.05)
  assert np.all(params['block_1']['motion_mid_0']['slope'] == 0.25)
  linear = np.asarray(params['router']['linear_kernel']) * 32**0.5
  assert 0.8 < np.abs(linear).max() <= 1


def test_a_standardised_router_does_not_see_brightness_and_contrast():
  settings = {'scales': (2, 1), 'widths': (8, 8)}
  pair = jax.random.uniform(jax.random.key(2), (1, 2, 16, 16, 3))
  pairs = jnp.concatenate([pair, 0.5 * pair + 0.3, pair[:, ::-1]])
  apart = {}
  for standardised in (True, False):
    model, variables, _ = small(router_standardised=standardised, **settings)
    route = jax.jit(functools.partial(model.apply, method='route'))
    logits = np.asarray(route(variables, pairs)[..., 0])
    apart[standardised] = np.abs(logits[1:] - logits[0]).max(1)
    flat = route(variables, jnp.full(pairs.shape, 0.5))
    assert np.isfinite(flat).all()
  assert apart[True][0] < 0.1 * apart[False][0]
  assert apart[True][1] > apart[True][0]  # but which frame comes first


@pytest.mark.parametrize('spatial_path', [True, False])
def test_both_formulations_are_the_same_function(spatial_path):
  """Values and gradients, also of a scale factor that is odd."""
  settings = {
    'scales': (3, 2, 1),
    'widths': (12, 8, 8),
    'spatial_path': spatial_path,
    'router_scale': 2,
  }
  _, variables, _ = small(**settings)
  pair = jax.random.uniform(jax.random.key(2), (2, 2, 24, 48, 3))
  results = []
  for formulation in ('published', 'fast'):
    model, _, _ = small(formulation=formulation, **settings)

    def loss(variables, model=model):
      chances = routing.budgeted_probabilities(
        model.apply(variables, pair, method='route')[..., 0], 0.5
      )
      gates = routing.straight_through(jnp.ones((2, 3)), chances)
      output = model.apply(variables, pair, gates)
      # Weights: or the sum over a frame hides where things are.
      weights = jnp.cos(jnp.arange(pair[:, 0].size, dtype=jnp.float32))
      weights = weights.reshape(pair[:, 0].shape)
      total = sum(jnp.mean(weights * x) for x in output.frames)
      return total, (output, chances)

    results.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(variables))
  (value_a, aux_a), gradient_a = results[0]
  (value_b, aux_b), gradient_b = results[1]
  np.testing.assert_allclose(value_a, value_b, atol=1e-6)
  for a, b in zip(jax.tree.leaves(aux_a), jax.tree.leaves(aux_b)):
    np.testing.assert_allclose(a, b, atol=1e-5)
  for (path, a), b in zip(
    jax.tree.leaves_with_path(gradient_a), jax.tree.leaves(gradient_b)
  ):
    error = np.linalg.norm(a - b) / (np.linalg.norm(a) + 1e-12)
    assert error < 1e-3, jax.tree_util.keystr(path)


def test_skipping_is_masking_for_every_route_of_a_batch(platform):
  del platform
  model, variables, pair = small()
  gates, masked = all_outputs()
  run_route = functools.partial(model.apply, method='run_route')
  skipped = jax.jit(run_route)(variables, pair, gates)
  np.testing.assert_allclose(skipped.flow, masked.flow, atol=1e-5)
  np.testing.assert_allclose(skipped.mask, masked.mask, atol=1e-5)
  np.testing.assert_allclose(skipped.frames[-1], masked.frames[-1], atol=1e-5)
  assert np.all(skipped.flow[1] == 0) and np.any(skipped.flow[2] != 0)
  one = jax.jit(run_route)(variables, pair[2:], gates[2:])
  np.testing.assert_allclose(
    one.frames[-1][0], skipped.frames[-1][2], atol=1e-5
  )


def test_an_output_shows_its_block_whether_used_or_not():
  """But for the last: it shows what was used."""
  model, variables, pair = small()
  gates, masked = all_outputs()
  two = dmvfn.DMVFN(scales=(4, 2), widths=(12, 8))
  ungated = jax.jit(two.apply)(variables, pair, gates[:, :2].at[:, 1].set(1))
  np.testing.assert_allclose(masked.frames[1], ungated.frames[1], atol=1e-5)
  np.testing.assert_allclose(
    masked.frames[2][1], np.mean(pair[1], 0), atol=1e-6
  )


def test_only_the_blocks_on_the_route_are_computed():
  model, variables, pair = small(formulation='published')
  pair = pair[:1]

  def macs(gates):
    return cost.count_macs(
      lambda g: model.apply(variables, pair, g, method='run_route'),
      jnp.asarray([gates], jnp.float32),
      run=True,
    ).total()

  alone = [macs(np.eye(3)[i]) for i in range(3)]
  assert all(alone)
  assert macs([0, 0, 0]) == 0
  for route in ((1, 0, 1), (1, 1, 1)):
    assert macs(route) == np.dot(alone, route)


def test_gates_none_uses_every_block():
  model, variables, pair = small()
  ones = jax.jit(model.apply)(variables, pair, jnp.ones((3, 3)))
  none = jax.jit(model.apply)(variables, pair)
  for a, b in zip(jax.tree.leaves(ones), jax.tree.leaves(none)):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_half_precision_stays_close_and_keeps_the_flow_in_full():
  model, variables, pair = small(dtype=jnp.bfloat16)
  gates, full = all_outputs()
  half = jax.jit(model.apply)(variables, pair, gates)
  assert half.flow.dtype == half.frames[-1].dtype == jnp.float32
  # 8 bits of mantissa, some hundred steps of rounding.
  scale = np.abs(full.flow).max()
  np.testing.assert_allclose(half.flow, full.flow, atol=0.03 * scale)
  route = functools.partial(model.apply, method='route')
  assert jax.eval_shape(route, variables, pair).dtype == jnp.float32


def test_names_of_the_published_checkpoint_cover_all_parameters():
  for spatial_path, router in itertools.product((True, False), repeat=2):
    model = dmvfn.DMVFN(
      scales=(2, 1), spatial_path=spatial_path, router_outputs=int(router)
    )
    pair = jax.ShapeDtypeStruct((1, 2, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), pair)['params']
    paths = {
      '/'.join(entry.key for entry in path)
      for path, _ in jax.tree.leaves_with_path(params)
    }
    names = torch_names(2, spatial_path, router)
    assert {place for place, _, _ in names.values()} == paths
    assert len(names) == len(paths)


def moving(count, dx=3, dy=-2):
  return waves([(t * dx, t * dy) for t in range(count)])


def test_untrained_the_variational_flow_goes_on():
  clip = moving(3)
  model, _, _ = small(initial_flow='variational')
  variables = initial.draw(jax.random.key(0), model, clip[:, :2])
  output = jax.jit(model.apply)(variables, clip[:, :2])
  for frame in output.frames:
    error = np.abs(frame - clip[:, 2])[:, 8:-8, 8:-8]
    assert error.mean() < 0.02
  copied = np.abs(clip[:, 1] - clip[:, 2])[:, 8:-8, 8:-8].mean()
  assert copied > 0.1
  np.testing.assert_allclose(
    output.flow[0, 8:-8, 8:-8].mean((0, 1)), [-6, 4, -3, 2], atol=0.3
  )


def test_with_a_variational_flow_skipping_is_masking(platform):
  del platform
  model, variables, _ = small(initial_flow='variational')
  params = dict(variables['params'])
  for i in range(3):
    kernel = params[f'block_{i}']['head']['kernel']
    head = params[f'block_{i}']['head'] | {'kernel': kernel + 0.02}
    params[f'block_{i}'] = params[f'block_{i}'] | {'head': head}
  variables = {'params': params}
  pair = jnp.concatenate([moving(2), moving(2, dx=-1)])[:, :, :32, :48]
  gates = jnp.asarray([[0.0, 1, 0], [0, 0, 0]])
  masked = jax.jit(model.apply)(variables, pair, gates)
  run_route = functools.partial(model.apply, method='run_route')
  skipped = jax.jit(run_route)(variables, pair, gates)
  np.testing.assert_allclose(skipped.flow, masked.flow, atol=1e-4)
  np.testing.assert_allclose(skipped.frames[-1], masked.frames[-1], atol=1e-4)
  start, _ = jax.jit(persistence.first_flow)(pair)
  np.testing.assert_allclose(skipped.flow[1], start[1], atol=1e-4)
  assert np.abs(skipped.flow[0] - start[0]).max() > 0.03


@pytest.mark.parametrize('scale', [1, 2])
def test_a_block_with_hints_is_the_same_in_both_formulations(scale):
  keys = jax.random.split(jax.random.key(0), 4)
  frames, voxel, hints = (
    jax.random.uniform(key, (2, 16, 24, channels))
    for key, channels in zip(keys, (6, 5 + 2, 3))
  )
  state = dmvfn.State(voxel, frames[..., :3], frames[..., 3:])
  fast, published = (
    dmvfn_layers.Block(8, scale, formulation=name, others=2, hints=3)
    for name in ('fast', 'published')
  )
  variables = fast.init(keys[3], frames, state, hints)
  one, other = (
    jax.jit(block.apply)(variables, frames, state, hints)
    for block in (fast, published)
  )
  assert one.shape == voxel.shape
  np.testing.assert_allclose(one, other, atol=1e-5)
  without = jax.jit(fast.apply)(variables, frames, state, 0 * hints)
  assert np.abs(one - without).max() > 1e-3
