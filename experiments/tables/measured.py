"""The numbers of a row, from what its runs wrote."""

import json
import math
import pathlib
import time
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.tables import rows
from experiments.tables.commands import Run
from vidpred_jax import metrics

# Columns of the papers that follow from a run and stand in no metric of it.
COMPUTED = ('parameters (M)', 'GFLOPs', 'seconds an epoch', 'frames a second')


class Outcome(NamedTuple):
  """A run that is done.

  Attributes:
    run: its command.
    results: what its evaluation wrote.
    baseline: one of its baselines instead of the prediction; empty: that.
  """

  run: Run
  results: dict
  baseline: str

  @classmethod
  def read(cls, run: Run, baseline: str) -> 'Outcome':
    """Reads what a run wrote."""
    path = pathlib.Path(run.workdir) / 'results.json'
    return cls(run, json.loads(path.read_text()), baseline)


def value(
  table: rows.Table, column: str, outcome: Outcome, first: Outcome
) -> dict[str, float] | None:
  """A number of a run, or None.

  It is `{'mean': x}`, with the `'standard_error'` over clips where the results
  hold a 95 % interval (of a root of a mean: half the interval's width / 1.96).

  Args:
    table: the table.
    column: `QUANTITY [t+K]`, or one of those that are computed here.
    outcome: the run's.
    first: that of the first row, which '... gain' is over.
  """
  run, results, baseline = outcome
  if column == f'{rows.ORDERS[table.config][0]} gain':
    return gain(table, outcome, first)
  quantities = rows.SMALL_QUANTITIES[table.config]
  quantity, _, when = column.partition(' t+')
  if quantity in quantities:
    return _of_metric(results, baseline, quantities[quantity], when)
  if baseline:
    return None
  number = _computed(table, column, results, run)
  return None if number is None else {'mean': number}


def of_paper(
  table: rows.Table, column: str, run: Run, baseline: str
) -> float | None:
  """A number of a paper's column, from a run of its recipe; None without it.

  It is a mean over seeds if there are several, and the deviation over them if
  the column is one of deviations.

  Args:
    table: the table.
    column: of the paper, without its data set.
    run: the run, which may not be done.
    baseline: one of its baselines instead of the prediction; empty: that.
  """
  quantity, _, deviation = column.partition(' deviation')
  of_seeds = sorted(pathlib.Path(run.workdir).glob('seed*/results.json'))
  numbers = [
    _of_run(table, quantity, run._replace(workdir=str(folder)), baseline)
    for folder in [p.parent for p in of_seeds] or [run.workdir]
  ]
  known = [x for x in numbers if x is not None]
  if column == quantity:
    return float(np.mean(known)) if known else None
  return float(np.std(known, ddof=1)) if len(known) > 1 else None


def _of_run(
  table: rows.Table, column: str, run: Run, baseline: str
) -> float | None:
  if not (pathlib.Path(run.workdir) / 'results.json').exists():
    return None
  results = Outcome.read(run, baseline).results
  quantity, _, when = column.partition(' t+')
  if quantity in table.quantities:
    found = _of_metric(results, baseline, table.quantities[quantity], when)
    return found and found['mean']
  if baseline or not (column in COMPUTED or column.startswith('block ')):
    return None
  return _computed(table, column, results, run)


def _of_metric(
  results: dict, baseline: str, quantity: tuple[str, str, float], when: str
) -> dict[str, float] | None:
  """A number that an evaluation has written, and its error if it has one."""
  metric, part, factor = quantity
  source = results['baselines'][baseline] if baseline else results['metrics']
  found = source.get(metric)
  if found is None:
    return None
  number = found[part]
  if isinstance(number, list):
    index = int(when or 1) - 1
    if index >= len(number):
      return None
    return {'mean': factor * number[index]}
  cell = {'mean': factor * number}
  if 'interval' in found:
    low, high = found['interval']
    cell['standard_error'] = abs(factor) * (high - low) / (2 * 1.96)
  return cell


def gain(
  table: rows.Table, outcome: Outcome, first: Outcome
) -> dict[str, float] | None:
  """How much better it is on the same clips.

  Its error is that of `errors.difference`, which knows all seeds.
  """
  own, other = (of_clips(table, x) for x in (outcome, first))
  if own is None or other is None or not np.array_equal(own[1], other[1]):
    return None
  difference = rows.ORDERS[table.config][2] * (own[0] - other[0])
  return {'mean': float(np.mean(difference))}


def of_clips(
  table: rows.Table, outcome: Outcome
) -> tuple[np.ndarray, np.ndarray] | None:
  """What the rows are judged by, of each clip of predictions.npz.

  Args:
    table: the table.
    outcome: the run's.

  Returns:
    The values of `rows.ORDERS` [M], a perfect PSNR as 100 dB, and the true
    frames [M, N, H, W, C]; None if the clips were not saved.
  """
  path = pathlib.Path(outcome.run.workdir) / 'predictions.npz'
  if not path.exists():
    return None
  with np.load(path) as saved:
    target = saved['target']
    if outcome.baseline == 'copy_last':
      shown = np.float32(saved['context'][:, None, -1:]) / 255
      shown = np.broadcast_to(shown, target[:, None].shape)
    elif outcome.baseline:
      return None
    else:
      known = 'samples' in saved
      shown = saved['samples'] if known else saved['prediction'][:, None]
  quantity = rows.ORDERS[table.config][0]
  name, _, factor = rows.SMALL_QUANTITIES[table.config][quantity]
  values = metrics.of_samples(
    {name: metrics.make(name)},
    jnp.asarray(np.moveaxis(shown, 1, 0)),
    jnp.asarray(np.float32(target) / 255),
  )[name]
  values = np.float64(values)
  values[np.isinf(values)] = 100.0
  return factor * values.mean(1), target


def evaluated(run: Run, results: dict, **changed):
  """The weights of a run in the system that was evaluated.

  A row that trains nothing has the weights of another run, and settings and
  frames of its own.

  Args:
    run: its command.
    results: what its evaluation wrote.
    **changed: settings that replace those of the evaluation.

  Returns:
    `(system, variables)`.
  """
  from vidpred_jax import checkpoint

  protocol, source = results['protocol'], run.weights or run.workdir
  record = {
    'system': results['system'],
    'settings': protocol['model'],
    'frames': {name: protocol[name] for name in ('context', 'target')},
  }
  _, variables = checkpoint.read(source)
  system = checkpoint.system_from_record(record, **changed)
  return system, checkpoint.check_variables(source, record, system, variables)


def _milliseconds(run: Run, results: dict) -> float | None:
  """Processor time of a predicted frame, the least of 20 batches of 16 clips.

  Processor time and not that of the clock: other programs run beside it. None
  if the clips were not saved. One key draws the routes that are drawn, for all
  batches, rows and seeds.
  """
  import jax

  from vidpred_jax import runtime

  clips = pathlib.Path(run.workdir) / 'predictions.npz'
  if not clips.exists():
    return None
  system, variables = evaluated(run, results)
  with np.load(clips) as saved:
    context = np.float32(saved['context'][:16]) / 255
  predict = jax.jit(system.predict)
  arguments = jax.device_put((variables, context, runtime.key(0)))
  times = []
  for _ in range(21):
    begin = time.process_time()
    jax.block_until_ready(predict(*arguments))
    times.append(time.process_time() - begin)
  frames = len(context) * len(system.frames.target)
  return 1000 * min(times[1:]) / frames


def _computed(
  table: rows.Table, column: str, results: dict, run: Run
) -> float | None:
  """What stands in no metric."""
  if column == 'ms of a frame':
    return _milliseconds(run, results)
  used = results.get('blocks_used')
  if column == 'blocks':
    return sum(used) if used else None
  if column.startswith('block '):
    index = int(column.split()[1]) - 1
    return used[index] if used and index < len(used) else None
  if column == 'frames a second':
    return results.get('frames_per_second')
  if column == 'seconds an epoch':
    return _epoch_seconds(pathlib.Path(run.weights or run.workdir))
  if column in ('parameters (M)', 'GFLOPs'):
    return _cost(run, results, at_once=table.config == 'simvp')[column]
  raise ValueError(f'There is no column {column!r}.')


def _epoch_seconds(workdir: pathlib.Path) -> float | None:
  found = None
  for line in (workdir / 'metrics.jsonl').read_text().splitlines():
    found = json.loads(line).get('epoch_seconds', found)
  return found


def _cost(run: Run, results: dict, *, at_once: bool) -> dict[str, float]:
  """Parameters, and multiply-adds in G of a frame on the routes taken.

  Of all frames where they are predicted at once, as the papers count.

  Of the layers as published: of each block as much as it was used, the router
  and all else once.
  """
  import jax

  from vidpred_jax import cost

  protocol, used = results['protocol'], results.get('blocks_used')
  changed = {}
  if 'formulation' in protocol['model']:
    changed = {'formulation': 'published'}
  system, variables = evaluated(run, results, **changed)
  size = _size(protocol['data'])
  context = jax.ShapeDtypeStruct(
    (1, len(system.frames.context), *size, system.channels), 'float32'
  )
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), variables
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  count = cost.count_macs(system.predict, shapes, context, key)
  parts = cost.by_part(count, shapes['params'])
  total = 0.0
  for name, macs in parts.items():
    block = name.removeprefix('block_')
    share = used[int(block)] if used and block.isdigit() else 1.0
    total += share * macs
  numbers = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes['params']))
  return {
    'parameters (M)': numbers / 1e6,
    'GFLOPs': total / (1 if at_once else len(system.frames.target)) / 1e9,
  }


def _size(settings: dict) -> tuple[int, int]:
  size = settings.get('size') or (64, 64)
  return (size, size) if isinstance(size, int) else tuple(size)
