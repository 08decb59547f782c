"""The speed of a training run."""

import contextlib
import time


class Clock:
  """Measures the speed of steps between two calls of `rates`."""

  def __init__(self, batch_size: int, epoch: int):
    self._batch_size, self._epoch = batch_size, epoch
    self._since: tuple[int, float] | None = None  # step, time

  def rates(self, step: int) -> dict[str, float]:
    """Clips a second and seconds an epoch; an empty dict at the first call."""
    before, now = self._since, time.perf_counter()
    self._since = step, now
    if before is None or step == before[0]:
      return {}
    seconds = now - before[1]
    rate = (step - before[0]) * self._batch_size / seconds
    return {'clips_per_second': rate, 'epoch_seconds': self._epoch / rate}

  @contextlib.contextmanager
  def stopped(self):
    """Stops the clock in a block."""
    begin = time.perf_counter()
    yield
    if self._since is not None:
      step, time_then = self._since
      self._since = step, time_then + time.perf_counter() - begin
