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
  with pytest.raises(ValueError, match='13x12 .*from frames of 12x12'):
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


@pytest.mark.parametrize('size', [None, (8, 6), (8, 8)])
def test_a_flow_is_carried_along(size):
  """Frame 1 is made from frame 0 by a flow; so it is after any change."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:12, :12]
  flow = np.stack([np.where(x > 5, -2, -1), np.where(y > 5, 1, 2)], -1).astype(
    np.float32
  )
  flow[:2] = np.nan
  places = np.nan_to_num(flow).astype(int) + np.stack([x, y], -1)
  first = rng.integers(0, 256, (12, 12, 3), np.uint8)
  inside = ((places >= 0) & (places < 12)).all(-1)
  flow[~inside] = np.nan
  places = np.clip(places, 0, 11)
  second = first[places[..., 1], places[..., 0]]
  item = {'video': np.stack([first, second]), 'flow': flow[None]}
  seen = 0
  for seed in range(60):
    out = transforms.augment(
      item, np.random.default_rng(seed), size=size, steps=STEPS
    )
    clip, carried = out['video'], out['flow'][0]
    assert carried.shape == (*clip.shape[1:3], 2)
    rows, columns = np.nonzero(np.isfinite(carried[..., 0]))
    to = carried[rows, columns].astype(int) + np.stack([columns, rows], -1)
    height, width = carried.shape[:2]
    there = ((to >= 0) & (to < (width, height))).all(-1)
    rows, columns, to = rows[there], columns[there], to[there]
    np.testing.assert_array_equal(
      clip[1][rows, columns], clip[0][to[:, 1], to[:, 0]]
    )
    seen += len(rows)
  assert seen > 60 * 20
