"""Which blocks of a network run: gates `[B, n]` for n blocks.

A router gives logits (the v-tilde of DMVFN's equation 7); the functions here
turn them into gates. The equations are those of Hu et al., "A Dynamic
Multi-Scale Voxel Flow Network for Video Prediction", CVPR 2023.
"""

import jax
import jax.numpy as jnp


def budgeted(logits: jax.Array, beta: float) -> jax.Array:
  """Probabilities whose sum is at most `beta * n` (equation 10).

  `w_i = beta * n * sigmoid(v_i) / sum_j sigmoid(v_j)`, cut off at 1. Where it
  is cut off, no gradient passes.

  Args:
    logits: [..., n].
    beta: the share of blocks to use, in [0, 1].

  Returns:
    [..., n] in [0, 1].
  """
  scores = jax.nn.sigmoid(logits)
  total = jnp.sum(scores, -1, keepdims=True) + 1e-6
  return jnp.clip(beta * logits.shape[-1] * scores / total, 0, 1)


def straight_through(gates: jax.Array, probabilities: jax.Array) -> jax.Array:
  """`gates`, with the gradient of `probabilities` (equation 12)."""
  return jax.lax.stop_gradient(gates) + (
    probabilities - jax.lax.stop_gradient(probabilities)
  )


def bernoulli(probabilities: jax.Array, key: jax.Array) -> jax.Array:
  """Draws gates and passes their gradient on unchanged (equations 11, 12).

  Args:
    probabilities: [..., n] in [0, 1].
    key: a random key.

  Returns:
    [..., n], 0 or 1 in the dtype of `probabilities`.
  """
  drawn = jax.random.bernoulli(key, probabilities)
  return straight_through(drawn.astype(probabilities.dtype), probabilities)


def gumbel(
  logits: jax.Array, key: jax.Array, temperature: float | jax.Array
) -> jax.Array:
  """Soft gates by the Gumbel-softmax (equation 9).

  Args:
    logits: [..., n, 2], for "skip" and "use".
    key: a random key.
    temperature: the tau of the equation; towards 0 the gates become binary.

  Returns:
    [..., n] in (0, 1).
  """
  noise = jax.random.gumbel(key, logits.shape, logits.dtype)
  return jax.nn.softmax((logits + noise) / temperature, axis=-1)[..., 1]


def most_probable(probabilities: jax.Array) -> jax.Array:
  """Gates without chance: as many blocks as sampling would use on average.

  The k most probable blocks are used, k the sum of the probabilities rounded
  to the nearest integer (a half upwards). Among equals the earlier block wins.
  With `budgeted` probabilities beta therefore remains a budget: k is
  `beta * n`, rounded, or less where probabilities were cut off at 1, and a
  smaller beta never adds a block.

  Args:
    probabilities: [..., n] in [0, 1].

  Returns:
    [..., n], 0 or 1 in the dtype of `probabilities`.
  """
  # The 1e-6 under the fraction in `budgeted` leaves the sum just below.
  count = jnp.floor(jnp.sum(probabilities, -1, keepdims=True) + 0.501)
  order = jnp.argsort(-probabilities, axis=-1, stable=True)
  rank = jnp.argsort(order, axis=-1)
  return (rank < count).astype(probabilities.dtype)
