"""Detects truncated files by the sizes that their containers declare.

A file is truncated if it declares a part that lies beyond its end. The number
of frames or seconds in a header is no evidence: null frames of AVI, edit lists
and long last frames reduce the number of decoded frames.
"""

import pathlib

# Of ASF, the objects of the header and of the facts about the file.
_ASF = bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c')
_FILE_PROPERTIES = bytes.fromhex('a1dcab8c47a9cf118ee400c00c205365')


def missing(path: pathlib.Path, format_name: str, video, end) -> str | None:
  """Describes the missing end of a file; None if none is known to be missing.

  Args:
    path: the file.
    format_name: FFmpeg's name of the container.
    video: the video stream, read to its end.
    end: the byte after the last packet, None if unknown.

  Returns:
    A phrase such as '3000 of 5000 bytes are there'.
  """
  size = path.stat().st_size
  names = format_name.split(',')
  if 'mov' in names:
    announced = _last_sample(video) if video.index_entries else 0
    announced = max(announced, _last_fragment(path, size))
  elif 'matroska' in names or 'webm' in names:
    announced = _segment(path)
  elif 'avi' in names:
    announced = _riff(path, size)
  elif 'asf' in names:
    announced = _advanced_systems(path)
  elif 'gif' in names:
    return None if _gif_is_whole(path) else 'it ends within a picture'
  elif 'yuv4mpegpipe' in names:
    if end is not None and end < size:
      return 'its last frame is not whole'
    return None
  else:
    return None
  if announced > size:
    return f'{size} of at least {announced} bytes are there'
  return None


def _last_sample(video) -> int:
  entries = video.index_entries
  last = range(max(0, len(entries) - 256), len(entries))
  return max((entries[i].pos + entries[i].size for i in last), default=0)


def _last_fragment(path, size: int) -> int:
  """The end of the last box of a fragmented film."""
  with open(path, 'rb') as file:
    at, fragments = 0, False
    while at + 8 <= size:
      file.seek(at)
      head = file.read(16)
      length, kind = int.from_bytes(head[:4], 'big'), head[4:8]
      if length == 1:
        length = int.from_bytes(head[8:16], 'big')
      if length < 8:  # 0: to the end of the file
        return 0
      fragments |= kind == b'moof'
      at += length
  return at if fragments else 0


def _segment(path) -> int:
  """The end of a Matroska segment."""
  with open(path, 'rb') as file:
    at = 0
    while True:
      file.seek(at)
      head = file.read(20)
      if len(head) < 2:
        return 0
      kind, size, used = element(head)
      if kind is None or size is None:
        return 0
      if kind == 0x18538067:
        return at + used + size
      at += used + size


def element(head: bytes) -> tuple[int | None, int | None, int]:
  """An EBML element's (kind, size or None if it is unknown, bytes of these)."""
  n = 9 - head[0].bit_length()
  if n > 4:
    return None, None, 0
  kind, rest = int.from_bytes(head[:n], 'big'), head[n:]
  if not rest or not rest[0]:
    return None, None, 0
  m = 9 - rest[0].bit_length()
  size = int.from_bytes(rest[:m], 'big') & ((1 << 7 * m) - 1)
  return kind, None if size == (1 << 7 * m) - 1 else size, n + m


def _riff(path, size: int) -> int:
  """The end of the last RIFF list that begins within an AVI file."""
  with open(path, 'rb') as file:
    at = 0
    while at + 12 <= size:
      file.seek(at)
      head = file.read(8)
      length = int.from_bytes(head[4:], 'little')
      # A program that crashed leaves 0, one that writes to a pipe the most.
      if head[:4] != b'RIFF' or length in (0, 0xFFFFFFFF):
        return 0 if at == 0 else at
      at += 8 + length + length % 2
  return at - (at == size + 1)


def _advanced_systems(path) -> int:
  """The size of an ASF (WMV) file by its header; 0 while it was broadcast."""
  with open(path, 'rb') as file:
    head = file.read(64 << 10)
  at = head.find(_FILE_PROPERTIES)
  if not head.startswith(_ASF) or at < 0 or len(head) < at + 92:
    return 0
  is_broadcast = head[at + 88] & 1
  return (
    0 if is_broadcast else int.from_bytes(head[at + 40 : at + 48], 'little')
  )


def _gif_is_whole(path) -> bool:
  """Whether no block of a GIF is cut off; its trailer may be missing."""
  data = path.read_bytes()
  at = 13 + _table(data[10:11])
  while at < len(data):
    kind = data[at]
    if kind == 0x3B:
      return True
    if kind == 0x21:
      at += 2
    elif kind == 0x2C:
      at += 11 + _table(data[at + 9 : at + 10])
    else:
      return True  # something else follows; players stop here
    while True:
      if at >= len(data):
        return False
      length = data[at]
      at += 1 + length
      if not length:
        break
  return at == len(data)


def _table(flags: bytes) -> int:
  """Bytes of a table of colours."""
  return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
