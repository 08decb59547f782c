"""Processes that load data end with the one that started them."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from vidpred_jax import data

_LOAD = """
import multiprocessing, os, signal
from vidpred_jax import data
if __name__ == '__main__':
  # A shell in the background has it ignored.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  batches = data.train_iterator(
    'photos', num_frames=2, batch_size=2, seed=0, workers=2, size=(32, 32)
  )
  next(batches)
  print(*[p.pid for p in multiprocessing.active_children()], flush=True)
  os.{end}
"""


def is_running(pid):
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().split(')')[1].split()
  except OSError:
    return False
  return state[0] != 'Z'


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
@pytest.mark.parametrize('end', ['kill(os.getpid(), 9)', '_exit(0)'])
def test_no_process_outlives_its_parent(tmp_path, end):
  script = tmp_path / 'load.py'
  script.write_text(_LOAD.replace('{end}', end))
  root = pathlib.Path(__file__).parents[2]
  ended = subprocess.run(
    [sys.executable, script],
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': str(root)},
    timeout=200,
  )
  pids = [int(x) for x in ended.stdout.split()]
  assert len(pids) == 2, ended
  until = time.time() + 20
  while any(map(is_running, pids)) and time.time() < until:
    time.sleep(0.1)
  assert not any(map(is_running, pids))


def test_a_killed_worker_is_told_in_a_sentence():
  with data.train_iterator(
    'photos', num_frames=2, batch_size=2, seed=0, workers=1, size=(32, 32)
  ) as batches:
    next(batches)
    for process in multiprocessing.active_children():
      os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(OSError, match='loads data has ended.*workers'):
      for _ in range(100):
        next(batches)


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_an_interrupt_is_not_for_workers_from_their_first_moment_on():
  with data.train_iterator(
    'photos', num_frames=2, batch_size=2, seed=0, workers=2, size=(32, 32)
  ) as batches:
    next(batches)
    for process in multiprocessing.active_children():
      status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
      blocked = int(status.partition('SigBlk:')[2].split()[0], 16)
      assert blocked & 1 << signal.SIGINT - 1


@pytest.mark.skipif(sys.platform != 'linux', reason='signals as POSIX has them')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_who_began_them_alone_hears_of_an_interrupt(tmp_path, number):
  """A terminal sends it to all; what ends in silence has nothing to say."""
  script = tmp_path / 'load.py'
  script.write_text(_LOAD.replace('{end}', f'killpg(0, {int(number)})'))
  root = pathlib.Path(__file__).parents[2]
  ended = subprocess.run(
    [sys.executable, script],
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': str(root)},
    timeout=200,
    start_new_session=True,
  )
  assert ended.stderr.count('Traceback') == (number == signal.SIGINT)
  assert 'resource_tracker' not in ended.stderr
