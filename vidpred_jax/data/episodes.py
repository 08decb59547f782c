"""Clips from an npz file of short films, such as episodes of a robot.

The array is uint8 `[E, ..., T, H, W, C]`: E episodes, each from one view or
several. Whole episodes, with all their views, are held out for testing.

Each worker process holds its own copy of the array in memory. Load it with
threads, `workers=0`, which share one copy.
"""

import os
import pathlib

import numpy as np

from vidpred_jax.data import validation
from vidpred_jax.data.files import npz_array


class Episodes:
  """A grain random access source of windows of episodes.

  Items are dicts with `video` uint8 [T, H, W, C] and `name`: the episode, the
  views and the first frame.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike = '',
    array: str = 'frames',
    test_fraction: float = 0.2,
    val_fraction: float = 0.0,
  ):
    """Loads the file.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T. For training a clip begins with any frame;
        for testing they follow one another without overlap.
      root: the file.
      array: which of its arrays.
      test_fraction: share of the episodes, the last ones, that are for testing.
      val_fraction: share of the others, the last ones, that 'val' has instead
        of 'train'.

    Raises:
      ValueError: if a setting is wrong, the array is none of that kind, or its
        episodes are too short.
      FileNotFoundError: if there is no file.
    """
    validation.check(split)
    path = pathlib.Path(os.path.expanduser(root))
    frames = _load(path, array)
    held_out = round(test_fraction * len(frames))
    if not 0 < held_out < len(frames):
      raise ValueError(
        f'test_fraction must leave episodes for either split, got '
        f'{test_fraction} of {len(frames)}.'
      )
    border = len(frames) - held_out
    train = split == 'train'
    chosen = range(border, len(frames))
    if split != 'test':
      chosen = validation.part(split, border, val_fraction, 'episodes')
    self._first = chosen.start
    self._frames = frames[chosen.start : chosen.stop]
    self._num_frames, self._path, self._split = num_frames, path, split
    length = frames.shape[-4]
    if not 0 < num_frames <= length:
      raise ValueError(
        f'The episodes of {path} have {length} frames; {num_frames} were asked '
        'for.'
      )
    self._starts = range(0, length - num_frames + 1, 1 if train else num_frames)
    self._shape = *self._frames.shape[:-4], len(self._starts)

  def __len__(self) -> int:
    return int(np.prod(self._shape))

  def __repr__(self) -> str:
    return f'Episodes({self._split!r}, {len(self)} clips of {self._path})'

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    *place, window = (int(k) for k in np.unravel_index(i, self._shape))
    start = self._starts[window]
    clip = self._frames[tuple(place)][start : start + self._num_frames]
    name = '/'.join(str(k) for k in (self._first + place[0], *place[1:]))
    return {'video': clip.copy(), 'name': f'{name}@{start}'}


def _load(path: pathlib.Path, name: str) -> np.ndarray:
  if not path.is_file():
    raise FileNotFoundError(
      "The source 'episodes' needs root: an npz file with an array of uint8 "
      f'[E, ..., T, H, W, C] named {name!r}; there is none at {str(path)!r}.'
    )
  frames = npz_array(path, name)
  if frames.dtype != np.uint8 or frames.ndim < 5 or frames.shape[-1] > 4:
    raise ValueError(
      f'{name} of {path} is {frames.dtype} {frames.shape}; expected uint8 '
      '[E, ..., T, H, W, C].'
    )
  return frames
