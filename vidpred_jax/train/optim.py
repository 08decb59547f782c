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
  initial: float = 0.0,
  final: float = 0.0,
  boundaries: Sequence[int] = (),
  factor: float = 1.0,
) -> optax.Schedule:
  """A learning rate as a function of the step.

  Args:
    name: `'constant'`; `'cosine'` from `peak` to `final`; `'onecycle'` as
      `torch.optim.lr_scheduler.OneCycleLR` with its defaults (30 % cosine rise
      from peak / 25, then cosine fall to peak / 250000; `first_moment` has its
      other half); `'step'`, `peak` multiplied by `factor` at each of
      `boundaries`.
    peak: the highest learning rate.
    steps: length of the run, warm-up included.
    warmup: steps of linear rise from `initial` to `peak`; not for `'onecycle'`.
    initial: the rate that the warm-up begins with, at most `peak`.
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
  if not 0 <= initial <= peak:
    raise ValueError(
      f'The warm-up begins between 0 and the peak, {peak}; got {initial}.'
    )
  if name == 'step' and not boundaries:
    raise ValueError("The schedule 'step' needs boundaries, got none.")
  if warmup and (name == 'onecycle' or warmup >= steps):
    raise ValueError(
      f'A warm-up (schedule.warmup) of {warmup} does not fit {name!r} of '
      f'{steps} steps.'
    )
  if name == 'onecycle':
    return _one_cycle(steps, peak / 25, peak, peak / 25e4)
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
  rise = optax.linear_schedule(initial, peak, warmup)
  return optax.join_schedules([rise, after], [warmup])


def first_moment(
  name: str, *, steps: int, b1: float, cycle: Sequence[float] = (0.95, 0.85)
) -> optax.Schedule | float:
  """Adam's decay of the mean of the gradients, as PyTorch's one-cycle has it.

  `torch.optim.lr_scheduler.OneCycleLR` cycles it against the learning rate
  unless `cycle_momentum=False` is given, which the published code does not.

  Args:
    name: of the schedule of the learning rate.
    steps: length of the run.
    b1: the decay under another schedule than `'onecycle'`.
    cycle: of `'onecycle'`: the decay at both ends and at the peak of the rate;
      empty: `b1` throughout.

  Returns:
    `b1`, or an optax schedule.

  Raises:
    ValueError: if `cycle` is neither empty nor two numbers in [0, 1).
  """
  if len(cycle) not in (0, 2) or not all(0 <= x < 1 for x in cycle):
    raise ValueError(
      'The cycle of b1 is two numbers in [0, 1), at the ends and at the peak, '
      f'or empty; got {tuple(cycle)}.'
    )
  if name != 'onecycle' or not cycle:
    return b1
  ends, peak = cycle
  return _one_cycle(steps, ends, peak, ends)


def _one_cycle(steps, start, top, end) -> optax.Schedule:
  """PyTorch's two arcs: to `top` in 30 % of the steps, to `end` in the rest."""
  rise, last = 0.3 * steps - 1, steps - 1

  def value(step):
    step = jnp.asarray(step, jnp.float32)
    up = step <= rise
    done = jnp.where(up, step / (rise or 1), (step - rise) / (last - rise))
    done = jnp.clip(done, 0, 1)
    first, second = jnp.where(up, start, top), jnp.where(up, top, end)
    return second + (first - second) * (1 + jnp.cos(jnp.pi * done)) / 2

  return value


def make(
  params,
  learning_rate: optax.Schedule,
  *,
  name: str = 'adamw',
  b1: optax.Schedule | float = 0.9,
  b2: float = 0.999,
  weight_decay: float = 0.0,
  clip_norm: float = 0.0,
  frozen: Sequence[str] = (),
  rates: Sequence[tuple[str, float]] = (),
) -> optax.GradientTransformation:
  """Adam or AdamW over the parameters that are not frozen.

  Args:
    params: the parameters (only names and shapes are used).
    learning_rate: from `schedule`.
    name: `'adam'` or `'adamw'`.
    b1: decay of the first moment, a number or from `first_moment`.
    b2: decay of the second moment.
    weight_decay: for `'adamw'`, on every parameter, as in PyTorch.
    clip_norm: largest global norm of the unfrozen gradients; 0 is no clipping.
    frozen: regular expressions; a parameter whose whole '/'-joined name matches
      one of them never changes.
    rates: pairs of such an expression and the factor of the learning rate (and
      so of the weight decay) of the parameters that match it.

  Returns:
    The transformation.

  Raises:
    ValueError: for an unknown name, a weight decay with `'adam'`, or an
      expression that matches no parameter.
  """
  names.check('optimiser', name, ('adam', 'adamw'))
  if name == 'adam' and weight_decay:
    raise ValueError(
      f"'adam' has no weight decay, got {weight_decay}; use 'adamw'."
    )
  decay = {'weight_decay': weight_decay} if name == 'adamw' else {}
  adam = getattr(optax, name)
  if callable(b1):
    adam = optax.inject_hyperparams(adam, hyperparam_dtype=jnp.float32)
  rule = adam(learning_rate=learning_rate, b1=b1, b2=b2, **decay)
  if clip_norm:
    rule = optax.chain(optax.clip_by_global_norm(clip_norm), rule)
  if frozen:
    is_frozen = params_lib.match(params, frozen)
    labels = jax.tree.map(lambda f: 'frozen' if f else 'trained', is_frozen)
    rule = optax.partition(
      {'trained': rule, 'frozen': optax.set_to_zero()}, labels
    )
  if rates:
    faster = [
      optax.masked(optax.scale(factor), params_lib.match(params, [pattern]))
      for pattern, factor in rates
    ]
    rule = optax.chain(rule, *faster)
  return rule


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
