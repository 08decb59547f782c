"""A run's folder: whose it is, what is logged in it, when to stop.

`config.json`, `checkpoints/`, `metrics.jsonl` and TensorBoard events belong to
one configuration; a folder that holds another run is never written to.
"""

import json
import pathlib
import signal

import jax
import tensorboardX
from jax.experimental import multihost_utils

from vidpred_jax import checkpoint

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
    checkpoint.write_text(path, json.dumps(wanted, indent=2) + '\n')
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


class Log:
  """`metrics.jsonl` and TensorBoard events, by process 0."""

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / 'metrics.jsonl'
    self._workdir = str(workdir)
    self._writes = jax.process_index() == 0

  def __enter__(self):
    return self

  def start(self, step: int) -> None:
    """Drops what an earlier try logged after `step`."""
    if not self._writes:
      return
    kept = []
    if self._path.exists():
      for line in self._path.read_text().splitlines():
        try:
          if json.loads(line)['step'] <= step:
            kept.append(line + '\n')
        except json.JSONDecodeError:
          break  # cut off when an earlier try was killed
    checkpoint.write_text(self._path, ''.join(kept))
    self._file = self._path.open('a')
    self._board = tensorboardX.SummaryWriter(
      self._workdir, purge_step=step + 1 if step else None
    )

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes one line, and one TensorBoard scalar per value."""
    if not self._writes:
      return
    self._file.write(json.dumps({'step': step, **values}) + '\n')
    self._file.flush()
    for name, value in values.items():
      self._board.add_scalar(name, value, step)

  def __exit__(self, *_):
    if self._writes and hasattr(self, '_file'):
      self._file.close()
      self._board.close()
