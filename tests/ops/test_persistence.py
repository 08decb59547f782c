"""`ops.persistence`: how far motion goes on, by frames in known motion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.data import photos
from vidpred_jax.ops import persistence

_SIDE = 96


@functools.cache
def picture():
  source = photos.PhotosInMotion('test', 1, size=(160, 256), seed=0)
  return source[0]['video'][0].astype(np.float32) / 255


def film(places):
  """A window that is moved over the picture, [K, 96, 96, 3]."""
  shots = [picture()[20 : 20 + _SIDE, x : x + _SIDE] for x in places]
  return np.stack(shots)


@functools.cache
def fitted(count):
  """The factor of three films of 8 frames, of which `count` are given."""
  places = (
    [60 + 3 * t for t in range(8)],  # goes on
    [60 + x for x in (0, 3, 0, 3, 0, 3, 0, 3)],  # comes back
    [60 + x for x in (0, 3, 0, 3, 0, 3, 6, 9)],  # came back, then went on
  )
  films = jnp.stack([film(p)[-count:] for p in places])
  return np.asarray(jax.jit(persistence.factor)(films))


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
  got = jax.jit(persistence.factor)(film(places)[None])
  assert got == np.float32(persistence.KEPT)


def test_motion_that_slows_down_goes_on_less_far():
  """Three steps of 0.8, 0.64, 0.51 are as long as KEPT (1 + 0.64 + 0.41)."""
  steps = 10 * 0.8 ** np.arange(7)
  places = 60 + np.rint(np.concatenate([[0], np.cumsum(steps)])).astype(int)
  got = jax.jit(persistence.factor)(film(places)[None])
  np.testing.assert_allclose(got, 0.7, atol=0.01)


@pytest.mark.parametrize('size', [(8, 12), (33, 47)])
def test_any_size_will_do_and_few_frames_will_not(size):
  frames = jax.random.uniform(jax.random.key(0), (2, 5, *size, 3))
  got = jax.eval_shape(persistence.factor, frames)
  assert got.shape == (2,)
  with pytest.raises(AssertionError):
    jax.eval_shape(persistence.factor, frames[:, 1:])
