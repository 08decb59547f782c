import pytest
from ml_collections import ConfigDict

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
