import json
import pathlib

import jax
import numpy as np
import pytest

import vidpred_jax as vp
from vidpred_jax import checkpoint, convert, zoo


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A zoo of one small model, in half precision."""
  monkeypatch.setattr(zoo, '_FOLDER', tmp_path / 'zoo')
  frames = vp.Frames((0, 1), (2,))
  settings = {'scales': (2, 1), 'widths': (8, 8)}
  system = vp.make('dmvfn', frames=frames, **settings)
  clip = np.zeros((1, 3, 16, 16, 3), np.float32)
  variables = jax.jit(system.init)(jax.random.key(0, impl='rbg'), clip)
  place = tmp_path / 'zoo' / 'small'
  checkpoint.save_system(
    place,
    system='dmvfn',
    settings=settings,
    frames=frames,
    variables=variables,
    dtype='float16',
  )
  (place / 'README.md').write_text('# small\n\nA model for a test.\n')
  return place, variables


def test_models_are_listed_with_a_line_each(folder):
  assert vp.models() == {'small': 'A model for a test.'}


def test_half_precision_is_half_the_size_and_read_as_float32(folder):
  place, variables = folder
  system, loaded = vp.load('small')
  assert system.frames == vp.Frames((0, 1), (2,))
  size = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert (place / 'weights.safetensors').stat().st_size < 2.2 * size + 9000
  for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(loaded)):
    assert b.dtype == np.float32
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)


def test_a_wrong_name_lists_what_there_is(folder):
  for wrong in ('dmvfn-flim', 'zoo/small'):
    with pytest.raises(FileNotFoundError, match='there are small'):
      vp.load(wrong)


def test_a_folder_goes_before_a_name(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'small').mkdir()
  with pytest.raises(FileNotFoundError, match='neither an exported system'):
    vp.load('small')


def test_weights_too_large_for_half_precision_and_no_dtype(folder, tmp_path):
  _, variables = folder
  settings = {
    'system': 'dmvfn', 'settings': {}, 'frames': vp.Frames((0, 1), (2,)),
  }  # fmt: skip
  large = {'params': {'kernel': np.full(3, 1e5, np.float32)}}
  with pytest.raises(ValueError, match='kernel is too large for float16'):
    checkpoint.save_system(
      tmp_path / 'a', variables=large, dtype='float16', **settings
    )
  with pytest.raises(ValueError, match="got 'int8'"):
    checkpoint.save_system(
      tmp_path / 'b', variables=variables, dtype='int8', **settings
    )
  assert not (tmp_path / 'a').exists() and not (tmp_path / 'b').exists()


@pytest.mark.parametrize('name', sorted(zoo.models()))
def test_every_model_that_ships_is_whole(name):
  system, variables = vp.load(name)
  side = 4 * system.multiple
  context = len(system.frames.context)
  clip = np.random.default_rng(0).random(
    (1, context, side, side, system.channels)
  )
  predict = jax.jit(system.predict)
  frames = predict(variables, np.float32(clip), jax.random.key(0))
  assert np.isfinite(frames).all()
  record = json.loads((zoo.find(name) / 'system.json').read_text())
  assert record['data'] == {'kind': 'image'}
  card = (zoo.find(name) / 'README.md').read_text()
  for heading in ('Learned from', 'Made by', 'Measured', 'Cannot'):
    assert heading in card


def test_the_zoo_is_small():
  folder = pathlib.Path(zoo.__file__).parent
  files = [p for p in folder.rglob('*') if p.is_file()]
  assert sum(p.stat().st_size for p in files) < 12 * 2**20


def test_a_model_without_parameters_is_a_model():
  system, variables = vp.load('apr-vfi-film')
  assert variables == {'params': {}}
  assert 'weights: 0 parameters' in repr(vp.Predictor(system, variables))
  with pytest.raises(ValueError, match='only the flow was published'):
    convert.to_torch(system, variables)


@pytest.mark.parametrize('name', ['dmvfn-film', 'simvp-digits'])
def test_weights_mean_to_the_authors_what_they_mean_here(name):
  system, variables = vp.load(name)
  if name == 'simvp-digits':
    assert convert.to_torch(system, variables)
    return
  with pytest.raises(ValueError, match="only initial_flow='zero'"):
    convert.to_torch(system, variables)
