"""Where the scene of a film changes: one rule for training and interpolation.

The rule sees thumbnails (36x64). Frame t begins a scene if, of the part of the
picture that differs from frame t - 1 at all,

  - the `similarity` to frame t - 1 is below `MIN_SIMILARITY`, and
  - the difference is at least 2.5 times what is usual there, the median of the
    two steps before and the two after.

What does not move, such as bars, a frame around the picture or the page that it
lies on, so says nothing. Light does not count either: the likeness compares
patterns, and a fade changes in equal steps. What covers less than a fiftieth of
the picture is no scene. `experiments/cuts.py` measures the rule.
"""

import collections
import csv
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

THUMBNAIL = (36, 64)
MIN_SIMILARITY = 0.8
_STANDS_OUT = 2.5
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


def similarity(a: np.ndarray, b: np.ndarray) -> float:
  """How alike two frames are where they differ, -1 to 1; 1 if nowhere.

  The correlation of their colours, times how near the mean colours are. Of
  successive frames of one scene it is mostly above 0.9, of frames of different
  films mostly below 0.5.

  Args:
    a: uint8 [H, W, C].
    b: the same, of any size.

  Returns:
    A number in [-1, 1].
  """
  return _compared(thumbnail(a), thumbnail(b))[0]


class Finder:
  """Finds the frames that begin a scene, shown one thumbnail after the other.

  Three thumbnails are behind the frame that is decided, two before it.

  Attributes:
    cuts: the numbers of the frames found so far; the first is none of them.
  """

  def __init__(self, least: float = MIN_SIMILARITY):
    """`least`: the likeness from which on two frames are of one scene."""
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
    """Decides on the frames that waited for what follows."""
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
  """Says of each frame whether it begins a scene; the first one does not.

  Args:
    items: frames, or what `shrink` knows; three are held.
    least: the likeness from which on two frames are of one scene; -1: all are.
    shrink: gives the thumbnail of an item.

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


def find(thumbnails: Iterable[np.ndarray]) -> tuple[int, ...]:
  """The numbers of the frames that begin a scene, of all their thumbnails."""
  finder = Finder()
  for small in thumbnails:
    finder.see(small)
  finder.end()
  return tuple(finder.cuts)


def read_list(path: str | os.PathLike) -> Callable[[int, Fraction], bool]:
  """Reads a list of the frames that begin a scene.

  Args:
    path: a text file with a frame number (from 0) or a time (`1:02.5` or
      `0:01:02.5`, after the first frame) on each line, or the CSV file that
      PySceneDetect writes.

  Returns:
    A function of the number and the time of each frame, in their order: whether
    it begins a scene. A time is that of the first frame that is not before it.

  Raises:
    ValueError: if a line is neither.
    OSError: if it cannot be read.
  """
  path = pathlib.Path(path).expanduser()
  try:
    rows = list(csv.reader(path.read_text().splitlines()))
  except UnicodeDecodeError:
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
  waiting = collections.deque(sorted(times))

  def begins(number: int, time: Fraction) -> bool:
    found = number in numbers
    while waiting and waiting[0] <= time:
      waiting.popleft()
      found = True
    return found and number > 0

  return begins


def _compared(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
  """The likeness of two thumbnails, and where they differ, bool [36, 64]."""
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
  usual = np.median(steps) if steps else 0.0
  return bool(step >= _STANDS_OUT * (usual + _NOISE))
