"""Commands as a user runs them."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Imports a command once; then each line, its name and arguments, is a run in a
# fork of its own.
_FORKS = """
import gc, importlib, json, os, runpy, sys, tempfile
import vidpred_jax.evaluate.run, vidpred_jax.train.loop
for line in sys.stdin:
  module, *arguments = json.loads(line)
  if hasattr(importlib.import_module(module), '__path__'):
    importlib.import_module(f'{module}.__main__')
  gc.freeze()
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    child = os.fork()
    if not child:
      os.dup2(out.fileno(), 1)
      os.dup2(err.fileno(), 2)
      sys.argv[1:] = arguments
      runpy.run_module(module, run_name='__main__', alter_sys=True)
      sys.exit()
    _, status = os.waitpid(child, 0)
    texts = [stream.seek(0) or stream.read().decode() for stream in (out, err)]
  print(json.dumps([os.waitstatus_to_exitcode(status), *texts]), flush=True)
"""


def run(module, *arguments):
  """Runs a command in a process of its own, to its end."""
  return subprocess.run(
    [sys.executable, '-m', module, *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


class Forks:
  """Runs commands again and again without importing them anew.

  For what ends soon: a fork has one device and no threads of its parent.
  """

  def __init__(self):
    self._process = subprocess.Popen(
      [sys.executable, '-W', 'ignore', '-c', _FORKS],
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._process.communicate(timeout=60)

  def run(self, module, *arguments):
    """Returns (exit status, stdout, stderr)."""
    line = json.dumps([module, *map(str, arguments)])
    print(line, file=self._process.stdin, flush=True)
    answer = self._process.stdout.readline()
    if not answer:
      pytest.fail(f'The process that forks has ended before {line}.')
    return json.loads(answer)


def is_one_line(status, out, err, *words):
  """Asserts that an error was told in one line; a bar may stand before it."""
  assert status == 2, (status, out, err)
  lines = [x for x in err.splitlines() if x.strip() and '%|' not in x]
  assert len(lines) == 1 and lines[0].startswith('Error: '), err
  for word in words:
    assert word in err, (word, err)
