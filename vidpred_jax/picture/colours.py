"""One array as one picture: images, flow, numbers, used blocks, shares."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (24, 26, 30)
TEXT = (235, 235, 235)
FAINT = (84, 88, 96)
USED = (255, 176, 59)
FONT_SIZE = 15


def to_rgb(image: np.ndarray) -> np.ndarray:
  """Converts an image to uint8 RGB.

  Args:
    image: `[..., H, W, C]` with C 1 or 3, uint8, or float in [0, 1] (clipped).

  Returns:
    uint8 `[..., H, W, 3]`.

  Raises:
    ValueError: if the array is not an image.
  """
  image = np.asarray(image)
  if image.ndim < 3 or image.shape[-1] not in (1, 3):
    raise ValueError(
      f'An image is [H, W, 1] or [H, W, 3], got shape {image.shape}.'
    )
  if image.dtype != np.uint8:
    if not np.issubdtype(image.dtype, np.floating):
      raise ValueError(f'An image is uint8 or float, got {image.dtype}.')
    image = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
  return np.broadcast_to(image, image.shape[:-1] + (3,))


def _colour_wheel() -> np.ndarray:
  """The 55 colours `[55, 3]` of Baker et al.'s wheel, red first."""
  wheel = []
  # From one pure colour to the next: a channel rises, or one falls.
  for steps, start, channel, sign in (
    (15, (255, 0, 0), 1, 1),  # red to yellow
    (6, (255, 255, 0), 0, -1),  # to green
    (4, (0, 255, 0), 2, 1),  # to cyan
    (11, (0, 255, 255), 1, -1),  # to blue
    (13, (0, 0, 255), 0, 1),  # to magenta
    (6, (255, 0, 255), 2, -1),  # back to red
  ):
    for i in range(steps):
      colour = list(start)
      colour[channel] += sign * (255 * i // steps)
      wheel.append(colour)
  return np.array(wheel, np.float64)


def flow_to_rgb(
  flow: np.ndarray, max_magnitude: float | None = None
) -> np.ndarray:
  """Optical flow as colours, with the colour wheel of the Middlebury benchmark.

  Hue is the direction (right red, down yellow, left cyan, up violet);
  saturation is the length, so no motion is white. Vectors longer than
  `max_magnitude` are darkened; vectors that are not finite are black.

  Args:
    flow: `[..., H, W, 2]`, (dx, dy) in pixels.
    max_magnitude: length in pixels of full saturation; the longest finite
      vector by default.

  Returns:
    uint8 `[..., H, W, 3]`.

  References:
    Baker et al., A Database and Evaluation Methodology for Optical Flow, 2011.
  """
  flow = np.asarray(flow, np.float64)
  if flow.ndim < 3 or flow.shape[-1] != 2:
    raise ValueError(f'Flow is [H, W, 2], got shape {flow.shape}.')
  finite = np.isfinite(flow).all(-1, keepdims=True)
  flow = np.where(finite, flow, 0)
  length = np.hypot(flow[..., 0], flow[..., 1])
  if max_magnitude is None:
    max_magnitude = largest_magnitude(flow)
  length = length / max(max_magnitude, 1e-9)
  wheel = _colour_wheel() / 255
  turn = (np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi + 1) / 2
  position = turn * (len(wheel) - 1)
  low = np.floor(position).astype(int)
  fraction = (position - low)[..., None]
  high = (low + 1) % len(wheel)
  colour = (1 - fraction) * wheel[low] + fraction * wheel[high]
  length = length[..., None]
  colour = np.where(
    length <= 1 + 1e-9, 1 - length * (1 - colour), 0.75 * colour
  )
  return np.floor(255 * np.where(finite, colour, 0)).astype(np.uint8)


def largest_magnitude(flow: np.ndarray) -> float:
  """The length of the longest finite vector; 0 without any.

  Args:
    flow: `[..., 2]`, in pixels.

  Returns:
    In pixels.
  """
  length = np.hypot(flow[..., 0], flow[..., 1])
  return float(np.max(length, where=np.isfinite(length), initial=0))


def colour_wheel(side: int) -> np.ndarray:
  """The key to flow as colours: a disc that shows the vector to each place.

  Args:
    side: of the picture, in pixels. At the rim colours are full: vectors as
      long as the `max_magnitude` of `flow_to_rgb`.

  Returns:
    uint8 `[side, side, 3]`.
  """
  axis = (np.arange(side) + 0.5) * (2 / side) - 1
  vectors = np.stack(np.meshgrid(axis, axis), -1)
  inside = np.hypot(*np.moveaxis(vectors, -1, 0)) <= 1
  disc = flow_to_rgb(vectors, 1.0)
  return np.where(inside[..., None], disc, np.array(BACKGROUND, np.uint8))


def block_bars(blocks: np.ndarray, height: int, width: int) -> np.ndarray:
  """The use of blocks as a row of bars numbered from 1.

  Args:
    blocks: `[K]` in [0, 1]: 1 for a used block, 0 for a skipped one; values in
      between are the fraction of runs that used it.
    height: of the picture.
    width: of the picture.

  Returns:
    uint8 `[height, width, 3]`: a bar is filled up to its value.
  """
  blocks = np.clip(np.asarray(blocks, np.float64).reshape(-1), 0, 1)
  image = Image.new('RGB', (width, height), BACKGROUND)
  draw = ImageDraw.Draw(image)
  label = f'{blocks.sum():.3g} of {len(blocks)} used'
  size = max(FONT_SIZE, height // 24)
  font, line = ImageFont.load_default(size), size + 9
  lines = line if height > 3 * line else 0
  top, bottom = lines + 2, height - lines - 3
  if lines:
    draw.text((width / 2, 4), label, TEXT, font, anchor='ma')
  slot = width / max(len(blocks), 1)
  for i, share in enumerate(blocks):
    left, right = i * slot + slot * 0.12, (i + 1) * slot - slot * 0.12
    draw.rectangle((left, top, right, bottom), outline=FAINT)
    if share > 0:
      level = bottom - share * (bottom - top)
      draw.rectangle((left, level, right, bottom), fill=USED)
    if lines and slot >= 12:
      draw.text(
        (left / 2 + right / 2, height - line + 4),
        str(i + 1),
        TEXT if share > 0 else FAINT,
        font,
        anchor='ma',
      )
  return np.asarray(image)


def heatmap(values: np.ndarray, largest: float) -> np.ndarray:
  """A map of numbers as colours: 0 is black, then red, yellow and white.

  Args:
    values: `[H, W]`.
    largest: the value that is white; larger values are white too.

  Returns:
    uint8 `[H, W, 3]`.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2 or largest <= 0:
    raise ValueError(
      f'A map is [H, W] with a positive number for white, got shape '
      f'{values.shape} and {largest}.'
    )
  part = 3 * np.clip(values / largest, 0, 1)[..., None] - np.arange(3)
  return np.rint(255 * np.clip(part, 0, 1)).astype(np.uint8)


def histogram(
  shares: Sequence[float], *, height: int = 200, width: int = 400
) -> np.ndarray:
  """A rank histogram: a bar for each rank, and a line at the uniform share.

  Args:
    shares: one for each rank, summing to 1.
    height: of the picture.
    width: of the picture.

  Returns:
    uint8 `[height, width, 3]`.
  """
  image = Image.new('RGB', (width, height), BACKGROUND)
  draw = ImageDraw.Draw(image)
  flat, slot = 1 / len(shares), width / len(shares)
  unit = (height - 4) / max(2 * flat, *shares)
  for i, share in enumerate(shares):
    left = i * slot + slot * 0.06
    draw.rectangle(
      (left, height - 1 - share * unit, left + slot * 0.88, height - 1),
      fill=USED,
    )
  level = height - 1 - flat * unit
  draw.line((0, level, width, level), fill=TEXT)
  return np.asarray(image)
