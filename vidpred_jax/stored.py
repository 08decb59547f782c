"""Reads records from untrusted files: bounded, and checked field by field.

The content of a file is used only after its size, its types and its ranges have
been checked. An error is one sentence that names the file, the field, the value
and the expected values.
"""

import hashlib
import json
import os
import reprlib
import stat
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# A record is some kB; weights of these systems are some MB, rarely some GB.
MOST_OF_A_RECORD = 4 << 20
MOST_OF_WEIGHTS = 64 << 30

SUM = 'sha256'


class Field(NamedTuple):
  """The valid values of a field of a record.

  Attributes:
    accepts: whether a value is valid.
    expected: the valid values in words, after 'expected'.
    required: whether the field must be present.
  """

  accepts: Callable[[Any], bool]
  expected: str
  required: bool = True


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
  """Reads a file of at most `most` bytes.

  Raises:
    ValueError: if it is longer, or is a folder, a device or a pipe.
    OSError: if it cannot be read.
  """
  # Opening a pipe waits for somebody to write to it.
  flags = (
    os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)
  )
  number = os.open(path, flags)
  status = os.fstat(number)
  if not stat.S_ISREG(status.st_mode):  # `open` would name a folder by number
    os.close(number)
    raise ValueError(f'{path} is no ordinary file.')
  with open(number, 'rb') as file:
    if status.st_size > most:
      raise ValueError(
        f'{path} has {status.st_size} bytes, expected at most {most}.'
      )
    return file.read(status.st_size)


def read_record(path: str | os.PathLike) -> dict[str, Any]:
  """Reads a JSON object from a file.

  Raises:
    ValueError: if the file holds something else or is damaged.
    OSError: if it cannot be read.
  """
  return parsed(path, read_bytes(path, MOST_OF_A_RECORD))


def parsed(path: str | os.PathLike, text: bytes) -> dict[str, Any]:
  """The JSON object that a file holds.

  Args:
    path: the file, for messages.
    text: its content.

  Raises:
    ValueError: if the file holds something else or is damaged.
  """
  try:
    record = json.loads(text.decode())
  except RecursionError:
    raise ValueError(f'{path} is damaged: it is nested too deep.') from None
  except ValueError as error:  # no JSON, no text, an endless number
    raise ValueError(f'{path} is damaged: {error}.') from None
  if not isinstance(record, dict):
    raise ValueError(
      f'{path} is damaged: got {shown(record)}, expected {{...}}.'
    )
  return record


def with_sum(record: Mapping[str, Any]) -> dict[str, Any]:
  """Adds a checksum of the other fields to a record."""
  return {**record, SUM: digest(record)}


def read_summed(path: str | os.PathLike) -> dict[str, Any]:
  """Reads a record and checks its checksum, if it has one.

  The result is without the checksum. Older records were written without.

  Raises:
    ValueError: if the file is damaged.
    OSError: if it cannot be read.
  """
  record = read_record(path)
  expected = record.pop(SUM, None)
  if expected is not None and expected != digest(record):
    raise ValueError(
      f'{path} is damaged: its fields are not those it was written with.'
    )
  return record


def digest(record: Mapping[str, Any], data: bytes = b'') -> str:
  """SHA-256 of a record, without its checksum, and of further data."""
  rest = {name: value for name, value in record.items() if name != SUM}
  sha256 = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
  sha256.update(data)
  return sha256.hexdigest()


def check(
  path: str | os.PathLike,
  record: Mapping[str, Any],
  fields: Mapping[str, Field],
  section: str = '',
) -> None:
  """Checks the fields of a record.

  Args:
    path: the file of the record, for messages.
    record: the record.
    fields: the valid values by name; other fields of the record are ignored.
    section: prefix of the names in messages, such as 'frames.'.

  Raises:
    ValueError: for the first field that is missing or wrong.
  """
  for name, field in fields.items():
    if name not in record:
      if not field.required:
        continue
      raise ValueError(
        f'{path} is damaged: it has no {section}{name}, expected '
        f'{field.expected}.'
      )
    if not field.accepts(record[name]):
      got = shown(record[name])
      raise ValueError(
        f'{path} is damaged: {section}{name} is {got}, expected '
        f'{field.expected}.'
      )


def shown(value: Any) -> str:
  """A value in a few words, however large it is."""
  brief = reprlib.Repr()
  brief.maxstring = brief.maxother = brief.maxlong = 60
  return brief.repr(value)
