"""Atomic writes: files and folders appear complete, or not at all.

What is being made lies beside its place under a hidden name that says which
process makes it. One that was killed leaves it there; the next one clears it.
A folder that many files are written to is held by one process at a time.

This needs a file system: object storage renames no folder, locks no file and
appends to none. Its addresses (`gs://bucket/run`) are refused; for what may lie
there see `storage`.
"""

import contextlib
import errno
import logging
import os
import pathlib
import re
import shutil
import socket
import zlib
from collections.abc import Iterator

try:
  import fcntl
except ImportError:  # on Windows
  fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger(__name__)

LOCK = '.lock'
# `.video.part123-0a1b2c3d.mp4`; `old` is what is about to be replaced, `new`
# shows whether anything can be written.
_MADE = re.compile(r'\.(.+)\.(part|old|new)(\d+)-([0-9a-f]{8})(\.[^.]*)?')

# `gs://bucket`, which pathlib writes as `gs:/bucket`; no drive of one letter.
_ADDRESS = re.compile(r'[A-Za-z][\w+.-]+:/')


def is_address(path: str | os.PathLike) -> bool:
  """Whether this is an address such as gs://bucket/run, not a path."""
  return _ADDRESS.match(os.fspath(path)) is not None


def check_local(path: str | os.PathLike) -> None:
  """Raises ValueError for an address such as gs://bucket/run."""
  if is_address(path):
    raise ValueError(
      f'{path} is an address, not a path of a file system. Mount that storage '
      'and name the mounted folder, or copy it (docs/guide.md).'
    )


def check_ordinary(path: str | os.PathLike, *, or_folder: bool = False) -> None:
  """Raises ValueError for a pipe or a device, which would be waited for.

  Args:
    path: what is to be read; nothing is said where there is nothing.
    or_folder: whether it may be a folder.
  """
  path = pathlib.Path(path)
  if path.is_file() or (or_folder and path.is_dir()) or not path.exists():
    return
  raise ValueError(f'{path} is no ordinary file.')


def check_new(
  path: str | os.PathLike, *, overwrite: bool = False, parents: bool = False
) -> None:
  """Raises, before any work, what writing a file or folder would raise later.

  Args:
    path: what will be made.
    overwrite: whether one that exists may be replaced.
    parents: whether the folders that it lies in are made, too.

  Raises:
    FileExistsError: if it exists and may not be replaced.
    FileNotFoundError: if its folder does not exist.
    OSError: if nothing can be written there.
    ValueError: if `path` is an address of object storage.
  """
  path = pathlib.Path(path)
  if not overwrite:
    _check_absent(path)
  place = path
  while parents and not place.parent.exists():
    place = place.parent
  if not place.parent.is_dir():
    raise FileNotFoundError(
      f'{path} cannot be written: there is no folder {place.parent}.'
    )
  check_local(path)
  tried = _named(place, 'new')
  try:
    tried.touch()
    tried.unlink(missing_ok=True)
  except OSError as error:
    raise OSError(
      f'{path} cannot be written: {place.parent} takes nothing '
      f'({error.strerror}).'
    ) from None


def _check_absent(path: str | os.PathLike) -> None:
  if os.path.lexists(path):
    raise FileExistsError(f'{path} exists already; nothing was written.')


def beside(path: str | os.PathLike) -> pathlib.Path:
  """The temporary path at which this process writes what becomes `path`.

  Remains of ended processes of this machine are cleared.

  Args:
    path: the final path.

  Returns:
    A hidden name, not in use, in the same folder with the suffix of `path`.

  Raises:
    ValueError: if `path` is an address of object storage.
  """
  check_local(path)
  path = pathlib.Path(path)
  for made in path.parent.glob('.*'):
    parts = _MADE.fullmatch(made.name)
    if parts and _place(made) == path and parts[4] == _machine():
      pid = int(parts[3])
      if pid == os.getpid() or not _is_running(pid):
        _clear(made)
  return _named(path, 'part')


def put(made: pathlib.Path, path: str | os.PathLike) -> None:
  """Moves the temporary file or folder to its path, replacing an old one.

  Raises:
    OSError: if the move fails; the old one stays.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    made.replace(path)
    return
  old = _named(path, 'old')
  path.rename(old)
  try:
    made.rename(path)
  except OSError:
    old.rename(path)
    raise
  remove(old)


def remove(path: pathlib.Path) -> None:
  """Removes a file or a folder if it exists."""
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(
  path: str | os.PathLike, *, overwrite: bool = True
) -> Iterator[pathlib.Path]:
  """Replaces a file or folder when the block ends, if the block succeeds.

  The block makes the new file or folder at a temporary path. If the block
  raises, the old one stays and the new one is removed.

  Args:
    path: the final path, in a folder that exists when the block ends.
    overwrite: whether one that has appeared by then may be replaced.

  Yields:
    The temporary path, in the same folder. It has the suffix of `path`.

  Raises:
    FileExistsError: if there is one by then that may not be replaced.
    OSError: if it cannot be written; the message has `path`.
  """
  made = beside(path)
  try:
    with naming(path, made):
      yield made
      if not overwrite:
        _check_absent(path)
      put(made, path)
  finally:
    remove(made)


@contextlib.contextmanager
def naming(path: str | os.PathLike, made: pathlib.Path) -> Iterator[None]:
  """A context whose errors of writing name `path`.

  A full disk's name none, or the temporary `made`.

  Raises:
    OSError: in place of another.
  """
  try:
    yield
  except OSError as error:
    reason = error.strerror
    if reason is None and not _has_room(made.parent):
      reason = os.strerror(errno.ENOSPC)  # NumPy tells of bytes
    if reason is None or str(made) not in str(error.filename or made):
      raise  # of what is read
    raise OSError(f'{path} could not be written: {reason}.') from error


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file, or leaves the existing file unchanged."""
  with replacing(path) as partial:
    partial.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def holding(folder: str | os.PathLike) -> Iterator[None]:
  """Locks a folder: one process at a time is in such a block.

  The operating system holds the lock and releases it when the process ends, by
  a kill too. Temporary files of earlier processes are cleared. A file system
  without locks gives a warning and excludes nobody.

  Args:
    folder: a folder that exists.

  Yields:
    Nothing.

  Raises:
    ValueError: if another process holds the folder; names its host and number.
    OSError: if the folder cannot be written to.
  """
  folder = pathlib.Path(folder)
  file = _locked(folder)
  try:
    if file is not None:
      for made in folder.glob('.*'):
        if _MADE.fullmatch(made.name):
          _clear(made)
    yield
  finally:
    with contextlib.suppress(OSError):
      (folder / LOCK).unlink()  # before it is given up: it is still ours
    if file is not None:
      os.close(file)


def is_own(path: pathlib.Path) -> bool:
  """Whether this module makes such names in folders."""
  return path.name == LOCK or _MADE.fullmatch(path.name) is not None


def _locked(folder: pathlib.Path) -> int | None:
  """Locks a file and writes its owner to it; None without support for locks."""
  path = folder / LOCK
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      if fcntl is None:
        raise OSError('this system has none')
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Its last owner may have removed it in the meantime.
      if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
        break
    except BlockingIOError:
      text = os.read(file, 300).decode(errors='replace')
      os.close(file)
      holder = re.fullmatch(r'process \d+ on [\w.-]+', text)
      raise ValueError(
        f'{folder} is in use by {holder[0] if holder else "another process"}; '
        'wait until that has ended, or choose another folder.'
      ) from None
    except OSError as error:
      os.close(file)
      _LOG.warning(
        '%s cannot be locked (%s): see to it that no other process writes '
        'there.',
        folder,
        error.strerror or error,
      )
      return None
    os.close(file)
  with contextlib.suppress(OSError):  # a full disk: then it has no name
    os.ftruncate(file, 0)
    os.write(file, f'process {os.getpid()} on {socket.gethostname()}'.encode())
  return file


def _has_room(folder: pathlib.Path) -> bool:
  try:
    return shutil.disk_usage(folder).free > 0
  except OSError:
    return True


def _machine() -> str:
  """This machine in eight letters, to tell its processes from others'."""
  return f'{zlib.crc32(socket.gethostname().encode()):08x}'


def _named(path: pathlib.Path, kind: str) -> pathlib.Path:
  process = f'{kind}{os.getpid()}-{_machine()}'
  return path.with_name(f'.{path.stem}.{process}{path.suffix}')


def _place(made: pathlib.Path) -> pathlib.Path:
  """The final path of a temporary file or folder."""
  parts = _MADE.fullmatch(made.name)
  assert parts is not None
  return made.with_name(parts[1] + (parts[5] or ''))


def _clear(made: pathlib.Path) -> None:
  """Removes a dead process's files and restores what it was replacing."""
  parts, place = _MADE.fullmatch(made.name), _place(made)
  if parts is not None and parts[2] == 'old' and not place.exists():
    made.rename(place)
  else:
    remove(made)


def _is_running(pid: int) -> bool:
  """Whether a process of this number runs; True if that is unknown."""
  if os.name != 'posix':
    return True
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except OSError:
    return True
  return True
