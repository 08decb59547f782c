"""Diffusion: a noise schedule, the forward process, samplers.

Step n = 0..N-1 of the forward process has `y_n = sqrt(abar_n) y_0 +
sqrt(1 - abar_n) noise`: n = 0 is almost clean, n = N - 1 almost pure noise.
(Papers that count 1..N call `abar_n` here `abar_{n+1}`.) Arrays are [B, ...];
n is an int32 scalar, or [B] with one step per example.

A sampler is a `SamplerTable`: the steps n at which the network is evaluated,
and the weights of its estimate of y_0, of the state and of fresh noise in the
next state. Every sampler here is linear in these three, so one scan, `sample`,
runs any of them, and the sampler is chosen after training. K steps cost K
evaluations of the network.

Ho et al., "Denoising Diffusion Probabilistic Models", 2020 (DDPM); Nichol and
Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021; Song et
al., "Denoising Diffusion Implicit Models", 2021 (DDIM); Lu et al.,
"DPM-Solver++", 2022. Algorithm 1 of Yang et al., "Diffusion Probabilistic
Modeling for Video Generation", 2022, prints the ancestral step with two slips
(`abar_n` for `1 - beta_n`, the variance for its root); here it is DDPM's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Schedule(NamedTuple):
  """The noise schedule, float64 NumPy arrays [N].

  The values are cast to float32 when they are applied to arrays.

  Attributes:
    betas: variance that step n adds.
    alpha_bars: `abar_n`, the fraction of the variance that is signal.
    alpha_bars_prev: `abar_{n-1}`, 1 at n = 0.
    posterior_variances: of y_{n-1} given y_n and y_0; 0 for n = 0.
    posterior_clean: weight of y_0 in the mean of that posterior.
    posterior_noisy: weight of y_n in the mean of that posterior.
  """

  betas: np.ndarray
  alpha_bars: np.ndarray
  alpha_bars_prev: np.ndarray
  posterior_variances: np.ndarray
  posterior_clean: np.ndarray
  posterior_noisy: np.ndarray


def from_betas(betas: np.ndarray) -> Schedule:
  """Makes a schedule from its betas (DDPM, equations 4 and 7).

  Args:
    betas: [N], the variance that each step adds, in (0, 1).

  Returns:
    The schedule, float64.
  """
  betas = np.asarray(betas, np.float64)
  bars = np.cumprod(1 - betas)
  before = np.append(1.0, bars[:-1])
  return Schedule(
    betas,
    bars,
    before,
    posterior_variances=betas * (1 - before) / (1 - bars),
    posterior_clean=betas * np.sqrt(before) / (1 - bars),
    posterior_noisy=(1 - before) * np.sqrt(1 - betas) / (1 - bars),
  )


def cosine(num_timesteps: int) -> Schedule:
  """The cosine schedule (Nichol and Dhariwal, equation 17).

  `abar_n = f(n + 1) / f(0)` with `f(k) = cos(pi/2 (k/N + s) / (1 + s))^2` and
  s = 0.008; betas are at most 0.999.

  Args:
    num_timesteps: N, at least 1.

  Returns:
    The schedule.
  """
  k = np.arange(num_timesteps + 1) / num_timesteps
  f = np.cos((k + 0.008) / 1.008 * np.pi / 2) ** 2
  return from_betas(np.clip(1 - f[1:] / f[:-1], 0, 0.999))


# ----------------------------------------------------- the process, both ways


def _at(values: np.ndarray, n, like: jax.Array):
  """`values[n]`, to be multiplied with `like`: a scalar, or [B, 1, ...]."""
  value = jnp.asarray(values, jnp.float32)[n]
  return value.reshape(-1, *(1,) * (like.ndim - 1)) if value.ndim else value


def q_sample(
  schedule: Schedule, clean: jax.Array, n, noise: jax.Array
) -> jax.Array:
  """Adds the noise of n steps to y_0 (DDPM, equation 4; RVD, equation 10).

  Args:
    schedule: of N steps.
    clean: y_0, [B, ...].
    n: int [B] or [], steps from 0.
    noise: epsilon, as `clean`.

  Returns:
    y_n, as `clean`.
  """
  bars = schedule.alpha_bars
  signal, spread = (
    _at(np.sqrt(bars), n, clean),
    _at(np.sqrt(1 - bars), n, clean),
  )
  return signal * clean + spread * noise


def predict_start_from_noise(
  schedule: Schedule, noisy: jax.Array, n, noise: jax.Array
) -> jax.Array:
  """Computes y_0 from y_n and the noise in it: `q_sample` solved for y_0.

  Args:
    schedule: of N steps.
    noisy: y_n, [B, ...].
    n: int [B] or [], steps from 0.
    noise: epsilon, as `noisy`.

  Returns:
    y_0, as `noisy`.
  """
  bars = schedule.alpha_bars
  scale = _at(np.sqrt(1 / bars), n, noisy)
  return scale * noisy - _at(np.sqrt(1 / bars - 1), n, noisy) * noise


def posterior(
  schedule: Schedule, clean: jax.Array, noisy: jax.Array, n
) -> tuple[jax.Array, jax.Array]:
  """Mean and variance of y_{n-1} given y_0 and y_n (DDPM, equations 6, 7).

  Args:
    schedule: the schedule.
    clean: y_0, or an estimate of it, [B, ...].
    noisy: y_n, [B, ...].
    n: the step.

  Returns:
    The mean [B, ...], and the variance, a scalar or [B, 1, ...].
  """
  mean = _at(schedule.posterior_clean, n, clean) * clean
  mean += _at(schedule.posterior_noisy, n, noisy) * noisy
  return mean, _at(schedule.posterior_variances, n, noisy)


def p_sample(
  schedule: Schedule, clean: jax.Array, noisy: jax.Array, n, noise: jax.Array
) -> jax.Array:
  """Draws y_{n-1} from `posterior` with the given noise.

  At n = 0 the variance is 0 and the noise has no effect.

  Args:
    schedule: of N steps.
    clean: y_0 or its estimate, [B, ...].
    noisy: y_n, as `clean`.
    n: int [B] or [], steps from 0.
    noise: standard normal, as `clean`.

  Returns:
    y_{n-1}, as `clean`.
  """
  mean, variance = posterior(schedule, clean, noisy, n)
  return mean + jnp.sqrt(variance) * noise


def estimator(
  network: Callable,
  schedule: Schedule,
  *,
  prediction_type: str = 'epsilon',
  clip_range: float | None = None,
) -> Callable:
  """Makes the estimate of y_0 that samplers call.

  Args:
    network: `(y_n, n) -> [B, ...]`.
    schedule: the schedule.
    prediction_type: what the network gives: 'epsilon', the noise, or 'sample',
      y_0 itself.
    clip_range: the estimate is clipped to [-clip_range, clip_range]; None: it
      is not clipped.

  Returns:
    `(y_n, n) -> y_0`.
  """

  def clean(noisy, n):
    out = network(noisy, n)
    if prediction_type == 'epsilon':
      out = predict_start_from_noise(schedule, noisy, n, out)
    if clip_range is None:
      return out
    return jnp.clip(out, -clip_range, clip_range)

  return clean


# ------------------------------------------------------------------- samplers


class SamplerTable(NamedTuple):
  """A sampler: the weights of its K steps, NumPy arrays [K].

  Step k evaluates the estimate of y_0 at n = `timesteps[k]` and computes

    y <- clean[k] * estimate + previous_clean[k] * estimate of step k - 1
         + noisy[k] * y + noise[k] * fresh noise
  """

  timesteps: np.ndarray
  clean: np.ndarray
  previous_clean: np.ndarray
  noisy: np.ndarray
  noise: np.ndarray


def spaced_timesteps(
  schedule: Schedule, sampling_steps: int | None = None
) -> np.ndarray:
  """The K steps n of a sampler, decreasing to 0: all N, or `n ~ u^2`.

  With K < N the steps are the squares of evenly spaced numbers (DDIM, appendix
  D.2), so they are dense at low noise. Residuals have small amplitudes, which
  only those steps resolve: for a pixel of standard deviation 0.1, 32 steps of
  `dpm_solver` with N = 1600 draw 1.5 % too much spread; evenly spaced steps
  draw 23 % too much.

  With K < N the first step is not N - 1 but the last n whose amplitude is at
  least a hundredth signal (about DPM-Solver's t = 0.9946). One long step from
  pure noise would multiply the error of the estimated noise by
  `1 / sqrt(abar)`, 30000 for N = 1600.

  Args:
    schedule: the schedule, of N steps.
    sampling_steps: K; None: N.

  Returns:
    int [K], all different.

  Raises:
    ValueError: unless K is in 1..N.
  """
  num_timesteps = len(schedule.betas)
  steps = num_timesteps if sampling_steps is None else sampling_steps
  if not 1 <= steps <= num_timesteps:
    raise ValueError(
      f'Got sampling_steps={steps}; expected 1 to {num_timesteps}, the number '
      'of steps of the schedule.'
    )
  if steps == num_timesteps:
    return np.arange(num_timesteps)[::-1]
  enough = np.flatnonzero(schedule.alpha_bars >= 1e-4)
  first = max(enough.max(initial=0), steps - 1)
  order = np.arange(steps)
  timesteps = np.rint(first * np.linspace(0, 1, steps) ** 2).astype(int)
  if steps == 1:
    timesteps = np.array([first])
  # Rounded squares may be equal: each is at least one more than the one before.
  timesteps = np.maximum.accumulate(timesteps - order) + order
  return timesteps[::-1]


def _bars(schedule, timesteps):
  """`abar` at each step, and at the step that follows it; 1 after the last."""
  bars = schedule.alpha_bars[timesteps]
  return bars, np.append(bars[1:], 1.0)


def ancestral(
  schedule: Schedule, sampling_steps: int | None = None
) -> SamplerTable:
  """DDPM's sampler, strided where K < N.

  The forward process restricted to K of its N steps is a process of K steps
  with `beta_k = 1 - abar_{n_k} / abar_{n_{k+1}}` (Nichol and Dhariwal, section
  4).

  Args:
    schedule: of N steps.
    sampling_steps: K; None: N.

  Returns:
    The sampler.
  """
  timesteps = spaced_timesteps(schedule, sampling_steps)
  if len(timesteps) < len(schedule.betas):
    bars, after = _bars(schedule, timesteps)
    part = from_betas((1 - bars / after)[::-1])
  else:
    part = schedule
  return SamplerTable(
    timesteps,
    clean=part.posterior_clean[::-1],
    previous_clean=np.zeros(len(timesteps)),
    noisy=part.posterior_noisy[::-1],
    noise=np.sqrt(part.posterior_variances)[::-1],
  )


def ddim(
  schedule: Schedule,
  sampling_steps: int | None = None,
  *,
  eta: float = 0.0,
) -> SamplerTable:
  """DDIM (equations 12 and 16).

  Args:
    schedule: the schedule.
    sampling_steps: K; None: N.
    eta: 0: only the initial state is random; 1: each step adds as much noise
      as in `ancestral`.

  Returns:
    The sampler.
  """
  timesteps = spaced_timesteps(schedule, sampling_steps)
  bars, after = _bars(schedule, timesteps)
  variance = eta**2 * (1 - after) / (1 - bars) * (1 - bars / after)
  # The fraction of the noise in y that stays.
  kept = np.sqrt((1 - after - variance) / (1 - bars))
  return SamplerTable(
    timesteps,
    clean=np.sqrt(after) - kept * np.sqrt(bars),
    previous_clean=np.zeros(len(timesteps)),
    noisy=kept,
    noise=np.sqrt(variance),
  )


def dpm_solver(
  schedule: Schedule, sampling_steps: int | None = None
) -> SamplerTable:
  """DPM-Solver++(2M), of second order (algorithm 2).

  The estimate of y_0 is extrapolated linearly in `lambda = log(signal / noise)`
  from this step and the previous one. The first step has no previous estimate.
  The last step goes to lambda = infinity, where the result is the estimate
  itself.

  Args:
    schedule: of N steps.
    sampling_steps: K; None: N.

  Returns:
    The sampler.
  """
  timesteps = spaced_timesteps(schedule, sampling_steps)
  bars, after = _bars(schedule, timesteps)
  half_log = np.log(bars / (1 - bars)) / 2
  gaps = np.diff(half_log)
  extra = np.zeros(len(timesteps))
  extra[1:-1] = gaps[1:] / gaps[:-1] / 2
  noisy = np.sqrt((1 - after) / (1 - bars))
  gain = np.sqrt(after) - np.sqrt(bars) * noisy
  return SamplerTable(
    timesteps,
    clean=gain * (1 + extra),
    previous_clean=-gain * extra,
    noisy=noisy,
    noise=np.zeros(len(timesteps)),
  )


# name -> (schedule, sampling_steps) -> SamplerTable
SAMPLERS = {'ancestral': ancestral, 'ddim': ddim, 'dpm++': dpm_solver}


def sample(
  estimate: Callable, table: SamplerTable, noise: Callable
) -> jax.Array:
  """Runs a sampler.

  Args:
    estimate: `(y, n) -> y_0`, see `estimator`; y is [B, ...], n a scalar.
    table: the sampler.
    noise: `k -> [B, ...]`, standard normal: the initial state for k = 0, the
      fresh noise of step k for k + 1. See `gaussian_noise_fn`.

  Returns:
    [B, ...], the sample y_0.
  """
  draws = bool(np.any(table.noise))

  def body(carry, item):
    noisy, previous_clean = carry
    k, n, weights = item
    clean = estimate(noisy, n)
    out = weights.clean * clean + weights.noisy * noisy
    out += weights.previous_clean * previous_clean
    if draws:
      out += weights.noise * noise(k + 1)
    return (out, clean), None

  start = noise(0)
  count = len(table.timesteps)
  items = (
    jnp.arange(count),
    jnp.asarray(table.timesteps, jnp.int32),
    jax.tree.map(lambda x: jnp.asarray(x, start.dtype), table),
  )
  (out, _), _ = jax.lax.scan(body, (start, jnp.zeros_like(start)), items)
  return out


# ----------------------------------------------------------------- randomness


def keys_per_example(key: jax.Array, batch: int) -> jax.Array:
  """Makes a random key for each example of a batch.

  Args:
    key: a random key, of which example i gets `fold_in(key, i)` for any B; or
      keys [B], which are returned unchanged.
    batch: B.

  Returns:
    Keys [B].

  Raises:
    ValueError: if the number of keys is not B, or the array holds no keys.
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise ValueError(
      f'Got an array of {key.dtype} as key; expected jax.random.key(...).'
    )
  if not key.ndim:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
  if key.shape != (batch,):
    raise ValueError(
      f'Got keys of shape {key.shape}; expected one key, or {batch} of them, '
      'one for each clip.'
    )
  return key


def gaussian_noise_fn(keys: jax.Array, shape: tuple[int, ...]) -> Callable:
  """Makes the noise that `sample` takes; each example has its own key.

  Args:
    keys: random keys [B] of any generator. The noise is always drawn with
      threefry: with 'rbg' an example would depend on the others of its batch.
    shape: of an example.

  Returns:
    `k -> [B, *shape]`, standard normal float32.
  """
  data = jax.random.key_data(keys)[..., :2]
  keys = jax.random.wrap_key_data(data, impl='threefry2x32')

  def noise(k):
    def of_example(key):
      return jax.random.normal(jax.random.fold_in(key, k), shape)

    return jax.vmap(of_example)(keys)

  return noise
