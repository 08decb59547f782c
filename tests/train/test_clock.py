"""The clock of a run, and traces of its steps."""

import time

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import test_loop
from vidpred_jax import ranges
from vidpred_jax.train import clock, loop


class Busy:
  """Takes a while on the device, as `jax.block_until_ready` sees it."""

  def __init__(self, seconds):
    self.end = time.perf_counter() + seconds

  def block_until_ready(self):
    time.sleep(max(0.0, self.end - time.perf_counter()))
    return self


@pytest.mark.parametrize(
  'busy, loading, least, most',
  [
    (0.0, 0.2, 0.15, 0.2),  # the device waits all the time
    (0.15, 0.25, 0.05, 0.15),  # for a part of it
    (0.3, 0.1, 0.0, 0.0),  # for nothing
  ],
)
def test_the_time_counts_in_which_the_device_has_nothing_to_do(
  busy, loading, least, most
):
  timer = clock.Clock(4, 100)
  assert timer.rates(1) == {}
  begin = time.perf_counter()
  with timer.waiting([Busy(busy)]):
    time.sleep(loading)
  rates = timer.rates(2)
  seconds = time.perf_counter() - begin
  waited = rates['data_wait'] * seconds
  slack = seconds - loading  # of a machine that does other things
  assert least - slack <= waited <= most + slack
  assert rates['clips_per_second'] == pytest.approx(4 / seconds, rel=0.2)
  time.sleep(0.01)
  assert timer.rates(3)['data_wait'] == 0.0


def test_what_fails_on_the_device_is_left_to_the_loop():
  class Fails:
    def block_until_ready(self):
      raise RuntimeError

  timer = clock.Clock(1, 1)
  timer.rates(1)
  with timer.waiting([Fails()]):
    time.sleep(0.01)
  assert timer.rates(2)['data_wait'] == 0.0


def test_steps_are_traced(tmp_path):
  config = test_loop.tiny_config(steps=4, log_every=2, profile=(2, 3))
  ranges.check(config)
  assert loop.run(config, tmp_path / 'run')
  (trace,) = (tmp_path / 'run' / 'profile').rglob('*.xplane.pb')
  content = trace.read_bytes()
  assert content.count(b'train_step') and b'PjitFunction' in content


def test_a_trace_ends_with_the_run(tmp_path):
  x = jnp.arange(4.0)
  with clock.Trace(tmp_path, (2, 10**6)) as trace:
    for step in range(1, 4):
      trace.before(step, x)
      x = x + 1
  assert len(list(tmp_path.rglob('*.xplane.pb'))) == 1
  np.testing.assert_array_equal(x, np.arange(4) + 3)


def test_a_trace_ends_with_its_last_step(tmp_path):
  x = jnp.arange(4.0)
  with clock.Trace(tmp_path, (2, 3)) as trace:
    for step in (1, 2, 3):
      assert not list(tmp_path.rglob('*.xplane.pb'))
      trace.before(step, x)
      x = x + 1
      trace.after(step, x)
    assert len(list(tmp_path.rglob('*.xplane.pb'))) == 1


def test_without_steps_nothing_is_written(tmp_path):
  with clock.Trace(tmp_path / 'profile', ()) as trace:
    trace.before(1, None)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('wrong', [(3, 2), (0, 2), (1,), (1, 2, 3), 'all', 5])
def test_steps_that_cannot_be_are_refused(wrong):
  config = test_loop.tiny_config().to_dict() | {'profile': wrong}
  with pytest.raises(ValueError, match='config.profile is .*, expected the fi'):
    ranges.check(type(test_loop.tiny_config())(config))
