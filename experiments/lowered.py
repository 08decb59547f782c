"""What would be slow on a GPU? Read from programs lowered for one, without one.

  python -m experiments.lowered [--systems=dmvfn,simvp,rvd,apr_vfi]
    [--platform=cuda] [--batch=4] [--size=64] [--where] [--output=lowered.json]

Lowers the prediction and the training step of each system, a batch of
`--batch`, for a platform that need not be there, and counts in the StableHLO
what a GPU does slowly:

- loops (`while`): one iteration after the other, each a launch of every kernel
  inside, and the host decides on the next one;
- branches (`case`, `if`): the host waits for the device's decision;
- gathers, scatters and sorts;
- calls of other libraries and of the host (`custom_call`).

`of the batch` are loops with as many iterations as the batch has samples: a
`lax.map` over the batch, which has a batched form. `inside` counts operations
that lie in a loop. `--where` says at which place of the model each one stands.
"""

import argparse
import collections
import json
import re

import jax
import jax.numpy as jnp
import optax
from jax._src.lib.mlir import ir

from vidpred_jax import runtime, systems
from vidpred_jax.train import update

SYSTEMS = {
  'dmvfn': systems.Frames((0, 1), (2, 3)),
  'simvp': systems.Frames(tuple(range(4)), tuple(range(4, 8))),
  'rvd': systems.Frames((0, 1), (2, 3)),
  'apr_vfi': systems.Frames((0, 2), (1,)),
}
KINDS = {
  'stablehlo.while': 'loops',
  'stablehlo.case': 'branches',
  'stablehlo.if': 'branches',
  'stablehlo.gather': 'gathers',
  'stablehlo.dynamic_gather': 'gathers',
  'stablehlo.scatter': 'scatters',
  'stablehlo.select_and_scatter': 'scatters',
  'stablehlo.sort': 'sorts',
  'stablehlo.custom_call': 'calls',
  'stablehlo.convolution': 'convolutions',
}
# Of the compiler itself: they cost nothing.
_FREE = ('Sharding', 'annotate_device_placement')


def programs(name, batch, size, **settings):
  """{'prediction' and 'training step': (function, arguments)}, of shapes."""
  frames = SYSTEMS[name]
  system = systems.make(name, frames=frames, **settings)
  shape = (batch, frames.length, size, size, system.channels)
  video, key = jax.ShapeDtypeStruct(shape, jnp.float32), jax.random.key(0)
  variables = dict(jax.eval_shape(system.init, runtime.key(0), video))
  context = jax.ShapeDtypeStruct(
    (batch, len(frames.context), *shape[2:]), jnp.float32
  )
  rule = optax.adamw(1e-4)
  collections_ = {k: v for k, v in variables.items() if k != 'params'}
  state = update.TrainState(
    jax.ShapeDtypeStruct((), jnp.int32),
    variables['params'],
    collections_,
    jax.eval_shape(rule.init, variables['params']),
    {},
  )
  clips = {'video': video}
  if system.flow_pairs:
    flows = (batch, len(system.flow_pairs), size, size, 2)
    clips['flow'] = jax.ShapeDtypeStruct(flows, jnp.float32)
  return {
    'prediction': (system.predict, (variables, context, key)),
    'training step': (
      update.make_train_step(system, rule),
      (state, clips, key),
    ),
  }


def operations(function, arguments, platform):
  """Rows of kind, place, iterations (of loops), depth in loops.

  A function that is called twice counts once for each call.
  """
  traced = jax.jit(function).trace(*arguments)
  module = traced.lower(lowering_platforms=(platform,)).compiler_ir('stablehlo')
  functions = {
    ir.StringAttr(x.attributes['sym_name']).value: x
    for x in module.body.operations
    if 'function_type' in x.attributes
  }
  rows = []

  def visit(regions, depth):
    for region in regions:
      for block in region.blocks:
        walk(block, depth)

  def walk(block, depth):
    for inner in block.operations:
      name, regions = inner.operation.name, inner.operation.regions
      kind, count = KINDS.get(name), None
      if name == 'func.call':
        called = str(inner.attributes['callee']).removeprefix('@')
        visit(functions[called.strip('"')].operation.regions, depth)
      if kind == 'calls' and any(x in str(inner) for x in _FREE):
        kind = None
      if kind == 'loops':
        count = iterations(inner)
        if not is_used(inner.operation):  # XLA drops it
          continue
      if kind == 'branches':
        chosen = 0 if len(regions) == 1 else known(inner.operands[0])
        if chosen is not None:  # of `platform_dependent`: XLA takes it
          kind, regions = None, [regions[chosen]]
      if kind:
        rows.append((kind, place(inner), count, depth))
      visit(regions, depth + (name == 'stablehlo.while'))

  visit(functions['main'].operation.regions, 0)
  return rows


def known(value):
  """The number that a scalar is if a constant says so; else None."""
  owner = getattr(value.owner, 'operation', None)
  if owner is None or owner.name != 'stablehlo.constant':
    return None
  found = re.search(r'dense<(-?\d+)>', str(owner))
  return int(found.group(1)) if found else None


def is_used(operation, seen=None):
  """Whether what an operation computes is returned, through others or not."""
  seen = set() if seen is None else seen
  for result in operation.results:
    for use in result.uses:
      user = use.owner.operation
      if user.name.endswith('.return'):
        return True
      if hash(user) not in seen:
        seen.add(hash(user))
        if is_used(user, seen):
          return True
  return False


def iterations(loop):
  """How often a loop runs, where its condition is `i < constant`; else None."""
  (block,) = loop.operation.regions[0].blocks
  bounds = [
    known(x.results[0])
    for x in block.operations
    if x.operation.name == 'stablehlo.constant'
  ]
  return bounds[0] if len(bounds) == 1 else None


def place(operation):
  """The scopes of the model in which an operation stands."""
  found = re.search(r'"(jit\([^"]*)"', str(operation.location))
  return found.group(1) if found else ''


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--systems', default=','.join(SYSTEMS))
  parser.add_argument('--platform', default='cuda')
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--where', action='store_true')
  parser.add_argument('--output', default='')
  options = parser.parse_args()
  columns = [*dict.fromkeys(KINDS.values())]
  heads = ' '.join(f'{x:>12s}' for x in [*columns, 'of the batch', 'inside'])
  print(f'{"":24s} {heads}')
  report = {}
  for name in options.systems.split(','):
    for what, program in programs(name, options.batch, options.size).items():
      rows = operations(*program, options.platform)
      counts = collections.Counter(kind for kind, *_ in rows)
      of_batch = sum(n == options.batch for kind, _, n, _ in rows if n)
      inside = sum(depth > 0 for *_, depth in rows)
      numbers = [*(counts[x] for x in columns), of_batch, inside]
      cells = ' '.join(f'{x:12d}' for x in numbers)
      print(f'{name + ", " + what:24s} {cells}', flush=True)
      report[f'{name}, {what}'] = rows
      if options.where:
        shown = collections.Counter(
          row for row in rows if row[0] != 'convolutions'
        )
        for (kind, where, count, depth), times in shown.items():
          print(
            f'  {times:3d} {kind:10s} x{count or "?"} depth {depth} {where}'
          )
  if options.output:
    with open(options.output, 'w') as file:
      json.dump(report, file, indent=2)


if __name__ == '__main__':
  main()
