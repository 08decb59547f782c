"""Largest error against EBME's published numbers, array by array.

  python -m experiments.parity_ebme [--shared=../shared]

Question: do splatting, cost volume and BiFlowNet compute what the published
code computes, with the published weights on real frames? Each line names a
stored array of `parity/ebme`, the largest absolute difference (flows: also the
mean one), the tolerance of that folder's README, and whether it holds.
"""

import argparse
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import convert, runtime
from vidpred_jax.models import ebme
from vidpred_jax.ops import correlation, splat


def to_nhwc(x):
  """NCHW to NHWC, float32."""
  return np.moveaxis(np.asarray(x, np.float32), 1, -1)


def ops_errors(path):
  """{array: (error, tolerance)} of the operations and their gradients."""
  case = dict(np.load(path))
  errors = {}

  def compare(name, ours, tolerance):
    difference = np.abs(np.asarray(ours) - to_nhwc(case[name]))
    errors[name] = (float(difference.max()), tolerance)

  image, flow, cotangent = (
    jnp.asarray(to_nhwc(case[f'splat_{k}'])) for k in ('in', 'flow', 'cot')
  )
  average, pull = jax.vjp(lambda x: splat.forward(x, flow)[0], image)
  compare('splat_avg', average, 1e-5)
  compare('splat_avg_grad_in', pull(cotangent)[0], 1e-5)
  compare('splat_sum_ones', splat.forward(image, flow)[1], 1e-5)
  total, pull = jax.vjp(splat.splat, image, flow)
  of_image, of_flow = pull(cotangent)
  compare('splat_sum_out', total, 1e-5)
  compare('splat_sum_grad_in', of_image, 1e-5)
  compare('splat_sum_grad_flow', of_flow, 1e-5)
  first, second = (jnp.asarray(to_nhwc(case[f'corr_{k}'])) for k in 'ab')
  compare('corr_out', correlation.local(first, second), 2e-6)
  return errors


def flow_errors(path, variables):
  """{array: (error, tolerance)} of BiFlowNet on a pair of frames."""
  case = dict(np.load(path))
  pair = np.stack([to_nhwc(case['img0']), to_nhwc(case['img1'])], 1) / 255
  model = ebme.BiFlowNet()
  levels = int(case['pyr_level'])
  run = runtime.jit(functools.partial(model.apply, levels=levels))
  estimate = run(variables, pair[..., ::-1])  # the files are BGR
  errors = {}

  def compare(name, ours, theirs):
    difference = np.abs(np.asarray(ours) - theirs)
    errors[name] = (float(difference.max()), 3e-3)
    errors[f'{name} (mean)'] = (float(difference.mean()), 1e-4)

  for i, flow in enumerate(estimate.pyramid):
    name = f'lowres_flow_iter{i}'
    compare(name, flow, to_nhwc(case[name]))
  flow = np.asarray(estimate.flow, np.float64)
  if 'flow_window' in case:
    top, bottom, left, right = case['flow_window_yx']
    window = flow[:, top:bottom, left:right]
    compare('flow_window', window, to_nhwc(case['flow_window']))
  summary = [flow.mean((0, 1, 2)), flow.std((0, 1, 2))]
  difference = np.abs(summary - case['flow_mean_std'])
  errors['flow_mean_std'] = (float(difference.max()), 1e-4)
  return errors


def tables(shared):
  """[(title, function that gives {array: (error, tolerance)})]."""
  folder = pathlib.Path(shared) / 'parity' / 'ebme'
  with np.load(folder / 'weights_ebme.npz') as arrays:
    weights = {name: arrays[name] for name in arrays.files}
  variables = convert.from_torch('apr_vfi', weights, synthesis='warp')
  flow = {'params': variables['params']['flow']}
  found = [('ops', functools.partial(ops_errors, folder / 'ops.npz'))]
  for path in sorted(folder.glob('case_*.npz')):
    found.append((path.stem, functools.partial(flow_errors, path, flow)))
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
