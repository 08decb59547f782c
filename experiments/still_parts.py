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


def measure(pairs, shares):
  """Rows of the table, and the line through them."""
  rows = []
  for share in shares:
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
  slope, fixed = np.polyfit(shares, parts, 1)
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


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--film', required=True)
  parser.add_argument('--size', default='360x640')
  parser.add_argument('--moving', default='0,0.25,0.5,0.75,1')
  parser.add_argument('--pairs', type=int, default=6)
  parser.add_argument('--output', default='')
  options = parser.parse_args()
  runtime.setup()
  print(cost.machine())
  size = tuple(map(int, options.size.split('x')))
  timed_frames = video_io.frames(
    options.film, stop=4 * options.pairs + 2, step=2, size=size
  )
  frames = [frame for _, frame in timed_frames]
  pairs = [np.stack(x) for x in zip(frames[::2], frames[1::2])]
  pairs = pairs[: options.pairs]
  shares = [float(x) for x in options.moving.split(',')]
  report = {**measure(pairs, shares), 'parts': parts(pairs[0])}
  if options.output:
    pathlib.Path(options.output).write_text(json.dumps(report, indent=2))


if __name__ == '__main__':
  main()
