import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import cost
from vidpred_jax.models import apr_vfi, blending
from vidpred_jax.ops import routing

SMALL = {
  'widths': (8, 6, 4),
  'depths': (1, 2, 0),
  'features': 4,
  'context_channels': 2,
  'context_hidden': 4,
}
# Table 3: keep ratios and the multiply-adds in T at 2048x1080; and without APR.
TABLE_3 = {
  (0.2, 0.5, 0.7, 1.0): 1.341,
  (0.1, 0.4, 0.6, 0.9): 1.271,
  (0.2, 0.4, 0.6, 0.8): 1.296,
  (0.5, 0.5, 0.5, 0.5): 1.389,
  (0.9, 0.6, 0.4, 0.1): 1.504,
  (1.0, 1.0, 1.0, 1.0): 1.73,
}


@functools.cache
def small(patch=8, routed=True, **settings):
  """A model and variables: as at the start, but for a larger head."""
  model = apr_vfi.APRVFI(patch=patch, routed=routed, **SMALL, **settings)
  other = apr_vfi.APRVFI(patch=8, **SMALL, **settings)
  pair = jnp.zeros((1, 2, 32, 32, 3))
  shapes = jax.eval_shape(other.init, jax.random.key(0), pair)
  rng = np.random.default_rng(0)

  def draw(leaf):
    bound = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
    return rng.uniform(-bound, bound, leaf.shape).astype(np.float32)

  variables = jax.tree.map(draw, shapes)
  return model, variables


def moved(model, variables, prepared, time):
  warp = jax.jit(functools.partial(model.apply, method='warp'))
  return warp(variables, prepared, time)


@functools.cache
def warped(size=(29, 37)):
  """What precedes the synthesis, of two random frames and a random flow."""
  keys = jax.random.split(jax.random.key(1), 3)
  pair = jax.random.uniform(keys[0], (2, 2, *size, 3))
  flow = 3 * jax.random.normal(keys[1], (2, *size, 4))
  contexts = tuple(
    jax.random.normal(key, (2, 2, *size, 2))
    for key in jax.random.split(keys[2], 3)
  )
  prepared = blending.Prepared(pair, flow, contexts)
  return prepared, moved(*small(), prepared, 0.3)


def synthesised(model, variables, prepared, warped, gates=None, routed=False):
  run = functools.partial(model.apply, method='synthesise', routed=routed)
  return jax.jit(run)(variables, prepared, warped, gates)


def test_size_and_cost_are_the_papers():
  model = apr_vfi.APRVFI()
  pair = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), pair)
  size = cost.parameters(variables)
  assert size['flow'] == 632_900
  np.testing.assert_allclose(size['router'], 5.13e3, rtol=1e-3)
  np.testing.assert_allclose(sum(size.values()), 2.2e6, rtol=0.05)

  def everything(variables, pair):
    prepared = model.apply(variables, pair, method='prepare')
    warped = model.apply(variables, prepared, 0.5, method='warp')
    logits = model.apply(variables, warped, method='route')
    output = model.apply(variables, prepared, warped, method='synthesise')
    return logits, output.frame

  pair = jax.ShapeDtypeStruct((1, 2, 1080, 2048, 3), jnp.float32)
  macs = cost.count_macs(everything, variables, pair)
  blocks = cost.by_part(macs, [f'block_{i}' for i in range(5)])
  for ratios, expected in TABLE_3.items():
    skipped = sum(
      (1 - ratio) * blocks[f'block_{i}'] for i, ratio in enumerate(ratios, 1)
    )
    total = macs.total() - skipped
    np.testing.assert_allclose(total, expected * 1e12, rtol=0.02)


@pytest.mark.parametrize(
  'fusion, motion',
  [('add', 'biflownet'), ('concat', 'biflownet'), ('add', 'variational')],
)
def test_skipping_patches_is_gating_them(fusion, motion, platform):
  """Equation 3; whatever is skipped, and with all patches."""
  model, variables = small(fusion=fusion, motion=motion)
  prepared, _ = warped()
  there = moved(model, variables, prepared, 0.3)
  gates = jax.random.bernoulli(jax.random.key(2), 0.4, (2, 4, 5, 2))
  gates = gates.astype(jnp.float32)
  run = functools.partial(model.apply, method='synthesise')
  gated = jax.jit(run)
  skipped = jax.jit(functools.partial(run, routed=True))
  frames = []
  for case in (gates, jnp.ones_like(gates)):
    ours = skipped(variables, prepared, there, case)
    theirs = gated(variables, prepared, there, case)
    np.testing.assert_allclose(ours.frame, theirs.frame, atol=1e-5)
    np.testing.assert_allclose(ours.mask, theirs.mask, atol=1e-5)
    frames.append(ours.frame)
  assert np.abs(frames[0] - frames[1]).max() > 1e-3
  if fusion == 'add':
    every = gated(variables, prepared, there)
    np.testing.assert_allclose(every.frame, frames[1], atol=1e-5)


def test_a_patch_depends_on_its_own_gates_only():
  model, variables = small()
  prepared, there = warped()
  ones = jnp.ones((2, 4, 5, 2))
  other = ones.at[1, 2, 3].set(0)
  change = np.abs(
    synthesised(model, variables, prepared, there, ones).frame
    - synthesised(model, variables, prepared, there, other).frame
  ).max(-1)
  assert change[1, 16:24, 24:32].max() > 1e-4
  change[1, 15:25, 23:33] = 0  # the last convolution is 3x3
  np.testing.assert_allclose(change, 0, atol=1e-6)


def test_work_is_that_of_the_routes():
  model, variables = small(fusion='none')
  prepared, there = warped()

  def macs(gates):
    run = functools.partial(model.apply, method='synthesise', routed=True)
    count = cost.count_macs(
      lambda gates: run(variables, prepared, there, gates), gates, run=True
    )
    return cost.by_part(count, [f'block_{i}' for i in range(3)])

  ones = jnp.ones((2, 4, 5, 2))  # 40 patches, five chunks of 8
  full = macs(ones)
  half = macs(ones.at[0, :, :, 0].set(0).at[1, 0, :4, 0].set(0))
  assert half['block_1'] * 5 == full['block_1'] * 2
  assert half['block_2'] == full['block_2']
  assert half['block_0'] == full['block_0']


def test_patches_are_the_whole_image_where_borders_do_not_reach():
  """And are not where they do."""
  block = apr_vfi.RefineBlock(width=8, depth=1, features=4, residual=True)
  assert block.reach == 6
  x = jax.random.normal(jax.random.key(0), (1, 64, 64, 4))
  variables = jax.jit(block.init)(jax.random.key(1, impl='rbg'), x)
  apply = jax.jit(block.apply)
  whole = apply(variables, x)
  patches = apply(variables, routing.to_patches(x, 32))
  change = np.abs(routing.from_patches(patches, (64, 64)) - whole)[0].max(-1)
  reach = block.reach
  for rows in (slice(0, 32 - reach), slice(32 + reach, 64)):
    for columns in (slice(0, 32 - reach), slice(32 + reach, 64)):
      np.testing.assert_allclose(change[rows, columns], 0, atol=1e-5)
  assert change[31 + reach, : 32 - reach].max() > 1e-6


@pytest.mark.parametrize('size', [(30, 37), (8, 8), (5, 3)])
def test_any_size(size):
  pair = jax.ShapeDtypeStruct((2, 2, *size, 3), jnp.float32)
  for patch in (8, 16, 128, None):
    model = apr_vfi.APRVFI(patch=patch, routed=patch is not None, **SMALL)
    output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), pair)
    assert output.frame.shape == (2, *size, 3)


@pytest.mark.parametrize('fusion', apr_vfi.FUSIONS)
def test_fusions_in_patches_and_whole(fusion):
  sizes = {}
  for patch in (8, None):
    model = apr_vfi.APRVFI(patch=patch, routed=False, fusion=fusion, **SMALL)
    pair = jax.ShapeDtypeStruct((1, 2, 24, 24, 3), jnp.float32)
    output, variables = jax.eval_shape(
      model.init_with_output, jax.random.key(0), pair
    )
    assert output.frame.shape == (1, 24, 24, 3)
    sizes[patch] = cost.parameters(variables)['synthesis']
  assert sizes[8] == sizes[None]
  more = 9 * 3 * 4 * 4 + 4 if fusion == 'concat' else 0
  plain = apr_vfi.APRVFI(routed=False, **SMALL)
  variables = jax.eval_shape(plain.init, jax.random.key(0), pair)
  assert sizes[8] == cost.parameters(variables)['synthesis'] + more


def test_untrained_it_is_plain_forward_warping():
  model = apr_vfi.APRVFI(patch=8, **SMALL)
  _, variables = small()
  tree = variables['params']
  head = {
    'head_kernel': 0.001 * np.ones((3, 3, 4, 4)),
    'head_bias': np.zeros(4),
  }
  tree = tree | {'synthesis': tree['synthesis'] | head}
  prepared, there = warped()
  out = synthesised(model, {'params': tree}, prepared, there)
  plain = blending.blend(prepared, there)
  seen = np.asarray(jnp.any(there.weight > 0, 1))
  np.testing.assert_allclose(
    np.where(seen, out.frame, 0), np.where(seen, plain.frame, 0), atol=0.05
  )


def test_plain_forward_warping():
  """Weights by time, one frame where the other has a hole, both as they are."""
  pair = jnp.stack(
    [jnp.full((1, 1, 4, 3), 0.2), jnp.full((1, 1, 4, 3), 0.8)], 1
  )
  weight = jnp.asarray([[1.0, 1, 0, 0], [1, 0, 1, 0]]).reshape(1, 2, 1, 4, 1)
  there = blending.Warped(
    frames=pair * (weight > 0),
    flows=jnp.zeros((1, 2, 1, 4, 2)),
    weight=weight,
    to=jnp.zeros((1, 2, 1, 4, 2)),
    time=jnp.float32(0.25),
  )
  prepared = blending.Prepared(pair, jnp.zeros((1, 1, 4, 4)), ())
  out = blending.blend(prepared, there)
  mixed = 0.75 * 0.2 + 0.25 * 0.8
  np.testing.assert_allclose(
    out.frame[0, 0, :, 0], [mixed, 0.2, 0.8, mixed], rtol=1e-5
  )
  weights = jax.nn.sigmoid(blending.blend_logit(there))[0, 0, :, 0]
  np.testing.assert_allclose(weights, [0.75, 1, 0, 0.75], atol=4e-3)


def test_both_frames_move_to_the_wanted_time():
  """A pattern that moves by (8, 4): at a quarter, by (2, 1) and (-6, -3)."""
  scene = jax.random.uniform(jax.random.key(3), (1, 40, 40, 3))
  at = lambda t: scene[:, 12 - 4 * t : 32 - 4 * t, 12 - 8 * t : 32 - 8 * t]  # noqa: E731
  pair = jnp.stack([at(0), at(1)], 1)
  flow = jnp.broadcast_to(jnp.asarray([8.0, 4, -8, -4]), (1, 20, 20, 4))
  there = moved(*small(), blending.Prepared(pair, flow, ()), 0.25)
  truth = scene[:, 11:31, 10:30]
  np.testing.assert_allclose(there.frames[:, 0, 1:, 2:], truth[:, 1:, 2:])
  np.testing.assert_allclose(there.frames[:, 1, :-3, :-6], truth[:, :-3, :-6])
  assert np.all(there.weight[:, 0, 0] == 0)
  assert np.all(there.frames[:, 0, 0] == 0)
  np.testing.assert_allclose(there.to[0, :, 5, 5], [[2, 1], [-6, -3]])
  np.testing.assert_allclose(there.flows[0, 0, 5, 5], [2, 1])


def test_router_compares_the_patches_of_an_image():
  model, variables = small()
  _, there = warped((30, 40))
  route = jax.jit(functools.partial(model.apply, method='route'))
  logits = route(variables, there)
  assert logits.shape == (2, 4, 5, 2, 2)
  # What is standardised over patches has no part in the mean over them.
  bias = variables['params']['router']['linear']['bias'].reshape(2, 2)
  np.testing.assert_allclose(logits.mean((1, 2)), [bias, bias], atol=1e-5)
  touched = there._replace(frames=there.frames.at[0, :, 8:16, 16:24].add(0.5))
  change = np.abs(route(variables, touched) - logits).max((-1, -2))
  assert np.unravel_index(change.argmax(), change.shape) == (0, 1, 2)
  assert change[1].max() == 0
