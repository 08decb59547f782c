"""Reading ahead and writing behind: order, errors, interruptions, bounds."""

import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from tests.predict import test_films as films
from tests.predict import toys
from vidpred_jax import predict, video_io
from vidpred_jax.predict import overlap, videos


def threads():
  return {x.name for x in threading.enumerate() if 'vidpred' in x.name}


def test_items_come_in_order_from_another_thread():
  at = []

  def items():
    for n in range(20):
      at.append(threading.current_thread().name)
      yield n

  assert list(overlap.ahead(items())) == list(range(20))
  assert {x.split('_')[0] for x in at} == {'vidpred-read'} and not threads()


@pytest.mark.parametrize('depth', [1, 3])
def test_no_more_is_read_ahead_than_asked(depth):
  read = []

  def items():
    for n in range(20):
      read.append(n)
      yield n

  for n, _ in enumerate(overlap.ahead(items(), depth)):
    time.sleep(0.005)
    assert len(read) <= n + depth


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_error_comes_after_the_items_before_it(error):
  def items():
    yield from range(5)
    raise error('broken')

  got = []
  with pytest.raises(error, match='broken'):
    for n in overlap.ahead(items()):
      got.append(n)
  assert got == list(range(5)) and not threads()


def test_a_reader_that_is_left_is_closed():
  closed = []

  def items():
    try:
      yield from range(100)
    finally:
      closed.append(True)

  reading = overlap.ahead(items())
  assert next(reading) == 0
  reading.close()
  assert closed == [True] and not threads()


def test_calls_are_made_in_order_and_waited_for():
  done = []

  def slow(n):
    time.sleep(0.002)
    done.append((n, threading.current_thread().name.split('_')[0]))

  with overlap.behind(slow) as call:
    for n in range(20):
      call(n)
  assert done == [(n, 'vidpred-write') for n in range(20)] and not threads()


@pytest.mark.parametrize('wrong', [3, 19])
def test_an_error_of_a_call_ends_the_block(wrong):
  done = []

  def fails(n):
    if n == wrong:
      raise OSError('disk full')
    done.append(n)

  with pytest.raises(OSError, match='disk full'):
    with overlap.behind(fails) as call:
      for n in range(20):
        call(n)
  assert done[:wrong] == list(range(wrong)) and not threads()


def test_an_error_in_the_block_drops_what_waits():
  done, go = [], threading.Event()

  def slow(n):
    go.wait(5)
    done.append(n)

  with pytest.raises(KeyError):
    with overlap.behind(slow) as call:
      for n in range(4):
        call(n)
      go.set()
      raise KeyError
  assert len(done) < 4 and not threads()


@pytest.mark.parametrize('count', [0, 1, 3, 50])
def test_results_follow_what_was_started(count):
  started = []

  def items():
    for n in range(10):
      started.append(n)
      yield n

  results = overlap.in_flight(items(), lambda n: 2 * n, count)
  for n, result in enumerate(results):
    assert result == 2 * n
    assert len(started) == min(10, n + 1 + count)


@pytest.mark.parametrize('count', [0, 3, 50])
def test_an_error_comes_after_what_was_started(count):
  def items():
    yield from range(5)
    raise OSError('no more')

  results = []
  with pytest.raises(OSError, match='no more'):
    for result in overlap.in_flight(items(), lambda n: 2 * n, count):
      results.append(result)
  assert results == [0, 2, 4, 6, 8]


def test_a_second_ctrl_c_waits_for_the_call_that_runs():
  class Worker:
    tries = 0

    def shutdown(self, cancel_futures):
      self.tries += 1
      if self.tries < 3:
        raise KeyboardInterrupt

  worker = Worker()
  with pytest.raises(KeyboardInterrupt):
    overlap._ended(worker)
  assert worker.tries == 3


def one_after_another(monkeypatch):
  """Replaces the threads by plain iteration and plain calls."""

  class Plain:
    def __init__(self, function):
      self.function = function

    def __enter__(self):
      return self.function

    def __exit__(self, *_):
      pass

  monkeypatch.setattr(overlap, 'ahead', iter)
  monkeypatch.setattr(overlap, 'behind', lambda function, *_: Plain(function))
  monkeypatch.setattr(
    overlap, 'in_flight', lambda started, finish, _: map(finish, started)
  )


@pytest.mark.parametrize(
  'load, settings',
  [
    (toys.between, {'factor': 2}),
    (toys.between, {'fps': 60}),
    (toys.again, {'num_frames': 3, 'with_input': True}),
  ],
)
def test_the_film_is_the_same(tmp_path, monkeypatch, load, settings):
  """In FFV1: x264 gives the same frames other bytes from run to run."""
  clip = np.concatenate([films.moving(0), films.moving(3)])
  source = films.write(tmp_path / 'in.mp4', clip)
  settings |= {'codec': 'ffv1'}
  predict.predict_video(load, source, tmp_path / 'a.mkv', **settings)
  one_after_another(monkeypatch)
  predict.predict_video(load, source, tmp_path / 'b.mkv', **settings)
  (a, b) = (list(video_io.frames(tmp_path / f'{x}.mkv')) for x in 'ab')
  assert [time for time, _ in a] == [time for time, _ in b]
  np.testing.assert_array_equal(
    np.stack([x for _, x in a]), np.stack([x for _, x in b])
  )


def broken(error, after):
  """Makes a function of these arguments fail at one of its calls."""
  calls = []

  def wrap(function):
    def wrapped(*args, **kwargs):
      calls.append(1)
      if len(calls) == after:
        error()
      return function(*args, **kwargs)

    return wrapped

  return wrap


def fail():
  raise OSError('broken here')


def interrupt():
  """As Ctrl-C, which Python gives to the main thread."""
  os.kill(os.getpid(), signal.SIGINT)
  time.sleep(0.05)


PARTS = {
  'reading': (video_io.Film, 'frames'),
  'computing': (videos.Predictor, '_scenes'),
  'writing': (video_io.Writer, 'write'),
}


@pytest.mark.parametrize('part', PARTS)
@pytest.mark.parametrize(
  'error, expected', [(fail, OSError), (interrupt, KeyboardInterrupt)]
)
def test_a_failure_in_any_part_leaves_nothing(
  tmp_path, monkeypatch, part, error, expected
):
  source = films.write(tmp_path / 'in.mp4', films.moving(0))
  owner, name = PARTS[part]
  function = getattr(owner, name)
  if part == 'writing':
    changed = broken(error, 4)(function)
  else:

    def changed(self, *args):
      step = broken(error, 4)(next)
      items = function(self, *args)
      while (item := step(items, None)) is not None:
        yield item

  monkeypatch.setattr(owner, name, changed)
  # A shell's background jobs begin with a Ctrl-C that is ignored.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  output = tmp_path / 'out.mp4'
  output.write_text('kept')
  with pytest.raises(expected):
    predict.predict_video(toys.between, source, output, overwrite=True)
  assert output.read_text() == 'kept' and not threads()
  assert sorted(x.name for x in tmp_path.iterdir()) == ['in.mp4', 'out.mp4']


def test_frames_are_started_ahead():
  started = []

  def counted(variables, context, key):
    jax.debug.callback(lambda: started.append(1))
    return toys.again()[0].predict(variables, context, key)

  system = toys.again()[0]._replace(predict=counted)
  serve = videos.Predictor(system, toys.VARIABLES)
  clip = films.moving(0, 2)
  shots = serve.stream(clip, 5, ahead=2)
  first = next(shots)
  jax.effects_barrier()
  assert len(started) == 3
  np.testing.assert_array_equal(
    np.stack([first, *shots]), np.stack(list(serve.stream(clip, 5)))
  )
