"""The data sets as RVD takes them; the others are in test_layouts."""

import numpy as np
import pytest

from tests.data.published.tiny import levels, save
from vidpred_jax.data.published import folders, resize


def source(dataset, root, split='test', num_frames=16, size=None):
  return folders.FrameClips(
    split, num_frames, dataset=dataset, root=root, size=size
  )


def test_bair(tmp_path):
  for split, episodes in {'train': 3, 'test': 2}.items():
    for k in range(episodes):
      for t in range(30):
        # One or two folders deep, numbers without zeros.
        save(tmp_path / 'one' / split / f'{k}' / f'{t}.png', t)
        place = tmp_path / 'two' / 'processed_data' / split / 'traj_0_to_255'
        save(place / f'{k}' / f'{t}.png', t)
  for name in ('one', 'two'):
    test = source('bair', tmp_path / name, num_frames=20)
    assert len(test) == 2
    assert levels(test[1]['video']) == list(range(20))
    train = source('bair', tmp_path / name, 'train', num_frames=8)
    assert len(train) == 3 * 23
    assert levels(train[-1]['video']) == list(range(22, 30))
  clip = source('bair', tmp_path / 'one', size='protocol')[0]['video']
  assert clip.shape == (16, 64, 64, 3)


class TestKth:
  @pytest.fixture
  def root(self, tmp_path):
    for person in (1, 2, 11, 18, 19, 22):
      place = tmp_path / 'boxing' / f'person{person:02d}_boxing_d1_uncomp'
      # Runs of 40, 20 and 10 frames.
      for k in (*range(1, 41), *range(60, 80), *range(90, 100)):
        save(place / f'image_{k:04d}.png', k)
    return tmp_path

  def test_the_published_persons(self, root):
    found = {}
    for split in ('train', 'test'):
      clips = source('kth_64', root, split, 8)
      found[split] = {clips[i]['name'][:8] for i in range(len(clips))}
    assert found == {
      'train': {'person11', 'person18'},
      'test': {'person01', 'person19'},
    }

  def test_windows(self, root):
    test = source('kth_64', root)
    # The run of 10 frames is too short; that of 20 has room from its 5th on.
    starts = [levels(test[i]['video'])[0] for i in range(len(test))]
    assert starts == [13, 64] * 2
    train = source('kth_64', root, 'train', 8)
    assert len(train) == 2 * (33 + 13 + 3)

  def test_small_and_grey(self, root):
    plain = source('kth_64', root)[0]['video']
    clip = source('kth_64', root, size='protocol')[0]['video']
    assert plain.shape == (16, 8, 12, 1) and clip.shape == (16, 64, 64, 1)
    whole = np.repeat(plain[0], 3, axis=2)
    np.testing.assert_array_equal(
      clip[0], resize.antialiased(whole, (64, 64))[..., :1]
    )


def test_cityscapes(tmp_path):
  for part, count in {'train': 1, 'val': 2}.items():
    for drive in range(count):
      for k in range(30):
        name = f'ulm_{drive:06d}_{k:06d}_leftImg8bit.png'
        save(tmp_path / part / 'ulm' / name, k, (128, 200))
  test = source('cityscapes_128', tmp_path, num_frames=20, size='protocol')
  assert len(test) == 2
  clip = test[1]['video']
  assert clip.shape == (20, 128, 128, 3)
  # The middle: columns 36 to 163.
  assert clip[3, 0, 0, 0] == 3 + 36 and clip[3, 0, -1, 0] == 3 + 163
  assert len(source('cityscapes_128', tmp_path, 'train', 8)) == 23


def test_antialiased_halving_weighs_four_neighbours():
  """Pillow's triangle: 1, 3, 3, 1 of eight."""
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
  assert resize.antialiased(image, (12, 16)) is image
  small = resize.antialiased(image, (12, 8)).astype(int)
  taps = np.array([1, 3, 3, 1]) / 8
  for j in (1, 4, 6):
    expected = np.einsum('k,hkc->hc', taps, image[:, 2 * j - 1 : 2 * j + 3])
    assert np.abs(small[:, j] - expected).max() <= 1
