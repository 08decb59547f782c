"""What is read back from disk is checked before it is used."""

import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests import exports
from vidpred_jax import checkpoint, runtime, systems

TEXTS = exports.TEXTS
SETTINGS = {'scales': (2, 1), 'widths': (8, 8), 'beta': 0.6}
FRAMES = systems.Frames((0, 1), (2,))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  system = systems.make('dmvfn', frames=FRAMES, **SETTINGS)
  clip = jnp.zeros((1, 3, 16, 16, 3))
  variables = jax.jit(system.init)(runtime.key(0), clip)
  path = tmp_path_factory.mktemp('whole') / 'export'
  checkpoint.save_system(
    path,
    system='dmvfn',
    settings=SETTINGS,
    frames=FRAMES,
    variables=variables,
    data=systems.DataSpec(),
  )
  return path


def test_hostile_records_are_refused_in_words(whole, tmp_path):
  checkpoint.load(whole)
  record, _ = exports.good(whole)
  weights = (whole / 'weights.safetensors').read_bytes()
  for name, made in exports.hostile_records(record):
    exports.write(tmp_path / 'x', made, weights)
    start = time.time()
    with pytest.raises(ValueError) as caught:
      checkpoint.load(tmp_path / 'x')
      pytest.fail(f'{name} was taken')
    assert str(tmp_path / 'x') in str(caught.value), (name, caught.value)
    assert len(str(caught.value)) < 2000, name
    assert time.time() - start < 20, name


def test_hostile_weights_are_refused_in_words(whole, tmp_path):
  record, arrays = exports.good(whole)
  for name, made in exports.hostile_weights(arrays):
    made = {k: np.ascontiguousarray(v) for k, v in made.items()}
    exports.write(tmp_path / 'x', record, safetensors.numpy.save(made))
    with pytest.raises(ValueError) as caught:
      checkpoint.load(tmp_path / 'x')
      pytest.fail(f'{name} was taken')
    assert str(tmp_path / 'x') in str(caught.value), (name, caught.value)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite_can_be_asked_for(whole, tmp_path, value):
  record, arrays = exports.good(whole)
  name = 'params/router/' if 'params/router/' in arrays else next(iter(arrays))
  made = arrays | {name: np.full_like(arrays[name], value)}
  exports.write(tmp_path / 'x', record, safetensors.numpy.save(made))
  with pytest.raises(ValueError, match='1 of .* not finite.*allow_nonfinite'):
    checkpoint.load(tmp_path / 'x')
  checkpoint.load(tmp_path / 'x', allow_nonfinite=True)


# ------------------------------------------------------------ a run's folder


@pytest.fixture(scope='module')
def run(whole, tmp_path_factory):
  """A run with one checkpoint and no export."""
  folder = tmp_path_factory.mktemp('run') / 'run'
  folder.mkdir()
  _, variables = checkpoint.load(whole)
  checkpoint.write_json(
    folder / 'config.json',
    {
      'system': 'dmvfn',
      'model': SETTINGS,
      'features': {},
      'eval': {'frames': FRAMES._asdict(), 'every': 0},
      'steps': 3,
    },
  )
  checkpoint.write_json(folder / 'data.json', {'kind': 'image'})
  with checkpoint.manager(folder) as saved:
    checkpoint.save(saved, 1, exports.State(variables['params'], {}, {}))
  checkpoint.load(folder)
  return folder


@pytest.mark.parametrize('name', ['config.json', 'data.json'])
def test_no_flipped_bit_of_what_a_run_says_is_silent(run, tmp_path, name):
  intact = (run / name).read_bytes()
  right = json.loads(intact)
  del right['sha256']
  path = tmp_path / 'config.json'
  for n in range(0, 8 * len(intact), 5):
    flipped = bytearray(intact)
    flipped[n // 8] ^= 1 << n % 8
    path.write_bytes(flipped)
    try:
      found = checkpoint.read_config(tmp_path)
    except ValueError as error:
      assert str(path) in str(error)
    else:  # a space, or the name of the sum
      assert {k: v for k, v in found.items() if k in right} == right


def test_a_damaged_run_is_told_in_words(run, tmp_path):
  damages = {
    **{f'config.json {k}': ('config.json', v) for k, v in TEXTS.items()},
    **{f'data.json {k}': ('data.json', v) for k, v in TEXTS.items()},
  }
  config = json.loads((run / 'config.json').read_text())
  for field in ('system', 'model', 'features', 'eval'):
    for value in (None, [], 'x', {}, {'frames': {}}, exports.MISSING):
      made = {k: v for k, v in config.items() if k not in ('sha256', field)}
      if value is not exports.MISSING:
        made[field] = value
      fine = field == 'features' and isinstance(value, dict)
      if not fine and (field, value) != ('model', {}):
        damages[f'{field} {value}'] = ('config.json', json.dumps(made))
  folder = tmp_path / 'run'
  shutil.copytree(run, folder)
  for what, (name, text) in damages.items():
    intact = (folder / name).read_bytes()
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError) as caught:
      checkpoint.load(folder)
      pytest.fail(f'{what} was taken')
    assert str(folder / name) in str(caught.value), (what, caught.value)
    (folder / name).write_bytes(intact)
  checkpoint.load(folder)


@pytest.mark.parametrize('sums', ['{}', '[]', '{"params": 3}', '3'])
def test_sums_that_leave_arrays_out_are_seen(run, tmp_path, sums):
  shutil.copytree(run, tmp_path / 'run')
  path = tmp_path / 'run' / 'checkpoints' / '1' / 'sums' / 'metadata'
  assert path.exists()
  path.write_text(sums)
  with pytest.raises(ValueError, match='Remove that folder'):
    checkpoint.load(tmp_path / 'run')


@pytest.mark.parametrize('other', ['2', '17'])
def test_a_checkpoint_under_another_number_is_seen(run, tmp_path, other):
  shutil.copytree(run, tmp_path / 'run')
  saved = tmp_path / 'run' / 'checkpoints'
  shutil.copytree(saved / '1', saved / other)
  with pytest.raises(ValueError, match=f'step {other} in .* is that of step 1'):
    checkpoint.load(tmp_path / 'run')
