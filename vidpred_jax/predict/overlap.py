"""Overlaps the parts of a stream: reading, computing and writing.

PyAV and XLA release Python's lock. So one thread decodes the next frames and
another encodes the last ones while the device works. The computation stays in
the caller's thread, with its JAX settings and its Ctrl-C. Order is kept, so the
results are those of one part after another, and errors come at their place.
"""

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

DEPTH = 4  # items that wait between two parts
_END = object()


def ahead(items: Iterable, depth: int = DEPTH) -> Iterator:
  """Iterates in a thread, ahead of the caller.

  Args:
    items: what is iterated; a generator is closed when the caller is done.
    depth: how many items are held.

  Yields:
    The items. An error of `items` is raised after the items before it.
  """
  source = iter(items)
  worker = futures.ThreadPoolExecutor(1, 'vidpred-read')
  try:
    pending = collections.deque(
      worker.submit(next, source, _END) for _ in range(depth)
    )
    while (item := pending.popleft().result()) is not _END:
      yield item
      pending.append(worker.submit(next, source, _END))
  finally:
    try:
      _ended(worker)
    finally:
      close = getattr(source, 'close', None)
      if close is not None:
        close()


@contextlib.contextmanager
def behind(
  function: Callable[..., Any], depth: int = DEPTH
) -> Iterator[Callable[..., None]]:
  """Calls a function in a thread, behind the caller.

  Args:
    function: is called once at a time, in order.
    depth: how many calls may wait.

  Yields:
    A function of the same arguments, which must not change afterwards. It
    raises the error of an earlier call, if there was one. The block's end waits
    for all calls, and raises likewise; an error in the block drops the waiting
    ones.
  """
  worker = futures.ThreadPoolExecutor(1, 'vidpred-write')
  pending: collections.deque = collections.deque()

  def call(*args):
    if len(pending) == depth:
      pending.popleft().result()
    pending.append(worker.submit(function, *args))

  try:
    yield call
    while pending:
      pending.popleft().result()
  finally:
    _ended(worker)


def _ended(worker: futures.Executor) -> None:
  """Waits for the call that runs, also through more of Ctrl-C.

  It may be in the middle of what its caller is about to close.
  """
  interrupted = None
  while True:
    try:
      worker.shutdown(cancel_futures=True)
      break
    except KeyboardInterrupt as error:
      interrupted = error
  if interrupted is not None:
    raise interrupted


def in_flight(
  started: Iterable, finish: Callable[[Any], Any], count: int
) -> Iterator:
  """Finishes each item when the next `count` have been started.

  Args:
    started: starts an item whenever it is asked for one, such as a call of a
      device, which returns at once.
    finish: waits for an item and returns its result.
    count: how many more items are started by then.

  Yields:
    The results, in order. An error of `started` is raised after them.
  """
  waiting: collections.deque = collections.deque()
  source, failure, more = iter(started), None, True
  while more or waiting:
    if more:
      try:
        waiting.append(next(source))
      except StopIteration:
        more = False
      except Exception as error:  # after the results of what was started
        failure, more = error, False
    if waiting and (not more or len(waiting) > count):
      yield finish(waiting.popleft())
  if failure is not None:
    try:
      raise failure
    finally:
      del failure  # or it holds this frame, and that the open source
