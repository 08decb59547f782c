"""The same in PyTorch, in both memory formats; bfloat16 by autocast."""

import contextlib
import functools
import importlib.util
from collections.abc import Iterator

from experiments.accelerator import times
from experiments.accelerator.measuring import failure, milliseconds

LAYOUTS = ('channels_last', 'contiguous_format')  # of PyTorch


def rows(options, left) -> Iterator[dict]:
  """The same in PyTorch, and ours over the better of its layouts."""
  if importlib.util.find_spec('torch') is None:
    yield {'skipped': 'PyTorch is not installed'}
    return
  import torch

  shapes = times.TINY if options.tiny else times.Shapes()
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.backends.cudnn.benchmark = True
  if options.tiny:  # threads would only wait for each other
    torch.set_num_threads(1)
  for precision in times.precisions(options):
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

  from experiments.pytorch import models
  from experiments.pytorch.steps import optimised

  def rand(*shape):
    x = torch.rand(*shape)
    return x.to(memory_format=layout) if x.ndim == 4 else x

  def placed(model):
    return model.to(memory_format=layout)

  model = placed(models.DMVFN(**shapes.dmvfn))
  for height, width in shapes.dmvfn_sizes:
    pair = rand(1, 6, *(-(-n // 16) * 16 for n in (height, width)))
    for count in shapes.dmvfn_blocks:
      name = f'{height}x{width}, {count} blocks'
      yield 'dmvfn', name, False, functools.partial(model, pair, count)
  batch, side = shapes.dmvfn_training
  pair = rand(batch, 6, side, side)
  step = optimised(model, model.loss)
  call = functools.partial(step, pair, pair[:, :3])
  yield 'dmvfn', f'training step, {batch} of {side}x{side}', True, call

  changed = {
    name: shapes.simvp[key]
    for name, key in (('hid_s', 'hid_s'), ('hid_t', 'hid_t'), ('blocks', 'n_t'))
    if key in shapes.simvp
  }
  model = placed(models.SimVP(**changed))
  size = shapes.simvp_size
  for batch in shapes.simvp_batches:
    video = rand(batch, 10, 1, size, size)
    model.eval()
    yield 'simvp', f'batch {batch}', False, functools.partial(model, video)
  model.train()
  step = optimised(model, lambda x: (model(x) - x).square().mean())
  call = functools.partial(step, video)
  yield 'simvp', f'training step, batch {batch}', True, call

  dim, mults = shapes.rvd['dim'], shapes.rvd['mults']
  model, size = placed(models.Denoiser(dim, mults)), shapes.rvd_size
  for batch in (1, shapes.rvd_sampling[0]):
    contexts = [
      rand(batch, dim * m, max(size >> i, 1), max(size >> i, 1))
      for i, m in enumerate(mults)
    ]
    noisy, n = rand(batch, 3, size, size), torch.full((batch,), 800)
    call = functools.partial(model, noisy, n, contexts)
    yield 'rvd', f'denoising step, batch {batch}', False, call

  model = placed(models.BiFlowNet())
  frames = rand(1, 3, *shapes.apr_vfi_flow), rand(1, 3, *shapes.apr_vfi_flow)
  levels = shapes.apr_vfi.get('levels', 3)

  def flow():  # in float32, as ours: bfloat16 has no place for 2048 columns
    with torch.autocast(frames[0].device.type, enabled=False):
      return model(*frames, levels)

  yield 'apr_vfi', times.flow_name(shapes), False, flow
