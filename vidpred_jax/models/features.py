"""Frozen feature networks for losses and metrics: VGG19 and AlexNet.

Both are the convolutional part of torchvision's networks. Their weights are
never part of this project: the user supplies torchvision's files, and
`convert.vgg19` and `convert.alexnet` turn them into the parameter trees of
these modules. Input is RGB, NHWC, float, already normalised as the respective
publication asks (`imagenet_normalise`, `lpips_normalise`).

Convolutions run in full float32 on every platform, so that a metric is the same
number everywhere.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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


def imagenet_normalise(images) -> jax.Array:
  """RGB in [0, 1] -> zero mean, unit variance over ImageNet; `[..., 3]`."""
  mean = np.asarray(IMAGENET_MEAN, np.float32)
  std = np.asarray(IMAGENET_STD, np.float32)
  return _per_channel(images, 1 / std, -mean / std)


def lpips_normalise(images) -> jax.Array:
  """RGB in [0, 1] -> what LPIPS feeds its networks (v0.1); `[..., 3]`."""
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


def unit_normalise(features, epsilon: float = 1e-10) -> jax.Array:
  """Divides each position's feature vector (last axis) by its length."""
  length = jnp.sqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True))
  return features / (length + epsilon)
