"""Convolutions of `[B, H, W, C]` with kernels `[kh, kw, in, out]`.

Every function computes in the dtype of `x` and casts the kernel to it.
"""

import chex
import jax
import jax.numpy as jnp


def bias_add(x: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds [C] to [B, H, W, C]."""
  return x + bias.astype(x.dtype)[None, None, None, :]


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
  """`x` where positive, else `slope * x`; slope [C], x [B, H, W, C]."""
  return jnp.where(x > 0, x, slope.astype(x.dtype)[None, None, None, :] * x)


def conv(
  x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0
) -> jax.Array:
  """Cross-correlation with zeros around.

  Args:
    x: [B, H, W, C].
    kernel: [kh, kw, C, D].
    stride: of both axes.
    padding: rows and columns of zeros added on each side. (Not 'SAME', which
      pads one side only at stride 2 and even sizes.)

  Returns:
    [B, H', W', D], H' = (H + 2 padding - kh) // stride + 1.
  """
  chex.assert_rank([x, kernel], 4)
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The 4x4 transposed convolution of stride 2 and padding 1.

  `out(2y - 1 + i, 2x - 1 + j) += x(y, x) @ kernel[i, j]`. Each of the four
  positions of an output pixel within its 2x2 cell sees 2x2 taps of the kernel:
  four small convolutions, and no multiplication with inserted zeros.

  Args:
    x: [B, H, W, C].
    kernel: [4, 4, C, D].

  Returns:
    [B, 2 H, 2 W, D].
  """
  chex.assert_rank([x, kernel], 4)
  kernel = kernel.astype(x.dtype)
  # Row 2y takes x(y - 1), x(y) with taps 3, 1; row 2y + 1 takes x(y), x(y + 1)
  # with taps 2, 0.
  pads = ((1, 0), (0, 1))
  rows = []
  for a in range(2):
    columns = []
    for b in range(2):
      part = kernel[3 - a :: -2, 3 - b :: -2]
      columns.append(
        jax.lax.conv_general_dilated(
          x,
          part,
          (1, 1),
          (pads[a], pads[b]),
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )
      )
    rows.append(jnp.stack(columns, axis=3))
  batch, height, width, _ = x.shape
  out = jnp.stack(rows, axis=2)
  return out.reshape(batch, 2 * height, 2 * width, kernel.shape[-1])
