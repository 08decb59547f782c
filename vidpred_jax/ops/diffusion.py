"""Diffusion: a noise schedule, the forward process, samplers.

Step n = 0..N-1 of the forward process has `y_n = sqrt(abar_n) y_0 +
sqrt(1 - abar_n) noise`: n = 0 is almost clean, n = N - 1 almost pure noise.
(Papers that count 1..N call `abar_n` here `abar_{n+1}`.) Arrays are [B, ...];
n is an int32 scalar, or [B] with a step for each row.

A sampler is a table, `Steps`: at which n the network is asked, and how its
estimate of y_0, the state and fresh noise are added up to the next state. All
of them are linear in these, so one scan, `sample`, runs each, and the sampler
is chosen without training anew. K steps cost K evaluations of the network.

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
  """How much noise there is, float64 NumPy arrays [N].

  They are cast to float32 where they meet arrays.

  Attributes:
    betas: variance that step n adds.
    alpha_bars: `abar_n`, the share of variance that is still signal.
    alpha_bars_before: `abar_{n-1}`, 1 before the first step.
    posterior_variances: of y_{n-1} given y_n and y_0; 0 for n = 0.
    posterior_clean: weight of y_0 in the mean of the same.
    posterior_noisy: weight of y_n in it.
  """

  betas: np.ndarray
  alpha_bars: np.ndarray
  alpha_bars_before: np.ndarray
  posterior_variances: np.ndarray
  posterior_clean: np.ndarray
  posterior_noisy: np.ndarray


def of_betas(betas: np.ndarray) -> Schedule:
  """The schedule with these variances (DDPM, equations 4 and 7).

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


def cosine(
  depth: int, *, offset: float = 0.008, largest: float = 0.999
) -> Schedule:
  """The cosine schedule (Nichol and Dhariwal, equation 17).

  `abar_n = f(n + 1) / f(0)` with `f(k) = cos(pi/2 (k/N + s) / (1 + s))^2`.

  Args:
    depth: N, at least 1.
    offset: s.
    largest: beta is cut off there.

  Returns:
    The schedule.
  """
  k = np.arange(depth + 1) / depth
  f = np.cos((k + offset) / (1 + offset) * np.pi / 2) ** 2
  return of_betas(np.clip(1 - f[1:] / f[:-1], 0, largest))


# ----------------------------------------------------- the process, both ways


def _at(values: np.ndarray, n, like: jax.Array):
  """`values[n]`, to be multiplied with `like`: a scalar, or [B, 1, ...]."""
  value = jnp.asarray(values, jnp.float32)[n]
  return value.reshape(-1, *(1,) * (like.ndim - 1)) if value.ndim else value


def diffuse(
  schedule: Schedule, clean: jax.Array, n, noise: jax.Array
) -> jax.Array:
  """y_n of y_0 (DDPM, equation 4; RVD, equation 10).

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


def clean_from_noise(
  schedule: Schedule, noisy: jax.Array, n, noise: jax.Array
) -> jax.Array:
  """y_0 from y_n and the noise in it: `diffuse` solved for y_0.

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
  """Of y_{n-1} given y_0 and y_n (DDPM, equations 6 and 7).

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


def posterior_step(
  schedule: Schedule, clean: jax.Array, noisy: jax.Array, n, noise: jax.Array
) -> jax.Array:
  """y_{n-1} drawn from `posterior` with this noise (none counts at n = 0).

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
  predicts: str = 'noise',
  clip: float | None = None,
) -> Callable:
  """What samplers ask for, an estimate of y_0.

  Args:
    network: `(y_n, n) -> [B, ...]`.
    schedule: the schedule.
    predicts: what the network gives: 'noise', or 'clean' for y_0 itself.
    clip: the estimate is cut off at +- this; None: not.

  Returns:
    `(y_n, n) -> y_0`.
  """

  def clean(noisy, n):
    out = network(noisy, n)
    if predicts == 'noise':
      out = clean_from_noise(schedule, noisy, n, out)
    return out if clip is None else jnp.clip(out, -clip, clip)

  return clean


# ------------------------------------------------------------------- samplers


class Steps(NamedTuple):
  """A sampler: K steps, NumPy arrays [K].

  Step k asks for the estimate of y_0 at n = `times[k]` and gives

    y <- clean[k] * estimate + before[k] * estimate of step k - 1
         + noisy[k] * y + noise[k] * fresh noise
  """

  times: np.ndarray
  clean: np.ndarray
  before: np.ndarray
  noisy: np.ndarray
  noise: np.ndarray


def spaced_times(schedule: Schedule, steps: int | None = None) -> np.ndarray:
  """K steps n, falling, the last one 0: all N of them, or `n ~ u^2`.

  Fewer than N are spaced by the squares of even steps (DDIM, appendix D.2):
  close together where there is little noise. Residuals have small amplitudes,
  which come out only there: of a pixel of standard deviation 0.1, 32 steps of
  `dpm_solver` with N = 1600 draw 1.5 % too much spread so, evenly spaced 23 %.

  They do not begin at N - 1 but at the last n where a hundredth of the
  amplitude is signal (about DPM-Solver's t = 0.9946): one long step from where
  there is none would enlarge the error of the estimated noise by
  `1 / sqrt(abar)`, 30000 for N = 1600.

  Args:
    schedule: the schedule, of N steps.
    steps: K, or None for N.

  Returns:
    int [K], all different.

  Raises:
    ValueError: unless K is in 1..N.
  """
  depth = len(schedule.betas)
  steps = depth if steps is None else steps
  if not 1 <= steps <= depth:
    raise ValueError(f'Got steps={steps}; expected 1 to {depth}, the depth.')
  if steps == depth:
    return np.arange(depth)[::-1]
  enough = np.flatnonzero(schedule.alpha_bars >= 1e-4)
  first = max(enough.max(initial=0), steps - 1)
  order = np.arange(steps)
  times = np.rint(first * np.linspace(0, 1, steps) ** 2).astype(int)
  if steps == 1:
    times = np.array([first])
  # Rounded squares may be equal: each is at least one more than the one before.
  times = np.maximum.accumulate(times - order) + order
  return times[::-1]


def _bars(schedule, times):
  """`abar` at the times, and where each step goes: the next time's, then 1."""
  bars = schedule.alpha_bars[times]
  return bars, np.append(bars[1:], 1.0)


def ancestral(schedule: Schedule, steps: int | None = None) -> Steps:
  """DDPM's sampler; with fewer than N steps, of the process of these steps.

  The forward process seen at K of its N steps only is one of K steps with
  `beta_k = 1 - abar_{n_k} / abar_{n_{k+1}}` (Nichol and Dhariwal, section 4).

  Args:
    schedule: of N steps.
    steps: K; None: N.

  Returns:
    The sampler.
  """
  times = spaced_times(schedule, steps)
  if len(times) < len(schedule.betas):
    bars, after = _bars(schedule, times)
    part = of_betas((1 - bars / after)[::-1])
  else:
    part = schedule
  return Steps(
    times,
    clean=part.posterior_clean[::-1],
    before=np.zeros(len(times)),
    noisy=part.posterior_noisy[::-1],
    noise=np.sqrt(part.posterior_variances)[::-1],
  )


def ddim(
  schedule: Schedule, steps: int | None = None, *, eta: float = 0.0
) -> Steps:
  """DDIM (equations 12 and 16).

  Args:
    schedule: the schedule.
    steps: K, or None for all.
    eta: 0: nothing is drawn but the start; 1: as much as `ancestral` draws.

  Returns:
    The sampler.
  """
  times = spaced_times(schedule, steps)
  bars, after = _bars(schedule, times)
  variance = eta**2 * (1 - after) / (1 - bars) * (1 - bars / after)
  # The noise in y that stays, relative.
  kept = np.sqrt((1 - after - variance) / (1 - bars))
  return Steps(
    times,
    clean=np.sqrt(after) - kept * np.sqrt(bars),
    before=np.zeros(len(times)),
    noisy=kept,
    noise=np.sqrt(variance),
  )


def dpm_solver(schedule: Schedule, steps: int | None = None) -> Steps:
  """DPM-Solver++(2M), of second order (algorithm 2).

  The estimate of y_0 is extrapolated from this step and the one before, linear
  in `lambda = log(signal / noise)`; in the first step there is none before, and
  the last goes to lambda = infinity, where the estimate itself is the answer.

  Args:
    schedule: of N steps.
    steps: K; None: N.

  Returns:
    The sampler.
  """
  times = spaced_times(schedule, steps)
  bars, after = _bars(schedule, times)
  half_log = np.log(bars / (1 - bars)) / 2
  gaps = np.diff(half_log)
  extra = np.zeros(len(times))
  extra[1:-1] = gaps[1:] / gaps[:-1] / 2
  noisy = np.sqrt((1 - after) / (1 - bars))
  gain = np.sqrt(after) - np.sqrt(bars) * noisy
  return Steps(
    times,
    clean=gain * (1 + extra),
    before=-gain * extra,
    noisy=noisy,
    noise=np.zeros(len(times)),
  )


# name -> (schedule, steps) -> Steps
SAMPLERS = {'ancestral': ancestral, 'ddim': ddim, 'dpm++': dpm_solver}


def sample(estimate: Callable, steps: Steps, noise: Callable) -> jax.Array:
  """Runs a sampler.

  Args:
    estimate: `(y, n) -> y_0`, see `estimator`; y is [B, ...], n a scalar.
    steps: the sampler.
    noise: `k -> [B, ...]`, standard normal: for k = 0 where it starts from, for
      k + 1 what step k adds. See `drawn`.

  Returns:
    [B, ...], the sample y_0.
  """
  draws = bool(np.any(steps.noise))

  def body(carry, item):
    noisy, before = carry
    k, n, weights = item
    clean = estimate(noisy, n)
    out = weights.clean * clean + weights.noisy * noisy
    out += weights.before * before
    if draws:
      out += weights.noise * noise(k + 1)
    return (out, clean), None

  start = noise(0)
  count = len(steps.times)
  items = (
    jnp.arange(count),
    jnp.asarray(steps.times, jnp.int32),
    jax.tree.map(lambda x: jnp.asarray(x, start.dtype), steps),
  )
  (out, _), _ = jax.lax.scan(body, (start, jnp.zeros_like(start)), items)
  return out


# ----------------------------------------------------------------- randomness


def row_keys(key: jax.Array, batch: int) -> jax.Array:
  """A key for each row of a batch.

  Args:
    key: a random key; row i has `fold_in(key, i)`, whatever the batch. Or keys
      [B], as they are: rows that are to be drawn as if alone.
    batch: B.

  Returns:
    Keys [B].

  Raises:
    ValueError: if there is another number of keys, or they are none.
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


def drawn(keys: jax.Array, shape: tuple[int, ...]) -> Callable:
  """Noise for `sample`, each row from a key of its own.

  Args:
    keys: random keys [B] of any generator. The noise is threefry's: that of
      'rbg' would depend on the other rows.
    shape: of a row.

  Returns:
    `k -> [B, *shape]`, standard normal float32.
  """
  data = jax.random.key_data(keys)[..., :2]
  keys = jax.random.wrap_key_data(data, impl='threefry2x32')

  def noise(k):
    def row(key):
      return jax.random.normal(jax.random.fold_in(key, k), shape)

    return jax.vmap(row)(keys)

  return noise
