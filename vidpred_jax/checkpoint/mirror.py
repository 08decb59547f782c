"""Runs on object storage: worked on in a folder here, and copied there.

Training and evaluation lock, rename and append, which object storage does not.
So they work on a copy in a temporary folder, which begins with what is at the
address. After each checkpoint and at the end, what is new is copied there: the
configuration first, then logs and arrays, at last the file without which a
checkpoint or an export does not count. What the run has deleted is deleted
after that. So the address always holds a run that goes on, exactly, from its
newest whole checkpoint. Its files are those of a run's folder.

Nothing there can be locked. It is for the user to see to it that a run is not
trained twice at the same time. Another run that has been begun there meanwhile
is noticed and left alone.
"""

import contextlib
import logging
import os
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import jax

from vidpred_jax import atomic, storage
from vidpred_jax.checkpoint.remote import CONFIG, of_weights, sign

_LOG = logging.getLogger(__name__)
_QUIET = 5.0  # seconds that a copy is waited for without a word

# What helps after a copy that failed. An evaluation's folder has no checkpoints
# to train on from.
_GOES_ON = '--workdir=%s goes on from there.'
_MEASURES = 'the results lie there, and evaluating %s again measures again.'


@contextlib.contextmanager
def working(
  workdir: str | os.PathLike, *, trains: bool = False
) -> Iterator[tuple[pathlib.Path, Callable[[], None]]]:
  """The folder to work in for a run, wherever the run lies.

  Args:
    workdir: a folder, which is worked in itself, or an address.
    trains: whether the run goes on. Otherwise weights and log alone are
      fetched.

  Yields:
    The folder, and a function that copies to the address what is new. At its
    first call it waits and raises; later it copies in the background, a failure
    is a warning, and the next call tries again.

  Raises:
    ValueError: if the storage cannot be reached or refuses, if the address
      holds other things, or for several processes.
    OSError: if the last copy fails; the message says where the folder is.
  """
  if not atomic.is_address(workdir):
    yield pathlib.Path(workdir), lambda: None
    return
  if jax.process_count() > 1:
    raise ValueError(
      f'{workdir} is an address, and there are {jax.process_count()} processes;'
      ' expected the path of a folder that all of them see.'
    )
  address = os.fspath(workdir)
  folder = pathlib.Path(tempfile.mkdtemp(prefix='vidpred_jax-'))
  copies = _Copies(address, folder)
  try:
    copies.fetch(trains)
  except BaseException:
    shutil.rmtree(folder, ignore_errors=True)
    raise
  try:
    try:
      yield folder, copies.begin
    except Exception:
      copies.end(raises=False)
      raise
    copies.end(raises=True)
  except (ValueError, FileNotFoundError) as error:
    if str(folder) not in str(error) or not copies.is_whole():
      raise
    said = str(error).replace(str(folder), address)
    kind = ValueError if isinstance(error, ValueError) else FileNotFoundError
    raise kind(said) from error
  finally:
    if copies.is_whole():
      shutil.rmtree(folder, ignore_errors=True)
    else:
      _LOG.warning(
        f'%s lacks what is in %s; {_GOES_ON if trains else _MEASURES}',
        address,
        folder,
        folder if trains else address,
      )


class _Copies:
  """What of a folder is at an address, and the copying of the rest."""

  def __init__(self, address: str, folder: pathlib.Path):
    self._address, self._folder = address, folder
    # Size and time of each file here when it was the one there. None: of no use
    # there, and to be deleted.
    self._there: dict[str, tuple[int, int] | None] = {}
    self._config: bytes | None = None  # as it was last seen there
    self._thread: threading.Thread | None = None
    self._since = 0.0  # when the last copy began

  def fetch(self, trains: bool) -> None:
    with storage.reaching(self._address) as (files, root):
      sizes = storage.sizes(files, root)
      if trains and sizes and CONFIG not in sizes:
        raise ValueError(
          f'{self._address} is not empty and holds no run; choose another '
          '--workdir.'
        )
      whole = {k: n for k, n in sizes.items() if (sign(k) or k) in sizes}
      if not trains:
        wanted = {*of_weights(whole), 'metrics.jsonl'}
        whole = {k: n for k, n in whole.items() if k in wanted}
      storage.get(files, root, whole, self._folder)
      if CONFIG in sizes:
        self._config = files.cat_file(f'{root}/{CONFIG}')
    self._there = {**_files(self._folder)}
    if trains:
      self._there |= {name: None for name in sizes if name not in whole}

  def is_whole(self) -> bool:
    """Whether all that is here is there."""
    return all(self._there.get(k) == x for k, x in _files(self._folder).items())

  def begin(self) -> None:
    first, now = not self._since, time.monotonic()
    if self._thread is not None and self._thread.is_alive():
      _LOG.warning(
        'The copy to %s that began %.0f s ago still goes on; the next '
        'checkpoint is copied after it.',
        self._address,
        now - self._since,
      )
      return
    self._since = now
    if first:
      self._put(self._folder)
      return
    # What is copied does not change meanwhile.
    taken = None
    try:
      taken = pathlib.Path(tempfile.mkdtemp(prefix='vidpred_jax-'))
      for name in _files(self._folder):
        _take(self._folder / name, taken / name, is_fixed=bool(sign(name)))
    except OSError as error:  # a full disk
      if taken:
        shutil.rmtree(taken, ignore_errors=True)
      self._warn(error)
      return
    self._thread = threading.Thread(
      target=self._try, args=(taken,), daemon=True
    )
    self._thread.start()

  def end(self, raises: bool) -> None:
    """Copies the rest, after what is being copied."""
    if self._thread is not None:
      self._thread.join(_QUIET)
      if self._thread.is_alive():
        _LOG.warning('The copy to %s still goes on; waiting.', self._address)
        self._thread.join()
    try:
      self._put(self._folder)
    except (ValueError, OSError) as error:
      said = f'{self._address} could not be completed: {error}'
      if raises:
        raise OSError(said) from None
      _LOG.warning('%s', said)

  def _try(self, taken: pathlib.Path) -> None:
    try:
      self._put(taken)
    except (ValueError, OSError) as error:
      self._warn(error)
    finally:
      shutil.rmtree(taken, ignore_errors=True)

  def _warn(self, error: Exception) -> None:
    said = str(error)
    if self._address not in said:
      said = f'{self._address} was not written to: {said.rstrip(".")}.'
    _LOG.warning('%s The next checkpoint tries again.', said)

  def _put(self, source: pathlib.Path) -> None:
    here = _files(source)
    with storage.reaching(self._address) as (files, root):
      self._check_ours(files, root)
      for name in sorted(here, key=_order):
        if self._there.get(name) == here[name]:
          continue
        last = sign(name)
        if last and last != name:
          if self._there.get(last) not in (None, here.get(last)):
            # It speaks of files that are about to be replaced.
            self._remove(files, root, last)
        files.put_file(str(source / name), f'{root}/{name}')
        self._there[name] = here[name]
        if name == CONFIG:
          self._config = (source / name).read_bytes()
      for name in sorted({*self._there} - {*here}, key=_order, reverse=True):
        self._remove(files, root, name)

  def _remove(self, files, root: str, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # by a rule of the storage
      files.rm_file(f'{root}/{name}')
    del self._there[name]

  def _check_ours(self, files, root: str) -> None:
    try:
      found = files.cat_file(f'{root}/{CONFIG}')
    except FileNotFoundError:
      found = None
    if found != self._config:
      raise ValueError(
        f'Another process has written to {self._address}, which is left as it '
        'is.'
      )


def _take(path: pathlib.Path, taken: pathlib.Path, is_fixed: bool) -> None:
  """Makes a file that stays as `path` is now.

  Args:
    path: of a file.
    taken: where it is made.
    is_fixed: whether `path` is only ever deleted, so that a second name is
      enough. Not every disk has those.
  """
  taken.parent.mkdir(parents=True, exist_ok=True)
  if is_fixed:
    with contextlib.suppress(OSError):
      os.link(path, taken)
      return
  shutil.copy2(path, taken)


def _files(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Size and time of the files of a run, by name."""
  files = {}
  for path in folder.rglob('*'):
    if path.is_file() and not atomic.is_own(path):
      status = path.stat()
      name = path.relative_to(folder).as_posix()
      files[name] = status.st_size, status.st_mtime_ns
  return files


def _order(name: str):
  """The configuration first, what makes a folder count last."""
  last = sign(name)
  return name != CONFIG, last is not None, name == last, name
