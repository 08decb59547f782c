"""TaxiBJ: inflow and outflow of taxis over Beijing, every half hour, 32x32.

The file holds ready-made clips in [-1, 1]. The source rescales them to [0, 1],
as the published code does, which divides a mean squared error by four. A clip
is float32 `[T, 32, 32, 2]`, with 4 context and 4 target frames.

Each worker process holds its own copy of a split in memory. Load it with
threads, `workers=0`, which share one copy.
"""

import os
import pathlib

import numpy as np

from vidpred_jax.data import validation
from vidpred_jax.data.files import npz_array
from vidpred_jax.data.published.prediction import absent


class TaxiBJ:
  """A grain random access source of the clips of one file.

  Items are dicts with `video` float32 [T, H, W, 2] in [0, 1] and `name`.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike = '',
    val_fraction: float = 0.0,
  ):
    """Loads a split.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T: the first of each clip of the file.
      root: a folder with dataset.npz or taxibj/dataset.npz, or the file.
      val_fraction: share of the clips for training, the last ones, that 'val'
        has instead. Successive clips share frames: as many before them as a
        clip has frames are in neither.

    Raises:
      ValueError: on an unknown split, or if the file is not as expected or its
        clips are too short.
      FileNotFoundError: if it is not there.
    """
    validation.check(split)
    self._split, self._num_frames = split, num_frames
    stored = 'test' if split == 'test' else 'train'
    path = _find(root, stored)
    self._seen, self._asked = (_array(path, f'{k}_{stored}') for k in 'XY')
    lengths = self._seen.shape[1], self._asked.shape[1]
    if len(self._seen) != len(self._asked):
      raise ValueError(
        f'{path} has {len(self._seen)} clips in X_{stored} and '
        f'{len(self._asked)} in Y_{stored}.'
      )
    if not 0 < num_frames <= sum(lengths):
      raise ValueError(
        f'A clip of {path} has {lengths[0]} + {lengths[1]} frames; '
        f'{num_frames} were asked for.'
      )
    if split != 'test':
      count = len(self._seen)
      chosen = validation.part(split, count, val_fraction, 'clips')
      gap = sum(lengths) if split == 'train' and chosen.stop < count else 0
      chosen = slice(chosen.start, max(chosen.stop - gap, 1))
      self._seen, self._asked = self._seen[chosen], self._asked[chosen]

  def __len__(self) -> int:
    return len(self._seen)

  def __repr__(self) -> str:
    return f'TaxiBJ({self._split!r}, {len(self)} clips)'

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    clip = np.concatenate([self._seen[i], self._asked[i]])[: self._num_frames]
    clip = (np.moveaxis(clip, 1, -1).astype(np.float32) + 1) / 2
    return {'video': clip, 'name': f'{self._split}/{i:05d}'}


def count(root, split: str) -> int:
  """Clips of a split.

  Raises:
    FileNotFoundError: if the file is not there.
  """
  return len(_array(_find(root, split), f'X_{split}'))


def _find(root, split: str) -> pathlib.Path:
  root = pathlib.Path(os.path.expanduser(root))
  for path in (root, root / 'dataset.npz', root / 'taxibj' / 'dataset.npz'):
    if path.is_file():
      return path
  raise FileNotFoundError(absent('taxibj', root, split))


def _array(path: pathlib.Path, name: str) -> np.ndarray:
  """[N, T, 2, H, W] in [-1, 1]."""
  array = npz_array(path, name)
  if array.dtype.kind not in 'fiu' or array.ndim != 5 or array.shape[2] != 2:
    raise ValueError(
      f'{name} of {path} is {array.dtype} {array.shape}; expected numbers '
      '[N, T, 2, H, W].'
    )
  if array.size and not -1 <= array.min() <= array.max() <= 1:
    raise ValueError(
      f'{name} of {path} lies in [{array.min():.4g}, {array.max():.4g}]; '
      'expected [-1, 1].'
    )
  return array
