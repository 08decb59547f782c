"""Arrays that several tests begin with."""

import jax
import jax.numpy as jnp


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def flow_of(dx, dy, image):
  """The same everywhere, [B, H, W, 2]."""
  flow = jnp.asarray([dx, dy], jnp.float32)[None, None, None, :]
  return jnp.broadcast_to(flow, (*image.shape[:3], 2))


def gradients(function, *args):
  """The value and the gradient of a random linear function of it."""

  @jax.jit
  def both(*args):
    out, pull = jax.vjp(function, *args)
    return out, *pull(normal(99, *out.shape).astype(out.dtype))

  return both(*args)
