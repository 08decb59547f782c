import csv
import functools
import io
import json
import math

import pytest

from tests import commands
from vidpred_jax import compare, metrics
from vidpred_jax.evaluate import report


def results(psnr, mse, **protocol):
  """What an evaluation writes: an interval of one metric."""
  count = len(protocol.get('target', [2, 3]))
  return {
    'system': 'simvp',
    'protocol': {
      'model': {'translator': 'tau'},
      'data': {'source': 'moving_digits'},
      'context': [0, 1],
      'target': [2, 3],
      **protocol,
    },
    'clips': 8,
    'seed': 0,
    'metrics': {
      'psnr/float': {
        'per_frame': [psnr + 1, psnr - 1, psnr - 2][:count],
        'mean': psnr,
        'interval': [psnr - 0.5, psnr + 0.5],
      },
      'mse/mean': {'per_frame': [mse] * count, 'mean': mse},
    },
    'baselines': {
      'copy_last': {
        'psnr/float': {'per_frame': [20.0, 18.0, 17.0][:count], 'mean': 19.0},
        'mse/mean': {'per_frame': [0.01] * count, 'mean': 0.015},
      }
    },
  }


@pytest.fixture
def runs(tmp_path):
  """Two folders of runs, measured alike."""
  for name, numbers in {'gsta': (25.0, 0.004), 'tau': (24.0, 0.003)}.items():
    (tmp_path / name).mkdir()
    text = json.dumps(results(*numbers))
    (tmp_path / name / 'results.json').write_text(text)
  return {name: compare.read(tmp_path / name) for name in ('gsta', 'tau')}


def test_a_row_a_run_and_the_best_of_each_column_is_marked(runs):
  lines = compare.render(compare.rows(runs), 'md').splitlines()
  assert lines == [
    '|  | psnr/float ↑ | mse/mean ↓ |',
    '| --- | ---: | ---: |',
    '| gsta | **25.00** ± 0.50 | 0.004000 |',
    '| tau | 24.00 ± 0.50 | **0.003000** |',
    '| copy_last | 19.00 | 0.01500 |',
  ]


def test_frames_count_from_the_last_one_seen(runs):
  table = compare.rows(runs, metrics=['psnr/float'], per_frame=True)
  assert [cell.frame for cell in table['tau']] == ['t+1', 't+2', 'mean']
  assert [cell.value for cell in table['tau']] == [25.0, 23.0, 24.0]


def test_csv_has_every_number_in_a_line_of_its_own(runs):
  text = compare.render(compare.rows(runs, per_frame=True), 'csv')
  lines = list(csv.DictReader(io.StringIO(text)))
  assert len(lines) == 3 * 2 * 3  # rows, metrics, frames and mean
  (found,) = [
    line
    for line in lines
    if (line['run'], line['metric'], line['frame'])
    == ('gsta', 'psnr/float', 'mean')
  ]
  assert [float(found[k]) for k in ('value', 'low', 'high')] == [25, 24.5, 25.5]


def test_frames_that_a_run_lacks_are_gaps(runs, tmp_path):
  """Runs of other frames stand under the names of their own."""
  text = json.dumps(results(9.0, 1.0, target=[3, 4]))
  (tmp_path / 'tau' / 'results.json').write_text(text)
  runs['tau'] = compare.read(tmp_path / 'tau')
  table = compare.rows(runs, metrics=['psnr/float'], per_frame=True)
  assert compare.render(table, 'md').splitlines()[2:4] == [
    '| gsta | **26.00** | **24.00** | - | **25.00** ± 0.50 |',
    '| tau | - | 10.00 | 8.000 | 9.000 ± 0.500 |',
  ]


def test_columns_are_in_the_order_of_the_frames(runs, tmp_path):
  """The first run has t+2 and t+10, the other t+1 to t+3."""
  for name, target in (('gsta', [3, 11]), ('tau', [2, 3, 4])):
    text = json.dumps(results(9.0, 1.0, target=target))
    (tmp_path / name / 'results.json').write_text(text)
    runs[name] = compare.read(tmp_path / name)
  table = compare.rows(runs, metrics=['psnr/float'], per_frame=True)
  frames = [cell.frame for cell in table['gsta']]
  assert frames == ['t+1', 't+2', 't+3', 't+10', 'mean']


def test_a_run_may_have_the_name_of_a_baseline(runs):
  table = compare.rows({'copy_last': runs['tau']})
  assert [row[0].value for row in table.values()] == [24.0, 19.0]
  assert list(table) == ['copy_last', 'copy_last, baseline']


@pytest.mark.parametrize('form', ['text', 'md', 'latex'])
def test_an_interval_without_end_is_left_out(runs, form):
  runs['tau']['metrics']['psnr/float'] |= {'interval': ['inf', 'inf']}
  assert 'nan' not in compare.render(compare.rows(runs), form)


def test_markup_in_names_is_escaped(runs):
  text = compare.render(compare.rows({'my_$un\\^': runs['tau']}), 'latex')
  assert r'my\_\$un\textbackslash{}\^{} & $\mathbf{24.00} \pm 0.50$' in text
  text = compare.render(compare.rows({'a|b': runs['tau']}), 'md')
  assert r'| a\|b | **24.00**' in text
  text = compare.render(compare.rows({'my_run': runs['tau']}), 'latex')
  assert r'my\_run & $\mathbf{24.00} \pm 0.50$' in text
  assert r'copy\_last' in text and r'psnr/float $\uparrow$' in text
  assert text.count(r'\\') == 3 and text.startswith(r'\begin{tabular}{lrr}')


@pytest.mark.parametrize(
  'change, named',
  [({'target': [2, 3, 4]}, 'target'), ({'data': {'source': 'kth'}}, 'data')],
)
def test_what_was_not_measured_alike_is_named(runs, change, named):
  other = results(1.0, 1.0, **change)
  (line,) = compare.differences({'a': runs['gsta'], 'b': other})
  assert line.startswith(f'{named}: ')
  other = results(1.0, 1.0) | {'clips': 9}
  assert compare.differences({'a': runs['gsta'], 'b': other}) == [
    'clips: 8 in a, 9 in b'
  ]


def test_a_metric_that_a_run_has_not_is_a_gap(runs):
  runs['tau']['metrics'].pop('mse/mean')
  assert [c.metric for c in compare.rows(runs)['gsta']] == ['psnr/float']
  table = compare.rows(runs, metrics=['mse/mean'])
  assert math.isnan(table['tau'][0].value)
  assert '| tau | - |' in compare.render(table, 'md')
  with pytest.raises(ValueError, match='lpips.*psnr/float'):
    compare.rows(runs, metrics=['lpips'])


def test_the_direction_is_that_of_the_metrics():
  for name, metric in metrics.METRICS.items():
    if not name.startswith('spread_skill'):
      expected = 1 if metric.higher_is_better else -1
      assert compare._direction(name) == expected, name


def test_what_is_predicted_without_error_has_no_finite_psnr(tmp_path):
  """As clips in which nothing moves, by a copy."""
  perfect = results(math.inf, 0.0) | {'clips': 1}
  del perfect['metrics']['psnr/float']['interval']
  (tmp_path / 'results.json').write_text(report.as_json(perfect))
  table = compare.rows({'still': compare.read(tmp_path)})
  assert compare.render(table, 'md').splitlines()[2] == (
    '| still | **inf** | **0.00** |'
  )
  assert r'$\mathbf{\infty}$' in compare.render(table, 'latex')


def test_files_that_hold_no_results_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'results\.json'):
    compare.read(tmp_path)
  whole = results(25.0, 0.004)
  scores = {'psnr/float': {'mean': '25'}}, {'psnr/float': [25.0]}, []
  wrong = [whole | {'metrics': x} for x in scores]
  wrong += [whole | {'baselines': {'last': x}} for x in scores]
  wrong += [whole | {'protocol': {'target': [], 'context': [0]}}]
  wrong += [whole | {'clips': '8'}, whole | {'clips': 10**30}]
  wrong += [whole | {'protocol': {'target': [2, 3], 'context': [2]}}]
  wrong += [whole | {'protocol': {'target': [2], 'context': [1]}}]
  wrong += [whole | {'metrics': {'\x1b[31m': {'mean': 1.0}}}]
  texts = ['{', '{}', '[]', '[' * 5000, '\xff', *map(json.dumps, wrong)]
  for text in texts:
    (tmp_path / 'results.json').write_text(text, 'latin-1')
    with pytest.raises(ValueError, match=r'results\.json is damaged'):
      compare.read(tmp_path)


def test_the_command(runs, tmp_path, forks):
  del runs
  run = functools.partial(forks.run, 'vidpred_jax.compare')
  folders = tmp_path / 'gsta', tmp_path / 'tau'
  status, out, err = run(*folders, '--format=md')
  assert status == 0, err
  assert '**25.00** ± 0.50' in out
  changed = results(1.0, 1.0, target=[2])
  (folders[1] / 'results.json').write_text(json.dumps(changed))
  words = 'not measured alike', 'target', '--mixed'
  commands.is_one_line(*run(*folders), *words)
  commands.is_one_line(*run(folders[0], f'{folders[0]}/.'), 'named twice')
  status, out, _ = run(*folders, '--mixed')
  assert status == 0 and 'Not measured alike: target' in out
