"""SimVP: an encoder of frames, a translator of clips, a decoder of frames.

The encoder takes each frame by itself to fewer pixels and more channels, the
translator (`models/translators.py`) looks at the features of all frames and
turns them into those of as many following frames, the decoder takes each of
them back to an image. Clips are [B, T, H, W, C], of images in [0, 1] or of
physical fields around 0; there is no activation at the end.

Tan et al., "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive
Learning", 2022, section IV; equation numbers are this paper's. With the
translator 'incepu' it is Gao et al., "SimVP: Simpler yet Better Video
Prediction", CVPR 2022.

Differences from the reference: batch statistics of a batch on several devices
are those of the whole batch (`models.layers.BatchNorm`); the reference
normalises each device's part by itself. Stochastic depth can be switched off
(`first_drop_path`).
"""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidpred_jax.models import layers, translators
from vidpred_jax.ops import conv, layout

TRANSLATORS = (*translators.BLOCKS, 'incepu')


class Unit(nn.Module):
  """ConvSC: convolution, GroupNorm of 2 groups, SiLU (equations 6, 7).

  Attributes:
    features: output channels.
    size: of the kernel, odd.
    change: 'none', 'down' to half the height and width, or 'up' to the double:
      of the 4 * features channels convolved, number 4 c + 2 i + j becomes
      channel c of the pixel in row i, column j of each 2x2 cell.
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
    of_kernel, of_bias = layers.initializers('small', shape)
    kernel = self.param('kernel', of_kernel, shape)
    bias = self.param('bias', of_bias, (outputs,))
    if self.change == 'up':
      # So that the features of a pixel lie side by side.
      kernel = kernel.reshape(*shape[:3], features, 4).swapaxes(3, 4)
      kernel = kernel.reshape(shape)
      bias = bias.reshape(features, 4).T.reshape(-1)
    stride = 2 if self.change == 'down' else 1
    x = conv.conv(x, kernel, stride=stride, padding=self.size // 2)
    x = conv.bias_add(x, bias)
    if self.change == 'up':
      x = x.reshape(*x.shape[:3], 4, features)
      x = layout.apart(x, layout.unfold)
    return jax.nn.silu(layers.GroupNorm(2, name='norm')(x))


class Encoder(nn.Module):
  """Units, every second of which halves the height and width.

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
      x = Unit(self.features, self.size, change, name=f'unit_{i}')(x)
      first = x if first is None else first
    return x, first


class Decoder(nn.Module):
  """The encoder backwards, then a 1x1 convolution to images.

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
      x = Unit(self.features, self.size, change, name=f'unit_{i}')(x)
    return layers.Conv(self.channels, name='readout')(x)


class SimVP(nn.Module):
  """The network (equation 9).

  Attributes:
    frames: seen, and predicted: T.
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
      published code has 0.01 there whatever `drop_path` is. Both 0: none.
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
    """Images of the features of frames.

    Args:
      features: [B, T, H', W', hid_s].
      first: [B * T, H, W, hid_s], from `encode`.

    Returns:
      [B, T, H, W, C], float32.
    """
    x = self.decoder(features.reshape(-1, *features.shape[2:]), first)
    return x.reshape(*features.shape[:2], *x.shape[1:]).astype(jnp.float32)

  def __call__(self, video, train: bool = False):
    """As many frames as are seen.

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
  """H', W' of features at which parameters have these shapes.

  Returns:
    For 'mlp', which knows the number of its pixels, and 'swin', which knows the
    side of its windows; None for the others, which have them at any size.
  """
  for path, leaf in jax.tree.leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name.endswith('tokens_in/kernel'):
      return 1, leaf.shape[0]
    if name.endswith('/offsets'):
      return translators.swin_size(leaf.shape[0])
  return None


# ------------------------------------------------- names of published weights

_NORMS = {'norm_0': 'norm1', 'norm_1': 'norm2'}
_SCALES = {'scale_0': 'layer_scale_1', 'scale_1': 'layer_scale_2'}
_MLP = {'mlp_in': 'mlp.fc1', 'mlp_out': 'mlp.fc2'}
_ATTENTION = {'qkv': 'attn.qkv', 'proj_out': 'attn.proj'}
_LARGE_KERNEL = {
  **_NORMS,
  **_SCALES,
  **_MLP,
  'mlp_local': 'mlp.dwconv.dwconv',
  'proj_in': 'attn.proj_1',
  'local': 'attn.spatial_gating_unit.conv0',
  'wide': 'attn.spatial_gating_unit.conv_spatial',
  'mix': 'attn.spatial_gating_unit.conv1',
  'squeeze': 'attn.spatial_gating_unit.fc.0',
  'excite': 'attn.spatial_gating_unit.fc.2',
  'proj_out': 'attn.proj_2',
}

# Of the layers and parameters in a translator's block, ours: published.
_BLOCKS = {
  'gsta': _LARGE_KERNEL,
  'tau': _LARGE_KERNEL,
  'van': _LARGE_KERNEL,
  'convmixer': {
    'wide': 'conv_dw',
    'norm_0': 'norm_1',
    'mix': 'conv_pw',
    'norm_1': 'norm_2',
  },
  'convnext': {**_MLP, 'wide': 'conv_dw', 'norm': 'norm', 'scale': 'gamma'},
  'hornet': {
    **_NORMS,
    'scale_0': 'gamma1',
    'scale_1': 'gamma2',
    'proj_in': 'gnconv.proj_in',
    'wide': 'gnconv.dwconv',
    'order_0': 'gnconv.pws.0',
    'order_1': 'gnconv.pws.1',
    'order_2': 'gnconv.pws.2',
    'proj_out': 'gnconv.proj_out',
    'mlp_in': 'pwconv1',
    'mlp_out': 'pwconv2',
  },
  'mlp': {
    **_NORMS,
    'tokens_in': 'mlp_tokens.fc1',
    'tokens_out': 'mlp_tokens.fc2',
    'mlp_in': 'mlp_channels.fc1',
    'mlp_out': 'mlp_channels.fc2',
  },
  'moga': {
    **_NORMS,
    **_SCALES,
    **_MLP,
    'sigma': 'attn.sigma',
    'proj_in': 'attn.proj_1',
    'gate': 'attn.gate',
    'order_0': 'attn.value.DW_conv0',
    'order_1': 'attn.value.DW_conv1',
    'order_2': 'attn.value.DW_conv2',
    'mix': 'attn.value.PW_conv',
    'proj_out': 'attn.proj_2',
    'mlp_local': 'mlp.dwconv',
    'mlp_common': 'mlp.decompose',
    'mlp_sigma': 'mlp.sigma',
  },
  'poolformer': {**_NORMS, **_SCALES, **_MLP},
  'swin': {
    **_NORMS,
    **_MLP,
    **_ATTENTION,
    'offsets': 'attn.relative_position_bias_table',
  },
  'uniformer': {
    **_NORMS,
    **_MLP,
    **_ATTENTION,
    'scale_0': 'gamma_1',
    'scale_1': 'gamma_2',
    'position': 'pos_embed',
    'conv_in': 'conv1',
    'conv_local': 'attn',
    'conv_out': 'conv2',
  },
  'vit': {**_NORMS, **_MLP, **_ATTENTION},
}
_BLOCKS['incepu'] = {'conv': 'conv1'} | {
  f'{ours}_{size}': f'layers.{i}.{ours}'
  for i, size in enumerate((3, 5, 7, 11))
  for ours in ('conv', 'norm')
}
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}


def torch_names(
  variables: Mapping[str, Any], translator: str
) -> dict[str, tuple[str, str]]:
  """Names in the published checkpoint.

  Args:
    variables: `{path: array or shape}` of all collections, such as
      'params/encoder/unit_0/kernel'.
    translator: one of `TRANSLATORS`.

  Returns:
    `{published name: (path, layout)}` with the layout 'conv', 'depthwise',
    'linear', 'vector', 'plane' ([1, C, 1, 1]) or 'matrix' (not transposed).
  """
  layouts = {1: 'vector', 2: 'linear', 3: 'depthwise', 4: 'conv'}
  result = {}
  for path, leaf in variables.items():
    _, part, module, *rest = path.split('/')
    layout = layouts[len(leaf.shape)]
    kind, _, index = module.partition('_')
    if part == 'translation':
      name = f'hid.{"dec" if kind == "decode" else "enc"}.{index}'
      if kind == 'width':
        name += '.reduction'
      else:
        ours, *rest = rest
        name += '.block.' if kind == 'block' else '.'
        name += _BLOCKS[translator][ours]
        if ours == 'offsets':
          layout = 'matrix'
        if translator == 'moga' and not rest:
          layout = 'plane'
    elif module == 'readout':
      name = 'dec.readout'
    else:
      name = f'{part[:3]}.{part[:3]}.{index}.conv'
      if rest[0] == 'norm':
        name += '.norm'
      else:
        # What doubles the size is a sequence of two layers.
        up = part == 'decoder' and int(index) % 2 == 0
        name += '.conv.0' if up else '.conv'
    if rest:
      name += '.' + _LEAVES[rest[-1]]
    result[name] = (path, layout)
  return result


def torch_clip(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int]:
  """The clips that a published checkpoint can take.

  Args:
    shapes: `{published name: shape}`.

  Returns:
    T, and a height and width of the translator's input at which parameters have
    these shapes ('mlp' tells the number of its pixels, 'swin' the side of its
    windows, the others nothing). If they are other weights, any numbers.
  """

  def size(pattern, axis):
    found = [shapes[k] for k in sorted(shapes) if re.fullmatch(pattern, k)]
    return found[0][axis] if found and len(found[0]) > axis else None

  features = size(r'enc\.enc\.0\.conv\.norm\.weight', 0) or 1
  width = size(r'hid\.enc\.0\.block\.norm_?1?\.weight', 0)  # MetaFormer
  width = width or size(r'hid\.enc\.0\.conv1\.weight', 1)  # IncepU
  frames = max((width or 10 * features) // features, 1)
  if pixels := size(r'hid\.enc\.0\.block\.mlp_tokens\.fc1\.weight', 1):
    return frames, 1, pixels
  rows = size(r'hid\.enc\.0\.block\..*position_bias_table', 0)
  return frames, *((rows and translators.swin_size(rows)) or (4, 4))
