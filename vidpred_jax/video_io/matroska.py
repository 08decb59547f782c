"""The elements of Matroska and WebM: where a file ends and where it is damaged.

A file is a chain of EBML elements. Frames stand in clusters, which stand in a
segment; these two may be of unknown size in a live recording.
"""

import bisect
import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import accumulate

SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
_TRACKS, _TRACK, _TRACK_NUMBER = 0x1654AE6B, 0xAE, 0xD7
_BLOCK, _SIMPLE_BLOCK, _GROUP = 0xA1, 0xA3, 0xA0
_IN_CLUSTER = frozenset({0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0x5854, 0xAF, 0xEC})
_ELEMENTS = _IN_CLUSTER | {
  0x1A45DFA3, SEGMENT, CLUSTER,
  # In a segment.
  0x114D9B74, 0x1549A966, _TRACKS, 0x1C53BB6B, 0x1254C367, 0x1941A469,
  0x1043A770, 0xBF,
}  # fmt: skip
_NEAR, _CHAIN = 1 << 20, 5  # bytes looked through, elements one after another
_REORDERED = 8  # frames
_STEADY = 0.9  # of the steps are usual ones
_HEAD = 12  # the most bytes of an element's kind and size


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


def end(data) -> int:
  """The declared end of a file, of its segment or of its last element.

  Args:
    data: all bytes of the file.
  """
  at = 0
  while at + 2 <= len(data):
    kind, size, used = element(data[at : at + _HEAD])
    if kind not in _ELEMENTS:
      break
    if size is None and kind not in (SEGMENT, CLUSTER):
      break
    at += used + (size or 0)
    if kind == SEGMENT and size is not None:
      break
  return at


def breaks(data) -> list[int]:
  """The places where the chain of elements is broken.

  Among frames an element of unknown kind, or of a track that is not there, is a
  break; in front of them the first is skipped, as the format demands. Behind a
  break the chain goes on at the next cluster, as in players.

  Args:
    data: all bytes of the file.
  """
  found, at, parents, known = [], 0, [len(data)], False
  tracks: set[int] = set()
  while at < parents[0]:
    kind, size, used = element(data[at : at + _HEAD])
    after = at + used + (size or 0)
    entered = kind in (SEGMENT, CLUSTER)
    known |= kind == CLUSTER
    if kind == _TRACKS and size is not None:
      tracks = _tracks(data[at + used : after])
    number = _track_of_block(data, at) if tracks else None
    if (
      kind is None
      or (known and kind not in _ELEMENTS)
      or (size is None and not entered)
      or (number is not None and number not in tracks)
      or after > parents[-1]
    ):
      found.append(at)
      at = data.find(CLUSTER.to_bytes(4, 'big'), at + 1)
      if at < 0:
        break
      del parents[1:]
      continue
    if kind == SEGMENT and size is not None:
      parents = [after]
    elif kind == CLUSTER and size is not None:
      parents.append(after)
    at = at + used if entered else after
    while len(parents) > 1 and at == parents[-1]:
      parents.pop()
  return found


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
  """Yields (kind, content) of the elements in an element."""
  at = 0
  while at + 2 <= len(data):
    kind, size, used = element(data[at : at + _HEAD])
    if kind is None or size is None:
      return
    yield kind, data[at + used : at + used + size]
    at += used + size


def _tracks(data: bytes) -> set[int]:
  """The numbers of the tracks."""
  return {
    int.from_bytes(number, 'big')
    for kind, track in _children(data)
    for inner, number in (_children(track) if kind == _TRACK else ())
    if inner == _TRACK_NUMBER
  }


def _track_of_block(data, at: int) -> int | None:
  """The number of the track of a block; None if it is no block."""
  kind, _, used = element(data[at : at + _HEAD])
  if kind == _GROUP:
    at += used
    kind, _, used = element(data[at : at + _HEAD] or bytes(1))
  if kind not in (_SIMPLE_BLOCK, _BLOCK) or at + used >= len(data):
    return None
  first = data[at + used]
  return first & 0x7F if first & 0x80 else None  # or it has several bytes


def resumes(data, place: int) -> bool:
  """Whether blocks of frames follow a break, and not data of other programs.

  Args:
    data: all bytes of the file.
    place: of `breaks`.
  """
  near = data[place : place + _NEAR]
  for match in re.finditer(rb'[\xa0\xa3]', near):
    at = match.start()
    for _ in range(_CHAIN):
      if at + 2 > len(near):
        break
      kind, size, used = element(near[at : at + _HEAD])
      if kind not in _IN_CLUSTER or size is None:
        break
      at += used + size
    else:
      return True
  return False


def lost(
  places: Sequence[int],
  packets: Sequence[tuple[int, int]],
  end: int | None,
  step: int,
) -> tuple[int | None, int]:
  """Counts the frames that are lost at breaks, by the times of the others.

  Args:
    places: of `breaks`.
    packets: (position, time stamp) of the packets that are left.
    end: the time stamp at which the film ends, if known.
    step: between frames by the header, for want of two frames.

  Returns:
    The number of frames, as many as the usual step fits into the gaps, or None
    if the steps vary; and the last time stamp before the first gap.
  """
  stamps = sorted({stamp for _, stamp in packets})
  steps = [b - a for a, b in zip(stamps, stamps[1:])] or [step]
  usual = statistics.median_low(steps)
  steady = sum(abs(step - usual) <= usual / 4 for step in steps)
  stamps = [min(0, stamps[0]) - usual, *stamps, max(end or 0, stamps[-1])]
  wide = [
    (a, b, round((b - a) / usual) - 1)
    for a, b in zip(stamps, stamps[1:])
    if round((b - a) / usual) > 1
  ]
  packets = sorted(packets)
  positions = [position for position, _ in packets]
  # The last stamp in front of each packet, and the first from it on.
  last = [*accumulate((s for _, s in packets), max, initial=stamps[0])]
  first = [*accumulate((s for _, s in packets[::-1]), min, initial=stamps[-1])]
  gaps = {}
  for n in {bisect.bisect_left(positions, place) for place in places}:
    before, behind = last[n], first[len(packets) - n]
    # Frames are not stored in the order in which they are shown.
    low = min(before, behind) - _REORDERED * usual
    high = max(before, behind) + _REORDERED * usual
    gaps |= {a: number for a, b, number in wide if low <= a and b <= high}
  number = sum(gaps.values())
  if number and steady < _STEADY * len(steps):
    number = None
  return number, min(gaps, default=0)
