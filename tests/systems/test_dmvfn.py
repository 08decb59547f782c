import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vidpred_jax import losses, runtime
from vidpred_jax.data import photos
from vidpred_jax.models import dmvfn as model_room
from vidpred_jax.models import features
from vidpred_jax.ops import persistence, warp
from vidpred_jax.systems import Frames, dmvfn

NEXT = Frames((0, 1), (2,))


@functools.cache
def small(frames=NEXT, **settings):
  settings = {'scales': (2, 1), 'widths': (12, 8)} | settings
  system = dmvfn.make(frames=frames, **settings)
  video = jax.random.uniform(jax.random.key(0), (4, frames.length, 16, 24, 3))
  variables = jax.jit(system.init)(jax.random.key(1, impl='rbg'), video)
  for i in range(len(settings['scales'])):
    variables['params'][f'block_{i}']['head']['kernel'] *= 4
  return system, variables, video


def context_of(system, video):
  return video[:, np.array(system.frames.context)]


@functools.cache
def diagnosed(key=0, **settings):
  system, variables, video = small(**settings)
  context = context_of(system, video)
  return jax.jit(system.diagnostics)(variables, context, jax.random.key(key))


@pytest.mark.parametrize(
  'frames',
  [
    ((0,), (1,)),
    ((0, 1, 2), (3,)),
    ((1, 0), (2,)),
    ((0, 2), (1,)),
    ((0, 1), (3,)),
    ((0, 2), (4, 5)),
    ((0, 1), ()),
  ],
)
def test_refuses_frames_that_do_not_go_on_evenly(frames):
  with pytest.raises(ValueError, match='2 context frames.*the step of'):
    dmvfn.make(frames=Frames(*frames))


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'routing': 'soft'}, "'stebs', 'gumbel'"),
    ({'rollout': -1}, '0 or more'),
    ({'flow_weight': -0.1}, '0 or more'),
    ({'beta': 1.5}, r'in \[0, 1\]'),
    ({'inference_beta': -1.0}, r'in \[0, 1\]'),
    ({'widths': (16, 16)}, '9 multiples of 4'),
    ({'scales': (2,), 'widths': (6,)}, '1 multiples of 4'),
    ({'scales': (2, 0.5)}, 'whole numbers'),
    ({'scales': ()}, 'whole numbers'),
  ],
)
def test_refuses_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    dmvfn.make(frames=NEXT, **settings)


@pytest.mark.parametrize(
  'shape, message',
  [
    ((1, 3, 20, 24, 3), '20x24; expected both sides divisible by 8'),
    ((1, 2, 16, 24, 3), 'at least 3 frames'),
    ((1, 3, 16, 24, 1), r'\[B, T, H, W, 3\]'),
    ((3, 16, 24, 3), r'\[B, T, H, W, 3\]'),
  ],
)
def test_refuses_clips(shape, message):
  system, variables, _ = small()
  with pytest.raises(ValueError, match=message):
    system.loss(variables, jnp.zeros(shape), jax.random.key(0))
  with pytest.raises(ValueError, match=message):
    system.init(jax.random.key(0), jnp.zeros(shape))


def test_loss_is_the_mean_over_every_true_triplet():
  frames = Frames((1, 3), (5, 7))
  system, variables, video = small(frames=frames, routing='none')
  value, (collections, metrics) = jax.jit(system.loss)(
    variables, video, jax.random.key(0)
  )
  assert collections == {}
  assert metrics['blocks'] == 2
  one, _, _ = small(routing='none')
  each = [
    jax.jit(one.loss)(variables, video[:, np.array(t)], jax.random.key(0))
    for t in ((1, 3, 5), (3, 5, 7))
  ]
  np.testing.assert_allclose(value, np.mean([x for x, _ in each]), rtol=1e-5)
  for name in metrics:
    expected = np.mean([diagnostics[1][name] for _, diagnostics in each])
    np.testing.assert_allclose(metrics[name], expected, rtol=1e-5)


def test_supervision_and_gamma():
  _, variables, video = small(routing='none')
  model = model_room.DMVFN(scales=(2, 1), widths=(12, 8), router_outputs=0)
  outputs = jax.jit(model.apply)(variables, video[:, :2]).frames
  laplacian = jax.jit(losses.laplacian)
  distances = [laplacian(x, video[:, 2]) for x in outputs]
  each = [x.mean() for x in distances]
  logs = [jnp.log(x + 1e-3).mean() for x in distances]
  for settings, expected in (
    ({}, 0.8 * each[0] + each[1]),
    ({'gamma': 0.5}, 0.5 * each[0] + each[1]),
    ({'supervision': 'single'}, each[1]),
    ({'logarithmic': True}, 0.8 * logs[0] + logs[1]),
  ):
    system, _, _ = small(routing='none', **settings)
    value, (_, metrics) = jax.jit(system.loss)(
      variables, video, jax.random.key(0)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics['laplacian'], each[1], rtol=1e-5)
  error = np.mean((outputs[1] - video[:, 2]) ** 2, (1, 2, 3))
  np.testing.assert_allclose(
    metrics['psnr'], np.mean(-10 * np.log10(error)), rtol=1e-5
  )


def test_predictions_are_fed_back():
  many = Frames((0, 1), (2, 3, 4))
  frames, diagnostics = diagnosed(frames=many)
  _, variables, video = small(frames=many)
  one, _, _ = small()
  pair = video[:, :2]
  for n in range(3):
    next_frame, expected = jax.jit(one.diagnostics)(
      variables, pair, jax.random.key(9)
    )
    np.testing.assert_allclose(frames[:, n], next_frame[:, 0], atol=1e-5)
    for name in ('flow', 'mask', 'blocks'):
      np.testing.assert_allclose(
        diagnostics[name][:, n], expected[name][:, 0], atol=1e-4
      )
    pair = jnp.stack([pair[:, 1], next_frame[:, 0]], 1)


def test_more_frames_say_how_far_motion_goes_on():
  """What comes back at once is foretold to move less."""
  settings = {'routing': 'none', 'initial_flow': 'variational'} | ONE_BLOCK
  places = [0, 3] * 4
  picture = photos.PhotosInMotion('test', 1, size=(64, 112), seed=0)
  picture = picture[0]['video'][0].astype(np.float32) / 255
  clip = np.stack([picture[:, x : x + 96] for x in places])[None]
  few, many = Frames((0, 1), (2, 3, 4)), Frames(tuple(range(8)), (8, 9, 10))
  made = {}
  for frames in (few, many):
    system, variables, _ = small(frames, **settings)
    head = variables['params']['block_0']['head']
    head.update(jax.tree.map(jnp.zeros_like, dict(head)))  # the flow alone
    context = jnp.asarray(clip[:, -len(frames.context) :])
    made[frames], _ = jax.jit(system.diagnostics)(
      variables, context, jax.random.key(0)
    )
  assert system.repeats_context
  moved = [np.abs(np.diff(made[f], axis=1)).mean() for f in (few, many)]
  assert moved[1] < 0.3 * moved[0]


@pytest.mark.parametrize('count', [3, 4])
def test_three_or_four_frames_are_too_few(count):
  frames = Frames(tuple(range(count)), (count,))
  with pytest.raises(ValueError, match='2 context frames'):
    dmvfn.make(frames=frames, initial_flow='variational')
  with pytest.raises(ValueError, match='2 context frames'):
    dmvfn.make(frames=Frames(tuple(range(8)), (8,)))


def test_flow_and_mask_are_those_of_the_prediction():
  """What the newer frame's part leaves is the older frame's: in [0, mask]."""
  _, _, video = small(inference_routing='all')
  frames, diagnostics = diagnosed(inference_routing='all')
  flow, mask = diagnostics['flow'][:, 0], diagnostics['mask'][:, 0]
  assert np.all(diagnostics['blocks'] == 1)
  assert 0 < mask.min() < mask.max() < 1 and np.abs(flow).max() > 0.2
  newer = (1 - mask) * jax.jit(warp.backward)(video[:, 1], flow)
  older = frames[:, 0] - newer
  assert np.all(older >= -1e-5) and np.all(older <= mask + 1e-5)


def test_an_empty_route_returns_the_newer_frame():
  _, _, video = small()
  frames, diagnostics = diagnosed(inference_beta=0.0)
  np.testing.assert_array_equal(frames[:, 0], video[:, 1])
  for name in ('flow', 'mask', 'blocks'):
    assert np.all(diagnostics[name] == 0)


def test_an_empty_route_from_a_variational_flow_lets_motion_go_on():
  # Without a trained head every route predicts the same.
  settings = {'initial_flow': 'variational', 'scales': (2, 1)}
  system = dmvfn.make(
    frames=NEXT, widths=(12, 8), inference_beta=0.0, **settings
  )
  _, _, video = small()
  variables = system.init(jax.random.key(1, impl='rbg'), video)
  frames, diagnostics = jax.jit(system.diagnostics)(
    variables, video[:, :2], jax.random.key(0)
  )
  assert np.all(diagnostics['blocks'] == 0)

  @jax.jit
  def begun(pair):
    flow, _ = persistence.first_flow(pair)
    state = model_room.initial_state(pair, model_room.Start(flow))
    return model_room.blend(state, None), state.voxel[..., 2:4]

  frame, flow = begun(video[:, :2])
  np.testing.assert_allclose(frames[:, 0], frame, atol=1e-4)
  np.testing.assert_allclose(diagnostics['flow'][:, 0], flow, atol=1e-3)


def test_beta_is_a_budget_at_inference():
  scales, widths = (1,) * 5, (4,) * 5
  for beta, blocks in ((0.1, 1), (0.62, 3)):
    _, diagnostics = diagnosed(
      scales=scales, widths=widths, inference_beta=beta
    )
    used = np.sum(diagnostics['blocks'], -1)
    assert np.all(used <= blocks) and used.max() >= blocks - 1, beta


def test_each_sample_follows_its_own_route():
  system, variables, video = small(inference_routing='sample')
  assert system.stochastic
  frames, diagnostics = diagnosed(inference_routing='sample', key=5)
  routes = np.asarray(diagnostics['blocks'][:, 0])
  assert len(np.unique(routes, axis=0)) > 1
  model = model_room.DMVFN(scales=(2, 1), widths=(12, 8))
  apply = jax.jit(model.apply)
  for i in np.flatnonzero(routes.any(1)):
    alone = apply(variables, video[i : i + 1, :2], routes[i : i + 1])
    np.testing.assert_allclose(frames[i, 0], alone.frames[-1][0], atol=1e-5)


@pytest.mark.parametrize('routed', ['stebs', 'gumbel', 'random', 'none'])
def test_every_kind_of_routing_trains_and_predicts(routed):
  system, variables, video = small(routing=routed)
  assert ('router' in variables['params']) == (routed in ('stebs', 'gumbel'))
  assert system.stochastic == (routed == 'random')

  def loss(params):
    return system.loss(
      {**variables, 'params': params}, video, jax.random.key(3)
    )

  (value, (collections, metrics)), gradients = jax.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(variables['params'])
  assert np.isfinite(value) and 0 <= metrics['blocks'] <= 2
  if 'router' in gradients:
    assert np.any(gradients['router']['conv_0']['kernel'] != 0)
  if routed == 'gumbel':
    assert collections['routing']['step'] == 1
    assert 0 < metrics['gate_penalty'] < 1
  frames, diagnostics = diagnosed(routing=routed)
  assert frames.shape == (4, 1, 16, 24, 3)
  assert set(np.unique(diagnostics['blocks'])) <= {0, 1}


def test_gumbel_gates_harden_as_training_goes_on():
  system, variables, video = small(
    routing='gumbel', temperature_steps=100, gate_penalty=0.0
  )
  loss = jax.jit(system.loss)
  softness = []
  for step in (0, 100, 10_000):
    routing_state = {'step': jnp.asarray(step)}
    penalties = [
      loss({**variables, 'routing': routing_state}, video, jax.random.key(k))[
        1
      ][1]['gate_penalty']
      for k in range(6)
    ]
    softness.append(np.std(penalties))
  assert softness[0] < softness[1] / 3
  np.testing.assert_allclose(softness[1], softness[2], rtol=1e-5)


def test_feature_distance_needs_weights_that_the_user_supplies():
  system, variables, video = small(vgg_weight=0.5, routing='none')
  with pytest.raises(ValueError, match=r"variables\['vgg'\]"):
    jax.eval_shape(system.loss, variables, video, jax.random.key(0))
  image = jax.ShapeDtypeStruct((1, 16, 24, 3), jnp.float32)
  shapes = jax.eval_shape(features.VGG19().init, jax.random.key(0), image)
  rng = np.random.default_rng(0)
  vgg = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(0, 0.05, x.shape), jnp.float32),
    shapes['params'],
  )
  plain, _, _ = small(routing='none')
  value, (collections, metrics) = jax.jit(system.loss)(
    {**variables, 'vgg': vgg}, video, jax.random.key(0)
  )
  without, _ = jax.jit(plain.loss)(variables, video, jax.random.key(0))
  assert metrics['vgg'] > 0
  np.testing.assert_allclose(value, without + 0.5 * metrics['vgg'], rtol=1e-5)
  assert set(collections) == {'vgg'}


def test_predicts_under_shard_map():
  """What lets every device follow the routes of its own samples only."""
  system, variables, video = small(inference_routing='threshold')
  context = context_of(system, jnp.concatenate([video, video[::-1]]))
  predict = jax.shard_map(
    lambda v, c: system.predict(v, c, jax.random.key(0)),
    mesh=runtime.mesh(),
    in_specs=(PartitionSpec(), PartitionSpec('data')),
    out_specs=PartitionSpec('data'),
    check_vma=False,
  )
  expected = diagnosed(inference_routing='threshold')[0]
  frames = jax.jit(predict)(variables, context)
  np.testing.assert_allclose(frames[:4], expected, atol=1e-6)
  np.testing.assert_allclose(frames[4:], expected[::-1], atol=1e-6)


# ------------------------------------------------------- flow and forecasts

ONE_BLOCK = {'scales': (2,), 'widths': (8,)}


def shifted(count, by=2):
  """A clip whose pattern moves by (by, 0) a frame, and its flow."""
  scene = jax.random.uniform(jax.random.key(3), (2, 16, 24 + by * count, 3))
  video = jnp.stack(
    [scene[:, :, by * (count - t) :][:, :, :24] for t in range(count)], 1
  )
  return video


def known_flow(pairs, by=2, batch=2):
  """(dx, dy) from frame `of` into frame `into`, unknown on the right half."""
  flow = np.zeros((batch, len(pairs), 16, 24, 2), np.float32)
  for p, (of, into) in enumerate(pairs):
    flow[:, p, :, :, 0] = (into - of) * by
  flow[:, :, :, 12:] = np.nan
  return jnp.asarray(flow)


def test_flow_pairs_are_into_the_older_and_the_newer_frame():
  assert small()[0].flow_pairs == ()
  system = small(flow_weight=0.1)[0]
  assert system.flow_pairs == ((2, 0), (2, 1))
  system = dmvfn.make(frames=Frames((0, 2), (4, 6)), flow_weight=0.1)
  assert system.flow_pairs == ((4, 0), (4, 2), (6, 2), (6, 4))


def test_flow_loss_is_of_every_output_where_the_flow_is_known():
  system, variables, _ = small(routing='none', flow_weight=0.5)
  plain = small(routing='none')[0]
  video = shifted(3)
  flow = known_flow(system.flow_pairs)
  key = jax.random.key(0)
  total, (_, metrics) = jax.jit(system.loss)(variables, video, key, flow=flow)
  without, _ = jax.jit(plain.loss)(variables, video, key)
  model = model_room.DMVFN(scales=(2, 1), widths=(12, 8))
  voxels = jax.jit(model.apply)(variables, video[:, :2]).voxels
  flows = [voxel[..., :4] for voxel in voxels]
  errors = []
  for found in flows:
    off = np.asarray(found[:, :, :12]) - np.repeat(
      np.array([[-4.0, 0, -2, 0]]), 12, 0
    )
    errors.append(np.hypot(off[..., ::2], off[..., 1::2]).mean())
  expected = 0.5 * (0.8 * errors[0] + errors[1])
  np.testing.assert_allclose(total - without, expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['end_point_error'], errors[1], rtol=1e-4)


def test_a_flow_is_demanded_with_its_weight_and_refused_without():
  system, variables, _ = small(flow_weight=0.5)
  video = shifted(3)
  with pytest.raises(ValueError, match='got no flow'):
    system.loss(variables, video, jax.random.key(0))
  system, variables, _ = small()
  with pytest.raises(ValueError, match='got a flow'):
    flow = known_flow(((2, 0), (2, 1)))
    system.loss(variables, video, jax.random.key(0), flow=flow)


def test_a_forecast_is_trained_on_its_own_predictions():
  frames = Frames((0, 1), (2, 3, 4))
  settings = {'routing': 'none', 'flow_weight': 0.5} | ONE_BLOCK
  system, variables, _ = small(frames, rollout=1, **settings)
  video, key = shifted(5), jax.random.key(0)
  flow = known_flow(system.flow_pairs)
  total, (_, metrics) = jax.jit(system.loss)(variables, video, key, flow=flow)
  # By hand: each frame from those before it, true or predicted.
  one = small(**settings)[0]
  loss, predict = jax.jit(one.loss), jax.jit(one.predict)
  pair, totals, psnr = video[:, :2], [], []
  for n in range(3):
    clip = jnp.concatenate([pair, video[:, n + 2 : n + 3]], 1)
    part = flow[:, 2 * n : 2 * n + 2]
    value, (_, seen) = loss(variables, clip, key, flow=part)
    totals.append(value)
    psnr.append(seen['psnr'])
    frame = predict(variables, pair, key)
    pair = jnp.concatenate([pair[:, 1:], frame], 1)
  np.testing.assert_allclose(total, np.mean(totals), rtol=1e-5)
  np.testing.assert_allclose(metrics['psnr'], np.mean(psnr), rtol=1e-5)


def moves_on(target, **settings):
  """A system whose blocks refine an estimated flow, by random weights."""
  frames = Frames((0, 1), target)
  settings = {'initial_flow': 'variational', 'routing': 'none'} | ONE_BLOCK
  system, variables, _ = small(frames, rollout=1, **settings)
  head = dict(variables['params']['block_0']['head'])
  head['kernel'] += 0.02 * jax.random.normal(
    jax.random.key(3), head['kernel'].shape
  )
  return system, {
    'params': {'block_0': variables['params']['block_0'] | {'head': head}}
  }


def test_with_an_estimated_flow_the_loss_is_that_of_what_inference_shows():
  system, variables = moves_on((2, 3, 4))
  video, key = shifted(5), jax.random.key(0)
  total, (_, metrics) = jax.jit(system.loss)(variables, video, key)
  shown, diagnostics = jax.jit(system.diagnostics)(variables, video[:, :2], key)
  # Only the first frame is the network's own.
  assert np.all(diagnostics['blocks'] == np.float32([[[1], [0], [0]]]))
  assert np.all(np.abs(diagnostics['flow']).max((0, 2, 3, 4)) > 0.1)
  one, _ = moves_on((2,))
  first, _ = jax.jit(one.loss)(variables, video[:, :3], key)
  laplacian = jax.jit(losses.laplacian)
  later = [laplacian(shown[:, n], video[:, 2 + n]).mean() for n in (1, 2)]
  np.testing.assert_allclose(total, np.mean([first, *later]), rtol=1e-4)
  error = np.mean((shown - video[:, 2:]) ** 2, (2, 3, 4))
  psnr = np.mean(-10 * np.log10(error))
  np.testing.assert_allclose(metrics['psnr'], psnr, rtol=1e-4)


def test_with_an_estimated_flow_blocks_learn_from_later_frames():
  system, variables = moves_on((2, 3, 4))
  video, key = shifted(5), jax.random.key(0)
  grad = jax.jit(jax.grad(lambda v, x: system.loss(v, x, key)[0]))
  other = video.at[:, 4].set(video[:, 0])
  one, two = (
    grad(variables, x)['params']['block_0']['head']['kernel']
    for x in (video, other)
  )
  assert np.abs(one - two).max() > 1e-6


def test_rollout_says_how_far_the_gradient_goes_back():
  frames = Frames((0, 1), (2, 3, 4))
  video, key = shifted(5), jax.random.key(0)

  def gradient(rollout):
    settings = {'routing': 'none', 'rollout': rollout} | ONE_BLOCK
    system, variables, _ = small(frames, **settings)
    of = jax.jit(jax.grad(lambda v: system.loss(v, video, key)[0]))
    grads = of(variables)
    return grads['params']['block_0']['head']['kernel']

  one, two, three = (gradient(n) for n in (1, 2, 3))
  assert np.abs(one - two).max() > 1e-6
  assert np.abs(two - three).max() > 1e-6
