"""Latitude-weighted errors and correlations of physical fields.

Rows of a latitude grid cover less area near the poles. So a row at the latitude
`phi` has the weight `cos(phi)`, divided by the mean over the rows (Rasp et al.
2020, WeatherBench, eq. 1 and 2). Fields are in the variables' own units;
`evaluate` first converts normalised predictions by `pred * std + mean`.

WeatherBench averages the roots of each forecast's mean. Here, as for every
`rmse`, the root is taken of the mean over clips.

The anomaly correlation is that of WeatherBench 2 (Rasp et al. 2024, eq. 5): not
centred, of each forecast, then averaged. Its climatology is a mean field, as
that of WeatherBench, here of the training split; WeatherBench 2 has one for
each day of the year and hour, against which the numbers are lower.
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


def check_climatology(name: str, climatology) -> None:
  """Raises ValueError unless a climatology is given, [H, W, C] and finite."""
  if climatology is None or np.ndim(climatology) != 3:
    raise ValueError(
      f'{name} needs climatology: a mean field [H, W, C] in the units, got '
      f'{"none" if climatology is None else np.shape(climatology)}.'
    )
  if not np.isfinite(climatology).all():
    raise ValueError(f'{name} needs a climatology of finite numbers.')


def acc_latitude(pred, target, *, latitudes, climatology) -> jax.Array:
  """Anomaly correlation, weighted by latitude, over H, W and C: `[B, N]`.

  Args:
    pred: `[B, N, H, W, C]` in the variables' units.
    target: the truth, of the same shape.
    latitudes: [H], degrees.
    climatology: [H, W, C], in the units, from which anomalies are measured.

  Returns:
    -1 to 1, float32; NaN where either has no anomaly.

  Raises:
    ValueError: if the shapes do not fit.
  """
  frames.check(pred, target)
  if np.shape(climatology) != pred.shape[2:]:
    raise ValueError(
      f'The climatology is {np.shape(climatology)}; expected {pred.shape[2:]}.'
    )
  climatology = jnp.asarray(climatology, jnp.float32)[None, None]
  ours, true = (frames.as_float(x) - climatology for x in (pred, target))

  # In any unit: the squares of 1e-20 and of 1e20 are no float32.
  ours, true = (
    x / jnp.max(jnp.abs(x), (-3, -2, -1), keepdims=True) for x in (ours, true)
  )

  def mean(product):
    return _mean(product, latitudes)

  return mean(ours * true) / jnp.sqrt(mean(ours**2) * mean(true**2))


def _weighted(measure, pred, target, latitudes) -> jax.Array:
  frames.check(pred, target)
  return _mean(
    measure(frames.as_float(pred) - frames.as_float(target)), latitudes
  )


def _mean(values, latitudes) -> jax.Array:
  """The mean of [B, N, H, W, C] over H, W and C, rows by their area."""
  weights = np.cos(np.deg2rad(np.asarray(latitudes, np.float64)))
  if len(weights) != values.shape[2]:
    raise ValueError(
      f'There are {len(weights)} latitudes for fields of {values.shape[2]} '
      'rows.'
    )
  weights = jnp.asarray(weights / weights.mean(), jnp.float32)
  return jnp.mean(values.mean((3, 4)) * weights[None, None], axis=2)
