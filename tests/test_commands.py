import runpy
import sys

import pytest

from vidpred_jax import __main__ as commands


def called(monkeypatch, *arguments):
  """What `vidpred` runs, and the arguments it is given."""
  seen = []

  def run_module(name, *, run_name, alter_sys):
    assert run_name == '__main__' and alter_sys
    seen.extend([name, sys.argv[1:]])

  monkeypatch.setattr(runpy, 'run_module', run_module)
  monkeypatch.setattr(sys, 'argv', ['vidpred', *arguments])
  commands.main()
  return seen


@pytest.mark.parametrize(
  'arguments, module, given',
  [
    (['predict', '--input=a'], 'vidpred_jax.predict', ['--input=a']),
    (
      ['train', '--workdir=w'],
      'vidpred_jax.main',
      ['--mode=train,eval', '--workdir=w'],
    ),
    (['evaluate'], 'vidpred_jax.main', ['--mode=eval']),
    (['cost', '--x', '--y'], 'vidpred_jax.cost', ['--x', '--y']),
  ],
)
def test_a_command_is_a_module(monkeypatch, arguments, module, given):
  assert called(monkeypatch, *arguments) == [module, given]


def test_no_command_and_help_list_them(monkeypatch, capsys):
  for arguments in ([], ['--help'], ['-h']):
    assert called(monkeypatch, *arguments) == []
    assert 'predict' in capsys.readouterr().out


def test_a_wrong_command_is_an_error_that_lists_them(monkeypatch, capsys):
  with pytest.raises(SystemExit) as ended:
    called(monkeypatch, 'forecast', '--input=a')
  assert ended.value.code == 2
  error = capsys.readouterr().err
  assert "no command 'forecast'" in error and 'evaluate' in error
