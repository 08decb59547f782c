"""Several futures of one clip."""

from typing import NamedTuple

import numpy as np


class Futures(NamedTuple):
  """Several futures of one clip, or of one time step (then without N).

  Attributes:
    frames: uint8 `[S, N, H, W, C]`.
    mean: uint8 `[N, H, W, C]`, the mean of the S frames.
    spread: float32 `[N, H, W, C]`, their standard deviation in [0, 0.5], where
      1 is the range from black to white; of fields in their units.
  """

  frames: np.ndarray
  mean: np.ndarray
  spread: np.ndarray


def summarise(groups, count: int) -> Futures:
  """Summarises `count` frames, given in groups [S, H, W, C] or one by one."""
  groups = [x if x.ndim == 4 else x[None] for x in groups]
  frames = np.concatenate(groups)[:count]
  if frames.dtype != np.uint8:
    return Futures(frames, frames.mean(0), frames.std(0))
  values = frames.astype(np.float32) / 255
  mean = np.rint(255 * values.mean(0)).astype(np.uint8)
  return Futures(frames, mean, values.std(0))
