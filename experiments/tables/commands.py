"""The commands of a row, with the paper's recipe or a small model."""

import pathlib
from typing import NamedTuple

from experiments.tables import rows


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
    # Of a field that is set twice the last: absl would join two tuples.
    last = {x.partition('=')[0]: x for x in self.settings}
    settings, mode = list(last.values()), []
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
  table: rows.Table, row: rows.Row, runs: str, perceptual: bool
) -> tuple[list[Run], dict[str, Run]]:
  """The commands of a row with the paper's recipe.

  Args:
    table: the table.
    row: one of its rows.
    runs: the folder of all runs.
    perceptual: whether a column needs the metrics with weights.

  Returns:
    All commands in their order, and those whose results are the row's, by the
    names of the data sets.
  """
  found, of_sets, sets = {}, {}, rows.SETS[table.config]
  source = row_of(table, row.weights) if row.weights else row

  def trained(variants: str) -> str:
    names = variants.split(',')
    settings = []
    before = next((rows.BEFORE[n] for n in names if n in rows.BEFORE), '')
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
    folder = place
    if row.weights and not row.baseline or of_set.weights:
      folder = f'{runs}/{table.config}/{_folder(own, "on", name)}'
      config = file_of(table.config, own)
      found[folder] = Run(config, (), folder, place)
    of_sets[name] = found[folder]
  return list(found.values()), of_sets


def _join(*variants: str) -> str:
  names = [n for v in variants for n in v.split(',') if n]
  return ','.join(dict.fromkeys(names))


def row_of(table: rows.Table, label: str) -> rows.Row:
  return next(r for r in table.rows if r.label == label)


def scale_of(table: rows.Table, name: str) -> rows.Scale:
  return rows.SCALES[name][table.config]


def small_run(
  table: rows.Table, row: rows.Row, scale: str, runs: str, seed: int, more
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
  base = scale_of(table, scale)
  before = small_before(table, scale, runs, seed, more)
  begin = (f'init_from={before.workdir}',) if before else ()
  base = base._replace(settings=begin + base.settings)
  return _small(table, row, base, pathlib.Path(runs) / scale, seed, more)


def small_before(
  table: rows.Table, scale: str, runs: str, seed: int, more
) -> Run | None:
  """The command of what all rows begin with, or None; see `small_run`."""
  base = scale_of(table, scale)
  if not base.before:
    return None
  row = rows.Row('', small=base.before)
  base = base._replace(settings=())
  return _small(table, row, base, pathlib.Path(runs) / scale, seed, more)


def _small(table, row, base: rows.Scale, place, seed: int, more) -> Run:
  source = row_of(table, row.weights) if row.weights else row
  seeds = (f'seed={seed}',) if seed else ()
  place = place / table.config

  def of(row):
    own = row.small if row.small is not None else (row.variants,)
    variants = _join(base.variants, *(x for x in own if '=' not in x))
    settings = tuple(x for x in own if '=' in x)
    if row.times > 1:
      known = dict(x.split('=', 1) for x in base.settings)
      settings += (f'steps={row.times * int(known["steps"])}',)
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
