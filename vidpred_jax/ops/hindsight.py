"""Hindsight: how wrong the frames given would have been foretold, and where.

What was just foretold wrongly will be again: water, leaves, hands, a camera
that shakes. So the last two frames are predicted from those before them, in
several ways, and compared with what they are. The errors go on with the things
they belong to. By them the blocks of DMVFN weigh the ways, pixel by pixel. It
is ours, not the paper's.

The ways, or candidates: the last frame moved on (A), and the *others*: the last
but one moved on (B), the last moved half as far, the last as it is, and A
blurred by each of `_BLURS`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.ops import persistence, warp

LEAST_FRAMES = persistence.LEAST_FRAMES
OTHERS = 5
HINTS = 31

_TESTS = 2  # frames that are predicted though they are known
_BLURS = (0.7, 1.5)  # pixels, standard deviations
_GAINS = 4.0, 8.0  # differences of candidates and errors are small
_HORIZON = 5.0  # frames


class Hindsight(NamedTuple):
  """What a context tells.

  Attributes:
    flow: [B, H, W, 4], as `persistence.first_flow` has it.
    kept: q, [B].
    errors: [B, H, W, 14], at the pixels of the last frame.
  """

  flow: jax.Array
  kept: jax.Array
  errors: jax.Array


def look_back(context: jax.Array) -> Hindsight:
  """Predicts the last two frames of a context.

  Args:
    context: [B, K, H, W, 3] in [0, 1], at least `LEAST_FRAMES` frames.

  Returns:
    What it tells. It has no gradient.
  """
  if context.shape[1] < LEAST_FRAMES:
    raise ValueError(
      f'Got {context.shape[1]} frames, expected at least {LEAST_FRAMES}.'
    )
  context = jax.lax.stop_gradient(context)
  (flow, *known), kept = persistence.first_flows(context, tests=_TESTS)
  errors = [
    _errors(context[:, -3 - n : -1 - n], context[:, -1 - n], known[n])
    for n in range(_TESTS)
  ]
  errors[1] = warp.backward(errors[1], known[0][..., 2:])
  return Hindsight(flow, kept, jnp.concatenate(errors, -1))


def hints(
  pair: jax.Array, flow: jax.Array, seen: Hindsight, horizon: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Candidates for a frame to come, and what the blocks see of them.

  Args:
    pair: [B, 2, H, W, 3], the last two frames.
    flow: [B, H, W, 4], where the frame reads both, of `persistence.paths`.
    seen: of the context.
    horizon: [B], which frame it is; 1 is the next one.

  Returns:
    `(others, hints)`: [B, `OTHERS`, H, W, 3] and [B, H, W, `HINTS`].
  """
  newer = flow[..., 2:]
  older, shown, half, last = _candidates(pair, flow)
  others = [older, half, last, *(_blurred(shown, size) for size in _BLURS)]
  near, far = _GAINS
  differences = [near * (x - shown) for x in others]
  errors = far * warp.backward(seen.errors, newer)
  plane = (*newer.shape[:3], 1)
  numbers = [
    jnp.broadcast_to(x.reshape(-1, 1, 1, 1), plane)
    for x in (seen.kept, horizon / _HORIZON)
  ]
  seen_by_blocks = jnp.concatenate([*differences, errors, *numbers], -1)
  return jnp.stack(others, 1), seen_by_blocks


def _candidates(pair, flow):
  """B, A, the last frame moved half as far, and as it is."""
  older, last = pair[:, 0], pair[:, 1]
  place = flow[..., 2:]
  return (
    warp.backward(older, flow[..., :2]),
    warp.backward(last, place),
    warp.backward(last, 0.5 * place),
    last,
  )


def _errors(pair, truth, flow):
  """[B, H, W, 7]: each candidate's mean error, and that of A with signs."""
  candidates = _candidates(pair, flow)
  means = [jnp.mean(jnp.abs(x - truth), -1, keepdims=True) for x in candidates]
  return jnp.concatenate([*means, truth - candidates[1]], -1)


def _blurred(x, deviation):
  """[B, H, W, C] by a Gaussian of this standard deviation in pixels."""
  reach = round(3 * deviation)
  taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
  taps = (taps / taps.sum()).astype(np.float32)
  height, width = x.shape[1:3]
  x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode='edge')
  x = sum(tap * x[:, i : i + height] for i, tap in enumerate(taps))
  return sum(tap * x[:, :, i : i + width] for i, tap in enumerate(taps))
