"""Clips from frames that were decoded and resized once, into ArrayRecord files.

`python -m vidpred_jax.data --prepare` writes such a folder (module `prepare`):
for each split a list, `train.json`, and shards, `train-00000.array_record`. A
record is a frame, its bytes in C order. All shards but the last have equally
many frames. The list names runs of successive frames, such as films and scenes.

Frames are read one by one, so clips of any length and step begin anywhere.
"""

import functools
import json
import os
import pathlib

import numpy as np
from array_record.python import array_record_data_source as array_record

from vidpred_jax import atomic, storage, stored
from vidpred_jax.data import validation, windows
from vidpred_jax.data.files import reading

FORMAT = 1
# Of fields, as sources have them.
DESCRIPTION = ('variables', 'units', 'mean', 'std', 'latitudes')


def _all(accepts):
  return lambda x: isinstance(x, list) and all(map(accepts, x))


def _is_count(x) -> bool:
  return type(x) is int and 0 < x < 2**40


_FIELDS = {
  'kind': stored.Field(lambda x: x in ('image', 'field'), 'image or field'),
  'settings': stored.Field(lambda x: isinstance(x, dict), '{...}'),
  'shape': stored.Field(
    lambda x: _all(_is_count)(x) and len(x) == 3, '[H, W, C]'
  ),
  'dtype': stored.Field(
    lambda x: x in ('uint8', 'float32'), 'uint8 or float32'
  ),
  'shards': stored.Field(
    _all(lambda x: isinstance(x, str) and x == os.path.basename(x)),
    'names of files in the same folder',
  ),
  'names': stored.Field(_all(lambda x: isinstance(x, str)), 'names'),
  'lengths': stored.Field(
    lambda x: _all(_is_count)(x) and bool(x), 'numbers of frames'
  ),
  'hops': stored.Field(
    lambda x: x is None or _all(lambda n: n is None or _is_count(n))(x),
    'null or distances of windows',
  ),
}
_NUMBERS = _all(lambda x: type(x) in (int, float))
_OF_FIELDS = {
  'variables': stored.Field(
    lambda x: _all(lambda n: isinstance(n, str))(x) and bool(x), 'names'
  ),
  'units': stored.Field(lambda x: isinstance(x, str), 'a text'),
  'mean': stored.Field(_NUMBERS, 'numbers'),
  'std': stored.Field(_NUMBERS, 'numbers'),
  'latitudes': stored.Field(
    lambda x: x is None or _NUMBERS(x), 'null or numbers'
  ),
}


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
    val_fraction: float = 0.0,
    step: int | tuple[int, ...] = 1,
    hop: int | None = None,
  ):
    """Opens a split.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      root: the folder, or an address of object storage.
      val_fraction: share of the runs for training, the last ones, that 'val'
        has instead of 'train', where no split 'val' was prepared. What
        normalises fields is of both.
      step: distance of a clip's frames; of several, there are clips of each.
      hop: distance of successive clips; None is 1 for train, else the length of
        a clip, so that clips do not overlap.

    Raises:
      ValueError: if a setting is wrong, no run is long enough, or the folder is
        damaged.
      FileNotFoundError: if nothing is prepared there.
    """
    self._split, self._num_frames, self._root = split, num_frames, root
    validation.check(split)
    own = (split == 'val' or val_fraction) and _is_listed(root, 'val')
    if own and val_fraction:
      raise ValueError(
        f'{root} has a prepared split for validation; got '
        f'val_fraction={val_fraction}.'
      )
    held_out = split == 'val' and not own
    self._path = manifest(root, 'train' if held_out else split)
    record = read_manifest(self._path)
    self.kind = record['kind']
    for name in DESCRIPTION if self.kind == 'field' else ():
      value = record[name]
      if name in ('mean', 'std', 'latitudes') and value is not None:
        value = np.array(value, np.float32)
      setattr(self, name, value)
    lengths = np.array(record['lengths'], np.int64)
    begins = np.cumsum(lengths) - lengths
    runs = slice(None)
    if held_out or split == 'train':
      part = validation.part(split, len(lengths), val_fraction, 'runs')
      runs = slice(part.start, part.stop)
    lengths, self._begins = lengths[runs], begins[runs]
    self._names = record['names'][runs]
    self._windows = windows.Windows(
      lengths, num_frames, step=step, hop=hop, overlap=split == 'train'
    )
    least = (num_frames - 1) * np.min(step) + 1
    if not len(self._windows):
      raise ValueError(
        f'No run of {split} in {root} has the {least} frames that a clip '
        f'needs; the longest has {lengths.max()}.'
      )
    self._windows.warn_of_short(self._names.__getitem__, least)

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


def _is_listed(root: str | os.PathLike, split: str) -> bool:
  """Whether a split was prepared; nothing is copied."""
  if atomic.is_address(root):
    return storage.has(root, f'{split}.json')
  return listing(root, split).is_file()


def listing(root: str | os.PathLike, split: str) -> pathlib.Path:
  """Where the list of a split is, if there is one.

  What lies at an address is copied to this machine first, shards included.
  """
  name = f'{split}.json'
  if atomic.is_address(root):
    return storage.listed(
      root, name, lambda path: read_manifest(path)['shards']
    )
  return pathlib.Path(os.path.expanduser(root)) / name


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
  path = listing(root, split)
  if not path.is_file():
    raise FileNotFoundError(
      f'There is no {path.name} in {root}; python -m vidpred_jax.data '
      '--prepare writes it when a split is complete.'
    )
  return path


def read_manifest(path: str | os.PathLike) -> dict:
  """Reads the list of a split that `prepare.prepare` wrote.

  Raises:
    ValueError: if it is damaged or of another format.
  """
  with reading(path, 'list of prepared frames'):
    record = json.loads(pathlib.Path(path).read_text())
    version = record['format']
  if type(version) is not int or version != FORMAT:
    raise ValueError(f'{path} has the format {version}; expected {FORMAT}.')
  stored.check(path, record, _FIELDS)
  parts = {'names', 'hops'} if record['hops'] is not None else {'names'}
  lengths, channels = len(record['lengths']), record['shape'][-1]
  counts = {name: lengths for name in sorted(parts)}
  if record['kind'] == 'field':
    stored.check(path, record, _OF_FIELDS)
    counts |= {'variables': channels, 'mean': channels, 'std': channels}
  for name, expected in counts.items():
    if len(record[name]) != expected:
      raise ValueError(
        f'{path} is damaged: it has {len(record[name])} {name}, expected '
        f'{expected}.'
      )
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
    chunks = records.__getitems__(list(numbers))
    frames = np.frombuffer(b''.join(chunks), dtype)
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
  with reading(path, 'list of whole shards'):
    records = array_record.ArrayRecordDataSource(shards)
  if len(records) != sum(record['lengths']):
    raise ValueError(
      f'{path} names {sum(record["lengths"])} frames; its shards have '
      f'{len(records)}.'
    )
  return tuple(record['shape']), np.dtype(record['dtype']), records
