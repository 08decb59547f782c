"""`ops.persistence`: how far motion goes on, by frames in known motion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.data import photos
from vidpred_jax.ops import persistence, warp

_SIDE = 96


@functools.cache
def picture():
  source = photos.PhotosInMotion('test', 1, size=(160, 256), seed=0)
  return source[0]['video'][0].astype(np.float32) / 255


def film(places):
  """A window that is moved over the picture, [K, 96, 96, 3]."""
  shots = [picture()[20 : 20 + _SIDE, x : x + _SIDE] for x in places]
  return np.stack(shots)


def factor(films):
  return jax.jit(persistence.first_flow)(films)[1]


@functools.cache
def fitted(count):
  """The factor of three films of 8 frames, of which `count` are given."""
  places = (
    [60 + 3 * t for t in range(8)],  # goes on
    [60 + x for x in (0, 3, 0, 3, 0, 3, 0, 3)],  # comes back
    [60 + x for x in (0, 3, 0, 3, 0, 3, 6, 9)],  # came back, then went on
  )
  films = jnp.stack([film(p)[-count:] for p in places])
  return np.asarray(factor(films))


def test_what_goes_on_is_told_from_what_comes_back():
  on, back, _ = fitted(8)
  assert on >= persistence.KEPT
  assert back <= 0.3


def test_what_is_not_given_does_not_count():
  on, back, _ = fitted(5)
  assert on >= persistence.KEPT
  assert back <= 0.3


@pytest.mark.parametrize('places', [[70] * 8, [60] * 6 + [63, 66]])
def test_frames_that_were_given_again_tell_nothing(places):
  got = factor(film(places)[None])
  assert got == np.float32(persistence.KEPT)


def test_motion_that_slows_down_goes_on_less_far():
  """Three steps of 0.8, 0.64, 0.51 are about 0.87 (1 + 0.7 + 0.49)."""
  steps = 10 * 0.8 ** np.arange(7)
  places = 60 + np.rint(np.concatenate([[0], np.cumsum(steps)])).astype(int)
  got = factor(film(places)[None])
  np.testing.assert_allclose(got, 0.7, atol=0.01)


@pytest.mark.parametrize('size', [(8, 12), (33, 47)])
def test_any_size_will_do_and_few_frames_tell_nothing(size):
  frames = jax.random.uniform(jax.random.key(0), (2, 5, *size, 3))
  flow, got = jax.eval_shape(persistence.first_flow, frames)
  assert flow.shape == (2, *size, 4) and got.shape == (2,)
  _, got = jax.jit(persistence.first_flow)(frames[:, 1:])
  np.testing.assert_array_equal(got, np.float32(persistence.KEPT))


@pytest.mark.parametrize(
  'count, shifts, expected',
  [
    (2, [3] * 7, 0.95 * 3),  # two frames tell nothing
    (8, [0] * 6 + [3], 0.95 * 3),  # nor do those that were given again
    (8, [3] * 7, 3.0),  # q = 1: it goes on as it was
    (8, [3, -3] * 3 + [3], 0.75 * 3),  # q = 0: little of it may go on
  ],
)
def test_the_next_frame_goes_on_as_far_as_the_factor_says(
  count, shifts, expected
):
  clip = film(60 + np.cumsum([0, *shifts]))[None, -count:]
  flow, _ = jax.jit(persistence.first_flow)(clip)
  middle = flow[0, 24:-24, 24:-24].mean((0, 1))
  np.testing.assert_allclose(middle, [3 + expected, 0, expected, 0], atol=0.05)


def uniform(size, dx):
  return jnp.broadcast_to(jnp.float32([-dx, 0]), (*size, 2))


@pytest.mark.parametrize('kept', [1.0, 0.5])
def test_the_true_frame_is_read_once_where_motion_goes_on(kept):
  """Many readings between pixels would soften it."""
  frame = film([60])
  flow = uniform(frame.shape[:3], 3.3)
  frames, flows = jax.jit(persistence.go_on, static_argnums=3)(
    frame, flow, kept, 4
  )
  for n in range(4):
    far = 3.3 * sum(kept**j for j in range(n + 2))
    once = warp.backward(frame, uniform(frame.shape[:3], far))
    np.testing.assert_allclose(frames[:, n], once, atol=1e-4)
    step = -3.3 * kept ** (n + 1)
    np.testing.assert_allclose(flows[:, n, ..., 2], step, rtol=1e-4)
    np.testing.assert_allclose(
      flows[:, n, ..., 0], step * (1 + 1 / kept), rtol=1e-4
    )


def test_a_thing_takes_its_velocity_with_it():
  """In a zoom by 1.1 the thing at y comes from y / 1.1, by a tenth of that."""
  frame = film([60])
  size, middle = 96, 47.5
  at = np.stack(np.meshgrid(*2 * [np.arange(size) - middle]), -1)
  flow = jnp.float32(-0.1 * at)[None]
  _, flows = jax.jit(persistence.go_on, static_argnums=3)(frame, flow, 1.0, 1)
  inside = np.abs(at).max(-1) < 40
  expected = -0.1 / 1.1 * at
  error = np.abs(flows[0, 0, ..., 2:] - expected)[inside].max()
  assert error < 0.02
  assert np.abs(flow[0] - expected)[inside].max() > 0.3


def test_each_film_of_a_batch_keeps_its_own_share():
  frame = film([60, 70])
  flow = uniform(frame.shape[:3], 4.0)
  _, flows = jax.jit(persistence.go_on, static_argnums=3)(
    frame, flow, jnp.float32([1.0, 0.5]), 1
  )
  np.testing.assert_allclose(flows[0, 0, ..., 2], -4.0, rtol=1e-5)
  np.testing.assert_allclose(flows[1, 0, ..., 2], -2.0, rtol=1e-5)
