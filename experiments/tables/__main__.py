"""One table of a paper: the commands of its rows, or the rows themselves.

  python -m experiments.tables TABLE [--scale=paper|small|tiny] [--runs=runs]
    [--seeds=1] [--rows=LABEL;LABEL] [--list] [--set=steps=600]
    [--output=experiments/results]

TABLE is dmvfn:1 to dmvfn:13, dmvfn:figure5, simvp:2 to simvp:8, simvp:figure7,
rvd:1, rvd:2, rvd:figure3 or apr:1 to apr:5.

`paper` prints the commands of every row, looks for the data sets and weights
and says what is missing; it trains nothing. Where a command was run, it prints
what came out beside the paper's number. `small` trains and evaluates every row
with a small model on data that can be made here, and writes OUTPUT/TABLE.json;
`tiny` does the same in a few steps, to see that it runs, and writes into RUNS.
Both print ours beside the paper's. A row that is done already is not done
again; `--list` prints what would be run. Behind +- stands the standard error of
a mean over clips, and over seeds where there are several; the deviation over
seeds stands in brackets.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from experiments.tables import commands, errors, measured, published, rows
from vidpred_jax import atomic

ROOT = pathlib.Path(__file__).resolve().parents[2]


def perform(run: commands.Run) -> float | None:
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
  base = commands.scale_of(table, options.scale)
  columns = (*base.columns, *table.columns)
  scale, runs = options.scale, options.runs
  found, lines, protocols, seconds = {}, [], {}, {}
  firsts: dict[int, measured.Outcome] = {}
  of_clips: dict[str, list[list[float]]] = {}
  settings, steps = tuple(options.set), set()
  gain = f'{rows.ORDERS[table.config][0]} gain'
  for row in chosen:
    if (row.why and row.small is None) or row.not_small:
      found[row.label] = {'why': row.not_small or row.why}
      continue
    each, clips = [], []
    for seed in range(options.seeds):
      needed = [commands.row_of(table, row.weights)] if row.weights else []
      before = commands.small_before(table, scale, runs, seed, settings)
      each_run = (
        commands.small_run(table, one, scale, runs, seed, settings)
        for one in (*needed, row)
      )
      for run in (*([before] if before else []), *each_run):
        seconds[run.workdir] = perform(run)
        lines.append(_shown(run, runs))
      outcome = measured.Outcome.read(run, row.baseline)
      first = firsts.setdefault(seed, outcome)
      steps.add(_steps(outcome.run))
      each.append(
        {c: measured.value(table, c, outcome, first) for c in columns}
      )
      saved = measured.of_clips(table, outcome)
      if saved is not None and measured.gain(table, outcome, first):
        clips.append([float(f'{x:.6g}') for x in saved[0]])
    protocols[row.label] = _protocol(outcome.results)
    found[row.label] = {
      c: errors.gathered([numbers[c] for numbers in each]) for c in columns
    }
    if len(clips) == options.seeds:
      of_clips[row.label] = clips
      if gain in columns:
        apart = errors.difference(clips, next(iter(of_clips.values())))
        found[row.label][gain]['standard_error'] = apart.error
    print(_ours(row.label, found[row.label], columns), flush=True)
  known = [x for x in seconds.values() if x is not None]
  return {
    'table': name,
    'scale': options.scale,
    'seeds': options.seeds,
    'steps': sorted(steps),
    'protocols': protocols,
    'versions': outcome.results['versions'],
    'columns': columns,
    'rows': found,
    'of_clips': of_clips,  # of each seed, see `rows.ORDERS`
    'paper': published.paper(name),
    'commands': list(dict.fromkeys(lines)),
    'processor_seconds': sum(known) if len(known) == len(seconds) else None,
  }


def _shown(run: commands.Run, runs: str) -> str:
  """The command as anyone would write it."""
  return shlex.join(run.command()).replace(runs, 'runs/tables')


def _steps(run: commands.Run) -> int:
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
    if known.get('deviation'):
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
      print(f'{"  the paper":<34} {published.line(paper, label)}')
  for label in paper['rows']:
    if label not in made['rows']:
      print(f'{label:<34} {published.line(paper, label)}')


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('table', choices=list(rows.TABLES), metavar='TABLE')
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
  table = rows.TABLES[options.table]
  wanted = [x for x in options.rows.split(';') if x]
  unknown = set(wanted) - {row.label for row in table.rows}
  if unknown or options.seeds < 1:
    parser.error(
      f'{options.table} has the rows '
      f'{"; ".join(row.label for row in table.rows)}, and seeds are 1 or more.'
    )
  chosen = [r for r in table.rows if not wanted or r.label in wanted]
  if options.scale == 'paper':
    published.show(options.table, chosen, options.runs, options.seeds)
    return
  if table.not_small:
    parser.error(f'{options.table} has no small scale: {table.not_small}')
  if options.list:
    before = commands.small_before(
      table, options.scale, options.runs, 0, options.set
    )
    if before:
      print(f'before all: python {shlex.join(before.command())}')
    for row in chosen:
      if row.not_small:
        print(f'{row.label}: left out, {row.not_small}')
        continue
      run = commands.small_run(
        table, row, options.scale, options.runs, 0, options.set
      )
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
