"""Latitude-weighted errors of physical fields.

Rows of a latitude grid cover less area near the poles. So a row at the latitude
`phi` has the weight `cos(phi)`, divided by the mean over the rows (Rasp et al.
2020, WeatherBench, eq. 1 and 2). Fields are in the variables' own units;
`evaluate` first converts normalised predictions by `pred * std + mean`.

WeatherBench averages the roots of each forecast's mean. Here, as for every
`rmse`, the root is taken of the mean over clips.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.metrics import frames


def check_latitudes(name: str, latitudes) -> None:
  """Raises ValueError unless latitudes are given.

  Raises:
    ValueError: if they are missing, no list of numbers, or beyond the poles.
  """
  if latitudes is None:
    raise ValueError(
      f'{name} needs latitudes: those of the rows, [H] in degrees.'
    )
  latitudes = np.asarray(latitudes)
  if latitudes.ndim != 1 or not (np.abs(latitudes) <= 90).all():
    raise ValueError(
      f'{name} needs latitudes [H] in degrees, -90 to 90, got {latitudes}.'
    )


def mse_latitude(pred, target, *, latitudes) -> jax.Array:
  """Squared error, weighted by latitude, mean over H, W and C: `[B, N]`.

  Args:
    pred: `[B, N, H, W, C]` in the variables' units.
    target: the truth, of the same shape.
    latitudes: [H], degrees.

  Raises:
    ValueError: if the shapes do not fit.
  """
  return _weighted(jnp.square, pred, target, latitudes)


def mae_latitude(pred, target, *, latitudes) -> jax.Array:
  """As `mse_latitude`, of the absolute error."""
  return _weighted(jnp.abs, pred, target, latitudes)


def _weighted(measure, pred, target, latitudes) -> jax.Array:
  frames.check(pred, target)
  weights = np.cos(np.deg2rad(np.asarray(latitudes, np.float64)))
  if len(weights) != pred.shape[2]:
    raise ValueError(
      f'There are {len(weights)} latitudes for fields of {pred.shape[2]} rows.'
    )
  weights = jnp.asarray(weights / weights.mean(), jnp.float32)
  error = measure(frames.as_float(pred) - frames.as_float(target))
  return jnp.mean(error.mean((3, 4)) * weights[None, None], axis=2)
