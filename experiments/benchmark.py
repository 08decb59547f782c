"""Times the systems and compares them with the machine's matrix product.

  python -m experiments.benchmark [--systems=dmvfn,simvp,rvd,apr_vfi]
    [--sizes=256x832,720x1280] [--repeats=7] [--training]
    [--output=benchmark.json]

DMVFN: the cost of a frame with 0 to 9 blocks (router included, weights random,
routes given); whether a skipped block is free; whether a batch whose samples
take different routes costs the sum of its samples; the gain of the fast
formulation over the published one; the cost of a training step (`--training`).
SimVPv2-S on ten frames of 64x64: the cost of a forward pass and of a training
step with Adam, by batch size. RVD at 64 and 128 pixels: the cost of a denoising
step, of the context and of the mean of a frame; whether K steps of a sampler
cost K single steps. APR-VFI: the cost of BiFlowNet, of the splat and of the
cost volume, of the parts of a whole frame, and of a synthesis on some patches
relative to the whole image. `experiments.pytorch` times the same in PyTorch.

Times are minima and medians over `--repeats` interleaved rounds, so that a
machine whose speed drifts favours none. `cpu ms` is the processor time of all
threads, which other programs disturb least. `share` is the speed relative to
this machine's matrix product, measured in the same rounds. It is counted with
the multiply-adds of the published layers, for a training step of SimVP three
times those of its forward pass. So a formulation with fewer multiply-adds can
exceed the speed of a plain program.
"""

import argparse
import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidpred_jax import cost, runtime, systems
from vidpred_jax.models import apr_vfi, blending, dmvfn, ebme, rvd
from vidpred_jax.ops import correlation, diffusion, resize, routing, splat
from vidpred_jax.train import update

SYSTEMS = ('dmvfn', 'simvp', 'rvd', 'apr_vfi')

# Used first to last as more blocks are asked for: coarse ones first, as the
# paper finds for large motion.
ORDER = (0, 3, 6, 1, 4, 7, 2, 5, 8)


def rounds(calls, repeats):
  """{name: [(seconds, processor seconds)]} of zero-argument calls, in turns."""
  for call in calls.values():
    jax.block_until_ready(call())
  times = {name: [] for name in calls}
  for _ in range(repeats):
    for name, call in calls.items():
      start = time.perf_counter(), time.process_time()
      jax.block_until_ready(call())
      end = time.perf_counter(), time.process_time()
      times[name].append((end[0] - start[0], end[1] - start[1]))
  return times


def statistics(pairs):
  """Columns of a table from what `rounds` gives for one call."""
  wall, processor = zip(*pairs)
  return {
    'min_ms': 1e3 * min(wall),
    'median_ms': 1e3 * float(np.median(wall)),
    'cpu_ms': 1e3 * min(processor),
  }


def best_ms(times):
  """{name: smallest milliseconds}."""
  return {name: 1e3 * min(wall for wall, _ in t) for name, t in times.items()}


def matmul(size=2048):
  """A float32 matrix product to measure the machine by, and its GFLOP."""
  a = jax.random.normal(jax.random.key(0), (size, size))
  product = runtime.jit(functools.partial(jnp.matmul, precision='highest'))
  return lambda: product(a, a), 2 * size**3 / 1e9


def gates_of(count):
  """[9] with `count` blocks on."""
  gates = np.zeros(9, np.float32)
  gates[list(ORDER[:count])] = 1
  return gates


def padded(size):
  """The size rounded up to what the network takes."""
  return tuple(-(-n // 16) * 16 for n in size)


def forward(formulation, **settings):
  """`(variables, pair, gates) -> frame`: router and the blocks of a route."""
  model = dmvfn.DMVFN(formulation=formulation, **settings)

  def run(variables, pair, gates):
    logits = model.apply(variables, pair, method='route')
    output = model.apply(variables, pair, gates, method='run_route')
    return output.frames[-1], logits

  return runtime.jit(run)


def inference(size, repeats):
  """Rows of the table for one frame size, and the peak in GFLOP/s."""
  height, width = padded(size)
  pair = jax.random.uniform(jax.random.key(1), (1, 2, height, width, 3))
  variables = runtime.jit(dmvfn.DMVFN().init)(
    runtime.key(0), jnp.zeros((1, 2, 16, 16, 3))
  )
  fast, published = forward('fast'), forward('published')
  calls = {
    f'{k} blocks': functools.partial(fast, variables, pair, gates_of(k)[None])
    for k in range(10)
  }
  ones = jnp.ones((1, 9))
  calls['9, as published'] = lambda: published(variables, pair, ones)
  calls['matmul'], matmul_gflop = matmul()
  times = rounds(calls, repeats)
  peak = matmul_gflop / min(wall for wall, _ in times.pop('matmul'))

  def macs(gates):
    """Multiply-adds of the router and these blocks, in the published layers."""
    model = dmvfn.DMVFN(formulation='published')

    def chain(variables, pair):
      frames = dmvfn.concat_pair(pair)
      state = dmvfn.initial_state(frames)
      for i in np.flatnonzero(gates):
        width = dmvfn.default_widths(9)[i]
        block = dmvfn.Block(width, model.scales[i], formulation='published')
        params = {'params': variables['params'][f'block_{i}']}
        step = block.apply(params, frames, state)
        state = dmvfn.warp_frames(frames, state.voxel + step)
      return state, model.apply(variables, pair, method='route')

    return sum(cost.count_macs(chain, variables, pair).values())

  rows = []
  for name, pairs in times.items():
    count = int(name[0])
    work = 2 * macs(gates_of(count)) / 1e9
    rows.append(
      {
        'size': f'{size[0]}x{size[1]}',
        'blocks': name,
        **statistics(pairs),
        'share_of_peak': work / min(pairs)[0] / peak,
      }
    )
  return rows, peak


def mixed_routes(repeats, size=(256, 832)):
  """A batch of four routes in one call, against the four one by one."""
  variables = runtime.jit(dmvfn.DMVFN().init)(
    runtime.key(0), jnp.zeros((1, 2, 16, 16, 3))
  )
  pairs = jax.random.uniform(jax.random.key(2), (4, 2, *size, 3))
  gates = np.stack([gates_of(k) for k in (1, 3, 5, 8)])
  run = forward('fast')
  times = rounds(
    {
      'batch': lambda: run(variables, pairs, gates),
      'singles': lambda: [
        run(variables, pairs[i : i + 1], gates[i : i + 1]) for i in range(4)
      ],
    },
    repeats,
  )
  return best_ms(times)


def training(repeats, crop=224, batch=2):
  """Milliseconds of a training step, by formulation."""
  video = jax.random.uniform(jax.random.key(3), (batch, 3, crop, crop, 3))
  calls = {}
  for formulation in ('fast', 'published'):
    system = systems.make(
      'dmvfn',
      frames=systems.Frames((0, 1), (2,)),
      formulation=formulation,
    )
    params = runtime.jit(system.init)(runtime.key(0), video)['params']
    rule = optax.adamw(1e-4)
    state = update.TrainState(jnp.int32(0), params, {}, rule.init(params), {})
    step = runtime.jit(update.make_train_step(system, rule))
    calls[formulation] = lambda step=step, state=state: step(
      state, {'video': video}, jax.random.key(0)
    )[1]
  return best_ms(rounds(calls, repeats))


def simvp(repeats, train_too):
  """Rows of the table of gSTA-S, and the peak in GFLOP/s.

  A training step counts as three times its forward pass: one more pass each for
  the gradients of the features and of the weights.
  """
  frames = systems.Frames(tuple(range(10)), tuple(range(10, 20)))
  system = systems.make('simvp', frames=frames)
  video = jax.random.uniform(jax.random.key(4), (16, 20, 64, 64, 1))
  variables = dict(runtime.jit(system.init)(runtime.key(0), video[:1]))
  jit = functools.partial(runtime.jit, cpu_options=system.cpu_options)
  predict, key = jit(system.predict), jax.random.key(0)
  calls = {
    ('forward', b): functools.partial(
      predict, dict(variables), video[:b, :10], key
    )
    for b in (1, 16)
  }
  product, matmul_gflop = matmul()
  calls['matmul'] = product
  macs = cost.count_macs(system.predict, variables, video[:1, :10], key).total()
  times = rounds(calls, repeats)
  if train_too:
    params = variables.pop('params')
    rule = optax.adam(1e-3)
    state = update.TrainState(
      jnp.int32(0), params, variables, rule.init(params), {}
    )
    step = jit(update.make_train_step(system, rule))
    calls = {
      ('training step', b): functools.partial(
        step, state, {'video': video[:b]}, key
      )
      for b in (4, 16)
    }
    calls['matmul'] = product
    for name, found in rounds(calls, 3).items():
      times.setdefault(name, []).extend(found)
  peak = matmul_gflop / min(wall for wall, _ in times.pop('matmul'))
  rows = []
  for (name, batch), pairs in times.items():
    work = 2 * macs * batch / 1e9
    if name != 'forward':
      work *= 3
    rows.append(
      {
        'name': name,
        'batch': batch,
        **statistics(pairs),
        'share_of_peak': work / min(pairs)[0] / peak,
      }
    )
  return rows, peak


def rvd_of_size(size, repeats):
  """Rows of the table of RVD's networks, three channels, one frame."""
  model = rvd.RVD(channels=3, **(rvd.WIDTHS_64 if size == 64 else {}))
  frame = jax.random.uniform(jax.random.key(5), (1, 1, size, size, 3))
  n = jnp.int32(800)
  variables = runtime.jit(model.init)(runtime.key(0), frame, frame[:, 0], n)
  state = model.initial_state(1, size, size)

  def apply(method, *args):
    return model.apply(variables, *args, method=method)

  observe = runtime.jit(functools.partial(apply, 'observe'))
  contexts = [c[:, 0] for c in observe(frame, state)[0]]
  prepare = runtime.jit(functools.partial(apply, 'prepare'))
  prepared = prepare(contexts)
  noisy = frame[:, 0]
  schedule = diffusion.cosine(1600)

  def steps(count):
    table = diffusion.ancestral(schedule, count)

    def run(prepared, key):
      estimate = diffusion.estimator(
        lambda y, n: apply('denoise', y, n, prepared), schedule, clip_range=2.0
      )
      keys = diffusion.keys_per_example(key, 1)
      noise = diffusion.gaussian_noise_fn(keys, noisy.shape[1:])
      return diffusion.sample(estimate, table, noise)

    return functools.partial(runtime.jit(run), prepared, jax.random.key(0))

  denoise = runtime.jit(functools.partial(apply, 'denoise'))
  calls = {
    'denoising step': functools.partial(denoise, noisy, n, prepared),
    'context and mean of a frame': functools.partial(observe, frame, state),
    'their share in the denoiser': functools.partial(prepare, contexts),
    '10 steps': steps(10),
    '40 steps': steps(40),
  }
  calls['matmul'], matmul_gflop = matmul()
  times = rounds(calls, repeats)
  peak = matmul_gflop / min(wall for wall, _ in times.pop('matmul'))
  rows = [
    {'size': size, 'name': name, **statistics(pairs)}
    for name, pairs in times.items()
  ]
  return rows, peak


def flow_estimation(repeats, size=(512, 960), levels=3):
  """Rows of the table of BiFlowNet and what it is made of, and the peak."""
  model = ebme.BiFlowNet()
  keys = jax.random.split(jax.random.key(6), 4)
  pair = jax.random.uniform(keys[0], (1, 2, *size, 3))
  variables = runtime.jit(functools.partial(model.init, levels=1))(
    runtime.key(0), jnp.zeros((1, 2, 32, 32, 3))
  )
  apply = runtime.jit(functools.partial(model.apply, levels=levels))
  coarse = jax.random.uniform(keys[1], (1, 8, 15, 2), minval=-16, maxval=16)
  flow = resize.bilinear(coarse, scale=64)
  warp, compare = runtime.jit(splat.forward), runtime.jit(correlation.local)
  features = jax.random.uniform(keys[2], (2, 1, 64, 120, 48))
  calls = {
    f'flow, {levels} levels': lambda: apply(variables, pair).flow,
    'cost volume 64x120, 48 channels': lambda: compare(*features),
  }
  for channels in (3, 16):
    image = jax.random.uniform(keys[3], (1, *size, channels))
    calls[f'splat, {channels} channels'] = lambda image=image: warp(image, flow)
  calls['matmul'], matmul_gflop = matmul()
  times = rounds(calls, repeats)
  peak = matmul_gflop / min(wall for wall, _ in times.pop('matmul'))
  name = f'{size[0]}x{size[1]}'
  rows = [
    {'size': name, 'name': key, **statistics(pairs)}
    for key, pairs in times.items()
  ]
  return rows, peak


def interpolation(size, repeats, keep_ratios=(1.0, 0.5, 0.25, 0.0)):
  """Rows of the table of APR-VFI's parts for one frame between two.

  The synthesis is run on the whole image, then with every block after the first
  on a share of patches drawn at random: its ratio is that to the whole image.
  It includes warping the features of the context, of the whole image or for the
  patches; the former is also timed by itself.
  """
  model, dense = apr_vfi.APRVFI(), apr_vfi.APRVFI(routed=False, patch=None)
  flat = blending.flatten_pair
  key = jax.random.key(7)
  pair = jax.random.uniform(key, (1, 2, *size, 3))
  variables = runtime.jit(model.init)(
    runtime.key(0), jnp.zeros((1, 2, 64, 64, 3))
  )

  def compiled(function, model=model, **kwargs):
    method = functools.partial(function, **kwargs)
    return functools.partial(
      runtime.jit(functools.partial(model.apply, method=method)), variables
    )

  flow = compiled(lambda model, pair: model.flow(pair).flow)
  context = compiled(lambda model, pair: model.context(pair[0]))
  prepared = blending.Prepared(
    pair, flow(pair), tuple(x[None] for x in context(pair))
  )
  warp = compiled(apr_vfi.APRVFI.warp)
  route = compiled(apr_vfi.APRVFI.route)
  warped = warp(prepared, 0.5)
  features = runtime.jit(
    lambda contexts, to: [splat.splat(flat(x), flat(to)) for x in contexts]
  )
  whole = compiled(apr_vfi.APRVFI.synthesise, dense)
  patches = compiled(apr_vfi.APRVFI.synthesise, routed=True)
  shape = (*routing.patch_grid(*size, model.patch), len(model.widths) - 1)
  scores = jax.random.uniform(key, (shape[-1], shape[0] * shape[1]))
  calls = {
    'flow': lambda: flow(pair),
    'context': lambda: context(pair),
    'warping of the frames': lambda: warp(prepared, 0.5),
    'router': lambda: route(warped),
    'warping of the features': lambda: features(prepared.contexts, warped.to),
    'synthesis, whole image': lambda: whole(prepared, warped),
  }
  for ratio in keep_ratios:
    gates = routing.top_fraction_mask(scores, ratio).T.reshape(1, *shape)
    calls[f'synthesis, {ratio:.0%} of patches'] = functools.partial(
      patches, prepared, warped, gates
    )
  rows = [
    {'size': f'{size[0]}x{size[1]}', 'name': name, **statistics(pairs)}
    for name, pairs in rounds(calls, repeats).items()
  ]
  for row in rows[5:]:
    row['ratio'] = row['min_ms'] / rows[5]['min_ms']
  return rows


def report_dmvfn(options):
  """Prints the tables of DMVFN; returns them."""
  print(
    f'{"size":>10} {"blocks":>16} {"min ms":>8} {"median":>8} {"cpu ms":>8} '
    f'{"share":>6}'
  )
  rows, peaks = [], {}
  for size in options.sizes.split(','):
    found, peaks[size] = inference(
      tuple(map(int, size.split('x'))), options.repeats
    )
    for row in found:
      print(
        f'{row["size"]:>10} {row["blocks"]:>16} {row["min_ms"]:8.1f} '
        f'{row["median_ms"]:8.1f} {row["cpu_ms"]:8.1f} '
        f'{row["share_of_peak"]:6.2f}'
      )
    print(f'{size:>10} matrix product {peaks[size]:.0f} GFLOP/s')
    rows += found
  mixed = mixed_routes(options.repeats)
  print(
    f'routes of 1, 3, 5, 8 blocks at 256x832: batch of 4 {mixed["batch"]:.1f} '
    f'ms, one by one {mixed["singles"]:.1f} ms, ratio '
    f'{mixed["batch"] / mixed["singles"]:.2f}'
  )
  report = {'matmul_gflops': peaks, 'rows': rows, 'mixed': mixed}
  if options.training:
    report['training'] = training(options.repeats)
    print(
      'training step, batch 2 of 224x224: '
      + ', '.join(f'{k} {v:.0f} ms' for k, v in report['training'].items())
    )
  return report


def report_simvp(options):
  """Prints the table of SimVP; returns it."""
  rows, peak = simvp(options.repeats, options.training)
  print(
    f'{"":27} {"batch":>5} {"min ms":>9} {"median":>9} {"cpu ms":>9} '
    f'{"share":>6}'
  )
  for row in rows:
    print(
      f'simvp gSTA-S {row["name"]:>14} {row["batch"]:5} {row["min_ms"]:9.1f} '
      f'{row["median_ms"]:9.1f} {row["cpu_ms"]:9.1f} '
      f'{row["share_of_peak"]:6.2f}'
    )
  print(f'matrix product {peak:.0f} GFLOP/s')
  return {'matmul_gflops': peak, 'rows': rows}


def report_rvd(options):
  """Prints the table of RVD; returns it."""
  report = {'rows': [], 'matmul_gflops': {}}
  print(f'{"":40} {"min ms":>9} {"median":>9} {"cpu ms":>9}')
  for size in (64, 128):
    rows, peak = rvd_of_size(size, options.repeats)
    report['rows'] += rows
    report['matmul_gflops'][size] = peak
    for row in rows:
      print(
        f'rvd {size:4} {row["name"]:>31} {row["min_ms"]:9.1f} '
        f'{row["median_ms"]:9.1f} {row["cpu_ms"]:9.1f}'
      )
    print(f'matrix product {peak:.0f} GFLOP/s')
  return report


def report_apr_vfi(options):
  """Prints the table of APR-VFI; returns it."""
  print(f'{"":50} {"min ms":>9} {"median":>9} {"cpu ms":>9} {"ratio":>6}')

  def show(rows):
    for row in rows:
      print(
        f'apr_vfi {row["size"]:>9} {row["name"]:>32} {row["min_ms"]:9.1f} '
        f'{row["median_ms"]:9.1f} {row["cpu_ms"]:9.1f} '
        + (f'{row["ratio"]:6.2f}' if 'ratio' in row else ''),
        flush=True,
      )
    return rows

  rows, peak = flow_estimation(options.repeats)
  show(rows)
  for size in ((512, 960), (1080, 2048)):
    rows += show(interpolation(size, options.repeats))
  print(f'matrix product {peak:.0f} GFLOP/s')
  return {'matmul_gflops': peak, 'rows': rows}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--systems', default=','.join(SYSTEMS))
  parser.add_argument('--sizes', default='256x832,720x1280')
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--training', action='store_true')
  parser.add_argument('--output', default='')
  options = parser.parse_args()
  wanted = options.systems.split(',')
  if unknown := set(wanted) - set(SYSTEMS):
    parser.error(
      f'got --systems={options.systems}: {", ".join(sorted(unknown))} '
      f'unknown; expected some of {", ".join(SYSTEMS)}'
    )
  runtime.setup()
  print(cost.machine())
  report = {'machine': cost.machine()}
  if 'dmvfn' in wanted:
    report['dmvfn'] = report_dmvfn(options)
  if 'simvp' in wanted:
    report['simvp'] = report_simvp(options)
  if 'rvd' in wanted:
    report['rvd'] = report_rvd(options)
  if 'apr_vfi' in wanted:
    report['apr_vfi'] = report_apr_vfi(options)
  if options.output:
    with open(options.output, 'w') as file:
      json.dump(report, file, indent=2)


if __name__ == '__main__':
  main()
