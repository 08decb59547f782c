import pickle

import numpy as np
import pytest

from vidpred_jax import data
from vidpred_jax.data import arrays


def films(count=10, length=8, size=(4, 6), channels=3, dtype=np.uint8):
  """Each value says its film and time: 16 * film + time, and its channel."""
  n, t, c = np.ogrid[:count, :length, :channels]
  values = (16 * n + t) % 256 + 0 * c
  values = values[:, :, None, None, :] + np.zeros((*size, 1))
  return values.astype(dtype)


def source(root, split='train', num_frames=3, **settings):
  return arrays.Arrays(split, num_frames, root=root, **settings)


def seen(clips):
  """(film, first frame) of each clip."""
  values = [int(clips[i]['video'][0, 0, 0, 0]) for i in range(len(clips))]
  return [divmod(x, 16) for x in values]


def write(path, values):
  kind = path.suffix.lower()
  if kind in ('.npy', '.npz'):
    with path.open('wb') as file:
      np.save(file, values) if kind == '.npy' else np.savez(file, x=values)
  else:
    zarr = pytest.importorskip('zarr')
    zarr.save_array(path, values)
  return path


def test_films_too_short_for_a_clip_are_named(tmp_path, caplog):
  for name, length in (('a', 8), ('b', 2), ('c', 3)):
    write(tmp_path / f'{name}.npy', films(1, length))
  clips = source(tmp_path, num_frames=3, test_fraction=0)
  assert len(clips) == 6 + 1
  (said,) = [r.getMessage() for r in caplog.records]
  assert said.startswith('Left out, shorter than 3 frames: 1 of 3, ')
  assert 'b.npy' in said and 'c.npy' not in said


@pytest.mark.parametrize(
  'name', ['._a.npy', '@eaDir/a.npz', '__MACOSX/._a.npy']
)
def test_what_systems_put_in_folders_is_no_film(tmp_path, name):
  write(tmp_path / 'a.npy', films(2))
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_bytes(b'no array')
  assert len(source(tmp_path, test_fraction=0)) == 2 * 6


@pytest.mark.parametrize('suffix', ['.NPY', '.Npz', '.ZARR'])
def test_endings_in_capitals(tmp_path, suffix):
  for name in ('a', 'b'):
    write(tmp_path / f'{name}{suffix}', films(2))
  clips = source(tmp_path, test_fraction=0.5)
  assert len(clips) == 2 * 6
  assert len(source(tmp_path / f'a{suffix}', test_fraction=0)) == 2 * 6


@pytest.mark.parametrize(
  'shape, dtype',
  [
    ((9, 3, 16, 20), np.uint8),
    ((9, 1, 16, 20), np.float32),
    ((2, 9, 3, 16, 16), np.float32),
    ((20, 9, 16, 16), np.uint8),
    ((20, 9, 16, 16), np.float32),
  ],
)
def test_channels_that_are_not_last_are_refused(tmp_path, shape, dtype):
  values = np.random.default_rng(0).uniform(0, 255, shape).astype(dtype)
  path = write(tmp_path / 'a.npy', values)
  with pytest.raises(ValueError, match=r'the channels last.*moveaxis'):
    source(path)
  if len(shape) == 4:  # whoever says so has them
    assert source(path, kind='field', test_fraction=0.2).kind == 'field'


@pytest.mark.parametrize('form', [2, 3])
def test_lost_parts_of_a_store_are_told(tmp_path, caplog, form):
  zarr = pytest.importorskip('zarr')
  path = tmp_path / 'a.zarr'
  made = zarr.create_array(
    path,
    shape=(4, 8, 4, 6, 3),
    chunks=(1, 8, 4, 6, 3),
    dtype='u1',
    fill_value=0,
    zarr_format=form,
  )
  made[:] = films(4) + 1
  assert len(source(path, test_fraction=0.25)) and not caplog.records
  name = '1.0.0.0.0' if form == 2 else 'c/1/0/0/0/0'
  (path / name).unlink()
  source(path, test_fraction=0.25)
  (said,) = [r.getMessage() for r in caplog.records]
  assert said.endswith(
    'a.zarr: 1 parts of the array are in no file and are read as 0.'
  )


@pytest.mark.parametrize('suffix', ['.npy', '.npz', '.zarr'])
@pytest.mark.parametrize('dtype', [np.uint8, np.float16, '>f4', np.float64])
def test_every_kind_of_file_gives_the_same_clips(tmp_path, suffix, dtype):
  values = films(dtype=dtype)
  path = write(tmp_path / f'mine{suffix}', values)
  clips = source(path)
  assert len(clips) == 8 * 6  # two of ten films are for testing
  kind = 'image' if dtype == np.uint8 else 'field'
  assert clips.kind == kind
  item = clips[7]
  assert item['name'] == f'{path}[1]@1'
  assert item['video'].dtype == (np.uint8 if kind == 'image' else np.float32)
  video = item['video']
  if kind == 'field':
    np.testing.assert_allclose(clips.mean, values[:8].mean((0, 1, 2, 3)))
    np.testing.assert_allclose(
      clips.std, values[:8].astype(float).std((0, 1, 2, 3)), rtol=1e-6
    )
    video = video * clips.std + clips.mean
  np.testing.assert_allclose(video, values[1, 1:4].astype(float), rtol=1e-4)
  assert video.flags.writeable


def test_what_is_not_compressed_is_mapped(tmp_path):
  stored, packed = tmp_path / 'a.npz', tmp_path / 'b.npz'
  values = films(channels=5)
  np.savez(stored, other=np.arange(7), frames=np.asfortranarray(values))
  np.savez_compressed(packed, frames=values)
  np.save(tmp_path / 'c.npy', values)
  for path, mapped in ((stored, True), (packed, False), ('c.npy', True)):
    clips = source(tmp_path / path, array='frames', kind='image')
    array = clips._films._of(0)
    assert isinstance(array, np.memmap) == mapped
    np.testing.assert_array_equal(clips[2]['video'], values[0, 2:5])
    # A worker process is sent no array.
    assert len(pickle.dumps(clips)) < 4000
    again = pickle.loads(pickle.dumps(clips))
    np.testing.assert_array_equal(again[2]['video'], clips[2]['video'])


def test_films_of_one_file_are_held_out(tmp_path):
  path = write(tmp_path / 'mine.npy', films())
  parts = {
    split: source(path, split, test_fraction=0.3, val_fraction=0.3)
    for split in ('train', 'val', 'test')
  }
  assert {n for n, _ in seen(parts['train'])} == {0, 1, 2, 3, 4}
  assert {n for n, _ in seen(parts['val'])} == {5, 6}
  # For testing clips do not overlap.
  assert seen(parts['test']) == [(n, t) for n in (7, 8, 9) for t in (0, 3)]


def test_one_film_is_cut_in_time(tmp_path):
  path = write(tmp_path / 'mine.npy', films(count=1, length=16)[0])
  train, test = (source(path, s, test_fraction=0.25) for s in ('train', 'test'))
  assert seen(train) == [(0, t) for t in range(10)]
  assert seen(test) == [(0, 12)]
  assert train[3]['name'] == f'{path}@3'


def test_files_are_held_out(tmp_path):
  for n in range(10):
    write(tmp_path / f'{n}.npy', films(length=3 + n)[n])
  split = {
    name: {n for n, _ in seen(source(tmp_path, name, val_fraction=0.25))}
    for name in ('train', 'val', 'test')
  }
  assert split == {'test': {4, 9}, 'val': {3, 8}, 'train': {0, 1, 2, 5, 6, 7}}
  some = [tmp_path / f'{n}.npy' for n in (2, 3)]
  others = source(tmp_path, 'train', test_files=some, val_fraction=0.25)
  assert {n for n, _ in seen(others)} == {0, 1, 4, 6, 7, 8}
  assert {n for n, _ in seen(source('', 'test', test_files=some))} == {2, 3}
  pattern = source(str(tmp_path / '[0-2].npy'), test_fraction=0)
  assert {n for n, _ in seen(pattern)} == {0, 1, 2}


def test_names_say_the_split(tmp_path):
  for name in ('train.npy', 'valid.npy', 'test.npy'):
    write(tmp_path / name, films()[: len(name)])
  for split, count in (('train', 9), ('val', 9), ('test', 8)):
    clips = source(tmp_path, split)
    assert {n for n, _ in seen(clips)} == set(range(count))
  write(tmp_path / 'more.npy', films())
  with pytest.raises(ValueError, match='more.npy does not'):
    source(tmp_path)
  for name in ('train', 'test'):
    (tmp_path / 'b' / name).mkdir(parents=True)
    write(tmp_path / 'b' / name / '0.npy', films())
  assert len(source(tmp_path / 'b')) == 60
  with pytest.raises(ValueError, match='None of the 2 files.*val_files'):
    source(tmp_path / 'b', 'val')
  write(tmp_path / 'b' / 'train' / '1.npy', films())
  assert len(source(tmp_path / 'b', val_fraction=0.5)) == 60
  assert len(source(tmp_path / 'b', 'val', val_fraction=0.5)) == 20
  # A file that is named is split, whatever its name says.
  assert len(source(tmp_path / 'test.npy')) == 6 * 6
  write(tmp_path / 'b' / 'train' / 'test0.npy', films())
  with pytest.raises(ValueError, match='says test and train'):
    source(tmp_path / 'b')


def test_steps_and_hops(tmp_path):
  path = write(tmp_path / 'mine.npy', films(count=2))
  clips = source(path, step=(1, 3), hop=2)
  assert seen(clips) == [(0, 0), (0, 2), (0, 4), (0, 0)]
  np.testing.assert_array_equal(clips[3]['video'][:, 0, 0, 0], [0, 3, 6])


def test_grey_as_colour(tmp_path):
  path = write(tmp_path / 'mine.npy', films(channels=1))
  assert source(path)[0]['video'].shape == (3, 4, 6, 1)
  video = source(path, colour=True)[0]['video']
  assert video.shape == (3, 4, 6, 3) and (video == video[..., :1]).all()
  path = write(tmp_path / 'two.npy', films(channels=2))
  with pytest.raises(ValueError, match='frames of 2 channels.*needs 3'):
    source(path, colour=True)


def test_floats_may_be_images(tmp_path):
  values = films(dtype=np.float32) / 255
  clips = source(write(tmp_path / 'mine.npy', values), kind='image')
  assert clips.kind == 'image' and clips[0]['video'].dtype == np.float32
  np.testing.assert_array_equal(clips[0]['video'], values[0, :3])
  clips = source(write(tmp_path / 'two.npy', 3 * values), kind='image')
  with pytest.raises(ValueError, match=r'lies in .*expected \[0, 1\]'):
    clips[len(clips) - 1]


def test_fields_have_what_a_system_must_know(tmp_path):
  path = write(tmp_path / 'mine.npy', films(channels=2, dtype=np.int16))
  with pytest.raises(ValueError, match="int16.*kind='field'"):
    source(path)
  clips = source(path, kind='field', variables=('rain', 'snow'), units='mm')
  assert clips.variables == ('rain', 'snow') and clips.units == 'mm'
  known = source(path, 'test', kind='field', mean=(1, 2), std=(3, 4))
  assert known.mean.tolist() == [1, 2] and known.std.tolist() == [3, 4]
  assert known.variables == ('c0', 'c1') and known.latitudes is None
  with pytest.raises(ValueError, match='2 channels; variables has 1'):
    source(path, kind='field', variables=('rain',))
  path = write(tmp_path / 'flat.npy', 0 * films(dtype=np.float32))
  with pytest.raises(ValueError, match='c0 .* is the same everywhere'):
    source(path)


def test_statistics_are_those_of_the_file_that_is_there(tmp_path):
  path = write(tmp_path / 'mine.npy', films(dtype=np.float32))
  first = source(path).mean
  write(path, films(dtype=np.float32) + 1)
  np.testing.assert_allclose(source(path).mean, first + 1, rtol=1e-6)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_missing(tmp_path, value):
  values = films(dtype=np.float32)
  values[9, 4, 2, 2, 1] = value
  path = write(tmp_path / 'mine.npy', values)
  clips = source(path, 'test')
  with pytest.raises(ValueError, match='9.*frames 3 to 5.*finite'):
    clips[len(clips) - 1]
  values[0, 0, 0, 0, 0] = value
  path = write(tmp_path / 'two.npy', values)
  with pytest.raises(ValueError, match='0.*not finite'):
    source(path)


class Unpickled:
  def __reduce__(self):
    return (pytest.fail, ('it was unpickled',))


@pytest.mark.parametrize(
  'name, values, words',
  [
    ('a.npy', np.zeros((4, 6, 3), np.uint8), r'\[4, 6, 3\].*\[T, H, W, C\]'),
    ('a.npy', np.zeros((1,) * 6, np.uint8), 'channels last'),
    ('a.npy', np.zeros((2, 0, 4, 6, 3), np.uint8), r'\[2, 0, 4, 6, 3\]'),
    ('a.npy', np.zeros((9, 4, 6, 3), complex), 'complex128'),
    ('a.npy', np.zeros((9, 4, 6, 3), bool), 'bool'),
    ('a.npy', np.full((9, 4, 6, 3), Unpickled()), 'Python objects'),
    ('a.npz', np.full((9, 4, 6, 3), Unpickled()), 'Python objects'),
    ('a.npy', films(length=2), 'has the 3 frames.*the longest has 2'),
  ],
)
def test_other_arrays_are_refused_in_a_sentence(tmp_path, name, values, words):
  write(tmp_path / name, values)
  with pytest.raises(ValueError, match=words) as error:
    source(tmp_path / name)
  assert '\n' not in str(error.value)


def test_other_files_are_refused_in_a_sentence(tmp_path):
  path = tmp_path / 'a.npy'
  path.write_bytes(pickle.dumps(Unpickled()))
  with pytest.raises(ValueError, match='no npy file'):
    source(path)
  write(path, films())
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ValueError, match='damaged'):
    source(path)
  path.rename(tmp_path / 'a.mp4')
  with pytest.raises(ValueError, match="'videos'"):
    source(tmp_path / 'a.mp4')
  np.savez(tmp_path / 'a.npz', one=films(), two=films())
  with pytest.raises(ValueError, match='arrays one, two; say which'):
    source(tmp_path / 'a.npz')
  with pytest.raises(ValueError, match='arrays one, two; expected three'):
    source(tmp_path / 'a.npz', array='three')
  with pytest.raises(FileNotFoundError, match='no arrays at'):
    source(tmp_path / 'none')
  with pytest.raises(FileNotFoundError, match='needs root'):
    source('')


def test_files_that_differ(tmp_path):
  write(tmp_path / 'a.npy', films())
  for other in (films(size=(4, 4)), films(channels=1), films(dtype='f4')):
    write(tmp_path / 'b.npy', other)
    write(tmp_path / 'c.npy', other)
    with pytest.raises(ValueError, match=r'differ.*a.npy has \[4, 6, 3\]'):
      source(tmp_path)


def test_wrong_settings(tmp_path):
  path = write(tmp_path / 'a.npy', films())
  for settings, words in (
    ({'split': 'all'}, 'split must be'),
    ({'kind': 'pictures'}, 'kind must be'),
    ({'test_fraction': 1.5}, 'test_fraction must lie'),
    ({'test_fraction': 1}, 'None of the 10 films is left for train'),
    ({'split': 'val'}, 'None of the 10 films is left for val'),
    ({'step': 0}, 'at least 1'),
  ):
    with pytest.raises(ValueError, match=words):
      source(path, **settings)


@pytest.mark.parametrize('workers', [0, 1])
def test_batches(tmp_path, workers):
  path = write(tmp_path / 'mine.npy', films())
  settings = {'num_frames': 3, 'batch_size': 4, 'root': path}
  with data.train_iterator(
    'arrays', seed=0, workers=workers, **settings
  ) as batches:
    assert next(batches)['video'].shape == (4, 3, 4, 6, 3)
