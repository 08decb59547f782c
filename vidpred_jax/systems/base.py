"""What a system is: three pure functions and a few facts about itself.

A clip is `[B, T, H, W, C]`, float32 in [0, 1] for images. `Frames` says which
of its frames are seen and which are asked for; no model branches on a task.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Frames(NamedTuple):
  """Indices into a clip: what is seen and what is asked.

  Prediction is `Frames((0, 1), (2, 3, 4))`, interpolation
  `Frames((0, 2), (1,))`.
  """

  context: tuple[int, ...]
  target: tuple[int, ...]

  @property
  def length(self) -> int:
    """Frames a clip must have, `max(index) + 1`."""
    return 1 + max(self.context + self.target)

  @property
  def interpolates(self) -> bool:
    """Whether every target lies between the first and last context frame."""
    return min(self.context) < min(self.target) and max(self.target) < max(
      self.context
    )


class DataSpec(NamedTuple):
  """What clips are: images, or physical fields and their normalisation.

  Systems see images as float [0, 1] and fields normalised by mean and standard
  deviation; users see images as uint8 and fields in units of their own.

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
    """What systems see [..., C], float32, of what users see."""
    frames = frames.astype(np.float32)
    if not self.is_field:
      return frames / 255
    mean, std = self._scale(frames.ndim)
    return (frames - mean) / std

  def denormalise(self, frames):
    """What users see of what systems give, NumPy's or JAX's [..., C]."""
    if not self.is_field:
      return (255 * frames.clip(0, 1)).round().astype(np.uint8)
    mean, std = self._scale(frames.ndim)
    return frames * std + mean

  def _scale(self, ndim: int):
    shape = (1,) * (ndim - 1) + (-1,)
    return (np.reshape(np.float32(x), shape) for x in (self.mean, self.std))


class Recurrence(NamedTuple):
  """A forecast frame by frame; `predict` is `advance` again and again.

  Attributes:
    begin: `(variables, context) -> memory`, a tree of arrays; `context` is that
      of `predict`.
    advance: `(variables, memory, key, n) -> (memory, frame)`: the next frame
      [B, H, W, C], number n from 0; the key is the same for all of them.
  """

  begin: Callable
  advance: Callable


class System(NamedTuple):
  """A model, its loss and its way of predicting, as pure functions.

  Attributes:
    init: `(key, video) -> variables`, a dict with `'params'` and any other Flax
      collections. `video` is a clip `[B, T, H, W, C]` of
      any type; only its shape matters. It is quickest as `jax.jit(init)` with
      a key of `runtime.key`.
    loss: `(variables, video, key) -> (scalar, (collections, metrics))`. `video`
      is the whole clip, float [0, 1]; `collections` are the updated
      non-parameter collections, `metrics` a flat dict of scalars. With
      `flow_pairs` there is also `flow`, a keyword: [B, P, H, W, 2].
    predict: `(variables, context, key) -> frames`. `context` is `[B,
      len(frames.context), H, W, C]`, float like the clip, the result `[B, N, H,
      W, C]` with N = `len(frames.target)`.
    frames: the frames `loss` and `predict` are about.
    multiple: H and W must be divisible by this.
    stochastic: whether `predict` depends on `key`.
    channels: of a frame, C.
    data: what its clips are; loaded systems know what they learned from.
    explain: `(variables, context, key) -> (frames, details)`: as `predict`, and
      a dict of what the model looked at, each `[B, N, ...]`: `'flow'`
      [B, N, H, W, 2] (dx, dy) in pixels, `'mask'` [B, N, H, W, 1] in [0, 1],
      `'blocks'` [B, N, K] with 1 for each block used. None where there is
      nothing to show.
    clip_size: `(variables) -> (H, W)` of a clip at which `init` gives arrays of
      these shapes, for weights that are tied to a size; None: any size does.
    recurrence: for systems that remember more of a video than they are shown:
      the same forecast a frame a call, of any length. None: calls of `predict`
      go on from what was predicted as well as one that is longer.
    flow_pairs: P pairs (of, into) of frames whose exact flow `loss` takes where
      it is known: (dx, dy) from each pixel of frame `of` to the same point in
      frame `into`, NaN where that is not known. Empty: it takes none.
    cpu_options: compiler options, (name, value), with which this model is
      faster on a CPU than with those of `runtime.jit`.
    name: in `systems.SYSTEMS`.
    settings: all of its settings, (name, value).
  """

  init: Callable
  loss: Callable
  predict: Callable
  frames: Frames
  multiple: int
  stochastic: bool
  channels: int = 3
  data: DataSpec = DataSpec()
  explain: Callable | None = None
  clip_size: Callable | None = None
  recurrence: Recurrence | None = None
  flow_pairs: tuple[tuple[int, int], ...] = ()
  cpu_options: tuple[tuple[str, Any], ...] = ()
  name: str = ''
  settings: tuple[tuple[str, Any], ...] = ()

  def __repr__(self) -> str:
    sees, gives = self.frames
    return f'System({self.name!r}, sees {sees}, gives {gives})'


def as_float(video: jax.Array) -> jax.Array:
  """What is given to a system: uint8 images become float32 in [0, 1].

  Physical fields are float32 already and stay as they are.
  """
  if video.dtype == jnp.uint8:
    return video.astype(jnp.float32) / 255.0
  return video


def take(video: jax.Array, indices: tuple[int, ...]) -> jax.Array:
  """The frames `indices` of a clip [B, T, H, W, C]."""
  return jnp.stack([video[:, i] for i in indices], axis=1)


def check_shape(
  video: jax.Array, length: int, channels: int, multiple: int
) -> None:
  """Raises ValueError unless a system can be made for a clip of this shape."""
  fine = video.ndim == 5 and video.shape[1] >= length
  if not fine or video.shape[-1] != channels:
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
  """Raises ValueError unless [B, T, H, W, C] is a clip a system can use."""
  check_shape(video, length, channels, multiple)
  if not jnp.issubdtype(video.dtype, jnp.floating):
    raise ValueError(
      f'Got frames of {video.dtype}; expected floats, images in [0, 1]: '
      '`systems.base.as_float` makes them of uint8.'
    )


def check_context(
  context: jax.Array, count: int, channels: int, multiple: int
) -> None:
  """Raises ValueError unless these are exactly the frames to predict from."""
  fine = context.ndim == 5 and context.shape[1] == count
  if not fine or context.shape[-1] != channels:
    raise ValueError(
      f'Got context of shape {context.shape}; expected '
      f'[B, {count}, H, W, {channels}].'
    )
  check_clip(context, count, channels, multiple)


def check_frames(
  frames: Frames, name: str, example: str, *, context: int | None = None
) -> None:
  """Raises ValueError unless prediction goes on in even steps.

  Args:
    frames: what a system is to see and to give.
    name: of the system.
    example: frames that it can serve.
    context: how many frames it sees; None: any number.
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
  """Raises ValueError unless a flow is given where its error has a weight."""
  if (flow is not None) != bool(weight):
    given = 'no flow' if flow is None else 'a flow'
    raise ValueError(f'flow_weight is {weight}: got {given}.')
