"""Camera effects: motion blur, changes of light, sensor noise, JPEG coding.

Motion is blurred while the shutter is open. Each clip draws the strength of an
effect, up to the given one; 0 changes nothing and draws nothing.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vidpred_jax.data.layers import DENSITY, Layer, moment


def exposed(
  rng: np.random.Generator,
  layers: Sequence[Layer],
  size: tuple[int, ...],
  shutter: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Renders the frames with motion blur while the shutter is open.

  Args:
    rng: draws the exposure.
    layers: back to front.
    size: (H, W).
    shutter: longest exposure, as a share of the time between frames.

  Returns:
    float32 [T, H, W, 3] in [0, 255], and the opacity of each layer
    [T, L, H, W] in the middle of the exposure.
  """
  exposure = rng.uniform(0, shutter) if shutter else 0.0
  times = range(len(layers[0].maps))
  frames, alphas = zip(*(_frame(layers, size, t, exposure) for t in times))
  return np.stack(frames), np.stack(alphas)


def _frame(layers, size, t: int, exposure: float):
  """Renders frame t; also returns the layers' opacity."""
  sharp, alphas = moment(layers, size, t, 0.0)
  if not exposure or len(layers[0].maps) < 2:
    return sharp, alphas
  # About one picture for every two pixels that the middle of the frame moves.
  height, width = size
  middle = np.array([width / 2, height / 2, 1])
  near = [t - 1, t] if t else [t, t + 1]
  moved = [np.diff(layer.maps[near] @ middle, axis=0) for layer in layers]
  reach = exposure * np.abs(moved).max() / DENSITY
  pairs = min(4, math.ceil(reach / 4))
  pictures = [sharp]
  for k in range(pairs):
    after = exposure / 2 * (k + 1) / pairs
    pictures += [moment(layers, size, t, s * after)[0] for s in (-1, 1)]
  return sum(pictures[1:], sharp) / np.float32(len(pictures)), alphas


def lit(
  rng: np.random.Generator, video: np.ndarray, change: float
) -> np.ndarray:
  """Changes contrast and brightness evenly in time.

  Args:
    rng: draws the change.
    video: float32 [T, H, W, 3] in [0, 255].
    change: the greatest change of contrast and, as a share of white, of
      brightness over the clip.

  Returns:
    float32 [T, H, W, 3], beyond [0, 255] where the light is too bright or dark.
  """
  if not change:
    return video
  time = np.linspace(-0.5, 0.5, len(video), dtype=np.float32)
  gain, shift = rng.uniform(-change, change, 2)
  time = time[:, None, None, None]
  video = 128 + (video - 128) * (1 + np.float32(gain) * time)
  video += np.float32(255 * shift) * time
  return video


def noisy(
  rng: np.random.Generator, video: np.ndarray, level: float
) -> np.ndarray:
  """Adds noise of a standard deviation up to `level`, to float32 video."""
  if not level:
    return video
  drawn = np.float32(rng.uniform(0, level))
  return video + drawn * rng.standard_normal(video.shape, np.float32)


def coded(
  rng: np.random.Generator, video: np.ndarray, chance: float
) -> np.ndarray:
  """Codes a clip as JPEG with a probability, at a quality from 40 to 95.

  Args:
    rng: draws whether and how.
    video: uint8 [T, H, W, 3].
    chance: the probability.

  Returns:
    uint8 [T, H, W, 3].
  """
  if not chance or rng.uniform() >= chance:
    return video
  quality = int(rng.integers(40, 96))
  return np.stack([_jpeg(frame, quality) for frame in video])


def _jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
  """Codes a frame [H, W, 3] as JPEG and decodes it."""
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, 'jpeg', quality=quality)
  with Image.open(buffer) as image:
    return np.asarray(image)
