"""The training loop, which is the same for all systems.

A run is a folder with `config.json`, `data.json` (a description of the data),
`parameters.txt` (where the package clu is installed), `checkpoints/`,
`metrics.jsonl`, TensorBoard events, and `export/` when the run is finished.
Data and random keys are functions of (seed, step), so a run that was killed
continues to bit-identical weights.
"""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import tqdm
from jax.experimental import multihost_utils

from vidpred_jax import (
  atomic,
  build,
  checkpoint,
  data,
  metrics,
  params,
  runtime,
  systems,
)
from vidpred_jax.checkpoint import mirror
from vidpred_jax.config import given
from vidpred_jax.evaluate import run as evaluation
from vidpred_jax.train import update
from vidpred_jax.train import workdir as folder
from vidpred_jax.train.clock import Clock, Trace

# If one of these is not finite, the run stops and saves nothing more.
_MUST_BE_FINITE = ('loss', 'grad_norm', 'update_norm')


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
    workdir: the run's folder, or an address, see `checkpoint.mirror`.
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
  config = build.completed(config, sources)
  with mirror.working(workdir, trains=True) as (place, copy):
    with folder.held(place):
      folder.check_or_create(place, config)
      copy()
      return _run(config, place, measure, sources, copy)


def _run(
  config,
  workdir: pathlib.Path,
  measure: Callable | None,
  sources: Mapping[str, Any] | None,
  copy: Callable[[], None],
) -> bool:
  mesh = runtime.mesh()
  if config.batch_size % (mesh.size * config.accumulate):
    raise ValueError(
      f'batch_size is {config.batch_size}, which {mesh.size} devices times '
      f'{config.accumulate} accumulated micro-batches do not divide.'
    )
  system = build.system(config, config.frames)
  begin = update.weights_to_begin(config)
  schedule, of_rule = update.optimiser_settings(config)
  best = _best(config)
  evaluate = _evaluation(config, measure, sources, best)
  saved = checkpoint.manager(workdir, keep=config.keep, best=best)
  start = saved.latest_step() or 0
  if start > config.steps:
    raise ValueError(
      f'{workdir} has a checkpoint of step {start}, but config.steps is '
      f'{config.steps}; remove it if it was copied there.'
    )
  trace = Trace(workdir / 'profile', config.get('profile', ()))
  with saved, trace, folder.Stop() as stop, folder.log(workdir, start) as log:
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
      state, rule = update.initial_state(
        config, system, schedule, of_rule, mesh, shape, begin
      )
      _write_overview(workdir, state)
      del begin  # its memory
      if start:
        state = checkpoint.restore(saved, start, state)
      step_fn = update.placed(update.make_step(config, system, rule), mesh)
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
        trace=trace,
        stop=stop,
        evaluate=evaluate,
        copy=copy,
      )
    finally:
      batches.close()
    if ended:
      _export(config, workdir, saved, state, best, spec)
  return ended


def _write_overview(workdir: pathlib.Path, state: update.TrainState) -> None:
  """Lists the parameters in a file, where the package clu is installed."""
  if jax.process_index() == 0 and params.has_overview():
    text = params.overview(state.params) + '\n'
    atomic.write_text(workdir / 'parameters.txt', text)
    print(text.splitlines()[-1].replace('Total', 'Parameters'))


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
  trace,
  stop,
  evaluate,
  copy,
):
  """Runs training steps to the end, or until `stop(step)`.

  `epoch` is how many clips one has: what it takes is logged, the evaluations
  and the compilation of the first step left out.

  Returns:
    The last state, which is saved, and whether the run is finished.
  """
  clock = Clock(config.batch_size, epoch)
  key = jax.random.key(config.seed)
  previous, last = None, start >= config.steps
  bar = tqdm.tqdm(
    total=config.steps,
    initial=start,
    desc='compiling',
    disable=jax.process_index() > 0,
    mininterval=1,
  )
  with bar:
    for step in range(start + 1, config.steps + 1):
      trace.before(step, previous)
      state, values = step_fn(state, batch, key)
      last = step == config.steps
      if not last:
        with clock.waiting(values):
          batch = load()
      # A step behind, so that the device never waits.
      if previous is not None:
        _check_finite(previous, step - 1)
      previous = values
      bar.set_description('train', refresh=False)
      bar.update()
      stopped = stop(step)
      if step % config.log_every == 0 or step == 1 or last:
        values = _check_finite(values, step)
        values['learning_rate'] = float(schedule(step - 1))
        values |= clock.rates(step)
        log(step, values)
        shown = {'loss': f'{values["loss"]:.4g}'}
        if 'epoch_seconds' in values:
          shown['s/epoch'] = f'{values["epoch_seconds"]:.3g}'
        bar.set_postfix(shown)
      trace.after(step, values)
      result = None
      if config.eval.every and step % config.eval.every == 0:
        with clock.stopped():
          result = evaluate(state)
        log(step, result)
      due = step % config.checkpoint_every == 0
      if result is not None or stopped or last or due:
        _check_finite(values, step)
        checkpoint.save(saved, step, state, result)
        copy()
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


def _evaluation(config, measure, sources, best) -> Callable | None:
  """Makes the evaluation of a state while training; None without one."""
  if not config.eval.every:
    return None
  held_out = _held_out(config, sources)
  measure = measure or evaluation.make_measure(
    config, build.evaluation(config, sources)
  )
  return functools.partial(_evaluate, config, measure, held_out, best)


def _evaluate(
  config, measure, held_out, best, state: update.TrainState
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
  if not name:
    return None
  known = config.eval.metrics or metrics.METRICS
  if name not in known:
    raise ValueError(
      f'eval.best is {name!r}, expected one of eval.metrics: '
      f'{", ".join(known)}.'
    )
  if not config.eval.every:
    raise ValueError(
      f'eval.best is {name!r}, but eval.every=0 measures nothing while '
      'training; expected eval.every of at least 1.'
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
