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
from vidpred_jax.systems.rollout import rollout

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
    formulation: 'fast' or 'published', see `models.dmvfn.DMVFN`.
    dtype: of the blocks' convolutions, 'float32' or 'bfloat16'.

  Returns:
    The system. Metrics of its loss: 'laplacian' (of the last output), 'psnr'
    (of the last output, dB), 'blocks' (used, mean over the batch), and 'vgg'
    and 'gate_penalty' where they are part of the loss.

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

  def loss(variables, video, key):
    check_clip(video, frames.length, 3, multiple)
    # One example per target, with the pair of true frames before it. The batch
    # stays the outer axis, so that each device keeps its clips.
    steps = (-2 * stride, -stride, 0)
    triplets = jnp.stack(
      [video[:, np.array([t + s for s in steps])] for t in frames.target], 1
    )
    triplets = triplets.reshape(-1, *triplets.shape[2:])
    pair, truth = triplets[:, :2], triplets[:, 2]
    gates = training_gates(variables, pair, key)
    output = model.apply(variables, pair, gates)
    shown = output.frames if supervision == 'deep' else output.frames[-1:]
    distances = jax.vmap(losses.laplacian, (0, None))(jnp.stack(shown), truth)
    distances = distances.mean(1)
    total = losses.deep_supervision(distances, gamma)
    error = jnp.mean((output.frames[-1] - truth) ** 2, (1, 2, 3))
    metrics = {
      'laplacian': distances[-1],
      'psnr': jnp.mean(-10 * jnp.log10(jnp.maximum(error, 1e-10))),
      'blocks': jnp.float32(num_blocks)
      if gates is None
      else jnp.mean(jnp.sum(gates, 1)),
    }
    collections = {}
    if routing == 'gumbel':
      metrics['gate_penalty'] = jnp.mean(gates)
      total += gate_penalty * metrics['gate_penalty']
      collections['routing'] = {'step': variables['routing']['step'] + 1}
    if vgg_weight:
      metrics['vgg'] = _feature_distance(variables, output.frames[-1], truth)
      total += vgg_weight * metrics['vgg']
      collections['vgg'] = variables['vgg']
    return total, (collections, metrics)

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

    return rollout(step, context, key, len(frames.target))

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
  for name in ('router_scale', 'temperature_steps'):
    expect(name, whole(settings[name]), 'a positive whole number')
  for name in ('beta', 'inference_beta'):
    fine = number(settings[name], 0, 1)
    if name == 'inference_beta':
      fine = fine or settings[name] is None
    expect(name, fine, 'a share in [0, 1]')
  for name in ('gamma', 'vgg_weight', 'gate_penalty'):
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
