import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from vidpred_jax import atomic
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


def test_a_folder_with_other_things_is_left_alone(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  with pytest.raises(ValueError, match='not empty and holds no run'):
    workdir.check_or_create(tmp_path, config())
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


def test_a_folder_with_other_things_is_not_locked(tmp_path):
  (tmp_path / 'thesis.tex').touch()
  with pytest.raises(ValueError, match='not empty and holds no run'):
    with workdir.held(tmp_path):
      pass
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


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
