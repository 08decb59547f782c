"""The commands of the package as one: `vidpred predict --input=...`.

`vidpred NAME ...` does what `python -m vidpred_jax.NAME ...` does.
"""

import runpy
import sys

from vidpred_jax import starting

_COMMANDS = {
  'train': ('vidpred_jax.main', ['--mode=train,eval']),
  'evaluate': ('vidpred_jax.main', ['--mode=eval']),
  'predict': ('vidpred_jax.predict', []),
  'convert': ('vidpred_jax.convert', []),
  'compare': ('vidpred_jax.compare', []),
  'cost': ('vidpred_jax.cost', []),
  'data': ('vidpred_jax.data', []),
  'export': ('vidpred_jax.export', []),
}


def main() -> None:
  """Runs the command that the first argument names."""
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('-h', '--help'):
    print(f'usage: vidpred {{{",".join(_COMMANDS)}}} --option=value ...')
    return
  if name not in _COMMANDS:
    print(
      f'Error: There is no command {name!r}; there are {", ".join(_COMMANDS)}.',
      file=sys.stderr,
    )
    sys.exit(2)
  starting.begin()
  module, flags = _COMMANDS[name]
  sys.argv[1:2] = flags
  runpy.run_module(module, run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
