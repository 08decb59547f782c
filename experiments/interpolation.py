"""How well are every second frames of films restored?

  python -m experiments.interpolation --checkpoint=DIR --videos='clips/*.mp4'
    [--pairs=10] [--step=1] [--size=256x448] [--output=interpolation.json]

Of each film, of which only every `step`-th frame is taken, the frames 0, 2, 4,
... are given and 1, 3, 5, ... predicted, with the library's own `Predictor`;
beside it the average of the two frames given. With `--size` frames are resized
first, whatever their shape.
PSNR of frames rounded to 8 bits, mean over the frames (`psnr/round8`); pairs of
equal frames are left out, as films have them where the camera repeats itself.
"""

import argparse
import glob
import json

import jax.numpy as jnp
import numpy as np

import vidpred_jax as vp
from vidpred_jax import metrics, runtime, video_io


def restored(predictor, frames):
  """The odd frames from the even ones, uint8 [N, H, W, 3] both."""
  between = predictor.interpolate(frames[::2], factor=2)
  return np.stack(list(between))[1::2]


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--checkpoint', required=True)
  parser.add_argument('--videos', required=True, help='a pattern')
  parser.add_argument('--pairs', type=int, default=10)
  parser.add_argument('--step', type=int, default=1, help='frames apart')
  parser.add_argument('--size', help="HxW, else the film's")
  parser.add_argument('--output', default='')
  options = parser.parse_args()
  size = options.size and tuple(map(int, options.size.split('x')))
  runtime.setup()
  predictor = vp.Predictor(*vp.load(options.checkpoint))
  psnr = runtime.jit(metrics.make('psnr/round8').values)

  def score(images, truth):
    values = psnr(jnp.asarray(images)[None], jnp.asarray(truth)[None])
    return np.asarray(values)[0]

  rows = []
  print(f'{"film":32} {"frames":>6} {"average":>8} {"system":>8} {"gain":>6}')
  for path in sorted(glob.glob(options.videos)):
    stop = 2 * options.pairs * options.step + 1
    timed = video_io.frames(path, stop=stop, step=options.step, size=size)
    frames = np.stack([frame for _, frame in timed])
    frames = frames[: len(frames) - (len(frames) + 1) % 2]
    given = frames[::2].astype(np.float32)
    moving = [not np.array_equal(a, b) for a, b in zip(given, given[1:])]
    truth = frames[1::2][: len(moving)][moving]
    if not len(truth):
      continue
    average = np.rint((given[:-1] + given[1:]) / 2).astype(np.uint8)[moving]
    ours = restored(predictor, frames)[moving]
    row = {
      'film': path,
      'frames': len(truth),
      'average': float(score(average, truth).mean()),
      'system': float(score(ours, truth).mean()),
    }
    rows.append(row)
    print(
      f'{path[-32:]:32} {row["frames"]:6} {row["average"]:8.2f} '
      f'{row["system"]:8.2f} {row["system"] - row["average"]:6.2f}',
      flush=True,
    )
  if options.output:
    with open(options.output, 'w') as file:
      json.dump(rows, file, indent=2)


if __name__ == '__main__':
  main()
