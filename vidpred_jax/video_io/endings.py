"""Detects truncated files by the sizes that their containers declare.

A file is truncated if it declares a part that lies beyond its end: a packet, a
cluster, the footer, the whole. The number of frames or seconds in a header is
no evidence: null frames of AVI, edit lists and long last frames reduce the
number of decoded frames. A file that ends between two parts and declares no
size (a live recording) may be intact.

Each function of `_DECLARED` returns the least number of bytes that an intact
file has by what it declares, 0 if it declares nothing. It stops at what is no
part of its container: other programs append their own data, players stop there.
Those of `_READ_ALONE` return the place where they stop, since there a second
file may have been joined on, which FFmpeg passes over.
"""

import contextlib
import mmap
import pathlib
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from vidpred_jax.video_io import matroska, nut

# Recordings of broadcasts, which begin and end anywhere.
BROADCAST = frozenset({'mpegts', 'mpeg'})
_UNKNOWN = 0xFFFFFFFF


class Ending(NamedTuple):
  """How a file ends.

  Attributes:
    missing: a phrase such as '3000 of at least 5000 bytes are there'; None if
      none is known to be missing.
    joined: the place of a second file behind the first that is not read whole;
      None if there is none.
  """

  missing: str | None = None
  joined: int | None = None


def find(path: pathlib.Path, container, video) -> Ending:
  """Compares the end of a file with what it declares.

  Args:
    path: the file.
    container: PyAV's.
    video: its video stream, read to its end.
  """
  names = container.format.name.split(',')
  name = next((n for n in names if n in _DECLARED), None)
  if name is None:
    return Ending()
  with contents(path) as data:
    size = len(data)
    try:
      least = _DECLARED[name](data, video)
    except (IndexError, ValueError):
      return Ending()  # damaged where it matters; FFmpeg says so
    if least > size:
      return Ending(f'{size} of at least {least} bytes are there')
    if name == 'mov':
      return Ending(joined=_second_movie(data))
    head = _READ_ALONE.get(name)
    again = head and least and data[least : least + len(head)] == head
    return Ending(joined=least if again else None)


@contextlib.contextmanager
def contents(path: pathlib.Path):
  """All bytes of a file, without reading them all."""
  with (
    open(path, 'rb') as file,
    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
  ):
    yield data


def _big(data, at: int, number: int) -> int:
  return int.from_bytes(data[at : at + number], 'big')


def _little(data, at: int, number: int) -> int:
  return int.from_bytes(data[at : at + number], 'little')


# ------------------------------------------------------------- MP4, QuickTime


_BOXES = frozenset(
  b'ftyp styp moov moof mdat mfra sidx ssix emsg prft pdin free skip wide meta '
  b'udta uuid'.split()
)


def _mov(data, video) -> int:
  """The end of the last sample, fragment or indexed segment."""
  least = 0
  streams = video.container.streams
  for stream in (*streams.video, *streams.audio):
    entries = stream.index_entries
    # In the order of decoding; 256 reach over the longest interleaving.
    for i in range(max(0, len(entries) - 256), len(entries)):
      least = max(least, entries[i].pos + entries[i].size)
  at, fragments = 0, False
  while at + 8 <= len(data):
    length, kind, head = _big(data, at, 4), data[at + 4 : at + 8], 8
    if length == 1:
      length, head = _big(data, at + 8, 8), 16
    if length < 8 or kind not in _BOXES:  # 0: to the end of the file
      break
    if kind == b'sidx' and at + length <= len(data):
      least = max(least, _segments(data, at + head, at + length))
    fragments |= kind == b'moof'
    at += length
  # Without fragments the box of samples may declare anything.
  return max(least, at) if fragments else least


def _second_movie(data) -> int | None:
  """The place of a second file; one in fragments that repeats its head is one.

  FFmpeg takes the samples of the first box `moov` only, but all fragments.
  """
  at, places = 0, {b'ftyp': [], b'moov': []}
  while at + 8 <= len(data):
    length, kind = _big(data, at, 4), data[at + 4 : at + 8]
    length = _big(data, at + 8, 8) if length == 1 else length
    if kind == b'moof':
      return None
    if length < 8 or kind not in _BOXES:
      break
    places.get(kind, []).append(at)
    at += length
  return places[b'ftyp'][1] if min(map(len, places.values())) > 1 else None


def _segments(data, at: int, end: int) -> int:
  """The end of the segments that a `sidx` box lists; 0 if it is damaged."""
  wide = 8 if data[at] else 4
  at += 12 + wide
  first = _big(data, at, wide)
  at += wide + 2
  count = _big(data, at, 2)
  if at + 2 + 12 * count > end:
    return 0
  sizes = (_big(data, at + 2 + 12 * n, 4) & 0x7FFFFFFF for n in range(count))
  return end + first + sum(sizes)


# ------------------------------------------------------------------ AVI, ASF


_CHUNK = re.compile(rb'[0-9a-fA-F]{2}(dc|db|wb|tx|pc|iv)|ix..|idx1|JUNK|LIST')


def _avi(data, _) -> int:
  """The end of the last list; those that were never closed are entered."""
  at, entered, least = 0, False, 0
  while at + 8 <= len(data):
    kind, length = data[at : at + 4], _little(data, at + 4, 4)
    # A program that crashed leaves 0, one that writes to a pipe the most.
    if kind in (b'RIFF', b'LIST') and length in (0, _UNKNOWN):
      at, entered = at + 12, True
      continue
    if kind == b'RIFF':
      least = at + length  # some writers count the eight bytes of its head
    elif entered and _CHUNK.fullmatch(kind):
      least = at + 8 + length
    else:
      break
    at += 8 + length + length % 2
  return least


_ASF_HEADER = bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c')
_ASF_FILE = bytes.fromhex('a1dcab8c47a9cf118ee400c00c205365')


def _asf(data, _) -> int:
  """The size of the file by its header; of a broadcast whole packets."""
  at = data.find(_ASF_FILE, 0, 64 << 10)
  if data[:16] != _ASF_HEADER or at < 0 or len(data) < at + 104:
    return 0
  if not data[at + 88] & 1:
    return _little(data, at + 40, 8)
  packet, begin = _little(data, at + 96, 4), _little(data, 16, 8) + 50
  rest = (len(data) - begin) % packet if packet else 0
  # Behind the packets there may be an index; packets have this byte in front.
  is_packet = rest and data[len(data) - rest] == 0x82
  return len(data) - rest + packet if is_packet else 0


# ------------------------------------------------------------------ FLV, IVF


def _flv(data, _) -> int:
  """The end of the last tag, or the size in `onMetaData`."""
  at, stamp = _big(data, 5, 4) + 4, 0
  first = data[at : at + 4096]
  while at < len(data):
    # Sound, video, script; the number of the stream is always 0.
    if data[at] & 0x1F not in (8, 9, 18) or any(data[at + 8 : at + 11]):
      return at
    end = at + 11 + _big(data, at + 1, 3)
    if at + 11 > len(data) or end > len(data):
      return max(end, at + 11)
    if end < len(data) < end + 4:
      return end + 4
    stamp = _big(data, at + 4, 3) | data[at + 7] << 24
    at = end + 4
  # A copy from a server still has the size of the file there, of which it may
  # be all; then it lasts as long as it says.
  size, seconds = (_flv_number(first, n) for n in (b'filesize', b'duration'))
  is_cut = seconds > stamp / 1000 + 1 and 0 < size < 1 << 62
  return int(size) if is_cut else 0


def _flv_number(data: bytes, name: bytes) -> float:
  """A number of `onMetaData`, 0 if it is not there."""
  at = data.find(name + b'\0')
  value = data[at + len(name) + 1 :][:8]
  return struct.unpack('>d', value)[0] if at >= 0 and len(value) == 8 else 0.0


def _ivf(data, _) -> int:
  """The end of the last frame; writers disagree about the header's number."""
  at, last = _little(data, 6, 2), 0
  while at < len(data):
    size, stamp = _little(data, at, 4), _little(data, at + 4, 8)
    whole = at + 12 <= len(data)
    if whole and not (size and last <= stamp < 1 << 40):
      break
    at, last = at + 12 + size, stamp
  return at


# ----------------------------------------------------------------------- Ogg


def _ogg(data, _) -> int:
  """The end of the last page; that of a recorded stream has no mark."""
  at = 0
  while at + 4 <= len(data):
    if data[at : at + 4] != b'OggS':
      at = data.find(b'OggS', at)
      if at < 0:
        return 0
    body = at + 27 + data[at + 26] if at + 27 <= len(data) else at + 27
    if body > len(data):
      return body
    at = body + sum(data[at + 27 : body])
  return at


# ----------------------------------------------------------------------- MXF

_MXF_PARTITION = bytes.fromhex('060e2b34020501010d0102010102')


def _mxf(data, _) -> int:
  """The end of the last item, or the begin of the declared footer."""
  begin = at = max(data.find(_MXF_PARTITION, 0, 1 << 16), 0)
  footer = 0
  while at < len(data):
    if not _MXF_PARTITION.startswith(data[at : at + 4]):
      return footer
    if at + 17 > len(data):
      return max(footer, at + 17)
    number = data[at + 16] & 0x7F if data[at + 16] & 0x80 else 0
    if data[at + 16] == 0x80 or number > 8:  # of unknown length
      return footer
    length = _big(data, at + 17, number) if number else data[at + 16]
    value = at + 17 + number
    if data[at : at + 14] == _MXF_PARTITION and value + 32 <= len(data):
      place = _big(data, value + 24, 8)
      footer = begin + place + 17 if place else footer
    at = value + length
  return max(footer, at)


# ------------------------------------------------------------ MPEG-TS, MPEG-PS


def _transport(data, _) -> int:
  """Whole packets, of which a part is at the end."""
  for packet, ahead in ((188, 0), (192, 4), (204, 0)):
    for begin in range(packet):
      places = range(begin + ahead, min(len(data), begin + 8 * packet), packet)
      if len(places) > 1 and all(data[p] == 0x47 for p in places):
        rest = (len(data) - begin) % packet
        is_packet = rest > ahead and data[len(data) - rest + ahead] == 0x47
        return len(data) - rest + packet if is_packet else 0
  return 0


def _program(data, _) -> int:
  """The end of the last packet."""
  at = data.find(b'\0\0\1\xba')
  while 0 <= at <= len(data) - 4:
    head = data[at : at + 14]
    if head[:3] != b'\0\0\1' or head[3] < 0xB9:
      at = data.find(b'\0\0\1\xba', at)  # padding, or a sector's head
    elif head[3] == 0xB9:  # the end of one program
      at += 4
    elif head[3] != 0xBA:
      at += 6 + _big(head, 4, 2)
    elif len(head) == 14 and head[4] >> 6 == 1:  # MPEG-2
      at += 14 + (head[13] & 7)
    else:
      at += 12
  return max(at, 0)


# ------------------------------------------------------------------- GIF, Y4M


def _gif(data, _) -> int:
  """The end of the last block; the trailer may be missing."""
  at = 13 + _table(data[10])
  while at < len(data):
    kind = data[at]
    if kind == 0x21:
      at += 2
    elif kind == 0x2C:
      at += 11 + (_table(data[at + 9]) if at + 9 < len(data) else 0)
    else:
      return 0  # the trailer, or something else; players stop here
    while True:
      if at >= len(data):
        return max(at, len(data) + 1)
      length = data[at]
      at += 1 + length
      if not length:
        break
  return at


def _table(flags: int) -> int:
  """Bytes of a table of colours."""
  return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


_PNG = bytes.fromhex('89504e470d0a1a0a')


def _png(data, _) -> int:
  """The end of the last part."""
  at = len(_PNG)
  while at < len(data):
    kind = data[at + 4 : at + 8]
    at += 12 + _big(data, at, 4)
    if kind == b'IEND':
      break
  return at


def _y4m(data, video) -> int:
  """The end of the last frame."""
  picture = sum(
    c.width * c.height * ((c.bits + 7) // 8) for c in video.format.components
  )
  at = data.find(b'\n') + 1
  while at < len(data) and b'FRAME'.startswith(data[at : at + 5]):
    end = data.find(b'\n', at, at + 256)
    at = (len(data) if end < 0 else end) + 1 + picture
  return at


def _flash(data, video) -> int:
  """The length that the header has, unless all behind it is packed."""
  return _little(data, 4, 4) if data[:3] == _FLASH else 0


def _next(head: bytes) -> Callable:
  """The place of a second head, where the first does not tell of an end."""
  return lambda data, _: max(data.find(head, len(head)), 0)


# RealMedia by FFmpeg says that it has ten bytes more than it has.
_REAL, _FLASH = b'.RMF\0\0\0\x12', b'FWS'
_RECORDED = bytes.fromhex('b7d800203749da11a64e0007e95ead8d')  # of Windows TV
_DECLARED: dict[str, Callable] = {
  'mov': _mov,
  'matroska': lambda data, _: matroska.end(data),
  'avi': _avi,
  'asf': _asf,
  'flv': _flv,
  'ivf': _ivf,
  'ogg': _ogg,
  'mxf': _mxf,
  'nut': lambda data, _: nut.end(data),
  'mpegts': _transport,
  'mpeg': _program,
  'gif': _gif,
  'apng': _png,
  'yuv4mpegpipe': _y4m,
  'rm': _next(_REAL),
  'swf': _flash,
  'wtv': _next(_RECORDED),
}
# The first bytes of files of which FFmpeg reads only one, or only parts of the
# others, as of MP4: joined Matroska, AVI, Ogg, MXF, GIF, broadcasts are whole.
_READ_ALONE: dict[str, bytes] = {
  'asf': _ASF_HEADER,
  'flv': b'FLV',
  'ivf': b'DKIF',
  'nut': nut.NAME,
  'apng': _PNG,
  'rm': _REAL,
  'swf': _FLASH,
  'wtv': _RECORDED,
}
