"""The heads and frames of NUT, FFmpeg's own container: where a file ends."""

NAME = b'nut/multimedia container\0'
HEADS = {  # of the file, a stream, a point to seek to, the index, facts
  bytes.fromhex('4e4d7a561f5f04ad'): 'main',
  bytes.fromhex('4e5311405bf2f9db'): 'stream',
  bytes.fromhex('4e4be4adeeca4569'): 'point',
  bytes.fromhex('4e58dd672f23e64e'): 'index',
  bytes.fromhex('4e49ab68b596ba78'): 'facts',
}
# What a frame's head holds, in this order.
_CODED, _CHECKSUM, _RESERVED, _INVALID = 4096, 64, 128, 8192
_STREAM, _PTS, _SIZE, _TIME, _HEADER = 16, 8, 32, 2048, 1024


def _number(data, at: int) -> tuple[int, int]:
  """A number of seven bits in each byte, and the place behind it."""
  value = 0
  for i in range(at, at + 10):
    value = value << 7 | data[i] & 0x7F
    if not data[i] & 0x80:
      return value, i + 1
  raise ValueError('a number is longer than any that is written')


def end(data) -> int:
  """The end of the last frame or head of the rest.

  Args:
    data: all bytes of the file.
  """
  at, codes, elided, head = len(NAME), [], [0], None
  while at < len(data):
    if data[at : at + len(NAME)] == NAME:
      return at
    try:
      if data[at] == ord('N'):
        head = HEADS.get(data[at : at + 8])
        length, body = _number(data, at + 8)
        body += 4 * (length > 4096)
        if head is None:
          return 0
        if head == 'main':
          try:
            codes, elided = _codes(data[body : body + length])
          except IndexError:
            return 0 if body + length <= len(data) else body + length
        at = body + length
      elif head != 'point' or not codes:  # frames follow nothing else
        return 0
      else:
        at = _frame(data, at, codes, elided)
        if not at:
          return 0  # damaged
    except IndexError:
      return len(data) + 1  # it ends within a head
  return at


def _frame(data, at: int, codes, elided) -> int:
  flags, mul, size, reserved, header = codes[data[at]]
  at += 1
  if flags & _CODED:
    coded, at = _number(data, at)
    flags ^= coded
  for flag in (_STREAM, _PTS, _SIZE, _TIME, _HEADER,
               _RESERVED):  # fmt: skip
    if flags & flag:
      value, at = _number(data, at)
      if flag == _SIZE:
        size += value * mul
      elif flag == _HEADER:
        header = value
      elif flag == _RESERVED:
        reserved = value
  if flags & _INVALID or header >= len(elided):
    return 0
  for _ in range(reserved):
    _, at = _number(data, at)
  at += 4 * bool(flags & _CHECKSUM)
  size -= elided[header] if size <= 4096 else 0
  return at + size if size >= 0 else 0


def _codes(data: bytes):
  """(flags, factor, size, reserved, header) of each first byte of a frame."""
  at = 0

  def numbers(count):
    nonlocal at
    for _ in range(count):
      value, at = _number(data, at)
      yield value

  (version,) = numbers(1)
  if version > 3:
    list(numbers(1))
  *_, bases = numbers(3)
  list(numbers(2 * bases))
  codes, mul, header = [], 1, 0
  while len(codes) < 256:
    flags, fields = numbers(2)
    _, mul, _, size, reserved, count, _, header, *_ = (
      given if given is not None else usual
      for given, usual in zip(
        [*numbers(fields), *[None] * 8],
        (0, mul, 0, 0, 0, -1, 0, header, *[0] * fields),
      )
    )
    count = mul - size if count < 0 else count
    j = 0
    while j < count and len(codes) < 256:
      if len(codes) == ord('N'):
        codes.append((_INVALID, 1, 0, 0, 0))
        continue
      codes.append((flags, mul, size + j, reserved, header))
      j += 1
    if not count:
      raise ValueError('a rule for the heads of frames is for none')
  elided = [0]
  for _ in range(next(numbers(1))):
    (length,) = numbers(1)
    at += length
    elided.append(length)
  return codes, elided
