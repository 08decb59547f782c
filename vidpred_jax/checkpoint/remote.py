"""Weights on object storage, such as `gs://bucket/model`: read, and put there.

An export is two files, and one of them has a sum over both. So it needs neither
locks nor renaming: a reader refuses files that do not belong together. Of a run
see `mirror`.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vidpred_jax import atomic, storage, stored, zoo

CONFIG = 'config.json'
DATA = 'data.json'
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
      export or a run. Of an unfinished run the newest checkpoint is copied.
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
    with storage.reaching(path) as (files, root):
      _fetch(files, root, names, pathlib.Path(folder))
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
  with storage.reaching(path) as (files, root):
    if storage.exists(files, f'{root}/{RECORD}'):
      raise FileExistsError(f'{path} exists already; nothing was written.')
    for name in (WEIGHTS, RECORD):
      files.pipe_file(f'{root}/{name}', content[name])


def sign(name: str) -> str | None:
  """The file without which the folder that `name` is in is not whole.

  It is put last and deleted first.

  Args:
    name: of a file in the folder of a run.

  Returns:
    Its name, or None for a file that stands for itself.
  """
  first, _, rest = name.partition('/')
  if first == 'export' and rest:
    return f'export/{RECORD}'
  if first == 'checkpoints' and '/' in rest:
    return f'checkpoints/{rest.partition("/")[0]}/_CHECKPOINT_METADATA'
  return None


def of_weights(names: Iterable[str]) -> list[str]:
  """The files that a run's weights are read from, if they are whole."""
  names = set(names)
  names = {x for x in names if (sign(x) or x) in names}
  steps = [x.split('/')[1] for x in names if x.startswith('checkpoints/')]
  newest = max(filter(str.isdigit, steps), key=int, default=None)
  folder = 'export/'
  if f'export/{RECORD}' not in names and newest is not None:
    folder = f'checkpoints/{newest}/'
  return [x for x in names if x in (CONFIG, DATA) or x.startswith(folder)]


def _fetch(files, root, names, folder: pathlib.Path) -> None:
  for place in (root, f'{root}/export'):
    if storage.exists(files, f'{place}/{RECORD}'):
      break
  else:
    sizes = storage.sizes(files, root)
    wanted = of_weights(sizes)
    if CONFIG not in wanted or not any(map(sign, wanted)):
      raise FileNotFoundError(
        f'{root} on that storage holds neither an exported system ({RECORD} '
        f'and {WEIGHTS}) nor a run with a checkpoint.'
      )
    if WEIGHTS not in names:
      wanted = [x for x in wanted if not sign(x)]
    storage.get(files, root, {x: sizes[x] for x in wanted}, folder)
    return
  for name in names:
    size = files.size(f'{place}/{name}')
    if size > _MOST[name]:
      raise ValueError(
        f'{place}/{name} has {size} bytes, expected at most {_MOST[name]}.'
      )
    storage.get(files, place, {name: size}, folder)
