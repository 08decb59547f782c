"""Checks of the input of a `Predictor`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.systems import base


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
