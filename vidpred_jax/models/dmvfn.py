"""DMVFN: predicts the next frame by a voxel flow that blocks refine.

The input is two frames, the output the next frame. The voxel flow says for each
pixel of the next frame where to read in each of the two frames (backward flows,
`ops/warp.py`) and how to mix the two values. Each block sees the frames warped
by the current flow and adds an increment. A router selects the blocks that run.
Images are RGB in [0, 1] (any fixed channel order works if training and use
agree). `pair` is [B, 2, H, W, 3] with the older frame first.

Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video Prediction", CVPR
2023; equation and table numbers are this paper's.

Differences from the reference: at inference each sample of a batch has its own
route (the published code applies the first sample's route to all), and an empty
route returns the newer frame, or what the initial flow predicts (published: the
older one).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.models import initial, layers
from vidpred_jax.ops import conv, layout, persistence, resize, warp

_SLOPE = 0.25  # initial slope of a PReLU, as in PyTorch
_OLDER = -4.0  # logit of the older frame's weight where motion goes on


class State(NamedTuple):
  """The state that the blocks refine, float32.

  Attributes:
    voxel: [B, H, W, 5]: (dx, dy) into the older frame, (dx, dy) into the newer
      frame, in pixels, and the logit of the older frame's weight.
    older: [B, H, W, 3], the older frame warped by that flow.
    newer: [B, H, W, 3], the newer frame warped by that flow.
  """

  voxel: jax.Array
  older: jax.Array
  newer: jax.Array


class Output(NamedTuple):
  """The results of a forward pass.

  Attributes:
    frames: the predictions [B, H, W, 3], one after each block.
    flow: [B, H, W, 4], the final flow, (dx, dy) into the older, then into the
      newer frame.
    mask: [B, H, W, 1], the final logit of the older frame's weight.
    flows: [B, H, W, 4], the flow that each of `frames` was made with.
  """

  frames: tuple[jax.Array, ...]
  flow: jax.Array
  mask: jax.Array
  flows: tuple[jax.Array, ...]


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
  """

  width: int
  scale: int
  spatial_path: bool = True
  zero: bool = False
  formulation: str = 'fast'
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the parameters."""
    width = self.width
    self.motion_in_0 = Conv(17, width // 2)
    self.motion_in_1 = Conv(width // 2, width)
    self.motion_mid_0 = Conv(width, width)
    self.motion_mid_1 = Conv(width, width)
    self.motion_mid_2 = Conv(width, width)
    self.motion_out = Conv(width, width // 4)
    inputs = width // 4
    if self.spatial_path:
      self.spatial_0 = Conv(17, 8)
      self.spatial_1 = Conv(8, 8)
      inputs += 8
    self.head = Conv(
      inputs, 5, size=4, transposed=True, activated=False, zero=self.zero
    )

  def __call__(self, frames, state, first=False):
    """The increment of the voxel flow.

    Args:
      frames: [B, H, W, 6], both frames.
      state: the current state.
      first: whether the flow is 0, so that no frame is warped.

    Returns:
      [B, H, W, 5] to be added to `state.voxel`, float32.
    """
    if self.formulation == 'published':
      return self._published(frames, state)
    return self._fast(frames, state, first)

  def _published(self, frames, state):
    """Computes the layers as the paper draws them."""
    flow, mask = state.voxel[..., :4], state.voxel[..., 4:]
    x = jnp.concatenate([frames, state.older, state.newer, mask], -1)
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

  def _fast(self, frames, state, first):
    """Equals `_published`, with linear operations merged or moved.

    They are moved to lower resolution. Both paths share one convolution where
    they have the same input. The head mixes the channels of the motion path
    before they are enlarged. In the first block the warped frames equal the
    frames, so each is convolved once.
    """
    flow, mask = state.voxel[..., :4], state.voxel[..., 4:]
    # The motion path sees the flow in small pixels.
    unit = np.repeat(np.float32([1, 1 / self.scale]), [13, 4])
    kernels = [self.motion_in_0.kernel * unit[None, None, :, None]]
    if self.spatial_path:
      kernels.append(self.spatial_0.kernel)
    if first:
      x = frames.astype(self.dtype)
      kernels = [k[:, :, :6] + k[:, :, 6:12] for k in kernels]
    else:
      stack = [frames, state.older, state.newer, mask, flow]
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


def default_widths(num_blocks: int) -> tuple[int, ...]:
  """160, 80 and 44 channels for the first, second and last third."""
  return tuple((160, 80, 44)[3 * i // num_blocks] for i in range(num_blocks))


def size_multiple(scales: Sequence[int], router_scale: int) -> int:
  """The divisor that H and W must have: 16 for the published network."""
  return math.lcm(*(4 * scale for scale in scales), router_scale)


class DMVFN(nn.Module):
  """The network.

  Attributes:
    scales: the blocks' scale factors S^i, any number of blocks.
    widths: the blocks' channels; None is `default_widths`.
    spatial_path: whether blocks have the full-resolution path (table 7).
    router_outputs: logits per block of the router; 0 for no router.
    router_scale: the router sees the frames downsampled by it (published: 1).
    router_standardised: the router sees the pair less its mean, in units of its
      standard deviation (published: as it is).
    initial_flow: 'zero', as published, or 'variational': that of
      `ops.persistence.first_flow`, where the newer frame counts. Then the
      untrained network predicts what it begins with.
    formulation: 'fast', or 'published' for the layers one by one as the paper
      draws them. The same function of the same parameters.
    dtype: of the blocks' convolutions. The router, the flow and the warping are
      always float32.
  """

  scales: tuple[int, ...] = (4, 4, 4, 2, 2, 2, 1, 1, 1)
  widths: tuple[int, ...] | None = None
  spatial_path: bool = True
  router_outputs: int = 1
  router_scale: int = 1
  router_standardised: bool = False
  initial_flow: str = 'zero'
  formulation: str = 'fast'
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the parameters."""
    if self.router_outputs:
      self.router = Router(
        len(self.scales) * self.router_outputs,
        self.router_scale,
        self.formulation,
      )
    for i in range(len(self.scales)):
      setattr(self, f'block_{i}', self._block(i))

  def _block(self, i, **kwargs):
    widths = self.widths or default_widths(len(self.scales))
    return Block(
      widths[i],
      self.scales[i],
      self.spatial_path,
      self.initial_flow != 'zero',
      self.formulation,
      self.dtype,
      **kwargs,
    )

  def _unwarped(self, i):
    """Whether block i sees the frames as they are."""
    return i == 0 and self.initial_flow == 'zero'

  def route(self, pair):
    """The router's logits.

    Args:
      pair: [B, 2, H, W, 3].

    Returns:
      Logits [B, n, router_outputs], float32.
    """
    frames = concat_pair(pair)
    if self.router_standardised:
      frames = standardised(frames)
    logits = self.router(frames)
    return logits.reshape(
      logits.shape[0], len(self.scales), self.router_outputs
    )

  def __call__(self, pair, gates=None):
    """Runs every block and multiplies each increment by the block's gate.

    The prediction after block i is made as if its gate were 1. The gate changes
    only the last prediction and the state that later blocks see. So a block is
    trained also on samples that do not use it.

    Args:
      pair: [B, 2, H, W, 3] in [0, 1].
      gates: [B, n]; None for all ones.

    Returns:
      An `Output` with n predictions.
    """
    frames = concat_pair(pair)
    state = initial_state(pair, initial_flow=self.initial_flow)
    outputs, flows = [], []
    for i in range(len(self.scales)):
      block = getattr(self, f'block_{i}')
      step = block(frames, state, first=self._unwarped(i))
      ungated = gated = warp_frames(frames, state.voxel + step)
      if gates is not None:
        gate = gates[:, i, None, None, None]
        gated = warp_frames(frames, state.voxel + gate * step)
      last = i == len(self.scales) - 1
      shown = gated if last else ungated
      outputs.append(blend(shown))
      flows.append(shown.voxel[..., :4])
      state = gated
    if self.is_initializing() and self.router_outputs:
      self.route(pair)
    flow, mask = state.voxel[..., :4], state.voxel[..., 4:]
    return Output(tuple(outputs), flow, mask, tuple(flows))

  def run_route(self, pair, gates, flow=None):
    """Runs, for each sample, only the blocks whose gates are not 0.

    On a CPU the samples run one after the other, so that a skipped block costs
    nothing. Elsewhere they run together, so that the device is full: a block
    runs if any sample uses it, and the others keep what they had.

    Args:
      pair: [B, 2, H, W, 3] in [0, 1].
      gates: [B, n], 0 or 1.
      flow: [B, H, W, 4], to begin with where `initial_flow` is 'variational',
        if it is known already.

    Returns:
      An `Output` with one prediction, the last.
    """
    params = self.variables['params']

    def together(frames, gates, state):
      for i in range(len(self.scales)):
        block, on = self._block(i, parent=None), gates[:, i] != 0

        def use(state, i=i, block=block, on=on):
          with jax.named_scope(f'block_{i}'):
            weights = {'params': params[f'block_{i}']}
            step = block.apply(weights, frames, state, first=self._unwarped(i))
            new = warp_frames(frames, state.voxel + step)
          if on.shape[0] == 1:
            return new
          used = on[:, None, None, None]
          return jax.tree.map(lambda x, y: jnp.where(used, x, y), new, state)

        state = jax.lax.cond(jnp.any(on), use, lambda state: state, state)
      flow, mask = state.voxel[..., :4], state.voxel[..., 4:]
      return Output((blend(state),), flow, mask, (flow,))

    def one_by_one(*given):
      def one(sample):
        output = together(*jax.tree.map(lambda x: x[None], sample))
        return jax.tree.map(lambda x: x[0], output)

      return jax.lax.map(one, given)

    frames = concat_pair(pair)
    given = (
      frames,
      gates,
      initial_state(pair, initial_flow=self.initial_flow, flow=flow),
    )
    if pair.shape[0] == 1:
      return together(*given)
    return jax.lax.platform_dependent(*given, cpu=one_by_one, default=together)


def concat_pair(pair: jax.Array) -> jax.Array:
  """[B, 2, H, W, 3] to [B, H, W, 6], older frame first."""
  chex.assert_shape(pair, (None, 2, None, None, 3))
  return jnp.concatenate([pair[:, 0], pair[:, 1]], -1).astype(jnp.float32)


def standardised(frames: jax.Array) -> jax.Array:
  """Frames [B, H, W, 6] of mean 0 and deviation 1, each pair by itself.

  What is left of a pair without brightness and contrast is texture and motion.
  The variance is increased by 1e-4, so that flat frames stay flat.

  Args:
    frames: [B, H, W, 6].

  Returns:
    [B, H, W, 6].
  """
  mean = jnp.mean(frames, (1, 2, 3), keepdims=True)
  variance = jnp.var(frames, (1, 2, 3), keepdims=True)
  return (frames - mean) * jax.lax.rsqrt(variance + 1e-4)


def initial_state(
  pair: jax.Array, *, initial_flow: str = 'zero', flow: jax.Array | None = None
) -> State:
  """The state before the first block.

  Args:
    pair: [B, 2, H, W, 3].
    initial_flow: see `DMVFN`.
    flow: [B, H, W, 4], where it is 'variational' and known already.

  Returns:
    A `State`.
  """
  frames = concat_pair(pair)
  if initial_flow == 'zero':
    voxel = jnp.zeros((*frames.shape[:-1], 5), jnp.float32)
    return State(voxel, frames[..., :3], frames[..., 3:])
  if flow is None:
    flow, _ = persistence.first_flow(pair)
  logit = jnp.full((*flow.shape[:-1], 1), _OLDER)
  return warp_frames(frames, jnp.concatenate([flow, logit], -1))


def warp_frames(frames: jax.Array, voxel: jax.Array) -> State:
  """The state with this voxel flow, from frames [B, H, W, 6]."""
  older = warp.backward(frames[..., :3], voxel[..., :2])
  newer = warp.backward(frames[..., 3:], voxel[..., 2:4])
  return State(voxel, older, newer)


def blend(state: State) -> jax.Array:
  """The prediction [B, H, W, 3] in [0, 1] (equation 3)."""
  weight = jax.nn.sigmoid(state.voxel[..., 4:])
  return jnp.clip(weight * state.older + (1 - weight) * state.newer, 0, 1)
