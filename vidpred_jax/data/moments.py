"""Mean and standard deviation of more values than fit into memory."""

from collections.abc import Iterable

import numpy as np


def moments(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each channel over all values.

  Args:
    blocks: arrays [..., C] of numbers.

  Returns:
    Mean and standard deviation, float64 [C]; NaN if there are no values.
  """
  number, mean, squares = 0, np.zeros(1), np.zeros(1)
  for block in blocks:
    # Chan's update: blocks of any size, nothing cancels.
    values = block.reshape(-1, block.shape[-1])
    own = values.mean(0, dtype=np.float64)
    shift, total = own - mean, number + len(values)
    squares = squares + np.square(values - own, dtype=np.float64).sum(0)
    squares += shift**2 * number * len(values) / total
    mean = mean + shift * len(values) / total
    number = total
  if not number:
    return np.full(1, np.nan), np.full(1, np.nan)
  return mean, np.sqrt(squares / number)
