"""The training loop, which is the same for all systems.

A run is a folder with `config.json`, `data.json` (a description of the data),
`parameters.txt` (where the package clu is installed), `checkpoints/`,
`metrics.jsonl`, TensorBoard events, and `export/` when the run is finished.
Data and random keys are functions of (seed, step), so a run that was killed
continues to bit-identical weights.
"""

import contextlib
import functools
import math
import pathlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from vidpred_jax import (
  atomic,
  build,
  checkpoint,
  convert,
  data,
  metrics,
  params,
  runtime,
  systems,
)
from vidpred_jax.config import given
from vidpred_jax.evaluate import run as evaluation
from vidpred_jax.systems import base
from vidpred_jax.train import optim
from vidpred_jax.train import workdir as folder

# If one of these is not finite, the run stops and saves nothing more.
_MUST_BE_FINITE = ('loss', 'grad_norm', 'update_norm')


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


def run(
  config,
  workdir: str,
  measure: Callable | None = None,
  *,
  sources: Mapping[str, Any] | None = None,
) -> bool:
  """Trains the system of a configuration, or continues a run that stopped.

  Args:
    config: the configuration.
    workdir: the run's folder.
    measure: the result of `evaluate.run.make_measure`, if it was called.
    sources: objects that clips come from instead of `config.data`, see
      `data/own.py`, by split: 'train', and where `config.eval.every` is set
      `config.eval.split` and `config.eval.quick_split`.

  Returns:
    Whether the run is finished; False after SIGTERM or Ctrl-C, with its state
    saved.

  Raises:
    ValueError: if the configuration or the data are invalid, if `workdir` holds
      another run or another process is in it, or if the loss is not finite.
  """
  workdir = pathlib.Path(workdir)
  config = build.completed(config, sources)
  with folder.held(workdir):
    return _run(config, workdir, measure, sources)


def _run(
  config,
  workdir: pathlib.Path,
  measure: Callable | None,
  sources: Mapping[str, Any] | None,
) -> bool:
  folder.check_or_create(workdir, config)
  mesh = runtime.mesh()
  if config.batch_size % (mesh.size * config.accumulate):
    raise ValueError(
      f'batch_size is {config.batch_size}, which {mesh.size} devices times '
      f'{config.accumulate} accumulated micro-batches do not divide.'
    )
  system = build.system(config, config.frames)
  begin = _weights(config)
  schedule, of_rule = optimiser_settings(config)
  best = _best(config)
  held_out = None
  if config.eval.every:
    held_out = _held_out(config, sources)
    measure = measure or evaluation.make_measure(
      config, build.evaluation(config, sources)
    )
  saved = checkpoint.manager(workdir, keep=config.keep, best=best)
  start = saved.latest_step() or 0
  with saved, folder.Stop() as stop, folder.log(workdir, start) as log:
    batches = _batches(config, system, start, sources)
    try:
      spec = build.data_spec(batches.source)
      if jax.process_index() == 0:
        record = checkpoint.spec_to_json(spec)
        checkpoint.write_json(workdir / checkpoint.DATA, record)
      load = _loader(batches, system)
      batch = load()
      shape = batch['video'].shape
      build.check_channels(system, batches.source, shape[-1])
      state, rule = _initial_state(
        config, system, schedule, of_rule, mesh, shape, begin
      )
      if jax.process_index() == 0 and params.has_overview():
        text = params.overview(state.params) + '\n'
        atomic.write_text(workdir / 'parameters.txt', text)
        print(text.splitlines()[-1].replace('Total', 'Parameters'))
      if start:
        state = checkpoint.restore(saved, start, state)
      step_fn = _placed(make_step(config, system, rule), mesh)
      evaluate = functools.partial(_evaluate, config, measure, held_out, best)
      state, ended = _steps(
        config,
        step_fn,
        state,
        start,
        batch,
        load,
        schedule,
        epoch=getattr(batches.source, 'epoch', len(batches.source)),
        saved=saved,
        log=log,
        stop=stop,
        evaluate=evaluate,
      )
    finally:
      batches.close()
    if ended:
      _export(config, workdir, saved, state, best, spec)
  return ended


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


def _placed(step_fn, mesh):
  """Wraps the step so that it distributes a host batch over the devices."""
  place = functools.partial(
    jax.make_array_from_process_local_data, runtime.batch_sharding(mesh)
  )
  return lambda state, batch, key: step_fn(
    state, jax.tree.map(place, batch), key
  )


def _steps(
  config,
  step_fn,
  state,
  start,
  batch,
  load,
  schedule,
  *,
  epoch,
  saved,
  log,
  stop,
  evaluate,
):
  """Runs training steps to the end, or until `stop(step)`.

  `epoch` is how many clips one has: what it takes is logged, the evaluations
  and the compilation of the first step left out.

  Returns:
    The last state, which is saved, and whether the run is finished.
  """
  clock = _Clock(config.batch_size, epoch)
  key = jax.random.key(config.seed)
  previous, last = None, start >= config.steps
  bar = tqdm.tqdm(
    total=config.steps,
    initial=start,
    desc='train',
    disable=jax.process_index() > 0,
    mininterval=1,
  )
  with bar:
    for step in range(start + 1, config.steps + 1):
      state, values = step_fn(state, batch, key)
      last = step == config.steps
      if not last:
        batch = load()
      # A step behind, so that the device never waits.
      if previous is not None:
        _check_finite(previous, step - 1)
      previous = values
      bar.update()
      stopped = stop(step)
      if step % config.log_every == 0 or step == 1 or last:
        values = _check_finite(values, step)
        values['learning_rate'] = float(schedule(step - 1))
        values |= clock.told(step)
        log(step, values)
        shown = {'loss': f'{values["loss"]:.4g}'}
        if 'epoch_seconds' in values:
          shown['s/epoch'] = f'{values["epoch_seconds"]:.3g}'
        bar.set_postfix(shown)
      result = None
      if config.eval.every and step % config.eval.every == 0:
        with clock.stopped():
          result = evaluate(state)
        log(step, result)
      due = step % config.checkpoint_every == 0
      if result is not None or stopped or last or due:
        _check_finite(values, step)
        checkpoint.save(saved, step, state, result)
      if stopped:
        break
  return state, last


def _held_out(config, sources):
  """The clips that are measured while training."""
  split = config.eval.quick_split
  try:
    return build.source(config, split, sources=sources)
  except ValueError as error:
    raise ValueError(
      f'eval.every={config.eval.every} measures the split '
      f'eval.quick_split={split!r} while training: {error}'
    ) from None


class _Clock:
  """What steps take, since the last time it was asked."""

  def __init__(self, batch_size: int, epoch: int):
    self._batch_size, self._epoch = batch_size, epoch
    self._since: tuple[int, float] | None = None  # step, time

  def told(self, step: int) -> dict[str, float]:
    """Clips a second and seconds an epoch; nothing the first time."""
    before, self._since = self._since, (step, time.perf_counter())
    if before is None or step == before[0]:
      return {}
    seconds = self._since[1] - before[1]
    rate = (step - before[0]) * self._batch_size / seconds
    return {'clips_per_second': rate, 'epoch_seconds': self._epoch / rate}

  @contextlib.contextmanager
  def stopped(self):
    """What happens within does not count."""
    begin = time.perf_counter()
    yield
    if self._since is not None:
      step, time_then = self._since
      self._since = step, time_then + time.perf_counter() - begin


def _evaluate(
  config, measure, held_out, best, state: TrainState
) -> dict[str, float]:
  """The means of an evaluation in training."""
  weights = {'params': state.ema or state.params, **state.collections}
  result = evaluation.quick_eval(config, weights, measure, held_out)
  if best and best[0] not in result:
    raise ValueError(
      f'eval.best is {best[0]!r}, which is not defined on frames of this size.'
    )
  return result


def _best(config) -> tuple[str, bool] | None:
  """The metric that selects the best checkpoint; whether higher is better."""
  name = config.eval.best
  if not (config.eval.every and name):
    return None
  known = config.eval.metrics or metrics.METRICS
  if name not in known:
    raise ValueError(
      f'eval.best is {name!r}, expected one of eval.metrics: '
      f'{", ".join(known)}.'
    )
  return name, metrics.METRICS[name].higher_is_better


def _batches(
  config, system: systems.System, start: int, sources
) -> data.Batches:
  """The batches of this process from step `start` on."""
  settings = given(config.data)
  clips = settings.pop('source')
  if sources is not None:
    clips = build.own(sources, 'train')
  return data.train_iterator(
    clips,
    num_frames=system.frames.length,
    batch_size=config.batch_size,
    seed=config.seed,
    start_step=start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    workers=config.workers,
    flow_pairs=system.flow_pairs,
    **settings,
    **config.augment.to_dict(),
  )


def _loader(batches, system: systems.System):
  """Makes a function that loads the next batch, with the loss's inputs only."""
  wanted = ('video', 'flow') if system.flow_pairs else ('video',)

  def load():
    arrays = next(batches)
    return {name: arrays[name] for name in wanted}

  return load


def _weights(config):
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


def _initial_state(config, system, schedule, of_rule, mesh, shape, begin=None):
  """The state before the first step, placed on the mesh, and the optimiser.

  `begin` are variables to take what `init_match` names from, or None.
  """
  clip = jnp.zeros((1, *shape[1:]))
  variables = dict(runtime.jit(system.init)(runtime.key(config.seed), clip))
  parameters = variables.pop('params')
  for name, path in config.features.items():
    if path:
      variables[name] = convert.FEATURES[name](path)
  if begin is not None:
    parameters = params.take_matching(
      parameters, begin['params'], config.init_match
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


def _check_finite(values, step: int) -> dict[str, float]:
  values = {k: float(v) for k, v in jax.device_get(values).items()}
  bad = [k for k in _MUST_BE_FINITE if not math.isfinite(values[k])]
  if bad:
    raise ValueError(
      f'Step {step}: {", ".join(f"{k} is {values[k]}" for k in bad)}. The last '
      'checkpoint was kept; lower the learning rate or clip the gradient.'
    )
  return values


def _export(config, workdir, saved, state, best, spec) -> None:
  """Writes `export/` from the best checkpoint, or from the last one."""
  if best and saved.best_step() is not None:
    state = checkpoint.restore(saved, saved.best_step(), state)
  variables = checkpoint.inference_variables(
    state.params, state.collections, state.ema, config.features
  )
  if jax.process_count() > 1:
    variables = multihost_utils.process_allgather(variables, tiled=True)
  if jax.process_index() == 0:
    checkpoint.save_system(
      workdir / 'export',
      system=config.system,
      settings=config.model.to_dict(),
      frames=systems.Frames(**config.eval.frames.to_dict()),
      variables=variables,
      data=spec,
      dtype=config.export_dtype,
      overwrite=True,
    )
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('exported')
