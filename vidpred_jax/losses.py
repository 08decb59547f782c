"""Distances between images `[B, H, W, C]`, as scalars to be minimised.

Everything is computed in float32 and differentiable; nothing here has
parameters (the feature distance takes feature maps).

Differences from the reference: `laplacian_pyramid` is defined for every size.
The published one needs sides divisible by 2^levels and at least 2^(levels + 1).
Where both are defined they are the same.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

# Of VGG19's five feature maps, and a factor for all of them: the inverse of
# their typical size, from the published training code of DMVFN.
VGG_WEIGHTS = tuple(
  0.1 * w for w in (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
)


def charbonnier(
  a: jax.Array, b: jax.Array, *, epsilon: float = 1e-3
) -> jax.Array:
  """Mean of `sqrt((a - b)^2 + epsilon^2)`, a smooth absolute difference.

  Args:
    a: any shape.
    b: the same.
    epsilon: the difference below which it is smooth.

  Returns:
    A scalar.
  """
  chex.assert_equal_shape([a, b])
  difference = a.astype(jnp.float32) - b.astype(jnp.float32)
  return jnp.mean(jnp.sqrt(difference**2 + epsilon**2))


def _reflect(i: int, length: int) -> int:
  """The index of position i, reflected at both ends as often as needed."""
  i = abs(i) % (2 * (length - 1))
  return min(i, 2 * (length - 1) - i)


def _pyramid_step(length: int) -> tuple[np.ndarray, np.ndarray]:
  """The matrices that decimate a side with blur, and that expand it.

  Returns:
    [ceil(length / 2), length] and [length, ceil(length / 2)], float32.
  """
  if length == 1:
    return np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)
  blur = np.zeros((length, length))
  for i in range(length):
    for k, weight in enumerate((1, 4, 6, 4, 1)):
      blur[i, _reflect(i + k - 2, length)] += weight / 16
  # Zeros between the samples halve the brightness: twice per direction.
  return blur[::2].astype(np.float32), (2 * blur[:, ::2]).astype(np.float32)


def _multiply(matrix, image, axis):
  """A matrix times every row or column of images [B, H, W, C]."""
  out = 'bnwc' if axis == 1 else 'bhnc'
  return jnp.einsum(
    f'n{"hw"[axis - 1]},bhwc->{out}', matrix, image, precision='highest'
  )


def laplacian_pyramid(image: jax.Array, *, levels: int = 5) -> list[jax.Array]:
  """The Laplacian pyramid of an image (Burt and Adelson).

  Each level is the image minus its blurred, decimated and expanded copy. The
  decimated copy is the image of the next level; the last copy is dropped. The
  kernel is [1 4 6 4 1] / 16 in both directions. Borders are reflected without
  repeating the border pixel. Decimation keeps even rows and columns. Expansion
  inserts zeros, applies the same blur and multiplies by 4.

  Sizes: an odd side 2m + 1 is decimated to m + 1 samples, which are expanded to
  2m + 1 positions again, so that the samples stay where they were. A side
  shorter than the kernel's reach is reflected repeatedly, and one of a single
  pixel stays one: no size fails.

  Each step is a product with a matrix per side, which is fastest for training
  crops (and compiles five times faster than sums of slices); the time per pixel
  grows with the sides.

  Args:
    image: [B, H, W, C], any size and range.
    levels: number of levels.

  Returns:
    Float32 arrays [B, H_k, W_k, C] with H_0 = H, H_{k+1} = ceil(H_k / 2).
  """
  chex.assert_rank(image, 4)
  current = image.astype(jnp.float32)
  pyramid = []
  for _ in range(levels):
    smaller = current
    matrices = [_pyramid_step(side) for side in current.shape[1:3]]
    for axis, (shrink, _) in enumerate(matrices, 1):
      smaller = _multiply(shrink, smaller, axis)
    expanded = smaller
    for axis, (_, expand) in enumerate(matrices, 1):
      expanded = _multiply(expand, expanded, axis)
    pyramid.append(current - expanded)
    current = smaller
  return pyramid


def laplacian(a: jax.Array, b: jax.Array, *, levels: int = 5) -> jax.Array:
  """L1 distance of two images' Laplacian pyramids, one number per image.

  The sum over the levels of the mean absolute difference. The pyramid is
  linear: it is made once, of `a - b`.

  Args:
    a: [B, H, W, C].
    b: the same shape.
    levels: of the pyramid.

  Returns:
    [B]; its mean is the distance of the batches.
  """
  chex.assert_equal_shape([a, b])
  difference = a.astype(jnp.float32) - b.astype(jnp.float32)
  first, *rest = (
    jnp.mean(jnp.abs(level), axis=(1, 2, 3))
    for level in laplacian_pyramid(difference, levels=levels)
  )
  return sum(rest, first)


def end_point_error(flow: jax.Array, truth: jax.Array) -> jax.Array:
  """The end-point error: mean distance of a flow from the true flow, in pixels.

  Args:
    flow: [..., 2], (dx, dy).
    truth: the same shape; NaN where the flow is unknown, which is left out.

  Returns:
    A scalar, the mean over known flow vectors; 0 without any.
  """
  chex.assert_equal_shape([flow, truth])
  known = jnp.isfinite(truth).all(-1)
  # The root has no gradient at 0, and NaN times 0 is NaN.
  error = jnp.where(known[..., None], flow - truth, 1.0)
  distance = jnp.where(known, jnp.sqrt(jnp.sum(error**2, -1) + 1e-6), 0.0)
  return jnp.sum(distance) / jnp.maximum(jnp.sum(known), 1)


def deep_supervision(losses: jax.Array, gamma: float) -> jax.Array:
  """`sum_i gamma^(n - i) losses_i`, i = 1..n (DMVFN's equation 13).

  Args:
    losses: [n], of the outputs from the first block to the last.
    gamma: how much less an earlier output counts than the next one.

  Returns:
    A scalar.
  """
  chex.assert_rank(losses, 1)
  powers = jnp.arange(losses.shape[0] - 1, -1, -1, dtype=losses.dtype)
  return jnp.sum(gamma**powers * losses)


def feature_distance(
  features_a: Sequence[jax.Array],
  features_b: Sequence[jax.Array],
  *,
  weights: Sequence[float] = VGG_WEIGHTS,
) -> jax.Array:
  """Weighted sum of the mean absolute differences of feature maps.

  Args:
    features_a: feature maps of one batch of images, each of any shape.
    features_b: those of the other, the same shapes.
    weights: of each map; the default is for `models.features.VGG19`.

  Returns:
    A scalar.

  Raises:
    ValueError: if there are not as many maps as weights.
  """
  if not len(features_a) == len(features_b) == len(weights):
    raise ValueError(
      f'Got {len(features_a)} and {len(features_b)} feature maps; expected '
      f'{len(weights)} of each, one per weight.'
    )
  total = jnp.zeros((), jnp.float32)
  for a, b, weight in zip(features_a, features_b, weights):
    chex.assert_equal_shape([a, b])
    difference = a.astype(jnp.float32) - b.astype(jnp.float32)
    total += weight * jnp.mean(jnp.abs(difference))
  return total


def differential_divergence(pred: jax.Array, target: jax.Array) -> jax.Array:
  """The divergence of two clips' changes (Tan et al., TAU, CVPR 2023, eq. (6)).

  A softmax of temperature 0.1 turns each difference of successive frames into a
  distribution over its values: P for the prediction, Q for the truth. The loss
  is the mean of P log(P / Q) over values, frames and clips. (The divergence has
  a sum over values; the mean is as published.)

  Args:
    pred: [B, T, H, W, C].
    target: the same.

  Returns:
    A scalar; 0 for fewer than three frames, as published.
  """
  chex.assert_equal_shape([pred, target])
  if pred.shape[1] < 3:
    return jnp.zeros((), pred.dtype)

  def change(clip):
    steps = clip[:, 1:] - clip[:, :-1]
    return jax.nn.softmax(steps.reshape(*steps.shape[:2], -1) / 0.1)

  p, q, tiny = change(pred), change(target), 1e-12
  return jnp.mean(p * jnp.log(p / (q + tiny) + tiny))


_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue


def census(a: jax.Array, b: jax.Array, *, size: int = 7) -> jax.Array:
  """Soft distance of two images' census (ternary) transforms.

  The census transform says whether each neighbour of a pixel is darker, equal
  or brighter. It describes structure and does not change with brightness. The
  images are converted to grey in 0..255. Each difference d to a neighbour
  becomes d / sqrt(0.81 + d^2). The squared difference s of two such values
  becomes s / (0.1 + s), and the loss is the mean. (Meister et al., "UnFlow",
  AAAI 2018, section 3.3, sum these terms and apply a penalty to the sum; here
  there is no such penalty.)

  Args:
    a: [B, H, W, 3], RGB in [0, 1], H and W at least `size`.
    b: the same.
    size: of the window, odd.

  Returns:
    A scalar in [0, 1): the mean over the pixels whose window lies inside.
  """
  chex.assert_equal_shape([a, b])
  chex.assert_rank(a, 4)
  both = jnp.stack([a, b]).astype(jnp.float32)
  weights = jnp.asarray(_LUMINANCE, jnp.float32)
  grey = 255 * jnp.sum(both * weights.reshape(1, 1, 1, 1, 3), -1)
  margin = size // 2
  height, width = grey.shape[2] - 2 * margin, grey.shape[3] - 2 * margin
  if height < 1 or width < 1:
    raise ValueError(
      f'Got images of {a.shape[1]}x{a.shape[2]}; the census transform expects '
      f'at least {size} pixels a side.'
    )
  centre = grey[:, :, margin : margin + height, margin : margin + width]

  # One row of the window after another; intermediate results are not stored.
  @jax.checkpoint
  def add_row(total, row):
    rows = jax.lax.dynamic_slice_in_dim(grey, row, height, axis=2)
    for column in range(size):
      change = rows[..., column : column + width] - centre
      change = change * jax.lax.rsqrt(0.81 + change**2)
      distance = jnp.square(change[0] - change[1])
      total += jnp.mean(distance / (0.1 + distance))
    return total, None

  rows = jnp.arange(size)
  total, _ = jax.lax.scan(add_row, jnp.zeros((), jnp.float32), rows)
  return total / size**2


def route_distance(routes: jax.Array, reference: jax.Array) -> jax.Array:
  """Mean absolute difference of two route maps (APR-VFI's L_apr, equation 4).

  Args:
    routes: [B, nh, nw, d] in [0, 1].
    reference: the same; it gets no gradient.

  Returns:
    A scalar.
  """
  chex.assert_equal_shape([routes, reference])
  return jnp.mean(jnp.abs(routes - jax.lax.stop_gradient(reference)))
