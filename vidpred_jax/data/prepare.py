"""Writes a source's frames once, resized, as the source `prepared` reads them.

Training then neither decodes nor resizes. A source with the attribute `runs`
(films, arrays, the published data sets) is written frame by frame, each frame
once, and clips of any length can be cut from it later. Other sources are
written clip by clip.

A split is cut into shards of equally many frames, which processes write in
parallel. A shard appears when it is complete. After a kill the same command
writes the missing shards.
"""

import concurrent.futures
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm
from array_record.python import array_record_module

from vidpred_jax import atomic, stored
from vidpred_jax.data import pipeline, prepared, validation

_PLAN = 'plan.json'
_CHUNK = 2**25  # bytes of frames that are read at once
_MOST_CLIPS = 10**7


class _Run(NamedTuple):
  """Some frames of a run: which run, the first, and the one after the last."""

  run: int
  start: int
  stop: int


def prepare(
  source: str,
  output: str | os.PathLike,
  *,
  splits: Sequence[str] = ('train', 'test'),
  num_frames: int = 1,
  workers: int | None = None,
  compress: bool = False,
  shard_mb: int = 256,
  progress: bool = False,
  **settings,
) -> dict[str, int]:
  """Writes the splits of a source into a folder, or goes on with it.

  Args:
    source: one of `data.SOURCES`.
    output: the folder; new, or begun by the same command.
    splits: the splits to write.
    num_frames: for sources without runs, the frames of a clip; the longest
      clip that can be cut later.
    workers: number of processes; None: one per processor; 0: this process.
    compress: whether frames are compressed without loss (Zstandard).
    shard_mb: size of a shard before compression.
    progress: whether to show a bar.
    **settings: settings of the source.

  Returns:
    The number of frames of each split.

  Raises:
    ValueError: if a setting is wrong, frames differ in size, or the folder
      holds something else or is in use.
    FileNotFoundError: if the source's data are missing.
  """
  atomic.check_local(output)
  output = pathlib.Path(os.path.expanduser(output))
  atomic.check_new(output / _PLAN, overwrite=True, parents=True)
  if shard_mb < 1 or num_frames < 1:
    raise ValueError(
      f'shard_mb and num_frames must be at least 1, got {shard_mb} and '
      f'{num_frames}.'
    )
  if not splits or len(set(splits)) < len(splits):
    raise ValueError(
      f'Got the splits {", ".join(splits) or "()"}, expected some of '
      f'{", ".join(validation.SPLITS)}, each once.'
    )
  plan = {
    'format': prepared.FORMAT,
    'source': source,
    'settings': settings,
    'num_frames': num_frames,
    'compress': compress,
    'shard_mb': shard_mb,
  }
  plan = json.loads(json.dumps(plan, default=str))
  opened = {
    split: _Frames(
      pipeline.make_source(
        source, split=split, num_frames=num_frames, **settings
      )
    )
    for split in splits
  }
  for frames in opened.values():
    frames.check_sizes()
  if not compress:
    _check_room(output, sum(frames.bytes for frames in opened.values()))
  output.mkdir(parents=True, exist_ok=True)
  with atomic.holding(output):
    digests = {split: frames.digest() for split, frames in opened.items()}
    _check_or_create(output, plan, digests)
    for split, frames in opened.items():
      _write_split(output, split, frames, plan, workers, progress)
  return {split: frames.total for split, frames in opened.items()}


class _Frames:
  """All frames of a source, run after run."""

  def __init__(self, source):
    self.source = source
    self.has_runs = hasattr(source, 'runs')
    if self.has_runs:
      names, lengths = zip(*source.runs)
      first = source.frames(0, 0, 1)
    elif len(source) > _MOST_CLIPS:
      raise ValueError(
        f'{source!r} has {len(source)} clips, which are made up; at most '
        f'{_MOST_CLIPS} are written. Choose other splits or settings.'
      )
    else:
      first = source[0]['video']
      lengths = [len(first)] * len(source)
      names = [str(i) for i in range(len(source))]
    self.names, self.lengths = list(names), [int(n) for n in lengths]
    self.shape, self.dtype = first.shape[1:], first.dtype
    self.hops = getattr(source, 'hops', None)
    self.total = sum(self.lengths)
    self.ends = np.cumsum(self.lengths)

  def check_sizes(self) -> None:
    """Raises ValueError unless the runs' first frames are of one size."""
    for run in range(len(self.names) if self.has_runs else 0):
      self.read(_Run(run, 0, 1))

  @property
  def bytes(self) -> int:
    """The size of all frames."""
    return self.total * math.prod(self.shape) * self.dtype.itemsize

  def digest(self) -> str:
    """A hash of the runs' names and lengths and of the frames' type."""
    facts = self.names, self.lengths, list(self.shape), str(self.dtype)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

  def parts(self, first: int, last: int, most: int) -> Iterator[_Run]:
    """Yields frames `first` to `last` - 1, at most `most` of a run at once."""
    while first < last:
      run = int(np.searchsorted(self.ends, first, side='right'))
      begin = int(self.ends[run]) - self.lengths[run]
      stop = min(last, int(self.ends[run]), first + most)
      yield _Run(run, first - begin, stop - begin)
      first = stop

  def read(self, part: _Run) -> np.ndarray:
    if self.has_runs:
      frames = self.source.frames(*part)
    else:
      frames = self.source[part.run]['video'][part.start : part.stop]
    got = frames.shape[1:], frames.dtype, len(frames)
    if got != (self.shape, self.dtype, part.stop - part.start):
      raise ValueError(
        f'{self.names[part.run]} has frames {list(got[0])} of {got[1]}, '
        f'others have {list(self.shape)} of {self.dtype}; give the source a '
        'size.'
      )
    return np.ascontiguousarray(frames)


def _check_room(output: pathlib.Path, size: int) -> None:
  """Raises OSError if a disk has no room for so many bytes in a folder."""
  there = sum(x.stat().st_size for x in output.glob('*.array_record'))
  place = output
  while not place.exists():
    place = place.parent
  free = shutil.disk_usage(place).free
  if size - there > free:
    raise OSError(
      f'{output} needs {size / 1e9:.3g} GB, {there / 1e9:.3g} of them are '
      f'there and {free / 1e9:.3g} GB are free. Smaller frames need less, and '
      'so may compressed ones.'
    )


def _check_or_create(
  output: pathlib.Path, plan: Mapping[str, Any], digests: Mapping[str, str]
) -> None:
  """Writes the plan, or checks that the folder is of this command and data."""
  path, known = output / _PLAN, {}
  if path.exists():
    begun = stored.read_record(path)
    known = begun.pop('digests', {})
    differing = [k for k in plan if plan[k] != begun.get(k)]
    if differing:
      raise ValueError(
        f'{output} was begun with another '
        + '; '.join(f'{k}: {begun.get(k)}, now {plan[k]}' for k in differing)
        + '. Choose another output.'
      )
    changed = [k for k in digests if known.get(k, digests[k]) != digests[k]]
    if changed:
      raise ValueError(
        f'The data for {", ".join(changed)} have changed since {output} was '
        'begun. Choose another output.'
      )
  elif not all(map(atomic.is_own, output.iterdir())):
    raise ValueError(f'{output} is not empty; choose another output.')
  record = {**plan, 'digests': {**known, **digests}}
  atomic.write_text(path, json.dumps(record, indent=2) + '\n')


def _write_split(output, split, frames, plan, workers, progress) -> None:
  listing = output / f'{split}.json'
  size = math.prod(frames.shape) * frames.dtype.itemsize
  each = max(1, plan['shard_mb'] * 2**20 // size)
  if not frames.has_runs:  # no clip is loaded for two shards
    length = frames.lengths[0]
    each = max(1, each // length) * length
  borders = [*range(0, frames.total, each), frames.total]
  names = [f'{split}-{k:05d}.array_record' for k in range(len(borders) - 1)]
  jobs = [
    (output / name, *border, plan['compress'])
    for name, border in zip(names, itertools.pairwise(borders))
  ]
  left = [job for job in jobs if not job[0].exists()]
  done = frames.total - sum(job[2] - job[1] for job in left)
  with tqdm.tqdm(
    total=frames.total,
    initial=done,
    desc=split,
    unit=' frames',
    disable=None if progress else True,
  ) as bar:
    for count in _all(frames, left, workers):
      bar.update(count)
  record = {
    'format': prepared.FORMAT,
    'source': plan['source'],
    'settings': plan['settings'],
    'kind': frames.source.kind,
    'shape': list(frames.shape),
    'dtype': str(frames.dtype),
    'shards': names,
    'names': frames.names,
    'lengths': frames.lengths,
    'hops': frames.hops,
  }
  if frames.source.kind == 'field':
    for name in prepared.DESCRIPTION:
      value = getattr(frames.source, name, None)
      record[name] = getattr(value, 'tolist', lambda x=value: x)()
  atomic.write_text(listing, json.dumps(record) + '\n')


def _all(frames: _Frames, jobs, workers: int | None) -> Iterator[int]:
  """Writes shards; yields the number of frames of each."""
  workers = os.cpu_count() or 1 if workers is None else workers
  if not workers or len(jobs) < 2:
    for job in jobs:
      yield _write_shard(frames, *job)
    return
  with concurrent.futures.ProcessPoolExecutor(
    min(workers, len(jobs)),
    # Forks would take over the locks of this process's threads.
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_remember,
    initargs=(frames,),
  ) as pool:
    with pipeline.undisturbed():
      futures = [pool.submit(_write_remembered, *job) for job in jobs]
    try:
      for future in concurrent.futures.as_completed(futures):
        yield future.result()
    except concurrent.futures.BrokenExecutor:
      raise OSError(
        'A process that writes shards was killed, by a lack of memory perhaps; '
        'the same command, with fewer --workers, goes on from here.'
      ) from None
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise


_REMEMBERED = []  # in a worker process: the frames of all its shards


def _remember(frames: _Frames) -> None:
  _REMEMBERED[:] = [frames]
  pipeline.end_with_parent()


def _write_remembered(*job) -> int:
  return _write_shard(_REMEMBERED[0], *job)


def _write_shard(frames, path, first, last, compress) -> int:
  size = math.prod(frames.shape) * frames.dtype.itemsize
  options = 'zstd:1' if compress else 'uncompressed'
  with atomic.replacing(path) as partial:
    writer = array_record_module.ArrayRecordWriter(
      str(partial), f'group_size:1,{options}'
    )
    try:
      for part in frames.parts(first, last, max(1, _CHUNK // size)):
        for frame in frames.read(part):
          writer.write(frame.tobytes())
      writer.close()
    except RuntimeError as error:  # ArrayRecord's, such as of a full disk
      reason = str(error).partition(';')[0]
      raise OSError(f'{path} could not be written: {reason}.') from None
  return last - first
