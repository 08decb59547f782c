"""The training loop, which is the same for all systems.

A run is a folder with `config.json`, `data.json` (a description of the data),
`checkpoints/`, `metrics.jsonl`, TensorBoard events, and `export/` when the run
is finished. Data and random keys are functions of (seed, step), so a run that
was killed continues to bit-identical weights.
"""

import functools
import json
import math
import pathlib
from collections.abc import Callable

import jax
import tqdm
from jax.experimental import multihost_utils

from vidpred_jax import (
  atomic,
  build,
  checkpoint,
  data,
  metrics,
  runtime,
  systems,
)
from vidpred_jax.evaluate import run as evaluation
from vidpred_jax.train import optim, update
from vidpred_jax.train import workdir as folder

# If one of these is not finite, the run stops and saves nothing more.
_MUST_BE_FINITE = ('loss', 'grad_norm', 'update_norm')


def run(config, workdir: str, measure: Callable | None = None) -> bool:
  """Trains the system of a configuration, or continues a run that stopped.

  Args:
    config: the configuration.
    workdir: the run's folder.
    measure: the result of `evaluate.run.make_measure`, if it was called.

  Returns:
    Whether the run is finished; False after SIGTERM or Ctrl-C, with its state
    saved.

  Raises:
    ValueError: if the configuration or the data are invalid, if `workdir` holds
      another run, or if the loss is not finite.
  """
  workdir = pathlib.Path(workdir)
  folder.check_or_create(workdir, config)
  mesh = runtime.mesh()
  if config.batch_size % (mesh.size * config.accumulate):
    raise ValueError(
      f'batch_size is {config.batch_size}, which {mesh.size} devices times '
      f'{config.accumulate} accumulated micro-batches do not divide.'
    )
  system = build.system(config, config.frames)
  schedule = optim.schedule(steps=config.steps, **config.schedule.to_dict())
  best = _best(config)
  if config.eval.every:
    measure = measure or evaluation.make_measure(
      config, build.evaluation(config)
    )
  saved = checkpoint.manager(workdir, keep=config.keep, best=best)
  start = saved.latest_step() or 0
  with saved, folder.Stop() as stop, folder.log(workdir, start) as log:
    batches = _batches(config, system, start)
    try:
      spec = build.data_spec(batches.source)
      if jax.process_index() == 0:
        text = json.dumps(checkpoint.spec_to_json(spec), indent=2) + '\n'
        atomic.write_text(workdir / checkpoint.DATA, text)
      load = _loader(batches, system)
      batch = load()
      shape = batch['video'].shape
      state, rule = update.initial_state(config, system, schedule, mesh, shape)
      if start:
        state = checkpoint.restore(saved, start, state)
      step_fn = update.placed(update.make_step(config, system, rule), mesh)
      evaluate = functools.partial(_evaluate, config, measure, best)
      state, ended = _steps(
        config,
        step_fn,
        state,
        start,
        batch,
        load,
        schedule,
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


def _steps(
  config,
  step_fn,
  state,
  start,
  batch,
  load,
  schedule,
  *,
  saved,
  log,
  stop,
  evaluate,
):
  """Runs training steps to the end, or until `stop(step)`.

  Returns:
    The last state, which is saved, and whether the run is finished.
  """
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
        log(step, values)
        bar.set_postfix(loss=f'{values["loss"]:.4g}')
      result = None
      if config.eval.every and step % config.eval.every == 0:
        result = evaluate(state)
        log(step, result)
      due = step % config.checkpoint_every == 0
      if result is not None or stopped or last or due:
        _check_finite(values, step)
        checkpoint.save(saved, step, state, result)
      if stopped:
        break
  return state, last


def _evaluate(
  config, measure, best, state: update.TrainState
) -> dict[str, float]:
  """The means of an evaluation in training."""
  weights = {'params': state.ema or state.params, **state.collections}
  result = evaluation.quick_eval(config, weights, measure)
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
  if name not in config.eval.metrics:
    raise ValueError(
      f'eval.best is {name!r}, expected one of eval.metrics: '
      f'{", ".join(config.eval.metrics)}.'
    )
  return name, metrics.METRICS[name].higher_is_better


def _batches(config, system: systems.System, start: int) -> data.Batches:
  """The batches of this process from step `start` on."""
  settings = config.data.to_dict() | config.augment.to_dict()
  return data.train_iterator(
    settings.pop('source'),
    num_frames=system.frames.length,
    batch_size=config.batch_size,
    seed=config.seed,
    start_step=start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    workers=config.workers,
    flow_pairs=system.flow_pairs,
    **settings,
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
