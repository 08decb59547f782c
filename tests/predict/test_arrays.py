import numpy as np
import pytest

from tests.predict.toys import VARIABLES, between, make, noisy, straight
from vidpred_jax.data import array_files
from vidpred_jax.predict.arrays import is_array, predict_array


def forward(channels=3):
  return lambda: straight(channels=channels)


def drawn():
  """Loads a system that draws at random."""
  return make(noisy, stochastic=True), VARIABLES


def films(count=2, length=4, channels=3):
  """Films that get lighter at a speed of their own, 10x12."""
  n, t = np.ogrid[:count, :length]
  values = (30 + 10 * (n + 1) * t)[..., None, None, None]
  return (values + np.zeros((10, 12, channels))).astype(np.uint8)


@pytest.mark.parametrize(
  'suffix', [*array_files.SUFFIXES, '.NPY', '.Npz', '.ZARR']
)
def test_films_go_from_file_to_file(tmp_path, suffix):
  source, output = tmp_path / f'in{suffix}', tmp_path / f'out{suffix}'

  def read():
    if suffix.lower() == '.zarr':
      return zarr.open_array(output, mode='r')[:]
    found = np.load(output)
    return found['frames'] if suffix.lower() == '.npz' else found

  for video in (films(), films()[1]):
    if suffix.lower() == '.zarr':
      zarr = pytest.importorskip('zarr')
      zarr.save_array(source, video, mode='w')
    else:
      with source.open('wb') as file:
        np.save(file, video) if suffix.lower() == '.npy' else np.savez(
          file, video=video
        )
    count = predict_array(
      forward(), source, output, num_frames=2, overwrite=True
    )
    assert count == 2
    expected = films(length=6)[:, 4:]
    got = read()
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(
      got, expected if video.ndim == 5 else expected[1]
    )
  with pytest.raises(FileExistsError):
    predict_array(forward(), source, output)
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
    (source.name, output.name)
  )


def test_frames_between_and_futures(tmp_path):
  source, output = tmp_path / 'in.npy', tmp_path / 'out.npy'
  np.save(source, films())
  load = lambda **frames: between(**frames)  # noqa: E731
  assert predict_array(load, source, output, factor=2) == 7
  made = np.load(output)
  assert made.shape == (2, 7, 10, 12, 3)
  np.testing.assert_array_equal(made[:, ::2], films())
  assert made[1, 1, 0, 0, 0] == 40
  output.unlink()
  assert predict_array(drawn, source, output, samples=3, num_frames=2) == 2
  made = np.load(output)
  assert made.shape == (2, 3, 2, 10, 12, 3)
  # Every film draws for itself.
  assert (made[0, 0] - films()[0, -1:] != made[1, 0] - films()[1, -1:]).any()


def test_grey_is_given_as_colour(tmp_path):
  source, output = tmp_path / 'in.npy', tmp_path / 'out.npy'
  np.save(source, films(channels=1))
  predict_array(forward(), source, output)
  np.testing.assert_array_equal(
    np.load(output), films(length=5, channels=1)[:, 4:]
  )


def test_what_does_not_suit_is_refused(tmp_path):
  source, output = tmp_path / 'in.npy', tmp_path / 'out.npy'
  np.save(source, films(channels=5))
  load = lambda **frames: between(**frames)  # noqa: E731
  for function, settings, words in (
    (forward(), {}, '5 channels; this system sees 3'),
    (forward(), {'factor': 2}, 'cannot serve --factor'),
    (forward(), {'whole': True}, 'cannot serve --whole'),
    (load, {'num_frames': 2}, 'cannot serve --num_frames'),
    (load, {'factor': 1}, 'factor=1, expected 2 to 64'),
    (load, {'factor': 10**9}, 'expected 2 to 64'),
    (forward(5), {'num_frames': 10**12}, 'expected 1 to 1000000'),
    (forward(5), {'num_frames': 10**6, 'samples': 200}, '240 GB, more than'),
  ):
    with pytest.raises(ValueError, match=words):
      predict_array(function, source, output, **settings)
  np.save(source, films().astype(np.float32))
  with pytest.raises(ValueError, match='float32.*expected uint8'):
    predict_array(forward(), source, output)
  with pytest.raises(ValueError, match='no file of arrays'):
    predict_array(forward(), source, tmp_path / 'out.mp4')
  assert not output.exists()
  assert is_array('a/b.zarr') and not is_array('a.npy/b.mp4')
