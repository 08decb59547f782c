"""Frames between frames: an engine on the intervals of a film.

An interval is computed as a whole, or in windows around what moves (`windows`).
Windows serve deterministic systems of images that take any size. They are not
used where diagnostics are asked for, which are of whole frames.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from vidpred_jax.predict import engine, frame_rate, overlap, windows


class Pasted(NamedTuple):
  """A frame that is a mean of two but for some windows.

  Attributes:
    mean: the mean.
    places: where the system ran.
    parts: its `Prediction` in each of them; the device may still be computing.
  """

  mean: np.ndarray
  places: tuple[windows.Window, ...]
  parts: tuple[engine.Prediction, ...]


def restored(
  run: engine.Engine,
  scenes,
  phases: frame_rate.Phases,
  parts: int,
  key: jax.Array,
  *,
  with_diagnostics: bool = False,
  ahead: int = 0,
  whole: bool = False,
  **hold,
) -> Iterator[tuple[np.ndarray, dict]]:
  """Runs `frame_rate.interpolate` with a system.

  Args:
    run: the engine of the system.
    scenes: ((time, frame), whether a scene begins) of each frame.
    phases: as for `frame_rate.interpolate`.
    parts: K.
    key: a random key.
    with_diagnostics: whether to give diagnostics.
    ahead: how many more frames are started before one is yielded.
    whole: whether intervals are always computed as a whole.
    **hold: `hold_last` and `last` of `frame_rate.interpolate`.

  Returns:
    An iterator over (frame, diagnostics).
  """
  around = len(run.system.frames.context) // 2 - 1
  whole = whole or with_diagnostics or not _takes_windows(run)
  size, tiles, given = None, None, None
  entered: dict[int, Any] = {}  # what the system sees of frames, by number
  spared: Any = {}

  def checked():
    nonlocal size, tiles, given
    for (time, frame), begins in scenes:
      if tiles is None:  # a frame of another size is refused in its turn
        run.check_channels(frame)
        size = frame.shape[:2]
        tiles = run.plan(*size)
        given = _ladder(run, size)
      yield time, frame, begins

  def make(context, inner):
    nonlocal entered, spared
    images = {frame.number: frame.image for frame in context}
    entered = {n: entered[n] for n in images.keys() & entered.keys()}
    before, after = (frame.image for frame in context[around : around + 2])
    places = None
    if not whole:
      places, spared = windows.choose(spared, given, before, after, len(inner))
    predict = functools.partial(
      run.predict,
      key=jax.random.fold_in(key, context[around + 1].number + 1),
      targets=[k - 1 for k in inner],
      with_diagnostics=with_diagnostics,
    )
    if places is not None:
      made = [_in_window(run, predict, context, place) for place in places]
      means = (windows.mixed(before, after, k / parts) for k in inner)
      shots = zip(*made) if made else itertools.repeat(())
      return [
        (Pasted(*x), {}) for x in zip(means, [places] * len(inner), shots)
      ]
    for n in images.keys() - entered.keys():
      entered[n] = run.to_device(images[n], tiles)
    states = [entered[frame.number] for frame in context]
    shots = predict(states, size, tiles)
    return [(s._replace(state=None), {}) for s in shots]  # nothing follows

  def finish(item):
    if isinstance(item[0], Pasted):
      return _pasted(item[0], given.margin), {}
    made = isinstance(item[0], engine.Prediction)
    return engine.shown(item[0], size, tiles) if made else item

  filled = frame_rate.interpolate(
    checked(), phases, parts, make, around=around, **hold
  )
  return overlap.in_flight(filled, finish, ahead)


def _takes_windows(run: engine.Engine) -> bool:
  """Whether a system computes any part of a picture by itself."""
  system = run.system
  tied = system.clip_size is not None and system.clip_size(run.variables)
  return not (system.stochastic or system.data.is_field or tied)


def _ladder(run: engine.Engine, size) -> windows.Ladder:
  """The sizes of windows that are one tile each."""
  return windows.ladder(
    *size,
    multiple=run.system.multiple,
    fits=lambda height, width: run.plan(height, width).single,
  )


def _in_window(run: engine.Engine, predict, context, window: windows.Window):
  """Predictions of the new frames in a window."""
  tiles = run.plan(*window.size)
  entered = {
    frame.number: run.to_device(frame.image[window.place], tiles)
    for frame in context
  }
  states = [entered[frame.number] for frame in context]
  shots = predict(states, window.size, tiles)
  return [shot._replace(state=None) for shot in shots]


def _pasted(frame: Pasted, margin: int) -> np.ndarray:
  """Waits for the windows of a frame, and pastes them into a new one."""
  made = frame.mean.copy()  # A frame may be shown more than once.
  for window, shot in zip(frame.places, frame.parts):
    part = np.asarray(shot.frame)[: window.size[0], : window.size[1]]
    windows.paste(made, part, window, margin)
  return made
