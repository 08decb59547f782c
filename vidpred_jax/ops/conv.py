"""Convolutions of `[B, H, W, C]` with kernels `[kh, kw, in, out]`.

Every function computes in the dtype of `x` and casts the kernel to it.

Convolutions with few channels at full resolution spend most of their time on
moving data. The functions after `transposed_conv` compute the same results, up
to rounding, and move less data; the first line of each says what it equals.
Some return folded images, `[B, H, W, 4, C]`, see `layout`.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np


def bias_add(x: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds [C] to [..., C].

  Args:
    x: [..., C].
    bias: [C].

  Returns:
    [..., C] in the dtype of `x`.
  """
  return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
  """`x` where positive, else `slope * x`; slope [C], x [B, H, W, C].

  Args:
    x: [B, H, W, C].
    slope: [C].

  Returns:
    [B, H, W, C].
  """
  return jnp.where(x > 0, x, slope.astype(x.dtype)[None, None, None, :] * x)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Multiplies [..., C] by [C, D]: a 1x1 convolution.

  The leading axes are merged, so that this is a product of two matrices. With
  more axes XLA writes transposed copies for the gradient (2026-11), which take
  longer than the product.

  Args:
    x: [..., C].
    kernel: [C, D].

  Returns:
    [..., D].
  """
  out = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
  return out.reshape(*x.shape[:-1], -1)


def conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int | tuple[int, int] = 0,
) -> jax.Array:
  """Cross-correlation with zero padding.

  Args:
    x: [B, H, W, C].
    kernel: [kh, kw, C, D].
    stride: of both axes.
    padding: rows and columns of zeros added on each side, or (rows, columns).
      (Not 'SAME', which pads one side only at stride 2 and even sizes.)

  Returns:
    [B, H', W', D], H' = (H + 2 padding - kh) // stride + 1.
  """
  chex.assert_rank([x, kernel], 4)
  if isinstance(padding, int):
    padding = (padding, padding)
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    [(p, p) for p in padding],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The 4x4 transposed convolution of stride 2 and padding 1.

  `out(2y - 1 + i, 2x - 1 + j) += x(y, x) @ kernel[i, j]`. Each of the four
  positions in a 2x2 cell of output pixels uses 2x2 taps of the kernel. So the
  result is four small convolutions, without products with inserted zeros.

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


def folded_transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Equals `transposed_conv(x, kernel)`, folded; computed as one 3x3 conv.

  Args:
    x: [B, H, W, C].
    kernel: [4, 4, C, D].

  Returns:
    [B, H, W, 4, D].
  """
  batch, height, width, channels = x.shape
  features = kernel.shape[-1]
  chex.assert_shape(kernel, (4, 4, channels, features))
  # taps[row of x + 1, tap, row in the cell]
  taps = np.zeros((3, 4, 2), np.float32)
  taps[0, 3, 0] = taps[1, 1, 0] = taps[1, 2, 1] = taps[2, 0, 1] = 1
  kernel = jnp.einsum('ika,jlb,klco->ijcabo', taps, taps, kernel)
  x = conv(x, kernel.reshape(3, 3, channels, 4 * features), padding=1)
  return x.reshape(batch, height, width, 4, features)


def _enlarge_and_tap(factor):
  """Weights of bilinear enlargement followed by a transposed conv, for a row.

  Returns:
    [factor, 2, 3, 4]: the weight of low-resolution sample i - 1 + d and tap k
    in output 2 (factor * i + q) + a, indexed [q, a, d, k]; and twice
    [factor, 2, 4], the corrections for the first and the last sample, which
    have no sample i - 1 or i + 1.
  """
  weights = np.zeros((factor, 2, 3, 4), np.float32)
  for q in range(factor):
    for a, taps in enumerate((((3, -1), (1, 0)), ((2, 0), (0, 1)))):
      for tap, offset in taps:
        at = (q + offset + 0.5) / factor - 0.5
        low = int(np.floor(at))
        weights[q, a, low + 1, tap] += low + 1 - at
        if at > low:
          weights[q, a, low + 2, tap] += at - low
  # Enlarging repeats the border, but the transposed convolution pads the
  # enlarged row with zeros.
  first, last = weights[:, :, 0].copy(), weights[:, :, 2].copy()
  first[0, 0, 3] -= 1
  last[-1, 1, 0] -= 1
  return weights, first, last


def enlarged_transposed_conv(
  x: jax.Array, kernel: jax.Array, factor: int
) -> jax.Array:
  """Equals `transposed_conv(resize.bilinear(x, scale=factor), kernel)`, folded.

  Both operations are linear, and separable except for the mixing of channels.
  Channels are therefore mixed first, at the low resolution. Then rows and
  columns are enlarged and summed over the kernel's taps in one step each.

  Args:
    x: [B, H, W, C].
    kernel: [4, 4, C, D].
    factor: of the enlargement.

  Returns:
    [B, factor * H, factor * W, 4, D].
  """
  batch, height, width, channels = x.shape
  features = kernel.shape[-1]
  chex.assert_shape(kernel, (4, 4, channels, features))
  weights, first, last = _enlarge_and_tap(factor)

  # q, a: row within the low-resolution cell and within the 2x2 cell; j: the
  # kernel's column taps, still to be summed over.
  def rows(weights):
    out = jnp.einsum('qa...k,kjco->...cqajo', weights, kernel)
    return out.reshape(*out.shape[:-5], channels, -1)

  out = conv(x, rows(weights)[:, None], padding=(1, 0))
  out += _at_ends(x, rows(first), rows(last), axis=1)
  out = out.reshape(batch, height, width, factor, 2 * 4 * features)
  out = out.transpose(0, 1, 3, 2, 4).reshape(batch, factor * height, width, -1)

  # The same for columns, alike for both rows of a 2x2 cell and all features.
  same = np.einsum('aA,oO->aoAO', *map(np.float32, map(np.eye, (2, features))))

  def columns(weights):
    out = np.einsum('qb...j,aoAO->...ajoqAbO', weights, same)
    return jnp.asarray(out.reshape(*out.shape[:-7], 8 * features, -1))

  row = out
  out = conv(row, columns(weights)[None], padding=(0, 1))
  out += _at_ends(row, columns(first), columns(last), axis=2)
  return out.reshape(batch, factor * height, factor * width, 4, features)


def _at_ends(x, first, last, axis):
  """Multiplies the first and the last row or column by kernels; else zeros.

  Args:
    x: [B, H, W, C].
    first: [C, D], for the first row or column.
    last: [C, D], for the last one.
    axis: 1 for rows, 2 for columns.

  Returns:
    [B, H, W, D].
  """
  length = x.shape[axis]
  ends = []
  for start, kernel in ((0, first), (length - 1, last)):
    end = jax.lax.slice_in_dim(x, start, start + 1, axis=axis)
    pads = [(0, 0, 0)] * 4
    pads[axis] = (start, length - 1 - start, 0)
    end = end @ kernel.astype(x.dtype)
    ends.append(jax.lax.pad(end, jnp.zeros((), x.dtype), pads))
  return ends[0] + ends[1]


def mean_of_convs(
  x: jax.Array, first: jax.Array, bias: jax.Array, second: jax.Array
) -> jax.Array:
  """Equals the mean over pixels of `conv(relu(conv(x, first) + bias), second)`.

  Both kernels are 3x3 and padded by 1. The mean of a sum is the sum of the
  means, so the second convolution needs only sums of its input. Each of its
  taps sums all pixels except a border row, a border column, or both. The
  borders are computed once more by separate convolutions, so that the large
  convolution has one user, the sum, into which XLA fuses it.

  Args:
    x: [B, H, W, C], H and W at least 2.
    first: [3, 3, C, D].
    bias: [D].
    second: [3, 3, D, E].

  Returns:
    [B, E].
  """
  batch, height, width, _ = x.shape
  chex.assert_shape([first, second], (3, 3, None, None))

  def hidden(x):
    return jax.nn.relu(bias_add(conv(x, first, padding=1), bias))

  total = jnp.sum(hidden(x), (1, 2))
  # The pixels that the first and the last tap of the second kernel leave out.
  row = {0: hidden(x[:, -2:])[:, -1], 2: hidden(x[:, :2])[:, 0]}
  column = {0: hidden(x[:, :, -2:])[:, :, -1], 2: hidden(x[:, :, :2])[:, :, 0]}
  out = jnp.zeros((batch, second.shape[-1]), x.dtype)
  for i in range(3):
    for j in range(3):
      part = total
      if i != 1:
        part = part - jnp.sum(row[i], 1)
      if j != 1:
        part = part - jnp.sum(column[j], 1)
      if i != 1 and j != 1:
        part = part + row[i][:, -1 if j == 0 else 0]
      out += part @ second[i, j].astype(x.dtype)
  return out / (height * width)


def depthwise(
  x: jax.Array, kernel: jax.Array, *, dilation: int = 1
) -> jax.Array:
  """Depthwise cross-correlation: each channel has its own kernel.

  On a CPU it is a sum of shifted images, which XLA fuses into one loop. XLA's
  grouped convolution takes up to a hundred times as long there (2026-11).

  Args:
    x: [B, H, W, C].
    kernel: [k, k, C], k odd.
    dilation: distance of the kernel's taps, in pixels.

  Returns:
    [B, H, W, C], with zero padding.
  """
  chex.assert_rank([x, kernel], [4, 3])
  chex.assert_shape(kernel, (kernel.shape[0], kernel.shape[0], x.shape[-1]))
  # The scope's name is known to `cost`, which counts its multiplications.
  with jax.named_scope('depthwise'):
    return _depthwise(x, kernel, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, kernel, dilation):
  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_sum_of_shifted, dilation),
    default=functools.partial(_grouped_by_channel, dilation),
  )


def _sum_of_shifted(dilation, x, kernel):
  height, width = x.shape[1:3]
  wide, out = _with_margin(x, kernel.shape[0], dilation), 0.0
  for i in range(kernel.shape[0]):
    for j in range(kernel.shape[1]):
      a, b = i * dilation, j * dilation
      tap = kernel[None, None, None, i, j]
      out += wide[:, a : a + height, b : b + width] * tap
  return out.astype(x.dtype)


def _with_margin(x, size, dilation):
  """`x` in float32 with the zero padding that a kernel of `size` needs."""
  margin = dilation * (size // 2)
  pads = ((0, 0), (margin, margin), (margin, margin), (0, 0))
  return jnp.pad(x.astype(jnp.float32), pads)


def _grouped_by_channel(dilation, x, kernel):
  margin = dilation * (kernel.shape[0] // 2)
  return jax.lax.conv_general_dilated(
    x,
    kernel[:, :, None].astype(x.dtype),
    (1, 1),
    ((margin, margin), (margin, margin)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


def _depthwise_forward(x, kernel, dilation):
  return _depthwise(x, kernel, dilation), (x, kernel)


def _depthwise_backward(dilation, residual, gradient):
  x, kernel = residual
  size = kernel.shape[0]

  def by_shifts(x, kernel, gradient):
    return (
      _sum_of_shifted(dilation, gradient, kernel[::-1, ::-1]),
      _tap_correlations(x, gradient, size, dilation).astype(kernel.dtype),
    )

  def by_convolutions(x, kernel, gradient):
    forward = functools.partial(_grouped_by_channel, dilation)
    return jax.vjp(forward, x, kernel)[1](gradient)

  return jax.lax.platform_dependent(
    x, kernel, gradient, cpu=by_shifts, default=by_convolutions
  )


def _tap_correlations(x, gradient, size, dilation):
  """Sums over pixels of the shifted image times the gradient, [k, k, C].

  One image at a time, so that it stays in the processor's cache for all taps.
  Rows of larger kernels are looped over: unrolled they take seconds to compile.
  """
  wide = _with_margin(x, size, dilation)
  gradient = gradient.astype(jnp.float32)
  height, width = gradient.shape[1:3]

  def of_image(total, pair):
    wide, gradient = pair

    def of_row(row):
      rows = jax.lax.dynamic_slice_in_dim(wide, row * dilation, height)
      starts = range(0, size * dilation, dilation)
      return jnp.stack(
        [_sum_of_products(rows[:, j : j + width], gradient) for j in starts]
      )

    if size <= 3:
      rows = jnp.stack([of_row(i) for i in range(size)])
    else:
      rows = jax.lax.map(of_row, jnp.arange(size))
    return total + rows, None

  zeros = jnp.zeros((size, size, x.shape[-1]), jnp.float32)
  return jax.lax.scan(of_image, zeros, (wide, gradient))[0]


def _sum_of_products(a, b):
  """Sum over H and W of a * b, both [H, W, C]; small images unrolled.

  XLA fuses the additions into the product. A reduction is delegated to a
  library call, which first stores the product in memory (2026-11).
  """
  height, width, _ = a.shape
  if max(height, width) > 32:
    return jnp.sum(a * b, (0, 1))
  row = sum(a[i] * b[i] for i in range(height))
  return sum(row[i] for i in range(width))


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def grouped(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
  """Cross-correlation within groups of consecutive channels.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, C / groups, D], k odd.
    groups: C and D are divisible by it.

  Returns:
    [B, H, W, D], with zero padding.
  """
  chex.assert_rank([x, kernel], 4)
  chex.assert_equal(x.shape[-1], kernel.shape[2] * groups)
  chex.assert_is_divisible(kernel.shape[3], groups)
  padding = kernel.shape[0] // 2

  def one_by_one(x, kernel):
    pairs = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1))
    return jnp.concatenate([conv(a, b, padding=padding) for a, b in pairs], -1)

  def at_once(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel.astype(x.dtype),
      (1, 1),
      ((padding, padding), (padding, padding)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  return jax.lax.platform_dependent(x, kernel, cpu=one_by_one, default=at_once)
