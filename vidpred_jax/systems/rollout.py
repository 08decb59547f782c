"""Autoregressive prediction with a model that predicts the next frame."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def rollout(
  step: Callable, context: jax.Array, key: jax.Array, num_frames: int
) -> Any:
  """Feeds predictions back.

  The window of frames that a step sees moves on by one: the oldest frame
  leaves, the prediction joins.

  Args:
    step: `(context, key, n) -> (frame, diagnostics)` with context [B, K, H, W,
      C], the number n of the frame from 0, frame [B, H, W, C] and diagnostics
      any tree of arrays [B, ...].
    context: [B, K, H, W, C].
    key: a random key; each step has its own.
    num_frames: N, at least 1.

  Returns:
    `(frames, diagnostics)`, each array [B, N, ...].
  """

  def body(context, given):
    frame, diagnostics = step(context, *given)
    frame = frame.astype(context.dtype)
    context = jnp.concatenate([context[:, 1:], frame[:, None]], axis=1)
    return context, (frame, diagnostics)

  given = jax.random.split(key, num_frames), jnp.arange(num_frames)
  _, outputs = jax.lax.scan(body, context, given)
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)
