import ast
import contextlib
import json
import os
import pathlib
import re
import sys

import numpy as np
import pytest

from experiments.tables import __main__ as tables
from experiments.tables import commands, errors, measured, published, rows
from vidpred_jax import build, command

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAPERS = {name: published.paper(name) for name in rows.TABLES}


def test_every_table_of_the_papers_is_there():
  expected = {
    *(f'dmvfn:{k}' for k in range(1, 14)),
    *(f'simvp:{k}' for k in range(2, 9)),
    *(f'rvd:{k}' for k in (1, 2)),
    *(f'apr:{k}' for k in range(1, 6)),
  }
  assert len(expected) == 27
  figures = {'dmvfn:figure5', 'simvp:figure7', 'rvd:figure3'}
  assert set(rows.TABLES) == expected | figures
  stored = (ROOT / 'experiments' / 'papers.json').read_text()
  assert set(json.loads(stored)) == expected | figures
  for name, table in PAPERS.items():
    assert table['source'] and table['columns'], name
    for label, numbers in table['rows'].items():
      assert len(numbers) == len(table['columns']), (name, label)


def test_rows_are_those_of_the_papers_and_their_own():
  ours = {
    'dmvfn:5': {'STEBS, standardised'},
    'dmvfn:10': {'STEBS, standardised'},
    'simvp:8': {'gSTA, another seed', 'copy'},
    'dmvfn:8': {'DMVFN'},  # whose weights the others have
    'dmvfn:13': {'DMVFN'},
  }
  for name, table in rows.TABLES.items():
    known = PAPERS[name]['rows']
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == len(labels)
    if known:
      of_paper = {row.paper or row.label for row in table.rows}
      assert of_paper - set(known) <= ours.get(name, set()), name
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
    of_set, own = published.of_column(table, column)
    quantity = own.partition(' t+')[0]
    if quantity in table.quantities:
      metric, *_ = table.quantities[quantity]
      assert all(metric in known for known in metrics[of_set]), column
    else:
      other = {'seconds', 'TFLOPs', 'MSE deviation', 'MAE deviation'}
      other |= {*measured.COMPUTED, 'SSIM deviation'}
      assert own in other or own.startswith('block '), column


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
    given = [x for x in run.command() if x.startswith('--config.')]
    settings = [x.removeprefix('--config.') for x in given]
    fields = [x.partition('=')[0] for x in settings]
    assert len(set(fields)) == len(fields)  # two tuples would be joined
    for setting in settings:
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


def test_longer_rows_are_as_much_longer_at_every_scale():
  table = rows.TABLES['simvp:2']
  for scale, steps in (('small', 300), ('tiny', 6)):
    for row in table.rows:
      run = commands.small_run(table, row, scale, 'runs', 0, ())
      found = [x for x in run.settings if x.startswith('steps=')]
      times = {'x3': 3, 'x5': 5, 'x10': 10}.get(row.variants, 1)
      assert found[-1] == f'steps={times * steps}'
      assert run.workdir.endswith(found[-1]) == (times > 1)


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


def test_seeds_of_a_recipe_are_one_number(capsys, monkeypatch, tmp_path):
  for seed, error in enumerate((26.0, 27.0, 28.0)):
    place = tmp_path / 'simvp' / 'default' / f'seed{seed}'
    place.mkdir(parents=True)
    results = {'metrics': {'mse/sum_chw': {'mean': error}}, 'baselines': {}}
    (place / 'results.json').write_text(json.dumps(results))
    (place / 'metrics.jsonl').write_text(f'{{"epoch_seconds": {60 + seed}}}\n')
  monkeypatch.setattr(measured, '_cost', lambda *_, **__: {'GFLOPs': 16.5})
  arguments = ['tables', 'simvp:2', f'--runs={tmp_path}', '--seeds=3']
  monkeypatch.setattr(sys, 'argv', arguments)
  tables.main()
  said = capsys.readouterr().out
  assert said.count('--seeds=3') == 6 + 1  # each row, and the note
  assert re.findall('ours: (.*)', said) == [
    'GFLOPs 16.5, seconds an epoch 61, MSE 27, MSE deviation 1'
  ]
  # What other rows begin with is trained once.
  monkeypatch.setattr(sys, 'argv', ['tables', 'dmvfn:1', '--seeds=3'])
  tables.main()
  said = capsys.readouterr().out
  trained = [x for x in said.splitlines() if x.endswith('--seeds=3')]
  assert len(trained) == 2 and all('no_routing' in x for x in trained)


def test_a_recipe_has_the_papers_numbers_of_all(capsys, monkeypatch):
  for name, words in (
    ('dmvfn:1', 'OPT: cityscapes GFLOPs 313482.15'),  # of others
    ('dmvfn:4', 'paper: block 1 of scale 4 80.95'),  # that cannot be had
    ('dmvfn:5', 'STEBS\n  its commands stand above\n  paper: '),
    ('rvd:figure3', 'curves of 1 / CRPS without numbers'),
    (
      'simvp:figure7',
      'paper: seconds an epoch 261, frames a second 27.15, MSE',
    ),
  ):
    monkeypatch.setattr(sys, 'argv', ['tables', name])
    tables.main()
    assert words in capsys.readouterr().out
  monkeypatch.setattr(sys, 'argv', ['tables', 'dmvfn:1'])
  tables.main()
  said = capsys.readouterr().out
  drawn = said[said.index('DMVFN, routes drawn') :]
  assert re.search('paper: cityscapes GFLOPs 12.71', drawn)


def test_times_and_costs_have_a_command_of_their_own(capsys, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['tables', 'apr:1', '--runs=runs'])
  tables.main()
  said = capsys.readouterr().out
  assert (
    'xiph4k TFLOPs and xiph4k seconds: python -m vidpred_jax.cost '
    '--config=configs/apr_vfi.py:on_xiph4k,stage3 '
    '--checkpoint=runs/apr_vfi/stage3 --size=1080x2048 --route=ratios'
  ) in said


def test_errors_are_of_clips_and_of_seeds():
  key = np.random.default_rng(0)
  clips, seeds = key.normal(size=64), np.array([[0.0], [0.5], [1.0]])
  other = key.normal(size=(3, 64))
  alone = errors.difference(clips[None] + other[:1], other[:1])
  assert alone.error == pytest.approx(np.std(clips, ddof=1) / 8)
  assert alone.bound == pytest.approx(1.998 * alone.error, rel=1e-3)
  # Seeds that say the same add nothing; those that differ, what they differ by.
  same = errors.difference(clips[None] + other, other)
  assert same.error == pytest.approx(alone.error)
  apart = errors.difference(clips[None] + seeds + other, other)
  assert apart.mean == pytest.approx(clips.mean() + 0.5)
  expected = np.hypot(alone.error, 0.5 / np.sqrt(3))
  assert apart.error == pytest.approx(expected)
  # Two degrees of freedom, were the clips no matter: t is 4.30.
  few = errors.difference(seeds + 0 * clips[None], 0 * other)
  assert few.bound == pytest.approx(4.303 * 0.5 / np.sqrt(3), rel=1e-3)
  assert apart.bound < 4.303 * apart.error


def test_the_interval_covers_what_it_says():
  key, covered, narrow = np.random.default_rng(1), 0, 0
  for _ in range(2000):
    same = 0.1 * key.normal(size=(3, 1)) + 0.3 * key.normal(size=(1, 64))
    found = errors.difference(same + 0.2 * key.normal(size=(3, 64)), 0.0)
    covered += abs(found.mean) < found.bound
    narrow += abs(found.mean) < 1.96 * found.error
  # Degrees of freedom are an approximation; two standard errors are too few.
  assert 0.925 <= covered / 2000 <= 0.975 and narrow < covered


def test_a_number_of_several_seeds():
  each = [{'mean': x, 'standard_error': 0.3} for x in (1.0, 2.0, 3.0)]
  found = errors.gathered(each)
  assert found['mean'] == 2 and found['deviation'] == 1
  assert found['standard_error'] == pytest.approx(np.hypot(0.3, 3**-0.5))
  assert errors.gathered(each[:1])['standard_error'] == 0.3
  equal = errors.gathered([{'mean': 0.1162}] * 3)
  assert equal['deviation'] == 0 and 'standard_error' not in equal
  assert errors.gathered([each[0], None]) is None


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
  clips = made['of_clips']
  assert np.shape(clips['STEBS']) == (2, 2)  # seeds and clips
  apart = errors.difference(clips['STEBS'], clips['copy'])
  gain = made['rows']['STEBS']['PSNR gain']
  assert gain['mean'] == pytest.approx(apart.mean, abs=1e-3)
  assert gain['standard_error'] == apart.error
  assert copy['PSNR gain']['standard_error'] == 0
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


def test_the_sweep_of_beta_is_timed(capsys, monkeypatch, tmp_path):
  known = os.environ['VIDPRED_JAX_TEST_FLAGS'].split()
  one_device = [flag for flag in known if 'device_count' not in flag]
  monkeypatch.setenv('XLA_FLAGS', ' '.join(one_device))
  arguments = [
    'tables', 'dmvfn:8', '--scale=tiny', f'--runs={tmp_path}',
    '--rows=beta 0.3;DMVFN', '--set=eval.limit=2', '--set=model.scales=(2,)',
    '--set=model.widths=(8,)',
  ]  # fmt: skip
  monkeypatch.setattr(sys, 'argv', arguments)
  traced, evaluated = [], measured.evaluated

  def observed(*arguments, **changed):
    system, variables = evaluated(*arguments, **changed)

    def predict(*given):
      traced.append((dict(system.settings), system.frames.target))
      return system.predict(*given)

    return system._replace(predict=predict), variables

  monkeypatch.setattr(measured, 'evaluated', observed)
  tables.main()
  made = json.loads((tmp_path / 'dmvfn_8.json').read_text())
  assert 0 < made['rows']['beta 0.3']['ms of a frame']['mean'] < 1000
  # What is counted and what is timed have the settings of the row, and not
  # those of its weights.
  for formulation in ('published', 'fast'):
    found = [
      (known['inference_beta'], known.get('inference_routing', 'threshold'))
      for known, target in traced
      if known.get('formulation', 'fast') == formulation and target == (2, 3)
    ]
    assert list(dict.fromkeys(found)) == [(0.3, 'sample'), (0.83, 'threshold')]
  for path in tmp_path.rglob('predictions.npz'):
    path.unlink()
  tables.main()  # clips that were not kept cannot be timed
  made = json.loads((tmp_path / 'dmvfn_8.json').read_text())
  assert made['rows']['beta 0.3']['ms of a frame'] is None
  assert 'ms of a frame -' in capsys.readouterr().out


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
