"""Exports on object storage, such as `gs://bucket/model`: read, and put there.

An export is two files, and one of them has a sum over both. So it needs neither
locks nor renaming: a reader refuses files that do not belong together. What
else the package reads or writes needs a file system, see `atomic`.

The storage is reached by fsspec, which comes with Orbax, and by the package for
that storage, such as gcsfs or s3fs, which has to be installed.
"""

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from vidpred_jax import atomic, stored, zoo

RECORD = 'system.json'
WEIGHTS = 'weights.safetensors'
_MOST = {RECORD: stored.MOST_OF_A_RECORD, WEIGHTS: stored.MOST_OF_WEIGHTS}


@contextlib.contextmanager
def local(
  path: str | os.PathLike, names: Sequence[str] = (RECORD, WEIGHTS)
) -> Iterator[pathlib.Path]:
  """The folder of a model; files of an address are copied to this machine.

  Args:
    path: a folder, the name of a model of the package, or the address of an
      export or of a finished run, which holds one.
    names: which files of an export at an address are copied.

  Yields:
    The folder; a copy lies there until the block ends.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if the storage cannot be reached.
  """
  if not atomic.is_address(path):
    yield zoo.find(path)
    return
  with tempfile.TemporaryDirectory() as folder:
    with _reaching(path) as (storage, root):
      _fetch(storage, root, names, folder)
    try:
      yield pathlib.Path(folder)
    except ValueError as error:
      raise ValueError(str(error).replace(folder, os.fspath(path))) from error


def put(path: str | os.PathLike, content: Mapping[str, bytes]) -> None:
  """Writes an export to an address.

  The record comes last: without one there is no export.

  Args:
    path: the address.
    content: both files of the export.

  Raises:
    FileExistsError: if there is an export. It could not be replaced as a whole.
    ValueError: if the storage cannot be reached.
  """
  with _reaching(path) as (storage, root):
    if _exists(storage, f'{root}/{RECORD}'):
      raise FileExistsError(f'{path} exists already; nothing was written.')
    for name in (WEIGHTS, RECORD):
      storage.pipe_file(f'{root}/{name}', content[name])


@contextlib.contextmanager
def _reaching(path):
  """Yields a storage and a place in it; their errors are ValueErrors."""
  import fsspec

  # pathlib writes gs:/bucket.
  address = re.sub(':/(?!/)', '://', os.fspath(path), count=1).rstrip('/')
  if address.startswith('file:'):
    raise ValueError(f'Got {address}; expected the path of a folder on a disk.')
  try:
    yield fsspec.url_to_fs(address)
  except (FileNotFoundError, FileExistsError, ValueError):
    raise
  except Exception as error:  # of whichever package speaks to it
    raise ValueError(
      f'{address} cannot be reached ({type(error).__name__}: {error}).'
    ) from error


def _exists(storage, place):
  """As `storage.exists`, for which some storages take any error for a no."""
  try:
    storage.info(place)
  except FileNotFoundError:
    return False
  return True


def _fetch(storage, root, names, folder):
  for place in (root, f'{root}/export'):
    if _exists(storage, f'{place}/{RECORD}'):
      break
  else:
    raise FileNotFoundError(
      f'{root} on that storage holds no exported system ({RECORD} and '
      f'{WEIGHTS}). The folder of an unfinished run is copied to a disk first '
      '(docs/guide.md).'
    )
  for name in names:
    size = storage.size(f'{place}/{name}')
    if size > _MOST[name]:
      raise ValueError(
        f'{place}/{name} has {size} bytes, expected at most {_MOST[name]}.'
      )
    storage.get_file(f'{place}/{name}', os.path.join(folder, name))
