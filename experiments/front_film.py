"""The film at the top of the README: what the shipped models make.

python -m experiments.front_film --output=docs/film.gif

Photographs in motion that no model has learned from (the split 'test'). First
every second frame is shown, beside it the film with the frames between made by
`apr-vfi-film`; then what `dmvfn-film` predicts from the last frames, beside the
true ones.
"""

import argparse

import numpy as np

import vidpred_jax as vp
from vidpred_jax import data, picture, video_io

_SIZE = (128, 176)
_SEEN, _FUTURE = 9, 5


def frames():
  """The frames of the film, pictures of one size."""
  source = data.make_source(
    'photos',
    split='test',
    num_frames=_SEEN + _FUTURE,
    size=_SIZE,
    max_speed=4.0,
  )
  clip = source[0]['video']
  seen, future = clip[:_SEEN], clip[_SEEN:]
  between = vp.Predictor.load('apr-vfi-film', cut=-1.0)
  made = list(between.interpolate(seen[::2], 2))
  after = vp.Predictor.load('dmvfn-film').predict(seen, num_frames=_FUTURE)
  for n in range(_SEEN):
    yield _shown(
      [seen[n // 2 * 2], made[n], seen[n]],
      ['a film', 'in slow motion', 'true'],
    )
  for n in range(_FUTURE):
    yield _shown(
      [seen[-1], after[n], future[n]],
      ['its last frame', f'what follows, t+{n + 1}', 'true'],
    )


def _shown(panels, titles) -> np.ndarray:
  return picture.grid([panels], column_titles=titles)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--output', required=True)
  parser.add_argument('--fps', type=int, default=6)
  options = parser.parse_args()
  shown = list(frames())
  height = max(x.shape[0] for x in shown)
  width = max(x.shape[1] for x in shown)
  with video_io.Writer(options.output, fps=options.fps, overwrite=True) as film:
    for image in shown:
      image = np.pad(
        image,
        ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)),
        mode='edge',
      )
      film.write(image)


if __name__ == '__main__':
  main()
