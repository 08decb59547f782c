"""Scene cuts of films: one detector for training and interpolation.

The detector compares thumbnails (36x64). It considers only the pixels that
differ between frames t - 1 and t. Frame t begins a scene if for these pixels

  - the `likeness` of both frames is below `MIN_SIMILARITY`, and
  - their difference is at least 2.5 times the usual difference, the median of
    the two steps before and the two steps after.

Of two frames alone no usual difference is known. Then the second begins a scene
if the likeness is less than that by another 0.25.

So static parts, such as bars, a frame around the picture or the page behind it,
do not count. Changes of light do not count either: the similarity compares
patterns, and a fade changes in equal steps. A change of less than a fiftieth of
the picture is no cut. `experiments/cuts.py` measures the detector.
"""

import collections
import csv
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from vidpred_jax import atomic

_LOG = logging.getLogger(__name__)

THUMBNAIL = (36, 64)
MIN_SIMILARITY = 0.8
_STANDS_OUT = 2.5
_ALONE = 0.25  # so much less similar are two frames of two scenes
_NOISE = 0.3  # of a step's mean difference, in levels
_SMALLEST = 0.02  # share of the picture
_MOVED = 0.75  # levels
_AHEAD = 2


def thumbnail(frame: np.ndarray) -> np.ndarray:
  """A frame uint8 [H, W, C] shrunk to uint8 [36, 64, 3], or 1 unless C is 3."""
  if frame.shape[-1] != 3:
    frame = np.rint(frame.mean(-1)).astype(np.uint8)
  small = Image.fromarray(frame).resize(THUMBNAIL[::-1], Image.Resampling.BOX)
  return np.asarray(small).reshape(*THUMBNAIL, -1)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
  """The similarity of two frames in the pixels that differ; 1 without any.

  It is the correlation of the colours times the closeness of the mean colours.
  It is mostly above 0.9 for successive frames of one scene and mostly below 0.5
  for frames of different films.

  Args:
    a: uint8 [H, W, C].
    b: the same, of any size.

  Returns:
    A number in [-1, 1].
  """
  return _compared(thumbnail(a), thumbnail(b))[0]


class Finder:
  """Detects the frames that begin a scene, from a stream of thumbnails.

  The decision about a frame uses three thumbnails before it and two after it.

  Attributes:
    cuts: the numbers of these frames so far; the first frame never is one.
  """

  def __init__(self, least: float = MIN_SIMILARITY):
    """`least`: frames of at least this similarity belong to one scene."""
    self._least = least
    self._window = collections.deque(maxlen=4 + _AHEAD)
    self._decided = 0  # frames
    self._seen = 0
    self.cuts: list[int] = []

  def see(self, small: np.ndarray) -> None:
    """Takes the next thumbnail."""
    self._window.append(small)
    self._seen += 1
    if self._seen > _AHEAD:
      self._decide()

  def end(self) -> None:
    """Decides about the last frames, which have no successors."""
    while self._decided < self._seen:
      self._decide()

  def _decide(self) -> None:
    n, self._decided = self._decided, self._decided + 1
    first = self._seen - len(self._window)
    small = list(self._window)[max(n - 3 - first, 0) :]
    at = n - max(n - 3, first)
    if n and _begins(small, at, self._least):
      self.cuts.append(n)


def mark(
  items: Iterable[Any],
  least: float = MIN_SIMILARITY,
  shrink: Callable[[Any], np.ndarray] = thumbnail,
) -> Iterator[tuple[Any, bool]]:
  """Yields for each frame whether it begins a scene; the first one does not.

  Args:
    items: frames, or other inputs of `shrink`; three are held.
    least: frames of at least this similarity belong to one scene; -1: all do.
    shrink: returns the thumbnail of an item.

  Yields:
    (item, whether it begins a scene).
  """
  finder, waiting, n = Finder(least), collections.deque(), 0
  for item in items:
    finder.see(shrink(item))
    waiting.append(item)
    if len(waiting) > _AHEAD:
      yield waiting.popleft(), n in finder.cuts[-3:]
      n += 1
  finder.end()
  for item in waiting:
    yield item, n in finder.cuts[-3:]
    n += 1


def last_scene(
  frames: Sequence[np.ndarray], least: float = MIN_SIMILARITY
) -> list[np.ndarray]:
  """The last frames of a clip, those of one scene.

  Args:
    frames: the frames, [H, W, C] each.
    least: as of `mark`; with -1 frames may be of any type.

  Returns:
    The frames of the last scene. The last two frames are always of one: of a
    step that nothing follows one cannot tell whether motion began there.
  """
  if least == -1:
    return list(frames)
  scene: list[np.ndarray] = []
  for number, (frame, begins) in enumerate(mark(frames, least), 1):
    if begins and number < len(frames):
      scene = []
    scene.append(frame)
  return scene


def find(thumbnails: Iterable[np.ndarray]) -> tuple[int, ...]:
  """The numbers of the frames that begin a scene, from all thumbnails."""
  finder = Finder()
  for small in thumbnails:
    finder.see(small)
  finder.end()
  return tuple(finder.cuts)


def read_list(
  path: str | os.PathLike, num_frames: int | None = None
) -> Callable[[int, Fraction], bool]:
  """Reads a list of the frames that begin a scene.

  Args:
    path: a text file with a frame number (from 0) or a time (`1:02.5` or
      `0:01:02.5`, after the first frame) on each line, or the CSV file that
      PySceneDetect writes.
    num_frames: of the film; there is a warning of frames that it has not.

  Returns:
    `(number, time) -> bool`, whether a frame begins a scene, to be called for
    all frames in order. A listed time belongs to the first frame at or after
    it.

  Raises:
    ValueError: if a line is neither.
    OSError: if it cannot be read.
  """
  path = pathlib.Path(os.path.expanduser(path))
  atomic.check_ordinary(path)
  try:
    rows = list(csv.reader(path.read_text().splitlines()))
  except (UnicodeDecodeError, csv.Error):
    raise ValueError(f'{path} is no text with frame numbers.') from None
  heads = [n for n, row in enumerate(rows) if 'Start Frame' in row]
  if heads:  # PySceneDetect counts from 1
    column = rows[heads[0]].index('Start Frame')
    texts = [row[column] for row in rows[heads[0] + 1 :] if row]
    shift = 1
  else:
    lines = (','.join(row).split('#')[0].strip() for row in rows)
    texts, shift = [x for line in lines for x in line.split(',') if x], 0
  numbers, times = set(), []
  for text in map(str.strip, texts):
    try:
      if ':' in text:
        parts = [Fraction(part) for part in text.split(':')]
        seconds = sum(p * 60**n for n, p in enumerate(reversed(parts)))
        times.append(seconds)
      else:
        numbers.add(int(text) - shift)
    except ValueError:
      raise ValueError(
        f'{path}: {text!r} is neither a frame number nor a time like 1:02.5.'
      ) from None
  most = math.inf if num_frames is None else num_frames
  wrong = sorted(n + shift for n in numbers if not 0 <= n < most)
  if wrong:
    _LOG.warning(
      '%s: %d of its frames are not in the film, such as %d.',
      path, len(wrong), wrong[0],
    )  # fmt: skip
  waiting = collections.deque(sorted(times))

  def begins(number: int, time: Fraction) -> bool:
    listed = number in numbers
    while waiting and waiting[0] <= time:
      waiting.popleft()
      listed = True
    return listed and number > 0

  return begins


def _compared(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
  """The similarity of two thumbnails, and where they differ, bool [36, 64]."""
  a, b = a.astype(np.float32), b.astype(np.float32)
  moved = np.abs(a - b).max(-1) > _MOVED
  if moved.mean() < _SMALLEST:
    return 1.0, moved
  a, b = a[moved], b[moved]
  mean_a, mean_b = a.mean(0), b.mean(0)
  a, b = a - mean_a, b - mean_b
  noise, brightness = 0.25, a.shape[-1] * (0.01 * 255) ** 2
  alike = (np.mean(a * b) + noise) / np.sqrt(
    (np.mean(a * a) + noise) * (np.mean(b * b) + noise)
  )
  near = (2 * mean_a @ mean_b + brightness) / (
    mean_a @ mean_a + mean_b @ mean_b + brightness
  )
  return float(alike * near), moved


def _begins(thumbnails: Sequence[np.ndarray], t: int, least: float) -> bool:
  """Whether a scene begins at thumbnail t > 0."""
  alike, moved = _compared(thumbnails[t - 1], thumbnails[t])
  if alike >= least:
    return False
  steps = [
    np.abs(x.astype(np.int16) - y)[moved].mean()
    for x, y in zip(thumbnails, thumbnails[1:])
  ]
  step = steps.pop(t - 1)
  if not steps:
    return alike < least - _ALONE
  return bool(step >= _STANDS_OUT * (np.median(steps) + _NOISE))
