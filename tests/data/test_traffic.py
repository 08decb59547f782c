import numpy as np
import pytest

from vidpred_jax.data import traffic


def write(path, train=5, test=3, **more):
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  arrays = {
    f'{k}_{split}': rng.uniform(-1, 1, (number, 4, 2, 32, 32))
    for split, number in (('train', train), ('test', test))
    for k in 'XY'
  }
  np.savez(path, **arrays | more)
  return arrays


def test_clips(tmp_path):
  arrays = write(tmp_path / 'taxibj/dataset.npz')
  for root in (tmp_path, tmp_path / 'taxibj', tmp_path / 'taxibj/dataset.npz'):
    clips = traffic.TaxiBJ('test', 8, root=root)
    assert len(clips) == 3 and clips.kind == 'image'
  video = clips[1]['video']
  assert video.shape == (8, 32, 32, 2) and video.dtype == np.float32
  assert 0 <= video.min() and video.max() <= 1
  for t, key, k in ((0, 'X_test', 0), (3, 'X_test', 3), (6, 'Y_test', 2)):
    wanted = (arrays[key][1, k].transpose(1, 2, 0) + 1) / 2
    np.testing.assert_allclose(video[t], wanted, rtol=1e-5, atol=1e-7)
  train = traffic.TaxiBJ('train', 5, root=tmp_path)
  assert len(train) == 5 and train[4]['video'].shape == (5, 32, 32, 2)
  np.testing.assert_array_equal(
    traffic.TaxiBJ('test', 5, root=tmp_path)[1]['video'], video[:5]
  )
  assert traffic.count(tmp_path, 'train') == 5


def test_what_is_missing_or_wrong(tmp_path):
  with pytest.raises(FileNotFoundError, match='OpenSTL/releases'):
    traffic.TaxiBJ('train', 8, root=tmp_path)
  path = tmp_path / 'dataset.npz'
  write(path)
  with pytest.raises(ValueError, match=r'4 \+ 4 frames; 9 were'):
    traffic.TaxiBJ('train', 9, root=path)
  with pytest.raises(ValueError, match='split must be'):
    traffic.TaxiBJ('dev', 8, root=path)
  for more, message in (
    ({'X_train': np.full((5, 4, 2, 32, 32), 2.0)}, r'\[2, 2\].*\[-1, 1\]'),
    ({'X_train': np.zeros((5, 4, 32, 32, 2))}, 'expected numbers .N, T, 2'),
    ({'Y_train': np.zeros((4, 4, 2, 32, 32))}, '5 clips in X_train and 4'),
  ):
    write(path, **more)
    with pytest.raises(ValueError, match=message):
      traffic.TaxiBJ('train', 8, root=path)
  np.savez(path, X_test=np.zeros((2, 4, 2, 32, 32)))
  with pytest.raises(ValueError, match='arrays X_test; expected X_train'):
    traffic.TaxiBJ('train', 8, root=path)


def test_damaged_files(tmp_path):
  path = tmp_path / 'dataset.npz'
  write(path)
  data = path.read_bytes()
  for content in (b'PK nothing', b'', data[:-30], data[: len(data) // 2]):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='damaged or no npz'):
      traffic.TaxiBJ('train', 8, root=path)
