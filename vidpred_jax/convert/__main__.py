"""The command line of the conversion.

  python -m vidpred_jax.convert --system=dmvfn --input=weights.pkl --output=DIR
      [--set name=value ...] [--key=NAME]

writes an export. Each `--set` is a setting of the system, such as `--set
router_scale=4`, or of the conversion, such as `--set channel_order=rgb`.
Settings that follow from the weights need not be set (`trained_settings`).
"""

import json

import jax
from absl import flags

from vidpred_jax import atomic, checkpoint, command, convert


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_enum('system', None, sorted(convert.CONVERTERS), 'What it is.')
  flags.DEFINE_string('input', None, 'The file of weights.')
  flags.DEFINE_string('output', None, 'The folder to make.')
  flags.DEFINE_string('key', None, 'Where in the file the weights are.')
  flags.DEFINE_multi_string('set', [], 'A setting, name=value; repeatable.')
  flags.DEFINE_bool(
    'allow_nonfinite', False, 'Take weights that are infinite or no numbers.'
  )
  command.require('system', 'input', 'output')


def main(argv) -> None:
  """Converts a file by the flags and prints what was written."""
  del argv
  values = flags.FLAGS
  atomic.check_new(values.output, parents=True)
  settings = command.parse_settings(values.set)
  state_dict = convert.read_torch(values.input, key=values.key)
  variables = convert.from_torch(
    values.system,
    state_dict,
    allow_nonfinite=values.allow_nonfinite,
    **settings,
  )
  settings = convert.trained_settings(values.system, state_dict) | settings
  _, settings = convert.split_settings(values.system, settings)
  checkpoint.save_system(
    values.output,
    system=values.system,
    settings=settings,
    frames=convert.trained_frames(values.system, state_dict),
    variables=variables,
  )
  leaves = jax.tree.leaves(variables['params'])
  report = {
    'output': values.output,
    'system': values.system,
    'settings': settings,
    'parameters': sum(leaf.size for leaf in leaves),
  }
  print(json.dumps(report))


if __name__ == '__main__':
  command.run(main, define_flags)
