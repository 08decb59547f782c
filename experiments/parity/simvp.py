"""SimVP: all translators, forward and training, and their blocks one by one.

Errors are the largest absolute differences; those of losses are relative, of
gradients and batch statistics relative L2 errors.
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
  largest_of_images,
  read,
  relative,
  stored_weights,
)
from vidpred_jax import params, runtime
from vidpred_jax.convert import simvp as published
from vidpred_jax.convert import weights
from vidpred_jax.models import blocks, simvp, translators
from vidpred_jax.systems.simvp import CPU_OPTIONS

# As the system is compiled.
_jit = functools.partial(runtime.jit, cpu_options=CPU_OPTIONS)

# Of frames, by translator; 2e-5 for the others.
TOLERANCES = {'moga': 1e-4, 'van': 1e-4, 'hornet': 2e-4}


def mlp_ratio(state, fallback):
  """Hidden over other channels of the first MLP; `fallback` without one."""
  for name, x in state.items():
    if re.search(r'(?<!tokens)\.(fc1|pwconv1)\.weight$', name):
      return x.shape[0] / x.shape[1]
  return fallback


def settings_of(state, cfg):
  """The model's, from the configuration, else from the shapes of weights."""
  cfg = {name.lower(): value for name, value in cfg.items()}
  units = {name.split('.')[2] for name in state if name.startswith('enc.enc.')}
  return {
    'hid_s': cfg['hid_s'],
    'hid_t': cfg['hid_t'],
    'n_s': len(units),
    'n_t': cfg['n_t'],
    'frames': cfg['in_shape'][0],
    'channels': cfg['in_shape'][1],
    'translator': cfg['model_type'].lower(),
    'mlp_ratio': cfg.get('mlp_ratio', mlp_ratio(state, 8.0)),
    'encoder_size': state['enc.enc.0.conv.conv.weight'].shape[-1],
    'decoder_size': state['dec.dec.0.conv.conv.0.weight'].shape[-1],
  }


def forward(path):
  """Rows of one network; with arrays of training, also of a step."""
  case, meta = read(path)
  cfg = meta['cfg']
  state = stored_weights(path, case, meta)
  # The published training outputs are without stochastic depth.
  model = simvp.SimVP(first_drop_path=0, **settings_of(state, cfg))
  video = jnp.asarray(channels_last(case['x']))
  expected = jax.eval_shape(model.init, jax.random.key(0), video)
  variables = published.convert(state, expected, translator=model.translator)

  def parts(model, video):
    features, first = model.encode(video)
    translated = model.translate(features)
    return features, translated, model.decode(translated, first)

  apply = _jit(functools.partial(model.apply, method=parts))
  features, translated, out = apply(variables, video)
  tolerance = TOLERANCES.get(model.translator, 2e-5)
  tolerance = allowed(tolerance, meta.get('fp32_vs_fp64_maxabs', 0))
  embed = features[: len(case['embed']), 0]
  yield Row('embed', largest_of_images(embed, case['embed']), 2e-5)
  # Features are larger than images.
  scale = max(1, float(np.abs(case['hid']).max()))
  error = largest_of_images(translated[:1, :1], case['hid'])
  yield Row('hid', error, tolerance * scale)
  yield Row('eval_out', largest_of_images(out, case['eval_out']), tolerance)
  if 'rollout_out' in case:
    batch, count = case['rollout_out'].shape[:2]
    frames = [out]
    while sum(x.shape[1] for x in frames) < count:
      frames.append(apply(variables, frames[-1])[-1])
    error = largest_of_images(
      jnp.concatenate(frames, 1)[:batch, :count], case['rollout_out']
    )
    yield Row('rollout_out', error, len(frames) * tolerance)
  if 'train_out' in case:
    yield from training(model, variables, case, tolerance)


def training(model, variables, case, tolerance):
  """Rows of one training step."""
  video, target = (jnp.asarray(channels_last(case[k])) for k in 'xy')

  def loss(weights):
    out, updated = model.apply(
      {**variables, 'params': weights},
      video,
      train=True,
      mutable=['batch_stats'],
    )
    return jnp.mean((out - target) ** 2), (out, updated)

  (total, (out, updated)), gradient = _jit(
    jax.value_and_grad(loss, has_aux=True)
  )(variables['params'])
  yield Row('train_out', largest_of_images(out, case['train_out']), tolerance)
  error = abs(float(total) / float(case['train_loss64']) - 1)
  yield Row('train_loss64', error, 1e-6)
  ours = params.flatten({'params': gradient, **updated})
  names = published.torch_names(ours, model.translator)
  for what, allowed_error in (('grad/', 1e-4), ('newstat/', 1e-5)):
    for name, theirs in below(what, case).items():
      path, layout = names[name]
      theirs = laid_out(theirs, layout, ours[path].shape)
      yield Row(what + name, relative(ours[path], theirs), allowed_error)


def block_of(entry, case):
  """A module, its place in our network and in the published one.

  Args:
    entry: translator and index, such as 'Swin_layer1'; odd blocks of Swin are
      shifted.
    case: its arrays.
  """
  translator, _, index = entry.partition('_')
  translator = translator.lower()
  state = below('w/', case)
  channels, size = case['out'].shape[1], case['x0'].shape[-1]
  if translator == 'convsc':
    changes = {size: 'none', size // 2: 'down', size * 2: 'up'}
    change = changes[case['out'].shape[-1]]
    kernel = next(x for x in state.values() if x.ndim == 4)
    module = simvp.ConvSC(channels, size=kernel.shape[-1], change=change)
    part = 'decoder' if change == 'up' else 'encoder'
    return module, f'{part}/unit_0', f'{part[:3]}.{part[:3]}.0.'
  if translator == 'incepu':
    module = translators.Inception(len(state['conv1.bias']), channels)
    return module, 'translation/encode_0', 'hid.enc.0.'
  settings = {}
  if ratio := mlp_ratio(state, None):
    settings['ratio'] = ratio
  if translator == 'swin':
    settings['shifted'] = int(index.removeprefix('layer')) % 2 == 1
  if translator == 'uniformer':
    settings['local'] = 'block.conv1.weight' in state
  module = blocks.BLOCKS[translator](**settings)
  return module, 'translation/block_0', 'hid.enc.0.'


def single_blocks(path):
  """Rows of single blocks, each with a tolerance of its own."""
  arrays, meta = read(path)
  for entry, facts in meta['info'].items():
    case = below(f'{entry}/', arrays)
    module, place, before = block_of(entry, case)
    args = (False,) if 'block_' in place else ()
    x = jnp.asarray(channels_last(case['x0']))
    init = functools.partial(module.init, jax.random.key(0))
    expected = jax.eval_shape(lambda x, init=init, args=args: init(x, *args), x)
    flat = {
      f'{collection}/{place}/{path}': leaf
      for collection, tree in expected.items()
      for path, leaf in params.flatten(tree).items()
    }
    names = published.torch_names(flat, entry.partition('_')[0].lower())
    state = {before + k: x for k, x in below('w/', case).items()}
    tree = weights.rearrange(names, state, params.unflatten(flat))
    variables = {
      collection: functools.reduce(dict.get, place.split('/'), inner)
      for collection, inner in tree.items()
    }
    out = _jit(lambda v, x, module=module, args=args: module.apply(v, x, *args))
    yield Row(
      entry,
      largest_of_images(out(variables, x), case['out']),
      allowed(1e-5, facts['fp32_vs_fp64'], 10),
    )


KINDS = [Kind('eval_out', forward), Kind('x0', single_blocks)]
