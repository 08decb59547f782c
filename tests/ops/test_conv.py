import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from tests.arrays import gradients, normal
from vidpred_jax.ops import conv, layout, resize


def test_agrees_with_scipy():
  x, kernel = normal(0, 1, 7, 9, 2), normal(1, 3, 3, 2, 4)
  out = conv.conv(x, kernel, padding=1)
  for d in range(4):
    expected = sum(
      signal.correlate2d(x[0, ..., c], kernel[..., c, d], mode='same')
      for c in range(2)
    )
    np.testing.assert_allclose(out[0, ..., d], expected, atol=1e-5)


def test_stride_takes_every_second_pixel():
  x, kernel = normal(0, 2, 8, 10, 3), normal(1, 3, 3, 3, 4)
  np.testing.assert_allclose(
    conv.conv(x, kernel, stride=2, padding=1),
    conv.conv(x, kernel, padding=1)[:, ::2, ::2],
    atol=1e-5,
  )


def test_folded_transposed_conv():
  x, kernel = normal(0, 2, 5, 6, 3), normal(1, 4, 4, 3, 2)

  def folded(x, kernel):
    return layout.depth_to_space(conv.folded_transposed_conv(x, kernel))

  ours = gradients(folded, x, kernel)
  theirs = gradients(conv.transposed_conv, x, kernel)
  for a, b in zip(ours, theirs):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('factor', [2, 3, 4, 8])
@pytest.mark.parametrize('size', [(1, 1), (2, 3)])
def test_enlarged_transposed_conv(factor, size):
  x, kernel = normal(0, 2, *size, 3), normal(1, 4, 4, 3, 2)

  def ours(x, kernel):
    return layout.depth_to_space(
      conv.enlarged_transposed_conv(x, kernel, factor)
    )

  def theirs(x, kernel):
    return conv.transposed_conv(resize.bilinear(x, scale=factor), kernel)

  for a, b in zip(gradients(ours, x, kernel), gradients(theirs, x, kernel)):
    np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize('size', [(2, 2), (5, 7)])
def test_mean_of_convs(size):
  args = (
    normal(0, 2, *size, 3),
    normal(1, 3, 3, 3, 4),
    normal(2, 4),
    normal(3, 3, 3, 4, 5),
  )

  def plain(x, first, bias, second):
    x = jax.nn.relu(conv.bias_add(conv.conv(x, first, padding=1), bias))
    return jnp.mean(conv.conv(x, second, padding=1), (1, 2))

  for a, b in zip(
    gradients(conv.mean_of_convs, *args), gradients(plain, *args)
  ):
    np.testing.assert_allclose(a, b, atol=2e-5)


def test_prelu_has_a_slope_per_channel():
  x = jnp.asarray([-2.0, -2.0, 0.0, 3.0]).reshape(1, 1, 2, 2)
  out = conv.prelu(x, jnp.asarray([0.25, 0.5]))
  np.testing.assert_array_equal(out.ravel(), [-0.5, -1, 0, 3])


def by_zeros_between(x, kernel):
  """The transposed convolution as one of an image with zeros inserted."""
  return jax.lax.conv_general_dilated(
    x,
    kernel[::-1, ::-1],
    (1, 1),
    ((2, 2), (2, 2)),
    lhs_dilation=(2, 2),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@pytest.mark.parametrize('size', [(1, 1), (3, 5)])
def test_transposed_conv_inserts_zeros(size):
  args = normal(0, 2, *size, 3), normal(1, 4, 4, 3, 2)
  ours = gradients(conv.transposed_conv, *args)
  for a, b in zip(ours, gradients(by_zeros_between, *args)):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize(
  'function, shape',
  [
    (lambda x, k: conv.conv(x, k, padding=1), (3, 3, 3, 4)),
    (lambda x, k: conv.conv(x, k, stride=2, padding=1), (3, 3, 3, 4)),
    (conv.transposed_conv, (4, 4, 3, 4)),
    (conv.folded_transposed_conv, (4, 4, 3, 4)),
    (lambda x, k: conv.enlarged_transposed_conv(x, k, 2), (4, 4, 3, 4)),
  ],
)
def test_half_precision_is_close(function, shape):
  x, kernel = normal(0, 1, 6, 8, 3), normal(1, *shape)
  full = gradients(function, x, kernel)
  half = gradients(function, x.astype(jnp.bfloat16), kernel)
  assert half[0].dtype == half[1].dtype == jnp.bfloat16
  assert half[2].dtype == jnp.float32
  for a, b in zip(half, full):
    a = np.asarray(a, np.float32)
    assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)


@pytest.mark.parametrize(
  'size, dilation, dtype',
  [(3, 1, 'float32'), (7, 3, 'float32'), (5, 1, 'bfloat16')],
)
def test_depthwise_is_a_grouped_convolution(size, dilation, dtype):
  x, kernel = normal(0, 2, 9, 10, 4).astype(dtype), normal(1, size, size, 4)

  def formulation(x, kernel):
    return conv.depthwise(x, kernel, dilation=dilation)

  def reference(x, kernel):
    margin = dilation * (size // 2)
    return jax.lax.conv_general_dilated(
      x.astype(jnp.float32),
      kernel[:, :, None],
      (1, 1),
      ((margin, margin), (margin, margin)),
      rhs_dilation=(dilation, dilation),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=4,
    )

  # What other platforms run must be the same function; here on this one.
  other = functools.partial(conv._grouped_by_channel, dilation)
  expected = gradients(reference, x, kernel)
  tolerance = {'float32': 2e-5, 'bfloat16': 0.1}[dtype]
  for function in (formulation, other):
    for got, want in zip(gradients(function, x, kernel), expected):
      assert np.abs(got - want).max() < tolerance * np.abs(want).max()
  assert formulation(x, kernel).dtype == dtype


def test_grouped_is_a_convolution_of_each_group(platform):
  x, kernel = normal(0, 2, 6, 7, 6), normal(1, 3, 3, 2, 9)
  parts = [
    conv.conv(
      x[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3], padding=1
    )
    for g in range(3)
  ]
  np.testing.assert_allclose(
    conv.grouped(x, kernel, 3), np.concatenate(parts, -1), atol=1e-5
  )
