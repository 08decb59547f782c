"""Resizing as the published evaluations do it: OpenCV's INTER_LINEAR."""

import numpy as np


def linear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Bilinear resizing without antialiasing, as `cv2.resize` by default.

  Pixel centres lie at half-integers, the borders are repeated. The arithmetic
  is OpenCV's for bytes: weights of 11 bits and, between rows, truncated
  products, which is about 0.1 levels darker than rounding. Measured against
  OpenCV 5.0: equal, but for one value in 2000 by one level when it enlarges.

  Args:
    image: uint8 [H, W, C].
    size: the new (H, W).

  Returns:
    uint8 [*size, C].
  """
  if image.shape[:2] == tuple(size):
    return image
  low, high, first, second = _weights(image.shape[1], size[1])
  first, second = first[:, None], second[:, None]
  wide = image.astype(np.int32)
  rows = (wide[:, low] * first + wide[:, high] * second) >> 4

  low, high, first, second = _weights(image.shape[0], size[0])
  first, second = first[:, None, None], second[:, None, None]
  both = ((rows[low] * first) >> 16) + ((rows[high] * second) >> 16)
  return ((both + 2) >> 2).astype(np.uint8)


def _weights(old: int, new: int):
  """For each new position: two old ones and their weights, out of 2048."""
  place = (np.arange(new) + 0.5) * (old / new) - 0.5
  place = np.clip(place, 0, old - 1).astype(np.float32)
  low = place.astype(np.int32)
  share = place - low
  return (
    low,
    np.minimum(low + 1, old - 1),
    np.rint((1 - share) * 2048).astype(np.int32),
    np.rint(share * 2048).astype(np.int32),
  )
