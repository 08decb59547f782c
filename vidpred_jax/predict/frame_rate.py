"""More frames per second: which are wanted between two, and when.

The interval between two frames of a video is cut into K equal parts; a phase k
in 0..K says where in it a frame lies: 0 is the first of the two, K the second.
Frames at phases 1 to K - 1 are made, by a function given; but between equal
frames, and between those of two scenes, they are copies of the nearer one.
"""

import fractions
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from vidpred_jax.video_io.scenes import similarity

__all__ = [
  'check_same_size',
  'interpolate',
  'similarity',
  'upsampled_phases',
  'constant_rate_phases',
]

Phases = Callable[[Any, Any], list[int]]


def upsampled_phases(factor: int, parts: int) -> Phases:
  """Phases for `factor` times as many frames.

  Args:
    factor: a divisor of `parts`.
    parts: K.

  Returns:
    A function of the times of two successive frames, which it does not use,
    that gives the phases wanted, the first frame's among them.
  """
  return lambda before, after: list(range(0, parts, parts // factor))


def constant_rate_phases(fps: fractions.Fraction | float, parts: int) -> Phases:
  """Phases for a constant frame rate: frame n at n / fps after the first.

  Args:
    fps: frames per second.
    parts: K, to which times are rounded.

  Returns:
    A function of the times of two successive frames, Fractions of seconds, to
    be called for one interval after the other, that gives the phases wanted. It
    raises ValueError if times do not increase.

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
  """Yields frames at the phases of each interval, then the last one.

  Args:
    timed_frames: (time, [H, W, C], whether it begins a scene); two are held
      at a time.
    phases: `upsampled_phases` or `constant_rate_phases`.
    parts: K.
    make: of the number of the later frame (of the video's first one it is 1),
      the two frames, and phases in 1..K - 1, increasing, gives a (frame,
      diagnostics) for each of them.
    hold: whether the last frame is shown for a while, not just once.
    last: for how many seconds; None for as long as the interval before it.

  Yields:
    (frame, diagnostics); frames that are not made have no diagnostics.

  Raises:
    ValueError: if frames differ in size, or there are fewer than 2.
  """
  number, before = 0, None
  for number, (time, frame, begins) in enumerate(timed_frames, 1):
    if before is None:
      before = time, frame
      continue
    check_same_size((before[1], frame))
    asked = phases(before[0], time)
    inner = tuple(sorted({k for k in asked if 0 < k < parts}))
    shown = {k: (before[1] if 2 * k <= parts else frame, {}) for k in inner}
    if inner and not begins and not np.array_equal(before[1], frame):
      shown = dict(zip(inner, make(number, before[1], frame, inner)))
    shown |= {0: (before[1], {}), parts: (frame, {})}
    yield from (shown[k] for k in asked)
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
