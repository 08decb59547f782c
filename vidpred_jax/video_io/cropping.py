"""Crop flags of containers: rows and columns outside the shown picture.

They are Matroska's PixelCrop* and the clean aperture (`clap`) of MP4 and
QuickTime. FFmpeg reads them, but PyAV does not expose them.
"""

import pathlib
import struct

from vidpred_jax.video_io.matroska import element

Crop = tuple[int, int, int, int]  # top, bottom, left, right
_NONE = (0, 0, 0, 0)
_MOST = 1 << 26  # bytes of a header


def read(path: pathlib.Path, format_name: str, number: int) -> Crop:
  """Reads the crop flags of a file's video stream.

  Args:
    path: the file.
    format_name: FFmpeg's name of the container.
    number: of the stream among all streams of the file.
  """
  names = format_name.split(',')
  with open(path, 'rb') as file:
    try:
      if 'matroska' in names:
        crops = _matroska(file, path.stat().st_size)
      elif 'mov' in names:
        crops = _mov(file, path.stat().st_size)
      else:
        return _NONE
    except (IndexError, struct.error, ZeroDivisionError):
      return _NONE  # damaged; FFmpeg says so where it matters
  return crops[number] if number < len(crops) else _NONE


def _matroska(file, size: int) -> list[Crop]:
  """Of each track."""
  begin, end = _child(file, 0, size, 0x18538067) or (0, 0)
  tracks = _child(file, begin, end, 0x1654AE6B)
  if tracks is None:
    return []
  crops = []
  for kind, first, last in _children(file, *tracks):
    if kind != 0xAE:
      continue
    crop = dict.fromkeys((0x54BB, 0x54AA, 0x54CC, 0x54DD), 0)
    video = _child(file, first, last, 0xE0)
    for name, a, b in _children(file, *video) if video else ():
      if name in crop:
        file.seek(a)
        crop[name] = int.from_bytes(file.read(b - a), 'big')
    top, bottom, left, right = crop.values()
    crops.append((top, bottom, left, right))
  return crops


def _child(file, at: int, end: int, wanted: int):
  tracks = ((a, b) for kind, a, b in _children(file, at, end) if kind == wanted)
  return next(tracks, None)


def _children(file, at: int, end: int):
  """(kind, begin, end) of EBML elements, up to the first cluster of frames."""
  while at < end:
    file.seek(at)
    head = file.read(20)
    if len(head) < 2:
      return
    kind, size, used = element(head)
    if kind is None or kind == 0x1F43B675:
      return
    last = end if size is None else min(at + used + size, end)
    yield kind, at + used, last
    at = last


def _mov(file, size: int) -> list[Crop]:
  """Of each track."""
  at = 0
  while at + 8 <= size:
    file.seek(at)
    head = file.read(16)
    length = int.from_bytes(head[:4], 'big')
    if length == 1:
      length = int.from_bytes(head[8:], 'big')
    if head[4:8] == b'moov' and length <= _MOST:
      file.seek(at)
      return [_track(t) for t in _boxes(file.read(length), 8, b'trak')]
    if length < 8:
      break
    at += length
  return []


def _boxes(data: bytes, at: int, wanted: bytes) -> list[bytes]:
  boxes = []
  while at + 8 <= len(data):
    length = int.from_bytes(data[at : at + 4], 'big')
    if length < 8:
      break
    if data[at + 4 : at + 8] == wanted:
      boxes.append(data[at : at + length])
    at += length
  return boxes


def _track(data: bytes) -> Crop:
  for name in (b'mdia', b'minf', b'stbl', b'stsd'):
    boxes = _boxes(data, 8, name)
    if not boxes:
      return _NONE
    data = boxes[0]
  entry = data[16:]
  boxes = _boxes(entry, 86, b'clap')
  if not boxes:
    return _NONE
  width, height = struct.unpack('>HH', entry[32:36])
  numbers = struct.unpack('>IIIIiIiI', boxes[0][8:40])
  inner_w, inner_h, x, y = (n / d for n, d in zip(numbers[::2], numbers[1::2]))
  left, top = (width - inner_w) / 2 + x, (height - inner_h) / 2 + y
  right, bottom = width - inner_w - left, height - inner_h - top
  crop = tuple(round(v) for v in (top, bottom, left, right))
  return crop if min(crop) >= 0 else _NONE
