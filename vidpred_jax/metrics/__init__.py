"""Metrics: pairs of clips to numbers; every convention has its own name.

Papers report "PSNR" and "SSIM" and mean different things by them, so the name
of a metric is `measure/convention`. A metric takes `(pred, target)`, both `[B,
N, H, W, C]`, float images in [0, 1] (or uint8, which is divided by 255) or
physical fields in their own units. It returns `[B, N]` float32, one number per
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
| `acc/latitude` | correlation of anomalies from a mean field | WeatherBench 2 |
| `lpips/alex` | v0.1, RGB | OpenSTL |
| `lpips/alex_bgr` | v0.1 on channels in BGR order | DMVFN (times 100) |
| `lpips/alex_bgr_spatial` | the mean of its map | STRPM (times 100) |

Ensemble metrics take all samples of a forecast, `[S, B, N, H, W, C]`, at once:

| name | what it is | as in |
| --- | --- | --- |
| `crps/ens` | closed form over S samples, times 255 | RVD |
| `crps/round8` | samples rounded to 8 bits first | RVD's sum over levels |
| `crps/fair` | divided by S (S - 1): S does not matter | Ferro 2014 |
| `crps/units`, `crps/units_fair` | in the fields' own units | weather |
| `spread_skill/ratio` | spread over error of the mean, 1 is right | weather |
| `rank_deviation/round8` | rank histogram of 8 bits: distance from flat | |
| `rank_deviation/units` | the same of values as they are | |
| `NAME_best` | NAME of the best sample of each clip | MCVD, SVG |

The metrics of the first table are averaged over the samples. `NAME` of
`NAME_best` is a PSNR, SSIM or LPIPS. The best sample of a clip is the one with
the best mean over target frames (largest PSNR or SSIM, smallest LPIPS);
`per_frame` lists the frames of this sample.

Metrics of sets of videos:

| name | what it is | as in |
| --- | --- | --- |
| `fvd/i3d400` | Frechet distance, I3D's logits, target frames | StyleGAN-V |
| `fvd/i3d400_context` | context frames, then target frames | MCVD |

Errors use the prediction without clipping. PSNR, SSIM and LPIPS clip the
prediction (never the target) to [0, 1] first, as OpenSTL does.

PSNR, SSIM and LPIPS need images; `latitude` needs fields, whose rows have
latitudes; the other errors take either (`Metric.kind`). Errors of fields are in
the fields' units: `evaluate` first converts normalised predictions by `pred *
std + mean`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import names
from vidpred_jax.metrics import distribution, fields, frames, perceptual
from vidpred_jax.models import features


def _identity(mean):
  return mean


class Metric(NamedTuple):
  """One convention of one measure.

  Attributes:
    values: `(pred, target) -> [B, N]` float32, both `[B, N, H, W, C]`; pure,
      can be jitted. If `samples` is `'all'`, `pred` is `[S, B, N, H, W, C]`. It
      may return K numbers, `[B, N, K]`.
    finish: maps the float64 mean of `values` over clips (and frames), a number
      or [K], to the reported number: the identity, or the square root for
      `rmse`.
    higher_is_better: whether a better prediction has a larger number.
    minimum_size: the smallest height and width for which it is defined; smaller
      frames raise ValueError.
    kind: `'image'` if it needs images in [0, 1], `'field'` if it needs physical
      fields, `'any'` if it takes both.
    samples: the treatment of several samples: the `'mean'` of their values, the
      values of the `'best'` sample of each clip, or `'all'` at once.
    minimum_samples: the least number of samples of a stochastic forecast.
    details: maps the mean over clips and frames, [K], to a dict of further
      reported numbers; or None.
  """

  values: Callable
  finish: Callable = _identity
  higher_is_better: bool = True
  minimum_size: int = 1
  kind: str = 'image'
  samples: str = 'mean'
  minimum_samples: int = 1
  details: Callable | None = None


class SetMetric(NamedTuple):
  """A distance between a set of true videos and a set of predicted ones.

  Attributes:
    features: `(video [B, T, H, W, C]) -> [B, D]`; pure, can be jitted.
    distance: `([M, D], [M, S, D], *, seed) -> dict`, on the host: of the
      features of M clips and of S samples of each, the distance `'mean'` and
      what it was computed from.
    context: whether the context frames belong to the videos.
    minimum_frames: of a video.
    about: what the features are, for the record.
    higher_is_better, minimum_size, kind: as of `Metric`.
  """

  features: Callable
  distance: Callable
  context: bool
  minimum_frames: int
  about: dict
  higher_is_better: bool = False
  minimum_size: int = 1
  kind: str = 'image'


_error = functools.partial(Metric, higher_is_better=False, kind='any')
_field = functools.partial(_error, kind='field')
_distance = functools.partial(
  Metric, higher_is_better=False, minimum_size=perceptual.MINIMUM_SIZE
)
_ensemble = functools.partial(Metric, higher_is_better=False, samples='all')
_ranks = functools.partial(
  _ensemble,
  finish=distribution.rank_deviation,
  details=distribution.rank_details,
)
_fvd = functools.partial(
  SetMetric,
  distribution.i3d_features,
  distribution.frechet_of_sets,
  minimum_frames=features.I3D_MINIMUM_FRAMES,
  about=distribution.I3D_RECORD,
)

# Here `values` may still want settings, as keyword arguments; see `make`.
METRICS: dict[str, Metric | SetMetric] = {
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
  'acc/latitude': Metric(fields.acc_latitude, kind='field'),
  'lpips/alex': _distance(perceptual.lpips),
  'lpips/alex_bgr': _distance(perceptual.lpips_bgr),
  'lpips/alex_bgr_spatial': _distance(perceptual.lpips_bgr_spatial),
  'crps/ens': _ensemble(distribution.crps),
  'crps/round8': _ensemble(distribution.crps_round8),
  'crps/fair': _ensemble(distribution.crps_fair, minimum_samples=2),
  'crps/units': _ensemble(distribution.crps_units, kind='any'),
  'crps/units_fair': _ensemble(
    distribution.crps_units_fair, kind='any', minimum_samples=2
  ),
  'spread_skill/ratio': _ensemble(
    distribution.spread_skill,
    finish=distribution.spread_skill_ratio,
    details=distribution.spread_skill_details,
    kind='any',
    minimum_samples=2,
  ),
  'rank_deviation/round8': _ranks(distribution.ranks_round8),
  'rank_deviation/units': _ranks(distribution.ranks, kind='any'),
  'fvd/i3d400': _fvd(context=False),
  'fvd/i3d400_context': _fvd(context=True),
}
METRICS |= {
  f'{name}_best': metric._replace(samples='best')
  for name, metric in METRICS.items()
  if isinstance(metric, Metric)
  and name.split('/')[0] in ('psnr', 'ssim', 'ms_ssim', 'lpips')
}


def make(name: str, **settings) -> Metric | SetMetric:
  """Makes a metric by its convention name.

  Args:
    name: one of `METRICS`.
    **settings: keyword arguments of the convention's function in `frames`,
      `fields`, `perceptual` or `distribution`. The LPIPS conventions need
      `variables`, the tree that `convert.lpips` reads, FVD that of
      `convert.i3d`; those by latitude need `latitudes`, [H] in degrees,
      and `acc` a `climatology`, [H, W, C] in the units.

  Returns:
    The metric.

  Raises:
    ValueError: for an unknown metric or setting, or a missing setting.
  """
  metric = names.choose('metric', name, METRICS)
  of_sets = isinstance(metric, SetMetric)
  function = metric.features if isinstance(metric, SetMetric) else metric.values
  accepted = [
    parameter.name
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
  ]
  names.check_settings(name, settings, accepted)
  if 'variables' in accepted:
    check = distribution.check_i3d if of_sets else perceptual.check_variables
    check(name, settings.get('variables'))
  if 'latitudes' in accepted:
    fields.check_latitudes(name, settings.get('latitudes'))
  if 'climatology' in accepted:
    fields.check_climatology(name, settings.get('climatology'))
  function = functools.partial(function, **settings)
  if isinstance(metric, SetMetric):
    return metric._replace(features=function)
  return metric._replace(values=function)


def check_kind(kind: str, measures) -> None:
  """Raises ValueError for metrics that do not fit clips 'image' or 'field'."""
  wrong = 'field' if kind == 'image' else 'image'
  refused = ', '.join(k for k, m in measures.items() if m.kind == wrong)
  if refused and kind == 'image':
    raise ValueError(
      f'{refused} measure physical fields on a grid of latitudes; these clips '
      'are images, use psnr, ssim, mse or mae.'
    )
  if refused:
    raise ValueError(
      f'{refused} measure images in [0, 1]; these clips are physical fields '
      'in units of their own, use mse, mae, rmse or crps/units.'
    )


def check_samples(system, samples: int, measures) -> None:
  """Raises ValueError if a metric needs more samples or more frames."""
  if samples < 1:
    raise ValueError(f'Got {samples} samples, expected 1 or more.')
  if samples > 1 and not system.stochastic:
    raise ValueError(
      f'This system is deterministic: a clip has one future, got {samples} '
      'samples.'
    )
  for name, metric in measures.items():
    if isinstance(metric, SetMetric):
      length = len(system.frames.target)
      length += len(system.frames.context) * metric.context
      if length < metric.minimum_frames:
        raise ValueError(
          f'{name} needs videos of {metric.minimum_frames} frames or more, '
          f'these have {length}: {system.frames}.'
        )
    elif system.stochastic and samples < metric.minimum_samples:
      raise ValueError(
        f'{name} needs {metric.minimum_samples} samples or more, got {samples}.'
      )


def of_samples(measures: dict[str, Metric], samples, target) -> dict:
  """The values of metrics for a forecast by samples; pure, can be jitted.

  Samples are measured one after another. The values of a metric and of its
  `_best` variant are computed once.

  Args:
    measures: `{name: Metric}`.
    samples: `[S, B, N, H, W, C]`; a deterministic prediction has S = 1.
    target: `[B, N, H, W, C]`.

  Returns:
    `{name: [B, N] or [B, N, K]}`.
  """
  values, of_each = {}, {}
  for name, metric in measures.items():
    if metric.samples == 'all':
      values[name] = metric.values(samples, target)
      continue
    base = name.removesuffix('_best')
    if base not in of_each:
      of_each[base] = _of_each(metric, samples, target)
    each = of_each[base]
    values[name] = each.mean(0)
    if metric.samples == 'best':
      score = each.mean(2) if metric.higher_is_better else -each.mean(2)
      best = jnp.argmax(score, 0)
      chosen = jnp.take_along_axis(each, best[None, :, None], axis=0)
      values[name] = chosen[0]
  return values


def _of_each(metric, samples, target) -> jax.Array:
  """The values of each sample, [S, B, N]."""
  if len(samples) == 1:
    return metric.values(samples[0], target)[None]
  return jax.lax.map(lambda sample: metric.values(sample, target), samples)
