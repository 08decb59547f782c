"""Pairs of clips -> numbers; every convention has a name of its own.

Papers report "PSNR" and "SSIM" and mean different things by them, so a metric
is asked for as `measure/convention`. All take `(pred, target)`, both
`[B, N, H, W, C]`, float images in [0, 1] (or uint8, which is divided by 255) or
physical fields in their own units, and give `[B, N]` float32: one number per
clip and target frame.

| name | what it is | as in |
| --- | --- | --- |
| `psnr/float` | -10 log10(mse), unquantised | DMVFN, EBME, later OpenSTL |
| `psnr/round8` | prediction rounded to 8 bits first | RIFE, Xiph |
| `psnr/e3d_wrap` | 8-bit differences that wrap around | E3D-LSTM, SimVP |
| `ssim/pmss` | Gaussian 11, sigma 1.5, valid | pytorch_msssim |
| `ssim/tf11` | the same number | tf.image.ssim, FILM |
| `ssim/skimage7_dr1` | uniform 7, data range 1 | scikit-image |
| `ssim/skimage7_dr2` | uniform 7, data range 2 | OpenSTL (old scikit-image) |
| `ssim/skimage7_dr255` | uniform 7, 8 bits | Xiph |
| `ssim/matlab3d` | Gaussian 11^3 over C, H and W | EBME, RIFE |
| `ms_ssim/pmss` | five scales, sides above 160 | DMVFN |
| `mse/mean`, `mae/mean`, `rmse/mean` | per value | weather, traffic |
| `mse/sum_chw`, `mae/sum_chw`, `rmse/sum_chw` | summed over C, H, W | OpenSTL |
| `rmse/latitude`, `mae/latitude` | rows weighted by cos(lat) | WeatherBench |
| `lpips/alex` | v0.1, RGB | OpenSTL |
| `lpips/alex_bgr` | v0.1 on channels in BGR order | DMVFN (times 100) |

Errors are computed from the prediction as it is; PSNR, SSIM and LPIPS clip the
prediction (never the target) to [0, 1] first, as OpenSTL does.

PSNR, SSIM and LPIPS suppose images and `latitude` supposes fields, where rows
have latitudes; the other errors measure either (`Metric.kind`). Of fields they
are in the fields' units: `evaluate` brings normalised predictions there first,
by `pred * std + mean`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vidpred_jax.metrics import fields, frames, perceptual


def _identity(mean):
  return mean


class Metric(NamedTuple):
  """One convention of one measure.

  Attributes:
    values: `(pred, target) -> [B, N]` float32, both `[B, N, H, W, C]`; pure,
      can be jitted.
    finish: from the float64 mean of `values` over clips (and frames) to the
      number that is reported: the identity, or the square root for `rmse`.
    higher_is_better: whether a better prediction has a larger number.
    minimum_size: the smallest height and width it is defined for; smaller
      frames raise ValueError.
    kind: `'image'` if it needs images in [0, 1], `'field'` if it needs physical
      fields, `'any'` if it measures both.
  """

  values: Callable
  finish: Callable = _identity
  higher_is_better: bool = True
  minimum_size: int = 1
  kind: str = 'image'


_error = functools.partial(Metric, higher_is_better=False, kind='any')
_field = functools.partial(_error, kind='field')
_distance = functools.partial(
  Metric, higher_is_better=False, minimum_size=perceptual.MINIMUM_SIZE
)

# Here `values` may still want settings, as keyword arguments; see `make`.
METRICS = {
  'psnr/float': Metric(frames.psnr),
  'psnr/round8': Metric(frames.psnr_round8),
  'psnr/e3d_wrap': Metric(frames.psnr_e3d_wrap),
  'ssim/pmss': Metric(frames.ssim_gaussian, minimum_size=11),
  'ssim/tf11': Metric(frames.ssim_gaussian, minimum_size=11),
  'ssim/skimage7_dr1': Metric(frames.ssim_skimage_dr1, minimum_size=7),
  'ssim/skimage7_dr2': Metric(frames.ssim_skimage_dr2, minimum_size=7),
  'ssim/skimage7_dr255': Metric(frames.ssim_skimage_dr255, minimum_size=7),
  'ssim/matlab3d': Metric(frames.ssim_matlab3d, minimum_size=11),
  'ms_ssim/pmss': Metric(frames.ms_ssim, minimum_size=161),
  'mse/mean': _error(frames.mse_mean),
  'mse/sum_chw': _error(frames.mse_sum),
  'mae/mean': _error(frames.mae_mean),
  'mae/sum_chw': _error(frames.mae_sum),
  'rmse/mean': _error(frames.mse_mean, finish=np.sqrt),
  'rmse/sum_chw': _error(frames.mse_sum, finish=np.sqrt),
  'mae/latitude': _field(fields.mae_latitude),
  'rmse/latitude': _field(fields.mse_latitude, finish=np.sqrt),
  'lpips/alex': _distance(perceptual.lpips),
  'lpips/alex_bgr': _distance(perceptual.lpips_bgr),
}


def make(name: str, **settings) -> Metric:
  """Makes a metric by its convention name.

  Args:
    name: one of `METRICS`.
    **settings: keyword arguments of the convention's function in `frames`,
      `fields` or `perceptual`. The LPIPS conventions need `variables`, the tree
      that `convert.lpips` reads; those by latitude need `latitudes`, [H] in
      degrees.

  Returns:
    The metric.

  Raises:
    ValueError: if there is no such metric or setting, or a needed one is
      missing.
  """
  if name not in METRICS:
    raise ValueError(
      f'There is no metric {name!r}; there are {", ".join(METRICS)}.'
    )
  metric = METRICS[name]
  accepted = [
    parameter.name
    for parameter in inspect.signature(metric.values).parameters.values()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
  ]
  unknown = sorted(set(settings) - set(accepted))
  if unknown:
    raise ValueError(
      f'{name} has no setting {", ".join(unknown)}; it has '
      f'{", ".join(accepted) or "none"}.'
    )
  if 'variables' in accepted:
    perceptual.check_variables(name, settings.get('variables'))
  if 'latitudes' in accepted:
    fields.check_latitudes(name, settings.get('latitudes'))
  return metric._replace(values=functools.partial(metric.values, **settings))
