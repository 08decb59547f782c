"""The folder of a run: its owner, its logs, and the signal to stop.

`config.json`, `checkpoints/`, `metrics.jsonl` and TensorBoard events belong to
one configuration. A folder that holds another run is never changed.
"""

import contextlib
import errno
import json
import logging
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from vidpred_jax import atomic, checkpoint, stored, systems
from vidpred_jax import config as configuration

_LOG = logging.getLogger(__name__)
# What may change between two tries at the same run.
_MAY_CHANGE = (
  'eval',
  'log_every',
  'profile',
  'checkpoint_every',
  'keep',
  'workers',
)


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Holds the folder for this run alone; it is created if missing.

  Process 0 holds it for all processes of the run.

  Raises:
    ValueError: if another run holds it, or it is no folder of a run.
  """
  atomic.check_local(workdir)
  _check_own(workdir)
  _wait('looked')  # all have looked before one writes
  with contextlib.ExitStack() as stack:
    problem = None
    if jax.process_index() == 0:
      try:
        workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(atomic.holding(workdir))
      except (ValueError, OSError) as error:
        problem = error
    if jax.process_count() > 1:
      failed = np.bool_(problem is not None)
      if multihost_utils.broadcast_one_to_all(failed) and problem is None:
        problem = ValueError(f'Process 0 does not get {workdir}.')
    if problem is not None:
      raise problem
    yield


def _check_own(workdir: pathlib.Path) -> None:
  """Raises ValueError if a folder holds other things and no run."""
  if (workdir / checkpoint.CONFIG).exists() or not workdir.exists():
    return
  if not all(map(atomic.is_own, workdir.iterdir())):
    raise ValueError(
      f'{workdir} is not empty and holds no run; choose another --workdir.'
    )


def _wait(name: str) -> None:
  """Waits until all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def check_or_create(workdir: pathlib.Path, config) -> None:
  """Writes the configuration into a new folder, or compares it with the old.

  Fields that one of them lacks, because the run was begun by another version of
  the library, have their defaults.

  Args:
    workdir: the run's folder.
    config: the configuration, a ConfigDict.

  Raises:
    ValueError: if the folder holds another run or something else, or an export
      without checkpoints.
  """
  wanted = json.loads(json.dumps(config.to_dict()))
  path = workdir / checkpoint.CONFIG
  _check_places(workdir)
  # A try that ended before its first checkpoint owns nothing yet.
  trained = any(p.name.isdigit() for p in (workdir / 'checkpoints').glob('*'))
  if path.exists() and trained:
    before = _fields(_complete(checkpoint.read_config(workdir)))
    now = _fields(_complete(wanted))
    differing = [
      f'{name}: {_said(before, name)} there, {_said(now, name)} asked for'
      for name in sorted({*before, *now})
      if before.get(name) != now.get(name)
    ]
    if differing:
      raise ValueError(
        f'{workdir} holds another run; its configuration differs in '
        f'{"; ".join(differing)}. Choose another --workdir.'
      )
  else:
    _check_own(workdir)
    _check_not_finished(workdir)
  _wait('compared')  # all have looked before one writes
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(path, wanted)
  _wait('claimed')


def _check_not_finished(workdir: pathlib.Path) -> None:
  """Raises ValueError for a finished run whose checkpoints were taken away."""
  if (workdir / 'export' / checkpoint.RECORD).exists():
    raise ValueError(
      f'{workdir} has an export and no checkpoints: training would begin anew '
      'and replace the export. Choose another --workdir; --mode=eval measures '
      'this one.'
    )


def _check_places(workdir: pathlib.Path) -> None:
  """Raises ValueError, before training, if its results have no place."""
  saved = workdir / 'checkpoints'
  if saved.exists() and not saved.is_dir():
    raise ValueError(f'{saved} is a file, expected the folder of a run.')
  place = workdir / 'export'
  if place.exists() and not (place / checkpoint.RECORD).exists():
    raise ValueError(
      f'{place}, which will be replaced when the run ends, is no export of it; '
      'move it away.'
    )


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """A stored configuration with the defaults of fields that it lacks."""
  system = config.get('system')
  if not isinstance(system, str) or system not in systems.SYSTEMS:
    return dict(config)
  defaults = configuration.base(system).to_dict()
  defaults['model'] = systems.SYSTEMS[system].Settings._field_defaults
  schedule = config.get('schedule')
  if isinstance(schedule, dict) and schedule.get('name') == 'onecycle':
    defaults['schedule']['b1_cycle'] = ()  # before there was this field
  return _over(json.loads(json.dumps(defaults)), config)


def _over(defaults, given):
  """`given`, with what it lacks from `defaults`, section by section."""
  if not isinstance(defaults, dict) or not isinstance(given, dict):
    return given
  added = {k: x for k, x in defaults.items() if k not in given}
  return added | {k: _over(defaults.get(k), x) for k, x in given.items()}


def _fields(config: Mapping[str, Any], section: str = '') -> dict[str, Any]:
  """What defines a run: the fields by full names, without those of None."""
  fields = {}
  for name, value in config.items():
    if isinstance(value, dict):
      fields |= _fields(value, f'{section}{name}.')
    elif value is not None:
      fields[section + name] = value
  return {k: x for k, x in fields.items() if k.split('.')[0] not in _MAY_CHANGE}


def _said(fields: Mapping[str, Any], name: str) -> str:
  return stored.shown(fields[name]) if name in fields else 'nothing'


class Stop:
  """`stop(step)` turns true after SIGTERM or Ctrl-C, on all processes at once.

  The run then saves its state and ends. A second Ctrl-C ends it as it is. Of
  several processes only SIGTERM stops all.
  """

  def __init__(self):
    """Changes nothing: signals are caught from entering to leaving."""
    self._received = False
    self._old = {}

  def __enter__(self):
    if jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._old[number] = signal.signal(number, self._receive)
    return self

  def _receive(self, number, _):
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, signal.default_int_handler)
      print(
        '\nSaving after this step; Ctrl-C once more ends without.',
        file=sys.stderr,
      )
    self._received = True

  def __call__(self, step: int) -> bool:
    """Whether to stop after `step`; every process must ask at every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def log(workdir: pathlib.Path, start: int) -> Iterator[Callable[..., None]]:
  """`metrics.jsonl` and TensorBoard events, by process 0.

  A disk that takes nothing more neither stops a run nor holds it up: there is a
  warning, lines wait until there is room again, and events are given up.

  Args:
    workdir: the run's folder.
    start: the step that the run goes on from; what an earlier try logged after
      it is dropped.

  Yields:
    A function `(step, values)`, which writes one line, and one TensorBoard
    scalar for each value.
  """
  if jax.process_index() > 0:
    yield lambda step, values: None
    return
  path = workdir / 'metrics.jsonl'
  atomic.write_text(path, ''.join(_logged(path, start)))
  waiting: list[str] = []
  with _board(workdir, start) as show:

    def write(step: int, values: dict[str, float]) -> None:
      waiting.append(json.dumps({'step': step, **values}) + '\n')
      _append(path, waiting)
      show(step, values)

    yield write
    _append(path, waiting)


def _append(path: pathlib.Path, waiting: list[str]) -> None:
  """Appends lines and forgets them, or keeps them and the file as it was."""
  if not waiting:
    return
  try:
    with path.open('ab', buffering=0) as file:
      size = file.tell()
      text = ''.join(waiting).encode()
      if file.write(text) != len(text):
        file.truncate(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  except OSError as error:
    if len(waiting) == 1:  # once, not for every line that joins it
      _LOG.warning('%s could not be written and waits: %s', path, error)
  else:
    waiting.clear()


@contextlib.contextmanager
def _board(workdir: pathlib.Path, start: int) -> Iterator[Callable[..., None]]:
  """TensorBoard events, written at once: no thread to wait for if it dies.

  Yields:
    A function `(step, values)`.
  """
  events = []

  def send(*items) -> None:
    try:
      if events:
        for item in items:
          events[0].write_event(item)
        events[0].flush()
    except OSError as error:
      events.clear()
      _LOG.warning('TensorBoard events are given up: %s', error)

  try:
    events.append(EventsWriter(str(workdir / 'events')))
  except OSError as error:
    _LOG.warning('There are no TensorBoard events: %s', error)
  if start:  # hides what an earlier try wrote after that step
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    send(
      event_pb2.Event(step=start + 1, file_version='brain.Event:2'),
      event_pb2.Event(step=start + 1, session_log=session),
    )

  def show(step: int, values: dict[str, float]) -> None:
    send(
      *(
        event_pb2.Event(
          step=step, wall_time=time.time(), summary=summary.scalar(name, value)
        )
        for name, value in values.items()
      )
    )

  yield show
  with contextlib.suppress(OSError):
    if events:
      events[0].close()


def _logged(path: pathlib.Path, last: int) -> list[str]:
  """The whole lines of a log up to a step."""
  kept, damaged = [], 0
  text = path.read_text(errors='replace') if path.exists() else ''
  for line in text.splitlines():
    try:
      step = json.loads(line)['step']
    except (ValueError, KeyError, TypeError, RecursionError):
      damaged += 1
      continue
    if isinstance(step, int) and step <= last:
      kept.append(line + '\n')
  if damaged:  # the last one is, when an earlier try was killed
    _LOG.warning('%s: %d damaged lines are left out.', path, damaged)
  return kept
