"""DMVFN as a system: its loss and its way of predicting.

Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video Prediction", CVPR
2023; equation and table numbers are this paper's. Images are RGB.

Differences from the reference: inference is deterministic by default
(`inference_routing`); the published code draws at random there too. The feature
term sees RGB, as the feature network was trained; the published code shows it
BGR.
"""

import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import losses
from vidpred_jax.models import dmvfn, features
from vidpred_jax.ops import routing as gating
from vidpred_jax.systems.base import (
  Frames,
  System,
  check_clip,
  check_context,
  check_shape,
)
from vidpred_jax.systems.rollout import rollout as feed_back

_CHOICES = {
  'routing': ('stebs', 'gumbel', 'random', 'none'),
  'inference_routing': ('threshold', 'sample', 'all'),
  'supervision': ('deep', 'single'),
  'formulation': ('fast', 'published'),
  'dtype': ('float32', 'bfloat16'),
}


def make(
  *,
  frames: Frames,
  scales: tuple[int, ...] = (4, 4, 4, 2, 2, 2, 1, 1, 1),
  widths: tuple[int, ...] | None = None,
  spatial_path: bool = True,
  routing: str = 'stebs',
  beta: float = 0.5,
  inference_beta: float | None = None,
  inference_routing: str = 'threshold',
  temperature: tuple[float, float] = (10.0, 0.1),
  temperature_steps: int = 100_000,
  gate_penalty: float = 1.0,
  router_scale: int = 1,
  supervision: str = 'deep',
  gamma: float = 0.8,
  vgg_weight: float = 0.0,
  flow_weight: float = 0.0,
  rollout: int = 0,
  formulation: str = 'fast',
  dtype: str = 'float32',
) -> System:
  """Makes the system.

  Args:
    frames: two context frames and targets that go on at the same step, such as
      `((0, 1), (2, 3, 4))` or `((0, 2), (4,))`.
    scales: the blocks' scale factors S^i, one per block (tables 6, 11).
    widths: the blocks' channels, multiples of 4; None is 160, 80, 44 for the
      first, second and last third of the blocks.
    spatial_path: whether blocks have the full-resolution path (table 7).
    routing: how blocks are chosen in training (table 5). 'stebs': drawn from
      budgeted probabilities, straight-through gradient (equations 10-12);
      'gumbel': Gumbel-softmax (equation 9); 'random': each with probability
      1/2; 'none': all.
    beta: the share of blocks that 'stebs' uses (equation 10).
    inference_beta: the same at inference (tables 8, 13); None is `beta`.
    inference_routing: 'threshold': the most probable blocks of each sample, as
      many as would be drawn on average (`ops.routing.most_probable`); for
      'gumbel' the blocks of probability 1/2 and more. 'sample': drawn at
      random, as published. 'all': every block. With 'random' routing
      'threshold' draws too: there is nothing to go by.
    temperature: 'gumbel' only: tau at the start and at the end of training.
    temperature_steps: 'gumbel' only: how many calls of `loss` it takes to get
      from the one to the other, exponentially. The count is in
      `variables['routing']`.
    gate_penalty: 'gumbel' only: weight of the mean gate in the loss.
    router_scale: the router sees the frames shrunk by this factor. The
      published 1 costs 23 % of all nine blocks.
    supervision: 'deep': the loss of every block's output (equation 13);
      'single': of the last one only (table 9).
    gamma: of equation 13.
    vgg_weight: weight of the VGG19 feature distance of the last output (the
      published code: 0.5). Needs `variables['vgg']`, the parameters of
      `models.features.VGG19`.
    flow_weight: weight of what the paper does not have, the end-point error of
      both flows in pixels where the exact flow is known, of the same outputs as
      the rest of the loss. A flow is learnt from it in a fraction of the steps.
    rollout: 0: each target is predicted from the true frames before it, as
      published. n >= 1: the targets are predicted one after the other from
      predictions, as at inference, and the gradient goes back through the last
      n of these.
    formulation: 'fast' or 'published', see `models.dmvfn.DMVFN`.
    dtype: of the blocks' convolutions, 'float32' or 'bfloat16'.

  Returns:
    The system. Metrics of its loss: 'laplacian' (of the last output), 'psnr'
    (of the last output, dB), 'blocks' (used, mean over the batch), and 'vgg',
    'end_point_error' (of the last output, pixels) and 'gate_penalty' where they
    are part of the loss; all of them means over the targets.

  Raises:
    ValueError: if `frames` or a setting cannot be.
  """
  _check_settings(locals())
  _check_frames(frames)
  scales = tuple(scales)
  widths = None if widths is None else tuple(widths)
  model = dmvfn.DMVFN(
    scales=scales,
    widths=widths,
    spatial_path=spatial_path,
    router_outputs={'stebs': 1, 'gumbel': 2}.get(routing, 0),
    router_scale=router_scale,
    formulation=formulation,
    dtype=jnp.dtype(dtype),
  )
  num_blocks = len(scales)
  multiple = dmvfn.size_multiple(scales, router_scale)
  first, second = frames.context
  stride = second - first

  def init(key, video):
    check_shape(video, frames.length, 3, multiple)
    variables = {'params': dmvfn.initial_params(model, key)}
    if routing == 'gumbel':
      variables['routing'] = {'step': jnp.zeros((), jnp.int32)}
    return variables

  def probabilities(variables, pair, budget):
    """[B, n]: of each block, and the router's logits."""
    if routing == 'random':
      return jnp.full((len(pair), num_blocks), 0.5), None
    logits = model.apply(variables, pair, method='route')
    if routing == 'gumbel':
      return jax.nn.softmax(logits, -1)[..., 1], logits
    return gating.budgeted(logits[..., 0], budget), logits

  def training_gates(variables, pair, key):
    if routing == 'none':
      return None
    chances, logits = probabilities(variables, pair, beta)
    if routing == 'gumbel':
      hot, cold = temperature
      progress = variables['routing']['step'] / temperature_steps
      tau = hot * (cold / hot) ** jnp.minimum(progress, 1.0)
      return gating.gumbel(logits, key, tau)
    return gating.bernoulli(chances, key)

  def inference_gates(variables, pair, key):
    if routing == 'none' or inference_routing == 'all':
      return jnp.ones((len(pair), num_blocks), jnp.float32)
    budget = beta if inference_beta is None else inference_beta
    chances, _ = probabilities(variables, pair, budget)
    if inference_routing == 'sample' or routing == 'random':
      return gating.bernoulli(chances, key)
    if routing == 'gumbel':
      return (chances >= 0.5).astype(jnp.float32)
    return gating.most_probable(chances)

  def loss(variables, video, key, flow=None):
    check_clip(video, frames.length, 3, multiple)
    if (flow is not None) != bool(flow_weight):
      raise ValueError(
        f'flow_weight is {flow_weight}: got '
        f'{"no flow" if flow is None else "a flow"}.'
      )
    truth = jnp.stack([video[:, t] for t in frames.target], 1)
    count = len(frames.target)
    if flow_weight:
      # [B, N, H, W, 4], into the older and into the newer frame.
      flow = flow.reshape(len(flow), count, 2, *flow.shape[2:])
      flow = jnp.concatenate([flow[:, :, 0], flow[:, :, 1]], -1)
    if rollout:
      total, metrics = forecast_loss(variables, video, truth, flow, key)
    else:
      # One example per target, with the pair of true frames before it. The
      # batch stays the outer axis, so that each device keeps its clips.
      steps = np.array([-2 * stride, -stride])
      pairs = jnp.stack([video[:, t + steps] for t in frames.target], 1)
      examples = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), (pairs, truth, flow)
      )
      total, (metrics, _) = example_loss(variables, *examples, key)
    collections = {}
    if routing == 'gumbel':
      collections['routing'] = {'step': variables['routing']['step'] + 1}
    if vgg_weight:
      collections['vgg'] = variables['vgg']
    return total, (collections, metrics)

  def forecast_loss(variables, video, truth, flow, key):
    """Of a whole forecast, each frame from the predictions before it."""
    count = len(frames.target)

    def step(pair, target):
      n, key, truth, flow = target
      total, (metrics, frame) = example_loss(variables, pair, truth, flow, key)
      learns = n >= count - rollout
      frame = jnp.where(learns, frame, jax.lax.stop_gradient(frame))
      return jnp.stack([pair[:, 1], frame], 1), (total, metrics)

    targets = (
      jnp.arange(count),
      jax.random.split(key, count),
      *jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (truth, flow)),
    )
    pair = video[:, np.array(frames.context)]
    _, terms = jax.lax.scan(step, pair, targets)
    return jax.tree.map(jnp.mean, terms)

  def example_loss(variables, pair, truth, flow, key):
    """Of pairs [B, 2, H, W, 3] and the frames [B, H, W, 3] after them.

    Returns:
      `(loss, (metrics, prediction))`.
    """
    gates = training_gates(variables, pair, key)
    output = model.apply(variables, pair, gates)
    last = slice(None) if supervision == 'deep' else slice(-1, None)
    shown = jnp.stack(output.frames[last])
    distances = jax.vmap(losses.laplacian, (0, None))(shown, truth).mean(1)
    total = losses.deep_supervision(distances, gamma)
    error = jnp.mean((output.frames[-1] - truth) ** 2, (1, 2, 3))
    metrics = {
      'laplacian': distances[-1],
      'psnr': jnp.mean(-10 * jnp.log10(jnp.maximum(error, 1e-10))),
      'blocks': jnp.float32(num_blocks)
      if gates is None
      else jnp.mean(jnp.sum(gates, 1)),
    }
    if flow_weight:
      flows = jnp.stack(output.flows[last])
      errors = jax.vmap(end_point_error, (0, None))(flows, flow)
      metrics['end_point_error'] = errors[-1]
      total += flow_weight * losses.deep_supervision(errors, gamma)
    if routing == 'gumbel':
      metrics['gate_penalty'] = jnp.mean(gates)
      total += gate_penalty * metrics['gate_penalty']
    if vgg_weight:
      metrics['vgg'] = _feature_distance(variables, output.frames[-1], truth)
      total += vgg_weight * metrics['vgg']
    return total, (metrics, output.frames[-1])

  def end_point_error(flow, truth):
    """Of two flows, [B, H, W, 4]: each is known where the other may not be."""
    apart = (*flow.shape[:-1], 2, 2)
    return losses.end_point_error(flow.reshape(apart), truth.reshape(apart))

  def explain(variables, context, key):
    check_context(context, 2, 3, multiple)

    def step(pair, key):
      gates = inference_gates(variables, pair, key)
      output = model.apply(variables, pair, gates, method='follow')
      used = jnp.any(gates != 0, 1)[:, None, None, None]
      # Without any block there is nothing but the mean of both frames.
      frame = jnp.where(used, output.frames[-1], pair[:, 1])
      mask = jnp.where(used, jax.nn.sigmoid(output.mask), 0.0)
      details = {'flow': output.flow[..., 2:], 'mask': mask, 'blocks': gates}
      return frame, details

    return feed_back(step, context, key, len(frames.target))

  def predict(variables, context, key):
    return explain(variables, context, key)[0]

  return System(
    init=init,
    loss=loss,
    predict=predict,
    frames=frames,
    multiple=multiple,
    stochastic=(
      routing != 'none'
      and inference_routing != 'all'
      and (inference_routing == 'sample' or routing == 'random')
    ),
    explain=explain,
    flow_pairs=tuple((t, t - k * stride) for t in frames.target for k in (2, 1))
    if flow_weight
    else (),
  )


def _check_settings(settings):
  """Raises ValueError for the first setting that cannot be."""

  def number(x, low=-math.inf, high=math.inf):
    real = isinstance(x, numbers.Real) and not isinstance(x, bool)
    return real and math.isfinite(x) and low <= x <= high

  def whole(x, step=1):
    return isinstance(x, numbers.Integral) and number(x, step) and not x % step

  def several(x):
    return isinstance(x, Sequence) and not isinstance(x, str)

  def expect(name, fine, expected):
    if not fine:
      raise ValueError(f'Got {name}={settings[name]!r}; expected {expected}.')

  for name, choices in _CHOICES.items():
    expect(name, settings[name] in choices, f'one of {choices}')
  scales, widths = settings['scales'], settings['widths']
  fine = several(scales) and len(scales) > 0 and all(map(whole, scales))
  expect('scales', fine, 'positive whole numbers, one per block')
  fine = widths is None or (
    several(widths)
    and len(widths) == len(scales)
    and all(whole(width, 4) for width in widths)
  )
  expect('widths', fine, f'{len(scales)} multiples of 4, one per scale factor')
  hot_cold = settings['temperature']
  fine = several(hot_cold) and len(hot_cold) == 2
  fine = fine and all(number(x) and x > 0 for x in hot_cold)
  expect('temperature', fine, 'two positive numbers')
  fine = settings['rollout'] == 0 or whole(settings['rollout'])
  expect('rollout', fine, 'a whole number, 0 or more')
  for name in ('router_scale', 'temperature_steps'):
    expect(name, whole(settings[name]), 'a positive whole number')
  for name in ('beta', 'inference_beta'):
    fine = number(settings[name], 0, 1)
    if name == 'inference_beta':
      fine = fine or settings[name] is None
    expect(name, fine, 'a share in [0, 1]')
  for name in ('gamma', 'vgg_weight', 'gate_penalty', 'flow_weight'):
    expect(name, number(settings[name], 0), 'a number, 0 or more')
  expect(
    'spatial_path', isinstance(settings['spatial_path'], bool), 'True or False'
  )


def _check_frames(frames):
  """Raises ValueError unless prediction goes on in even steps."""
  context, target = frames
  even = len(context) == 2 and len(target) >= 1
  if even:
    first, second = context
    step = second - first
    even = step > 0 and tuple(target) == tuple(
      second + step * (i + 1) for i in range(len(target))
    )
  if not even:
    raise ValueError(
      f'Got frames {tuple(frames)}; dmvfn needs two context frames and targets '
      'that go on at the same step, such as ((0, 1), (2, 3, 4)).'
    )


def _feature_distance(variables, image, truth):
  """VGG19 feature distance of RGB images [B, H, W, 3] in [0, 1]."""
  if 'vgg' not in variables:
    raise ValueError(
      "vgg_weight needs variables['vgg'], the parameters of "
      "models.features.VGG19; convert.vgg19 reads them from torchvision's "
      f'file. Got variables with {sorted(variables)}.'
    )
  both = features.imagenet_normalise(jnp.concatenate([image, truth]))
  maps = features.VGG19().apply({'params': variables['vgg']}, both)
  ours, theirs = zip(*(jnp.split(x, 2) for x in maps))
  return losses.feature_distance(ours, theirs)
