"""YUV4MPEG2 files (`.y4m`): random access to frames by number.

All frames have the same size, so any frame is read directly, also in a file
that ends early. Supported are 4:2:0 in 8 or 10 bits, limited range. The
conversion to RGB is that of `ffmpeg -pix_fmt rgb24` by default. On x86 it is 1
to 2 levels darker than exact arithmetic, which `video_io` uses.
"""

import os
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation

_FORMATS: dict[str, tuple[str, np.dtype]] = {
  '420': ('yuv420p', np.dtype(np.uint8)),
  '420jpeg': ('yuv420p', np.dtype(np.uint8)),
  '420mpeg2': ('yuv420p', np.dtype(np.uint8)),
  '420p10': ('yuv420p10le', np.dtype('<u2')),
}
_FRAME = b'FRAME\n'
_LIKE_FFMPEG = int(Interpolation.BICUBIC)


class Info(NamedTuple):
  """The header of a file.

  Attributes:
    height: of a frame, even.
    width: of a frame, even.
    form: FFmpeg's name of the pixel format.
    dtype: of its samples.
    begin: bytes before the first frame.
    stride: bytes from frame to frame.
    num_frames: how many frames are there whole.
  """

  height: int
  width: int
  form: str
  dtype: np.dtype
  begin: int
  stride: int
  num_frames: int


def probe(path: str | os.PathLike) -> Info:
  """Reads the header.

  Raises:
    ValueError: if it is no such file, or of a format that is not read here.
    FileNotFoundError: if there is no file.
  """
  with open(path, 'rb') as file:
    line = file.readline(1024)
  fields = {f[:1]: f[1:] for f in line.decode('latin-1').split()[1:]}
  width, height = fields.get('W', ''), fields.get('H', '')
  whole = line.startswith(b'YUV4MPEG2 ') and line.endswith(b'\n')
  if not (whole and width.isdigit() and height.isdigit()):
    raise ValueError(f'{path} is damaged or no y4m file.')
  kind = fields.get('C', '420jpeg')
  if kind not in _FORMATS:
    raise ValueError(
      f'{path} holds {kind}; expected one of {", ".join(_FORMATS)}.'
    )
  form, dtype = _FORMATS[kind]
  height, width = int(height), int(width)
  if height % 2 or width % 2:
    raise ValueError(f'{path} has frames of {height}x{width}; expected even.')
  stride = len(_FRAME) + height * width * 3 // 2 * dtype.itemsize
  number = (os.path.getsize(path) - len(line)) // stride
  return Info(height, width, form, dtype, len(line), stride, number)


def read(path: str | os.PathLike, numbers: range) -> np.ndarray:
  """Reads the frames `numbers`.

  Returns:
    uint8 [T, H, W, 3].

  Raises:
    ValueError: as `probe`, and if there are not so many frames.
    FileNotFoundError: if there is no file.
  """
  info = probe(path)
  if numbers[-1] >= info.num_frames:
    raise ValueError(
      f'{path} has {info.num_frames} frames; frame {numbers[-1]} was asked for.'
    )
  frames = []
  with open(path, 'rb') as file:
    for k in numbers:
      file.seek(info.begin + k * info.stride)
      data = file.read(info.stride)
      if not data.startswith(_FRAME):
        raise ValueError(
          f'{path} is damaged, or its frames carry settings: frame {k} does '
          'not begin where it should.'
        )
      samples = np.frombuffer(data, info.dtype, offset=len(_FRAME))
      frames.append(_rgb(samples, info))
  return np.stack(frames)


def _rgb(samples: np.ndarray, info: Info) -> np.ndarray:
  """Converts the planes of one frame to RGB, uint8 [H, W, 3]."""
  frame = av.VideoFrame(info.width, info.height, info.form)
  begin = 0
  for plane in frame.planes:
    shape = plane.height, plane.width
    part = samples[begin : begin + shape[0] * shape[1]].reshape(shape)
    # Rows of the plane may be longer than what they show.
    rows = np.frombuffer(memoryview(plane), info.dtype).reshape(shape[0], -1)
    rows[:, : shape[1]] = part
    begin += part.size
  return frame.reformat(format='rgb24', interpolation=_LIKE_FFMPEG).to_ndarray()
