"""Probabilistic metrics: how well samples fit the observed clip.

An ensemble metric takes `samples`, `[S, B, N, H, W, C]`, and `target`, `[B, N,
H, W, C]`. It returns `[B, N]` float32, or `[B, N, K]` for K statistics, which
`Metric.finish` turns into a number. Images are float in [0, 1] or uint8;
samples are clipped to [0, 1] first unless stated otherwise. Target frames are
processed one after another. So the memory in addition to the samples is about
twice the samples of one frame (as compiled for a CPU), 8 S B H W C bytes, for
any number of frames.

*CRPS*, the continuous ranked probability score of each pixel (RVD, section 3.4:
the integral over z of (F(z) - 1{x <= z})^2, F the distribution of the S
samples) has the closed form

  CRPS = mean_s |X_s - x| - 1/2 mean_{s,s'} |X_s - X_s'|,

whose second term is (1 / S^2) sum_i (2 i - S - 1) X_(i) of the sorted samples.
With one sample it is the absolute error. The second mean contains the S pairs
of equal members, so few samples score worse than many of the same distribution;
the *fair* estimator divides by S (S - 1) instead (Ferro 2014), and its
expectation does not depend on S.

*FVD* is the Frechet distance between Gaussians fitted to I3D's features of true
and of generated videos (Unterthiner et al. 2018). It is a number of two sets of
videos, not of a clip, and is computed on the host in float64.

Differences from the reference:
  The paper's code has no metrics. Its text sums over the 256 levels of 8-bit
  frames, which is the closed form of samples rounded to them
  (`crps/round8`); `crps/ens` does not round. It does not say how many samples
  it draws.
  TensorFlow's FVD enlarges frames with TensorFlow 1's bilinear resizing, whose
  grid is half a pixel off; here and in the PyTorch versions pixels are areas.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.metrics import frames
from vidpred_jax.models import features
from vidpred_jax.ops import resize

# What goes with a Frechet distance of `i3d_features`, for the record.
I3D_RECORD = {
  'network': 'I3D, Kinetics-400',
  'layer': 'logits',
  'size': features.I3D_SIZE,
  'resize': 'bilinear, half-pixel centres, no antialiasing',
}

# --- Ensembles ---------------------------------------------------------------

# Values of a frame whose samples are sorted at once on a CPU: they stay in its
# cache.
_BLOCK = 1024


def check(samples, target) -> None:
  """Checks the shapes `[S, B, N, H, W, C]` and `[B, N, H, W, C]`.

  Raises:
    ValueError: with what was got and what was expected.
  """
  if samples.ndim != 6 or samples.shape[1:] != target.shape:
    raise ValueError(
      'Samples must be [S, B, N, H, W, C] and the target [B, N, H, W, C], got '
      f'{tuple(samples.shape)} and {tuple(target.shape)}.'
    )


def _each_target(function, samples, target) -> jax.Array:
  """Applies `([S, B, H, W, C], [B, H, W, C]) -> [B, ...]` to each frame."""
  check(samples, target)

  def of_frame(n):  # cut out where it lies: no second copy of all samples
    x = jax.lax.dynamic_index_in_dim(samples, n, 2, keepdims=False)
    y = jax.lax.dynamic_index_in_dim(target, n, 1, keepdims=False)
    return function(frames.as_float(x), frames.as_float(y))

  by_frame = jax.lax.map(of_frame, jnp.arange(target.shape[1]))
  return jnp.moveaxis(by_frame, 0, 1)


def _unit(x):
  return jnp.clip(x, 0, 1)


def _round8(x):
  return jnp.round(jnp.clip(x, 0, 1) * 255) / 255


def _sorted(x: jax.Array) -> jax.Array:
  """Sorts `[S, ...]` along S by Batcher's bitonic network.

  `jnp.sort` compares value by value. The network takes the smaller and the
  larger of whole arrays, which a processor does for many values at once.
  """
  count = len(x)
  size = 1 << (count - 1).bit_length()
  missing = jnp.full((size - count, *x.shape[1:]), jnp.inf, x.dtype)
  x = jnp.concatenate([x, missing])

  def compared(x, width, mirrored):
    """Orders the pairs across the middle of each `width` values."""
    low, high = jnp.split(x.reshape(-1, width, *x.shape[1:]), 2, axis=1)
    high = high[:, ::-1] if mirrored else high
    low, high = jnp.minimum(low, high), jnp.maximum(low, high)
    high = high[:, ::-1] if mirrored else high
    return jnp.concatenate([low, high], 1).reshape(x.shape)

  width = 2
  while width <= size:
    x = compared(x, width, True)  # two sorted halves, one read backwards
    part = width // 2
    while part > 1:
      x = compared(x, part, False)
      part //= 2
    width *= 2
  return x[:count]


def _crps_of_frame(x, y, fair):
  """`[S, B, H, W, C]` and `[B, H, W, C]` -> `[B, H, W, C]`."""
  count = len(x)
  pairs = count * (count - 1) if fair else count * count
  weights = (2 * np.arange(1, count + 1) - count - 1) / max(pairs, 1)
  weights = np.float32(weights)[:, None]

  def score(x, y):
    # Differences from the truth are in the samples' order, but smaller.
    difference = _sorted(x - y[None])
    return jnp.mean(jnp.abs(difference), 0) - jnp.sum(weights * difference, 0)

  def by_blocks():
    block = min(_BLOCK, truth.size)
    # The last block ends with the frame; what it shares with the one before is
    # computed twice.
    starts = np.minimum(np.arange(0, truth.size, block), truth.size - block)

    def of_block(start):
      here = jax.lax.dynamic_slice_in_dim(samples, start, block, 1)
      return score(here, jax.lax.dynamic_slice_in_dim(truth, start, block))

    blocks = jax.lax.map(of_block, jnp.asarray(starts, jnp.int32))
    last = truth.size - (len(starts) - 1) * block
    return jnp.concatenate([blocks[:-1].reshape(-1), blocks[-1, -last:]])

  if not y.size:
    return jnp.zeros(y.shape, x.dtype)
  samples, truth = x.reshape(count, -1), y.reshape(-1)
  scores = jax.lax.platform_dependent(
    cpu=by_blocks, default=lambda: score(samples, truth)
  )
  return scores.reshape(y.shape)


def crps_map(samples, target, *, fair: bool = False) -> jax.Array:
  """CRPS of every value, in the units of the frames.

  Args:
    samples: `[S, B, N, H, W, C]`, not clipped.
    target: `[B, N, H, W, C]`.
    fair: whether to take the fair estimator. A single sample counts as a
      certain forecast: both estimators then give the absolute error.

  Returns:
    `[B, N, H, W, C]`.
  """
  return _each_target(lambda x, y: _crps_of_frame(x, y, fair), samples, target)


def _crps(samples, target, factor=1.0, prepare=None, fair=False) -> jax.Array:
  def frame(x, y):
    x = x if prepare is None else prepare(x)
    return factor * jnp.mean(_crps_of_frame(x, y, fair), (1, 2, 3))

  return _each_target(frame, samples, target)


def crps(samples, target) -> jax.Array:
  """CRPS in 8-bit units, mean over pixels and channels.

  Args:
    samples: `[S, B, N, H, W, C]` images, clipped to [0, 1].
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N]`; for S = 1 it is 255 times the mean absolute error.
  """
  return _crps(samples, target, 255.0, _unit)


def crps_round8(samples, target) -> jax.Array:
  """As `crps`, with samples rounded to 8 bits: the paper's sum over levels."""
  return _crps(samples, target, 255.0, _round8)


def crps_fair(samples, target) -> jax.Array:
  """As `crps`, by the fair estimator, which does not depend on S on average."""
  return _crps(samples, target, 255.0, _unit, fair=True)


def crps_units(samples, target) -> jax.Array:
  """CRPS in the units of the frames; nothing is clipped."""
  return _crps(samples, target)


def crps_units_fair(samples, target) -> jax.Array:
  """As `crps_units`, by the fair estimator."""
  return _crps(samples, target, fair=True)


def spread_skill(samples, target) -> jax.Array:
  """Variance of the samples and squared error of their mean.

  The first is the unbiased variance times (S + 1) / S, which in a perfect
  ensemble has the same expectation as the second for any S (Fortin et al.
  2014, "Why should ensemble spread match the RMSE of the ensemble mean?").

  Args:
    samples: `[S, B, N, H, W, C]`, not clipped.
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N, 2]`, means over H, W and C. The variance of one sample is 0.
  """
  count = samples.shape[0]
  factor = (count + 1) / (count * max(count - 1, 1))

  def frame(x, y):
    mean = jnp.mean(x, 0)
    variance = factor * jnp.sum(jnp.square(x - mean[None]), 0)
    both = jnp.stack([variance, jnp.square(mean - y)], -1)
    return jnp.mean(both, (1, 2, 3))

  return _each_target(frame, samples, target)


def spread_skill_ratio(means: np.ndarray) -> float:
  """The ratio of spread to error, by the mean of `spread_skill`; ideally 1.

  Below 1 the forecast is too sure of itself. nan if both are 0.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    return float(np.sqrt(means[0] / means[1]))


def spread_skill_details(means: np.ndarray) -> dict[str, float]:
  """The two numbers of the ratio, in the units of the frames."""
  spread, skill = np.sqrt(means)
  return {'spread': float(spread), 'rmse_of_mean': float(skill)}


def ranks(samples, target) -> jax.Array:
  """The rank histogram: how often the truth has each rank among the samples.

  Where samples equal the truth, it could have any of their ranks: the pixel
  counts for all of these, in equal parts.

  Args:
    samples: `[S, B, N, H, W, C]`, not clipped.
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N, S + 1]`, sums to 1: a flat one is what a calibrated forecast gives,
    the ends are high where it is too sure.
  """
  return _ranks(samples, target, lambda x: x)


def ranks_round8(samples, target) -> jax.Array:
  """As `ranks`, with samples and truth rounded to 8 bits."""
  return _ranks(samples, target, _round8)


def _ranks(samples, target, prepare) -> jax.Array:
  count = samples.shape[0]

  def frame(x, y):
    x, y = prepare(x), prepare(y)
    below = jnp.sum(x < y[None], 0)
    equal = jnp.sum(x == y[None], 0)
    part = 1 / (equal + 1)

    def share(rank):
      inside = (rank >= below) & (rank <= below + equal)
      return jnp.mean(jnp.where(inside, part, 0), (1, 2, 3))

    return jax.lax.map(share, jnp.arange(count + 1)).T

  return _each_target(frame, samples, target)


def rank_deviation(shares: np.ndarray) -> float:
  """The deviation of a rank histogram from flat: sum |share - 1 / (S + 1)|.

  The reliability index of Delle Monache et al. 2006; 0 is flat, 2 the most.
  """
  return float(np.abs(shares - 1 / len(shares)).sum())


def rank_details(shares: np.ndarray) -> dict[str, list[float]]:
  """The histogram itself."""
  return {'histogram': [float(x) for x in shares]}


# --- Frechet distance --------------------------------------------------------


class Moments(NamedTuple):
  """Mean and scatter of vectors, float64; `merge` is exact.

  Attributes:
    number: of vectors, M.
    mean: [D].
    scatter: [D, D], sum of outer products of the deviations from the mean.
  """

  number: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """[D, D], divided by M - 1."""
    return self.scatter / (self.number - 1)


def moments(vectors) -> Moments:
  """The `Moments` of [M, D]."""
  vectors = np.asarray(vectors, np.float64)
  mean = vectors.mean(0)
  deviations = vectors - mean
  return Moments(len(vectors), mean, deviations.T @ deviations)


def merge(a: Moments, b: Moments) -> Moments:
  """The moments of the union of two sets (Chan et al. 1979)."""
  number = a.number + b.number
  step = b.mean - a.mean
  return Moments(
    number,
    a.mean + step * (b.number / number),
    a.scatter
    + b.scatter
    + np.outer(step, step) * (a.number * b.number / number),
  )


def frechet(a: Moments, b: Moments) -> float:
  """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two Gaussians.

  The trace of the root is the sum of the roots of the eigenvalues of
  C_a^(1/2) C_b C_a^(1/2), which is symmetric, so that it is real and exists
  also where there are fewer vectors than dimensions.

  Raises:
    ValueError: if one has fewer than two vectors.
  """
  if min(a.number, b.number) < 2:
    raise ValueError(
      f'A covariance needs at least 2 videos, got {a.number} and {b.number}.'
    )
  values, axes = np.linalg.eigh(a.covariance)
  root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
  between = np.linalg.eigvalsh(root @ b.covariance @ root)
  trace = np.trace(a.covariance) + np.trace(b.covariance)
  trace -= 2 * np.sqrt(np.maximum(between, 0)).sum()
  return float(np.square(a.mean - b.mean).sum() + trace)


def frechet_of_sets(
  real,
  generated,
  *,
  resamples: int = 50,
  seed: int = 0,
) -> dict[str, Any]:
  """The Frechet distance of features, with a bootstrap interval.

  Args:
    real: [M, D], one vector for each clip.
    generated: [M, S, D], S samples of each of these clips; all count.
    resamples: number of bootstrap draws of M clips, with their samples, with
      replacement; 0 for none.
    seed: of the draws.

  Returns:
    `'mean'`, the distance; `'videos'` M; `'generated_videos'` M S;
    `'interval'`, the distance plus and minus 1.96 standard deviations of the
    bootstrap's distances; `'resamples'` and `'seed'`. (The bootstrap's own
    quantiles would lie too high: the distance grows as the number of distinct
    videos falls. For the same reason distances of different M are not to be
    compared.)

  Raises:
    ValueError: if there are fewer than two clips.
  """
  real, generated = np.asarray(real), np.asarray(generated)

  def distance(rows):
    of_samples = (moments(x[rows]) for x in np.moveaxis(generated, 1, 0))
    return frechet(moments(real[rows]), functools.reduce(merge, of_samples))

  count = len(real)
  result = {
    'mean': distance(np.arange(count)),
    'videos': count,
    'generated_videos': count * generated.shape[1],
  }
  if resamples:
    rng = np.random.default_rng(seed)
    draws = [distance(rng.integers(0, count, count)) for _ in range(resamples)]
    half = 1.96 * float(np.std(draws, ddof=1 if resamples > 1 else 0))
    result['interval'] = [result['mean'] - half, result['mean'] + half]
    result |= {'resamples': resamples, 'seed': seed}
  return result


def check_i3d(name: str, variables) -> None:
  """Raises ValueError without I3D's weights.

  Raises:
    ValueError: if `variables` is not the tree of `convert.i3d`.
  """
  if isinstance(variables, Mapping) and 'Conv3d_1a_7x7' in variables:
    return
  got = sorted(variables) if isinstance(variables, Mapping) else variables
  raise ValueError(
    f'{name} needs variables=convert.i3d(path), got {got}. The file, which is '
    'not part of this project, holds I3D trained on Kinetics-400 under the '
    'names of https://github.com/piergiaj/pytorch-i3d: i3d_pretrained_400.pt '
    'of https://github.com/wilson1yan/VideoGPT has the weights published FVD '
    "is computed with, that repository's rgb_imagenet.pt others."
  )


def i3d_features(video, *, variables) -> jax.Array:
  """I3D's logits of images, resized to 224x224 and scaled to [-1, 1].

  Args:
    video: `[B, T, H, W, C]`, RGB or grey (repeated to three channels), clipped
      to [0, 1]; T of 9 and more.
    variables: from `convert.i3d`.

  Returns:
    `[B, 400]`.

  Raises:
    ValueError: if there are too few frames, or C is neither 1 nor 3.
  """
  batch, length, *_, channels = video.shape
  if channels not in (1, 3):
    raise ValueError(f'I3D sees 1 or 3 channels, got {channels}.')
  if length < features.I3D_MINIMUM_FRAMES:
    raise ValueError(
      f'FVD needs videos of {features.I3D_MINIMUM_FRAMES} frames or more, got '
      f'{length}: ask for more target frames, or for a convention that counts '
      'the context in.'
    )
  images = jnp.clip(frames.as_float(video), 0, 1)
  images = images.reshape(batch * length, *video.shape[2:])
  size = (features.I3D_SIZE,) * 2
  images = 2 * resize.bilinear(images, size=size) - 1
  if channels == 1:
    images = jnp.repeat(images, 3, axis=-1)
  images = images.reshape(batch, length, *size, 3)
  return features.I3D().apply({'params': variables}, images)
