"""Random changes of a clip, the same for all its frames.

Each function takes a clip `[T, H, W, C]` and a numpy generator and returns a
clip; `augment` chains them in a fixed order. `train_iterator` gives `augment` a
generator that depends on (seed, number of the clip in the stream) alone.

The odds are those of DMVFN's published training code, which has no reversal of
time; here it has the odds of the other reversals.
"""

import numpy as np


def crop(
  clip: np.ndarray, rng: np.random.Generator, size: tuple[int, int]
) -> np.ndarray:
  """A part of `size` (H, W) at a random place.

  Raises:
    ValueError: if the clip is smaller.
  """
  height, width = size
  room = clip.shape[1] - height, clip.shape[2] - width
  if min(room) < 0:
    raise ValueError(
      f'Cannot crop {height}x{width} from frames of '
      f'{clip.shape[1]}x{clip.shape[2]}.'
    )
  i, j = (int(rng.integers(0, r + 1)) for r in room)
  return clip[:, i : i + height, j : j + width]


def rotate(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Quarter turns: 1, 2, 3 or none, with odds 1/2, 1/4, 1/8, 1/8.

  A clip that is not square is turned by a half or not at all, evenly.
  """
  if clip.shape[1] != clip.shape[2]:
    return clip[:, ::-1, ::-1] if rng.random() < 0.5 else clip
  turns = rng.choice([3, 2, 1, 0], p=[1 / 2, 1 / 4, 1 / 8, 1 / 8])
  return np.rot90(clip, turns, axes=(1, 2))


def flip_vertical(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Upside down, every other time."""
  return clip[:, ::-1] if rng.random() < 0.5 else clip


def flip_horizontal(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Left and right exchanged, every other time."""
  return clip[:, :, ::-1] if rng.random() < 0.5 else clip


def reverse_time(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Last frame first, every other time."""
  return clip[::-1] if rng.random() < 0.5 else clip


def reverse_channels(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Red and blue exchanged, every other time.

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
  """Crops to `size` (unless None) and applies `steps` to `item['video']`."""
  clip = item['video']
  if size is not None:
    clip = crop(clip, rng, size)
  for step in steps:
    clip = step(clip, rng)
  return item | {'video': np.ascontiguousarray(clip)}
