"""How fast is a film decoded, and in how much memory, by several versions?

  python -m experiments.decoding --films=a.mp4,b.mp4 [--checkouts=.,OLDER]

Each way of each film is a process of its own, in each of the checkouts in turn:
`frames` streams the frames in their size, `small` resized to 128 rows, and
`index` makes what clips are found by. Given are frames for each second of
processor time, which other programs on the machine hardly change; the largest
memory in use; and by how much that is more than after the imports. Without
`--films` one is made, of 1280x720 and `--seconds` at 25 frames a second.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from vidpred_jax import video_io

_WAYS = ('frames', 'small', 'index')
_MEASURE = """
import resource, sys, time
from vidpred_jax import video_io
film, way = sys.argv[1:]
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before, begin = most(), time.process_time()
if way == 'index':
  count = video_io.index(film).num_frames
else:
  info = video_io.probe(film)
  size = (128, 128 * info.width // info.height) if way == 'small' else None
  count = sum(1 for _ in video_io.frames(film, size=size))
print(count, time.process_time() - begin, most(), before)
"""


def write_film(path: pathlib.Path, seconds: int) -> None:
  """Noise at three scales that moves, 1280x720 in H.264."""
  rng = np.random.default_rng(0)
  large = sum(
    np.kron(rng.random((720 // n, 1280 // n, 3)), np.ones((n, n, 1)))
    for n in (4, 20, 80)
  )
  picture = (85 * large).astype(np.uint8)
  with video_io.Writer(path, fps=25) as writer:
    for n in range(25 * seconds):
      writer.write(np.roll(picture, (n, 3 * n), (0, 1)))


def measured(checkout: str, film: str, way: str) -> str:
  """A row of the table."""
  found = subprocess.run(
    [sys.executable, '-c', _MEASURE, os.path.abspath(film), way],
    cwd=checkout,
    env=os.environ | {'PYTHONPATH': os.path.abspath(checkout)},
    capture_output=True,
    text=True,
    check=True,
  )
  count, seconds, most, before = map(float, found.stdout.split())
  return (
    f'| {os.path.basename(film)} | {way} | {checkout} | {count:.0f} | '
    f'{count / max(seconds, 1e-9):.0f} | {most:.0f} | {most - before:.0f} |'
  )


def main() -> None:
  """Prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--films', default='')
  parser.add_argument('--checkouts', default='.')
  parser.add_argument('--ways', default=','.join(_WAYS))
  parser.add_argument('--seconds', type=int, default=20)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    films = [film for film in options.films.split(',') if film]
    if not films:
      films = [f'{folder}/film.mp4']
      write_film(pathlib.Path(films[0]), options.seconds)
    print('| film | way | version | frames | frames/s | MB | more by |')
    print('| --- | --- | --- | ---: | ---: | ---: | ---: |')
    for film in films:
      for way in options.ways.split(','):
        for checkout in options.checkouts.split(','):
          print(measured(checkout, film, way), flush=True)


if __name__ == '__main__':
  main()
