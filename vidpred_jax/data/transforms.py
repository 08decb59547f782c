"""Augmentation: random transforms of a clip, the same for all its frames.

Each function takes a clip `[T, H, W, C]` and a numpy generator and returns a
clip; `augment` applies several in a fixed order. `train_iterator` passes
`augment` a generator that depends only on (seed, number of the clip in the
stream).

`augment` also transforms the flow of a clip: it applies the same functions to
the pixels of the flow and then turns the vectors.

The probabilities are those of DMVFN's published training code. That code does
not reverse time; here time reversal has the probability of the other
reversals.
"""

import functools

import numpy as np


def crop(
  clip: np.ndarray, rng: np.random.Generator, size: tuple[int, int]
) -> np.ndarray:
  """Crops to `size` (H, W) at a random place.

  Raises:
    ValueError: if the clip is smaller.
  """
  height, width = size
  room = clip.shape[1] - height, clip.shape[2] - width
  if min(room) < 0:
    raise ValueError(
      f'Cannot crop {height}x{width} (augment.crop) from frames of '
      f'{clip.shape[1]}x{clip.shape[2]}.'
    )
  i, j = (int(rng.integers(0, r + 1)) for r in room)
  return clip[:, i : i + height, j : j + width]


def rotate(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Rotates by 1, 2, 3 or no quarter turns, with odds 1/2, 1/4, 1/8, 1/8.

  A clip that is not square is rotated by a half turn with probability 1/2.
  """
  if clip.shape[1] != clip.shape[2]:
    return clip[:, ::-1, ::-1] if rng.random() < 0.5 else clip
  turns = rng.choice([3, 2, 1, 0], p=[1 / 2, 1 / 4, 1 / 8, 1 / 8])
  return np.rot90(clip, turns, axes=(1, 2))


def flip_vertical(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Flips upside down with probability 1/2."""
  return clip[:, ::-1] if rng.random() < 0.5 else clip


def flip_horizontal(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Exchanges left and right with probability 1/2."""
  return clip[:, :, ::-1] if rng.random() < 0.5 else clip


def reverse_time(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Reverses the order of frames with probability 1/2."""
  return clip[::-1] if rng.random() < 0.5 else clip


def reverse_channels(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Exchanges red and blue with probability 1/2.

  Raises:
    ValueError: if the channels are not those of a picture.
  """
  if clip.shape[-1] not in (1, 3):
    raise ValueError(
      'reverse_channels exchanges red and blue; it needs 1 or 3 channels, got '
      f'{clip.shape[-1]}.'
    )
  return clip[..., ::-1] if rng.random() < 0.5 else clip


def augment(
  item: dict,
  rng: np.random.Generator,
  *,
  size: tuple[int, int] | None,
  steps: tuple,
) -> dict:
  """Crops to `size` (unless None) and applies `steps` to `item['video']`.

  A flow `item['flow']` [P, H, W, 2] is transformed likewise. A flow belongs to
  numbered frames and has a direction in time, so a clip with a flow is never
  reversed in time.
  """
  clip, flow = item['video'], item.get('flow')
  places = None if flow is None else _places(clip.shape[1:3])
  if size is not None:
    steps = (functools.partial(crop, size=size), *steps)
  for step in steps:
    if flow is None:
      clip = step(clip, rng)
    elif step in (reverse_time, reverse_channels):
      clip = step(clip, rng) if step is reverse_channels else clip
    else:
      # The same draws for both: where each pixel came from tells how.
      state = rng.bit_generator.state
      places = step(places, rng)
      rng.bit_generator.state = state
      clip = step(clip, rng)
  item = item | {'video': np.ascontiguousarray(clip)}
  if flow is not None:
    assert places is not None
    item['flow'] = _carried(flow, places[0])
  return item


def _places(size: tuple[int, int]) -> np.ndarray:
  """(x, y) of each pixel, int [1, H, W, 2]."""
  y, x = np.mgrid[: size[0], : size[1]]
  return np.stack([x, y], -1)[None]


def _carried(flow: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Transforms a flow whose pixels have been moved.

  Args:
    flow: [P, H, W, 2], (dx, dy).
    places: int [h, w, 2], from which (x, y) each pixel was taken, by quarter
      turns, reflections and cropping; h and w at least 2.

  Returns:
    [P, h, w, 2], vectors in the new directions.
  """
  # How the old coordinates change along the new axes: +-1 or 0.
  right, down = places[0, 1] - places[0, 0], places[1, 0] - places[0, 0]
  moved = flow[:, places[..., 1], places[..., 0]]
  return moved @ np.stack([right, down], -1).astype(flow.dtype)
