"""The layouts are made small here: real names, tiny frames."""

import importlib.util
import io
import json
import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from vidpred_jax import data, video_io
from vidpred_jax.data import __main__ as command
from vidpred_jax.data import folders, layouts, resize
from vidpred_jax.data.protocols import (
  KITTI_DRIVES,
  PREDNET_DRIVES,
  PROTOCOLS,
  Count,
)


def save(path, level, size=(8, 12)):
  """A frame that says which one it is."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(ramp(level, size)).save(path)


def ramp(level, size=(8, 12)):
  """Brighter by one from column to column."""
  row = np.arange(size[1], dtype=np.uint8)[None, :, None] + np.uint8(level)
  return np.ascontiguousarray(np.broadcast_to(row, (*size, 3)))


def levels(clip):
  """Which frames these are."""
  return clip[:, 0, 0, 0].tolist()


def write_seq(path, frames, *, stamp=8, code=201, fps=30.0):
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
    len(frames),
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


def source(dataset, root, split='test', num_frames=3, size=None):
  return folders.FrameClips(
    split, num_frames, dataset=dataset, root=root, size=size
  )


def cityscapes(root):
  for part, cities in {'train': ('aachen', 'bonn'), 'val': ('ulm',)}.items():
    for city in cities:
      for drive, begin in ((0, 5), (0, 90), (1, 0)):
        for k in range(30):
          name = f'{city}_{drive:06d}_{begin + k:06d}_leftImg8bit.png'
          save(root / 'leftImg8bit_sequence' / part / city / name, k)


def kitti(root):
  for drives in KITTI_DRIVES.values():
    for n, drive in enumerate(drives[:2]):
      for camera in ('image_02', 'image_03'):
        place = root / drive[:10] / drive / camera / 'data'
        for k in range(12 + n):
          save(place / f'{k:010d}.png', k)


def vimeo90k(root):
  for clip in ('00001/0001', '00001/0002', '00002/0001'):
    for k in (1, 2, 3):
      save(root / 'vimeo_triplet/sequences' / clip / f'im{k}.png', k)
  (root / 'vimeo_triplet/tri_trainlist.txt').write_text(
    '00001/0001\n00002/0001\n\n'
  )
  (root / 'vimeo_triplet/tri_testlist.txt').write_text('00001/0002\n')


def davis17(root):
  for name in ('bear', 'camel', 'dogs-jump'):
    for k in range(11):
      save(root / 'DAVIS/JPEGImages/480p' / name / f'{k:05d}.jpg', k)
  lists = root / 'DAVIS/ImageSets/2017'
  lists.mkdir(parents=True)
  (lists / 'train.txt').write_text('bear\n')
  (lists / 'val.txt').write_text('camel\ndogs-jump\n')


def ucfsports(root):
  for k in range(30):
    save(root / 'ucf_action_images/Diving-Side/001' / f'{k}.png', k)
  folder = 'E:/datasets/UCF-sport/ucf_action_images/Diving-Side/001/'
  (root / 'train.txt').write_text(f'{folder},0\n{folder},20\n')
  (root / 'test.txt').write_text(f'{folder},7\n')


def human36m(root):
  for k in range(80):
    name = f'S1_Directions.54138969_{k:06d}.jpg'
    save(root / 'S1' / name, k)
  prefix = 'E:/human3.6m/S1/,S1_Directions.54138969_'
  (root / 'test.txt').write_text(f'{prefix},1,36\n{prefix},26,96\n')
  # Another list has the folder and the name in one field.
  (root / 'train.txt').write_text('S1/S1_Directions.54138969_,6\n')


def ucf101_frames(root):
  for name in ('v_Archery_g01_c01', 'v_Archery_g08_c02'):
    for k in range(1, 61):
      save(root / 'jpegs_256' / name / f'frame{k:06d}.jpg', 2 * k)
  (root / 'trainlist01.txt').write_text('Archery/v_Archery_g08_c02.avi 3\n')
  (root / 'testlist01.txt').write_text('Archery/v_Archery_g01_c01.avi\n')


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
  'cityscapes': cityscapes,
  'kitti': kitti,
  'vimeo90k': vimeo90k,
  'davis17': davis17,
  'ucfsports': ucfsports,
  'human36m': human36m,
  'ucf101': ucf101_frames,
}


@pytest.mark.parametrize('dataset', layouts.FINDERS)
def test_every_data_set_gives_clips_of_both_splits(tmp_path, dataset):
  MAKERS[dataset](tmp_path)
  height = width = 16
  if dataset != 'robonet':
    height, width = 8, 12
  channels = 1 if dataset == 'kth' else 3
  for split in ('train', 'test'):
    clips = source(dataset, tmp_path, split)
    for i in (0, len(clips) - 1):
      item = clips[i]
      assert item['video'].shape == (3, height, width, channels)
      assert item['video'].dtype == np.uint8
    assert data.make_source(
      'frames',
      split=split,
      num_frames=3,
      dataset=dataset,
      root=str(tmp_path),
      size=None,
    )[0]['name']


@pytest.mark.parametrize('dataset', layouts.FINDERS)
@pytest.mark.parametrize('split', ['train', 'test'])
def test_missing_data_says_where_to_get_it(tmp_path, dataset, split):
  with pytest.raises(FileNotFoundError) as error:
    source(dataset, tmp_path, split)
  protocol = PROTOCOLS[dataset]
  for words in (protocol.url, protocol.licence, protocol.layout, str(tmp_path)):
    assert words in str(error.value)


def test_the_table_has_the_numbers_of_the_papers():
  counts = {
    name: (p.counts['train'].clips, p.counts['test'].clips)
    for name, p in PROTOCOLS.items()
  }
  assert counts == {
    'cityscapes': (2975, 500),
    'kitti': (13500, 1337),
    'ucf101': (9537, 3783),
    'vimeo90k': (51312, 3782),
    'davis17': (60, 30),
    'ucfsports': (6288, 752),
    'human36m': (73404, 8582),
    'kth': (5200, 3167),
    'caltech': (2042, 1983),
    'human36m_256': (73404, 8582),
    'robonet': (145000, 256),
    'bridgedata': (31775, 3971),
    'moving_mnist': (60000, 10000),
    'weatherbench': (324313, 17497),
    'taxibj': (20461, 500),
  }
  assert PROTOCOLS['robonet'].counts['val'].clips == 16217
  assert PROTOCOLS['bridgedata'].counts['val'].clips == 3973
  hours = np.datetime64('2016-01-01', 'h') - np.datetime64('1979-01-01', 'h')
  assert hours.astype(int) - 23 == counts['weatherbench'][0]
  assert {name: p.size for name, p in PROTOCOLS.items()} == {
    'cityscapes': (512, 1024),
    'kitti': (256, 832),
    'ucf101': None,
    'vimeo90k': (256, 448),
    'davis17': (480, 864),
    'ucfsports': (512, 512),
    'human36m': (1024, 1024),
    'kth': (128, 128),
    'caltech': (128, 160),
    'human36m_256': (256, 256),
    'robonet': (120, 160),
    'bridgedata': (120, 160),
    'moving_mnist': (64, 64),
    'weatherbench': None,
    'taxibj': (32, 32),
  }
  assert len(KITTI_DRIVES['train']) == 24 and len(KITTI_DRIVES['test']) == 4
  assert not set(KITTI_DRIVES['train']) & set(KITTI_DRIVES['test'])
  # 28 of the city, 21 residential, 12 of roads; 4 for validation and testing.
  assert len(PREDNET_DRIVES) == len(set(PREDNET_DRIVES)) == 28 + 21 + 12 - 4
  out = {f'2011_09_26_drive_{n:04d}_sync' for n in (5, 70, 79, 104)}
  assert not out & set(PREDNET_DRIVES)


class TestWindows:
  def test_cityscapes(self, tmp_path):
    cityscapes(tmp_path)
    test = source('cityscapes', tmp_path, num_frames=9)
    assert len(test) == 3
    assert levels(test[1]['video']) == list(range(9))
    train = source('cityscapes', tmp_path, 'train', num_frames=5)
    assert len(train) == 2 * 3 * 26
    assert levels(train[25]['video']) == [25, 26, 27, 28, 29]
    assert levels(train[26]['video']) == [0, 1, 2, 3, 4]

  def test_cityscapes_with_a_missing_frame(self, tmp_path):
    cityscapes(tmp_path)
    place = tmp_path / 'leftImg8bit_sequence/val/ulm'
    (place / 'ulm_000000_000010_leftImg8bit.png').unlink()
    with pytest.raises(ValueError, match='runs of 30 frames'):
      source('cityscapes', tmp_path)

  @pytest.mark.parametrize('name', ['0.png', 'a_b_c_leftImg8bit.png'])
  def test_cityscapes_with_a_foreign_picture(self, tmp_path, name):
    cityscapes(tmp_path)
    place = tmp_path / 'leftImg8bit_sequence/val/ulm'
    (place / name).write_bytes(b'')
    with pytest.raises(ValueError, match=f'{name} is no frame.*<drive>'):
      source('cityscapes', tmp_path)

  def test_kitti(self, tmp_path):
    kitti(tmp_path)
    # Windows of 9 frames in drives of 12 and 13 frames, one camera.
    test = source('kitti', tmp_path, num_frames=9)
    assert len(test) == 4 + 5
    assert levels(test[4]['video']) == list(range(9))
    assert levels(test[8]['video']) == list(range(4, 13))
    # The windows stay those of 9 frames when fewer are asked for.
    assert len(source('kitti', tmp_path, num_frames=3)) == 9
    # Two cameras, and any window.
    train = source('kitti', tmp_path, 'train', num_frames=3)
    assert len(train) == 2 * (10 + 11)
    with pytest.raises(ValueError, match='has 9 frames; 10'):
      source('kitti', tmp_path, num_frames=10)

  def test_listed_windows(self, tmp_path):
    ucfsports(tmp_path)
    test = source('ucfsports', tmp_path, num_frames=10)
    assert len(test) == 1
    assert levels(test[0]['video']) == list(range(7, 17))
    train = source('ucfsports', tmp_path, 'train', num_frames=10)
    assert [levels(train[i]['video'])[0] for i in (0, 1)] == [0, 20]

  def test_every_fifth_frame(self, tmp_path):
    human36m(tmp_path)
    test = source('human36m', tmp_path, num_frames=8)
    assert len(test) == 2
    got = np.array(levels(test[1]['video']))
    assert np.abs(got - np.arange(26, 66, 5)).max() <= 2  # jpeg
    train = source('human36m', tmp_path, 'train', num_frames=8)
    assert np.abs(levels(train[0]['video'])[0] - 6) <= 2

  def test_vimeo(self, tmp_path):
    vimeo90k(tmp_path)
    assert levels(source('vimeo90k', tmp_path)[0]['video']) == [1, 2, 3]
    assert len(source('vimeo90k', tmp_path, 'train')) == 2
    for k in (1, 2, 3):
      save(tmp_path / f'alone/vimeo_interp_test/target/00001/0389/im{k}.png', k)
    assert source('vimeo90k', tmp_path / 'alone')[0]['name'] == '00001/0389@0'

  def test_prepared_folders(self, tmp_path):
    for clip in ('000000', '000001'):
      for k in range(9):
        save(tmp_path / 'test' / clip / f'{k:010d}.png', k)
    for dataset in ('cityscapes', 'kitti', 'davis17'):
      clips = source(dataset, tmp_path, num_frames=9)
      assert len(clips) == 2
      assert levels(clips[1]['video']) == list(range(9))


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

  def test_without_h5py(self, tmp_path, monkeypatch):
    robonet(tmp_path)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(FileNotFoundError, match='pip install.*fields'):
      source('robonet', tmp_path)[0]


class TestUcf101:
  def test_frames_start_and_step_are_drawn(self, tmp_path):
    ucf101_frames(tmp_path)
    clips = source('ucf101', tmp_path, 'train', num_frames=4)
    assert len(clips) == 100
    seen = set()
    for i in range(60):
      marks = np.rint(np.array(levels(clips[i]['video'])) / 2)
      steps = set(np.diff(marks))
      assert len(steps) == 1 and steps <= {1, 2, 3, 4, 5}
      assert 1 <= marks[0] and marks[-1] <= 60
      seen |= steps
    assert seen == {1, 2, 3, 4, 5}
    again = source('ucf101', tmp_path, 'train', num_frames=4)
    np.testing.assert_array_equal(clips[7]['video'], again[7]['video'])

  def test_avi_files(self, tmp_path):
    ucf101_frames(tmp_path)
    for name in ('v_Archery_g01_c01', 'v_Archery_g08_c02'):
      frames = video_io.read(tmp_path / 'jpegs_256' / name)
      place = tmp_path / 'avi/UCF-101/Archery'
      place.mkdir(parents=True, exist_ok=True)
      with video_io.Writer(place / f'{name}.avi', fps=25) as writer:
        for frame in frames:
          writer.write(frame)
    for name in ('trainlist01.txt', 'testlist01.txt'):
      (tmp_path / 'avi' / 'ucfTrainTestlist').mkdir(exist_ok=True)
      text = (tmp_path / name).read_text()
      (tmp_path / 'avi' / 'ucfTrainTestlist' / name).write_text(text)
    pictures = source('ucf101', tmp_path, 'train', num_frames=6)
    videos = source('ucf101', tmp_path / 'avi', 'train', num_frames=6)
    for i in range(4):
      one, two = pictures[i]['video'], videos[i]['video']
      # The same draws from either.
      assert np.abs(one.astype(int) - two).max() < 12


def test_frames_are_resized_as_opencv_does(tmp_path):
  vimeo90k(tmp_path)
  plain = source('vimeo90k', tmp_path)[0]['video']
  for size in ((5, 20), 'protocol'):
    clip = source('vimeo90k', tmp_path, size=size)[0]['video']
    wanted = (256, 448) if size == 'protocol' else size
    np.testing.assert_array_equal(clip[1], resize.linear(plain[1], wanted))


def test_a_missing_or_damaged_frame_is_named(tmp_path):
  vimeo90k(tmp_path)
  place = tmp_path / 'vimeo_triplet/sequences/00001/0002'
  (place / 'im2.png').write_bytes(b'not a picture')
  with pytest.raises(ValueError, match='im2.png'):
    source('vimeo90k', tmp_path)[0]
  (place / 'im2.png').unlink()
  with pytest.raises(FileNotFoundError, match='im2.png'):
    source('vimeo90k', tmp_path)[0]
  save(place / 'im2.png', 0, size=(9, 12))
  with pytest.raises(ValueError, match='differ in size'):
    source('vimeo90k', tmp_path)[0]


def test_unknown_names(tmp_path):
  with pytest.raises(ValueError, match='no data set .*kity.*kitti'):
    source('kity', tmp_path)
  with pytest.raises(ValueError, match='splits train, test'):
    source('kitti', tmp_path, split='val')


class TestCheck:
  def test_all_there(self, tmp_path, monkeypatch):
    davis17(tmp_path)
    counts = {'train': Count(1), 'test': Count(2)}
    monkeypatch.setitem(
      PROTOCOLS, 'davis17', PROTOCOLS['davis17']._replace(counts=counts)
    )
    table, good = command.check('davis17', str(tmp_path))
    assert good and table.count(' ok') == 2

  def test_a_different_number(self, tmp_path):
    davis17(tmp_path)
    table, good = command.check('davis17', str(tmp_path))
    assert not good and table.count('differs') == 2
    assert 'test   2      30        differs' in table

  def test_an_unconfirmed_number_is_no_error(self, tmp_path, monkeypatch):
    kitti(tmp_path)
    counts = PROTOCOLS['kitti'].counts | {'test': Count(9)}
    monkeypatch.setitem(
      PROTOCOLS, 'kitti', PROTOCOLS['kitti']._replace(counts=counts)
    )
    table, good = command.check('kitti', str(tmp_path))
    assert good and 'unconfirmed' in table and '6749' in table

  def test_missing_frames(self, tmp_path, monkeypatch):
    vimeo90k(tmp_path)
    (tmp_path / 'vimeo_triplet/sequences/00001/0002/im3.png').unlink()
    table, good = command.check('vimeo90k', str(tmp_path))
    assert not good and '1 files missing' in table and 'im3.png' in table

  def test_data_sets_of_other_sources(self, tmp_path):
    for dataset in ('moving_mnist', 'weatherbench', 'taxibj'):
      table, good = command.check(dataset, str(tmp_path))
      assert not good and table.count('missing') == 2
      assert PROTOCOLS[dataset].url in table
    arrays = {
      f'{k}_{split}': np.zeros((n, 4, 2, 32, 32), np.float32)
      for split, n in (('train', 3), ('test', 2))
      for k in 'XY'
    }
    np.savez(tmp_path / 'dataset.npz', **arrays)
    table, good = command.check('taxibj', str(tmp_path))
    assert good and 'test   2      500       differs (number unconf' in table
    with pytest.raises(ValueError, match="no data set 'taxibj'"):
      source('taxibj', tmp_path)

  def test_three_splits(self, tmp_path):
    bridgedata(tmp_path)
    lost = tmp_path / 'bridge_data_v1/berkeley/val/traj0/images0/im_4.jpg'
    lost.unlink()
    table, good = command.check('bridgedata', str(tmp_path))
    assert not good and table.count('differs') == 2
    assert '1 files missing' in table and str(lost) in table

  def test_from_the_command_line(self, tmp_path):
    def run(*arguments):
      return subprocess.run(
        [sys.executable, '-m', 'vidpred_jax.data', *arguments],
        capture_output=True,
        text=True,
      )

    done = run('--check', 'davis17', '--root', str(tmp_path))
    assert done.returncode == 1
    assert 'davischallenge.org' in done.stdout and not done.stderr
    listed = run()
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in PROTOCOLS)
    (tmp_path / 'leftImg8bit_sequence').mkdir()
    (tmp_path / 'leftImg8bit_sequence/val').write_text('no folder')
    for arguments, message in (
      (('--check', 'davis17'), '--check needs --root'),
      (('davis17',), 'davis17'),
      (('--check', 'cityscapes', '--root', str(tmp_path)), 'Not a directory'),
    ):
      done = run(*arguments)
      assert done.returncode == 2 and message in done.stderr
      assert len(done.stderr.splitlines()) == 1
