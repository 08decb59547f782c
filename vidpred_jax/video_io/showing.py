"""Converts decoded frames for display: rotated, cropped, in RGB.

Colours follow the frame's tags. Frames without tags are read as players read
them: BT.709 if wider than 1279 or higher than 576 pixels, else BT.601. High
dynamic range (PQ, HLG) is mapped to the standard range unless it is kept.
"""

import numbers
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation

from vidpred_jax.video_io import hdr, levels

# Without these flags conversion darkens by 0.5 to 3 levels.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
ACCURATE = int(_EXACT | Interpolation.BILINEAR)
_RESIZE = int(_EXACT | Interpolation.BICUBIC)  # widened when it shrinks
_SIDE = 32768  # pixels
_UNSAID = (0, 2, 3)  # matrices: of RGB, not said, reserved


class View(NamedTuple):
  """The parameters for the display of a file's frames.

  Attributes:
    turn: (a, b, c, d): (x, y) -> (a x + c y, b x + d y), by right angles.
    crop: rows and columns that are no part of the picture: at the top, at the
      bottom, at the left, at the right, before it is turned.
    curve: 'pq' or 'hlg' of high dynamic range, None of standard range.
    keep: whether high dynamic range is kept: frames are uint16 then.
  """

  turn: tuple[int, int, int, int] = (1, 0, 0, 1)
  crop: tuple[int, int, int, int] = (0, 0, 0, 0)
  curve: str | None = None
  keep: bool = False

  @property
  def swaps(self) -> bool:
    """Whether rows become columns."""
    a, b, c, d = self.turn
    return abs(b) + abs(c) == 2 and abs(a) + abs(d) == 0


def view(frame, crop=(0, 0, 0, 0), keep: bool = False) -> View:
  """The `View` of a file with this first frame.

  To be asked once per file: PyAV's side data keep a frame alive until the
  garbage collector runs.
  """
  matrix = _without_tags(frame).side_data.get('DISPLAYMATRIX')
  turn = (1, 0, 0, 1)
  if matrix is not None:
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5])
    turn = int(a), int(b), int(c), int(d)
  top, bottom, left, right = crop
  if top + bottom >= frame.height or left + right >= frame.width:
    crop = (0, 0, 0, 0)
  return View(turn, crop, hdr.CURVES.get(frame.color_trc), keep)


def _without_tags(frame):
  """The frame without side data that have tags of their own.

  2026-11: PyAV 18 and 19 free these tags twice, and crash. The one kind that
  has them is a colour profile with a name, as in PNG.
  """
  graph = filtering(frame, 'sidedata', 'mode=delete:type=ICC_PROFILE')
  graph.push(frame)
  return graph.pull()


def filtering(frame, name: str, settings: str):
  """A graph of one of FFmpeg's filters, for frames like this one."""
  graph = av.filter.Graph()
  source = graph.add_buffer(
    width=frame.width,
    height=frame.height,
    format=frame.format,
    time_base=Fraction(1, 25),
  )
  middle = graph.add(name, settings)
  source.link_to(middle)
  middle.link_to(graph.add('buffersink'))
  graph.configure()
  return graph


def matrix_by_size(height: int, width: int) -> str:
  """PyAV's name of the colour matrix that players use without a tag."""
  return 'ITU709' if width >= 1280 or height > 576 else 'ITU601'


def shape(frame, shown: View) -> tuple[int, int]:
  """The size (H, W) of a frame for display."""
  top, bottom, left, right = shown.crop
  size = frame.height - top - bottom, frame.width - left - right
  return size[::-1] if shown.swaps else size


def check_size(size: tuple[int, int] | None) -> None:
  """Raises ValueError unless frames can be resized to (H, W); None for not."""
  if size is None:
    return
  is_pair = isinstance(size, tuple | list) and len(size) == 2
  if not is_pair or not all(
    isinstance(x, numbers.Integral) and 1 <= x <= _SIDE for x in size
  ):
    raise ValueError(
      f'Got size={size!r}, expected height and width, 1 to {_SIDE} each.'
    )


def image(
  frame, shown: View, size: tuple[int, int] | None = None
) -> np.ndarray:
  """Converts an FFmpeg frame to RGB, uint8 [H, W, 3], resized to (H, W).

  uint16 (PQ or HLG code values times 65535) if high dynamic range is kept.
  """
  if levels.is_float(frame):
    frame = levels.of_floats(frame)
  form, flags = 'rgb24', ACCURATE
  settings: dict[str, Any] = {}
  parts = frame.format.components
  if frame.format.name == 'pal8' or any(part.is_alpha for part in parts):
    form = 'rgba'
  elif shown.curve is not None:
    # 2026-11: FFmpeg 8 makes other colours of 10 bits as rgb48le with _EXACT.
    form = 'gbrp16le'
  if not frame.format.is_rgb and frame.colorspace in _UNSAID and len(parts) > 2:
    settings['src_colorspace'] = matrix_by_size(frame.height, frame.width)
  top, bottom, left, right = shown.crop
  height, width = (size or (0, 0))[:: -1 if shown.swaps else 1]
  inner = frame.height - top - bottom, frame.width - left - right
  if size is not None and (height, width) != inner:
    flags = _RESIZE
    settings |= {
      'height': round(height * frame.height / inner[0]),
      'width': round(width * frame.width / inner[1]),
    }
  array = frame.reformat(
    format=form, interpolation=flags, **settings
  ).to_ndarray()
  if any(shown.crop):
    if size is None:
      height, width = inner
    top = round(top * array.shape[0] / frame.height)
    left = round(left * array.shape[1] / frame.width)
    array = array[top : top + height, left : left + width]
  if form == 'rgba':
    array = levels.over_black(array)
  elif shown.curve is not None and not shown.keep:
    array = hdr.to_standard(array, shown.curve)
  a, _, _, d = shown.turn
  if shown.swaps:
    _, b, c, _ = shown.turn
    array, a, d = array.transpose(1, 0, 2), c, b
  if a < 0:
    array = array[:, ::-1]
  if d < 0:
    array = array[::-1]
  return np.ascontiguousarray(array)
