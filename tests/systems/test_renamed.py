import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import exports
from vidpred_jax import checkpoint, systems, zoo
from vidpred_jax.systems import renamed
from vidpred_jax.train import workdir

FRAMES = systems.Frames((0, 1), (2, 3))
SMALL = {'dim': 8, 'mults': [1, 2], 'mean_mults': [1, 2]}
OLD = SMALL | {
  'depth': 6,
  'predicts': 'clean',
  'error': 'l1',
  'clip': 1.5,
  'sampler': 'dpm++',
  'steps': 3,
}
NEW = SMALL | {
  'num_timesteps': 6,
  'prediction_type': 'sample',
  'loss_type': 'l1',
  'clip_sample_range': 1.5,
  'sampler': 'dpm++',
  'sampling_steps': 3,
}


def test_an_export_with_old_names_is_the_same_system(tmp_path):
  system = systems.make('rvd', frames=FRAMES, **NEW)
  video = jnp.zeros((1, 4, 8, 8, 1))
  shapes = jax.eval_shape(system.init, jax.random.key(0), video)
  variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  checkpoint.save_system(
    tmp_path / 'a',
    system='rvd',
    settings=NEW,
    frames=FRAMES,
    variables=variables,
  )
  record, _ = exports.good(tmp_path / 'a')
  weights = (tmp_path / 'a' / checkpoint.WEIGHTS).read_bytes()
  exports.write(tmp_path / 'a', record | {'settings': OLD}, weights)
  old, _ = checkpoint.load(tmp_path / 'a')
  assert (old.name, old.frames) == (system.name, system.frames)
  assert old.settings == system.settings and len(old.settings) == len(NEW)
  # A new name replaces what is stored under the old one.
  with pytest.raises(ValueError, match='sampling_steps=7.*1 to 6'):
    checkpoint.load(tmp_path / 'a', sampling_steps=7)
  with pytest.raises(ValueError, match=r'steps \(sampling_steps now\)'):
    checkpoint.load(tmp_path / 'a', steps=1)


def test_a_run_with_old_names_is_read_and_goes_on(tmp_path):
  run = {'system': 'rvd', 'seed': 0}
  (tmp_path / 'checkpoints' / '2').mkdir(parents=True)
  text = json.dumps(run | {'model': OLD})
  (tmp_path / checkpoint.CONFIG).write_text(text)
  assert checkpoint.read_config(tmp_path) == run | {'model': NEW}
  workdir.check_or_create(tmp_path, ConfigDict(run | {'model': NEW}))
  stored = json.loads((tmp_path / checkpoint.CONFIG).read_text())
  assert stored['model'] == NEW
  (tmp_path / checkpoint.CONFIG).write_text(text)
  with pytest.raises(ValueError, match='another run.*model.num_timesteps: 6'):
    workdir.check_or_create(
      tmp_path, ConfigDict(run | {'model': NEW | {'num_timesteps': 7}})
    )


@pytest.mark.parametrize('name', zoo.models())
def test_models_of_the_package_have_names_of_today(name):
  record, _ = checkpoint.read(name)
  assert (
    renamed.current(record['system'], record['settings'])
    == (record['settings'])
  )
  checkpoint.system_from_record(record)


@pytest.mark.parametrize('name', renamed.NAMES)
def test_new_names_are_settings_and_old_ones_are_not(name):
  fields = set(systems.SYSTEMS[name].Settings._fields)
  assert set(renamed.NAMES[name].values()) <= fields
  assert not set(renamed.NAMES[name]) & fields
