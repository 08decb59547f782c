"""Sources by name, and two iterators of batches.

`train_iterator` yields random batches without end, `eval_batches` every clip of
a source once.
"""

import contextlib
import functools
import inspect
import math
import multiprocessing.connection
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker

import grain
import numpy as np
from absl import flags

from vidpred_jax import names
from vidpred_jax.data import (
  arrays,
  digits,
  episodes,
  fields,
  mixture,
  own,
  photos,
  prepared,
  tfds,
  traffic,
  transforms,
  typed,
  videos,
  vortices,
)
from vidpred_jax.data.published import folders


def mix(
  split: str,
  num_frames: int,
  *,
  parts: Mapping[str, Mapping],
  num_clips: int | None = None,
  seed: int = 0,
  flow_pairs: Sequence[tuple[int, int]] = (),
) -> mixture.Mixture:
  """The source 'mix': clips from several sources.

  Args:
    split: of all of them.
    num_frames: frames per clip, T.
    parts: `{name: {'weight': w, 'source': one of SOURCES, **settings}}`; parts
      are drawn in proportion to their weights.
    num_clips: length of the mixture; None is that of all parts together.
    seed: of the draws.
    flow_pairs: for the parts that know their flow, see `photos`.

  Raises:
    ValueError: if a part has no weight or source, or a setting is wrong.
  """
  sources, weights = {}, {}
  for name, part in parts.items():
    settings = dict(part)
    missing = {'weight', 'source'} - set(settings)
    if missing:
      raise ValueError(
        f'The part {name!r} of a mixture has no {", ".join(sorted(missing))}; '
        f'it has {", ".join(settings)}.'
      )
    weights[name] = settings.pop('weight')
    source = settings.pop('source')
    if flow_pairs and 'flow_pairs' in settings_of(source):
      settings['flow_pairs'] = flow_pairs
    sources[name] = make_source(
      source, split=split, num_frames=num_frames, **settings
    )
  return mixture.Mixture(sources, weights, num_clips=num_clips, seed=seed)


SOURCES: dict[str, Callable] = {
  'photos': photos.PhotosInMotion,
  'mix': mix,
  'moving_digits': digits.MovingDigits,
  'videos': videos.VideoClips,
  'arrays': arrays.Arrays,
  'tfds': tfds.TfdsClips,
  'prepared': prepared.Prepared,
  'frames': folders.FrameClips,
  'episodes': episodes.Episodes,
  'weather': fields.Fields,
  'taxibj': traffic.TaxiBJ,
  'vortices': vortices.Vortices,
}


class Batches:
  """An iterator of dicts of numpy arrays, loaded ahead.

  `close` ends the threads or processes that load; so does leaving a `with`
  block or ending the program.

  Attributes:
    source: the source of the clips.
  """

  def __init__(self, dataset: grain.IterDataset, source):
    self.source = source
    self._inner = [iter(dataset)]  # empty once closed
    # The end of the program comes too late for grain's own clearing up.
    self._close = weakref.finalize(self, _close, self._inner)

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> dict:
    if not self._inner:
      raise StopIteration
    try:
      arrays = next(self._inner[0])
    except RuntimeError as error:
      if 'Worker process was terminated' not in str(error):
        raise
      raise OSError(
        'A process that loads data has ended, killed by somebody or for want '
        f'of memory ({str(error).split(".")[0]}). Fewer of them (workers) need '
        'less.'
      ) from None
    # Worker processes give arrays in shared memory; these are the reader's.
    return {k: np.array(v) for k, v in arrays.items()}

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *error) -> None:
    self.close()

  def start(self) -> None:
    """Begins to load before the first batch is asked for."""
    # 2026-11: before its state is asked for, grain has no process to start.
    self._inner[0].get_state()
    self._inner[0].start_prefetch()

  def close(self) -> None:
    """Ends the loading."""
    self._close()


def end_with_parent(*_) -> None:
  """Makes this worker process end when the one that started it does.

  However that ends, its end of a pipe is closed. Waiting for it is all that a
  thread here does.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # see `undisturbed`
  parent = multiprocessing.parent_process()

  def wait():
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  if parent is not None:
    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
  """A context for beginning processes that end in silence.

  Ctrl-C goes to all processes of a terminal. It is for the one that began the
  others, which ends them; these inherit that the signal is blocked. What they
  loaded and nobody took is freed by a process that warns of it.
  """
  warned = os.environ.get('PYTHONWARNINGS')
  ours = 'ignore::UserWarning:multiprocessing.resource_tracker'
  os.environ['PYTHONWARNINGS'] = f'{warned},{ours}' if warned else ours
  resource_tracker.ensure_running()  # now, for it unblocks the signal
  blocks = hasattr(signal, 'pthread_sigmask')
  if blocks:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    if blocks:
      signal.pthread_sigmask(signal.SIG_SETMASK, old)
    del os.environ['PYTHONWARNINGS']
    if warned is not None:
      os.environ['PYTHONWARNINGS'] = warned


def _close(inner: list) -> None:
  while inner:
    inner.pop().close()


def make_source(name: str, /, *, split: str, num_frames: int, **settings):
  """Makes a source by name.

  Args:
    name: one of `SOURCES`.
    split: 'train', 'val' or 'test'; see `validation`.
    num_frames: frames per clip, T.
    **settings: the keyword arguments of the source.

  Returns:
    The source: `len(source)`, `source[i]`.

  Raises:
    ValueError: for an unknown source, setting or split.
    FileNotFoundError: if its data are missing.
  """
  owner = f'The data source {name!r}'
  names.check_settings(owner, settings, settings_of(name))
  typed.check(owner, SOURCES[name], {'num_frames': num_frames} | settings)
  return SOURCES[name](split, num_frames, **settings)


def own_source(source, *, num_frames: int):
  """Makes a source of an object that has clips of one's own.

  Args:
    source: see `data/own.py`.
    num_frames: frames per clip, T.

  Returns:
    The source: `len(source)`, `source[i]`, `source.kind`.

  Raises:
    ValueError: if it is no such object.
  """
  return own.OwnClips(source, num_frames)


def train_iterator(
  name,
  /,
  *,
  num_frames: int,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  split: str = 'train',
  crop: tuple[int, int] | int | None = None,
  rotate: bool = False,
  flip: bool | str = False,
  reverse_time: bool = False,
  reverse_channels: bool = False,
  flow_pairs: Sequence[tuple[int, int]] = (),
  **settings,
) -> 'Batches':
  """Random batches without end; batch `step` is a function of (seed, step).

  Batch `step` of the whole job is the concatenation of the processes' batches
  in their order: the same clips in the same places for any number of processes
  and workers.

  Args:
    name: one of `SOURCES`; or an object with `len(x)` and `x[i]`, whose clips
      are one's own: see `data/own.py`.
    num_frames: frames per clip, T.
    batch_size: clips per batch in all processes together.
    seed: of order and augmentation.
    start_step: the first batch to give.
    process_index: this process.
    process_count: number of processes that share a batch.
    workers: worker processes that load; 0 loads in threads of this process.
    split: which clips; an object of one's own has but one.
    crop: (H, W) of a random part, or one number for both; None for all.
    rotate: whether to turn by random multiples of 90 degrees.
    flip: whether to mirror at random; 'horizontal' or 'vertical' for one only.
    reverse_time: whether to play half of the clips backwards, but for those
      with a flow.
    reverse_channels: whether to exchange red and blue in half of the clips; not
      for fields.
    flow_pairs: P pairs (of, into) of frames whose exact flow is wanted.
    **settings: of the source; an object of one's own has none.

  Returns:
    An iterator of dicts with `video` [B, T, H, W, C] of the source's type,
    where B is `batch_size / process_count`, and the source's other arrays. With
    `flow_pairs` there is `flow` float32 [B, P, H, W, 2] (see `photos`), NaN
    where it is not known and in clips of sources that know none. Call its
    `close()` when done.

  Raises:
    ValueError: if a setting is wrong or `batch_size` does not divide.
  """
  local = _local_batch_size(batch_size, process_index, process_count)
  if isinstance(name, str):
    if flow_pairs and 'flow_pairs' in settings_of(name):
      settings['flow_pairs'] = flow_pairs
    source = make_source(name, split=split, num_frames=num_frames, **settings)
  else:
    names.check_settings("A source of one's own", settings, ())
    source = own_source(name, num_frames=num_frames)
  augment = _augmentation(
    crop=crop,
    rotate=rotate,
    flip=flip,
    reverse_time=reverse_time,
    reverse_channels=reverse_channels,
  )
  if reverse_channels and source.kind != 'image':
    raise ValueError(
      f'reverse_channels exchanges red and blue; the channels of {source!r} '
      'are physical variables.'
    )
  dataset = grain.MapDataset.source(source).seed(seed).shuffle()
  # 2026-11: endless repetition overflows in grain 0.2.18 if `local` is 1.
  dataset = dataset.repeat(2**50 // len(source) + 1).map(_arrays_only)
  if augment:
    dataset = dataset.random_map(augment)
  if flow_pairs:
    dataset = dataset.map(
      functools.partial(_with_flow, num_pairs=len(flow_pairs))
    )
  dataset = dataset.batch(local, batch_fn=_stack)
  dataset = dataset[process_index::process_count][start_step:]
  if not workers:
    return Batches(
      dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
      ),
      source,
    )
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags
  with undisturbed():
    batches = Batches(
      dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
      ).mp_prefetch(
        grain.MultiprocessingOptions(
          num_workers=workers, per_worker_buffer_size=2
        ),
        worker_init_fn=end_with_parent,
      ),
      source,
    )
    batches.start()
  return batches


def eval_batches(
  source,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  limit: int | None = None,
) -> 'Batches':
  """Every clip of a source exactly once, in order.

  Args:
    source: from `make_source`, usually of the split 'test'.
    batch_size: clips per batch in all processes together.
    process_index: this process.
    process_count: number of processes that share a batch. All give the same
      number of batches; concatenated in their order they are in order.
    limit: at most so many clips, evenly spread over the source; None for all.

  Returns:
    An iterator of dicts with `video` [B, T, H, W, C], `valid` bool [B], and the
    source's other arrays. The last batch is filled up with copies of the last
    clip, whose `valid` is False.

  Raises:
    ValueError: if a setting is wrong or `batch_size` does not divide.
  """
  local = _local_batch_size(batch_size, process_index, process_count)
  total = len(source)
  count = total if limit is None else min(limit, total)
  if count < 1:
    raise ValueError(f'There is nothing to evaluate in {source!r}.')

  def load(i):
    item = _arrays_only(source[min(i, count - 1) * total // count])
    return item | {'valid': np.bool_(i < count)}

  padded = math.ceil(count / batch_size) * batch_size
  dataset = grain.MapDataset.range(padded).map(load)
  dataset = dataset.batch(local, batch_fn=_stack)[process_index::process_count]
  return Batches(
    dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    ),
    source,
  )


def settings_of(name: str) -> list[str]:
  """Returns the keyword arguments of a source.

  Args:
    name: one of `SOURCES`.

  Raises:
    ValueError: if there is no such source.
  """
  source = names.choose('data source', name, SOURCES)
  parameters = inspect.signature(source).parameters
  return [k for k in parameters if k not in ('split', 'num_frames')]


def _augmentation(*, crop, rotate, flip, reverse_time, reverse_channels):
  """Makes `transforms.augment` with these settings; None if it does nothing."""
  if flip not in (True, False, 'horizontal', 'vertical'):
    raise ValueError(
      f"flip must be True, False, 'horizontal' or 'vertical', got {flip!r}."
    )
  chosen = {
    transforms.rotate: rotate,
    transforms.flip_vertical: flip in (True, 'vertical'),
    transforms.flip_horizontal: flip in (True, 'horizontal'),
    transforms.reverse_time: reverse_time,
    transforms.reverse_channels: reverse_channels,
  }
  steps = tuple(step for step, wanted in chosen.items() if wanted)
  if crop is None and not steps:
    return None
  size = (crop, crop) if isinstance(crop, int) else crop
  return functools.partial(transforms.augment, size=size, steps=steps)


def _local_batch_size(batch_size, process_index, process_count) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f'batch_size must be a positive multiple of the number of processes, '
      f'got {batch_size} and {process_count}.'
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index must lie in [0, {process_count}), got {process_index}.'
    )
  return batch_size // process_count


def _stack(items) -> dict:
  """Items as one batch."""
  shapes = sorted({item['video'].shape for item in items})
  if len(shapes) > 1:
    raise ValueError(
      f'Clips of a batch differ in size: {", ".join(map(str, shapes))} '
      '(T, H, W, C); give the source a size, or crop.'
    )
  return {k: np.stack([item[k] for item in items]) for k in items[0]}


def _with_flow(item: dict, num_pairs: int) -> dict:
  """Adds a flow to an item that has none: NaN everywhere."""
  unknown = np.float32(np.nan)
  size = item['video'].shape[1:3]
  return {'flow': np.full((num_pairs, *size, 2), unknown)} | item


def _arrays_only(item: dict) -> dict:
  return {k: v for k, v in item.items() if k != 'name'}
