"""Clips of the published data sets, from folders of frames on disk.

This source cuts the sequences that `layouts` finds into clips. It downloads
nothing and changes no file: frames are resized when they are read.

A sequence is a run of frames; a clip is T frames of a sequence. Test clips
begin where the windows of the published protocol begin, training clips
anywhere.
"""

import functools
import logging
import os
import pathlib

import numpy as np

from vidpred_jax import atomic, names
from vidpred_jax.data import prepared, validation
from vidpred_jax.data.published import layouts
from vidpred_jax.data.published.prediction import PROTOCOLS, absent
from vidpred_jax.data.published.sequences import Sequence, length, read

_LOG = logging.getLogger(__name__)
# Clips with a random start: so many of each video before the order repeats.
_DRAWS = 100


class FrameClips:
  """A grain random access source of one of the published data sets.

  Items are dicts with `video` uint8 [T, H, W, C] and `name`; C is 3, and 1 for
  KTH.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    dataset: str = 'cityscapes',
    root: str | os.PathLike = '',
    size: tuple[int, int] | None | str = 'protocol',
    val_fraction: float = 0.0,
  ):
    """Finds the sequences.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      dataset: one of `layouts.FINDERS`.
      root: where it lies.
      size: (H, W) to resize to; 'protocol' for the published one; None for the
        size on disk.
      val_fraction: share of the sequences for training, the last ones, that
        'val' has instead; what belongs together (the cameras of a drive, the
        clips of a city) stays so. RoboNet and BridgeData have lists of their
        own for it.

    Raises:
      ValueError: on an unknown data set or split, or if clips are too short.
      FileNotFoundError: if it is not at `root`; says where to get it.
    """
    protocol = _protocol(dataset)
    self._dataset, self._split, self._num_frames = dataset, split, num_frames
    if isinstance(size, str):
      names.check('size', size, ('protocol',))
      size = protocol.size
    self._size = size
    self._protocol = protocol
    # Of a list of its own for validation, or of a part of that for training.
    own = 'val' in protocol.counts or 'train' not in protocol.counts
    listed = split != 'val' or own
    if val_fraction and 'val' in protocol.counts:
      raise ValueError(
        f'{dataset} has a list of its own for validation; got '
        f'val_fraction={val_fraction}.'
      )
    self._sequences = find(dataset, root, split if listed else 'train')
    # Before some are held out: what is not there is missing from the whole.
    _warn_of_missing(
      dataset, root, split if listed else 'train', self._sequences
    )
    if not listed or val_fraction and split == 'train':
      self._sequences = _held_out(self._sequences, split, val_fraction)
    self._windows = protocol.train if split == 'train' else protocol.test
    window = protocol.window if split != 'train' else num_frames
    if self._windows in ('back', 'middle'):
      window = num_frames
    if num_frames > window:
      raise ValueError(
        f'A {split} clip of {dataset} has {window} frames; '
        f'{num_frames} were asked for.'
      )
    if self._windows in ('random', 'start'):
      counts = [_DRAWS] * len(self._sequences)
    elif self._windows in ('first', 'middle'):
      counts = [1] * len(self._sequences)
    else:
      hop = None if self._windows == 'back' else 1
      counts = [_windows(s, window, hop) for s in self._sequences]
    self._ends = np.cumsum(counts)
    if not self._ends[-1]:
      raise ValueError(f'No sequence of {dataset} has {num_frames} frames.')

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __repr__(self) -> str:
    return f'FrameClips({self._dataset!r}, {self._split!r}, {len(self)} clips)'

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    if self._windows in ('random', 'start'):
      # Videos in turn, so that each epoch of the videos has all of them.
      sequence = self._sequences[i % len(self._sequences)]
      start, step = self._draw(sequence, np.random.default_rng(i))
    else:
      row = int(np.searchsorted(self._ends, i, side='right'))
      sequence, step = self._sequences[row], 1
      start = i - (int(self._ends[row - 1]) if row else 0)
      if self._windows == 'middle':
        number = _checked_length(sequence, self._num_frames)
        start = (number - self._num_frames + 1) // 2
      elif self._windows == 'back':
        hop = sequence.hop or self._num_frames
        rest = (length(sequence) - self._num_frames) % hop
        start = rest + start * hop
    clip = self._read(sequence, start, self._num_frames, step, seed=i)
    return {'video': clip, 'name': f'{sequence.name}@{start}'}

  @property
  def runs(self) -> list[tuple[str, int]]:
    """(name, number of frames) of each sequence."""
    return [(s.name, length(s)) for s in self._sequences]

  @property
  def hops(self) -> list[int | None]:
    """The distance of each sequence's windows, for windows from its end."""
    return [s.hop for s in self._sequences]

  def frames(
    self, run: int, start: int, stop: int, step: int = 1
  ) -> np.ndarray:
    """Frames of one of `runs`, as items have them, uint8 [T, H, W, C].

    Args:
      run: which; it draws the camera where there are several.
      start: the first frame.
      stop: the one after the last.
      step: their distance.
    """
    count = len(range(start, stop, step))
    return self._read(self._sequences[run], start, count, step, seed=run)

  def _read(self, sequence: Sequence, start, count, step, seed) -> np.ndarray:
    clip = read(
      sequence,
      start,
      count,
      step=step,
      size=self._size,
      fit=self._protocol.fit,
      seed=seed,
    )
    return clip[..., : self._protocol.channels]

  def _draw(self, sequence: Sequence, rng) -> tuple[int, int]:
    """Draws start and step; steps as in DMVFN: at most 5, or length / 10."""
    number = _checked_length(sequence, self._num_frames)
    step = 1
    if self._windows == 'random':
      most = min(5, max(1, number // max(10, self._num_frames)))
      step = int(rng.integers(1, most + 1))
    return int(rng.integers(0, number - (self._num_frames - 1) * step)), step


def _warn_of_missing(dataset, root, split, sequences) -> None:
  """Warns if there are more or fewer clips than were published."""
  expected, clips = (
    PROTOCOLS[dataset].counts[split].clips,
    count(dataset, sequences),
  )
  if clips != expected:
    _LOG.warning(
      '%s %s: %d clips at %s, %d expected. '
      'python -m vidpred_jax.data --check %s --root %s says more.',
      dataset, split, clips, root, expected, dataset, root,
    )  # fmt: skip


def _held_out(
  sequences: list[Sequence], split: str, fraction: float
) -> list[Sequence]:
  """The sequences of 'val' or the others; a folder is never divided."""
  groups = list(dict.fromkeys(s.name.split('/')[0] for s in sequences))
  of_split = validation.part(split, len(groups), fraction, 'groups of clips')
  chosen = {groups[i] for i in of_split}
  return [s for s in sequences if s.name.split('/')[0] in chosen]


def _checked_length(sequence: Sequence, needed: int) -> int:
  number = length(sequence)
  if number < needed:
    raise ValueError(
      f'{sequence.name} has {number} frames, {needed} are needed.'
    )
  return number


def _windows(sequence: Sequence, window: int, hop: int | None) -> int:
  """The number of windows of a sequence; `hop` None: the sequence's own."""
  hop = hop or sequence.hop or window
  return max((length(sequence) - window) // hop + 1, 0)


def count(dataset: str, sequences: list[Sequence]) -> int:
  """Counts clips like the published number: windows if windows overlap."""
  protocol = PROTOCOLS[dataset]
  if protocol.test not in ('all', 'back'):
    return len(sequences)
  hop = 1 if protocol.test == 'all' else None
  return sum(_windows(s, protocol.window, hop) for s in sequences)


def find(dataset: str, root, split: str) -> list[Sequence]:
  """Finds the sequences of a split on disk.

  Raises:
    ValueError: on an unknown data set or split.
    FileNotFoundError: if there are none; says where to get the data set.
  """
  protocol = _protocol(dataset)
  if split not in protocol.counts:
    raise ValueError(
      f'{dataset} has the splits {", ".join(protocol.counts)}, not {split!r}.'
    )
  listing = prepared.listing(root, split)
  if listing.is_file():
    return _listed(dataset, listing)
  atomic.check_local(root)
  root = pathlib.Path(os.path.expanduser(root))
  sequences = layouts.FINDERS[dataset](root, split)
  sequences = sequences or layouts.prepared(root, split)
  if not sequences:
    raise FileNotFoundError(absent(dataset, root, split))
  return sequences


def _listed(dataset: str, listing: pathlib.Path) -> list[Sequence]:
  """The sequences of a split that `prepare` has written."""
  record = prepared.read_manifest(listing)
  known = record['settings'].get('dataset')
  if known != dataset:
    raise ValueError(f'{listing} was prepared of {known}, not of {dataset}.')
  sequences, first = [], 0
  for name, number, hop in zip(
    record['names'], record['lengths'], record['hops']
  ):
    sequences.append(Sequence(name, str(listing), first, 1, number, hop))
    first += number
  return sequences


def missing(sequences: list[Sequence]) -> list[str]:
  """The paths of sequences that do not exist."""
  lost = []
  known = functools.lru_cache(maxsize=64)(layouts.names)
  for sequence in sequences:
    paths = sequence.frames
    for path in (paths,) if isinstance(paths, str) else paths:
      folder, name = os.path.split(path)
      if name not in known(folder):
        lost.append(path)
  return lost


def _protocol(dataset: str):
  names.check('data set', dataset, layouts.FINDERS)
  return PROTOCOLS[dataset]
