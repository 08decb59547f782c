import numpy as np
import pytest
from scipy import ndimage

from vidpred_jax.data import photos


def source(split='train', num_frames=4, **settings):
  return photos.PhotosInMotion(split, num_frames, **settings)


def backward(num_frames):
  return [(t + 1, t) for t in range(num_frames - 1)]


def visible(item):
  return ~np.isnan(item['flow'][..., 0])


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
    photo = np.asarray(photos._photo(photos._BUNDLED / name))
    assert photo.ndim == 3 and photo.std() > 10
    assert min(photo.shape[:2]) >= 300


@pytest.mark.parametrize('split', ['train', 'test'])
def test_warping_by_the_flow_gives_the_next_frame(split):
  clips = source(split, size=96, flow_pairs=backward(4), max_speed=6.0)
  errors, nothing = [], []
  for i in range(8):
    item = clips[i]
    video = item['video'].astype(float)
    assert item['flow'].shape == (3, 96, 96, 2)
    assert item['flow'].dtype == np.float32
    assert visible(item).mean() > 0.6
    for t in range(3):
      seen = visible(item)[t]
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
  clips = source(size=64, flow_pairs=backward(6), cutouts=0, num_frames=6)
  for i in range(4):
    item = clips[i]
    for t in range(5):
      seen = visible(item)[t]
      warped = warp(item['video'][t], item['flow'][t])
      assert np.abs(warped - item['video'][t + 1])[seen].max() <= 2
      # Only what comes in over the border is not visible.
      inside = slice(12, -12)
      assert seen[inside, inside].all()


def test_cutouts_hide_and_uncover():
  clips = source(size=96, flow_pairs=backward(4))
  hidden = 0
  for i in range(10):
    item = clips[i]
    inner = ~visible(item)[:, 15:-15, 15:-15]
    hidden += inner.mean() > 0.01
  assert hidden >= 5
  none = source(size=96, flow_pairs=backward(4), cutouts=0)
  assert all(visible(none[i])[:, 15:-15, 15:-15].all() for i in range(5))


def test_motion_is_smooth_and_within_its_bounds():
  clips = source(
    num_frames=12, size=96, flow_pairs=backward(12), cutouts=0,
    rotation=0.0, zoom=0.0, max_speed=4.0,
  )  # fmt: skip
  speeds = []
  for i in range(20):
    flow = clips[i]['flow']
    # Pure translation: one vector per frame.
    spread = np.nanmax(flow, (1, 2)) - np.nanmin(flow, (1, 2))
    np.testing.assert_allclose(spread, 0, atol=1e-4)
    vectors = flow[:, 48, 48]
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
    ({'split': 'dev'}, "'val' or 'test'"),
    ({'size': (4, 96)}, 'at least 8'),
    ({'num_frames': 0}, 'num_frames'),
    ({'max_speed': -1.0}, 'max_speed'),
    ({'num_clips': 0}, 'num_clips'),
    ({'min_speed': 9.0}, 'min_speed'),
    ({'noise': -1.0}, 'noise'),
    ({'still': 1.5}, 'still'),
    ({'border': -0.5}, 'border'),
    ({'shutter': -0.1}, 'shutter'),
    ({'flow_pairs': ((4, 0),)}, 'numbers of the 4 frames'),
  ],
)
def test_wrong_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    source(**settings)


def test_flow_between_frames_further_apart_in_either_direction():
  pairs = ((2, 0), (0, 2), (2, 1))
  clips = source(
    size=96, num_frames=3, flow_pairs=pairs, cutouts=2, max_speed=6.0
  )
  for i in range(6):
    item = clips[i]
    for p, (of, into) in enumerate(pairs):
      seen = visible(item)[p]
      warped = warp(item['video'][into], np.nan_to_num(item['flow'][p]))
      error = np.square(warped - item['video'][of])
      still = np.square(1.0 * item['video'][into] - item['video'][of])
      assert error[seen].mean() < still[seen].mean() / 4
  # Twice as far in twice the time, nearly.
  twice, once = (np.nanmedian(item['flow'][p], (0, 1)) for p in (0, 2))
  np.testing.assert_allclose(twice, 2 * once, atol=1.5)


def test_slow_motion_is_as_frequent_as_fast_and_some_things_stand_still():
  settings = {'size': 48, 'cutouts': 0, 'num_frames': 2, 'rotation': 0.0}
  settings |= {'zoom': 0.0, 'flow_pairs': ((1, 0),), 'max_speed': 8.0}
  clips = source(min_speed=0.25, still=0.3, **settings)
  speeds = [
    np.hypot(*np.nanmedian(clips[i]['flow'][0], (0, 1))) for i in range(60)
  ]
  still = np.isclose(speeds, 0, atol=1e-4)
  assert 8 <= still.sum() <= 30
  moving = np.array(speeds)[~still]
  assert 0.1 < moving.min() and moving.max() <= 8.0
  # The middle of a logarithmic range, not of the range.
  assert np.median(moving) < 2.5


def test_bars_stand_still_in_front_and_the_rest_stays_as_it_is():
  settings = {'size': 64, 'num_frames': 3, 'max_speed': 6.0}
  settings |= {'flow_pairs': ((0, 2),), 'num_clips': 12}
  plain, framed = source(**settings), source(border=1.0, **settings)
  kinds = set()
  for i in range(12):
    a, b = plain[i]['video'].astype(int), framed[i]['video'].astype(int)
    differ = (a != b).any((0, -1))
    rows, columns = differ.all(1), differ.all(0)
    kinds.add((bool(rows.any()), bool(columns.any())))
    inside = b[:, ~rows][:, :, ~columns]
    np.testing.assert_array_equal(inside, a[:, ~rows][:, :, ~columns])
    assert np.ptp(b[:, rows], axis=0).max(initial=0) == 0
    assert np.ptp(b[:, :, columns], axis=0).max(initial=0) == 0
    # Bars do not move, and no flow leads from the picture into one.
    flow = framed[i]['flow'][0]
    assert np.nanmax(np.abs(flow[rows]), initial=0) < 1e-4
    y, x = np.nonzero(np.isfinite(flow).all(-1) & ~rows[:, None] & ~columns)
    u, v = np.rint(flow[y, x] + 0.0).astype(int).T
    y, x = np.clip(y + v, 0, 63), np.clip(x + u, 0, 63)
    assert not (rows[y] | columns[x]).mean() > 0.02
  assert len(kinds) == 3


def test_shutter_blurs_what_moves_and_only_that():
  settings = {'size': 64, 'num_frames': 3, 'cutouts': 0, 'max_speed': 12.0}
  sharp, soft = source(**settings), source(shutter=1.0, **settings)

  def detail(clips):
    videos = np.stack([clips[i]['video'] for i in range(12)]).astype(float)
    return np.abs(np.diff(videos, axis=-2)).mean()

  assert detail(soft) < 0.9 * detail(sharp)
  # Nothing black comes in from outside of the picture.
  item = soft[0]['video'].astype(float)
  edge = item[:, :, :2].mean() - item[:, :, 2:6].mean()
  assert abs(edge) < 20
  still = source(shutter=1.0, still=1.0, **settings)[3]['video']
  assert np.ptp(still.astype(int), axis=0).max() == 0
  assert detail(source(shutter=1.0, still=1.0, **settings)) == pytest.approx(
    detail(source(still=1.0, **settings)), rel=0.15
  )


@pytest.mark.parametrize(
  'settings, low, high',
  [({'noise': 8.0}, 0.5, 8.0), ({'coding': 1.0}, 0.2, 15.0)],
)
def test_the_camera_adds_noise_and_coding(settings, low, high):
  still = {'size': 64, 'num_frames': 2, 'still': 1.0}
  plain, noisy = source(**still), source(**still, **settings)
  errors = []
  for i in range(8):
    a, b = (s[i]['video'].astype(float) for s in (plain, noisy))
    errors.append(np.sqrt(np.square(a - b).mean()))
  assert low < np.mean(errors) < high


def test_light_changes_evenly_over_a_clip():
  still = {'size': 64, 'num_frames': 5, 'still': 1.0, 'cutouts': 0}
  video = source(light=0.1, **still)[4]['video'].astype(float)
  means = video.mean((1, 2, 3))
  assert np.ptp(means) > 3
  np.testing.assert_allclose(np.diff(means), np.diff(means).mean(), atol=1.5)


def test_a_folder_adds_photographs_to_training_only(tmp_path, caplog):
  (tmp_path / 'more').mkdir()
  rng = np.random.default_rng(0)
  for name in ('more/blue.png', 'sky.JPG'):
    noise = rng.integers(0, 60, (80, 90, 3), np.uint8)
    picture = photos.Image.fromarray(noise + np.uint8([0, 0, 190]))
    picture.save(tmp_path / name)
  (tmp_path / 'words.txt').write_text('no photograph')
  (tmp_path / 'more' / 'back').symlink_to(tmp_path)
  names = {source(size=16, folder=tmp_path)[i]['name'] for i in range(80)}
  stems = {name.split('-', 1)[1] for name in names}
  assert {'blue', 'sky'} < stems and 'words' not in stems
  assert (
    'Passed over' in caplog.text and 'no pictures: words.txt' in caplog.text
  )
  found = photos._photographs(tmp_path)
  assert found == (tmp_path / 'more' / 'blue.png', tmp_path / 'sky.JPG')
  stems = {
    source('test', size=16, folder=tmp_path)[i]['name'] for i in range(20)
  }
  assert not any('blue' in stem or 'sky' in stem for stem in stems)


def test_a_folder_without_photographs_and_a_damaged_one(tmp_path):
  with pytest.raises(FileNotFoundError, match='no photographs'):
    source(folder=tmp_path)
  (tmp_path / 'cut.png').write_bytes(b'not a picture')
  with pytest.raises(ValueError, match='cut.png'):
    source(size=16, folder=tmp_path, cutouts=20)


@pytest.mark.parametrize('kind', ['uint16', 'palette'])
def test_photographs_are_read_as_a_viewer_shows_them(tmp_path, kind):
  """And what systems put into folders is none."""
  (tmp_path / '._a.png').write_bytes(b'junk')
  (tmp_path / 'folder.png').mkdir()
  (tmp_path / '.thumbnails').mkdir()
  (tmp_path / '.thumbnails' / 'b.png').write_bytes(b'junk')
  ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
  wide = photos.Image.fromarray(ramp.astype(np.uint16) * 257)
  image = wide if kind == 'uint16' else photos.Image.fromarray(ramp)
  path = tmp_path / 'a.png'
  (image if kind == 'uint16' else image.quantize(64)).save(path)
  assert photos._photographs(tmp_path) == (path,)
  shown = np.asarray(photos._photo(path))
  np.testing.assert_allclose(shown[0, :, 1], ramp[0], atol=4)
