"""DMVFN whose blocks see how wrong the last frames would have been foretold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vidpred_jax.data import photos
from vidpred_jax.models import dmvfn as model_room
from vidpred_jax.ops import persistence
from vidpred_jax.systems import Frames, dmvfn

FRAMES = Frames(tuple(range(6)), (6, 7, 8))
SETTINGS = {
  'scales': (1,),
  'widths': (8,),
  'routing': 'none',
  'initial_flow': 'variational',
  'hindsight': True,
  'distance': 'squared',
  'logarithmic': True,
}


@functools.cache
def system(frames=FRAMES, **settings):
  return dmvfn.make(frames=frames, **SETTINGS | settings)


@functools.cache
def clips():
  """Two films of 9 frames: one goes on, the other comes back each time."""
  source = photos.PhotosInMotion('test', 1, size=(96, 160), seed=0)
  picture = source[0]['video'][0].astype(np.float32) / 255
  on = [10 + 2 * t for t in range(9)]
  back = [30 + 4 * (t % 2) for t in range(9)]
  return jnp.asarray(
    [[picture[8:72, x : x + 96] for x in places] for places in (on, back)]
  )


@functools.cache
def variables():
  return system().init(jax.random.key(0), clips())


def test_the_untrained_block_lets_motion_go_on():
  context = clips()[:, :6]
  frames, diagnostics = jax.jit(system().diagnostics)(
    variables(), context, jax.random.key(0)
  )
  assert frames.shape == (2, 3, 64, 96, 3)
  assert np.all(diagnostics['blocks'] == 1)
  flow, kept = jax.jit(persistence.first_flow)(context)
  paths, steps = persistence.paths(flow, kept, 3)
  np.testing.assert_allclose(diagnostics['flow'], steps, atol=1e-4)
  for n in range(3):
    start = model_room.Start(paths[:, n])
    state = model_room.initial_state(context[:, -2:], start)
    shown = model_room.blend(state, None)
    np.testing.assert_allclose(frames[:, n], shown, atol=1e-5)


def test_it_learns_where_the_last_frame_is_the_better_guess():
  """On what comes back, not on what goes on, from the errors alone."""
  given, last = variables(), jax.random.key(0)
  rule = optax.adam(5e-3)

  @jax.jit
  def step(params, state, key):
    def loss(params):
      return system().loss({'params': params}, clips(), key)[0]

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = rule.update(grads, state)
    return optax.apply_updates(params, updates), state, value

  params, values = given['params'], []
  state = rule.init(params)
  for key in jax.random.split(last, 40):
    params, state, value = step(params, state, key)
    values.append(float(value))
  assert np.mean(values[-5:]) < np.mean(values[:5]) - 0.5

  predict = jax.jit(system().predict)

  def errors(params):
    frames = predict({'params': params}, clips()[:, :6], last)
    return np.mean((frames - clips()[:, 6:]) ** 2, (2, 3, 4))[:, 0]

  before, after = errors(given['params']), errors(params)
  assert after[1] < 0.7 * before[1]
  assert after[0] < 1.5 * before[0]


def test_the_loss_is_that_of_the_next_frame_and_of_another():
  """With one target it is the distance of what is predicted."""
  one = system(FRAMES._replace(target=(6,)))
  loss, (_, metrics) = jax.jit(one.loss)(
    variables(), clips()[:, :7], jax.random.key(0)
  )
  frame = jax.jit(one.predict)(variables(), clips()[:, :6], jax.random.key(0))
  distance = np.mean((frame[:, 0] - clips()[:, 6]) ** 2, (1, 2, 3))
  np.testing.assert_allclose(metrics['squared'], distance.mean(), rtol=1e-3)
  np.testing.assert_allclose(loss, np.log(distance + 1e-5).mean(), rtol=1e-3)
  several = {
    round(float(jax.jit(system().loss)(variables(), clips(), key)[0]), 4)
    for key in jax.random.split(jax.random.key(1), 6)
  }
  assert 2 <= len(several) <= 4  # of two films each draws one of two frames


def test_no_block_runs_where_nothing_can_be_seen():
  still = jnp.broadcast_to(clips()[:1, :1], (1, 6, 64, 96, 3))
  frames, diagnostics = jax.jit(system().diagnostics)(
    variables(), still, jax.random.key(0)
  )
  assert np.all(diagnostics['blocks'] == 0)
  np.testing.assert_allclose(frames, still[:, :3], atol=1e-5)


def test_from_two_frames_no_block_runs():
  few = system(Frames((0, 1), (2, 3)))
  context = clips()[:, :2]
  frames, diagnostics = jax.jit(few.diagnostics)(
    variables(), context, jax.random.key(0)
  )
  assert np.all(diagnostics['blocks'] == 0)
  plain = system(few.frames, hindsight=False)
  weights = plain.init(jax.random.key(0), clips()[:, :4])
  same = jax.jit(plain.predict)(weights, context, jax.random.key(0))
  np.testing.assert_allclose(frames, same, atol=1e-5)
  with pytest.raises(ValueError, match='takes at least 5 context frames'):
    few.loss(variables(), clips()[:, :4], jax.random.key(0))


@pytest.mark.parametrize(
  'other', [{'initial_flow': 'zero'}, {'flow_weight': 0.1}, {'rollout': 1}]
)
def test_settings_that_do_not_fit(other):
  with pytest.raises(ValueError, match='hindsight=True takes'):
    system(**other)
