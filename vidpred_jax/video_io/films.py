"""`Film`: a video file that a program streams once, with all its settings.

`Film` logs a warning if it maps high dynamic range or if frames are interlaced.
"""

import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from vidpred_jax.video_io import reading, scenes

_LOG = logging.getLogger(__name__)
WHITE = 65535.0  # of kept high dynamic range


class Film:
  """A video file or folder of pictures, to be streamed once.

  Attributes:
    path: path of the file or folder.
    info: what `probe` says, with its times.
    keeps: whether frames have high dynamic range: float32, 0 to 65535.
    begins: of the number and the time of a frame that was streamed, whether it
      begins a scene; None where only the frames tell.
  """

  def __init__(
    self,
    path,
    *,
    fps: Fraction | None = None,
    deinterlace: bool = False,
    hdr: str = 'tonemap',
    cut: float = scenes.MIN_SIMILARITY,
    cuts=None,
  ):
    """Probes the file; frames are not decoded yet.

    Args:
      path: file or folder.
      fps: of what has no times of its own, see `probe`.
      deinterlace: whether each frame is made one moment of its two.
      hdr: 'tonemap' maps high dynamic range to the standard one, 'keep' keeps
        it.
      cut: see `scenes.mark`.
      cuts: a list of the frames that begin a scene, see `scenes.read_list`.

    Raises:
      ValueError: as `probe`, or if a setting is wrong.
    """
    if hdr not in ('tonemap', 'keep'):
      raise ValueError(f"hdr must be 'tonemap' or 'keep', got {hdr!r}.")
    self.path = pathlib.Path(os.path.expanduser(path))
    self.info = reading.probe(path, times=True, fps=fps)
    self.keeps = hdr == 'keep' and self.info.curve is not None
    self._cut, self._listed = cut, None
    if cuts is not None:
      self._listed = scenes.read_list(cuts, self.info.num_frames)
    self._settings: dict[str, Any] = {
      'deinterlace': deinterlace,
      'keep_hdr': self.keeps,
    }
    self._fps, self._times, self._found = fps, [], set()
    for line in notices(self.info, deinterlace=deinterlace, keeps=self.keeps):
      _LOG.warning('%s', line)

  @property
  def begins(self) -> Callable[[int, Fraction | None], bool] | None:
    """Whether each of the streamed frames begins a scene."""
    listed = self._listed
    if listed is not None:
      return lambda n, _: listed(n, self._times[n])
    return (lambda n, _: n in self._found) if self.keeps else None

  def frames(self) -> Iterator[tuple[Fraction, np.ndarray]]:
    """Yields (time, frame) as `video_io.frames`."""
    timed = reading.frames(self.path, fps=self._fps, **self._settings)
    if self.keeps:
      timed = self._watched(timed)
    for time, frame in timed:
      self._times.append(time)
      yield time, frame

  def last(self, count: int) -> np.ndarray:
    """The last frames, as `read_last` gives them."""
    clip = reading.read_last(self.path, count, **self._settings)
    return clip.astype(np.float32) if self.keeps else clip

  def _watched(self, timed):
    """Yields frames as floats; scenes are detected on 8-bit frames."""

    def shrink(item):
      return scenes.thumbnail((item[1] >> 8).astype(np.uint8))

    marked = scenes.mark(timed, self._cut, shrink)
    for n, ((time, frame), begins) in enumerate(marked):
      if begins:
        self._found.add(n)
      yield time, frame.astype(np.float32)


def notices(
  info, *, deinterlace: bool = False, keeps: bool = False
) -> list[str]:
  """The warnings about a film, one line each.

  Args:
    info: of the film, as `probe` gives it.
    deinterlace: whether each frame is made to show one moment.
    keeps: whether frames keep their high dynamic range.

  Returns:
    Lines; none where there is nothing to say.
  """
  lines = []
  if info.curve is not None and not keeps:
    lines.append(
      f'{info.path} has high dynamic range (HDR, {info.curve.upper()}); it is '
      'mapped to the standard range. --hdr=keep keeps it.'
    )
  if info.interlaced and not deinterlace:
    lines.append(
      f'{info.path} is interlaced: each frame shows two moments, and is used '
      'so. --deinterlace makes it one.'
    )
  return lines
