"""DMVFN at half the frames' size, with hindsight: before its blocks and after.

The blocks see everything at half the size, which takes a quarter of the time.
What they add to the voxel flow is enlarged, and the frames are read and mixed
at full size. It is ours, not the paper's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax.models import dmvfn
from vidpred_jax.ops import hindsight, layout, resize


class Begun(NamedTuple):
  """What is known of a frame before the blocks.

  Attributes:
    pair: [B, 2, h, w, 3], the last two frames at half the size.
    start: for the blocks, at half the size.
    frames: [B, 2, H, W, 3], the last two frames.
    flow: [B, H, W, 4], where the frame reads them.
    others: [B, M, H, W, 3], the other candidates.
  """

  pair: jax.Array
  start: dmvfn.Start
  frames: jax.Array
  flow: jax.Array
  others: jax.Array


def begin(
  frames: jax.Array,
  flow: jax.Array,
  seen: hindsight.Hindsight,
  horizon: jax.Array,
) -> Begun:
  """Makes what the blocks see.

  Args:
    frames: [B, 2, H, W, 3].
    flow: [B, H, W, 4].
    seen: of the context.
    horizon: [B], which frame it is; 1 is the next one.

  Returns:
    What is known.
  """
  moved, others = hindsight.candidates(frames, flow)
  small = hindsight.halved(frames)
  flow_small = 0.5 * hindsight.halved(flow)
  others_small = hindsight.halved(others)
  hints = hindsight.hints(
    hindsight.halved(moved), others_small, flow_small, seen, horizon
  )
  start = dmvfn.Start(flow_small, others_small, hints)
  return Begun(small, start, frames, flow, others)


def finish(begun: Begun, voxel: jax.Array) -> tuple[dmvfn.State, jax.Array]:
  """The state at full size, and the other candidates, for `dmvfn.blend`.

  Args:
    begun: what was known.
    voxel: [B, h, w, 5 + M], by the blocks.

  Returns:
    `(state, others)`.
  """
  step = jnp.concatenate(
    [2 * (voxel[..., :4] - begun.start.flow), voxel[..., 4:]], -1
  )
  step = layout.materialize(resize.bilinear(step, scale=2))
  voxel = jnp.concatenate([begun.flow + step[..., :4], step[..., 4:]], -1)
  state = dmvfn.warp_frames(dmvfn.concat_pair(begun.frames), voxel)
  newer, older = map(layout.materialize, (state.newer, state.older))
  return dmvfn.State(voxel, older, newer), begun.others
