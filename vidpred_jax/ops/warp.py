"""Backward warping, and the coordinate convention of the project.

A flow is `[B, H, W, 2]`, float32, in pixels of its own resolution: channel 0 is
dx (to the right), channel 1 dy (downwards). Pixel (x, y) is the centre of
column x in row y.

A backward flow is defined on the new frame. Each pixel of the new frame reads
the known frame there, `out(x, y) = image(x + dx, y + dy)`; points outside the
image read the nearest border pixel.

A forward flow is defined on the known frame. Each pixel of the known frame is
distributed bilinearly over the four pixels around (x + dx, y + dy) of the new
frame (splatting, see `splat`). Pixels that leave the image are dropped; a pixel
of the new frame that none reaches is a hole.
"""

import chex
import jax
import jax.numpy as jnp


@jax.custom_vjp
def sample(image: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
  """Samples an image at points by bilinear interpolation.

  Coordinates are clamped to the image, so their gradient is zero outside and on
  its border. The gradient at a whole number is that of the interval to its
  right. It has no forward-mode derivative.

  Args:
    image: [B, H, W, C], any range.
    x: [B, ...], columns; any shape after B.
    y: rows, the same shape.

  Returns:
    [B, ..., C] in the image's dtype.
  """
  chex.assert_rank(image, 4)
  chex.assert_equal_shape([x, y])
  (_, read), (wx, wy) = _neighbours(image, x, y)
  upper = read(0, 0) * (1 - wx) + read(0, 1) * wx
  lower = read(1, 0) * (1 - wx) + read(1, 1) * wx
  return (upper * (1 - wy) + lower * wy).astype(image.dtype)


def _neighbours(image, x, y):
  """The four pixels around points, and the distances to the upper-left one.

  Returns:
    Two functions of (below, right), each 0 or 1, that return the pixel's index
    [B, ...] among all H W pixels, and its value [B, ..., C]; and the distances
    of the points from the upper-left pixel in x and y, [B, ..., 1].
  """
  batch, height, width, channels = image.shape
  x = jnp.clip(x.astype(jnp.float32), 0, width - 1)
  y = jnp.clip(y.astype(jnp.float32), 0, height - 1)
  left, top = jnp.floor(x), jnp.floor(y)
  wx, wy = (x - left)[..., None], (y - top)[..., None]
  left, top = left.astype(jnp.int32), top.astype(jnp.int32)
  columns = (left, jnp.minimum(left + 1, width - 1))
  rows = (top, jnp.minimum(top + 1, height - 1))
  pixels = image.reshape(batch, height * width, channels)

  def index(below, right):
    return rows[below] * width + columns[right]

  def read(below, right):
    return _read(pixels, index(below, right))

  return (index, read), (wx, wy)


@jax.vmap
def _read(pixels, index):
  """Pixels [B, H W, C] at indices [B, ...] that are known to exist."""
  return pixels.at[index].get(mode='promise_in_bounds')


def sum_channels(x):
  """The sum over the last axis, unrolled for up to 8 channels.

  2026-11: a reduction of few numbers takes four times as long on a CPU.

  Args:
    x: [..., C].

  Returns:
    [...].
  """
  if x.shape[-1] > 8:
    return jnp.sum(x, -1)
  return sum(x[..., c] for c in range(x.shape[-1]))


def _sample_forward(image, x, y):
  return sample(image, x, y), (image, x, y)


def _sample_backward(saved, gradient):
  """Reads the pixels again, which is faster than storing them."""
  image, x, y = saved
  batch, height, width, channels = image.shape
  (index, read), (wx, wy) = _neighbours(image, x, y)
  (a, b), (c, d) = [[read(i, j) for j in range(2)] for i in range(2)]

  def of_coordinate(slope, at, last):
    slope = sum_channels((gradient * slope).astype(jnp.float32))
    return jnp.where((at > 0) & (at < last), slope, 0).astype(at.dtype)

  of_image = jnp.zeros((batch, height * width, channels), jnp.float32)
  for i, share_y in enumerate((1 - wy, wy)):
    for j, share_x in enumerate((1 - wx, wx)):
      add = jax.vmap(lambda total, at, value: total.at[at].add(value))
      of_image = add(of_image, index(i, j), gradient * share_y * share_x)
  return (
    of_image.reshape(image.shape).astype(image.dtype),
    of_coordinate((b - a) * (1 - wy) + (d - c) * wy, x, width - 1),
    of_coordinate((c - a) * (1 - wx) + (d - b) * wx, y, height - 1),
  )


sample.defvjp(_sample_forward, _sample_backward)


def backward(image: jax.Array, flow: jax.Array) -> jax.Array:
  """Backward warping: samples an image at the points that a flow gives.

  Args:
    image: [B, H, W, C], any range.
    flow: [B, H, W, 2], (dx, dy) in pixels.

  Returns:
    [B, H, W, C] in the image's dtype, `image(x + dx, y + dy)`; see `sample`.
  """
  chex.assert_rank([image, flow], 4)
  chex.assert_shape(flow, (*image.shape[:3], 2))
  return sample(image, *points(flow))


def points(flow: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The points where a backward flow reads.

  Args:
    flow: [B, H, W, 2], (dx, dy) in pixels.

  Returns:
    Their columns and their rows, each [B, H, W], float32.
  """
  flow = flow.astype(jnp.float32)
  height, width = flow.shape[1:3]
  columns = jnp.arange(width, dtype=jnp.float32)[None, None, :]
  rows = jnp.arange(height, dtype=jnp.float32)[None, :, None]
  return columns + flow[..., 0], rows + flow[..., 1]


def inside(flow: jax.Array) -> jax.Array:
  """Whether the points that a backward flow reads are in the image.

  Args:
    flow: [B, H, W, 2], (dx, dy) in pixels.

  Returns:
    [B, H, W, 1], bool.
  """
  height, width = flow.shape[1:3]
  x, y = points(flow)
  within = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
  return within[..., None]


def backward_cubic(image: jax.Array, flow: jax.Array) -> jax.Array:
  """Backward warping as `backward`, by cubic convolution of 4x4 pixels.

  It keeps more of what is fine than bilinear interpolation, which takes some of
  it away wherever it reads between pixels. Results may lie a little outside the
  range of the image. Keys, "Cubic convolution interpolation for digital image
  processing", 1981, equation 4; with a = -0.75, as OpenCV has it.

  Args:
    image: [B, H, W, C], any range.
    flow: [B, H, W, 2], (dx, dy) in pixels.

  Returns:
    [B, H, W, C], float32.
  """
  chex.assert_rank([image, flow], 4)
  batch, height, width, channels = image.shape
  chex.assert_shape(flow, (batch, height, width, 2))
  x, y = points(flow)
  x, y = jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)
  left, top = jnp.floor(x), jnp.floor(y)
  columns = [
    jnp.clip(left.astype(jnp.int32) + i, 0, width - 1) for i in range(-1, 3)
  ]
  pixels = image.reshape(batch, height * width, channels)
  pixels = pixels.astype(jnp.float32)
  total = jnp.zeros((*x.shape, channels), jnp.float32)
  for i, across in enumerate(_cubic_weights(y - top)):
    row = jnp.clip(top.astype(jnp.int32) + i - 1, 0, height - 1)
    for column, along in zip(columns, _cubic_weights(x - left)):
      weight = (across * along)[..., None]
      total += weight * _read(pixels, row * width + column)
  return total


def _cubic_weights(at):
  """Of the pixels at -1, 0, 1 and 2, for a point `at` in [0, 1)."""
  a = -0.75

  def near(d):
    return ((a + 2) * d - (a + 3)) * d * d + 1

  def far(d):
    return ((d - 5) * d + 8) * d * a - 4 * a

  return far(1 + at), near(at), near(1 - at), far(2 - at)
