"""SimVP: an encoder of frames, a translator of clips, a decoder of frames.

The encoder maps each frame by itself to fewer pixels and more channels. The
translator (`models/translators.py`) maps the features of all T frames to the
features of the next T frames. The decoder maps the features of each frame to an
image. Clips are [B, T, H, W, C], images in [0, 1] or physical fields around 0;
there is no final activation.

Tan et al., "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive
Learning", 2022, section IV; equation numbers are this paper's. With the
translator 'incepu' it is Gao et al., "SimVP: Simpler yet Better Video
Prediction", CVPR 2022.

Differences from the reference: batch statistics of a batch on several devices
are those of the whole batch (`models.layers.BatchNorm`); the reference
normalises each device's part by itself. Stochastic depth can be switched off
(`first_drop_path`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidpred_jax.models import blocks, initial, layers, translators
from vidpred_jax.ops import conv, layout

TRANSLATORS = (*blocks.BLOCKS, 'incepu')


class ConvSC(nn.Module):
  """A convolution, GroupNorm of 2 groups and SiLU (equations 6, 7).

  Attributes:
    features: output channels.
    size: of the kernel, odd.
    change: 'none', 'down' for half the height and width, or 'up' for twice: a
      pixel shuffle, in which convolved channel 4 c + 2 i + j becomes channel c
      of the pixel in row i, column j of a 2x2 cell.
  """

  features: int
  size: int = 3
  change: str = 'none'

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] to [B, H', W', features]."""
    channels, features = x.shape[-1], self.features
    outputs = 4 * features if self.change == 'up' else features
    shape = (self.size, self.size, channels, outputs)
    kernel_init, bias_init = layers.initializers('small', shape)
    kernel = initial.param(self, 'kernel', kernel_init, shape)
    bias = initial.param(self, 'bias', bias_init, (outputs,))
    if self.change == 'up':
      # So that the features of a pixel are contiguous.
      kernel = kernel.reshape(*shape[:3], features, 4).swapaxes(3, 4)
      kernel = kernel.reshape(shape)
      bias = bias.reshape(features, 4).T.reshape(-1)
    stride = 2 if self.change == 'down' else 1
    x = conv.conv(x, kernel, stride=stride, padding=self.size // 2)
    x = conv.bias_add(x, bias)
    if self.change == 'up':
      x = x.reshape(*x.shape[:3], 4, features)
      x = layout.materialize(x, function=layout.depth_to_space)
    return jax.nn.silu(layers.GroupNorm(2, name='norm')(x))


class Encoder(nn.Module):
  """`ConvSC` layers, every second of which halves the height and width.

  Attributes:
    features: channels of all units (hid_S).
    units: how many, even (N_S).
    size: of the kernels.
  """

  features: int
  units: int
  size: int = 3

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] to [B, H', W', features] and the first unit's output."""
    first = None
    for i in range(self.units):
      change = 'down' if i % 2 else 'none'
      x = ConvSC(self.features, self.size, change, name=f'unit_{i}')(x)
      first = x if first is None else first
    return x, first


class Decoder(nn.Module):
  """The mirrored encoder, then a 1x1 convolution to images.

  Attributes:
    features: channels of all units (hid_S).
    channels: of the images.
    units: how many, even (N_S).
    size: of the kernels.
  """

  features: int
  channels: int
  units: int
  size: int = 3

  @nn.compact
  def __call__(self, x, first):
    """[B, H', W', features], [B, H, W, features] to [B, H, W, channels]."""
    for i in range(self.units):
      change = 'none' if i % 2 else 'up'
      if i == self.units - 1:
        x = x + first
      x = ConvSC(self.features, self.size, change, name=f'unit_{i}')(x)
    return layers.Conv(self.channels, name='readout')(x)


class SimVP(nn.Module):
  """The network (equation 9).

  Attributes:
    frames: T, the number of context frames, and of predicted frames.
    channels: of an image, C.
    hid_s: channels of the encoder and the decoder.
    hid_t: channels of the translator.
    n_s: units of the encoder and of the decoder, even.
    n_t: blocks of the translator, 2 or more (for 'incepu' of each half).
    translator: one of `TRANSLATORS`.
    mlp_ratio: width of the blocks' hidden layers, relative (none in 'convmixer'
      and 'incepu').
    encoder_size: of the encoder's kernels, odd.
    decoder_size: of the decoder's kernels, odd.
    drop_path: rate of stochastic depth in the last block, in training.
    first_drop_path: the same in the first block; it is linear in between. The
      published code has 0.01 there for any `drop_path`. Both 0: none.
    dtype: of the computation. Parameters, statistics and the result are
      float32.
  """

  frames: int
  channels: int = 1
  hid_s: int = 64
  hid_t: int = 512
  n_s: int = 4
  n_t: int = 8
  translator: str = 'gsta'
  mlp_ratio: float = 8.0
  encoder_size: int = 3
  decoder_size: int = 3
  drop_path: float = 0.0
  first_drop_path: float = 0.01
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the parts."""
    if self.translator not in TRANSLATORS:
      raise ValueError(
        f'Got translator={self.translator!r}; expected one of {TRANSLATORS}.'
      )
    if self.n_s < 2 or self.n_s % 2 or self.n_t < 2:
      raise ValueError(
        f'Got n_s={self.n_s} and n_t={self.n_t}; expected an even number of '
        'units and at least 2 blocks.'
      )
    self.encoder = Encoder(self.hid_s, self.n_s, self.encoder_size)
    if self.translator == 'incepu':
      self.translation = translators.IncepU(self.n_t, self.hid_t)
    else:
      self.translation = translators.MetaFormer(
        self.translator,
        self.n_t,
        self.hid_t,
        self.mlp_ratio,
        self.drop_path,
        self.first_drop_path,
      )
    self.decoder = Decoder(
      self.hid_s, self.channels, self.n_s, self.decoder_size
    )

  def encode(self, video):
    """Features of each frame.

    Args:
      video: [B, T, H, W, C].

    Returns:
      [B, T, H', W', hid_s] with H' = H / 2^(n_s / 2), and what the decoder
      needs of the first unit, [B * T, H, W, hid_s].

    Raises:
      ValueError: if the video is no such clip.
    """
    self._check(video)
    x = video.reshape(-1, *video.shape[2:]).astype(self.dtype)
    x, first = self.encoder(x)
    return x.reshape(*video.shape[:2], *x.shape[1:]), first

  def translate(self, features, train: bool = False):
    """Features of the following frames, [B, T, H', W', hid_s] both."""
    batch, frames, height, width, channels = features.shape
    x = features.transpose(0, 2, 3, 1, 4)
    x = x.reshape(batch, height, width, frames * channels)
    x = self.translation(x, train)
    x = x.reshape(batch, height, width, frames, channels)
    return x.transpose(0, 3, 1, 2, 4)

  def decode(self, features, first):
    """Decodes the features of frames to images.

    Args:
      features: [B, T, H', W', hid_s].
      first: [B * T, H, W, hid_s], from `encode`.

    Returns:
      [B, T, H, W, C], float32.
    """
    x = self.decoder(features.reshape(-1, *features.shape[2:]), first)
    return x.reshape(*features.shape[:2], *x.shape[1:]).astype(jnp.float32)

  def __call__(self, video, train: bool = False):
    """Predicts the next T frames.

    Args:
      video: [B, T, H, W, C].
      train: normalise by the batch, whose statistics go into the collection
        'batch_stats' (to be declared mutable), and use stochastic depth, which
        needs the rng 'dropout'.

    Returns:
      [B, T, H, W, C], float32.

    Raises:
      ValueError: if the video is no such clip, or of a size that the translator
        cannot take (`models/translators.py`).
    """
    features, first = self.encode(video)
    return self.decode(self.translate(features, train), first)

  def _check(self, video):
    clip = (self.frames, self.channels)
    if video.ndim != 5 or (video.shape[1], video.shape[-1]) != clip:
      raise ValueError(
        f'Got a clip of shape {video.shape}; expected '
        f'[B, {self.frames}, H, W, {self.channels}].'
      )
    height, width = video.shape[2:4]
    multiple = 2 ** (self.n_s // 2)
    if height % multiple or width % multiple or not height or not width:
      raise ValueError(
        f'Got frames of {height}x{width}; expected both sides divisible by '
        f'{multiple}.'
      )


def feature_size(params) -> tuple[int, int] | None:
  """The size H', W' of features that these parameters were made for.

  Returns:
    (H', W') for 'mlp', whose parameters depend on the number of pixels, and for
    'swin', whose parameters depend on the side of its windows. None for the
    other translators, which take any size.
  """
  for path, leaf in jax.tree.leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name.endswith('tokens_in/kernel'):
      return 1, leaf.shape[0]
    if name.endswith('/offsets'):
      return blocks.swin_size(leaf.shape[0])
  return None
