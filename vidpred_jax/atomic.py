"""Atomic writes: files and folders appear complete, or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A place beside `path` that takes its place when the block ends.

  The block makes a file or a folder there. What was at `path` is replaced; if
  the block raises it stays as it was, and nothing is left of the new one.

  Args:
    path: what is to appear, in a folder that exists.

  Yields:
    The place to write to. It has the suffix of `path`.

  Raises:
    OSError: if it cannot be put in place.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
  _remove(partial)
  try:
    yield partial
    if path.is_dir():
      old = path.with_name(f'.{path.name}.{os.getpid()}.old')
      path.rename(old)
      try:
        partial.rename(path)
      except OSError:
        old.rename(path)
        raise
      _remove(old)
    else:
      partial.replace(path)
  finally:
    _remove(partial)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file, or leaves what is there as it was."""
  with replacing(path) as partial:
    partial.write_text(text, encoding='utf-8')


def _remove(path: pathlib.Path) -> None:
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)
