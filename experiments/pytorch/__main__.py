"""Times the same layers in PyTorch, for the ratios in README.md.

  pip install torch && python -m experiments.pytorch
    [--systems=dmvfn,simvp,rvd,apr_vfi] [--sizes=256x832,720x1280]
    [--batches=1,16] [--repeats=7] [--training]

PyTorch is no dependency of the project. These models are written from the
papers' descriptions, layer by layer, in plain PyTorch. Weights are random; only
the number of parameters is checked. Both memory formats and this machine's
matrix product are timed. The allocator is set as `vidpred_jax.runtime.setup`
does; without that both libraries pay for page faults. Run it and
`experiments.benchmark` on the same idle machine.
"""

import argparse
import time

import torch

from experiments import arguments
from experiments.pytorch import models, steps


def measure(name, repeats, call, *args):
  """Prints least and median wall-clock and processor milliseconds."""
  call(*args)
  times = []
  for _ in range(repeats):
    start = time.perf_counter(), time.process_time()
    call(*args)
    times.append(
      (time.perf_counter() - start[0], time.process_time() - start[1])
    )
  wall, cpu = (sorted(1e3 * t for t in x) for x in zip(*times))
  print(
    f'{name:48} {wall[0]:9.1f} {wall[len(wall) // 2]:9.1f} {cpu[0]:9.1f}',
    flush=True,
  )


def time_dmvfn(options, layout, label):
  """Forward passes by size and blocks, and a training step."""
  model = steps.check('dmvfn', models.DMVFN()).to(memory_format=layout)
  for size in options.sizes.split(','):
    height, width = (-(-int(n) // 16) * 16 for n in size.split('x'))
    pair = torch.rand(1, 6, height, width).to(memory_format=layout)
    with torch.inference_mode():
      for used in (9, 3, 1):
        name = f'dmvfn {size}, {used} blocks and router{label}'
        measure(name, options.repeats, model, pair, used)
  if options.training:
    name = f'dmvfn training step, 2 of 224x224{label}'
    measure(name, 3, steps.dmvfn(layout))


def time_simvp(options, layout, label):
  """Forward passes and training steps by batch size."""
  model = steps.check('simvp', models.SimVP()).to(memory_format=layout)
  for batch in map(int, options.batches.split(',')):
    name = f'simvp gSTA-S, batch {batch}{label}'
    with torch.inference_mode():
      measure(name, 5, model.eval(), torch.rand(batch, 10, 1, 64, 64))
  if options.training:
    for batch in (4, 16):
      name = f'simvp gSTA-S training step, batch {batch}{label}'
      measure(name, 3, steps.simvp(layout, model=model, batch=batch))


def time_rvd(options, layout, label):
  """A denoising step of both sizes."""
  del options
  for size in models.WIDTHS_OF:
    name = f'rvd denoising step, {size} pixels{label}'
    measure(name, 20, steps.denoising(layout, size))


def time_apr_vfi(options, layout, label):
  """The flow, the splat and the cost volume."""
  name = f'apr_vfi flow 512x960, 3 levels{label}'
  measure(name, options.repeats, steps.flow(layout))
  flow = models.enlarge(32 * torch.rand(1, 2, 8, 15) - 16, 64)
  with torch.inference_mode():
    for channels in (3, 16):
      image = torch.rand(1, channels, 512, 960).to(memory_format=layout)
      name = f'apr_vfi splat 512x960, {channels} channels{label}'
      measure(name, options.repeats, models.splat, image, flow)
    features = torch.rand(2, 1, 48, 64, 120)
    features = (x.to(memory_format=layout) for x in features)
    name = f'apr_vfi cost volume 64x120, 48 channels{label}'
    measure(name, options.repeats, models.cost_volume, *features)


SYSTEMS = {
  'dmvfn': time_dmvfn,
  'simvp': time_simvp,
  'rvd': time_rvd,
  'apr_vfi': time_apr_vfi,
}


def main(argv=None):
  """Times what the arguments ask for."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--systems', default=','.join(SYSTEMS))
  parser.add_argument('--sizes', default='256x832,720x1280')
  parser.add_argument('--batches', default='1,16')
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--training', action='store_true')
  options = parser.parse_args(argv)
  wanted = arguments.listed(parser, options, 'systems', SYSTEMS)
  steps.setup()
  print(f'torch {torch.__version__}, {torch.get_num_threads()} threads')
  print(f'{"":48} {"min ms":>9} {"median":>9} {"cpu ms":>9}')
  a = torch.rand(2048, 2048)
  measure('matrix product 2048^3', options.repeats, torch.mm, a, a)
  for label, layout in (
    ('', torch.contiguous_format),
    (', channels last', torch.channels_last),
  ):
    for system, time_all in SYSTEMS.items():
      if system in wanted:
        time_all(options, layout, label)


if __name__ == '__main__':
  main()
