"""The frozen networks with random weights: the trained ones are the user's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.models import features


def random_params(module, shape=(64, 64, 3)):
  """Parameters of a module, scaled to keep activations alive."""
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, *shape))
  )['params']
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ('scale', 'var'):
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
    return np.float32(scale * rng.standard_normal(leaf.shape))

  return jax.tree.map_with_path(draw, shapes)


def convolve(x, kernel, bias):
  """A 3x3 convolution with zero padding of `[H, W, C]`, float64."""
  padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
  views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
  return np.tensordot(views, kernel, ([3, 4, 2], [0, 1, 2])) + bias


# torchvision's `vgg19().features` up to the last tap.
VGG19 = (
  'conv relu conv relu pool conv relu conv relu pool '
  'conv relu conv relu conv relu conv relu pool '
  'conv relu conv relu conv relu conv relu pool conv relu'
).split()


def test_vgg19_equals_its_description():
  module = features.VGG19()
  params = random_params(module)
  x = np.random.default_rng(1).standard_normal((2, 32, 48, 3))
  got = jax.jit(module.apply)({'params': params}, np.float32(x))
  for sample in range(2):
    y = x[sample]
    expected = []
    for done, layer in enumerate(VGG19):
      if layer == 'conv':
        weights = params[f'features_{done}']
        y = convolve(y, np.float64(weights['kernel']), weights['bias'])
      elif layer == 'relu':
        y = np.maximum(y, 0)
      else:
        height, width, channels = y.shape
        y = y.reshape(height // 2, 2, width // 2, 2, channels).max((1, 3))
      if done + 1 in (2, 7, 12, 21, 30):
        expected.append(y)
    assert len(got) == len(expected) == 5
    for tap, reference in zip(got, expected):
      assert tap.shape[1:] == reference.shape
      largest = np.abs(reference).max()
      assert largest > 0.1
      np.testing.assert_allclose(tap[sample], reference, atol=2e-5 * largest)


@pytest.mark.parametrize(
  ('module', 'count', 'shapes'),
  [
    # torchvision counts 20,024,384 for all of VGG19's convolutions; the three
    # after the last tap have 3 * (9 * 512 * 512 + 512).
    (
      features.VGG19(),
      20_024_384 - 3 * (9 * 512 * 512 + 512),
      [(64, 64, 64), (32, 32, 128), (16, 16, 256), (8, 8, 512), (4, 4, 512)],
    ),
    (
      features.AlexNet(),
      2_469_696,
      [(15, 15, 64), (7, 7, 192), (3, 3, 384), (3, 3, 256), (3, 3, 256)],
    ),
  ],
)
def test_sizes(module, count, shapes):
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), images)
  assert sum(x.size for x in jax.tree.leaves(variables)) == count
  taps = jax.eval_shape(module.apply, variables, images)
  assert [x.shape for x in taps] == [(2, *shape) for shape in shapes]


def test_alexnet_moves_with_the_image():
  """Shifting the image by all strides (16 pixels) shifts the features by one.

  Borders aside, which see the padding.
  """
  module = features.AlexNet()
  params = random_params(module)
  image = np.random.default_rng(2).standard_normal((1, 240, 256, 3))
  image = np.float32(image)
  apply = jax.jit(module.apply)
  first = apply({'params': params}, image[:, :, :-16])
  second = apply({'params': params}, image[:, :, 16:])
  for tap, shift in enumerate((4, 2, 1, 1, 1)):
    a, b = np.asarray(first[tap]), np.asarray(second[tap])
    border = (1, 3, 3, 4, 5)[tap]
    inner = slice(border, -border)
    moved = a[:, inner, border + shift : -border]
    np.testing.assert_allclose(
      moved, b[:, inner, border : -border - shift], atol=1e-5 * a.max()
    )
    assert a.max() > 0.1


def test_normalisation():
  mean, std = features.IMAGENET_MEAN, features.IMAGENET_STD
  pixels = np.array([mean, np.add(mean, std)], np.float32)
  np.testing.assert_allclose(
    features.imagenet_normalise(pixels), [[0] * 3, [1] * 3], atol=1e-6
  )
  # LPIPS's constants are about the same for [-1, 1].
  rng = np.random.default_rng(0)
  images = rng.random((2, 4, 5, 3), np.float32)
  shift = np.array(features.LPIPS_SHIFT)
  expected = (2 * images - 1 - shift) / features.LPIPS_SCALE
  np.testing.assert_allclose(
    features.lpips_normalise(images), expected, atol=1e-6
  )
  np.testing.assert_allclose(
    features.lpips_normalise(images),
    features.imagenet_normalise(images),
    atol=0.01,
  )


def test_unit_normalise():
  x = np.random.default_rng(0).standard_normal((2, 3, 4, 8)).astype(np.float32)
  unit = features.unit_normalise(x)
  np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, rtol=1e-6)
  np.testing.assert_array_equal(features.unit_normalise(np.zeros((1, 4))), 0)


def same(x, kernel, stride, fill):
  """TensorFlow's 'SAME' windows of [T, H, W, C]: [T', H', W', C, k, k, k]."""
  pads = []
  for n, k, s in zip(x.shape, kernel, stride):
    missing = max((-(-n // s) - 1) * s + k - n, 0)
    pads.append((missing // 2, missing - missing // 2))
  x = np.pad(x, [*pads, (0, 0)], constant_values=fill)
  views = np.lib.stride_tricks.sliding_window_view(x, kernel, (0, 1, 2))
  return views[:: stride[0], :: stride[1], :: stride[2]]


def pool(x, kernel, stride):
  return same(x, kernel, stride, -np.inf).max((4, 5, 6))


def unit(params, x, stride=1):
  """Convolution, batch normalisation as it is defined, ReLU."""
  kernel = np.float64(params['kernel'])
  views = same(x, kernel.shape[:3], (stride,) * 3, 0)
  x = np.tensordot(views, kernel, ([4, 5, 6, 3], [0, 1, 2, 3]))
  x = (x - params['mean']) / np.sqrt(np.float64(params['var']) + 1e-3)
  return np.maximum(params['scale'] * x + params['bias'], 0)


def test_i3d_equals_its_description():
  """Odd lengths and sizes, where 'SAME' is not the same on both sides."""
  module = features.I3D()
  params = random_params(module, (9, 32, 32, 3))
  x = np.random.default_rng(1).uniform(-1, 1, (17, 33, 36, 3))
  got = jax.jit(module.apply)({'params': params}, np.float32(x)[None])
  y = unit(params['Conv3d_1a_7x7'], x, 2)
  y = pool(y, (1, 3, 3), (1, 2, 2))
  y = unit(params['Conv3d_2b_1x1'], y)
  y = unit(params['Conv3d_2c_3x3'], y)
  y = pool(y, (1, 3, 3), (1, 2, 2))
  for name in '3b 3c 4b 4c 4d 4e 4f 5b 5c'.split():
    if name == '4b':
      y = pool(y, (3, 3, 3), (2, 2, 2))
    if name == '5b':
      y = pool(y, (2, 2, 2), (2, 2, 2))
    mixed = params[f'Mixed_{name}']
    y = np.concatenate(
      [
        unit(mixed['b0'], y),
        unit(mixed['b1b'], unit(mixed['b1a'], y)),
        unit(mixed['b2b'], unit(mixed['b2a'], y)),
        unit(mixed['b3b'], pool(y, (3, 3, 3), (1, 1, 1))),
      ],
      axis=-1,
    )
  assert y.shape == (3, 2, 2, 1024)
  first, second, third = y.mean((1, 2))
  expected = (
    (first + 2 * second + third) / 4 @ np.float64(params['logits']['kernel'])
  )
  expected = expected + params['logits']['bias']
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(
    got[0], expected, atol=2e-5 * np.abs(expected).max()
  )


def test_i3d_takes_nine_frames():
  clip = jax.ShapeDtypeStruct((2, 8, 32, 32, 3), jnp.float32)
  with pytest.raises(ValueError, match='9 frames or more, got 8'):
    jax.eval_shape(features.I3D().init, jax.random.key(0), clip)
