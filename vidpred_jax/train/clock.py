"""The speed of a training run: its clock, and traces of its steps."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax


class Clock:
  """Measures the speed of steps between two calls of `rates`."""

  def __init__(self, batch_size: int, epoch: int):
    self._batch_size, self._epoch = batch_size, epoch
    self._since: tuple[int, float] | None = None  # step, time
    self._waited = 0.0

  def rates(self, step: int) -> dict[str, float]:
    """Measures the time since the last call.

    Args:
      step: the number of the last step.

    Returns:
      `clips_per_second`, `epoch_seconds` and `data_wait`, the share of the time
      for which the device had nothing to do before a batch was there; an empty
      dict at the first call.
    """
    before, now = self._since, time.perf_counter()
    waited, self._waited = self._waited, 0.0
    self._since = step, now
    if before is None or step == before[0]:
      return {}
    seconds = now - before[1]
    rate = (step - before[0]) * self._batch_size / seconds
    return {
      'clips_per_second': rate,
      'epoch_seconds': self._epoch / rate,
      'data_wait': waited / seconds,
    }

  @contextlib.contextmanager
  def waiting(self, work: Any) -> Iterator[None]:
    """Counts how long a block lasts after the device has ended `work`.

    Args:
      work: arrays that are being computed, in any tree.
    """
    ended = []

    def watch():
      with contextlib.suppress(Exception):  # the loop meets it itself
        jax.block_until_ready(work)
        ended.append(time.perf_counter())

    begin = time.perf_counter()
    threading.Thread(target=watch, name='device-watch').start()
    yield
    end = time.perf_counter()
    if ended:
      self._waited += max(0.0, end - max(begin, ended[0]))

  @contextlib.contextmanager
  def stopped(self):
    """Stops the clock in a block."""
    begin = time.perf_counter()
    yield
    if self._since is not None:
      step, time_then = self._since
      self._since = step, time_then + time.perf_counter() - begin


class Trace:
  """Writes a trace of some steps by `jax.profiler`; a context manager."""

  def __init__(self, folder: pathlib.Path, steps: Sequence[int]):
    """Writes nothing yet.

    Args:
      folder: where traces go.
      steps: the first and the last step to trace; empty: none.
    """
    self._folder, self._steps, self._open = folder, steps, False

  def __enter__(self) -> 'Trace':
    return self

  def __exit__(self, *_) -> None:
    if self._open:
      self._open = False
      jax.profiler.stop_trace()

  def before(self, step: int, work: Any) -> None:
    """Begins the trace if this step is to be in it.

    Args:
      step: the step that follows.
      work: what the device still computes; it belongs to the steps before.
    """
    if self._steps and not self._open:
      first, last = self._steps
      if first <= step <= last:
        jax.block_until_ready(work)
        jax.profiler.start_trace(self._folder)
        self._open = True

  def after(self, step: int, work: Any) -> None:
    """Ends the trace after its last step.

    Args:
      step: the step that was started last.
      work: its results.
    """
    if self._open and step >= self._steps[1]:
      jax.block_until_ready(work)
      self.__exit__()
