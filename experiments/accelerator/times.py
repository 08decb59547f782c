"""Times of our systems; weights are random, routes are given."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vidpred_jax as vp
from experiments.accelerator.measuring import (
  concurrently,
  failure,
  milliseconds,
)
from experiments.benchmark import networks
from vidpred_jax import runtime
from vidpred_jax.models import ebme, rvd
from vidpred_jax.train import update

# name -> precision of matrix products, type of what the models compute in.
PRECISIONS = {
  'float32': ('highest', 'float32'),
  'tf32': ('tensorfloat32', 'float32'),
  'bfloat16': ('tensorfloat32', 'bfloat16'),
}


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


class Case(NamedTuple):
  """A program and the arguments to time it with.

  Attributes:
    program: of `jax.jit`.
    calls: {name: arguments}, all of the same shapes.
  """

  program: Any
  calls: dict[str, tuple]


def rows(options, left) -> Iterator[dict]:
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
  try:
    return milliseconds(
      lambda: jax.block_until_ready(program(*args)), options.tiny
    )
  except Exception as error:
    return failure(error)


def _compiled(case: Case, precision: str):
  with jax.default_matmul_precision(precision):
    return case.program.lower(*next(iter(case.calls.values()))).compile()


def filled(shapes, seed=0, scale=0.02):
  """Normal numbers for a tree of shapes, small as weights are."""
  rng = np.random.default_rng(seed)

  def leaf(shape):
    values = scale * rng.standard_normal(shape.shape, np.float32)
    return jnp.asarray(values, shape.dtype)

  return jax.tree.map(leaf, shapes)


def _clip(*shape):
  rng = np.random.default_rng(1)
  return jnp.asarray(rng.random(shape, np.float32))


def variables_of(system, clip):
  """Random variables of a system for a clip of this shape."""
  shapes = dict(jax.eval_shape(system.init, jax.random.key(0), clip))
  variables = {'params': filled(shapes.pop('params'))}
  # Statistics, of which some must be positive.
  ones = functools.partial(jax.tree.map, lambda s: jnp.ones(s.shape, s.dtype))
  return variables | {name: ones(tree) for name, tree in shapes.items()}


def training_case(system, name, video, flow=None) -> Case:
  """A training step with AdamW; `flow` for systems with `flow_pairs`."""
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
  return runtime.jit(system.predict, cpu_options=system.cpu_options)


def dmvfn_cases(shapes, dtype) -> list[Case]:
  settings = {**shapes.dmvfn, 'dtype': dtype}
  system = vp.make('dmvfn', frames=vp.Frames((0, 1), (2,)), **settings)
  batch, side = shapes.dmvfn_training
  clip = _clip(batch, 3, side, side, 3)
  variables = variables_of(system, clip)
  layers = {**settings, 'dtype': jnp.dtype(dtype)}
  total = len(shapes.dmvfn.get('scales', range(9)))
  cases = []
  for height, width in shapes.dmvfn_sizes:
    pair = _clip(1, 2, *networks.padded((height, width)), 3)
    calls = {
      f'{height}x{width}, {count} blocks': (
        variables,
        pair,
        jnp.asarray(np.arange(total)[None] < count, jnp.float32),
      )
      for count in shapes.dmvfn_blocks
    }
    cases.append(Case(networks.forward('fast', **layers), calls))
  name = f'training step, {batch} of {side}x{side}'
  return [*cases, training_case(system, name, clip)]


def simvp_cases(shapes, dtype) -> list[Case]:
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
  model, levels = ebme.BiFlowNet(), shapes.apr_vfi.get('levels', 3)
  run = runtime.jit(functools.partial(model.apply, levels=levels))
  pair = _clip(1, 2, *shapes.apr_vfi_flow, 3)
  args = {'params': variables['params']['flow']}, pair
  return Case(run, {flow_name(shapes): args})


def flow_name(shapes):
  levels = shapes.apr_vfi.get('levels', 3)
  return f'flow {shapes.apr_vfi_flow[0]}x{shapes.apr_vfi_flow[1]}, {levels}'


CASES = {
  'dmvfn': dmvfn_cases,
  'simvp': simvp_cases,
  'rvd': rvd_cases,
  'apr_vfi': apr_vfi_cases,
}
