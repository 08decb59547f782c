"""Compares samplers and their numbers of steps on the same weights.

  python -m experiments.samplers --checkpoint=runs/rvd
    [--samplers=ancestral:1600,ancestral:64,ddim:64,dpm++:20] [--clips=16]
    [--samples=8] [--num_frames=1] [--seeds=1] [--output=FILE.json]

`dpm++:20:5` clips estimates of the residual to plus or minus 5 on the way
(`model.clip_sample_range`), `dpm++:20` as the weights have it.

Draws futures of test clips of the run's own data and prints CRPS (8-bit units),
by how much the fair one is higher than that of the first sampler, with the
standard error over clips, the spread relative to the error, and the processor
time. All samplers see the same clips and keys; `--seeds` repeats the first
sampler with other keys, which is the noise to compare differences with.
"""

import argparse
import functools
import json
import math
import pathlib
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from vidpred_jax import (
  atomic,
  build,
  checkpoint,
  data,
  metrics,
  runtime,
  systems,
)
from vidpred_jax.systems import base, sampling

METRICS = ('crps/ens', 'crps/fair', 'spread_skill/ratio', 'psnr/float_best')
COLUMNS = ('seconds', *METRICS, 'over the first', 'standard error')


def clips_of(config, frames, count):
  """`count` clips of those the run is evaluated on, uint8 [B, ...]."""
  source = build.source(config, num_frames=frames.length)
  clips = data.eval_batches(source, batch_size=1, limit=count)
  return np.concatenate([clip['video'] for clip in clips])


def parse():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--checkpoint', required=True)
  parser.add_argument(
    '--samplers',
    default='ancestral:1600,ancestral:64,ddim:64,dpm++:64,dpm++:20,dpm++:10',
  )
  parser.add_argument('--clips', type=int, default=16)
  parser.add_argument('--samples', type=int, default=8)
  parser.add_argument('--num_frames', type=int, default=1)
  parser.add_argument('--seeds', type=int, default=1)
  parser.add_argument('--output', default='')
  return parser.parse_args()


def measured(options, name: str, seed: int, frames, video) -> dict[str, Any]:
  """What one sampler's futures are worth.

  Args:
    options: of the command line.
    name: 'SAMPLER:STEPS' or 'SAMPLER:STEPS:CLIP'.
    seed: of the keys.
    frames: what is seen and asked for.
    video: clips [B, T, H, W, C] in [0, 1].

  Returns:
    The metrics, the seconds of processor time, and 'of_clips', the fair CRPS of
    each clip [B].
  """
  sampler, steps, *clip = name.split(':')
  changed = {'sampler': sampler, 'sampling_steps': int(steps)}
  if clip:
    changed['clip_sample_range'] = float(clip[0])
  system, variables = checkpoint.load(
    options.checkpoint, frames=frames, **changed
  )
  measures = {metric: metrics.make(metric) for metric in METRICS}
  context = base.take(video, frames.context)
  target = base.take(video, frames.target)
  keys = jax.random.split(jax.random.key(seed), len(video))
  draw = functools.partial(sampling.draw, system.predict, count=options.samples)
  compiled = runtime.jit(draw).lower(variables, context, keys).compile()
  start = time.process_time()
  samples = jax.block_until_ready(compiled(variables, context, keys))
  row = {'sampler': name, 'seed': seed, 'seconds': time.process_time() - start}
  values = runtime.jit(functools.partial(metrics.of_samples, measures))(
    samples, target
  )
  for metric, measure in measures.items():
    means = np.asarray(values[metric], np.float64).mean((0, 1))
    row[metric] = float(measure.finish(means))
  each = np.asarray(values['crps/fair'], np.float64)
  return row | {'of_clips': each.reshape(len(each), -1).mean(1).tolist()}


def compared(row: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
  """`row` with what its fair CRPS is over that of the first, clip by clip."""
  over = np.subtract(row['of_clips'], first['of_clips'])
  error = np.std(over, ddof=1) / math.sqrt(len(over)) if len(over) > 1 else 0
  return row | {
    'over the first': float(np.mean(over)),
    'standard error': float(error),
  }


def main():
  options = parse()
  runtime.setup()
  config = ConfigDict(checkpoint.read_config(pathlib.Path(options.checkpoint)))
  seen = tuple(config.eval.frames.context)
  next_frame = seen[-1] + 1
  frames = systems.Frames(
    seen, tuple(range(next_frame, next_frame + options.num_frames))
  )
  video = clips_of(config, frames, options.clips)
  video = base.as_float(jax.numpy.asarray(video))
  runs = [(name, 0) for name in options.samplers.split(',')]
  runs[1:1] = [(runs[0][0], seed) for seed in range(1, options.seeds)]
  rows = []
  print(f'{"sampler":>16} {"seed":>4} ' + '  '.join(COLUMNS))
  for name, seed in runs:
    row = measured(options, name, seed, frames, video)
    rows.append(compared(row, rows[0] if rows else row))
    print(
      f'{name:>16} {seed:4} '
      + '  '.join(f'{rows[-1][c]:{len(c)}.4f}' for c in COLUMNS),
      flush=True,
    )
  if options.output:
    made = {
      'source': config.data.source,
      'clips': len(video),
      'samples': options.samples,
      'frames': options.num_frames,
      'training_steps': config.steps,
      'model': {
        name: config.model[name]
        for name in ('prediction_type', 'num_timesteps', 'sigma')
      },
      'rows': rows,
    }
    atomic.write_text(
      pathlib.Path(options.output), json.dumps(made, indent=2) + '\n'
    )


if __name__ == '__main__':
  main()
