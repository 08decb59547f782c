"""Largest error against the published code's numbers, array by array.

  python -m experiments.parity_dmvfn [--shared=../shared]

Question: does the reimplementation compute what the published PyTorch code
computes? Each line names a stored array of `parity/dmvfn`, the largest absolute
difference (for gradients: the relative L2 error), the tolerance of that
folder's README, and whether it holds, for both formulations.
"""

import argparse
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import convert, losses, runtime
from vidpred_jax.convert.dmvfn import torch_names
from vidpred_jax.models import dmvfn
from vidpred_jax.ops import routing


def to_nhwc(x):
  """NCHW, or [n, B, C, H, W], to channels last; float32."""
  return np.moveaxis(np.asarray(x, np.float32), -3, -1)


def load_variables(path):
  """The published layout's arrays as our variables, channels as given."""
  with np.load(path) as arrays:
    state_dict = {name: arrays[name] for name in arrays.files}
  return convert.from_torch('dmvfn', state_dict, channel_order='rgb')


def pair_of(x):
  """[B, 6, H, W] to [B, 2, H, W, 3]."""
  x = to_nhwc(x)
  return jnp.stack([x[..., :3], x[..., 3:6]], 1)


def forward_errors(path, variables, formulation):
  """{array: (error, tolerance)} of one forward case."""
  case = dict(np.load(path))
  scales = (2, 2, 2, 2, 2, 2, 1, 1, 1) if 'scale2' in path.name else None
  model = dmvfn.DMVFN(
    formulation=formulation, **({'scales': scales} if scales else {})
  )
  pair = pair_of(case['x'])
  errors = {}

  def compare(name, ours, tolerance):
    ours, theirs = np.asarray(ours), case[name]
    if theirs.ndim > 2:
      theirs = to_nhwc(theirs)
    error = float(np.max(np.abs(ours - theirs)))
    errors[name] = (error, tolerance)

  logits = model.apply(variables, pair, method='route')[..., 0]
  compare('probs', routing.budgeted(logits, 0.5), 2e-6)
  output = runtime.jit(model.apply)(variables, pair, jnp.asarray(case['ref']))
  compare('train_merged', np.stack([x[:1] for x in output.frames]), 3e-5)
  if 'train_merged_last' in case:
    compare('train_merged_last', output.frames[-1][1:], 3e-5)
  compare('train_flow', output.flow, 1e-4)
  compare('train_mask', output.mask, 1e-4)
  follow = runtime.jit(lambda v, p, g: model.apply(v, p, g, method='follow'))
  for name in ('all', 'alt', 'only4', 'only0'):
    if f'eval_vec_{name}' not in case:
      continue
    gates = jnp.asarray(case[f'eval_vec_{name}'])[None]
    output = follow(variables, pair[:1], gates)
    compare(f'eval_final_{name}', output.frames[-1], 3e-5)
    compare(f'eval_flow_{name}', output.flow, 1e-4)
    compare(f'eval_mask_{name}', output.mask, 1e-4)
    if f'eval_first_{name}' in case:
      only = jnp.zeros_like(gates).at[0, jnp.argmax(gates[0])].set(1)
      output = follow(variables, pair[:1], only)
      compare(f'eval_first_{name}', output.frames[-1], 3e-5)
  return errors


def gradient_errors(path, variables, formulation):
  """{array: (error, tolerance)} of the gradient case."""
  case = dict(np.load(path))
  model = dmvfn.DMVFN(formulation=formulation)
  pair, truth = pair_of(case['x']), jnp.asarray(to_nhwc(case['gt']))

  def loss(variables):
    logits = model.apply(variables, pair, method='route')[..., 0]
    gates = routing.straight_through(
      jnp.asarray(case['ref']), routing.budgeted(logits, 0.5)
    )
    frames = model.apply(variables, pair, gates).frames
    each = jnp.stack([losses.laplacian(x, truth).mean() for x in frames])
    return losses.deep_supervision(each, 0.8), each

  (total, each), gradients = runtime.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(variables)
  errors = {
    'loss': (abs(float(total) - float(case['loss64'])), 1e-5),
    'loss_per_block': (
      float(np.max(np.abs(each - case['loss_per_block64']))),
      1e-5,
    ),
  }
  order = {
    'conv': (3, 2, 0, 1),
    'conv_transpose': (2, 3, 0, 1),
    'linear': (1, 0),
    'vector': (0,),
  }
  for name, (place, kind, _) in torch_names().items():
    if f'grad/{name}' not in case:
      continue
    ours = gradients['params']
    for part in place.split('/'):
      ours = ours[part]
    theirs = case[f'grad/{name}'].astype(np.float64)
    ours = np.asarray(ours, np.float64).transpose(order[kind])
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    tolerance = {'l1': 1e-3, 'routing': 2e-3}.get(name.split('.')[0], 1e-2)
    errors[f'grad/{name}'] = (float(error), tolerance)
  return errors


def laplacian_errors(path):
  """{array: (error, tolerance)} of the Laplacian loss."""
  case = dict(np.load(path))
  image, truth = (jnp.asarray(to_nhwc(case[k])) for k in ('input', 'target'))
  value, gradient = jax.value_and_grad(
    lambda x: losses.laplacian(x, truth).mean()
  )(image)
  errors = {
    'loss': (abs(float(value) - float(case['loss64'])), 1e-6),
    'grad_input': (
      float(np.max(np.abs(gradient - to_nhwc(case['grad_input'])))),
      1e-9,
    ),
  }
  pyramid = losses.laplacian_pyramid(image[:1])
  for i, level in enumerate(pyramid):
    difference = np.asarray(level) - to_nhwc(case[f'pyr{i}'])
    errors[f'pyr{i}'] = (float(np.max(np.abs(difference))), 2e-6)
  return errors


def tables(shared):
  """[(title, function that gives {array: (error, tolerance)})]."""
  folder = pathlib.Path(shared) / 'parity' / 'dmvfn'
  variables = load_variables(folder / 'weights_a.npz')
  loss = folder / 'laploss_2x64x96.npz'
  found = [(loss.stem, functools.partial(laplacian_errors, loss))]
  cases = [(path, forward_errors) for path in sorted(folder.glob('case_*.npz'))]
  cases.append((folder / 'grad_a_2x64x96.npz', gradient_errors))
  for path, errors in cases:
    for formulation in ('published', 'fast'):
      call = functools.partial(errors, path, variables, formulation)
      found.append((f'{path.stem} ({formulation})', call))
  return found


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
      print(f'  {name:36s} {error:9.2e}  of {tolerance:7.0e}  {verdict}')
  print(f'\n{wrong} arrays are too far off on {jax.default_backend()}.')


if __name__ == '__main__':
  main()
