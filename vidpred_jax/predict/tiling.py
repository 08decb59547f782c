"""Tiling: cuts large frames into overlapping tiles and blends the results.

The memory of a prediction grows with the pixels of its frames. A tile has at
most `max_pixels`, and `predict.engine` runs one tile after the other, so memory
is bounded whatever the size of the frame.

Neighbouring tiles are blended linearly in the middle half of their overlap. The
outer quarter of a tile's overlap is not used, since the system saw nothing
beyond the tile's edge. Arrays are NumPy, one frame `[H, W, C]` each.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

MAX_PIXELS = 1 << 21  # a little more than 1920 x 1088
OVERLAP = 64


class Tiles(NamedTuple):
  """The size and the positions of a frame's tiles.

  Attributes:
    height: of every tile, a multiple of `system.multiple`.
    width: of every tile, a multiple of `system.multiple`.
    rows: top row of each row of tiles.
    columns: left column of each column of tiles.
  """

  height: int
  width: int
  rows: tuple[int, ...]
  columns: tuple[int, ...]

  @property
  def single(self) -> bool:
    """Whether one tile holds the whole frame."""
    return len(self.rows) == len(self.columns) == 1


class Placement(NamedTuple):
  """The placement of one tile in a frame.

  Attributes:
    place: slices of the rows and columns that the tile covers.
    weight: `[h, w, 1]`; at every pixel the weights of all tiles sum to 1.
    fraction: 1 / number of tiles.
  """

  place: tuple[slice, slice]
  weight: np.ndarray
  fraction: float


def plan(
  height: int,
  width: int,
  *,
  multiple: int,
  max_pixels: int = MAX_PIXELS,
  tile: tuple[int, int] | None = None,
  overlap: int = OVERLAP,
) -> Tiles:
  """Covers a frame with as few equal tiles as the pixel budget allows.

  Args:
    height: of the frame.
    width: of the frame.
    multiple: sides of a tile are divisible by this.
    max_pixels: of a tile, its padding included.
    tile: (height, width) of the tiles, instead of the budget.
    overlap: least overlap of neighbouring tiles, in pixels.

  Returns:
    The tiles. A single tile may reach beyond the frame at the bottom and right.

  Raises:
    ValueError: if no tile fits the budget or `tile` is not possible.
  """
  ceil = functools.partial(_round_up, multiple=multiple)
  if tile is not None:
    if min(tile) <= overlap or any(side % multiple for side in tile):
      raise ValueError(
        f'Got tiles of {tile[0]}x{tile[1]}; their sides must be divisible by '
        f'{multiple} and larger than the overlap of {overlap}.'
      )
    high, wide = min(tile[0], ceil(height)), min(tile[1], ceil(width))
  else:
    candidates = []
    for down, across in itertools.product(range(1, 65), repeat=2):
      high = ceil(-(-(height + (down - 1) * overlap) // down))
      wide = ceil(-(-(width + (across - 1) * overlap) // across))
      if (
        high * wide <= max_pixels
        and (down == 1 or overlap < high <= height)
        and (across == 1 or overlap < wide <= width)
      ):
        skew = abs(high - wide)
        candidates.append((down * across, high * wide, skew, high, wide))
    if not candidates:
      raise ValueError(
        f'Got max_pixels={max_pixels}, too few to cut {height}x{width} into '
        f'tiles that overlap by {overlap}.'
      )
    *_, high, wide = min(candidates)
  return Tiles(
    high, wide, _starts(height, high, overlap), _starts(width, wide, overlap)
  )


def placements(
  size: tuple[int, int], tiles: Tiles, overlap: int
) -> list[Placement]:
  """The placements of the tiles in a frame of (H, W) = `size`, row by row."""
  high, wide = min(tiles.height, size[0]), min(tiles.width, size[1])
  rows = _feathers(size[0], high, tiles.rows, overlap)
  columns = _feathers(size[1], wide, tiles.columns, overlap)
  return [
    Placement(
      (slice(top, top + high), slice(left, left + wide)),
      down[:, None, None] * across[None, :, None],
      1 / (len(rows) * len(columns)),
    )
    for (top, down), (left, across) in itertools.product(
      zip(tiles.rows, rows), zip(tiles.columns, columns)
    )
  ]


def pad(frame: np.ndarray, tiles: Tiles) -> np.ndarray:
  """Pads `[h, w, C]` to a tile with zeros at the bottom and right."""
  missing = tiles.height - frame.shape[0], tiles.width - frame.shape[1]
  return np.pad(frame, ((0, missing[0]), (0, missing[1]), (0, 0)))


def add(
  total: np.ndarray | None,
  part: np.ndarray,
  placement: Placement,
  tiles: Tiles,
  size: tuple[int, int],
) -> np.ndarray:
  """Adds the result of a tile to the weighted sum of its frame, in place.

  Args:
    total: the sum so far, None at the first tile.
    part: `[tile height, tile width, C]`. An array of another shape (such as the
      use of blocks) is averaged over the tiles instead.
    placement: the tile's placement.
    tiles: all tiles.
    size: (H, W) of the frame.

  Returns:
    The sum, float32.
  """
  part = np.asarray(part, np.float32)
  if part.shape[:2] != (tiles.height, tiles.width):
    return placement.fraction * part + (0 if total is None else total)
  if total is None:
    total = np.zeros((*size, part.shape[2]), np.float32)
  height, width, _ = placement.weight.shape
  total[placement.place] += placement.weight * part[:height, :width]
  return total


def _round_up(side: int, multiple: int) -> int:
  return -(-side // multiple) * multiple


def _starts(side: int, tile: int, overlap: int) -> tuple[int, ...]:
  if tile >= side:
    return (0,)
  count = -(-(side - overlap) // (tile - overlap))
  return tuple(int(x) for x in np.rint(np.linspace(0, side - tile, count)))


def _feathers(side: int, tile: int, starts, overlap: int) -> list[np.ndarray]:
  """Weights [tile] of each tile along one axis; they sum to 1 everywhere."""
  position = np.arange(tile) + 0.5
  weights, total = [], np.zeros(side)
  for start in starts:
    weight = np.ones(tile)
    if overlap and start > 0:
      weight *= np.clip((position - overlap / 4) / (overlap / 2), 0, 1)
    if overlap and start + tile < side:
      weight *= np.clip((tile - position - overlap / 4) / (overlap / 2), 0, 1)
    weights.append(weight)
    total[start : start + tile] += weight
  return [
    (weight / total[start : start + tile]).astype(np.float32)
    for weight, start in zip(weights, starts)
  ]
