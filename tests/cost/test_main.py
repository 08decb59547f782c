import json

import pytest

from tests import commands


def test_the_command_prints_json(forks):
  status, out, err = forks.run(
    'vidpred_jax.cost',
    '--config=configs/dmvfn.py:smoke',
    '--config.model.scales=(1,)',
    '--config.model.widths=(8,)',
    '--size=32x48',
    '--route=all',
    '--repeats=2',
  )
  assert status == 0, err
  report = json.loads(out)
  assert report['size'] == [32, 48] and report['system'] == 'dmvfn'
  assert report['machine']['device'] and report['latency']['repeats'] == 2
  macs = report['macs']
  assert set(macs['full']['parts']) == {'block_0'}
  assert macs['taken'] == macs['full']  # --route=all
  assert macs['executed']['total'] > 0


def test_the_command_measures_interpolation(forks):
  status, out, err = forks.run(
    'vidpred_jax.cost', '--config=configs/apr_vfi.py:smoke', '--repeats=2'
  )
  assert status == 0, err
  macs = json.loads(out)['macs']
  assert macs['taken']['total'] <= macs['full']['total']
  assert macs['full']['parts'].keys() >= {'flow', 'router', 'synthesis'}


def test_the_command_measures_grey_clips(forks):
  status, out, err = forks.run(
    'vidpred_jax.cost', '--config=configs/simvp.py:smoke', '--repeats=2'
  )
  assert status == 0, err
  report = json.loads(out)
  assert report['size'] == [32, 32] and report['system'] == 'simvp'
  assert 'translation' in report['macs']['full']['parts']


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--size=30x48'], 'divisible'),
    (['--size=large'], 'expected HxW'),
    (['--batch=99999999999'], 'range [1, 4096]'),
    (['--route=sometimes'], 'inference_routing'),
  ],
)
def test_the_command_refuses_in_one_line(forks, arguments, message):
  said = forks.run(
    'vidpred_jax.cost', '--config=configs/dmvfn.py:smoke', *arguments
  )
  commands.is_one_line(*said, message)


def test_the_command_lists_parameters(forks):
  pytest.importorskip('clu')
  status, out, err = forks.run(
    'vidpred_jax.cost', '--config=configs/simvp.py:smoke', '--parameters'
  )
  assert status == 0, err
  lines = out.splitlines()
  assert 'Name' in lines[1] and 'Shape' in lines[1]
  assert any('encoder' in line and '(3, 3, 1, 4)' in line for line in lines)
  assert lines[-1].startswith('Total: ')
