"""Local cost volumes: the correlation of two feature maps in a window.

Images are features `[B, H, W, C]`; displacements are (dx, dy) in pixels.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np


def local(first: jax.Array, second: jax.Array, *, radius: int = 4) -> jax.Array:
  """Correlates each pixel with a window around it in another image.

  `out(x, y, k) = mean_c first(x, y, c) second(x + dx, y + dy, c)`, where k
  numbers the displacements row by row: `dy = k // n - radius`, `dx = k % n -
  radius`, n = 2 radius + 1. Pixels outside the image are 0.

  Both images are cut into tiles of 2 radius pixels. The windows of a tile's
  pixels lie in 2x2 tiles of the other image, shifted by the radius. All
  products of their pixels are one matrix product. The windows use n^2 / (16
  radius^2) of these products, 0.32 for a radius of 4. It has no forward-mode
  derivative.

  Args:
    first: [B, H, W, C], any size.
    second: the same.
    radius: of the window, in pixels, at least 1.

  Returns:
    [B, H, W, n^2] in the dtype of `first`.

  Raises:
    ValueError: if the radius is less than 1.
  """
  chex.assert_rank(first, 4)
  chex.assert_equal_shape([first, second])
  if radius < 1:
    raise ValueError(f'Got radius={radius}; expected at least 1.')
  _, height, width, channels = first.shape
  side = 2 * radius
  down, right = -height % side, -width % side
  pads = ((0, 0), (0, down), (0, right), (0, 0))
  tiles = _to_tiles(jnp.pad(first / channels, pads), side)
  pads = (
    (0, 0),
    (radius, down + side - radius),
    (radius, right + side - radius),
    (0, 0),
  )
  others = _to_tiles(jnp.pad(second.astype(first.dtype), pads), side)
  batch, rows, columns = tiles.shape[:3]
  around = [
    others[:, y : y + rows, x : x + columns, None]
    for y in range(2)
    for x in range(2)
  ]
  around = jnp.concatenate(around, 3)
  # 2026-11: a CPU is faster with one batch axis, and with many rows in the
  # first operand and fewer in the second (1.3x) than the other way round.
  count = batch * rows * columns
  around = around.reshape(count, 4 * side**2, channels)
  tiles = tiles.reshape(count, side**2, channels)
  products = jnp.einsum('tpc,tqc->tpq', around, tiles, precision='highest')
  out = _in_windows(products, radius)
  window = (2 * radius + 1) ** 2
  out = out.reshape(batch, rows, columns, side, side, window).swapaxes(2, 3)
  out = out.reshape(batch, rows * side, columns * side, window)
  return out[:, :height, :width]


def _to_tiles(x, side):
  """[B, H, W, C] to [B, H / side, W / side, side, side, C]."""
  batch, height, width, channels = x.shape
  shape = (batch, height // side, side, width // side, side, channels)
  return x.reshape(shape).swapaxes(2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _in_windows(products, radius):
  """Selects the products in the windows of [T, 16 radius^2, 4 radius^2].

  Returns:
    [T, 4 radius^2 n^2], n = 2 radius + 1: for each pixel of a tile its window.
  """
  flat = products.reshape(products.shape[0], 64 * radius**4)
  return flat.at[:, _places(radius)].get(mode='promise_in_bounds')


def _places(radius):
  """The indices, among all products of a tile, that `_in_windows` selects."""
  side, window = 2 * radius, 2 * radius + 1
  y, x, dy, dx = np.ix_(*map(range, (side, side, window, window)))
  tile = (y + dy) // side * 2 + (x + dx) // side
  pixel = (y + dy) % side * side + (x + dx) % side
  position = tile * side**2 + pixel
  return (position * side**2 + y * side + x).reshape(-1)


def _in_windows_forward(products, radius):
  return _in_windows(products, radius), None


def _in_windows_backward(radius, _, gradient):
  """Gathers too, since scattering is slow on a CPU; others read a zero."""
  around, inside = 16 * radius**2, 4 * radius**2
  places = _places(radius)
  back = np.full(around * inside, len(places))
  back[places] = np.arange(len(places))
  gradient = jnp.pad(gradient, ((0, 0), (0, 1)))
  gradient = gradient.at[:, back].get(mode='promise_in_bounds')
  return (gradient.reshape(gradient.shape[0], around, inside),)


_in_windows.defvjp(_in_windows_forward, _in_windows_backward)
