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

from vidpred_jax.models.dmvfn_layers import Block, Router
from vidpred_jax.ops import persistence, warp

_OLDER = -4.0  # logit of the older frame's weight where motion goes on


class State(NamedTuple):
  """The state that the blocks refine, float32.

  Attributes:
    voxel: [B, H, W, 5 + M]: (dx, dy) into the older frame, (dx, dy) into the
      newer frame, in pixels, the logit of the older frame's weight, and the
      shares of M other candidates.
    older: [B, H, W, 3], the older frame warped by that flow.
    newer: [B, H, W, 3], the newer frame warped by that flow.
  """

  voxel: jax.Array
  older: jax.Array
  newer: jax.Array


class Start(NamedTuple):
  """What the blocks begin with, see `ops.hindsight`.

  Attributes:
    flow: [B, H, W, 4], into the older and into the newer frame; or None, 0.
    others: [B, M, H, W, 3], candidates beside the two warped frames; or None.
    hints: [B, H, W, E], what else the blocks see; or None.
  """

  flow: jax.Array | None = None
  others: jax.Array | None = None
  hints: jax.Array | None = None


class Output(NamedTuple):
  """The results of a forward pass.

  Attributes:
    frames: the predictions [B, H, W, 3], one after each block.
    flow: [B, H, W, 4], the final flow, (dx, dy) into the older, then into the
      newer frame.
    mask: [B, H, W, 1], the final logit of the older frame's weight.
    voxels: [B, H, W, 5 + M], what each of `frames` was made with, see `State`.
  """

  frames: tuple[jax.Array, ...]
  flow: jax.Array
  mask: jax.Array
  voxels: tuple[jax.Array, ...]


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
    others: M, candidates that a `Start` has (published: none).
    hints: E, channels of its hints (published: none).
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
  others: int = 0
  hints: int = 0

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
      self.others,
      self.hints,
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

  def __call__(self, pair, gates=None, start=None):
    """Runs every block and multiplies each increment by the block's gate.

    The prediction after block i is made as if its gate were 1. The gate changes
    only the last prediction and the state that later blocks see. So a block is
    trained also on samples that do not use it.

    Args:
      pair: [B, 2, H, W, 3] in [0, 1].
      gates: [B, n]; None for all ones.
      start: a `Start`, where `others` or `hints` is not 0.

    Returns:
      An `Output` with n predictions.
    """
    frames = concat_pair(pair)
    start = self.begin(pair, start)
    others, state = start.others, initial_state(pair, start)
    outputs, voxels = [], []
    for i in range(len(self.scales)):
      block = getattr(self, f'block_{i}')
      step = block(frames, state, start.hints, first=self._unwarped(i))
      ungated = gated = warp_frames(frames, state.voxel + step)
      if gates is not None:
        gate = gates[:, i, None, None, None]
        gated = warp_frames(frames, state.voxel + gate * step)
      last = i == len(self.scales) - 1
      shown = gated if last else ungated
      outputs.append(blend(shown, others))
      voxels.append(shown.voxel)
      state = gated
    if self.is_initializing() and self.router_outputs:
      self.route(pair)
    flow, mask = state.voxel[..., :4], state.voxel[..., 4:5]
    return Output(tuple(outputs), flow, mask, tuple(voxels))

  def begin(self, pair, start=None):
    """What the blocks begin with: a given `Start`, or that of the pair alone.

    Args:
      pair: [B, 2, H, W, 3].
      start: what is given.

    Returns:
      A `Start`. Of a pair alone candidates and hints are 0.
    """
    if start is not None or self.initial_flow == 'zero':
      return start or Start()
    shape = pair.shape[:1] + pair.shape[2:4]
    others = jnp.zeros((shape[0], self.others, *shape[1:], 3))
    hints = jnp.zeros((*shape, self.hints))
    return Start(
      persistence.first_flow(pair)[0],
      others if self.others else None,
      hints if self.hints else None,
    )

  def run_route(self, pair, gates, start=None):
    """Runs, for each sample, only the blocks whose gates are not 0.

    On a CPU the samples run one after the other, so that a skipped block costs
    nothing. Elsewhere they run together, so that the device is full: a block
    runs if any sample uses it, and the others keep what they had.

    Args:
      pair: [B, 2, H, W, 3] in [0, 1].
      gates: [B, n], 0 or 1.
      start: a `Start`, if it is known already.

    Returns:
      An `Output` with one prediction, the last.
    """
    params = self.variables['params']

    def together(frames, gates, state, others, hints):
      for i in range(len(self.scales)):
        block, on = self._block(i, parent=None), gates[:, i] != 0

        def use(state, i=i, block=block, on=on):
          with jax.named_scope(f'block_{i}'):
            weights = {'params': params[f'block_{i}']}
            first = self._unwarped(i)
            step = block.apply(weights, frames, state, hints, first=first)
            new = warp_frames(frames, state.voxel + step)
          if on.shape[0] == 1:
            return new
          used = on[:, None, None, None]
          return jax.tree.map(lambda x, y: jnp.where(used, x, y), new, state)

        state = jax.lax.cond(jnp.any(on), use, lambda state: state, state)
      flow, mask = state.voxel[..., :4], state.voxel[..., 4:5]
      return Output((blend(state, others),), flow, mask, (state.voxel,))

    def one_by_one(*given):
      def one(sample):
        output = together(*jax.tree.map(lambda x: x[None], sample))
        return jax.tree.map(lambda x: x[0], output)

      return jax.lax.map(one, given)

    frames = concat_pair(pair)
    start = self.begin(pair, start)
    state = initial_state(pair, start)
    given = frames, gates, state, start.others, start.hints
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


def initial_state(pair: jax.Array, start: Start) -> State:
  """The state before the first block.

  Args:
    pair: [B, 2, H, W, 3].
    start: what the blocks begin with.

  Returns:
    A `State`.
  """
  frames = concat_pair(pair)
  if start.flow is None:
    voxel = jnp.zeros((*frames.shape[:-1], 5), jnp.float32)
    return State(voxel, frames[..., :3], frames[..., 3:])
  others = 0 if start.others is None else start.others.shape[1]
  plane = start.flow.shape[:-1]
  logit, shares = jnp.full((*plane, 1), _OLDER), jnp.zeros((*plane, others))
  voxel = jnp.concatenate([start.flow, logit, shares], -1)
  return warp_frames(frames, voxel)


def warp_frames(frames: jax.Array, voxel: jax.Array) -> State:
  """The state with this voxel flow, from frames [B, H, W, 6]."""
  older = warp.backward(frames[..., :3], voxel[..., :2])
  newer = warp.backward(frames[..., 3:], voxel[..., 2:4])
  return State(voxel, older, newer)


def blend(state: State, others: jax.Array | None) -> jax.Array:
  """The prediction [B, H, W, 3] in [0, 1] (equation 3).

  Args:
    state: the state.
    others: [B, M, H, W, 3], other candidates, which the paper does not have; or
      None.

  Returns:
    The mean of both warped frames, and of each other candidate the share of its
    difference from the newer one.
  """
  older = jax.nn.sigmoid(state.voxel[..., 4:5])
  frame = older * state.older + (1 - older) * state.newer
  if others is not None:
    # One by one: a sum over the axis would be a slow call of a library.
    frame += sum(
      state.voxel[..., 5 + i, None] * (others[:, i] - state.newer)
      for i in range(others.shape[1])
    )
  return jnp.clip(frame, 0, 1)
