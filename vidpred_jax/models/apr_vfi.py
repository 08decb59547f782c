"""APR-VFI: interpolates frames, with more computation where they disagree.

Forward warping moves both frames, and features of them, along their flows to
the time of the new frame (equation 1). A synthesis network of refine blocks
computes a mask, which mixes the two warped frames, and a residual, which is
added (equation 2). The image is cut into patches. A small network, the router
(alignment-aware patch-level routing, APR), sees how well the warped frames
agree. It selects for each patch which of the blocks after the first process it
(equation 3).

Frames are RGB in [0, 1], `pair` is [B, 2, H, W, 3], any H and W. Flows are
forward flows (`ops/warp.py`). d is the number of blocks after the first, P the
side of a patch, nh x nw the grid of patches.

Chen et al., "Alignment-aware Patch-level Routing for Dynamic Video Frame
Interpolation", 2024; equation and table numbers are this paper's. Neither code
nor weights of it were published, and it does not say how wide or deep anything
is. Chosen here, such that all has 2.17 M parameters (2.2 M), of which the
router 5,126 (5.13 k), and takes 1.75 T multiply-adds for a frame of 2048x1080
(1.73 T), 1.27 T with the default keep ratios (1.27 T); the rows of table 3,
which tell what each block costs, come out within 1 %:

- Motion: `models/ebme.py`, its number of levels by the width.
- Context network: for each block three convolutions, 16 -> 48 -> 48 -> 16
  channels, at full resolution. Only 16 channels are warped, and nothing here
  depends on the time: several frames between the same two share it.
- Warping: average splatting. What is split by the warping is not filled, holes
  are 0; the block sees where they are. In equation 2 what neither frame reaches
  is taken from the frames as they are (`fill_holes`).
- Refine block: 3x3 convolution of stride 2, some more at half resolution, a 4x4
  transposed convolution of stride 2 and a 3x3 convolution to 32 channels, all
  but the last followed by LeakyReLU(0.1); from the second block on the result
  is added to what came in, so that skipping is adding nothing. Widths fall and
  blocks get lighter: (80, 96, 96, 48, 32) channels, (2, 5, 4, 3, 3)
  convolutions at half resolution.
- The first block sees, in place of features of a block before it, the warped
  frames, the warped flows to the wanted time, in units of 64 pixels, and how
  much of each frame arrived (up to 1).
- Add and normalise: the sum of all blocks' features, mean 0 and variance 1 over
  channels, without parameters. A skipped block adds what it passes on.
- Mask and residual: a 3x3 convolution to 4 numbers m, r. The mask is
  sigmoid(m + p), p the logit of how much plain forward warping would take of
  frame 0 (`blend_logit`); the residual 2 sigmoid(r) - 1. The convolution starts
  near 0, so that the untrained network is plain forward warping.
- Router: sees the absolute difference of the warped frames, in units of 1/16,
  the warped flows, in units of 64 pixels, and the warped frames; 3x3
  convolutions to 20 and 14 channels with LeakyReLU(0.1), mean and maximum over
  each patch, and a linear layer to two logits per block, for "skip" and "use".
  Before that layer each number is standardised over the patches of the image:
  the reference asks which patches are the worst of their image, not how bad
  they are. Without this a router ends, in short trainings, with one route for
  all patches, from where the distance to the reference has no gradient. Where
  an image is computed in tiles each tile is such an image; one of a single
  patch has the route of the layer's bias.
- Patches have no border of their neighbours, as table 2 suggests: a block's
  convolutions see zeros around each patch. So a block run on all patches equals
  the block run on the whole image only further from the patches' borders than
  the convolutions reach (`RefineBlock.reach`). Weights must be trained in the
  mode they are used in (stage 2 of the paper). The first block, the context and
  the head do not depend on the route; they always see the whole image. With all
  gates 1 `routed` computes exactly what it computes without routing.
"""

import functools
import math
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vidpred_jax.models import blending, ebme, initial, layers
from vidpred_jax.ops import conv, layout, routing

_FLOW_UNIT = 64.0
_DIFFERENCE_UNIT = 1 / 16
FUSIONS = ('add', 'concat', 'none')


class Context(nn.Module):
  """The context network: full-resolution features of frames for each block.

  Attributes:
    blocks: how many blocks.
    channels: of the features.
    hidden: of the convolutions between.
    dtype: of the convolutions.
  """

  blocks: int
  channels: int
  hidden: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images):
    """[B, H, W, 3] to one [B, H, W, channels] for each block."""
    x, outputs = images.astype(self.dtype), []
    for i in range(self.blocks):
      for j, features in enumerate((self.hidden, self.hidden, self.channels)):
        name, first = f'conv_{i}_{j}', j == 0
        x = ebme.Conv(features, images=first, name=name)(x)
      outputs.append(x)
    return tuple(outputs)


class UpConv(nn.Module):
  """The 4x4 transposed convolution of stride 2 with bias and LeakyReLU(0.1).

  Attributes:
    features: output channels.
  """

  features: int

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] to [B, 2 H, 2 W, features]."""
    shape = (4, 4, x.shape[-1], self.features)
    # He's, for each output sees a quarter of the taps.
    start = initial.truncated_normal(math.sqrt(8 / math.prod(shape[:-1])))
    kernel = initial.param(self, 'kernel', start, shape)
    bias = initial.param(self, 'bias', initial.ZEROS, shape[-1:])
    x = conv.bias_add(conv.transposed_conv(x, kernel), bias)
    return nn.leaky_relu(x, 0.1)


class RefineBlock(nn.Module):
  """A refine block (figure 2): a small encoder-decoder.

  Attributes:
    width: channels at half resolution.
    depth: convolutions at half resolution, after the one of stride 2.
    features: output channels.
    residual: whether the last input is added to the result.
  """

  width: int
  depth: int
  features: int
  residual: bool

  @nn.compact
  def __call__(self, *inputs):
    """Arrays [B, H, W, C_i], H and W even, to [B, H, W, features]."""
    x = jnp.concatenate(inputs, -1)
    x = ebme.Conv(self.width, stride=2, name='down')(x)
    for i in range(self.depth):
      x = ebme.Conv(self.width, name=f'conv_{i}')(x)
    x = UpConv(self.features, name='up')(x)
    x = ebme.Conv(self.features, activated=False, name='out')(x)
    return inputs[-1] + x if self.residual else x

  @property
  def reach(self) -> int:
    """The radius in pixels of the receptive field."""
    # At half resolution one pixel per convolution; up 2, down 1, out 1.
    return 2 * self.depth + 4


class Synthesis(nn.Module):
  """The synthesis network: refine blocks, fusion, mask and residual.

  Attributes:
    widths: of the blocks, see `RefineBlock`.
    depths: of the blocks.
    features: channels between the blocks.
    fusion: 'add', 'concat' or 'none' (table 5).
    patch: side P of the patches; None: the blocks see the whole image.
    dtype: of the convolutions.
  """

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  features: int
  fusion: str = 'add'
  patch: int | None = None
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the parameters."""
    for i in range(len(self.widths)):
      setattr(self, f'block_{i}', self._block(i))
    if self.fusion == 'concat':
      self.fuse = ebme.Conv(self.features)
    # Nearly 0 initially, but with a gradient for all earlier layers.
    small, shape = initial.normal(1e-4), (3, 3, self.features, 4)
    self.head_kernel = initial.param(self, 'head_kernel', small, shape)
    self.head_bias = initial.param(self, 'head_bias', initial.ZEROS, (4,))

  def _block(self, i, **kwargs):
    return RefineBlock(
      self.widths[i], self.depths[i], self.features, i > 0, **kwargs
    )

  def __call__(self, first, contexts, gates=None, *, routed=False):
    """Runs the blocks, the fusion and the head.

    Args:
      first: [B, H, W, C], the input of the first block.
      contexts: for each block, a function that returns its context [B, H, W, 2
        c]. If `routed`, the function also takes indices [K] of patches and
        returns only these, [K, P, P, 2 c], zero outside the image.
      gates: [B, nh, nw, d], for each patch and block after the first; None: all
        are 1. Gates need patches.
      routed: whether patches whose gate is 0 are skipped. It has no gradient.

    Returns:
      [B, H, W, 4], float32: logits of the mask and the residual.
    """
    size = first.shape[1:3]
    even = ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0))
    first = jnp.pad(first.astype(self.dtype), even)
    x = self.block_0(jnp.pad(contexts[0]().astype(self.dtype), even), first)
    whole = x.shape[1:3]
    if self.patch is not None:
      x = routing.to_patches(x, self.patch)
    outputs, rest = [x], ()
    if routed and self.fusion == 'add':
      rest = jnp.zeros(x.shape, jnp.float32)
    for i in range(1, len(self.widths)):
      gate = None if gates is None else gates[..., i - 1].reshape(-1)
      if routed:
        x, rest = self._routed(i, x, rest, contexts[i], gate)
      else:
        context = contexts[i]().astype(self.dtype)
        if self.patch is None:
          context = jnp.pad(context, even)
        else:
          context = routing.to_patches(context, self.patch)
        new = getattr(self, f'block_{i}')(context, x)
        if gate is not None:
          new = x + gate[:, None, None, None].astype(x.dtype) * (new - x)
        x = new
      outputs.append(x)
    if self.fusion == 'concat':
      if self.patch is not None:
        outputs = [routing.from_patches(x, whole) for x in outputs]
      x = self.fuse(jnp.concatenate(outputs, -1))
    else:
      if self.fusion == 'add':
        if routed:
          x = len(outputs) * x.astype(jnp.float32) - rest
        else:
          x = sum(x.astype(jnp.float32) for x in outputs)
        x = layers.normalised(x)
      if self.patch is not None:
        x = routing.from_patches(x, whole)
    with jax.named_scope('head'):
      x = conv.conv(x.astype(jnp.float32), self.head_kernel, padding=1)
    return conv.bias_add(x, self.head_bias)[:, : size[0], : size[1]]

  def _routed(self, i, x, rest, context, gate):
    """Runs block i on the patches [N, P, P, C] whose gate [N] is not 0.

    Also updates `rest`, the difference between (i + 1) x_i and the sum of all
    outputs so far: `rest = (i + 1) x_i - sum_k x_k = sum_k k (x_k - x_(k-1))`.
    A skipped patch changes neither x nor `rest`, so it is not touched at all;
    on a CPU its context is not computed either.
    """
    gate = jnp.ones(x.shape[0]) if gate is None else gate
    block = self._block(i, parent=None)
    weights = {'params': self.variables['params'][f'block_{i}']}

    def refined(context):
      def refine(patches, at):
        x, rest = patches
        with jax.named_scope(f'block_{i}'):
          new = block.apply(weights, context(at).astype(x.dtype), x)
        if self.fusion == 'add':
          rest = rest + i * (new - x).astype(jnp.float32)
        return new, rest

      return routing.apply_to_selected(
        refine, (x, rest), jnp.arange(x.shape[0]), gate
      )

    def from_whole():
      whole = routing.to_patches(context().astype(x.dtype), self.patch)
      return refined(lambda at: whole[at])

    return jax.lax.platform_dependent(
      cpu=lambda: refined(context), default=from_whole
    )


class Router(nn.Module):
  """The router: selects the blocks that process each patch (APR, figure 2).

  Attributes:
    outputs: d, the number of blocks after the first.
    patch: side P of the patches.
  """

  outputs: int
  patch: int

  @nn.compact
  def __call__(self, warped):
    """A `Warped` to logits [B, nh, nw, d, 2], float32."""
    frames, flows = (
      blending.concat_pair(warped.frames),
      blending.concat_pair(warped.flows),
    )
    difference = jnp.abs(frames[..., :3] - frames[..., 3:])
    x = layout.concatenate(
      [difference / _DIFFERENCE_UNIT, flows / _FLOW_UNIT, frames]
    )
    x = ebme.Conv(20, name='conv_0')(x)
    x = ebme.Conv(14, name='conv_1')(x)
    batch, height, width, channels = x.shape
    rows, columns = routing.patch_grid(height, width, self.patch)
    inside = routing.to_patches(jnp.ones((1, height, width, 1)), self.patch)
    inside = jnp.tile(inside, (batch, 1, 1, 1))
    patches = routing.to_patches(x, self.patch)
    mean = jnp.sum(patches, (1, 2)) / jnp.sum(inside, (1, 2))
    most = jnp.max(jnp.where(inside > 0, patches, -jnp.inf), (1, 2))
    pooled = jnp.concatenate([mean, most], -1)
    pooled = pooled.reshape(batch, rows * columns, 2 * channels)
    pooled = layers.normalised(pooled, axis=1)
    logits = layers.Dense(2 * self.outputs, init_scheme='torch', name='linear')(
      pooled
    )
    return logits.reshape(batch, rows, columns, self.outputs, 2)


class APRVFI(nn.Module):
  """The network.

  Attributes:
    synthesised: whether the network has a context and a synthesis network;
      without them frames are made by `blend`.
    routed: whether the network has a router.
    patch: side P of the patches; None: the blocks see the whole image.
    widths: channels of the refine blocks at half resolution.
    depths: convolutions of the refine blocks at half resolution.
    features: channels between the blocks.
    context_channels: features of a frame for each block.
    context_hidden: channels of the convolutions that make them.
    fusion: 'add', 'concat' or 'none' (table 5).
    motion: 'biflownet', as published, or 'variational': see `warp`.
    standardised: of the flow network, see `models.ebme.BiFlowNet`.
    dtype: of the convolutions; flow, warping and routing are float32.
  """

  synthesised: bool = True
  routed: bool = True
  patch: int | None = 64
  widths: tuple[int, ...] = (80, 96, 96, 48, 32)
  depths: tuple[int, ...] = (2, 5, 4, 3, 3)
  features: int = 32
  context_channels: int = 16
  context_hidden: int = 48
  fusion: str = 'add'
  motion: str = 'biflownet'
  standardised: bool = False
  dtype: Any = jnp.float32

  def setup(self):
    """Declares the parameters."""
    if self.motion == 'biflownet':
      self.flow = ebme.BiFlowNet(self.dtype, self.standardised)
    if self.synthesised:
      self.context = Context(
        len(self.widths), self.context_channels, self.context_hidden, self.dtype
      )
      self.synthesis = Synthesis(
        self.widths,
        self.depths,
        self.features,
        self.fusion,
        self.patch,
        self.dtype,
      )
    if self.routed:
      self.router = Router(len(self.widths) - 1, self.patch)

  def __call__(self, pair, time=0.5):
    """Runs the whole network, every block on every patch.

    Args:
      pair: [B, 2, H, W, 3] in [0, 1].
      time: of the new frame, in (0, 1).

    Returns:
      An `Output`.
    """
    prepared = self.prepare(pair)
    warped = self.warp(prepared, time)
    if self.routed and self.is_initializing():
      self.route(warped)
    if not self.synthesised:
      return blending.blend(prepared, warped)
    return self.synthesise(prepared, warped)

  def prepare(self, frames, levels=None):
    """Estimates the flows and the features of both frames.

    Args:
      frames: [B, 2, H, W, 3] in [0, 1]; with 'variational' motion [B, 4, H, W,
        3], too, with the frame before and the one after.
      levels: of the flow's pyramid; None: by the width.

    Returns:
      A `Prepared`.
    """
    chex.assert_shape(frames, (None, {2, 4}, None, None, 3))
    frames, around = frames.astype(jnp.float32), None
    if frames.shape[1] == 4:
      around = jnp.stack([frames[:, 0], frames[:, 3]], 1)
    pair = frames if around is None else frames[:, 1:3]
    flow, pyramid = None, ()
    if self.motion == 'biflownet':
      flow, pyramid = self.flow(pair, levels)
    contexts = ()
    if self.synthesised:
      images = pair.reshape(-1, *pair.shape[2:])
      contexts = tuple(
        x.reshape(-1, 2, *x.shape[1:]) for x in self.context(images)
      )
    return blending.Prepared(pair, flow, contexts, pyramid, around)

  def warp(self, prepared, time):
    """Warps both frames to a time (equation 1).

    With 'variational' motion the flow is `ops.variational.optical_flow` of the
    frame at that time, and frames are read backward along it, by cubic
    convolution: nothing is learnt, and what is fine is kept. The paper does not
    do so. A BiFlowNet of short trainings is less exact.

    Args:
      prepared: a `Prepared`.
      time: in (0, 1).

    Returns:
      A `Warped`.
    """
    if self.motion == 'variational':
      return blending.warp_backward(prepared, time)
    return blending.warp_forward(prepared, time)

  def route(self, warped):
    """Logits [B, nh, nw, d, 2], for "skip" and "use", of a `Warped`."""
    return self.router(warped)

  def synthesise(self, prepared, warped, gates=None, *, routed=False):
    """Synthesises the frame (equations 2 and 3).

    Args:
      prepared: a `Prepared`.
      warped: its `warp` to the time of the frame.
      gates: [B, nh, nw, d] or None, see `Synthesis`.
      routed: see `Synthesis`.

    Returns:
      An `Output`.
    """
    arrived = jnp.minimum(warped.weight, 1)
    first = layout.concatenate(
      [
        blending.concat_pair(warped.frames),
        blending.concat_pair(warped.flows) / _FLOW_UNIT,
        blending.concat_pair(arrived),
      ]
    )

    if routed and self.patch is None:
      raise ValueError('Got routed=True with patch=None; expected patches.')
    patch = self.patch if routed else None
    if self.motion == 'variational':
      warped_context = blending.reader(warped, patch)
    else:
      warped_context = blending.splatter(warped, patch)
    contexts = [
      functools.partial(warped_context, context)
      for context in prepared.contexts
    ]
    out = self.synthesis(first, contexts, gates, routed=routed)
    mask = jax.nn.sigmoid(out[..., :1] + blending.blend_logit(warped))
    residual = 2 * jax.nn.sigmoid(out[..., 1:]) - 1
    frames = blending.fill_holes(prepared, warped)
    older, newer = frames[:, 0], frames[:, 1]
    return blending.Output(mask * older + (1 - mask) * newer + residual, mask)
