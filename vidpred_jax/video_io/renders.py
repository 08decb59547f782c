"""Files of renderers, OpenEXR and Radiance: whether all of them is there.

FFmpeg decodes what it finds. Rows that are lost would be black, and Radiance in
other colours or from another corner would be another picture.

Source: the file layouts of OpenEXR (https://openexr.com) and of Radiance
(https://radsite.lbl.gov/radiance/refer/filefmts.pdf).
"""

import re
import struct
import zlib
from typing import NamedTuple

_TILED, _DEEP, _PARTS = 0x200, 0x800, 0x1000
# Rows of a chunk, by the number of the compression.
_ROWS = (1, 1, 1, 16, 32, 16, 32, 32, 32, 256)
_ZIP = (2, 3)
_BYTES = (4, 2, 4)  # of a number: whole, half, single


class _Head(NamedTuple):
  """The attributes of an EXR file, and where its table of chunks begins."""

  attributes: dict[bytes, bytes]
  end: int


def check_exr(data: bytes) -> None:
  """Raises ValueError if a chunk of an EXR file is not there.

  The place, the size and the name of each chunk are compared, and the sum of
  those that are zipped. Files of several parts are not checked.

  Args:
    data: the file.

  Raises:
    ValueError: if it is damaged, or deep: with several depths of a pixel.
  """
  try:
    (flags,) = struct.unpack_from('<I', data, 4)
    if flags & _DEEP:
      raise ValueError('it is deep EXR, of several depths of a pixel')
    if flags & _PARTS:
      return
    head = _head(data)
    most = (len(data) - head.end) // 8
    names, sizes = _chunks(head.attributes, bool(flags & _TILED), most)
    offsets = struct.unpack_from(f'<{len(names)}Q', data, head.end)
    is_zip = head.attributes[b'compression'][0] in _ZIP
    for name, size, at in zip(names, sizes, offsets):
      found = struct.unpack_from(f'<{len(name)}i', data, at)
      at += 4 * len(name)
      (length,) = struct.unpack_from('<i', data, at)
      at += 4
      if found != name or length < 1 or at + length > len(data):
        raise ValueError(f'its chunk at {name} is cut off or damaged')
      if is_zip and length < size:  # larger ones are stored as they are
        packing = zlib.decompressobj()
        packing.decompress(data[at : at + length], size + 1)
        if not packing.eof:
          raise ValueError(f'its chunk at {name} is cut off or damaged')
  except (struct.error, IndexError, KeyError, OverflowError, zlib.error) as e:
    raise ValueError(f'it is cut off or damaged: {e}') from e


def _head(data: bytes) -> _Head:
  at, attributes = 8, {}
  while data[at]:
    name, _, rest = data[at : at + 512].partition(b'\0')
    kind, _, _ = rest.partition(b'\0')
    at += len(name) + len(kind) + 2
    (length,) = struct.unpack_from('<I', data, at)
    attributes[name] = data[at + 4 : at + 4 + length]
    at += 4 + length
  return _Head(attributes, at + 1)


def _chunks(
  attributes: dict[bytes, bytes], is_tiled: bool, most: int
) -> tuple[list[tuple[int, ...]], list[int]]:
  """The names of the chunks of the full size, and their bytes unpacked.

  Of a row of pixels the name is `(y,)`; of a tile it is its column, its row and
  two levels of size. There may be as many as their table has room for.
  """
  left, top, right, bottom = struct.unpack('<4i', attributes[b'dataWindow'])
  width, height = right - left + 1, bottom - top + 1
  pixel = _bytes_of_pixel(attributes[b'channels'])
  if is_tiled:
    across, down = struct.unpack_from('<2I', attributes[b'tiles'])
    columns, rows = range(0, width, across), range(0, height, down)
    if len(columns) * len(rows) > most:
      raise ValueError('its table of chunks is cut off')
    names: list[tuple[int, ...]] = [
      (x, y, 0, 0) for y in range(len(rows)) for x in range(len(columns))
    ]
    return names, [
      min(across, width - x * across) * min(down, height - y * down) * pixel
      for x, y, *_ in names
    ]
  step = _ROWS[attributes[b'compression'][0]]
  rows = range(top, bottom + 1, step)
  if len(rows) > most:
    raise ValueError('its table of chunks is cut off')
  return [(y,) for y in rows], [
    min(step, bottom + 1 - y) * width * pixel for y in rows
  ]


def _bytes_of_pixel(channels: bytes) -> int:
  at = total = 0
  while channels[at]:
    at = channels.index(b'\0', at) + 1
    total += _BYTES[channels[at]]
    at += 16
  return total


def check_radiance(data: bytes) -> None:
  """Raises ValueError if a Radiance file is not RGB from the top left.

  Args:
    data: its begin, with the whole header.
  """
  head, _, rest = data.partition(b'\n\n')
  kinds = re.findall(rb'^FORMAT=(.*?)\s*$', head, re.MULTILINE)
  size = rest.partition(b'\n')[0]
  if any(kind != b'32-bit_rle_rgbe' for kind in kinds):
    raise ValueError(
      f'its FORMAT is {kinds[-1][:40].decode("latin-1")}; expected '
      '32-bit_rle_rgbe'
    )
  if not re.fullmatch(rb'-Y \d+ \+X \d+\s*', size):
    raise ValueError(
      f'its size is {size[:40].decode("latin-1")!r}; expected -Y height +X '
      'width, rows from the top left'
    )
