import ast
import contextlib
import json
import os
import pathlib
import re
import sys

import pytest

from experiments.tables import __main__ as tables
from experiments.tables import commands, measured, rows
from vidpred_jax import build, command

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAPERS = json.loads((ROOT / 'experiments' / 'papers.json').read_text())


def test_every_table_of_the_papers_is_there():
  expected = {
    *(f'dmvfn:{k}' for k in range(1, 14)),
    *(f'simvp:{k}' for k in range(2, 9)),
    *(f'rvd:{k}' for k in (1, 2)),
    *(f'apr:{k}' for k in range(1, 6)),
  }
  assert set(PAPERS) == expected
  assert len(expected) == 27
  figures = {'dmvfn:figure5', 'simvp:figure7', 'rvd:figure3'}
  assert set(rows.TABLES) == expected | figures
  for name, table in PAPERS.items():
    assert table['source'] and table['columns'], name
    for label, numbers in table['rows'].items():
      assert len(numbers) == len(table['columns']), (name, label)


def test_rows_are_those_of_the_papers_and_their_own():
  ours = {
    'dmvfn:1': {'DMVFN, routes drawn'},
    'dmvfn:2': {'DMVFN, routes drawn'},
    'dmvfn:5': {'STEBS, standardised'},
    'dmvfn:10': {'STEBS, standardised'},
    'simvp:8': {'gSTA, another seed', 'copy'},
    'dmvfn:8': {'DMVFN'},  # whose weights the others have
    'dmvfn:13': {'DMVFN'},
  }
  for name, table in rows.TABLES.items():
    known = PAPERS.get(table.paper or name, {'rows': {}})['rows']
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == len(labels)
    if known:
      assert set(labels) - set(known) <= ours.get(name, set()), name
    for row in table.rows:
      assert not row.weights or row.weights in labels


@pytest.mark.parametrize('name', rows.TABLES)
def test_every_command_of_a_paper_makes_its_system(name):
  table = rows.TABLES[name]
  runs = {}
  for row in table.rows:
    if not row.why:
      needed, _ = commands.paper_runs(table, row, 'runs', perceptual=True)
      runs |= {run.workdir: run for run in needed}
  trained = {place for place, run in runs.items() if not run.weights}
  assert trained or all(row.why for row in table.rows)
  for run in runs.values():
    config = command.configuration(command.config_file(run.config))
    for frames in (config.frames, config.eval.frames):
      build.system(config, frames)
    begins = [x for x in run.settings if x.startswith('init_from=')]
    for place in (*(x.partition('=')[2] for x in begins), run.weights):
      assert not place or place in trained
    if not run.weights and not begins:
      assert not config.init_from


@pytest.mark.parametrize('name', PAPERS)
def test_the_recipes_measure_every_column_of_the_paper(name):
  table, columns = rows.TABLES[name], PAPERS[name]['columns']
  perceptual = any('LPIPS' in c or 'FVD' in c for c in columns)
  metrics = {}
  for row in table.rows:
    _, of_sets = commands.paper_runs(table, row, 'runs', perceptual)
    for of_set, run in of_sets.items():
      config = command.configuration(command.config_file(run.config))
      metrics.setdefault(of_set, []).append(config.eval.metrics)
  for column in columns if name != 'dmvfn:4' else ():
    of_set, own = tables.of_column(table, column)
    quantity = own.partition(' t+')[0]
    if quantity in table.quantities:
      metric, *_ = table.quantities[quantity]
      assert all(metric in known for known in metrics[of_set]), column
    else:
      other = {'seconds', 'TFLOPs', 'MSE deviation', 'MAE deviation'}
      assert own in {*measured.COMPUTED, *other, 'SSIM deviation'}, column


@pytest.mark.parametrize('scale', ['small', 'tiny'])
@pytest.mark.parametrize('name', rows.TABLES)
def test_every_small_command_makes_its_system(name, scale):
  table = rows.TABLES[name]
  if table.not_small:
    return
  for row in table.rows:
    if row.why and row.small is None:
      continue
    run = commands.small_run(table, row, scale, 'runs', 1, ('steps=3',))
    config = command.configuration(command.config_file(run.config))
    for setting in run.settings:
      field, _, value = setting.partition('=')
      section = config
      *path, last = field.split('.')
      for part in path:
        section = section[part]
      assert last in section, setting
      with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value)
      section[last] = value
    assert config.steps == 3
    kind, _, share = row.label.partition(' ')
    if kind == 'beta':  # no setting hides what a row is about
      assert config.model.inference_beta == float(share)
    for frames in (config.frames, config.eval.frames):
      build.system(config, frames)


def test_paper_scale_says_what_is_missing(capsys, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['tables', 'dmvfn:5', '--runs=there'])
  tables.main()
  said = capsys.readouterr().out
  assert 'Table 5' in said and 'copy_last in the results of STEBS' in said
  assert '--config=configs/dmvfn.py:kitti,gumbel' in said
  assert 'kitti MS-SSIM t+5 65.83' in said
  assert (
    "KITTI raw, synced and rectified (train) is not at 'data/kitti'" in said
  )
  # What two rows need is trained once.
  command = 'python -m vidpred_jax.main --config=configs/dmvfn.py:kitti '
  assert said.count(command) == 1


def test_what_is_done_of_a_recipe_stands_beside_the_paper(
  capsys, monkeypatch, tmp_path
):
  for folder, baselines in (('kitti', {'copy_last': 0.5}), ('vimeo', {})):
    place = tmp_path / 'dmvfn' / folder
    place.mkdir(parents=True)
    values = {
      kind: {'ms_ssim/pmss': {'cumulative': [x, x - 0.125, x - 0.25]}}
      for kind, x in ({'prediction': 0.75} | baselines).items()
    }
    results = {'metrics': values.pop('prediction'), 'baselines': values}
    (place / 'results.json').write_text(json.dumps(results))
  monkeypatch.setattr(sys, 'argv', ['tables', 'dmvfn:5', f'--runs={tmp_path}'])
  tables.main()
  ours = re.findall('ours: (.*)', capsys.readouterr().out)
  assert ours == [  # of copy and STEBS; of t+5 there is nothing
    'kitti MS-SSIM t+1 50, kitti MS-SSIM t+3 25',
    'kitti MS-SSIM t+1 75, kitti MS-SSIM t+3 50',
  ]


def test_times_and_costs_have_a_command_of_their_own(capsys, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['tables', 'apr:1', '--runs=runs'])
  tables.main()
  said = capsys.readouterr().out
  assert (
    'xiph4k TFLOPs and xiph4k seconds: python -m vidpred_jax.cost '
    '--config=configs/apr_vfi.py:on_xiph4k,stage3 '
    '--checkpoint=runs/apr_vfi/stage3 --size=1080x2048 --route=ratios'
  ) in said


def test_a_tiny_table_is_trained_and_written(capsys, monkeypatch, tmp_path):
  known = os.environ['VIDPRED_JAX_TEST_FLAGS'].split()
  one_device = [flag for flag in known if 'device_count' not in flag]
  monkeypatch.setenv('XLA_FLAGS', ' '.join(one_device))
  arguments = [
    'tables', 'dmvfn:5', '--scale=tiny', f'--runs={tmp_path}', '--seeds=2',
    '--rows=copy;STEBS', '--set=eval.limit=2', '--set=model.scales=(2,)',
    '--set=model.widths=(8,)',
  ]  # fmt: skip
  monkeypatch.setattr(sys, 'argv', arguments)
  tables.main()
  said = capsys.readouterr().out
  made = json.loads((tmp_path / 'dmvfn_5.json').read_text())
  assert made['scale'] == 'tiny' and made['seeds'] == 2
  assert made['paper'] == PAPERS['dmvfn:5']
  assert list(made['rows']) == ['copy', 'STEBS']
  psnr = made['rows']['STEBS']['PSNR t+1']
  assert len(psnr['each']) == 2 and psnr['deviation'] > 0
  copy = made['rows']['copy']
  assert copy['blocks'] is None and copy['PSNR t+1']['deviation'] == 0
  assert 0 < made['rows']['STEBS']['GFLOPs']['mean'] < 1
  assert 0 <= made['rows']['STEBS']['blocks']['mean'] <= 1
  assert made['protocols']['STEBS']['clips'] == 2 and len(made['commands']) == 2
  assert (
    re.search(r'scale tiny, \d+ steps, 2 seeds, 2 clips', said)
    and 'w/o routing' in said
  )
  # Done already: nothing is trained anew, the same numbers come out.
  monkeypatch.setattr(tables.subprocess, 'run', None)
  tables.main()
  again = json.loads((tmp_path / 'dmvfn_5.json').read_text())
  assert again['rows'] == made['rows']


def test_a_wrong_row_is_told(monkeypatch, capsys):
  for arguments, words in (
    (['dmvfn:5', '--rows=stebs'], 'w/o routing; Random'),
    (['simvp:5', '--scale=tiny'], 'no small scale'),
    (['dmvfn:14'], 'dmvfn:figure5'),
  ):
    monkeypatch.setattr(sys, 'argv', ['tables', *arguments])
    with pytest.raises(SystemExit):
      tables.main()
    assert words in capsys.readouterr().err
