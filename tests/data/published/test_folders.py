"""The layouts are made small here: real names, tiny frames."""

import functools

import numpy as np
import pytest

from tests import commands
from tests.data.published.tiny import levels, save, source
from vidpred_jax import data, video_io
from vidpred_jax.data import __main__ as command
from vidpred_jax.data.published import interpolation, layouts, resize
from vidpred_jax.data.published.prediction import (
  KITTI_DRIVES,
  PREDNET_DRIVES,
  PROTOCOLS,
  Count,
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


MAKERS = {
  'cityscapes': cityscapes,
  'kitti': kitti,
  'vimeo90k': vimeo90k,
  'davis17': davis17,
  'ucfsports': ucfsports,
  'human36m': human36m,
  'ucf101': ucf101_frames,
}


@pytest.mark.parametrize('dataset', MAKERS)
def test_every_data_set_gives_clips_of_both_splits(tmp_path, dataset):
  MAKERS[dataset](tmp_path)
  for split in ('train', 'test'):
    clips = source(dataset, tmp_path, split)
    for i in (0, len(clips) - 1):
      item = clips[i]
      assert item['video'].shape == (3, 8, 12, 3)
      assert item['video'].dtype == np.uint8
    assert data.make_source(
      'frames',
      split=split,
      num_frames=3,
      dataset=dataset,
      root=str(tmp_path),
      size=None,
    )[0]['name']


@pytest.mark.parametrize(
  'dataset, split',
  [
    (name, split)
    for name in layouts.FINDERS
    for split in PROTOCOLS[name].counts
  ],
)
def test_missing_data_says_where_to_get_it(tmp_path, dataset, split):
  with pytest.raises(FileNotFoundError) as error:
    source(dataset, tmp_path, split)
  protocol = PROTOCOLS[dataset]
  for words in (protocol.url, protocol.licence, protocol.layout, str(tmp_path)):
    assert words in str(error.value)


def test_the_table_has_the_numbers_of_the_papers():
  table = {
    name: p
    for name, p in PROTOCOLS.items()
    if name not in interpolation.PROTOCOLS
  }
  counts = {
    name: (p.counts['train'].clips, p.counts['test'].clips)
    for name, p in table.items()
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
    'bair': (43264, 256),
    'kth_64': (760, 768),
    'cityscapes_128': (2975, 500),
    'moving_mnist': (60000, 10000),
    'weatherbench': (324313, 17497),
    'taxibj': (20461, 500),
  }
  assert PROTOCOLS['robonet'].counts['val'].clips == 16217
  assert PROTOCOLS['bridgedata'].counts['val'].clips == 3973
  hours = np.datetime64('2016-01-01', 'h') - np.datetime64('1979-01-01', 'h')
  assert hours.astype(int) - 23 == counts['weatherbench'][0]
  assert {name: p.size for name, p in table.items()} == {
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
    'bair': (64, 64),
    'kth_64': (64, 64),
    'cityscapes_128': (128, 128),
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


@pytest.mark.parametrize('val_fraction', [0.0, 0.5])
def test_too_few_clips_are_told_by_the_package(tmp_path, caplog, val_fraction):
  """Commands show the warnings of the package, not those of absl."""
  vimeo90k(tmp_path)
  data.make_source(
    'frames',
    split='train',
    num_frames=3,
    dataset='vimeo90k',
    root=tmp_path,
    val_fraction=val_fraction,
  )
  (said,) = caplog.records
  assert said.name.startswith('vidpred_jax.')
  assert 'vimeo90k train: 2 clips at' in said.getMessage()


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
    source('kitti', tmp_path, split='dev')


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

  def test_from_the_command_line(self, tmp_path, forks):
    root = '--root', str(tmp_path)
    run = functools.partial(forks.run, 'vidpred_jax.data')
    status, out, err = run('--check', 'davis17', *root)
    assert (status, err) == (1, '') and 'davischallenge.org' in out
    status, out, _ = run()
    assert status == 0 and all(name in out for name in PROTOCOLS)
    (tmp_path / 'leftImg8bit_sequence').mkdir()
    (tmp_path / 'leftImg8bit_sequence/val').write_text('no folder')
    for arguments, message in (
      (('--check', 'davis17'), '--check needs --root'),
      (('davis17',), 'davis17'),
      (('--check', 'cityscapes', *root), 'Not a directory'),
    ):
      commands.is_one_line(*run(*arguments), message)
