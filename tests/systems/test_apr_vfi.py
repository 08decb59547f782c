import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.arrays import waves
from vidpred_jax import losses, systems
from vidpred_jax.models import apr_vfi, blending
from vidpred_jax.systems import base

SETTINGS = {
  'widths': (8, 8, 4),
  'depths': (1, 0, 0),
  'features': 4,
  'context_channels': 2,
  'context_hidden': 4,
  'keep_ratios': (0.25, 0.5),
  'patch': 8,
  'levels': 1,
}
MIDDLE = systems.Frames((0, 2), (1,))


def made(frames=MIDDLE, **extra):
  return systems.make('apr_vfi', frames=frames, **SETTINGS | extra)


def clip(length=3, size=(24, 37)):
  """A random pattern that moves by (2, 1) a frame."""
  scene = jax.random.uniform(jax.random.key(0), (2, 80, 99, 3))
  return jnp.stack(
    [
      scene[:, 20 - t : 20 - t + size[0], 40 - 2 * t : 40 - 2 * t + size[1]]
      for t in range(length)
    ],
    1,
  )


@functools.cache
def variables(**extra):
  """Random ones, of which the flow is made larger."""
  system = made(**extra)
  shapes = jax.eval_shape(system.init, jax.random.key(0), clip())
  rng = np.random.default_rng(0)

  def draw(leaf):
    bound = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
    return rng.uniform(-bound, bound, leaf.shape).astype(np.float32)

  tree = jax.tree.map(draw, shapes)
  tree['params']['flow']['estimator']['conv_5']['kernel'] *= 8
  return tree


@functools.cache
def diagnostics(frames=MIDDLE, **extra):
  return jax.jit(made(frames, **extra).diagnostics)


def diagnosed(weights, context, frames=MIDDLE, **extra):
  return diagnostics(frames, **extra)(weights, context, jax.random.key(0))


@functools.cache
def loss(frames=MIDDLE, **extra):
  return jax.jit(made(frames, **extra).loss)


def without_router(weights):
  params = {k: v for k, v in weights['params'].items() if k != 'router'}
  return {'params': params}


def test_several_times_are_each_like_one_alone():
  video = clip(5)
  context = base.take(video, (0, 4))
  both = systems.Frames((0, 4), (2, 3))
  frames, diagnostics = diagnosed(variables(), context, both)
  assert frames.shape == (2, 2, 24, 37, 3)
  alone, own = diagnosed(variables(), context)  # in the middle as well
  np.testing.assert_allclose(frames[:, :1], alone, atol=1e-5)
  for name, value in own.items():
    np.testing.assert_allclose(diagnostics[name][:, :1], value, atol=1e-5)
  flow = np.asarray(diagnostics['flow'])
  assert np.abs(flow).max() > 0.1
  np.testing.assert_allclose(flow[:, 1], 1.5 * flow[:, 0], rtol=1e-4, atol=1e-6)
  assert np.abs(frames[:, 1] - frames[:, 0]).max() > 1e-3


def test_details_tell_the_routes():
  _, diagnostics = diagnosed(
    variables(), clip()[:, ::2], inference_routing='ratios'
  )
  routes, blocks = diagnostics['routes'], diagnostics['blocks']
  assert routes.shape == (2, 1, 24, 37, 1)
  # 3 x 5 patches: a quarter and a half of them, rounded.
  np.testing.assert_allclose(blocks[:, 0], [[1, 4 / 15, 8 / 15]] * 2, rtol=1e-6)
  patches = np.asarray(routes)[:, 0, ::8, ::8, 0]
  np.testing.assert_allclose(
    2 * patches.sum((1, 2)), 15 * blocks[:, 0, 1:].sum(-1), rtol=1e-5
  )


def test_inference_routes():
  """All and none of the patches; the reference is that of the loss."""
  pair = clip()[:, ::2]
  weights = variables()
  bias = np.zeros(4, np.float32)
  shares = {}
  for name, tilt in (('none', [9, -9] * 2), ('all', [-9, 9] * 2)):
    tree = jax.tree.map(lambda x: x, weights)
    linear = {**tree['params']['router']['linear'], 'bias': bias + tilt}
    tree['params']['router'] = {**tree['params']['router'], 'linear': linear}
    frames, diagnostics = diagnosed(tree, pair)
    shares[name] = frames
    np.testing.assert_allclose(diagnostics['blocks'][:, 0, 1:], name == 'all')
  every, _ = diagnosed(without_router(weights), pair, synthesis='patches')
  np.testing.assert_allclose(every, shares['all'], atol=1e-6)
  assert np.abs(every - shares['none']).max() > 1e-4
  _, diagnostics = diagnosed(weights, pair, inference_routing='reference')
  np.testing.assert_allclose(
    diagnostics['blocks'][:, 0], [[1, 4 / 15, 8 / 15]] * 2, rtol=1e-6
  )


def test_plain_warping_needs_the_flow_only():
  system = made(synthesis='warp')
  weights = variables()
  flow_only = {'params': {'flow': weights['params']['flow']}}
  shapes = jax.eval_shape(system.init, jax.random.key(0), clip())
  assert jax.tree.structure(shapes) == jax.tree.structure(flow_only)
  frames, diagnostics = diagnosed(flow_only, clip()[:, ::2], synthesis='warp')
  assert set(diagnostics) == {'flow', 'mask'}
  assert frames.min() >= 0 and frames.max() <= 1
  model = apr_vfi.APRVFI(synthesised=False, routed=False)

  def directly(pair):
    prepared = model.apply(flow_only, pair, 1, method='prepare')
    warped = model.apply(flow_only, prepared, 0.5, method='warp')
    return blending.blend(prepared, warped).frame

  np.testing.assert_allclose(
    frames[:, 0], jax.jit(directly)(clip()[:, ::2]), atol=1e-5
  )


def test_loss_is_that_of_equation_4():
  video = 0.5 + 0.1 * clip()
  settings = {'synthesis': 'patches', 'census_weight': 0.3}
  weights = without_router(variables())
  params = weights['params']
  small = {
    k: 0.1 * params['synthesis'][k] for k in ('head_kernel', 'head_bias')
  }
  weights = {'params': params | {'synthesis': params['synthesis'] | small}}
  total, (collections, metrics) = loss(**settings)(
    weights, video, jax.random.key(0)
  )
  assert collections == {}
  frames, _ = diagnosed(weights, video[:, ::2], synthesis='patches')
  assert 0 < frames.min() and frames.max() < 1  # nothing is cut off
  np.testing.assert_allclose(
    metrics['charbonnier'],
    losses.charbonnier(frames[:, 0], video[:, 1]),
    rtol=1e-4,
  )
  np.testing.assert_allclose(
    metrics['census'], losses.census(frames[:, 0], video[:, 1]), rtol=1e-3
  )
  np.testing.assert_allclose(
    total, metrics['charbonnier'] + 0.3 * metrics['census'], rtol=1e-5
  )


def test_loss_of_several_targets_is_their_mean():
  video = clip(4)
  settings = {'synthesis': 'warp', 'census_weight': 0.0}
  weights = {'params': {'flow': variables()['params']['flow']}}

  def of(*targets):
    frames = systems.Frames((0, 3), targets)
    return loss(frames, **settings)(weights, video, jax.random.key(0))[0]

  np.testing.assert_allclose(of(1, 2), (of(1) + of(2)) / 2, rtol=1e-5)


@pytest.mark.parametrize(
  'supervision, amounts, ratios',
  [
    ('image', (0, 0, 0, 1, 1, 1), (0.5, 0.5)),
    ('reconstruction', (0, 0, 0, 1, 1, 1), (0.5, 0.5)),
    ('image', (0, 0.04, 0.08, 0.12, 0.16, 0.2), (1 / 6, 5 / 6)),
  ],
)
def test_router_learns_where_frames_differ(supervision, amounts, ratios):
  """In each column of patches there is so much noise.

  Also where most patches have the same route, for which the distance has no
  gradient any more unless the router tells patches apart soon.
  """
  system = made(
    supervision=supervision,
    keep_ratios=ratios,
    apr_weight=1.0,
    census_weight=0.0,
    train_flow=False,
  )
  noise = jax.random.uniform(jax.random.key(5), (2, 3, 32, 48, 3))
  video = noise * jnp.repeat(jnp.asarray(amounts), 8).reshape(1, 1, 1, 48, 1)
  params = variables()['params']
  # Else frames are moved by a flow that knows nothing.
  flow = jax.tree.map(np.zeros_like, params['flow'])

  def distance(router, key):
    weights = {'params': params | {'router': router, 'flow': flow}}
    return system.loss(weights, video, key)

  rule = optax.adam(0.02)

  @jax.jit
  def trained(router, state, key):
    gradient, (_, metrics) = jax.grad(distance, has_aux=True)(router, key)
    change, state = rule.update(gradient, state)
    return optax.apply_updates(router, change), state, metrics

  router, distances = params['router'], []
  state = jax.jit(rule.init)(router)
  for i in range(60):
    router, state, metrics = trained(router, state, jax.random.key(i))
    distances.append(float(metrics['apr']))
  assert distances[0] > 0.3
  assert np.mean(distances[-5:]) < 0.1
  np.testing.assert_allclose(metrics['blocks'], 2, atol=0.2)


def test_flow_can_be_left_alone():
  """That it has a gradient otherwise is in the contract."""
  system = made(synthesis='whole', train_flow=False, census_weight=0.0)
  weights = without_router(variables())

  def total(params):
    return system.loss({'params': params}, clip(), jax.random.key(0))[0]

  gradient = jax.jit(jax.grad(total))(weights['params'])
  sizes = {
    name: sum(np.abs(g).sum() for g in jax.tree.leaves(part))
    for name, part in gradient.items()
  }
  assert sizes['flow'] == 0 < min(sizes['context'], sizes['synthesis'])


@pytest.mark.parametrize(
  'frames, settings, message',
  [
    (((0, 1), (2,)), {}, 'between'),
    (((0, 2, 4), (1,)), {}, '2 context frames'),
    (MIDDLE, {'patch': 6}, 'multiple of 4'),
    (MIDDLE, {'keep_ratios': (0.1, 0.4)}, '4 shares'),
    (MIDDLE, {'keep_ratios': (0.1, 0.4, 0.6, 1.2)}, 'shares in'),
    (MIDDLE, {'depths': (1, 1)}, 'one per width'),
    (MIDDLE, {'temperature': 0}, 'positive'),
    (MIDDLE, {'census_weight': -1}, '0 or more'),
    (MIDDLE, {'motion': 'variational', 'warp_weight': 1.0}, 'learns no flow'),
    (MIDDLE, {'motion': 'variational', 'flow_weight': 0.1}, 'learns no flow'),
    (((0, 2, 4, 6), (3,)), {}, "motion='biflownet' needs 2 context frames"),
    (((0, 2, 4, 6), (5,)), {'motion': 'variational'}, 'the two in the middle'),
    (((0, 1, 4, 5), (2,)), {'motion': 'variational'}, 'evenly spread'),
  ],
)
def test_what_cannot_be_is_refused(frames, settings, message):
  with pytest.raises(ValueError, match=message):
    systems.make('apr_vfi', frames=frames, **settings)


def test_half_precision_stays_close():
  weights, pair = without_router(variables()), clip()[:, ::2]
  got, _ = diagnosed(weights, pair, synthesis='patches', dtype='bfloat16')
  assert got.dtype == jnp.float32
  want, _ = diagnosed(weights, pair, synthesis='patches')
  np.testing.assert_allclose(np.abs(got - want).mean(), 0, atol=0.02)


def test_flow_loss_is_of_every_level_where_the_flow_is_known():
  extra = {'synthesis': 'warp', 'levels': 2}
  system = made(flow_weight=0.5, **extra)
  assert system.flow_pairs == ((0, 2), (2, 0))
  assert made().flow_pairs == ()
  weights, video, key = variables(**extra), clip(), jax.random.key(0)
  flow = np.zeros((2, 2, 24, 37, 2), np.float32)
  flow[:, 0] += [4, 2]
  flow[:, 1] -= [4, 2]
  flow[:, :, 10:] = np.nan
  total, (_, metrics) = jax.jit(system.loss)(weights, video, key, flow=flow)
  without, _ = loss(**extra)(weights, video, key)
  model = apr_vfi.APRVFI(synthesised=False, routed=False, patch=None)
  prepare = jax.jit(lambda w, pair: model.apply(w, pair, 2, method='prepare'))
  finest = prepare(weights, video[:, ::2]).flow
  off = np.asarray(finest)[:, :10] - [4, 2, -4, -2]
  error = np.hypot(off[..., ::2], off[..., 1::2]).mean()
  np.testing.assert_allclose(metrics['end_point_error'], error, rtol=1e-3)
  assert total - without > 0.5 * error  # and the coarser level
  with pytest.raises(ValueError, match='got no flow'):
    system.loss(weights, video, key)


def test_flow_loss_teaches_a_flow_that_is_not_trained_otherwise():
  extra = {'synthesis': 'whole', 'train_flow': False, 'flow_weight': 1.0}
  system, weights = made(**extra), variables(synthesis='whole')
  flow = jnp.ones((2, 2, 24, 37, 2))

  @jax.jit
  @jax.grad
  def gradient(weights):
    return system.loss(weights, clip(), jax.random.key(0), flow=flow)[0]

  grads = gradient(weights)['params']['flow']
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def texture(length=5, by=(1.5, -1)):
  """A smooth texture that moves by so much a frame, [1, length, H, W, 3]."""
  return waves([(t * by[0], t * by[1]) for t in range(length)], (40, 56))


def test_variational_motion_has_no_weights_and_any_time():
  settings = {'synthesis': 'warp', 'motion': 'variational'}
  frames = systems.Frames((0, 4), (1, 2))
  system = made(frames, **settings)
  video = texture()
  weights = system.init(jax.random.key(0), video)
  assert not jax.tree.leaves(weights)
  shown, diagnostics = diagnosed(
    {'params': {}}, base.take(video, (0, 4)), frames, **settings
  )
  truth = base.take(video, (1, 2))
  inner = np.s_[:, :, 8:-8, 8:-8]
  assert np.abs(shown - truth)[inner].mean() < 0.01
  np.testing.assert_allclose(
    diagnostics['flow'][inner].mean((0, 2, 3)), [(1.5, -1), (3, -2)], atol=0.1
  )


FOUR = systems.Frames((0, 2, 4, 6), (3,))


def test_the_frames_around_say_how_motion_changes():
  settings = {'synthesis': 'warp', 'motion': 'variational'}
  video = waves([(0.5 * t + 0.25 * t**2, 0) for t in range(7)])
  truth, inner = video[:, 3], np.s_[:, 8:-8, 16:-16]

  def error(context, frames):
    shown, _ = diagnosed({'params': {}}, context, frames, **settings)
    return np.abs(shown[:, 0] - truth)[inner].mean()

  given = base.take(video, FOUR.context)
  two = error(given[:, 1:3], MIDDLE)
  assert error(given, FOUR) < 0.3 * two
  # Frames that are given again say nothing.
  again = given[:, np.array([1, 1, 2, 2])]
  np.testing.assert_allclose(error(again, FOUR), two, rtol=1e-3)
  # One of them alone says that half as much.
  one = given.at[:, 0].set(given[:, 1])
  assert error(given, FOUR) < error(one, FOUR) < two


def test_a_clip_with_the_frames_around_has_a_loss():
  of_four = loss(FOUR, synthesis='warp', motion='variational')
  video = waves([(t, 0) for t in range(7)])
  _, (_, metrics) = of_four({'params': {}}, video, jax.random.key(0))
  assert metrics['psnr'] > 30


@pytest.mark.parametrize('synthesis', ['whole', 'routed'])
def test_with_variational_motion_the_synthesis_is_trained(synthesis):
  settings = {'synthesis': synthesis, 'motion': 'variational'}
  system, video = made(**settings), texture(3, by=(2, 1))
  weights = system.init(jax.random.key(0), video)
  assert 'flow' not in weights['params']

  def total(weights):
    return system.loss(weights, video, jax.random.key(1))[0]

  value, gradient = jax.jit(jax.value_and_grad(total))(weights)
  assert np.isfinite(value)
  head = gradient['params']['synthesis']['head_kernel']
  assert np.abs(head).max() > 0 and np.all(np.isfinite(head))
