"""Arrays of films in npy, npz and Zarr files: opened, and read when used."""

import functools
import importlib.util
import os
import pathlib
from collections.abc import Sequence

from vidpred_jax.data import files

SUFFIXES = ('.npy', '.npz', '.zarr')


def stamp(
  path: str | os.PathLike, array: str = ''
) -> tuple[str, int, int, str]:
  """A file and array, and what differs when the file is another by now.

  Args:
    path: npy, npz or Zarr.
    array: which, of npz files and of groups of Zarr; empty: the only one.

  Returns:
    The arguments of `opened`.

  Raises:
    FileNotFoundError: if there is no file.
  """
  path = pathlib.Path(os.path.expanduser(path))
  place = path / 'zarr.json' if path.is_dir() else path
  status = (place if place.exists() else path).stat()
  return str(path), status.st_mtime_ns, status.st_size, array


@functools.lru_cache(maxsize=256)
def opened(path: str, mtime: int, size: int, array: str):
  """The array of a file, read when it is used: `opened(*stamp(path))`.

  Args:
    path: npy, npz or Zarr.
    mtime: see `stamp`.
    size: see `stamp`.
    array: which, see `stamp`.

  Returns:
    [T, H, W, C] or [N, T, H, W, C]: NumPy's, mapped unless compressed, or
    Zarr's.

  Raises:
    ValueError: if it is none of that kind.
    FileNotFoundError: if there is no file.
  """
  del mtime, size  # another file by the same name is opened anew
  place = pathlib.Path(path)
  if place.suffix.lower() == '.npy':
    values = files.npy_map(place)
  elif place.suffix.lower() == '.npz':
    values = files.npz_map(place, _chosen(place, array, files.npz_names(place)))
  else:
    values = _zarr(place, array)
  if len(values.shape) not in (4, 5) or 0 in values.shape:
    raise ValueError(
      f'{path} has the shape {list(values.shape)}; expected [T, H, W, C] or '
      '[N, T, H, W, C], the channels last.'
    )
  if values.dtype.kind not in 'fiu':
    raise ValueError(
      f'{path} holds {values.dtype}; expected bytes (uint8) or floats.'
    )
  return values


def unwritten(values) -> int:
  """How many parts of an array are in no file and are read as its fill value.

  A Zarr array is a folder of parts; one that a copy has lost looks like one
  that nobody has written. NumPy's files are whole.
  """
  if not hasattr(values, 'nchunks_initialized'):
    return 0
  return max(values.nchunks - values.nchunks_initialized, 0)


def _chosen(path, array: str, names: Sequence[str]) -> str:
  if not array and len(names) != 1:
    raise ValueError(
      f'{path} has the arrays {", ".join(sorted(names))}; say which by array.'
    )
  name = array or names[0]
  if name not in names:
    raise ValueError(
      f'{path} has the arrays {", ".join(sorted(names))}; expected {name}.'
    )
  return name


def _zarr(path: pathlib.Path, array: str):
  if importlib.util.find_spec('zarr') is None:
    raise FileNotFoundError(
      f"{path} needs the package zarr: pip install 'vidpred_jax[zarr]'"
    )
  import zarr

  with files.reading(path, 'Zarr folder'):
    values = zarr.open(path, mode='r')
    names = (
      [] if isinstance(values, zarr.Array) else sorted(values.array_keys())
    )
  if isinstance(values, zarr.Array):
    return values
  return values[_chosen(path, array, names)]
