"""APR-VFI as a system: frames between two frames.

Chen et al., "Alignment-aware Patch-level Routing for Dynamic Video Frame
Interpolation", 2024; equation and table numbers are this paper's. Images are
RGB. Any number of frames between the two and any times: the flow and the
features of the two frames are computed once.

The paper's three stages of training are three settings of `synthesis`:
'whole', then 'patches' and 'routed' with `train_flow=False` and the flow's
parameters frozen. 'warp' has no synthesis network at all, for weights of the
flow alone.

Where the paper is silent: gates in training are drawn by the straight-through
Gumbel-softmax at temperature 1, but what the loss compares with the reference
route map are the router's probabilities (with the binary gates in their place
it learns less well); the census transform is `losses.census`;
differences are means over colours of absolute values; the hole region around a
warped image's edge is `ops.routing.edge_holes`; predictions are cut off at 0
and 1, but not in the loss.
"""

import functools
import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vidpred_jax import losses
from vidpred_jax.models import apr_vfi, ebme
from vidpred_jax.ops import resize
from vidpred_jax.ops import routing as gating
from vidpred_jax.systems.base import (
  Frames,
  System,
  check_clip,
  check_context,
  check_shape,
  take,
)

_CHOICES = {
  'synthesis': ('routed', 'patches', 'whole', 'warp'),
  'inference_routing': ('argmax', 'ratios', 'reference', 'all'),
  'supervision': ('warped', 'image', 'reconstruction'),
  'fusion': apr_vfi.FUSIONS,
  'dtype': ('float32', 'bfloat16'),
}


def make(
  *,
  frames: Frames,
  synthesis: str = 'routed',
  patch: int = 64,
  keep_ratios: tuple[float, ...] = (0.1, 0.4, 0.6, 0.9),
  inference_routing: str = 'argmax',
  supervision: str = 'warped',
  fusion: str = 'add',
  widths: tuple[int, ...] = (80, 96, 96, 48, 32),
  depths: tuple[int, ...] = (2, 5, 4, 3, 3),
  features: int = 32,
  context_channels: int = 16,
  context_hidden: int = 48,
  levels: int | None = None,
  standardised: bool = False,
  train_flow: bool = True,
  temperature: float = 1.0,
  census_weight: float = 0.1,
  apr_weight: float = 0.01,
  warp_weight: float = 0.0,
  flow_weight: float = 0.0,
  flow_gamma: float = 0.8,
  dtype: str = 'float32',
) -> System:
  """Makes the system.

  Args:
    frames: two context frames and targets between them, such as
      `((0, 2), (1,))` or `((0, 8), (1, 2, 3, 4, 5, 6, 7))`.
    synthesis: 'whole': every block on the whole image (stage 1); 'patches':
      every block but the first on every patch by itself (stage 2); 'routed': on
      patches that the router chooses (stage 3); 'warp': none, the mean of both
      frames warped.
    patch: side of a patch in pixels, a multiple of 4 (table 2).
    keep_ratios: kr_1..kr_d, the share of patches that each block after the
      first is to process (table 3).
    inference_routing: 'routed' only, which patches a block processes.
      'argmax': those of which the router says so, as published; 'ratios': as
      many as `keep_ratios` say, those of which it is surest; 'reference': the
      same by how much the warped frames differ, without the router; 'all'.
    supervision: of the router, table 4: by the difference of the 'warped'
      frames, of the frames as they are ('image'), or of the prediction and the
      truth ('reconstruction').
    fusion: of the blocks' features, 'add', 'concat' or 'none' (table 5).
    widths: channels of the refine blocks at half resolution.
    depths: their convolutions there.
    features: channels between the blocks.
    context_channels: features of a frame for each block.
    context_hidden: channels of the convolutions that make them.
    levels: of the flow's pyramid; None: by the frames' width,
      `models.ebme.num_levels`.
    standardised: whether the flow network compares standardised features, see
      `models.ebme.BiFlowNet`. Weights are of one or the other.
    train_flow: whether equation 4 has a gradient to the flow's parameters. (To
      freeze them also needs the optimiser's `frozen`.)
    temperature: of the Gumbel-softmax.
    census_weight: lambda_1 of equation 4.
    apr_weight: lambda_2 of equation 4.
    warp_weight: of what the paper does not have, the difference of each warped
      frame from the truth by Laplacian pyramids, which has a gradient to the
      flow in any case. From random weights a flow follows from it alone in some
      hundred steps; equation 4 is met by blending before, and holds it back.
    flow_weight: of what the paper does not have either, the end-point error of
      both flows in pixels, at every level of the pyramid, where the exact flow
      is known. It has a gradient to the flow in any case.
    flow_gamma: how much less a level counts there than the next finer one.
    dtype: of the convolutions, 'float32' or 'bfloat16'.

  Returns:
    The system. Metrics of its loss: 'charbonnier', 'census', 'warp', 'psnr'
    (dB), 'end_point_error' (pixels, of the finest level), and for 'routed'
    'apr' and 'blocks', how many of the blocks patches went through on average.
    What it explains: 'flow' (of the first frame to the wanted time), 'mask';
    and where it works on patches 'blocks', the share of patches that went
    through each, and 'routes' [B, N, H, W, 1], the share of the blocks after
    the first that each pixel went through.

  Raises:
    ValueError: if `frames` or a setting cannot be.
  """
  _check_settings(locals())
  _check_frames(frames)
  keep_ratios, widths = tuple(keep_ratios), tuple(widths)
  routed = synthesis == 'routed'
  model = apr_vfi.APRVFI(
    synthesised=synthesis != 'warp',
    routed=routed,
    patch=patch if synthesis in ('routed', 'patches') else None,
    widths=widths,
    depths=tuple(depths),
    features=features,
    context_channels=context_channels,
    context_hidden=context_hidden,
    fusion=fusion,
    standardised=standardised,
    dtype=jnp.dtype(dtype),
  )
  start, end = frames.context
  times = [(target - start) / (end - start) for target in frames.target]
  num_dynamic = len(widths) - 1

  def init(key, video):
    check_shape(video, frames.length, 3, 1)
    # No parameter depends on the size.
    side = max(32, patch)
    pair = jnp.zeros((1, 2, side, side, 3))
    return {'params': model.init(key, pair)['params']}

  def bind(method, variables):
    return functools.partial(model.apply, variables, method=method)

  def reference(difference, moved=None):
    """[B, nh, nw, d] by [B, H, W, 3], the difference of two images."""
    magnitude = jnp.mean(jnp.abs(difference), -1, keepdims=True)
    if moved is not None:
      for i in range(2):
        magnitude *= 1 - gating.edge_holes(moved.weight[:, i])
    differences = gating.patch_difference(magnitude, patch)
    return gating.reference_routes(differences, keep_ratios)

  def of_warped(moved):
    return reference(moved.frames[:, 0] - moved.frames[:, 1], moved)

  def loss(variables, video, key, flow=None):
    check_clip(video, frames.length, 3, 1)
    if (flow is not None) != bool(flow_weight):
      raise ValueError(
        f'flow_weight is {flow_weight}: got '
        f'{"no flow" if flow is None else "a flow"}.'
      )
    pair = take(video, frames.context)
    prepared = estimated = bind('prepare', variables)(pair, levels)
    if not train_flow:
      prepared = prepared._replace(flow=jax.lax.stop_gradient(prepared.flow))

    def one(time, truth, key):
      moved = bind('move', variables)(prepared, time)
      metrics, total = {}, 0.0
      if not model.synthesised:
        output = apr_vfi.blend(prepared, moved)
      elif not routed:
        output = bind('synthesise', variables)(prepared, moved)
      else:
        logits = bind('route', variables)(moved)
        soft = gating.gumbel(logits, key, temperature)
        hard = (soft > 0.5).astype(jnp.float32)
        gates = gating.straight_through(hard, soft)
        output = bind('synthesise', variables)(prepared, moved, gates)
        if supervision == 'warped':
          routes = of_warped(moved)
        elif supervision == 'image':
          routes = reference(pair[:, 0] - pair[:, 1])
        else:
          routes = reference(output.frame - truth)
        chances = jax.nn.softmax(logits, -1)[..., 1]
        metrics['apr'] = losses.route_distance(chances, routes)
        metrics['blocks'] = 1 + jnp.mean(jnp.sum(hard, -1))
        total += apr_weight * metrics['apr']
      metrics['charbonnier'] = losses.charbonnier(output.frame, truth)
      total += metrics['charbonnier']
      if census_weight:
        metrics['census'] = losses.census(output.frame, truth)
        total += census_weight * metrics['census']
      if warp_weight:
        warped = bind('move', variables)(estimated, time)
        off = warped.frames - truth[:, None]
        off = apr_vfi.flat(jnp.where(warped.weight > 0, off, 0))
        metrics['warp'] = jnp.mean(
          losses.laplacian(off, jnp.zeros_like(off), levels=4)
        )
        total += warp_weight * metrics['warp']
      shown = jnp.clip(output.frame, 0, 1)
      error = jnp.mean((shown - truth) ** 2, (1, 2, 3))
      metrics['psnr'] = jnp.mean(-10 * jnp.log10(jnp.maximum(error, 1e-10)))
      return total, metrics

    if len(times) == 1:
      total, metrics = one(times[0], video[:, frames.target[0]], key)
    else:
      truth = jnp.moveaxis(take(video, frames.target), 1, 0)
      keys = jax.random.split(key, len(times))
      total, metrics = jax.lax.map(
        lambda item: one(*item), (jnp.asarray(times), truth, keys)
      )
    total, metrics = jax.tree.map(jnp.mean, (total, metrics))
    if flow_weight:
      errors = flow_errors(estimated.pyramid, flow)
      metrics['end_point_error'] = errors[-1]
      total += flow_weight * losses.deep_supervision(errors, flow_gamma)
    return total, ({}, metrics)

  def flow_errors(pyramid, flow):
    """[L], of each level from coarse to fine, in pixels of the frames."""
    height, width = flow.shape[2:4]
    errors = []
    for level, small in zip(reversed(range(len(pyramid))), pyramid):
      scale = 2**level
      whole = scale * resize.bilinear(small, scale=4 * scale)
      both = ebme.to_each(whole[:, :height, :width]).reshape(flow.shape)
      errors.append(losses.end_point_error(both, flow))
    return jnp.stack(errors)

  def chosen(variables, moved):
    """[B, nh, nw, d], 0 or 1: which blocks patches go through."""
    batch, _, height, width, _ = moved.frames.shape
    shape = (batch, *gating.patch_grid(height, width, patch), num_dynamic)
    if not routed or inference_routing == 'all':
      return jnp.ones(shape)
    if inference_routing == 'reference':
      return of_warped(moved)
    logits = bind('route', variables)(moved)
    scores = logits[..., 1] - logits[..., 0]
    if inference_routing == 'argmax':
      return (scores > 0).astype(jnp.float32)
    columns = [
      gating.highest(scores[..., i].reshape(batch, -1), ratio)
      for i, ratio in enumerate(keep_ratios)
    ]
    return jnp.stack(columns, -1).reshape(shape)

  def explain(variables, context, key):
    del key
    check_context(context, 2, 3, 1)
    prepared = model.apply(variables, context, levels, method='prepare')
    shots = []
    for time in times:
      moved = bind('move', variables)(prepared, time)
      details = {'flow': moved.to[:, 0]}
      if not model.synthesised:
        output = apr_vfi.blend(prepared, moved)
      elif model.patch is None:
        output = bind('synthesise', variables)(prepared, moved)
      else:
        gates = chosen(variables, moved)
        output = bind('synthesise', variables)(
          prepared, moved, gates, routed=True
        )
        details |= _shown_routes(gates, context.shape[2:4], patch)
      details['mask'] = output.mask
      shots.append((jnp.clip(output.frame, 0, 1), details))
    return jax.tree.map(lambda *x: jnp.stack(x, 1), *shots)

  def predict(variables, context, key):
    return explain(variables, context, key)[0]

  return System(
    init=init,
    loss=loss,
    predict=predict,
    frames=frames,
    multiple=1,
    stochastic=False,
    explain=explain,
    flow_pairs=((start, end), (end, start)) if flow_weight else (),
  )


def _shown_routes(gates, size, patch):
  """What `explain` says of gates [B, nh, nw, d]."""
  shares = jnp.mean(gates, (1, 2))
  blocks = jnp.concatenate([jnp.ones((len(gates), 1)), shares], -1)
  routes = jnp.mean(gates, -1, keepdims=True)
  routes = jnp.repeat(jnp.repeat(routes, patch, 1), patch, 2)
  return {'blocks': blocks, 'routes': routes[:, : size[0], : size[1]]}


def _check_settings(settings):
  """Raises ValueError for the first setting that cannot be."""

  def number(x, low=-math.inf, high=math.inf):
    real = isinstance(x, numbers.Real) and not isinstance(x, bool)
    return real and math.isfinite(x) and low <= x <= high

  def whole(x, low=1):
    return isinstance(x, numbers.Integral) and number(x, low)

  def several(x):
    return isinstance(x, Sequence) and not isinstance(x, str)

  def expect(name, fine, expected):
    if not fine:
      raise ValueError(f'Got {name}={settings[name]!r}; expected {expected}.')

  for name, choices in _CHOICES.items():
    expect(name, settings[name] in choices, f'one of {choices}')
  patch, widths = settings['patch'], settings['widths']
  expect('patch', whole(patch) and patch % 4 == 0, 'a multiple of 4')
  fine = several(widths) and len(widths) > 1 and all(map(whole, widths))
  expect('widths', fine, 'two or more positive whole numbers')
  depths = settings['depths']
  fine = several(depths) and all(whole(x, 0) for x in depths)
  fine = fine and len(depths) == len(widths)
  expect('depths', fine, f'{len(widths)} whole numbers, one per width')
  ratios = settings['keep_ratios']
  fine = several(ratios) and all(number(x, 0, 1) for x in ratios)
  fine = fine and len(ratios) == len(widths) - 1
  expect(
    'keep_ratios',
    fine,
    f'{len(widths) - 1} shares in [0, 1], one per block after the first',
  )
  for name in ('features', 'context_channels', 'context_hidden'):
    expect(name, whole(settings[name]), 'a positive whole number')
  levels = settings['levels']
  expect('levels', levels is None or whole(levels), 'a positive number or None')
  for name in ('train_flow', 'standardised'):
    expect(name, isinstance(settings[name], bool), 'True or False')
  temperature = settings['temperature']
  fine = number(temperature, 0) and temperature > 0
  expect('temperature', fine, 'a positive number')
  weights = ('census_weight', 'apr_weight', 'warp_weight', 'flow_weight')
  for name in (*weights, 'flow_gamma'):
    expect(name, number(settings[name], 0), 'a number, 0 or more')


def _check_frames(frames):
  """Raises ValueError unless all targets lie between two context frames."""
  if (
    len(frames.context) != 2
    or len(frames.target) < 1
    or frames.context[0] >= frames.context[1]
    or not frames.interpolates
  ):
    raise ValueError(
      f'Got frames {tuple(frames)}; apr_vfi needs two context frames and '
      'targets between them, such as ((0, 2), (1,)).'
    )
