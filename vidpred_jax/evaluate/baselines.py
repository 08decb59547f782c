"""Predictions without a model, with which those of a system are compared."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vidpred_jax import systems


def predict(
  frames: systems.Frames,
  context: ArrayLike,
  *,
  mean_frame: ArrayLike | None = None,
) -> dict[str, jax.Array]:
  """Predicts the target frames without a model.

  Args:
    frames: the indices of context and target.
    context: the context frames, floats [B, Tc, H, W, C].
    mean_frame: [H, W, C], a frame that is predicted always; None: without it.

  Returns:
    `{name: [B, N, H, W, C]}`. `'copy_last'` repeats the last context frame, or
    of interpolation the first one after the targets.
    `'average'`, for interpolation alone, blends the two context frames around
    the targets by time. `'mean_frame'` repeats that frame.
  """
  context, count = jnp.asarray(context), len(frames.target)
  last = context[:, -1:]
  result = {}
  if frames.interpolates:
    first, last = (frame[:, None] for frame in frames.around(context))
    time = jnp.array(frames.times, context.dtype).reshape(1, -1, 1, 1, 1)
    result['average'] = first * (1 - time) + last * time
  result['copy_last'] = jnp.repeat(last, count, axis=1)
  if mean_frame is not None:
    frame = jnp.asarray(mean_frame, context.dtype)[None, None]
    result['mean_frame'] = jnp.broadcast_to(
      frame, (len(context), count, *frame.shape[2:])
    )
  return result
