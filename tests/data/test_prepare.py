import json
import pathlib
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from vidpred_jax import atomic, data
from vidpred_jax.data import __main__ as program
from vidpred_jax.data import prepare, prepared


def films(count=6, length=9, size=(8, 10), channels=3):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, length, *size, channels), np.uint8)


def pictures(folder, count=5, size=(20, 24)):
  folder.mkdir(parents=True)
  rng = np.random.default_rng(len(folder.name) + ord(folder.name[-1]))
  for k in range(count):
    frame = rng.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(frame).save(folder / f'{k:03d}.png')


def write(source, output, **settings):
  return prepare.prepare(source, output, workers=0, **settings)


def same(one, other):
  assert len(one) == len(other)
  for i in range(len(one)):
    np.testing.assert_array_equal(one[i]['video'], other[i]['video'])
    assert one[i]['video'].dtype == other[i]['video'].dtype


@pytest.mark.parametrize('compress', [False, True])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_arrays_come_back_whatever_the_windows(tmp_path, compress, dtype):
  path = tmp_path / 'mine.npy'
  np.save(path, films(channels=2).astype(dtype))
  place = tmp_path / 'out'
  counts = write('arrays', place, root=str(path), compress=compress)
  assert counts == {'train': 45, 'test': 9}
  for split in counts:
    for windows in ({}, {'step': (1, 2)}, {'hop': 3}):
      expected = data.make_source(
        'arrays', split=split, num_frames=4, root=path, **windows
      )
      clips = data.make_source(
        'prepared', split=split, num_frames=4, root=place, **windows
      )
      same(clips, expected)
      assert clips.kind == expected.kind
      if clips.kind == 'field':
        np.testing.assert_array_equal(clips.mean, expected.mean)
        np.testing.assert_array_equal(clips.std, expected.std)
        assert tuple(clips.variables) == ('c0', 'c1')
  again = pickle.loads(pickle.dumps(clips))
  same(again, clips)


def test_a_split_for_validation_is_prepared_or_taken_of_the_training(tmp_path):
  path = tmp_path / 'mine.npy'
  np.save(path, films())
  settings = {'root': str(path), 'val_fraction': 0.4}
  expected = {
    split: data.make_source('arrays', split=split, num_frames=4, **settings)
    for split in ('train', 'val', 'test')
  }
  write('arrays', tmp_path / 'three', splits=tuple(expected), **settings)
  write('arrays', tmp_path / 'two', root=str(path))
  for split, clips in expected.items():
    same(prepared.Prepared(split, 4, root=tmp_path / 'three'), clips)
    same(
      prepared.Prepared(split, 4, root=tmp_path / 'two', val_fraction=0.4),
      clips,
    )
  with pytest.raises(ValueError, match='has a prepared split for validation'):
    prepared.Prepared('train', 4, root=tmp_path / 'three', val_fraction=0.4)


def test_two_processes_do_not_prepare_in_one_folder(tmp_path):
  path, place = tmp_path / 'mine.npy', tmp_path / 'out'
  np.save(path, films())
  place.mkdir()
  with atomic.holding(place):
    with pytest.raises(ValueError, match='is in use by process'):
      write('arrays', place, root=str(path))
  write('arrays', place, root=str(path))
  assert not (place / atomic.LOCK).exists()


def test_films_are_resized_once_and_keep_their_borders(tmp_path):
  for n in range(4):
    pictures(tmp_path / 'films' / f'film{n}', 5 + n)
  settings = {'root': str(tmp_path / 'films'), 'size': (8, 12)}
  write('videos', tmp_path / 'out', **settings)
  for split in ('train', 'test'):
    same(
      prepared.Prepared(split, 3, root=tmp_path / 'out'),
      data.make_source('videos', split=split, num_frames=3, **settings),
    )
  record = json.loads((tmp_path / 'out' / 'train.json').read_text())
  assert record['lengths'] == [5, 6, 7] and record['shape'] == [8, 12, 3]


def test_a_published_data_set_keeps_its_protocol(tmp_path):
  root = tmp_path / 'bair'
  for split in ('train', 'test'):
    for n in range(2):
      pictures(root / split / f'clip{n}', 30, size=(80, 80))
  settings = {'dataset': 'bair', 'root': str(root)}
  write('frames', tmp_path / 'out', **settings)
  for split in ('train', 'test'):
    expected, clips = (
      data.make_source(
        'frames', split=split, num_frames=20, dataset='bair', root=place
      )
      for place in (root, tmp_path / 'out')
    )
    assert expected[0]['video'].shape == (20, 64, 64, 3)
    same(clips, expected)
    assert clips[0]['name'] == expected[0]['name']
  with pytest.raises(ValueError, match='prepared of bair, not of kitti'):
    data.make_source(
      'frames', split='train', num_frames=3, dataset='kitti',
      root=tmp_path / 'out',
    )  # fmt: skip


@pytest.fixture
def storage(memory, tmp_path, monkeypatch):
  """Fsspec's memory, and where copies of it lie."""
  monkeypatch.setenv('VIDPRED_JAX_DATA', str(tmp_path / 'copies'))
  return memory


def put(memory, folder):
  memory.put(f'{folder}/', '/bucket/data/', recursive=True)


def test_prepared_data_at_an_address_are_copied_once(
  tmp_path, storage, monkeypatch
):
  np.save(tmp_path / 'mine.npy', films())
  root = str(tmp_path / 'mine.npy')
  write('arrays', tmp_path / 'out', root=root)
  put(storage, tmp_path / 'out')
  address = 'memory://bucket/data'
  clips = prepared.Prepared('train', 4, root=address)
  same(clips, prepared.Prepared('train', 4, root=tmp_path / 'out'))
  same(pickle.loads(pickle.dumps(clips)), clips)
  same(
    prepared.Prepared('val', 4, root=address, val_fraction=0.5),
    prepared.Prepared('val', 4, root=tmp_path / 'out', val_fraction=0.5),
  )
  copied = sorted(p.name for p in (tmp_path / 'copies').glob('*/*'))
  assert copied == ['train-00000.array_record', 'train.json']
  with monkeypatch.context() as patch:
    patch.setattr(type(storage), 'get_file', None)  # nothing is copied again
    same(prepared.Prepared('train', 4, root=address), clips)
    # A split that is refused is not fetched before.
    storage.pipe('/bucket/data/val.json', b'{}')
    with pytest.raises(ValueError, match='has a prepared split for valid'):
      prepared.Prepared('train', 4, root=address, val_fraction=0.5)
  assert not list((tmp_path / 'copies').glob('*/val.json'))
  # Other data at the same address are not taken for these.
  np.save(tmp_path / 'mine.npy', films(count=7))
  write('arrays', tmp_path / 'other', root=root)
  storage.rm('/bucket', recursive=True)
  put(storage, tmp_path / 'other')
  same(
    prepared.Prepared('train', 4, root=address),
    prepared.Prepared('train', 4, root=tmp_path / 'other'),
  )


def test_a_copy_that_was_interrupted_goes_on(tmp_path, storage, monkeypatch):
  np.save(tmp_path / 'mine.npy', films(count=9, size=(300, 400)))
  write('arrays', tmp_path / 'out', root=str(tmp_path / 'mine.npy'), shard_mb=5)
  put(storage, tmp_path / 'out')
  get, got = storage.get_file, []

  def flaky(source, target):
    got.append(source.split('/')[-1])
    if len(got) == 2:
      pathlib.Path(target).write_bytes(b'half')
      raise ConnectionError('the line is down')
    get(source, target)

  monkeypatch.setattr(type(storage), 'get_file', staticmethod(flaky))
  with pytest.raises(ValueError, match='cannot be reached .*line is down'):
    prepared.Prepared('train', 4, root='memory://bucket/data')
  same(
    prepared.Prepared('train', 4, root='memory://bucket/data'),
    prepared.Prepared('train', 4, root=tmp_path / 'out'),
  )
  assert len(got) > 3 and got.count(got[0]) == 1 and got.count(got[1]) == 2


def test_prepared_data_that_are_not_whole_are_refused(tmp_path, storage):
  np.save(tmp_path / 'mine.npy', films())
  write('arrays', tmp_path / 'out', root=str(tmp_path / 'mine.npy'))
  put(storage, tmp_path / 'out')
  storage.rm_file('/bucket/data/train-00000.array_record')
  with pytest.raises(ValueError, match='train-00000.*which is not there; was'):
    prepared.Prepared('train', 4, root='memory://bucket/data')
  storage.pipe('/bucket/data/train.json', b'[]')
  with pytest.raises(ValueError, match='memory://bucket/data/train.json'):
    prepared.Prepared('train', 4, root='memory://bucket/data')
  with pytest.raises(
    FileNotFoundError, match='There is no test.json in memory'
  ):
    prepared.Prepared('test', 4, root='memory://bucket/nothing')


def test_a_published_data_set_at_an_address(tmp_path, storage):
  for n in range(2):
    pictures(tmp_path / 'bair' / 'train' / f'clip{n}', 30, size=(80, 80))
  settings = {'dataset': 'bair', 'splits': ('train',)}
  write('frames', tmp_path / 'out', root=str(tmp_path / 'bair'), **settings)
  put(storage, tmp_path / 'out')
  same(*(
    data.make_source(
      'frames', split='train', num_frames=20, dataset='bair', root=place
    )
    for place in (tmp_path / 'out', 'memory://bucket/data')
  ))  # fmt: skip
  with pytest.raises(ValueError, match='is an address, not a path'):
    data.make_source(
      'frames', split='test', num_frames=20, dataset='bair',
      root='memory://bucket/data',
    )  # fmt: skip


def test_clips_that_are_made_up_are_written_as_they_are(tmp_path):
  settings = {'size': (24, 32), 'num_clips': 5}
  write('photos', tmp_path / 'out', num_frames=3, splits=['train'], **settings)
  expected = data.make_source('photos', split='train', num_frames=3, **settings)
  same(prepared.Prepared('train', 3, root=tmp_path / 'out'), expected)
  assert len(prepared.Prepared('train', 2, root=tmp_path / 'out')) == 10


def test_after_a_kill_only_what_is_missing_is_written(tmp_path, monkeypatch):
  path, place = tmp_path / 'mine.npy', tmp_path / 'out'
  np.save(path, films(count=12, length=40, size=(128, 128)))  # 1.9 MB each
  settings = {'root': str(path), 'shard_mb': 4, 'test_fraction': 0.25}
  write_shard, written = prepare._write_shard, []

  def killed(frames, file, first, last, compress):
    if len(written) == 2:
      made = place / f'.{file.stem}.part999999-0a1b2c3d.array_record'
      made.write_bytes(b'half of it')
      raise KeyboardInterrupt
    written.append(file)
    return write_shard(frames, file, first, last, compress)

  monkeypatch.setattr(prepare, '_write_shard', killed)
  with pytest.raises(KeyboardInterrupt):
    write('arrays', place, **settings)
  with pytest.raises(FileNotFoundError, match='when a split is complete'):
    prepared.Prepared('train', 3, root=place)
  before = {p: p.stat().st_mtime_ns for p in written}
  monkeypatch.setattr(prepare, '_write_shard', write_shard)
  write('arrays', place, **settings)
  assert {p: p.stat().st_mtime_ns for p in written} == before
  assert not [p.name for p in place.iterdir() if p.name.startswith('.')]
  assert len(list(place.glob('train-*.array_record'))) == 5
  expected = data.make_source(
    'arrays', split='train', num_frames=5, hop=31, root=path,
    test_fraction=0.25,
  )  # fmt: skip
  same(prepared.Prepared('train', 5, hop=31, root=place), expected)
  # Complete: nothing is written again.
  monkeypatch.setattr(prepare, '_write_shard', killed)
  write('arrays', place, **settings)


def test_processes_write_the_same(tmp_path):
  path = tmp_path / 'mine.npy'
  np.save(path, films(count=6, length=30, size=(128, 128)))
  settings = {'root': str(path), 'shard_mb': 2, 'splits': ['train']}
  write('arrays', tmp_path / 'one', **settings)
  prepare.prepare('arrays', tmp_path / 'two', workers=2, **settings)
  names = sorted(p.name for p in (tmp_path / 'one').iterdir())
  assert len(names) == 6 and names == sorted(
    p.name for p in (tmp_path / 'two').iterdir()
  )
  for name in names:
    one, two = (tmp_path / x / name for x in ('one', 'two'))
    assert one.read_bytes() == two.read_bytes(), name


def test_what_cannot_be_is_refused(tmp_path):
  path, place = tmp_path / 'mine.npy', tmp_path / 'out'
  np.save(path, films())
  write('arrays', place, root=str(path))
  with pytest.raises(ValueError, match='begun with another settings.*step'):
    write('arrays', place, root=str(path), step=2)
  np.save(path, films(count=8))
  with pytest.raises(ValueError, match='for train, test have changed since'):
    write('arrays', place, root=str(path))
  np.save(path, films())
  with pytest.raises(ValueError, match='not empty'):
    write('arrays', tmp_path, root=str(path))
  with pytest.raises(ValueError, match='at least 1'):
    write('arrays', tmp_path / 'b', root=str(path), shard_mb=0)
  with pytest.raises(ValueError, match='val_fraction'):
    prepared.Prepared('val', 3, root=place)
  with pytest.raises(FileNotFoundError, match='needs root'):
    prepared.Prepared('train', 3)
  with pytest.raises(ValueError, match='has the 10 frames.*longest has 9'):
    prepared.Prepared('train', 10, root=place)
  listing = place / 'train.json'
  text = listing.read_text()
  listing.write_text(text.replace('"format": 1', '"format": 9'))
  with pytest.raises(ValueError, match='format 9; expected 1'):
    prepared.Prepared('train', 3, root=place)
  listing.write_text(text[:-40])
  with pytest.raises(ValueError, match='damaged'):
    prepared.Prepared('train', 3, root=place)
  for old, new in (
    ('"train-00000', '"../train-00000'), ('"dtype": "uint8"', '"dtype": "O"'),
    ('"shape": [8', '"shape": [-8'), ('"lengths": [9', '"lengths": ["9"'),
    ('"lengths": [9, ', '"lengths": ['), ('"kind"', '"kinds"'),
    ('"image"', '"field"'), ('"lengths": [9', f'"lengths": [{10**30}'),
    ('"hops": null', '"hops": [1]'),
  ):  # fmt: skip
    assert old in text
    listing.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match='is damaged: .*expected|expected 5'):
      prepared.Prepared('train', 3, root=place)
  listing.write_text(text)
  shard = next(place.glob('train-*'))
  whole = shard.read_bytes()
  for cut in (whole[:-100], whole[:3000], b''):
    shard.write_bytes(cut)
    prepared._opened.cache_clear()
    with pytest.raises(ValueError, match='train.json is damaged or no list of'):
      prepared.Prepared('train', 3, root=place)[0]
  shard.unlink()
  with pytest.raises(ValueError, match='which is not there'):
    prepared.Prepared('train', 3, root=place)[0]


def test_what_cannot_be_shows_before_anything_is_written(tmp_path):
  path = tmp_path / 'mine.npy'
  np.save(path, films())
  for splits in ((), ('train', 'train')):
    with pytest.raises(ValueError, match='each once'):
      write('arrays', tmp_path / 'c', root=str(path), splits=splits)
  for k in range(3):
    pictures(tmp_path / 'films' / f'film{k}', size=(20 + k, 24))
  with pytest.raises(ValueError, match='give the source a size'):
    write('videos', tmp_path / 'c', root=str(tmp_path / 'films'))
  for source, settings in (
    ('moving_digits', {}),
    ('moving_digits', {'splits': ['test'], 'test_clips': 10**11}),
    ('photos', {'splits': ['train'], 'num_clips': 10**11}),
  ):
    with pytest.raises(ValueError, match='Choose other splits or settings'):
      write(source, tmp_path / 'c', **settings)
  assert not (tmp_path / 'c').exists()  # all of it before anything is written


def test_a_disk_that_is_too_small_shows_before_the_work(tmp_path, monkeypatch):
  path, place = tmp_path / 'mine.npy', tmp_path / 'a' / 'b'
  np.save(path, films())
  size = 6 * 9 * 8 * 10 * 3
  room = shutil.disk_usage(tmp_path)
  free = iter([size - 1, size, 2000])  # of the last most is there
  monkeypatch.setattr(
    shutil, 'disk_usage', lambda _: room._replace(free=next(free))
  )
  with pytest.raises(OSError, match='1.3e-05 GB are free'):
    write('arrays', place, root=str(path))
  assert not (tmp_path / 'a').exists()
  write('arrays', place, root=str(path))
  write('arrays', place, root=str(path))


def test_the_command_finds_what_is_meant(tmp_path):
  pictures(tmp_path / 'films' / 'film0')
  root = str(tmp_path / 'films')
  assert program.chosen(root, None, '8x12', {}) == {
    'source': 'videos',
    'root': root,
    'cache_mb': 0,
    'size': (8, 12),
  }
  assert program.chosen('bair', 'data/bair', None, {}) == {
    'source': 'frames',
    'dataset': 'bair',
    'root': 'data/bair',
  }
  assert program.chosen('arrays', 'a.npy', None, {'step': 2}) == {
    'source': 'arrays',
    'root': 'a.npy',
    'step': 2,
  }
  with pytest.raises(ValueError, match='no folder.*arrays.*bair'):
    program.chosen('nothing', None, None, {})
  with pytest.raises(ValueError, match='expected HxW'):
    program.chosen(root, None, '8', {})
  with pytest.raises(ValueError, match='a place of videos, and root='):
    program.chosen(root, 'elsewhere', None, {})
  for name in ('split', 'num_frames', 'output'):  # not by --set
    with pytest.raises(ValueError, match=f'has no setting {name}'):
      program.chosen(root, None, None, {name: 3})
