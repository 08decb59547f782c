"""Compares samplers and their numbers of steps on the same weights.

  python -m experiments.samplers --checkpoint=runs/rvd
    [--samplers=ancestral:1600,ancestral:64,ddim:64,dpm++:20] [--clips=16]
    [--samples=8] [--num_frames=1] [--seeds=1]

Draws futures of test clips of the run's own data and prints CRPS (8-bit units),
the spread relative to the error, and the time. All samplers see the same clips
and keys; `--seeds` repeats the first sampler with other keys, which is the
noise to compare differences with.
"""

import argparse
import functools
import json
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from vidpred_jax import (
  build,
  checkpoint,
  data,
  metrics,
  runtime,
  systems,
)
from vidpred_jax.systems import base, sampling

METRICS = ('crps/ens', 'crps/fair', 'spread_skill/ratio', 'psnr/float_best')


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


def main():
  options = parse()
  runtime.setup()
  config = checkpoint.read_config(pathlib.Path(options.checkpoint))
  config = ConfigDict(config)
  seen = tuple(config.eval.frames.context)
  next_frame = seen[-1] + 1
  frames = systems.Frames(
    seen, tuple(range(next_frame, next_frame + options.num_frames))
  )
  video = clips_of(config, frames, options.clips)
  video = base.as_float(jax.numpy.asarray(video))
  context = base.take(video, frames.context)
  target = base.take(video, frames.target)
  measures = {name: metrics.make(name) for name in METRICS}
  runs = [(name, 0) for name in options.samplers.split(',')]
  runs[1:1] = [(runs[0][0], seed) for seed in range(1, options.seeds)]
  rows = []
  print(f'{"sampler":>16} {"seed":>4} {"seconds":>8} ' + '  '.join(METRICS))
  for name, seed in runs:
    sampler, steps = name.split(':')
    system, variables = checkpoint.load(
      options.checkpoint,
      frames=frames,
      sampler=sampler,
      sampling_steps=int(steps),
    )
    keys = jax.random.split(jax.random.key(seed), len(video))
    draw = functools.partial(
      sampling.draw, system.predict, count=options.samples
    )
    compiled = runtime.jit(draw).lower(variables, context, keys).compile()
    start = time.perf_counter()
    samples = jax.block_until_ready(compiled(variables, context, keys))
    row = {'sampler': name, 'seed': seed}
    row['seconds'] = time.perf_counter() - start
    values = runtime.jit(functools.partial(metrics.of_samples, measures))(
      samples, target
    )
    for metric, measure in measures.items():
      means = np.asarray(values[metric], np.float64).mean((0, 1))
      row[metric] = float(measure.finish(means))
    rows.append(row)
    print(
      f'{name:>16} {seed:4} {row["seconds"]:8.1f} '
      + '  '.join(f'{row[m]:{len(m)}.4f}' for m in METRICS),
      flush=True,
    )
  if options.output:
    with open(options.output, 'w') as file:
      json.dump(rows, file, indent=2)


if __name__ == '__main__':
  main()
