"""Does a frame cost less where parts of the picture stand still?

  python -m experiments.still_parts --film=A.mp4 [--size=360x640]
    [--moving=0,0.25,0.5,0.75,1] [--pairs=6] [--output=still_parts.json]

Of each pair of frames of the film, a window in the middle that has `--moving`
of the area goes on; the rest is that of the first frame, as with a camera that
stands still. APR-VFI restores the frame between them, its blocks after the
first on that share of the patches, those that differ most
(`inference_routing='reference'`). The weights are of `apr-vfi-biflownet`, which
itself routes nothing; times do not depend on them. Given are milliseconds and
processor milliseconds of a call and of the same model with every block on every
patch (`all`) and on the whole picture (`whole`), in turns, least of the pairs.

The last line has a frame's time relative to `all` by a least squares line: what
it costs when nothing is routed, and what more with all of it. *Proportional*
would be 0 and 1. Then the parts that always see the whole picture, each by
itself. DMVFN's blocks: `experiments.benchmark --systems=dmvfn`.

  python -m experiments.still_parts --whole_films --film=A.mp4,B.mp4
    [--size=360x640] [--frames=400] [--output=whole_films.json]

Every second frame of each film is dropped and restored by `apr-vfi-film`, in
windows around what moves (`predict.windows`) and as a whole, frame by frame in
turns. Given are the share of the area that is computed, the mean of all new
frames; milliseconds and processor milliseconds of a new frame; and PSNR against
the dropped frames. What was compiled meanwhile does not count; it is given by
itself. *Proportional* would be a time in windows that is that share of the
other. The line is by least squares through all new frames.
"""

import argparse
import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import vidpred_jax as vp
from vidpred_jax import cost, runtime, video_io
from vidpred_jax.models import apr_vfi, blending
from vidpred_jax.ops import routing
from vidpred_jax.predict import frame_rate, windows
from vidpred_jax.video_io import scenes

MODEL = 'apr-vfi-biflownet'


def half_still(pair, share):
  """The pair, still but for a window with that share of the area."""
  still = pair.copy()
  still[1] = pair[0]
  height, width = pair.shape[1:3]
  h, w = (round(side * share**0.5) for side in (height, width))
  top, left = (height - h) // 2, (width - w) // 2
  inside = slice(top, top + h), slice(left, left + w)
  still[1][inside] = pair[1][inside]
  return still


def routed(share, **settings):
  """A predictor whose blocks run on that share of the patches."""
  system, variables = vp.load(MODEL)
  given = dict(system.settings)
  blocks = len(given['widths']) - 1
  given |= {
    'synthesis': 'routed',
    'inference_routing': 'reference',
    'keep_ratios': (share,) * blocks,
  }
  system = vp.make(system.name, frames=system.frames, **given | settings)
  return vp.Predictor(system, variables, cut=-1)


def timed(models, pair):
  """{name: (seconds, processor seconds)} of a call, in turns."""
  result = {}
  for name, model in models.items():
    clock, used = time.perf_counter(), time.process_time()
    list(model.interpolate(pair))
    result[name] = time.perf_counter() - clock, time.process_time() - used
  return result


def measure(pairs, moving):
  """Rows of the table, and the line through them."""
  rows = []
  for share in moving:
    models = {
      'routed': routed(share),
      'all': routed(share, inference_routing='all'),
      'whole': vp.Predictor.load(MODEL, cut=-1),
    }
    made = [half_still(pair, share) for pair in pairs]
    for pair in made:
      pair[1, 0, 0] ^= 1  # between equal frames nothing is computed
    times = [timed(models, pair) for pair in [made[0], *made]][1:]
    row = {'share': share}
    for name in models:
      clock, used = (1e3 * min(t[name][i] for t in times) for i in (0, 1))
      row |= {f'{name}, ms': clock, f'{name}, processor ms': used}
    rows.append(row)
    part = row['routed, processor ms'] / row['all, processor ms']
    print(
      f'{share:5.0%}: {row["routed, ms"]:8.1f} ms, processor '
      f'{row["routed, processor ms"]:8.1f} ms; all '
      f'{row["all, processor ms"]:8.1f} ms, whole '
      f'{row["whole, processor ms"]:8.1f} ms; {part:.2f} of all',
      flush=True,
    )
  parts = [x['routed, processor ms'] / x['all, processor ms'] for x in rows]
  slope, fixed = np.polyfit(moving, parts, 1)
  print(f'time = {fixed:.2f} + {slope:.2f} x share')
  return {'rows': rows, 'fixed': fixed, 'slope': slope}


def parts(pair):
  """{part: processor ms} of what does not depend on the route."""
  system, variables = vp.load(MODEL)
  given = dict(system.settings)
  names = apr_vfi.APRVFI.__dataclass_fields__.keys() & given.keys()
  fields = {name: given[name] for name in names - {'dtype'}}
  model = apr_vfi.APRVFI(routed=False, **fields)
  pair = jnp.asarray(pair[None] / np.float32(255))

  def compiled(function):
    return functools.partial(
      runtime.jit(functools.partial(model.apply, method=function)), variables
    )

  levels = given.get('levels')
  flow = compiled(lambda model, pair: model.flow(pair, levels).flow)
  context = compiled(lambda model, pair: model.context(pair[0]))
  prepared = blending.Prepared(
    pair, flow(pair), tuple(x[None] for x in context(pair))
  )
  warp = compiled(apr_vfi.APRVFI.warp)
  warped = warp(prepared, 0.5)
  size = routing.patch_grid(*pair.shape[2:4], model.patch)
  gates = jnp.zeros((1, *size, len(model.widths) - 1))
  synthesise = compiled(
    functools.partial(apr_vfi.APRVFI.synthesise, routed=True)
  )
  calls = {
    'flow': lambda: flow(pair),
    'context': lambda: context(pair),
    'warping': lambda: warp(prepared, 0.5),
    'synthesis on no patch': lambda: synthesise(prepared, warped, gates),
  }
  found = {}
  for name, call in calls.items():
    times = []
    for _ in range(4):
      used = time.process_time()
      jax.block_until_ready(call())
      times.append(1e3 * (time.process_time() - used))
    found[name] = min(times[1:])
    print(f'{name:24s} processor {found[name]:8.1f} ms', flush=True)
  return found


def shares(frames, serve):
  """The share of the area that is computed of each new frame."""
  height, width = frames[0].shape[:2]
  given = windows.ladder(
    height, width, multiple=serve.system.multiple, fits=lambda *size: True
  )
  spared, found = {}, []

  def make(context, phases):
    nonlocal spared
    pair = (frame.image for frame in context)
    places, spared = windows.choose(spared, given, *pair, len(phases))
    found.append(windows.pixels(places, given) / (height * width))
    return [(context[0].image, {'share': found[-1]})]

  marked = scenes.mark(
    enumerate(frames),
    scenes.MIN_SIMILARITY,
    lambda item: scenes.thumbnail(item[1]),
  )
  marked = ((time, frame, begins) for (time, frame), begins in marked)
  twice = frame_rate.upsampled_phases(2, 2)
  shots = frame_rate.interpolate(marked, twice, 2, make)
  # Where nothing is made, a frame of the input is repeated.
  return [about.get('share', 0.0) for _, about in shots][1::2]


def decibels(made, truth):
  error = np.square(made.astype(np.float32) - truth).mean()
  return 10 * np.log10(255**2 / max(error, 1e-3))


def restored(film, size, count, compiled):
  """What is measured of one film; `compiled` collects seconds."""
  read = video_io.frames(film, stop=count, size=size)
  frames = [frame for _, frame in read]
  frames = frames[: len(frames) - (len(frames) + 1) % 2]
  kept, dropped = frames[::2], frames[1::2]
  models = {
    name: vp.Predictor.load('apr-vfi-film', whole=name == 'whole')
    for name in ('windows', 'whole')
  }
  share = shares(kept, models['windows'])
  shots = {name: model.interpolate(kept) for name, model in models.items()}
  spent = {name: ([], []) for name in models}
  quality = {name: [] for name in models}
  before = len(compiled)
  for n in range(len(frames)):
    # The order changes, for the second has the first one's caches.
    for name in list(models)[:: 1 if n % 4 < 2 else -1]:
      programs = len(compiled)
      clock, used = time.perf_counter(), time.process_time()
      shown = next(shots[name])
      passed = time.perf_counter() - clock, time.process_time() - used
      if n % 2:
        quality[name].append(decibels(shown, dropped[n // 2]))
        for times, seconds in zip(spent[name], passed):
          # Frames while a program was compiled say nothing.
          times.append(np.nan if len(compiled) > programs else 1e3 * seconds)
  return row_of(film, share, spent, quality, compiled[before:])


def row_of(film, share, spent, quality, compiled):
  """The row of one film."""
  name = pathlib.Path(film).name
  row = {'film': name, 'frames': len(share), 'share': float(np.mean(share))}
  for way in spent:
    clock, used = (float(np.nanmean(times)) for times in spent[way])
    row |= {f'{way}, ms': clock, f'{way}, processor ms': used}
    row[f'{way}, dB'] = float(np.mean(quality[way]))
  row['ratio'] = row['windows, processor ms'] / row['whole, processor ms']
  row['compiled'] = [round(seconds, 1) for seconds in compiled]
  lower = np.subtract(quality['whole'], quality['windows'])
  row['most lost, dB'] = float(lower.max())
  row['most lost, frame'] = int(lower.argmax())
  part = np.divide(spent['windows'][1], np.nanmedian(spent['whole'][1]))
  seen = ~np.isnan(part)
  line = 'shares too equal for a line'
  if np.std(share) > 0.05:
    slope, fixed = np.polyfit(np.array(share)[seen], part[seen], 1)
    row |= {'fixed': float(fixed), 'slope': float(slope)}
    line = f'{fixed:.2f} + {slope:.2f} x share'
  print(
    f'{name}: share {row["share"]:.2f}, processor '
    f'{row["windows, processor ms"]:.0f} of {row["whole, processor ms"]:.0f} '
    f'ms: {row["ratio"]:.2f} ({row["windows, ms"]:.0f} of '
    f'{row["whole, ms"]:.0f} ms); {line}; '
    f'{row["windows, dB"]:.2f} dB, whole {row["whole, dB"]:.2f}, a '
    f'frame up to {row["most lost, dB"]:.2f} less '
    f'({row["most lost, frame"]}); compiled {row["compiled"]} s',
    flush=True,
  )
  return row


def whole_films(films, size, count):
  """A row for each film."""
  compiled = []

  def listen(event, seconds, **_):
    if event.endswith('backend_compile_duration') and seconds > 0.5:
      compiled.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  return [restored(film, size, count, compiled) for film in films]


def one_film(options, size):
  """Pairs of one film, made still in parts."""
  timed_frames = video_io.frames(
    options.film, stop=4 * options.pairs + 2, step=2, size=size
  )
  frames = [frame for _, frame in timed_frames]
  pairs = [np.stack(x) for x in zip(frames[::2], frames[1::2])]
  pairs = pairs[: options.pairs]
  moving = [float(x) for x in options.moving.split(',')]
  return {**measure(pairs, moving), 'parts': parts(pairs[0])}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--film', required=True)
  parser.add_argument('--size', default='')
  parser.add_argument('--whole_films', action='store_true')
  parser.add_argument('--frames', type=int, default=400)
  parser.add_argument('--moving', default='0,0.25,0.5,0.75,1')
  parser.add_argument('--pairs', type=int, default=6)
  parser.add_argument('--output', default='')
  options = parser.parse_args()
  runtime.setup()
  print(cost.machine())
  size = options.size or ('' if options.whole_films else '360x640')
  size = tuple(map(int, size.split('x'))) if size else None
  if options.whole_films:
    films = options.film.split(',')
    report = whole_films(films, size, options.frames)
  else:
    report = one_film(options, size)
  if options.output:
    pathlib.Path(options.output).write_text(json.dumps(report, indent=2))


if __name__ == '__main__':
  main()
