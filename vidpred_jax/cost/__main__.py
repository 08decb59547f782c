"""Measures the system of a configuration and prints JSON.

python -m vidpred_jax.cost --config=FILE.py:variants

`--parameters` prints a table of the parameters instead, by the package clu.
"""

import copy
import json

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from vidpred_jax import command, params, runtime
from vidpred_jax.cost import measure


def define_flags() -> None:
  """Defines the flags of this command."""
  config_flags.DEFINE_config_file(
    'config', None, 'Configuration file, with variants: FILE.py:a,b'
  )
  flags.DEFINE_string('checkpoint', None, 'Weights; random ones without.')
  flags.DEFINE_string('input', None, 'A video to predict; a made one without.')
  flags.DEFINE_string('size', None, 'HxW; by default that of the data.')
  flags.DEFINE_string(
    'route', None, "Value of the system's setting inference_routing."
  )
  flags.DEFINE_bool('parameters', False, 'List them and measure nothing.')
  flags.DEFINE_integer(
    'batch', 1, 'Clips at once.', lower_bound=1, upper_bound=4096
  )
  flags.DEFINE_integer(
    'repeats', 20, 'Timed calls.', lower_bound=1, upper_bound=10**6
  )
  command.require('config')


def main(argv) -> None:
  """Prints the cost of a configuration's system as JSON."""
  del argv
  options = flags.FLAGS
  runtime.setup()
  from vidpred_jax import build

  config = build.completed(options.config)
  if options.route is not None:
    if 'inference_routing' not in config.model:
      raise ValueError(f'{config.system} has no routes, got --route.')
    config.model.inference_routing = options.route
  system = build.system(config, config.eval.frames)
  architecture = None
  if 'formulation' in config.model:
    published = copy.deepcopy(config)
    published.model.formulation = 'published'
    architecture = build.system(published, config.eval.frames)
  video = _clip(options, config, system)
  if options.checkpoint:
    from vidpred_jax import checkpoint

    _, variables = checkpoint.load(
      options.checkpoint, **config.model.to_dict() | {'frames': system.frames}
    )
  elif options.parameters:
    variables = jax.eval_shape(system.init, runtime.key(0), video)
  else:
    variables = system.init(runtime.key(0), jax.numpy.asarray(video))
  if options.parameters:
    known = options.checkpoint is not None
    print(params.overview(variables['params'], stats=known))
    return
  report = {'system': config.system, 'weights': options.checkpoint or 'random'}
  report |= measure(
    system,
    variables,
    np.repeat(video, options.batch, axis=0),
    architecture=architecture,
    repeats=options.repeats,
  )
  print(json.dumps(report, indent=2))


def _clip(options, config, system) -> np.ndarray:
  """The clip [1, T, H, W, C] to measure on."""
  size = config.data.get('size')
  if options.size is not None:
    size = command.parse_size(options.size)
  if not size:
    raise ValueError(
      'The configuration names no size; --size=HxW is needed, such as 256x832.'
    )
  height, width = map(int, size)
  length = system.frames.length
  if options.input:
    from vidpred_jax import video_io

    size = height, width
    clip = video_io.read(options.input, count=length, size=size)
    return clip[None, ..., : system.channels]
  # Smooth colours that move.
  t, y, x = np.mgrid[:length, :height, :width].astype(np.float32)
  waves = [np.sin((x + 2 * t) / 9), np.cos((y - t) / 7), np.sin((x + y) / 17)]
  waves = [waves[c % 3] for c in range(system.channels)]
  return (127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)[None]


if __name__ == '__main__':
  command.run(main, define_flags)
