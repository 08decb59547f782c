"""How many clips a second does training get, before and after `--prepare`?

  python -m experiments.feeding --scratch=DIR [--films=FOLDER] [--batches=6]

Two kinds of data. Pictures of 2048x1024 as Cityscapes has them, PNG files that
are made in `--scratch`: the source 'frames' brings them to 512x1024. Films in
`--films`, brought to 256x448. Of both, clips of `--frames` frames are cut to
224x224, in batches of 8, as DMVFN trains, by two threads. Then the same of what
`data.prepare` wrote of them, with and without compression.

Given are clips per second of the clock, and clips per second of processor time,
which other programs on the machine hardly change; then how long preparing took
per frame, and the bytes.
"""

import argparse
import os
import pathlib
import time

import numpy as np
from PIL import Image

from vidpred_jax import data
from vidpred_jax.data import prepare

_BATCH = 8
_PICTURES = 6


def write_pictures(folder: pathlib.Path) -> pathlib.Path:
  """Two sequences of 30 files, few of them different, as Cityscapes lies."""
  city = folder / 'leftImg8bit_sequence' / 'train' / 'aachen'
  if city.is_dir():
    return folder
  city.mkdir(parents=True)
  y, x = np.mgrid[:1024, :2048].astype(np.float32)
  rng = np.random.default_rng(0)
  for t in range(_PICTURES):
    waves = [
      np.sin((x + 3 * t) / 40) + np.cos((y - t) / 31),
      np.sin((x + y + 2 * t) / 90) + np.cos(x / 7),
      np.cos((x - 2 * y) / 60) + np.sin((y + t) / 11),
    ]
    frame = 127.5 + 50 * np.stack(waves, -1)
    # As of a camera: 3 MB in a file.
    frame += rng.normal(0, 2, frame.shape).astype(np.float32)
    name = folder / f'{t}.png'
    Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(name)
  for sequence in range(2):
    for t in range(30):
      name = city / f'aachen_{sequence:06d}_{t:06d}_leftImg8bit.png'
      os.link(folder / f'{t % _PICTURES}.png', name)
  return folder


def speed(batches: int, name: str, **settings) -> tuple[float, float]:
  """Clips per second of the clock and of processor time."""
  with data.train_iterator(
    name, batch_size=_BATCH, seed=0, crop=224, **settings
  ) as stream:
    next(stream)  # what is opened once
    clock, used = time.perf_counter(), time.process_time()
    for _ in range(batches):
      next(stream)
    clock, used = time.perf_counter() - clock, time.process_time() - used
  return batches * _BATCH / clock, batches * _BATCH / used


def told(name: str, rates, more: str = '') -> None:
  print(f'{name:36s} {rates[0]:8.2f} {rates[1]:8.2f}  {more}', flush=True)


def measure(name: str, place: pathlib.Path, options, source, settings) -> None:
  """Prints the rates of a source, and of what is prepared of it."""
  frames = {'num_frames': options.frames}
  told(name, speed(options.batches, source, **frames, **settings))
  for compress in (False, True):
    output = place / f'prepared-{name.split()[0].strip(",")}-{int(compress)}'
    clock = time.perf_counter()
    count = prepare.prepare(
      source,
      output,
      splits=('train',),
      workers=2,
      compress=compress,
      progress=True,
      **settings,
    )['train']
    clock = time.perf_counter() - clock
    size = sum(p.stat().st_size for p in output.glob('*.array_record'))
    words = f'{1000 * clock / count:.0f} ms and {size / count / 1e3:.0f} kB'
    told(
      f'  prepared{", compressed" if compress else ""}',
      speed(10 * options.batches, 'prepared', root=output, **frames),
      f'{words} a frame, {count} frames',
    )


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--scratch', required=True, help='a folder to write to')
  parser.add_argument('--films', help='a folder of films')
  parser.add_argument('--frames', type=int, default=3, help='of a clip')
  parser.add_argument('--batches', type=int, default=6, help='timed')
  options = parser.parse_args()
  place = pathlib.Path(options.scratch)
  pictures = write_pictures(place / 'pictures')
  print(f'{"":36s} {"clips/s":>8s} {"clips/s of processor"}', flush=True)
  measure(
    'pictures 2048x1024',
    place,
    options,
    'frames',
    {'dataset': 'cityscapes', 'root': str(pictures)},
  )
  if options.films:
    films = {'root': options.films, 'size': (256, 448), 'test_fraction': 0.0}
    for cache in (0, 512):
      told(
        f'films, {cache} MB of them kept',
        speed(
          options.batches,
          'videos',
          num_frames=options.frames,
          cache_mb=cache,
          **films,
        ),
      )
    measure(
      'films, none kept', place, options, 'videos', films | {'cache_mb': 0}
    )


if __name__ == '__main__':
  main()
