"""Frame-rate conversion: the times of new frames between two frames.

The interval between two frames of a video is divided into K equal parts. A
phase k in 0..K is a time in the interval: 0 is the first frame, K the second. A
given function makes the frames at phases 1 to K - 1. Between identical frames
and across a scene cut the nearer frame is repeated instead.
"""

import fractions
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from vidpred_jax.video_io.scenes import likeness

__all__ = [
  'check_same_size',
  'interpolate',
  'likeness',
  'upsampled_phases',
  'constant_rate_phases',
]

Phases = Callable[[Any, Any], list[int]]


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
  make: Callable[[int, np.ndarray, np.ndarray, tuple[int, ...]], Iterable],
  *,
  hold_last: bool = False,
  last: fractions.Fraction | None = None,
) -> Iterator[tuple[np.ndarray, dict]]:
  """Yields the frames at the phases of each interval, then the last frame.

  Args:
    timed_frames: (time, [H, W, C], whether it begins a scene); two are held
      at a time.
    phases: from `upsampled_phases` or `constant_rate_phases`.
    parts: K.
    make: `(number, before, after, phases)`, which returns a (frame,
      diagnostics) for each phase. `number` is that of the later frame, counted
      from 1; phases lie in 1..K - 1 and increase.
    hold_last: whether the last frame is repeated for its duration.
    last: that duration in seconds; None: that of the interval before it.

  Yields:
    (frame, diagnostics); input frames and repeated ones have no diagnostics.

  Raises:
    ValueError: if frames differ in size, or the video has fewer than 2.
  """
  number, before = 0, None
  for number, (time, frame, begins) in enumerate(timed_frames, 1):
    if before is None:
      before = time, frame
      continue
    check_same_size((before[1], frame))
    wanted = phases(before[0], time)
    inner = tuple(sorted({k for k in wanted if 0 < k < parts}))
    shown = {k: (before[1] if 2 * k <= parts else frame, {}) for k in inner}
    if inner and not begins and not np.array_equal(before[1], frame):
      shown = dict(zip(inner, make(number, before[1], frame, inner)))
    shown |= {0: (before[1], {}), parts: (frame, {})}
    yield from (shown[k] for k in wanted)
    interval = before[0], time
    before = time, frame
  if before is None or number < 2:
    raise ValueError(
      f'The video has {number} frame{"s" * (number != 1)}, expected at least 2 '
      'to interpolate between.'
    )
  held = [0]
  if hold_last:
    before_last, begin = interval
    held = phases(begin, begin + (last or begin - before_last))
  for _ in held:
    yield before[1], {}


def check_same_size(frames: Iterable[np.ndarray]) -> None:
  """Raises ValueError if frames differ in shape."""
  sizes = sorted({f.shape for f in frames})
  if len(sizes) > 1:
    raise ValueError(f'All frames must have one size, got {sizes}.')
