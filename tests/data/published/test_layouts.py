"""The data sets of SimVPv2, made small: real names, tiny frames."""

import importlib.util
import io
import json
import struct

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.data.published.tiny import levels, ramp, save, source
from vidpred_jax import data, video_io
from vidpred_jax.data import __main__ as command
from vidpred_jax.data.published import layouts, resize
from vidpred_jax.data.published.prediction import PREDNET_DRIVES, PROTOCOLS


def write_seq(path, frames, *, stamp=8, code=201, fps=30.0, told=None):
  """A Norpix file, after its description."""
  path.parent.mkdir(parents=True, exist_ok=True)
  header = struct.pack('<I', 0xFEED) + 'Norpix seq'.encode('utf-16-le')
  header = header.ljust(548, b'\0')
  height, width = frames[0].shape[:2]
  header += struct.pack(
    '<9Id',
    width,
    height,
    24,
    8,
    width * height * 3,
    code,
    len(frames) if told is None else told,
    0,
    0,
    fps,
  )
  with path.open('wb') as file:
    file.write(header.ljust(1024, b'\0'))
    for frame in frames:
      buffer = io.BytesIO()
      Image.fromarray(frame).save(buffer, 'JPEG', quality=95)
      file.write(struct.pack('<I', buffer.tell() + 4) + buffer.getvalue())
      file.write(bytes(range(stamp)))


def human36m_256(root):
  for k in range(80):
    save(root / 'images' / f'S1_Walking.60457274_{k:06d}.jpg', k)
  (root / 'test.txt').write_text('images/S1_Walking.60457274_,2\n')
  (root / 'train.txt').write_text('images/S1_Walking.60457274_,1,36\n')


def kth(root):
  """Two persons of either split; two runs of frames in each folder."""
  for action in ('boxing', 'running'):
    for person in (2, 16, 17):
      place = root / 'kth' / action / f'person{person:02d}_{action}_d1_uncomp'
      for k in (*range(1, 26), *range(40, 61)):
        save(place / f'image_{k:04d}.png', k)
      (place / 'Thumbs.db').write_bytes(b'')
      (place / '._image_0001.png').write_bytes(b'of macOS')


def caltech(root):
  for drive in PREDNET_DRIVES[:2]:
    place = root / 'kitti/city' / drive[:10] / drive / 'image_03/data'
    for k in range(25):
      save(place / f'{k:010d}.png', k)
  for name in ('set05/V000.seq', 'set06/V000.seq', 'set10/V011.seq'):
    frames = [ramp(4 * k) for k in range(36)]
    write_seq(root / 'caltech' / name, frames)
    (root / 'caltech' / name).with_suffix('.txt').write_text('notes')


def robonet(root):
  episodes = {'train': 'abc', 'val': 'd', 'test': 'ef'}
  for split, names in episodes.items():
    for k, name in enumerate(names):
      # Half of them are films.
      write_episode(root / 'hdf5' / f'{name}.hdf5', film=k % 2)
    listed = json.dumps([f'{name}.hdf5' for name in names])
    place = root / 'annotations' / f'robonet_{split}.json'
    place.parent.mkdir(exist_ok=True)
    place.write_text(listed)


def write_episode(path, film, length=31, order='RGB'):
  """Camera k shows 60 (k + 1) + frame in red, and less in blue."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, 'w') as file:
    env = file.create_group('env')
    env.attrs['n_cams'] = 2
    env.attrs['cam_encoding'] = 'mp4' if film else 'jpg'
    for camera in range(2):
      frames = np.zeros((length, 16, 16, 3), np.uint8)
      frames[..., 0] = (60 * (camera + 1) + np.arange(length))[:, None, None]
      frames[..., 2] = 20
      group = env.create_group(f'cam{camera}_video')
      if film:
        # Writers of films take RGB; what has another order is stored as it is.
        data = film_bytes(path, frames if order == 'RGB' else frames[..., ::-1])
        group['frames'] = np.frombuffer(data, np.uint8)
        group['frames'].attrs.update(T=length, image_format=order)
        continue
      for k, frame in enumerate(frames):
        # cv2.imencode takes BGR.
        stored = frame[..., ::-1] if order == 'RGB' else frame
        buffer = io.BytesIO()
        Image.fromarray(stored).save(buffer, 'JPEG', quality=95)
        group[f'frame{k}'] = np.frombuffer(buffer.getvalue(), np.uint8)
        group[f'frame{k}'].attrs['image_format'] = order


def film_bytes(path, frames):
  film = path.with_suffix('.mp4')
  with video_io.Writer(film, fps=10, overwrite=True) as writer:
    for frame in frames:
      writer.write(frame)
  data = film.read_bytes()
  film.unlink()
  return data


def bridgedata(root):
  for split, lengths in {
    'train': (12, 20),
    'val': (13,),
    'test': (25, 11),
  }.items():
    listed = {}
    for number, length in enumerate(lengths):
      folder = f'berkeley/{split}/traj{number}/images0'
      listed[folder] = length
      for k in range(length):
        save(root / 'bridge_data_v1' / folder / f'im_{k}.jpg', 3 * k)
    (root / f'bridgedata_{split}.json').write_text(json.dumps(listed))


MAKERS = {
  'human36m_256': human36m_256,
  'kth': kth,
  'caltech': caltech,
  'robonet': robonet,
  'bridgedata': bridgedata,
}


@pytest.mark.parametrize('dataset', MAKERS)
def test_every_data_set_gives_clips_of_all_splits(tmp_path, dataset):
  MAKERS[dataset](tmp_path)
  size = (16, 16) if dataset == 'robonet' else (8, 12)
  shape = (3, *size, PROTOCOLS[dataset].channels)
  for split in PROTOCOLS[dataset].counts:
    clips = data.make_source(
      'frames',
      split=split,
      num_frames=3,
      dataset=dataset,
      root=str(tmp_path),
      size=None,
    )
    for i in (0, len(clips) - 1):
      item = clips[i]
      assert item['video'].shape == shape and item['name']
      assert item['video'].dtype == np.uint8


def published_windows(frames, hop, window):
  """Beginnings of windows as the published loader of KTH collects them.

  From the last frame backwards; a window must lie in one run of numbers.
  """
  starts, k = [], len(frames) - 1
  while k >= window - 1:
    if frames[k] - frames[k - window + 1] == window - 1:
      starts.append(k - window + 1)
      k -= (hop or window) - 1
    k -= 1
  return sorted(starts)


class TestKth:
  def test_windows(self, tmp_path):
    kth(tmp_path)
    frames = [*range(1, 26), *range(40, 61)]
    for window in (6, 10):
      expected = []
      for action in ('boxing', 'running'):
        hop = 3 if action == 'running' else None
        starts = published_windows(frames, hop, window)
        expected += [(action, frames[k]) for k in starts]
      test = source('kth', tmp_path, num_frames=window)
      found = [
        (test[i]['name'].split('_')[1], levels(test[i]['video'])[0])
        for i in range(len(test))
      ]
      assert found == expected
      train = source('kth', tmp_path, 'train', num_frames=window)
      assert len(train) == 2 * len(test)
    np.testing.assert_array_equal(np.diff(levels(test[3]['video'])), np.ones(9))
    names = {train[i]['name'][:8] for i in range(len(train))}
    assert names == {'person02', 'person16'}
    assert test[0]['name'] == 'person17_boxing_d1/1@5'

  def test_as_published_it_is_grey_and_square(self, tmp_path):
    kth(tmp_path)
    plain = source('kth', tmp_path)[0]['video']
    clip = source('kth', tmp_path, size='protocol')[0]['video']
    assert clip.shape == (3, 128, 128, 1)
    np.testing.assert_array_equal(clip[0], resize.linear(plain[0], (128, 128)))

  def test_videos_give_the_annotated_frames(self, tmp_path):
    for action in ('boxing', 'walking'):
      path = tmp_path / action / f'person17_{action}_d1_uncomp.avi'
      path.parent.mkdir()
      with video_io.Writer(path, fps=25) as writer:
        for k in range(40):
          writer.write(ramp(5 * k, (16, 24)))
    with pytest.raises(FileNotFoundError, match='00sequences.txt is missing'):
      source('kth', tmp_path)
    (tmp_path / '00sequences.txt').write_text(
      'Training: person11\n\n'
      'person17_boxing_d1\t\tframes\t1-10, 11-19, 30-38\n'
      'person17_walking_d1    \tframes\t31-36, 5-10, 9-14\n'
    )
    test = source('kth', tmp_path, num_frames=6)
    starts = [
      int(np.rint(levels(test[i]['video'])[0] / 5)) for i in range(len(test))
    ]
    # Runs 1-19 and 30-38; 5-14 and 31-36, counted from 1.
    assert starts == [1, 7, 13, 32, 8, 30]
    assert [test[i]['name'] for i in (0, 3)] == [
      'person17_boxing_d1/1@1',
      'person17_boxing_d1/30@3',
    ]


class TestCaltech:
  def test_windows(self, tmp_path):
    caltech(tmp_path)
    # 36 frames are 12 at a third of the rate: the 3rd, the 6th, ...
    test = source('caltech', tmp_path, num_frames=5)
    assert len(test) == 2 * 2
    got = np.array([levels(test[i]['video']) for i in (0, 1)])
    wanted = 4 * (2 + 3 * np.arange(2, 12)).reshape(2, 5)
    assert np.abs(got - wanted).max() <= 2
    assert test[3]['name'] == 'set10/V011@7'
    train = source('caltech', tmp_path, 'train', num_frames=11)
    assert len(train) == 2 * 2
    assert levels(train[1]['video']) == list(range(14, 25))
    assert levels(train[0]['video']) == list(range(3, 14))

  def test_a_film_that_does_not_say_its_length(self, tmp_path):
    frames = [ramp(4 * k) for k in range(36)]
    write_seq(tmp_path / 'set06/V000.seq', frames, told=0)
    test = source('caltech', tmp_path, num_frames=5)
    assert len(test) == 2 and test[1]['name'] == 'set06/V000@7'

  def test_frames_and_videos_instead(self, tmp_path):
    for k in range(30):
      save(tmp_path / 'set07/V001' / f'I{k:05d}.jpg', 6 * k)
    path = tmp_path / 'set07/V002.avi'
    with video_io.Writer(path, fps=30) as writer:
      for k in range(30):
        writer.write(ramp(6 * k, (16, 24)))
    test = source('caltech', tmp_path, num_frames=10)
    assert [test[i]['name'] for i in (0, 1)] == ['set07/V001@0', 'set07/V002@0']
    wanted = 6 * (2 + 3 * np.arange(10))
    for i in (0, 1):
      assert np.abs(np.array(levels(test[i]['video'])) - wanted).max() <= 4

  def test_the_centre_is_kept(self, tmp_path):
    caltech(tmp_path)
    place = tmp_path / 'kitti/city' / PREDNET_DRIVES[0][:10]
    place = place / PREDNET_DRIVES[0] / 'image_03/data'
    for k in range(25):
      save(place / f'{k:010d}.png', 0, (128, 240))
    clip = source('caltech', tmp_path, 'train', size='protocol')[0]['video']
    assert clip.shape == (3, 128, 160, 3)
    # The ramp of columns, from (240 - 160) / 2 on.
    np.testing.assert_array_equal(clip[0, 5, :, 0], np.arange(40, 200))


class TestRobots:
  def test_one_window_in_the_middle_for_testing(self, tmp_path):
    bridgedata(tmp_path)
    test = source('bridgedata', tmp_path, num_frames=12)
    assert len(test) == 1  # the other is too short
    got = np.array(levels(test[0]['video']))
    assert np.abs(got - 3 * np.arange(7, 19)).max() <= 2
    assert len(source('bridgedata', tmp_path, 'val', num_frames=12)) == 1

  def test_random_starts_for_training(self, tmp_path):
    bridgedata(tmp_path)
    train = source('bridgedata', tmp_path, 'train', num_frames=12)
    assert len(train) == 200
    starts = {True: set(), False: set()}
    for i in range(60):
      marks = np.array(levels(train[i]['video'])) / 3
      assert np.abs(np.diff(marks) - 1).max() < 0.7
      starts[i % 2 == 0].add(int(np.rint(marks[0])))
    assert starts[True] == {0} and starts[False] == set(range(9))
    np.testing.assert_array_equal(train[7]['video'], train[7]['video'])

  @pytest.mark.parametrize('film', [False, True])
  @pytest.mark.parametrize('order', ['RGB', 'BGR'])
  def test_episodes_of_robonet(self, tmp_path, film, order):
    for k in range(12):
      write_episode(tmp_path / f'{k}.hdf5', film, order=order)
    names = [f'{k}.hdf5' for k in range(12)]
    (tmp_path / 'robonet_train.json').write_text(json.dumps(names[:2]))
    (tmp_path / 'robonet_test.json').write_text(json.dumps(names))
    test = source('robonet', tmp_path, num_frames=12)
    cameras = []
    for i in range(12):
      video = test[i]['video'].astype(int)
      # Frames 10 to 21 of 31, in either camera.
      camera = video[0, ..., 0].mean() // 60 - 1
      cameras.append(camera)
      red = 60 * (camera + 1) + 10 + np.arange(12)
      assert np.abs(video[..., 0].mean((1, 2)) - red).max() < 5
      assert np.abs(video[..., 2] - 20).max() < 9
    assert set(cameras) == {0, 1}
    again = source('robonet', tmp_path, num_frames=12)
    np.testing.assert_array_equal(test[3]['video'], again[3]['video'])
    train = source('robonet', tmp_path, 'train', num_frames=12)
    assert all(train[i]['video'][..., 0].max() < 100 for i in range(6))
    with pytest.raises(ValueError, match='31 frames, 32 are needed'):
      source('robonet', tmp_path, num_frames=32)[0]

  def test_all_but_the_listed_episodes_train(self, tmp_path):
    robonet(tmp_path)
    (tmp_path / 'annotations/robonet_train.json').unlink()
    train = layouts.FINDERS['robonet'](tmp_path, 'train')
    assert [s.name for s in train] == ['a', 'b', 'c']
    (tmp_path / 'annotations/robonet_val.json').unlink()
    with pytest.raises(FileNotFoundError, match='RoboNet'):
      source('robonet', tmp_path, 'train')

  def test_a_file_of_another_kind(self, tmp_path):
    with h5py.File(tmp_path / 'a.hdf5', 'w') as file:
      file['x'] = 1
    (tmp_path / 'robonet_test.json').write_text('["a.hdf5"]')
    with pytest.raises(ValueError, match='no episode of RoboNet'):
      source('robonet', tmp_path)[0]

  def test_damaged_episodes(self, tmp_path):
    path = tmp_path / 'a.hdf5'
    (tmp_path / 'robonet_test.json').write_text('["a.hdf5"]')

    def check(message='a.hdf5 is damaged or no episode'):
      with pytest.raises(ValueError, match=message) as found:
        source('robonet', tmp_path)[0]
      assert '\n' not in str(found.value)

    for film, name, attribute in (
      (True, 'frames', 'T'),
      (True, 'frames', 'image_format'),
      (False, 'frame0', 'image_format'),
      (False, '', 'n_cams'),
    ):
      write_episode(path, film)
      with h5py.File(path, 'a') as file:
        for k in range(2):
          place = f'env/cam{k}_video/{name}' if name else 'env'
          file[place].attrs.pop(attribute, None)
      check()
    write_episode(path, True)
    with h5py.File(path, 'a') as file:
      for k in range(2):
        file[f'env/cam{k}_video/frames'][50:] = 0
    check()
    write_episode(path, False)
    with h5py.File(path, 'a') as file:
      for k in range(2):
        file[f'env/cam{k}_video'].move('frame0', 'frame40')
    check()
    write_episode(path, False)
    with h5py.File(path, 'a') as file:
      for k in range(2):
        for number in range(31):
          file[f'env/cam{k}_video/frame{number}'][2:] = 0
    check('Frame 14 of .*a.hdf5 is damaged or no JPEG')
    path.write_bytes(path.read_bytes()[:-500])
    check()

  def test_without_h5py(self, tmp_path, monkeypatch):
    robonet(tmp_path)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(FileNotFoundError, match='pip install.*fields'):
      source('robonet', tmp_path)[0]


class TestHuman36m:
  def test_windows_and_size(self, tmp_path):
    human36m_256(tmp_path)
    test = source('human36m_256', tmp_path, num_frames=8)
    plain = test[0]['video']
    assert np.abs(np.array(levels(plain)) - range(2, 42, 5)).max() <= 2
    clip = source('human36m_256', tmp_path, size='protocol')[0]['video']
    np.testing.assert_array_equal(clip[1], resize.cubic(plain[1], (256, 256)))


def test_three_splits_are_checked(tmp_path):
  bridgedata(tmp_path)
  lost = tmp_path / 'bridge_data_v1/berkeley/val/traj0/images0/im_4.jpg'
  lost.unlink()
  table, good = command.check('bridgedata', str(tmp_path))
  assert not good and table.count('differs') == 2
  assert '1 files missing' in table and str(lost) in table
