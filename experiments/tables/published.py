"""A table with the paper's recipes: commands, what is missing, what is done."""

import json
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

from experiments.tables import commands, measured, rows
from vidpred_jax import command

PAPERS = pathlib.Path(__file__).resolve().parents[1] / 'papers.json'


def show(name: str, chosen, runs: str, seeds: int) -> None:
  """Prints the commands of rows, what is missing for them and what is done.

  Args:
    name: of the table.
    chosen: its rows.
    runs: the folder of all runs.
    seeds: how often a row is trained, if others do not begin with its weights.
  """
  table, known = rows.TABLES[name], paper(name)
  perceptual = any('LPIPS' in c or 'FVD' in c for c in known['columns'])
  print(f'{name}: {known["title"]} ({known["source"]}), as published')
  for note in (table.note, known.get('note', '')):
    if note:
      print(f'  {note}')
  plans = {
    row.label: commands.paper_runs(table, row, runs, perceptual)
    for row in chosen
    if not row.why
  }
  planned = [run for needed, _ in plans.values() for run in needed]
  begun = {run.weights for run in planned}
  begun |= {x.removeprefix('init_from=') for r in planned for x in r.settings}
  done: dict[str, commands.Run] = {}
  for row in chosen:
    print(f'\n{row.label}')
    if row.why:
      print(f'  cannot be had: {row.why}')
    else:
      needed, of_sets = plans[row.label]
      new = [run for run in needed if run.workdir not in done]
      done |= {run.workdir: run for run in new}
      if row.baseline:
        print(f'  {row.baseline} in the results of {row.weights}')
      for run in new:
        alone = not run.weights and run.workdir not in begun
        more = [f'--seeds={seeds}'] if seeds > 1 and alone else []
        print(f'  python {shlex.join([*run.command(), *more])}')
      if not new:
        print('  its commands stand above')
      _show_numbers(table, row, known['columns'], of_sets)
    numbers = row.paper or row.label
    if numbers in known['rows']:
      print(f'  paper: {line(known, numbers)}')
  _show_rest(known, chosen, table)
  lacking: dict[str, list[str]] = {}
  for run in done.values():
    for text in missing(run.config):
      lacking.setdefault(text, []).append(run.config)
  print()
  for text, configs in lacking.items():
    print(f'missing for {len(configs)} of {len(done)} commands: {text}')


def _show_numbers(table: rows.Table, row: rows.Row, columns, of_sets) -> None:
  """Commands of what no evaluation measures, and what was measured."""
  for text in _costs(columns, of_sets):
    print(f'  {text}')
  ours = _found(table, row, of_sets, columns)
  if ours:
    print(f'  ours: {ours}')


def _show_rest(known: dict, chosen, table: rows.Table) -> None:
  """The paper's numbers of what others made."""
  ours = {x for row in table.rows for x in (row.label, row.paper)}
  others = [label for label in known['rows'] if label not in ours]
  if others and len(chosen) == len(table.rows):
    print('\nof others, in the paper:')
    for label in others:
      print(f'  {label}: {line(known, label)}')


def _costs(columns, of_sets: dict[str, commands.Run]) -> Iterator[str]:
  """The commands of columns that no evaluation has: times, multiply-adds."""
  from vidpred_jax import build

  arguments: list[str] = []
  for name, run in of_sets.items():
    timed = {f'{name} seconds', f'{name} TFLOPs'} & set(columns)
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
    text = ' and '.join(sorted(timed))
    yield f'{text}: python -m vidpred_jax.cost {shlex.join(arguments)}'
  if any('--route' in x for x in arguments):
    yield (
      'of the shares of patches that the keep ratios say; of the routes of a '
      'clip: --route=argmax --input=CLIP'
    )


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


def paper(name: str) -> dict[str, Any]:
  """What the paper prints: `title`, `source`, `columns`, `rows`, `note`.

  A figure of a table's numbers names it, `numbers_of`, and has some of its
  columns.
  """
  papers = json.loads(PAPERS.read_text())
  found = papers[name]
  if 'numbers_of' not in found:
    return found
  other = papers[found['numbers_of']]
  places = [other['columns'].index(c) for c in found['columns']]
  numbers = {
    label: [each[i] for i in places] for label, each in other['rows'].items()
  }
  return found | {'rows': numbers}


def line(known: dict, label: str) -> str:
  """A row of a paper as text."""
  return ', '.join(
    f'{column} {"N/A" if number is None else number}'
    for column, number in zip(known['columns'], known['rows'][label])
  )
