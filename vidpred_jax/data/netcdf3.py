"""The end of a file of NetCDF's first formats, CDF-1, 2 and 5.

NetCDF's library reads zeros beyond the end of a truncated one, without a word.
The format: docs.unidata.ucar.edu/netcdf-c, "File Format Specifications".
"""

import math
import pathlib
import struct
from typing import BinaryIO

# Bytes of a value by the number of its type, NC_BYTE to NC_UINT64.
_SIZES = (0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8)
_MOST = 1 << 20  # dimensions, attributes or variables, or letters of a name


def check_end(path: pathlib.Path) -> None:
  """Raises ValueError if a file ends before its last value.

  Other files pass.

  Args:
    path: of any file.
  """
  with path.open('rb') as stream:
    magic = stream.read(4)
    if magic in (b'CDF\x01', b'CDF\x02', b'CDF\x05'):
      try:
        end = _Header(stream, magic[3]).end()
      except (struct.error, IndexError):
        end = math.inf  # the header itself is truncated
      if path.stat().st_size < end:
        raise ValueError('it is truncated')


class _Header:
  """The header of a file, read from its beginning."""

  def __init__(self, stream: BinaryIO, version: int):
    self._stream = stream
    self._count = '>q' if version == 5 else '>i'
    self._offset = '>i' if version == 1 else '>q'

  def end(self) -> int:
    """The place of the byte after the last value that must be there."""
    records = max(self._number(self._count), 0)  # -1: it was not known yet
    lengths = []
    for _ in range(self._list()):
      self._name()
      lengths.append(self._number(self._count))
    self._attributes()
    ends, of_records = [0], []
    for _ in range(self._list()):
      self._name()
      axes = [lengths[self._number(self._count)] for _ in range(self._length())]
      self._attributes()
      size = _SIZES[self._number('>i')]
      self._number(self._count)  # its bytes, which may be more than fit
      begin = self._number(self._offset)
      if axes[:1] == [0]:
        of_records.append((begin, size * math.prod(axes[1:])))
      else:
        ends.append(begin + size * math.prod(axes))
    # Records are padded to four bytes, unless there is one variable of them.
    padded = [-(-each // 4) * 4 for _, each in of_records]
    step = sum(padded) if len(padded) > 1 else sum(x for _, x in of_records)
    if records:
      ends += [x + (records - 1) * step + each for x, each in of_records]
    return max(ends)

  def _number(self, form: str) -> int:
    return struct.unpack(form, self._stream.read(struct.calcsize(form)))[0]

  def _length(self) -> int:
    length = self._number(self._count)
    if not 0 <= length <= _MOST:
      raise ValueError(f'its header has a list of {length}')
    return length

  def _list(self) -> int:
    self._number('>i')  # the kind of list
    return self._length()

  def _name(self) -> None:
    self._skip(self._length())

  def _attributes(self) -> None:
    for _ in range(self._list()):
      self._name()
      size = _SIZES[self._number('>i')]
      self._skip(size * self._length())

  def _skip(self, size: int) -> None:
    self._stream.seek(-(-size // 4) * 4, 1)
