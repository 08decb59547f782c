"""Layers that several models are made of, as PyTorch's behave.

Arrays are [B, H, W, C] or [..., C]. Parameters are float32; a layer computes in
the dtype of its input, a norm takes its statistics in float32. `init_scheme`
how weights and biases begin:

- 'torch': both uniform in +-1 / sqrt(fan-in), PyTorch's default;
- 'fan_out': weights normal with variance 2 / fan-out, biases 0;
- 'small': weights normal with standard deviation 0.02, biases 0 (the published
  codes cut the normal off at +-2, a hundred standard deviations away).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidpred_jax.ops import conv


def initializers(init_scheme: str, shape: tuple[int, ...], *, groups: int = 1):
  """Initialisers of a kernel and its bias.

  Args:
    init_scheme: 'torch', 'fan_out' or 'small'.
    shape: of the kernel, [..., inputs of a group, outputs].
    groups: of a convolution.

  Returns:
    Two functions `(key, shape) -> array`.
  """
  if init_scheme == 'torch':
    bound = 1 / math.sqrt(math.prod(shape[:-1]))

    def uniform(key, shape, dtype=jnp.float32):
      return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform, uniform
  *window, _, outputs = shape
  fan_out = math.prod(window) * outputs // groups
  deviation = {'fan_out': math.sqrt(2 / fan_out), 'small': 0.02}[init_scheme]
  return nn.initializers.normal(deviation), nn.initializers.zeros


def scale_channels(x: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies [..., C] by [C]."""
  return x * factor.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Conv(nn.Module):
  """A square convolution of odd size with bias; without a window: 1x1.

  Attributes:
    features: output channels.
    size: of the kernel [size, size, C / groups, features].
    groups: into which inputs and outputs are divided.
    init_scheme: see the module.
  """

  features: int
  size: int = 1
  groups: int = 1
  init_scheme: str = 'torch'

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] to [B, H, W, features]."""
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    kernel_init, bias_init = initializers(
      self.init_scheme, shape, groups=self.groups
    )
    kernel = self.param('kernel', kernel_init, shape)
    bias = self.param('bias', bias_init, shape[-1:])
    if self.groups > 1:
      x = conv.grouped(x, kernel, self.groups)
    elif self.size > 1:
      x = conv.conv(x, kernel, padding=self.size // 2)
    else:
      x = conv.pointwise(x, kernel[0, 0])
    return conv.bias_add(x, bias)


class Dense(nn.Module):
  """A linear layer.

  Attributes:
    features: output channels.
    use_bias: whether it has one.
    init_scheme: see the module.
  """

  features: int
  use_bias: bool = True
  init_scheme: str = 'small'

  @nn.compact
  def __call__(self, x):
    """[..., C] to [..., features]."""
    shape = (x.shape[-1], self.features)
    kernel_init, bias_init = initializers(self.init_scheme, shape)
    x = conv.pointwise(x, self.param('kernel', kernel_init, shape))
    if self.use_bias:
      # The fan-in of a bias is that of its kernel.
      x = conv.bias_add(x, self.param('bias', bias_init, shape[-1:]))
    return x


class Depthwise(nn.Module):
  """A convolution of each channel by itself, with bias.

  Attributes:
    size: of the kernel [size, size, C], odd.
    dilation: distance of its taps.
    init_scheme: see the module.
  """

  size: int
  dilation: int = 1
  init_scheme: str = 'fan_out'

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] to the same."""
    channels = x.shape[-1]
    kernel_init, bias_init = initializers(
      self.init_scheme, (self.size, self.size, 1, channels), groups=channels
    )
    shape = (self.size, self.size, channels)
    kernel = self.param('kernel', kernel_init, shape)
    bias = self.param('bias', bias_init, shape[-1:])
    x = conv.depthwise(x, kernel, dilation=self.dilation)
    return conv.bias_add(x, bias)


class GroupNorm(nn.Module):
  """Mean 0 and variance 1 over pixels and the channels of a group.

  The sums are taken per channel, where memory is read in order, and then put
  together. Equal to `torch.nn.GroupNorm`, epsilon 1e-5.

  Attributes:
    groups: number of groups of consecutive channels.
  """

  groups: int

  @nn.compact
  def __call__(self, x):
    """[B, ..., C] to the same."""
    channels = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (channels,))
    bias = self.param('bias', nn.initializers.zeros, (channels,))
    wide = x.astype(jnp.float32)
    pixels = tuple(range(1, x.ndim - 1))

    def of_groups(means):
      """[B, C] to the mean of each channel's group, [B, C]."""
      means = means.reshape(len(x), self.groups, -1).mean(-1)
      return jnp.repeat(means, channels // self.groups, 1)

    mean = of_groups(jnp.mean(wide, pixels))
    square = of_groups(jnp.mean(jnp.square(wide), pixels))
    variance = jnp.maximum(square - jnp.square(mean), 0)
    factor = scale[None] * jax.lax.rsqrt(variance + 1e-5)
    offset = bias[None] - mean * factor
    shape = (len(x), *(1,) * len(pixels), channels)
    return (wide * factor.reshape(shape) + offset.reshape(shape)).astype(
      x.dtype
    )


class BatchNorm(nn.Module):
  """Mean 0 and variance 1 over the batch and pixels.

  Equal to `torch.nn.BatchNorm2d`: epsilon 1e-5; the running statistics, in the
  collection 'batch_stats', move by 0.1 towards those of the batch, of which the
  variance is the unbiased one (while the biased one divides).

  In training the batch is all that the program is given: with the batch split
  over devices under `jit`, the statistics are those of the whole of it, not of
  each device's part.
  """

  @nn.compact
  def __call__(self, x, train: bool):
    """[B, ..., C] to the same; `train`: statistics of the batch."""
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
    mean, variance = running_mean.value, running_var.value
    wide = x.astype(jnp.float32)
    if train:
      axes = tuple(range(x.ndim - 1))
      mean = jnp.mean(wide, axes)
      centred = wide - jnp.expand_dims(mean, axes)
      variance = jnp.mean(jnp.square(centred), axes)
      if not self.is_initializing():
        count = x.size // x.shape[-1]
        unbiased = variance * (count / max(count - 1, 1))
        running_mean.value = 0.9 * running_mean.value + 0.1 * mean
        running_var.value = 0.9 * running_var.value + 0.1 * unbiased
    factor = scale * jax.lax.rsqrt(variance + 1e-5)
    out = scale_channels(wide, factor)
    return conv.bias_add(out, bias - mean * factor).astype(x.dtype)


def layer_norm(x: jax.Array, epsilon: float, name: str) -> jax.Array:
  """Mean 0 and variance 1 over channels, in the dtype of `x`.

  Args:
    x: [..., C].
    epsilon: added to the variance.
    name: of the module that this adds to the one that is being called.

  Returns:
    [..., C].
  """
  norm = nn.LayerNorm(
    epsilon, dtype=x.dtype, use_fast_variance=False, name=name
  )
  return norm(x)
