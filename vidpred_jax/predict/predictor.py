"""`Predictor`: runs any system on clips of any length and size.

It serves prediction and interpolation, with deterministic and stochastic
systems. The fields of a `System` say which of them it is. Input and output
frames are uint8 `[H, W, C]`. Frames of physical fields (`system.data`) are
float32 `[H, W, C]` in their own units; where uint8 is written below, this is
meant too.

*Length.* To predict more frames than `system.frames.target`, predictions are
fed back as floats, without rounding. Videos are streamed: only the frames of
one call of the system are held. A recurrent system (`System.recurrence`) is
called once per frame.

*Cuts.* No frame is computed between identical frames or across a scene cut
(`video_io.scenes`, or the argument `cuts`): the nearer frame is repeated. Of a
clip that is to go on only the last scene counts (`System.repeats_context`).

*Still parts.* Frames between two are computed only where the film moves
(`windows`), unless the system is stochastic or diagnostics are asked for.

*Samples.* Futures of a clip are drawn together, as many as `max_pixels` allow.
Each equals, up to rounding, a prediction by itself with its own key.

*Size.* H and W are padded at the bottom and right to `system.multiple` with the
frame's last row and column, and predictions are cropped. Frames of more than
`max_pixels` are cut into overlapping tiles, which are blended (`tiling`). A
system that decides by the whole picture (a route, a random draw) then decides
for each tile.
"""

import fractions
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from vidpred_jax import checkpoint
from vidpred_jax.predict import (
  between,
  engine,
  frame_rate,
  inputs,
  overlap,
  tiling,
)
from vidpred_jax.predict.futures import Futures, summarise
from vidpred_jax.systems import base
from vidpred_jax.video_io import scenes


class Predictor:
  """A system with its variables, ready for video.

  It compiles once for each size of padded frame (or tile) and keeps that.

  Example:
    system, variables = vp.load('runs/demo')
    future = vp.Predictor(system, variables).predict(clip, num_frames=5)
  """

  def __init__(
    self,
    system: base.System,
    variables: Any,
    *,
    max_pixels: int = tiling.MAX_PIXELS,
    tile: tuple[int, int] | None = None,
    overlap: int = tiling.OVERLAP,
    cut: float = scenes.MIN_SIMILARITY,
    cuts: Callable[[int, Any], bool] | None = None,
    whole: bool = False,
  ):
    """Puts the variables on the device; nothing is compiled yet.

    Args:
      system: any system; frames are what its `data` says.
      variables: its variables.
      max_pixels: the largest number of pixels of a tile. Larger frames (after
        padding) are cut into tiles; futures are drawn together up to this
        number of pixels.
      tile: (height, width) of tiles, instead of `max_pixels`.
      overlap: least overlap of tiles in pixels; it should exceed the longest
        motion.
      cut: successive frames whose `scenes.likeness` is below this may belong
        to two scenes, between which nothing is interpolated; -1: never.
      cuts: `(number, time) -> bool`, whether a frame (number from 0) begins a
        scene, instead of the rule.
      whole: whether every pixel of frames between two is computed, not only
        those in `windows` around what moves.
    """
    if overlap < 0 or max_pixels < 1:
      raise ValueError(
        f'Got overlap={overlap}, max_pixels={max_pixels}; expected overlap >= '
        '0 and max_pixels >= 1.'
      )
    if not -1 <= cut <= 1:
      raise ValueError(f'Got cut={cut}; expected a similarity in [-1, 1].')
    self.system = system
    self._engine = engine.Engine(
      system, variables, max_pixels=max_pixels, tile=tile, overlap=overlap
    )
    self.variables = self._engine.variables
    self._max_pixels, self._tile, self._overlap = max_pixels, tile, overlap
    # Fields have no scenes.
    self._cut, self._cuts = -1.0 if system.data.is_field else cut, cuts
    self._whole = whole

  def __repr__(self) -> str:
    count = sum(x.size for x in jax.tree.leaves(self.variables['params']))
    tiles = f'of at most {self._max_pixels:,} pixels'
    if self._tile is not None:
      tiles = 'of {}x{} pixels'.format(*self._tile)
    return (
      f'Predictor of {self.system}\n'
      f'  weights: {count:,} parameters\n'
      f'  larger frames: in tiles {tiles}, overlapping by {self._overlap}'
    )

  @classmethod
  def load(
    cls,
    path: str | os.PathLike,
    *,
    max_pixels: int = tiling.MAX_PIXELS,
    tile: tuple[int, int] | None = None,
    overlap: int = tiling.OVERLAP,
    cut: float = scenes.MIN_SIMILARITY,
    cuts: Callable[[int, Any], bool] | None = None,
    whole: bool = False,
    **overrides,
  ) -> 'Predictor':
    """Loads a predictor from an export, a run or a model of the package.

    A predictor of physical fields takes and returns frames in their units.

    Args:
      path: as for `checkpoint.load`.
      max_pixels: as for `Predictor`.
      tile: as for `Predictor`.
      overlap: as for `Predictor`.
      cut: as for `Predictor`.
      cuts: as for `Predictor`.
      whole: as for `Predictor`.
      **overrides: settings of the system that replace the stored ones, `frames`
        among them.

    Returns:
      The predictor.

    Raises:
      FileNotFoundError: if `path` holds no weights.
      ValueError: if the weights are damaged or do not fit the settings.
    """
    system, variables = checkpoint.load(path, **overrides)
    return cls(
      system,
      variables,
      max_pixels=max_pixels,
      tile=tile,
      overlap=overlap,
      cut=cut,
      cuts=cuts,
      whole=whole,
    )

  # ------------------------------------------------------------- prediction

  def predict(self, clip: np.ndarray, num_frames: int, key=None) -> np.ndarray:
    """Predicts the frames that follow a clip.

    Args:
      clip: uint8 `[T, H, W, C]`; the system sees the last frames, at the
        distances of `system.frames.context`.
      num_frames: the number of frames to predict, any number.
      key: for stochastic systems; `jax.random.key(0)` by default.

    Returns:
      uint8 `[num_frames, H, W, C]`.

    Raises:
      ValueError: if the clip is too short, is not uint8 or has other channels
        than the system, or if the system interpolates.
    """
    return np.stack(list(self.stream(clip, num_frames, key)))

  def stream(
    self,
    clip: np.ndarray | Iterable[np.ndarray],
    num_frames: int,
    key=None,
    *,
    with_diagnostics: bool = False,
    ahead: int = 0,
  ) -> Iterator:
    """As `predict`, frame by frame in bounded memory.

    Args:
      clip: as in `predict`, or any iterable of frames `[H, W, C]`, of which
        only the last ones are held.
      num_frames: the number of frames to predict.
      key: for stochastic systems; `jax.random.key(0)` by default.
      with_diagnostics: yield `(frame, diagnostics)` instead of frames.
        Diagnostics are those of `system.diagnostics`, without the axes B and N,
        cropped to the frame.
      ahead: how many more frames are started before one is yielded; then the
        device computes them while the caller uses that one.

    Returns:
      An iterator over uint8 `[H, W, C]`.

    Raises:
      ValueError: as `predict`; also if the system has no diagnostics.
    """
    given = inputs.context_frames(
      self.system,
      clip,
      num_frames,
      self._cut,
      with_diagnostics=with_diagnostics,
    )
    key = inputs.key(key)
    return self._predictions(given, num_frames, key, with_diagnostics, ahead)

  def _predictions(self, timeline, num_frames, key, with_diagnostics, ahead=0):
    """Yields frames [H, W, C]; with keys [S] [S, H, W, C] of S futures."""
    size = next(iter(timeline.values())).shape[:2]
    tiles = self._engine.plan(*size)
    timeline = {
      t: self._engine.to_device(f, tiles) for t, f in timeline.items()
    }
    if self.system.recurrence is not None:
      context = [timeline[c] for c in self.system.frames.context]
      started = self._recurrent(context, size, tiles, num_frames, key)
    else:
      started = self._fed_back(
        timeline, size, tiles, num_frames, key, with_diagnostics
      )
    finish = functools.partial(engine.shown, size=size, tiles=tiles)
    shots = overlap.in_flight(started, finish, ahead)
    return shots if with_diagnostics else (frame for frame, _ in shots)

  def _fed_back(self, timeline, size, tiles, num_frames, key, with_diagnostics):
    """Starts predictions, whose states are the next ones' context."""
    frames = self.system.frames
    span = max(frames.target) - max(frames.context)
    count = len(frames.target)
    for chunk in range(-(-num_frames // count)):
      shift = chunk * span
      shots = self._engine.predict(
        [timeline[c + shift] for c in frames.context],
        size,
        tiles,
        engine.fold_in(key, chunk),
        range(count),
        with_diagnostics,
      )
      for t, shot in zip(frames.target, shots):
        timeline[t + shift] = shot.state
      oldest = min(frames.context) + shift + span
      timeline = {t: frame for t, frame in timeline.items() if t >= oldest}
      yield from shots[: num_frames - chunk * count]

  def _recurrent(self, context, size, tiles, num_frames, key):
    """As `_fed_back`, for a recurrent system."""
    key = engine.fold_in(key, 0)
    carries = self._engine.init_carry(context, size, tiles, key)
    for n in range(num_frames):
      carries, shot = self._engine.recurrent_step(carries, size, tiles, key, n)
      yield shot

  def samples(
    self, clip: np.ndarray, num_frames: int, num_samples: int, key=None
  ) -> Futures:
    """Draws several futures of a clip.

    Args:
      clip: as in `predict`.
      num_frames: length of each future.
      num_samples: S, the number of futures.
      key: `jax.random.key(0)` by default; future s is drawn with `fold_in(key,
        s)`, so the first futures do not depend on S.

    Returns:
      `Futures`, all in memory; see `stream_samples`.

    Raises:
      ValueError: as `predict`, or if the system is deterministic.
    """
    steps = list(self.stream_samples(clip, num_frames, num_samples, key))
    return Futures(
      np.stack([step.frames for step in steps], axis=1),
      np.stack([step.mean for step in steps]),
      np.stack([step.spread for step in steps]),
    )

  def stream_samples(
    self, clip: np.ndarray, num_frames: int, num_samples: int, key=None
  ) -> Iterator[Futures]:
    """As `samples`, one time step at a time: `Futures` without the axis N."""
    if not self.system.stochastic:
      raise ValueError(
        'This system is deterministic: a clip has one future, got '
        f'num_samples={num_samples}.'
      )
    if num_samples < 1:
      raise ValueError(f'Got num_samples={num_samples}, expected at least 1.')
    key = inputs.key(key)
    timeline = inputs.context_frames(self.system, clip, num_frames, self._cut)
    size = next(iter(timeline.values())).shape[:2]
    tiles = self._engine.plan(*size)
    groups = num_samples
    if tiles.single:
      at_once = max(1, self._max_pixels // (tiles.height * tiles.width))
      groups = -(-num_samples // at_once)
    # Groups of one size, so that there is one program.
    shape = groups, -(-num_samples // groups)
    futures = []
    for numbers in np.resize(np.arange(num_samples), shape):
      keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
      keys = keys if len(keys) > 1 else keys[0]
      futures.append(self._predictions(timeline, num_frames, keys, False))
    return (summarise(step, num_samples) for step in zip(*futures))

  # ---------------------------------------------------------- interpolation

  def interpolate(
    self,
    frames: Iterable[np.ndarray],
    factor: int | None = None,
    key=None,
    *,
    timed: bool = False,
    with_diagnostics: bool = False,
    ahead: int = 0,
  ) -> Iterator:
    """Interpolates `factor - 1` frames between successive frames of a video.

    Args:
      frames: a clip uint8 `[T, H, W, C]` or any iterable of frames; seven are
        held at a time.
      factor: the factor of the frame rate. A system of K - 1 targets, see
        `Frames.divided`, serves K, the default, and its divisors.
      key: for stochastic systems; `jax.random.key(0)` by default.
      timed: whether `frames` yields (time, frame) as for `resample`. Without
        times frames count as evenly spread.
      with_diagnostics: yield `(frame, diagnostics)`; frames of the input have
        no diagnostics.
      ahead: as for `stream`; so many more frames are held.

    Returns:
      An iterator over `(T - 1) * factor + 1` frames, the input among them.

    Raises:
      ValueError: if the system does not interpolate by `factor` or the input is
        no video; while iterating, if the input has only one frame.
    """
    parts = self._parts(with_diagnostics)
    factor = parts if factor is None else factor
    if factor < 1 or parts % factor:
      raise ValueError(
        f'Got factor={factor}; this system interpolates by {parts}. For '
        'another factor K make it with frames=frames.divided(K).'
      )
    phases = frame_rate.upsampled_phases(factor, parts)
    if not timed:
      inputs.check_clip(self.system.data, frames)
      frames = ((None, frame) for frame in frames)
    given = frames, phases, parts, key, with_diagnostics, ahead
    return self._interpolate(*given)

  def resample(
    self,
    timed_frames: Iterable[tuple[fractions.Fraction, np.ndarray]],
    fps: fractions.Fraction | float,
    key=None,
    *,
    with_diagnostics: bool = False,
    last: fractions.Fraction | None = None,
    ahead: int = 0,
  ) -> Iterator:
    """Converts a video to a constant frame rate, by the times of its frames.

    Output frame n shows the time `n / fps` after the first frame. With a system
    of K - 1 targets times are rounded to 1/K of an interval, which is exact if
    `fps` is p/K times the rate of a constant-rate input. Only the frames that
    the output needs are computed.

    Args:
      timed_frames: (time in seconds, uint8 `[H, W, C]`), times increasing.
      fps: frames per second of the result.
      key: for stochastic systems; `jax.random.key(0)` by default.
      with_diagnostics: yield `(frame, diagnostics)`; frames of the input have
        no diagnostics.
      last: seconds for which the last frame is shown; None: as long as the
        frame before it.
      ahead: as for `interpolate`.

    Returns:
      An iterator over frames.

    Raises:
      ValueError: as `interpolate`, or if times do not increase.
    """
    parts = self._parts(with_diagnostics)
    phases = frame_rate.constant_rate_phases(fps, parts)
    timed = (
      (fractions.Fraction(time).limit_denominator(1 << 30), frame)
      for time, frame in timed_frames
    )
    hold: dict[str, Any] = {'hold_last': True, 'last': last}
    return self._interpolate(
      timed, phases, parts, key, with_diagnostics, ahead, **hold
    )

  def _parts(self, with_diagnostics: bool) -> int:
    """K, the number of parts into which the system divides an interval."""
    inputs.require(
      self.system, interpolates=True, with_diagnostics=with_diagnostics
    )
    frames = self.system.frames
    parts = len(frames.target) + 1
    if len(frames.context) % 2 or frames != frames.divided(parts):
      raise ValueError(
        'Video is interpolated with Frames((0, K), (1, ..., K - 1)), or with '
        f'as many context frames more on both sides; this system has {frames}.'
      )
    return parts

  def _interpolate(
    self, timed_frames, phases, parts, key, with_diagnostics, ahead, **hold
  ):
    """Runs `between.restored` on the scenes of a film."""
    shots = between.restored(
      self._engine,
      self._scenes(timed_frames),
      phases,
      parts,
      inputs.key(key),
      with_diagnostics=with_diagnostics,
      ahead=ahead,
      whole=self._whole,
      **hold,
    )
    return shots if with_diagnostics else (frame for frame, _ in shots)

  def _scenes(self, timed_frames) -> Iterator:
    """Yields ((time, frame), whether a scene begins)."""
    # Copies, since the input frames may share two buffers.
    timed = (
      (time, inputs.frame(self.system.data, frame).copy())
      for time, frame in timed_frames
    )
    if self._cut == -1 or self._cuts is not None:
      for number, (time, frame) in enumerate(timed):
        given = self._cuts is not None and self._cuts(number, time)
        yield (time, frame), given
      return
    yield from scenes.mark(
      timed, self._cut, lambda item: scenes.thumbnail(item[1])
    )
