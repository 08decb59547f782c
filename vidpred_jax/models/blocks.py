"""The blocks of `translators.MetaFormer`, which mix positions and channels.

A block maps [B, H, W, C] to the same shape and computes in the dtype of its
input; norms and softmax use float32 inside. Its `ratio` is the width of its
hidden layer relative to C, its `rate` the rate of stochastic depth. The blocks,
their epsilons and their initial values are those of the published benchmark
(OpenSTL).

'mlp' works only for the size of the images it was made for. 'swin' chooses its
window by that size; H and W must be divisible by the window. 'vit', 'uniformer'
and 'swin' have no positional embedding, so, like the convolutional blocks, they
accept other sizes. Swin's windows are rolled around the border without a mask,
as in that code and not in its own paper.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.models import initial, layers
from vidpred_jax.ops import layout

_HEADS = 8  # of every attention


def _gelu(x):
  """The exact GELU: x Phi(x), Phi the normal distribution.

  `jax.nn.gelu` computes both cases of the complementary error function and
  takes 10.5 ms instead of 6.3 for 8 million numbers on a CPU (2026-11).
  """
  wide = x.astype(jnp.float32)
  phi = 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5)))
  return (wide * phi).astype(x.dtype)


def _add_with_drop_path(x, branch, rate, train):
  """`x + branch` with stochastic depth.

  In training each sample drops the branch with probability `rate`; kept
  branches are scaled so that the mean is unchanged. To be called inside a
  module's `__call__`.
  """
  drop = nn.Dropout(rate, broadcast_dims=tuple(range(1, x.ndim)))
  # Otherwise every later block would sum all previous branches again.
  return layout.materialize(x + drop(branch, deterministic=not train))


def _layer_scale(module, name, value, x):
  """`x` times a learned factor per channel, initially `value`."""
  init = initial.constant(value)
  return layers.scale_channels(
    x, initial.param(module, name, init, x.shape[-1:])
  )


def _mlp(x, ratio, layer):
  """A two-layer perceptron; `layer` is `layers.Conv` or `layers.Dense`."""
  channels = x.shape[-1]
  x = _gelu(layer(int(channels * ratio), name='mlp_in')(x))
  return layer(channels, name='mlp_out')(x)


def _refuse_unless_divisible(channels, kind):
  if channels % 8:
    raise ValueError(
      f'Got {channels} channels for a block of {kind}; it needs a multiple of '
      '8, as width hid_t and as T * hid_s.'
    )


_conv = functools.partial(layers.Conv, init_scheme='fan_out')
_dense = layers.Dense


# ---------------------------------------------------- large kernels, gated


class LargeKernel(nn.Module):
  """gSTA, TAU and VAN: attention by depthwise convolutions of 21x21 pixels.

  A 5x5 convolution, a 7x7 convolution of dilation 3, and a gate, in which the
  three differ (gSTA: equations 12-14).

  Attributes:
    gate: 'gsta': half of the result gates the other half. 'van': the result
      gates the input. 'tau': as 'van', with a second gate per channel from the
      spatial mean.
  """

  gate: str
  ratio: float
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    channels = x.shape[-1]
    y = layers.BatchNorm(name='norm_0')(x, train)
    y = self._attend(y) + y
    y = _layer_scale(self, 'scale_0', 1e-2, y)
    x = _add_with_drop_path(x, y, self.rate, train)
    y = layers.BatchNorm(name='norm_1')(x, train)
    y = _conv(int(channels * self.ratio), name='mlp_in')(y)
    y = _gelu(layers.Depthwise(3, name='mlp_local')(y))
    y = _conv(channels, name='mlp_out')(y)
    y = _layer_scale(self, 'scale_1', 1e-2, y)
    return _add_with_drop_path(x, y, self.rate, train)

  def _attend(self, x):
    channels = x.shape[-1]
    # The published code makes TAU's attention after it has set the initial
    # values of the block.
    init_scheme = 'torch' if self.gate == 'tau' else 'fan_out'
    pointwise = functools.partial(layers.Conv, init_scheme=init_scheme)
    values = _gelu(pointwise(channels, name='proj_in')(x))
    y = layers.Depthwise(5, init_scheme=init_scheme, name='local')(values)
    y = layers.Depthwise(7, dilation=3, init_scheme=init_scheme, name='wide')(y)
    if self.gate == 'gsta':
      y, gate = jnp.split(pointwise(2 * channels, name='mix')(y), 2, -1)
      y = y * jax.nn.sigmoid(gate)
    else:
      y = pointwise(channels, name='mix')(y) * values
    if self.gate == 'tau':
      linear = functools.partial(
        _dense, use_bias=False, init_scheme=init_scheme
      )
      gate = jnp.mean(values, (1, 2), dtype=jnp.float32).astype(x.dtype)
      fewer = channels // max(channels // 16, 4)
      gate = jax.nn.relu(linear(fewer, name='squeeze')(gate))
      gate = jax.nn.sigmoid(linear(channels, name='excite')(gate))
      y = y * gate[:, None, None, :]
    return pointwise(channels, name='proj_out')(y)


class Moga(nn.Module):
  """MogaNet's block: depthwise convolutions of three orders, gated."""

  ratio: float
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    channels = x.shape[-1]
    _refuse_unless_divisible(channels, 'moga')
    y = layers.BatchNorm(name='norm_0')(x, train)
    y = self._attend(y) + y
    y = _layer_scale(self, 'scale_0', 1e-5, y)
    x = _add_with_drop_path(x, y, self.rate, train)
    y = layers.BatchNorm(name='norm_1')(x, train)
    y = self._mix(y)
    y = _layer_scale(self, 'scale_1', 1e-5, y)
    return _add_with_drop_path(x, y, self.rate, train)

  def _attend(self, x):
    channels = x.shape[-1]
    y = _conv(channels, name='proj_in')(x)
    mean = jnp.mean(y, (1, 2), keepdims=True, dtype=jnp.float32)
    y = y + _layer_scale(self, 'sigma', 1e-5, y - mean.astype(x.dtype))
    y = jax.nn.silu(y)
    gate = _conv(channels, name='gate')(y)
    y = layers.Depthwise(5, name='order_0')(y)
    first, second, third = jnp.split(y, [channels // 8, channels // 2], -1)
    second = layers.Depthwise(5, dilation=2, name='order_1')(second)
    third = layers.Depthwise(7, dilation=3, name='order_2')(third)
    y = _conv(channels, name='mix')(jnp.concatenate([first, second, third], -1))
    y = jax.nn.silu(gate) * jax.nn.silu(y)
    return _conv(channels, name='proj_out')(y)

  def _mix(self, x):
    channels = x.shape[-1]
    y = _conv(int(channels * self.ratio), name='mlp_in')(x)
    y = _gelu(layers.Depthwise(3, name='mlp_local')(y))
    common = _gelu(_conv(1, name='mlp_common')(y))
    y = y + _layer_scale(self, 'mlp_sigma', 1e-5, y - common)
    return _conv(channels, name='mlp_out')(y)


class HorNet(nn.Module):
  """HorNet's block: recursive gated convolutions of order 4."""

  ratio: float
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    channels = x.shape[-1]
    _refuse_unless_divisible(channels, 'hornet')
    y = self._gated(layers.LayerNorm(1e-6, name='norm_0')(x))
    y = _layer_scale(self, 'scale_0', 1e-6, y)
    x = _add_with_drop_path(x, y, self.rate, train)
    y = _mlp(layers.LayerNorm(1e-6, name='norm_1')(x), self.ratio, _dense)
    y = _layer_scale(self, 'scale_1', 1e-6, y)
    return _add_with_drop_path(x, y, self.rate, train)

  def _gated(self, x):
    channels = x.shape[-1]
    widths = [channels // 8, channels // 4, channels // 2, channels]
    y = _conv(2 * channels, name='proj_in')(x)
    y, gates = y[..., : widths[0]], y[..., widths[0] :]
    gates = layers.Depthwise(7, name='wide')(gates)
    gates = jnp.split(gates, np.cumsum(widths)[:-1], -1)
    y = y * gates[0]
    for i, width in enumerate(widths[1:]):
      y = _conv(width, name=f'order_{i}')(y) * gates[i + 1]
    return _conv(channels, name='proj_out')(y)


# ------------------------------------------------- convolutions and pooling


class ConvMixer(nn.Module):
  """ConvMixer's block, with an 11x11 kernel and without stochastic depth."""

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    y = _gelu(layers.Depthwise(11, name='wide')(x))
    x = x + layers.BatchNorm(name='norm_0')(y, train)
    y = _gelu(_conv(x.shape[-1], name='mix')(x))
    return layers.BatchNorm(name='norm_1')(y, train)


class ConvNeXt(nn.Module):
  """ConvNeXt's block."""

  ratio: float
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    y = layers.Depthwise(7, name='wide')(x)
    y = _mlp(layers.LayerNorm(1e-6, name='norm')(y), self.ratio, _conv)
    y = _layer_scale(self, 'scale', 1e-6, y)
    return _add_with_drop_path(x, y, self.rate, train)


class Poolformer(nn.Module):
  """PoolFormer's block: attention is a mean over 3x3 pixels."""

  ratio: float
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    y = layers.GroupNorm(1, name='norm_0')(x)
    y = mean_of_neighbours(y) - y
    y = _layer_scale(self, 'scale_0', 1e-5, y)
    x = _add_with_drop_path(x, y, self.rate, train)
    y = layers.GroupNorm(1, name='norm_1')(x)
    y = _mlp(y, self.ratio, functools.partial(layers.Conv, init_scheme='small'))
    y = _layer_scale(self, 'scale_1', 1e-5, y)
    return _add_with_drop_path(x, y, self.rate, train)


def mean_of_neighbours(x: jax.Array) -> jax.Array:
  """Mean over 3x3 pixels, of which only those inside the image count."""
  for axis in (1, 2):
    size = x.shape[axis]
    pads = [(0, 0)] * 4
    pads[axis] = (1, 1)
    padded = jnp.pad(x, pads)
    first, *rest = (
      jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)
    )
    x = sum(rest, first)
    place = np.arange(size)
    count = np.minimum(place + 1, size - 1) - np.maximum(place - 1, 0) + 1
    shape = [1] * 4
    shape[axis] = size
    x = x * jnp.asarray(1 / count, x.dtype).reshape(shape)
  return x


# ------------------------------------------------------------------ attention


def _attention(module, x, bias=None):
  """Multi-head self-attention.

  Args:
    module: the module that owns the parameters.
    x: [..., N, C], N tokens.
    bias: [heads, N, N] added to the logits.

  Returns:
    [..., N, C].
  """
  channels = x.shape[-1]
  kind = type(module).__name__.lower()
  _refuse_unless_divisible(channels, kind)
  depth = channels // _HEADS
  qkv = _dense(3 * channels, name='qkv')(x)
  qkv = qkv.reshape(*x.shape[:-1], 3, _HEADS, depth)
  query, key, value = (qkv[..., i, :, :] for i in range(3))
  logits = jnp.einsum(
    '...qhd,...khd->...hqk',
    query * depth**-0.5,
    key,
    preferred_element_type=jnp.float32,
  )
  if bias is not None:
    logits = logits + bias.reshape((1,) * (logits.ndim - 3) + bias.shape)
  weights = jax.nn.softmax(logits).astype(x.dtype)
  x = jnp.einsum('...hqk,...khd->...qhd', weights, value)
  return _dense(channels, name='proj_out')(x.reshape(*x.shape[:-2], channels))


class ViT(nn.Module):
  """A block of the vision transformer, without positional embedding."""

  ratio: float
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    shape = x.shape
    x = x.reshape(shape[0], -1, shape[-1])
    y = _attention(self, layers.LayerNorm(1e-5, name='norm_0')(x))
    x = _add_with_drop_path(x, y, self.rate, train)
    y = _mlp(layers.LayerNorm(1e-5, name='norm_1')(x), self.ratio, _dense)
    return _add_with_drop_path(x, y, self.rate, train).reshape(shape)


def swin_window(height: int, width: int) -> int:
  """The side of Swin's windows for images of a size."""
  side = 7 if height % 7 == 0 else min(max(4, height // 16), 8)
  return min(side, height, width)


def swin_size(rows: int) -> tuple[int, int] | None:
  """A size at which the table of offsets has this number of rows."""
  for side in range(1, 129):
    if (2 * swin_window(side, side) - 1) ** 2 == rows:
      return side, side
  return None


class Swin(nn.Module):
  """A block of the Swin transformer: attention within windows.

  The side of the windows follows from the size it is initialised with.

  Attributes:
    shifted: whether the windows are moved by half their side.
  """

  ratio: float
  rate: float = 0.0
  shifted: bool = False

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    y = self._attend(layers.LayerNorm(1e-5, name='norm_0')(x))
    x = _add_with_drop_path(x, y, self.rate, train)
    y = _mlp(layers.LayerNorm(1e-5, name='norm_1')(x), self.ratio, _dense)
    return _add_with_drop_path(x, y, self.rate, train)

  def _attend(self, x):
    batch, height, width, channels = x.shape
    side = swin_window(height, width)
    if self.has_variable('params', 'offsets'):
      rows = self.get_variable('params', 'offsets').shape[0]
      side = (math.isqrt(rows) + 1) // 2
    if height % side or width % side:
      raise ValueError(
        f'Got {height}x{width} features for swin; expected both sides '
        f'divisible by its window, {side}.'
      )
    shift = side // 2 if self.shifted and min(height, width) > side else 0
    rows = (2 * side - 1) ** 2
    table = initial.param(self, 'offsets', initial.normal(0.02), (rows, _HEADS))
    # Row and column of each pixel of a window; their differences.
    place = np.stack(np.divmod(np.arange(side * side), side), -1)
    offset = place[:, None, :] - place[None, :, :] + side - 1
    index = offset[..., 0] * (2 * side - 1) + offset[..., 1]
    bias = jnp.transpose(table[index], (2, 0, 1))

    x = jnp.roll(x, (-shift, -shift), (1, 2))
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    x = x.swapaxes(2, 3)
    shape = x.shape
    x = _attention(self, x.reshape(*shape[:3], side * side, channels), bias)
    x = x.reshape(shape).swapaxes(2, 3).reshape(batch, height, width, channels)
    return jnp.roll(x, (shift, shift), (1, 2))


class Uniformer(nn.Module):
  """UniFormer's two blocks: convolutional, or global attention.

  Attributes:
    local: whether it is the convolutional block.
  """

  ratio: float
  rate: float = 0.0
  local: bool = False

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    init_scheme = 'fan_out' if self.local else 'torch'
    x = x + layers.Depthwise(3, init_scheme=init_scheme, name='position')(x)
    if self.local:
      return self._convolve(x, train)
    shape, channels = x.shape, x.shape[-1]
    x = x.reshape(shape[0], -1, channels)
    y = _attention(self, layers.LayerNorm(1e-5, name='norm_0')(x))
    y = _layer_scale(self, 'scale_0', 1e-6, y)
    x = _add_with_drop_path(x, y, self.rate, train)
    y = _mlp(layers.LayerNorm(1e-5, name='norm_1')(x), self.ratio, _dense)
    y = _layer_scale(self, 'scale_1', 1e-6, y)
    return _add_with_drop_path(x, y, self.rate, train).reshape(shape)

  def _convolve(self, x, train):
    y = layers.BatchNorm(name='norm_0')(x, train)
    y = _conv(x.shape[-1], name='conv_in')(y)
    y = layers.Depthwise(5, name='conv_local')(y)
    y = _conv(x.shape[-1], name='conv_out')(y)
    x = _add_with_drop_path(x, y, self.rate, train)
    y = _mlp(layers.BatchNorm(name='norm_1')(x, train), self.ratio, _conv)
    return _add_with_drop_path(x, y, self.rate, train)


class MLPMixer(nn.Module):
  """A block of MLP-Mixer: a perceptron over pixels, one over channels."""

  ratio: float
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train):
    """[B, H, W, C] to the same."""
    shape, channels = x.shape, x.shape[-1]
    tokens = shape[1] * shape[2]
    made = self.variables.get('params', {}).get('tokens_in')
    if made is not None and made['kernel'].shape[0] != tokens:
      raise ValueError(
        "The translator 'mlp' was made for images of another size: for "
        f'features of {shape[1]}x{shape[2]} its tokens_in/kernel would have '
        f'{tokens} rows, got {made["kernel"].shape[0]}.'
      )
    x = x.reshape(shape[0], tokens, channels)
    y = layers.LayerNorm(1e-6, name='norm_0')(x).swapaxes(1, 2)
    y = _gelu(_dense(channels // 2, name='tokens_in')(y))
    y = _dense(tokens, name='tokens_out')(y).swapaxes(1, 2)
    x = _add_with_drop_path(x, y, self.rate, train)
    y = _mlp(layers.LayerNorm(1e-6, name='norm_1')(x), self.ratio, _dense)
    return _add_with_drop_path(x, y, self.rate, train).reshape(shape)


BLOCKS: dict[str, Callable[..., nn.Module]] = {
  'gsta': functools.partial(LargeKernel, 'gsta'),
  'tau': functools.partial(LargeKernel, 'tau'),
  'van': functools.partial(LargeKernel, 'van'),
  'convmixer': ConvMixer,
  'convnext': ConvNeXt,
  'hornet': HorNet,
  'mlp': MLPMixer,
  'moga': Moga,
  'poolformer': Poolformer,
  'swin': Swin,
  'uniformer': Uniformer,
  'vit': ViT,
}
