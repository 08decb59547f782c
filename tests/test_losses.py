import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special, stats

from vidpred_jax import losses


def by_scipy(image, levels):
  """The pyramid of one channel [H, W]; SciPy's 'mirror' is our reflection."""
  blur = np.array([1, 4, 6, 4, 1]) / 16

  def both(x, weights):
    for axis in [a for a in (0, 1) if x.shape[a] > 1]:
      x = ndimage.correlate1d(x, weights, axis=axis, mode='mirror')
    return x

  pyramid = []
  for _ in range(levels):
    smaller = both(image, blur)[::2, ::2]
    zeros = np.zeros_like(image)
    zeros[::2, ::2] = smaller
    pyramid.append(image - both(zeros, 2 * blur))
    image = smaller
  return pyramid


@pytest.mark.parametrize('size', [(64, 96), (45, 37), (9, 70), (3, 3), (2, 5)])
def test_pyramid_agrees_with_scipy_at_any_size(size):
  image = jax.random.uniform(jax.random.key(0), (2, *size, 3))
  levels = jax.jit(losses.laplacian_pyramid)(image)
  expected = by_scipy(np.asarray(image[1, ..., 2], np.float64), 5)
  for ours, theirs in zip(levels, expected):
    np.testing.assert_allclose(ours[1, ..., 2], theirs, atol=1e-6)


def test_a_flat_image_has_no_details():
  for size in ((16, 16), (7, 11), (1, 1)):
    for level in losses.laplacian_pyramid(jnp.full((1, *size, 3), 0.7)):
      np.testing.assert_allclose(level, 0, atol=1e-6)


def test_laplacian_is_a_distance_per_image():
  a, b = jax.random.uniform(jax.random.key(0), (2, 3, 33, 40, 3))
  distance = losses.laplacian(a, b)
  assert distance.shape == (3,)
  pyramids = losses.laplacian_pyramid(a), losses.laplacian_pyramid(b)
  expected = sum(jnp.mean(jnp.abs(x - y), (1, 2, 3)) for x, y in zip(*pyramids))
  np.testing.assert_allclose(distance, expected, rtol=1e-5)
  np.testing.assert_array_equal(losses.laplacian(a, a), 0)


def test_feature_distance():
  ones = [jnp.ones((1, 2, 2, c)) for c in (1, 2, 3, 4, 5)]
  zeros = [jnp.zeros_like(x) for x in ones]
  np.testing.assert_allclose(
    losses.feature_distance(ones, zeros),
    0.1 * (1 / 2.6 + 1 / 4.8 + 1 / 3.7 + 1 / 5.6 + 10 / 1.5),
    rtol=1e-6,
  )
  with pytest.raises(ValueError, match='expected 5 of each'):
    losses.feature_distance(ones[:3], zeros[:3])


@pytest.mark.parametrize('size', [(35, 50), (17, 90)])
def test_laplacian_has_a_finite_gradient_at_any_size(size):
  a, b = jax.random.uniform(jax.random.key(1), (2, 1, *size, 3))
  step = jax.jit(jax.value_and_grad(lambda x, y: losses.laplacian(x, y).mean()))
  value, gradient = step(a, b)
  assert value > 0
  assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
  value, gradient = step(a, a)
  assert value == 0
  assert np.all(np.isfinite(gradient))


def test_others_agree_with_numpy():
  a, b = np.random.default_rng(0).uniform(size=(2, 5, 4, 6, 3))
  np.testing.assert_allclose(
    losses.charbonnier(jnp.float32(a), jnp.float32(b), epsilon=0.1),
    np.mean(np.sqrt((a - b) ** 2 + 0.01)),
    rtol=1e-5,
  )
  np.testing.assert_allclose(losses.charbonnier(a, a + 1), 1, atol=1e-6)
  weights = (0.5, 2.0, 1.0, 3.0, 0.25)
  np.testing.assert_allclose(
    losses.feature_distance(
      list(jnp.float32(a)), list(jnp.float32(b)), weights=weights
    ),
    np.dot(weights, np.abs(a - b).mean((1, 2, 3))),
    rtol=1e-5,
  )
  each = np.float32(a[:, 0, 0, 0])
  np.testing.assert_allclose(
    losses.deep_supervision(each, 0.8),
    sum(0.8 ** (5 - i) * x for i, x in enumerate(each, 1)),
    rtol=1e-5,
  )
  np.testing.assert_allclose(losses.deep_supervision(each, 0.0), each[-1])


def test_differential_divergence_is_that_of_the_changes():
  rng = np.random.default_rng(0)
  pred, target = rng.random((2, 2, 4, 3, 5, 1))
  expected = []
  for a, b in zip(pred, target):
    for t in range(3):
      p, q = (special.softmax((x[t + 1] - x[t]).ravel() / 0.1) for x in (a, b))
      expected.append(stats.entropy(p, q) / p.size)
  got = losses.differential_divergence(jnp.array(pred), jnp.array(target))
  np.testing.assert_allclose(got, np.mean(expected), rtol=1e-4)
  same = losses.differential_divergence(jnp.array(pred), jnp.array(pred))
  np.testing.assert_allclose(same, 0, atol=1e-7)
  short = losses.differential_divergence(
    jnp.array(pred[:, :2]), jnp.array(target[:, :2])
  )
  assert short == 0


def census_by_definition(a, b, size=7):
  """Pixel by pixel, float64."""
  grey = [
    255 * np.asarray(x, np.float64) @ np.array([0.299, 0.587, 0.114])
    for x in (a, b)
  ]
  reach, total, count = size // 2, 0.0, 0
  batch, height, width = grey[0].shape
  for i in range(batch):
    for y in range(reach, height - reach):
      for x in range(reach, width - reach):
        signs = []
        for image in grey:
          window = image[
            i, y - reach : y + reach + 1, x - reach : x + reach + 1
          ]
          change = window - image[i, y, x]
          signs.append(change / np.sqrt(0.81 + change**2))
        distance = (signs[0] - signs[1]) ** 2
        total += np.sum(distance / (0.1 + distance))
        count += size**2
  return total / count


def test_census_agrees_with_its_definition():
  a, b = jax.random.uniform(jax.random.key(0), (2, 2, 9, 12, 3))
  np.testing.assert_allclose(
    jax.jit(losses.census)(a, b), census_by_definition(a, b), rtol=1e-4
  )
  np.testing.assert_allclose(
    losses.census(a, b, size=3), census_by_definition(a, b, 3), rtol=1e-4
  )
  with pytest.raises(ValueError, match='6x12.*7 pixels'):
    losses.census(a[:, :6], b[:, :6])


def test_census_does_not_see_brightness_but_structure():
  a = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3), maxval=0.5)
  loss = jax.jit(jax.value_and_grad(losses.census))
  brighter, _ = loss(a + 0.3, a)
  np.testing.assert_allclose(brighter, 0, atol=1e-5)
  mirrored, gradient = loss(a, a[:, :, ::-1])
  assert 0.2 < mirrored < 1
  assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


def test_route_distance_teaches_the_routes_only():
  routes = jnp.asarray([1.0, 0.0, 1.0, 0.0])
  reference = jnp.asarray([1.0, 1.0, 0.0, 0.0])
  value, (of_routes, of_reference) = jax.value_and_grad(
    losses.route_distance, argnums=(0, 1)
  )(routes, reference)
  np.testing.assert_allclose(value, 0.5)
  np.testing.assert_allclose(of_routes[1:3], [-0.25, 0.25])
  np.testing.assert_array_equal(of_reference, 0)


def test_end_point_error_is_the_mean_distance_of_what_is_known():
  truth = np.zeros((2, 4, 5, 2), np.float32)
  flow = truth + np.float32([3, 4])
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
  close(losses.end_point_error(flow, truth), 5)
  truth[0] = np.nan
  flow[1] *= 2
  close(losses.end_point_error(flow, truth), 10)
  gradient = jax.grad(losses.end_point_error)(jnp.asarray(flow), truth)
  assert np.isfinite(gradient).all()
  assert not gradient[0].any() and gradient[1].all()
  # Where it is exact, and where nothing is known.
  exact = jax.grad(losses.end_point_error)(jnp.ones((3, 2)), jnp.ones((3, 2)))
  assert np.isfinite(exact).all()
  truth[:] = np.nan
  assert losses.end_point_error(flow, truth) == 0
