"""Ctrl-C in commands: one line, wherever it comes."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Imports this in place of JAX, and is interrupted there.
SLOW = """
import os, signal, time
print('importing', flush=True)
try:
  os.kill(os.getpid(), signal.SIGINT)
  time.sleep(20)
except BaseException:
  pass
"""
LOST = """
import gc, os, signal, sys, time
from vidpred_jax import command

def interrupt(*_):
  gc.callbacks.clear()
  os.kill(os.getpid(), signal.SIGINT)
  time.sleep(0)

class Thing:
  def __del__(self):
    interrupt()

def main(argv):
  if {in_callback}:
    gc.callbacks.append(interrupt)
    gc.collect()
  else:
    Thing()
  before = time.monotonic()
  try:
    time.sleep(20)
  finally:
    print(time.monotonic() - before < 10)

command.run(main, lambda: None)
"""


def run(*arguments, path=ROOT):
  """Runs Python: status, output, lines of errors."""
  # Where it is ignored, as in a shell's background jobs, children ignore it.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    found = subprocess.run(
      [sys.executable, *arguments],
      capture_output=True,
      text=True,
      cwd=ROOT,
      env=os.environ | {'PYTHONPATH': str(path)},
      timeout=100,
    )
  finally:
    signal.signal(signal.SIGINT, before)
  return found.returncode, found.stdout, found.stderr.split('\n')


@pytest.mark.parametrize(
  'command', [('-m', 'vidpred_jax.main'), ('-m', 'vidpred_jax', 'predict')]
)
def test_ctrl_c_while_a_command_is_imported(tmp_path, command):
  (tmp_path / 'jax.py').write_text(SLOW)
  path = f'{tmp_path}{os.pathsep}{ROOT}'
  found = run(*command, path=path)
  assert found == (130, 'importing\n', ['', 'Interrupted.', ''])


def test_ctrl_c_while_a_configuration_is_read(tmp_path):
  config = tmp_path / 'config.py'
  config.write_text(SLOW)
  arguments = '-m', 'vidpred_jax.main', f'--config={config}', '--workdir=x'
  assert run(*arguments) == (130, 'importing\n', ['', 'Interrupted.', ''])


@pytest.mark.parametrize('in_callback', [True, False])
def test_ctrl_c_is_not_lost_in_a_callback(in_callback):
  found = run('-c', LOST.format(in_callback=in_callback))
  assert found == (130, 'True\n', ['', 'Interrupted.', ''])


def test_importing_the_package_changes_no_signal():
  code = (
    'import signal, vidpred_jax\n'
    'assert signal.getsignal(2) is signal.default_int_handler'
  )
  assert run('-c', code)[0] == 0
