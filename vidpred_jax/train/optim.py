"""Optimisers: learning-rate schedules, clipping, weight decay, frozen parts.

`make` returns an `optax.GradientTransformation`. The training step accumulates
gradients over micro-batches and calls `ema_update`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from vidpred_jax import names
from vidpred_jax import params as params_lib

SCHEDULES = ('constant', 'cosine', 'onecycle', 'step')


def schedule(
  name: str,
  *,
  peak: float,
  steps: int,
  warmup: int = 0,
  final: float = 0.0,
  boundaries: Sequence[int] = (),
  factor: float = 1.0,
) -> optax.Schedule:
  """A learning rate as a function of the step.

  Args:
    name: `'constant'`; `'cosine'` from `peak` to `final`; `'onecycle'` as
      `torch.optim.lr_scheduler.OneCycleLR` with its defaults (30 % cosine rise
      from peak / 25, then cosine fall to peak / 250000); `'step'`, `peak`
      multiplied by `factor` at each of `boundaries`.
    peak: the highest learning rate.
    steps: length of the run, warm-up included.
    warmup: steps of linear rise from 0 to `peak`; not for `'onecycle'`.
    final: the rate that `'cosine'` ends at.
    boundaries: for `'step'`.
    factor: for `'step'`.

  Returns:
    An optax schedule.

  Raises:
    ValueError: for an unknown name, a warm-up that leaves no steps, a rate
      that is not positive, or 'step' without boundaries.
  """
  names.check('schedule', name, SCHEDULES)
  if peak <= 0:
    raise ValueError(f'The peak learning rate must be above 0, got {peak}.')
  if name == 'step' and not boundaries:
    raise ValueError("The schedule 'step' needs boundaries, got none.")
  if warmup and (name == 'onecycle' or warmup >= steps):
    raise ValueError(
      f'A warm-up of {warmup} steps does not fit the schedule {name!r} of '
      f'{steps} steps.'
    )
  if name == 'onecycle':
    return optax.cosine_onecycle_schedule(steps, peak, 0.3, 25.0, 1e4)
  if name == 'constant':
    after = optax.constant_schedule(peak)
  elif name == 'step':
    after = optax.piecewise_constant_schedule(
      peak, {b - warmup: factor for b in boundaries}
    )
  else:
    after = optax.cosine_decay_schedule(peak, steps - warmup, final / peak)
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, peak, warmup)
  return optax.join_schedules([rise, after], [warmup])


def make(
  params,
  learning_rate: optax.Schedule,
  *,
  name: str = 'adamw',
  b1: float = 0.9,
  b2: float = 0.999,
  weight_decay: float = 0.0,
  clip_norm: float = 0.0,
  frozen: Sequence[str] = (),
) -> optax.GradientTransformation:
  """Adam or AdamW over the parameters that are not frozen.

  Args:
    params: the parameters (only names and shapes are used).
    learning_rate: from `schedule`.
    name: `'adam'` or `'adamw'`.
    b1: decay of the first moment.
    b2: decay of the second moment.
    weight_decay: for `'adamw'`, on every parameter, as in PyTorch.
    clip_norm: largest global norm of the unfrozen gradients; 0 is no clipping.
    frozen: regular expressions; a parameter whose whole '/'-joined name matches
      one of them never changes.

  Returns:
    The transformation.

  Raises:
    ValueError: for an unknown name, a weight decay with `'adam'`, or an
      expression that matches no parameter.
  """
  names.check('optimiser', name, ('adam', 'adamw'))
  if name == 'adamw':
    rule = optax.adamw(learning_rate, b1, b2, weight_decay=weight_decay)
  else:
    if weight_decay:
      raise ValueError(
        f"'adam' has no weight decay, got {weight_decay}; use 'adamw'."
      )
    rule = optax.adam(learning_rate, b1, b2)
  if clip_norm:
    rule = optax.chain(optax.clip_by_global_norm(clip_norm), rule)
  if not frozen:
    return rule
  is_frozen = params_lib.match(params, frozen)
  labels = jax.tree.map(lambda f: 'frozen' if f else 'trained', is_frozen)
  return optax.partition(
    {'trained': rule, 'frozen': optax.set_to_zero()}, labels
  )


def ema_update(ema, params, step, *, decay: float, every: int, start: int):
  """Exponential moving average of the parameters.

  Args:
    ema: the average so far, a tree like `params`.
    params: the parameters after this step.
    step: int32 scalar, number of steps done.
    decay: weight of the old average.
    every: the average moves on steps divisible by this.
    start: up to this step the average is a copy of `params`.

  Returns:
    The new average.
  """
  moves = (step % every == 0) & (step > start)
  weight = jnp.where(step <= start, 0.0, jnp.where(moves, decay, 1.0))
  return jax.tree.map(
    lambda e, p: (e * weight + p * (1.0 - weight)).astype(e.dtype), ema, params
  )
