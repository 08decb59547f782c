"""Largest error against the published code's numbers, and size and cost.

  python -m experiments.parity_rvd [--shared=../shared]

Questions: does the reimplementation of RVD compute what the published PyTorch
code computes? Each line names a stored array of `parity/rvd`, the largest
absolute difference (for schedules relative to each value, for the unclipped
y_0 to the greatest; for gradients the relative L2 error), the tolerance of that
folder's README, and whether it holds. Have the networks the published size and
cost? The second table counts parameters and, with `vidpred_jax.cost`,
multiply-adds without norms: of a denoising step alone, of what of it is
computed once for a frame instead, of the contexts and of the mean of a frame.
"""

import argparse
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import convert, cost, params, runtime
from vidpred_jax.convert import weights
from vidpred_jax.convert.rvd import torch_names
from vidpred_jax.models import denoiser
from vidpred_jax.models import rvd as networks
from vidpred_jax.ops import diffusion
from vidpred_jax.systems import rvd

# size, channels -> parameters; G multiply-adds of a denoising step, of the
# contexts and of the mean, counted for 3 channels.
PUBLISHED = {
  (64, 3): ((18_744_291, 13_750_032, 5_117_091), (2.81, 2.59, 1.92)),
  (128, 3): ((18_951_683, 12_991_296, 11_670_723), (7.81, 7.53, 15.45)),
}
NETS = ('denoiser', 'context_net', 'mean_net')


def to_nhwc(x):
  """NCHW, or [T, B, C, H, W], to channels last; float32."""
  return jnp.asarray(np.moveaxis(np.asarray(x, np.float32), -3, -1))


def largest(ours, theirs):
  """The largest absolute difference to an array of channels first."""
  return float(np.max(np.abs(ours - to_nhwc(theirs))))


def relative(ours, theirs):
  """The relative L2 error."""
  difference = np.asarray(ours, np.float64) - theirs
  return float(np.linalg.norm(difference) / np.linalg.norm(theirs))


def process(depth, **changes):
  """The published code's."""
  schedule = diffusion.cosine(depth)
  steps = diffusion.ancestral(schedule)
  result = rvd.Process(schedule, 1.0, 'noise', 'l1', 2.0, steps)
  return result._replace(**changes)


def schedule_errors(path):
  """{buffer: (error, tolerance)} of all schedules."""
  stored, errors = np.load(path), {}
  for depth in json.loads(bytes(stored['meta_json']))['Ns']:
    ours = diffusion.cosine(depth)
    bars = ours.alpha_bars
    variances = np.maximum(ours.posterior_variances, 1e-20)
    for name, values in {
      'betas': ours.betas,
      'betas_float64': ours.betas,
      'alphas_cumprod': bars,
      'alphas_cumprod_prev': ours.alpha_bars_before,
      'sqrt_alphas_cumprod': np.sqrt(bars),
      'sqrt_one_minus_alphas_cumprod': np.sqrt(1 - bars),
      'log_one_minus_alphas_cumprod': np.log(1 - bars),
      'sqrt_recip_alphas_cumprod': np.sqrt(1 / bars),
      'sqrt_recipm1_alphas_cumprod': np.sqrt(1 / bars - 1),
      'posterior_variance': ours.posterior_variances,
      'posterior_log_variance_clipped': np.log(variances),
      'posterior_mean_coef1': ours.posterior_clean,
      'posterior_mean_coef2': ours.posterior_noisy,
    }.items():
      theirs = stored[f'N{depth}/{name}'].astype(np.float64)
      error = np.abs(values - theirs) / np.maximum(np.abs(theirs), 1e-30)
      errors[f'N{depth}/{name}'] = (float(error.max()), 1e-6)
  return errors


def case_errors(path):
  """{array: (error, tolerance)} of one set of networks."""
  case = dict(np.load(path))
  cfg = json.loads(bytes(case['meta_json']))['cfg']
  settings = {
    'channels': cfg['ch'],
    'dim': cfg['dim'],
    'mults': tuple(cfg['mults']),
    'mean_mults': tuple(cfg['tmults']),
  }
  state = {k[2:]: x for k, x in case.items() if k.startswith('w/')}
  variables = convert.from_torch(
    'rvd', state, **settings, depth=cfg['N'], sigma=1
  )
  model = networks.RVD(**settings)
  return {
    **network_errors(case, model, variables),
    **process_errors(case, cfg['N']),
    **training_errors(case, model, variables, cfg['N']),
    **sampling_errors(case, model, variables, cfg['Ns']),
  }


def network_errors(case, model, variables):
  """Of contexts, means, states and the denoiser."""
  video = to_nhwc(case['video']).swapaxes(0, 1)
  n = jnp.asarray(case['t'], jnp.int32)

  def run(model, video, noisy, n):
    state = model.start(len(video), *video.shape[2:4])
    contexts, mean, state = model.watch(video, state)
    prepared = model.prepare([c[:, -1] for c in contexts])
    out = model.denoise(noisy, n, prepared)
    return contexts, mean, state, out, model.embed(n)

  contexts, mean, state, out, time = runtime.jit(
    functools.partial(model.apply, method=run)
  )(variables, video, to_nhwc(case['x_noisy']), n)
  errors = {'mu': (largest(mean.swapaxes(0, 1), case['mu']), 2e-5)}
  for i in range(video.shape[1]):
    name = f'ctx_f{i}_last'
    errors[name] = (largest(contexts[-1][:, i], case[name]), 2e-5)
  for i, context in enumerate(contexts):
    theirs = case[f'ctx_f5_l{i}']
    ours = context[:, -1, ..., : theirs.shape[1]]
    errors[f'ctx_f5_l{i}'] = (largest(ours, theirs), 2e-5)
  for i, hidden in enumerate(state.mean):
    theirs = case[f'hist_state_l{i}']
    ours = hidden[..., : theirs.shape[1]]
    errors[f'hist_state_l{i}'] = (largest(ours, theirs), 2e-5)
  phases = denoiser.embedded(n, model.dim)
  for name, ours in (('posemb', phases), ('temb', time)):
    errors[name] = (float(np.max(np.abs(ours - case[name]))), 1e-4)
  late = case['t'].max() > 100
  error = largest(out, case['denoise_out'])
  return errors | {'denoise_out': (error, 2e-4 if late else 3e-5)}


def process_errors(case, depth):
  """Of the forward process and a step back, with the stored estimate."""
  schedule = diffusion.cosine(depth)
  n = jnp.asarray(case['t'], jnp.int32)
  noisy, noise = to_nhwc(case['x_noisy']), to_nhwc(case['q_noise'])
  clean = diffusion.clean_from_noise(
    schedule, noisy, n, to_nhwc(case['denoise_out'])
  )
  clipped = jnp.clip(clean, -2, 2)
  mean, variance = diffusion.posterior(schedule, clipped, noisy, n)
  scale = np.abs(case['x_recon_preclip']).max()
  ours = {
    'q_sample': diffusion.diffuse(schedule, noisy, n, noise),
    'p_mean': mean,
    'p_var': variance,
    'p_logvar': jnp.log(jnp.maximum(variance, 1e-20)),
    'p_sample': diffusion.posterior_step(schedule, clipped, noisy, n, noise),
  }
  errors = {k: (largest(x, case[k]), 5e-6) for k, x in ours.items()}
  error = largest(clean, case['x_recon_preclip']) / scale
  return errors | {'x_recon_preclip': (float(error), 1e-3)}


def training_errors(case, model, variables, depth):
  """Of losses and gradients."""
  video = to_nhwc(case['video']).swapaxes(0, 1)
  noise = to_nhwc(case['train_noise']).swapaxes(0, 1)
  n = jnp.asarray(case['t'], jnp.int32)[:, None].repeat(noise.shape[1], 1)
  kinds = {
    'loss_l1': {},
    'loss_l2': {'error': 'l2'},
    'loss_predtrue_l1': {'predicts': 'clean'},
  }

  def losses(variables):
    found = {
      name: rvd.denoising_loss(
        model, variables, video, 2, n, noise, process(depth, **changes)
      )[0]
      for name, changes in kinds.items()
    }
    return found['loss_l1'], found

  gradient, found = runtime.jit(jax.grad(losses, has_aux=True))(variables)
  errors = {
    name: (abs(float(found[name]) - float(case[f'{name}64'])), 2e-6)
    for name in kinds
  }
  flat = params.flatten(gradient)
  names = torch_names(flat)
  for key, theirs in case.items():
    what, _, name = key.partition('/')
    if what == 'grad':
      path, layout = names[name]
      axes = weights.AXES[layout]
      others = [i for i in range(theirs.ndim) if i not in axes]
      moved = theirs.transpose(*axes, *others).reshape(flat[path].shape)
      errors[key] = (relative(flat[path], moved), 1e-3)
  return errors


def sampling_errors(case, model, variables, depth):
  """Of two drawn frames, and of the states on the way to the first."""
  noise = to_nhwc(case['samp_noise'])
  context = to_nhwc(case['video'][:4]).swapaxes(0, 1)

  def draw(variables, context):
    return rvd.forecast(
      model, variables, context, 2, lambda t: lambda k: noise[t, k],
      process(depth),
    )  # fmt: skip

  def states(model, context):
    """Step by step, by the posterior, as DDPM is written down."""
    start = model.start(len(context), *context.shape[2:4])
    contexts, _, _ = model.watch(context, start, since=context.shape[1] - 1)
    prepared = model.prepare([c[:, 0] for c in contexts])
    schedule = diffusion.cosine(depth)

    def step(noisy, item):
      n, fresh = item
      clean = diffusion.clean_from_noise(
        schedule, noisy, n, model.denoise(noisy, n, prepared)
      )
      clean = jnp.clip(clean, -2, 2)
      noisy = diffusion.posterior_step(schedule, clean, noisy, n, fresh)
      return noisy, noisy

    items = jnp.arange(depth)[::-1], noise[0, 1:]
    return jax.lax.scan(step, noise[0, 0], items)[1]

  frames = runtime.jit(draw)(variables, context).swapaxes(0, 1)
  passed = runtime.jit(functools.partial(model.apply, method=states))(
    variables, context
  )[case['traj_steps']]
  return {
    'sample': (largest(frames, case['sample']), 2e-3),
    'sample_traj_frame0': (largest(passed, case['sample_traj_frame0']), 2e-3),
  }


# entry -> module, its place among our names and among the published ones.
BLOCKS = {
  'resnet_time': (
    denoiser.ResBlock(16, 32, time=16),
    'denoiser/level_0/block_0',
    'denoise_fn.downs.0.0.',
  ),
  'resnet_same': (
    denoiser.ResBlock(16, 16),
    'denoiser/level_0/block_0',
    'denoise_fn.downs.0.0.',
  ),
  'linattn': (
    denoiser.LinearAttention(32),
    'denoiser/level_0/attention',
    'denoise_fn.downs.0.2.',
  ),
  'downsample': (
    denoiser.Conv(16, 16),
    'denoiser/level_0/shrink',
    'denoise_fn.downs.0.3.',
  ),
  'upsample': (
    denoiser.Conv(16, 16, size=4),
    'denoiser/up_0/grow',
    'denoise_fn.ups.0.3.',
  ),
  'gru_3steps': (
    networks.ConvGRU(16, 32),
    'context_net/level_0/cell',
    'history_fn.downs.0.1.',
  ),
}


def block_errors(path):
  """{entry: (error, tolerance)} of single blocks, each with its own floor."""
  arrays = dict(np.load(path))
  errors = {}
  for entry, facts in json.loads(bytes(arrays['meta_json']))['info'].items():
    case = {
      k.removeprefix(f'{entry}/'): x
      for k, x in arrays.items()
      if k.startswith(f'{entry}/')
    }
    module, place, before = BLOCKS[entry]
    args, options = [to_nhwc(case['x0'])], {}
    if entry == 'resnet_time':
      args.append(jnp.asarray(case['x1'], jnp.float32))
    elif entry == 'gru_3steps':
      args = [jnp.stack([to_nhwc(case[f'x{i}']) for i in range(3)], 1)]
      args.append(jnp.zeros((*args[0][:, 0].shape[:-1], module.features)))
    elif entry == 'downsample':
      options['stride'] = 2
    init = functools.partial(module.init, jax.random.key(0))
    expected = params.flatten(jax.eval_shape(init, *args)['params'])
    flat = {f'params/{place}/{k}': x for k, x in expected.items()}
    state = {before + k[2:]: x for k, x in case.items() if k.startswith('w/')}
    tree = weights.rearrange(torch_names(flat), state, params.unflatten(flat))
    own = functools.reduce(dict.get, place.split('/'), tree['params'])
    out = runtime.jit(
      lambda v, *args, module=module, options=options: module.apply(
        v, *args, **options
      )
    )({'params': own}, *args)
    if entry == 'gru_3steps':
      out = out[0].swapaxes(0, 1)
    tolerance = max(1e-5, 10 * facts['fp32_vs_fp64'])
    errors[entry] = (largest(out, case['out']), tolerance)
  return errors


def size_and_cost(size, channels, widths):
  """Parameters of each network; multiply-adds of each part."""
  model = networks.RVD(channels=channels, **widths)
  frame = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  clip = jax.ShapeDtypeStruct((1, *frame.shape), jnp.float32)
  n = jax.ShapeDtypeStruct((), jnp.int32)
  variables = jax.eval_shape(model.init, jax.random.key(0), clip, frame, n)

  def shapes(method, *args):
    call = functools.partial(model.apply, method=method)
    count = cost.count_macs(call, variables, *args)
    return jax.eval_shape(call, variables, *args), count

  state = jax.eval_shape(lambda: model.start(1, size, size))
  (contexts, _, _), watched = shapes('watch', clip, state)
  contexts = [
    jax.ShapeDtypeStruct((1, *c.shape[2:]), jnp.float32) for c in contexts
  ]
  prepared, once = shapes('prepare', contexts)
  _, step = shapes('denoise', frame, n, prepared)
  watched = cost.by_part(watched, NETS)
  return (
    cost.parameters(variables),
    (step.total(), once.total(), watched['context_net'], watched['mean_net']),
  )


def print_costs():
  """The second table."""
  print(f'\n{"":8} {"network":12} {"parameters":>12} {"published":>12}')
  lines = []
  for (size, channels), (sizes, macs) in PUBLISHED.items():
    widths = networks.WIDTHS_64 if size == 64 else {}
    ours, (step, once, *frame) = size_and_cost(size, channels, widths)
    for name, theirs in zip(NETS, sizes):
      print(f'{size:5} px {name:12} {ours[name]:12} {theirs:12}')
    for name, mine, theirs in (
      ('step, all of it', step + once, macs[0]),
      ('step', step, None),
      ('contexts', frame[0], macs[1]),
      ('mean', frame[1], macs[2]),
    ):
      theirs = f'{theirs:9.2f}' if theirs else f'{"":9}'
      lines.append(f'{size:5} px {name:16} {mine / 1e9:8.2f} {theirs}')
  print(f'\n{"":8} {"":16} {"G":>8} {"published":>9}', *lines, sep='\n')


def tables(shared):
  """[(title, function that gives {array: (error, tolerance)})]."""
  folder = pathlib.Path(shared) / 'parity' / 'rvd'
  paths = sorted(folder.glob('*.npz'))
  if not paths:
    raise FileNotFoundError(f'There are no arrays in {folder}.')
  kinds = {'blocks': block_errors, 'schedule': schedule_errors}
  return [
    (path.stem, functools.partial(kinds.get(path.stem, case_errors), path))
    for path in paths
  ]


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--shared', default='../shared')
  shared = parser.parse_args().shared
  runtime.setup()
  jax.config.update('jax_default_matmul_precision', 'highest')
  wrong = 0
  for title, errors in tables(shared):
    print(f'\n{title}')
    for name, (error, tolerance) in errors().items():
      fine = error <= tolerance
      wrong += not fine
      verdict = 'ok' if fine else 'TOO FAR'
      print(f'  {name:50s} {error:9.2e}  of {tolerance:7.0e}  {verdict}')
  print(f'\n{wrong} arrays are too far off on {jax.default_backend()}.')
  print_costs()


if __name__ == '__main__':
  main()
