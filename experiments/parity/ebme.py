"""EBME's flow: splatting, cost volume, BiFlowNet with its published weights.

Errors are the largest absolute differences; flows also have a mean one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.arrays import (
  Kind,
  Row,
  allowed,
  channels_last,
  largest,
  largest_of_images,
  read,
  stored_weights,
)
from vidpred_jax import convert, runtime
from vidpred_jax.models import ebme
from vidpred_jax.ops import correlation, resize, splat


def operations(path):
  """Rows of splatting and of the cost volume, and of their gradients."""
  case, _ = read(path)
  image, flow, cotangent = (
    jnp.asarray(channels_last(case[f'splat_{k}']))
    for k in ('in', 'flow', 'cot')
  )
  average, pull = jax.vjp(lambda x: splat.forward(x, flow)[0], image)
  _, weight = splat.forward(image, flow)
  total, pull_sum = jax.vjp(splat.splat, image, flow)
  of_image, of_flow = pull_sum(cotangent)
  for name, ours in {
    'splat_avg': average,
    'splat_avg_grad_in': pull(cotangent)[0],
    'splat_sum_ones': weight,
    'splat_sum_out': total,
    'splat_sum_grad_in': of_image,
    'splat_sum_grad_flow': of_flow,
  }.items():
    yield Row(name, largest_of_images(ours, case[name]), 1e-5)
  error = largest(np.mean(weight == 0), case['holes_frac'])
  yield Row('holes_frac', error, 1e-6)
  first, second = (channels_last(case[f'corr_{k}']) for k in 'ab')
  cost = runtime.jit(correlation.local)(first, second)
  yield Row('corr_out', largest_of_images(cost, case['corr_out']), 2e-6)


def flow_rows(path):
  """Rows of BiFlowNet on a pair of frames."""
  case, meta = read(path)
  floors = meta.get('fp32_vs_fp64', {})
  state = stored_weights(path, case, meta)
  variables = convert.from_torch('apr_vfi', state, synthesis='warp')
  variables = {'params': variables['params']['flow']}
  pair = np.stack([channels_last(case[f'img{i}']) for i in (0, 1)], 1) / 255
  reverse = -1 if meta.get('channel_order', 'BGR').startswith('BGR') else 1
  pair = pair[..., ::reverse]
  model, levels = ebme.BiFlowNet(), int(case['pyr_level'])
  run = runtime.jit(functools.partial(model.apply, levels=levels))
  estimate = run(variables, pair)

  def rows(name, ours, theirs):
    tolerance = allowed(3e-3, floors.get('max', 0))
    yield Row(name, largest(ours, theirs), tolerance)
    mean = float(np.mean(np.abs(np.asarray(ours) - theirs)))
    yield Row(f'{name} (mean)', mean, allowed(1e-4, floors.get('mean', 0)))

  for i, flow in enumerate(estimate.pyramid):
    name = f'lowres_flow_iter{i}'
    yield from rows(name, flow, channels_last(case[name]))
  flow = np.asarray(estimate.flow, np.float64)
  if 'flow_window' in case:
    top, bottom, left, right = case['flow_window_yx']
    window = flow[:, top:bottom, left:right]
    yield from rows('flow_window', window, channels_last(case['flow_window']))
  summary = [flow.mean((0, 1, 2)), flow.std((0, 1, 2))]
  yield Row('flow_mean_std', largest(summary, case['flow_mean_std']), 1e-4)
  if 'iter0_feat0' in case:
    yield from coarsest_rows(case, model, variables, pair, levels, reverse)


def coarsest_rows(case, model, variables, pair, levels, reverse):
  """Rows of the parts of the coarsest level, each from the stored inputs."""
  small = resize.bilinear(pair[:, 0], scale=0.5 ** (levels - 1))
  theirs = channels_last(case['img0_down_iter0'])[..., ::reverse]
  yield Row('img0_down_iter0', largest(small, theirs), 2e-6)
  for i in (0, 1):
    small = resize.bilinear(pair[:, i], scale=0.5 ** (levels - 1))
    ours = model.apply(
      variables, small, method=lambda model, image: model.encoder(image)
    )
    error = largest_of_images(ours, case[f'iter0_feat{i}'])
    yield Row(f'iter0_feat{i}', error, 1e-4)

  def refine(model, cost, first, second):
    feature = jnp.zeros((*cost.shape[:3], 64))
    return model.estimator(cost, first, second, feature, feature[..., :4])

  cost, first, second = (
    channels_last(case[f'iter0_{k}']) for k in ('corr', 'feat0', 'feat1')
  )
  _, feature = model.apply(variables, cost, first, second, method=refine)
  yield Row(
    'iter0_estfeat', largest_of_images(feature, case['iter0_estfeat']), 1e-4
  )
  ours = correlation.local(first, second)
  yield Row('iter0_corr', largest(ours, cost), 1e-5)


KINDS = [Kind('splat_in', operations), Kind('pyr_level', flow_rows)]
