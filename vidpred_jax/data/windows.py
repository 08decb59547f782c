"""Windows of clips in runs of frames: films, scenes, episodes."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

_LOG = logging.getLogger(__name__)


class Windows:
  """All clips of T frames of some runs: item i is (run, first frame, step).

  Runs that are too short have none. Clips of the first step come first, then
  those of the next; within a step they are in the order of the runs.

  Attributes:
    used: bool [R], the runs that have a clip.
  """

  def __init__(
    self,
    lengths: npt.ArrayLike,
    num_frames: int,
    *,
    step: int | Sequence[int] = 1,
    hop: int | None = None,
    overlap: bool = True,
  ):
    """Counts the clips.

    Args:
      lengths: frames of each of R runs.
      num_frames: frames per clip, T.
      step: distance of a clip's frames; of several, there are clips of each.
      hop: distance of successive clips; None: 1 if they may overlap, else the
        length of a clip.
      overlap: see `hop`.

    Raises:
      ValueError: if a number is less than 1.
    """
    steps = (step,) if isinstance(step, int) else tuple(step)
    least = min(num_frames, *steps, 1 if hop is None else hop)
    if not steps or least < 1:
      raise ValueError(
        'num_frames, step and hop must be at least 1, got '
        f'{num_frames}, {step}, {hop}.'
      )
    lengths = np.asarray(lengths, np.int64).reshape(-1)
    self.used = np.zeros(len(lengths), bool)
    rows, counts = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for step in steps:
      span = (num_frames - 1) * step + 1
      distance = hop or (1 if overlap else span)
      (runs,) = np.nonzero(lengths >= span)
      self.used[runs] = True
      rows.append(
        np.stack(
          [runs, np.full_like(runs, step), np.full_like(runs, distance)], 1
        )
      )
      counts.append((lengths[runs] - span) // distance + 1)
    self._rows = np.concatenate(rows)
    self._ends = np.cumsum(np.concatenate(counts))

  def warn_of_short(self, name: Callable[[int], str], length: int) -> None:
    """Warns of runs without a clip.

    Args:
      name: of a run, by its number.
      length: the fewest frames of one with a clip.
    """
    short = np.flatnonzero(~self.used).tolist()
    if short:
      _LOG.warning(
        'Left out, shorter than %d frames: %d of %d, %s%s',
        length,
        len(short),
        len(self.used),
        ', '.join(map(name, short[:20])),
        ', ...' * (len(short) > 20),
      )

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, i) -> tuple[int, int, int]:
    i = range(len(self))[i]
    row = int(np.searchsorted(self._ends, i, side='right'))
    before = int(self._ends[row - 1]) if row else 0
    run, step, distance = (int(x) for x in self._rows[row])
    return run, (i - before) * distance, step
