import numpy as np
import pytest
from scipy import ndimage

from vidpred_jax.data.published import resize

SIZES = [
  ((37, 124), (25, 83)),
  ((64, 128), (32, 64)),
  ((48, 85), (48, 86)),
  ((24, 32), (51, 51)),
  ((7, 5), (3, 11)),
  ((1, 4), (3, 4)),
]


@pytest.fixture(params=['ours', 'installed'], autouse=True)
def opencv(request, monkeypatch):
  """Without OpenCV, and with it where it is installed."""
  if request.param == 'ours':
    monkeypatch.setattr(resize, '_opencv', lambda: None)
  elif resize._opencv() is None:
    pytest.skip('there is no OpenCV for this machine')


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


def sizes(rng):
  """Old and new sizes that enlarge, shrink, or do one of them per side."""
  for _ in range(60):
    yield tuple(rng.integers(1, 90, 2)), tuple(rng.integers(1, 120, 2).tolist())
  yield (375, 1242), (256, 832)  # KITTI
  yield (240, 320), (256, 256)


@pytest.mark.parametrize('channels', [1, 3])
def test_linear_is_opencv_to_the_last_bit(channels):
  cv2 = pytest.importorskip('cv2')
  rng = np.random.default_rng(0)
  for old, new in sizes(rng):
    image = rng.integers(0, 256, (*old, channels), np.uint8)
    expected = cv2.resize(image, new[::-1]).reshape(*new, channels)
    np.testing.assert_array_equal(resize.linear(image, new), expected)


@pytest.mark.parametrize('factor', [2, 3, 4, 5, 8])
def test_area_is_opencv_to_the_last_bit(factor):
  cv2 = pytest.importorskip('cv2')
  rng = np.random.default_rng(0)
  for new in ((16, 24), (1, 7), (31, 5)):
    old = factor * new[0], factor * new[1]
    image = rng.integers(0, 256, (*old, 3), np.uint8)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resize.area(image, new), expected)


def test_a_part_of_an_image_is_resized_alone():
  image = np.random.default_rng(0).integers(0, 256, (9, 20, 3), np.uint8)
  part = image[::-1, 4:11]
  np.testing.assert_array_equal(
    resize.linear(part, (5, 6)), resize.linear(part.copy(), (5, 6))
  )


def keys(x, a=-0.75):
  """The kernel as Keys (1981) writes it, for one distance."""
  x = abs(x)
  if x <= 1:
    return (a + 2) * x**3 - (a + 3) * x**2 + 1
  return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def test_cubic_is_a_sum_over_all_pixels():
  image = np.random.default_rng(0).integers(0, 256, (7, 9, 2), np.uint8)
  for new in ((13, 5), (4, 20)):
    matrices = []
    for old, size in zip(image.shape, new):
      matrix = np.zeros((size, old))
      for i in range(size):
        place = (i + 0.5) * old / size - 0.5
        for j in range(-3, old + 3):
          matrix[i, min(max(j, 0), old - 1)] += keys(place - j)
      matrices.append(matrix)
    exact = np.einsum('ih,jw,hwc->ijc', *matrices, image)
    got = resize.cubic(image, new)
    assert got.shape == (*new, 2) and got.dtype == np.uint8
    assert np.abs(got - exact.clip(0, 255)).max() < 0.51


@pytest.mark.parametrize('function', [resize.cubic, resize.centre])
def test_the_others_keep_what_need_not_change(function):
  image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
  np.testing.assert_array_equal(function(image, (8, 6)), image)
  flat = np.full((12, 20, 3), 77, np.uint8)
  np.testing.assert_array_equal(function(flat, (6, 9)), np.full((6, 9, 3), 77))


def test_the_centre_of_the_width():
  image = np.broadcast_to(
    np.arange(0, 200, 10, dtype=np.uint8)[None, :, None], (8, 20, 3)
  )
  got = resize.centre(np.ascontiguousarray(image), (8, 11))
  np.testing.assert_array_equal(got[3, :, 0], np.arange(40, 150, 10))
  half = resize.centre(np.ascontiguousarray(image), (4, 6))
  # Antialiased: a pixel is the weighted mean of four, symmetric on a ramp.
  np.testing.assert_allclose(half[2, :, 1], np.arange(45, 160, 20), atol=1)
  with pytest.raises(ValueError, match='8x20 at the height 4 is 10 wide; 11'):
    resize.centre(np.ascontiguousarray(image), (4, 11))


def test_cubic_agrees_with_opencv():
  cv2 = pytest.importorskip('cv2')
  for old, new in SIZES:
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_CUBIC)
    assert np.abs(resize.cubic(image, new) - expected.astype(int)).max() <= 1
