import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.ops import diffusion

SCHEDULE = diffusion.cosine(200)

# A target of which everything is known: y_0 ~ N(MEAN, STD^2) in each pixel.
MEAN, STD = 0.3, 0.5


def exact(noisy, n, schedule=SCHEDULE):
  """E[y_0 | y_n] of the Gaussian target."""
  bar = jnp.asarray(schedule.alpha_bars, jnp.float32)[n]
  gain = STD**2 * jnp.sqrt(bar) / (STD**2 * bar + 1 - bar)
  return MEAN + gain * (noisy - jnp.sqrt(bar) * MEAN)


@functools.cache
def rows(batch=2, shape=(64, 64, 1)):
  keys = diffusion.keys_per_example(jax.random.key(0), batch)
  return diffusion.gaussian_noise_fn(keys, shape)


@functools.cache
def sampled(name, steps, **settings):
  steps = diffusion.SAMPLERS[name](SCHEDULE, steps, **settings)
  run = jax.jit(functools.partial(diffusion.sample, exact, steps, rows()))
  return np.asarray(run())


def flow(steps):
  """Where the probability-flow ODE takes the start of a sampler, exactly.

  Its solutions keep their distance to the mean in standard deviations.
  """
  bar = SCHEDULE.alpha_bars[steps.timesteps[0]]
  spread = np.sqrt(STD**2 * bar + 1 - bar)
  away = (np.asarray(rows()(0), np.float64) - np.sqrt(bar) * MEAN) / spread
  return MEAN + STD * away


# ----------------------------------------------------------------- the process


@pytest.mark.parametrize('num_timesteps', [8, 200, 1600])
def test_the_schedule_runs_from_clean_to_pure_noise(num_timesteps):
  bars = diffusion.cosine(num_timesteps).alpha_bars
  assert np.all(np.diff(bars) < 0)
  assert bars[0] > 1 - 4 / num_timesteps
  assert bars[-1] < 1e-3 / num_timesteps


def test_step_by_step_noise_has_the_statistics_of_the_short_cut():
  """Equation 1 applied n times is y_n of `q_sample`."""
  schedule = diffusion.cosine(10)
  clean = jnp.full((4000, 4), 0.8)
  keys = jax.random.split(jax.random.key(0), 11)
  noisy = clean
  for n in range(7):
    beta = schedule.betas[n]
    noise = jax.random.normal(keys[n], clean.shape)
    noisy = np.sqrt(1 - beta) * noisy + np.sqrt(beta) * noise
  noise = jax.random.normal(keys[10], clean.shape)
  short = diffusion.q_sample(schedule, clean, 6, noise)
  for x in (noisy, short):  # standard errors are 0.008 and 0.006
    np.testing.assert_allclose(
      jnp.mean(x), 0.8 * np.sqrt(schedule.alpha_bars[6]), atol=0.03
    )
    np.testing.assert_allclose(
      jnp.var(x), 1 - schedule.alpha_bars[6], atol=0.03
    )


def test_rows_have_steps_of_their_own_and_noise_is_taken_out_again():
  clean, noise = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
  n = jnp.asarray([0, 70, 150])
  noisy = diffusion.q_sample(SCHEDULE, clean, n, noise)
  for i in range(3):
    alone = diffusion.q_sample(SCHEDULE, clean[i], int(n[i]), noise[i])
    np.testing.assert_allclose(noisy[i], alone, rtol=1e-6)
  back = diffusion.predict_start_from_noise(SCHEDULE, noisy, n, noise)
  np.testing.assert_allclose(back, clean, atol=1e-5)


def test_the_posterior_is_that_of_bayes():
  """Prior N(sqrt(abar') y_0, 1 - abar'), likelihood of y_n, multiplied."""
  clean, noisy = jax.random.normal(jax.random.key(0), (2, 1, 50))
  for n in (1, 60, 150):
    beta, before = SCHEDULE.betas[n], SCHEDULE.alpha_bars_prev[n]
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = np.sqrt(before) * clean / (1 - before)
    mean = (mean + np.sqrt(1 - beta) * noisy / beta) / precision
    got, variance = diffusion.posterior(SCHEDULE, clean, noisy, n)
    np.testing.assert_allclose(got, mean, atol=2e-6)
    np.testing.assert_allclose(variance, 1 / precision, rtol=1e-5)
  # The last step ends at the estimate, whatever the noise.
  last = diffusion.p_sample(SCHEDULE, clean, noisy, 0, noisy + 9)
  np.testing.assert_allclose(last, clean, atol=1e-6)


def test_estimates_are_clipped_and_of_either_kind():
  clean, noise = jax.random.normal(jax.random.key(0), (2, 2, 30))
  noisy = diffusion.q_sample(SCHEDULE, clean, 100, noise)
  for prediction_type, network in (
    ('epsilon', lambda y, n: noise),
    ('sample', lambda y, n: clean),
  ):
    for clip in (None, 0.5):
      estimate = diffusion.estimator(
        network, SCHEDULE, prediction_type=prediction_type, clip_range=clip
      )
      expected = clean if clip is None else np.clip(clean, -clip, clip)
      np.testing.assert_allclose(estimate(noisy, 100), expected, atol=1e-5)


# -------------------------------------------------------------------- samplers


def test_times_are_squares_that_end_at_the_clean_side():
  np.testing.assert_array_equal(
    diffusion.spaced_timesteps(SCHEDULE), np.arange(200)[::-1]
  )
  times = diffusion.spaced_timesteps(SCHEDULE, 9)
  bars = SCHEDULE.alpha_bars
  assert bars[times[0]] >= 1e-4 > bars[times[0] + 1]
  squares = times[0] * (np.arange(8, -1, -1) / 8) ** 2
  np.testing.assert_allclose(times, squares, atol=0.5)
  for steps in (1, 2, 20, 100, 198, 199):
    times = diffusion.spaced_timesteps(SCHEDULE, steps)
    assert len(times) == steps and times.max() < 200
    assert np.all(np.diff(times) < 0)
    assert times[-1] == 0 or steps == 1
  for steps in (0, 201):
    with pytest.raises(ValueError, match=f'sampling_steps={steps}.*1 to 200'):
      diffusion.spaced_timesteps(SCHEDULE, steps)


@pytest.mark.parametrize('steps', [None, 40, 1])
def test_ddim_with_eta_1_is_ancestral(steps):
  """Equal coefficients: equal not only in distribution."""
  ours = diffusion.ancestral(SCHEDULE, steps)
  theirs = diffusion.ddim(SCHEDULE, steps, eta=1.0)
  for a, b in zip(ours, theirs):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
  'name, settings', [('ancestral', {}), ('ddim', {'eta': 1.0})]
)
def test_all_steps_draw_from_the_target(name, settings):
  drawn = sampled(name, None, **settings)
  # What posterior steps do to mean and variance, exactly: the estimate of y_0
  # is linear. (With finitely many steps they draw a little too narrow.)
  mean, variance = 0.0, 1.0
  for n in reversed(range(200)):
    bar = SCHEDULE.alpha_bars[n]
    gain = STD**2 * np.sqrt(bar) / (STD**2 * bar + 1 - bar)
    a, b = SCHEDULE.posterior_clean[n], SCHEDULE.posterior_noisy[n]
    mean = a * (MEAN + gain * (mean - np.sqrt(bar) * MEAN)) + b * mean
    variance *= (a * gain + b) ** 2
    variance += SCHEDULE.posterior_variances[n]
  np.testing.assert_allclose(mean, MEAN, atol=1e-3)
  np.testing.assert_allclose(np.sqrt(variance), STD, atol=0.03)
  # Of 8192 draws.
  np.testing.assert_allclose(drawn.mean(), mean, atol=0.02)
  np.testing.assert_allclose(drawn.std(), np.sqrt(variance), atol=0.012)
  # Pixels are independent.
  shifted = np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]
  assert abs(shifted) < 0.04


def test_ancestral_sampling_is_a_scan_of_p_sample():
  state = rows()(0)
  for k, n in enumerate(reversed(range(200))):
    state = diffusion.p_sample(
      SCHEDULE, exact(state, n), state, n, rows()(k + 1)
    )
  np.testing.assert_allclose(sampled('ancestral', None), state, atol=2e-5)


def test_few_ancestral_steps_draw_from_a_narrower_target():
  """Strided: the mean stays, the spread nears the target's with the steps."""
  spreads = [sampled('ancestral', steps).std() for steps in (5, 20, 80)]
  assert spreads[0] < spreads[1] < spreads[2] < STD + 0.01
  assert spreads[2] > STD - 0.04
  np.testing.assert_allclose(sampled('ancestral', 20).mean(), MEAN, atol=0.03)


@pytest.mark.parametrize('name, order', [('ddim', 1), ('dpm++', 2)])
def test_solvers_converge_to_the_flow(name, order):
  errors = []
  for count in (10, 20, 40):
    steps = diffusion.SAMPLERS[name](SCHEDULE, count)
    assert not steps.noise.any()
    errors.append(np.abs(sampled(name, count) - flow(steps)).mean())
  for more, less in zip(errors, errors[1:]):
    assert more / less > 0.7 * 2**order
  assert errors[-1] < {1: 0.02, 2: 0.002}[order]


def test_one_step_gives_the_estimate():
  for name, make in diffusion.SAMPLERS.items():
    steps = make(SCHEDULE, 1)
    got = diffusion.sample(exact, steps, rows())
    expected = exact(rows()(0), steps.timesteps[0])
    np.testing.assert_allclose(got, expected, atol=1e-6, err_msg=name)


def test_the_network_is_asked_once_a_step_and_traced_once():
  """K steps cost K of one: a single scan of length K around one call."""
  traced = []

  def network(noisy, n):
    traced.append(n)
    return exact(noisy, n)

  for name, make in diffusion.SAMPLERS.items():
    traced.clear()
    steps = make(SCHEDULE, 30)
    jaxpr = jax.make_jaxpr(lambda s=steps: diffusion.sample(network, s, rows()))
    scans = [e for e in jaxpr().eqns if e.primitive.name == 'scan']
    assert [s.params['length'] for s in scans] == [30], name
    assert len(traced) == 1


# ------------------------------------------------------------------ randomness


@pytest.mark.parametrize('impl', ['threefry2x32', 'rbg'])
def test_rows_are_drawn_as_if_alone(impl):
  key = jax.random.key(3, impl=impl)
  keys = diffusion.keys_per_example(key, 5)
  many = diffusion.gaussian_noise_fn(keys, (4, 3))(7)
  for i in (0, 4):
    alone = diffusion.gaussian_noise_fn(keys[i : i + 1], (4, 3))(7)
    np.testing.assert_array_equal(many[i : i + 1], alone)
  few = diffusion.gaussian_noise_fn(diffusion.keys_per_example(key, 2), (4, 3))(
    7
  )
  np.testing.assert_array_equal(many[:2], few)
  values = np.concatenate(
    [many.ravel(), diffusion.gaussian_noise_fn(keys, (4, 3))(8).ravel()]
  )
  assert len(np.unique(values)) == values.size
  assert diffusion.keys_per_example(keys, 5) is keys
  with pytest.raises(ValueError, match=r'shape \(5,\).*4 of them'):
    diffusion.keys_per_example(keys, 4)
