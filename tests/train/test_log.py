import contextlib
import json
import os
import resource
import signal

import pytest
from tensorboardX.proto import event_pb2

from vidpred_jax.train import workdir


@contextlib.contextmanager
def full_disk(size=0):
  """No file of this process can grow beyond `size` bytes."""
  _, hard = old = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def said(monkeypatch):
  """What commands show: warnings of the package's own loggers."""
  lines = []
  monkeypatch.setattr(
    workdir._LOG, 'warning', lambda text, *values: lines.append(text % values)
  )
  assert workdir._LOG.name.startswith('vidpred_jax.')
  return lines


def logged(folder):
  text = (folder / 'metrics.jsonl').read_text()
  return [json.loads(line)['step'] for line in text.splitlines()]


def events(folder):
  """The (step, name) of each scalar in the event files."""
  found = []
  for path in sorted(folder.glob('events.*')):
    data = path.read_bytes()
    while data:
      length = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12 : 12 + length])
      found += [(event.step, value.tag) for value in event.summary.value]
      data = data[16 + length :]
  return found


def test_lines_and_events_are_written_at_once(tmp_path):
  with workdir.log(tmp_path, 0) as write:
    write(1, {'loss': 0.5, 'psnr': 20.0})
    assert logged(tmp_path) == [1]
    assert events(tmp_path) == [(1, 'loss'), (1, 'psnr')]


@pytest.mark.parametrize('room', [0, 60])
def test_a_full_disk_holds_nothing_up_and_no_line_is_lost(tmp_path, said, room):
  with workdir.log(tmp_path, 0) as write:
    write(1, {'loss': 0.5})
    with full_disk((tmp_path / 'metrics.jsonl').stat().st_size + room):
      for step in (2, 3, 4, 5):
        write(step, {'loss': 0.25, 'what_takes_room': 1.0})
    assert len(said) == 2  # of the lines and of the events, each once
    write(6, {'loss': 0.125})
    assert logged(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_disk_that_stays_full_does_not_stop_a_run(tmp_path, said):
  with full_disk(), workdir.log(tmp_path, 0) as write:
    write(1, {'loss': 0.5})
    write(2, {'loss': 0.5})
  assert logged(tmp_path) == []
  assert len([line for line in said if 'waits' in line]) == 1
  assert len([line for line in said if 'TensorBoard' in line]) == 1


@pytest.mark.parametrize(
  'damage', ['[1]', '{"stap": 2}', '{"step": 2', '\x00\xff', '3']
)
def test_a_damaged_line_alone_is_lost(tmp_path, damage, said):
  path = tmp_path / 'metrics.jsonl'
  lines = b'{"step": 1}', damage.encode('latin-1'), b'{"step": 3}', b''
  path.write_bytes(b'\n'.join(lines))
  with workdir.log(tmp_path, 5) as write:
    write(6, {'loss': 1.0})
  assert logged(tmp_path) == [1, 3, 6]
  assert said == [f'{path}: 1 damaged lines are left out.']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_and_is_given_back(number, capsys):
  before = signal.getsignal(number)
  with workdir.Stop() as stop:
    assert not stop(1)
    os.kill(os.getpid(), number)
    assert stop(2)
  assert signal.getsignal(number) is before
  assert ('Ctrl-C once more' in capsys.readouterr().err) == (
    number == signal.SIGINT
  )


def test_a_second_interrupt_ends_at_once():
  with workdir.Stop() as stop, pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGINT)
    assert stop(1)
    os.kill(os.getpid(), signal.SIGINT)
