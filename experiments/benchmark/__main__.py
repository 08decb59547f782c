"""Times the systems and compares them with the machine's matrix product.

  python -m experiments.benchmark [--systems=dmvfn,simvp,rvd,apr_vfi]
    [--sizes=256x832,720x1280] [--repeats=7] [--training]
    [--output=benchmark.json]
  python -m experiments.benchmark --film=A.mp4 [options of film_times]

With a film it is `experiments.film_times`.

DMVFN: the cost of a frame with 0 to 9 blocks (router included, weights random,
routes given); whether a skipped block is free; whether a batch whose samples
take different routes costs the sum of its samples; the gain of the fast
formulation over the published one; the cost of a training step (`--training`).
SimVPv2-S on ten frames of 64x64: the cost of a forward pass and of a training
step with Adam, by batch size. RVD at 64 and 128 pixels: the cost of a denoising
step, of the context and of the mean of a frame; whether K steps of a sampler
cost K single steps. APR-VFI: the cost of BiFlowNet, of the splat and of the
cost volume, of the parts of a whole frame, and of a synthesis on some patches
relative to the whole image. `experiments.pytorch` times the same in PyTorch.

Times are minima and medians over `--repeats` interleaved rounds, so that a
machine whose speed drifts favours none. `cpu ms` is the processor time of all
threads, which other programs disturb least. `share` is the speed relative to
this machine's matrix product, measured in the same rounds. It is counted with
the multiply-adds of the published layers, for a training step of SimVP three
times those of its forward pass. So a formulation with fewer multiply-adds can
exceed the speed of a plain program.
"""

import argparse
import json
import sys

from experiments import arguments, film_times
from experiments.benchmark import networks, timing
from vidpred_jax import cost, runtime


def report_dmvfn(options):
  """Prints the tables of DMVFN; returns them."""
  print(
    f'{"size":>10} {"blocks":>16} {"min ms":>9} {"median":>9} {"cpu ms":>9} '
    f'{"share":>6}'
  )
  rows, peaks = [], {}
  for size in options.sizes.split(','):
    found, peaks[size] = networks.inference(
      tuple(map(int, size.split('x'))), options.repeats
    )
    for row in found:
      print(
        f'{row["size"]:>10} {row["blocks"]:>16} {timing.shown(row)} '
        f'{row["share_of_peak"]:6.2f}'
      )
    print(f'{size:>10} matrix product {peaks[size]:.0f} GFLOP/s')
    rows += found
  mixed = networks.mixed_routes(options.repeats)
  print(
    f'routes of 1, 3, 5, 8 blocks at 256x832: batch of 4 {mixed["batch"]:.1f} '
    f'ms, one by one {mixed["singles"]:.1f} ms, ratio '
    f'{mixed["batch"] / mixed["singles"]:.2f}'
  )
  report = {'matmul_gflops': peaks, 'rows': rows, 'mixed': mixed}
  if options.training:
    report['training'] = networks.training(options.repeats)
    print(
      'training step, batch 2 of 224x224: '
      + ', '.join(f'{k} {v:.0f} ms' for k, v in report['training'].items())
    )
  return report


def report_simvp(options):
  """Prints the table of SimVP; returns it."""
  rows, peak = networks.simvp(options.repeats, options.training)
  print(
    f'{"":27} {"batch":>5} {"min ms":>9} {"median":>9} {"cpu ms":>9} '
    f'{"share":>6}'
  )
  for row in rows:
    print(
      f'simvp gSTA-S {row["name"]:>14} {row["batch"]:5} {timing.shown(row)} '
      f'{row["share_of_peak"]:6.2f}'
    )
  print(f'matrix product {peak:.0f} GFLOP/s')
  return {'matmul_gflops': peak, 'rows': rows}


def report_rvd(options):
  """Prints the table of RVD; returns it."""
  report = {'rows': [], 'matmul_gflops': {}}
  print(f'{"":40} {"min ms":>9} {"median":>9} {"cpu ms":>9}')
  for size in (64, 128):
    rows, peak = networks.rvd_of_size(size, options.repeats)
    report['rows'] += rows
    report['matmul_gflops'][size] = peak
    for row in rows:
      print(f'rvd {size:4} {row["name"]:>31} {timing.shown(row)}')
    print(f'matrix product {peak:.0f} GFLOP/s')
  return report


def report_apr_vfi(options):
  """Prints the table of APR-VFI; returns it."""
  print(f'{"":50} {"min ms":>9} {"median":>9} {"cpu ms":>9} {"ratio":>6}')

  def show(rows):
    for row in rows:
      print(
        f'apr_vfi {row["size"]:>9} {row["name"]:>32} {timing.shown(row)} '
        + (f'{row["ratio"]:6.2f}' if 'ratio' in row else ''),
        flush=True,
      )
    return rows

  rows, peak = networks.flow_estimation(options.repeats)
  show(rows)
  for size in ((512, 960), (1080, 2048)):
    rows += show(networks.interpolation(size, options.repeats))
  print(f'matrix product {peak:.0f} GFLOP/s')
  return {'matmul_gflops': peak, 'rows': rows}


SYSTEMS = {
  'dmvfn': report_dmvfn,
  'simvp': report_simvp,
  'rvd': report_rvd,
  'apr_vfi': report_apr_vfi,
}


def main():
  if any(x.split('=')[0] == '--film' for x in sys.argv[1:]):
    return film_times.main()
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--systems', default=','.join(SYSTEMS))
  parser.add_argument('--sizes', default='256x832,720x1280')
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--training', action='store_true')
  parser.add_argument('--output', default='')
  options = parser.parse_args()
  wanted = arguments.listed(parser, options, 'systems', SYSTEMS)
  runtime.setup()
  print(cost.machine())
  report = {'machine': cost.machine()}
  for system, report_of in SYSTEMS.items():
    if system in wanted:
      report[system] = report_of(options)
  if options.output:
    with open(options.output, 'w') as file:
      json.dump(report, file, indent=2)


if __name__ == '__main__':
  main()
