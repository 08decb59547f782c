import logging
import pathlib
import runpy
import subprocess
import sys

import pytest
import tqdm

from tests import commands as commands_of_tests
from vidpred_jax import __main__ as commands
from vidpred_jax import command


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


@pytest.mark.parametrize('folder', ['', 'configs/'])
@pytest.mark.parametrize('end', ['.py', '.py:demo', '', ':demo,smoke'])
def test_a_configuration_of_the_package_is_found(
  monkeypatch, tmp_path, folder, end
):
  monkeypatch.chdir(tmp_path)
  found, _, variants = command.config_file(f'{folder}dmvfn{end}').partition(':')
  own = pathlib.Path(command.__file__).parents[1] / 'configs/dmvfn.py'
  assert pathlib.Path(found) == own
  assert variants == end.partition(':')[2]


def test_a_file_that_is_there_goes_before_the_packages(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'dmvfn.py').write_text('')
  assert command.config_file('dmvfn.py:mine') == 'dmvfn.py:mine'


@pytest.mark.parametrize(
  'name', ['other.py', 'mine/dmvfn.py:demo', 'a/configs/dmvfn.py', '__init__']
)
def test_another_configuration_is_refused_by_name(monkeypatch, tmp_path, name):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(FileNotFoundError, match=r'dmvfn\.py, rvd\.py'):
    command.config_file(name)


def test_all_missing_flags_are_told_at_once(forks):
  said = forks.run('vidpred_jax.convert', '--input=x')
  commands_of_tests.is_one_line(*said, '--system, --output.')


def test_a_configuration_of_the_package_is_found_by_name():
  assert command.configuration('dmvfn.py:smoke').system == 'dmvfn'
  with pytest.raises(FileNotFoundError, match='the package has apr_vfi.py'):
    command.configuration('nothing.py')


def test_help_is_no_error():
  done = commands_of_tests.run('vidpred_jax.cost', '--help')
  assert done.returncode == 0 and '--config' in done.stdout


def test_a_size_is_height_and_width():
  assert command.parse_size('256x448') == (256, 448)


@pytest.mark.parametrize('text', ['', '256', '256x', '-1x4', '4x4x4', '²x4'])
def test_another_size_is_refused(text):
  with pytest.raises(ValueError, match=f'--size={text}, expected HxW'):
    command.parse_size(text)


@pytest.mark.parametrize(
  'module, arguments',
  [
    ('cost', ['--config=dmvfn.py:smoke', '--input=gs://bucket/run']),
    ('compare', ['--format=gs://bucket/run', 'gs://bucket/other']),
    ('compare', ['--mixed', '--metrics', 'gs://bucket/run', 'runs/a']),
    ('predict', ['--input', 's3://bucket/a.mp4', '--output=b.mp4']),
    ('convert', ['--system=dmvfn', '--input=https://a.b/c.pkl', '--output=d']),
  ],
)
def test_addresses_are_refused_in_one_line(module, arguments, forks):
  said = forks.run(f'vidpred_jax.{module}', *arguments)
  commands_of_tests.is_one_line(*said, 'an address, not a path of a file')
  for name in ('gs:', 's3:', 'b.mp4', 'd'):
    assert not (commands_of_tests.ROOT / name).exists()


@pytest.mark.parametrize(
  'options', [['--mixed'], ['--format=md', '--per_frame'], ['--format', 'md']]
)
def test_runs_at_addresses_may_follow_an_option(options, forks):
  names = 'memory://bucket/a', 'memory://bucket/b'
  said = forks.run('vidpred_jax.compare', *options, *names)
  commands_of_tests.is_one_line(*said, 'bucket/a/results.json is not there')


def test_a_storage_that_is_not_known_is_refused_in_one_line(forks):
  arguments = '--config=dmvfn.py:smoke', '--workdir=nosuch://bucket/run'
  said = forks.run('vidpred_jax.main', *arguments)
  commands_of_tests.is_one_line(*said, 'Protocol not known: nosuch')


@pytest.mark.parametrize(
  'flag', [['--checkpoint', 'memory://m'], ['--checkpoint=memory://m']]
)
def test_weights_may_lie_at_an_address(flag, tmp_path, forks):
  output = f'--output={tmp_path / "a.mp4"}'
  said = forks.run('vidpred_jax.predict', output, *flag)
  commands_of_tests.is_one_line(*said, 'm on that storage holds neither')


def test_a_warning_has_a_line_of_its_own_above_a_bar(capsys):
  shown = command._AboveBar()
  shown.setFormatter(command._Formatter())
  record = logging.makeLogRecord({'msg': 'The disk is %s', 'args': ('full',)})
  with tqdm.tqdm(total=2) as bar:
    bar.update()
    shown.emit(record)
  assert '\rWarning: The disk is full\n\r' in capsys.readouterr().err


@pytest.mark.parametrize(
  'error, told',
  [
    ("MemoryError('Unable to allocate 24.0 GiB')", True),
    ("RuntimeError('RESOURCE_EXHAUSTED: 9 GiB of device memory')", True),
    ("RuntimeError('INTERNAL: a fault')", False),
  ],
)
def test_want_of_memory_is_told_in_one_line(error, told):
  """A fault of the program is none of the user's, and keeps its traceback."""
  program = (
    'from vidpred_jax import command\n'
    f'def main(argv): raise {error}\n'
    'command.run(main, lambda: None)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=commands_of_tests.ROOT,
    capture_output=True,
    text=True,
  )
  said = done.returncode, done.stdout, done.stderr
  if told:
    commands_of_tests.is_one_line(*said, 'not enough memory', 'GiB')
  else:
    assert done.returncode == 1 and 'Traceback' in done.stderr
