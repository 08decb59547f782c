import os

import numpy as np
import pytest

from vidpred_jax.data import files


@pytest.fixture
def path(tmp_path):
  np.savez(tmp_path / 'a.npz', x=np.arange(3), y=np.zeros((2, 2)))
  return tmp_path / 'a.npz'


def test_names_and_arrays(path):
  assert files.npz_names(path) == ('x', 'y')
  np.testing.assert_array_equal(files.npz_array(path, 'x'), [0, 1, 2])


def test_an_array_that_is_not_there(path):
  with pytest.raises(ValueError, match='a.npz has the arrays x, y; expected z'):
    files.npz_array(path, 'z')


@pytest.mark.parametrize('keep', [0, 10, 200])
def test_damaged_files_are_one_error(path, keep):
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(
    ValueError, match='a.npz is damaged or no npz file: '
  ) as e:
    files.npz_names(path)
  assert '\n' not in str(e.value)
  with pytest.raises(FileNotFoundError):
    files.npz_names(path.with_name('b.npz'))


def test_what_a_reader_raises_becomes_the_users_error():
  with pytest.raises(ValueError, match='f is damaged or no clip: KeyError: 1'):
    with files.reading('f', 'clip'):
      raise KeyError(1)
  with pytest.raises(PermissionError):
    with files.reading('f', 'clip'):
      raise PermissionError
  with pytest.raises(KeyboardInterrupt):  # is no error of a file
    with files.reading('f', 'clip'):
      raise KeyboardInterrupt


@pytest.mark.parametrize(
  'read', [files.npy_map, files.npz_names, lambda x: files.npz_map(x, 'a')]
)
def test_a_pipe_is_not_waited_for(tmp_path, read):
  os.mkfifo(tmp_path / 'a')
  with pytest.raises(ValueError, match='a is no ordinary file'):
    read(tmp_path / 'a')
  with pytest.raises(ValueError, match='a is no ordinary file'):
    files.find(tmp_path / 'a', list, 'arrays', '*.npy')
