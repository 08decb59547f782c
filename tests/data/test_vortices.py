import json
import pickle

import numpy as np
import pytest

from vidpred_jax import data
from vidpred_jax.data import vortices

SMALL = {
  'size': (16, 20),
  'trajectories': (3, 2),
  'frames': (12, 7),
  'ticks': 4,
  'spin_up': 2,
  'reynolds': 20.0,
}


def films(split):
  """Every film and frame its own level."""
  k = split == 'test'
  shape = (SMALL['trajectories'][k], SMALL['frames'][k], *SMALL['size'])
  e, t = np.indices(shape)[:2]
  return (100 * k + 20 * e + t).astype(np.uint8)


@pytest.fixture
def made(monkeypatch):
  """Films are written without simulating; the list of those made."""
  calls = []

  def simulate(root, settings):
    place = vortices.folder(root, settings)
    calls.append(place)
    place.mkdir(parents=True)
    for split in ('train', 'test'):
      np.save(place / f'{split}.npy', films(split))
    vortices.write_settings(place, settings)

  monkeypatch.setattr(vortices, '_simulate', simulate)
  return calls


def source(root, split='train', num_frames=5, **settings):
  return data.make_source(
    'vortices',
    split=split,
    num_frames=num_frames,
    root=str(root),
    **SMALL | settings,
  )


def test_clips(made, tmp_path):
  train, test = source(tmp_path), source(tmp_path, 'test', 3)
  assert len(made) == 1 and train.kind == 'image'
  # Every window; those for testing do not overlap.
  assert len(train) == 3 * 8 and len(test) == 2 * 2
  for clips, split, hop, windows in (
    (train, 'train', 1, 8),
    (test, 'test', 3, 2),
  ):
    for i in (0, 1, len(clips) - 1):
      item = clips[i]
      film, start = i // windows, i % windows * hop
      expected = films(split)[film, start : start + item['video'].shape[0]]
      np.testing.assert_array_equal(item['video'], expected[..., None])
      assert item['name'] == f'{split}/{film}@{start}'
  assert len(source(tmp_path, hop=4)) == 3 * 2
  assert len(source(tmp_path, 'test', 7)) == 2
  assert 'Vortices' in repr(train) and str(tmp_path) in repr(train)
  with pytest.raises(IndexError):
    train[len(train)]


def test_worker_processes_map_the_file_themselves(made, tmp_path):
  clips = source(tmp_path)
  packed = pickle.dumps(clips)
  assert len(packed) < films('train').nbytes / 2
  again = pickle.loads(packed)
  np.testing.assert_array_equal(again[5]['video'], clips[5]['video'])
  clips[5]['video'][:] = 0  # a copy, not the file
  assert again[5]['video'].all()


def test_other_settings_have_films_of_their_own(made, tmp_path):
  source(tmp_path)
  for settings in ({'reynolds': 21.0}, {'seed': 1}, {'gusts': 0.0}):
    source(tmp_path, **settings)
  assert len(set(made)) == len(made) == 4
  # What only chooses clips does not count.
  source(tmp_path, 'test', 2, hop=1)
  assert len(made) == 4


def test_folders_that_do_not_fit_are_neither_used_nor_touched(made, tmp_path):
  clips = source(tmp_path)
  place = made[0]
  path = place / 'settings.json'
  good = path.read_text()
  for text, message in (
    (good.replace('20.0', '22.0'), 'reynolds 22.0, expected 20.0'),
    (good.replace('"limit": 5.0', '"limit": 4.0'), 'limit 4.0'),
    (good[:-9], 'missing or damaged'),
    ('[1]', 'missing or damaged'),
    (None, 'missing or damaged'),
  ):
    path.unlink(missing_ok=True)
    if text is not None:
      path.write_text(text)
    with pytest.raises(ValueError, match=message):
      source(tmp_path)
  path.write_text(good)
  for content, message in (
    (films('test'), r'expected uint8 \(3, 12, 16, 20\)'),
    (films('train').astype('f'), 'float32'),
  ):
    np.save(place / 'train.npy', content)
    with pytest.raises(ValueError, match=message):
      source(tmp_path)
  (place / 'train.npy').write_bytes(b'\x93NUMPY')
  with pytest.raises(ValueError, match='damaged or no npy'):
    source(tmp_path)
  assert len(made) == 1
  assert json.loads(path.read_text())['size'] == [16, 20]
  assert clips is not None


def test_numbers_mean_the_same_in_any_type(made, tmp_path):
  source(tmp_path)
  source(tmp_path, size=[16, 20], reynolds=20, gusts=np.float64(0.2))
  source(tmp_path, ticks=np.int64(4), trajectories=(np.int32(3), 2))
  assert len(made) == 1


def test_films_lie_in_one_place_by_default(made, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  data.make_source('vortices', split='test', num_frames=3, **SMALL)
  assert [str(p.parent) for p in made] == [vortices.ROOT]


@pytest.mark.parametrize(
  'settings,message',
  [
    ({'split': 'dev'}, "'val' or 'test'"),
    ({'num_frames': 13}, r'\[1, 12\].*13'),
    ({'split': 'test', 'num_frames': 8}, r'\[1, 7\]'),
    ({'hop': 0}, 'hop'),
    ({'size': (16, 0)}, 'size.*two positive'),
    ({'size': 8}, '16 nodes'),
    ({'scale': 0}, '16 nodes|scale'),
    ({'reynolds': 0.0}, 'reynolds'),
    ({'speed': 0.3}, r'speed must be in \(0, 0.2\], got 0.3'),
    ({'diameter': 0.6}, 'diameter'),
    ({'gusts': -0.1}, 'gusts'),
    ({'bulk_viscosity': 0.0}, 'bulk_viscosity'),
    ({'ticks': 0}, 'ticks'),
    ({'trajectories': (1,)}, 'trajectories'),
    ({'frames': (5, 0)}, 'frames'),
    ({'spin_up': -1}, 'spin_up'),
    ({'seed': -1}, 'seed'),
    ({'size': (10**6, 10**6)}, 'size must be .*16384 at most'),
    ({'ticks': 10**12}, 'ticks must be from 1 to 1000000'),
    ({'spin_up': 10**12}, 'spin_up must be from 0 to 1000000'),
    ({'frames': (10**12, 1)}, 'frames must be at most 1000000'),
    ({'size': '64'}, "size must be two whole numbers, got '64'"),
    ({'size': 16.5}, 'size must be two whole numbers, got 16.5'),
    ({'size': (16, 20.0)}, r'size must be two whole numbers, got \(16, 20.0\)'),
    ({'frames': None}, 'frames must be two whole numbers, got None'),
    ({'trajectories': 3}, 'trajectories must be two whole numbers, got 3'),
    ({'scale': 2.5}, 'scale must be a whole number, got 2.5'),
    ({'ticks': True}, 'ticks must be a whole number, got True'),
    ({'seed': '0'}, "seed must be a whole number, got '0'"),
    ({'speed': '0.1'}, "speed must be a number, got '0.1'"),
    ({'reynolds': None}, 'reynolds must be a number, got None'),
    ({'reynolds': float('inf')}, 'reynolds must be a number, got inf'),
    ({'gusts': [0.1]}, r'gusts must be a number, got \[0.1\]'),
    ({'hop': 'all'}, "hop must be a whole number.*'all'"),
    ({'hop': 1.5}, 'hop must be a whole number.*1.5'),
  ],
)
def test_wrong_settings(made, tmp_path, settings, message):
  settings = {'split': 'train', 'num_frames': 5} | SMALL | settings
  with pytest.raises(ValueError, match=message):
    vortices.Vortices(root=str(tmp_path), **settings)
  assert not made


def test_a_root_that_is_no_path(made):
  with pytest.raises(ValueError, match='root must be the path.*got None'):
    vortices.Vortices('test', 3, root=None, **SMALL)


def test_a_failed_simulation_says_how_to_repeat_it(tmp_path, capfd):
  """The program itself, which refuses: no folder can be made below a file."""
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='status 2.*-m vidpred_jax.simulation'):
    source(tmp_path / 'file')
  assert 'Error: ' in capfd.readouterr().err
