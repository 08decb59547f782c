"""Times of frames, from the time stamps of decoded frames.

A player shows a frame at its time stamp. The rate in a header is a label and is
used only without time stamps. Time stamps of real files can be irregular:

  - a stamp that repeats, or lies a little before the last one (ticks that are
    too coarse, joined parts): the frame is shown between its neighbours;
  - a stamp that lies far before the last one (a recording joined to another),
    or in a transport stream far behind it: time goes on by one usual step.
"""

import collections
import statistics
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np

# Beyond this many seconds a transport stream's clock was set anew.
JUMP = 10
_PAUSE = 5  # usual steps
_SAME = Fraction(1, 20_000)  # seconds; FFmpeg moves what repeats by a tick
_WAITING = 8  # frames that may wait for a stamp that grows
_RECENT = 9  # steps of which the median is the usual one
_STANDARD = tuple(
  Fraction(n, d)
  for n, d in (
    (24, 1), (25, 1), (30, 1), (50, 1), (60, 1), (15, 1), (10, 1), (12, 1),
    (20, 1), (5, 1), (100, 1), (120, 1), (24000, 1001), (30000, 1001),
    (60000, 1001), (120000, 1001), (15000, 1001),
  )
)  # fmt: skip


class Rate(NamedTuple):
  """The frame rate of a film.

  Attributes:
    fps: frames per second, the mean without pauses.
    variable: whether the distance of frames varies.
    shortest: the least distance in seconds; None of less than two frames.
  """

  fps: Fraction
  variable: bool
  shortest: Fraction | None


def is_raw(video) -> bool:
  """Whether a stream comes without a container, and so without times."""
  kind = video.container.format
  has_none = kind.flags & av.format.Flags.no_timestamps.value
  return bool(has_none) or kind.name.endswith('_pipe')


def label(video) -> Fraction:
  """The frame rate in the header; 25 if it has no sensible one."""
  rates = video.average_rate, video.guessed_rate
  # FFmpeg's mean of a raw stream is always 25.
  for rate in reversed(rates) if is_raw(video) else rates:
    if rate and 0 < rate <= 1000:
      return Fraction(rate)
  return Fraction(25)


def mended(
  stamped: Iterable[tuple[int | None, Any]],
  unit: Fraction,
  usual: Fraction,
  resets: bool = False,
) -> Iterator[tuple[Fraction, Any]]:
  """Assigns increasing times, from 0, to items; at most 8 items are held.

  Args:
    stamped: (time stamp or None, item) in the order shown.
    unit: seconds per unit of the stamps.
    usual: seconds between frames, as long as nothing else is known.
    resets: whether a jump forward of `JUMP` means that the clock was set anew.

  Yields:
    (seconds after the first item, item).
  """
  now: Fraction | None = None
  last: int | None = None
  steps = collections.deque([usual], maxlen=_RECENT)
  waiting: list[Any] = []
  for stamp, item in stamped:
    if now is None:
      now, last = Fraction(0), stamp
      yield now, item
      continue
    if stamp is None or last is None:
      ahead, set_anew = _usual(steps), stamp is not None
    else:
      ahead = (stamp - last) * unit
      back = -max(Fraction(1), 10 * steps[-1])
      set_anew = ahead < back or (resets and ahead > JUMP)
      if ahead < _SAME and not set_anew and len(waiting) < _WAITING:
        waiting.append(item)
        continue
    if set_anew or ahead < _SAME:
      ahead = _usual(steps) * (len(waiting) + 1)
    for n, late in enumerate(waiting, 1):
      yield now + ahead * n / (len(waiting) + 1), late
    if not waiting and not set_anew:
      steps.append(ahead)
    waiting, now = [], now + ahead
    last = stamp if stamp is not None else last and last + round(ahead / unit)
    yield now, item
  for n, late in enumerate(waiting, 1):  # there was one before
    assert now is not None
    yield now + n * _usual(steps), late


def _usual(steps: Iterable[Fraction]) -> Fraction:
  """The median step, which a pause does not change."""
  return statistics.median_low(steps)


def as_browsers(
  timed: Iterable[tuple[Fraction, Any]],
) -> Iterator[tuple[Fraction, Any]]:
  """The times of a GIF: as in browsers what lasts up to 10 ms lasts 100 ms."""
  now, before = Fraction(0), None
  for time, item in timed:
    if before is not None:
      now += lasting(time - before)
    before = time
    yield now, item


def lasting(step: Fraction) -> Fraction:
  """For how long browsers show a picture of a GIF, PNG or WebP."""
  return step if step > Fraction(1, 100) else Fraction(1, 10)


def rounded(fps: Fraction) -> Fraction:
  """The nearest sensible frame rate, which is never 0 of a positive one."""
  if 0 < fps < 1:
    return 1 / (1 / fps).limit_denominator(1001)
  return fps.limit_denominator(1001)


def rate(times: Sequence[Fraction], tick: Fraction, header: Fraction) -> Rate:
  """The frame rate that follows from `times`.

  Args:
    times: seconds, growing.
    tick: to which they were rounded in the file.
    header: the rate that the header says, taken where the times allow it.
  """
  if len(times) < 2:
    return Rate(header, False, None)
  # Beyond a million years floats would be no longer exact enough.
  steps = np.array([float(b - a) for a, b in zip(times, times[1:])])
  usual = float(np.median(steps))
  # Time stamps are rounded to ticks where a frame takes several.
  slack = 1.01 * float(tick) if usual > 1.5 * tick else 0.0
  slack = max(slack, 0.01 * usual)
  variable = bool(steps.max() - steps.min() > slack)
  shortest = Fraction(float(steps.min()))
  number, total = len(steps), times[-1] - times[0]
  if variable:
    usual = steps[steps < _PAUSE * usual].mean()
    return Rate(rounded(Fraction(1 / usual)), True, shortest)
  room = 2 * tick + total / 10_000
  mean = rounded(Fraction(number / total))
  nearest = min(_STANDARD, key=lambda fps: abs(number / fps - total))
  for fps in (header, nearest, Fraction(round(number / total) or 1), mean):
    if abs(number / fps - total) <= room:
      break
  return Rate(fps, False, shortest)
