"""The steps of `experiments.benchmark.steps` in PyTorch, by the same names."""

import ctypes
import functools
import sys

import torch

from experiments.pytorch import models

# Parameters of the models, as published: those of SimVPv2-S rounded to
# 0.01 M; of RVD the denoisers for 64 and 128 pixels; of APR-VFI the flow.
PARAMETERS = {
  'dmvfn': 3_559_930,
  'simvp': 46_770_000,
  'rvd64': 18_744_291,
  'rvd128': 18_951_683,
  'apr_vfi': 632_900,
}


def setup():
  """Sets the allocator as `vidpred_jax.runtime.setup` does."""
  if sys.platform == 'linux':
    libc = ctypes.CDLL(None)
    for parameter, value in ((-4, 0), (-1, -1), (-8, 1), (-2, 64 << 20)):
      libc.mallopt(parameter, value)


def optimised(model, loss):
  """A function that makes one training step with Adam."""
  rule = torch.optim.Adam(model.parameters(), 1e-4)

  def call(*args):
    rule.zero_grad()
    loss(*args).backward()
    rule.step()

  return call


def check(name, model):
  """The model, if it has the published size to 0.1 %; else ValueError."""
  count = sum(p.numel() for p in model.parameters())
  if abs(count / PARAMETERS[name] - 1) > 1e-3:
    raise ValueError(
      f'The model of {name} has {count} parameters, expected '
      f'{PARAMETERS[name]}.'
    )
  return model


def inferred(function, *args):
  """A function that calls this one without a thought of gradients."""

  def call():
    with torch.inference_mode():
      return function(*args)

  return call


def simvp(layout, *, model=None, batch=16, size=64):
  """A training step of SimVPv2-S."""
  model = check('simvp', models.SimVP()) if model is None else model
  model = model.to(memory_format=layout).train()
  step = optimised(model, lambda x: (model(x) - x).square().mean())
  return functools.partial(step, torch.rand(batch, 10, 1, size, size))


def dmvfn(layout, *, model=None, batch=2, crop=224):
  """A training step of DMVFN."""
  model = check('dmvfn', models.DMVFN()) if model is None else model
  model = model.to(memory_format=layout)
  pair = torch.rand(batch, 6, crop, crop).to(memory_format=layout)
  step = optimised(model, model.loss)
  return functools.partial(step, pair, pair[:, :3])


def denoising(layout, size, *, widths=None):
  """A denoising step of RVD."""
  dim, mults = models.WIDTHS_OF[size] if widths is None else widths
  model = models.Denoiser(dim, mults)
  if widths is None:
    check(f'rvd{size}', model)
  model = model.to(memory_format=layout)
  x = torch.rand(1, 3, size, size).to(memory_format=layout)
  contexts = [
    torch.rand(1, dim * m, size >> i, size >> i).to(memory_format=layout)
    for i, m in enumerate(mults)
  ]
  return inferred(model, x, torch.tensor([800]), contexts)


def flow(layout, *, size=(512, 960), levels=3):
  """BiFlowNet's flows of one pair."""
  model = check('apr_vfi', models.BiFlowNet()).to(memory_format=layout)
  pair = torch.rand(2, 1, 3, *size)
  first, second = (x.to(memory_format=layout) for x in pair)
  return inferred(model, first, second, levels)


def _simvp(layout, tiny):
  if not tiny:
    return simvp(layout)
  model = models.SimVP(hid_s=4, hid_t=8, blocks=2)
  return simvp(layout, model=model, batch=2, size=16)


def _dmvfn(layout, tiny):
  if not tiny:
    return dmvfn(layout)
  return dmvfn(layout, model=models.DMVFN((8, 8), (2, 1)), batch=1, crop=48)


def _rvd(size, layout, tiny):
  if not tiny:
    return denoising(layout, size)
  return denoising(layout, size // 4, widths=(8, (1, 2)))


def _flow(layout, tiny):
  return flow(layout, size=(32, 64), levels=1) if tiny else flow(layout)


# {name: (layout, whether it is to be tiny) -> a function that does it}.
STEPS = {
  'simvp': _simvp,
  'dmvfn': _dmvfn,
  'rvd64': functools.partial(_rvd, 64),
  'rvd128': functools.partial(_rvd, 128),
  'biflownet': _flow,
}
