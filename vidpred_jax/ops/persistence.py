"""How velocity goes on from frame to frame, fitted to the frames given.

A camera on a car keeps its velocity. One in a hand does not, nor does a hand
that waves: carried on, such motion is soon further off than none. With d the
displacement between the last two frames, that of the j-th frame to come is
taken to be KEPT q^(j - 1) d. The factor q is the one that would have served
best among the frames given.

The flow is estimated once, and each thing takes its velocity with it from frame
to frame. The flows are put together and the last true frame is read once: what
is read between pixels is softened, and would be anew with each frame.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.ops import variational, warp

KEPT = 0.95  # of the velocity is kept by the next frame
LEAST_FRAMES = 5

_FACTORS = np.array([KEPT, 1.0, 0.85, 0.7, 0.5, 0.3, 0.0], np.float32)
_STEPS = LEAST_FRAMES - 2  # so many frames on the past is predicted
_DOUBT = 0.2  # relative error that a factor must win for each 1 off KEPT
_SLACK = 0.1  # pixels by which flows may differ
_SIDE = 4  # the flow is that of means of so many pixels, then averaged again
_TRANSPORTS = 2  # iterations until a velocity is that of what is shown


def first_flow(older: jax.Array, newer: jax.Array) -> jax.Array:
  """The flow of the next frame if motion goes on, a little slower.

  It is `variational.optical_flow`, estimated at the next frame's pixels.

  Args:
    older: [B, H, W, 3] in [0, 1].
    newer: the frame after it.

  Returns:
    [B, H, W, 4], (dx, dy) in pixels into the older, then into the newer frame.
    It has no gradient.
  """
  back = variational.optical_flow(newer, older, time=-KEPT)
  return jnp.concatenate([(1 + KEPT) * back, KEPT * back], -1)


def go_on(
  frame: jax.Array, flow: jax.Array, kept: float | jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
  """Shows a frame as its motion goes on.

  Args:
    frame: [B, H, W, C], the last true frame.
    flow: [B, H, W, 2], (dx, dy) in pixels, by which the first predicted frame
      reads it.
    kept: the share of velocity that is kept from frame to frame, q, a scalar or
      [B].
    count: how many frames.

  Returns:
    `(frames, flows)`: [B, count, H, W, C], from the second predicted frame on;
    and the flow of each [B, count, H, W, 4] into the two frames before it, the
    older first.
  """
  kept = jnp.reshape(kept, (-1, 1, 1, 1))

  def step(carry, _):
    flow, place = carry
    velocity = flow
    for _ in range(_TRANSPORTS):
      # That of what is shown, at the place where the frame before has it.
      velocity = warp.backward(flow, kept * velocity)
    newer = kept * velocity
    place = newer + warp.backward(place, newer)
    flows = jnp.concatenate([newer + velocity, newer], -1)
    return (newer, place), (warp.backward(frame, place), flows)

  _, outputs = jax.lax.scan(step, (flow, flow), length=count)
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)


def factor(frames: jax.Array) -> jax.Array:
  """Fits q to frames, one after another.

  Args:
    frames: [B, K, H, W, 3] in [0, 1], K at least `LEAST_FRAMES`. A frame that
      equals the one before it bit for bit, such as one given again, tells
      nothing.

  Returns:
    [B], in [0, 1]; `KEPT` where the frames tell nothing. It has no gradient.
  """
  chex.assert_rank(frames, 5)
  count = frames.shape[1] - 1 - _STEPS
  assert count > 0, frames.shape
  velocities = _velocities(jax.lax.stop_gradient(frames))
  went = sum(velocities[:, j : j + count] for j in range(1, _STEPS + 1))
  lengths = KEPT * np.sum([_FACTORS**j for j in range(_STEPS)], 0)
  lengths = lengths.reshape(-1, 1, 1, 1, 1, 1)
  off = went[None] - lengths * velocities[None, :, :count]
  errors = jnp.sqrt(jnp.sum(off**2, -1) + _SLACK**2)
  moved = jnp.any(frames[:, 1:] != frames[:, :-1], (2, 3, 4))
  known = [moved[:, j : j + count] for j in range(_STEPS + 1)]
  known = jnp.stack(known).all(0)[None]
  error = jnp.sum(jnp.mean(errors, (-2, -1)), -1, where=known)  # [factors, B]
  error *= 1 + _DOUBT * np.abs(_FACTORS - KEPT)[:, None]
  return jnp.asarray(_FACTORS)[jnp.argmin(error, 0)]


def _velocities(frames):
  """The flow back from each frame to the one before, [B, K - 1, h, w, 2].

  All are in pixels, and those of what the last frame shows at that place.
  """
  batch, count = frames.shape[:2]
  small = _means(frames.reshape(-1, *frames.shape[2:]))
  small = small.reshape(batch, count, *small.shape[1:])
  older, newer = (
    x.reshape(-1, *small.shape[2:]) for x in (small[:, :-1], small[:, 1:])
  )
  flows = variational.optical_flow(newer, older)
  flows = flows.reshape(batch, count - 1, *flows.shape[1:])

  def moved(place, flow):
    there = warp.backward(flow, place)
    return place + there, there

  flows = jnp.swapaxes(flows, 0, 1)
  _, before = jax.lax.scan(moved, flows[-1], flows[:-1], reverse=True)
  aligned = jnp.concatenate([before, flows[-1:]])
  means = _means(_SIDE * aligned.reshape(-1, *aligned.shape[2:]))
  return jnp.swapaxes(means.reshape(-1, batch, *means.shape[1:]), 0, 1)


def _means(x):
  """Means of `_SIDE` x `_SIDE` pixels of [N, H, W, C]; edges are repeated."""
  pads = [(0, -size % _SIDE) for size in x.shape[1:3]]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode='edge')
  number, height, width, channels = x.shape
  x = x.reshape(number, height // _SIDE, _SIDE, width // _SIDE, _SIDE, channels)
  return x.mean((2, 4))
