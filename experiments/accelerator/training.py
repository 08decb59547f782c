"""Runs from given weights to exported ones, with the batch that pays most."""

import ast
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np

import vidpred_jax as vp
from experiments.accelerator.measuring import (
  concurrently,
  failure,
  milliseconds,
)
from experiments.accelerator.times import training_case
from vidpred_jax import checkpoint, command, data
from vidpred_jax.config import given
from vidpred_jax.train import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Kept of the time for the last checkpoint and the export, in seconds.
RESERVE = 15.0


def rows(options, left) -> Iterator[dict]:
  """Runs from given weights to exported ones."""
  named = options.train
  if not named and not options.tiny:
    yield {'skipped': 'no --train'}
  elif not named:
    named = [f'{ROOT / "configs/dmvfn.py"}:smoke']
  for i, name in enumerate(named):
    share = left() / (len(named) - i)
    end = time.monotonic() + share
    init = options.init[i] if i < len(options.init) else ''
    try:
      yield from one_run(
        options, name, init, lambda end=end: end - time.monotonic()
      )
    except Exception as error:
      yield {'config': name} | failure(error)


def one_run(options, name, init, left) -> Iterator[dict]:
  """Finds the batch, tries it with data, trains, exports."""
  config = configuration(options, name, init)
  facts = {'config': name, 'init': init}
  if options.batch:
    config.batch_size = options.batch
  program, rows = fitting(config, options, left)
  yield from (facts | row for row in rows)
  row = fed(config, program, min(20.0, left() / 8), options.tiny)
  yield facts | row
  compilation = next(r['compile_s'] for r in rows if r['taken'])
  available = left() - RESERVE - 1.2 * compilation
  steps = int(available / row['step_s'])
  config.steps = min(steps, 6) if options.tiny else steps
  if config.steps < 1:
    raise TimeoutError(f'{left():.0f} s are left, too few for a step.')
  config.schedule.warmup = min(config.schedule.warmup, config.steps // 10)
  config.log_every = max(1, config.steps // 20)
  config.checkpoint_every = config.steps
  yield facts | trained(config, exported_to(options, name), left)


def exported_to(options, name) -> pathlib.Path:
  """A folder of its own under the output."""
  stem = re.sub(r'\W+', '-', pathlib.Path(name).name).strip('-')
  target, number = options.output / stem, 1
  while target.exists():
    number += 1
    target = options.output / f'{stem}-{number}'
  return target


def configuration(options, name, init):
  """The configuration FILE:VARIANTS with what was set."""
  config = command.configuration(command.config_file(name))
  config.workers = options.workers
  config.eval.every, config.eval.best, config.init_from = 0, '', init
  for setting in options.set:
    key, _, text = setting.partition('=')
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text
    config.update_from_flattened_dict({key: value})
  return config


def system_of(config):
  """The system that a run trains."""
  frames = vp.Frames(**config.frames.to_dict())
  return vp.make(config.system, frames=frames, **config.model.to_dict())


def step_of(config, arrays):
  """The Case of a run's training step, with random weights."""
  name = f'batch {len(arrays["video"])}'
  return training_case(system_of(config), name, **arrays)


def batches_of(config, batch, workers=0):
  """The run's own batches: `video`, and `flow` where its system takes one."""
  system = system_of(config)
  settings = given(config.data) | config.augment.to_dict()
  return data.train_iterator(
    settings.pop('source'),
    num_frames=system.frames.length,
    batch_size=batch,
    seed=config.seed,
    workers=workers,
    flow_pairs=system.flow_pairs,
    **settings,
  )


def fitting(config, options, left):
  """Sets the batch that trains most clips a second.

  Returns:
    The step compiled for it, with its arguments, and rows of all that were
    tried.
  """
  count = 1 if options.batch or options.tiny else 7
  batches = [config.batch_size * 2**k for k in range(count)]
  half = left() / 2
  with batches_of(config, 1) as loaded:
    clip = next(loaded)
  wanted = ('video', 'flow') if system_of(config).flow_pairs else ('video',)
  clip = {name: clip[name] for name in wanted}
  compiled = {
    batch: functools.partial(_step_compiled, config, clip, batch)
    for batch in batches
  }
  rows, best = [], None
  made = dict(concurrently(compiled, lambda: left() - half))
  for batch in batches:
    row = {'batch': batch, 'taken': False}
    rows.append(row)
    try:
      if isinstance(made[batch], Exception):
        raise made[batch]
      program, args, row['compile_s'] = made[batch]
      row['step_ms'] = _step_ms(program, args)
    except Exception as error:
      if best is None:
        raise
      row['stopped'] = f'{type(error).__name__}: {error}'[:200]
      break
    row['clips_per_s'] = 1e3 * batch / row['step_ms']
    if best and row['clips_per_s'] < 1.1 * best[0]['clips_per_s']:
      break
    best = row, program, args
  best[0]['taken'] = True
  config.batch_size = best[0]['batch']
  return best[1:], rows


def _step_compiled(config, clip, batch):
  start = time.perf_counter()
  arrays = {k: np.repeat(v, batch, axis=0) for k, v in clip.items()}
  case = step_of(config, arrays)
  (args,) = case.calls.values()
  program = case.program.lower(*args).compile()
  return program, args, time.perf_counter() - start


def _step_ms(program, args) -> float:
  return milliseconds(
    lambda: jax.block_until_ready(program(*args)), False, 5, 1.0
  )['ms']


def fed(config, program, seconds, tiny) -> dict:
  """Trains on real data for a while, to see what a step takes."""
  step, (state, compiled_for, key) = program
  waited, count, values = 0.0, 0, None
  with batches_of(config, config.batch_size, config.workers) as batches:
    next(batches)  # processes start
    begin = time.perf_counter()
    while count < 3 or (not tiny and time.perf_counter() - begin < seconds):
      start = time.perf_counter()
      arrays = next(batches)
      batch = {name: arrays[name] for name in compiled_for}
      waited += time.perf_counter() - start
      before, (state, values) = values, step(state, batch, key)
      jax.block_until_ready(before)  # a step behind, as in training
      count += 1
    jax.block_until_ready(values)
    taken = time.perf_counter() - begin
  return {
    'batch': config.batch_size,
    'workers': config.workers,
    'trial_steps': count,
    'step_s': taken / count,
    'waiting_for_data': waited / taken,
  }


def trained(config, target, left) -> dict:
  """Trains in a folder of its own and exports to `target`."""
  start = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / 'run'
    with stopped_after(left() - RESERVE):
      ended = loop.run(config, str(workdir))
    if ended:
      shutil.copytree(workdir / 'export', target)
    else:
      export(config, workdir, target)
    log = (workdir / 'metrics.jsonl').read_text().splitlines()
  log = [json.loads(line) for line in log]
  return {
    'steps': log[-1]['step'],
    'of': config.steps,
    'batch': config.batch_size,
    'seconds': time.perf_counter() - start,
    'loss': log[-1]['loss'],
    'export': str(target),
    'log': log,
  }


def export(config, workdir, target) -> None:
  """Exports the last checkpoint of a run that was stopped."""
  _, variables = vp.load(str(workdir))
  checkpoint.save_system(
    target,
    system=config.system,
    settings=config.model.to_dict(),
    frames=vp.Frames(**config.eval.frames.to_dict()),
    variables=variables,
    data=checkpoint.read_data_spec(workdir),
    dtype=config.export_dtype,
  )


@contextlib.contextmanager
def stopped_after(seconds: float):
  """Sends this process SIGTERM after the time, which ends a run in order.

  Before the run listens, and after it, the signal does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    raise RuntimeError('Signals only reach the main thread.')
  before = signal.signal(signal.SIGTERM, lambda *_: None)
  alarm = threading.Timer(
    max(seconds, 0), os.kill, (os.getpid(), signal.SIGTERM)
  )
  alarm.daemon = True
  alarm.start()
  try:
    yield
  finally:
    alarm.cancel()
    signal.signal(signal.SIGTERM, before)
