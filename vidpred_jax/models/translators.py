"""SimVP's translators: map the context's features to the target's features.

A translator sees all frames of a clip at once, [B, H, W, T * S]: channel t * S
+ s is channel s of frame t. `MetaFormer` is a sequence of blocks of one of
twelve kinds (`models.blocks`); `IncepU` is the translator of the first SimVP.
All of them compute in the dtype of their input.

Tan et al., "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive
Learning", 2022, section IV-C and table VIII; Gao et al., "SimVP: Simpler yet
Better Video Prediction", CVPR 2022. Stochastic depth follows the published
benchmark (OpenSTL) and not the papers: it starts at 0.01 even if it is set to 0
(`MetaFormer` can switch it off).
"""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vidpred_jax.models import layers
from vidpred_jax.models.blocks import BLOCKS
from vidpred_jax.ops import layout


class MetaFormer(nn.Module):
  """A sequence of blocks of one kind.

  The first block has the width of the input, the others have `width`. 1x1
  convolutions change the width after the first and after the last block, unless
  both widths are equal.

  Attributes:
    kind: one of `BLOCKS`.
    blocks: how many, 2 or more (N_T).
    width: of all blocks but the first (hid_T).
    ratio: width of the blocks' hidden layers, relative.
    drop_path: rate of stochastic depth in the last block, in training.
    first_drop_path: the same in the first block; it is linear in between. The
      published code has 0.01 there for any `drop_path`. Both 0: none.
  """

  kind: str
  blocks: int
  width: int
  ratio: float = 8.0
  drop_path: float = 0.0
  first_drop_path: float = 0.01

  @nn.compact
  def __call__(self, x, train: bool):
    """[B, H, W, T * S] to the same; `train` needs the rng 'dropout'."""
    outer = x.shape[-1]
    rates = np.linspace(self.first_drop_path, self.drop_path, self.blocks)
    last = self.blocks - 1
    for i in range(self.blocks):
      settings: dict[str, Any] = {}
      if self.kind != 'convmixer':
        settings = {'ratio': self.ratio, 'rate': float(rates[i])}
      after = outer if i == last else self.width
      if self.kind == 'swin':
        settings['shifted'] = i % 2 == 1
      if self.kind == 'uniformer':
        settings['local'] = i == 0 or x.shape[-1] != after
      x = BLOCKS[self.kind](**settings, name=f'block_{i}')(x, train)
      if x.shape[-1] != after:
        x = layers.Conv(after, name=f'width_{i}')(x)
    return x


class Inception(nn.Module):
  """IncepU's block: the sum of convolutions of four sizes (equations 10, 11).

  Attributes:
    hidden: input channels of these convolutions.
    features: output channels.
  """

  hidden: int
  features: int

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] to [B, H, W, features]."""
    groups = 8 if self.hidden % 8 == 0 else 1
    if self.features % groups:
      raise ValueError(
        f'Got {self.features} channels for a block of incepu; it needs a '
        f'multiple of {groups}, as width hid_t and as T * hid_s.'
      )
    x = layers.Conv(self.hidden, name='conv')(x)
    out = 0.0
    for size in (3, 5, 7, 11):
      y = layers.Conv(self.features, size, groups, name=f'conv_{size}')(x)
      y = layers.GroupNorm(groups, name=f'norm_{size}')(y)
      out += jax.nn.leaky_relu(y, 0.2)
    return out


class IncepU(nn.Module):
  """The translator of the first SimVP: a U-Net of constant resolution.

  Attributes:
    blocks: number of blocks of each half, 2 or more (N_T).
    width: channels between the blocks (hid_T).
  """

  blocks: int
  width: int

  @nn.compact
  def __call__(self, x, train: bool):
    """[B, H, W, T * S] to the same."""
    del train
    outer, hidden = x.shape[-1], self.width // 2
    kept = []
    for i in range(self.blocks):
      x = Inception(hidden, self.width, name=f'encode_{i}')(x)
      kept.append(x)
    kept.pop()
    for i in range(self.blocks):
      if i:
        x = layout.concatenate([x, kept.pop()])
      after = outer if i == self.blocks - 1 else self.width
      x = Inception(hidden, after, name=f'decode_{i}')(x)
    return x
