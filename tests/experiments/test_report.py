"""The page of results says what the files say."""

import itertools
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from experiments import report
from experiments.tables import commands, errors, published, rows

ROOT = pathlib.Path(__file__).resolve().parents[2]


def made(name, labels, columns, **more):
  """What `experiments.tables` writes, with numbers that grow by the row."""
  known = {'clips': 3, 'source': 'Clips()', 'context': [0], 'target': [1]}
  return {
    'table': name,
    'scale': 'small',
    'seeds': 1,
    'steps': [150],
    'protocols': {labels[0]: known},
    'columns': columns,
    'rows': {
      label: {c: {'mean': i + 0.5, 'standard_error': 0.1} for c in columns}
      for i, label in enumerate(labels)
    },
    'of_clips': {
      label: [[20.0 + i, 22.0 + i, 24.1 + i]] for i, label in enumerate(labels)
    },
    'paper': published.paper(name),
    'processor_seconds': 600.0,
  } | more


def patches():
  labels = ['8', '16', '32', '64']
  found = made('apr:2', labels, ['PSNR', 'PSNR gain', 'ms of a frame'])
  found['rows']['128'] = {'why': 'too large'}
  return found


def test_the_page_of_the_documentation_is_what_the_results_say():
  results = report.read(report.RESULTS)
  assert results
  stored = (ROOT / 'docs' / 'results.md').read_text()
  samplers = report.read_samplers(report.RESULTS)
  text = report.page(results, samplers)
  assert stored == text, 'run python -m experiments.report'
  for name, plot in report.PLOTS.items():
    if name in results:
      assert (ROOT / 'docs' / plot[0]).exists()


def test_ours_stands_beside_the_papers():
  text = report.page({'apr:2': patches()})
  assert '## apr:2: Patch size, without the router' in text
  assert '150 steps, 1 seed, 3 clips of `Clips()`, frames [0] -> [1]' in text
  assert '10 minutes of one core' in text
  assert '| 16 | 1.5 +- 0.1 | 1.5 +- 0.1 | 1.5 +- 0.1 | 36.54 |' in text
  assert '| 128 | not run: too large |' in text
  assert '- `rvd:2`: there was no time.' in text and '`apr:2`' not in text


def test_the_order_is_counted_on_the_same_clips():
  found = patches()
  text = report.page({'apr:2': found})
  assert 'of 6 pairs of rows 6 are as in the paper' in text
  # One row falls below all others, one cannot be told from its neighbour.
  clips = found['of_clips']
  clips['64'] = [[x - 9 for x in clips['8'][0]]]
  first = clips['8'][0]
  clips['16'] = [[first[0] + 5, first[1] - 5, first[2]]]
  text = report.page({'apr:2': found})
  assert 'undecided' in text
  assert 'The other way round: 8 over 64 by 9 +- ' in text


def test_the_order_takes_seeds_into_account():
  found = patches() | {'seeds': 3}
  found['rows'] = {x: found['rows'][x] for x in ('8', '64')}
  found['rows']['64']['PSNR']['deviation'] = 0.25
  clips = found['of_clips']['8'][0]
  for each, words in (
    ((0.5, 0.6, 0.7), 'of 1 pairs of rows 1 are as'),
    ((-0.5, 0.6, 1.7), '1 undecided'),  # as good in the mean
    ((-0.5, -0.6, -0.7), '8 over 64 by 0.6 +- 0.058'),
  ):
    found['of_clips'] = {
      '8': [clips] * 3,
      '64': [[x + gain for x in clips] for gain in each],
    }
    text = report.page({'apr:2': found})
    assert words in text and ' 3.5 +- 0.1 [0.25] |' in text


def test_where_less_is_better_the_order_turns():
  found = made('rvd:2', ['VD(2+6)', 'RVD(2+6)'], ['fair CRPS'])
  for label, mean in (('VD(2+6)', 3.0), ('RVD(2+6)', 2.0)):
    found['rows'][label]['fair CRPS'] = {'mean': mean, 'standard_error': 0.1}
  found['of_clips'] = {'VD(2+6)': [[3.0, 3.5]], 'RVD(2+6)': [[2.0, 2.5 + 1e-3]]}
  assert 'of 1 pairs of rows 1 are as' in report.page({'rvd:2': found})
  found['of_clips']['RVD(2+6)'] = [[4.0, 4.5 + 1e-3]]
  said = 'VD(2+6) over RVD(2+6) by 1 +- 0.0005'
  assert said in report.page({'rvd:2': found})


def test_rows_without_a_number_to_compare_are_left_out_of_the_order():
  found = patches()
  columns = found['paper']['columns']
  compared = columns.index('xiph2k PSNR')
  paper = {x: list(numbers) for x, numbers in found['paper']['rows'].items()}
  found['paper'] = found['paper'] | {'rows': paper}
  paper['8'][compared] = None
  assert 'of 3 pairs of rows 3' in report.page({'apr:2': found})
  # The first column is no matter if it is not the one that is compared.
  found['paper']['columns'] = ['seconds', *columns]
  for label, numbers in paper.items():
    numbers.insert(0, None if label == '16' else 1.0)
  assert 'of 3 pairs of rows 3' in report.page({'apr:2': found})
  del found['of_clips']['64']  # clips that were not kept
  assert 'of 1 pairs of rows 1' in report.page({'apr:2': found})


def test_tables_that_are_among_others_have_nothing_of_their_own():
  def places(name):
    table = rows.TABLES[name]
    own = [r for r in table.rows if not r.not_small]
    return {
      commands.small_run(table, r, 'small', 'runs', 0, ()).workdir for r in own
    }

  for name, other in report.AMONG.items():
    assert places(name) <= places(other), name
  # All others have rows that no other table has.
  for name, other in itertools.permutations(rows.TABLES, 2):
    small = not any(rows.TABLES[x].not_small for x in (name, other))
    if small and name not in report.AMONG and other not in report.AMONG:
      assert not places(name) <= places(other), (name, other)


def test_what_is_said_of_rows_is_read_from_the_table():
  found = patches()  # 0.5, 1.5, 2.5, 3.5
  text = '<PSNR|8>, <PSNR gain|8|64> and 1 < 2'
  assert report.read_in(text, found, {}) == '0.5, 3 and 1 < 2'
  for label, each in (('8', [0.25, 0.5, 0.75]), ('64', [3.0, 3.5, 4.0])):
    found['rows'][label]['PSNR']['each'] = each
  text = '<each PSNR|8>, <each PSNR|64|8>, <each PSNR|64|64>'
  assert report.read_in(text, found, {}) == '0.25 to 0.75, 2.8 to 3.2, 0'
  with pytest.raises(KeyError):
    report.read_in('<PSNR|9>', found, {})


def test_a_text_reads_other_tables_papers_and_bounds():
  found, other = patches(), made('apr:4', ['a', 'b'], ['PSNR'])
  other['rows']['b']['PSNR'] = {'mean': 225.6}
  text = '<PSNR|b@apr:4> and <PSNR|b@apr:4|8>'
  said = report.read_in(text, found, {'apr:4': other})
  assert said == '230 and 230'  # no exponents
  with pytest.raises(KeyError):
    report.read_in(text, found, {})
  assert report.read_in('<paper: xiph2k PSNR|64|8>', found, {}) == '0.16'
  # Three clips, of which the last one differs: t of two degrees is 4.3.
  clips = found['of_clips']
  clips['8'], clips['16'] = [[0.0, 0.0, 0.0]], [[1.0, 1.0, 4.0]]
  assert report.read_in('<bound|16|8>', found, {}) == '4.3'


def test_a_gain_has_one_error_in_every_table():
  for name, table in report.read(report.RESULTS).items():
    gain = f'{rows.ORDERS[rows.TABLES[name].config][0]} gain'
    first = next(iter(table['rows']))
    for label, clips in table['of_clips'].items():
      apart = errors.difference(clips, table['of_clips'][first])
      stored = table['rows'][label][gain]['standard_error']
      assert stored == pytest.approx(apart.error, rel=1e-3), (name, label)


def test_samplers_have_a_section(tmp_path):
  row = {'seconds': 2.5, 'crps/ens': 3.25, 'crps/fair': 3.0}
  row |= {'spread_skill/ratio': 0.5, 'seed': 0}
  found = {
    'model': {'prediction_type': 'epsilon', 'num_timesteps': 1600},
    'training_steps': 9, 'frames': 1, 'clips': 8, 'samples': 4,
    'rows': [
      {'sampler': 'ddim:8', 'over the first': 0.0, 'standard error': 0.0} | row,
      {'sampler': 'dpm++:8', 'over the first': 0.5, 'standard error': 0.25}
      | row,
    ],
  }  # fmt: skip
  (tmp_path / report.SAMPLERS).write_text(json.dumps(found))
  text = report.page({'apr:2': patches()}, report.read_samplers(tmp_path))
  assert 'predicts `epsilon`, 9 training steps, N = 1600; 1 frame of 8' in text
  assert '| ddim:8 | 0 | 2.5 | 3.25 | 3 | 0.5 | 0 |' in text
  assert '| dpm++:8 | 0 | 2.5 | 3.25 | 3 | 0.5 | -0.5 +- 0.25 |' in text
  assert report.read_samplers(tmp_path / 'none') is None


def test_every_system_has_its_order():
  assert set(rows.ORDERS) == {t.config for t in rows.TABLES.values()}


def test_the_plots(tmp_path):
  pytest.importorskip('matplotlib')
  usage = made(
    'dmvfn:figure5',
    ['DMVFN', 'Slow', 'Medium', 'Fast'],
    ['PSNR t+1', 'block 1', 'block 2', 'block 3'],
  )
  usage['seeds'] = 2
  for row in usage['rows'].values():
    row |= {k: {'mean': 0.5, 'each': [0, 1]} for k in ('block 1', 'block 2')}
    row['block 3'] = None
  results = {'dmvfn:figure5': usage, 'apr:2': patches(), 'apr:3': patches()}
  drawn = report.draw(results, tmp_path)
  assert drawn == ['usage.png', 'apr_time.png']
  for name in drawn:
    assert np.asarray(Image.open(tmp_path / name)).std() > 5
