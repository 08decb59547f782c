"""Frozen feature networks for losses and metrics: VGG19, AlexNet and I3D.

The first two are the convolutional part of torchvision's networks, I3D is the
video network of the Frechet video distance. Their weights are never part of
this project: the user supplies the published files, and `convert.vgg19`,
`convert.alexnet` and `convert.i3d` turn them into the parameter trees of these
modules. Input is RGB, NHWC (I3D: NTHWC), float, already normalised as the
respective publication asks (`imagenet_normalise`, `lpips_normalise`; I3D takes
[-1, 1]).

Convolutions run in full float32 on every platform, so that a metric is the same
number everywhere.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.ops import conv

# Mean and standard deviation of ImageNet's RGB in [0, 1] (torchvision).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The same for RGB in [-1, 1], as LPIPS has it.
LPIPS_SHIFT = (-0.030, -0.088, -0.188)
LPIPS_SCALE = (0.458, 0.448, 0.450)

# index in torchvision's `vgg19().features` -> channels.
VGG19_CONVOLUTIONS = {
  0: 64,
  2: 64,
  5: 128,
  7: 128,
  10: 256,
  12: 256,
  14: 256,
  16: 256,
  19: 512,
  21: 512,
  23: 512,
  25: 512,
  28: 512,
}
_VGG19_POOLS = (4, 9, 18, 27)
_VGG19_TAPS = (1, 6, 11, 20, 29)

# index in torchvision's `alexnet().features` -> channels, kernel, stride, pad.
ALEXNET_CONVOLUTIONS = {
  0: (64, 11, 4, 2),
  3: (192, 5, 1, 2),
  6: (384, 3, 1, 1),
  8: (256, 3, 1, 1),
  10: (256, 3, 1, 1),
}
_ALEXNET_POOLS = (2, 5)

# Inception module of I3D -> channels of b0, b1a, b1b, b2a, b2b, b3b.
I3D_MIXED = {
  'Mixed_3b': (64, 96, 128, 16, 32, 32),
  'Mixed_3c': (128, 128, 192, 32, 96, 64),
  'Mixed_4b': (192, 96, 208, 16, 48, 64),
  'Mixed_4c': (160, 112, 224, 24, 64, 64),
  'Mixed_4d': (128, 128, 256, 24, 64, 64),
  'Mixed_4e': (112, 144, 288, 32, 64, 64),
  'Mixed_4f': (256, 160, 320, 32, 128, 128),
  'Mixed_5b': (256, 160, 320, 32, 128, 128),
  'Mixed_5c': (384, 192, 384, 48, 128, 128),
}
# Before which of them features are pooled: window and stride.
_I3D_POOLS = {
  'Mixed_3b': ((1, 3, 3), (1, 2, 2)),
  'Mixed_4b': ((3, 3, 3), (2, 2, 2)),
  'Mixed_5b': ((2, 2, 2), (2, 2, 2)),
}

# Fewer frames leave less than the two of I3D's last pooling.
I3D_MINIMUM_FRAMES = 9
I3D_SIZE = 224  # height and width it was trained at
I3D_CLASSES = 400  # of Kinetics-400, its logits


def imagenet_normalise(images) -> jax.Array:
  """RGB in [0, 1] -> zero mean, unit variance over ImageNet; `[..., 3]`."""
  mean = np.asarray(IMAGENET_MEAN, np.float32)
  std = np.asarray(IMAGENET_STD, np.float32)
  return _per_channel(images, 1 / std, -mean / std)


def lpips_normalise(images) -> jax.Array:
  """RGB in [0, 1] -> the input of LPIPS's networks (v0.1); `[..., 3]`."""
  shift = np.asarray(LPIPS_SHIFT, np.float32)
  scale = np.asarray(LPIPS_SCALE, np.float32)
  return _per_channel(images, 2 / scale, (-1 - shift) / scale)


def _per_channel(images, factor, offset):
  shape = (1,) * (images.ndim - 1) + (3,)
  return images * factor.reshape(shape) + offset.reshape(shape)


def _convolution(index: int, channels: int, kernel: int, stride: int, pad: int):
  return nn.Conv(
    channels,
    (kernel, kernel),
    strides=stride,
    padding=pad,
    precision='highest',
    name=f'features_{index}',
  )


class VGG19(nn.Module):
  """The five VGG19 layers of the perceptual loss of RIFE and DMVFN.

  The first ReLU of each of the five stages: relu1_1, relu2_1, relu3_1, relu4_1,
  relu5_1. That is what comes out after the first 2, 7, 12, 21 and 30 layers of
  torchvision's `vgg19().features`; what follows the last is left out.
  """

  @nn.compact
  def __call__(self, images) -> tuple[jax.Array, ...]:
    """Features of ImageNet-normalised RGB.

    Args:
      images: `[B, H, W, 3]`, sides of 16 and more.

    Returns:
      Five arrays with 64, 128, 256, 512, 512 channels, the k-th of size
      `[B, H // 2^k, W // 2^k, channels]`, k from 0.
    """
    x, taps = images, []
    for layer in range(_VGG19_TAPS[-1] + 1):
      if layer in VGG19_CONVOLUTIONS:
        x = _convolution(layer, VGG19_CONVOLUTIONS[layer], 3, 1, 1)(x)
      elif layer in _VGG19_POOLS:
        x = nn.max_pool(x, (2, 2), (2, 2))
      else:
        x = nn.relu(x)
      if layer in _VGG19_TAPS:
        taps.append(x)
    return tuple(taps)


class AlexNet(nn.Module):
  """The five ReLU outputs of AlexNet that LPIPS compares."""

  @nn.compact
  def __call__(self, images) -> tuple[jax.Array, ...]:
    """Features of normalised RGB.

    Args:
      images: `[B, H, W, 3]`, sides of 31 and more.

    Returns:
      Five arrays `[B, h, w, channels]` with 64, 192, 384, 256, 256 channels.
    """
    x, taps = images, []
    for layer in range(12):
      if layer in ALEXNET_CONVOLUTIONS:
        x = _convolution(layer, *ALEXNET_CONVOLUTIONS[layer])(x)
      elif layer in _ALEXNET_POOLS:
        x = nn.max_pool(x, (3, 3), (2, 2))
      else:
        x = nn.relu(x)
        taps.append(x)
    return tuple(taps)


def unit_normalise(features) -> jax.Array:
  """Divides each position's feature vector (last axis) by its length."""
  length = jnp.sqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True))
  return features / (length + 1e-10)


class _Unit3D(nn.Module):
  """Convolution, batch normalisation by stored statistics, ReLU.

  `'SAME'` padding is TensorFlow's: what is missing to a whole number of
  strides, the larger half of it at the end.
  """

  channels: int
  kernel: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x):
    shape = (self.kernel,) * 3 + (x.shape[-1], self.channels)
    kernel = self.param('kernel', nn.initializers.he_normal(), shape)
    if self.kernel == 1:
      with jax.default_matmul_precision('highest'):
        x = conv.pointwise(x, kernel[0, 0, 0])
    else:
      x = jax.lax.conv_general_dilated(
        x,
        kernel,
        (self.stride,) * 3,
        'SAME',
        dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
        precision='highest',
      )
    one, zero = nn.initializers.ones, nn.initializers.zeros
    scale = self.param('scale', one, (self.channels,))
    bias = self.param('bias', zero, (self.channels,))
    mean = self.param('mean', zero, (self.channels,))
    var = self.param('var', one, (self.channels,))
    scale = scale * jax.lax.rsqrt(var + 1e-3)
    x = x * scale.reshape(1, 1, 1, 1, -1)
    return nn.relu(conv.bias_add(x, bias - mean * scale))


class _Mixed(nn.Module):
  """An inception module: four branches side by side."""

  channels: tuple[int, ...]

  @nn.compact
  def __call__(self, x):
    c0, c1a, c1b, c2a, c2b, c3b = self.channels
    pooled = nn.max_pool(x, (3, 3, 3), (1, 1, 1), 'SAME')
    branches = [
      _Unit3D(c0, name='b0')(x),
      _Unit3D(c1b, 3, name='b1b')(_Unit3D(c1a, name='b1a')(x)),
      _Unit3D(c2b, 3, name='b2b')(_Unit3D(c2a, name='b2a')(x)),
      _Unit3D(c3b, name='b3b')(pooled),
    ]
    return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
  """The logits of the inflated Inception-v1 for RGB video, Kinetics-400.

  Carreira & Zisserman 2017, "Quo Vadis, Action Recognition?", as published in
  TensorFlow: `'SAME'` padding, batch normalisation with epsilon 1e-3, no
  dropout; mean over all positions of two neighbouring time steps, 1x1x1
  convolution, mean over time. `params` holds both the trained weights and the
  running statistics (`mean`, `var`).
  """

  @nn.compact
  def __call__(self, video) -> jax.Array:
    """Logits of RGB video in [-1, 1].

    Args:
      video: `[B, T, H, W, 3]`, T of 9 and more, published at H = W = 224.

    Returns:
      `[B, 400]`.

    Raises:
      ValueError: if there are fewer than 9 frames.
    """
    if video.shape[1] < I3D_MINIMUM_FRAMES:
      raise ValueError(
        f'I3D looks at {I3D_MINIMUM_FRAMES} frames or more, got '
        f'{video.shape[1]}.'
      )
    x = _Unit3D(64, 7, 2, name='Conv3d_1a_7x7')(video)
    x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), 'SAME')
    x = _Unit3D(64, name='Conv3d_2b_1x1')(x)
    x = _Unit3D(192, 3, name='Conv3d_2c_3x3')(x)
    for name, channels in I3D_MIXED.items():
      if name in _I3D_POOLS:
        x = nn.max_pool(x, *_I3D_POOLS[name], 'SAME')
      x = _Mixed(channels, name=name)(x)
    x = x.mean((2, 3))
    x = (x[:, 1:] + x[:, :-1]) / 2
    logits = nn.Dense(I3D_CLASSES, precision='highest', name='logits')(x)
    return logits.mean(1)
