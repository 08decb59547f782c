"""A process for each library: times one step, and says where its time goes."""

import glob
import gzip
import json
import multiprocessing
import os
import tempfile
import time
from typing import Any, NamedTuple

from experiments.pairs import kinds

LAYOUTS = {'channels last': 'channels_last', 'default': 'contiguous_format'}
# A step is called as often as fits into so many seconds, within bounds.
_SECONDS, _LEAST, _MOST = 1.0, 3, 20


class Worker(NamedTuple):
  """A process that answers what it is asked, and waits on a pipe otherwise."""

  process: Any
  connection: Any

  def ask(self, what: str, label: str):
    """The answer; RuntimeError if the process failed."""
    try:
      self.connection.send((what, label))
      return self.connection.recv()
    except (EOFError, OSError):
      raise RuntimeError(f'the process of {self.process.name} failed') from None

  def close(self):
    """Ends the process."""
    self.connection.close()
    self.process.join()


def start(library: str, step: str, tiny: bool, *, one_core: bool = False):
  """A worker with one step of 'ours' or 'PyTorch', warm when it answers.

  Args:
    library: whose step.
    step: its name in `STEPS`.
    tiny: small shapes, each called once.
    one_core: keep the process on one core.

  Returns:
    The worker.
  """
  context = multiprocessing.get_context('spawn')
  here, there = context.Pipe()
  process = context.Process(
    target=_serve,
    args=(there, library, step, tiny, one_core),
    name=library,
    daemon=True,
  )
  process.start()
  there.close()
  return Worker(process, here)


def _serve(connection, library, step, tiny, one_core):
  """Answers until the pipe is closed."""
  cores = os.cpu_count()
  if hasattr(os, 'sched_setaffinity'):
    cores = len(os.sched_getaffinity(0))
    if one_core:
      os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  answers = _OPENED[library](step, tiny, cores)
  while True:
    try:
      what, label = connection.recv()
    except EOFError:
      return
    connection.send(answers[what](label))


def _timed(call, tiny):
  """{least wall-clock and processor milliseconds} of some calls."""
  times, begun = [], time.perf_counter()
  least, most = (1, 1) if tiny else (_LEAST, _MOST)
  while len(times) < least or (
    len(times) < most and time.perf_counter() - begun < _SECONDS
  ):
    wall, used = time.perf_counter(), time.process_time()
    call()
    times.append((time.perf_counter() - wall, time.process_time() - used))
  wall, used = (1e3 * min(column) for column in zip(*times))
  return {'ms': wall, 'cpu_ms': used}


def _count(call):
  """How many calls to profile: up to three in two seconds. Calls once."""
  begun = time.perf_counter()
  call()
  return max(1, min(3, int(2 / (time.perf_counter() - begun))))


def _row(total, times):
  """A row of the profile.

  Args:
    total: milliseconds of a call.
    times: {(kind, operation): milliseconds}.

  Returns:
    The total, the time by kind, and the ten longest operations.
  """
  row = dict.fromkeys(kinds.KINDS, 0.0)
  for (kind, _), ms in times.items():
    row[kind] += ms
  row[kinds.REST] = total - sum(row.values()) + row[kinds.REST]
  longest = sorted(times.items(), key=lambda item: -item[1])
  longest = [item for item in longest if item[0][0] != kinds.REST][:10]
  return {
    'ms': total,
    'kinds': row,
    'longest': [(kind, name, ms) for (kind, name), ms in longest],
  }


def _ours(step, tiny, cores):
  """The answers of our worker."""
  del cores
  import jax

  from experiments.benchmark import steps, timing
  from vidpred_jax import cost, runtime

  runtime.setup()
  made = steps.STEPS[step](tiny)
  product, gflop = timing.matmul(256 if tiny else 2048)
  calls = {'ours': made, 'matrix product': product}
  for call in calls.values():
    jax.block_until_ready(call())

  def timed(label):
    return _timed(lambda: jax.block_until_ready(calls[label]()), tiny)

  def profiled(label):
    del label
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it takes as long as the step
    count = _count(lambda: jax.block_until_ready(made()))
    with tempfile.TemporaryDirectory() as folder:
      with jax.profiler.trace(folder, profiler_options=options):
        begun = time.perf_counter()
        for _ in range(count):
          jax.block_until_ready(made())
        total = 1e3 * (time.perf_counter() - begun) / count
      (path,) = glob.glob(f'{folder}/**/*.trace.json.gz', recursive=True)
      with gzip.open(path) as file:
        events = json.load(file)['traceEvents']
    text = made.program.lower(*made.args).compile().as_text()
    kind_of = kinds.of_hlo(text)
    own = kinds.own_times(
      (event['name'], event['ts'], event['dur'])
      for event in events
      if 'hlo_op' in event.get('args', {})
    )
    return _row(
      total,
      {
        (kind_of.get(name, kinds.LOOPS), name): 1e-3 * us / count
        for name, us in own.items()
      },
    )

  def facts(label):
    del label
    return {
      'gmacs': made.macs() / 1e9,
      'product_gflop': gflop,
      'machine': cost.machine(),
    }

  return {'time': timed, 'profile': profiled, 'facts': facts}


def _pytorch(step, tiny, cores):
  """The answers of PyTorch's worker; a label is a layout."""
  os.environ.setdefault('KINETO_LOG_LEVEL', '99')
  import torch

  from experiments.pytorch import steps

  steps.setup()
  # As many threads on one core as on all: with one it takes other algorithms.
  torch.set_num_threads(cores)
  calls = {
    label: steps.STEPS[step](getattr(torch, layout), tiny)
    for label, layout in LAYOUTS.items()
  }
  for call in calls.values():
    call()

  def profiled(label):
    count = _count(calls[label])
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
      activities=activities, record_shapes=True
    ) as profile:
      begun = time.perf_counter()
      for _ in range(count):
        calls[label]()
      total = 1e3 * (time.perf_counter() - begun) / count
    times = {}
    for event in profile.key_averages(group_by_input_shape=True):
      shapes = [shape for shape in event.input_shapes or () if shape]
      kind = kinds.of_pytorch(event.key, shapes)
      name = f'{event.key} {shapes[:3]}'
      ms = 1e-3 * event.self_cpu_time_total / count
      times[kind, name] = times.get((kind, name), 0.0) + ms
    return _row(total, times)

  return {
    'time': lambda label: _timed(calls[label], tiny),
    'profile': profiled,
    'facts': lambda label: {'torch': torch.__version__},
  }


_OPENED = {'ours': _ours, 'PyTorch': _pytorch}
