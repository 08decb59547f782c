"""RVD's denoiser: a U-Net over noisy images, steps and contexts.

Arrays are [B, H, W, C]. Each level has half the height and width of the one
before. A context of the same width joins each level on the way down; its part
of the convolutions does not depend on the noisy image, and `prepare` computes
it once for all steps.

Yang, Srivastava and Mandt, "Diffusion Probabilistic Modeling for Video
Generation", 2022, figure 5. Where the figure is silent this is the published
code: the finest features kept on the way down are used on no way up.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.models import layers
from vidpred_jax.ops import conv


class Conv(nn.Module):
  """A convolution whose kernel others may take to pieces.

  Attributes:
    inputs: channels.
    features: channels of the result.
    size: of the kernel: odd; 4 for the transposed one that doubles the size.
    use_bias: whether it has one.
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
    of_kernel, of_bias = layers.initializers('torch', shape)
    self.kernel = self.param('kernel', of_kernel, shape)
    if self.use_bias:
      self.bias = self.param('bias', of_bias, shape[-1:])

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
    inputs: channels of what goes in.
    features: channels of the result.
    context: channels of a context that is concatenated to what goes in; 0 for
      none.
    time: width of the embedded step that is added between the convolutions; 0
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
      self.shift = layers.Dense(self.features, start='torch')
    if inputs != self.features:
      self.shortcut = Conv(inputs, self.features, size=1)

  def prepare(self, context):
    """The context's share of the first convolution and of the shortcut.

    Args:
      context: [B, H, W, context].

    Returns:
      Twice [B, H, W, features]: what `__call__` takes as `share`.
    """
    kernel = self.conv_0.kernel[:, :, self.inputs :]
    share = conv.conv(context, kernel, padding=1)
    beside = conv.pointwise(context, self.shortcut.kernel[0, 0, self.inputs :])
    return (
      conv.bias_add(share, self.conv_0.bias),
      conv.bias_add(beside, self.shortcut.bias),
    )

  def __call__(self, x, time=None, share=None):
    """One block.

    Args:
      x: [B, H, W, inputs].
      time: [B or 1, time], if the block has any.
      share: from `prepare`, if the block has a context.

    Returns:
      [B, H, W, features].
    """
    if share is None:
      out = self.conv_0(x)
    else:
      kernel = self.conv_0.kernel[:, :, : self.inputs]
      out = conv.conv(x, kernel, padding=1) + share[0]
    out = leaky(self.norm_0(out))
    if self.time:
      shift = self.shift(leaky(time))
      out = out + shift[:, None, None, :]
    out = leaky(self.norm_1(self.conv_1(out)))
    if share is not None:
      kernel = self.shortcut.kernel[0, 0, : self.inputs]
      return out + conv.pointwise(x, kernel) + share[1]
    return out + (x if self.inputs == self.features else self.shortcut(x))


def leaky(x: jax.Array) -> jax.Array:
  """LeakyReLU of slope 0.2."""
  return jax.nn.leaky_relu(x, 0.2)


class LinearAttention(nn.Module):
  """Attention whose cost grows with the pixels, around it a residual.

  Keys are a softmax over pixels, queries and values are linear, so the order
  of the products is free: what each head sees is summed up over the pixels by
  its keys, and the rest is one matrix for all pixels of an image. Neither
  queries nor values are ever computed.

  Attributes:
    inputs: channels, also of the result.
    heads: how many.
    width: channels of a head.
  """

  inputs: int
  heads: int = 4
  width: int = 16

  def setup(self):
    """Declares the layers."""
    total = self.heads * self.width
    self.norm = nn.LayerNorm(1e-5, use_fast_variance=False)
    self.qkv = Conv(self.inputs, 3 * total, size=1, use_bias=False)
    self.out = Conv(total, self.inputs, size=1)

  def __call__(self, x):
    """[B, H, W, inputs] to the same."""
    pixels = self.norm(x).astype(x.dtype)
    pixels = pixels.reshape(len(x), -1, self.inputs)
    of_query, of_key, of_value = jnp.split(self.qkv.kernel[0, 0], 3, -1)
    key = conv.pointwise(pixels, of_key).astype(jnp.float32)
    key = jnp.exp(key - jnp.max(key, 1, keepdims=True))
    seen = jnp.einsum('bpk,bpc->bkc', key, pixels.astype(jnp.float32))
    seen /= jnp.sum(key, 1)[:, :, None]
    # Keys of all heads with values of all, of which equal heads count.
    same = np.kron(np.eye(self.heads), np.ones((self.width, self.width)))
    same = jnp.asarray(same / math.sqrt(self.width), jnp.float32)[None]
    values = same * jnp.einsum('bkc,cv->bkv', seen, of_value)
    given = jnp.einsum('bkv,vd->bkd', values, self.out.kernel[0, 0])
    kernel = jnp.einsum('ck,bkd->bcd', of_query, given)
    out = (pixels @ kernel.astype(x.dtype)).reshape(x.shape)
    return x + conv.bias_add(out, self.out.bias)


class DownLevel(nn.Module):
  """A level of the denoiser's way down.

  Attributes:
    inputs: channels of what goes in.
    features: channels of the result and of the context.
    time: width of the embedded step.
    down: whether there is a level below.
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

  def __call__(self, x, time, share):
    """The level's features, and the next level's input."""
    out = self.block_0(x, time)
    out = self.attention(self.block_1(out, time, share))
    return out, (self.shrink(out, stride=2) if self.down else out)


class UpLevel(nn.Module):
  """A level of the denoiser's way up.

  Attributes:
    inputs: channels of what goes in, the kept features included.
    features: channels of the result.
    time: width of the embedded step.
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


def embedded(n: jax.Array, width: int) -> jax.Array:
  """Sines and cosines of the step, [B] to [B, width]."""
  half = width // 2
  rates = np.exp(-math.log(10000) * np.arange(half) / (half - 1))
  phase = n.astype(jnp.float32)[:, None] * jnp.asarray(rates, jnp.float32)[None]
  return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)


class Denoiser(nn.Module):
  """The network, f_theta.

  Attributes:
    channels: of the residual.
    dim: width of the embedded step.
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
    self.time_0 = layers.Dense(4 * dim, start='torch')
    self.time_1 = layers.Dense(dim, start='torch')
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
    """What the contexts add to each level: see `ResBlock.prepare`."""
    return [level.prepare(c) for level, c in zip(self.level, contexts)]

  def embed(self, n):
    """The embedded step, [B] to [B, dim]."""
    time = self.time_0(embedded(n, self.dim))
    return self.time_1(jax.nn.gelu(time, approximate=False))

  def __call__(self, x, n, shares):
    """The estimate.

    Args:
      x: noisy images, [B, H, W, channels].
      n: int32 [B] or [1].
      shares: from `prepare`, [B, H', W', C'] each.

    Returns:
      [B, H, W, channels], float32.
    """
    time = self.embed(n).astype(x.dtype)
    kept = []
    for level, share in zip(self.level, shares):
      out, x = level(x, time, share)
      kept.append(out)
    x = self.middle_1(self.middle_attention(self.middle_0(x, time)), time)
    for level in self.up:
      x = level(jnp.concatenate([x, kept.pop()], -1), time)
    x = leaky(self.last_norm(self.last(x)))
    return self.readout(x).astype(jnp.float32)
