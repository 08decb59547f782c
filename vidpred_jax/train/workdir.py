"""A run's folder: whose it is, what is logged in it, when to stop.

`config.json`, `checkpoints/`, `metrics.jsonl` and TensorBoard events belong to
one configuration; a folder that holds another run is never written to.
"""

import contextlib
import json
import pathlib
import signal
from collections.abc import Callable, Iterator

import jax
import tensorboardX
from jax.experimental import multihost_utils

from vidpred_jax import atomic, checkpoint

# What may change between two tries at the same run.
_FREE = ('eval', 'log_every', 'checkpoint_every', 'keep', 'workers')


def claim(workdir: pathlib.Path, config) -> None:
  """Writes the configuration into a new folder, or compares it with the old.

  Args:
    workdir: the run's folder.
    config: the configuration, a ConfigDict.

  Raises:
    ValueError: if the folder holds another run or something else.
  """
  wanted = json.loads(json.dumps(config.to_dict()))
  path = workdir / checkpoint.CONFIG
  # A try that ended before its first checkpoint owns nothing yet.
  trained = any(p.name.isdigit() for p in (workdir / 'checkpoints').glob('*'))
  if path.exists() and trained:
    found = checkpoint.read_config(workdir)
    differing = [
      f'{k}: {found.get(k)} there, {wanted.get(k)} asked for'
      for k in sorted({*wanted, *found})
      if k not in _FREE and wanted.get(k) != found.get(k)
    ]
    if differing:
      raise ValueError(
        f'{workdir} holds another run; its configuration differs in '
        f'{"; ".join(differing)}. Choose another --workdir.'
      )
  elif not path.exists() and workdir.exists() and any(workdir.iterdir()):
    raise ValueError(
      f'{workdir} is not empty and holds no run; choose another --workdir.'
    )
  if jax.process_count() > 1:  # all have looked before one writes
    multihost_utils.sync_global_devices('looked')
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, json.dumps(wanted, indent=2) + '\n')
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('claimed')


class Sigterm:
  """`stop(step)` turns true after SIGTERM, on all processes at one step."""

  def __enter__(self):
    self._received = False
    if jax.process_count() == 1:
      self._old = signal.signal(signal.SIGTERM, self._receive)
    return self

  def _receive(self, *_):
    self._received = True

  def __call__(self, step: int) -> bool:
    """Whether to stop after `step`; every process must ask at every step."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received

  def __exit__(self, *_):
    if jax.process_count() == 1:
      signal.signal(signal.SIGTERM, self._old)


@contextlib.contextmanager
def log(workdir: pathlib.Path, start: int) -> Iterator[Callable[..., None]]:
  """`metrics.jsonl` and TensorBoard events, by process 0.

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
  board = tensorboardX.SummaryWriter(
    str(workdir), purge_step=start + 1 if start else None
  )
  with path.open('a') as file, contextlib.closing(board):

    def write(step: int, values: dict[str, float]) -> None:
      file.write(json.dumps({'step': step, **values}) + '\n')
      file.flush()
      for name, value in values.items():
        board.add_scalar(name, value, step)

    yield write


def _logged(path: pathlib.Path, last: int) -> list[str]:
  """The lines of a log up to a step."""
  kept = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      if json.loads(line)['step'] <= last:
        kept.append(line + '\n')
    except json.JSONDecodeError:
      break  # cut off when an earlier try was killed
  return kept
