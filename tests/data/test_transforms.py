import numpy as np
import pytest

from vidpred_jax.data import transforms

STEPS = (
  transforms.rotate,
  transforms.flip_vertical,
  transforms.flip_horizontal,
  transforms.reverse_time,
  transforms.reverse_channels,
)


@pytest.fixture
def clip():
  return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)


def results(step, clip, n=400):
  """Distinct results and how often each came."""
  found = {}
  for seed in range(n):
    out = step(clip, np.random.default_rng(seed))
    key = out.tobytes()
    found[key] = (out, found.get(key, (out, 0))[1] + 1)
  return list(found.values())


@pytest.mark.parametrize(
  'step, other',
  [
    (transforms.flip_vertical, lambda c: np.flip(c, 1)),
    (transforms.flip_horizontal, lambda c: np.flip(c, 2)),
    (transforms.reverse_time, lambda c: np.flip(c, 0)),
    (transforms.reverse_channels, lambda c: np.flip(c, 3)),
  ],
)
def test_half_of_the_clips_are_reversed(clip, step, other):
  found = results(step, clip)
  assert len(found) == 2
  for out, times in found:
    same = np.array_equal(out, clip)
    np.testing.assert_array_equal(out, clip if same else other(clip))
    assert abs(times / 400 - 0.5) < 0.1


def test_rotation_has_the_published_odds(clip):
  # 1/2 by 90 degrees clockwise, else 1/2 by 180, else 1/2 counterclockwise.
  odds = {3: 1 / 2, 2: 1 / 4, 1: 1 / 8, 0: 1 / 8}
  found = results(transforms.rotate, clip, 1600)
  assert len(found) == 4
  for out, times in found:
    turns = next(
      k for k in odds if np.array_equal(out, np.rot90(clip, k, (1, 2)))
    )
    assert abs(times / 1600 - odds[turns]) < 0.04


def test_rotation_keeps_the_shape_of_a_clip_that_is_not_square(clip):
  wide = clip[:, :6]
  found = results(transforms.rotate, wide)
  assert len(found) == 2
  assert all(out.shape == wide.shape for out, _ in found)


def test_crop_is_a_part_and_reaches_every_border(clip):
  found = results(lambda c, r: transforms.crop(c, r, (10, 11)), clip)
  assert len(found) == 3 * 2
  parts = {
    clip[:, i : i + 10, j : j + 11].tobytes() for i in range(3) for j in (0, 1)
  }
  assert {out.tobytes() for out, _ in found} == parts
  assert transforms.crop(clip, np.random.default_rng(0), (12, 12)) is not None
  with pytest.raises(ValueError, match='13x12 from frames of 12x12'):
    transforms.crop(clip, np.random.default_rng(0), (13, 12))


def test_all_frames_change_alike(clip):
  still = np.repeat(clip[:1], 4, axis=0)
  for seed in range(20):
    item = transforms.augment(
      {'video': still, 'label': 3},
      np.random.default_rng(seed),
      size=(8, 8),
      steps=STEPS,
    )
    out = item['video']
    assert item['label'] == 3 and out.shape == (4, 8, 8, 3)
    np.testing.assert_array_equal(out, np.repeat(out[:1], 4, axis=0))
