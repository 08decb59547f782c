"""Object storage, such as `gs://bucket/run`: files are fetched and put there.

What the package writes in folders it locks, renames and appends to, and object
storage does none of these. So it works on a copy on this machine: of runs see
`checkpoint.mirror`, of prepared data `listed`.

Storages are reached by fsspec, which comes with Orbax, and by the package for
that storage, such as gcsfs or s3fs, which has to be installed. `file://` is one
too: for a mounted disk that has no locks. (2026-11: etils.epath is fsspec for
four kinds of address, memory not among them, or TensorFlow where that is
installed.)
"""

import contextlib
import errno
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import tqdm

from vidpred_jax import atomic


@contextlib.contextmanager
def reaching(address: str | os.PathLike) -> Iterator[tuple]:
  """A storage and a place in it; the storage's own errors become ValueErrors.

  Args:
    address: such as gs://bucket/run.

  Yields:
    The fsspec file system, and the path there.

  Raises:
    ValueError: if the storage cannot be reached or refuses.
    OSError: of files of this machine, such as those of a full disk.
  """
  import fsspec

  address = _written(address)
  local, root = address.startswith(('file:', 'local:')), address
  try:
    files, root = fsspec.url_to_fs(
      address, **({'auto_mkdir': True} if local else {})
    )
    yield files, root
  except (FileExistsError, ValueError):
    raise
  except Exception as error:  # of whichever package speaks to it
    if isinstance(error, OSError) and _is_of_this_machine(error, root, local):
      raise
    if isinstance(error, FileNotFoundError):  # a bucket that is not there, too
      if root in str(error):
        raise
      raise FileNotFoundError(f'{address}: {error}') from error
    raise ValueError(
      f'{address} cannot be reached ({type(error).__name__}: {error}).'
    ) from error


def _is_of_this_machine(error: OSError, root: str, local: bool) -> bool:
  """Whether an error is of files here, and of none of the storage.

  Args:
    error: it.
    root: the place in the storage.
    local: whether the storage is a disk.
  """
  if isinstance(error.__cause__, OSError):  # as `atomic.naming` tells it
    error = error.__cause__
  names = [str(x) for x in (error.filename, error.filename2) if x is not None]
  if any(name.startswith(root) for name in names):
    return False
  if not names:
    return not local and error.errno in (errno.ENOSPC, errno.EDQUOT)
  return any(map(os.path.isabs, names))


def _written(address: str | os.PathLike) -> str:
  """An address as fsspec takes it; pathlib writes gs:/bucket."""
  scheme, _, rest = os.fspath(address).partition(':')
  slashes = ':///' if scheme in ('file', 'local') else '://'
  return scheme + slashes + rest.strip('/')


def sizes(files, root: str) -> dict[str, int]:
  """The sizes of all files below a place, by their names from there on.

  Args:
    files: a storage, from `reaching`.
    root: the place.

  Raises:
    ValueError: if a name leads out of the place.
  """
  files.invalidate_cache()
  result = {}
  for path, info in files.find(root, detail=True).items():
    name = path[len(root) :].lstrip('/')
    if not name:
      raise ValueError(f'{root} is a file, expected a folder.')
    if '..' in name.split('/'):
      raise ValueError(f'{root} has a file {name!r}, which leads out of it.')
    result[name] = int(info['size'])
  return result


def exists(files, place: str) -> bool:
  """As `files.exists`, for which some storages take any error for a no."""
  try:
    files.info(place)
  except FileNotFoundError:
    return False
  return True


def has(address: str | os.PathLike, name: str) -> bool:
  """Whether there is a file of that name in a folder at an address.

  Raises:
    ValueError: if the storage cannot be reached.
  """
  with reaching(address) as (files, root):
    return exists(files, f'{root}/{name}')


def get(files, root: str, wanted: dict[str, int], folder: pathlib.Path) -> None:
  """Copies files to a folder; each appears there when it is whole.

  Args:
    files: a storage, from `reaching`.
    root: the place there.
    wanted: names, with sizes.
    folder: the folder.

  Raises:
    ValueError: if a file ends early.
  """
  with tqdm.tqdm(
    total=sum(wanted.values()),
    desc=f'from {root}',
    unit='B',
    unit_scale=True,
    disable=None,
    leave=False,
  ) as bar:
    for name, size in wanted.items():
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      with atomic.replacing(path) as partial:
        files.get_file(f'{root}/{name}', str(partial))
        if partial.stat().st_size != size:
          raise ValueError(
            f'{root}/{name} ended after {partial.stat().st_size} of {size} '
            'bytes.'
          )
      bar.update(size)


def listed(
  address: str | os.PathLike,
  name: str,
  others: Callable[[pathlib.Path], Iterable[str]],
) -> pathlib.Path:
  """A file and others that it names, copied from an address to this machine.

  The copy lies below `$VIDPRED_JAX_DATA`, else in the user's cache folder, and
  is used again. After an interruption only what is missing is copied.

  Args:
    address: the folder there.
    name: of a file in it.
    others: names the other files, given the path of the copy.

  Returns:
    The path of the copy; it does not exist if there is no such file.

  Raises:
    ValueError: if the storage cannot be reached, or a file that is named is
      missing.
  """
  with reaching(address) as (files, root):
    if not exists(files, f'{root}/{name}'):
      return _copies() / 'none' / name
    text = files.cat_file(f'{root}/{name}')
    key = f'{_written(address)}/{name}\n'.encode() + text
    folder = _copies() / hashlib.sha256(key).hexdigest()[:16]
    if not (folder / name).exists():
      folder.mkdir(parents=True, exist_ok=True)
      with atomic.replacing(folder / name) as partial:
        partial.write_bytes(text)
    try:
      needed = list(others(folder / name))
    except ValueError as error:
      said = str(error).replace(str(folder), os.fspath(address))
      raise ValueError(said) from error
    there = sizes(files, root)
    wanted = {}
    for other in needed:
      if other not in there:
        raise ValueError(
          f'{address}/{name} names {other}, which is not there; was it copied '
          'as a whole?'
        )
      path = folder / other
      if not path.is_file() or path.stat().st_size != there[other]:
        wanted[other] = there[other]
    get(files, root, wanted, folder)
  return folder / name


def _copies() -> pathlib.Path:
  cache = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
  default = pathlib.Path(cache) / 'vidpred_jax' / 'data'
  return pathlib.Path(os.environ.get('VIDPRED_JAX_DATA', default))


def read(address: str | os.PathLike, most: int) -> bytes:
  """The content of a file of at most `most` bytes.

  Raises:
    FileNotFoundError: if it is not there.
    ValueError: if it is longer, or the storage cannot be reached.
  """
  with reaching(address) as (files, root):
    if (size := files.size(root)) > most:
      raise ValueError(f'{address} has {size} bytes, expected at most {most}.')
    return files.cat_file(root)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file, at a path or at an address."""
  if not atomic.is_address(path):
    return atomic.write_text(path, text)
  with reaching(path) as (files, root):
    files.pipe_file(root, text.encode())
