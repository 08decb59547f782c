import json
import pathlib
import signal

import jax
import numpy as np
import pytest

import vidpred_jax as vp
from experiments.accelerator import __main__ as accelerator
from experiments.accelerator import (
  machine,
  measuring,
  parity,
  times,
  training,
)  # fmt: skip

CONFIG = str(pathlib.Path(__file__).resolve().parents[2] / 'configs/dmvfn.py')


@pytest.fixture
def environment(monkeypatch):
  """What the command sets for its process is gone after the test."""
  for name in ('PREALLOCATE', 'MEM_FRACTION'):
    monkeypatch.setenv(f'XLA_PYTHON_CLIENT_{name}', '0')


def parts_of(folder):
  return json.loads((folder / 'accelerator.json').read_text())['parts']


def test_the_command(environment, tmp_path, capsys, monkeypatch):
  """Everything but the reference arrays, with small shapes of one system."""
  monkeypatch.setattr(times, 'CASES', {'dmvfn': times.dmvfn_cases})
  # As much time as a busy machine may want.
  failed = accelerator.main(
    [
      *('--tiny', '--minutes=60', f'--output={tmp_path}'),
      *('--set=model.scales=(2,)', '--set=model.widths=(8,)'),
    ]
  )
  parts = parts_of(tmp_path)
  errors = [r for rows in parts.values() for r in rows if 'error' in r]
  assert not failed and not errors
  assert parts['parity'] == [{'skipped': 'no --shared'}]
  timed = [row['name'] for row in parts['times'] if row['ms'] > 0]
  assert timed[:2] == ['32x48, 1 blocks', '32x48, 2 blocks']
  assert timed[2:] == ['training step, 1 of 48x48']
  tried = [row for row in parts['training'] if 'clips_per_s' in row]
  assert sum(row['taken'] for row in tried) == 1
  (trial,) = (r for r in parts['training'] if 'waiting_for_data' in r)
  assert 0 <= trial['waiting_for_data'] <= 1
  run = parts['training'][-1]
  assert run['steps'] == run['of'] == 6 and np.isfinite(run['loss'])
  system, variables = vp.load(run['export'])
  clip = np.zeros((2, 16, 16, 3), np.uint8)
  assert vp.Predictor(system, variables).predict(clip, 1).shape[0] == 1
  assert 'missing nothing' in capsys.readouterr().out


@pytest.mark.parametrize('system', times.CASES)
def test_what_is_timed_takes_its_arguments(system):
  """Traced: compiled and run are those of one system, above."""
  names = []
  for case in times.CASES[system](times.TINY, 'bfloat16'):
    for name, args in case.calls.items():
      assert jax.tree.leaves(jax.eval_shape(case.program, *args))
      names.append(name)
  assert len(set(names)) == len(names) > 2
  if system == 'rvd':
    assert '2 frames of 2 clips, 2 steps' in names


def test_a_run_that_would_take_too_long_is_exported(tmp_path, monkeypatch):
  monkeypatch.setattr(training, 'RESERVE', 0.0)
  options = accelerator.parse(
    [
      *('--tiny', f'--output={tmp_path}', '--set=batch_size=8'),
      *('--set=model.scales=(2,)', '--set=model.widths=(8,)'),
    ]
  )
  config = training.configuration(options, f'{CONFIG}:smoke', '')
  config.steps = config.checkpoint_every = config.log_every = 10**6
  listens = signal.getsignal(signal.SIGTERM)
  row = training.trained(config, tmp_path / 'weights', lambda: 2.0)
  assert 1 <= row['steps'] < 10**6
  assert signal.getsignal(signal.SIGTERM) == listens
  system, _ = vp.load(tmp_path / 'weights')
  assert system.frames == vp.Frames(**config.eval.frames.to_dict())


@pytest.mark.parametrize(
  'rates, taken, tried',
  [
    ((10, 20, 40, 43, 99), 32, 4),  # no more from here on
    ((10, 20, None, 99), 16, 3),  # no memory
    ((10, 9), 8, 2),
  ],
)
def test_batches_double_while_that_pays(
  tmp_path, monkeypatch, rates, taken, tried
):
  options = accelerator.parse([f'--output={tmp_path}', '--workers=0'])
  config = training.configuration(options, f'{CONFIG}:smoke', '')
  monkeypatch.setattr(
    training, '_step_compiled', lambda config, clip, n: (n, len(clip), 1.0)
  )

  def step_ms(program, args):
    rate = dict(zip((8, 16, 32, 64, 128), rates))[program]
    if rate is None:
      raise RuntimeError('RESOURCE_EXHAUSTED: out of memory')
    return 1e3 * program / rate

  monkeypatch.setattr(training, '_step_ms', step_ms)
  (program, _), rows = training.fitting(config, options, lambda: 60.0)
  assert config.batch_size == program == taken and len(rows) == tried
  assert [row['batch'] for row in rows if row['taken']] == [taken]


def test_settings_and_weights_to_begin_with(tmp_path):
  options = accelerator.parse(
    [f'--output={tmp_path}', '--set', 'data.size=(32,32)', '--workers=3']
  )
  config = training.configuration(options, f'{CONFIG}:demo', 'weights')
  assert config.data.size == (32, 32) and config.workers == 3
  assert config.init_from == 'weights' and not config.eval.every
  with pytest.raises(FileNotFoundError, match='no configuration'):
    training.configuration(options, 'configs/none.py:demo', '')


def test_a_part_that_fails_loses_only_itself(
  environment, tmp_path, monkeypatch
):
  def broken(options, left):
    yield {'measured': 1}
    raise RuntimeError('no such kernel')

  monkeypatch.setattr(times, 'rows', broken)
  arguments = ['--tiny', '--parts=machine,times,parity', f'--output={tmp_path}']
  assert accelerator.main(arguments) == 1
  parts = parts_of(tmp_path)
  assert parts['times'][0] == {'measured': 1}
  assert parts['times'][1]['error'] == 'RuntimeError: no such kernel'
  assert 'broken' in parts['times'][1]['traceback']
  assert parts['parity'] == [{'skipped': 'no --shared'}]


def test_missing_arrays_and_arrays_too_far_off(
  environment, tmp_path, monkeypatch
):
  arguments = ['--parts=parity', f'--output={tmp_path}', '--shared=/none']
  assert accelerator.main(arguments) == 1
  rows = parts_of(tmp_path)['parity']
  assert {row['system'] for row in rows} == {'ebme', 'simvp', 'rvd', 'dmvfn'}
  assert all('FileNotFoundError' in row['error'] for row in rows)
  errors = {'near': (1e-6, 1e-5), 'far': (1.0, 1e-5), 'nan': (np.nan, 1.0)}
  tables = {('dmvfn', 'case'): lambda: errors}
  monkeypatch.setattr(parity, '_parity_tables', lambda _: (tables, []))
  assert accelerator.main(arguments) == 1
  (row,) = parts_of(tmp_path)['parity']
  assert row['too_far'] == ['far', 'nan'] and row['arrays'] == 3


def test_nothing_begins_after_the_time():
  done = dict(measuring.concurrently({'a': lambda: 1}, lambda: 1.0))
  late = dict(measuring.concurrently({'a': lambda: 1}, lambda: 0.0))
  assert done == {'a': 1} and isinstance(late['a'], measuring.Late)
  assert measuring.failure(late['a']) == {'skipped': 'no time was left'}


def test_missing_dependencies(monkeypatch):
  assert machine.missing() == []
  versions = {'jax': None, 'numpy': '1.26.4'}
  known = machine._version
  monkeypatch.setattr(
    machine, '_version', lambda name: versions.get(name, known(name))
  )
  found = machine.missing()
  assert len(found) == 2 and found[0].startswith('jax>=')
  assert found[1].startswith('numpy>=') and '(is 1.26.4)' in found[1]


def test_ratios_take_the_better_layout():
  row = {'system': 'rvd', 'name': 'step', 'precision': 'tf32'}
  parts = {
    'times': [{**row, 'ms': 2.0}, {**row, 'precision': 'float32', 'ms': 9.0}],
    'torch': [{**row, 'ms': 8.0}, {**row, 'ms': 4.0}, {'skipped': 'no'}],
  }
  (found,) = measuring.ratios(parts)
  assert found['ratio'] == 0.5 and found['torch_ms'] == 4.0


@pytest.mark.parametrize(
  'wrong',
  [['--parts=speed'], ['--minutes=0'], ['--init=x'], ['--batch=-1']],
)
def test_wrong_settings(tmp_path, wrong):
  with pytest.raises(SystemExit):
    accelerator.parse([f'--output={tmp_path}', *wrong])
