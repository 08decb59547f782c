"""Two frames warped to the time of a new frame, and their plain blend.

`blend` is frame interpolation by forward warping alone: without a parameter,
once the flow is known. `models.apr_vfi` begins from it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Prepared(NamedTuple):
  """The results that do not depend on the time of the new frame.

  Attributes:
    pair: [B, 2, H, W, 3], the frames.
    flow: [B, H, W, 4], of frame 0 to 1, then of 1 to 0; or None, where it is
      estimated for each time.
    contexts: features [B, 2, H, W, c] of both frames, one for each block.
    pyramid: the flow at each level, see `models.ebme.Estimate`.
  """

  pair: jax.Array
  flow: jax.Array | None
  contexts: tuple[jax.Array, ...]
  pyramid: tuple[jax.Array, ...] = ()


class Warped(NamedTuple):
  """Both frames, warped to the time of the new frame.

  Attributes:
    frames: [B, 2, H, W, 3], the warped frames; 0 in holes.
    flows: [B, 2, H, W, 2], the flows `to`, warped along themselves.
    weight: [B, 2, H, W, 1], the splatted weight; 0 in holes.
    to: [B, 2, H, W, 2], the flow of each frame to that time.
    time: a scalar in (0, 1).
  """

  frames: jax.Array
  flows: jax.Array
  weight: jax.Array
  to: jax.Array
  time: jax.Array


class Output(NamedTuple):
  """An interpolated frame.

  Attributes:
    frame: [B, H, W, 3], not clipped to [0, 1].
    mask: [B, H, W, 1], M of equation 2, in [0, 1].
  """

  frame: jax.Array
  mask: jax.Array


def flatten_pair(x: jax.Array) -> jax.Array:
  """[B, 2, H, W, C] to [2 B, H, W, C]."""
  return x.reshape(-1, *x.shape[2:])


def concat_pair(x: jax.Array) -> jax.Array:
  """[B, 2, H, W, C] to [B, H, W, 2 C]."""
  return jnp.concatenate([x[:, 0], x[:, 1]], -1)


def blend_logit(warped: Warped) -> jax.Array:
  """The logit of frame 0's weight in plain forward warping.

  Each frame's weight is its nearness in time; in its holes it is a thousandth
  of that.

  Args:
    warped: both frames at the wanted time.

  Returns:
    [B, H, W, 1]; its sigmoid is the weight of frame 0.
  """
  arrived = jnp.where(warped.weight > 0, 1.0, 1e-3)
  odds = jnp.log(1 - warped.time) - jnp.log(warped.time)
  return odds + jnp.log(arrived[:, 0]) - jnp.log(arrived[:, 1])


def blend(prepared: Prepared, warped: Warped) -> Output:
  """Plain forward warping, without a synthesis network.

  The result is the mean of both warped frames, weighted by their nearness in
  time. Where one frame has a hole it is the other one; where both have a hole
  it is the mean of the two frames without warping.

  Args:
    prepared: both frames.
    warped: both at the wanted time.

  Returns:
    An `Output`.
  """
  near = jnp.stack([1 - warped.time, warped.time])[None, :, None, None, None]
  weight = near * (warped.weight > 0)
  nothing = jnp.sum(weight, 1, keepdims=True) == 0
  weight = jnp.where(nothing, near, weight)
  total = jnp.sum(weight, 1)
  frame = jnp.sum(weight * fill_holes(prepared, warped), 1) / total
  return Output(frame, weight[:, 0] / total)


def fill_holes(prepared: Prepared, warped: Warped) -> jax.Array:
  """The warped frames; where both have a hole, the frames without warping.

  Args:
    prepared: both frames.
    warped: both at the wanted time.

  Returns:
    [B, 2, H, W, 3].
  """
  nothing = jnp.sum(warped.weight, 1, keepdims=True) == 0
  return jnp.where(nothing, prepared.pair, warped.frames)
