"""Soak test: damaged files, killed runs and wrong requests, by a seed.

  python -m tests.soak --seed=0 --count=200 --minutes=10 [--only=films,kills]

Each part makes `count` tries (kills: a fiftieth), or stops when its share of
the minutes is over. These are faults: an exception other than ValueError and
OSError, a message that does not name the file, a try of more than 30 seconds or
600 MB, damage that is accepted, and a killed run whose result differs from that
of an undisturbed one. The program ends with 1 if it has met a fault, and keeps
the file that caused it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import logging

from tests import commands, exports, muxing
from tests.convert import harm
from vidpred_jax import checkpoint, convert, runtime, systems, video_io

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIMIT = 30  # seconds for one try
MOST = 600 << 10  # kB for one try
TINY = (
  '--config=configs/dmvfn.py:smoke',
  '--config.model.scales=(2,1)',
  '--config.model.widths=(8,8)',
  '--config.data.size=(32,32)',
  '--config.steps=8',
  '--config.checkpoint_every=2',
)


class Slow(Exception):
  """A try took too long."""


class Part:
  """One part of the soak: its tries and their faults."""

  def __init__(self, name, seed, count, minutes, folder, kept):
    self.name, self.count, self.kept = name, count, kept
    self.random = random.Random(f'{name} {seed}')
    self.minutes = minutes
    self.folder = folder / name
    self.folder.mkdir(parents=True)
    self.tried = self.refused = 0
    self.faults = []

  def numbers(self, count=None):
    """Yields the numbers of tries until `count` or the end of the time."""
    end = time.time() + 60 * self.minutes  # preparation does not count
    for n in range(self.count if count is None else count):
      if n and time.time() > end:
        return
      self.tried += 1
      yield n

  def fault(self, what, path=None):
    """Notes a fault, and keeps the file that shows it."""
    number = len(self.faults)
    if path is not None and path.exists():
      place = self.kept / f'{self.name}_{number}_{path.name}'
      place.parent.mkdir(parents=True, exist_ok=True)
      (shutil.copytree if path.is_dir() else shutil.copy)(path, place)
      what = f'{what} ({place})'
    self.faults.append(what)

  def attempt(self, label, path, function, named=True):
    """Calls `function`; returns its result, or None if it raised an error."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin, result = time.time(), None

    def ring(*_):
      raise Slow

    old = signal.signal(signal.SIGALRM, ring)
    signal.alarm(2 * LIMIT)
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        result = function()
    except (ValueError, OSError) as error:
      self.refused += 1
      if named and path.name not in str(error):
        self.fault(f'{label}: a message without the file: {error!s:.200}', path)
      if len(str(error)) > 20_000:
        self.fault(f'{label}: {len(str(error))} letters', path)
    except Slow:
      self.fault(f'{label}: no end in {2 * LIMIT} s', path)
    except Exception as error:
      self.fault(f'{label}: {type(error).__name__}: {error!s:.200}', path)
    finally:
      signal.alarm(0)
      signal.signal(signal.SIGALRM, old)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > MOST:
      self.fault(f'{label}: {grown >> 10} MB', path)
    if time.time() - begin > LIMIT:
      self.fault(f'{label}: {time.time() - begin:.0f} s', path)
    return result


def damaged(rng: random.Random, data: bytes) -> bytes:
  """A copy with flipped bits, or with parts removed, zeroed or replaced."""
  made = bytearray(data)
  for _ in range(rng.choice((1, 1, 1, 3, 20))):
    if not made:
      break
    at, length = rng.randrange(len(made)), rng.choice((1, 4, 16, 400))
    how = rng.randrange(6)
    if how == 0:
      made[at] ^= 1 << rng.randrange(8)
    elif how == 1:
      made[at : at + length] = rng.randbytes(length)
    elif how == 2:
      made[at : at + length] = bytes(length)
    elif how == 3:
      del made[at : at + length]
    elif how == 4:
      made[at:at] = made[rng.randrange(len(made)) :][:length]
    elif rng.random() < 0.3:
      del made[at:]
  return bytes(made)


def small_export(folder):
  """A small exported system."""
  settings = {'scales': (2, 1), 'widths': (8, 8), 'beta': 0.6}
  frames = systems.Frames((0, 1), (2,))
  system = systems.make('dmvfn', frames=frames, **settings)
  clip = jnp.zeros((1, 3, 16, 16, 3))
  checkpoint.save_system(
    folder,
    system='dmvfn',
    settings=settings,
    frames=frames,
    variables=jax.jit(system.init)(runtime.key(0), clip),
    data=systems.DataSpec(),
  )
  return settings, frames


# ----------------------------------------------------------------- the parts


def weights(part: Part) -> None:
  """Harmful and damaged weight files."""
  made = list(harm.HARMFUL.values())
  good = [
    harm.good_zip(),
    harm.npz(),
    safetensors.numpy.save({'w': np.ones(9)}),
  ]
  path = part.folder / 'weights.pth'
  for n in part.numbers():
    whole = n < len(made)
    path.write_bytes(
      made[n]() if whole else damaged(part.random, _any(part, good))
    )
    arrays = part.attempt('read', path, lambda: convert.read_torch(path))
    if whole and arrays:
      part.attempt(
        'convert',
        path,
        lambda arrays=arrays: convert.from_torch('dmvfn', arrays),
        named=False,
      )


def _any(part, values):
  return values[part.random.randrange(len(values))]


def hostile(part: Part) -> None:
  """Exports with wrong records or flipped bits."""
  small_export(part.folder / 'good')
  record, arrays = exports.good(part.folder / 'good')
  data = (part.folder / 'good' / 'weights.safetensors').read_bytes()
  _, intact = checkpoint.load(part.folder / 'good')
  records = list(exports.hostile_records(record))
  path = part.folder / 'export'
  for _ in part.numbers():
    how = part.random.randrange(4)
    harmless = False
    if how == 0:
      label, made = _any(part, records)
      exports.write(path, made, data)
    elif how == 1:
      label, made = _any(part, list(exports.hostile_weights(arrays)))
      made = {k: np.ascontiguousarray(v) for k, v in made.items()}
      exports.write(path, record, safetensors.numpy.save(made))
    elif how == 2:  # damaged, and the sum made to fit
      label, harmless = 'damaged text', True
      text = damaged(part.random, json.dumps(record).encode())
      try:
        made = json.loads(text)
      except (ValueError, RecursionError):
        made = text
      exports.write(path, made, data)
    else:
      label, harmless = 'flipped', True
      exports.write(path, record, data)
      name = _any(part, ['system.json', 'weights.safetensors'])
      (path / name).write_bytes(
        damaged(part.random, (path / name).read_bytes())
      )
    found = part.attempt(label, path, lambda: checkpoint.load(path))
    if found is None:
      continue
    if not harmless:
      part.fault(f'{label}: taken', path)
    elif how == 3 and not _equal(found[1], intact):
      part.fault(f'{label}: other weights', path)


def _equal(a, b) -> bool:
  return jax.tree.structure(a) == jax.tree.structure(b) and all(
    np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
  )


def runs(part: Part) -> None:
  """Damaged files of an unfinished run."""
  settings, frames = small_export(part.folder / 'good')
  _, variables = checkpoint.load(part.folder / 'good')
  whole = part.folder / 'whole'
  whole.mkdir()
  config = {
    'system': 'dmvfn',
    'model': settings,
    'features': {},
    'eval': {'frames': frames._asdict()},
  }
  checkpoint.write_json(whole / 'config.json', config)
  checkpoint.write_json(whole / 'data.json', {'kind': 'image'})
  with checkpoint.manager(whole) as saved:
    state = exports.State(variables['params'], {}, {})
    checkpoint.save(saved, 1, state)
  files = [p.relative_to(whole) for p in whole.rglob('*') if p.is_file()]
  path = part.folder / 'run'
  for _ in part.numbers():
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole, path)
    name = _any(part, files)
    content = (path / name).read_bytes()
    if part.random.random() < 0.1:
      (path / name).unlink()
    else:
      (path / name).write_bytes(damaged(part.random, content))
    found = part.attempt(str(name), path, lambda: checkpoint.load(path))
    if found is not None and not _equal(found[1], variables):
      part.fault(f'{name}: other weights', path)


# Containers that are only read, and a coding for each.
FOREIGN = {
  'flv': 'flv', 'ivf': 'libvpx', 'ogv': 'libvpx', 'mxf': 'mpeg2video',
  'nut': 'mpeg4', 'ts': 'mpeg2video', 'mpg': 'mpeg1video', 'wmv': 'wmv2',
  'webm': 'libvpx',
}  # fmt: skip


def films(part: Part) -> None:
  """Damaged films and pictures, read in four ways."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 255, (8, 12, 3)).repeat(6, 0).repeat(6, 1)
  noise = noise.astype(np.uint8)
  kinds = ('mp4', 'mkv', 'webm', 'gif', 'avi', 'mov', 'y4m', 'png')
  whole = {}
  for kind in kinds:
    path = part.folder / (f'whole.{kind}' if kind != 'png' else 'whole')
    with video_io.Writer(path, fps=10) as writer:
      for n in range(10):
        writer.write(np.roll(noise, 5 * n, 1))
    if kind == 'png':
      path = path / 'frame_000000.png'
    whole[kind] = path.read_bytes()
  clip = [np.roll(noise, 5 * n, 1) for n in range(10)]
  for kind, codec in FOREIGN.items():
    for piped in (False, True):
      path = part.folder / f'whole.{kind}'
      muxing.muxed(path, codec, clip, piped=piped)
      whole[kind, piped] = path.read_bytes()
  kinds = tuple(whole)
  ways = (
    lambda path: list(video_io.frames(path)),
    video_io.probe,
    lambda path: video_io.read(path, size=(16, 16)),
    lambda path: video_io.Film(path).last(2),
  )
  for _ in part.numbers():
    kind = _any(part, kinds)
    name = kind if isinstance(kind, str) else kind[0]
    path = part.folder / f'film.{name}'
    path.write_bytes(damaged(part.random, whole[kind]))
    way = part.random.randrange(len(ways))
    part.attempt(f'{name} {way}', path, lambda p=path, w=way: ways[w](p))


WRONG = (
  '--config.keep=0', '--config.keep=-1', '--config.accumulate=0',
  '--config.accumulate=-1', '--config.checkpoint_every=0',
  '--config.log_every=0', '--config.seed=1180591620717411303424',
  '--config.seed=-1', '--config.workers=-1', '--config.batch_size=1000000000',
  '--config.batch_size=7.5', '--config.schedule.warmup=-1',
  '--config.schedule.peak=nan', '--config.optim.b1=2.0',
  '--config.optim.clip_norm=-1.0', '--config.ema.decay=2.0',
  '--config.eval.metrics=("none",)', '--config.eval.show=-1',
  '--config.eval.batch_size=0',
  '--config.eval.limit=-1', '--config.eval.show_fps=0',
  '--config.eval.show_as=webp', '--config.eval.every=-1',
  '--config.eval.best=psnr', '--config.data.size=(100000,100000)',
  '--config.data.size=(0,8)', '--config.model.scales=(1048576,2)',
  '--config.model.depth=3', '--config.model.routing=x',
  '--config.frames.target=()', '--config.frames.target=(5,9)',
  '--config.eval.frames.target=(99999999,)', '--config.init_match=(',
  '--config.optim.frozen=("nothing",)', '--config.nothing=1',
  '--config=nowhere.py', '--config=LICENSE', '--mode=x', '--coordinator=x:y',
  '--config.steps=0', '--config.schedule.name=x', '--workdir=',
)  # fmt: skip


def requests(part: Part) -> None:
  """Requests that no run can serve."""
  with commands.Forks() as forks:
    for n in part.numbers(min(part.count, len(WRONG))):
      workdir = part.folder / f'{n}'
      wrong = WRONG[n] if part.count >= len(WRONG) else _any(part, WRONG)
      begin = time.time()
      arguments = *TINY, f'--workdir={workdir}', wrong
      status, out, err = forks.run('vidpred_jax.main', *arguments)
      lines = [x for x in err.splitlines() if x.strip() and '%|' not in x]
      fine = status == 2 and len(lines) == 1 and lines[0].startswith('Error: ')
      part.refused += fine
      if not fine:
        part.fault(
          f'{wrong}: status {status}, {len(lines)} lines: {lines[-2:]}'
        )
      if time.time() - begin > 3 * LIMIT:
        part.fault(f'{wrong}: {time.time() - begin:.0f} s')


def kills(part: Part) -> None:
  """Runs that are killed repeatedly at random times."""

  def start(workdir):
    return subprocess.Popen(
      [sys.executable, '-m', 'vidpred_jax.main', *TINY, f'--workdir={workdir}'],
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
    )

  whole = part.folder / 'whole'
  begin = time.time()
  if start(whole).wait():
    part.fault('the run that nobody disturbs fails')
    return
  lasting = time.time() - begin
  for n in part.numbers(max(1, part.count // 50)):
    workdir = part.folder / f'{n}'
    for _ in range(20):
      process = start(workdir)
      number = _any(part, [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(part.random.uniform(0.1, 0.9) * lasting)
        break
      process.send_signal(number)
      process.communicate()
      part.refused += 1
    status = start(workdir).wait()
    if status:
      part.fault(f'ends with {status} after it was killed', workdir)
      continue
    for name in ('export/weights.safetensors', 'results.json'):
      if (workdir / name).read_bytes() != (whole / name).read_bytes():
        part.fault(f'{name} is another', workdir)
    names = [{p.name for p in x.iterdir()} for x in (workdir, whole)]
    left = [x for x in names[0] - names[1] if not x.startswith('events')]
    if left:
      part.fault(f'left behind: {left}', workdir)


PARTS = {
  'weights': weights,
  'exports': hostile,
  'runs': runs,
  'films': films,
  'requests': requests,
  'kills': kills,
}


def soak(names, *, seed, count, minutes, kept) -> list[Part]:
  """Runs some parts for `minutes` each."""
  done = []
  logging.set_verbosity(logging.FATAL)  # Orbax says the same again
  with tempfile.TemporaryDirectory() as folder:
    for name in names:
      part = Part(name, seed, count, minutes, pathlib.Path(folder), kept)
      begin = time.time()
      PARTS[name](part)
      part.lasted = time.time() - begin
      done.append(part)
  return done


def table(parts: list[Part]) -> str:
  """A table with a line for each part, and the faults."""
  lines = ['part       tried  refused  faults  seconds']
  for x in parts:
    lines.append(
      f'{x.name:9} {x.tried:6} {x.refused:8} {len(x.faults):7} {x.lasted:8.0f}'
    )
  return '\n'.join(lines + [f'{x.name}: {f}' for x in parts for f in x.faults])


def main() -> int:
  """Runs the parts that the arguments name; returns 1 after a fault."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--count', type=int, default=200)
  parser.add_argument('--minutes', type=float, default=60)
  parser.add_argument('--only', default=','.join(PARTS))
  parser.add_argument('--kept', type=pathlib.Path, default='soak_faults')
  options = parser.parse_args()
  names = options.only.split(',')
  parts = soak(
    names,
    seed=options.seed,
    count=options.count,
    minutes=options.minutes / len(names),
    kept=options.kept,
  )
  print(table(parts))
  return int(any(part.faults for part in parts))


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  sys.exit(main())
