import numpy as np
import pytest

from vidpred_jax.data import episodes


def write(path, shape=(5, 3, 10, 4, 6, 3)):
  """Each frame says its episode, view and time."""
  frames = np.zeros(shape, np.uint8)
  for place in np.ndindex(*shape[:-3]):
    frames[place] = 100 * place[0] // 5 + 10 * place[-2] + place[-1]
    frames[place][0, 0, 0] = place[0]
  np.savez(path, frames=frames, actions=np.zeros(3))
  return frames


def source(path, split, num_frames=4, **settings):
  return episodes.Episodes(split, num_frames, root=path, **settings)


def test_whole_episodes_are_held_out(tmp_path):
  path = tmp_path / 'robot.npz'
  frames = write(path)
  train, test = (
    source(path, split, test_fraction=0.4) for split in ('train', 'test')
  )
  assert len(train) == 3 * 3 * 7 and len(test) == 2 * 3 * 2
  for clips, known in ((train, {0, 1, 2}), (test, {3, 4})):
    seen = {int(clips[i]['video'][0, 0, 0, 0]) for i in range(len(clips))}
    assert seen == known
  assert train[8]['name'] == '0/1@1'
  np.testing.assert_array_equal(train[8]['video'], frames[0, 1, 1:5])
  assert test[len(test) - 1]['name'] == '4/2@4'
  np.testing.assert_array_equal(test[11]['video'], frames[4, 2, 4:8])


def test_one_view(tmp_path):
  path = tmp_path / 'robot.npz'
  frames = write(path, (5, 10, 4, 6, 1))
  clips = source(path, 'test', num_frames=10)
  assert len(clips) == 1 and clips[0]['name'] == '4@0'
  np.testing.assert_array_equal(clips[0]['video'], frames[4])


def test_real_episodes(shared):
  path = shared / 'data/robot/bridge_debug_64x64.npz'
  train, test = (source(path, split, 10) for split in ('train', 'test'))
  assert (len(train), len(test)) == (14 * 3, 3 * 3)
  assert train[0]['video'].shape == (10, 64, 64, 3)


def test_what_is_missing_or_wrong(tmp_path):
  with pytest.raises(FileNotFoundError, match='needs root: an npz file'):
    source(tmp_path / 'robot.npz', 'train')
  path = tmp_path / 'robot.npz'
  write(path)
  for settings, message in (
    ({'split': 'dev'}, 'split must be'),
    ({'array': 'films'}, 'arrays frames, actions; expected films'),
    ({'array': 'actions'}, r'float64 \(3,\); expected uint8'),
    ({'num_frames': 11}, 'have 10 frames; 11'),
    ({'test_fraction': 0.0}, 'either split'),
  ):
    with pytest.raises(ValueError, match=message):
      source(path, **{'split': 'train'} | settings)


def test_damaged_files(tmp_path):
  path = tmp_path / 'robot.npz'
  frames = np.random.default_rng(0).integers(0, 4, (5, 10, 4, 6, 1))
  np.savez_compressed(path, frames=frames.astype(np.uint8))
  data = path.read_bytes()
  # Where a byte is wrong decides who finds it: zlib, or zipfile by the sum.
  wrong = [bytearray(data) for _ in range(40)]
  for k, content in enumerate(wrong):
    content[80 + 3 * k] ^= 0xFF
  for content in (b'nothing', data[:-30], data[: len(data) // 2], *wrong):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='damaged or no npz') as found:
      source(path, 'train')
    assert '\n' not in str(found.value)
  with path.open('wb') as file:
    np.save(file, frames)
  with pytest.raises(ValueError, match='damaged or no npz'):
    source(path, 'train')
