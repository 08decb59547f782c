"""Errors weighted by latitude."""

import jax
import numpy as np
import pytest

from vidpred_jax import metrics

LATITUDES = np.linspace(87.1875, -87.1875, 8)


def pair(seed=0):
  """Two fields in kelvin, [2, 3, 8, 5, 2]."""
  rng = np.random.default_rng(seed)
  target = 280 + 20 * rng.standard_normal((2, 3, 8, 5, 2))
  pred = target + rng.standard_normal(target.shape)
  return pred.astype(np.float32), target.astype(np.float32)


def expected(pred, target, power):
  """Row by row, as the definition has it."""
  result = np.zeros(pred.shape[:2])
  weights = [np.cos(np.pi * phi / 180) for phi in LATITUDES]
  for row, weight in enumerate(weights):
    error = np.abs(pred[:, :, row].astype(float) - target[:, :, row]) ** power
    result += weight * error.mean((2, 3)) / sum(weights)
  return result


@pytest.mark.parametrize('name,power', [('mae', 1), ('rmse', 2)])
def test_against_the_definition(name, power):
  pred, target = pair()
  metric = metrics.make(f'{name}/latitude', latitudes=LATITUDES)
  assert metric.kind == 'field' and not metric.higher_is_better
  values = jax.jit(metric.values)(pred, target)
  assert values.shape == (2, 3) and values.dtype == np.float32
  np.testing.assert_allclose(values, expected(pred, target, power), rtol=1e-5)
  mean = np.asarray(values, np.float64).mean()
  assert metric.finish(mean) == pytest.approx(mean ** (1 / power))


def test_a_constant_error_is_itself_and_equal_rows_are_the_plain_mean():
  pred, target = pair()
  for name in ('mae', 'rmse'):
    weighted = metrics.make(f'{name}/latitude', latitudes=LATITUDES)
    values = weighted.values(np.full_like(target, 2.5), np.zeros_like(target))
    power = 2 if name == 'rmse' else 1
    np.testing.assert_allclose(values, 2.5**power, rtol=1e-6)
    alike = metrics.make(f'{name}/latitude', latitudes=np.full(8, 40.0))
    plain = metrics.make(f'{name}/mean').values(pred, target)
    np.testing.assert_allclose(alike.values(pred, target), plain, rtol=1e-5)


def test_what_happens_at_the_poles_hardly_counts():
  _, target = pair()
  polar, tropical = target.copy(), target.copy()
  polar[:, :, 0] += 1
  tropical[:, :, 4] += 1
  metric = metrics.make('mae/latitude', latitudes=LATITUDES)
  ratio = metric.values(tropical, target) / metric.values(polar, target)
  cos = np.cos(np.deg2rad(LATITUDES))
  np.testing.assert_allclose(ratio, cos[4] / cos[0], rtol=1e-3)


@pytest.mark.parametrize(
  'latitudes', [None, [[1.0, 2.0]], [0.0, 91.0], [np.nan] * 8]
)
def test_latitudes_must_be_latitudes(latitudes):
  with pytest.raises(ValueError, match='needs latitudes'):
    metrics.make('rmse/latitude', latitudes=latitudes)


def test_latitudes_must_fit_and_belong_to_the_metric():
  pred, target = pair()
  metric = metrics.make('rmse/latitude', latitudes=LATITUDES[:4])
  with pytest.raises(ValueError, match='4 latitudes for fields of 8 rows'):
    metric.values(pred, target)
  with pytest.raises(ValueError, match='no setting latitudes'):
    metrics.make('rmse/mean', latitudes=LATITUDES)
  with pytest.raises(ValueError, match='needs latitudes'):
    metrics.make('mae/latitude')


def test_anomaly_correlation_against_the_definition():
  pred, target = pair()
  climatology = np.random.default_rng(1).normal(280, 5, (8, 5, 2))
  settings = {'latitudes': LATITUDES, 'climatology': climatology}
  metric = metrics.make('acc/latitude', **settings)
  assert metric.kind == 'field' and metric.higher_is_better
  weights = np.cos(np.deg2rad(LATITUDES))[:, None, None]
  ours, true = pred - climatology, target - climatology
  for b in range(2):
    for n in range(3):
      product, own, other = (
        np.sum(weights * x * y)
        for x, y in (
          (ours[b, n], true[b, n]),
          (ours[b, n], ours[b, n]),
          (true[b, n], true[b, n]),
        )
      )
      got = jax.jit(metric.values)(pred, target)[b, n]
      assert got == pytest.approx(product / np.sqrt(own * other), rel=1e-4)
  np.testing.assert_allclose(metric.values(target, target), 1, rtol=1e-6)
  mirrored = (2 * climatology - target).astype(np.float32)
  np.testing.assert_allclose(metric.values(mirrored, target), -1, rtol=1e-5)


@pytest.mark.parametrize('climatology', [None, [1.0, 2.0], [[[np.nan]]]])
def test_a_climatology_must_be_a_field(climatology):
  with pytest.raises(ValueError, match='acc/latitude needs'):
    metrics.make('acc/latitude', latitudes=LATITUDES, climatology=climatology)


def test_a_climatology_must_fit():
  pred, target = pair()
  metric = metrics.make(
    'acc/latitude', latitudes=LATITUDES, climatology=np.zeros((8, 5, 1))
  )
  with pytest.raises(ValueError, match=r'is \(8, 5, 1\); expected \(8, 5, 2\)'):
    metric.values(pred, target)


@pytest.mark.parametrize('unit', [1e-30, 1e-12, 1e15])
def test_anomaly_correlation_in_any_unit(unit):
  rng = np.random.default_rng(0)
  pred, target = rng.normal(size=(2, 1, 2, 8, 5, 2)).astype(np.float32)
  settings = {'latitudes': LATITUDES, 'climatology': np.zeros((8, 5, 2))}
  metric = metrics.make('acc/latitude', **settings)
  scaled = metric.values(np.float32(unit) * pred, np.float32(unit) * target)
  np.testing.assert_allclose(scaled, metric.values(pred, target), rtol=1e-5)
