"""What does each part of SimVP learn later? (Figure 11 of SimVPv2)

  python -m experiments.swapped EARLY LATE [--output=swapped]

EARLY and LATE are runs of one SimVP of different length, in the paper of 50 and
100 epochs, whose `eval.save` kept test clips. Each part of EARLY, the encoder,
the translator and the decoder, is replaced by that of LATE, and the clips of
EARLY are predicted: their errors are printed, with the standard error over
clips of what a part changes. OUTPUT/PART is a system with that part of LATE,
for `vidpred` and `--config.init_from`; OUTPUT/swapped.png shows the first
clip: what came, EARLY, the three, LATE.
"""

import argparse
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vidpred_jax import atomic, checkpoint, metrics, params, runtime

PARTS = {  # with their running statistics
  'encoder': '[a-z_]+/encoder/.*',
  'translator': '[a-z_]+/translation/.*',
  'decoder': '[a-z_]+/decoder/.*',
}
METRIC = 'mse/sum_chw'  # the tables of the paper


def swapped(early, late) -> dict[str, dict]:
  """The variables of each row: both, and EARLY with each part of LATE.

  Args:
    early: Flax variables of SimVP, nested dicts of arrays.
    late: those of another run, of the same names and shapes.

  Returns:
    `{'early', 'encoder', 'translator', 'decoder', 'late'}`.

  Raises:
    ValueError: if the second lacks an array or has another shape of it.
  """
  changed = {
    part: params.take_matching(early, late, pattern)
    for part, pattern in PARTS.items()
  }
  return {'early': early, **changed, 'late': late}


def predictions(system, trees, context) -> dict[str, np.ndarray]:
  """What each predicts of clips [M, Tc, H, W, C], 16 at once: [M, N, ...]."""
  predict = jax.jit(system.predict)

  def of(tree):
    each = [
      predict(tree, clips, runtime.key(0))
      for clips in np.split(context, range(16, len(context), 16))
    ]
    return np.concatenate(each)

  return {name: of(tree) for name, tree in trees.items()}


def errors(shown: np.ndarray, target: np.ndarray) -> np.ndarray:
  """The error of each clip, [M], of frames [M, N, H, W, C] in [0, 1]."""
  found = metrics.of_samples(
    {METRIC: metrics.make(METRIC)}, jnp.asarray(shown[None]), target
  )
  return np.float64(found[METRIC]).mean(1)


def picture(rows) -> np.ndarray:
  """Rows of frames, [N, H, W, C] in [0, 1] each, as one image in bytes."""
  lines = [np.concatenate(list(np.clip(row, 0, 1)), axis=1) for row in rows]
  image = np.concatenate(lines)
  if image.shape[-1] == 1:
    image = np.repeat(image, 3, -1)
  return np.uint8(np.round(255 * image))


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('early', metavar='EARLY')
  parser.add_argument('late', metavar='LATE')
  parser.add_argument('--output', type=pathlib.Path, default='swapped')
  options = parser.parse_args()
  system, variables = checkpoint.load(options.early)
  other, late = checkpoint.load(options.late)
  clips = pathlib.Path(options.early) / 'predictions.npz'
  if {system.name, other.name} != {'simvp'} or not clips.exists():
    parser.error(
      f'EARLY and LATE are runs of SimVP, EARLY with {clips.name} (eval.save); '
      f'got {system.name} and {other.name}, {clips} '
      f'{"exists" if clips.exists() else "does not exist"}.'
    )
  with np.load(clips) as saved:
    context = np.float32(saved['context']) / 255
    target = np.float32(saved['target']) / 255
  trees = swapped(variables, late)
  shown = predictions(system, trees, context)
  of_clips = {name: errors(frames, target) for name, frames in shown.items()}
  print(f'{len(target)} clips, {METRIC}, and what it is less than of {"early"}')
  for name, each in of_clips.items():
    gain = of_clips['early'] - each
    error = np.std(gain, ddof=1) / math.sqrt(len(gain))
    print(f'{name:<12} {each.mean():8.3f} {gain.mean():8.3f} +- {error:.3f}')
  for name in PARTS:
    checkpoint.export(
      system, trees[name], options.output / name, overwrite=True
    )
  with atomic.replacing(options.output / 'swapped.png') as partial:
    frames = [target[0], *(each[0] for each in shown.values())]
    Image.fromarray(picture(frames)).save(partial, format='png')
  print(f'Written to {options.output}: {", ".join(PARTS)}, swapped.png')


if __name__ == '__main__':
  main()
