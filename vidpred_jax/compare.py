"""Results of several runs side by side, as a table for a paper.

  vidpred compare runs/gsta runs/tau [--format=latex] [--metrics=psnr/float]

reads `results.json` of each folder (or a file of that kind by its own name).
All must have been measured alike: where the protocols differ (data, frames,
samples, clips, seed) nothing is compared, unless `--mixed` is given. Every
number is a mean over clips, with half of its 95 % interval behind +- where the
results hold one; the best of a column is marked (`*`, bold). Baselines are
rows, too. With `--per_frame` there is a column for each target frame of each
metric.

The format csv has a line for each number: run, metric, frame, value, low, high.
"""

import csv
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from vidpred_jax import command, stored

FORMATS = ('text', 'md', 'csv', 'latex')
# Of a run's protocol, what describes the model and not how it was measured.
_OWN = ('model',)


def _is_indices(value) -> bool:
  return (
    isinstance(value, list)
    and bool(value)
    and all(type(x) is int for x in value)
  )


def _is_number(value) -> bool:
  return type(value) in (int, float)


def _is_scores(value) -> bool:
  """`{metric: {'mean': x, 'per_frame': [x], 'interval': [x, x]}}`."""
  return isinstance(value, dict) and all(
    isinstance(x, dict)
    and _is_number(x.get('mean', math.nan))
    and all(
      isinstance(x.get(name) or [], list)
      and all(map(_is_number, x.get(name) or ()))
      for name in ('per_frame', 'interval')
    )
    and len(x.get('interval') or (0, 0)) == 2
    for x in value.values()
  )


_INDICES = stored.Field(_is_indices, 'indices of frames')
_SCORES = 'numbers by the names of metrics'
_RESULTS = {
  'protocol': stored.Field(
    lambda x: isinstance(x, dict), 'how it was measured'
  ),
  'metrics': stored.Field(_is_scores, _SCORES),
  'clips': stored.Field(_is_number, 'their number'),
  'seed': stored.Field(_is_number, 'a number'),
  'baselines': stored.Field(
    lambda x: isinstance(x, dict) and all(map(_is_scores, x.values())),
    f'{_SCORES} of each',
    required=False,
  ),
}
_PROTOCOL = {'context': _INDICES, 'target': _INDICES}


class Cell(NamedTuple):
  """A number of a run.

  Attributes:
    metric: its name.
    frame: the target frame, counted from the last one seen, or 'mean'.
    value: the number; NaN where the run has none.
    low: the lower end of its 95 % interval, or None.
    high: the upper end.
  """

  metric: str
  frame: str
  value: float
  low: float | None = None
  high: float | None = None


def read(path: str | pathlib.Path) -> dict[str, Any]:
  """The results of a run.

  Args:
    path: the folder of a run, or its `results.json`.

  Returns:
    What the file holds.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is damaged, or holds no results.
  """
  path = pathlib.Path(path)
  file = path / 'results.json' if path.is_dir() else path
  if not file.is_file():
    raise FileNotFoundError(
      f'{file} is not there; `vidpred evaluate` writes it.'
    )
  results = stored.read_record(file)
  stored.check(file, results, _RESULTS)
  stored.check(file, results['protocol'], _PROTOCOL, 'protocol.')
  return results


def differences(runs: Mapping[str, Mapping]) -> list[str]:
  """How the protocols of runs differ from that of the first.

  Args:
    runs: `{name: results}`.

  Returns:
    A line for each field that differs, none if they are the same.
  """
  first, *others = runs
  wanted = _protocol(runs[first])
  found = []
  for name in others:
    protocol = _protocol(runs[name])
    for field in sorted({*wanted, *protocol}):
      ours, theirs = wanted.get(field), protocol.get(field)
      if ours != theirs:
        found.append(f'{field}: {ours} in {first}, {theirs} in {name}')
  return found


def _protocol(results: Mapping) -> dict[str, Any]:
  protocol = {k: v for k, v in results['protocol'].items() if k not in _OWN}
  return protocol | {name: results[name] for name in ('clips', 'seed')}


def cells(
  values: Mapping[str, Mapping],
  protocol: Mapping,
  *,
  metrics: Sequence[str],
  per_frame: bool = False,
) -> list[Cell]:
  """A row of the table.

  Args:
    values: `{metric: {'per_frame': [N], 'mean': x, ...}}`, as `results.json`
      has them.
    protocol: how they were measured.
    metrics: which, in this order.
    per_frame: whether there is a cell for each target frame, too.

  Returns:
    The cells, those of frames before the mean of each metric.
  """
  context, target = protocol['context'], protocol['target']
  between = max(target) < max(context)
  since = min(context) if between else max(context)
  row = []
  for name in metrics:
    found = values.get(name, {})
    if per_frame:
      numbers = found.get('per_frame') or [math.nan] * len(target)
      row += [
        Cell(name, f't{t - since:+d}', float(x))
        for t, x in zip(target, numbers)
      ]
    low, high = found.get('interval') or (None, None)
    row.append(Cell(name, 'mean', float(found.get('mean', 'nan')), low, high))
  return row


def rows(
  runs: Mapping[str, Mapping],
  *,
  metrics: Sequence[str] = (),
  per_frame: bool = False,
) -> dict[str, list[Cell]]:
  """All rows of the table: the runs, and the baselines of the first.

  Args:
    runs: `{name: results}`.
    metrics: which, in this order; by default all that all runs have.
    per_frame: as for `cells`.

  Returns:
    `{name: cells}`.

  Raises:
    ValueError: if a metric is in none of the runs, or no metric in all.
  """
  first, *_ = runs.values()
  known = [set(results['metrics']) for results in runs.values()]
  shared = [x for x in first['metrics'] if all(x in own for own in known)]
  for name in metrics:
    if name not in set().union(*known):
      raise ValueError(
        f'No run was measured by {name}; there are {", ".join(shared)}.'
      )
  chosen = list(metrics) or shared
  if not chosen:
    raise ValueError('The runs have no metric in common.')
  table = {}
  for name, results in runs.items():
    table[name] = cells(
      results['metrics'],
      results['protocol'],
      metrics=chosen,
      per_frame=per_frame,
    )
  for name, values in first.get('baselines', {}).items():
    table[name] = cells(
      values, first['protocol'], metrics=chosen, per_frame=per_frame
    )
  return table


def render(table: Mapping[str, Sequence[Cell]], form: str) -> str:
  """The table as text.

  Args:
    table: what `rows` gives; all rows have the same columns.
    form: one of `FORMATS`.

  Returns:
    Lines, the last one ended.
  """
  if form not in FORMATS:
    raise ValueError(
      f'There is no format {form!r}; there are {", ".join(FORMATS)}.'
    )
  if form == 'csv':
    return _csv(table)
  first, *_ = table.values()
  head = ['', *(_title(cell) for cell in first)]
  columns = list(zip(*table.values()))
  best = [_best(column) for column in columns]
  lines = [head]
  for name, row in table.items():
    texts = [
      _number(cell, form, cell.value == top) for cell, top in zip(row, best)
    ]
    lines.append([name, *texts])
  return {'text': _text, 'md': _markdown, 'latex': _latex}[form](lines)


def _title(cell: Cell) -> str:
  arrow = {1: ' ↑', -1: ' ↓', 0: ''}[_direction(cell.metric)]
  frame = '' if cell.frame == 'mean' else f' {cell.frame}'
  return f'{cell.metric}{frame}{arrow}'


def _direction(name: str) -> int:
  """1 where more is better, -1 where less is, 0 where neither is."""
  if name.startswith('spread_skill'):
    return 0  # 1 is right
  return 1 if name.startswith(('psnr', 'ssim', 'ms_ssim')) else -1


def _best(column: Sequence[Cell]) -> float | None:
  values = [cell.value for cell in column if not math.isnan(cell.value)]
  direction = _direction(column[0].metric)
  if len(values) < 2 or not direction:
    return None
  return direction * max(direction * x for x in values)


def _number(cell: Cell, form: str, best: bool) -> str:
  if math.isnan(cell.value):
    return '-'
  digits = _digits(cell)
  text = f'{cell.value:.{digits}f}'
  half = ''
  if cell.low is not None and cell.high is not None:
    half = f'{(cell.high - cell.low) / 2:.{digits}f}'
  if form == 'latex':
    text = rf'\mathbf{{{text}}}' if best else text
    return f'${text} \\pm {half}$' if half else f'${text}$'
  if form == 'md':
    text = f'**{text}**' if best else text
    return f'{text} ± {half}' if half else text
  text = f'{text} +- {half}' if half else text
  return text + ('*' if best else ' ')


def _digits(cell: Cell) -> int:
  """Decimals: four significant figures, but no fewer than two decimals."""
  size = abs(cell.value)
  if not math.isfinite(size) or size == 0:
    return 2
  return min(max(3 - math.floor(math.log10(size)), 2), 8)


def _text(lines) -> str:
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
  rows = [
    line[0].ljust(widths[0])
    + ''.join('  ' + x.rjust(w) for x, w in zip(line[1:], widths[1:]))
    for line in lines
  ]
  return '\n'.join(row.rstrip() for row in rows) + '\n'


def _markdown(lines) -> str:
  head, *rest = ['| ' + ' | '.join(line) + ' |' for line in lines]
  rule = '| --- |' + ' ---: |' * (len(lines[0]) - 1)
  return '\n'.join([head, rule, *rest]) + '\n'


def _latex(lines) -> str:
  arrows = {'↑': r'$\uparrow$', '↓': r'$\downarrow$'}

  def escaped(text):
    for mark in '_%&#':
      text = text.replace(mark, f'\\{mark}')
    for mark, name in arrows.items():
      text = text.replace(mark, name)
    return text

  head, *rest = lines
  body = [' & '.join([escaped(line[0]), *line[1:]]) + r' \\' for line in rest]
  return (
    '\n'.join(
      [
        rf'\begin{{tabular}}{{l{"r" * (len(head) - 1)}}}',
        r'\toprule',
        ' & '.join(map(escaped, head)) + r' \\',
        r'\midrule',
        *body,
        r'\bottomrule',
        r'\end{tabular}',
      ]
    )
    + '\n'
  )


def _csv(table) -> str:
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  writer.writerow(['run', *Cell._fields])
  for name, row in table.items():
    for cell in row:
      writer.writerow([name, *('' if x is None else x for x in cell)])
  return stream.getvalue()


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_enum('format', 'text', FORMATS, 'How the table is written.')
  flags.DEFINE_list('metrics', [], 'Which metrics; all that all runs have.')
  flags.DEFINE_bool('per_frame', False, 'A column for each target frame, too.')
  flags.DEFINE_bool('mixed', False, 'Compare what was not measured alike.')


def main(argv) -> None:
  """Prints the table of the runs that are named."""
  options = flags.FLAGS
  names = argv[1:]
  if not names:
    raise ValueError('Name the folders of runs: vidpred compare RUN RUN ...')
  if len(set(names)) < len(names):
    raise ValueError(f'A run is named twice: {", ".join(names)}.')
  runs = {name: read(name) for name in names}
  found = differences(runs)
  if found and not options.mixed:
    raise ValueError(
      f'They were not measured alike: {"; ".join(found)}. With --mixed they '
      'are compared nevertheless.'
    )
  table = rows(runs, metrics=options.metrics, per_frame=options.per_frame)
  print(render(table, options.format), end='')
  if found and options.format != 'csv':
    mark = {'latex': '% ', 'md': '\n'}.get(options.format, '')
    print(f'{mark}Not measured alike: {"; ".join(found)}.')


if __name__ == '__main__':
  command.run(main, define_flags, takes_names=True)
