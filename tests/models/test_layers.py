import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.models import layers


def normal(seed, *shape, mean=0.0):
  return mean + jax.random.normal(jax.random.key(seed), shape)


def test_group_norm_is_that_of_each_group():
  x = np.asarray(normal(0, 3, 5, 7, 12, mean=20.0))
  scale, bias = np.asarray(normal(1, 12)), np.asarray(normal(2, 12))
  variables = {'params': {'scale': scale, 'bias': bias}}
  out = layers.GroupNorm(4).apply(variables, x)
  groups = x.astype(np.float64).reshape(3, 35, 4, 3)
  mean = groups.mean((1, 3), keepdims=True)
  groups = (groups - mean) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
  expected = groups.reshape(x.shape) * scale + bias
  np.testing.assert_allclose(out, expected, atol=2e-3)  # at mean 20
  out = layers.GroupNorm(4).apply(variables, x - 20)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_layer_norm_far_from_zero():
  """Where the mean of squares less the square of the mean would be rounded."""
  x = np.asarray(normal(0, 3, 5, 7, 12, mean=2000.0))
  scale, bias = np.asarray(normal(1, 12)), np.asarray(normal(2, 12))
  variables = {'params': {'scale': scale, 'bias': bias}}
  exact = x.astype(np.float64)
  exact -= exact.mean(-1, keepdims=True)
  exact /= np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(
    layers.LayerNorm().apply(variables, x), exact * scale + bias, atol=1e-3
  )


def batch_norm(x):
  """In training, from fresh statistics: the result and the new statistics."""
  shape = x.shape[-1:]
  variables = {
    'params': {'scale': jnp.ones(shape), 'bias': jnp.zeros(shape)},
    'batch_stats': {'mean': jnp.zeros(shape), 'var': jnp.ones(shape)},
  }
  out, updated = layers.BatchNorm().apply(
    variables, x, True, mutable=['batch_stats']
  )
  return out, updated['batch_stats']


def test_batch_norm_divides_by_the_biased_and_keeps_the_unbiased_variance():
  x = np.asarray(normal(0, 2, 3, 4, 5, mean=2.0), np.float64)
  out, stats = batch_norm(jnp.asarray(x, jnp.float32))
  pixels = x.reshape(-1, 5)
  expected = (x - pixels.mean(0)) / np.sqrt(pixels.var(0) + 1e-5)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  np.testing.assert_allclose(stats['mean'], 0.1 * pixels.mean(0), rtol=1e-5)
  np.testing.assert_allclose(
    stats['var'], 0.9 + 0.1 * pixels.var(0, ddof=1), rtol=1e-5
  )


def test_batch_norm_uses_the_running_statistics_and_keeps_them():
  x, mean, var = normal(0, 2, 3, 4, 5), normal(1, 5), normal(2, 5) ** 2
  scale, bias = normal(3, 5), normal(4, 5)
  variables = {
    'params': {'scale': scale, 'bias': bias},
    'batch_stats': {'mean': mean, 'var': var},
  }
  out, kept = layers.BatchNorm().apply(
    variables, x, False, mutable=['batch_stats']
  )
  other = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
  np.testing.assert_allclose(out, other.apply(variables, x), atol=1e-5)
  jax.tree.map(
    np.testing.assert_array_equal, kept['batch_stats'], variables['batch_stats']
  )


def test_batch_norm_sees_the_whole_batch_on_many_devices():
  x = normal(0, 8, 3, 3, 4) + jnp.arange(8.0).reshape(8, 1, 1, 1)
  mesh = jax.make_mesh((8,), ('data',), (jax.sharding.AxisType.Auto,))
  rows = jax.NamedSharding(mesh, jax.P('data'))
  split = jax.jit(batch_norm, in_shardings=rows)
  out, stats = split(jax.device_put(x, rows))
  assert len(out.sharding.device_set) == 8
  expected, expected_stats = batch_norm(x)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  for name in ('mean', 'var'):
    np.testing.assert_allclose(stats[name], expected_stats[name], rtol=1e-5)


@pytest.mark.parametrize(
  'init_scheme, shape, groups, deviation',
  [
    ('torch', (3, 3, 16, 32), 1, (3 * 9 * 16) ** -0.5),
    ('torch', (7, 7, 1, 64), 64, (3 * 49) ** -0.5),
    ('fan_out', (3, 3, 16, 32), 1, (2 / (9 * 32)) ** 0.5),
    ('fan_out', (7, 7, 1, 64), 64, (2 / 49) ** 0.5),
    ('fan_out', (3, 3, 8, 32), 2, (2 / (9 * 16)) ** 0.5),
    ('small', (3, 3, 16, 32), 1, 0.02),
  ],
)
def test_initial_values(init_scheme, shape, groups, deviation):
  kernel_init, bias_init = layers.initializers(
    init_scheme, shape, groups=groups
  )
  kernel = np.asarray(kernel_init(jax.random.key(0), shape))
  np.testing.assert_allclose(kernel.std(), deviation, rtol=0.1)
  np.testing.assert_allclose(kernel.mean(), 0, atol=0.1 * deviation)
  bias = np.asarray(bias_init(jax.random.key(1), (500,)))
  if init_scheme == 'torch':
    assert np.abs(kernel).max() <= 3**0.5 * deviation
    np.testing.assert_allclose(bias.std(), deviation, rtol=0.1)
  else:
    assert np.abs(kernel).max() > 2.5 * deviation
    assert not bias.any()


def test_half_precision_in_and_out_with_statistics_in_full():
  x = normal(0, 2, 8, 8, 16, mean=5.0).astype(jnp.bfloat16)
  for layer in (layers.GroupNorm(4), layers.LayerNorm()):
    out, variables = layer.init_with_output(jax.random.key(0), x)
    assert out.dtype == jnp.bfloat16
    assert {v.dtype for v in jax.tree.leaves(variables)} == {
      jnp.dtype('float32')
    }
    full = layer.apply(variables, x.astype(jnp.float32))
    # Rounded once, at the end.
    np.testing.assert_array_equal(out, full.astype(jnp.bfloat16))
  out, stats = batch_norm(x)
  full, _ = batch_norm(x.astype(jnp.float32))
  assert stats['var'].dtype == jnp.float32
  np.testing.assert_array_equal(out, full.astype(jnp.bfloat16))
