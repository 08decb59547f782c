"""How many clips a second does training get, before and after `--prepare`?

  python -m experiments.feeding --scratch=DIR [--films=FOLDER] [--batches=6]
    [--workers=0,1,2,4] [--step]

Two kinds of data. Pictures of 2048x1024 as Cityscapes has them, PNG files that
are made in `--scratch`: the source 'frames' brings them to 512x1024. Films in
`--films`, brought to 256x448. Of both, clips of `--frames` frames are cut to
224x224, in batches of 8, as DMVFN trains, by two threads. Then the same of what
`data.prepare` wrote of them, with and without compression.

Given are clips per second of the clock, and clips per second of processor time,
which other programs on the machine hardly change; then how long preparing took
per frame, and the bytes. `--workers`: of each source by so many processes, 0
being two threads of this one; processor time is that of all processes.
`--step`: how many clips a training step of the small DMVFN (`dmvfn.py:demo`)
eats on this machine, which a source must give to keep it busy.
"""

import argparse
import multiprocessing
import os
import pathlib
import time

import numpy as np
from PIL import Image

from vidpred_jax import data, runtime
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


def processor_time() -> float:
  """Seconds of this process and of those it has started."""
  used = time.process_time()
  for child in multiprocessing.active_children():
    place = pathlib.Path(f'/proc/{child.pid}/stat')
    if place.exists():
      fields = place.read_text().rpartition(')')[2].split()
      used += sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')
  return used


def speed(batches: int, name: str, **settings) -> tuple[float, float]:
  """Clips per second of the clock and of processor time."""
  with data.train_iterator(
    name, batch_size=_BATCH, seed=0, crop=224, **settings
  ) as stream:
    # What is opened once, and what workers have loaded ahead by then.
    for _ in range(1 + 2 * settings.get('workers', 0)):
      next(stream)
    clock, used = time.perf_counter(), processor_time()
    for _ in range(batches):
      next(stream)
    clock, used = time.perf_counter() - clock, processor_time() - used
  return batches * _BATCH / clock, batches * _BATCH / max(used, 1e-3)


def eaten(steps: int) -> tuple[float, float]:
  """Clips per second that a small DMVFN learns from, as `speed` gives them."""
  import jax

  from configs import dmvfn
  from vidpred_jax import build
  from vidpred_jax.train import update

  config, mesh = dmvfn.get_config('demo'), runtime.mesh()
  system = build.system(config, config.frames)
  size = config.augment.crop or config.data.size
  shape = (config.batch_size, system.frames.length, *size, system.channels)
  schedule, of_rule = update.optimiser_settings(config)
  state, rule = update.initial_state(
    config, system, schedule, of_rule, mesh, shape
  )
  step = update.placed(update.make_step(config, system, rule), mesh)
  batch = {'video': np.zeros(shape, np.uint8)}

  def run(count, state):
    for _ in range(count):
      state, values = step(state, batch, jax.random.key(0))
    jax.block_until_ready(values)
    return state

  state = run(1, state)
  clock, used = time.perf_counter(), time.process_time()
  run(steps, state)
  clock, used = time.perf_counter() - clock, time.process_time() - used
  clips = steps * config.batch_size
  return clips / clock, clips / used


def by_workers(name, options, source, **settings) -> None:
  """Prints the rates of a source for each number of workers."""
  for workers in map(int, options.workers.split(',')):
    rates = speed(
      options.batches,
      source,
      num_frames=options.frames,
      workers=workers,
      **settings,
    )
    told(f'{name}, {workers} workers', rates)


def told(name: str, rates, more: str = '') -> None:
  print(f'{name:36s} {rates[0]:8.2f} {rates[1]:8.2f}  {more}', flush=True)


def measure(name: str, place: pathlib.Path, options, source, settings) -> None:
  """Prints the rates of a source, and of what is prepared of it."""
  frames = {'num_frames': options.frames}
  by_workers(name, options, source, **settings)
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
  parser.add_argument('--workers', default='0', help='0,1,2,4')
  parser.add_argument('--step', action='store_true', help='time a step too')
  options = parser.parse_args()
  place = pathlib.Path(options.scratch)
  pictures = write_pictures(place / 'pictures')
  print(f'{"":36s} {"clips/s":>8s} {"clips/s of processor"}', flush=True)
  if options.step:
    runtime.setup()
    told('eaten by a step of dmvfn.py:demo', eaten(10))
  by_workers(
    'photographs in motion', options, 'photos', size=(256, 448), num_clips=1000
  )
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
