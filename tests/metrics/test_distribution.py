"""Forecasts by samples: CRPS, spread, ranks, best of N, Frechet distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from vidpred_jax import metrics
from vidpred_jax.metrics import distribution

CRPS = [name for name in metrics.METRICS if name.startswith('crps')]


@pytest.fixture(scope='module')
def forecast():
  """Seven samples of two clips of three frames, and the truth, 8 bits."""
  rng = np.random.default_rng(0)
  target = rng.integers(0, 256, (2, 3, 4, 5, 3)) / 255
  samples = target + rng.normal(0.05, 0.3, (7, *target.shape))
  return samples.astype(np.float32), target.astype(np.float32)


def measure(name, samples, target, **settings):
  metric = metrics.make(name, **settings)
  return np.asarray(jax.jit(metric.values)(samples, target))


def pairwise(samples, target, fair=False):
  """The definition by differences, float64, of every value."""
  samples, target = np.float64(samples), np.float64(target)
  count = len(samples)
  between = np.abs(samples[:, None] - samples[None]).sum((0, 1))
  between /= count * (count - 1) if fair else count**2
  return np.abs(samples - target).mean(0) - between / 2


def integral(samples, target, levels):
  """Of (F(z) - 1{x <= z})^2, F the share of samples up to z."""
  total = 0
  for low, high in zip(levels[:-1], levels[1:]):
    share = (samples <= low).mean(0)
    total = total + (high - low) * (share - (target <= low)) ** 2
  return total


@pytest.mark.parametrize(
  'name',
  ['crps/ens', 'crps/fair', 'spread_skill/ratio', 'rank_deviation/units'],
)
def test_memory_beside_the_samples_is_that_of_a_frame(name):
  shape = (40, 2, 12, 16, 24, 1)
  samples = jax.ShapeDtypeStruct(shape, jnp.float32)
  target = jax.ShapeDtypeStruct(shape[1:], jnp.float32)
  compiled = jax.jit(metrics.make(name).values).lower(samples, target).compile()
  held = compiled.memory_analysis().temp_size_in_bytes
  assert 0 < held < 4 * 4 * np.prod(shape) / 12


# --- CRPS --------------------------------------------------------------------


def test_crps_is_the_integral_of_the_distribution(forecast):
  samples, target = np.float64(forecast[0]), np.float64(forecast[1])
  # Its integrand is constant between any two values there are.
  levels = np.unique(np.concatenate([samples.ravel(), target.ravel()]))
  expected = integral(samples, target, levels)
  got = jax.jit(distribution.crps_map)(*forecast)
  np.testing.assert_allclose(got, expected, atol=1e-6)
  np.testing.assert_allclose(
    measure('crps/units', *forecast), expected.mean((2, 3, 4)), rtol=1e-5
  )
  np.testing.assert_allclose(got, pairwise(*forecast), atol=1e-6)


def test_crps_of_8_bits_is_the_sum_over_its_levels(forecast):
  samples, target = forecast
  samples = np.rint(255 * np.clip(np.float64(samples), 0, 1))
  target = np.rint(255 * np.float64(target))
  expected = integral(samples, target, np.arange(257)).mean((2, 3, 4))
  got = measure('crps/round8', *forecast)
  np.testing.assert_allclose(got, expected, rtol=1e-5)
  close = measure('crps/ens', *forecast)
  assert 0 < np.abs(close - got).max() < 0.5


@pytest.mark.parametrize('count', [1, 2, 3, 7, 8, 9, 33])
def test_the_network_sorts(count):
  x = np.random.default_rng(0).integers(-9, 9, (count, 40)).astype(np.float32)
  np.testing.assert_array_equal(distribution._sorted(x), np.sort(x, 0))


@pytest.mark.parametrize('block', [1, 30, 64, 1000])
@pytest.mark.parametrize('fair', [False, True])
def test_blocks_change_nothing(monkeypatch, platform, block, fair):
  del platform
  rng = np.random.default_rng(1)
  samples = rng.normal(size=(5, 2, 2, 4, 8, 3)).astype(np.float32)
  target = rng.normal(size=samples.shape[1:]).astype(np.float32)
  monkeypatch.setattr(distribution, '_BLOCK', block)
  got = distribution.crps_map(samples, target, fair=fair)
  error = np.abs(samples - target).mean(0)
  spread = np.abs(samples - samples[:, None]).sum((0, 1))
  expected = error - spread / 2 / (20 if fair else 25)
  np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize('name', ['crps/ens', 'crps/fair'])
def test_crps_in_units_of_8_bits(forecast, name):
  samples, target = forecast
  expected = pairwise(np.clip(samples, 0, 1), target, name.endswith('fair'))
  expected = 255 * expected.mean((2, 3, 4))
  np.testing.assert_allclose(measure(name, *forecast), expected, rtol=1e-5)
  as_bytes = np.rint(255 * target).astype(np.uint8)
  np.testing.assert_allclose(
    measure(name, samples, as_bytes), expected, rtol=1e-5
  )


@pytest.mark.parametrize('name', CRPS)
def test_crps_of_one_sample_is_the_absolute_error(forecast, name):
  samples, target = forecast
  first = samples[:1] if 'units' in name else np.clip(samples[:1], 0, 1)
  expected = np.abs(np.float64(first[0]) - target).mean((2, 3, 4))
  factor = 1 if 'units' in name else 255
  tolerance = 0.5 if name == 'crps/round8' else 1e-4
  for several in (samples[:1], np.repeat(samples[:1], 3, 0)):
    np.testing.assert_allclose(
      measure(name, several, target), factor * expected, atol=tolerance
    )


def test_fair_crps_does_not_depend_on_the_number_of_samples():
  """Mean over many draws: that of S = 2 is that of S = 20, within noise."""
  rng = np.random.default_rng(0)
  target = np.zeros((1, 1, 200, 200, 1), np.float32)
  fair, plain = [], []
  for count in (2, 20):
    samples = rng.standard_normal((count, *target.shape)).astype(np.float32)
    fair.append(measure('crps/units_fair', samples, target)[0, 0])
    plain.append(measure('crps/units', samples, target)[0, 0])
  # Of a standard normal at 0: (sqrt(2) - 1) / sqrt(pi).
  np.testing.assert_allclose(fair, (2**0.5 - 1) / np.pi**0.5, atol=0.01)
  assert plain[0] > plain[1] + 0.2


def test_crps_is_proper():
  """No forecast scores better than that from which the truth is drawn."""
  rng = np.random.default_rng(1)
  shape = (1, 1, 200, 200, 1)
  target = rng.standard_normal(shape).astype(np.float32)
  noise = rng.standard_normal((20, *shape)).astype(np.float32)
  score = [
    measure('crps/units_fair', shift + scale * noise, target)[0, 0]
    for shift, scale in ((0, 1), (0, 0.5), (0, 1.7), (0.5, 1))
  ]
  assert score[0] < min(score[1:]) - 0.01


def test_samples_must_belong_to_the_target(forecast):
  samples, target = forecast
  with pytest.raises(
    ValueError, match=r'\[S, B, N, H, W, C\].*\(7, 2, 3, 4, 5'
  ):
    distribution.crps(samples, target[:1])
  with pytest.raises(ValueError, match=r'got \(2, 3, 4, 5, 3\)'):
    distribution.crps(target, target)


# --- Spread and ranks --------------------------------------------------------


def reported(name, values):
  """What is reported of values [B, N, K]."""
  metric = metrics.METRICS[name]
  means = np.float64(values).mean((0, 1))
  return metric.finish(means), metric.details(means)


def test_spread_and_skill_are_their_definitions(forecast):
  samples, target = np.float64(forecast[0]), np.float64(forecast[1])
  got = measure('spread_skill/ratio', *forecast)
  variance = samples.var(0, ddof=1).mean((2, 3, 4)) * 8 / 7
  error = ((samples.mean(0) - target) ** 2).mean((2, 3, 4))
  np.testing.assert_allclose(got[..., 0], variance, rtol=1e-5)
  np.testing.assert_allclose(got[..., 1], error, rtol=1e-5)
  ratio, details = reported('spread_skill/ratio', got)
  np.testing.assert_allclose(details['spread'] / details['rmse_of_mean'], ratio)
  np.testing.assert_allclose(details['spread'] ** 2, variance.mean(), rtol=1e-5)


@pytest.mark.parametrize('scale', [0.5, 1, 2])
def test_a_calibrated_forecast_has_ratio_one_and_flat_ranks(scale):
  rng = np.random.default_rng(2)
  shape = (1, 1, 200, 200, 1)
  target = rng.standard_normal(shape).astype(np.float32)
  samples = scale * rng.standard_normal((4, *shape)).astype(np.float32)
  ratio, _ = reported(
    'spread_skill/ratio', measure('spread_skill/ratio', samples, target)
  )
  shares = measure('rank_deviation/units', samples, target)
  deviation, details = reported('rank_deviation/units', shares)
  np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
  ends = details['histogram'][0] + details['histogram'][-1]
  # The error of the mean contains a fourth of the samples' own variance.
  expected = np.sqrt(scale**2 * 1.25 / (1 + scale**2 / 4))
  np.testing.assert_allclose(ratio, expected, rtol=0.02)
  if scale == 1:
    assert deviation < 0.02 and abs(ends - 0.4) < 0.01
  else:
    assert deviation > 0.1 and (ends > 0.5 if scale < 1 else ends < 0.3)


def test_ranks_count_the_samples_below_and_share_ties():
  target = np.array([0.5, 0.5, 0.1, 0.9], np.float32)
  samples = np.array(
    [[0.2, 0.5, 0.2, 0.2], [0.7, 0.501, 0.3, 0.3], [0.8, 0.9, 0.4, 0.4]],
    np.float32,
  )
  samples = samples.reshape(3, 1, 1, 2, 2, 1)
  target = target.reshape(1, 1, 2, 2, 1)
  exact = measure('rank_deviation/units', samples, target)[0, 0]
  # Ranks 1; 0 or 1; 0; 3.
  np.testing.assert_allclose(4 * exact, [1.5, 1.5, 0, 1], rtol=1e-6)
  rounded = measure('rank_deviation/round8', samples, target)[0, 0]
  # 0.501 and 0.5 are one level of 8 bits: ranks 0, 1 or 2.
  np.testing.assert_allclose(3 * 4 * rounded, [4, 4, 1, 3], rtol=1e-6)
  deviation, _ = reported('rank_deviation/units', exact[None, None])
  np.testing.assert_allclose(deviation, 2 * (0.125 + 0.25 / 2), rtol=1e-6)


# --- Pairwise metrics of samples ---------------------------------------------


def test_best_is_that_of_each_clip_as_a_whole(forecast):
  samples, target = forecast
  names = ('psnr/float', 'psnr/float_best', 'mse/mean', 'crps/ens')
  measures = {name: metrics.make(name) for name in names}
  got = jax.jit(lambda x, y: metrics.of_samples(measures, x, y))(*forecast)
  assert set(got) == set(names)
  each = np.stack([measure('psnr/float', x, target) for x in samples])
  np.testing.assert_allclose(got['psnr/float'], each.mean(0), rtol=1e-6)
  chosen = each.mean(2).argmax(0)
  assert chosen[0] != chosen[1]
  expected = np.stack([each[s, b] for b, s in enumerate(chosen)])
  np.testing.assert_allclose(got['psnr/float_best'], expected, rtol=1e-6)
  errors = [measure('mse/mean', x, target) for x in samples]
  np.testing.assert_allclose(got['mse/mean'], np.mean(errors, 0), rtol=1e-5)
  np.testing.assert_allclose(
    got['crps/ens'], measure('crps/ens', *forecast), rtol=1e-6
  )


def test_the_best_distance_is_the_smallest(forecast):
  samples, target = forecast
  metric = metrics.make('mae/mean')._replace(samples='best')
  got = metrics.of_samples({'mae/mean_best': metric}, samples, target)
  each = np.stack([measure('mae/mean', x, target) for x in samples])
  best = each.mean(2).min(0)
  np.testing.assert_allclose(got['mae/mean_best'].mean(1), best, rtol=1e-6)


def test_one_sample_is_measured_like_a_prediction(forecast):
  samples, target = forecast
  names = ('psnr/round8', 'psnr/round8_best', 'rmse/mean')
  measures = {name: metrics.make(name) for name in names}
  got = metrics.of_samples(measures, samples[:1], target)
  for name in names:
    plain = measure(name.removesuffix('_best'), samples[0], target)
    np.testing.assert_allclose(got[name], plain, rtol=1e-6)


def test_names_of_best():
  named = [n for n in metrics.METRICS if n.endswith('_best')]
  assert {'psnr/float_best', 'ssim/pmss_best', 'lpips/alex_best'} <= set(named)
  for name in named:
    metric = metrics.METRICS[name]
    base = metrics.METRICS[name.removesuffix('_best')]
    assert metric._replace(samples='mean') == base and metric.samples == 'best'
  with pytest.raises(ValueError, match=r'mse/mean_best.*psnr/float_best'):
    metrics.make('mse/mean_best')


# --- Frechet distance --------------------------------------------------------


def test_moments_of_chunks_are_those_of_all():
  rng = np.random.default_rng(0)
  vectors = rng.standard_normal((60, 5)) * [1, 2, 3, 4, 5] + 1000
  whole = distribution.moments(vectors)
  np.testing.assert_allclose(whole.covariance, np.cov(vectors.T), rtol=1e-10)
  merged = distribution.moments(vectors[:1])
  for start, stop in ((1, 20), (20, 21), (21, 60)):
    merged = distribution.merge(
      merged, distribution.moments(vectors[start:stop])
    )
  assert merged.number == 60
  np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
  np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-11)


def gaussians(count, seed=0):
  rng = np.random.default_rng(seed)
  mix = rng.standard_normal((2, 6, 6))
  vectors = rng.standard_normal((2, count, 6))
  return vectors[0] @ mix[0], vectors[1] @ mix[1] + 1


@pytest.mark.parametrize('count', [40, 4])
def test_frechet_against_the_root_of_a_matrix(count):
  """The general formula; and with fewer vectors than dimensions."""
  a, b = gaussians(count)
  got = distribution.frechet(distribution.moments(a), distribution.moments(b))
  if count > 6:
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    trace = np.trace(root)
  else:
    # The same trace is the sum of the singular values of the products.
    between = (a - a.mean(0)) @ (b - b.mean(0)).T / (count - 1)
    trace = np.linalg.svd(between, compute_uv=False).sum()
  expected = ((a.mean(0) - b.mean(0)) ** 2).sum() - 2 * trace
  expected += np.trace(np.cov(a.T)) + np.trace(np.cov(b.T))
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_frechet_of_a_shift_and_of_a_scale():
  a, _ = gaussians(50)
  of = distribution.moments
  np.testing.assert_allclose(distribution.frechet(of(a), of(a)), 0, atol=1e-6)
  shifted = distribution.frechet(of(a), of(a + np.arange(6)))
  np.testing.assert_allclose(shifted, 55, rtol=1e-7)
  scaled = distribution.frechet(of(a - a.mean(0)), of(3 * (a - a.mean(0))))
  np.testing.assert_allclose(scaled, 4 * np.trace(np.cov(a.T)), rtol=1e-7)
  with pytest.raises(ValueError, match='at least 2 videos, got 1 and 50'):
    distribution.frechet(of(a[:1]), of(a))


def test_the_interval_is_that_of_chance():
  """95 of 100 sets of clips: those of the distance's own spread."""
  real, generated = gaussians(3000)
  generated = generated.reshape(1500, 2, 6)
  found = distribution.frechet_of_sets(
    real[:150], generated[:150], resamples=60, seed=3
  )
  again = distribution.frechet_of_sets(
    real[:150], generated[:150], resamples=60, seed=3
  )
  assert found == again
  assert found['videos'] == 150 and found['generated_videos'] == 300
  assert found['resamples'] == 60 and found['seed'] == 3
  sets = [
    distribution.frechet_of_sets(
      real[i : i + 150], generated[i : i + 150], resamples=0
    )['mean']
    for i in range(0, 1500, 150)
  ]
  assert sets[0] == found['mean']
  low, high = found['interval']
  half = 1.96 * np.std(sets, ddof=1)
  assert half / 2 < (high - low) / 2 < 2 * half
  np.testing.assert_allclose((low + high) / 2, found['mean'])


def test_fvd_shows_i3d_what_it_was_trained_on(monkeypatch):
  """224x224, [-1, 1], three channels; the network itself is tested beside."""
  seen = []

  class Network:
    def apply(self, variables, video):
      seen.append((variables, video))
      return jnp.zeros((len(video), 400))

  monkeypatch.setattr(distribution.features, 'I3D', Network)
  tree = {'params': {'Conv3d_1a_7x7': 1}}
  metric = metrics.make('fvd/i3d400', variables=tree['params'])
  grey = np.full((2, 9, 20, 30, 1), 0.75, np.float32)
  grey[:, :, :, 15:] = 1.5
  assert metric.features(grey).shape == (2, 400)
  variables, video = seen.pop()
  assert variables == tree and video.shape == (2, 9, 224, 224, 3)
  np.testing.assert_allclose(video[:, :, :, :100], 0.5, rtol=1e-6)
  np.testing.assert_allclose(video[:, :, :, -100:], 1, rtol=1e-6)
  with pytest.raises(ValueError, match='9 frames or more, got 8'):
    metric.features(grey[:, :8])
  with pytest.raises(ValueError, match='1 or 3 channels, got 2'):
    metric.features(np.repeat(grey, 2, -1))


@pytest.mark.parametrize('name', ['fvd/i3d400', 'fvd/i3d400_context'])
def test_without_weights_fvd_says_where_they_are(name):
  for settings in ({}, {'variables': None}, {'variables': {'alexnet': {}}}):
    with pytest.raises(ValueError, match=r'(?s)convert.i3d.*i3d_pretrained_40'):
      metrics.make(name, **settings)
  assert metrics.METRICS[name].context == name.endswith('context')


@pytest.mark.parametrize('shape', [(0, 1, 4, 4, 1), (0, 2, 3, 5, 3)])
def test_crps_of_nothing(shape):
  none = distribution.crps_map(np.zeros((3, *shape)), np.zeros(shape))
  assert none.shape == shape
