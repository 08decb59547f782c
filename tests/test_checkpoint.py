import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import checkpoint, runtime, systems
from vidpred_jax.models import simvp as simvp_model

FRAMES = systems.Frames((0, 1), (2,))
SETTINGS = {'scales': (2, 1), 'widths': (8, 8), 'beta': 0.6}


class State(NamedTuple):
  step: Any
  params: Any
  collections: Any
  opt_state: Any
  ema: Any


@pytest.fixture(scope='module')
def variables():
  system = systems.make('dmvfn', frames=FRAMES, **SETTINGS)
  return jax.jit(system.init)(runtime.key(0), jnp.zeros((1, 3, 16, 16, 3)))


def export(path, variables, **kwargs):
  checkpoint.save_system(
    path,
    **{
      'system': 'dmvfn',
      'settings': SETTINGS,
      'frames': FRAMES,
      'variables': variables,
    }
    | kwargs,
  )


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_is_exported_comes_back(tmp_path, variables):
  export(tmp_path / 'a', variables)
  system, loaded = checkpoint.load(tmp_path / 'a')
  assert_equal(dict(variables), dict(loaded))
  assert system.frames == FRAMES
  longer, _ = checkpoint.load(
    tmp_path / 'a', frames=systems.Frames((0, 1), (2, 3)), beta=0.3
  )
  assert longer.frames.target == (2, 3)


def test_a_system_knows_how_it_was_made(tmp_path, variables):
  made = systems.make('dmvfn', frames=FRAMES, **SETTINGS)
  checkpoint.export(made, variables, tmp_path / 'a')
  system, loaded = checkpoint.load(tmp_path / 'a')
  assert_equal(dict(variables), dict(loaded))
  assert (system.name, system.frames) == ('dmvfn', FRAMES)
  assert system.settings == made.settings
  assert dict(system.settings)['beta'] == 0.6
  # Defaults may change: what was used is written down.
  record = json.loads((tmp_path / 'a' / checkpoint.RECORD).read_text())
  assert set(record['settings']) == set(systems.dmvfn.Settings._fields)
  # What was loaded can be saved again, and is the same.
  checkpoint.export(system, loaded, tmp_path / 'b')
  for name in (checkpoint.WEIGHTS, checkpoint.RECORD):
    texts = [(tmp_path / d / name).read_bytes() for d in 'ab']
    assert texts[0] == texts[1]


def test_what_is_no_system_with_its_variables_is_not_exported(
  tmp_path, variables
):
  made = systems.make('dmvfn', frames=FRAMES, **SETTINGS)
  with pytest.raises(ValueError, match='variables does not hold weights'):
    checkpoint.export(made, {'params': {}}, tmp_path / 'a')
  with pytest.raises(ValueError, match='without a name'):
    checkpoint.export(made._replace(name=''), variables, tmp_path / 'a')
  checkpoint.export(made, variables, tmp_path / 'a')
  with pytest.raises(FileExistsError):
    checkpoint.export(made, variables, tmp_path / 'a')


def test_what_the_clips_were_is_kept(tmp_path, variables):
  export(tmp_path / 'a', variables)
  assert checkpoint.read_data_spec(tmp_path / 'a') is None
  # All float32 there are survive.
  mean = [float(np.float32(1 / 3)), float(np.float32(1e30))]
  described = systems.DataSpec(
    'field', ('t2m', 'z500'), 'K', tuple(mean), (1.0, 2.0)
  )
  run = tmp_path / 'run'
  export(run / 'export', variables, data=described)
  for path in (run, run / 'export'):
    assert checkpoint.read_data_spec(path) == described
  system, _ = checkpoint.load(run)
  assert system.data == described
  record = run / 'export' / 'system.json'
  record.write_text(record.read_text().replace('t2m', 'u10'))
  with pytest.raises(ValueError, match='damaged'):
    checkpoint.load(run)
  # A run that has not ended.
  shutil.rmtree(run / 'export')
  assert checkpoint.read_data_spec(run) is None
  (run / 'data.json').write_text(json.dumps(checkpoint.spec_to_json(described)))
  assert checkpoint.read_data_spec(run) == described
  (run / 'data.json').write_text('{')
  with pytest.raises(ValueError, match='data.json is damaged'):
    checkpoint.read_data_spec(run)


def test_an_existing_folder_is_never_overwritten(tmp_path, variables):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'thesis.txt').write_text('dear')
  with pytest.raises(FileExistsError, match='exists already'):
    export(tmp_path / 'a', variables)
  with pytest.raises(FileExistsError, match='exists already'):
    export(tmp_path / 'a', variables, overwrite=True)
  assert (tmp_path / 'a' / 'thesis.txt').read_text() == 'dear'
  export(tmp_path / 'b', variables)
  with pytest.raises(FileExistsError, match='exists already'):
    export(tmp_path / 'b', variables)
  export(tmp_path / 'b', variables, overwrite=True)


@pytest.mark.parametrize('name', ['weights.safetensors', 'system.json'])
def test_any_flipped_bit_of_an_export_is_noticed(tmp_path, variables, name):
  export(tmp_path / 'a', variables)
  path = tmp_path / 'a' / name
  intact = bytearray(path.read_bytes())
  for position in np.linspace(0, len(intact) - 2, 9).astype(int):
    damaged = intact.copy()
    damaged[position] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='damaged'):
      checkpoint.read(tmp_path / 'a')


def test_a_failing_disk_leaves_the_old_export(tmp_path, variables, monkeypatch):
  export(tmp_path / 'a', variables)

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  with pytest.raises(OSError, match='No space'):
    export(tmp_path / 'a', variables, overwrite=True)
  monkeypatch.undo()
  assert_equal(dict(checkpoint.load(tmp_path / 'a')[1]), dict(variables))
  assert [p.name for p in tmp_path.iterdir()] == ['a']


def test_weights_of_other_settings_are_refused(tmp_path, variables):
  export(tmp_path / 'a', variables, settings={'scales': (2, 1, 1)})
  with pytest.raises(ValueError, match='block_2'):
    checkpoint.load(tmp_path / 'a')


# ----------------------------------------------------------- training states


def state(scale=1.0):
  return State(
    jnp.int32(3),
    {'a': {'w': scale * jnp.arange(6.0).reshape(2, 3)}, 'b': jnp.float32(2)},
    {},
    ({'count': jnp.int32(1)}, {'mu': jnp.ones((4,), jnp.bfloat16)}),
    {},
  )


def test_states_come_back_bit_for_bit(tmp_path):
  with checkpoint.manager(tmp_path) as saved:
    checkpoint.save(saved, 3, state(1 / 3))
    restored = checkpoint.restore(saved, 3, state(0.0))
  assert isinstance(restored, State)
  assert_equal(restored, state(1 / 3))


def test_newest_and_best_are_kept(tmp_path):
  with checkpoint.manager(tmp_path, keep=2, best=('psnr', True)) as saved:
    for step, psnr in enumerate([1.0, 9.0, 3.0, 4.0, 2.0]):
      checkpoint.save(saved, step, state(), {'psnr': psnr})
    checkpoint.save(saved, 5, state())
    assert sorted(saved.all_steps()) == [1, 4, 5]
    assert saved.best_step() == 1
    assert saved.latest_step() == 5


def test_damaged_states_are_refused(tmp_path):
  big = State(jnp.int32(1), {'w': jnp.ones((64, 64))}, {}, (), {})
  with checkpoint.manager(tmp_path) as saved:
    checkpoint.save(saved, 1, big)
    # What a flipped bit would do that the storage layer does not notice.
    sums = tmp_path / 'checkpoints' / '1' / 'sums' / 'metadata'
    stored = json.loads(sums.read_text())
    name = next(k for k in stored if 'w' in k)
    sums.write_text(json.dumps(stored | {name: stored[name] ^ 1}))
    with pytest.raises(ValueError, match='damaged.*w'):
      checkpoint.restore(saved, 1, big)


def test_any_flipped_bit_changes_a_fingerprint():
  rng = np.random.default_rng(0)
  for dtype in (np.float32, np.int32, np.float16, jnp.bfloat16, np.uint8):
    x = rng.integers(0, 200, (3, 5, 7)).astype(dtype)
    before = checkpoint.fingerprints({'x': x})
    raw = bytearray(x.tobytes())
    for _ in range(5):
      position, bit = rng.integers(len(raw)), rng.integers(8)
      raw[position] ^= 1 << bit
      y = np.frombuffer(raw, dtype).reshape(x.shape)
      assert checkpoint.fingerprints({'x': y}) != before
      raw[position] ^= 1 << bit


def test_fingerprints_do_not_depend_on_the_devices():
  x = jax.random.normal(jax.random.key(0), (16, 9))
  mesh = runtime.mesh()
  spread = jax.device_put(x, runtime.batch_sharding(mesh))
  whole = checkpoint.fingerprints({'x': x})
  assert checkpoint.fingerprints({'x': spread}) == whole
  # ... and swapping two values shows, unlike with a plain sum.
  assert checkpoint.fingerprints({'x': x[::-1]}) != whole


@pytest.mark.parametrize('translator, side', [('mlp', 24), ('swin', 28)])
def test_weights_that_are_tied_to_a_size_come_back(tmp_path, translator, side):
  settings = {
    'hid_s': 4,
    'hid_t': 8,
    'n_s': 2,
    'n_t': 2,
    'mlp_ratio': 1.0,
    'translator': translator,
  }
  frames = systems.Frames((0, 1), (2, 3))
  system = systems.make('simvp', frames=frames, **settings)
  clip = jnp.zeros((1, 4, side, side, 1))
  shapes = jax.eval_shape(system.init, runtime.key(0), clip)
  variables = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
  export(
    tmp_path / 'a',
    variables,
    system='simvp',
    settings=settings,
    frames=frames,
  )
  _, loaded = checkpoint.load(tmp_path / 'a')
  assert_equal(dict(variables), dict(loaded))
  got = jax.eval_shape(system.predict, loaded, clip[:, :2], runtime.key(0))
  assert got.shape == (1, 2, side, side, 1)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_no_leaf_changes_shape_or_type_on_its_way(tmp_path, dtype):
  leaves = {
    'counter': np.int32(3),
    'scalar': np.float32(0.5),
    'turned': np.arange(6, dtype=np.float32).reshape(2, 3).T,
    'empty': np.zeros((0, 2), np.float32),
    'flag': np.array([True, False]),
    'half': np.arange(5).astype(jnp.bfloat16),
  }
  checkpoint.save_system(
    tmp_path / 'x',
    system='dmvfn',
    settings={},
    frames=systems.Frames((0, 1), (2,)),
    variables={'params': leaves},
    dtype=dtype,
  )
  _, loaded = checkpoint.read(tmp_path / 'x')
  for name, leaf in leaves.items():
    got = loaded['params'][name]
    assert got.shape == leaf.shape and got.dtype == leaf.dtype, name
    np.testing.assert_array_equal(got, leaf)


def _kinds():
  """Every routing, translator, synthesis and formulation of the systems."""
  dmvfn = {'scales': (2, 1), 'widths': (8, 8)}
  for routing in ('stebs', 'gumbel', 'random', 'none'):
    yield 'dmvfn', dmvfn | {'routing': routing}
  yield 'dmvfn', dmvfn | {'spatial_path': False}
  simvp = {'hid_s': 4, 'hid_t': 32, 'n_s': 2, 'n_t': 2, 'mlp_ratio': 1.0}
  for translator in simvp_model.TRANSLATORS:
    yield 'simvp', simvp | {'translator': translator}
  rvd = {'channels': 1, 'dim': 8, 'mults': (1, 2), 'mean_mults': (1, 2)}
  for mode in ('residual', 'frame'):
    yield 'rvd', rvd | {'mode': mode}
  apr = {'widths': (8, 8), 'depths': (1, 1), 'keep_ratios': (0.5,), 'patch': 16}
  for synthesis in ('routed', 'patches', 'whole', 'warp'):
    yield 'apr_vfi', apr | {'synthesis': synthesis}
  for fusion in ('concat', 'none'):
    yield 'apr_vfi', apr | {'fusion': fusion}


@pytest.mark.parametrize('name, settings', list(_kinds()))
def test_every_kind_of_network_is_exported_and_loaded(tmp_path, name, settings):
  between = name == 'apr_vfi'
  frames = systems.Frames((0, 2), (1,)) if between else FRAMES
  system = systems.make(name, frames=frames, **settings)
  clip = jax.ShapeDtypeStruct((1, 3, 32, 32, system.channels), jnp.float32)
  key = jax.eval_shape(lambda: runtime.key(0))
  shapes = jax.eval_shape(system.init, key, clip)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: np.asarray(rng.integers(0, 9, x.shape), x.dtype), shapes
  )
  export(
    tmp_path / 'a',
    variables,
    system=name,
    settings=settings,
    frames=frames,
  )
  again, loaded = checkpoint.load(tmp_path / 'a')
  assert_equal(dict(variables), dict(loaded))
  # assert_array_equal takes () and (1,) for equal.
  for x, y in zip(*map(jax.tree.leaves, (variables, loaded)), strict=True):
    assert x.shape == y.shape and x.dtype == y.dtype
  context = jax.ShapeDtypeStruct((1, 2, 32, 32, system.channels), jnp.float32)
  shown = jax.eval_shape(again.predict, loaded, context, key)
  assert shown.shape == (1, 1, 32, 32, system.channels)


@pytest.mark.parametrize('keep', [0, -1])
def test_a_run_that_keeps_nothing_is_refused(tmp_path, keep):
  with pytest.raises(ValueError, match='keep must be at least 1'):
    checkpoint.manager(tmp_path, keep=keep)


@pytest.mark.parametrize('damage', ['cut', 'removed', 'zeroed', 'no state'])
def test_a_missing_or_cut_data_file_is_told_in_a_line(tmp_path, damage):
  with checkpoint.manager(tmp_path) as saved:
    checkpoint.save(saved, 3, state())
  files = (p for p in tmp_path.rglob('d/*') if p.is_file())
  largest = max(files, key=lambda path: path.stat().st_size)
  content = largest.read_bytes()
  if damage == 'no state':
    shutil.rmtree(tmp_path / 'checkpoints' / '3' / 'state')
  elif damage == 'removed':
    largest.unlink()
  elif damage == 'cut':
    largest.write_bytes(content[: len(content) // 2])
  else:
    largest.write_bytes(bytes(len(content)))
  with checkpoint.manager(tmp_path, read_only=True) as saved:
    for like in (None, state()):
      with pytest.raises(ValueError, match='Remove that folder') as error:
        checkpoint.restore(saved, 3, like)
      assert '\n' not in str(error.value) and len(str(error.value)) < 700
