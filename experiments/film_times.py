"""Where do the seconds go from a film to a film, and what does a frame cost?

  python -m experiments.film_times --film=A.mp4 [--size=540x960,720x1280]
    [--frames=300] [--factor=2] [--predict=10] [--output=film_times.json]
    [--compare] [--given=30] [--compare-size=360x640]

*Parts.* For each size the film's first `--frames` frames are resized once to a
scratch file; then the package's models restore it (`--factor`) and predict what
follows (`--predict`), each in a process of its own, with its own empty
compilation cache and once more with that cache filled. Given are seconds:
- `start`: from the command to the first call: imports and weights;
- `compile`: the first call of each program: tracing, lowering, compiling;
- `calls`: of the others, which on a CPU of few cores may include their work;
- `decode`, `to rgb` (a part of decode), `encode` and `sound`: of their threads
  (codecs have more of their own), by the clock and of processor time;
- `device`: for which the device had something to do, and its share of the wall
  time from the first frame after compilation to the last;
- `first frame`: from the command to the first frame that the model made;
and the largest resident memory of the process.

*Compared* (`--compare`): `--given` frames of the film, every other one, are
restored to all. FFmpeg's `minterpolate` (mci, aobmc, bidir, vsbmc; through
PyAV), DIS (`pip install 'vidpred_jax[compare]'`), the average and the model, in
turns: PSNR against the frames left out, seconds of the clock and of processor
time for a new frame, decoding and encoding not counted.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time

MODELS = {'restore': 'apr-vfi-film', 'predict': 'dmvfn-film'}
_MCI = 'mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1'


class Watch:
  """Collects seconds of parts by name: of the clock and of their thread."""

  def __init__(self):
    self.clock, self.used = {}, {}

  @contextlib.contextmanager
  def part(self, name):
    """Counts a block."""
    clock, used = time.perf_counter(), time.thread_time()
    try:
      yield
    finally:
      self.add(name, time.perf_counter() - clock, time.thread_time() - used)

  def add(self, name, clock, used=0.0):
    """Counts seconds."""
    self.clock[name] = self.clock.get(name, 0.0) + clock
    self.used[name] = self.used.get(name, 0.0) + used

  def wrap(self, owner, attribute, name):
    """Counts each call of a function of a module or class."""
    function = getattr(owner, attribute)

    @functools.wraps(function)
    def counted(*args, **kwargs):
      with self.part(name):
        return function(*args, **kwargs)

    setattr(owner, attribute, counted)

  def wrap_items(self, owner, attribute, name):
    """Counts each step of a generator."""
    function = getattr(owner, attribute)

    @functools.wraps(function)
    def counted(*args, **kwargs):
      items = function(*args, **kwargs)
      while True:
        with self.part(name):
          item = next(items, None)
        if item is None:
          return
        yield item

    setattr(owner, attribute, counted)


class Device:
  """Measures for how long the device has something to do.

  Calls run one after another. So a call is at work from when it was made, or
  from the end of the one before, to its own end, for which a thread waits.
  """

  def __init__(self, engine, watch):
    self.spans = []  # (begin, end) of each call
    self._threads = []
    self._lock = threading.Lock()
    predict = engine.Engine.predict

    def counted(*args, **kwargs):
      name = 'calls' if self._threads else 'compile'
      with watch.part(name):
        results = predict(*args, **kwargs)
      made = time.perf_counter()  # after compilation
      thread = threading.Thread(target=self._wait, args=(made, results))
      thread.start()
      self._threads.append(thread)
      return results

    engine.Engine.predict = counted

  def _wait(self, made, results):
    import jax

    jax.block_until_ready([x.frame for x in results])
    ended = time.perf_counter()
    with self._lock:
      begin = max([made, *(end for _, end in self.spans)])
      self.spans.append((begin, max(begin, ended)))

  def busy(self):
    """Seconds at work, of how many from the first call's end to the last's.

    A call that was over before it returned, as on a CPU that does not run
    ahead, counts as idle.
    """
    for thread in self._threads:
      thread.join()
    if len(self.spans) < 2:
      return 0.0, 0.0
    rest = self.spans[1:]
    return sum(b - a for a, b in rest), rest[-1][1] - self.spans[0][1]


def run_once(task, film, output, count, began):
  """One film by the model for its task, in this process: a dict of numbers."""
  import jax

  from vidpred_jax import checkpoint, runtime, video_io
  from vidpred_jax.predict import engine, videos
  from vidpred_jax.video_io import companions, showing

  watch, first = Watch(), []

  runtime.setup()
  load = functools.partial(checkpoint.load, MODELS[task])
  load()
  start = time.time() - began
  watch.wrap_items(video_io.Film, 'frames', 'decode')
  watch.wrap(showing, 'image', 'to rgb')
  watch.wrap(video_io.Writer, 'write', 'encode')
  watch.wrap(companions.Companions, 'mux', 'sound')
  device = Device(engine, watch)
  shown = engine.shown

  def first_shown(*args, **kwargs):
    result = shown(*args, **kwargs)
    first.append(time.time() - began)
    return result

  engine.shown = first_shown
  request = {'restore': 'factor', 'predict': 'num_frames'}[task]
  clock, used = time.perf_counter(), time.process_time()
  written = videos.predict_video(load, film, output, **{request: count})
  clock, used = time.perf_counter() - clock, time.process_time() - used
  busy, span = device.busy()
  return {
    'task': task,
    'device': jax.devices()[0].device_kind,
    'frames': written,
    'seconds': clock,
    'processor': used,
    'start': start,
    'first frame': first[0] if first else None,
    'device busy': busy,
    'device share': busy / span if span else None,
    'parts': watch.clock,
    'processor of parts': watch.used,
    'peak MB': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }


def times(film, sizes, options, folder):
  """Rows of the table of parts, each measured in a process of its own."""
  rows = []
  counts = {'restore': options.factor, 'predict': options.predict}
  for size in sizes:
    source = cut(film, folder / f'{size[0]}.mp4', options.frames, size)
    for task, count in counts.items():
      if not count:
        continue
      cache = tempfile.mkdtemp(dir=folder)
      for state in ('cold', 'warm'):
        asked = json.dumps(
          [task, str(source), str(folder / f'{task}-{state}.mp4'), count]
        )
        command = [sys.executable, '-m', 'experiments.film_times', '--once']
        environment = os.environ | {'VIDPRED_JAX_CACHE': cache}
        said = subprocess.run(
          [*command, asked, str(time.time())],
          env=environment,
          check=True,
          capture_output=True,
          text=True,
        ).stdout.splitlines()[-1]
        name = f'{size[0]}x{size[1]} {task}, {state}'
        rows.append(
          {'name': name, 'size': size, 'cache': state} | json.loads(said)
        )
        show(rows[-1])
        for path in folder.glob(f'{task}-{state}*'):
          path.unlink()
  return rows


def show(row):
  """Prints a row of the table of parts."""
  share, first = row['device share'], row['first frame']
  print(
    f'{row["name"]:28s} {row["frames"]:5d} frames {row["seconds"]:8.1f} s, '
    f'processor {row["processor"]:8.1f} s; start {row["start"]:.1f}, first '
    f'frame {first or 0:.1f}, device {row["device busy"]:.1f} s'
    + ('' if share is None else f' ({share:.0%})')
    + f', peak {row["peak MB"]:.0f} MB'
  )
  for name, seconds in row['parts'].items():
    used = row['processor of parts'][name]
    print(f'{"":28s} {name:10s} {seconds:8.2f} s, of its thread {used:8.2f} s')
  sys.stdout.flush()


def cut(film, path, count, size):
  """The first frames of a film in another size, with its sound."""
  from vidpred_jax import video_io

  info = video_io.probe(film)
  sound = {'audio': film} if info.has_audio else {}
  with video_io.Writer(path, fps=info.fps, overwrite=True, **sound) as writer:
    for _, frame in video_io.frames(film, stop=count, size=size):
      writer.write(frame)
  return path


# ------------------------------------------------------------------- compared


def minterpolate(frames):
  """FFmpeg's motion-compensated interpolation: uint8 frames, twice as many.

  Its first frames come late and its last never; what is missing is repeated.
  """
  from fractions import Fraction

  import av
  import numpy as np

  height, width = frames[0].shape[:2]
  graph = av.filter.Graph()
  source = graph.add_buffer(
    width=width, height=height, format='yuv444p', time_base=Fraction(1, 25)
  )
  nodes = [source, graph.add('minterpolate', f'fps=50:{_MCI}')]
  nodes += [graph.add('format', 'rgb24'), graph.add('buffersink')]
  for before, after in zip(nodes, nodes[1:]):
    before.link_to(after)
  graph.configure()
  made = {}

  def pull():
    with contextlib.suppress(BlockingIOError, EOFError):
      while True:
        frame = nodes[-1].pull()
        made[round(frame.pts * frame.time_base * 50)] = frame.to_ndarray()

  # Two more of the last, without which the filter keeps it back.
  for n, image in enumerate([*frames, frames[-1], frames[-1], frames[-1]]):
    frame = av.VideoFrame.from_ndarray(image, 'rgb24').reformat(
      format='yuv444p'
    )
    frame.pts, frame.time_base = n, Fraction(1, 25)
    source.push(frame)
    pull()
  source.push(None)
  pull()
  whole, last = [], frames[0]
  for n in range(2 * len(frames) - 1):
    last = made.get(n, last)
    whole.append(last)
  return np.stack(whole)


def pairwise(between):
  """Restores by a function of each pair, `([2, H, W, 3], 1) -> [1, ...]`."""
  import numpy as np

  def restore(frames):
    made = [frames[0]]
    for pair in zip(frames, frames[1:]):
      made += [np.asarray(between(np.stack(pair), 1))[0], pair[1]]
    return np.stack(made)

  return restore


def contenders():
  """{name: uint8 frames to twice as many}."""
  import numpy as np

  import vidpred_jax as vp
  from experiments import plain

  found = {
    'average': pairwise(plain.average),
    'minterpolate': minterpolate,
  }
  if plain.has_opencv():
    found['dis'] = pairwise(plain.dis_between)
  model = vp.Predictor.load(MODELS['restore'])
  found[MODELS['restore']] = lambda frames: np.stack(
    list(model.interpolate(frames, factor=2, ahead=1))
  )
  return found


def compare(film, size, given, makers):
  """Rows of the table of what stands beside the model."""
  import numpy as np

  from vidpred_jax import video_io

  truth = video_io.read(film)[: 2 * given - 1]
  if size is not None:
    timed = video_io.frames(film, stop=2 * given - 1, size=size)
    truth = np.stack([frame for _, frame in timed])
  truth = truth[: len(truth) - 1 + len(truth) % 2]
  rows = []
  for name, restore in makers.items():
    restore(truth[:3:2])  # compiled and opened
    clock, used = time.perf_counter(), time.process_time()
    made = restore(truth[::2])
    clock, used = time.perf_counter() - clock, time.process_time() - used
    error = np.square(made[1::2].astype(np.float32) - truth[1::2])
    mean = np.maximum(error.mean((1, 2, 3)), 255**2 / 1e6)
    rows.append(
      {
        'film': str(film),
        'by': name,
        'psnr': float(np.mean(10 * np.log10(255**2 / mean))),
        'seconds a frame': clock / (len(truth) // 2),
        'processor seconds a frame': used / (len(truth) // 2),
      }
    )
    print(
      f'{pathlib.Path(film).stem:28s} {name:14s} {rows[-1]["psnr"]:6.2f} dB, '
      f'{rows[-1]["seconds a frame"]:7.3f} s a frame, processor '
      f'{rows[-1]["processor seconds a frame"]:7.3f} s',
      flush=True,
    )
  return rows


def sizes_of(text):
  return [tuple(map(int, size.split('x'))) for size in text.split(',')]


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--film', action='append', default=[])
  parser.add_argument('--size', default='540x960,720x1280')
  parser.add_argument('--frames', type=int, default=300)
  parser.add_argument('--factor', type=int, default=2, help='0: not measured')
  parser.add_argument('--predict', type=int, default=10, help='0: not measured')
  parser.add_argument('--compare', action='store_true')
  parser.add_argument('--given', type=int, default=30)
  parser.add_argument('--compare-size', default='360x640')
  parser.add_argument('--output', default='')
  parser.add_argument('--once', nargs=2, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.once:
    asked, began = options.once
    print(json.dumps(run_once(*json.loads(asked), float(began))))
    return
  if not options.film:
    parser.error('expected --film=FILE, one or more')
  from vidpred_jax import cost, runtime

  print(cost.machine())
  report = {'machine': cost.machine(), 'times': [], 'compared': []}
  with tempfile.TemporaryDirectory() as folder:
    if options.size:
      for film in options.film:
        report['times'] += times(
          film, sizes_of(options.size), options, pathlib.Path(folder)
        )
  if options.compare:
    runtime.setup()
    makers = contenders()
    for film in options.film:
      (size,) = sizes_of(options.compare_size)
      report['compared'] += compare(film, size, options.given, makers)
  if options.output:
    pathlib.Path(options.output).write_text(json.dumps(report, indent=2))


if __name__ == '__main__':
  main()
