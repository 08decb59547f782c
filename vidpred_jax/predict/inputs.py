"""Checks of the input of a `Predictor`."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


def of_one_scene(
  system: base.System, frames: Sequence[np.ndarray], cut: float
) -> dict[int, np.ndarray]:
  """The context of a system that repeats it, `{time: frame}`.

  Args:
    system: with an evenly spread context.
    frames: the last frames of a clip, one after another.
    cut: `least` of `scenes.last_scene`; fields have no scenes.

  Returns:
    The last frames at the context's times. Where the last scene has none for
    one of them, the frame after that is given again.
  """
  context = system.frames.context
  scene = scenes.last_scene(frames, -1 if system.data.is_field else cut)
  shown = scene[:: context[-2] - context[-1]][: len(context)]
  shown += shown[-1:] * (len(context) - len(shown))
  return dict(zip(reversed(context), shown))


def check_request(between: bool, **request: Any) -> None:
  """Raises ValueError unless a system of this kind serves a request.

  Args:
    between: whether the system interpolates.
    **request: what is asked for by the names of options; None: it is not.
  """
  wrong, does = ('factor', 'fps', 'cuts'), 'predicts what follows'
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
  there = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  if size > there:
    raise ValueError(
      f'The frames asked for take {size / 1e9:.0f} GB, more than the '
      f'{there / 1e9:.0f} GB of this machine; ask for fewer at once.'
    )
