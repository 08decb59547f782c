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
import contextlib
import importlib
import json
import os
import pathlib
import sys
import time

from experiments.accelerator.measuring import failure, ratios

# Part -> module of this folder, imported when its turn comes: what a part
# lacks, it alone lacks.
PARTS = {
  'machine': 'machine',
  'parity': 'parity',
  'times': 'times',
  'torch': 'pytorch',
  'training': 'training',
}

# By when a part is to end, as a share of the time.
UNTIL = {
  'machine': 0.05,
  'parity': 0.3,
  'times': 0.6,
  'torch': 0.7,
  'training': 1.0,
}
# Of a row in the file, not printed.
HIDDEN = ('errors', 'traceback', 'log')


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


def run_part(report: Report, part: str, options) -> None:
  """All rows of a part; an error ends the part, not the others."""
  end = 60 * options.minutes * UNTIL[part]
  if part == options.parts[-1]:
    end = 60 * options.minutes
  try:
    module = importlib.import_module(f'experiments.accelerator.{PARTS[part]}')
    for row in module.rows(options, lambda: end - report.seconds()):
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
      report.content['ratios'] = ratios(report.content['parts'])
      report.save()
  for row in report.content.get('ratios', []):
    print(_line(row))
  print(f'{report.seconds():.0f} s; {"failed" if report.failed else "fine"}')
  return int(report.failed)


if __name__ == '__main__':
  sys.exit(main())
