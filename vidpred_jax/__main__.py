"""The commands of the package as one: `vidpred predict --input=...`.

`vidpred NAME ...` does what `python -m vidpred_jax.NAME ...` does.
"""

import runpy
import sys

from vidpred_jax import starting

# Of each: the module, flags that are given to it, and what it does.
_COMMANDS = {
  'predict': (
    'vidpred_jax.predict',
    [],
    'a film in; slow motion (--factor=2) or what follows out',
  ),
  'train': (
    'vidpred_jax.main',
    ['--mode=train,eval'],
    'trains the system of a configuration, and measures it',
  ),
  'evaluate': ('vidpred_jax.main', ['--mode=eval'], 'measures a run again'),
  'compare': ('vidpred_jax.compare', [], 'results of runs side by side'),
  'data': ('vidpred_jax.data', [], 'lists, checks and prepares data'),
  'cost': ('vidpred_jax.cost', [], 'operations, time and parameters'),
  'export': ('vidpred_jax.export', [], 'to StableHLO, ONNX, PyTorch weights'),
  'convert': ('vidpred_jax.convert', [], "authors' published weights to ours"),
}


def main() -> None:
  """Runs the command that the first argument names."""
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('-h', '--help'):
    print('usage: vidpred COMMAND --option=value ...\n')
    for command, (_, _, does) in _COMMANDS.items():
      print(f'  {command:9} {does}')
    print('\nvidpred COMMAND --help lists the options of a command.')
    return
  if name not in _COMMANDS:
    print(
      f'Error: There is no command {name!r}; there are {", ".join(_COMMANDS)}.',
      file=sys.stderr,
    )
    sys.exit(2)
  starting.begin()
  module, flags, _ = _COMMANDS[name]
  sys.argv[1:2] = flags
  runpy.run_module(module, run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
