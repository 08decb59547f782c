"""There and back again: the authors' names and layout."""

import pickletools
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import convert, systems
from vidpred_jax.models import simvp as simvp_model

FRAMES = systems.Frames((0, 1), (2, 3))
CASES = {
  'dmvfn': {'scales': (2, 1), 'widths': (8, 8)},
  'rvd': {
    'sigma': 1,
    'channels': 1,
    'dim': 8,
    'mults': (1, 2),
    'mean_mults': (1, 2),
  },
  'apr_vfi': {'synthesis': 'warp'},
}


def variables_of(system, seed=0):
  """Random numbers in place of all its variables."""
  length = system.frames.length
  clip = jax.ShapeDtypeStruct((1, length, 64, 64, system.channels), jnp.float32)
  shapes = jax.eval_shape(system.init, jax.random.key(0), clip)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes
  )


def made(name, **settings):
  frames = systems.Frames((0, 2), (1,)) if name == 'apr_vfi' else FRAMES
  return systems.make(name, frames=frames, **settings)


def assert_equal(a, b):
  assert jax.tree.structure(dict(a)) == jax.tree.structure(dict(b))
  jax.tree.map(np.testing.assert_array_equal, dict(a), dict(b))


@pytest.mark.parametrize('name', CASES)
def test_there_and_back_is_the_same(name, tmp_path):
  system = made(name, **CASES[name])
  variables = variables_of(system)
  arrays = convert.to_torch(system, variables)
  for ending in ('safetensors', 'pth'):
    path = tmp_path / f'w.{ending}'
    convert.save_torch(path, arrays)
    read = convert.read_torch(path)
    assert list(read) and set(read) == set(arrays)
    assert_equal(convert.from_torch(name, read, **CASES[name]), variables)


@pytest.mark.parametrize('translator', simvp_model.TRANSLATORS)
def test_every_translator_goes_there_and_back(translator):
  settings = {'translator': translator, 'hid_s': 4, 'hid_t': 16, 'n_t': 3}
  settings |= {'mlp_ratio': 2.0}
  if translator == 'mlp':  # tied to the number of pixels
    settings['n_s'] = 2
  system = made('simvp', **settings)
  variables = variables_of(system)
  arrays = convert.to_torch(system, variables)
  assert 'dec.readout.weight' in arrays
  assert_equal(convert.from_torch('simvp', arrays, **settings), variables)


def test_colours_are_in_the_order_of_the_published_code():
  system = made('dmvfn', **CASES['dmvfn'])
  variables = variables_of(system)
  bgr = convert.to_torch(system, variables)
  rgb = convert.to_torch(system, variables, channel_order='rgb')
  first = 'block0.conv0.0.0.weight'
  np.testing.assert_array_equal(bgr[first][:, :3], rgb[first][:, 2::-1])
  assert (bgr[first] != rgb[first]).any()
  with pytest.raises(ValueError, match="'gbr'"):
    convert.to_torch(system, variables, channel_order='gbr')


def test_what_the_authors_have_no_place_for_is_refused():
  system = made('apr_vfi')
  with pytest.raises(ValueError, match='the flow was published'):
    convert.to_torch(system, {'params': {'flow': {}, 'refine': {}}})
  system = made('dmvfn', **CASES['dmvfn'])
  variables = variables_of(system)
  extra = {**variables, 'routing': {'step': np.zeros(())}}
  with pytest.raises(ValueError, match='no place for routing/step'):
    convert.to_torch(system, extra)


def test_a_pth_file_is_what_torch_writes(tmp_path):
  arrays = {
    'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    'b': np.float32([7]),
  }
  convert.save_torch(tmp_path / 'w.pth', arrays)
  with zipfile.ZipFile(tmp_path / 'w.pth') as archive:
    assert set(archive.namelist()) == {
      f'w/{name}'
      for name in ('data.pkl', 'byteorder', 'data/0', 'data/1', 'version')
    }
    data = archive.read('w/data.pkl')
  names = [
    arg for op, arg, _ in pickletools.genops(data) if op.name == 'GLOBAL'
  ]
  assert set(names) == {
    'torch._utils _rebuild_tensor_v2',
    'torch FloatStorage',
    'collections OrderedDict',
  }
  read = convert.read_torch(tmp_path / 'w.pth')
  for name, array in arrays.items():
    np.testing.assert_array_equal(read[name], array)


def test_files_are_kept_and_endings_known(tmp_path):
  arrays = {'a': np.float32([1])}
  convert.save_torch(tmp_path / 'w.pth', arrays)
  with pytest.raises(FileExistsError):
    convert.save_torch(tmp_path / 'w.pth', arrays)
  with pytest.raises(ValueError, match='safetensors'):
    convert.save_torch(tmp_path / 'w.bin', arrays)
  with pytest.raises(ValueError, match='float64'):
    convert.save_torch(tmp_path / 'v.pth', {'a': np.zeros(2)})
