"""Every experiment can be imported and says what it does."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(
  path.stem
  for path in (ROOT / 'experiments').iterdir()
  if path.suffix == '.py' or (path / '__main__.py').exists()
)
NEEDS = {'pytorch': 'torch'}


@pytest.mark.parametrize('name', NAMES)
def test_help(name, monkeypatch, capsys):
  if name in NEEDS:
    pytest.importorskip(NEEDS[name])
  module = importlib.import_module(f'experiments.{name}')
  if hasattr(module, '__path__'):
    module = importlib.import_module(f'experiments.{name}.__main__')
  monkeypatch.setattr('sys.argv', [name, '--help'])
  with pytest.raises(SystemExit) as stopped:
    module.main()
  assert stopped.value.code == 0
  assert '--help' in capsys.readouterr().out


def test_the_page_lists_every_experiment():
  page = (ROOT / 'experiments/README.md').read_text()
  for name in NAMES:
    assert f'experiments.{name}' in page, name
