"""Layers that several models share; they behave like PyTorch's.

Arrays are [B, H, W, C] or [..., C]. Parameters are float32. A layer computes in
the dtype of its input; a norm computes its statistics in float32. `init_scheme`
names the initial values (the field `init` would hide Flax's `Module.init`):

- 'torch': weights and biases uniform in +-1 / sqrt(fan-in), PyTorch's default;
- 'fan_out': weights normal with variance 2 / fan-out, biases 0;
- 'small': weights normal with standard deviation 0.02, biases 0 (the published
  codes truncate the normal at +-2, a hundred standard deviations away).
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidpred_jax.models import initial
from vidpred_jax.ops import conv


def initializers(init_scheme: str, shape: tuple[int, ...], *, groups: int = 1):
  """Initialisers of a kernel and its bias.

  Args:
    init_scheme: 'torch', 'fan_out' or 'small'.
    shape: of the kernel, [..., inputs of a group, outputs].
    groups: of a convolution.

  Returns:
    Their distributions.
  """
  if init_scheme == 'torch':
    init = initial.uniform(torch_bound(shape))
    return init, init
  *window, _, outputs = shape
  fan_out = math.prod(window) * outputs // groups
  deviation = {'fan_out': math.sqrt(2 / fan_out), 'small': 0.02}[init_scheme]
  return initial.normal(deviation), initial.ZEROS


def torch_bound(shape: Sequence[int], *, transposed: bool = False) -> float:
  """The bound of PyTorch's default initial values, 1 / sqrt(fan-in).

  Args:
    shape: of the kernel, [..., inputs, outputs].
    transposed: whether it is of a transposed convolution, for which PyTorch
      takes the outputs as the fan-in.
  """
  *window, inputs, outputs = shape
  return 1 / math.sqrt(math.prod(window) * (outputs if transposed else inputs))


def scale_channels(x: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies [..., C] by [C]."""
  return x * factor.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Conv(nn.Module):
  """A convolution with an odd square kernel and a bias.

  Attributes:
    features: output channels.
    size: of the kernel [size, size, C / groups, features]; 1 is a pointwise
      layer.
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
    kernel = initial.param(self, 'kernel', kernel_init, shape)
    bias = initial.param(self, 'bias', bias_init, shape[-1:])
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
    x = conv.pointwise(x, initial.param(self, 'kernel', kernel_init, shape))
    if self.use_bias:
      # The fan-in of a bias is that of its kernel.
      x = conv.bias_add(x, initial.param(self, 'bias', bias_init, shape[-1:]))
    return x


class Depthwise(nn.Module):
  """A depthwise convolution with bias.

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
    kernel = initial.param(self, 'kernel', kernel_init, shape)
    bias = initial.param(self, 'bias', bias_init, shape[-1:])
    x = conv.depthwise(x, kernel, dilation=self.dilation)
    return conv.bias_add(x, bias)


class GroupNorm(nn.Module):
  """Group normalisation: mean 0 and variance 1 over pixels and a group.

  Equal to `torch.nn.GroupNorm`, epsilon 1e-5. The sums are computed per
  channel, in the order of memory, and then added over each group.

  Attributes:
    groups: number of groups of consecutive channels.
  """

  groups: int

  @nn.compact
  def __call__(self, x):
    """[B, ..., C] to the same."""
    channels = x.shape[-1]
    scale = initial.param(self, 'scale', initial.ONES, (channels,))
    bias = initial.param(self, 'bias', initial.ZEROS, (channels,))
    wide = x.astype(jnp.float32)
    pixels = tuple(range(1, x.ndim - 1))

    def of_groups(means):
      """[B, C] to the mean of each channel's group, [B, C]."""
      means = means.reshape(x.shape[0], self.groups, -1).mean(-1)
      return jnp.repeat(means, channels // self.groups, 1)

    mean = of_groups(jnp.mean(wide, pixels))
    square = of_groups(jnp.mean(jnp.square(wide), pixels))
    variance = jnp.maximum(square - jnp.square(mean), 0)
    factor = scale[None] * jax.lax.rsqrt(variance + 1e-5)
    offset = bias[None] - mean * factor
    shape = (x.shape[0], *(1,) * len(pixels), channels)
    return (wide * factor.reshape(shape) + offset.reshape(shape)).astype(
      x.dtype
    )


class BatchNorm(nn.Module):
  """Batch normalisation: mean 0 and variance 1 over the batch and pixels.

  Equal to `torch.nn.BatchNorm2d`: epsilon 1e-5, momentum 0.1. The running
  statistics are in the collection 'batch_stats'; their variance is the unbiased
  one, whereas the biased variance normalises the batch.

  In training the statistics are those of the whole batch, also where `jit`
  splits the batch over devices.
  """

  @nn.compact
  def __call__(self, x, train: bool):
    """[B, ..., C] to the same; `train`: normalises by the batch."""
    shape = x.shape[-1:]
    scale = initial.param(self, 'scale', initial.ONES, shape)
    bias = initial.param(self, 'bias', initial.ZEROS, shape)
    running_mean = initial.variable(
      self, 'batch_stats', 'mean', initial.ZEROS, shape
    )
    running_var = initial.variable(
      self, 'batch_stats', 'var', initial.ONES, shape
    )
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


class LayerNorm(nn.Module):
  """Layer normalisation: mean 0 and variance 1 over the channels of a pixel.

  Equal to `torch.nn.LayerNorm` and Flax's, whose parameters `models.initial`
  cannot draw.

  Attributes:
    epsilon: added to the variance.
  """

  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x):
    """[..., C] to the same."""
    shape = x.shape[-1:]
    scale = initial.param(self, 'scale', initial.ONES, shape)
    bias = initial.param(self, 'bias', initial.ZEROS, shape)
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), -1, keepdims=True)
    factor = scale_channels(jax.lax.rsqrt(variance + self.epsilon), scale)
    return conv.bias_add(centred * factor, bias).astype(x.dtype)


def normalised(x: jax.Array, *, axis: int = -1) -> jax.Array:
  """Standardises `x` to mean 0 and variance 1 over an axis."""
  centred = x - jnp.mean(x, axis, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axis, keepdims=True)
  return centred * jax.lax.rsqrt(variance + 1e-5)
