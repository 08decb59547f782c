"""Arrays that several tests begin with."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def flow_of(dx, dy, image):
  """The same everywhere, [B, H, W, 2]."""
  flow = jnp.asarray([dx, dy], jnp.float32)[None, None, None, :]
  return jnp.broadcast_to(flow, (*image.shape[:3], 2))


def waves(places, size=(48, 64)):
  """A smooth texture at places (x, y), a frame each, [1, T, H, W, 3]."""
  row, column = np.mgrid[: size[0], : size[1]].astype(np.float32)[..., None]
  phases = np.float32([0, 1, 2])
  frames = [
    np.sin(0.31 * (column - x) + phases) + np.cos(0.23 * (row - y) + phases)
    for x, y in places
  ]
  return jnp.asarray(0.5 + 0.2 * np.stack(frames)[None], jnp.float32)


def gradients(function, *args):
  """The value and the gradient of a random linear function of it."""

  @jax.jit
  def both(*args):
    out, pull = jax.vjp(function, *args)
    return out, *pull(normal(99, *out.shape).astype(out.dtype))

  return both(*args)
