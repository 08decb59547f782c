import numpy as np
import pytest
from scipy import ndimage

from vidpred_jax.data import resize

SIZES = [
  ((37, 124), (25, 83)),
  ((64, 128), (32, 64)),
  ((48, 85), (48, 86)),
  ((24, 32), (51, 51)),
  ((7, 5), (3, 11)),
  ((1, 4), (3, 4)),
]


@pytest.mark.parametrize('old, new', SIZES)
def test_is_bilinear_sampling_at_half_pixel_centres(old, new):
  image = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
  y, x = ((np.arange(n) + 0.5) * o / n - 0.5 for o, n in zip(old, new))
  y, x = np.meshgrid(y, x, indexing='ij')
  exact = np.stack(
    [
      ndimage.map_coordinates(
        image[..., c].astype(float), [y, x], order=1, mode='nearest'
      )
      for c in range(3)
    ],
    axis=-1,
  )
  got = resize.linear(image, new)
  assert got.shape == (*new, 3) and got.dtype == np.uint8
  assert np.abs(got - exact).max() < 1


def test_same_size_is_the_same_image():
  image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
  np.testing.assert_array_equal(resize.linear(image, (9, 7)), image)


def test_constant_stays_constant():
  for level in (0, 1, 128, 254, 255):
    image = np.full((11, 13, 3), level, np.uint8)
    np.testing.assert_array_equal(
      resize.linear(image, (17, 6)), np.full((17, 6, 3), level)
    )


def test_halving_is_the_mean_of_four():
  image = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
  means = image.reshape(8, 2, 6, 2, 3).astype(int).sum((1, 3))
  np.testing.assert_array_equal(resize.linear(image, (8, 6)), (means + 2) // 4)


def test_agrees_with_opencv():
  cv2 = pytest.importorskip('cv2')
  for old, new in SIZES:
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
    expected = cv2.resize(image, new[::-1]).astype(int)
    assert np.abs(resize.linear(image, new) - expected).max() <= 1
