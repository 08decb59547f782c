"""What is timed of each system: rows of its table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import steps, timing
from vidpred_jax import cost, runtime
from vidpred_jax.models import (
  apr_vfi,
  blending,
  dmvfn,
  dmvfn_layers,
  initial,
)
from vidpred_jax.ops import correlation, diffusion, routing, splat

# Used first to last as more blocks are asked for: coarse ones first, as the
# paper finds for large motion.
ORDER = (0, 3, 6, 1, 4, 7, 2, 5, 8)


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


def random_variables():
  """Of DMVFN."""
  clip = jnp.zeros((1, 2, 16, 16, 3))
  return initial.draw(runtime.key(0), dmvfn.DMVFN(), clip)


def inference(size, repeats):
  """Rows of the table for one frame size, and the peak in GFLOP/s."""
  height, width = padded(size)
  pair = jax.random.uniform(jax.random.key(1), (1, 2, height, width, 3))
  variables = random_variables()
  fast, published = forward('fast'), forward('published')
  calls = {
    f'{k} blocks': functools.partial(fast, variables, pair, gates_of(k)[None])
    for k in range(10)
  }
  ones = jnp.ones((1, 9))
  calls['9, as published'] = lambda: published(variables, pair, ones)
  times, peak = timing.rounds_and_peak(calls, repeats)

  def macs(gates):
    """Multiply-adds of the router and these blocks, in the published layers."""
    model = dmvfn.DMVFN(formulation='published')

    def chain(variables, pair):
      frames = dmvfn.concat_pair(pair)
      state = dmvfn.initial_state(pair, dmvfn.Start())
      for i in np.flatnonzero(gates):
        width = dmvfn.default_widths(9)[i]
        block = dmvfn_layers.Block(
          width, model.scales[i], formulation='published'
        )
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
        **timing.statistics(pairs),
        'share_of_peak': work / min(pairs)[0] / peak,
      }
    )
  return rows, peak


def mixed_routes(repeats, size=(256, 832)):
  """A batch of four routes in one call, against the four one by one."""
  variables = random_variables()
  pairs = jax.random.uniform(jax.random.key(2), (4, 2, *size, 3))
  gates = np.stack([gates_of(k) for k in (1, 3, 5, 8)])
  run = forward('fast')
  times = timing.rounds(
    {
      'batch': lambda: run(variables, pairs, gates),
      'singles': lambda: [
        run(variables, pairs[i : i + 1], gates[i : i + 1]) for i in range(4)
      ],
    },
    repeats,
  )
  return timing.best_ms(times)


def training(repeats):
  """Milliseconds of a training step, by formulation."""
  calls = {
    name: steps.dmvfn(formulation=name) for name in ('fast', 'published')
  }
  return timing.best_ms(timing.rounds(calls, repeats))


def simvp(repeats, train_too):
  """Rows of the table of gSTA-S, and the peak in GFLOP/s."""
  system = steps.simvp_system()
  video = jax.random.uniform(jax.random.key(4), (16, 10, 64, 64, 1))
  clip = jnp.zeros((1, 20, 64, 64, 1))
  variables = dict(system.init(runtime.key(0), clip))
  predict = runtime.jit(system.predict, cpu_options=system.cpu_options)
  key = jax.random.key(0)
  calls = {
    ('forward', b): functools.partial(predict, variables, video[:b], key)
    for b in (1, 16)
  }
  macs = cost.count_macs(system.predict, variables, video[:1], key).total()
  times, peak = timing.rounds_and_peak(calls, repeats)
  if train_too:
    calls = {('training step', b): steps.simvp(batch=b) for b in (4, 16)}
    of_steps, second = timing.rounds_and_peak(calls, 3)
    times |= of_steps
    peak = max(peak, second)
  rows = []
  for (name, batch), pairs in times.items():
    work = 2 * macs * batch / 1e9
    if name != 'forward':
      work *= 3
    rows.append(
      {
        'name': name,
        'batch': batch,
        **timing.statistics(pairs),
        'share_of_peak': work / min(pairs)[0] / peak,
      }
    )
  return rows, peak


def rvd_of_size(size, repeats):
  """Rows of the table of RVD's networks, three channels, one frame."""
  parts = steps.rvd_networks(size, steps.rvd_widths(size))
  apply, noisy = parts.apply, parts.frame[:, 0]
  schedule = diffusion.cosine(1600)

  def sampled(count):
    table = diffusion.ancestral(schedule, count)

    def run(prepared, key):
      estimate = diffusion.estimator(
        lambda y, n: apply('denoise', y, n, prepared), schedule, clip_range=2.0
      )
      keys = diffusion.keys_per_example(key, 1)
      noise = diffusion.gaussian_noise_fn(keys, noisy.shape[1:])
      return diffusion.sample(estimate, table, noise)

    return functools.partial(
      runtime.jit(run), parts.prepared, jax.random.key(0)
    )

  calls = {
    'denoising step': steps.denoising(parts),
    'context and mean of a frame': functools.partial(
      parts.observe, parts.frame, parts.state
    ),
    'their share in the denoiser': functools.partial(
      parts.prepare, parts.contexts
    ),
    '10 steps': sampled(10),
    '40 steps': sampled(40),
  }
  times, peak = timing.rounds_and_peak(calls, repeats)
  rows = [
    {'size': size, 'name': name, **timing.statistics(pairs)}
    for name, pairs in times.items()
  ]
  return rows, peak


def flow_estimation(repeats):
  """Rows of the table of BiFlowNet and what it is made of, and the peak."""
  keys = jax.random.split(jax.random.key(6), 4)
  flow = steps.coarse_flow()
  warp, compare = runtime.jit(splat.forward), runtime.jit(correlation.local)
  features = jax.random.uniform(keys[2], (2, 1, 64, 120, 48))
  calls = {
    'flow, 3 levels': steps.flow(),
    'cost volume 64x120, 48 channels': lambda: compare(*features),
  }
  for channels in (3, 16):
    image = jax.random.uniform(keys[3], (1, 512, 960, channels))
    calls[f'splat, {channels} channels'] = lambda image=image: warp(image, flow)
  times, peak = timing.rounds_and_peak(calls, repeats)
  rows = [
    {'size': '512x960', 'name': key, **timing.statistics(pairs)}
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
  variables = initial.draw(runtime.key(0), model, jnp.zeros((1, 2, 64, 64, 3)))

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
    {'size': f'{size[0]}x{size[1]}', 'name': name, **timing.statistics(pairs)}
    for name, pairs in timing.rounds(calls, repeats).items()
  ]
  for row in rows[5:]:
    row['ratio'] = row['min_ms'] / rows[5]['min_ms']
  return rows
