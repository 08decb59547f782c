"""Moving pixels along a flow, and the coordinate convention of the project.

A flow is `[B, H, W, 2]`, float32, in pixels of its own resolution: channel 0 is
dx (to the right), channel 1 dy (downwards). Pixel (x, y) means the centre of
column x in row y. A backward flow belongs to the frame that is made and says
where to read in the frame that is known, `out(x, y) = image(x + dx, y + dy)`;
what lies outside is replaced by the nearest border pixel.
"""

import chex
import jax
import jax.numpy as jnp


def backward(image: jax.Array, flow: jax.Array) -> jax.Array:
  """Reads an image where a flow points, bilinearly (backward warping).

  Coordinates are clamped to the image, so the gradient with respect to the flow
  is zero where it points outside.

  Args:
    image: [B, H, W, C], any range.
    flow: [B, H, W, 2], (dx, dy) in pixels.

  Returns:
    [B, H, W, C] in the image's dtype, `image(x + dx, y + dy)`.
  """
  chex.assert_rank([image, flow], 4)
  batch, height, width, channels = image.shape
  chex.assert_shape(flow, (batch, height, width, 2))
  flow = flow.astype(jnp.float32)
  columns = jnp.arange(width, dtype=jnp.float32)[None, None, :]
  rows = jnp.arange(height, dtype=jnp.float32)[None, :, None]
  x = jnp.clip(columns + flow[..., 0], 0, width - 1)
  y = jnp.clip(rows + flow[..., 1], 0, height - 1)
  left, top = jnp.floor(x), jnp.floor(y)
  wx, wy = (x - left)[..., None], (y - top)[..., None]
  left, top = left.astype(jnp.int32), top.astype(jnp.int32)
  right = jnp.minimum(left + 1, width - 1)
  bottom = jnp.minimum(top + 1, height - 1)
  pixels = image.reshape(batch, height * width, channels)

  def read(row, column):
    index = (row * width + column).reshape(batch, height * width)
    taken = jax.vmap(lambda p, i: jnp.take(p, i, axis=0, mode='clip'))(
      pixels, index
    )
    return taken.reshape(batch, height, width, channels)

  upper = read(top, left) * (1 - wx) + read(top, right) * wx
  lower = read(bottom, left) * (1 - wx) + read(bottom, right) * wx
  return (upper * (1 - wy) + lower * wy).astype(image.dtype)
