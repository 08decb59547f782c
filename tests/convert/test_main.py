"""The command that converts weights."""

import json

import jax
import numpy as np
import pytest

from tests import commands
from tests.convert.published import SMALL, openstl, saved
from vidpred_jax import checkpoint, command, convert


def test_command_line(published, tmp_path, forks):
  np.savez(tmp_path / 'weights.npz', **published)
  output = tmp_path / 'export'
  arguments = (
    '--system=dmvfn',
    f'--input={tmp_path}/weights.npz',
    f'--output={output}',
    '--set=router_scale=4',
    '--set',
    'channel_order=rgb',
    '--set=inference_routing=all',
  )
  status, out, err = forks.run('vidpred_jax.convert', *arguments)
  assert status == 0, err
  report = json.loads(out)
  assert report['parameters'] == 3_559_930
  assert report['settings'] == {'router_scale': 4, 'inference_routing': 'all'}
  system, variables = checkpoint.load(output)
  assert system.multiple == 16 and system.frames == ((0, 1), (2,))
  expected = convert.from_torch('dmvfn', published, channel_order='rgb')
  jax.tree.map(np.testing.assert_array_equal, variables, expected)

  before = (output / 'system.json').read_bytes()
  commands.is_one_line(
    *forks.run('vidpred_jax.convert', *arguments), 'exists already'
  )
  assert (output / 'system.json').read_bytes() == before


def test_command_line_for_simvp(tmp_path, forks):
  state, expected = openstl('tau')
  lightning = {'state_dict': {f'model.{k}': x for k, x in state.items()}}
  (tmp_path / 'best.ckpt').write_bytes(saved(lightning))
  status, out, err = forks.run(
    'vidpred_jax.convert',
    '--system=simvp',
    f'--input={tmp_path}/best.ckpt',
    f'--output={tmp_path}/export',
    '--set=translator=tau',
    *[f'--set={name}={value}' for name, value in SMALL.items()],
  )
  assert status == 0, err
  assert json.loads(out)['settings'] == {'translator': 'tau', **SMALL}
  system, variables = checkpoint.load(tmp_path / 'export')
  assert system.frames == ((0, 1, 2), (3, 4, 5)) and system.channels == 2
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize('text', ['beta', '=3', 'a b=3'])
def test_settings_on_the_command_line(text):
  with pytest.raises(ValueError, match='name=value'):
    command.parse_settings([text])
  with pytest.raises(ValueError, match='twice'):
    command.parse_settings(['beta=1', 'beta=2'])
  with pytest.raises(ValueError, match='a flag of its own'):
    command.parse_settings(['allow_nonfinite=True'])
  with pytest.raises(ValueError, match='neither'):
    command.parse_settings(['scales=(4,2'])
  for path in ('my.npy', '../a/b-1.npz', '/data/*.npy', '~/x_2.zarr', './y'):
    assert command.parse_settings([f'root={path}']) == {'root': path}


def test_frames_belong_to_the_weights(published):
  settings = command.parse_settings(['frames=((0, 1), (2, 3))'])
  with pytest.raises(ValueError, match='frames is no setting.*trained for'):
    convert.from_torch('dmvfn', published, **settings)
  assert command.parse_settings(
    ['beta=0.25', 'scales=(4, 2)', 'routing=none', 'widths=None', "a='1'"]
  ) == {
    'beta': 0.25,
    'scales': (4, 2),
    'routing': 'none',
    'widths': None,
    'a': '1',
  }
