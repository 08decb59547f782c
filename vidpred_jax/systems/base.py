"""The interface of systems: three pure functions and some facts.

A clip is `[B, T, H, W, C]`, float32 in [0, 1] for images. `Frames` names the
context and the target frames of a clip. Tasks differ in `Frames` alone; no
model branches on a task.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Frames(NamedTuple):
  """The frames of a task: indices of context and target frames in a clip.

  Prediction is `Frames((0, 1), (2, 3, 4))`. Interpolation is
  `Frames((0, 2), (1,))`, or `Frames((0, 2, 4, 6), (3,))` for a system that also
  sees the frames around the two.
  """

  context: tuple[int, ...]
  target: tuple[int, ...]

  @property
  def length(self) -> int:
    """The number of frames of a clip, `max(index) + 1`."""
    return 1 + max(self.context + self.target)

  @property
  def interpolates(self) -> bool:
    """Whether every target lies between the first and last context frame."""
    return min(self.context) < min(self.target) and max(self.target) < max(
      self.context
    )

  @property
  def enclosing(self) -> tuple[int, int]:
    """Of interpolation: the last context before and the first after targets."""
    before = max(t for t in self.context if t < min(self.target))
    after = min(t for t in self.context if t > max(self.target))
    return before, after

  @property
  def times(self) -> list[float]:
    """Of interpolation: where targets lie between these two, 0 to 1."""
    start, end = self.enclosing
    return [(target - start) / (end - start) for target in self.target]

  def around(self, context):
    """Of interpolation: the two context frames around the targets.

    Args:
      context: [B, Tc, H, W, C].

    Returns:
      Two arrays [B, H, W, C], the earlier one first.
    """
    return tuple(context[:, self.context.index(t)] for t in self.enclosing)

  def divided(self, parts: int) -> 'Frames':
    """Interpolation with as much context of all frames between the two.

    Of K = `parts` it is `Frames((0, K), (1, ..., K - 1))`; of four context
    frames `Frames((0, K, 2 K, 3 K), (K + 1, ..., 2 K - 1))`.
    """
    count = len(self.context)
    start = (count // 2 - 1) * parts
    return Frames(
      tuple(range(0, count * parts, parts)),
      tuple(range(start + 1, start + parts)),
    )


class DataSpec(NamedTuple):
  """The data of clips: images, or physical fields and their normalisation.

  Inside systems images are float [0, 1], and fields are normalised by mean and
  standard deviation. Outside, images are uint8 and fields have their own units.

  Attributes:
    kind: 'image' or 'field'.
    variables: names of the C channels of a field.
    units: of the variables.
    mean: of each variable, [C].
    std: the standard deviation of each, [C].
  """

  kind: str = 'image'
  variables: tuple[str, ...] = ()
  units: str = ''
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()

  @property
  def is_field(self) -> bool:
    """Whether clips are physical fields."""
    return self.kind == 'field'

  def normalise(self, frames: np.ndarray) -> np.ndarray:
    """Converts frames [..., C] to the values inside systems, float32."""
    frames = frames.astype(np.float32)
    if not self.is_field:
      return frames / 255
    mean, std = self._scale(frames.ndim)
    return (frames - mean) / std

  def denormalise(self, frames):
    """Converts a system's frames [..., C], of NumPy or JAX, to the data's."""
    if not self.is_field:
      return (255 * frames.clip(0, 1)).round().astype(np.uint8)
    mean, std = self._scale(frames.ndim)
    return frames * std + mean

  def in_units(self, frames):
    """Converts a system's fields [..., C] to their units, not its images."""
    return self.denormalise(frames) if self.is_field else frames

  def _scale(self, ndim: int):
    shape = (1,) * (ndim - 1) + (-1,)
    return (
      np.reshape(np.array(x, np.float32), shape) for x in (self.mean, self.std)
    )


Variables = Mapping[str, Any]  # 'params' and further collections, trees
Diagnostics = dict[str, jax.Array]  # intermediate results by name


class InitFn(Protocol):
  """Makes the variables of a model."""

  def __call__(self, key: jax.Array, video: jax.Array, /) -> Variables:
    """Returns a dict with `'params'` and any other Flax collections.

    Args:
      key: a random key.
      video: a clip [B, T, H, W, C] of any type; only its shape matters.
    """
    ...


class LossFn(Protocol):
  """The loss of a clip, for training."""

  def __call__(
    self, variables: Variables, video: jax.Array, key: jax.Array, /
  ) -> tuple[jax.Array, tuple[Variables, dict[str, jax.Array]]]:
    """Returns `(scalar, (collections, metrics))`.

    `collections` are the updated non-parameter collections, `metrics` a flat
    dict of scalars.

    Args:
      variables: of the model.
      video: the whole clip [B, T, H, W, C], float.
      key: of what is drawn.
    """
    ...


class FlowLossFn(Protocol):
  """`LossFn` of a system with `flow_pairs`, which learns from exact flow."""

  def __call__(
    self,
    variables: Variables,
    video: jax.Array,
    key: jax.Array,
    /,
    flow: jax.Array | None = None,
  ) -> tuple[jax.Array, tuple[Variables, dict[str, jax.Array]]]:
    """As `LossFn`; `flow` is [B, P, H, W, 2] for P `flow_pairs`."""
    ...


class PredictFn(Protocol):
  """Predicts the target frames."""

  def __call__(
    self, variables: Variables, context: jax.Array, key: jax.Array, /
  ) -> jax.Array:
    """Returns [B, N, H, W, C] with N = `len(frames.target)`.

    Args:
      variables: of the model.
      context: [B, len(frames.context), H, W, C], float like the clip.
      key: of what is drawn; deterministic systems ignore it.
    """
    ...


class DiagnosticsFn(Protocol):
  """Predicts, and gives the model's intermediate results too."""

  def __call__(
    self, variables: Variables, context: jax.Array, key: jax.Array, /
  ) -> tuple[jax.Array, Diagnostics]:
    """Returns the frames of `PredictFn` and diagnostics, each [B, N, ...].

    `'flow'` [B, N, H, W, 2] is (dx, dy) in pixels, `'mask'` [B, N, H, W, 1]
    lies in [0, 1], `'blocks'` [B, N, K] has 1 for each block used. The flow is
    that into the frame before, true or predicted.
    """
    ...


class SelectFn(Protocol):
  """Predicts some of the target frames."""

  def __call__(
    self,
    variables: Variables,
    context: jax.Array,
    key: jax.Array,
    targets: jax.Array,
    /,
  ) -> tuple[jax.Array, Diagnostics]:
    """Returns the frames and diagnostics of `DiagnosticsFn`, N = M.

    Args:
      variables: of the model.
      context: that of `PredictFn`.
      key: that of `PredictFn`.
      targets: int32 [M], which of `frames.target`, each counted from 0.
    """
    ...


class ClipSizeFn(Protocol):
  """Reads from weights which size of clip they are tied to."""

  def __call__(self, variables: Variables, /) -> tuple[int, int] | None:
    """Returns (H, W) of a clip at which `InitFn` gives arrays of these shapes.

    None where any size does.
    """
    ...


class InitCarryFn(Protocol):
  """Makes the state of a recurrence."""

  def __call__(self, variables: Variables, context: jax.Array, /) -> Any:
    """Returns the carry, a tree of arrays; `context` is that of `predict`."""
    ...


class StepFn(Protocol):
  """Makes the next frame of a recurrence."""

  def __call__(
    self, variables: Variables, carry: Any, key: jax.Array, n: jax.Array, /
  ) -> tuple[Any, jax.Array]:
    """Returns `(carry, frame)` with frame n, [B, H, W, C].

    Args:
      variables: of the model.
      carry: from the call before, or from `InitCarryFn`.
      key: the same for all frames.
      n: number of the frame, from 0.
    """
    ...


class Recurrence(NamedTuple):
  """A forecast as a recurrence, one frame per call, as `lax.scan` runs it.

  `predict` is `init_carry` followed by N times `step`.

  Attributes:
    init_carry: `(variables, context) -> carry`, see `InitCarryFn`.
    step: `(variables, carry, key, n) -> (carry, frame)`, see `StepFn`.
  """

  init_carry: InitCarryFn
  step: StepFn


class System(NamedTuple):
  """A model with its loss and its prediction, as pure functions.

  Attributes:
    init: `(key, video) -> variables`, see `InitFn`.
    loss: `(variables, video, key) -> (scalar, (collections, metrics))`, see
      `LossFn`; with `flow_pairs` it also takes `flow`, see `FlowLossFn`.
    predict: `(variables, context, key) -> frames`, see `PredictFn`.
    frames: the context and target frames of `loss` and `predict`.
    multiple: H and W must be divisible by this.
    stochastic: whether `predict` depends on `key`.
    channels: of a frame, C.
    data: the data of its clips; of a loaded system those of its training.
    diagnostics: `(variables, context, key) -> (frames, diagnostics)`, see
      `DiagnosticsFn`. None: the system has none.
    select: `(variables, context, key, targets) -> (frames, diagnostics)`, see
      `SelectFn`, for systems that compute each target by itself: one compiled
      program serves all of the same number. None: all are computed.
    clip_size: `(variables) -> (H, W)`, see `ClipSizeFn`, for weights that are
      tied to a size. None: any size.
    recurrence: the forecast as a recurrence, one frame per call, for systems
      whose state holds more than the context frames. None: a longer prediction
      feeds predictions back into `predict`. That is the same, except for DMVFN
      with a 'variational' flow, which estimates it anew.
    repeats_context: whether a clip or a scene may have fewer frames than
      `frames.context`, at least two; its first is then given again.
    flow_pairs: P pairs (of, into) of frames whose exact flow `loss` takes: (dx,
      dy) from each pixel of frame `of` to the same point in frame `into`, NaN
      where the flow is unknown. Empty: `loss` takes no flow.
    cpu_options: compiler options, (name, value), with which this model is
      faster on a CPU than with the defaults of `runtime.jit`.
    name: in `systems.SYSTEMS`; empty for a system made without it.
    settings: (name, value) of each setting that is not its default.
  """

  init: InitFn
  loss: LossFn | FlowLossFn
  predict: PredictFn
  frames: Frames
  multiple: int
  stochastic: bool
  channels: int = 3
  data: DataSpec = DataSpec()
  diagnostics: DiagnosticsFn | None = None
  select: SelectFn | None = None
  clip_size: ClipSizeFn | None = None
  recurrence: Recurrence | None = None
  repeats_context: bool = False
  flow_pairs: tuple[tuple[int, int], ...] = ()
  cpu_options: tuple[tuple[str, Any], ...] = ()
  name: str = ''
  settings: tuple[tuple[str, Any], ...] = ()

  def __repr__(self) -> str:
    frames, kind = self.frames, 'images'
    if self.data.is_field:
      kind = f'fields {", ".join(self.data.variables)}'
    lines = [
      f'System {self.name}'.rstrip(),
      f'frames: {frames.context} -> {frames.target}, '
      f'{"stochastic" if self.stochastic else "deterministic"}',
      f'clips: {kind}, {self.channels} channel{"s" * (self.channels != 1)}, '
      f'sides divisible by {self.multiple}',
    ]
    if self.settings:
      lines.append(
        'settings: ' + ', '.join(f'{k}={v!r}' for k, v in self.settings)
      )
    return '\n  '.join(lines)


def as_float(video: jax.Array) -> jax.Array:
  """Converts uint8 images to float32 in [0, 1]; floats stay as they are."""
  if video.dtype == jnp.uint8:
    return video.astype(jnp.float32) / 255.0
  return video


def take(video: jax.Array, indices: tuple[int, ...]) -> jax.Array:
  """Selects the frames `indices` of a clip [B, T, H, W, C]."""
  return jnp.stack([video[:, i] for i in indices], axis=1)


def check_shape(
  video: jax.Array, length: int, channels: int, multiple: int
) -> None:
  """Raises ValueError unless the shape is that of a clip of the system."""
  is_clip = video.ndim == 5 and video.shape[1] >= length
  if not is_clip or video.shape[-1] != channels:
    raise ValueError(
      f'Got a clip of shape {video.shape}; expected [B, T, H, W, {channels}] '
      f'with at least {length} frames.'
    )
  height, width = video.shape[2:4]
  if height % multiple or width % multiple or not height or not width:
    raise ValueError(
      f'Got frames of {height}x{width}; expected both sides divisible by '
      f'{multiple}.'
    )


def check_clip(
  video: jax.Array, length: int, channels: int, multiple: int
) -> None:
  """Raises ValueError unless this is a clip of the system, in floats."""
  check_shape(video, length, channels, multiple)
  if not jnp.issubdtype(video.dtype, jnp.floating):
    raise ValueError(
      f'Got frames of {video.dtype}; expected floats, images in [0, 1]: '
      '`systems.base.as_float` makes them of uint8.'
    )


def check_context(
  context: jax.Array, count: int, channels: int, multiple: int
) -> None:
  """Raises ValueError unless these are exactly the context frames."""
  is_context = context.ndim == 5 and context.shape[1] == count
  if not is_context or context.shape[-1] != channels:
    raise ValueError(
      f'Got context of shape {context.shape}; expected '
      f'[B, {count}, H, W, {channels}].'
    )
  check_clip(context, count, channels, multiple)


def check_frames(
  frames: Frames, name: str, example: str, *, context: int | None = None
) -> None:
  """Raises ValueError unless context and targets have one constant step.

  Args:
    frames: the frames of a system.
    name: of the system.
    example: valid frames, for the message.
    context: the number of context frames; None: any number.
  """
  indices = tuple(frames.context) + tuple(frames.target)
  even = len(frames.context) >= 1 and len(frames.target) >= 1
  if context is not None:
    even = even and len(frames.context) == context
  if even:
    step = indices[1] - indices[0]
    even = step > 0 and all(b - a == step for a, b in zip(indices, indices[1:]))
  if not even:
    count = '' if context is None else f'{context} context frames and '
    raise ValueError(
      f'Got frames {tuple(frames)}; {name} needs {count}targets that go on at '
      f'the step of the context, such as {example}.'
    )


def check_flow(flow: jax.Array | None, weight: float) -> None:
  """Raises ValueError unless a flow is given exactly if it has a weight."""
  if (flow is not None) != bool(weight):
    given = 'no flow' if flow is None else 'a flow'
    raise ValueError(
      f'flow_weight is {weight}: got {given}. A flow is given exactly if this '
      'setting is not 0.'
    )
