"""Moving layers of pictures, and their exact flow.

A layer is a texture with a map for each frame. The first layer covers the whole
frame; the others are visible within their mask. Maps are affine, [2, 3], of
coordinates (x, y) from the corner of the first pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

DENSITY = 2  # texture pixels per clip pixel


class Layer(NamedTuple):
  """A moving picture.

  Attributes:
    texture: RGB image.
    maps: [T, 2, 3], clip coordinates (x, y) to texture coordinates; both count
      from the corner of the first pixel.
    mask: opacity, an image like the texture; None if opaque everywhere.
  """

  texture: Image.Image
  maps: np.ndarray
  mask: Image.Image | None


def moment(
  layers: Sequence[Layer], size: tuple[int, ...], t: int, after: float
) -> tuple[np.ndarray, np.ndarray]:
  """Renders the layers at one time; also returns their opacity.

  Args:
    layers: back to front.
    size: (H, W) of the frame.
    t: number of the frame.
    after: how much later than frame `t`, in frames.

  Returns:
    float32 [H, W, 3] in [0, 255], and float32 [L, H, W] in [0, 1].
  """
  picture = np.zeros((*size, 3), np.float32)
  alphas: list[np.ndarray] = []
  for layer in layers:
    place = layer.maps[t]
    if after:
      other = t + 1 if t + 1 < len(layer.maps) else t - 1
      place = place + after * (other - t) * (layer.maps[other] - place)
    image = _sample(layer.texture, place, size)
    if layer.mask is None:
      picture = image.astype(np.float32)
      alphas.append(np.ones(size, np.float32))
      continue
    alpha = _sample(layer.mask, place, size) / np.float32(255)
    picture += alpha[:, :, None] * (image - picture)
    alphas.append(alpha)
  return picture, np.stack(alphas)


def flow(
  layers: Sequence[Layer], alphas: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
  """The exact flow, from the layers' maps.

  Args:
    layers: back to front.
    alphas: [T, L, H, W], their opacities.
    pairs: P pairs (of, into) of frames.

  Returns:
    float32 [P, H, W, 2], NaN where there is none.
  """
  _, num_layers, height, width = alphas.shape
  x = np.arange(width, dtype=np.float32)[None, :, None] + 0.5
  y = np.arange(height, dtype=np.float32)[:, None, None] + 0.5
  order = np.arange(num_layers)[:, None, None]
  # The layer on top at each pixel, and -1 where two layers mix.
  tops = np.where(alphas > 0.5, order, 0).max(1)
  mixed = ((alphas > 0) & (alphas < 1) & (order >= tops[:, None])).any(1)
  pure = np.where(mixed, -1, tops)

  result = np.full((len(pairs), height, width, 2), np.nan, np.float32)
  for p, (of, into) in enumerate(pairs):
    for k, layer in enumerate(layers):
      there, here = layer.maps[into], layer.maps[of]
      back = np.linalg.solve(there[:, :2], here - [[0, 0, 1]] * there[:, 2:])
      across, down, shift = back.T.astype(np.float32)
      place = across * x + down * y + shift
      # All four pixels that bilinear sampling reads must show this layer.
      corner = np.floor(place - 0.5).astype(np.int32)
      valid = ((corner >= 0) & (corner < (width - 1, height - 1))).all(-1)
      valid &= pure[of] == k
      i = np.clip(corner[..., 1], 0, height - 2)
      j = np.clip(corner[..., 0], 0, width - 2)
      for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
        valid &= pure[into, i + di, j + dj] == k
      away = (across - [1, 0]) * x + (down - [0, 1]) * y + shift
      result[p][valid] = away[valid]
  return result


def _sample(image: Image.Image, place: np.ndarray, size) -> np.ndarray:
  """Samples an image at affine positions bilinearly, zero outside; uint8."""
  height, width = size
  return np.asarray(
    image.transform(
      (width, height),
      Image.Transform.AFFINE,
      tuple(place.ravel()),
      Image.Resampling.BILINEAR,
    )
  )
