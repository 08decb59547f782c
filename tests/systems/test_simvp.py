import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import systems
from vidpred_jax.models import simvp
from vidpred_jax.systems import base

SETTINGS = {'hid_s': 4, 'hid_t': 16, 'n_s': 2, 'n_t': 2, 'first_drop_path': 0.0}


def frames(seen, asked, step=1):
  return systems.Frames(
    tuple(range(0, seen * step, step)),
    tuple(range(seen * step, (seen + asked) * step, step)),
  )


@functools.cache
def made(asked, **extra):
  return systems.make('simvp', frames=frames(3, asked), **SETTINGS, **extra)


@functools.cache
def variables():
  return jax.jit(made(3).init)(jax.random.key(0, impl='rbg'), clip(6))


def clip(length, seed=0):
  return jax.random.uniform(jax.random.key(seed), (2, length, 16, 12, 1))


def model():
  return simvp.SimVP(frames=3, **SETTINGS)


def once(context):
  return jax.jit(model().apply)(variables(), context)


def test_longer_predictions_are_fed_back_and_shorter_ones_cut():
  context = clip(3)
  first = once(context)
  second = once(first)
  expected = np.concatenate([first, second], 1)
  for asked in (1, 3, 5):
    got = jax.jit(made(asked).predict)(variables(), context, jax.random.key(0))
    np.testing.assert_allclose(got, expected[:, :asked], atol=1e-6)


def test_forty_frames_stay_finite():
  got = jax.jit(made(40).predict)(variables(), clip(3), jax.random.key(0))
  assert got.shape == (2, 40, 16, 12, 1)
  assert np.isfinite(got).all()


def test_loss_is_the_squared_error_of_the_training_forward_pass():
  video = clip(6)
  total, (collections, metrics) = jax.jit(made(3).loss)(
    variables(), video, jax.random.key(0)
  )
  apply = functools.partial(model().apply, train=True, mutable=['batch_stats'])
  prediction, updated = jax.jit(apply)(variables(), video[:, :3])
  expected = np.mean((np.asarray(prediction) - video[:, 3:]) ** 2)
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  np.testing.assert_allclose(metrics['mse'], expected, rtol=1e-5)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6),
    collections,
    dict(updated),
  )
  old = {'batch_stats': variables()['batch_stats']}
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), collections, old)
  assert min(jax.tree.leaves(moved)) > 0


def test_tau_has_its_divergence():
  video = clip(6)
  system = made(3, translator='tau')
  params = system.init(jax.random.key(0), video)
  total, (_, metrics) = jax.jit(system.loss)(params, video, jax.random.key(0))
  assert metrics['divergence'] > 0
  np.testing.assert_allclose(
    total, metrics['mse'] + 0.1 * metrics['divergence'], rtol=1e-6
  )
  plain = made(3, translator='tau', divergence_weight=0.0)
  total, (_, metrics) = jax.jit(plain.loss)(params, video, jax.random.key(0))
  assert total == metrics['mse'] and 'divergence' not in metrics


def test_frames_may_lie_further_apart():
  system = systems.make('simvp', frames=frames(3, 3, step=2), **SETTINGS)
  video = clip(11)
  got = jax.jit(system.loss)(variables(), video, jax.random.key(0))[0]
  want = jax.jit(made(3).loss)(variables(), video[:, ::2], jax.random.key(0))[0]
  np.testing.assert_allclose(got, want, rtol=1e-6)
  context = base.take(video, system.frames.context)
  assert context.shape[1] == 3


@pytest.mark.parametrize(
  'frames, settings, message',
  [
    (((0, 2), (1,)), {}, 'go on at the step'),
    (((0, 1), (3,)), {}, 'go on at the step'),
    (((0, 1), (2,)), {'translator': 'gSTA'}, 'gsta'),
    (((0, 1), (2,)), {'n_s': 3}, 'even'),
    (((0, 1), (2,)), {'n_t': 1}, 'at least 2'),
    (((0, 1), (2,)), {'hid_t': 12}, 'multiple of 8'),
    (((0, 1), (2,)), {'drop_path': 1.0}, 'below 1'),
  ],
)
def test_what_cannot_be_is_refused(frames, settings, message):
  with pytest.raises(ValueError, match=message):
    systems.make('simvp', frames=frames, **settings)


def test_half_precision_computes_and_keeps_full_parameters():
  system = made(3, dtype='bfloat16')
  got = jax.jit(system.predict)(variables(), clip(3), jax.random.key(0))
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, once(clip(3)), atol=0.1)
