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
    step: `(context, key) -> (frame, diagnostics)` with context [B, K, H, W, C],
      frame [B, H, W, C] and diagnostics any tree of arrays [B, ...].
    context: [B, K, H, W, C].
    key: a random key; each step has its own.
    num_frames: N, at least 1.

  Returns:
    `(frames, diagnostics)`, each array [B, N, ...].
  """

  def body(context, key):
    frame, diagnostics = step(context, key)
    frame = frame.astype(context.dtype)
    context = jnp.concatenate([context[:, 1:], frame[:, None]], axis=1)
    return context, (frame, diagnostics)

  keys = jax.random.split(key, num_frames)
  _, outputs = jax.lax.scan(body, context, keys)
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)
