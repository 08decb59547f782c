"""Finding a user's files, and reading them so that a fault is one ValueError.

Each format, and each layer below it, raises its own kinds of exception on
bytes that it does not expect: zlib, zipfile, tokenize, h5py, netCDF4.
"""

import contextlib
import glob
import os
import pathlib
import zipfile
from collections.abc import Callable

import numpy as np


@contextlib.contextmanager
def reading(path: str | os.PathLike, kind: str):
  """A context in which whatever is raised says that a file cannot be used.

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


def npy_map(path: str | os.PathLike) -> np.ndarray:
  """The array of an npy file, mapped into memory.

  Raises:
    ValueError: if it is damaged or none, or holds Python objects.
    FileNotFoundError: if there is no file.
  """
  with reading(path, 'npy file'):
    return _mapped(path, 0)


def npz_map(path: str | os.PathLike, name: str) -> np.ndarray:
  """As `npz_array`, mapped into memory, unless it is compressed.

  Raises:
    ValueError: if it is damaged or none, or has no such array.
    FileNotFoundError: if there is no file.
  """
  if name in npz_names(path):
    with reading(path, 'npz file'), zipfile.ZipFile(path) as file:
      entry = file.getinfo(f'{name}.npy')
      if entry.compress_type == zipfile.ZIP_STORED:
        # The entry's own header is before it; its name and extras vary.
        with open(path, 'rb') as raw:
          raw.seek(entry.header_offset + 26)
          sizes = np.frombuffer(raw.read(4), '<u2').astype(int)
        return _mapped(path, entry.header_offset + 30 + int(sizes.sum()))
  return npz_array(path, name)


def _mapped(path, offset: int) -> np.ndarray:
  """The array that is written in NumPy's format from this byte on."""
  headers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  with open(path, 'rb') as file:
    file.seek(offset)
    version = np.lib.format.read_magic(file)
    if version not in headers:
      raise ValueError(f'version {version} of the format')
    shape, fortran, dtype = headers[version](file)
    if dtype.hasobject:
      raise ValueError('it holds Python objects, which are never unpickled')
    place = file.tell()
  if 0 in shape or shape == ():
    return np.zeros(shape, dtype)
  order = 'F' if fortran else 'C'
  return np.memmap(path, dtype, 'r', offset=place, shape=shape, order=order)


def find(
  root,
  within: Callable[[pathlib.Path], list[pathlib.Path]],
  kind: str,
  example: str,
) -> list[pathlib.Path]:
  """What a user means by `root`, sorted.

  Args:
    root: a folder, a file, a glob pattern, or several of these.
    within: the files of a folder.
    kind: what they are, the name of the source.
    example: a pattern, for the message.

  Raises:
    FileNotFoundError: if nothing is found for one of them.
  """
  if not isinstance(root, (str, os.PathLike)):
    found = {p for part in root for p in find(part, within, kind, example)}
    return sorted(found)
  if not str(root):
    raise FileNotFoundError(
      f'The source {kind!r} needs root: a folder with {kind}, a file, a glob '
      f'pattern like "{example}", or several of these.'
    )
  path = pathlib.Path(root).expanduser()
  if path.is_file():
    return [path]
  if path.is_dir():
    found = within(path)
  else:
    found = [pathlib.Path(p) for p in glob.glob(str(path), recursive=True)]
  if not found:
    raise FileNotFoundError(f'There are no {kind} at {root}.')
  return sorted(found)


def spread(count: int, fraction: float) -> list[bool]:
  """Which of so many, in order, are held out: evenly spread.

  At least one is, and one is not, where there are two and the fraction lies
  between 0 and 1.
  """
  share = fraction * np.arange(count + 1) + 1e-9
  chosen = list(np.diff(np.floor(share)) > 0)
  if 0 < fraction < 1 and count > 1:
    chosen[-1] |= not any(chosen)
    chosen[0] &= not all(chosen)
  return chosen
