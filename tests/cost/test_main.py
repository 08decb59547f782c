import functools
import json

import pytest

from tests import commands

command = functools.partial(commands.run, 'vidpred_jax.cost')


def test_the_command_prints_json():
  got = command(
    '--config=configs/dmvfn.py:smoke',
    '--config.model.scales=(1,)',
    '--config.model.widths=(8,)',
    '--size=32x48',
    '--route=all',
    '--repeats=2',
  )
  assert got.returncode == 0, got.stderr
  report = json.loads(got.stdout)
  assert report['size'] == [32, 48] and report['system'] == 'dmvfn'
  assert report['machine']['device'] and report['latency']['repeats'] == 2
  macs = report['macs']
  assert set(macs['full']['parts']) == {'block_0'}
  assert macs['taken'] == macs['full']  # --route=all
  assert macs['executed']['total'] > 0


def test_the_command_measures_interpolation():
  got = command('--config=configs/apr_vfi.py:smoke', '--repeats=2')
  assert got.returncode == 0, got.stderr
  macs = json.loads(got.stdout)['macs']
  assert macs['taken']['total'] <= macs['full']['total']
  assert macs['full']['parts'].keys() >= {'flow', 'router', 'synthesis'}


def test_the_command_measures_grey_clips():
  got = command('--config=configs/simvp.py:smoke', '--repeats=2')
  assert got.returncode == 0, got.stderr
  report = json.loads(got.stdout)
  assert report['size'] == [32, 32] and report['system'] == 'simvp'
  assert 'translation' in report['macs']['full']['parts']


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--size=30x48'], 'divisible'),
    (['--size=large'], 'expected HxW'),
    (['--route=sometimes'], 'inference_routing'),
  ],
)
def test_the_command_refuses_in_one_line(arguments, message):
  got = command('--config=configs/dmvfn.py:smoke', *arguments)
  assert got.returncode == 2
  assert message in got.stderr.splitlines()[-1]
  assert 'Traceback' not in got.stderr


def test_the_command_lists_parameters():
  pytest.importorskip('clu')
  got = command('--config=configs/simvp.py:smoke', '--parameters')
  assert got.returncode == 0, got.stderr
  lines = got.stdout.splitlines()
  assert 'Name' in lines[1] and 'Shape' in lines[1]
  assert any('encoder' in line and '(3, 3, 1, 4)' in line for line in lines)
  assert lines[-1].startswith('Total: ')
