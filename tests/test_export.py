"""What is exported gives the system's numbers, without the package."""

import functools
import importlib.machinery
import json
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import commands
from vidpred_jax import checkpoint, export, runtime, systems

SYSTEMS = {
  'dmvfn': (
    ((0, 1), (2, 3)),
    {'scales': (2, 1), 'widths': (8, 8)},
  ),
  'simvp': (
    ((0, 1), (2, 3)),
    {'hid_s': 4, 'hid_t': 16, 'n_s': 2, 'n_t': 2},
  ),
  'rvd': (
    ((0, 1), (2, 3)),
    {
      'channels': 1,
      'dim': 8,
      'mults': (1, 2),
      'mean_mults': (1, 2),
      'num_timesteps': 4,
    },
  ),
  'apr_vfi': (((0, 2), (1,)), {'synthesis': 'warp'}),
}


@functools.cache
def made(name):
  """A small system and variables that are not those of its start."""
  frames, settings = SYSTEMS[name]
  system = systems.make(name, frames=systems.Frames(*frames), **settings)
  clip = jnp.zeros((1, system.frames.length, 32, 32, system.channels))
  variables = jax.jit(system.init)(runtime.key(0), clip)
  return system, variables


@pytest.mark.parametrize('name', SYSTEMS)
def test_it_is_written_read_again_and_the_same_to_the_bit(name, tmp_path):
  system, variables = made(name)
  record = export.save(tmp_path / 'a', system, variables, (32, 32), batch=2)
  # DMVFN's last digit and RVD's loop are compiled otherwise where there are
  # several platforms.
  most = {'dmvfn': 1e-6, 'rvd': 5e-4}.get(name, 0)
  assert record['difference'] <= most
  assert record['platforms'] == ['cpu', 'cuda', 'tpu']
  assert len(record['inputs']) == 1 + system.stochastic
  data = (tmp_path / 'a/predict.jax_export').read_bytes()
  again = jax.export.deserialize(bytearray(data))
  count = len(system.frames.context)
  rng = np.random.default_rng(3)
  context = rng.random((2, count, 32, 32, system.channels), np.float32)
  arguments = [context] + [jnp.uint32(5)] * system.stochastic
  got = again.call(*arguments)
  key = jax.random.key(5 if system.stochastic else 0)
  expected = jax.jit(system.predict)(variables, context, key)
  assert got.shape == expected.shape and jnp.isfinite(got).all()
  np.testing.assert_allclose(got, expected, atol=5e-4)
  stored = json.loads((tmp_path / 'a/export.json').read_text())
  assert stored == record
  with pytest.raises(FileExistsError):
    export.save(tmp_path / 'a', system, variables, (32, 32))


@pytest.mark.parametrize('name', ['dmvfn', 'apr_vfi'])
def test_the_plain_form_gives_the_same_up_to_rounding(name):
  system, variables = made(name)
  exported = export.stablehlo(system, variables, (32, 32), plain=True)
  for plain in (True, False):
    got, expected = export.outputs(exported, system, variables, plain=plain)
    np.testing.assert_allclose(got, expected, atol=5e-4)


def test_the_batch_of_motion_that_goes_on_can_be_left_open():
  system = systems.make(
    'dmvfn',
    frames=systems.Frames((0, 1, 2, 3, 4), (5, 6)),
    scales=(1,),
    widths=(8,),
    routing='none',
    initial_flow='variational',
    keep_bars=True,
  )
  variables = system.init(runtime.key(0), jnp.zeros((1, 7, 16, 16, 3)))
  exported = export.stablehlo(system, variables, (16, 16), batch=None)
  context = jax.random.uniform(jax.random.key(0), (3, 5, 16, 16, 3))
  frames = exported.call(context)
  alone = exported.call(context[1:2])
  np.testing.assert_allclose(frames[1:2], alone, atol=1e-4)


@pytest.mark.parametrize('name', ['dmvfn', 'simvp', 'apr_vfi'])
def test_the_batch_can_be_left_open(name):
  system, variables = made(name)
  exported = export.stablehlo(system, variables, (32, 32), batch=None)
  assert not isinstance(exported.in_avals[0].shape[0], int)
  got, expected = export.outputs(exported, system, variables, plain=False)
  np.testing.assert_allclose(got, expected, atol=1e-6)
  for count in (1, 3):
    context = jnp.zeros((count, *exported.in_avals[0].shape[1:]))
    assert exported.call(context).shape[0] == count


@pytest.mark.parametrize('name', ['dmvfn', 'simvp', 'apr_vfi'])
def test_the_form_for_converters_has_neither_platforms_nor_keys(name):
  system, variables = made(name)
  predict, context = export.plain_prediction(system, variables, (32, 32))
  text = str(jax.make_jaxpr(predict)(context))
  for primitive in ('platform_index', 'random_split', 'random_seed'):
    assert primitive not in text
  frames = np.random.default_rng(0).random(context.shape, np.float32)
  expected = jax.jit(system.predict)(variables, frames, jax.random.key(0))
  np.testing.assert_allclose(predict(frames), expected, atol=1e-4)


def test_nothing_is_changed_after_the_plain_form():
  before = jax.lax.platform_dependent
  with pytest.raises(RuntimeError), export.one_form():
    assert jax.lax.platform_dependent is not before
    raise RuntimeError
  assert jax.lax.platform_dependent is before


def test_a_size_or_batch_that_cannot_be_is_refused():
  system, variables = made('dmvfn')
  with pytest.raises(ValueError, match='30x32.*divisible by'):
    export.stablehlo(system, variables, (30, 32))
  with pytest.raises(ValueError, match='batch of 0'):
    export.stablehlo(system, variables, (32, 32), batch=0)
  with pytest.raises(ValueError, match='batch of 1000000000, expected 1 to'):
    export.stablehlo(system, variables, (32, 32), batch=10**9)
  for size in ((10**6, 10**6), (32768, 32768)):
    with pytest.raises(ValueError, match='would have .* numbers, expected at'):
      export.stablehlo(system, variables, size)
  for platforms in (['abacus'], []):
    with pytest.raises(ValueError, match='expected some of cpu, cuda'):
      export.stablehlo(system, variables, (32, 32), platforms=platforms)


def test_what_is_no_export_is_not_replaced(tmp_path):
  (tmp_path / 'films').mkdir()
  (tmp_path / 'films/a.mp4').touch()
  with pytest.raises(FileExistsError, match='no export of StableHLO'):
    export.save(tmp_path / 'films', *made('dmvfn'), (32, 32), overwrite=True)
  assert (tmp_path / 'films/a.mp4').exists()
  file = tmp_path / 'films/a.mp4'
  with pytest.raises(FileExistsError, match='no export of StableHLO'):
    export.save(file, *made('dmvfn'), (32, 32), overwrite=True)
  assert file.is_file()


def test_what_cannot_be_written_is_refused(forks):
  for output, option, *words in (
    ('a.tf', '--size=32x32', 'output'),
    ('a.tflite', '--size=32x32', 'output'),
    ('', '--size=32x32', 'output'),
    ('a', '--size=32', '--size=32', 'HxW'),
    ('a.pth', '--size=32x32', 'a.pth, have no --size'),
    ('a', '--set=name=3', 'no setting name'),
    ('a', '--set=path=3', 'no setting path'),
  ):
    arguments = '--checkpoint=dmvfn-film', f'--output={output}', option
    commands.is_one_line(*forks.run('vidpred_jax.export', *arguments), *words)


def test_the_command(tmp_path):
  system, variables = made('simvp')
  checkpoint.export(system, variables, tmp_path / 'model')
  arguments = f'--checkpoint={tmp_path / "model"}', f'--output={tmp_path / "o"}'
  done = commands.run(
    'vidpred_jax.export', *arguments, '--size=32x32', '--platforms=cpu'
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)['difference'] == 0


# ---------------------------------------------------------------------- ONNX


class _Broken(types.ModuleType):
  """A converter that cannot convert."""

  def to_onnx(self, *_, output_path, **__):
    pathlib.Path(output_path).write_bytes(b'half')
    raise NotImplementedError('no plugin\nfor gather')


@pytest.mark.parametrize('name', ['dmvfn', 'simvp', 'apr_vfi'])
def test_onnx_gives_the_same_up_to_rounding(name, tmp_path):
  pytest.importorskip('onnxruntime')
  system, variables = made(name)
  path = tmp_path / 'a.onnx'
  assert export.save_onnx(path, system, variables, (32, 32)) < 1e-4
  with pytest.raises(FileExistsError):
    export.save_onnx(path, system, variables, (32, 32))


def test_what_the_converter_cannot_is_said_and_nothing_is_left(
  tmp_path, monkeypatch
):
  for module in (_Broken('jax2onnx'), types.ModuleType('onnxruntime')):
    name = module.__name__
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)
  system, variables = made('simvp')
  with pytest.raises(ValueError, match='cannot convert simvp: NotImpl') as said:
    export.save_onnx(tmp_path / 'a.onnx', system, variables, (32, 32))
  assert 'no plugin for gather' in str(said.value)
  assert not list(tmp_path.iterdir())


def test_onnx_needs_its_extra_and_a_deterministic_system(tmp_path, monkeypatch):
  system, variables = made('simvp')
  monkeypatch.setattr(export.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(
    ValueError, match=r'needs jax2onnx: pip install.*\[onnx\]'
  ):
    export.save_onnx(tmp_path / 'a.onnx', system, variables, (32, 32))
  with pytest.raises(ValueError, match='draws random numbers'):
    export.plain_prediction(*made('rvd'), (32, 32))
