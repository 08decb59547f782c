"""Finding and reading files: every error about a damaged file is a ValueError.

Each format and each library below it raises its own exceptions for unexpected
bytes: zlib, zipfile, tokenize, h5py, netCDF4.
"""

import contextlib
import glob
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vidpred_jax import atomic


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
  atomic.check_ordinary(path, or_folder=True)
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
  return np.memmap(
    path, dtype, 'r', place, shape, order='F' if fortran else 'C'
  )


def find(
  root,
  within: Callable[[pathlib.Path], list[pathlib.Path]],
  kind: str,
  example: str,
) -> list[pathlib.Path]:
  """Finds the files that a user means by `root`, sorted.

  Args:
    root: a folder, a file, a glob pattern, or several of these.
    within: the files of a folder.
    kind: what they are, the name of the source.
    example: a pattern, for the message.

  Raises:
    FileNotFoundError: if nothing is found for one of them.
    ValueError: for a pipe or a device.
  """
  if not isinstance(root, (str, os.PathLike)):
    paths = {p for part in root for p in find(part, within, kind, example)}
    return sorted(paths)
  if not str(root):
    raise FileNotFoundError(
      f'The source {kind!r} needs root: a folder with {kind}, a file, a glob '
      f'pattern like "{example}", or several of these.'
    )
  atomic.check_local(root)
  path = pathlib.Path(os.path.expanduser(root))
  if path.is_file():
    return [path]
  atomic.check_ordinary(path, or_folder=True)
  if path.is_dir():
    paths = within(path)
  else:
    paths = [pathlib.Path(p) for p in glob.glob(str(path), recursive=True)]
  if not paths:
    raise FileNotFoundError(f'There are no {kind} at {root}.')
  return sorted(paths)


def of_split(
  split: str,
  root,
  find_files: Callable[..., list[pathlib.Path]],
  *,
  fractions: Mapping[str, float],
  listed: Mapping[str, Any],
) -> list[pathlib.Path]:
  """The files of a split: those held out for it, or for 'train' the rest.

  Args:
    split: 'train', 'val' or 'test'.
    root: all files, or all but those that are listed.
    find_files: gives the files that `root` or a list means.
    fractions: of 'test', the share of all files that are held out, and of
      'val', of the others; evenly spread.
    listed: of either, instead of a fraction: the files, or None. They need not
      be among those of `root`.

  Raises:
    ValueError: if nothing is left, or a file is listed for 'val' that is for
      'test'.
    FileNotFoundError: if there are no files.
  """
  if split == 'test' and listed['test'] is not None:
    return find_files(listed['test'])
  rest = find_files(root)
  count, tested = len(rest), set()
  for name in ('test', 'val'):
    if listed[name] is None:
      out = spread(len(rest), fractions[name])
      held = [path for path, chosen in zip(rest, out) if chosen]
    else:
      held = find_files(listed[name])
    places = set(map(os.path.realpath, held))
    for path in sorted(places & tested):
      raise ValueError(f'{path} is for testing; val_files has it, too.')
    if split == name:
      rest = held
      break
    rest = [path for path in rest if os.path.realpath(path) not in places]
    tested = places
  if not rest:
    raise none_left(split, count, 'files')
  return rest


def none_left(split: str, count: int, what: str) -> ValueError:
  """The error that says that of so many things none is in a split."""
  change = (
    'set test_fraction and val_fraction lower'
    if split == 'train'
    else f'set {split}_fraction or {split}_files'
  )
  return ValueError(
    f'None of the {count} {what} is left for {split}; {change}, or add files.'
  )


def spread(count: int, fraction: float) -> list[bool]:
  """Chooses a share of a number of items, evenly spread.

  Of two items or more, a fraction between 0 and 1 chooses at least one and
  leaves at least one.
  """
  share = fraction * np.arange(count + 1) + 1e-9
  chosen = list(np.diff(np.floor(share)) > 0)
  if 0 < fraction < 1 and count > 1:
    chosen[-1] |= not any(chosen)
    chosen[0] &= not all(chosen)
  return chosen
