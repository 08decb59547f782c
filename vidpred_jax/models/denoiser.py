"""RVD's denoiser: a U-Net over noisy images, steps and contexts.

Arrays are [B, H, W, C]. Each level has half the height and width of the
previous one. Each level of the encoder concatenates a context of the same
width. The context's part of the convolutions does not depend on the noisy
image, so `prepare` computes it once for all steps.

Yang, Srivastava and Mandt, "Diffusion Probabilistic Modeling for Video
Generation", 2022, figure 5. Where the figure is silent this follows the
published code: the decoder does not use the encoder's finest features.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.models import initial, layers
from vidpred_jax.ops import conv


class Conv(nn.Module):
  """A convolution whose kernel is an attribute, so that others can split it.

  Attributes:
    inputs: input channels.
    features: output channels.
    size: of the kernel: odd, or 4 for a transposed convolution of stride 2.
    use_bias: whether it has a bias.
  """

  inputs: int
  features: int
  size: int = 3
  use_bias: bool = True

  def setup(self):
    """Declares `kernel` [size, size, inputs, features] and `bias`."""
    shape = (self.size, self.size, self.inputs, self.features)
    # PyTorch counts the outputs of a transposed convolution as its inputs;
    # here both are equal.
    kernel_init, bias_init = layers.initializers('torch', shape)
    self.kernel = initial.param(self, 'kernel', kernel_init, shape)
    if self.use_bias:
      self.bias = initial.param(self, 'bias', bias_init, shape[-1:])

  def __call__(self, x, stride: int = 1):
    """[B, H, W, inputs] to [B, H', W', features]."""
    if self.size == 4:
      x = conv.transposed_conv(x, self.kernel)
    elif self.size == 1:
      x = conv.pointwise(x, self.kernel[0, 0])
    else:
      x = conv.conv(x, self.kernel, stride=stride, padding=self.size // 2)
    return conv.bias_add(x, self.bias) if self.use_bias else x


class ResBlock(nn.Module):
  """Two convolutions, each with GroupNorm and LeakyReLU, and a shortcut.

  Attributes:
    inputs: input channels.
    features: output channels.
    context: channels of a context that is concatenated to the input; 0 for
      none.
    time: width of the step embedding that is added between the convolutions; 0
      for none.
  """

  inputs: int
  features: int
  context: int = 0
  time: int = 0

  def setup(self):
    """Declares the layers."""
    inputs = self.inputs + self.context
    self.conv_0 = Conv(inputs, self.features)
    self.norm_0 = layers.GroupNorm(8)
    self.conv_1 = Conv(self.features, self.features)
    self.norm_1 = layers.GroupNorm(8)
    if self.time:
      self.shift = layers.Dense(self.features, init_scheme='torch')
    if inputs != self.features:
      self.shortcut = Conv(inputs, self.features, size=1)

  def prepare(self, context):
    """The context's part of the first convolution and of the shortcut.

    Args:
      context: [B, H, W, context].

    Returns:
      Twice [B, H, W, features]: what `__call__` takes as `context_features`.
    """
    kernel = self.conv_0.kernel[:, :, self.inputs :]
    main = conv.conv(context, kernel, padding=1)
    shortcut = conv.pointwise(
      context, self.shortcut.kernel[0, 0, self.inputs :]
    )
    return (
      conv.bias_add(main, self.conv_0.bias),
      conv.bias_add(shortcut, self.shortcut.bias),
    )

  def __call__(self, x, time=None, context_features=None):
    """Runs the block.

    Args:
      x: [B, H, W, inputs].
      time: [B or 1, time], if the block has a step embedding.
      context_features: from `prepare`, if the block has a context.

    Returns:
      [B, H, W, features].
    """
    if context_features is None:
      out = self.conv_0(x)
    else:
      kernel = self.conv_0.kernel[:, :, : self.inputs]
      out = conv.conv(x, kernel, padding=1) + context_features[0]
    out = leaky(self.norm_0(out))
    if self.time:
      shift = self.shift(leaky(time))
      out = out + shift[:, None, None, :]
    out = leaky(self.norm_1(self.conv_1(out)))
    if context_features is not None:
      kernel = self.shortcut.kernel[0, 0, : self.inputs]
      return out + conv.pointwise(x, kernel) + context_features[1]
    return out + (x if self.inputs == self.features else self.shortcut(x))


def leaky(x: jax.Array) -> jax.Array:
  """LeakyReLU of slope 0.2."""
  return jax.nn.leaky_relu(x, 0.2)


class LinearAttention(nn.Module):
  """Linear attention with a residual: its cost is linear in the pixels.

  Keys are a softmax over pixels; queries and values are linear. So the products
  can be reordered: each head sums the pixels weighted by its keys, and the rest
  is one matrix for all pixels of an image. Queries and values are never
  computed.

  Attributes:
    inputs: channels, also of the result.
    heads: number of heads.
    width: channels of a head.
  """

  inputs: int
  heads: int = 4
  width: int = 16

  def setup(self):
    """Declares the layers."""
    total = self.heads * self.width
    self.norm = layers.LayerNorm()
    self.qkv = Conv(self.inputs, 3 * total, size=1, use_bias=False)
    self.out = Conv(total, self.inputs, size=1)

  def __call__(self, x):
    """[B, H, W, inputs] to the same."""
    pixels = self.norm(x)
    pixels = pixels.reshape(x.shape[0], -1, self.inputs)
    of_query, of_key, of_value = jnp.split(self.qkv.kernel[0, 0], 3, -1)
    key = conv.pointwise(pixels, of_key).astype(jnp.float32)
    key = jnp.exp(key - jnp.max(key, 1, keepdims=True))
    pooled = jnp.einsum('bpk,bpc->bkc', key, pixels.astype(jnp.float32))
    pooled /= jnp.sum(key, 1)[:, :, None]
    # Keys of all heads times values of all heads; only equal heads count.
    same = np.kron(np.eye(self.heads), np.ones((self.width, self.width)))
    same = jnp.asarray(same / math.sqrt(self.width), jnp.float32)[None]
    values = same * jnp.einsum('bkc,cv->bkv', pooled, of_value)
    given = jnp.einsum('bkv,vd->bkd', values, self.out.kernel[0, 0])
    kernel = jnp.einsum('ck,bkd->bcd', of_query, given)
    out = (pixels @ kernel.astype(x.dtype)).reshape(x.shape)
    return x + conv.bias_add(out, self.out.bias)


class DownLevel(nn.Module):
  """A level of the denoiser's encoder.

  Attributes:
    inputs: input channels.
    features: channels of the result and of the context.
    time: width of the step embedding.
    down: whether it ends with a convolution of stride 2.
  """

  inputs: int
  features: int
  time: int
  down: bool

  def setup(self):
    """Declares the layers."""
    width = self.features
    self.block_0 = ResBlock(self.inputs, width, time=self.time)
    self.block_1 = ResBlock(width, width, context=width, time=self.time)
    self.attention = LinearAttention(width)
    if self.down:
      self.shrink = Conv(width, width)

  def prepare(self, context):
    """See `ResBlock.prepare`."""
    return self.block_1.prepare(context)

  def __call__(self, x, time, context_features):
    """The level's features, and the next level's input."""
    out = self.block_0(x, time)
    out = self.attention(self.block_1(out, time, context_features))
    return out, (self.shrink(out, stride=2) if self.down else out)


class UpLevel(nn.Module):
  """A level of the denoiser's decoder.

  Attributes:
    inputs: input channels, those of the skip connection included.
    features: output channels.
    time: width of the step embedding.
  """

  inputs: int
  features: int
  time: int

  def setup(self):
    """Declares the layers."""
    width = self.features
    self.block_0 = ResBlock(self.inputs, width, time=self.time)
    self.block_1 = ResBlock(width, width, time=self.time)
    self.attention = LinearAttention(width)
    self.grow = Conv(width, width, size=4)

  def __call__(self, x, time):
    """[B, H, W, inputs] to [B, 2 H, 2 W, features]."""
    out = self.block_1(self.block_0(x, time), time)
    return self.grow(self.attention(out))


def timestep_embedding(n: jax.Array, width: int) -> jax.Array:
  """The sinusoidal embedding of steps, [B] to [B, width]."""
  half = width // 2
  rates = np.exp(-math.log(10000) * np.arange(half) / (half - 1))
  phase = n.astype(jnp.float32)[:, None] * jnp.asarray(rates, jnp.float32)[None]
  return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)


class Denoiser(nn.Module):
  """The denoiser, f_theta.

  Attributes:
    channels: of the residual.
    dim: width of the step embedding.
    widths: features of the levels; the first is `dim`.
    remat: whether a gradient keeps what goes into a level alone and computes
      the inside anew: less memory for a second pass forward.
  """

  channels: int
  dim: int
  widths: tuple[int, ...]
  remat: bool = False

  def setup(self):
    """Declares the parts."""
    dim, widths = self.dim, self.widths
    down_level = nn.remat(DownLevel) if self.remat else DownLevel
    up_level = nn.remat(UpLevel) if self.remat else UpLevel
    self.time_0 = layers.Dense(4 * dim, init_scheme='torch')
    self.time_1 = layers.Dense(dim, init_scheme='torch')
    inputs = (self.channels, *widths[:-1])
    self.level = [
      down_level(a, b, dim, down=i < len(widths) - 1)
      for i, (a, b) in enumerate(zip(inputs, widths))
    ]
    self.middle_0 = ResBlock(widths[-1], widths[-1], time=dim)
    self.middle_attention = LinearAttention(widths[-1])
    self.middle_1 = ResBlock(widths[-1], widths[-1], time=dim)
    ups = list(zip(widths[1:], widths[:-1]))[::-1]
    self.up = [up_level(2 * a, b, dim) for a, b in ups]
    self.last = Conv(dim, dim)
    self.last_norm = layers.GroupNorm(8)
    self.readout = Conv(dim, self.channels, size=1)

  def prepare(self, contexts):
    """The contexts' part of each level, see `ResBlock.prepare`."""
    return [level.prepare(c) for level, c in zip(self.level, contexts)]

  def embed(self, n):
    """The learned embedding of steps, [B] to [B, dim]."""
    time = self.time_0(timestep_embedding(n, self.dim))
    return self.time_1(jax.nn.gelu(time, approximate=False))

  def __call__(self, x, n, prepared):
    """Estimates the noise or the residual.

    Args:
      x: noisy images, [B, H, W, channels].
      n: int32 [B] or [1].
      prepared: from `prepare`.

    Returns:
      [B, H, W, channels], float32.
    """
    time = self.embed(n).astype(x.dtype)
    kept = []
    for level, context_features in zip(self.level, prepared):
      out, x = level(x, time, context_features)
      kept.append(out)
    x = self.middle_1(self.middle_attention(self.middle_0(x, time)), time)
    for level in self.up:
      x = level(jnp.concatenate([x, kept.pop()], -1), time)
    x = leaky(self.last_norm(self.last(x)))
    return self.readout(x).astype(jnp.float32)
