"""Levels 0 to 255 of pictures of more than 8 bits, or with transparency.

Of floating point numbers 0 is black and 1 is white. Where they are amounts of
light, as in EXR, they get the curve of sRGB, as in viewers. Numbers outside are
refused: they would be black or white, and nobody has said how bright they are.
"""

import re
from collections.abc import Iterator

import av
import numpy as np
from PIL import Image

LINEAR = 8  # FFmpeg's number of numbers that are light
_FLOAT = re.compile(r'.*f(16|32)(le|be)')
_BAND = 1 << 20  # pixels to convert at once


def over_black(rgba: np.ndarray) -> np.ndarray:
  """RGBA uint8 [H, W, 4] laid over black, [H, W, 3]."""
  alpha = rgba[:, :, 3:].astype(np.uint16)
  return ((rgba[:, :, :3] * alpha + 127) // 255).astype(np.uint8)


def bands(height: int, width: int) -> Iterator[slice]:
  """Yields rows of few pixels, so that a large picture is not held twice."""
  step = max(1, _BAND // max(1, width))
  for begin in range(0, height, step):
    yield slice(begin, min(begin + step, height))


def grey(values: np.ndarray, image: Image.Image) -> np.ndarray:
  """Converts the values [H, W] of a grey picture to uint8.

  Args:
    values: of more than 8 bits, or floating point numbers.
    image: Pillow's, with the tags of TIFF.

  Raises:
    ValueError: if they are no colours.
  """
  tags = getattr(image, 'tag_v2', {})
  is_negative = tags.get(262) == 0  # 0 is white
  if values.dtype.kind == 'f':
    made = _of_floats(values)
    return 255 - made if is_negative else made
  # Tags of TIFF. MaxSampleValue is 4095 where 12 bits are stored in 16,
  # BitsPerSample is 12 where they are packed. Without either there is no sign.
  bits = int(np.ravel(tags.get(258, 16))[0])
  is_signed = int(np.ravel(tags.get(339, 1))[0]) == 2
  if values.dtype == np.int32 and bits == 32 and not is_signed:
    values = values.view(np.uint32)  # Pillow has none
  full = (1 << bits) - 1 if 8 < bits < 16 else 65535
  full = full >> 1 if is_signed and bits <= 16 else full
  white = int(np.ravel(tags.get(281, full))[0])
  low, high = values.min(initial=0), values.max(initial=0)
  if white < high or white < 256:
    white = full
  if low < 0 or high > white:
    raise ValueError(
      f'its numbers reach from {low} to {high}; expected 0 to {white}. Bring '
      'them to that range first'
    )
  made = _converted(
    values, lambda v: (v.astype(np.int64) * 255 + white // 2) // white
  )
  return 255 - made if is_negative else made


def _of_floats(values: np.ndarray, is_light: bool = False) -> np.ndarray:
  if not np.isfinite(values).all():
    raise ValueError('it has values that are not finite')
  low, high = values.min(initial=0), values.max(initial=0)
  if low < 0 or high > 1:
    raise ValueError(
      f'its numbers reach from {low:g} to {high:g}; expected 0 (black) to 1 '
      '(white). Bring them to that range first'
    )
  return _converted(
    values, lambda v: np.rint(255 * (_shown(v) if is_light else v))
  )


def _shown(light: np.ndarray) -> np.ndarray:
  """The curve of sRGB (IEC 61966-2-1)."""
  return np.where(
    light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
  )


def _converted(values: np.ndarray, convert) -> np.ndarray:
  made = np.empty(values.shape, np.uint8)
  for rows in bands(*values.shape[:2]):
    made[rows] = convert(values[rows])
  return made


def is_float(frame) -> bool:
  """Whether a frame of FFmpeg's holds floating point numbers."""
  return _FLOAT.fullmatch(frame.format.name) is not None


def of_floats(frame) -> av.VideoFrame:
  """Converts a frame of floating point numbers to RGB, laid over black.

  FFmpeg itself would cut off what is no colour, without a word. Light, as of
  EXR, is stored as it lies over black (associated alpha).

  Raises:
    ValueError: if they are no colours.
  """
  name = frame.format.name
  kind = ('<' if name.endswith('le') else '>') + (
    'f4' if '32' in name else 'f2'
  )
  planes = [  # some from the bottom
    np.frombuffer(p, kind).reshape(frame.height, -1)[:: np.sign(p.line_size)]
    for p in frame.planes
  ]
  parts = frame.format.components
  if len(planes) == 1:
    (plane,) = planes
    values = plane[:, : frame.width * len(parts)]
    values = values.reshape(frame.height, frame.width, len(parts))
  else:
    values = np.stack([planes[c.plane][:, : frame.width] for c in parts], -1)
  number = 3 if len(parts) > 2 else 1
  is_light = frame.color_trc == LINEAR
  rgb = _of_floats(values[..., :number], is_light)
  rgb = np.repeat(rgb, 3, -1) if number == 1 else rgb
  if len(parts) > number and not is_light:
    alpha = _of_floats(values[..., number:].clip(0, 1))
    rgb = over_black(np.concatenate([rgb, alpha], -1))
  return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), 'rgb24')
