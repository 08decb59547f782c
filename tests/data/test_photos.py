import numpy as np
import pytest
from scipy import ndimage

from vidpred_jax.data import photos


def source(split='train', num_frames=4, **settings):
  return photos.PhotosInMotion(split, num_frames, **settings)


def warp(image, flow):
  """Bilinear backward warp, independent of the library."""
  y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(float)
  places = [y + flow[..., 1], x + flow[..., 0]]
  return np.stack(
    [
      ndimage.map_coordinates(channel, places, order=1, mode='nearest')
      for channel in np.moveaxis(image.astype(float), -1, 0)
    ],
    axis=-1,
  )


def test_items_are_uint8_clips_and_functions_of_their_number():
  a, b = source(size=(40, 72)), source(size=(40, 72))
  item = a[5]
  assert item['video'].shape == (4, 40, 72, 3)
  assert item['video'].dtype == np.uint8
  a[3]
  np.testing.assert_array_equal(a[5]['video'], b[5]['video'])
  assert item['name'] == b[5]['name']
  assert not np.array_equal(a[5]['video'], a[6]['video'])
  assert not np.array_equal(
    a[5]['video'], source(size=(40, 72), seed=1)[5]['video']
  )
  assert (len(a), len(source('test'))) == (100_000, 64)
  with pytest.raises(IndexError):
    source(num_clips=3)[3]


def test_train_and_test_photographs_are_disjoint():
  train, test = photos.PHOTOS['train'], photos.PHOTOS['test']
  assert not set(train) & set(test)
  for name in train + test:
    photo = np.asarray(photos._photo(name))
    assert photo.ndim == 3 and photo.std() > 10
    assert min(photo.shape[:2]) >= 300


@pytest.mark.parametrize('split', ['train', 'test'])
def test_warping_by_the_flow_gives_the_next_frame(split):
  clips = source(split, size=96, with_flow=True, max_speed=6.0)
  errors, nothing = [], []
  for i in range(8):
    item = clips[i]
    video = item['video'].astype(float)
    assert item['flow'].shape == (3, 96, 96, 2)
    assert item['flow'].dtype == np.float32
    assert item['visible'].shape == (3, 96, 96)
    assert item['visible'].mean() > 0.6
    for t in range(3):
      seen = item['visible'][t]
      warped = warp(video[t], item['flow'][t])
      errors.append(np.square(warped - video[t + 1])[seen].mean())
      nothing.append(np.square(video[t] - video[t + 1])[seen].mean())
  # What is left is the loss of resampling; without the flow it is 40x.
  assert np.mean(errors) < np.mean(nothing) / 40
  assert np.mean(errors) < 30


def test_smooth_photograph_makes_the_flow_exact(monkeypatch):
  """With a ramp for a photograph resampling costs nothing."""
  ramp = np.add.outer(np.arange(400.0), np.arange(500.0))[:, :, None]
  ramp = np.repeat(ramp * 255 / ramp.max(), 3, axis=2).astype(np.uint8)
  image = photos.Image.fromarray(ramp)
  monkeypatch.setattr(photos, '_photo', lambda name: image)
  clips = source(size=64, with_flow=True, cutouts=0, num_frames=6)
  for i in range(4):
    item = clips[i]
    for t in range(5):
      seen = item['visible'][t]
      warped = warp(item['video'][t], item['flow'][t])
      assert np.abs(warped - item['video'][t + 1])[seen].max() <= 2
      # Only what comes in over the border is not visible.
      inside = slice(12, -12)
      assert seen[inside, inside].all()


def test_cutouts_hide_and_uncover():
  clips = source(size=96, with_flow=True)
  hidden = 0
  for i in range(10):
    item = clips[i]
    inner = ~item['visible'][:, 15:-15, 15:-15]
    hidden += inner.mean() > 0.01
  assert hidden >= 5
  none = source(size=96, with_flow=True, cutouts=0)
  assert all(none[i]['visible'][:, 15:-15, 15:-15].all() for i in range(5))


def test_motion_is_smooth_and_within_its_bounds():
  clips = source(
    num_frames=12, size=96, with_flow=True, cutouts=0, rotation=0.0, zoom=0.0,
    max_speed=4.0,
  )  # fmt: skip
  speeds = []
  for i in range(20):
    flow = clips[i]['flow']
    # Pure translation: one vector per frame.
    np.testing.assert_allclose(np.ptp(flow, axis=(1, 2)), 0, atol=1e-4)
    vectors = flow[:, 0, 0]
    speed = np.hypot(*vectors.T)
    assert speed.max() <= 4.0 + 1e-3
    assert np.abs(np.diff(vectors, axis=0)).max() < 0.9
    speeds.append(speed.mean())
  assert 1.5 < np.mean(speeds) < 3.5


def test_copying_the_last_frame_is_beatable():
  clips = source('test', size=96, num_frames=3)
  psnr = []
  for i in range(16):
    video = clips[i]['video'].astype(float)
    psnr.append(10 * np.log10(255**2 / np.square(video[2] - video[1]).mean()))
  assert 15 < np.mean(psnr) < 25


def test_a_long_clip_and_a_large_one():
  assert source(num_frames=60, size=32)[0]['video'].shape == (60, 32, 32, 3)
  large = source('test', num_frames=2, size=(300, 500))[1]['video']
  assert large.shape == (2, 300, 500, 3)
  assert (large.std((0, 1, 2)) > 5).all()


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'split': 'val'}, "'train' or 'test'"),
    ({'size': (4, 96)}, 'at least 8'),
    ({'num_frames': 0}, 'num_frames'),
    ({'max_speed': -1.0}, 'max_speed'),
    ({'num_clips': 0}, 'num_clips'),
  ],
)
def test_wrong_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    source(**settings)
