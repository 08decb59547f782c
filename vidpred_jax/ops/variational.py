"""Optical flow without weights: the variational method, from coarse to fine.

It minimises, over a flow u, a sum over pixels of a data term and a smoothness
term (Brox et al., "High Accuracy Optical Flow Estimation Based on a Theory for
Warping", ECCV 2004, equations 1 to 5):

  psi_d(|second(x + (1 - t) u) - first(x - t u)|) + ALPHA psi_s(|gradient of u|)

At the coarse levels of the pyramid ALPHA is small, or what is small would be
lost there; at the fine ones it is larger, or the flow would follow noise.

Here t is the time of the frame that the flow belongs to: 0 is the first frame
and the published term, 1 the second. Between them it is a frame that is not
there yet, and its flow is wanted for interpolation; below 0 or above 1 it is a
frame before or after both. So the flow need not be moved from where it is known
to where it is wanted.

Both frames are grey. Brightness and its two derivatives are compared, so that a
change of light does little. Each difference counts in units of its gradient, as
a distance in pixels (Zimmer et al., "Optic Flow in Harmony", IJCV 2011, section
3.1). psi(s) = sqrt(s^2 + epsilon^2) keeps the borders of objects.

At every level of a pyramid both frames are warped by the flow so far, the
differences are linearised, and increments are solved for (`ops.relaxation`).
There is no gradient: frames are data here.

Smoothness has two faults. They are mended by fusing the flow with constant
ones, pixel by pixel (Lempitsky et al., "FusionFlow", CVPR 2008, without
smoothness). What is written over a moving picture moves with it: at half the
size of the frames the other flow is 0. What is small and fast is lost at the
coarsest levels: at an eighth, and only if it is to be thorough, the others are
all flows of whole pixels up to `_REACH` (compare Brox and Malik, "Large
Displacement Optical Flow", PAMI 2011).
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.ops import relaxation, resize, warp

_ALPHA = (3.0, 2.0, 0.7)  # at full size, at half of it, at the other levels
_LEVELS = 5  # smaller than the frames: 1/2, 1/4, ... 1/32 of them
_QUARTER, _EIGHTH = 2, 3
_SMALLEST = 8  # pixels a side: there is no level after the first with less
_AROUND = 2  # pixels: flows are compared by their differences in 5x5
_UNSEEN = 1.0  # difference where another flow leads out of the frames
_REACH = 5  # pixels of 1/8 of the frames
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class _Others(NamedTuple):
  flows: np.ndarray  # [M, N, 2], N at once
  # The difference of one must be below share * (that of the flow) - margin.
  share: float
  margin: float


_STILL = _Others(np.zeros((1, 1, 2), np.float32), 1.0, 0.01)
_WHOLE = range(-_REACH, _REACH + 1)
# Half, for what repeats itself fits nearly as well a period off.
_FAST = _Others(
  np.array([[(x, y) for x in _WHOLE] for y in _WHOLE], np.float32), 0.5, 0.02
)


class _Iterations(NamedTuple):
  warps: int  # at a level
  coarse_warps: int  # at 1/16 and 1/32; at full size there is one
  outer: int
  inner: int


_FEW = _Iterations(3, 1, 2, 5)
_MANY = _Iterations(5, 5, 3, 10)


class Coarse(NamedTuple):
  """A flow that is estimated at the coarse levels only.

  Attributes:
    flow: [B, h, w, 2], (dx, dy) in pixels of its own size: a quarter of the
      frames' height and width, rounded up, or the coarsest if that is larger.
    levels: the two frames in grey, [2, B, h, w], at the levels that are left,
      the finest first, and at that of the flow.
    time: t, [B, 1, 1, 1].
  """

  flow: jax.Array
  levels: tuple[jax.Array, ...]
  time: jax.Array


def optical_flow(
  first: jax.Array,
  second: jax.Array,
  *,
  time: float | jax.Array = 0.0,
  thorough: bool = False,
  half: bool = False,
) -> jax.Array:
  """Estimates the flow from one frame to another.

  Args:
    first: [B, H, W, 3] in [0, 1].
    second: the same shape.
    time: t, a scalar or [B]: whose pixels the flow belongs to.
    thorough: whether to take more iterations, and to look for what is small and
      fast. It takes two to three times as long.
    half: whether to end at half the frames' size, for half of the time.

  Returns:
    [B, H, W, 2], (dx, dy) in pixels, from the first to the second frame. So
    `warp.backward(first, -time * flow)` and `warp.backward(second, (1 - time) *
    flow)` resemble each other and the frame at that time. It has no gradient.
  """
  coarse = coarse_flow(first, second, time=time, thorough=thorough)
  return refined_flow(coarse, thorough=thorough, half=half)


def coarse_flow(
  first: jax.Array,
  second: jax.Array,
  *,
  time: float | jax.Array = 0.0,
  thorough: bool = False,
) -> Coarse:
  """Estimates the flow at the coarse levels.

  Args:
    first: as in `optical_flow`.
    second: likewise.
    time: likewise.
    thorough: likewise.

  Returns:
    What `refined_flow` goes on with. It has no gradient.
  """
  chex.assert_equal_shape([first, second])
  chex.assert_rank(time, {0, 1})
  chex.assert_shape(first, (None, None, None, 3))
  pair = jax.lax.stop_gradient(jnp.stack([first, second])).astype(jnp.float32)
  pair = jnp.einsum('pbhwc,c->pbhw', pair, _GREY)
  time = jnp.broadcast_to(jnp.asarray(time, jnp.float32), first.shape[:1])
  time = time.reshape(-1, 1, 1, 1)
  levels = [pair]
  for level in range(_LEVELS):
    if level > 0 and min(levels[-1].shape[2:]) < 2 * _SMALLEST:
      break
    levels.append(_halved(levels[-1]))
  counts = _MANY if thorough else _FEW
  flow = jnp.zeros((*levels[-1].shape[1:], 2), jnp.float32)
  quarter = min(_QUARTER, len(levels) - 1)
  for level in reversed(range(quarter, len(levels))):
    frames = levels[level]
    if flow.shape[1:3] != frames.shape[2:]:
      flow = _enlarged(flow, frames.shape[2:])
    warps = counts.coarse_warps if level >= _LEVELS - 1 else counts.warps
    flow = _warped_often(frames, time, flow, level, warps, counts)
    if thorough and level == _EIGHTH:
      flow = _fused(frames, time, flow, _FAST)
      flow = _warped_often(frames, time, flow, level, warps, counts)
  return Coarse(flow, tuple(levels[: quarter + 1]), time)


def refined_flow(
  coarse: Coarse, *, thorough: bool = False, half: bool = False
) -> jax.Array:
  """Brings a flow to the frames' size.

  Args:
    coarse: from `coarse_flow`.
    thorough: as in `optical_flow`.
    half: likewise.

  Returns:
    [B, H, W, 2], as `optical_flow`.
  """
  counts = _MANY if thorough else _FEW
  flow, levels, time = coarse
  if len(levels) > 2:
    flow = _enlarged(flow, levels[1].shape[2:])
    flow = _warped_often(levels[1], time, flow, 1, counts.warps, counts)
  flow = _fused(levels[1], time, flow, _STILL)
  flow = _enlarged(flow, levels[0].shape[2:])
  return flow if half else _warped_often(levels[0], time, flow, 0, 1, counts)


def half_sized(coarse: Coarse) -> jax.Array:
  """A coarse flow as it is, at half the frames' size.

  Args:
    coarse: from `coarse_flow`.

  Returns:
    [B, ceil(H / 2), ceil(W / 2), 2], in pixels of that size.
  """
  flow = coarse.flow
  for level in reversed(coarse.levels[1:-1]):
    flow = _enlarged(flow, level.shape[2:])
  return flow


def _warped_often(frames, time, flow, level, warps, counts):
  """The flow after so many warpings of the two frames at a level."""
  alpha = _ALPHA[min(level, len(_ALPHA) - 1)]

  def once(_, flow):
    return _refined(*frames, time, flow, alpha, counts)

  return jax.lax.fori_loop(0, warps, once, flow)


def _halved(pair):
  """Means of 2x2 pixels, [2, B, H, W] to [2, B, ceil(H / 2), ceil(W / 2)]."""
  height, width = pair.shape[2:]
  pads = ((0, 0), (0, 0), (0, height % 2), (0, width % 2))
  pair = jnp.pad(pair, pads, mode='edge')
  top, bottom = pair[:, :, ::2], pair[:, :, 1::2]
  return 0.25 * sum(x[..., i::2] for x in (top, bottom) for i in (0, 1))


def _enlarged(flow, size):
  """A flow at twice its resolution, cut to a size."""
  return 2 * resize.bilinear(flow, scale=2)[:, : size[0], : size[1]]


def _shifted(x, dy, dx):
  """[B, h, w]: at each pixel its neighbour; at the border itself."""
  height, width = x.shape[1:]
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode='edge')
  return x[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def _gradient(x):
  """Central differences of [B, h, w] along x and along y."""
  return (
    0.5 * (_shifted(x, 0, 1) - _shifted(x, 0, -1)),
    0.5 * (_shifted(x, 1, 0) - _shifted(x, -1, 0)),
  )


def _compared(grey):
  """Brightness and its derivatives, [B, h, w] to [B, h, w, 3]."""
  return jnp.stack([grey, *_gradient(grey)], -1)


def _warped(first, second, time, flow):
  """What is compared of both frames, by the flow, and where both are seen."""
  to_first, to_second = -time * flow, (1 - time) * flow
  first = warp.backward(_compared(first), to_first)
  second = warp.backward(_compared(second), to_second)
  return first, second, warp.inside(to_first) & warp.inside(to_second)


def _refined(first, second, time, flow, alpha, counts):
  """The flow [B, h, w, 2] after one warping, of grey frames [B, h, w]."""
  first, second, seen = _warped(first, second, time, flow)
  return relaxation.relaxed(
    flow, first, second, seen, alpha, outer=counts.outer, inner=counts.inner
  )


def _fused(frames, time, flow, others):
  """The flow [B, h, w, 2]; the best of the others where it is better."""
  first, second = frames

  def distance(flow, unseen):
    first_, second_, seen = _warped(first, second, time, flow)
    distance = jnp.where(seen, jnp.abs(first_ - second_), unseen)
    window = (1, 2 * _AROUND + 1, 2 * _AROUND + 1)
    total = jax.lax.reduce_window(
      warp.sum_channels(distance), 0.0, jax.lax.add, window, (1, 1, 1), 'SAME'
    )
    return total / math.prod(window)

  def closer(best, others):
    least, flow = best
    off = jax.vmap(
      lambda other: distance(jnp.broadcast_to(other, flow.shape), _UNSEEN)
    )(others)
    chosen = others[jnp.argmin(off, 0)]
    off = jnp.min(off, 0)
    chosen = jnp.where((off < least)[..., None], chosen, flow)
    return (jnp.minimum(off, least), chosen), None

  start = others.share * distance(flow, 0.0) - others.margin, flow
  return jax.lax.scan(closer, start, jnp.asarray(others.flows))[0][1]
