"""Largest error against the published code's numbers, and size and cost.

  python -m experiments.parity_simvp [--shared=../shared]

Questions: does the reimplementation of SimVP compute what the published PyTorch
code computes? Each line names a stored array of `parity/simvp`, the largest
absolute difference (for the loss relative; for gradients and batch statistics
the relative L2 error), the tolerance of that folder's README, and whether it
holds. Have the networks the published size and cost? The second table counts
multiply-adds with `vidpred_jax.cost`, without norms and with them: fvcore, with
which the published ones are counted, takes 5 per value of a group or layer norm
and 2 of a batch norm.
"""

import argparse
import functools
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import convert, cost, params, runtime
from vidpred_jax.convert import weights
from vidpred_jax.convert.simvp import torch_names
from vidpred_jax.models import layers, simvp, translators
from vidpred_jax.systems.simvp import CPU_OPTIONS

# As the system is compiled.
_jit = functools.partial(runtime.jit, cpu_options=CPU_OPTIONS)

# By translator; 2e-5 for the others.
TOLERANCES = {'moga': 1e-4, 'van': 1e-4, 'hornet': 2e-4}

# Published: millions of parameters and G multiply-adds of 10 x 64x64.
SMALL = {
  'vit': (46.10, 16.928),
  'swin': (46.11, 16.409),
  'poolformer': (37.12, 14.076),
  'mlp': (38.19, 14.651),
  'convmixer': (3.92, 5.450),
  'incepu': (57.95, 19.431),
  'gsta': (46.77, 16.526),
  'tau': (44.66, 15.953),
  'van': (44.52, 15.951),
  'convnext': (37.31, 14.124),
  'uniformer': (44.83, 16.449),
  'hornet': (45.74, 16.271),
  'moga': (46.78, 16.519),
}
LARGE = {'gsta': (524.00, 152.149), 'incepu': (684.97, 193.61)}
NORMS = {layers.GroupNorm: 5, layers.LayerNorm: 5, layers.BatchNorm: 2}


def to_nhwc(x):
  """NCHW, or [B, T, C, H, W], to channels last; float32."""
  return np.moveaxis(np.asarray(x, np.float32), -3, -1)


def largest(ours, theirs):
  """The largest absolute difference to an array of channels first."""
  return float(np.max(np.abs(ours - to_nhwc(theirs))))


def relative(ours, theirs):
  """The relative L2 error."""
  difference = np.asarray(ours, np.float64) - theirs
  return float(np.linalg.norm(difference) / np.linalg.norm(theirs))


def weights_of(case):
  """The published names and arrays in a case."""
  return {k[2:]: x for k, x in case.items() if k.startswith('w/')}


def case_errors(path):
  """{array: (error, tolerance)} of one network."""
  case = dict(np.load(path))
  cfg = json.loads(bytes(case['meta_json']))['cfg']
  settings = {
    'channels': cfg['in_shape'][1],
    'hid_s': cfg['hid_S'],
    'hid_t': cfg['hid_T'],
    'n_t': cfg['N_T'],
    'translator': cfg['model_type'].lower(),
  }
  variables = convert.from_torch('simvp', weights_of(case), **settings)
  # The published training outputs are without stochastic depth.
  model = simvp.SimVP(cfg['in_shape'][0], first_drop_path=0, **settings)
  video = jnp.asarray(to_nhwc(case['x']))
  tolerance = TOLERANCES.get(model.translator, 2e-5)

  def parts(model, video):
    features, first = model.encode(video)
    translated = model.translate(features)
    return features, translated, model.decode(translated, first)

  apply = _jit(functools.partial(model.apply, method=parts))
  features, translated, out = apply(variables, video)
  # Features are larger than images.
  scale = max(1, float(np.abs(case['hid']).max()))
  errors = {
    'embed': (largest(features[:1, 0], case['embed']), 2e-5),
    'hid': (largest(translated[:1, :1], case['hid']), tolerance * scale),
    'eval_out': (largest(out, case['eval_out']), tolerance),
  }
  if 'rollout_out' in case:
    *_, more = apply(variables, out)
    count = case['rollout_out'].shape[1]
    frames = jnp.concatenate([out[:1], more[:1]], 1)[:, :count]
    error = largest(frames, case['rollout_out'])
    errors['rollout_out'] = (error, 2 * tolerance)
  if 'train_out' in case:
    errors |= training_errors(model, variables, case)
  return errors


def training_errors(model, variables, case):
  """{array: (error, tolerance)} of one training step."""
  video, target = (jnp.asarray(to_nhwc(case[k])) for k in 'xy')

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
  errors = {
    'train_out': (largest(out, case['train_out']), 2e-5),
    'train_loss': (abs(float(total) / float(case['train_loss64']) - 1), 1e-6),
  }
  ours = params.flatten({'params': gradient, **updated})
  names = torch_names(ours, model.translator)
  for key, theirs in case.items():
    what, _, name = key.partition('/')
    if what in ('grad', 'newstat'):
      got = ours[names[name][0]]
      if theirs.ndim == 4:
        theirs = theirs.transpose(2, 3, 1, 0).reshape(got.shape)
      tolerance = 1e-4 if what == 'grad' else 1e-5
      errors[key] = (relative(got, theirs), tolerance)
  return errors


def block_of(entry):
  """A module, its place in our network and in the published one."""
  name, _, index = entry.partition('_')
  name = name.lower()
  if name == 'convsc':
    change = 'none' if index == 'plain' else index
    part = 'decoder' if change == 'up' else 'encoder'
    module = simvp.Unit(32, change=change)
    return module, f'{part}/unit_0', f'{part[:3]}.{part[:3]}.0.'
  if name == 'incepu':
    module = translators.Inception(16, 32)
    return module, 'translation/encode_0', 'hid.enc.0.'
  settings = {} if name == 'convmixer' else {'ratio': 4.0}
  if name == 'swin':
    settings['shifted'] = index == 'layer1'
  if name == 'uniformer':
    settings['local'] = index == 'layer0'
  module = translators.BLOCKS[name](**settings)
  return module, 'translation/block_0', 'hid.enc.0.'


def block_errors(path):
  """{entry: (error, tolerance)} of single blocks, each with its own floor."""
  arrays = dict(np.load(path))
  info = json.loads(bytes(arrays['meta_json']))['info']
  errors = {}
  for entry, facts in info.items():
    case = {
      k.removeprefix(f'{entry}/'): x
      for k, x in arrays.items()
      if k.startswith(f'{entry}/')
    }
    module, place, before = block_of(entry)
    args = (False,) if 'block_' in place else ()
    x = jnp.asarray(to_nhwc(case['x0']))
    expected = jax.eval_shape(
      lambda x, module=module, args=args: module.init(
        jax.random.key(0), x, *args
      ),
      x,
    )
    flat = {
      f'{collection}/{place}/{path}': leaf
      for collection, tree in expected.items()
      for path, leaf in params.flatten(tree).items()
    }
    names = torch_names(flat, entry.split('_')[0].lower())
    state = {before + k: x for k, x in weights_of(case).items()}
    tree = weights.rearrange(names, state, params.unflatten(flat))
    variables = {
      collection: functools.reduce(dict.get, place.split('/'), inner)
      for collection, inner in tree.items()
    }
    out = _jit(
      lambda v, x, module=module, args=args: module.apply(v, x, *args)
    )(variables, x)
    tolerance = max(1e-5, 10 * facts['fp32_vs_fp64'])
    errors[entry] = (largest(out, case['out']), tolerance)
  return errors


def size_and_cost(**settings):
  """Millions of parameters; G multiply-adds: of layers, norms, 11x11 ones."""
  model = simvp.SimVP(10, **settings)
  video = jax.ShapeDtypeStruct((1, 10, 64, 64, 1), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), video)
  norms = [0]

  def record(call, args, kwargs, context):
    if type(context.module) in NORMS:
      norms[0] += NORMS[type(context.module)] * args[0].size
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    count = cost.count_macs(model.apply, variables, video)
  wide = sum(macs for path, macs in count.items() if 'wide' in path)
  size = sum(cost.parameters(variables).values())
  return size / 1e6, *(x / 1e9 for x in (count.total(), norms[0], wide))


def print_costs():
  """The second table."""
  print(
    f'\n{"":14} {"M parameters":>12} {"published":>9} {"G layers":>8} '
    f'{"norms":>6} {"published":>9} {"off":>7} {"with norms":>10}  note'
  )
  cases = [(f'{k} S', {'translator': k}, x) for k, x in SMALL.items()]
  wider = {'hid_s': 128, 'hid_t': 1024, 'n_t': 24}
  cases += [(f'{k} L', {'translator': k, **wider}, x) for k, x in LARGE.items()]
  for title, settings, (their_size, their_macs) in cases:
    size, macs, norms, wide = size_and_cost(**settings)
    note = ''
    if settings['translator'] == 'convmixer':
      macs -= wide
      note = f'published without the 11x11 convolutions: {wide:.3f} G more'
    print(
      f'{title:14} {size:12.2f} {their_size:9.2f} {macs:8.3f} {norms:6.3f} '
      f'{their_macs:9.3f} {macs / their_macs - 1:+7.2%} '
      f'{(macs + norms) / their_macs - 1:+10.2%}  {note}'
    )


def tables(shared):
  """[(title, function that gives {array: (error, tolerance)})]."""
  folder = pathlib.Path(shared) / 'parity' / 'simvp'
  paths = sorted(folder.glob('*.npz'))
  if not paths:
    raise FileNotFoundError(f'There are no arrays in {folder}.')
  kinds = {'blocks': block_errors}
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
      print(f'  {name:66s} {error:9.2e}  of {tolerance:7.0e}  {verdict}')
  print(f'\n{wrong} arrays are too far off on {jax.default_backend()}.')
  print_costs()


if __name__ == '__main__':
  main()
