"""One table of a paper: the commands of its rows, or the rows themselves.

  python -m experiments.tables TABLE [--scale=paper|small|tiny] [--runs=runs]
    [--seeds=1] [--rows=LABEL;LABEL] [--list] [--set=steps=600]
    [--output=experiments/results]

TABLE is dmvfn:1 to dmvfn:13, dmvfn:figure5, simvp:2 to simvp:8, simvp:figure7,
rvd:1, rvd:2, rvd:figure3 or apr:1 to apr:5.

`paper` prints the commands of every row, looks for the data sets and weights
and says what is missing; it trains nothing. `small` trains and evaluates every
row with a small model on data that can be made here, and writes
OUTPUT/TABLE.json; `tiny` does the same in a few steps, to see that it runs, and
writes into RUNS. Both print ours beside the paper's. A row that is done already
is not done again; `--list` prints what would be run. The error of a mean over
clips stands behind +-, the deviation over seeds in brackets.
"""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from experiments.tables import rows as data
from vidpred_jax import atomic

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAPERS = ROOT / 'experiments' / 'papers.json'


class Run(NamedTuple):
  """A command of `vidpred_jax.main` and where its results lie.

  Attributes:
    config: file and variants.
    settings: `name=value` of the configuration.
    workdir: its folder.
    weights: the folder of the run that is evaluated; empty: it is trained.
  """

  config: str
  settings: tuple[str, ...]
  workdir: str
  weights: str = ''

  def command(self) -> list[str]:
    """The arguments after `python`."""
    settings = list(self.settings)
    mode = []
    if self.weights:
      mode = ['--mode=eval']
      settings.append(f'init_from={self.weights}')
    return [
      '-m',
      'vidpred_jax.main',
      f'--config={self.config}',
      *(f'--config.{x}' for x in settings),
      *mode,
      f'--workdir={self.workdir}',
    ]


def file_of(config: str, variants: str) -> str:
  """What `--config` takes."""
  return f'configs/{config}.py' + (f':{variants}' if variants else '')


def _folder(*parts: str) -> str:
  """A name for a folder, of variants and settings."""
  plain = '+'.join(p for p in parts if p) or 'default'
  return ''.join(c if c.isalnum() or c in '-_.,+=' else '_' for c in plain)


def paper_runs(
  table: data.Table, row: data.Row, runs: str, perceptual: bool
) -> list[Run]:
  """The commands of a row with the paper's recipe, in their order.

  Args:
    table: the table.
    row: one of its rows.
    runs: the folder of all runs.
    perceptual: whether a column needs the metrics with weights.
  """
  found, sets = {}, data.SETS[table.config]
  source = _of(table, row.weights) if row.weights else row

  def trained(variants: str) -> str:
    names = variants.split(',')
    settings = []
    before = next((data.BEFORE[n] for n in names if n in data.BEFORE), '')
    if before:
      settings = [f'init_from={trained(before)}']
    place = f'{runs}/{table.config}/{_folder(variants)}'
    config = file_of(table.config, variants)
    found[place] = Run(config, tuple(settings), place)
    return place

  extra = ('perceptual',) if perceptual and table.config != 'apr_vfi' else ()
  for name in table.sets:
    of_set = sets[name]
    first = sets[of_set.weights] if of_set.weights else of_set
    place = trained(_join(first.variants, source.variants, *extra))
    own = _join(of_set.variants, source.variants, row.variants, *extra)
    if row.weights and not row.baseline or of_set.weights:
      folder = f'{runs}/{table.config}/{_folder(own, "on", name)}'
      config = file_of(table.config, own)
      found[folder] = Run(config, (), folder, place)
  return list(found.values())


def _join(*variants: str) -> str:
  names = [n for v in variants for n in v.split(',') if n]
  return ','.join(dict.fromkeys(names))


def _of(table: data.Table, label: str) -> data.Row:
  return next(r for r in table.rows if r.label == label)


def _scale(table: data.Table, name: str) -> data.Scale:
  known = data.SCALES[name]
  return known.get(table.small) or known[table.config]


def small_run(
  table: data.Table, row: data.Row, scale: str, runs: str, seed: int, more
) -> Run:
  """The command of a row with a small model on data that are made.

  Args:
    table: the table.
    row: one of its rows.
    scale: 'small' or 'tiny'.
    runs: the folder of all runs.
    seed: of training.
    more: settings of the command line.
  """
  base = _scale(table, scale)
  source = _of(table, row.weights) if row.weights else row
  seeds = (f'seed={seed}',) if seed else ()
  place = pathlib.Path(runs) / scale / table.config

  def of(row):
    own = row.small if row.small is not None else (row.variants,)
    variants = _join(base.variants, *(x for x in own if '=' not in x))
    settings = tuple(x for x in own if '=' in x)
    return variants, settings, _folder(variants, *settings, *more, *seeds)

  variants, settings, folder = of(source)
  settings = base.settings + settings
  run = Run(
    file_of(table.config, variants),
    (*settings, *more, *seeds),
    str(place / folder),
  )
  if not row.weights or row.baseline:
    return run
  own, changed, own_folder = of(row)
  if own_folder == folder:
    return run
  return Run(
    file_of(table.config, _join(variants, own)),
    (*settings, *changed, *more),
    str(place / _folder('of', folder, own_folder)),
    run.workdir,
  )


# --------------------------------------------------------------- what it gives


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
  table: data.Table, column: str, outcome: Outcome, first: Outcome
) -> dict[str, float] | None:
  """A number of a run, or None.

  It is `{'mean': x}`, with the `'standard_error'` over clips where the results
  hold a 95 % interval (of a root of a mean: half the interval's width / 1.96).

  Args:
    table: the table.
    column: `QUANTITY [t+K]`, or one of those that are computed here.
    outcome: the run's.
    first: that of the first row, which 'PSNR gain' is over.
  """
  run, results, baseline = outcome
  if column == 'PSNR gain':
    return _gain(outcome, first)
  quantities = data.SMALL_QUANTITIES[table.config]
  quantity, _, when = column.partition(' t+')
  if quantity in quantities:
    metric, part, factor = quantities[quantity]
    source = results['metrics']
    if baseline:
      source = results['baselines'][baseline]
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
  if baseline:
    return None
  number = _computed(column, results, run)
  return None if number is None else {'mean': number}


def _gain(outcome: Outcome, first: Outcome) -> dict[str, float] | None:
  """The difference in PSNR on the same clips, whose error is far smaller."""
  own, other = (_saved(x) for x in (outcome, first))
  if own is None or other is None or not np.array_equal(own[1], other[1]):
    return None
  difference = own[0] - other[0]
  error = float(np.std(difference, ddof=1) / math.sqrt(len(difference)))
  return {'mean': float(np.mean(difference)), 'standard_error': error}


def _saved(outcome: Outcome) -> tuple[np.ndarray, np.ndarray] | None:
  """The PSNR of the clips in predictions.npz, dB, [M], and the true frames."""
  path = pathlib.Path(outcome.run.workdir) / 'predictions.npz'
  if not path.exists():
    return None
  with np.load(path) as saved:
    target = saved['target']
    shown = saved['prediction']
    if outcome.baseline == 'copy_last':
      shown = np.float32(saved['context'][:, -1:]) / 255
    elif outcome.baseline:
      return None
  error = np.mean((shown - np.float32(target) / 255) ** 2, (2, 3, 4))
  return np.mean(-10 * np.log10(np.maximum(error, 1e-10)), 1), target


def _milliseconds(run: Run) -> float:
  """Processor time of a predicted frame, the least of 20 batches of 16 clips.

  Processor time and not that of the clock: other programs run beside it.
  """
  import jax

  from vidpred_jax import checkpoint, runtime

  system, variables = checkpoint.load(run.weights or run.workdir)
  with np.load(pathlib.Path(run.workdir) / 'predictions.npz') as saved:
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


def _computed(column: str, results: dict, run: Run) -> float | None:
  """What stands in no metric."""
  if column == 'ms of a frame':
    return _milliseconds(run)
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
    cost = _cost(run, used)
    return cost[column]
  raise ValueError(f'There is no column {column!r}.')


def _epoch_seconds(workdir: pathlib.Path) -> float | None:
  found = None
  for line in (workdir / 'metrics.jsonl').read_text().splitlines():
    found = json.loads(line).get('epoch_seconds', found)
  return found


def _cost(run: Run, used: list[float] | None) -> dict[str, float]:
  """Parameters, and multiply-adds in G of a frame on the routes taken.

  Of the layers as published: of each block as much as it was used, the router
  and all else once.
  """
  import jax

  from vidpred_jax import checkpoint, cost

  record, variables = checkpoint.read(run.weights or run.workdir)
  settings = record['settings']
  changed = {}
  if 'formulation' in settings:
    changed = {'formulation': 'published'}
  system, variables = checkpoint.load(run.weights or run.workdir, **changed)
  results = json.loads((pathlib.Path(run.workdir) / 'results.json').read_text())
  size = _size(results['protocol']['data'])
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
    'GFLOPs': total / len(system.frames.target) / 1e9,
  }


def _size(settings: dict) -> tuple[int, int]:
  size = settings.get('size') or (64, 64)
  return (size, size) if isinstance(size, int) else tuple(size)


def gathered(each: list[dict | None]) -> dict[str, Any] | None:
  """A number of several seeds as one."""
  known = [x for x in each if x is not None]
  if len(known) < len(each) or not known:
    return None
  numbers = [x['mean'] for x in known]
  found = {'mean': float(np.mean(numbers)), 'each': numbers}
  if len(numbers) > 1:
    found['deviation'] = float(np.std(numbers, ddof=1))
  errors = [x.get('standard_error') for x in known]
  if None not in errors:
    found['standard_error'] = float(np.mean(errors))
  return found


# ----------------------------------------------------------------- the programs


def print_paper(name: str, table: data.Table, chosen, runs: str) -> None:
  """Prints the commands of the rows, and what is missing for them."""
  paper = _paper(name, table)
  perceptual = any('LPIPS' in c or 'FVD' in c for c in paper['columns'])
  print(f'{name}: {paper["title"]} ({paper["source"]}), as published')
  for note in (table.note, paper.get('note', '')):
    if note:
      print(f'  {note}')
  done: dict[str, Run] = {}
  for row in chosen:
    print(f'\n{row.label}')
    if row.why:
      print(f'  cannot be had: {row.why}')
      continue
    if row.baseline:
      print(f'  {row.baseline} in the results of {row.weights}')
    for run in paper_runs(table, row, runs, perceptual):
      if run.workdir not in done:
        print(f'  python {shlex.join(run.command())}')
      done[run.workdir] = run
    print(f'  paper: {_line(paper, row.label)}')
  lacking: dict[str, list[str]] = {}
  for run in done.values():
    for text in missing(run.config):
      lacking.setdefault(text, []).append(run.config)
  print()
  for text, configs in lacking.items():
    print(f'missing for {len(configs)} of {len(done)} commands: {text}')


def missing(config: str) -> list[str]:
  """What a configuration needs and does not find: data, weights of metrics."""
  from vidpred_jax import build
  from vidpred_jax import data as sources
  from vidpred_jax.config import given

  made = configuration(config)
  lacking = []
  for split in ('train', 'test'):
    settings = build.evaluated_data(made)
    if split == 'train':
      settings = given(made.data)
    if settings['source'] == 'vortices':
      continue  # simulated when it is first asked for
    try:
      sources.make_source(
        settings.pop('source'), split=split, num_frames=3, **settings
      )
    except (FileNotFoundError, ValueError) as error:
      lacking.append(str(error).splitlines()[0])
  files = made.eval.lpips
  for prefix, paths in {
    'lpips': (files.backbone, files.heads),
    'fvd': (made.eval.i3d,),
  }.items():
    if any(m.startswith(prefix) for m in made.eval.metrics):
      lacking += [p for p in paths if not pathlib.Path(p).exists()]
  return list(dict.fromkeys(lacking))


def configuration(name: str):
  """The configuration of `configs/FILE.py:VARIANTS`."""
  path, _, variants = name.partition(':')
  spec = importlib.util.spec_from_file_location('configuration', ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variants)


def _paper(name: str, table: data.Table) -> dict:
  papers = json.loads(PAPERS.read_text())
  return papers.get(table.paper or name) or {
    'title': table.note, 'source': name, 'columns': [], 'rows': {}
  }  # fmt: skip


def _line(paper: dict, label: str) -> str:
  numbers = paper['rows'].get(label)
  if numbers is None:
    return 'no number'
  return ', '.join(
    f'{column} {"N/A" if number is None else number}'
    for column, number in zip(paper['columns'], numbers)
  )


def perform(run: Run) -> float | None:
  """Runs a command unless its results are there.

  Returns:
    The seconds of processor time that it took, now or when it was run; None if
    it was run otherwise.
  """
  known = pathlib.Path(run.workdir) / 'processor_seconds'
  if (pathlib.Path(run.workdir) / 'results.json').exists():
    return float(known.read_text()) if known.exists() else None
  start = os.times()
  done = subprocess.run(
    [sys.executable, *run.command()], cwd=ROOT, capture_output=True, text=True
  )
  if done.returncode:
    raise SystemExit(
      f'python {shlex.join(run.command())}\nended with {done.returncode}: '
      f'{done.stderr.strip().splitlines()[-1:]}'
    )
  end = os.times()
  seconds = end.children_user - start.children_user
  seconds += end.children_system - start.children_system
  atomic.write_text(known, f'{seconds:.1f}')
  return seconds


def make(name, table, chosen, options) -> dict[str, Any]:
  """Runs the rows and gathers their numbers.

  Returns:
    What is written to TABLE.json.
  """
  base = _scale(table, options.scale)
  columns = (*base.columns, *table.columns)
  found, commands, protocols, seconds = {}, [], {}, {}
  firsts: dict[int, Outcome] = {}
  of_clips = {}
  settings = tuple(options.set)
  for row in chosen:
    if (row.why and row.small is None) or row.not_small:
      found[row.label] = {'why': row.not_small or row.why}
      continue
    each = []
    for seed in range(options.seeds):
      needed = [_of(table, row.weights)] if row.weights else []
      for one in (*needed, row):
        run = small_run(table, one, options.scale, options.runs, seed, settings)
        seconds[run.workdir] = perform(run)
        commands.append(_shown(run, options.runs))
      outcome = Outcome.read(run, row.baseline)
      first = firsts.setdefault(seed, outcome)
      each.append({c: value(table, c, outcome, first) for c in columns})
    protocols[row.label] = _protocol(outcome.results)
    saved = _saved(outcome)
    if saved is not None and _gain(outcome, firsts[0]):
      of_clips[row.label] = [round(float(x), 3) for x in saved[0]]
    found[row.label] = {
      c: gathered([numbers[c] for numbers in each]) for c in columns
    }
    print(_ours(row.label, found[row.label], columns), flush=True)
  known = [x for x in seconds.values() if x is not None]
  return {
    'table': name,
    'scale': options.scale,
    'seeds': options.seeds,
    'steps': sorted({_steps(outcome.run) for outcome in firsts.values()}),
    'protocols': protocols,
    'versions': outcome.results['versions'],
    'columns': columns,
    'rows': found,
    'psnr_of_clips': of_clips,  # of the last seed
    'paper': _paper(name, table),
    'commands': list(dict.fromkeys(commands)),
    'processor_seconds': sum(known) if len(known) == len(seconds) else None,
  }


def _shown(run: Run, runs: str) -> str:
  """The command as anyone would write it."""
  return shlex.join(run.command()).replace(runs, 'runs/tables')


def _steps(run: Run) -> int:
  """How long a run trained."""
  made = pathlib.Path(run.weights or run.workdir) / 'config.json'
  return json.loads(made.read_text())['steps']


def _protocol(results: dict) -> dict[str, Any]:
  """What a row was measured on."""
  names = ('source', 'split', 'context', 'target', 'samples')
  told = {name: results['protocol'][name] for name in names}
  return told | {'clips': results['clips']}


def _ours(label: str, numbers: dict, columns) -> str:
  if 'why' in numbers:
    return f'{label:<34} {numbers["why"]}'
  cells = []
  for column in columns:
    known = numbers[column]
    if known is None:
      cells.append(f'{column} -')
      continue
    text = f'{column} {known["mean"]:.4g}'
    if 'standard_error' in known:
      text += f' +- {known["standard_error"]:.2g}'
    if 'deviation' in known:
      text += f' [{known["deviation"]:.2g}]'
    cells.append(text)
  return f'{label:<34} ' + ', '.join(cells)


def print_table(made: dict[str, Any]) -> None:
  """Prints ours beside the paper's."""
  paper, protocols = made['paper'], made['protocols']
  protocol = next(iter(protocols.values()))
  steps = ' or '.join(str(n) for n in made['steps'])
  seeds = made['seeds']
  print(f'\n{made["table"]}: {paper["title"]} ({paper["source"]})')
  print(
    f'ours: scale {made["scale"]}, {steps} steps, '
    f'{seeds} seed{"s" * (seeds > 1)}, '
    f'{protocol["clips"]} clips of {protocol["source"]}, frames '
    f"{protocol['context']} -> {protocol['target']}; not the paper's data: "
    'compare the order of the rows, not the numbers'
  )
  for label, numbers in made['rows'].items():
    print(_ours(label, numbers, made['columns']))
    if label in paper['rows']:
      print(f'{"  the paper":<34} {_line(paper, label)}')
  others = [x for x in paper['rows'] if x not in made['rows']]
  for label in others:
    print(f'{label:<34} {_line(paper, label)}')


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('table', choices=list(data.TABLES), metavar='TABLE')
  parser.add_argument(
    '--scale', choices=['paper', 'small', 'tiny'], default='paper'
  )
  parser.add_argument('--runs', default='runs/tables')
  parser.add_argument('--seeds', type=int, default=1)
  parser.add_argument('--rows', default='')
  parser.add_argument('--list', action='store_true')
  parser.add_argument('--set', action='append', default=[])
  parser.add_argument('--output', default='')
  options = parser.parse_args()
  table = data.TABLES[options.table]
  wanted = [x for x in options.rows.split(';') if x]
  unknown = set(wanted) - {row.label for row in table.rows}
  if unknown or options.seeds < 1:
    parser.error(
      f'{options.table} has the rows '
      f'{"; ".join(row.label for row in table.rows)}, and seeds are 1 or more.'
    )
  chosen = [r for r in table.rows if not wanted or r.label in wanted]
  if options.scale == 'paper':
    print_paper(options.table, table, chosen, options.runs)
    return
  if table.not_small:
    parser.error(f'{options.table} has no small scale: {table.not_small}')
  if options.list:
    for row in chosen:
      if row.not_small:
        print(f'{row.label}: left out, {row.not_small}')
        continue
      run = small_run(table, row, options.scale, options.runs, 0, options.set)
      print(f'{row.label}: python {shlex.join(run.command())}')
    return
  made = make(options.table, table, chosen, options)
  folder = pathlib.Path(options.output or ROOT / 'experiments' / 'results')
  if options.scale == 'tiny' and not options.output:
    folder = pathlib.Path(options.runs)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'{options.table.replace(":", "_")}.json'
  atomic.write_text(path, json.dumps(made, indent=2) + '\n')
  print_table(made)
  print(f'Written to {path}.')


if __name__ == '__main__':
  main()
