"""Resizing images `[B, H, W, C]`.

Pixels are areas: the left edge of pixel 0 is coordinate 0 before and after
(`align_corners=False`, "half-pixel centres"). With `align_corners=True` the
centres of the corner pixels keep their places instead. Shrinking does not
antialias, like `torch.nn.functional.interpolate` and like `jax.image.resize`
with `antialias=False`.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np


def bilinear(
  x: jax.Array,
  *,
  size: tuple[int, int] | None = None,
  scale: float | None = None,
  align_corners: bool = False,
) -> jax.Array:
  """Resizes bilinearly, without antialiasing.

  With `scale` the result has `floor(side * scale)` pixels, spaced by exactly
  `1 / scale`, also where that does not divide the side (18 -> 4 at 1/4: the
  last two pixels are not looked at).

  Args:
    x: [B, H, W, C].
    size: (H', W') of the result; or
    scale: enlargement of both sides; exactly one of the two.
    align_corners: whether the corner pixels' centres are kept instead of the
      image's outline.

  Returns:
    [B, H', W', C] in the dtype of `x`.

  Raises:
    ValueError: if not exactly one of `size` and `scale` is given, or the result
      would be empty.
  """
  chex.assert_rank(x, 4)
  if (size is None) == (scale is None):
    raise ValueError(
      f'Got size={size} and scale={scale}; expected exactly one of them.'
    )
  for axis in (1, 2):
    length = x.shape[axis]
    if scale is not None:
      new = int(np.floor(length * scale))
      step = 1 / scale
    elif size is not None:
      new = size[axis - 1]
      step = length / max(new, 1)
    if new < 1:
      raise ValueError(
        f'Got an image of {x.shape[1]}x{x.shape[2]} to resize with size='
        f'{size}, scale={scale}; expected at least one pixel per side.'
      )
    if align_corners:
      step = (length - 1) / (new - 1) if new > 1 else 0.0
    x = _resize_axis(x, axis, new, step, align_corners)
  return x


def _resize_axis(x, axis, new, step, align_corners):
  """Resizes one axis to `new` samples `step` apart."""
  length = x.shape[axis]
  if new == length and step == 1:
    return x
  if not align_corners and step == int(step) and step > 1:
    # Evenly spaced: slices, whose gradient is a padding and not a scatter.
    step = int(step)
    first, second = (
      jax.lax.slice_in_dim(x, i, i + (new - 1) * step + 1, step, axis=axis)
      for i in ((step - 1) // 2, step // 2)
    )
    return first if step % 2 else 0.5 * first + 0.5 * second
  at = np.arange(new) * step
  if not align_corners:
    at = at + (step - 1) / 2
  at = np.clip(at, 0, length - 1)
  low = np.floor(at).astype(np.int32)
  high = np.minimum(low + 1, length - 1)
  weight = (
    (at - low)
    .astype(np.float32)
    .reshape([-1 if a == axis else 1 for a in range(x.ndim)])
  )
  weight = jnp.asarray(weight, x.dtype)
  first = jnp.take(x, low, axis=axis, mode='clip')
  second = jnp.take(x, high, axis=axis, mode='clip')
  return first * (1 - weight) + second * weight
