import json
import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from vidpred_jax import atomic, checkpoint, systems
from vidpred_jax.config import base
from vidpred_jax.train import workdir


def config(**fields):
  return ConfigDict({'seed': 0, 'steps': 3, 'workers': 1} | fields)


def begun(folder):
  """As after the first checkpoint."""
  workdir.check_or_create(folder, config())
  (folder / 'checkpoints/2').mkdir(parents=True)


def test_a_run_owns_its_folder_from_its_first_checkpoint(tmp_path):
  workdir.check_or_create(tmp_path / 'a', config())
  workdir.check_or_create(tmp_path / 'a', config(seed=1))  # nothing was trained
  begun(tmp_path / 'b')
  before = (tmp_path / 'b/config.json').read_bytes()
  with pytest.raises(ValueError, match='another run.*seed: 0 there, 1 asked'):
    workdir.check_or_create(tmp_path / 'b', config(seed=1))
  assert (tmp_path / 'b/config.json').read_bytes() == before


def test_what_does_not_change_the_weights_may_change(tmp_path):
  begun(tmp_path)
  workdir.check_or_create(tmp_path, config(workers=4))
  assert '"workers": 4' in (tmp_path / 'config.json').read_text()


def begun_without(folder, system, name):
  """A run of a version that had no such field; the configuration of today."""
  wanted = base(system)
  wanted.model = ConfigDict(systems.SYSTEMS[system].Settings()._asdict())
  old = json.loads(wanted.to_json())
  *sections, last = name.split('.')
  section = old
  for part in sections:
    section = section[part]
  del section[last]
  (folder / 'checkpoints/2').mkdir(parents=True)
  checkpoint.write_json(folder / 'config.json', old)
  return wanted


@pytest.mark.parametrize(
  ('system', 'name', 'other'),
  [
    ('dmvfn', 'accumulate', 2),
    ('simvp', 'ema.start', 3),
    ('rvd', 'schedule', None),
    ('dmvfn', 'model.gamma', 0.5),
    ('apr_vfi', 'model', None),
  ],
)
def test_a_run_from_before_a_field_goes_on_with_its_default(
  tmp_path, system, name, other
):
  wanted = begun_without(tmp_path, system, name)
  if other is not None:
    changed = ConfigDict(wanted.to_dict())
    changed.update_from_flattened_dict({name: other})
    message = rf'differs in {name}: \S+ there, {other} asked for\. Choose'
    with pytest.raises(ValueError, match=message):
      workdir.check_or_create(tmp_path, changed)
  workdir.check_or_create(tmp_path, wanted)
  now = json.loads((tmp_path / 'config.json').read_text())
  del now['sha256']
  assert now == json.loads(wanted.to_json())


def test_a_one_cycle_run_from_before_b1_cycle_had_none(tmp_path):
  wanted = base('simvp')
  wanted.schedule.name = 'onecycle'
  old = json.loads(wanted.to_json())
  del old['schedule']['b1_cycle']
  (tmp_path / 'checkpoints/2').mkdir(parents=True)
  checkpoint.write_json(tmp_path / 'config.json', old)
  with pytest.raises(ValueError, match=r'schedule.b1_cycle: \[\] there, \[0.9'):
    workdir.check_or_create(tmp_path, wanted)
  wanted.schedule.b1_cycle = ()
  workdir.check_or_create(tmp_path, wanted)


def test_a_run_of_a_version_with_more_fields_says_which(tmp_path):
  wanted = begun_without(tmp_path, 'dmvfn', 'seed')
  old = checkpoint.read_config(tmp_path)
  old['optim']['momentum'], old['model']['turns'] = 0.5, [1, 2]
  checkpoint.write_json(tmp_path / 'config.json', old)
  message = (
    r'differs in model.turns: \[1, 2\] there, nothing asked for; '
    'optim.momentum: 0.5 there, nothing asked for. Choose'
  )
  with pytest.raises(ValueError, match=message):
    workdir.check_or_create(tmp_path, wanted)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  for call in (
    lambda: workdir.check_or_create(tmp_path, config()),
    lambda: workdir.held(tmp_path).__enter__(),
  ):
    with pytest.raises(ValueError, match='not empty and holds no run'):
      call()
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize('left', [(), ('.lock',), ('.config.part',)])
def test_a_run_killed_at_its_very_beginning_goes_on(tmp_path, left):
  for name in left:
    if name == '.config.part':
      atomic.beside(tmp_path / 'config.json').touch()
    else:
      (tmp_path / name).touch()
  with workdir.held(tmp_path):
    workdir.check_or_create(tmp_path, config())
  assert [path.name for path in tmp_path.iterdir()] == ['config.json']


def test_a_second_run_in_the_folder_is_refused(tmp_path):
  code = (
    'import pathlib, sys\n'
    'from vidpred_jax.train import workdir\n'
    'with workdir.held(pathlib.Path(sys.argv[1])): pass'
  )
  with workdir.held(tmp_path):
    second = subprocess.run(
      [sys.executable, '-c', code, tmp_path],
      capture_output=True,
      text=True,
      cwd=pathlib.Path(__file__).parents[2],
    )
  assert 'is in use by process' in second.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['export', 'export/mine.txt', 'checkpoints'])
def test_what_has_no_place_shows_before_training(tmp_path, name):
  wanted = base('simvp')
  workdir.check_or_create(tmp_path, wanted)
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_text('mine')
  message = 'is a file' if name == 'checkpoints' else 'is no export of it'
  with pytest.raises(ValueError, match=message):
    workdir.check_or_create(tmp_path, wanted)
  assert path.read_text() == 'mine'
