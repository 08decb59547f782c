"""The state of training, one step of it, and where its arrays live."""

import functools
import logging
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from vidpred_jax import checkpoint, convert, params, runtime, systems
from vidpred_jax.systems import base
from vidpred_jax.train import optim

_LOG = logging.getLogger(__name__)


class TrainState(NamedTuple):
  """The state of training: trees of arrays, without keys and functions."""

  step: jax.Array  # int32 scalar: steps done
  params: Any
  collections: Any  # batch statistics, frozen feature nets
  opt_state: Any
  ema: Any  # averaged parameters, or {}


def make_train_step(system, rule, *, accumulate=1, ema=None):
  """Makes the step `(state, batch, key) -> (state, metrics)`, not compiled.

  Args:
    system: the system to train.
    rule: an `optax.GradientTransformation`.
    accumulate: micro-batches per batch; their gradients are averaged.
    ema: keyword arguments of `optim.ema_update`, or None for no average.

  Returns:
    The step. `batch` is a dict with `video` [B, T, H, W, C] and, for systems
    with `flow_pairs`, `flow` [B, P, H, W, 2]. `key` is the key of the run; the
    step uses `fold_in(key, state.step)`.
  """

  def loss(parameters, collections, batch, key):
    variables = {'params': parameters, **collections}
    flow = {'flow': batch['flow']} if system.flow_pairs else {}
    video = base.as_float(batch['video'])
    value, (updates, values) = system.loss(variables, video, key, **flow)
    return value, ({**collections, **updates}, {'loss': value, **values})

  gradient = jax.grad(loss, has_aux=True)

  def train_step(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    if accumulate == 1:
      grads, (collections, values) = gradient(
        state.params, state.collections, batch, key
      )
    else:
      # Split the inner axis, so that every micro-batch spans all devices.
      parts = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0),
        batch,
      )

      def body(carry, item):
        collections, total = carry
        part, key = item
        grads, (collections, values) = gradient(
          state.params, collections, part, key
        )
        return (collections, jax.tree.map(jnp.add, total, grads)), values

      zeros = jax.tree.map(jnp.zeros_like, state.params)
      (collections, grads), values = jax.lax.scan(
        body,
        (state.collections, zeros),
        (parts, jax.random.split(key, accumulate)),
      )
      grads = jax.tree.map(lambda g: g / accumulate, grads)
      values = jax.tree.map(lambda v: v.mean(0), values)
    values['grad_norm'] = optax.tree.norm(grads)
    updates, opt_state = rule.update(grads, state.opt_state, state.params)
    values['update_norm'] = optax.tree.norm(updates)
    new = optax.apply_updates(state.params, updates)
    step = state.step + 1
    average = optim.ema_update(state.ema, new, step, **ema) if ema else {}
    return TrainState(step, new, collections, opt_state, average), values

  return train_step


def shardings(state: TrainState, mesh, *, shard_params: bool) -> TrainState:
  """The shardings of the arrays of a state.

  Args:
    state: the state, or its shapes.
    mesh: from `runtime.mesh`.
    shard_params: False: every array is replicated. True: each array is split
      along its longest axis that the devices divide (fully sharded data
      parallel); small or indivisible arrays are replicated.

  Returns:
    A tree of shardings like `state`.
  """

  def place(leaf):
    axes = [i for i, n in enumerate(leaf.shape) if n % mesh.size == 0]
    if not shard_params or math.prod(leaf.shape) < 4096 or not axes:
      return runtime.replicated(mesh)
    axis = max(axes, key=lambda i: leaf.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))

  return jax.tree.map(place, state)


def make_step(config, system: systems.System, rule):
  """Makes the compiled training step of a configuration."""
  return runtime.jit(
    make_train_step(
      system,
      rule,
      accumulate=config.accumulate,
      ema=config.ema.to_dict() if config.ema.decay else None,
    ),
    cpu_options=system.cpu_options,
    donate_argnums=0,
  )


def placed(step_fn, mesh):
  """Wraps the step so that it distributes a host batch over the devices."""
  place = functools.partial(
    jax.make_array_from_process_local_data, runtime.batch_sharding(mesh)
  )
  return lambda state, batch, key: step_fn(
    state, jax.tree.map(place, batch), key
  )


def weights_to_begin(config):
  """The variables that a run begins with, or None; before data are looked at.

  Raises:
    FileNotFoundError: if there are none at `init_from`.
    ValueError: if they are those of another system.
  """
  if not config.init_from:
    return None
  try:
    record, variables = checkpoint.read(config.init_from)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'init_from={config.init_from!r}, the weights to begin with: {error} '
      'Train them first, name others, or take a variant that begins with none.'
    ) from None
  if record['system'] != config.system:
    raise ValueError(
      f'init_from holds weights of {record["system"]!r}, the configuration '
      f'is for {config.system!r}.'
    )
  for name in ('initial_flow', 'standardised', 'router_standardised'):
    before, now = (x.get(name) for x in (record['settings'], config.model))
    if None not in (before, now) and before != now:
      _LOG.warning(
        'The weights of init_from were trained with %s=%r, this run has %r.',
        name,
        before,
        now,
      )
  return variables


def optimiser_settings(config):
  """The learning rate, and the keyword arguments of `optim.make`."""
  settings, of_rule = config.schedule.to_dict(), config.optim.to_dict()
  of_rule['b1'] = optim.first_moment(
    settings['name'],
    steps=config.steps,
    b1=of_rule['b1'],
    cycle=settings.pop('b1_cycle'),
  )
  return optim.schedule(steps=config.steps, **settings), of_rule


def initial_state(config, system, schedule, of_rule, mesh, shape, begin=None):
  """The state before the first step, placed on the mesh, and the optimiser.

  `begin` are variables to take what `init_match` names from, or None.
  """
  clip = jnp.zeros((1, *shape[1:]))
  variables = dict(system.init(runtime.key(config.seed), clip))
  parameters = variables.pop('params')
  if not params.flatten(parameters):
    raise ValueError(
      f'{config.system} has no parameters with these settings; there is '
      'nothing to train.'
    )
  for name, path in config.features.items():
    if path:
      variables[name] = convert.FEATURES[name](path)
  if begin is not None:
    parameters = params.take_matching(
      parameters, begin.get('params', {}), config.init_match
    )
    # Collections that belong to them, such as batch statistics.
    for name in variables.keys() & begin.keys() - config.features.keys():
      names = params.flatten(variables[name])
      if any(re.fullmatch(config.init_match, n) for n in names):
        variables[name] = params.take_matching(
          variables[name], begin[name], config.init_match
        )
  rule = optim.make(parameters, schedule, **of_rule)
  ema = parameters if config.ema.decay else {}
  state = TrainState(
    jnp.int32(0), parameters, variables, rule.init(parameters), ema
  )
  # Every process computes the same values and only has to place them.
  state = jax.tree.map(np.asarray, state)
  places = shardings(state, mesh, shard_params=config.shard_params)
  state = jax.tree.map(
    lambda x, s: jax.make_array_from_callback(x.shape, s, lambda i: x[i]),
    state,
    places,
  )
  return state, rule
