"""Resizing as in the published evaluations.

Those of OpenCV are computed here as OpenCV does on x86, to the last bit but for
`cubic`. Where OpenCV is installed it computes them itself, 45 times as fast.
"""

import functools
import platform

import numpy as np
from PIL import Image


def linear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Bilinear resizing without antialiasing, the default of `cv2.resize`.

  Pixel centres lie at half-integers, the borders are repeated. The arithmetic
  is OpenCV's for bytes: weights of 11 bits and, between rows, truncated
  products, which is about 0.1 levels darker than rounding.

  Args:
    image: uint8 [H, W, C].
    size: the new (H, W).

  Returns:
    uint8 [*size, C].
  """
  if image.shape[:2] == tuple(size):
    return image
  cv2 = _opencv()
  if cv2 is not None:
    return _by_opencv(cv2, image, size, cv2.INTER_LINEAR)
  low, high, first, second = _weights(image.shape[1], size[1])
  first, second = first[:, None], second[:, None]
  wide = image.astype(np.int32)
  rows = (wide[:, low] * first + wide[:, high] * second) >> 4

  low, high, first, second = _weights(image.shape[0], size[0])
  first, second = first[:, None, None], second[:, None, None]
  both = ((rows[low] * first) >> 16) + ((rows[high] * second) >> 16)
  return ((both + 2) >> 2).astype(np.uint8)


@functools.cache
def _opencv():
  """OpenCV, or None: on other processors its bytes may be others."""
  if platform.machine() not in ('x86_64', 'AMD64'):
    return None
  try:
    import cv2
  except ImportError:
    return None
  # Loader threads and processes are parallel already.
  cv2.setNumThreads(1)
  return cv2


def _by_opencv(cv2, image: np.ndarray, size, interpolation) -> np.ndarray:
  height, width = size
  resized = cv2.resize(
    np.ascontiguousarray(image), (width, height), interpolation=interpolation
  )
  return resized.reshape(height, width, image.shape[2])  # also of 1 channel


def _weights(old: int, new: int):
  """For each new position, two old positions and their weights out of 2048."""
  place = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
  low = np.floor(place).astype(np.int32)
  share = place - low
  return (
    np.maximum(low, 0),
    np.minimum(low + 1, old - 1),
    np.rint((1 - share) * 2048).astype(np.int32),
    np.rint(share * 2048).astype(np.int32),
  )


def cubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Bicubic resizing without antialiasing, as OpenCV's INTER_CUBIC.

  The kernel is Keys' with a = -0.75; pixel centres and borders as in `linear`.
  Computed in float32 and rounded once. Measured against OpenCV 5.0: equal, but
  for one value in 200 000 by one level.

  Args:
    image: uint8 [H, W, C].
    size: the new (H, W).

  Returns:
    uint8 [*size, C].
  """
  if image.shape[:2] == tuple(size):
    return image
  result = image.astype(np.float32)
  for axis in (1, 0):
    places, weights = _cubic_weights(image.shape[axis], size[axis])
    weights = weights[:, :, None] if axis else weights[:, :, None, None]
    taps = (
      np.take(result, place, axis) * weight
      for place, weight in zip(places, weights)
    )
    result = sum(taps)
  return np.rint(result).clip(0, 255).astype(np.uint8)


def centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes to the height of `size` and keeps the middle of the width.

  Bilinear with antialiasing (Pillow), as PredNet prepares KITTI.

  Args:
    image: uint8 [H, W, C].
    size: the new (H, W).

  Returns:
    uint8 [*size, C].

  Raises:
    ValueError: if the image is too narrow.
  """
  height, width = size
  wide = round(image.shape[1] * height / image.shape[0])
  if wide < width:
    raise ValueError(
      f'A frame of {image.shape[0]}x{image.shape[1]} at the height {height} is '
      f'{wide} wide; {width} are needed.'
    )
  resized = Image.fromarray(image).resize(
    (wide, height), Image.Resampling.BILINEAR
  )
  left = (wide - width) // 2
  return np.asarray(resized)[:, left : left + width]


def antialiased(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Bilinear resizing with antialiasing (Pillow).

  Args:
    image: uint8 [H, W, C].
    size: the new (H, W).

  Returns:
    uint8 [*size, C].
  """
  if image.shape[:2] == tuple(size):
    return image
  height, width = size
  picture = Image.fromarray(image)
  return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Shrinks by a whole factor, as OpenCV's INTER_AREA: means of squares.

  Halves are rounded up for the factor 2, to even for others, as OpenCV does.

  Args:
    image: uint8 [H, W, C].
    size: the new (H, W), of which the old is a multiple, the same both ways.

  Returns:
    uint8 [*size, C].

  Raises:
    ValueError: if it is no such multiple.
  """
  if image.shape[:2] == tuple(size):
    return image
  height, width = size
  factor = image.shape[0] // height
  if image.shape[:2] != (factor * height, factor * width):
    raise ValueError(
      f'A frame of {image.shape[0]}x{image.shape[1]} is no multiple of '
      f'{height}x{width}, which averaging of squares needs.'
    )
  cv2 = _opencv()
  if cv2 is not None:
    return _by_opencv(cv2, image, size, cv2.INTER_AREA)
  total = np.zeros((height, width, *image.shape[2:]), np.int32)
  for i in range(factor):
    for j in range(factor):
      total += image[i::factor, j::factor]
  if factor == 2:
    return ((total + 2) >> 2).astype(np.uint8)
  return np.rint(total / factor**2).astype(np.uint8)


def crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The centre of an image, without resizing.

  Args:
    image: uint8 [H, W, C].
    size: (H, W) of the part.

  Returns:
    uint8 [*size, C].

  Raises:
    ValueError: if the image is too small.
  """
  top, left = ((n - m) // 2 for n, m in zip(image.shape[:2], size))
  if top < 0 or left < 0:
    raise ValueError(
      f'A frame of {image.shape[0]}x{image.shape[1]} is too small for a part '
      f'of {size[0]}x{size[1]}.'
    )
  return image[top : top + size[0], left : left + size[1]]


def _cubic_weights(old: int, new: int):
  """For each new position, four old positions [4, new] and their weights."""
  place = (np.arange(new) + 0.5) * (old / new) - 0.5
  low = np.floor(place).astype(np.int32)
  taps = np.arange(-1, 3)[:, None]
  distance = np.abs(place - low - taps)
  a = -0.75
  near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
  far = (((distance - 5) * distance + 8) * distance - 4) * a
  weights = np.where(distance <= 1, near, far).astype(np.float32)
  return np.clip(low + taps, 0, old - 1), weights
