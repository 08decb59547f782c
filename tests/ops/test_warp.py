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


def test_no_flow_is_the_image(image):
  np.testing.assert_array_equal(
    warp.backward(image, flow_of(0, 0, image)), image
  )


@pytest.mark.parametrize('dx, dy', [(3, 0), (0, 2), (-4, 5), (100, -100)])
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
