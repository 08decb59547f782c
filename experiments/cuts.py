"""Measures the scene cuts that `video_io.scenes` detects.

  python -m experiments.cuts --videos=../shared/data [--frames=48] [--before=5]

Every pair of films is joined: the last `--before` frames read of the one, then
the first frames of the other. Each of these cuts should be detected. Each film
by itself, of which `--frames` are read, should have only its own cuts, which
are named. This is repeated with the films unchanged, with bars of 2.39:1 and of
4:3, upright between bars, in a window on white, and at 0.15 of the light.
"""

import argparse

import numpy as np
from PIL import Image

from vidpred_jax import video_io
from vidpred_jax.video_io import scenes

_SIZE = (360, 640)


def inside(frame, top, left, height, width, around):
  """A frame that covers a part of a page of one grey."""
  page = np.full((*_SIZE, 3), around, np.uint8)
  scale = max(height / frame.shape[0], width / frame.shape[1])
  size = [
    max(m, round(n * scale)) for m, n in zip((height, width), frame.shape)
  ]
  image = Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR)
  i, j = (size[0] - height) // 2, (size[1] - width) // 2
  part = np.asarray(image)[i : i + height, j : j + width]
  page[top : top + height, left : left + width] = part
  return page


def whole(frame):
  return inside(frame, 0, 0, *_SIZE, 0)


SHOWN = {
  'as it is': whole,
  'bars, 2.39:1': lambda f: inside(f, 46, 0, 268, 640, 0),
  'bars, 4:3': lambda f: inside(f, 0, 80, 360, 480, 0),
  'upright between bars': lambda f: inside(f, 0, 219, 360, 202, 0),
  'window on white': lambda f: inside(f, 90, 160, 180, 320, 255),
  '0.15 of the light': lambda f: np.rint(0.15 * whole(f)).astype(np.uint8),
}


def seen(path, number):
  """Thumbnails of the first frames of a film, in each way of showing it."""
  info = video_io.probe(path)
  scale = min(1, 360 / min(info.height, info.width))
  size = round(info.height * scale), round(info.width * scale)
  found = {k: np.zeros((number, *scenes.THUMBNAIL, 3), np.uint8) for k in SHOWN}
  count = 0
  for _, frame in video_io.frames(path, stop=number, size=size):
    for name, show in SHOWN.items():
      found[name][count] = scenes.thumbnail(show(frame))
    count += 1
  return {name: list(small[:count]) for name, small in found.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--videos', required=True, help='a folder')
  parser.add_argument('--frames', type=int, default=48)
  parser.add_argument('--before', type=int, default=5)
  options = parser.parse_args()
  films = {}
  for path in video_io.find_videos(options.videos):
    if path.is_dir():
      continue
    films[path.name] = seen(path, options.frames)

  print(f'{len(films)} films')
  print(f'{"shown":22} {"cuts":>6} {"missed":>7} {"pairs":>7} {"false":>7}')
  own = {}
  for name in SHOWN:
    missed = cuts = pairs = wrong = 0
    for a, before in films.items():
      found = scenes.find(before[name])
      # What is found in the film as it is are its own changes of scene.
      own.setdefault(a, found if name == 'as it is' else ())
      pairs += len(before[name]) - 1
      wrong += len(found)
      for b, after in films.items():
        if a == b:
          continue
        n = min(options.before, len(before[name]))
        joined = before[name][-n:] + after[name][: options.before]
        cuts += 1
        missed += n not in scenes.find(joined)
    print(
      f'{name:22} {cuts:6} {100 * missed / cuts:6.2f}% {pairs:7} '
      f'{100 * wrong / pairs:6.2f}%'
    )
  print('found within films:')
  for name, found in own.items():
    if found:
      print(f'  {name}: {", ".join(map(str, found))}')


if __name__ == '__main__':
  main()
