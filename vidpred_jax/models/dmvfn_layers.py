"""Layers of DMVFN: its convolution, its router and its block.

Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video Prediction", CVPR
2023; equation and table numbers are this paper's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.models import initial, layers
from vidpred_jax.ops import conv, layout, resize

_SLOPE = 0.25  # initial slope of a PReLU, as in PyTorch


class Conv(nn.Module):
  """A convolution with bias, optionally followed by a PReLU.

  Attributes:
    inputs: input channels.
    features: output channels.
    size: of the square kernel.
    transposed: whether it is initialised as a transposed convolution.
    activated: whether a PReLU with one slope per channel follows.
    zero: whether it is initialised with zeros.
  """

  inputs: int
  features: int
  size: int = 3
  transposed: bool = False
  activated: bool = True
  zero: bool = False

  def setup(self):
    """Declares the parameters."""
    shape = (self.size, self.size, self.inputs, self.features)
    bound = layers.torch_bound(shape, transposed=self.transposed)
    bound = 0.0 if self.zero else bound
    init = initial.uniform(bound)
    self.kernel = initial.param(self, 'kernel', init, shape)
    self.bias = initial.param(self, 'bias', init, (self.features,))
    if self.activated:
      slope = initial.constant(_SLOPE)
      self.slope = initial.param(self, 'slope', slope, (self.features,))

  def finish(self, x):
    """Bias and activation, for [B, H, W, features] already convolved."""
    x = conv.bias_add(x, self.bias)
    return conv.prelu(x, self.slope) if self.activated else x

  def __call__(self, x, stride=1):
    """[B, H, W, inputs] to [B, H / stride, W / stride, features]."""
    padding = self.size // 2
    x = conv.conv(x, self.kernel, stride=stride, padding=padding)
    return self.finish(x)


class Router(nn.Module):
  """The router: predicts a logit for each block from both frames (equation 7).

  Attributes:
    outputs: number of logits, one per block (two for the Gumbel variant).
    scale: the frames are downsampled by it first; 1 is the published router.
    formulation: see `DMVFN`.
  """

  outputs: int
  scale: int = 1
  formulation: str = 'fast'

  def setup(self):
    """Declares the parameters."""
    self.conv_0 = Conv(6, 32, activated=False)
    self.conv_1 = Conv(32, 32, activated=False)
    shape = (32, self.outputs)
    init, _ = layers.initializers('torch', shape)
    self.linear_kernel = initial.param(self, 'linear_kernel', init, shape)
    self.linear_bias = initial.param(self, 'linear_bias', init, shape[1:])

  def __call__(self, frames):
    """Frames [B, H, W, 6] to logits [B, outputs], float32."""
    if self.scale != 1:
      with jax.named_scope('bilinear'):
        frames = resize.bilinear(frames, scale=1 / self.scale)
    if self.formulation == 'published':
      x = self.conv_1(nn.relu(self.conv_0(frames)))
      x = jnp.mean(x, axis=(1, 2))
    else:
      x = conv.mean_of_convs(
        frames, self.conv_0.kernel, self.conv_0.bias, self.conv_1.kernel
      )
      x = x + self.conv_1.bias[None, :]
    return x @ self.linear_kernel + self.linear_bias[None, :]


class Block(nn.Module):
  """MVFB: one refinement of the voxel flow (figure 2c).

  Attributes:
    width: channels of the motion path.
    scale: the motion path works on images downsampled by it.
    spatial_path: whether the block has the full-resolution path (table 7).
    zero: whether the untrained block's increment is 0.
    formulation: see `DMVFN`.
    dtype: of the convolutions.
    others: M, candidates beside the two warped frames (published: none).
    hints: channels of what else the block sees (published: none).
  """

  width: int
  scale: int
  spatial_path: bool = True
  zero: bool = False
  formulation: str = 'fast'
  dtype: Any = jnp.float32
  others: int = 0
  hints: int = 0

  def setup(self):
    """Declares the parameters."""
    width = self.width
    seen = 17 + self.others + self.hints
    self.motion_in_0 = Conv(seen, width // 2)
    self.motion_in_1 = Conv(width // 2, width)
    self.motion_mid_0 = Conv(width, width)
    self.motion_mid_1 = Conv(width, width)
    self.motion_mid_2 = Conv(width, width)
    self.motion_out = Conv(width, width // 4)
    inputs = width // 4
    if self.spatial_path:
      self.spatial_0 = Conv(seen, 8)
      self.spatial_1 = Conv(8, 8)
      inputs += 8
    self.head = Conv(
      inputs,
      5 + self.others,
      size=4,
      transposed=True,
      activated=False,
      zero=self.zero,
    )

  def __call__(self, frames, state, hints=None, *, first=False):
    """The increment of the voxel flow.

    Args:
      frames: [B, H, W, 6], both frames.
      state: the current state.
      hints: [B, H, W, `hints`], what else the block sees.
      first: whether the flow is 0, so that no frame is warped.

    Returns:
      [B, H, W, 5 + M] to be added to `state.voxel`, float32.
    """
    if self.formulation == 'published':
      return self._published(frames, state, hints)
    return self._fast(frames, state, hints, first)

  def _published(self, frames, state, hints):
    """Computes the layers as the paper draws them."""
    flow, mask = state.voxel[..., :4], state.voxel[..., 4:]
    known = [] if hints is None else [hints]
    x = [frames, state.older, state.newer, mask, *known]
    x = jnp.concatenate(x, -1)
    small, small_flow = x, flow
    if self.scale != 1:
      with jax.named_scope('bilinear'):
        small = resize.bilinear(x, scale=1 / self.scale)
        small_flow = resize.bilinear(flow, scale=1 / self.scale)
      small_flow = small_flow / self.scale
    small = jnp.concatenate([small, small_flow], -1).astype(self.dtype)
    motion = self._motion(self.motion_in_0(small, 2))
    with jax.named_scope('bilinear'):
      features = [resize.bilinear(motion, scale=2 * self.scale)]
    if self.spatial_path:
      x = jnp.concatenate([x, flow], -1).astype(self.dtype)
      features.append(self.spatial_1(self.spatial_0(x, 2)))
    x = jnp.concatenate(features, -1)
    with jax.named_scope('head'):
      x = conv.transposed_conv(x, self.head.kernel)
    return self.head.finish(x.astype(jnp.float32))

  def _fast(self, frames, state, hints, first):
    """Equals `_published`, with linear operations merged or moved.

    They are moved to lower resolution. Both paths share one convolution where
    they have the same input. The head mixes the channels of the motion path
    before they are enlarged. In the first block the warped frames equal the
    frames, so each is convolved once.
    """
    flow, mask = state.voxel[..., :4], state.voxel[..., 4:]
    # The motion path sees the flow in small pixels.
    others = 13 + self.others + self.hints
    unit = np.repeat(np.float32([1, 1 / self.scale]), [others, 4])
    kernels = [self.motion_in_0.kernel * unit[None, None, :, None]]
    if self.spatial_path:
      kernels.append(self.spatial_0.kernel)
    if first:
      x = frames.astype(self.dtype)
      kernels = [k[:, :, :6] + k[:, :, 6:12] for k in kernels]
    else:
      known = [] if hints is None else [hints]
      stack = [frames, state.older, state.newer, mask, *known, flow]
      x = layout.concatenate([part.astype(self.dtype) for part in stack])
    if self.scale == 1:
      both = conv.conv(x, jnp.concatenate(kernels, -1), stride=2, padding=1)
      motion, *spatial = jnp.split(both, [self.width // 2], -1)
    else:
      small = resize.bilinear(x, scale=1 / self.scale)
      motion = conv.conv(small, kernels[0], stride=2, padding=1)
      spatial = [conv.conv(x, k, stride=2, padding=1) for k in kernels[1:]]
    motion = self._motion(self.motion_in_0.finish(motion))
    split = self.width // 4
    with jax.named_scope('head'):
      out = conv.enlarged_transposed_conv(
        motion, self.head.kernel[:, :, :split], 2 * self.scale
      )
    if self.spatial_path:
      spatial = self.spatial_1(self.spatial_0.finish(spatial[0]))
      with jax.named_scope('head'):
        out += conv.folded_transposed_conv(
          spatial, self.head.kernel[:, :, split:]
        )
    return layout.depth_to_space(self.head.finish(out.astype(jnp.float32)))

  def _motion(self, x):
    """The motion path from its second convolution to its last."""
    x = self.motion_in_1(x, 2)
    deep = self.motion_mid_2(self.motion_mid_1(self.motion_mid_0(x)))
    return self.motion_out(deep + x)
