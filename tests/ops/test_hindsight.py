"""`ops.hindsight`: what the last frames tell of the next, in known motion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.data import photos
from vidpred_jax.ops import hindsight, persistence, warp

SIDE = 96
AWAY = slice(16, -16)  # from the border


@functools.cache
def picture():
  source = photos.PhotosInMotion('test', 1, size=(160, 256), seed=0)
  return source[0]['video'][0].astype(np.float32) / 255


def film(places):
  """A window that is moved over the picture, [1, K, 96, 96, 3]."""
  return np.stack([picture()[20 : 20 + SIDE, x : x + SIDE] for x in places])[
    None
  ]


@functools.cache
def steady():
  """A film that moves by 4 pixels a frame, and what it tells."""
  clip = film([30 + 4 * t for t in range(9)])
  return clip, jax.jit(hindsight.look_back)(clip[:, :8])


def inner(x):
  """The errors away from the border, [..., 14]; they have half the size."""
  return np.asarray(x)[:, 8:-8, 8:-8]


def test_of_steady_motion_the_frames_moved_on_are_right():
  _, seen = steady()
  for start in (0, 7):  # of the last frame, of the last but one
    moved, older, half, last = np.moveaxis(
      inner(seen.errors)[..., start : start + 4], -1, 0
    )
    assert moved.mean() < 0.25 * half.mean()
    assert older.mean() < 0.35 * half.mean()
    assert half.mean() < last.mean()


def test_of_motion_that_comes_back_the_last_frame_is_right():
  clip = film([60 + x for x in (0, 4, 0, 4, 0, 4, 0, 4)])
  seen = jax.jit(hindsight.look_back)(clip)
  moved, _, half, last = np.moveaxis(inner(seen.errors)[..., :4], -1, 0)
  assert last.mean() < moved.mean()
  assert half.mean() < moved.mean()


def test_errors_go_on_with_what_they_belong_to():
  # A noise that nobody can foretell, on a square that moves with the picture.
  clip = film([30 + 4 * t for t in range(8)]).copy()
  noise = np.random.default_rng(0).uniform(size=(8, 16, 16, 3))
  for t in range(8):
    left = 60 - 4 * t
    clip[0, t, 40:56, left : left + 16] = noise[t]
  seen = jax.jit(hindsight.look_back)(clip)
  _, hints = begun(clip[:, -2:], seen)
  error = hints[0, ..., 3 * hindsight.OTHERS]
  middle = np.zeros((SIDE, SIDE), bool)
  middle[42:54, 30:42] = True  # where the square will be, 28 to 44
  outside = np.ones((SIDE, SIDE), bool)
  outside[32:64, 18:62] = False
  assert (
    error[middle].mean() > 5 * error[AWAY, AWAY][outside[AWAY, AWAY]].mean()
  )


def begun(pair, seen, horizon=1.0):
  others, hints = jax.jit(hindsight.begin)(
    pair, seen.flow, seen, jnp.full((len(pair),), horizon)
  )
  return np.asarray(others), np.asarray(hints)


def test_candidates_and_hints():
  clip, seen = steady()
  others, hints = begun(clip[:, 6:8], seen)
  assert others.shape == (1, hindsight.OTHERS, SIDE, SIDE, 3)
  assert hints.shape == (1, SIDE, SIDE, hindsight.HINTS)
  np.testing.assert_array_equal(others[:, 2], clip[:, 7])
  older = others[0, 0, AWAY, AWAY] - clip[0, 8, AWAY, AWAY]
  half = others[0, 1, AWAY, AWAY] - clip[0, 8, AWAY, AWAY]
  assert np.abs(older).mean() < 0.5 * np.abs(half).mean()
  moved = jax.jit(warp.backward)(clip[:, 7], seen.flow[..., 2:])
  blurred = others[:, 3]
  assert np.abs(np.diff(blurred, axis=2)).mean() < 0.8 * (
    np.abs(np.diff(moved, axis=2)).mean()
  )
  # A flat picture is itself if it is blurred.
  flat = jnp.full((1, 2, 32, 32, 3), 0.5)
  still = hindsight.Hindsight(
    jnp.zeros((1, 32, 32, 4)), jnp.ones(1), jnp.zeros((1, 16, 16, 14))
  )
  others, _ = begun(flat, still)
  np.testing.assert_allclose(others, 0.5, atol=1e-6)


def test_the_blocks_are_told_the_factor_and_which_frame_it_is():
  clip, seen = steady()
  _, hints = begun(clip[:, 6:8], seen, 3.0)
  np.testing.assert_allclose(hints[..., -2], seen.kept[0])
  np.testing.assert_allclose(hints[..., -1], 0.6)


@pytest.mark.parametrize('places', [[60] * 8, [60 + t for t in range(8)]])
def test_whether_errors_can_be_seen(places):
  clip = film(places)
  clip = clip if places[0] != places[1] else clip[:, :1].repeat(8, 1)
  seen = jax.jit(hindsight.look_back)(clip)
  assert bool(hindsight.is_visible(seen)[0]) == (places[0] != places[1])


def test_too_few_frames():
  clip = film([60] * 8)
  with pytest.raises(ValueError, match='Got 4 frames, expected 5 or more'):
    hindsight.look_back(clip[:, :4])


def test_paths_lead_to_what_goes_on_shows():
  clip, seen = steady()
  last, older = clip[:, 7], clip[:, 6]
  paths, steps = jax.jit(functools.partial(persistence.paths, count=4))(
    seen.flow, seen.kept
  )
  frames, flows = jax.jit(functools.partial(persistence.go_on, count=3))(
    last, seen.flow[..., 2:], seen.kept
  )
  np.testing.assert_array_equal(paths[:, 0], seen.flow)
  np.testing.assert_allclose(steps[:, 1:], flows[..., 2:], atol=1e-5)
  for n in range(3):
    shown = warp.backward(last, paths[:, n + 1, ..., 2:])
    np.testing.assert_allclose(shown, frames[:, n], atol=1e-5)
    # The frame before shows the same.
    before = warp.backward(older, paths[:, n + 1, ..., :2])
    off = np.abs(before - shown)[:, AWAY, AWAY]
    assert off.mean() < 0.02
