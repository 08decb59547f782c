"""Runs all experiments that need an accelerator within a given time.

  python -m experiments.accelerator [--minutes=8] [--output=FOLDER]
    [--shared=../shared] [--parts=machine,parity,times,torch,training]
    [--train=CONFIG:VARIANTS ... [--init=DIR ...]] [--set data.root=FOLDER ...]
    [--batch=N] [--workers=N] [--tiny]

The parts run in this order. Each has a fraction of the time and ends with the
measurement during which its time runs out:

- `machine`: versions, device, missing dependencies of the project.
- `parity`: compares all four systems with the published code's numbers, with
  the cases of `experiments.parity` and the reference arrays of `--shared`.
- `times`: forward passes, training steps and sampling of all systems in float32
  (`highest`), TF32 and bfloat16. Weights are random, routes are given.
- `torch`: the same layers in PyTorch, if installed: `pytorch.py`, in both
  memory formats; bfloat16 by autocast.
- `training`: each `--train` starts from the weights of the corresponding
  `--init` and gets an equal fraction of the remaining time. The batch size is
  doubled, from the configuration's own, until memory is exhausted or clips per
  second grow by less than a tenth; the fastest one is used. A trial with that
  batch and real data measures a step and the fraction of it spent waiting for
  data. The number of steps follows from that. If they take longer, the run is
  stopped as by SIGTERM and exported nevertheless.

Every result is printed when it is measured, and FOLDER/accelerator.json is
rewritten. Exported weights go to FOLDER/NAME. Failures are recorded with their
traceback; the other parts continue, and the exit status is 1. `--tiny` runs
everything with small shapes, in bfloat16 only and with one batch, in about a
minute on a CPU.
"""

import argparse
import ast
import concurrent.futures
import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]

# By when a part is to end, as a share of the time.
UNTIL = {
  'machine': 0.05,
  'parity': 0.3,
  'times': 0.6,
  'torch': 0.7,
  'training': 1.0,
}
# Kept of it for the last checkpoint and the export of a run, in seconds.
RESERVE = 15.0

# Of a row in the file, not printed.
HIDDEN = ('errors', 'traceback', 'log')

PARITY = ('ebme', 'simvp', 'rvd', 'dmvfn')

# name -> precision of matrix products, type of what the models compute in.
PRECISIONS = {
  'float32': ('highest', 'float32'),
  'tf32': ('tensorfloat32', 'float32'),
  'bfloat16': ('tensorfloat32', 'bfloat16'),
}


LAYOUTS = ('channels_last', 'contiguous_format')  # of PyTorch


class Shapes(NamedTuple):
  """What is measured at which size; the published models' by default."""

  dmvfn: dict = {}  # settings of a model
  dmvfn_sizes: tuple = ((256, 832), (720, 1280))
  dmvfn_blocks: tuple = (1, 3, 5, 9)
  dmvfn_training: tuple = (16, 224)  # clips, height and width
  simvp: dict = {}
  simvp_size: int = 64
  simvp_batches: tuple = (1, 16)  # the last one for training, too
  rvd: dict = {'dim': 48, 'mults': (1, 2, 4, 8), 'mean_mults': (1, 2, 2, 4)}
  rvd_size: int = 64
  rvd_sampling: tuple = (50, 16, 20)  # clips, frames, steps
  rvd_training: int = 8
  apr_vfi: dict = {}
  apr_vfi_size: tuple = (1080, 2048)
  apr_vfi_flow: tuple = (1088, 2048)
  apr_vfi_training: tuple = (8, 256)


TINY = Shapes(
  dmvfn={'scales': (2, 1), 'widths': (8, 8)},
  dmvfn_sizes=((32, 48),),
  dmvfn_blocks=(1, 2),
  dmvfn_training=(1, 48),
  simvp={'hid_s': 4, 'hid_t': 8, 'n_s': 2, 'n_t': 2},
  simvp_size=16,
  simvp_batches=(1, 2),
  rvd={'dim': 8, 'mults': (1, 2), 'mean_mults': (1, 2)},
  rvd_size=16,
  rvd_sampling=(2, 2, 2),
  rvd_training=2,
  apr_vfi={
    'patch': 16,
    'widths': (8, 8),
    'depths': (1, 1),
    'keep_ratios': (0.5,),
    'features': 8,
    'context_channels': 4,
    'context_hidden': 8,
    'levels': 1,
  },
  apr_vfi_size=(32, 48),
  apr_vfi_flow=(64, 64),
  apr_vfi_training=(2, 32),
)


class Report:
  """What is known so far, printed and written whenever something is added.

  Attributes:
    content: {'parts': {part: rows}, ...}.
    failed: whether anything went wrong.
  """

  def __init__(self, folder: pathlib.Path, settings: dict):
    folder.mkdir(parents=True, exist_ok=True)
    self._path = folder / 'accelerator.json'
    self._start = time.monotonic()
    self.content = {'settings': settings, 'seconds': 0.0, 'parts': {}}
    self.failed = False

  def add(self, part: str, row: dict) -> None:
    """Adds a row to a part."""
    self.content['parts'].setdefault(part, []).append(row)
    self.failed |= 'error' in row or bool(row.get('too_far'))
    shown = {k: v for k, v in row.items() if k not in HIDDEN}
    print(f'{self.seconds():6.1f} s  {part}: {_line(shown)}', flush=True)
    self.save()

  def seconds(self) -> float:
    """Since the beginning."""
    return time.monotonic() - self._start

  def save(self) -> None:
    """Writes the file anew, whole or not at all."""
    self.content['seconds'] = self.seconds()
    partial = self._path.with_suffix('.partial')
    partial.write_text(json.dumps(self.content, indent=1, default=str))
    partial.replace(self._path)


def _line(row: dict) -> str:
  def text(value):
    return f'{value:.4g}' if isinstance(value, float) else str(value)

  return ', '.join(f'{key} {text(value)}' for key, value in row.items())


class Late(Exception):
  """Something was not begun, for lack of time."""


def failure(error: BaseException) -> dict:
  """How an error is recorded; being late is none."""
  if isinstance(error, Late):
    return {'skipped': str(error)}
  return {
    'error': f'{type(error).__name__}: {error}'[:500],
    'traceback': ''.join(traceback.format_exception(error))[-4000:],
  }


# --------------------------------------------------------------------- machine


def machine(options, left) -> Iterator[dict]:
  """Versions, device, missing dependencies."""
  del options, left
  names = ('jax', 'jaxlib', 'flax', 'optax', 'grain', 'numpy', 'torch')
  found = {name: _version(name) for name in names}
  yield {
    'python': platform.python_version(),
    'cpus': os.cpu_count(),
    **{name: version for name, version in found.items() if version},
  }
  yield {'missing': missing() or 'nothing'}
  import jax

  device = jax.devices()[0]
  memory = device.memory_stats() or {}
  yield {
    'backend': jax.default_backend(),
    'device': device.device_kind,
    'devices': jax.device_count(),
    'gigabytes': memory.get('bytes_limit', 0) / 1e9,
  }


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def missing() -> list[str]:
  """The project's dependencies that are not installed, or too old."""
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  found = []
  for requirement in project['dependencies']:
    name, _, wanted = requirement.partition('>=')
    version = _version(name)
    if version is None:
      found.append(requirement)
    elif _numbers(version) < _numbers(wanted):
      found.append(f'{requirement} (is {version})')
  return found


def _numbers(version: str) -> list[int]:
  return [int(n) for n in re.findall(r'\d+', version)[:3]]


# ---------------------------------------------------------------------- parity


def parity(options, left) -> Iterator[dict]:
  """Arrays that are too far from the published code's, by system and case."""
  if not options.shared:
    yield {'skipped': 'no --shared'}
    return
  import jax

  before = jax.config.jax_default_matmul_precision
  jax.config.update('jax_default_matmul_precision', 'highest')
  try:
    tables, failures = _parity_tables(options)
    yield from failures
    for (system, title), errors in concurrently(tables, left):
      yield {'system': system, 'case': title} | _verdict(errors)
  finally:
    jax.config.update('jax_default_matmul_precision', before)


def _parity_tables(options):
  """{(system, title): function}, and what could not be prepared."""
  from experiments import parity

  tables, failures = {}, []
  for system in PARITY:
    try:
      found = parity.cases(options.shared, [system])
    except Exception as error:  # one system's arrays are missing
      failures.append({'system': system} | failure(error))
      continue
    for case in found[: 1 if options.tiny else None]:
      tables[system, case.name] = functools.partial(_errors, case)
  return tables, failures


def _errors(case) -> dict:
  """{array: (error, tolerance)}."""
  return {row.array: (row.error, row.tolerance) for row in case.rows()}


def _verdict(errors: dict | Exception) -> dict:
  """Of {array: (error, tolerance)}, or of what kept us from it."""
  if isinstance(errors, Exception):
    return failure(errors)
  shares = {name: error / limit for name, (error, limit) in errors.items()}
  return {
    'arrays': len(errors),
    'worst_share': max(shares.values()),
    'too_far': [name for name, share in shares.items() if not share <= 1],
    'errors': errors,
  }


def concurrently(calls: dict, left: Callable[[], float]):
  """Yields (name, result or Exception) of functions, most of which compile.

  The first to end comes first. After the time those that have begun are waited
  for; the others are not begun.
  """
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:

    def attempt(function):
      if left() <= 0:
        return Late('no time was left')
      try:
        return function()
      except Exception as error:
        return error

    futures = {pool.submit(attempt, f): name for name, f in calls.items()}
    for future in concurrent.futures.as_completed(futures):
      yield futures[future], future.result()


# ----------------------------------------------------------------------- times


class Case(NamedTuple):
  """A program and the arguments to time it with.

  Attributes:
    program: of `jax.jit`.
    calls: {name: arguments}, all of the same shapes.
  """

  program: Any
  calls: dict[str, tuple]


def times(options, left) -> Iterator[dict]:
  """Milliseconds of our systems; each is compiled as a whole, then timed."""
  shapes = TINY if options.tiny else Shapes()
  for system, cases_of in CASES.items():
    if left() <= 0:
      yield {'system': system, 'skipped': 'no time was left'}
      continue
    cases = {}
    for precision in precisions(options):
      try:
        for i, case in enumerate(cases_of(shapes, PRECISIONS[precision][1])):
          cases[precision, i] = case
      except Exception as error:
        yield {'system': system, 'precision': precision} | failure(error)
    programs = {
      key: functools.partial(_compiled, case, PRECISIONS[key[0]][0])
      for key, case in cases.items()
    }
    made = dict(concurrently(programs, left))  # none while we measure
    for key, case in cases.items():
      facts = {'system': system, 'precision': key[0]}
      for name, args in case.calls.items():
        yield facts | {'name': name} | _timed(made[key], args, options)


def precisions(options) -> list[str]:
  """Those to measure; one is enough to see that everything runs."""
  return ['bfloat16'] if options.tiny else list(PRECISIONS)


def _timed(program, args, options) -> dict:
  if isinstance(program, Exception):
    return failure(program)
  import jax

  try:
    return milliseconds(
      lambda: jax.block_until_ready(program(*args)), options.tiny
    )
  except Exception as error:
    return failure(error)


def _compiled(case: Case, precision: str):
  import jax

  with jax.default_matmul_precision(precision):
    return case.program.lower(*next(iter(case.calls.values()))).compile()


def milliseconds(call, tiny, repeats=20, seconds=1.0) -> dict:
  """Least and median of at most so many calls and, but for three, seconds."""
  call()
  taken, begin = [], time.perf_counter()
  while len(taken) < (2 if tiny else repeats):
    start = time.perf_counter()
    if len(taken) >= 3 and start - begin > seconds:
      break
    call()
    taken.append(1e3 * (time.perf_counter() - start))
  return {
    'ms': min(taken),
    'median_ms': float(np.median(taken)),
    'calls': len(taken),
  }


def filled(shapes, seed=0, scale=0.02):
  """Normal numbers for a tree of shapes, small as weights are."""
  import jax
  import jax.numpy as jnp

  rng = np.random.default_rng(seed)

  def leaf(shape):
    values = scale * rng.standard_normal(shape.shape, np.float32)
    return jnp.asarray(values, shape.dtype)

  return jax.tree.map(leaf, shapes)


def _clip(*shape):
  import jax.numpy as jnp

  rng = np.random.default_rng(1)
  return jnp.asarray(rng.random(shape, np.float32))


def variables_of(system, clip):
  """Random variables of a system for a clip of this shape."""
  import jax
  import jax.numpy as jnp

  shapes = dict(jax.eval_shape(system.init, jax.random.key(0), clip))
  variables = {'params': filled(shapes.pop('params'))}
  # Statistics, of which some must be positive.
  ones = functools.partial(jax.tree.map, lambda s: jnp.ones(s.shape, s.dtype))
  return variables | {name: ones(tree) for name, tree in shapes.items()}


def training_case(system, name, video, flow=None) -> Case:
  """A training step with AdamW; `flow` for systems with `flow_pairs`."""
  import jax
  import jax.numpy as jnp
  import optax

  from vidpred_jax import runtime
  from vidpred_jax.train import update

  variables = variables_of(system, video)
  params = variables.pop('params')
  rule = optax.adamw(1e-4)
  state = update.TrainState(
    jnp.int32(0), params, variables, rule.init(params), {}
  )
  step = runtime.jit(
    update.make_train_step(system, rule), cpu_options=system.cpu_options
  )
  batch = {'video': video} | ({} if flow is None else {'flow': flow})
  return Case(step, {name: (state, batch, jax.random.key(0))})


def predicting(system):
  """A system's `predict`, to be compiled."""
  from vidpred_jax import runtime

  return runtime.jit(system.predict, cpu_options=system.cpu_options)


def dmvfn_cases(shapes, dtype) -> list[Case]:
  import jax.numpy as jnp

  import vidpred_jax as vp
  from experiments import benchmark

  settings = {**shapes.dmvfn, 'dtype': dtype}
  system = vp.make('dmvfn', frames=vp.Frames((0, 1), (2,)), **settings)
  batch, side = shapes.dmvfn_training
  clip = _clip(batch, 3, side, side, 3)
  variables = variables_of(system, clip)
  layers = {**settings, 'dtype': jnp.dtype(dtype)}
  total = len(shapes.dmvfn.get('scales', range(9)))
  cases = []
  for height, width in shapes.dmvfn_sizes:
    pair = _clip(1, 2, *benchmark.padded((height, width)), 3)
    calls = {
      f'{height}x{width}, {count} blocks': (
        variables,
        pair,
        jnp.asarray(np.arange(total)[None] < count, jnp.float32),
      )
      for count in shapes.dmvfn_blocks
    }
    cases.append(Case(benchmark.forward('fast', **layers), calls))
  name = f'training step, {batch} of {side}x{side}'
  return [*cases, training_case(system, name, clip)]


def simvp_cases(shapes, dtype) -> list[Case]:
  import jax

  import vidpred_jax as vp

  frames = vp.Frames(tuple(range(10)), tuple(range(10, 20)))
  system = vp.make('simvp', frames=frames, dtype=dtype, **shapes.simvp)
  *_, batch = shapes.simvp_batches
  clip = _clip(batch, 20, shapes.simvp_size, shapes.simvp_size, 1)
  variables = variables_of(system, clip)
  cases = [
    Case(
      predicting(system),
      {f'batch {n}': (variables, clip[:n, :10], jax.random.key(0))},
    )
    for n in shapes.simvp_batches
  ]
  name = f'training step, batch {batch}'
  return [*cases, training_case(system, name, clip)]


def rvd_cases(shapes, dtype) -> list[Case]:
  import jax

  import vidpred_jax as vp

  clips, asked, steps = shapes.rvd_sampling
  make = functools.partial(vp.make, 'rvd', channels=3, dtype=dtype)
  size = shapes.rvd_size
  seen = vp.Frames(tuple(range(4)), tuple(range(4, 4 + asked)))
  sampler = make(
    frames=seen, sampler='ddim', sampling_steps=steps, **shapes.rvd
  )
  clip = _clip(clips, seen.length, size, size, 3)
  variables = variables_of(sampler, clip)
  name = f'{asked} frames of {clips} clips, {steps} steps'
  args = variables, clip[:, :4], jax.random.key(0)
  learner = make(frames=vp.Frames((0, 1), tuple(range(2, 8))), **shapes.rvd)
  batch = _clip(shapes.rvd_training, 8, size, size, 3)
  return [
    *(denoising_case(shapes, dtype, variables, n) for n in (1, clips)),
    Case(predicting(sampler), {name: args}),
    training_case(learner, f'training step, batch {len(batch)}', batch),
  ]


def denoising_case(shapes, dtype, variables, batch) -> Case:
  """A step of RVD's denoiser; what is computed once for a frame is given."""
  import jax
  import jax.numpy as jnp

  from vidpred_jax import runtime
  from vidpred_jax.models import rvd

  size = shapes.rvd_size
  model = rvd.RVD(channels=3, dtype=jnp.dtype(dtype), **shapes.rvd)

  def apply(method, *args):
    return model.apply(variables, *args, method=method)

  video = jax.ShapeDtypeStruct((batch, 1, size, size, 3), jnp.float32)
  state = jax.eval_shape(lambda: model.initial_state(batch, size, size))
  contexts, *_ = jax.eval_shape(
    functools.partial(apply, 'observe'), video, state
  )
  contexts = [
    jax.ShapeDtypeStruct((c.shape[0], *c.shape[2:]), c.dtype) for c in contexts
  ]
  prepared = filled(
    jax.eval_shape(functools.partial(apply, 'prepare'), contexts), scale=1
  )
  step = runtime.jit(functools.partial(model.apply, method='denoise'))
  noisy = _clip(batch, size, size, 3)
  name = f'denoising step, batch {batch}'
  return Case(step, {name: (variables, noisy, jnp.int32(800), prepared)})


def apr_vfi_cases(shapes, dtype) -> list[Case]:
  import jax

  import vidpred_jax as vp

  frames = vp.Frames((0, 2), (1,))
  make = functools.partial(vp.make, 'apr_vfi', frames=frames, dtype=dtype)
  routed = make(inference_routing='ratios', **shapes.apr_vfi)
  whole = make(synthesis='whole', **shapes.apr_vfi)
  batch, side = shapes.apr_vfi_training
  clip = _clip(batch, 3, side, side, 3)
  variables = variables_of(routed, clip)
  size = 'x'.join(map(str, shapes.apr_vfi_size))
  pair = _clip(1, 2, *shapes.apr_vfi_size, 3)
  cases = [
    Case(
      predicting(system),
      {f'{size}, {name}': (variables, pair, jax.random.key(0))},
    )
    for name, system in (('whole', whole), ('routed', routed))
  ]
  name = f'training step, {batch} of {side}x{side}'
  cases.append(training_case(routed, name, clip))
  return [*cases, flow_case(shapes, variables)]


def flow_case(shapes, variables) -> Case:
  """BiFlowNet, always in float32, with as many levels as PyTorch's."""
  from vidpred_jax import runtime
  from vidpred_jax.models import ebme

  model, levels = ebme.BiFlowNet(), shapes.apr_vfi.get('levels', 3)
  run = runtime.jit(functools.partial(model.apply, levels=levels))
  pair = _clip(1, 2, *shapes.apr_vfi_flow, 3)
  args = {'params': variables['params']['flow']}, pair
  return Case(run, {_flow_name(shapes): args})


def _flow_name(shapes):
  levels = shapes.apr_vfi.get('levels', 3)
  return f'flow {shapes.apr_vfi_flow[0]}x{shapes.apr_vfi_flow[1]}, {levels}'


CASES = {
  'dmvfn': dmvfn_cases,
  'simvp': simvp_cases,
  'rvd': rvd_cases,
  'apr_vfi': apr_vfi_cases,
}


# ----------------------------------------------------------------------- torch


def torch_times(options, left) -> Iterator[dict]:
  """The same in PyTorch, and ours over the better of its layouts."""
  if importlib.util.find_spec('torch') is None:
    yield {'skipped': 'PyTorch is not installed'}
    return
  import torch

  shapes = TINY if options.tiny else Shapes()
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.backends.cudnn.benchmark = True
  for precision in precisions(options):
    _set_tf32(torch, precision == 'tf32')
    for layout in LAYOUTS[: 1 if options.tiny else None]:
      facts = {'precision': precision, 'layout': layout, 'device': device}
      with torch.device(device):
        cases = torch_cases(shapes, getattr(torch, layout))
        for system, name, trains, call in cases:
          if left() <= 0:
            yield facts | {'skipped': 'no time was left'}
            return
          row = facts | {'system': system, 'name': name}
          try:
            run = _torch_call(call, trains, device, precision)
            yield row | milliseconds(run, options.tiny)
          except Exception as error:
            yield row | failure(error)
  if device == 'cuda':
    torch.cuda.empty_cache()


def _set_tf32(torch, allowed: bool) -> None:
  torch.backends.cuda.matmul.allow_tf32 = allowed
  torch.backends.cudnn.allow_tf32 = allowed


def _torch_call(call, trains, device, precision):
  """A call in this precision that returns when the device is done."""
  import torch

  def run():
    with contextlib.ExitStack() as stack:
      if not trains:
        stack.enter_context(torch.inference_mode())
      if precision == 'bfloat16':
        stack.enter_context(torch.autocast(device, torch.bfloat16))
      call()
    if device == 'cuda':
      torch.cuda.synchronize()

  return run


def torch_cases(shapes, layout):
  """Yields (system, name, whether it trains, call); names as in `times`."""
  import torch

  from experiments import pytorch

  def rand(*shape):
    x = torch.rand(*shape)
    return x.to(memory_format=layout) if x.ndim == 4 else x

  def placed(model):
    return model.to(memory_format=layout)

  model = placed(pytorch.DMVFN())
  for height, width in shapes.dmvfn_sizes:
    pair = rand(1, 6, *(-(-n // 16) * 16 for n in (height, width)))
    for count in shapes.dmvfn_blocks:
      name = f'{height}x{width}, {count} blocks'
      yield 'dmvfn', name, False, functools.partial(model, pair, count)
  batch, side = shapes.dmvfn_training
  pair = rand(batch, 6, side, side)
  step = pytorch.optimised(model, model.loss)
  call = functools.partial(step, pair, pair[:, :3])
  yield 'dmvfn', f'training step, {batch} of {side}x{side}', True, call

  model = placed(pytorch.SimVP())
  size = shapes.simvp_size
  for batch in shapes.simvp_batches:
    video = rand(batch, 10, 1, size, size)
    model.eval()
    yield 'simvp', f'batch {batch}', False, functools.partial(model, video)
  model.train()
  step = pytorch.optimised(model, lambda x: (model(x) - x).square().mean())
  call = functools.partial(step, video)
  yield 'simvp', f'training step, batch {batch}', True, call

  dim, mults = pytorch.WIDTHS_OF[64]
  model, size = placed(pytorch.Denoiser(dim, mults)), shapes.rvd_size
  for batch in (1, shapes.rvd_sampling[0]):
    contexts = [
      rand(batch, dim * m, max(size >> i, 1), max(size >> i, 1))
      for i, m in enumerate(mults)
    ]
    noisy, n = rand(batch, 3, size, size), torch.full((batch,), 800)
    call = functools.partial(model, noisy, n, contexts)
    yield 'rvd', f'denoising step, batch {batch}', False, call

  model = placed(pytorch.BiFlowNet())
  frames = rand(1, 3, *shapes.apr_vfi_flow), rand(1, 3, *shapes.apr_vfi_flow)
  levels = shapes.apr_vfi.get('levels', 3)

  def flow():  # in float32, as ours: bfloat16 has no place for 2048 columns
    with torch.autocast(frames[0].device.type, enabled=False):
      return model(*frames, levels)

  yield 'apr_vfi', _flow_name(shapes), False, flow


def ratios(parts: dict) -> list[dict]:
  """Ours over the better layout of PyTorch, where both were timed."""

  def best(rows):
    found = {}
    for row in rows:
      if 'ms' in row:
        key = row['system'], row['name'], row['precision']
        found[key] = min(row['ms'], found.get(key, row['ms']))
    return found

  ours, theirs = best(parts.get('times', [])), best(parts.get('torch', []))
  return [
    {
      'system': key[0],
      'name': key[1],
      'precision': key[2],
      'ours_ms': ours[key],
      'torch_ms': theirs[key],
      'ratio': ours[key] / theirs[key],
    }
    for key in ours
    if key in theirs
  ]


# -------------------------------------------------------------------- training


def training(options, left) -> Iterator[dict]:
  """Runs from given weights to exported ones."""
  named = options.train
  if not named and not options.tiny:
    yield {'skipped': 'no --train'}
  elif not named:
    named = [f'{ROOT / "configs/dmvfn.py"}:smoke']
  for i, name in enumerate(named):
    share = left() / (len(named) - i)
    end = time.monotonic() + share
    init = options.init[i] if i < len(options.init) else ''
    try:
      yield from one_run(
        options, name, init, lambda end=end: end - time.monotonic()
      )
    except Exception as error:
      yield {'config': name} | failure(error)


def one_run(options, name, init, left) -> Iterator[dict]:
  """Finds the batch, tries it with data, trains, exports."""
  config = configuration(options, name, init)
  facts = {'config': name, 'init': init}
  if options.batch:
    config.batch_size = options.batch
  program, rows = fitting(config, options, left)
  yield from (facts | row for row in rows)
  row = fed(config, program, min(20.0, left() / 8), options.tiny)
  yield facts | row
  compilation = next(r['compile_s'] for r in rows if r['taken'])
  available = left() - RESERVE - 1.2 * compilation
  steps = int(available / row['step_s'])
  config.steps = min(steps, 6) if options.tiny else steps
  if config.steps < 1:
    raise TimeoutError(f'{left():.0f} s are left, too few for a step.')
  config.schedule.warmup = min(config.schedule.warmup, config.steps // 10)
  config.log_every = max(1, config.steps // 20)
  config.checkpoint_every = config.steps
  yield facts | trained(config, exported_to(options, name), left)


def exported_to(options, name) -> pathlib.Path:
  """A folder of its own under the output."""
  stem = re.sub(r'\W+', '-', pathlib.Path(name).name).strip('-')
  target, number = options.output / stem, 1
  while target.exists():
    number += 1
    target = options.output / f'{stem}-{number}'
  return target


def configuration(options, name, init):
  """The configuration FILE:VARIANTS with what was set."""
  path, _, variants = name.partition(':')
  spec = importlib.util.spec_from_file_location('configuration', path)
  if spec is None or not pathlib.Path(path).exists():
    raise FileNotFoundError(f'There is no configuration {path}.')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(variants)
  config.workers = options.workers
  config.eval.every, config.eval.best, config.init_from = 0, '', init
  for setting in options.set:
    key, _, text = setting.partition('=')
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text
    config.update_from_flattened_dict({key: value})
  return config


def system_of(config):
  """The system that a run trains."""
  import vidpred_jax as vp

  frames = vp.Frames(**config.frames.to_dict())
  return vp.make(config.system, frames=frames, **config.model.to_dict())


def step_of(config, arrays):
  """The Case of a run's training step, with random weights."""
  name = f'batch {len(arrays["video"])}'
  return training_case(system_of(config), name, **arrays)


def batches_of(config, batch, workers=0):
  """The run's own batches: `video`, and `flow` where its system takes one."""
  from vidpred_jax import config as configuration
  from vidpred_jax import data

  system = system_of(config)
  settings = configuration.given(config.data) | config.augment.to_dict()
  return data.train_iterator(
    settings.pop('source'),
    num_frames=system.frames.length,
    batch_size=batch,
    seed=config.seed,
    workers=workers,
    flow_pairs=system.flow_pairs,
    **settings,
  )


def fitting(config, options, left):
  """Sets the batch that trains most clips a second.

  Returns:
    The step compiled for it, with its arguments, and rows of all that were
    tried.
  """
  count = 1 if options.batch or options.tiny else 7
  batches = [config.batch_size * 2**k for k in range(count)]
  half = left() / 2
  with batches_of(config, 1) as loaded:
    clip = next(loaded)
  wanted = ('video', 'flow') if system_of(config).flow_pairs else ('video',)
  clip = {name: clip[name] for name in wanted}
  compiled = {
    batch: functools.partial(_step_compiled, config, clip, batch)
    for batch in batches
  }
  rows, best = [], None
  made = dict(concurrently(compiled, lambda: left() - half))
  for batch in batches:
    row = {'batch': batch, 'taken': False}
    rows.append(row)
    try:
      if isinstance(made[batch], Exception):
        raise made[batch]
      program, args, row['compile_s'] = made[batch]
      row['step_ms'] = _step_ms(program, args)
    except Exception as error:
      if best is None:
        raise
      row['stopped'] = f'{type(error).__name__}: {error}'[:200]
      break
    row['clips_per_s'] = 1e3 * batch / row['step_ms']
    if best and row['clips_per_s'] < 1.1 * best[0]['clips_per_s']:
      break
    best = row, program, args
  best[0]['taken'] = True
  config.batch_size = best[0]['batch']
  return best[1:], rows


def _step_compiled(config, clip, batch):
  start = time.perf_counter()
  arrays = {k: np.repeat(v, batch, axis=0) for k, v in clip.items()}
  case = step_of(config, arrays)
  (args,) = case.calls.values()
  program = case.program.lower(*args).compile()
  return program, args, time.perf_counter() - start


def _step_ms(program, args) -> float:
  import jax

  return milliseconds(
    lambda: jax.block_until_ready(program(*args)), False, 5, 1.0
  )['ms']


def fed(config, program, seconds, tiny) -> dict:
  """Trains on real data for a while, to see what a step takes."""
  import jax

  step, (state, compiled_for, key) = program
  waited, count, values = 0.0, 0, None
  with batches_of(config, config.batch_size, config.workers) as batches:
    next(batches)  # processes start
    begin = time.perf_counter()
    while count < 3 or (not tiny and time.perf_counter() - begin < seconds):
      start = time.perf_counter()
      arrays = next(batches)
      batch = {name: arrays[name] for name in compiled_for}
      waited += time.perf_counter() - start
      before, (state, values) = values, step(state, batch, key)
      jax.block_until_ready(before)  # a step behind, as in training
      count += 1
    jax.block_until_ready(values)
    taken = time.perf_counter() - begin
  return {
    'batch': config.batch_size,
    'workers': config.workers,
    'trial_steps': count,
    'step_s': taken / count,
    'waiting_for_data': waited / taken,
  }


def trained(config, target, left) -> dict:
  """Trains in a folder of its own and exports to `target`."""
  from vidpred_jax.train import loop

  start = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / 'run'
    with stopped_after(left() - RESERVE):
      ended = loop.run(config, str(workdir))
    if ended:
      shutil.copytree(workdir / 'export', target)
    else:
      export(config, workdir, target)
    log = (workdir / 'metrics.jsonl').read_text().splitlines()
  log = [json.loads(line) for line in log]
  return {
    'steps': log[-1]['step'],
    'of': config.steps,
    'batch': config.batch_size,
    'seconds': time.perf_counter() - start,
    'loss': log[-1]['loss'],
    'export': str(target),
    'log': log,
  }


def export(config, workdir, target) -> None:
  """Exports the last checkpoint of a run that was stopped."""
  import vidpred_jax as vp
  from vidpred_jax import checkpoint

  _, variables = vp.load(str(workdir))
  checkpoint.save_system(
    target,
    system=config.system,
    settings=config.model.to_dict(),
    frames=vp.Frames(**config.eval.frames.to_dict()),
    variables=variables,
    data=checkpoint.read_data_spec(workdir),
    dtype=config.export_dtype,
  )


@contextlib.contextmanager
def stopped_after(seconds: float):
  """Sends this process SIGTERM after the time, which ends a run in order.

  Before the run listens, and after it, the signal does nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    raise RuntimeError('Signals only reach the main thread.')
  before = signal.signal(signal.SIGTERM, lambda *_: None)
  alarm = threading.Timer(
    max(seconds, 0), os.kill, (os.getpid(), signal.SIGTERM)
  )
  alarm.daemon = True
  alarm.start()
  try:
    yield
  finally:
    alarm.cancel()
    signal.signal(signal.SIGTERM, before)


# ------------------------------------------------------------------------ main

PARTS = {
  'machine': machine,
  'parity': parity,
  'times': times,
  'torch': torch_times,
  'training': training,
}


def run_part(report: Report, part: str, options) -> None:
  """All rows of a part; an error ends the part, not the others."""
  end = 60 * options.minutes * UNTIL[part]
  if part == options.parts[-1]:
    end = 60 * options.minutes
  try:
    for row in PARTS[part](options, lambda: end - report.seconds()):
      report.add(part, row)
  except Exception as error:
    report.add(part, failure(error))


def parse(arguments=None):
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  several = {'action': 'append', 'default': []}
  parser.add_argument('--minutes', type=float, default=8)
  parser.add_argument(
    '--output', type=pathlib.Path, default=os.environ.get('OUT')
  )
  parser.add_argument('--shared', default='', help='with reference arrays')
  parser.add_argument('--parts', default=','.join(PARTS))
  parser.add_argument('--train', help='CONFIG:VARIANTS', **several)
  parser.add_argument('--init', help='exported weights', **several)
  parser.add_argument('--set', help='NAME=VALUE of the configs', **several)
  parser.add_argument('--batch', type=int, default=0, help='clips; 0: found')
  parser.add_argument('--workers', type=int, help='processes that load data')
  parser.add_argument('--tiny', action='store_true')
  options = parser.parse_args(arguments)
  options.parts = options.parts.split(',')
  if unknown := set(options.parts) - set(PARTS):
    parser.error(f'no part {", ".join(unknown)}; there are {", ".join(PARTS)}')
  if options.output is None:
    parser.error('expected --output=FOLDER')
  if len(options.init) > len(options.train):
    parser.error('more --init than --train')
  if options.minutes <= 0 or options.batch < 0:
    parser.error('--minutes must be positive, --batch not negative')
  if options.workers is None:
    options.workers = 0 if options.tiny else max(1, (os.cpu_count() or 2) - 2)
  options.output = pathlib.Path(options.output)
  return options


def main(arguments=None) -> int:
  options = parse(arguments)
  # PyTorch needs some of the device's memory, too; batches are tried until it
  # is full.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.9')
  if options.tiny:  # small programs are compiled sooner than run
    os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
  report = Report(options.output, vars(options))
  with contextlib.suppress(ImportError):
    from vidpred_jax import runtime

    runtime.setup()
  for part in PARTS:
    if part in options.parts:
      run_part(report, part, options)
      # Where ours are tiny, PyTorch's are not.
      if not options.tiny:
        report.content['ratios'] = ratios(report.content['parts'])
      report.save()
  for row in report.content.get('ratios', []):
    print(_line(row))
  print(f'{report.seconds():.0f} s; {"failed" if report.failed else "fine"}')
  return int(report.failed)


if __name__ == '__main__':
  sys.exit(main())
