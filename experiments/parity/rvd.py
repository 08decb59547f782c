"""RVD: schedules, networks, steps forth and back, losses, drawn frames.

Errors are the largest absolute differences; those of schedules are relative to
each value, of the unclipped y_0 relative to the greatest, of gradients relative
L2 errors.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.arrays import (
  Kind,
  Row,
  allowed,
  below,
  channels_last,
  laid_out,
  largest,
  largest_of_images,
  read,
  relative,
  stored_weights,
)
from vidpred_jax import params, runtime
from vidpred_jax.convert import weights
from vidpred_jax.convert.rvd import torch_names
from vidpred_jax.models import denoiser
from vidpred_jax.models import rvd as networks
from vidpred_jax.ops import diffusion
from vidpred_jax.systems import rvd

# The published code clips the estimate of y_0 here.
CLIP = 2.0


def images(x):
  """[..., C, H, W] to [..., H, W, C]."""
  return jnp.asarray(channels_last(x))


def schedules(path):
  """Rows of the buffers of all schedules."""
  stored, meta = read(path)
  for num_timesteps in meta['Ns']:
    ours = diffusion.cosine(num_timesteps)
    bars = ours.alpha_bars
    variances = np.maximum(ours.posterior_variances, 1e-20)
    values = {
      'betas': ours.betas,
      'betas_float64': ours.betas,
      'alphas_cumprod': bars,
      'alphas_cumprod_prev': ours.alpha_bars_prev,
      'sqrt_alphas_cumprod': np.sqrt(bars),
      'sqrt_one_minus_alphas_cumprod': np.sqrt(1 - bars),
      'log_one_minus_alphas_cumprod': np.log(1 - bars),
      'sqrt_recip_alphas_cumprod': np.sqrt(1 / bars),
      'sqrt_recipm1_alphas_cumprod': np.sqrt(1 / bars - 1),
      'posterior_variance': ours.posterior_variances,
      'posterior_log_variance_clipped': np.log(variances),
      'posterior_mean_coef1': ours.posterior_clean,
      'posterior_mean_coef2': ours.posterior_noisy,
    }
    for name, theirs in below(f'N{num_timesteps}/', stored).items():
      theirs = theirs.astype(np.float64)
      error = np.abs(values[name] - theirs)
      error /= np.maximum(np.abs(theirs), 1e-30)
      yield Row(f'N{num_timesteps}/{name}', float(error.max()), 1e-6)


def case_rows(path, part):
  """Rows of one part of what is stored of a set of networks."""
  case, meta = read(path)
  cfg = meta['cfg']
  floors = meta.get('fp32_vs_fp64_maxabs', {})
  model = networks.RVD(
    channels=cfg['ch'],
    dim=cfg['dim'],
    mults=tuple(cfg['mults']),
    mean_mults=tuple(cfg['tmults']),
  )
  video = images(case['video']).swapaxes(0, 1)
  n = jnp.asarray(case['t'], jnp.int32)
  expected = jax.eval_shape(
    model.init, jax.random.key(0), video[:, :1], video[:, 0], n
  )
  names = torch_names(params.flatten(expected))
  state = stored_weights(path, case, meta)
  variables = weights.rearrange(names, state, expected)
  if part == 'networks':
    yield from network_rows(case, floors, model, variables, video, n)
    yield from process_rows(case, cfg['N'], n)
  elif part == 'training':
    yield from training_rows(case, model, variables, video, n, cfg['N'], names)
  else:
    yield from sampling_rows(case, model, variables, video, cfg['Ns'])


def network_rows(case, floors, model, variables, video, n):
  """Rows of contexts, means, states and the denoiser."""

  def run(model, video, noisy, n):
    state = model.initial_state(len(video), *video.shape[2:4])
    contexts, mean, state = model.observe(video, state)
    prepared = model.prepare([c[:, -1] for c in contexts])
    out = model.denoise(noisy, n, prepared)
    return contexts, mean, state, out, model.embed(n)

  contexts, mean, state, out, time = runtime.jit(
    functools.partial(model.apply, method=run)
  )(variables, video, images(case['x_noisy']), n)
  means = mean.swapaxes(0, 1)
  yield Row('mu', largest_of_images(means, case['mu']), 2e-5)
  for name, theirs in case.items():
    if match := re.fullmatch(r'ctx_f(\d+)_(?:l(\d+)|last)', name):
      frame, level = match.groups()
      ours = contexts[-1 if level is None else int(level)][:, int(frame)]
    elif match := re.fullmatch(r'hist_state_l(\d+)', name):
      ours = state.mean[int(match[1])]
    else:
      continue
    # Of many channels only the first are stored.
    ours = ours[..., : theirs.shape[1]]
    yield Row(name, largest_of_images(ours, theirs), 2e-5)
  phases = denoiser.timestep_embedding(n, model.dim)
  yield Row('posemb', largest(phases, case['posemb']), 1e-4)
  yield Row('temb', largest(time, case['temb']), 1e-4)
  error = largest_of_images(out, case['denoise_out'])
  # A phase n * f in float32 is the less exact the greater n is.
  tolerance = allowed(3e-5, floors.get('denoise_out', 0), 8)
  yield Row('denoise_out', error, tolerance)


def process_rows(case, num_timesteps, n):
  """Rows of the forward process and a step back, with the stored estimate."""
  schedule = diffusion.cosine(num_timesteps)
  noisy, noise = images(case['x_noisy']), images(case['q_noise'])
  clean = diffusion.predict_start_from_noise(
    schedule, noisy, n, images(case['denoise_out'])
  )
  clipped = jnp.clip(clean, -CLIP, CLIP)
  mean, variance = diffusion.posterior(schedule, clipped, noisy, n)
  for name, ours in {
    'q_sample': diffusion.q_sample(schedule, noisy, n, noise),
    'p_mean': mean,
    'p_var': variance,
    'p_logvar': jnp.log(jnp.maximum(variance, 1e-20)),
    'p_sample': diffusion.p_sample(schedule, clipped, noisy, n, noise),
  }.items():
    yield Row(name, largest_of_images(ours, case[name]), 5e-6)
  scale = np.abs(case['x_recon_preclip']).max()
  error = largest_of_images(clean, case['x_recon_preclip'])
  yield Row('x_recon_preclip', float(error / scale), 1e-3)


def training_rows(case, model, variables, video, n, num_timesteps, names):
  """Rows of losses and gradients."""
  noise = images(case['train_noise']).swapaxes(0, 1)
  first = video.shape[1] - noise.shape[1]
  n = n[:, None].repeat(noise.shape[1], 1)
  kinds = {
    'loss_l1': {},
    'loss_l2': {'loss_type': 'l2'},
    'loss_predtrue_l1': {'prediction_type': 'sample'},
  }

  def losses(variables):
    values = {
      name: rvd.denoising_loss(
        model,
        variables,
        video,
        first,
        n,
        noise,
        process(num_timesteps, **changes),
      )[0]
      for name, changes in kinds.items()
    }
    return values['loss_l1'], values

  gradient, values = runtime.jit(jax.grad(losses, has_aux=True))(variables)
  for name in kinds:
    yield Row(f'{name}64', largest(values[name], case[f'{name}64']), 2e-6)
  flat = params.flatten(gradient)
  for name, theirs in below('grad/', case).items():
    path, layout = names[name]
    theirs = laid_out(theirs, layout, flat[path].shape)
    yield Row(f'grad/{name}', relative(flat[path], theirs), 1e-3)


def process(num_timesteps, **changes):
  """The published code's."""
  schedule = diffusion.cosine(num_timesteps)
  steps = diffusion.ancestral(schedule)
  result = rvd.Process(schedule, 1.0, 'epsilon', 'l1', CLIP, steps)
  return result._replace(**changes)


def sampling_rows(case, model, variables, video, num_timesteps):
  """Rows of drawn frames, and of the states on the way to the first."""
  noise, count = images(case['samp_noise']), len(case['sample'])
  context = video[:, : video.shape[1] - count]

  def draw(variables, context):
    return rvd.forecast(
      model, variables, context, count, lambda t: lambda k: noise[t, k],
      process(num_timesteps),
    )  # fmt: skip

  def states(model, context):
    """Step by step, by the posterior, as DDPM is written down."""
    start = model.initial_state(len(context), *context.shape[2:4])
    contexts, _, _ = model.observe(context, start, since=context.shape[1] - 1)
    prepared = model.prepare([c[:, 0] for c in contexts])
    schedule = diffusion.cosine(num_timesteps)

    def step(noisy, item):
      n, fresh = item
      clean = diffusion.predict_start_from_noise(
        schedule, noisy, n, model.denoise(noisy, n, prepared)
      )
      clean = jnp.clip(clean, -CLIP, CLIP)
      noisy = diffusion.p_sample(schedule, clean, noisy, n, fresh)
      return noisy, noisy

    items = jnp.arange(num_timesteps)[::-1], noise[0, 1:]
    return jax.lax.scan(step, noise[0, 0], items)[1]

  frames = runtime.jit(draw)(variables, context).swapaxes(0, 1)
  yield Row('sample', largest_of_images(frames, case['sample']), 2e-3)
  passed = runtime.jit(functools.partial(model.apply, method=states))(
    variables, context
  )[case['traj_steps']]
  error = largest_of_images(passed, case['sample_traj_frame0'])
  yield Row('sample_traj_frame0', error, 2e-3)


def block_of(entry, case):
  """A module, its inputs, its place in our network and in the published one.

  Args:
    entry: its name.
    case: its arrays.
  """
  x = images(case['x0'])
  channels, features = x.shape[-1], case['out'].shape[-3]
  kernels = [x for x in below('w/', case).values() if x.ndim == 4]
  if entry.startswith('gru'):
    steps = [images(case[f'x{i}']) for i in range(len(case['out']))]
    module = networks.ConvGRU(channels, features)
    args = jnp.stack(steps, 1), jnp.zeros((*x.shape[:-1], features))
    return module, args, 'context_net/level_0/cell', 'history_fn.downs.0.1.'
  level = 'denoiser/level_0'
  if entry.startswith('linattn'):
    module = denoiser.LinearAttention(channels)
    return module, (x,), f'{level}/attention', 'denoise_fn.downs.0.2.'
  if entry.startswith('downsample'):
    module = denoiser.Conv(channels, features, size=kernels[0].shape[-1])
    return module, (x,), f'{level}/shrink', 'denoise_fn.downs.0.3.'
  if entry.startswith('upsample'):
    module = denoiser.Conv(channels, features, size=kernels[0].shape[-1])
    return module, (x,), 'denoiser/up_0/grow', 'denoise_fn.ups.0.3.'
  time, settings = (), {}
  if 'x1' in case:
    time = (jnp.asarray(case['x1'], jnp.float32),)
    settings['time'] = case['x1'].shape[-1]
  module = denoiser.ResBlock(channels, features, **settings)
  return module, (x, *time), f'{level}/block_0', 'denoise_fn.downs.0.0.'


def blocks(path):
  """Rows of single blocks, each with a tolerance of its own."""
  arrays, meta = read(path)
  for entry, facts in meta['info'].items():
    case = below(f'{entry}/', arrays)
    module, args, place, before = block_of(entry, case)
    options = {'stride': 2} if entry.startswith('downsample') else {}
    init = functools.partial(module.init, jax.random.key(0))
    expected = params.flatten(jax.eval_shape(init, *args)['params'])
    flat = {f'params/{place}/{k}': x for k, x in expected.items()}
    state = {before + k: x for k, x in below('w/', case).items()}
    tree = weights.rearrange(torch_names(flat), state, params.unflatten(flat))
    own = functools.reduce(dict.get, place.split('/'), tree['params'])
    out = runtime.jit(
      lambda v, *args, module=module, options=options: module.apply(
        v, *args, **options
      )
    )({'params': own}, *args)
    if entry.startswith('gru'):
      out = out[0].swapaxes(0, 1)
    error = largest_of_images(out, case['out'])
    yield Row(entry, error, allowed(1e-5, facts['fp32_vs_fp64'], 10))


KINDS = [
  Kind('betas', schedules),
  *(
    Kind('denoise_out', functools.partial(case_rows, part=part), part)
    for part in ('networks', 'training', 'sampling')
  ),
  Kind('x0', blocks),
]
