"""Initial values are distributed as JAX would draw them, and drawn quickly."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vidpred_jax import params, systems
from vidpred_jax.models import apr_vfi, dmvfn, ebme, initial, layers, rvd, simvp

LIKE_JAX = {
  'constant': (initial.constant(0.25), nn.initializers.constant(0.25)),
  'uniform': (
    initial.uniform(0.1),
    nn.initializers.variance_scaling(0.1**2 / 3 * 40, 'fan_in', 'uniform'),
  ),
  'normal': (initial.normal(0.02), nn.initializers.normal(0.02)),
  'truncated_normal': (
    initial.truncated_normal(math.sqrt(2 / 40)),
    nn.initializers.he_normal(),
  ),
}
PUBLISHED = {
  'apr_vfi': systems.Frames((0, 2), (1,)),
  'dmvfn': systems.Frames((0, 1), (2,)),
  'rvd': systems.Frames((0, 1), (2,)),
  'simvp': systems.Frames(tuple(range(10)), tuple(range(10, 20))),
}


def shape(*sides):
  return jax.ShapeDtypeStruct(sides, jnp.float32)


# A small model of each system, and what it is called with.
MODELS = {
  'apr_vfi': (
    apr_vfi.APRVFI(
      widths=(8, 8),
      depths=(1, 1),
      features=8,
      context_channels=4,
      context_hidden=8,
      patch=8,
    ),
    (shape(1, 2, 32, 32, 3),),
  ),
  'dmvfn': (
    dmvfn.DMVFN(scales=(2, 1), widths=(12, 8), router_outputs=1),
    (shape(1, 2, 16, 16, 3),),
  ),
  'rvd': (
    rvd.RVD(channels=1, dim=8, mults=(1, 2), mean_mults=(1,), remat=True),
    (shape(1, 1, 8, 8, 1), shape(1, 8, 8, 1), shape()),
  ),
  'simvp': (
    simvp.SimVP(frames=2, channels=1, hid_s=8, hid_t=16, n_s=2, n_t=2),
    (shape(1, 2, 8, 8, 1),),
  ),
}


@functools.cache
def drawn(name, seed):
  model, args = MODELS[name]
  return params.flatten(initial.draw(jax.random.key(seed), model, *args))


def p_of_same(a, b):
  """The p-value of Kolmogorov and Smirnov's test."""
  return stats.ks_2samp(np.ravel(a), np.ravel(b)).pvalue


@pytest.mark.parametrize('kind', LIKE_JAX)
def test_distributions_are_those_of_jax(kind):
  """Both ways: as an initialiser, and by NumPy."""
  ours, of_jax = LIKE_JAX[kind]
  size = (40, 5000)
  expected = of_jax(jax.random.key(0), size)
  by_numpy = ours.sample(np.random.default_rng(1), size)
  by_jax = ours(jax.random.key(2), size)
  for got in (by_numpy, by_jax):
    assert got.dtype == np.float32
    if kind == 'constant':
      np.testing.assert_array_equal(got, expected)
      continue
    assert p_of_same(got, expected) > 1e-3
    deviation = float(expected.std())
    np.testing.assert_allclose(got.mean(), 0, atol=0.01 * deviation)
    np.testing.assert_allclose(got.std(), deviation, rtol=0.01)
    if kind != 'normal':
      bound = np.abs(expected).max()
      np.testing.assert_allclose(np.abs(got).max(), bound, rtol=1e-3)


@pytest.mark.parametrize('name', MODELS)
def test_every_parameter_is_distributed_as_by_init_of_flax(name):
  model, args = MODELS[name]
  zeros = [jnp.zeros(x.shape, x.dtype) for x in args]
  plain = params.flatten(jax.jit(model.init)(jax.random.key(0), *zeros))
  assert list(drawn(name, 1)) == list(plain)
  for path, expected in plain.items():
    got = drawn(name, 1)[path]
    assert isinstance(got, jax.Array)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    if expected.size > 1 and expected.std() == 0:
      np.testing.assert_array_equal(got, expected, path)
    else:
      assert p_of_same(got, expected) > 1e-5, path


@pytest.mark.parametrize('name', MODELS)
def test_the_key_decides_compiled_or_not(name):
  model, args = MODELS[name]
  jitted = jax.jit(lambda key: initial.draw(key, model, *args))
  again = params.flatten(jitted(jax.random.key(1)))
  other = drawn(name, 2)
  for path, value in drawn(name, 1).items():
    np.testing.assert_array_equal(again[path], value)
    if value.std() > 0:
      assert not np.array_equal(other[path], value), path


def test_keys_of_any_kind_and_many_at_once():
  model, x = nn.Sequential([layers.Dense(4)]), shape(2, 3)
  old = jax.random.PRNGKey(7)
  new = jax.random.key(7)
  rbg = jax.random.key(7, impl='rbg')

  def kernel(key):
    return initial.draw(key, model, x)['params']['layers_0']['kernel']

  np.testing.assert_array_equal(kernel(old), kernel(new))
  assert not np.array_equal(kernel(rbg), kernel(new))
  keys = jax.random.split(new, 3)
  many = jax.vmap(kernel)(keys)
  for key, value in zip(keys, many, strict=True):
    np.testing.assert_array_equal(value, kernel(key))


@pytest.mark.parametrize('name', MODELS)
def test_parameters_are_independent(name):
  """No two random ones of a model go together."""
  rows = [
    np.ravel(x)[:256]
    for x in drawn(name, 1).values()
    if x.size >= 256 and x.std() > 0
  ]
  related = np.corrcoef(np.stack(rows)) - np.eye(len(rows))
  assert np.abs(related).max() < 6 / 16  # six deviations of 256 numbers


class Chain(nn.Module):
  names: tuple[str, ...]

  @nn.compact
  def __call__(self, x):
    for name in self.names:
      x = layers.Dense(x.shape[-1], name=name)(x)
    return x


def test_a_value_depends_on_no_other_parameter():
  key, x = jax.random.key(0), shape(2, 3)
  few = initial.draw(key, Chain(('a', 'b')), x)['params']
  more = initial.draw(key, Chain(('c', 'b', 'a')), x)['params']
  for name in ('a', 'b'):
    jax.tree.map(np.testing.assert_array_equal, few[name], more[name])
  assert not np.array_equal(few['a']['kernel'], few['b']['kernel'])


def test_a_derived_value_follows_from_what_was_drawn():
  model = ebme.Conv(5, images=True)
  layer = initial.draw(jax.random.key(0), model, shape(1, 4, 4, 3))['params']
  expected = -0.5 * np.sum(layer['kernel'], (0, 1, 2))
  np.testing.assert_allclose(layer['bias'], expected, rtol=1e-5)


def test_a_parameter_of_another_kind_is_refused_by_name():
  with pytest.raises(
    ValueError, match='params/bias is not declared by vidpred'
  ):
    initial.draw(jax.random.key(0), nn.Dense(3), shape(1, 2))


@pytest.mark.parametrize('name', PUBLISHED)
def test_nothing_is_compiled_at_the_published_size(name):
  system = systems.make(name, frames=PUBLISHED[name])
  clip = shape(1, system.frames.length, 64, 64, system.channels)
  key = jax.random.key(0)
  jax.block_until_ready(jax.device_put(np.zeros(1)))
  compiled = []

  def listen(event, duration, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      compiled.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    variables = system.init(key, clip)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not compiled
  shapes = jax.eval_shape(system.init, key, clip)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), variables) == jax.tree.map(
    lambda x: (x.shape, x.dtype), shapes
  )
