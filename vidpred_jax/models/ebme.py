"""BiFlowNet: estimates the flows between two frames in both directions.

It is the motion estimator of EBME, which APR-VFI uses unchanged and for which
weights are published. It refines the flows from coarse to fine with the same
small network at every level. At each level both frames are warped to the middle
of the current flow (forward warping, `ops/splat.py`). Their features are
compared in a cost volume, and the network estimates a new flow. The number of
levels is free; larger motion needs more levels.

Flows are `[B, H, W, 4]`, (dx, dy) of frame 0 to frame 1, then (dx, dy) of frame
1 to frame 0, forward, in pixels of the full resolution unless said otherwise.
Frames are RGB in [0, 1], `pair` is [B, 2, H, W, 3].

Jin et al., "Enhanced Bi-directional Motion Estimation for Video Frame
Interpolation", WACV 2023.

Differences from the reference: colours are RGB (conversion reverses the input
channels of the first layer). The number of levels for an image, `num_levels`,
is at least 1, and the network pads images itself. The published code's other
ways of warping (full flow, backward, none) are left out. Initial values are
those of He et al. (2015), for images of mean 0 and deviation 1. With PyTorch's
initial values, which the published code uses, signals shrink to a third at
every layer. With the images' own mean the cost volume is nearly constant. In
both cases the flow is learnt late, or not at all.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vidpred_jax.models import initial
from vidpred_jax.ops import conv, correlation, resize, splat

_ENCODER = ((24, 2), (24, 1), (24, 1), (48, 2)) + ((48, 1),) * 5
_ESTIMATOR = ((160, 1), (128, 3), (112, 3), (96, 3), (64, 3))


class Estimate(NamedTuple):
  """The result of `BiFlowNet`, float32.

  Attributes:
    flow: [B, H, W, 4].
    pyramid: the flow [B, h, w, 4] of each level from coarse to fine, at a
      quarter of the size of that level's image, in pixels of that image.
  """

  flow: jax.Array
  pyramid: tuple[jax.Array, ...]


def num_levels(width: int) -> int:
  """The number of pyramid levels for a width, `ceil(log2(width / 448) + 3)`."""
  return max(1, math.ceil(math.log2(width / 448) + 3))


class Conv(nn.Module):
  """A padded convolution with bias, followed by LeakyReLU(0.1).

  Attributes:
    features: output channels.
    size: of the kernel [size, size, C, features], odd.
    stride: of both axes.
    activated: whether the LeakyReLU follows.
    images: whether the inputs are images. Then the initial values include the
      normalisation from mean 0.5 and deviation 0.25 to mean 0 and deviation 1.
  """

  features: int
  size: int = 3
  stride: int = 1
  activated: bool = True
  images: bool = False

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    # He's; that of images is 4 times as wide.
    deviation = (4 if self.images else 1) * math.sqrt(2 / math.prod(shape[:-1]))
    start = initial.truncated_normal(deviation)
    kernel = initial.param(self, 'kernel', start, shape)
    if self.images:
      bias = initial.param(
        self, 'bias', initial.Derived(_centring, 'kernel'), kernel
      )
    else:
      bias = initial.param(self, 'bias', initial.ZEROS, shape[-1:])
    if self.size == 1:
      x = conv.pointwise(x, kernel[0, 0])
    else:
      padding = self.size // 2
      x = conv.conv(x, kernel, stride=self.stride, padding=padding)
    x = conv.bias_add(x, bias)
    return nn.leaky_relu(x, 0.1) if self.activated else x


def _centring(kernel):
  """The bias with which a kernel does not see that images have mean 0.5."""
  return -0.5 * kernel.sum((0, 1, 2))


class Encoder(nn.Module):
  """Features of an image at a quarter of its size."""

  @nn.compact
  def __call__(self, image):
    """[B, H, W, 3] to [B, H / 4, W / 4, 48]."""
    for i, (features, stride) in enumerate(_ENCODER):
      first = i == 0
      image = Conv(features, stride=stride, images=first, name=f'conv_{i}')(
        image
      )
    return image


class Estimator(nn.Module):
  """Estimates the flow of one pyramid level."""

  @nn.compact
  def __call__(self, cost, first, second, feature, flow):
    """Estimates the flow.

    Args:
      cost: [B, h, w, 81], the cost volume.
      first: [B, h, w, 48], features of frame 0.
      second: the same of frame 1.
      feature: [B, h, w, 64], what the coarser level passed on.
      flow: [B, h, w, 4], its flow.

    Returns:
      [B, h, w, 4], the flow (not an increment), float32, and [B, h, w, 64] to
      be passed on.
    """
    cost = nn.leaky_relu(cost, 0.1)
    flow = flow.astype(cost.dtype)
    x = jnp.concatenate([cost, first, second, feature, flow], -1)
    for i, (features, size) in enumerate(_ESTIMATOR):
      x = Conv(features, size, name=f'conv_{i}')(x)
    last = Conv(4, activated=False, name=f'conv_{len(_ESTIMATOR)}')
    return last(x.astype(jnp.float32)), x


class BiFlowNet(nn.Module):
  """The motion estimator.

  Attributes:
    dtype: of the convolutions; flow and warping are float32.
    standardised: whether each channel of the features is standardised to mean 0
      and variance 1 over both frames before they are compared (published: no).
      The cost volume then holds correlation coefficients. With random initial
      weights the flow is learnt much sooner. Without it the first steps shrink
      all features, since no flow is better than a random one, and the cost
      volume loses its contrast (Jonschkowski et al., "What Matters in
      Unsupervised Optical Flow", ECCV 2020).
  """

  dtype: Any = jnp.float32
  standardised: bool = False

  def setup(self):
    """Declares the parameters."""
    self.encoder = Encoder()
    self.estimator = Estimator()

  def __call__(self, pair, levels=None):
    """Estimates the flows.

    Args:
      pair: [B, 2, H, W, 3] in [0, 1], any size; padded at the right and bottom
        with 0.5 until 2^(levels + 1) divides both sides.
      levels: of the pyramid; None: `num_levels(W)`.

    Returns:
      An `Estimate`.
    """
    chex.assert_shape(pair, (None, 2, None, None, 3))
    batch, _, height, width, _ = pair.shape
    levels = num_levels(width) if levels is None else levels
    multiple = 2 ** (levels + 1)
    pads = ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0))
    images = pair.reshape(2 * batch, height, width, 3).astype(jnp.float32)
    images = jnp.pad(images, pads, constant_values=0.5)
    flow, feature, pyramid = None, None, []
    for level in reversed(range(levels)):
      small = images
      if level:
        small = resize.bilinear(images, scale=0.5**level)
      flow, feature = self.refine(small, flow, feature)
      pyramid.append(flow)
    flow = resize.bilinear(flow, scale=4)[:, :height, :width]
    return Estimate(flow, tuple(pyramid))

  def refine(self, images, flow, feature):
    """Refines the flow at one level.

    Args:
      images: [2 B, h, w, 3], both frames of each pair at this level's size.
      flow: [B, h / 8, w / 8, 4], of the coarser level; None: there is none.
      feature: [B, h / 8, w / 8, 64], what it passed on; or None.

    Returns:
      The flow [B, h / 4, w / 4, 4] and what is passed on.
    """
    pairs, height, width, _ = images.shape
    if flow is None:
      shape = (pairs // 2, height // 4, width // 4)
      flow = jnp.zeros((*shape, 4), jnp.float32)
      feature = jnp.zeros((*shape, 64), self.dtype)
    else:
      flow = 2 * resize.bilinear(flow, scale=2)
      feature = resize.bilinear(feature, scale=2)
      # Each frame goes half the way, to the middle.
      half = 0.5 * resize.bilinear(flow, scale=4)
      images, _ = splat.forward(images, per_frame_flow(half))
    features = self.encoder(images.astype(self.dtype))
    features = features.reshape(-1, 2, *features.shape[1:])
    if self.standardised:
      features = standardise(features)
    first, second = features[:, 0], features[:, 1]
    with jax.named_scope('correlation'):
      cost = correlation.local(first, second)
    return self.estimator(cost, first, second, feature, flow)


def standardise(features: jax.Array) -> jax.Array:
  """Standardises each channel of features [B, 2, h, w, C] over frames."""
  x = features.astype(jnp.float32)
  x = x - jnp.mean(x, (1, 2, 3), keepdims=True)
  variance = jnp.mean(jnp.square(x), (1, 2, 3), keepdims=True)
  return (x * jax.lax.rsqrt(variance + 1e-6)).astype(features.dtype)


def per_frame_flow(flow: jax.Array) -> jax.Array:
  """Reshapes flows [B, H, W, 4] to one per frame, [2 B, H, W, 2]."""
  batch, height, width, _ = flow.shape
  flow = flow.reshape(batch, height, width, 2, 2).transpose(0, 3, 1, 2, 4)
  return flow.reshape(2 * batch, height, width, 2)


def whole_flows(
  pyramid: Sequence[jax.Array], size: tuple[int, int]
) -> list[jax.Array]:
  """The flow of each level at the frames' size and in their pixels.

  Args:
    pyramid: of an `Estimate`, from coarse to fine.
    size: (H, W) of the frames.

  Returns:
    [B, 2, H, W, 2] for each level: of frame 0 and of frame 1.
  """
  flows = []
  for level, small in zip(reversed(range(len(pyramid))), pyramid):
    scale = 2**level
    whole = scale * resize.bilinear(small, scale=4 * scale)
    both = per_frame_flow(whole[:, : size[0], : size[1]])
    flows.append(both.reshape(-1, 2, *size, 2))
  return flows
