"""The split 'val' of every source: held out of 'train', never of 'test'."""

import datetime

import numpy as np
import pytest

from tests.data.published.tiny import save
from vidpred_jax import data, video_io
from vidpred_jax.data import prepare, validation, vortices


def digits(tmp_path):
  del tmp_path
  return 'moving_digits', {'digits': 'sklearn', 'test_clips': 6}


def photos(tmp_path):
  del tmp_path
  return 'photos', {'size': (16, 16), 'num_clips': 20}


def episodes(tmp_path):
  frames = np.zeros((10, 6, 4, 4, 3), np.uint8)
  frames[:] = np.arange(10).reshape(10, 1, 1, 1, 1)
  np.savez(tmp_path / 'a.npz', frames=frames)
  return 'episodes', {'root': str(tmp_path / 'a.npz')}


def taxibj(tmp_path):
  rng = np.random.default_rng(0)
  arrays = {
    f'{k}_{split}': rng.uniform(-1, 1, (number, 2, 2, 32, 32))
    for split, number in (('train', 40), ('test', 3))
    for k in 'XY'
  }
  np.savez(tmp_path / 'dataset.npz', **arrays)
  return 'taxibj', {'root': str(tmp_path)}


def films(tmp_path):
  settings = {'size': (16, 20), 'trajectories': (4, 2), 'frames': (12, 7)}
  place = vortices.folder(
    tmp_path, vortices.checked(vortices.Settings(**settings))
  )
  place.mkdir(parents=True)
  for split, number, length in (('train', 4, 12), ('test', 2, 7)):
    shape = (number, length, 16, 20)
    levels = np.arange(number * length).reshape(number, length, 1, 1)
    film = np.broadcast_to(levels + 100 * (split == 'test'), shape)
    np.save(place / f'{split}.npy', film.astype(np.uint8))
  vortices.write_settings(
    place, vortices.checked(vortices.Settings(**settings))
  )
  return 'vortices', {'root': str(tmp_path), **settings}


def videos(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(8):
    with video_io.Writer(tmp_path / f'{i}.mp4', fps=25) as writer:
      for _ in range(4):
        writer.write(rng.integers(0, 255, (16, 16, 3), np.uint8))
  return 'videos', {'root': str(tmp_path), 'scan_cache': False}


def weather(tmp_path):
  values = np.random.default_rng(0).normal(280, 9, (100, 4, 4))
  hours = np.datetime64('2016-01-01', 'h') + np.arange(100)
  assert isinstance(hours[0].astype(datetime.datetime), datetime.datetime)
  np.savez(tmp_path / 'a.npz', t2m=values.astype(np.float32))
  return 'weather', {'root': str(tmp_path / 'a.npz')}


def frames(tmp_path):
  for split, cities in {'train': 'abcd', 'val': 'e'}.items():
    for city in cities:
      for k in range(30):
        name = f'{city}_000000_{k:06d}_leftImg8bit.png'
        level = 40 * 'abcde'.index(city) + k
        save(tmp_path / 'leftImg8bit_sequence' / split / city / name, level)
  return 'frames', {'dataset': 'cityscapes', 'root': str(tmp_path)}


def arrays(tmp_path):
  for n in range(8):
    frames = np.arange(9, dtype=np.uint8).reshape(9, 1, 1, 1) + 10 * n
    np.save(tmp_path / f'{n}.npy', np.broadcast_to(frames, (9, 4, 6, 3)))
  return 'arrays', {'root': str(tmp_path)}


def array(tmp_path):
  frames = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
  np.save(tmp_path / 'a.npy', np.broadcast_to(frames, (60, 4, 6, 3)))
  return 'arrays', {'root': str(tmp_path / 'a.npy')}


def prepared(tmp_path):
  name, settings = arrays(tmp_path)
  prepare.prepare(name, tmp_path / 'out', workers=0, **settings)
  return 'prepared', {'root': str(tmp_path / 'out')}


MAKERS = (
  digits, photos, episodes, taxibj, films, videos, weather, frames, arrays,
  array, prepared,
)  # fmt: skip


def clips(source):
  """What tells clips apart, of at most 30 of them."""
  count = min(len(source), 30)
  step = len(source) // count
  return {source[i * step]['video'].tobytes() for i in range(count)}


@pytest.mark.parametrize('make', MAKERS, ids=lambda x: x.__name__)
def test_val_is_held_out_of_train_and_none_without_being_asked(make, tmp_path):
  name, settings = make(tmp_path)

  def source(split, **more):
    return data.make_source(name, split=split, num_frames=3, **settings | more)

  with pytest.raises(ValueError, match='val_fraction'):
    source('val')
  whole = source('train')
  train, val = (source(s, val_fraction=0.25) for s in ('train', 'val'))
  test = source('test', val_fraction=0.25)
  assert len(val) and val.kind == test.kind
  found = [clips(x) for x in (train, val, test)]
  for i in range(3):
    assert not found[i] & found[i - 1]
  assert len(train) <= len(whole)
  if name != 'weather':  # the mean of the training split is another one
    assert clips(source('test')) == found[2]
  with pytest.raises(ValueError, match='val_fraction'):
    source('train', val_fraction=1.0)


def test_what_belongs_together_stays_together(tmp_path):
  name, settings = frames(tmp_path)
  names = {}
  for split in ('train', 'val'):
    source = data.make_source(
      name, split=split, num_frames=30, val_fraction=0.25, **settings
    )
    items = (source[i] for i in range(len(source)))
    names[split] = {item['name'].split('/')[0] for item in items}
  assert names == {'train': {'a', 'b', 'c'}, 'val': {'d'}}


def test_listed_files_are_for_validation(tmp_path):
  _, settings = videos(tmp_path)
  chosen = {
    split: data.make_source(
      'videos', split=split, num_frames=3, test_files=str(tmp_path / '7.mp4'),
      val_files=(str(tmp_path / '0.mp4'), str(tmp_path / '3.mp4')), **settings,
    ).files
    for split in validation.SPLITS
  }  # fmt: skip
  stems = {split: [p.stem for p in found] for split, found in chosen.items()}
  assert stems == {
    'train': ['1', '2', '4', '5', '6'], 'val': ['0', '3'], 'test': ['7']
  }  # fmt: skip


@pytest.mark.parametrize('make', [videos, arrays], ids=lambda x: x.__name__)
def test_no_file_is_for_validation_and_testing(make, tmp_path):
  name, settings = make(tmp_path)
  chosen = sorted(map(str, tmp_path.iterdir()))[:2]
  settings = settings | {'test_files': chosen[0], 'val_files': tuple(chosen)}
  for split in ('train', 'val'):
    with pytest.raises(ValueError, match='0.* is for testing; val_files'):
      data.make_source(name, split=split, num_frames=3, **settings)


def test_a_part_of_nothing_is_refused():
  assert validation.part('train', 10, 0.0, 'clips') == range(10)
  assert validation.part('val', 10, 0.2, 'clips') == range(8, 10)
  for split, count, fraction in (
    ('val', 10, 0.0), ('val', 3, 0.1), ('train', 1, 0.9), ('train', 9, -1),
  ):  # fmt: skip
    with pytest.raises(ValueError, match='val_fraction'):
      validation.part(split, count, fraction, 'clips')
  with pytest.raises(ValueError, match="'train', 'val' or 'test', got 'dev'"):
    validation.check('dev')
