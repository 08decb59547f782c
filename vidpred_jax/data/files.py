"""Reading files: every error about a damaged file becomes a ValueError.

Each format and each library below it raises its own exceptions for unexpected
bytes: zlib, zipfile, tokenize, h5py, netCDF4.
"""

import contextlib
import os

import numpy as np


@contextlib.contextmanager
def reading(path: str | os.PathLike, kind: str):
  """A context that turns exceptions into a ValueError that names the file.

  Args:
    path: the file.
    kind: what it should be, for the message: 'npz file'.

  Raises:
    ValueError: instead of any other exception.
    FileNotFoundError, PermissionError: as they are.
  """
  try:
    yield
  except (FileNotFoundError, PermissionError):
    raise
  except Exception as error:
    why = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise ValueError(f'{path} is damaged or no {kind}: {why}') from None


def npz_names(path: str | os.PathLike) -> tuple[str, ...]:
  """The arrays of an npz file.

  Raises:
    ValueError: if it is damaged or none.
    FileNotFoundError: if there is no file.
  """
  with reading(path, 'npz file'), np.load(path) as file:
    return tuple(file.files)


def npz_array(path: str | os.PathLike, name: str) -> np.ndarray:
  """One array of an npz file.

  Raises:
    ValueError: if it is damaged or none, or has no such array.
    FileNotFoundError: if there is no file.
  """
  names = npz_names(path)
  if name not in names:
    raise ValueError(
      f'{path} has the arrays {", ".join(names)}; expected {name}.'
    )
  with reading(path, 'npz file'), np.load(path) as file:
    return file[name]
