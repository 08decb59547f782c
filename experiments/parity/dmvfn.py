"""DMVFN: operations, forward pass, losses, gradients.

Errors are the largest absolute differences; those of weights' gradients are
relative L2 errors.
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
from vidpred_jax import convert, losses, runtime
from vidpred_jax.convert.dmvfn import torch_names
from vidpred_jax.models import dmvfn
from vidpred_jax.ops import conv, resize, routing, warp


def operations(path):
  """Rows of warping, resizing and convolutions."""
  case, _ = read(path)
  image, flow, cotangent = (
    jnp.asarray(channels_last(case[f'warp_{k}']))
    for k in ('img', 'flow', 'cot')
  )
  out, pull = jax.vjp(warp.backward, image, flow)
  of_image, of_flow = pull(cotangent)
  yield Row('warp_out', largest_of_images(out, case['warp_out']), 1e-5)
  error = largest_of_images(of_image, case['warp_grad_img'])
  yield Row('warp_grad_img', error, 1e-4)
  # Elsewhere a pixel lies so near to a grid line that rounding decides.
  valid = case['warp_grad_flow_valid']
  theirs = channels_last(case['warp_grad_flow'])[valid]
  yield Row('warp_grad_flow', largest(of_flow[valid], theirs), 1e-5)
  for name, theirs in case.items():
    if match := re.fullmatch(r'(interp(?:_odd)?)_x([0-9p]+)', name):
      start, scale = match.groups()
      own = f'{start}_in_x{scale}'
      x = channels_last(case[own if own in case else f'{start}_in'])
      out = resize.bilinear(x, scale=float(scale.replace('p', '.')))
      yield Row(name, largest_of_images(out, theirs), 2e-6)
  x = jnp.asarray(channels_last(case['convT_in']))
  kernel = jnp.asarray(case['convT_w']).transpose(2, 3, 0, 1)
  out = conv.bias_add(conv.transposed_conv(x, kernel), case['convT_b'])
  yield Row('convT_out', largest_of_images(out, case['convT_out']), 2e-6)
  kernel = jnp.asarray(case['conv_w']).transpose(2, 3, 1, 0)
  for name, part in (('conv_s2_out', x), ('conv_s2_odd_out', x[:, :-1, :-1])):
    out = conv.conv(part, kernel, stride=2, padding=1)
    out = conv.bias_add(out, case['convT_b'])
    yield Row(name, largest_of_images(out, case[name]), 3e-6)


def laplacian(path):
  """Rows of the Laplacian pyramid and loss."""
  case, _ = read(path)
  image, truth = (channels_last(case[k]) for k in ('input', 'target'))
  value, gradient = runtime.jit(
    jax.value_and_grad(lambda x: losses.laplacian(x, truth).mean())
  )(image)
  yield Row('loss64', largest(value, case['loss64']), 1e-6)
  error = largest_of_images(gradient, case['grad_input'])
  yield Row('grad_input', error, 1e-9)
  pyramid = runtime.jit(losses.laplacian_pyramid)(image[:1])
  for i, level in enumerate(pyramid):
    yield Row(f'pyr{i}', largest_of_images(level, case[f'pyr{i}']), 2e-6)


def network(path, case, meta, formulation):
  """The model of a case, its variables, and its pair of frames."""
  state = stored_weights(path, case, meta)
  blocks = {re.match(r'block\d+|', name).group() for name in state} - {''}
  settings = {
    'widths': tuple(
      len(state[f'block{i}.conv0.1.0.bias']) for i in range(len(blocks))
    ),
    'spatial_path': 'block0.conv1.0.0.weight' in state,
    'formulation': formulation,
  }
  if 'scale' in meta:
    settings['scales'] = tuple(meta['scale'])
  variables = convert.from_torch(
    'dmvfn', state, channel_order='rgb', **settings
  )
  x = channels_last(case['x'])
  pair = jnp.stack([x[..., :3], x[..., 3:6]], 1)
  return dmvfn.DMVFN(**settings), variables, pair


def forward(path, formulation):
  """Rows of the router, of training with given routes, and of inference."""
  case, meta = read(path)
  floors = meta.get('fp32_vs_fp64_maxabs', {})
  model, variables, pair = network(path, case, meta, formulation)

  def row(name, ours, fixed, floor):
    error = largest_of_images(ours, case[name])
    return Row(name, error, allowed(fixed, floors.get(floor, 0)))

  logits = runtime.jit(functools.partial(model.apply, method='route'))(
    variables, pair
  )
  probabilities = routing.budgeted_probabilities(logits[..., 0], 0.5)
  yield Row('probs', largest(probabilities, case['probs']), 2e-6)
  output = runtime.jit(model.apply)(variables, pair, jnp.asarray(case['ref']))
  first = np.stack([x[:1] for x in output.frames])
  yield row('train_merged', first, 3e-5, 'train')
  if 'train_merged_last' in case:
    yield row('train_merged_last', output.frames[-1][1:], 3e-5, 'train')
  yield row('train_flow', output.flow, 1e-4, 'flow')
  yield row('train_mask', output.mask, 1e-4, 'mask')
  run_route = runtime.jit(functools.partial(model.apply, method='run_route'))
  for name, gates in below('eval_vec_', case).items():
    gates = jnp.asarray(gates)[None]
    output = run_route(variables, pair[:1], gates)
    flow = f'eval_flow_{name}'
    yield row(f'eval_final_{name}', output.frames[-1], 3e-5, f'eval_{name}')
    yield row(flow, output.flow, 1e-4, flow)
    yield row(f'eval_mask_{name}', output.mask, 1e-4, flow)
    if f'eval_first_{name}' in case:
      only = jnp.zeros_like(gates).at[0, jnp.argmax(gates[0])].set(1)
      output = run_route(variables, pair[:1], only)
      yield row(f'eval_first_{name}', output.frames[-1], 3e-5, f'eval_{name}')
    if name == 'all' and 'train_flow_after_block0' in case:
      only = jnp.zeros_like(gates).at[0, 0].set(case['ref'][0, 0])
      output = run_route(variables, pair[:1], only)
      yield row('train_flow_after_block0', output.flow, 1e-4, 'flow')


def gradients(path, formulation):
  """Rows of the deeply supervised loss, routes given, and its gradients."""
  case, meta = read(path)
  model, variables, pair = network(path, case, meta, formulation)
  truth = jnp.asarray(channels_last(case['gt']))

  def loss(variables):
    logits = model.apply(variables, pair, method='route')[..., 0]
    gates = routing.straight_through(
      jnp.asarray(case['ref']), routing.budgeted_probabilities(logits, 0.5)
    )
    frames = model.apply(variables, pair, gates).frames
    each = jnp.stack([losses.laplacian(x, truth).mean() for x in frames])
    return losses.deep_supervision(each, 0.8), each

  (total, each), gradient = runtime.jit(jax.value_and_grad(loss, has_aux=True))(
    variables
  )
  yield Row('loss64', largest(total, case['loss64']), 1e-6)
  error = largest(each, case['loss_per_block64'])
  yield Row('loss_per_block64', error, 1e-6)
  places = torch_names(len(model.scales), spatial_path=model.spatial_path)
  floors = meta.get('grad_relL2_fp32_vs_fp64', {})
  for name, theirs in below('grad/', case).items():
    place, kind, _ = places[name]
    ours = functools.reduce(dict.get, place.split('/'), gradient['params'])
    error = relative(ours, laid_out(theirs, kind, ours.shape))
    fixed = {'l1': 1e-3, 'routing': 2e-3}.get(name.split('.')[0], 1e-2)
    yield Row(f'grad/{name}', error, allowed(fixed, floors.get(name, 0)))


KINDS = [
  Kind('warp_img', operations),
  Kind('pyr0', laplacian),
  *(
    Kind(marker, functools.partial(rows, formulation=name), name)
    for marker, rows in (('probs', forward), ('loss_per_block', gradients))
    for name in ('published', 'fast')
  ),
]
