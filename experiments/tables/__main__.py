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
again; `--list` prints what would be run. The error of a mean over clips stands
behind +-, the deviation over seeds in brackets.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from experiments.tables import commands, measured, rows
from vidpred_jax import atomic, command

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAPERS = ROOT / 'experiments' / 'papers.json'


def print_paper(name: str, table: rows.Table, chosen, runs: str) -> None:
  """Prints the commands of the rows, and what is missing for them."""
  paper = _paper(name, table)
  perceptual = any('LPIPS' in c or 'FVD' in c for c in paper['columns'])
  print(f'{name}: {paper["title"]} ({paper["source"]}), as published')
  for note in (table.note, paper.get('note', '')):
    if note:
      print(f'  {note}')
  done: dict[str, commands.Run] = {}
  for row in chosen:
    print(f'\n{row.label}')
    if row.why:
      print(f'  cannot be had: {row.why}')
      continue
    if row.baseline:
      print(f'  {row.baseline} in the results of {row.weights}')
    needed, of_sets = commands.paper_runs(table, row, runs, perceptual)
    for run in needed:
      if run.workdir not in done:
        print(f'  python {shlex.join(run.command())}')
      done[run.workdir] = run
    for line in _costs(paper, of_sets):
      print(f'  {line}')
    ours = _found(table, row, of_sets, paper['columns'])
    if ours:
      print(f'  ours: {ours}')
    print(f'  paper: {_line(paper, row.label)}')
  lacking: dict[str, list[str]] = {}
  for run in done.values():
    for text in missing(run.config):
      lacking.setdefault(text, []).append(run.config)
  print()
  for text, configs in lacking.items():
    print(f'missing for {len(configs)} of {len(done)} commands: {text}')


def _costs(paper: dict, of_sets: dict[str, commands.Run]):
  """The commands of columns that no evaluation has: times, multiply-adds."""
  from vidpred_jax import build

  for name, run in of_sets.items():
    timed = {f'{name} seconds', f'{name} TFLOPs'} & set(paper['columns'])
    if not timed:
      continue
    made = command.configuration(command.config_file(run.config))
    height, width = build.evaluated_data(made)['size']
    arguments = [
      f'--config={run.config}',
      f'--checkpoint={run.weights or run.workdir}',
      f'--size={height}x{width}',
    ]
    if made.model.synthesis == 'routed':
      arguments.append('--route=ratios')
    columns = ' and '.join(sorted(timed))
    yield f'{columns}: python -m vidpred_jax.cost {shlex.join(arguments)}'


def _found(table: rows.Table, row: rows.Row, of_sets, columns) -> str:
  """What the runs that are done have, in the paper's columns."""
  cells = []
  for column in columns:
    of_set, own = of_column(table, column)
    number = measured.of_paper(table, own, of_sets[of_set], row.baseline)
    if number is not None:
      cells.append(f'{column} {number:.4g}')
  return ', '.join(cells)


def of_column(table: rows.Table, column: str) -> tuple[str, str]:
  """The data set of a paper's column, and what is left of its name."""
  first, _, rest = column.partition(' ')
  return (first, rest) if first in table.sets else (table.sets[0], column)


def missing(config: str) -> list[str]:
  """What a configuration needs and does not find: data, weights of metrics."""
  from vidpred_jax import build
  from vidpred_jax import data as sources
  from vidpred_jax.config import given

  made = command.configuration(command.config_file(config))
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


def _paper(name: str, table: rows.Table) -> dict:
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
  of_clips: dict[str, list[float]] = {}
  settings = tuple(options.set)
  for row in chosen:
    if (row.why and row.small is None) or row.not_small:
      found[row.label] = {'why': row.not_small or row.why}
      continue
    each = []
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
      each.append(
        {c: measured.value(table, c, outcome, first) for c in columns}
      )
    protocols[row.label] = _protocol(outcome.results)
    saved = measured.of_clips(table, outcome)
    if saved is not None and measured.gain(table, outcome, first):
      of_clips[row.label] = [float(f'{x:.6g}') for x in saved[0]]
    found[row.label] = {
      c: measured.gathered([numbers[c] for numbers in each]) for c in columns
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
    'of_clips': of_clips,  # of the last seed, see `rows.ORDERS`
    'paper': _paper(name, table),
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
    print_paper(options.table, table, chosen, options.runs)
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
