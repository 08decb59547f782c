"""Compares predicted and interpolated frames of films with the true frames.

  python -m experiments.films --videos FOLDER_OR_PATTERN ...
    [--checkpoint NAME_OR_DIR ...] [--size=256x448 | --size=own]
    [--horizons=1,3,5,10] [--distances=2,4] [--windows=12] [--keep-repeated]
    [--routes] [--output=films.json]

Contenders:
- `copy` repeats the last frame; `average` is the mean of both input frames.
- `dis` uses DIS optical flow, if OpenCV is installed (`pip install
  'vidpred_jax[compare]'`). For prediction the last frame is warped by the flow
  to the previous frame, at constant velocity. For interpolation both frames are
  warped half the way by the flow to each other, and averaged.
- Each checkpoint predicts or interpolates, whichever its system does.

*Tasks.* t+K is the K-th frame after the input, beyond what a model predicts at
once from its predictions. A
distance of D is the interpolation of the middle frame of two input frames that
are D frames apart. A checkpoint may see a frame more on both sides, as far
apart; then the windows of all contenders are longer.

*Windows.* At most `--windows` windows of successive frames are taken of each
film, evenly spread, none across a cut. With a size frames are resized to cover
it and cropped. Films and scenes that are too short are left out and named. So
are windows with a frame twice in a row, as in films whose camera repeats
frames: there a copy is exact and nothing is predicted. `--keep-repeated` keeps
them. The windows depend on their length, so on the horizons and the longest
context: only tables with the same values are comparable.

*Numbers.* PSNR of 8 bits (`psnr/round8`, at most 60 dB, for equal frames) and
SSIM (`ssim/pmss`), averaged over the windows of a film and then over films with
equal weight. The 95 % interval of the mean is a bootstrap of 2000 draws of the
films. The table also has the fraction of films where a contender is best (ties
count for all), and its gain over the first contender, mean and on the worst
film. Milliseconds per frame are medians over windows without the first call, so
without compilation.

*Routes* (`--routes`), for systems that select blocks: all windows in four
quarters by motion, the mean absolute difference of the last two input frames in
levels of 255. The table has the mean number of used blocks per frame and the
milliseconds of a single frame.
"""

import argparse
import fractions
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import vidpred_jax as vp
from experiments import plain
from vidpred_jax import metrics, runtime
from vidpred_jax.data import videos

MEASURES = {'psnr/round8': {'cap': 60.0}, 'ssim/pmss': {}}
QUARTERS = ('slowest', 'slow', 'fast', 'fastest')


class Task(NamedTuple):
  """What is given and asked of a window, and what of that is scored.

  Attributes:
    kind: 'prediction' or 'interpolation'.
    frames: indices into the window.
    scored: {label: which of `frames.target`}.
  """

  kind: str
  frames: vp.Frames
  scored: dict[str, int]


class Contender(NamedTuple):
  """A way to make frames.

  Attributes:
    make: `(given [T, H, W, 3], count) -> [count, H, W, 3]`, uint8.
    blocks: None, or of given frames how many blocks a system uses for the next
      frame; None where it makes none.
  """

  make: Callable
  blocks: Callable | None = None


# ------------------------------------------------------------------ contenders


def baselines(kind):
  """{name: Contender}; without DIS where there is no OpenCV."""
  predicts = kind == 'prediction'
  found = {'copy': plain.copy} if predicts else {'average': plain.average}
  if plain.has_opencv():
    found['dis'] = plain.dis_onwards if predicts else plain.dis_between
  return {name: Contender(make) for name, make in found.items()}


def system(predictor):
  """The kind of a loaded system, and its Contender."""
  if predictor.system.frames.interpolates:

    def diagnosed(given):
      given = plain.middle(given, len(predictor.system.frames.context))
      # Only the frame in the middle is wanted, at half the time.
      shown = predictor.resample(
        ((fractions.Fraction(n), frame) for n, frame in enumerate(given)),
        fractions.Fraction(2, len(given) - 1),
        with_diagnostics=True,
      )
      return list(shown)[1]

    def restore(given, count):
      del count
      return diagnosed(given)[0][None]

    return 'interpolation', Contender(restore, routes(predictor, diagnosed))

  def diagnosed(given):
    return next(predictor.stream(given, 1, with_diagnostics=True))

  return 'prediction', Contender(
    predictor.predict, routes(predictor, diagnosed)
  )


def routes(predictor, diagnosed):
  """Of given frames the number of blocks used, or None: see `Contender`."""
  if predictor.system.diagnostics is None:
    return None

  def blocks(given):
    used = diagnosed(given)[1].get('blocks')
    return None if used is None else float(np.sum(used))

  return blocks


# ----------------------------------------------------------------------- films


def tasks(horizons, distances, seen):
  """The tasks; `seen` says for each kind how many frames are given."""
  context, around = seen['prediction'], seen['interpolation']
  found = []
  if horizons:
    target = tuple(range(context, context + max(horizons)))
    scored = {f't+{k}': k - 1 for k in horizons}
    frames = vp.Frames(tuple(range(context)), target)
    found.append(Task('prediction', frames, scored))
  for distance in distances:
    given = range(0, around * distance, distance)
    middle = (around - 1) * distance // 2
    frames = vp.Frames(tuple(given), (middle,))
    found.append(Task('interpolation', frames, {f'distance {distance}': 0}))
  return found


def windows(path, length, count, size, keep_repeated):
  """At most `count` windows [length, H, W, 3] of a film, evenly spread."""
  source = videos.VideoClips(
    'test', length, root=path, test_files=path, size=size, hop=1
  )
  chosen = np.linspace(0, len(source) - 1, min(count, len(source))).round()
  for i in chosen.astype(int):
    clip = source[i]['video']
    twice = any(map(np.array_equal, clip[1:], clip))
    if keep_repeated or not twice:
      yield clip


def timed(make, given, count):
  """The frames, and milliseconds for one of them."""
  start = time.perf_counter()
  frames = np.asarray(make(given, count))
  return frames, 1e3 * (time.perf_counter() - start) / count


@functools.cache
def measures():
  return {
    name: runtime.jit(metrics.make(name, **settings).values)
    for name, settings in MEASURES.items()
  }


def score(made, truth):
  """{measure: [N]} of frames [N, H, W, 3]."""
  pair = [np.asarray(x, np.uint8)[None] for x in (made, truth)]
  return {name: np.asarray(f(*pair))[0] for name, f in measures().items()}


def compare(task, contenders, clips):
  """Scores of a film's windows, and routes.

  Returns:
    Rows of label and contender: mean measures and milliseconds a frame; rows of
    contender and window: motion, blocks, milliseconds.
  """
  given = [clip[list(task.frames.context)] for clip in clips]
  between = task.kind == 'interpolation'
  truth = [clip[list(task.frames.target)] for clip in clips]
  picked = list(task.scored.values())
  rows, routed = [], []
  for name, contender in contenders.items():
    count = len(task.frames.target)
    contender.make(given[0], count)
    made, ms = zip(*(timed(contender.make, g, count) for g in given))
    scores = [score(m[picked], t[picked]) for m, t in zip(made, truth)]
    means = {k: np.mean([s[k] for s in scores], axis=0) for k in scores[0]}
    for n, label in enumerate(task.scored):
      row = {key: float(mean[n]) for key, mean in means.items()}
      ms_a_frame = float(np.median(ms))
      rows.append({'label': label, 'by': name, **row, 'ms': ms_a_frame})
    routed += [
      {'by': name, **row} for row in route_rows(contender, given, between)
    ]
  return rows, routed


def route_rows(contender, given, between):
  """Motion, blocks and milliseconds of every window where blocks are used."""
  used = [contender.blocks and contender.blocks(g) for g in given]
  for frames, blocks in zip(given, used):
    if blocks is not None:
      contender.make(frames, 1)
      pair = plain.middle(frames, 2) if between else frames[-2:]
      motion = float(np.abs(np.diff(pair.astype(np.float32), axis=0)).mean())
      ms = timed(contender.make, frames, 1)[1]
      yield {'motion': motion, 'blocks': blocks, 'ms': ms}


# -------------------------------------------------------------------- summary


def interval(values, draws=2000, seed=0):
  """The 95 % interval of the mean of [films], by bootstrap over films."""
  rng = np.random.default_rng(seed)
  means = rng.choice(values, (draws, len(values))).mean(1)
  return [float(x) for x in np.percentile(means, (2.5, 97.5))]


def summary(rows):
  """{label: {contender: {measure: numbers}}} of the rows of all films."""
  labels = dict.fromkeys(row['label'] for row in rows)
  return {k: summary_of([r for r in rows if r['label'] == k]) for k in labels}


def summary_of(rows):
  """Of the rows of one label; see the module docstring for the numbers."""
  names = list(dict.fromkeys(row['by'] for row in rows))
  found = {name: {} for name in names}
  for measure in MEASURES:
    table = np.array(
      [[r[measure] for r in rows if r['by'] == name] for name in names]
    )
    for name, values in zip(names, table):
      gain = values - table[0]
      found[name][measure] = {
        'mean': float(values.mean()),
        'interval': interval(values),
        'best': float((values >= table.max(0)).mean()),
        'gain': float(gain.mean()),
        'gain_interval': interval(gain),
        'least_gain': float(gain.min()),
      }
  for name in names:
    ms = [row['ms'] for row in rows if row['by'] == name]
    found[name]['ms'] = float(np.mean(ms))
  return found


def quarters(routed):
  """{contender: rows} by motion, as many clips in each."""
  found = {}
  for name in dict.fromkeys(row['by'] for row in routed):
    rows = sorted(
      (r for r in routed if r['by'] == name), key=lambda r: r['motion']
    )
    found[name] = [
      {
        'quarter': quarter,
        'clips': len(part),
        **{
          key: float(np.mean([r[key] for r in part]))
          for key in ('motion', 'blocks', 'ms')
        },
      }
      for quarter, part in zip(QUARTERS, np.array_split(rows, 4))
      if len(part)
    ]
  return found


# ---------------------------------------------------------------------- tables


def print_films(label, rows):
  """PSNR and SSIM of every film."""
  rows = [row for row in rows if row['label'] == label]
  names = list(dict.fromkeys(row['by'] for row in rows))
  print(f'\n{label:44}' + ''.join(f'{name[-15:]:>16}' for name in names))
  for film in dict.fromkeys(row['film'] for row in rows):
    cells = [
      f'{row["psnr/round8"]:9.2f} {row["ssim/pmss"]:.4f}'
      for row in rows
      if row['film'] == film
    ]
    name = '/'.join(pathlib.Path(film).parts[-2:])
    print(f'{name[-44:]:44}' + ''.join(cells))


def print_summary(found):
  print(
    f'\n{"":14}{"":16}{"PSNR, dB":>8} {"95 %":^14}{"best":>5}{"gain":>7}'
    f'{"least":>7}{"SSIM":>8} {"95 %":^16}{"best":>5}{"ms":>8}'
  )
  for label, contenders in found.items():
    for name, numbers in contenders.items():
      psnr, ssim = (numbers[measure] for measure in MEASURES)
      low, high = psnr['interval']
      bottom, top = ssim['interval']
      print(
        f'{label:14}{name[-15:]:16}{psnr["mean"]:8.2f} {low:6.2f}..{high:5.2f} '
        f'{psnr["best"]:5.2f}{psnr["gain"]:7.2f}{psnr["least_gain"]:7.2f}'
        f'{ssim["mean"]:8.4f} {bottom:.4f}..{top:.4f}  {ssim["best"]:5.2f}'
        f'{numbers["ms"]:8.1f}'
      )


def print_routes(found):
  for name, rows in found.items():
    print(f'\n{name}: {"clips":>6} {"motion":>7} {"blocks":>7} {"ms":>8}')
    for row in rows:
      print(
        f'{row["quarter"]:{len(name) + 1}} {row["clips"]:6} '
        f'{row["motion"]:7.2f} {row["blocks"]:7.2f} {row["ms"]:8.1f}'
      )


# ------------------------------------------------------------------------ main


def numbers(text):
  return [int(part) for part in text.split(',') if part]


def parse(arguments):
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  several = {'action': 'extend', 'nargs': '+', 'default': []}
  parser.add_argument('--videos', required=True, **several)
  parser.add_argument('--checkpoint', **several)
  parser.add_argument('--size', default='256x448', help="HxW or 'own'")
  parser.add_argument('--horizons', type=numbers, default=[1, 3, 5, 10])
  parser.add_argument('--distances', type=numbers, default=[2, 4])
  parser.add_argument('--windows', type=int, default=12, help='of a film')
  parser.add_argument('--keep-repeated', action='store_true')
  parser.add_argument('--routes', action='store_true')
  parser.add_argument('--output', default='', help='a JSON file')
  options = parser.parse_args(arguments)
  if min(options.horizons, default=1) < 1 or options.windows < 1:
    parser.error('Horizons and windows must be at least 1.')
  if any(d < 2 or d % 2 for d in options.distances):
    parser.error('Distances must be even, from 2 on: the middle is asked for.')
  return options


def load(checkpoints, routed):
  """{kind: {name: Contender}}, and {kind: how many frames they see}."""
  found = {kind: baselines(kind) for kind in ('prediction', 'interpolation')}
  seen = dict.fromkeys(found, 2)
  for name in checkpoints:
    predictor = vp.Predictor(*vp.load(name))
    kind, contender = system(predictor)
    frames = predictor.system.frames
    count = len(frames.context)
    if kind == 'prediction':
      check_steps(name, frames)
      count = frames.context[-1] - frames.context[0] + 1
    seen[kind] = max(seen[kind], count)
    label = pathlib.Path(name).name
    if label in found[kind]:
      label = name
    found[kind][label] = contender if routed else Contender(contender.make)
  return found, seen


def check_steps(name, frames):
  """Raises ValueError unless predictions are t+1, t+2, ..."""
  first = max(frames.context) + 1
  if frames.target != tuple(range(first, first + len(frames.target))):
    raise ValueError(
      f'{name} predicts {frames.target} from {frames.context}; expected the '
      'frames right after the context, one after another.'
    )


def run(options):
  """All that is measured, as written to `--output`."""
  size = options.size
  size = None if size == 'own' else tuple(map(int, size.split('x')))
  contenders, seen = load(options.checkpoint, options.routes)
  rows, routed, left_out = [], [], []
  for path in videos.find(tuple(options.videos)):
    start = time.perf_counter()
    for task in tasks(options.horizons, options.distances, seen):
      try:
        clips = list(
          windows(
            path,
            task.frames.length,
            options.windows,
            size,
            options.keep_repeated,
          )
        )
      except ValueError as error:
        left_out.append({'film': str(path), 'why': str(error)})
        continue
      if not clips:
        why = f'a frame twice in all windows of {task.frames.length} frames'
        left_out.append({'film': str(path), 'why': why})
        continue
      scores, of_film = compare(task, contenders[task.kind], clips)
      facts = {'film': str(path), 'windows': len(clips)}
      rows += [facts | row for row in scores]
      routed += [facts | row for row in of_film]
    print(f'{path}: {time.perf_counter() - start:.1f} s', flush=True)
  if not rows:
    raise ValueError(f'No film could be measured: {left_out}')
  return {
    'settings': vars(options),
    'opencv': plain.has_opencv(),
    'films': rows,
    'left_out': left_out,
    'summary': summary(rows),
    'routed': routed,
    'routes': quarters(routed),
  }


def main(arguments=None):
  options = parse(arguments)
  runtime.setup()
  if not plain.has_opencv():
    print(
      "Without DIS: no OpenCV; pip install 'vidpred_jax[compare]' brings it."
    )
  result = run(options)
  for label in result['summary']:
    print_films(label, result['films'])
  for row in result['left_out']:
    print(f'Left out: {row["film"]}: {row["why"]}')
  print_summary(result['summary'])
  print_routes(result['routes'])
  if options.output:
    pathlib.Path(options.output).write_text(json.dumps(result, indent=2))


if __name__ == '__main__':
  main()
