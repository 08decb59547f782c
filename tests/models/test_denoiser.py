import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.models import denoiser


def test_a_step_is_embedded_by_sines_and_cosines_of_falling_frequency():
  n = jnp.asarray([0, 3, 1234])
  frequencies = 10_000 ** (-np.arange(8) / 7)
  phases = np.asarray(n, np.float64)[:, None] * frequencies
  expected = np.concatenate([np.sin(phases), np.cos(phases)], 1)
  np.testing.assert_allclose(
    denoiser.timestep_embedding(n, 16), expected, atol=2e-4
  )


def test_a_prepared_context_is_a_concatenated_one():
  x, context = jax.random.normal(jax.random.key(0), (2, 2, 4, 6, 8))
  both = denoiser.ResBlock(16, 8)
  split = denoiser.ResBlock(8, 8, context=8)
  joined = jnp.concatenate([x, context], -1)
  expected, variables = both.init_with_output(jax.random.key(1), joined)
  share = split.apply(variables, context, method='prepare')
  out = split.apply(variables, x, context_features=share)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_attention_sums_values_by_keys_and_gives_them_out_by_queries():
  """Head by head and pixel by pixel, in NumPy."""
  module = denoiser.LinearAttention(8, heads=2, width=4)
  x = jax.random.normal(jax.random.key(0), (1, 2, 3, 8))
  out, variables = module.init_with_output(jax.random.key(1), x)
  weight = variables['params']
  pixels = np.asarray(x, np.float64).reshape(6, 8)
  normal = pixels - pixels.mean(1, keepdims=True)
  normal /= np.sqrt(normal.var(1, keepdims=True) + 1e-5)
  qkv = normal @ np.asarray(weight['qkv']['kernel'])[0, 0]
  heads = []
  for h in range(2):
    query, key, value = (qkv[:, 8 * i + 4 * h :][:, :4] for i in range(3))
    share = np.exp(key) / np.exp(key).sum(0)
    heads.append(query / 2 @ (share.T @ value))
  expected = (
    np.concatenate(heads, 1) @ np.asarray(weight['out']['kernel'])[0, 0]
  )
  expected += pixels + np.asarray(weight['out']['bias'])
  np.testing.assert_allclose(out.reshape(6, 8), expected, atol=1e-5)
