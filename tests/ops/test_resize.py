import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vidpred_jax.ops import resize


@pytest.fixture
def image():
  return jax.random.uniform(jax.random.key(0), (2, 12, 18, 3))


def test_same_size_is_the_image(image):
  for align in (False, True):
    np.testing.assert_array_equal(
      resize.bilinear(image, size=(12, 18), align_corners=align), image
    )


@pytest.mark.parametrize('scale', [2, 3, 4, 8, 1 / 2, 1 / 3, 1 / 6])
def test_agrees_with_jax_where_that_is_defined_alike(image, scale):
  size = (round(12 * scale), round(18 * scale))
  expected = jax.image.resize(image, (2, *size, 3), 'bilinear', antialias=False)
  np.testing.assert_allclose(
    resize.bilinear(image, scale=scale), expected, atol=2e-6
  )
  np.testing.assert_allclose(
    resize.bilinear(image, size=size), expected, atol=2e-6
  )


@pytest.mark.parametrize('size', [(5, 7), (23, 31), (12, 1)])
def test_aligned_corners_agree_with_scipy(image, size):
  at = np.meshgrid(
    *[np.linspace(0, a - 1, b) for a, b in zip((12, 18), size)], indexing='ij'
  )
  out = resize.bilinear(image, size=size, align_corners=True)
  expected = ndimage.map_coordinates(np.asarray(image[0, ..., 1]), at, order=1)
  np.testing.assert_allclose(out[0, ..., 1], expected, atol=1e-6)


def test_shrinking_looks_at_the_middle_only(image):
  pixels = np.asarray(image)[:, :, :16]
  middle = [pixels[:, i::4, j::4] for i in (1, 2) for j in (1, 2)]
  np.testing.assert_allclose(
    resize.bilinear(image[:, :, :16], scale=0.25),
    np.mean(middle, 0),
    rtol=1e-6,
  )


@pytest.mark.parametrize('scale', [2, 1 / 2, 1 / 3])
def test_gradient_is_the_transpose(image, scale):
  shrink = lambda x: resize.bilinear(x, scale=scale)  # noqa: E731
  out, pull = jax.vjp(shrink, image)
  other = jax.random.normal(jax.random.key(1), out.shape)
  np.testing.assert_allclose(
    jnp.vdot(out, other), jnp.vdot(image, pull(other)[0]), rtol=1e-5
  )


@pytest.mark.parametrize(
  'arguments', [{}, {'size': (3, 3), 'scale': 2}, {'size': (0, 3)}]
)
def test_refuses(image, arguments):
  with pytest.raises(ValueError, match='expected'):
    resize.bilinear(image, **arguments)


@pytest.mark.parametrize('size', [(5, 7), (23, 31), (12, 1), (6, 27)])
def test_half_pixel_centres_agree_with_scipy(image, size):
  at = np.meshgrid(
    *[(np.arange(b) + 0.5) * a / b - 0.5 for a, b in zip((12, 18), size)],
    indexing='ij',
  )
  out = resize.bilinear(image, size=size)
  expected = ndimage.map_coordinates(
    np.asarray(image[0, ..., 1]), at, order=1, mode='nearest'
  )
  np.testing.assert_allclose(out[0, ..., 1], expected, atol=2e-6)
