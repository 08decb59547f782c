"""The command of the comparison, see the package."""

import argparse
import sys

import jax

from experiments import parity
from vidpred_jax import runtime


def main(arguments=None) -> int:
  parser = argparse.ArgumentParser(description=parity.__doc__.split('\n')[0])
  parser.add_argument('--shared', default='../shared', help='a folder')
  parser.add_argument(
    '--systems',
    type=lambda text: text.split(','),
    default=list(parity.SYSTEMS),
    help=f'of {", ".join(parity.SYSTEMS)}; all by default',
  )
  options = parser.parse_args(arguments)
  if unknown := set(options.systems) - set(parity.SYSTEMS):
    parser.error(f'no system {", ".join(sorted(unknown))}')
  runtime.setup()
  jax.config.update('jax_default_matmul_precision', 'highest')
  count, wrong, title = 0, 0, None
  try:
    for case, array, error, tolerance in parity.compare(
      options.shared, options.systems
    ):
      if title != (title := f'\n{case.system} {case.name}'):
        print(title)
      within = error <= tolerance
      count, wrong = count + 1, wrong + (not within)
      verdict = 'ok' if within else 'TOO FAR'
      print(f'  {array:66s} {error:9.2e}  of {tolerance:7.0e}  {verdict}')
  except FileNotFoundError as error:
    print(f'Nothing was compared: {error}', file=sys.stderr)
    return 1
  backend = jax.default_backend()
  print(f'\n{wrong} of {count} arrays are too far off on {backend}.')
  return int(wrong > 0)


if __name__ == '__main__':
  sys.exit(main())
