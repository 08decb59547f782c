"""Clips from frames that were decoded and resized once, into ArrayRecord files.

`python -m vidpred_jax.data --prepare` writes such a folder (module `prepare`):
for each split a list, `train.json`, and shards, `train-00000.array_record`. A
record is a frame, its bytes in C order; shards but the last have equally many.
The list says which frames follow one another: runs, such as films and scenes.

Any frame is read by itself, so that clips of any length and step may begin
anywhere.
"""

import functools
import json
import os
import pathlib

import numpy as np
from array_record.python import array_record_data_source as array_record

from vidpred_jax.data import windows
from vidpred_jax.data.files import reading

FORMAT = 1
# Of fields, as sources have them.
DESCRIPTION = ('variables', 'units', 'mean', 'std', 'latitudes')


class Prepared:
  """A grain random access source of windows of prepared frames.

  Items are dicts with `video` [T, H, W, C], uint8 or float32, and `name`
  (`run@first frame`). Of fields there are `mean`, `std`, `variables`, `units`
  and `latitudes` of what was prepared.

  Attributes:
    kind: 'image' or 'field'.
  """

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike = '',
    step: int | tuple[int, ...] = 1,
    hop: int | None = None,
  ):
    """Opens a split.

    Args:
      split: one that was prepared.
      num_frames: frames per clip, T.
      root: the folder.
      step: distance of a clip's frames; of several, there are clips of each.
      hop: distance of successive clips; None is 1 for train, else the length of
        a clip, so that clips do not overlap.

    Raises:
      ValueError: if a setting is wrong, no run is long enough, or the folder is
        damaged.
      FileNotFoundError: if nothing is prepared there.
    """
    self._split, self._num_frames, self._root = split, num_frames, root
    self._path = manifest(root, split)
    record = read_manifest(self._path)
    self.kind = record['kind']
    for name in DESCRIPTION if self.kind == 'field' else ():
      value = record[name]
      if name in ('mean', 'std', 'latitudes') and value is not None:
        value = np.array(value, np.float32)
      setattr(self, name, value)
    lengths = np.array(record['lengths'], np.int64)
    self._names, self._begins = record['names'], np.cumsum(lengths) - lengths
    self._windows = windows.Windows(
      lengths, num_frames, step=step, hop=hop, overlap=split == 'train'
    )
    if not len(self._windows):
      raise ValueError(
        f'No run of {split} in {root} has the '
        f'{(num_frames - 1) * np.min(step) + 1} frames that a clip needs; the '
        f'longest has {lengths.max()}.'
      )

  def __len__(self) -> int:
    return len(self._windows)

  def __repr__(self) -> str:
    return f'Prepared({self._split!r}, {len(self)} clips of {self._root})'

  def __getitem__(self, i) -> dict:
    run, start, step = self._windows[i]
    begin = int(self._begins[run]) + start
    numbers = range(begin, begin + (self._num_frames - 1) * step + 1, step)
    return {
      'video': read(self._path, numbers),
      'name': f'{self._names[run]}@{start}',
    }


def manifest(root: str | os.PathLike, split: str) -> pathlib.Path:
  """The list of a split.

  Raises:
    FileNotFoundError: if it was not prepared.
  """
  if not str(root):
    raise FileNotFoundError(
      "The source 'prepared' needs root: a folder that python -m "
      'vidpred_jax.data --prepare has written.'
    )
  path = pathlib.Path(root).expanduser() / f'{split}.json'
  if not path.is_file():
    raise FileNotFoundError(
      f'There is no {path.name} in {root}; python -m vidpred_jax.data '
      '--prepare writes it when a split is complete.'
    )
  return path


def read_manifest(path: str | os.PathLike) -> dict:
  """What a list says, as `prepare.prepare` wrote it.

  Raises:
    ValueError: if it is damaged or of another format.
  """
  with reading(path, 'list of prepared frames'):
    record = json.loads(pathlib.Path(path).read_text())
    version = record['format']
  if version != FORMAT:
    raise ValueError(f'{path} has the format {version}; expected {FORMAT}.')
  return record


def read(path: str | os.PathLike, numbers: range) -> np.ndarray:
  """Frames by their numbers in a split, [T, H, W, C].

  Args:
    path: the list of the split.
    numbers: which frames.

  Raises:
    ValueError: if they are damaged.
  """
  path = pathlib.Path(path)
  shape, dtype, records = _opened(str(path), path.stat().st_mtime_ns)
  with reading(path, 'list of prepared frames'):
    found = records.__getitems__(list(numbers))
    frames = np.frombuffer(b''.join(found), dtype)
    return frames.reshape(len(numbers), *shape).copy()


@functools.lru_cache(maxsize=32)
def _opened(path: str, mtime: int):
  """Shape and type of a frame, and the records."""
  del mtime  # another file by the same name is opened anew
  record = read_manifest(path)
  shards = [
    str(pathlib.Path(path).with_name(name)) for name in record['shards']
  ]
  missing = [name for name in shards if not os.path.isfile(name)]
  if missing:
    raise ValueError(f'{path} names {missing[0]}, which is not there.')
  records = array_record.ArrayRecordDataSource(shards)
  if len(records) != sum(record['lengths']):
    raise ValueError(
      f'{path} names {sum(record["lengths"])} frames; its shards have '
      f'{len(records)}.'
    )
  return tuple(record['shape']), np.dtype(record['dtype']), records
