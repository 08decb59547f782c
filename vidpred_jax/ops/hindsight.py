"""Hindsight: how wrong the frames given would have been foretold, and where.

What was just foretold wrongly will be again: water, leaves, hands, a camera
that shakes. So the last two frames are predicted from those before them, in
several ways, and compared with what they are. The errors go on with the things
they belong to. By them the blocks of DMVFN weigh the ways, pixel by pixel. It
is ours, not the paper's.

The ways, or candidates: the last frame moved on (A), and the *others*: the last
but one moved on (B), the last moved half as far, the last as it is, and A
blurred.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.ops import layout, persistence, resize, warp

LEAST_FRAMES = persistence.LEAST_FRAMES
OTHERS = 4
HINTS = 28  # channels
VISIBLE = 1 / 255  # of brightness

_TESTS = 2  # frames that are predicted though they are known
_BLUR = 1.5  # pixels, standard deviation
_GAINS = 4.0, 8.0  # differences of candidates and errors are small
_HORIZON = 5.0  # frames
_SIGNED = slice(4, 7)  # those of A for the last frame, of all errors


class Hindsight(NamedTuple):
  """What a context tells.

  Attributes:
    flow: [B, H, W, 4], as `persistence.first_flow` has it.
    kept: q, [B].
    errors: [B, H / 2, W / 2, 14], at the last frame.
  """

  flow: jax.Array
  kept: jax.Array
  errors: jax.Array


def look_back(context: jax.Array) -> Hindsight:
  """Predicts the last two frames of a context.

  Args:
    context: [B, K, H, W, 3] in [0, 1], at least `LEAST_FRAMES` frames; H and W
      are even.

  Returns:
    What it tells. It has no gradient.
  """
  count = context.shape[1]
  if count < LEAST_FRAMES:
    raise ValueError(f'Got {count} frames, expected {LEAST_FRAMES} or more.')
  context = jax.lax.stop_gradient(context)
  (flow, *known), kept = persistence.first_flows(context, tests=_TESTS)
  last = _halved(jnp.swapaxes(context[:, -2 - _TESTS :], 0, 1))
  errors = [
    _errors(last[-3 - n], last[-2 - n], last[-1 - n], known[n])
    for n in range(_TESTS)
  ]
  errors[1] = warp.backward(errors[1], known[0][..., 2:])
  errors = layout.materialize(jnp.concatenate(errors, -1))
  return Hindsight(flow, kept, errors)


def is_visible(seen: Hindsight) -> jax.Array:
  """Whether the last frame would have been foretold wrongly enough to be seen.

  Args:
    seen: of the context.

  Returns:
    [B], whether A was off by `VISIBLE` (root of the mean square).
  """
  errors = seen.errors[..., _SIGNED]
  return jnp.mean(errors**2, (1, 2, 3)) >= VISIBLE**2


def begin(
  pair: jax.Array, flow: jax.Array, seen: Hindsight, horizon: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Candidates for a frame to come, and what the blocks see of them.

  Args:
    pair: [B, 2, H, W, 3], the last two frames; H and W are even.
    flow: [B, H, W, 4], where the frame reads both, of `persistence.paths`.
    seen: of the context.
    horizon: [B], which frame it is; 1 is the next one.

  Returns:
    `(others, hints)`: [B, `OTHERS`, H, W, 3] and [B, H, W, `HINTS`].
  """
  shown, *others = _candidates(pair[:, 0], pair[:, 1], flow)
  others.append(layout.materialize(_blurred(shown)))
  near, far = _GAINS
  differences = [near * (x - shown) for x in others]
  errors = warp.backward(seen.errors, 0.5 * _halved(flow[..., 2:]))
  errors = resize.bilinear(layout.materialize(far * errors), scale=2)
  plane = (*flow.shape[:3], 1)
  numbers = [
    jnp.broadcast_to(x.reshape(-1, 1, 1, 1), plane)
    for x in (seen.kept, horizon / _HORIZON)
  ]
  hints = layout.concatenate([*differences, errors, *numbers])
  return jnp.stack(others, 1), hints


def _halved(x: jax.Array) -> jax.Array:
  """Means of 2x2 pixels of [..., H, W, C]."""
  flat = x.reshape(-1, *x.shape[-3:])
  small = resize.bilinear(flat, scale=0.5)
  return small.reshape(*x.shape[:-3], *small.shape[1:])


def _candidates(older, last, flow):
  """A, B, the last frame moved half as far, and as it is."""
  place = flow[..., 2:]
  moved = [
    warp.backward(last, place),
    warp.backward(older, flow[..., :2]),
    warp.backward(last, 0.5 * place),
  ]
  return [*map(layout.materialize, moved), last]


def _errors(older, last, truth, flow):
  """[B, h, w, 7]: each candidate's mean error, and that of A with signs."""
  shown = _candidates(older, last, flow)
  means = [jnp.mean(jnp.abs(x - truth), -1, keepdims=True) for x in shown]
  return jnp.concatenate([*means, truth - shown[0]], -1)


def _blurred(x):
  """[B, H, W, C] by a Gaussian."""
  reach = round(3 * _BLUR)
  taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _BLUR) ** 2)
  taps = (taps / taps.sum()).astype(np.float32)
  height, width = x.shape[1:3]
  x = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode='edge')
  x = sum(tap * x[:, i : i + height] for i, tap in enumerate(taps))
  x = layout.materialize(x)
  return sum(tap * x[:, :, i : i + width] for i, tap in enumerate(taps))
