"""The input of a `Predictor`: its checks, and the context of a clip."""

import collections
import functools
import os
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.predict import frame_rate
from vidpred_jax.systems import base
from vidpred_jax.video_io import scenes

# Of --factor, whose frames are made in one call, and --fps.
_LARGEST, _FASTEST = 64, 1000
_LONGEST = 10**6  # frames to predict: half a day of film
_FUTURES = 256  # each is a file that is open, of 1024 that a process may have


def check_clip(data: base.DataSpec, clip: Any) -> None:
  """Raises ValueError for an array that is no clip.

  Args:
    data: of the system.
    clip: [T, H, W, C]; an iterable passes, its frames are checked one by one.
  """
  kind = np.floating if data.is_field else np.uint8
  if hasattr(clip, 'shape') and (
    len(clip.shape) != 4 or not np.issubdtype(clip.dtype, kind)
  ):
    raise ValueError(
      f'A clip is {kind.__name__} [T, H, W, C], got {clip.dtype} of shape '
      f'{clip.shape}.'
    )


def frame(data: base.DataSpec, given: Any) -> np.ndarray:
  """A frame [H, W, C] as an array.

  Args:
    data: of the system.
    given: uint8, or floats of physical fields.

  Returns:
    The array, in its dtype.

  Raises:
    ValueError: if it is no frame, or a value of a field is not finite.
  """
  array = np.asarray(given)
  kind = np.floating if data.is_field else np.uint8
  if not np.issubdtype(array.dtype, kind) or array.ndim != 3 or not array.size:
    raise ValueError(
      f'A frame is {kind.__name__} [H, W, C], got {array.dtype} of shape '
      f'{array.shape}.'
    )
  if data.is_field and not np.isfinite(array).all():
    raise ValueError('A frame has values that are missing or not finite.')
  return array


def require(
  system: base.System, *, interpolates: bool, with_diagnostics: bool
) -> None:
  """Raises ValueError unless a system can do what is asked of it.

  Args:
    system: any system.
    interpolates: whether frames between others are asked for.
    with_diagnostics: whether diagnostics are.
  """
  if system.frames.interpolates != interpolates:
    does, asked = 'predicts what follows', 'interpolate'
    if not interpolates:
      does, asked = 'interpolates between frames', 'predict what follows'
    raise ValueError(
      f'This system {does} ({system.frames}); it cannot {asked}.'
    )
  if with_diagnostics and system.diagnostics is None:
    raise ValueError('This system has no diagnostics.')


def key(given: Any) -> jax.Array:
  """The random key, `jax.random.key(0)` for None.

  Raises:
    ValueError: if it is none of `jax.random.key`.
  """
  if given is None:
    return jax.random.key(0)
  dtype = getattr(given, 'dtype', type(given))
  if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
    raise ValueError(
      f'Got key={given!r}; expected jax.random.key(...) or None.'
    )
  return given


def context_frames(
  system: base.System,
  clip: Iterable[np.ndarray],
  num_frames: int,
  cut: float,
  *,
  with_diagnostics: bool = False,
) -> dict[int, np.ndarray]:
  """The frames of a clip that a system predicts from, `{time: frame}`.

  Args:
    system: any system.
    clip: `[T, H, W, C]`, or an iterable of frames, of which the last are held.
    num_frames: how many frames are to be predicted.
    cut: `least` of `scenes.last_scene`.
    with_diagnostics: whether diagnostics are asked for.

  Returns:
    The last frames at the times of the context. If the system repeats its
    context, the first of the last scene is given again for those before it.

  Raises:
    ValueError: if the system cannot predict so many frames from this clip.
  """
  frames = system.frames
  require(system, interpolates=False, with_diagnostics=with_diagnostics)
  if num_frames < 1:
    raise ValueError(f'Got num_frames={num_frames}, expected at least 1.')
  last = max(frames.context)
  length = last - min(frames.context) + 1
  check_clip(system.data, clip)
  check = functools.partial(frame, system.data)
  given = collections.deque(map(check, clip), maxlen=length)
  again = system.repeats_context
  least = 1 + last - frames.context[-2] if again else length
  if len(given) < least:
    raise ValueError(
      f'The clip has {len(given)} frame{"s" * (len(given) != 1)}, expected '
      f'at least {least} for the context {frames.context}.'
    )
  frame_rate.check_same_size(given)
  span = max(frames.target) - last
  # Each chunk moves the context on by `span`, onto given or predicted frames.
  follows = span > 0 and (
    {c % span for c in frames.context} <= {t % span for t in frames.target}
  )
  if num_frames > len(frames.target) and not follows:
    raise ValueError(
      f'Got num_frames={num_frames}; this system predicts {frames.target} '
      f'from {frames.context} and cannot go on from them.'
    )
  if not again:
    return dict(zip(range(last, last - length, -1), reversed(given)))
  scene = scenes.last_scene(list(given), cut)
  shown = scene[:: frames.context[-2] - last][: len(frames.context)]
  shown += shown[-1:] * (len(frames.context) - len(shown))
  return dict(zip(reversed(frames.context), shown))


def check_request(between: bool, **request: Any) -> None:
  """Raises ValueError unless a system of this kind serves a request.

  Args:
    between: whether the system interpolates.
    **request: what is asked for by the names of options; None: it is not.
  """
  wrong, does = ('factor', 'fps', 'cuts', 'whole'), 'predicts what follows'
  if between:
    wrong = ('num_frames', 'samples', 'with_input')
    does = 'interpolates between frames'
  for name in wrong:
    if request.get(name) is not None:
      raise ValueError(f'This system {does}; it cannot serve --{name}.')
  number, samples, factor, fps = (
    request.get(name) for name in ('num_frames', 'samples', 'factor', 'fps')
  )
  if number is not None and not 1 <= number <= _LONGEST:
    raise ValueError(f'Got --num_frames={number}, expected 1 to {_LONGEST}.')
  if samples is not None and not 1 <= samples <= _FUTURES:
    raise ValueError(f'Got --samples={samples}, expected 1 to {_FUTURES}.')
  if samples is not None and (
    request.get('with_input') or request.get('overlay')
  ):
    raise ValueError('Got --samples together with --with_input or --overlay.')
  if factor is not None and fps is not None:
    raise ValueError('Got both --factor and --fps, expected one of them.')
  if factor is not None and not 2 <= factor <= _LARGEST:
    raise ValueError(f'Got --factor={factor}, expected 2 to {_LARGEST}.')
  if fps is not None and not 1 / _FASTEST <= fps <= _FASTEST:
    raise ValueError(
      f'Got --fps={float(fps):g}, expected a positive number, {1 / _FASTEST} '
      f'to {_FASTEST}.'
    )


def check_memory(size: int) -> None:
  """Raises ValueError if frames held together need more memory than there is.

  Args:
    size: bytes of all frames.
  """
  if not hasattr(os, 'sysconf'):
    return
  memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  if size > memory:
    raise ValueError(
      f'The frames asked for take {size / 1e9:.0f} GB, more than the '
      f'{memory / 1e9:.0f} GB of this machine; ask for fewer at once.'
    )
