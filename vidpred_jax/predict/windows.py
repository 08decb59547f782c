"""Windows: the parts of a picture in which a film moves.

Where a camera stands still, the frame between two is their mean, but for the
few places where something moves. A system then runs on windows around these
places alone, and their results are pasted into the mean.

*What moves* are blocks of 4x4 pixels whose mean difference between the two
frames of an interval is above `THRESHOLD` levels. Elsewhere the mean of both at
the time of the new frame, (1 - k/K) before + k/K after, is nearer to one of
them than half of that, so it is as good as anything. A block with fewer than
two others around it counts only if it differs three times as much; most such
blocks are noise of a codec.

*Windows* have one of a few sizes, of which a program each is compiled. What
moves is divided into boxes, by straight cuts through gaps, so that the windows
that hold the boxes have little area. Half of a thing is not enough for a system
to see how it moves, so nothing that hangs together is cut. A window holds its
box with a margin, since a system sees nothing beyond the window's edge. The
outer quarter of the margin is not used, and its middle half is blended into
what lies around.

*Patience.* To compile a program takes many seconds, so a size is used only when
it would have spared `COMPILED` pixels so far. Until then sizes in use serve, or
the whole frame. All of it is a function of the film alone.

Arrays are NumPy, frames uint8 `[H, W, C]`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

BLOCK = 4
THRESHOLD = 4  # levels of 255
COMPILED = 1 << 22  # computed in about half the time of a compilation
_ALONE = 3  # times the threshold
_MARGIN = 24, 1 / 32  # pixels, share of the longer side: the larger one
_SHARES = (1 / 16, 1 / 8, 1 / 4)  # of the frame's area, in its aspect
_STRIPS = (1 / 4, 1 / 2)  # of the longer side; the other is the frame's
_GUIDE = 0.1  # of a box's own area: decides between windows of equal area
# Windows begin at multiples of this, and so are their sides: then the pyramids
# of a window have the pixels of the frame's. Off it frames lose up to 1.6 dB.
# At the right and the bottom of a frame of another size it cannot be had.
_GRID = 8
_APART = 4  # blocks: nearer ones may be one thing, which is not cut
_CUTS = 3  # one after the other: 8 windows at most
_WORTH = 0.9  # of the frame's area: more is computed as a whole

Size = tuple[int, int]


class Ladder(NamedTuple):
  """The sizes of windows for one size of frame.

  Attributes:
    frame: (H, W).
    sizes: (height, width) of windows, the smallest first.
    margin: of a window around what moves, in pixels.
  """

  frame: Size
  sizes: tuple[Size, ...]
  margin: int


class Window(NamedTuple):
  """A window of a frame: its first row and column, and its size."""

  top: int
  left: int
  size: Size

  @property
  def place(self) -> tuple[slice, slice]:
    """Slices of its rows and columns."""
    height, width = self.size
    rows = slice(self.top, self.top + height)
    return rows, slice(self.left, self.left + width)


def ladder(
  height: int, width: int, *, multiple: int, fits: Callable[[int, int], bool]
) -> Ladder:
  """The sizes of windows for a frame: in its aspect, and strips across it.

  Args:
    height: of the frame.
    width: of the frame.
    multiple: sides are divisible by this, unless they are those of the frame.
    fits: `(height, width) -> bool`, whether the system can run on it at once.

  Returns:
    The sizes. There are none for a small frame.
  """
  least, share = _MARGIN
  margin = max(least, round(share * max(height, width)))
  step = math.lcm(multiple, _GRID)

  def scaled(side, part):
    return min(side, step * math.ceil(side * part / step))

  wide = width >= height
  found = [(part**0.5, part**0.5) for part in _SHARES]
  found += [(1, part) if wide else (part, 1) for part in _STRIPS]
  sizes = {
    (scaled(height, down), scaled(width, across)) for down, across in found
  }
  possible = (
    size
    for size in sorted(sizes, key=lambda size: (math.prod(size), size))
    if min(size) > 2 * margin
    and math.prod(size) <= _WORTH * height * width
    and fits(*size)
  )
  return Ladder((height, width), tuple(possible), margin)


def moving(before: np.ndarray, after: np.ndarray) -> np.ndarray:
  """The blocks that move between two frames, bool [H / 4, W / 4], rounded up.

  Args:
    before: a frame.
    after: the next one.
  """
  difference = np.maximum(before, after) - np.minimum(before, after)
  height, width, channels = difference.shape
  missing = -height % BLOCK, -width % BLOCK
  if any(missing):
    pads = (0, missing[0]), (0, missing[1]), (0, 0)
    difference = np.pad(difference, pads, 'edge')
  rows = difference.reshape(-1, BLOCK, difference.shape[1] * channels)
  sums = rows.sum(1, dtype=np.uint16)
  sums = sums.reshape(len(sums), -1, BLOCK * channels).sum(2, dtype=np.uint32)
  limit = THRESHOLD * BLOCK**2 * channels
  moves = sums > limit
  around = np.pad(moves, 1).astype(np.uint8)
  around = around[:-2] + around[1:-1] + around[2:]
  around = around[:, :-2] + around[:, 1:-1] + around[:, 2:]
  return moves & ((around > 2) | (sums > _ALONE * limit))


def cover(
  blocks: np.ndarray, sizes: tuple[Size, ...], given: Ladder
) -> tuple[Window, ...] | None:
  """Windows that hold all blocks that move, of little area.

  Args:
    blocks: from `moving`.
    sizes: of windows, some of the ladder's, the smallest first.
    given: the ladder.

  Returns:
    The windows, none if nothing moves; or None if the whole frame is as good.
  """
  if not blocks.any():
    return ()
  if not sizes or 2 * blocks.mean() > _WORTH:
    return None
  cost = functools.partial(_cost, sizes=sizes, given=given)
  boxes = _divided(_bounding(blocks), blocks, cost, _CUTS)
  found = tuple(_window(box, sizes, given) for box in boxes)
  return found if pixels(found, given) <= _WORTH * pixels(None, given) else None


def choose(
  spared: Mapping[Any, int],
  given: Ladder,
  before: np.ndarray,
  after: np.ndarray,
  count: int,
) -> tuple[tuple[Window, ...] | None, Mapping[Any, int]]:
  """The windows in which the frames of an interval are computed.

  Args:
    spared: pixels that each program would have spared in the intervals before;
      empty at first.
    given: the ladder.
    before: the frame before the new ones.
    after: the frame after them.
    count: how many new frames there are; each number has its own programs.

  Returns:
    What `cover` returns, of the sizes in use; and `spared` with this interval.
  """
  blocks = moving(before, after)
  best = cover(blocks, given.sizes, given)
  if not best:
    return best, spared
  ready = tuple(
    size for size in given.sizes if spared.get((size, count), 0) >= COMPILED
  )
  missing = {window.size for window in best}.difference(ready)
  if not missing:
    return best, spared
  served = cover(blocks, ready, given)
  more = count * (pixels(served, given) - pixels(best, given))
  return served, {
    **spared,
    **{(size, count): spared.get((size, count), 0) + more for size in missing},
  }


def pixels(windows: tuple[Window, ...] | None, given: Ladder) -> int:
  """How many pixels are computed: of windows, or for None of a whole frame."""
  if windows is None:
    return math.prod(given.frame)
  return sum(math.prod(window.size) for window in windows)


def mixed(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
  """The mean of two frames, of which `after` has that share."""
  mean = before.astype(np.float32)
  mean *= 1 - share
  mean += np.float32(share) * after
  return np.rint(mean, out=mean).astype(np.uint8)


def paste(
  frame: np.ndarray, part: np.ndarray, window: Window, margin: int
) -> None:
  """Blends what was computed in a window into its frame, in place.

  Args:
    frame: the frame.
    part: of the window's size.
    window: where it lies.
    margin: of the ladder. Its outer quarter is left out, but at the frame's
      edge.
  """
  place = frame[window.place]
  down, across = (
    _weights(start, side, whole, margin)
    for start, side, whole in zip(window[:2], window.size, frame.shape)
  )
  change = part.astype(np.float32) - place
  change *= down[:, None, None] * across[None, :, None]
  change += place
  place[:] = np.rint(change, out=change)


def _weights(start: int, side: int, whole: int, margin: int) -> np.ndarray:
  """Weights [side] along one axis of a window."""
  position = np.arange(side, dtype=np.float32) + 0.5
  weight = np.ones(side, np.float32)
  if start > 0:
    weight *= np.clip((position - margin / 4) / (margin / 2), 0, 1)
  if start + side < whole:
    weight *= np.clip((side - position - margin / 4) / (margin / 2), 0, 1)
  return weight


# Boxes are (top, left, bottom, right) in blocks, int [..., 4].


def _padded(box, given: Ladder):
  """(tops, lefts, bottoms, rights) in pixels, with the margin in the frame.

  They begin on the grid.
  """
  top, left, bottom, right = np.moveaxis(box, -1, 0) * BLOCK
  height, width = given.frame
  return (
    np.maximum(top - given.margin, 0) // _GRID * _GRID,
    np.maximum(left - given.margin, 0) // _GRID * _GRID,
    np.minimum(bottom + given.margin, height),
    np.minimum(right + given.margin, width),
  )


def _cost(box, sizes, given: Ladder):
  """Pixels of the smallest windows that hold boxes [..., 4].

  Of equal ones the box is the smaller, the better.
  """
  top, left, bottom, right = _padded(box, given)
  high, wide = bottom - top, right - left
  area = np.full(high.shape, math.prod(given.frame))
  for height, width in reversed(sizes):
    area[(high <= height) & (wide <= width)] = height * width
  return area + _GUIDE * high * wide


def _bounding(blocks):
  """The box of all blocks that move."""
  rows, columns = np.flatnonzero(blocks.any(1)), np.flatnonzero(blocks.any(0))
  return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def _divided(box, blocks, cost, cuts: int) -> list[np.ndarray]:
  """Cuts a bounding box into those that cost least, each bounding again."""
  top, left, bottom, right = box
  inner = blocks[top:bottom, left:right]
  if not cuts or inner.size == 1:
    return [box]
  pairs = _halves(inner), _halves(inner.T)[..., [1, 0, 3, 2]]
  pairs = np.concatenate(pairs) + box[[0, 1, 0, 1]]
  apart = (pairs[:, 1, :2] - pairs[:, 0, 2:]).max(-1) >= _APART
  pairs = pairs[apart]
  if not len(pairs):
    return [box]
  best = pairs[cost(pairs).sum(-1).argmin()]
  parts = [
    part for half in best for part in _divided(half, blocks, cost, cuts - 1)
  ]
  return parts if cost(np.stack(parts)).sum() < cost(box) else [box]


def _halves(blocks):
  """The boxes above and below each straight cut between rows, [K, 2, 4]."""
  above, below = _above(blocks), _above(blocks[::-1])[::-1]
  top, left, bottom, right = np.moveaxis(below, -1, 0)
  height = len(blocks)
  below = np.stack([height - bottom, left, height - top, right], -1)
  return np.stack([above, below], 1)


def _above(blocks):
  """The boxes of what moves in the first rows, one to all but one, [K, 4]."""
  height, width = blocks.shape
  rows = np.arange(1, height + 1) * blocks.any(1)
  bottom = np.maximum.accumulate(rows)[:-1]
  columns = np.logical_or.accumulate(blocks)[:-1]
  left = columns.argmax(1)
  right = width - columns[:, ::-1].argmax(1)
  return np.stack([np.zeros_like(bottom), left, bottom, right], -1)


def _window(box, sizes, given: Ladder) -> Window:
  """The smallest window that holds a box, the box about in its middle."""
  top, left, bottom, right = (int(x) for x in _padded(box, given))
  size = next(
    (high, wide)
    for high, wide in (*sizes, given.frame)
    if bottom - top <= high and right - left <= wide
  )
  placed = (
    _start(first, last, side, whole)
    for first, last, side, whole in zip(
      (top, left), (bottom, right), size, given.frame
    )
  )
  first_row, first_column = placed
  return Window(first_row, first_column, size)


def _start(first: int, last: int, side: int, whole: int) -> int:
  """Where a window of that side begins on an axis that holds [first, last)."""
  least, most = max(0, last - side), min(first, whole - side)
  middle = min(max((first + last - side) // 2, least), most)
  start = middle // _GRID * _GRID
  return start if start >= least else min(start + _GRID, most)
