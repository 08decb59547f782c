"""The small runs of the papers' tables as a page of the documentation.

  python -m experiments.report [--plots] [--results=experiments/results]
    [--output=docs]

writes OUTPUT/results.md from the files of `experiments.tables`; `--plots` draws
OUTPUT/usage.png and OUTPUT/apr_time.png, too, and needs matplotlib. No number
of a table is typed in: what is said of its rows is counted, or read from it.
"""

import argparse
import itertools
import json
import pathlib
import re
from typing import Any

import numpy as np

from experiments.tables import errors, reasons
from experiments.tables import rows as data
from vidpred_jax import atomic

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'experiments' / 'results'
HEAD = """# Small runs of the papers' tables

Each table below is one of a paper, with small models: the rows of the paper,
trained for a minute or a few on one core of a shared machine, on data that can
be made anywhere. `python -m experiments.tables TABLE --scale=small` runs one
and writes it to `experiments/results`; `python -m experiments.report` makes
this page of them. `--scale=paper` prints the commands of the paper's own
recipe, which were not run here.

None of our numbers is to be compared with the paper's beside it. What can be
compared is the order of the rows. Where it is another than the paper's, the
reason is given if it was found. The columns named `gain` say how much better a
row is than the first one on the same clips (of an error: how much lower).

The number after +- is a standard error: over the test clips, and over the seeds
where several were trained; of a gain, that of the difference on the same clips
and seeds. The number in brackets is the deviation over seeds: what another
training changes. A table of one seed says nothing of that: differences as small
as those between seeds elsewhere are worth nothing. Two rows are called
different where the 95 % interval of their difference on the same clips and
seeds, by Student's t, leaves out 0.
"""
SAMPLERS = 'samplers.json'  # of `experiments.samplers`
# Tables whose rows are, at the small scale, among those of another.
AMONG = {
  'dmvfn:1': 'dmvfn:5',
  'dmvfn:2': 'dmvfn:5',
  'dmvfn:3': 'dmvfn:5',
  'dmvfn:6': 'dmvfn:11',
  'dmvfn:10': 'dmvfn:5',
  'dmvfn:12': 'dmvfn:7',
  'dmvfn:13': 'dmvfn:8',
  'simvp:figure7': 'simvp:2',
  'rvd:figure3': 'rvd:1',
}


def read(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The results by the names of their tables, in the papers' order."""
  found = {}
  for name in data.TABLES:
    path = folder / f'{name.replace(":", "_")}.json'
    if path.exists():
      found[name] = json.loads(path.read_text())
  return found


def read_samplers(folder: pathlib.Path) -> dict[str, Any] | None:
  """What `experiments.samplers` wrote there, if it did."""
  path = folder / SAMPLERS
  return json.loads(path.read_text()) if path.exists() else None


def page(results: dict[str, dict[str, Any]], sampled=None) -> str:
  """The page, Markdown.

  Args:
    results: of `read`.
    sampled: what `experiments.samplers` wrote; None: nothing.

  Returns:
    Its text.
  """
  parts = [HEAD, *(_section(name, results) for name in results)]
  if sampled:
    parts.append(samplers(sampled))
  lacking = [
    name
    for name, table in data.TABLES.items()
    if name not in results and not table.not_small
  ]
  if lacking:
    parts.append(
      '## Not run\n\nThere is a small scale of these, too:\n\n'
      + '\n'.join(f'- `{x}`: {_not_run(x)}.' for x in lacking)
      + '\n'
    )
  return '\n'.join(parts)


def samplers(made: dict[str, Any]) -> str:
  """The section on samplers of RVD, Markdown.

  Args:
    made: what `experiments.samplers --output=FILE` writes.

  Returns:
    Its text.
  """
  known = made['model']
  columns = ('seconds', 'crps/ens', 'crps/fair', 'spread_skill/ratio')
  lines = [
    '## RVD: samplers and their numbers of steps',
    '',
    f'The demo of RVD whose denoiser predicts `{known["prediction_type"]}`, '
    f'{made["training_steps"]} training steps, N = {known["num_timesteps"]}; '
    f'{made["frames"]} frame of {made["clips"]} test clips, {made["samples"]} '
    'samples of each, with the same keys. `gain` is by how much the fair CRPS '
    'is lower than that of the first row on the same clips, with its standard '
    'error. Seconds are of processor time. No table of the paper has it.',
    '',
    _row(['sampler:steps', 'keys', *columns, 'gain']),
    _row(['---'] * (len(columns) + 3)),
  ]
  for row in made['rows']:
    gain = -row['over the first'] + 0.0
    text = f'{gain:.3g} +- {row["standard error"]:.2g}'
    cells = [f'{row[c]:.4g}' for c in columns]
    lines.append(
      _row(
        [
          row['sampler'],
          str(row['seed']),
          *cells,
          text if row['standard error'] else '0',
        ]
      )
    )
  if reasons.SAMPLERS:
    lines += ['', reasons.SAMPLERS]
  return '\n'.join(lines) + '\n'


def _not_run(name: str) -> str:
  other = AMONG.get(name)
  if other is None:
    return 'there was no time'
  return f'its small rows are among those of `{other}`'


def _section(name: str, results: dict[str, dict[str, Any]]) -> str:
  made, table = results[name], data.TABLES[name]
  paper = made['paper']
  columns = made['columns']
  theirs = paper['columns'] if paper['rows'] else []
  head = ['row', *columns, *(f'paper: {c}' for c in theirs)]
  source = f' The paper: {paper["source"]}.'
  lines = [f'## {name}: {paper["title"]}', '', _protocol(made) + source]
  notes = (table.note, table.small_note, paper.get('note', ''))
  if any(notes):
    lines += ['', ' '.join(x for x in notes if x)]
  lines += ['', _row(head), _row(['---'] * len(head))]
  for label, numbers in made['rows'].items():
    own = [_cell(numbers.get(c)) for c in columns]
    if 'why' in numbers:
      own = [f'not run: {numbers["why"]}', *[''] * (len(columns) - 1)]
    numbers_of = _of_paper(paper, label) if theirs else []
    lines.append(_row([label, *own, *numbers_of]))
  for label in paper['rows']:
    if label not in made['rows']:
      empty = [''] * len(columns)
      lines.append(_row([label, *empty, *_of_paper(paper, label)]))
  reason = read_in(reasons.REASONS.get(name, ''), made, results)
  for text in (_order(name, made), reason, _plot(name)):
    if text:
      lines += ['', text]
  return '\n'.join(lines) + '\n'


def read_in(
  text: str, made: dict[str, Any], results: dict[str, dict[str, Any]]
) -> str:
  """The text with the numbers of tables in place of their names.

  Args:
    text: see `experiments.tables.reasons`.
    made: its table.
    results: the tables whose rows it may name, too.

  Returns:
    The text.
  """

  def of(column: str, label: str):
    """The number of a row, as it stands in the table."""
    label, _, other = label.partition('@')
    table = results[other] if other else made
    if not column.startswith('paper: '):
      return table['rows'][label][column]
    paper = table['paper']
    index = paper['columns'].index(column.removeprefix('paper: '))
    return {'mean': paper['rows'][label][index]}

  def number(found: re.Match) -> str:
    column, *labels = found[1].split('|')
    if column == 'bound':
      return _short(_difference(made, *labels).bound)
    known = [of(column.removeprefix('each '), x) for x in labels]
    if column.startswith('each '):
      of_seeds = zip(*(x['each'] for x in known))
      each = [first - sum(others) for first, *others in of_seeds]
      low, high = _short(min(each)), _short(max(each))
      return low if low == high else f'{low} to {high}'
    means = [x['mean'] for x in known]
    return _short(abs(means[0] - sum(means[1:])))

  return re.sub(r'<([^<>]+\|[^<>]+)>', number, text)


def _short(number: float) -> str:
  """Two digits that count."""
  return f'{float(f"{number:.2g}"):g}'


def _protocol(made: dict[str, Any]) -> str:
  """Scale, length, data: what a number of ours is of."""
  each = list(made['protocols'].values())
  known = each[0]
  steps = ', '.join(map(str, made['steps']))
  seeds = made['seeds']
  text = (
    f'Ours: scale {made["scale"]}, {steps} steps, {seeds} '
    f'seed{"s" if seeds > 1 else ""}, {known["clips"]} clips of '
    f'`{known["source"]}`, frames {known["context"]} -> {known["target"]}'
  )
  if any(x != known for x in each):
    text += ' (of the first row)'
  if made['processor_seconds']:
    text += f'; {made["processor_seconds"] / 60:.0f} minutes of one core'
  return text + '.'


def _of_paper(paper: dict[str, Any], label: str) -> list[str]:
  numbers = paper['rows'].get(label, [None] * len(paper['columns']))
  return ['' if x is None else str(x) for x in numbers]


def _row(cells) -> str:
  return '| ' + ' | '.join(cells) + ' |'


def _cell(number: dict[str, float] | None) -> str:
  if number is None:
    return ''
  text = f'{number["mean"]:.4g}'
  if number.get('standard_error'):
    text += f' +- {number["standard_error"]:.2g}'
  if number.get('deviation'):
    text += f' [{number["deviation"]:.2g}]'
  return text


# ------------------------------------------------------------------- the order


def _order(name: str, made: dict[str, Any]) -> str:
  """How many pairs of rows have the paper's order, and which have not.

  Of the rows whose clips are stored and that have a number in the paper.
  """
  kind = data.TABLES[name].config
  ours, theirs, sign = data.ORDERS[kind]
  paper = made['paper']
  if theirs not in ' '.join(paper['columns']):
    return ''
  column = next(i for i, c in enumerate(paper['columns']) if theirs in c)
  labels = [
    x
    for x in made['of_clips']
    if x in paper['rows'] and paper['rows'][x][column] is not None
  ]
  counts = {'same': 0, 'open': 0, 'other': 0}
  other = []
  for a, b in itertools.combinations(labels, 2):
    stated = paper['rows'][a][column] - paper['rows'][b][column]
    if not stated:
      continue
    better, worse = (a, b) if sign * stated > 0 else (b, a)
    found = _difference(made, better, worse)
    if abs(found.mean) <= found.bound:
      counts['open'] += 1
    elif sign * found.mean > 0:
      counts['same'] += 1
    else:
      counts['other'] += 1
      size = f'{abs(found.mean):.2g} +- {found.error:.2g}'
      other.append(f'{worse} over {better} by {size}')
  pairs = sum(counts.values())
  if not pairs:
    return ''
  text = (
    f"Order by {ours}, against the paper's by {paper['columns'][column]}: of "
    f'{pairs} pairs of rows {counts["same"]} are as in the paper, '
    f'{counts["other"]} the other way round, {counts["open"]} undecided.'
  )
  if made['seeds'] == 1:
    text += ' Of one seed: by the clips alone.'
  if other:
    text += f' The other way round: {"; ".join(other)}.'
  return text


def _difference(made, a: str, b: str) -> errors.Difference:
  """Of two rows, by the same clips and seeds."""
  return errors.difference(made['of_clips'][a], made['of_clips'][b])


# ----------------------------------------------------------------------- plots

PLOTS = {
  'dmvfn:figure5': ('usage.png', 'How often each block is used, by the motion'),
  'apr:3': ('apr_time.png', 'PSNR against processor time of APR-VFI'),
}


def _plot(name: str) -> str:
  file, text = PLOTS.get(name, ('', ''))
  return f'![{text}]({file})' if file else ''


def draw(results: dict[str, dict[str, Any]], folder: pathlib.Path) -> list[str]:
  """Draws what there are results for; the names of the files."""
  import matplotlib

  matplotlib.use('agg')
  from matplotlib import pyplot

  drawn = []
  for name, function in (('dmvfn:figure5', _usage), ('apr:3', _time)):
    if name in results:
      figure = pyplot.figure(figsize=(6, 3.6), layout='constrained')
      function(results, figure)
      with atomic.replacing(folder / PLOTS[name][0]) as partial:
        figure.savefig(partial, dpi=120, format='png')
      pyplot.close(figure)
      drawn.append(PLOTS[name][0])
  return drawn


def _usage(results, figure) -> None:
  """Bars: the use of each block for slow, medium and fast clips.

  A column of panels for each router, a row for each seed: trained again, a
  router chooses other blocks, which a mean would hide.
  """
  made = results['dmvfn:figure5']
  titles = {'': 'as published', ', standardised': 'standardised (ours)'}
  kinds = [kind for kind in titles if f'Slow{kind}' in made['rows']]
  blocks = [
    c
    for c in made['columns']
    if c.startswith('block ') and made['rows']['Slow'][c] is not None
  ]
  places, seeds = np.arange(len(blocks)), made['seeds']
  figure.set_size_inches(6, 1.6 + 1.4 * seeds)
  panels = figure.subplots(
    seeds, len(kinds), sharex=True, sharey=True, squeeze=False
  )
  for (seed, k), axes in np.ndenumerate(panels):
    for i, speed in enumerate(('Slow', 'Medium', 'Fast')):
      row = made['rows'][speed + kinds[k]]
      used = [row[c]['each'][seed] for c in blocks]
      axes.bar(places + (i - 1) * 0.27, used, 0.27, label=speed.lower())
    axes.set_xticks(places, [c.removeprefix('block ') for c in blocks])
    axes.set_ylim(0, 1.05)
    axes.set_ylabel(f'seed {seed}' if k == 0 else '')
  for kind, axes in zip(kinds, panels[0]):
    axes.set_title(f'router {titles[kind]}', fontsize=9)
  figure.supxlabel('block, from coarse to fine', fontsize=9)
  figure.supylabel('share of the clips that use it', fontsize=9)
  bars, names = panels[0, 0].get_legend_handles_labels()
  figure.legend(
    bars, names, title='motion', ncols=3, fontsize=8, loc='outside upper center'
  )


def _time(results, figure) -> None:
  """Points: PSNR against the time of a frame; patch sizes and keep ratios."""
  axes = figure.subplots()
  for name, text, marker in (
    ('apr:2', 'patches of P pixels', 'o'),
    ('apr:3', 'routed, keep ratios of the paper', 's'),
  ):
    rows = results.get(name, {'rows': {}})['rows']
    known = {k: v for k, v in rows.items() if 'why' not in v}
    if not known:
      continue
    x = [v['ms of a frame']['mean'] for v in known.values()]
    y = [v['PSNR']['mean'] for v in known.values()]
    error = [v['PSNR gain'].get('standard_error', 0) for v in known.values()]
    axes.errorbar(x, y, error, fmt=marker, capsize=2, label=text)
    # Above and below in turns, so that neighbours can be read.
    points = sorted(zip(x, y, known))
    for i, (*at, label) in enumerate(points):
      axes.annotate(
        label,
        at,
        (0, -10 if i % 2 else 10),
        textcoords='offset points',
        fontsize=7,
        rotation=40,
        ha='right' if i % 2 else 'left',
        va='top' if i % 2 else 'bottom',
        rotation_mode='anchor',
      )
  axes.set_xlabel('processor time of a frame, ms (not from 0)')
  axes.set_ylabel('PSNR, dB (bars: standard error of the gain)')
  # 0.02 dB or more: what is next to nothing shall look so.
  axes.margins(0.25, 0.5)
  low, high = axes.get_ylim()
  lacking = max(0.0, 0.02 - (high - low)) / 2
  axes.set_ylim(low - lacking, high + lacking)
  axes.ticklabel_format(axis='y', useOffset=False)
  axes.legend(fontsize=8)


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--plots', action='store_true')
  parser.add_argument('--results', type=pathlib.Path, default=RESULTS)
  parser.add_argument('--output', type=pathlib.Path, default=ROOT / 'docs')
  options = parser.parse_args()
  results = read(options.results)
  if not results:
    parser.error(f'{options.results} holds no results of experiments.tables.')
  text = page(results, read_samplers(options.results))
  atomic.write_text(options.output / 'results.md', text)
  drawn = draw(results, options.output) if options.plots else []
  print(f'Written to {options.output}: {", ".join(["results.md", *drawn])}')


if __name__ == '__main__':
  main()
