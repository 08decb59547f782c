"""The published code's numbers, array by array, of all systems and metrics."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from experiments import parity
from experiments.parity import __main__ as command
from vidpred_jax import params
from vidpred_jax.convert import weights
from vidpred_jax.convert.simvp import torch_names
from vidpred_jax.models import initial, simvp

SHARED = pathlib.Path(__file__).resolve().parents[3] / 'shared'
# Minutes of compiling for what the others compare as well.
SLOW = {
  'dmvfn case_a1_2x64x96 (published)',
  'dmvfn case_a2_1x48x80 (fast)',
  'dmvfn case_a3_1x40x72_scale2 (published)',
  'dmvfn grad_a_2x64x96 (published)',
  'rvd case_a2_6level_dim16_C1_64x64 (sampling)',
  'rvd case_a2_6level_dim16_C1_64x64 (training)',
}
CASES = parity.cases(SHARED) if (SHARED / 'parity').is_dir() else []


def parameters():
  for case in CASES:
    name = f'{case.system} {case.name}'
    marks = [pytest.mark.slow] if name in SLOW else []
    yield pytest.param(case, id=name, marks=marks)


@pytest.mark.parametrize('case', list(parameters()))
def test_arrays_are_within_tolerance(case):
  rows = list(case.rows())
  assert rows
  assert not [row for row in rows if not row.error <= row.tolerance]


def write(path, arrays, **meta):
  text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  np.savez(path, meta_json=text, **arrays)


def metrics_case(folder, mse):
  pred, true = np.full((1, 1, 2, 8, 8), 0.5), np.zeros((1, 1, 2, 8, 8))
  arrays = {'pred': pred, 'true': true, 'metric64_mse': np.float64(mse)}
  write(folder / 'parity/metrics/any.npz', arrays)
  return ['--systems=metrics', f'--shared={folder}']


def test_the_command_tells_right_from_wrong(tmp_path, capsys):
  assert command.main(metrics_case(tmp_path, 0.25 * 2 * 8 * 8)) == 0
  assert '0 of 1 arrays are too far' in capsys.readouterr().out
  assert command.main(metrics_case(tmp_path, 32.001)) == 1
  out = capsys.readouterr().out
  assert 'TOO FAR' in out and '1 of 1 arrays are too far' in out


def test_without_arrays_nothing_is_reported_as_right(tmp_path, capsys):
  for folder in (tmp_path, tmp_path / 'absent'):
    assert command.main([f'--shared={folder}']) == 1
    shown = capsys.readouterr()
    assert 'Nothing was compared' in shown.err and str(folder) in shown.err
    assert not shown.out


def test_files_of_no_known_kind_are_refused(tmp_path):
  write(tmp_path / 'parity/rvd/other.npz', {'x': np.zeros(3)})
  with pytest.raises(ValueError, match='other.npz has none of.*betas'):
    parity.cases(tmp_path)
  with pytest.raises(SystemExit):
    command.main(['--systems=gan'])


def torch_state(variables, translator):
  """Variables under the published names, as PyTorch lays them out."""
  flat = params.flatten(variables)
  state = {}
  for name, (path, kind) in torch_names(flat, translator).items():
    axes, array = weights.AXES[kind], np.asarray(flat[path])
    if kind == 'depthwise':
      axes, array = (*axes, 1), array[..., None]
    state[f'w/{name}'] = array.transpose(np.argsort(axes))
  return state


@pytest.mark.parametrize('named', [True, False])
def test_sizes_are_the_files(tmp_path, named):
  """Of a network unlike the stored ones, in a file with any name."""
  settings = dict(hid_s=8, hid_t=16, n_s=2, n_t=2)
  model = simvp.SimVP(
    3, 2, **settings, mlp_ratio=3.0, encoder_size=5, decoder_size=7
  )
  video = jax.random.uniform(jax.random.key(0), (2, 3, 8, 12, 2))
  variables = initial.draw(jax.random.key(1), model, video)

  def run(x, **method):
    return jax.jit(functools.partial(model.apply, **method))(variables, x)

  features, _ = run(video, method='encode')
  translated = run(features, method='translate')
  arrays = {
    'x': video,
    'eval_out': run(video),
    'embed': features[:1, 0],
    'hid': translated[:1, :1],
  }
  arrays = {k: np.moveaxis(np.asarray(x), -1, -3) for k, x in arrays.items()}
  cfg = {'in_shape': [3, 2, 8, 12], 'model_type': 'gSTA'}
  cfg |= {'hid_S': 8, 'hid_T': 16, 'N_S': 2, 'N_T': 2}
  cfg |= {'mlp_ratio': 3.0} if named else {}
  write(
    tmp_path / 'parity/simvp/1.npz',
    arrays | torch_state(variables, 'gsta'),
    cfg=cfg,
  )
  (case,) = parity.cases(tmp_path)
  rows = {row.array: row for row in case.rows()}
  assert set(rows) == {'embed', 'hid', 'eval_out'}
  assert all(row.error <= row.tolerance for row in rows.values())
