"""Norpix `.seq` files whose frames are JPEG, as of Caltech Pedestrian.

Little-endian. A header of 1024 bytes: the number 0xFEED, `Norpix seq` in
UTF-16, at byte 548 nine numbers of 4 bytes (width, height, bits of a pixel,
bits of a value, bytes of a frame, format, number of frames, zero, true bytes of
a frame) and the rate as a double. Then the frames: bytes of the frame with
these four, a JPEG file, and a time stamp of 8 bytes, in some files of 16.

FFmpeg's demuxer for JPEG finds the same frames, but interpolates the halved
colours in another way than libjpeg, with which the data set was prepared: by up
to 40 levels on a photograph. So they are read here, and decoded by libjpeg.
"""

import io
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from vidpred_jax.data.files import reading

_HEADER = 1024
# Of seqIo in Dollar's toolbox: JPEG, grey and coloured.
_JPEG = (102, 201)
_STAMPS = (8, 16, 6)


class Header(NamedTuple):
  """The header of a file.

  Attributes:
    height: of a frame.
    width: of a frame.
    num_frames: how many there are; 0 if it does not say.
    fps: frames per second.
  """

  height: int
  width: int
  num_frames: int
  fps: float


def probe(path) -> Header:
  """Reads the header.

  Raises:
    ValueError: if it is no such file.
    FileNotFoundError: if there is none.
  """
  with open(path, 'rb') as file:
    data = file.read(_HEADER)
  if len(data) < _HEADER or data[:4] != struct.pack('<I', 0xFEED):
    raise ValueError(f'{path} is no Norpix seq file.')
  width, height, _, _, _, code, number, _, _, fps = struct.unpack_from(
    '<9Id', data, 548
  )
  if code not in _JPEG:
    raise ValueError(
      f'{path} has frames of the format {code}; only JPEG, '
      f'{" or ".join(map(str, _JPEG))}, is read.'
    )
  return Header(height, width, number, fps)


def count(path) -> int:
  """Counts the complete frames of a file.

  Raises:
    ValueError: if there are none.
  """
  total = os.path.getsize(path)
  with open(path, 'rb') as file:
    number = sum(place + size <= total for place, size in _places(file))
  if not number:
    raise ValueError(f'{path} has no frames.')
  return number


def read(path, numbers) -> np.ndarray:
  """Reads frames by ascending numbers; frames in between are skipped.

  Returns:
    uint8 [T, H, W, 3].

  Raises:
    ValueError: if the file is damaged or has no such frames.
  """
  probe(path)
  numbers = list(numbers)
  frames, number = [], -1
  with open(path, 'rb') as file:
    for number, (place, size) in enumerate(_places(file)):
      if number in numbers:
        file.seek(place + 4)
        frames.append(decoded(path, number, file.read(size - 4)))
      if number == numbers[-1]:
        return np.stack(frames)
  raise ValueError(
    f'{path} has {number + 1} frames; frame {numbers[-1]} was asked for.'
  )


def _places(file) -> Iterator[tuple[int, int]]:
  """The position and the size of each frame, in bytes."""
  place, stamp = _HEADER, None
  while (size := _size(file, place)) is not None:
    yield place, size
    place += size
    if stamp is None:
      stamps = (s for s in _STAMPS if _size(file, place + s) is not None)
      stamp = next(stamps, _STAMPS[0])
    place += stamp


def _size(file, place: int) -> int | None:
  """The size of the frame at `place` in bytes; None if it is no JPEG."""
  file.seek(place)
  data = file.read(6)
  if len(data) < 6 or data[4:] != b'\xff\xd8':
    return None
  return struct.unpack_from('<I', data)[0]


def decoded(path, number: int, data: bytes) -> np.ndarray:
  """Decodes a JPEG file to uint8 [H, W, 3]; errors name `path` and `number`."""
  with reading(f'Frame {number} of {path}', 'JPEG file'):
    with Image.open(io.BytesIO(data)) as image:
      return np.asarray(image.convert('RGB'))
