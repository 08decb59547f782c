"""Interlaced video: two moments in the odd and even rows of each frame."""

import collections
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

from vidpred_jax.video_io import showing
from vidpred_jax.video_io.decoding import Shot

_TOP, _BOTTOM = (2, 4), (3, 5)  # FFmpeg's numbers of orders of fields


def is_interlaced(video, frames) -> bool:
  """Whether the first frames of a stream, or its header, say so."""
  said = video.codec_context.field_order in (*_TOP, *_BOTTOM)
  return said or any(frame.interlaced_frame for frame in frames)


def deinterlaced(
  timed: Iterable[tuple[Fraction, Shot]],
) -> Iterator[tuple[Fraction, Shot]]:
  """Makes each frame one moment (the bwdif filter); frames keep their times.

  Every frame is treated, whether it says that it is interlaced or not.
  """
  graph, waiting = None, collections.deque()

  def finished():
    while True:
      try:
        frame = graph.pull()
      except (av.error.BlockingIOError, av.error.EOFError):
        return
      time, stamp = waiting.popleft()
      yield time, Shot(frame, stamp)

  for number, (time, shot) in enumerate(timed):
    frame = shot.frame
    if graph is None:
      graph = showing.filtering(
        frame, 'bwdif', 'mode=send_frame:parity=auto:deint=all'
      )
    frame.pts, frame.time_base = number, Fraction(1, 25)
    waiting.append((time, shot.stamp))
    graph.push(frame)
    yield from finished()
  if graph is not None:
    graph.push(None)
    yield from finished()
