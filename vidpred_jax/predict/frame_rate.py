"""Frame-rate conversion: the times of new frames between two frames.

The interval between two frames of a video is divided into K equal parts. A
phase k in 0..K is a time in the interval: 0 is the first frame, K the second. A
given function makes the frames at phases 1 to K - 1. Between identical frames
and across a scene cut the nearer frame is repeated instead.

The function may see more frames: as many before the interval as after it. Where
the scene has none, the interval's own frame is repeated in its place, as it is
where the times are not evenly spread.
"""

import collections
import fractions
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

# Programs of users have it under this name.
from vidpred_jax.video_io.scenes import likeness as likeness

Phases = Callable[[Any, Any], list[int]]

_UNEVEN = 0.25  # of an interval: those beside it may differ by that much


class Frame(NamedTuple):
  """A frame of the input.

  Attributes:
    number: counted from 0.
    time: in seconds, a Fraction; or None.
    image: [H, W, C].
    begins: whether it begins a scene.
  """

  number: int
  time: Any
  image: np.ndarray
  begins: bool


def upsampled_phases(factor: int, parts: int) -> Phases:
  """Makes the phases for `factor` times as many frames.

  Args:
    factor: a divisor of `parts`.
    parts: K.

  Returns:
    A function of the times of two successive frames, which it ignores, that
    returns the phases of an interval, 0 among them.
  """
  return lambda before, after: list(range(0, parts, parts // factor))


def constant_rate_phases(fps: fractions.Fraction | float, parts: int) -> Phases:
  """Makes the phases for a constant frame rate: frame n at n / fps.

  Args:
    fps: frames per second.
    parts: K; times are rounded to 1/K of an interval.

  Returns:
    A function of the times of two successive frames, Fractions of seconds, that
    returns the phases of their interval. It must be called for the intervals in
    order, and raises ValueError if times do not increase.

  Raises:
    ValueError: if `fps` is not positive.
  """
  fps = fractions.Fraction(fps).limit_denominator(1 << 20)
  if fps <= 0:
    raise ValueError(f'Got fps={fps}, expected a positive number.')
  pending, origin = 0, None  # number of the next frame; time of the first

  def phases(before, after):
    nonlocal pending, origin
    origin = before if origin is None else origin
    begin, end = before - origin, after - origin
    if end <= begin:
      raise ValueError(
        f'Times must increase, got {float(after)} s after {float(before)} s.'
      )
    result = []
    while pending / fps < end:
      result.append(round((pending / fps - begin) / (end - begin) * parts))
      pending += 1
    return result

  return phases


def interpolate(
  timed_frames: Iterable[tuple[Any, np.ndarray, bool]],
  phases: Phases,
  parts: int,
  make: Callable[[list[Frame], tuple[int, ...]], Iterable],
  *,
  around: int = 0,
  hold_last: bool = False,
  last: fractions.Fraction | None = None,
) -> Iterator[tuple[np.ndarray, dict]]:
  """Yields the frames at the phases of each interval, then the last frame.

  Args:
    timed_frames: (time, [H, W, C], whether it begins a scene); 2 + 2 `around`
      are held at a time.
    phases: from `upsampled_phases` or `constant_rate_phases`.
    parts: K.
    make: `(frames, phases)`, which returns a (frame, diagnostics) for each
      phase. The frames are the two of the interval, with those around them;
      phases lie in 1..K - 1 and increase.
    around: how many frames `make` sees before the interval, and after it.
    hold_last: whether the last frame is repeated for its duration.
    last: that duration in seconds; None: that of the interval before it.

  Yields:
    (frame, diagnostics); input frames and repeated ones have no diagnostics.

  Raises:
    ValueError: if frames differ in size, or the video has fewer than 2.
  """
  for context in _intervals(timed_frames, around):
    before, after = context[around : around + 2]
    check_same_size((before.image, after.image))
    wanted = phases(before.time, after.time)
    inner = tuple(sorted({k for k in wanted if 0 < k < parts}))
    shown = {k: before if 2 * k <= parts else after for k in inner}
    shown |= {0: before, parts: after}
    shown = {k: (frame.image, {}) for k, frame in shown.items()}
    if inner and not after.begins:
      if not np.array_equal(before.image, after.image):
        shown |= zip(inner, make(context, inner))
    yield from (shown[k] for k in wanted)
  held = [0]
  if hold_last:
    held = phases(after.time, after.time + (last or after.time - before.time))
  for _ in held:
    yield after.image, {}


def _intervals(timed_frames, around) -> Iterator[list[Frame]]:
  """Yields the 2 + 2 `around` frames of each interval."""
  size = 2 + 2 * around
  held: collections.deque[Frame | None] = collections.deque([None] * size, size)
  count = 0
  for item in itertools.chain(timed_frames, [None] * around):
    if item is not None:
      item = Frame(count, *item)
      count += 1
    held.append(item)
    if held[around] is not None and held[around + 1] is not None:
      yield _same_scene(list(held), around)
  if count < 2:
    raise ValueError(
      f'The video has {count} frame{"s" * (count != 1)}, expected at least 2 '
      'to interpolate between.'
    )


def _same_scene(frames, around) -> list[Frame]:
  """The frames; for those of no or another scene the last one of this."""
  first, last = around, around + 1
  duration = _duration(frames[first], frames[last])

  def goes_on(i):
    one, other = frames[i : i + 2]
    if one is None or other is None or other.begins:
      return False
    off = abs(_duration(one, other) - duration)
    return off <= _UNEVEN * duration and one.image.shape == other.image.shape

  while first > 0 and goes_on(first - 1):
    first -= 1
  while last < len(frames) - 1 and goes_on(last):
    last += 1
  return [frames[min(max(i, first), last)] for i in range(len(frames))]


def _duration(first: Frame, second: Frame):
  """The time between two frames; 1 where there are no times."""
  return 1 if first.time is None else second.time - first.time


def check_same_size(frames: Iterable[np.ndarray]) -> None:
  """Raises ValueError if frames differ in shape."""
  sizes = sorted({f.shape for f in frames})
  if len(sizes) > 1:
    raise ValueError(f'All frames must have one size, got {sizes}.')
