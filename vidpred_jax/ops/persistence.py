"""How velocity goes on from frame to frame, fitted to the frames given.

A camera on a car keeps its velocity. One in a hand does not, nor does a hand
that waves: carried on, such motion is soon further off than none. With d the
displacement between the last two frames, that of the j-th frame to come is
taken to be p q^(j - 1) d, where p = 0.75 + 0.25 q^2: the next frame is
less in doubt than those after it. The factor q is the one that would have
served best among the frames given. Of two frames, p = q = KEPT.

The flow is estimated once, and each thing takes its velocity with it from frame
to frame. The flows are put together and the last true frame is read once: what
is read between pixels is softened, and would be anew with each frame.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.ops import variational, warp

KEPT = 0.95  # of the velocity, where frames do not tell
LEAST_FRAMES = 5

_LEAST = 0.75  # of the velocity is kept by the next frame
_FACTORS = np.array([KEPT, 1.0, 0.85, 0.7, 0.5, 0.3, 0.0], np.float32)
_STEPS = LEAST_FRAMES - 2  # so many frames on the past is predicted
# A factor must win so much of the error for each 1 that it is off the likely.
_LIKELY, _DOUBT = 0.85, 0.2
_SLACK = 0.1  # pixels by which flows may differ
_SIDE = 4  # means of so many pixels of the flow, which is a quarter's, count
_TRANSPORTS = 2  # iterations until a velocity is that of what is shown


def first_flow(context: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The flow of the next frame if motion goes on; and q.

  The flow is `variational.optical_flow` at the next frame's pixels. With less
  than `LEAST_FRAMES` frames both factors are `KEPT`.

  Args:
    context: [B, K, H, W, 3] in [0, 1], frames one after another, at least two.
      A frame that equals the one before it bit for bit, such as one given
      again, tells nothing of the factor.

  Returns:
    `(flow, q)`. The flow [B, H, W, 4], (dx, dy) in pixels into the last frame
    but one, then into the last. The factor [B] in [0, 1]; `KEPT` where the
    frames tell nothing. They have no gradient.
  """
  (flow,), kept = first_flows(context)
  return flow, kept


def first_flows(
  context: jax.Array, *, tests: int = 0
) -> tuple[list[jax.Array], jax.Array]:
  """As `first_flow`, also for frames that are known.

  Args:
    context: as there.
    tests: for how many of the last frames a flow is wanted, too, as if they
      were to be predicted: 0, or so many that two frames are before each.

  Returns:
    `(flows, q)`. The flow [B, H, W, 4] of the next frame, then of the last, of
    the last but one and so on. These are estimated at the coarse levels only
    and have half the frames' size and unit, [B, ceil(H / 2), ceil(W / 2), 4];
    p is that of the next frame.
  """
  chex.assert_rank(context, 5)
  context = jax.lax.stop_gradient(context)
  batch, count = context.shape[:2]
  # In the first dimension time goes on, so that the last are the last `batch`.
  frames = jnp.swapaxes(context, 0, 1)
  wanted = tests + 1  # flows at frames to come, the next one's last
  older, newer = frames[-1 - wanted : -1], frames[count - wanted :]
  time = jnp.full((wanted * batch,), -KEPT)
  if count >= LEAST_FRAMES:
    older = jnp.concatenate([frames[:-1], older])
    newer = jnp.concatenate([frames[1:], newer])
    time = jnp.concatenate([jnp.zeros((batch * (count - 1),)), time])
  newer, older = (x.reshape(-1, *x.shape[2:]) for x in (newer, older))
  coarse = variational.coarse_flow(newer, older, time=time)
  if count < LEAST_FRAMES:
    kept = next_kept = jnp.full((batch,), KEPT)
  else:
    pixels = 2.0 ** (len(coarse.levels) - 1)
    flows = pixels * coarse.flow[: -batch * wanted]
    moved = jnp.any(context[:, 1:] != context[:, :-1], (2, 3, 4))
    flows = flows.reshape(count - 1, batch, *flows.shape[1:])
    kept, told = _factor(flows, pixels, moved)
    next_kept = jnp.where(told, _next(kept), KEPT)
  next_kept = next_kept.reshape(-1, 1, 1, 1)
  # The coarse levels, from which p follows, are at the pixels of KEPT.
  back = variational.refined_flow(
    variational.Coarse(
      coarse.flow[-batch:],
      tuple(x[:, -batch:] for x in coarse.levels),
      -next_kept,
    )
  )
  flows = [back]
  for n in range(2, wanted + 1):
    end = coarse.flow.shape[0] - (n - 1) * batch
    known = coarse._replace(flow=coarse.flow[end - batch : end])
    flows.append(variational.half_sized(known))
  both = [
    jnp.concatenate([(1 + next_kept) * x, next_kept * x], -1) for x in flows
  ]
  return both, kept


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
    newer, flows = _gone_on(flow, kept)
    place = newer + warp.backward(place, newer)
    return (newer, place), (warp.backward(frame, place), flows)

  _, outputs = jax.lax.scan(step, (flow, flow), length=count)
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)


def paths(
  flow: jax.Array, kept: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
  """Where frames to come read the last two true frames if motion goes on.

  Args:
    flow: [B, H, W, 4], of the next frame, from `first_flow`.
    kept: q, [B].
    count: N, how many frames.

  Returns:
    `(flows, steps)`. Flows [B, N, H, W, 4], (dx, dy) into the last frame but
    one, then into the last; `flow` first. Steps [B, N, H, W, 2], of each frame
    into the one before it.
  """
  kept = jnp.reshape(kept, (-1, 1, 1, 1))
  newer = flow[..., 2:]

  def step(carry, _):
    flow, place, back = carry
    newer, _ = _gone_on(flow, kept)
    place = newer + warp.backward(place, newer)
    back = warp.backward(back, newer)
    both = jnp.concatenate([place + back, place], -1)
    return (newer, place, back), (both, newer)

  start = newer, newer, flow[..., :2] - newer
  _, later = jax.lax.scan(step, start, length=count - 1)
  flows, steps = (
    jnp.concatenate([x[:, None], jnp.swapaxes(more, 0, 1)], 1)
    for x, more in zip((flow, newer), later)
  )
  return flows, steps


def _gone_on(flow, kept):
  """The flow of the next frame into the one before it, and into both before."""
  velocity = flow
  for _ in range(_TRANSPORTS):
    # That of what is shown, at the place where the frame before has it.
    velocity = warp.backward(flow, kept * velocity)
  newer = kept * velocity
  return newer, jnp.concatenate([newer + velocity, newer], -1)


def _next(factor):
  """p of a factor q."""
  return _LEAST + (1 - _LEAST) * factor**2


def _factor(flows, pixels, moved):
  """The factor [B] that would have served best, and whether frames tell it.

  Args:
    flows: [K - 1, B, h, w, 2], from each frame to the one before it.
    pixels: how many of the flows' unit one of their own pixels has.
    moved: [B, K - 1], whether these frames differ.
  """
  velocities = _aligned(flows, pixels)
  count = velocities.shape[1] - _STEPS
  went = sum(velocities[:, j : j + count] for j in range(1, _STEPS + 1))
  lengths = _next(_FACTORS) * np.sum([_FACTORS**j for j in range(_STEPS)], 0)
  lengths = lengths.reshape(-1, 1, 1, 1, 1, 1)
  off = went[None] - lengths * velocities[None, :, :count]
  errors = jnp.sqrt(jnp.sum(off**2, -1) + _SLACK**2)
  known = [moved[:, j : j + count] for j in range(_STEPS + 1)]
  known = jnp.stack(known).all(0)
  error = jnp.mean(errors, (-2, -1))
  error = jnp.sum(error, -1, where=known[None])  # [factors, B]
  error *= 1 + _DOUBT * np.abs(_FACTORS - _LIKELY)[:, None]
  return jnp.asarray(_FACTORS)[jnp.argmin(error, 0)], known.any(-1)


def _aligned(flows, pixels):
  """Means of the flows, [B, K - 1, ...]: of what the last frame shows there."""

  def moved(place, flow):
    there = warp.backward(flow, place / pixels)
    return place + there, there

  _, before = jax.lax.scan(moved, flows[-1], flows[:-1], reverse=True)
  aligned = jnp.concatenate([before, flows[-1:]])
  means = _means(aligned.reshape(-1, *aligned.shape[2:]))
  means = means.reshape(*aligned.shape[:2], *means.shape[1:])
  return jnp.swapaxes(means, 0, 1)


def _means(x):
  """Means of `_SIDE` x `_SIDE` pixels of [N, H, W, C]; edges are repeated."""
  pads = [(0, -size % _SIDE) for size in x.shape[1:3]]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode='edge')
  number, height, width, channels = x.shape
  x = x.reshape(number, height // _SIDE, _SIDE, width // _SIDE, _SIDE, channels)
  return x.mean((2, 4))
