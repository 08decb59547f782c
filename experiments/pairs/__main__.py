"""Which steps lag behind PyTorch's, and what stands in the way?

  pip install torch && python -m experiments.pairs
    [--steps=simvp,dmvfn,rvd64,rvd128,biflownet] [--pairings=5] [--profile]
    [--tiny] [--output=pairs.json]

The steps: a training step of SimVPv2-S, 16 clips of ten frames of 64x64, and of
DMVFN, 2 of 224x224, both with Adam; a denoising step of RVD at 64 and 128
pixels; BiFlowNet's flows of 512x960, 3 levels. PyTorch's layers are those of
`experiments.pytorch`.

A pairing times ours, PyTorch with channels last and PyTorch as it is by
default, one after another, each the least of a few calls. Each library has a
process of its own that lives through all pairings of a step and waits on a pipe
while the other works: so neither's threads run in the other's time. Given are
wall-clock milliseconds, ratios of ours to PyTorch's, the median ratio of the
pairings also in processor time, and the speed as a share of this machine's
matrix product, with the multiply-adds of the published layers (a training step
counts as three forward passes). PyTorch's threads spin where they wait for each
other: beside another program it takes up to 40 times as long. So a pairing says
whether others were busy in its pauses; such numbers are worth nothing.

`--profile` says where the time goes on one core. There, no operation runs in
the background of another, as XLA's do on several, so each moment belongs to
one. `at the ceiling` is what a matrix product with as many multiply-adds would
take there. In the published layers there may be more of them than in ours.
PyTorch keeps as many threads as on all cores, since with one it takes other
algorithms; that costs it some 6 %. Depthwise convolutions that a program writes
as sums of products are `other loops`.
`between operations` has what profiling itself takes.
"""

import argparse
import contextlib
import importlib.util
import json
import pathlib
import statistics
import sys
import time

from experiments import arguments
from experiments.pairs import kinds, workers

STEPS = 'simvp', 'dmvfn', 'rvd64', 'rvd128', 'biflownet'
PAUSE = 0.3  # seconds, in which threads that still spin go to sleep


@contextlib.contextmanager
def both(step, options, *, one_core=False):
  """Our worker, PyTorch's, and their facts."""
  with contextlib.ExitStack() as stack:
    started, facts = [], {}
    for library in ('ours', 'PyTorch'):
      worker = workers.start(library, step, options.tiny, one_core=one_core)
      stack.callback(worker.close)
      started.append(worker)
      # It is warm before the other one starts.
      facts |= worker.ask('facts', '')
    yield *started, facts


def paired(step, options):
  """Prints the pairings of a step; returns them with their medians."""
  with both(step, options) as (ours, theirs, facts):
    turns = [
      (ours, 'matrix product'),
      (ours, 'ours'),
      *((theirs, layout) for layout in workers.LAYOUTS),
    ]
    pairings = []
    for _ in range(options.pairings):
      row = {'busy': 0.0}
      for worker, label in turns:
        row[label] = worker.ask('time', label)
        time.sleep(PAUSE / 2)
        row['busy'] = max(row['busy'], busy(PAUSE / 2))
      pairings.append(row)
      show_pairing(step, row)
  fastest = min(row['matrix product']['ms'] for row in pairings)
  facts['matmul_gflops'] = 1e3 * facts['product_gflop'] / fastest
  return {**facts, 'pairings': pairings, **medians(step, pairings, facts)}


def busy(seconds):
  """Waits so long; the share of the cores that is in use, 0 if unknown."""
  before = _ticks()
  time.sleep(seconds)
  after = _ticks()
  if sum(after) == sum(before):
    return 0.0
  idle = sum(after[3:5]) - sum(before[3:5])
  return 1 - idle / (sum(after) - sum(before))


def _ticks():
  """Of all cores, by state: the fourth and fifth are idle ones."""
  path = pathlib.Path('/proc/stat')
  if not path.exists():
    return [0] * 8
  return [int(count) for count in path.read_text().split('\n')[0].split()[1:9]]


def show_pairing(step, row):
  """Prints milliseconds, and ours over PyTorch's."""
  ours = row['ours']['ms']
  print(
    f'{step:10} ours {ours:9.1f} ms'
    + ''.join(
      f', {layout} {row[layout]["ms"]:9.1f} ms ({ours / row[layout]["ms"]:.2f})'
      for layout in workers.LAYOUTS
    )
    + (f'; busy with others {row["busy"]:.0%}' if row['busy'] > 0.05 else ''),
    flush=True,
  )


def medians(step, pairings, facts):
  """Prints the medians of the ratios and the shares; returns them."""
  result = {'ratio': {}, 'cpu_ratio': {}, 'share': {}}
  for layout in workers.LAYOUTS:
    for name, column in (('ratio', 'ms'), ('cpu_ratio', 'cpu_ms')):
      result[name][layout] = statistics.median(
        row['ours'][column] / row[layout][column] for row in pairings
      )
    print(
      f'{step:10} ours / PyTorch, {layout}: median '
      f'{result["ratio"][layout]:.2f}, of processor time '
      f'{result["cpu_ratio"][layout]:.2f}'
    )
  for label in ('ours', *workers.LAYOUTS):
    least = min(row[label]['ms'] for row in pairings)
    speed = 2e3 * facts['gmacs'] / least
    result['share'][label] = speed / facts['matmul_gflops']
  print(
    f'{step:10} {facts["gmacs"]:.2f} G multiply-adds; share of the '
    f'{facts["matmul_gflops"]:.0f} GFLOP/s of a matrix product: '
    + ', '.join(f'{k} {v:.2f}' for k, v in result['share'].items()),
    flush=True,
  )
  return result


def profiled(step, options):
  """Prints where the time of both goes on one core; returns it."""
  with both(step, options, one_core=True) as (ours, theirs, facts):
    product = ours.ask('time', 'matrix product')
    plain = {'ours': ours.ask('time', 'ours')['ms']}
    rows = {'ours': ours.ask('profile', 'ours')}
    layout, *_ = workers.LAYOUTS
    plain['PyTorch'] = theirs.ask('time', layout)['ms']
    rows['PyTorch'] = theirs.ask('profile', layout)
  gflops = 1e3 * facts['product_gflop'] / product['ms']
  ceiling = 2e3 * facts['gmacs'] / gflops
  show_profile(step, rows, plain, ceiling, f'PyTorch, {layout}')
  return {
    'matmul_gflops': gflops,
    'ceiling_ms': ceiling,
    'unprofiled_ms': plain,
    **rows,
  }


def show_profile(step, rows, plain, ceiling, heading):
  """Prints the table of a step, then the longest operations of both."""
  print(f'\n{step + ", on one core":30} {"ours":>17} {heading:>26}')

  def line(name, values):
    columns = (
      f'{value:9.1f} ms {value / row["ms"]:5.0%}'
      for value, row in zip(values, rows.values())
    )
    print('{:30} {} {:>26}'.format(name, *columns))

  for kind in kinds.KINDS:
    line(kind, [row['kinds'][kind] for row in rows.values()])
  line('all', [row['ms'] for row in rows.values()])
  line('without the profiler', plain.values())
  line('at the ceiling', [ceiling, ceiling])
  for library, row in rows.items():
    print(f'the longest of {library}:')
    for kind, name, ms in row['longest']:
      print(f'  {ms:9.1f} ms {ms / row["ms"]:5.0%} {kind}: {name}')
  print(flush=True)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--steps', default=','.join(STEPS))
  parser.add_argument('--pairings', type=int, default=5)
  parser.add_argument('--profile', action='store_true')
  parser.add_argument(
    '--tiny', action='store_true', help='small shapes, one pairing'
  )
  parser.add_argument('--output', default='')
  options = parser.parse_args(argv)
  wanted = arguments.listed(parser, options, 'steps', STEPS)
  if options.pairings < 1:
    parser.error(f'got --pairings={options.pairings}, expected one or more')
  if importlib.util.find_spec('torch') is None:
    print('This needs PyTorch: pip install torch', file=sys.stderr)
    return 1
  if options.tiny:
    options.pairings = 1
  report = {}
  for step in wanted:
    report[step] = paired(step, options)
    if options.profile:
      report[step]['profile'] = profiled(step, options)
  if options.output:
    pathlib.Path(options.output).write_text(json.dumps(report, indent=2))
  return 0


if __name__ == '__main__':
  sys.exit(main())
