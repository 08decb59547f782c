"""What a prediction costs: parameters, multiply-adds, memory, time.

Multiply-adds (MACs, what papers mostly mean by FLOPs) are counted on the
program itself, the jaxpr, with its dead code removed:

- `dot_general` and `conv_general_dilated`, grouped ones by their groups. Taps
  on padding count, as everywhere in the literature; taps on zeros that
  `lhs_dilation` inserts (transposed convolutions) do not.
- Every multiplication inside a `jax.named_scope` called 'bilinear': papers
  count resizing, but not warping (`grid_sample`) and pointwise functions. The
  same in one called 'depthwise': a convolution, as a sum of shifted images.
- The body of a scan as often as it runs. Of a `cond` the dearest branch, and
  of a `while` loop as many rounds as a `jax.named_scope` directly around it
  says, 'at_most_N_times'; with `run=True`, which evaluates the program on the
  arguments given, the branch taken and the rounds made.
- Of what is written once for each platform, what is for this one.

The command `python -m vidpred_jax.cost --config=FILE.py:variants` measures what
a configuration describes and prints JSON.
"""

import collections
import inspect
import itertools
import json
import os
import pathlib
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.extend import core
from jax.interpreters import partial_eval
from ml_collections import config_flags

from vidpred_jax import command, runtime

COUNTED_SCOPES = frozenset({'bilinear', 'depthwise'})

# What they compute cannot be seen here.
_OPAQUE = frozenset(
  {
    'ffi_call',
    'pallas_call',
    'pure_callback',
    'ragged_dot_general',
    'shard_map',
  }
)


def count_macs(
  fn: Callable, *args, run: bool = False
) -> collections.Counter[str]:
  """Counts the multiply-adds of a call.

  Args:
    fn: a function that JAX can trace.
    *args: its arguments: arrays, or `jax.ShapeDtypeStruct`s if not `run`.
    run: evaluate the program, so that the branches taken are counted and loops
      as often as they run; otherwise of each `cond` the dearest branch.

  Returns:
    MACs by name scope, for instance 'DMVFN/block_0/Conv_0'; see `by_part`.

  Raises:
    ValueError: if the number depends on a `while` loop that does not say how
      often it runs at most and not `run`, or the program contains calls that
      cannot be looked into.
  """
  closed = jax.make_jaxpr(fn)(*args)
  jaxpr, _ = partial_eval.dce_jaxpr(
    closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True
  )
  count = collections.Counter()
  if run:
    _run(jaxpr, closed.consts, jax.tree.leaves(args), '', count, {})
  else:
    _count(jaxpr, '', 1, count)
  return count


def by_part(
  count: collections.Counter[str], parts: Iterable[str]
) -> dict[str, int]:
  """Sums MACs over the scopes below each part of a model.

  Args:
    count: from `count_macs`.
    parts: names of submodules, for instance `variables['params']`.

  Returns:
    `{part: MACs}` for the parts that have some, then 'other' if there are.
  """
  parts = list(parts)
  sums = dict.fromkeys([*parts, 'other'], 0)
  for path, macs in count.items():
    # 'transpose(jvp(Net))/block_0.method' lies in Net and block_0.
    found = [name for name in re.findall(r'\w+', path) if name in sums]
    sums[found[0] if found else 'other'] += macs
  return {part: macs for part, macs in sums.items() if macs}


def parameters(variables: Any) -> dict[str, int]:
  """Number of parameters of each part, of the collection 'params'."""
  return {
    name: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(part))
    for name, part in variables['params'].items()
  }


# ------------------------------------------------------------------ the count


def _eqn_macs(eqn, path: str) -> int:
  """Of one primitive without jaxprs in it."""
  name = eqn.primitive.name
  if name in _OPAQUE:
    raise ValueError(f'The program calls {name}, whose cost cannot be counted.')
  out = eqn.outvars[0].aval if eqn.outvars else None
  if name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    shape = eqn.invars[0].aval.shape
    return _product(out.shape) * _product(shape[i] for i in contracted)
  if name == 'conv_general_dilated':
    return _conv_macs(eqn, out.shape)
  # Also in 'vmap(bilinear)'.
  scopes = re.findall(r'\w+', path)
  if name == 'mul' and not COUNTED_SCOPES.isdisjoint(scopes):
    return _product(out.shape)
  return 0


def _conv_macs(eqn, out) -> int:
  params = eqn.params
  _, rhs_spec, out_spec = params['dimension_numbers']
  kernel = eqn.invars[1].aval.shape
  # The kernel's input channels are those of one group already.
  macs = out[out_spec[0]] * out[out_spec[1]] * kernel[rhs_spec[1]]
  for i, axis in enumerate(out_spec[2:]):
    size, dilation = kernel[rhs_spec[2 + i]], params['lhs_dilation'][i]
    if dilation == 1:
      macs *= out[axis] * size
      continue
    place = (
      np.arange(out[axis])[:, None] * params['window_strides'][i]
      + np.arange(size)[None, :] * params['rhs_dilation'][i]
      - params['padding'][i][0]
    )
    macs *= int(np.sum(place % dilation == 0))
  return macs


def _count(jaxpr, prefix: str, times: int, count) -> None:
  """Adds the MACs of a jaxpr that is called `times` times."""
  for eqn in jaxpr.eqns:
    path = _join(prefix, eqn)
    name = eqn.primitive.name
    if name == 'cond':
      branches = []
      for branch in _inner(eqn):
        branches.append(collections.Counter())
        _count(branch, path, times, branches[-1])
      count.update(max(branches, key=lambda c: c.total()))
    elif name == 'while':
      if not any(_works(jaxpr, path) for jaxpr in _inner(eqn)):
        continue
      scopes = str(eqn.source_info.name_stack)
      # At the end, within 'vmap(...)' and the like.
      most = re.search(r'\bat_most_(\d+)_times\)*$', scopes)
      if most is None:
        raise ValueError(
          'The number of MACs depends on how often a while loop runs; count '
          'with run=True on real arguments.'
        )
      most = int(most[1])
      _count(eqn.params['body_jaxpr'].jaxpr, path, times * most, count)
      _count(eqn.params['cond_jaxpr'].jaxpr, path, times * (most + 1), count)
    else:
      macs = _eqn_macs(eqn, path)
      if macs:
        count[path] += times * macs
      length = eqn.params['length'] if name == 'scan' else 1
      for inner in _inner(eqn):
        _count(inner, path, times * length, count)


def _depends(eqn, prefix: str) -> bool:
  """Whether its MACs depend on values: a while loop, or unequal branches."""
  name, inner, path = eqn.primitive.name, _inner(eqn), _join(prefix, eqn)
  if any(_depends(e, path) for jaxpr in inner for e in jaxpr.eqns):
    return True
  if name == 'cond':
    counts = [collections.Counter() for _ in inner]
    for branch, count in zip(inner, counts):
      _count(branch, path, 1, count)
    return len({count.total() for count in counts}) > 1
  return name == 'while' and any(_works(jaxpr, path) for jaxpr in inner)


def _works(jaxpr, prefix: str) -> bool:
  """Whether there is any MAC in a jaxpr."""
  for eqn in jaxpr.eqns:
    path = _join(prefix, eqn)
    if _eqn_macs(eqn, path) or any(_works(e, path) for e in _inner(eqn)):
      return True
  return False


def _run(jaxpr, consts, args, prefix: str, count, programs) -> list:
  """Evaluates a jaxpr and adds the MACs of what is executed.

  What lies between two decisions is compiled, once: `programs` keeps it, by the
  identity of its first equation.
  """
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))

  def read(atom):
    return atom.val if isinstance(atom, core.Literal) else values[atom]

  for depends, eqns in itertools.groupby(
    jaxpr.eqns, lambda eqn: _depends(eqn, prefix)
  ):
    eqns = list(eqns)
    if depends:
      for eqn in eqns:
        inputs = [read(v) for v in eqn.invars]
        path = _join(prefix, eqn)
        outputs = _run_inner(eqn, inputs, path, count, programs)
        values.update(zip(eqn.outvars, outputs))
    else:
      if id(eqns[0]) not in programs:
        part = _part(jaxpr, eqns)
        function = core.jaxpr_as_fun(core.ClosedJaxpr(part, ()))
        programs[id(eqns[0])] = part, jax.jit(function)
      part, program = programs[id(eqns[0])]
      _count(part, prefix, 1, count)
      outputs = program(*map(read, part.invars))
      values.update(zip(part.outvars, outputs))
  return [read(v) for v in jaxpr.outvars]


def _part(jaxpr, eqns):
  """Some consecutive equations of a jaxpr as one of their own."""

  def variables(equations):
    return [
      v for e in equations for v in e.invars if not isinstance(v, core.Literal)
    ]

  made = {v for e in eqns for v in e.outvars}
  inside = {id(e) for e in eqns}
  outside = [e for e in jaxpr.eqns if id(e) not in inside]
  final = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
  return jaxpr.replace(
    constvars=[],
    invars=[v for v in dict.fromkeys(variables(eqns)) if v not in made],
    outvars=[v for v in made if v in final | set(variables(outside))],
    eqns=eqns,
    debug_info=jaxpr.debug_info.with_unknown_names(),
  )


def _run_inner(eqn, inputs, path, count, programs) -> list:
  """Evaluates control flow that decides over MACs."""
  name, params = eqn.primitive.name, eqn.params

  def call(closed, *args):
    return _run(closed.jaxpr, closed.consts, args, path, count, programs)

  if name == 'cond':
    branches = params['branches']
    index = int(np.clip(int(inputs[0]), 0, len(branches) - 1))
    return call(branches[index], *inputs[1:])
  if name == 'while':
    split = params['cond_nconsts'], params['body_nconsts']
    cond_consts = inputs[: split[0]]
    body_consts = inputs[split[0] : sum(split)]
    state = inputs[sum(split) :]
    if params['cond_jaxpr'].out_avals[0].shape:
      raise ValueError(
        'Got a while loop under vmap, which runs until every sample is done; '
        'count a single sample.'
      )
    while bool(call(params['cond_jaxpr'], *cond_consts, *state)[0]):
      state = call(params['body_jaxpr'], *body_consts, *state)
    return state
  if name == 'scan':
    num_consts, num_carry = params['num_consts'], params['num_carry']
    consts = inputs[:num_consts]
    carry = inputs[num_consts : num_consts + num_carry]
    rows = inputs[num_consts + num_carry :]
    order = range(params['length'])
    results = []
    for i in reversed(order) if params['reverse'] else order:
      out = call(params['jaxpr'], *consts, *carry, *[x[i] for x in rows])
      carry = out[:num_carry]
      results.append(out[num_carry:])
    if params['reverse']:
      results.reverse()
    return [*carry, *[jnp.stack(row) for row in zip(*results)]]
  closed = params.get('jaxpr', params.get('call_jaxpr'))
  if closed is None:
    raise ValueError(f'Branches inside {name} cannot be followed.')
  if hasattr(closed, 'jaxpr'):
    return call(closed, *inputs)
  return _run(closed, (), inputs, path, count, programs)


def _inner(eqn) -> list:
  """The jaxprs that an equation calls.

  Of the branches of `lax.platform_dependent` only this platform's.
  """
  platforms = eqn.params.get('branches_platforms')
  if platforms is not None:
    branches = zip(eqn.params['branches'], platforms)
    here = [b.jaxpr for b, of in branches if not of or _platform() in of]
    if not here:
      raise ValueError(f'The program has no branch for {_platform()}.')
    return here[:1]
  found = []
  for value in eqn.params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, 'jaxpr', item)
      if isinstance(item, core.Jaxpr):
        found.append(item)
  return found


def _platform() -> str:
  """As `lax.platform_dependent` calls it."""
  name = jax.default_backend()
  if name != 'gpu':
    return name
  version = jax.devices()[0].client.platform_version
  return 'rocm' if 'rocm' in version.lower() else 'cuda'


def _join(prefix: str, eqn) -> str:
  own = str(eqn.source_info.name_stack)
  return '/'.join(p for p in (prefix, own) if p)


def _product(sizes) -> int:
  result = 1
  for size in sizes:
    result *= int(size)
  return result


# -------------------------------------------------------------------- measure


def measure(
  system,
  variables: Any,
  video: np.ndarray,
  *,
  key: jax.Array | None = None,
  architecture=None,
  repeats: int = 20,
) -> dict[str, Any]:
  """Measures `system.predict` on a clip.

  Args:
    system: what to measure.
    variables: its variables.
    video: `[B, T, H, W, C]`, uint8 or float [0, 1]; the context frames are
      taken from it. Routes depend on what it shows.
    key: for stochastic systems; `jax.random.key(0)` by default.
    architecture: the same system in the formulation of its paper, where it
      has another one.
    repeats: timed calls, after two to warm up.

  Returns:
    A dict for JSON. `'macs'` of the whole batch and all target frames are
    those of the paper's layers: `'full'` with every branch at its dearest and
    every loop at its longest, `'taken'` on the route taken for this clip, a
    router included (where patches are taken in chunks, the last chunk counts
    as a whole one); and `'executed'`, what the program that runs here
    multiplies on that route, which may be less or, for speed, more. Bytes are
    the compiled program's.
  """
  key = jax.random.key(0) if key is None else key
  context = jnp.asarray(video)[:, np.array(system.frames.context)]
  if context.dtype == jnp.uint8:
    context = context.astype(jnp.float32) / 255
  variables = jax.device_put(variables)
  args = (variables, context, key)
  size = parameters(variables)
  report = {
    'batch': context.shape[0],
    'context_frames': len(system.frames.context),
    'target_frames': len(system.frames.target),
    'size': list(context.shape[2:4]),
    'parameters': {'total': sum(size.values()), 'parts': size},
    'macs': {},
  }
  drawn = system if architecture is None else architecture
  counts = {
    'full': count_macs(drawn.predict, *args),
    'taken': count_macs(drawn.predict, *args, run=True),
  }
  counts['executed'] = counts['taken']
  if architecture is not None:
    counts['executed'] = count_macs(system.predict, *args, run=True)
  for name, count in counts.items():
    report['macs'][name] = {
      'total': count.total(),
      'per_frame': round(
        count.total() / (len(system.frames.target) * len(context))
      ),
      'parts': by_part(count, size),
    }
  predict = runtime.jit(system.predict, system.cpu_options)
  compiled = predict.lower(*args).compile()
  report['memory'] = _memory(compiled)
  report['latency'] = _latency(compiled, args, repeats)
  report['machine'] = machine()
  return report


def _memory(compiled) -> dict[str, int]:
  stats = compiled.memory_analysis()
  if stats is None:
    return {}
  sizes = {
    'arguments': stats.argument_size_in_bytes,
    'outputs': stats.output_size_in_bytes,
    'temporaries': stats.temp_size_in_bytes,
  }
  peak = sum(sizes.values()) - stats.alias_size_in_bytes
  return {'peak': peak, **sizes}


def _latency(compiled, args, repeats: int) -> dict[str, Any]:
  times = []
  for i in range(repeats + 2):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    if i >= 2:
      times.append(1e3 * (time.perf_counter() - start))
  return {
    'median_ms': round(statistics.median(times), 3),
    'min_ms': round(min(times), 3),
    'repeats': repeats,
  }


def machine() -> dict[str, Any]:
  """The machine that times were taken on."""
  processor = platform.processor()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    found = re.search(r'model name\s*:\s*(.+)', info.read_text())
    processor = found.group(1) if found else processor
  device = jax.devices()[0]
  return {
    'device': device.device_kind,
    'platform': device.platform,
    'processor': processor,
    'cores': os.cpu_count(),
    'jax': jax.__version__,
  }


# -------------------------------------------------------------------- command


def define_flags() -> None:
  """Defines the flags of this command."""
  config_flags.DEFINE_config_file(
    'config', None, 'Configuration file, with variants: FILE.py:a,b'
  )
  flags.DEFINE_string('checkpoint', None, 'Weights; random ones without.')
  flags.DEFINE_string('input', None, 'A video to predict; a made one without.')
  flags.DEFINE_string('size', None, 'HxW; by default that of the data.')
  flags.DEFINE_string(
    'route', None, "Value of the system's setting inference_routing."
  )
  flags.DEFINE_integer('batch', 1, 'Clips at once.', lower_bound=1)
  flags.DEFINE_integer('repeats', 20, 'Timed calls.', lower_bound=1)
  flags.mark_flags_as_required(['config'])


def main(argv) -> None:
  """Prints what a configuration costs, as JSON."""
  del argv
  options = flags.FLAGS
  runtime.setup()
  from vidpred_jax import systems

  config = options.config
  settings = config.model.to_dict()
  accepted = inspect.signature(systems.SYSTEMS[config.system]).parameters
  if options.route is not None:
    if 'inference_routing' not in accepted:
      raise ValueError(f'{config.system} has no routes, got --route.')
    settings['inference_routing'] = options.route
  frames = systems.Frames(
    tuple(config.eval.frames.context), tuple(config.eval.frames.target)
  )
  system = systems.make(config.system, frames=frames, **settings)
  architecture = None
  if 'formulation' in accepted:
    architecture = systems.make(
      config.system, frames=frames, **settings | {'formulation': 'published'}
    )
  video = _clip(options, config, system)
  if options.checkpoint:
    from vidpred_jax import checkpoint

    _, variables = checkpoint.load(
      options.checkpoint, **settings | {'frames': frames}
    )
  else:
    variables = jax.jit(system.init)(runtime.key(0), video)
  report = {'system': config.system, 'weights': options.checkpoint or 'random'}
  report |= measure(
    system,
    variables,
    np.repeat(video, options.batch, axis=0),
    architecture=architecture,
    repeats=options.repeats,
  )
  print(json.dumps(report, indent=2))


def _clip(options, config, system) -> np.ndarray:
  """The clip [1, T, H, W, C] to measure on."""
  size = options.size or config.data.get('size')
  if isinstance(size, str):
    size = re.fullmatch(r'(\d+)x(\d+)', size) and size.split('x')
  if not size:
    raise ValueError(
      f'Got --size={options.size}, and the configuration names none; expected '
      'height x width such as 256x832.'
    )
  height, width = map(int, size)
  multiple = system.multiple
  if height % multiple or width % multiple or not height or not width:
    raise ValueError(
      f'Got a size of {height}x{width}; this system needs sides divisible by '
      f'{multiple}.'
    )
  length = system.frames.length
  if options.input:
    from vidpred_jax import video_io

    size = height, width
    clip = video_io.read(options.input, count=length, size=size)
    return clip[None, ..., : system.channels]
  # Smooth colours that move.
  t, y, x = np.mgrid[:length, :height, :width].astype(np.float32)
  waves = [np.sin((x + 2 * t) / 9), np.cos((y - t) / 7), np.sin((x + y) / 17)]
  waves = [waves[c % 3] for c in range(system.channels)]
  return (127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)[None]


if __name__ == '__main__':
  command.run(main, define_flags)
