import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.arrays import flow_of
from vidpred_jax.ops import warp


@pytest.fixture
def image():
  return jax.random.uniform(jax.random.key(0), (2, 12, 17, 3))


@pytest.mark.parametrize(
  'dx, dy', [(0, 0), (3, 0), (0, 2), (-4, 5), (100, -100)]
)
def test_whole_flow_is_a_shift_that_repeats_the_border(image, dx, dy):
  rows = np.clip(np.arange(12) + dy, 0, 11)
  columns = np.clip(np.arange(17) + dx, 0, 16)
  np.testing.assert_array_equal(
    warp.backward(image, flow_of(dx, dy, image)),
    np.asarray(image)[:, rows][:, :, columns],
  )


def test_agrees_with_scipy(image):
  flow = 5 * jax.random.normal(jax.random.key(1), (*image.shape[:3], 2))
  rows, columns = np.mgrid[:12, :17]
  for i in range(2):
    at = [rows + flow[i, ..., 1], columns + flow[i, ..., 0]]
    for c in range(3):
      expected = ndimage.map_coordinates(
        np.asarray(image[i, ..., c]), at, order=1, mode='nearest'
      )
      np.testing.assert_allclose(
        warp.backward(image, flow)[i, ..., c], expected, atol=1e-5
      )


def test_points_may_have_any_shape(image):
  x = jnp.asarray([[1.5, 2.0], [0.0, 16.0]])
  points = warp.sample(image, x, jnp.zeros_like(x))
  assert points.shape == (2, 2, 3)
  np.testing.assert_allclose(
    points[0, 0], (image[0, 0, 1] + image[0, 0, 2]) / 2, rtol=1e-6
  )
  np.testing.assert_array_equal(points[1, 1], image[1, 0, 16])


def test_gradient_is_that_of_the_definition(image):
  """Against autodiff through a product with the matrix of weights."""
  flow = 3 * jax.random.normal(jax.random.key(2), (*image.shape[:3], 2))
  weights = jax.random.normal(jax.random.key(3), image.shape)

  def by_hats(image, flow):
    height, width = image.shape[1:3]
    rows, columns = jnp.mgrid[:height, :width]
    x = jnp.clip(columns[None] + flow[..., 0], 0, width - 1)
    y = jnp.clip(rows[None] + flow[..., 1], 0, height - 1)
    hat = lambda at, n: jnp.maximum(  # noqa: E731
      1 - jnp.abs(at[..., None] - jnp.arange(n)[None, None, None, :]), 0
    )
    return jnp.einsum(
      'bhwy,bhwx,byxc->bhwc', hat(y, height), hat(x, width), image
    )

  def gradients(f):
    loss = lambda i, v: jnp.sum(weights * f(i, v))  # noqa: E731
    return jax.jit(jax.grad(loss, (0, 1)))(image, flow)

  for ours, theirs in zip(gradients(warp.backward), gradients(by_hats)):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_no_gradient_to_the_flow_where_it_points_outside(image):
  gradient = jax.grad(lambda v: jnp.sum(warp.backward(image, v)))(
    flow_of(100, 0.5, image)
  )
  assert np.all(gradient[..., 0] == 0)
  assert np.any(gradient[..., 1] != 0)


def test_keeps_half_precision(image):
  half = image.astype(jnp.bfloat16)
  assert warp.backward(half, flow_of(0.5, 0, image)).dtype == jnp.bfloat16


def keys(d):
  """The kernel of cubic convolution with a = -0.75."""
  d, a = abs(d), -0.75
  near = (a + 2) * d**3 - (a + 3) * d**2 + 1
  far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
  return np.where(d <= 1, near, np.where(d < 2, far, 0))


def test_cubic_is_the_sum_of_its_kernel(image):
  flow = 5 * jax.random.normal(jax.random.key(1), (*image.shape[:3], 2))
  made = warp.backward_cubic(image, flow)
  flow, image = np.asarray(flow), np.asarray(image)
  for i, row, column in [(0, 0, 0), (0, 5, 9), (1, 11, 16), (1, 7, 3)]:
    dx, dy = flow[i, row, column]
    x, y = np.clip(column + dx, 0, 16), np.clip(row + dy, 0, 11)
    down = np.arange(np.floor(y) - 1, np.floor(y) + 3)
    right = np.arange(np.floor(x) - 1, np.floor(x) + 3)
    weight = np.outer(keys(down - y), keys(right - x))
    near = image[i][
      np.ix_(down.clip(0, 11).astype(int), right.clip(0, 16).astype(int))
    ]
    expected = np.tensordot(weight, near, 2)
    np.testing.assert_allclose(made[i, row, column], expected, atol=1e-5)


def test_cubic_keeps_what_is_read_at_pixels(image):
  for dx, dy in ((0, 0), (-4, 5)):
    flow = flow_of(dx, dy, image)
    np.testing.assert_allclose(
      warp.backward_cubic(image, flow), warp.backward(image, flow), atol=1e-6
    )


def test_inside_is_where_no_coordinate_is_clamped(image):
  flow = flow_of(-1, 2, image)
  expected = np.zeros((2, 12, 17, 1), bool)
  expected[:, :10, 1:] = True
  np.testing.assert_array_equal(warp.inside(flow), expected)
