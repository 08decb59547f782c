"""Results of several runs side by side, as a table for a paper.

  vidpred compare runs/gsta runs/tau [--format=latex] [--metrics=psnr/float]

reads `results.json` of each folder or address; a file can be named, too. Runs
are compared only if their protocols agree (data, frames, samples, clips, seed),
or with `--mixed`. The baselines of the first run are rows of the table.

A cell is a mean over clips. Half the width of its 95 % interval stands after
+-. The best number of a column is marked (`*`, bold). `--per_frame` adds a
column for each target frame.

The format csv has a line for each cell: run, metric, frame, value, low, high.
"""

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from vidpred_jax import atomic, command, names, storage, stored

FORMATS = ('text', 'md', 'csv', 'latex')
# Fields of a protocol that may differ: they describe the run's model.
_OF_MODEL = ('model',)


def _is_indices(value) -> bool:
  return (
    isinstance(value, list)
    and bool(value)
    and all(type(x) is int for x in value)
  )


def _is_number(value) -> bool:
  return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_score(value) -> bool:
  """A number; JSON has no word for those that are not finite."""
  return _is_number(value) or value in ('inf', '-inf', 'nan')


def _is_scores(value) -> bool:
  """`{metric: {'mean': x, 'per_frame': [x], 'interval': [x, x]}}`."""
  return isinstance(value, dict) and all(
    name.isprintable()
    and isinstance(x, dict)
    and _is_score(x.get('mean', math.nan))
    and all(
      isinstance(x.get(name) or [], list)
      and all(map(_is_score, x.get(name) or ()))
      for name in ('per_frame', 'interval')
    )
    and len(x.get('interval') or (0, 0)) == 2
    for name, x in value.items()
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
    lambda x: (
      isinstance(x, dict)
      and all(map(_is_scores, x.values()))
      and all(map(str.isprintable, x))
    ),
    f'{_SCORES} of each',
    required=False,
  ),
}
_PROTOCOL = {'context': _INDICES, 'target': _INDICES}


class Cell(NamedTuple):
  """A cell of the table: a metric of a run.

  Attributes:
    metric: name of the metric.
    frame: the target frame as `t+1`, counted from the last context frame (for
      interpolation from the first), or 'mean'.
    value: the value; NaN if the run lacks the metric.
    low: lower end of the 95 % interval, or None.
    high: upper end of the 95 % interval, or None.
  """

  metric: str
  frame: str
  value: float
  low: float | None = None
  high: float | None = None


def read(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the results of a run.

  Args:
    path: the folder of a run, or its `results.json`; or an address.

  Returns:
    The content of the file.

  Raises:
    FileNotFoundError: if the file is missing.
    ValueError: if the file is damaged, or holds no results.
  """
  away = atomic.is_address(path)
  file = os.fspath(path)
  if not file:
    raise ValueError('The name of a run is empty.')
  if not file.endswith('.json') and (away or os.path.isdir(file)):
    file = f'{file.rstrip("/")}/results.json'
  try:
    if away:
      content = storage.read(file, stored.MOST_OF_A_RECORD)
      results = stored.parsed(file, content)
    else:
      results = stored.read_record(file)
  except FileNotFoundError:
    raise FileNotFoundError(
      f'{file} is not there; `vidpred evaluate` writes it.'
    ) from None
  stored.check(file, results, _RESULTS)
  stored.check(file, results['protocol'], _PROTOCOL, 'protocol.')
  _check_frames(file, results)
  return results


def _check_frames(file: str, results: Mapping[str, Any]) -> None:
  """Raises ValueError unless each metric has a number for each target frame."""
  context, target = (results['protocol'][x] for x in ('context', 'target'))
  if min(context) >= min(target):
    raise ValueError(
      f'{file} is damaged: protocol.context is {stored.shown(context)}, '
      f'expected a frame before the first of {stored.shown(target)}.'
    )
  for scores in (results['metrics'], *results.get('baselines', {}).values()):
    for name, score in scores.items():
      count = len(score.get('per_frame') or target)
      if count != len(target):
        raise ValueError(
          f'{file} is damaged: {name} has numbers of {count} frames, expected '
          f'those of {len(target)}.'
        )


def differences(runs: Mapping[str, Mapping]) -> list[str]:
  """Lists the differences between the first run's protocol and the others.

  Args:
    runs: `{name: results}`.

  Returns:
    A line for each field that differs.
  """
  first, *others = runs
  expected = _protocol(runs[first])
  lines = []
  for name in others:
    protocol = _protocol(runs[name])
    for field in sorted({*expected, *protocol}):
      ours, theirs = expected.get(field), protocol.get(field)
      if ours != theirs:
        lines.append(f'{field}: {ours} in {first}, {theirs} in {name}')
  return lines


def _protocol(results: Mapping) -> dict[str, Any]:
  protocol = {
    k: v for k, v in results['protocol'].items() if k not in _OF_MODEL
  }
  return protocol | {name: results[name] for name in ('clips', 'seed')}


def cells(
  values: Mapping[str, Mapping],
  protocol: Mapping,
  *,
  metrics: Sequence[str],
  per_frame: bool = False,
) -> list[Cell]:
  """Makes a row of the table.

  Args:
    values: `{metric: {'per_frame': [N], 'mean': x, ...}}`, as in
      `results.json`.
    protocol: the protocol of `results.json`.
    metrics: the metrics of the row, in this order.
    per_frame: whether to add a cell for each target frame.

  Returns:
    The cells; for each metric those of frames before that of the mean.
  """
  frames = names.of_frames(protocol['context'], protocol['target'])
  row = []
  for name in metrics:
    metric = values.get(name, {})
    if per_frame:
      numbers = metric.get('per_frame') or [math.nan] * len(frames)
      row += [Cell(name, t, float(x)) for t, x in zip(frames, numbers)]
    ends = map(float, metric.get('interval') or ())
    row.append(Cell(name, 'mean', float(metric.get('mean', 'nan')), *ends))
  return row


def rows(
  runs: Mapping[str, Mapping],
  *,
  metrics: Sequence[str] = (),
  per_frame: bool = False,
) -> dict[str, list[Cell]]:
  """Makes the rows of the table: the runs, and the baselines of the first.

  Args:
    runs: `{name: results}`.
    metrics: the metrics of each row, in this order; by default those that all
      runs have.
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
    names.check('metric', name, set().union(*known))
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
    table[name if name not in runs else f'{name}, baseline'] = cells(
      values, first['protocol'], metrics=chosen, per_frame=per_frame
    )
  return _aligned(table, chosen)


def _aligned(
  table: Mapping[str, Sequence[Cell]], metrics: Sequence[str]
) -> dict[str, list[Cell]]:
  """Rows that have the same columns, with gaps for frames that one lacks."""
  frames = {cell.frame for row in table.values() for cell in row}
  columns = sorted(frames, key=_by_number)
  return {
    name: [
      known.get((metric, frame), Cell(metric, frame, math.nan))
      for metric in metrics
      for frame in columns
    ]
    for name, row in table.items()
    for known in [{(cell.metric, cell.frame): cell for cell in row}]
  }


def _by_number(frame: str) -> tuple[bool, list[int]]:
  """By the numbers in a frame's name; the mean is the last."""
  return frame == 'mean', [int(x) for x in re.findall('[0-9]+', frame)]


def render(table: Mapping[str, Sequence[Cell]], form: str) -> str:
  """Writes the table as text.

  Args:
    table: the result of `rows`.
    form: one of `FORMATS`.

  Returns:
    The text, with a newline at its end.

  Raises:
    ValueError: for an unknown format.
  """
  names.check('format', form, FORMATS)
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
  """1 if higher is better, -1 if lower is better, 0 if neither."""
  if name.startswith('spread_skill'):
    return 0  # the best ratio is 1
  return 1 if name.startswith(('psnr', 'ssim', 'ms_ssim', 'acc')) else -1


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
    width = cell.high - cell.low
    half = f'{width / 2:.{digits}f}' if math.isfinite(width) else ''
  if form == 'latex':
    text = text.replace('inf', r'\infty')
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
  lines = [[x.replace('|', r'\|') for x in line] for line in lines]
  head, *rest = ['| ' + ' | '.join(line) + ' |' for line in lines]
  rule = '| --- |' + ' ---: |' * (len(lines[0]) - 1)
  return '\n'.join([head, rule, *rest]) + '\n'


def _latex(lines) -> str:
  names = {mark: f'\\{mark}' for mark in '_%&#${}'} | {
    '↑': r'$\uparrow$',
    '↓': r'$\downarrow$',
    '\\': r'\textbackslash{}',
    '^': r'\^{}',
    '~': r'\~{}',
  }

  def escaped(text):
    return ''.join(names.get(mark, mark) for mark in text)

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


def _place(folder: str) -> str:
  """The same for all names of a run."""
  if atomic.is_address(folder):
    return folder.rstrip('/')
  place, file = os.path.split(os.path.realpath(folder))
  return place if file == 'results.json' else os.path.join(place, file)


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_enum('format', 'text', FORMATS, 'How the table is written.')
  flags.DEFINE_list('metrics', [], 'Metrics; default: those of all runs.')
  flags.DEFINE_bool('per_frame', False, 'Add a column for each target frame.')
  flags.DEFINE_bool('mixed', False, 'Compare runs with different protocols.')


def main(argv) -> None:
  """Prints the table of the named runs."""
  options = flags.FLAGS
  folders = argv[1:]
  if not folders:
    raise ValueError('Name the folders of runs: vidpred compare RUN RUN ...')
  runs = {folder: read(folder) for folder in folders}
  if len({_place(x) for x in folders}) < len(folders):
    raise ValueError(f'A run is named twice: {", ".join(folders)}.')
  differing = [command.printable(x) for x in differences(runs)]
  if differing and not options.mixed:
    raise ValueError(
      f'They were not measured alike: {"; ".join(differing)}. With --mixed '
      'they are compared nevertheless.'
    )
  runs = {command.printable(name): values for name, values in runs.items()}
  table = rows(runs, metrics=options.metrics, per_frame=options.per_frame)
  print(render(table, options.format), end='')
  if differing and options.format != 'csv':
    mark = {'latex': '% ', 'md': '\n'}.get(options.format, '')
    print(f'{mark}Not measured alike: {"; ".join(differing)}.')


if __name__ == '__main__':
  command.run(main, define_flags, takes_names=True)
