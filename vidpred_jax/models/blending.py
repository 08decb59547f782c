"""Two frames warped to the time of a new frame, and their plain blend.

`blend` is frame interpolation by warping alone: without a parameter, once the
flow is known. `models.apr_vfi` begins from it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax.models import ebme
from vidpred_jax.ops import layout, routing, splat, variational, warp


class Prepared(NamedTuple):
  """The results that do not depend on the time of the new frame.

  Attributes:
    pair: [B, 2, H, W, 3], the frames.
    flow: [B, H, W, 4], of frame 0 to 1, then of 1 to 0; or None, where it is
      estimated for each time.
    contexts: features [B, 2, H, W, c] of both frames, one for each block.
    pyramid: the flow at each level, see `models.ebme.Estimate`.
    around: [B, 2, H, W, 3], the frame before the first and the one after the
      second, at the same distance; or None.
  """

  pair: jax.Array
  flow: jax.Array | None
  contexts: tuple[jax.Array, ...]
  pyramid: tuple[jax.Array, ...] = ()
  around: jax.Array | None = None


class Warped(NamedTuple):
  """Both frames, warped to the time of the new frame.

  Attributes:
    frames: [B, 2, H, W, 3], the warped frames; in holes 0, or the border that
      `warp_backward` repeats.
    flows: [B, 2, H, W, 2], the flows `to` at the new frame's pixels.
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


def warp_forward(prepared: Prepared, time) -> Warped:
  """Warps both frames to a time by splatting (equation 1 of APR-VFI).

  Args:
    prepared: both frames and their flow.
    time: a scalar in (0, 1).

  Returns:
    A `Warped`.
  """
  assert prepared.flow is not None  # there is one where it is learned
  time = jnp.asarray(time, jnp.float32)
  to = ebme.per_frame_flow(prepared.flow)
  to = to.reshape(-1, 2, *to.shape[1:])
  to = to * jnp.stack([time, 1 - time])[None, :, None, None, None]
  both = jnp.concatenate([prepared.pair, to], -1)
  both, weight = splat.forward(flatten_pair(both), flatten_pair(to))
  both = both.reshape(*to.shape[:4], -1)
  weight = weight.reshape(*to.shape[:4], -1)
  return Warped(both[..., :3], both[..., 3:], weight, to, time)


def warp_backward(prepared: Prepared, time) -> Warped:
  """Reads both frames along the flow of the frame at a time.

  The flow is `ops.variational.optical_flow`. Frames are read by cubic
  convolution. A pixel that reads outside a frame is a hole of it. With the
  frames around the two, motion is not at constant velocity, see `_bend`.

  Args:
    prepared: both frames.
    time: a scalar in (0, 1).

  Returns:
    A `Warped`; its `to` is known at the pixels of the new frame.
  """
  time = jnp.asarray(time, jnp.float32)
  older, newer = prepared.pair[:, 0], prepared.pair[:, 1]
  flow = variational.optical_flow(older, newer, time=time, thorough=True)
  to = jnp.stack([time * flow, (time - 1) * flow], 1)
  if prepared.around is not None:
    to = to - _bend(prepared, flow, time)[:, None]
  back = -flatten_pair(to)
  weight = warp.inside(back).astype(jnp.float32).reshape(*to.shape[:4], 1)
  frames = layout.materialize(
    flatten_pair(prepared.pair),
    function=lambda pair: warp.backward_cubic(pair, back),
  )
  return Warped(frames.reshape(prepared.pair.shape), to, weight, to, time)


def _bend(prepared, flow, time):
  """How far motion at a time leaves the line between both frames, [B, H, W, 2].

  The acceleration a is half the difference of the flows after and before, in
  pixels. A path with these ends and this acceleration is left of the line by
  a t (1 - t) / 2 (Xu et al., "Quadratic video interpolation", NeurIPS 2019,
  equation 3, with the mean of both accelerations). A frame that equals its
  neighbour bit for bit, such as one given again, tells nothing: then the flow
  before, or after, counts as the same.
  """
  count = len(flow)
  oldest, newest = prepared.around[:, 0], prepared.around[:, 1]
  first = jnp.concatenate([oldest, prepared.pair[:, 1]])
  second = jnp.concatenate([prepared.pair[:, 0], newest])
  # The new frame is so long after the first frame of each of these pairs.
  times = jnp.repeat(jnp.stack([1 + time, time - 1]), count)
  flows = variational.optical_flow(first, second, time=times, half=True)
  known = jnp.any(first != second, (1, 2, 3), keepdims=True)
  flows = jnp.where(known, flows, jnp.concatenate([flow, flow]))
  before, after = flows[:count], flows[count:]
  return (after - before) / 2 * time * (1 - time) / 2


def splatter(warped: Warped, patch: int | None) -> Callable:
  """Splats features along `warped.to`, as the frames were.

  Args:
    warped: from `warp_forward`.
    patch: P, or None where only whole images are asked for.

  Returns:
    A function of features [B, 2, H, W, c] that returns [B, H, W, 2 c], and with
    indices [K] of patches too, only these, [K, P, P, 2 c], 0 outside the image.
  """
  if patch is not None:
    # Only a CPU uses the bins; elsewhere XLA drops them. Without the barrier
    # XLA might recompute the flow, rounded in another way than for `weight`.
    to = jax.lax.optimization_barrier(warped.to)
    bins = splat.bin_by_patch(to, patch)
    weights = routing.to_patches(concat_pair(warped.weight), patch)

  # As `splat.forward`, but the weight is known.
  def splatted(context, at=None):
    if at is None:
      sums = splat.splat(flatten_pair(context), flatten_pair(warped.to))
      sums = sums.reshape(context.shape)
      weight = warped.weight
      return concat_pair(sums / jnp.where(weight == 0, 1, weight))
    sums = splat.splat_patches(context, bins, patch, at)
    weight = weights[at][..., None]
    # Outside the image the weight is 0 although the sum is not; dividing by
    # infinity gives 0.
    sums = sums / jnp.where(weight == 0, jnp.inf, weight)
    return sums.reshape(*sums.shape[:3], -1)

  return splatted


def reader(warped: Warped, patch: int | None) -> Callable:
  """Reads features along `-warped.to`, bilinearly.

  Args:
    warped: from `warp_backward`.
    patch: as of `splatter`.

  Returns:
    As `splatter`.
  """
  flow = -flatten_pair(warped.to)
  batch, _, height, width, _ = warped.to.shape
  if patch is not None:
    # All images of a batch are one, below each other.
    x, y = warp.points(flow)
    y = jnp.clip(y, 0, height - 1).reshape(batch, 2, height, width)
    y = y + height * jnp.arange(batch)[:, None, None, None]
    places = jnp.stack([x.reshape(y.shape), y, jnp.ones_like(y)], -1)
    places = routing.to_patches(concat_pair(places), patch)

  def read(context, at=None):
    if at is None:
      whole = warp.backward(flatten_pair(context), flow)
      return concat_pair(whole.reshape(context.shape))
    found = []
    for i in range(2):
      image = context[:, i].reshape(1, batch * height, width, -1)
      x, y, exists = jnp.split(places[at][..., 3 * i : 3 * i + 3], 3, -1)
      values = warp.sample(image, x[None, ..., 0], y[None, ..., 0])[0]
      found.append(values * exists)
    return jnp.concatenate(found, -1)

  return read


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
  near = 1 - warped.time, warped.time
  nothing = _nothing(warped)
  first, second = (
    jnp.where(nothing, x, x * (warped.weight[:, i] > 0))
    for i, x in enumerate(near)
  )
  total = first + second
  frames = fill_holes(prepared, warped)
  frame = (first * frames[:, 0] + second * frames[:, 1]) / total
  return Output(frame, first / total)


def fill_holes(prepared: Prepared, warped: Warped) -> jax.Array:
  """The warped frames; where both have a hole, the frames without warping.

  Args:
    prepared: both frames.
    warped: both at the wanted time.

  Returns:
    [B, 2, H, W, 3].
  """
  nothing = _nothing(warped)[:, None]
  return jnp.where(nothing, prepared.pair, warped.frames)


def _nothing(warped):
  """Whether both frames have a hole, [B, H, W, 1]."""
  return (warped.weight[:, 0] == 0) & (warped.weight[:, 1] == 0)
