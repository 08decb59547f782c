"""Steps that are timed by themselves and beside PyTorch's.

`STEPS` has them by the names of `experiments.pytorch.steps`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vidpred_jax import cost, runtime, systems
from vidpred_jax.models import ebme, initial, rvd
from vidpred_jax.ops import resize
from vidpred_jax.train import update

TINY_SIMVP = {'hid_s': 4, 'hid_t': 8, 'n_s': 2, 'n_t': 2}
TINY_DMVFN = {'scales': (2, 1), 'widths': (8, 8)}
TINY_RVD = {'dim': 8, 'mults': (1, 2), 'mean_mults': (1, 2)}


class Step(NamedTuple):
  """A compiled function and what to call it with.

  Attributes:
    program: of `runtime.jit`.
    args: its arguments.
    macs: gives the multiply-adds of a call, in the published layers.
  """

  program: Any
  args: tuple
  macs: Callable[[], int]

  def __call__(self):
    """Its results."""
    return self.program(*self.args)


class Denoiser(NamedTuple):
  """RVD's networks with what they take for one frame."""

  apply: Callable  # (method, *args), not compiled
  observe: Callable
  prepare: Callable
  frame: jax.Array
  state: Any
  contexts: list[jax.Array]
  prepared: Any
  n: jax.Array


def trained(system, video, variables, rule, macs) -> Step:
  """A training step; `variables` are random ones of the system."""
  collections = dict(variables)
  params = collections.pop('params')
  state = update.TrainState(
    jnp.int32(0), params, collections, rule.init(params), {}
  )
  program = runtime.jit(
    update.make_train_step(system, rule), cpu_options=system.cpu_options
  )
  return Step(program, (state, {'video': video}, jax.random.key(0)), macs)


def simvp_system(*, settings=None):
  """gSTA-S for ten frames."""
  frames = systems.Frames(tuple(range(10)), tuple(range(10, 20)))
  return systems.make('simvp', frames=frames, **(settings or {}))


def simvp(*, batch=16, size=64, settings=None) -> Step:
  """A training step of gSTA-S with Adam.

  It counts as three times its forward pass: one more pass each for the
  gradients of the features and of the weights.
  """
  system = simvp_system(settings=settings)
  video = jax.random.uniform(jax.random.key(4), (batch, 20, size, size, 1))
  variables = dict(system.init(runtime.key(0), video[:1]))

  def macs():
    args = variables, video[:1, :10], jax.random.key(0)
    return 3 * batch * cost.count_macs(system.predict, *args).total()

  return trained(system, video, variables, optax.adam(1e-3), macs)


def dmvfn(*, formulation='fast', crop=224, batch=2, settings=None) -> Step:
  """A training step of DMVFN; counts as three times its forward pass."""

  def make(formulation):
    return systems.make(
      'dmvfn',
      frames=systems.Frames((0, 1), (2,)),
      formulation=formulation,
      **(settings or {}),
    )

  system = make(formulation)
  video = jax.random.uniform(jax.random.key(3), (batch, 3, crop, crop, 3))
  variables = system.init(runtime.key(0), video)

  def macs():
    args = variables, video, jax.random.key(0)
    return 3 * cost.count_macs(make('published').loss, *args).total()

  return trained(system, video, variables, optax.adamw(1e-4), macs)


def rvd_widths(size):
  """The settings of the networks for 64 or 128 pixels."""
  return rvd.WIDTHS_64 if size == 64 else {}


def rvd_networks(size, widths) -> Denoiser:
  """RVD's networks with three channels and one frame."""
  model = rvd.RVD(channels=3, **widths)
  frame = jax.random.uniform(jax.random.key(5), (1, 1, size, size, 3))
  n = jnp.int32(800)
  variables = initial.draw(runtime.key(0), model, frame, frame[:, 0], n)
  state = model.initial_state(1, size, size)

  def apply(method, *args):
    return model.apply(variables, *args, method=method)

  observe = runtime.jit(functools.partial(apply, 'observe'))
  contexts = [c[:, 0] for c in observe(frame, state)[0]]
  prepare = runtime.jit(functools.partial(apply, 'prepare'))
  prepared = prepare(contexts)
  return Denoiser(apply, observe, prepare, frame, state, contexts, prepared, n)


def denoising(networks: Denoiser) -> Step:
  """A step of the denoiser; the published one sees the contexts in each."""
  apply = networks.apply
  denoise = functools.partial(apply, 'denoise')
  args = networks.frame[:, 0], networks.n, networks.prepared

  def macs():
    prepare = functools.partial(apply, 'prepare')
    of_contexts = cost.count_macs(prepare, networks.contexts).total()
    return of_contexts + cost.count_macs(denoise, *args).total()

  return Step(runtime.jit(denoise), args, macs)


def flow(*, size=(512, 960), levels=3) -> Step:
  """BiFlowNet's flows of one pair."""
  model = ebme.BiFlowNet()
  pair = jax.random.uniform(jax.random.key(6), (1, 2, *size, 3))
  small = jnp.zeros((1, 2, 32, 32, 3))
  variables = initial.draw(runtime.key(0), model, small, levels=1)
  apply = functools.partial(model.apply, levels=levels)

  def run(variables, pair):
    return apply(variables, pair).flow

  return Step(
    runtime.jit(run),
    (variables, pair),
    lambda: cost.count_macs(run, variables, pair).total(),
  )


def coarse_flow():
  """A smooth flow of 512x960 to splat along."""
  key = jax.random.split(jax.random.key(6), 4)[1]
  coarse = jax.random.uniform(key, (1, 8, 15, 2), minval=-16, maxval=16)
  return resize.bilinear(coarse, scale=64)


def _rvd(size, tiny):
  """The step of one size; tiny ones have a shape of their own."""
  if tiny:
    return denoising(rvd_networks(size // 4, TINY_RVD))
  return denoising(rvd_networks(size, rvd_widths(size)))


# {name: whether it is to be tiny -> Step}.
STEPS = {
  'simvp': lambda tiny: (
    simvp(batch=2, size=16, settings=TINY_SIMVP) if tiny else simvp()
  ),
  'dmvfn': lambda tiny: (
    dmvfn(crop=48, batch=1, settings=TINY_DMVFN) if tiny else dmvfn()
  ),
  'rvd64': functools.partial(_rvd, 64),
  'rvd128': functools.partial(_rvd, 128),
  'biflownet': lambda tiny: flow(size=(32, 64), levels=1) if tiny else flow(),
}
