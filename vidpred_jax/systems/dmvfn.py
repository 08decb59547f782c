"""DMVFN as a system: its loss, its routing and its prediction.

Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video Prediction", CVPR
2023; equation and table numbers are this paper's. Images are RGB.

Differences from the reference: inference is deterministic by default
(`inference_routing`); the published code draws gates at random there too. The
feature network of the loss gets RGB, as in its training; the published code
passes BGR.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import losses
from vidpred_jax.models import dmvfn, features, initial
from vidpred_jax.ops import bars, persistence
from vidpred_jax.ops import routing as gating
from vidpred_jax.systems import settings as rules
from vidpred_jax.systems.base import (
  Frames,
  System,
  check_clip,
  check_context,
  check_flow,
  check_frames,
  check_shape,
  take,
)
from vidpred_jax.systems.rollout import rollout as feed_back


class Settings(NamedTuple):
  """The settings of DMVFN.

  Attributes:
    scales: the blocks' scale factors S^i, one per block (tables 6, 11).
    widths: the blocks' channels, multiples of 4; None is 160, 80, 44 for the
      first, second and last third of the blocks.
    spatial_path: whether blocks have the full-resolution path (table 7).
    routing: how training selects blocks (table 5). 'stebs': gates are drawn
      from budgeted probabilities with a straight-through gradient (equations
      10-12); 'gumbel': Gumbel-softmax (equation 9); 'random': each block with
      probability 1/2; 'none': all blocks.
    beta: the fraction of blocks that 'stebs' uses (equation 10).
    inference_beta: beta at inference (tables 8, 13); None is `beta`.
    inference_routing: 'threshold': the most probable blocks of each sample, as
      many as sampling uses on average (`ops.routing.deterministic_gates`); for
      'gumbel' the blocks of probability 1/2 and more. 'sample': gates are drawn
      at random, as published. 'all': every block. With 'random' routing
      'threshold' draws gates too, since it has no probabilities.
    temperature: 'gumbel' only: tau at the start and at the end of training.
    temperature_steps: 'gumbel' only: the number of calls of `loss` in which tau
      falls exponentially from the first to the second temperature. The count is
      in `variables['routing']`.
    gate_penalty: 'gumbel' only: weight of the mean gate in the loss.
    router_scale: the router sees the frames downsampled by this factor. The
      published 1 costs 23 % of all nine blocks.
    router_standardised: the router sees each pair of frames less its mean, in
      units of its standard deviation. The paper does not do so; then the
      router's logits follow the brightness of the frames, and it takes far more
      steps until they follow the motion.
    initial_flow: what the blocks begin with. 'zero': no flow, as published.
      'variational': an optical flow that goes on, a little slower, see
      `models.dmvfn.initial_state`.
    keep_bars: whether a prediction leaves black edges that stand still as they
      are, see `ops.bars.fill`. The paper does not do so.
    supervision: 'deep': the loss of every block's output (equation 13);
      'single': of the last output only (table 9).
    gamma: of equation 13.
    logarithmic: whether each prediction's distance in equation 13 counts by its
      logarithm, as in PSNR. The paper does not do so. Otherwise a clip in which
      little can be predicted counts most: what is nearly right, such as a still
      scene, gets worse for it.
    vgg_weight: weight of the VGG19 feature distance of the last output (the
      published code: 0.5). Needs `variables['vgg']`, the parameters of
      `models.features.VGG19`.
    flow_weight: weight of the end-point error of both flows in pixels, where
      the exact flow is known, for the same outputs as the rest of the loss. The
      paper does not have this term. With it a flow is learnt in a fraction of
      the steps.
    rollout: 0: each target is predicted from the two true frames before it, as
      published. n >= 1: targets are predicted one after the other from
      predictions, as at inference, and the gradient is propagated through the
      last n predictions.
    formulation: 'fast' or 'published', see `models.dmvfn.DMVFN`.
    dtype: of the blocks' convolutions, 'float32' or 'bfloat16'.
  """

  scales: tuple[int, ...] = (4, 4, 4, 2, 2, 2, 1, 1, 1)
  widths: tuple[int, ...] | None = None
  spatial_path: bool = True
  routing: str = 'stebs'
  beta: float = 0.5
  inference_beta: float | None = None
  inference_routing: str = 'threshold'
  temperature: tuple[float, float] = (10.0, 0.1)
  temperature_steps: int = 100_000
  gate_penalty: float = 1.0
  router_scale: int = 1
  router_standardised: bool = False
  initial_flow: str = 'zero'
  keep_bars: bool = False
  supervision: str = 'deep'
  gamma: float = 0.8
  logarithmic: bool = False
  vgg_weight: float = 0.0
  flow_weight: float = 0.0
  rollout: int = 0
  formulation: str = 'fast'
  dtype: str = 'float32'


_LEAST_DISTANCE = 1e-3  # below it `logarithmic` makes no difference

_SHARE = rules.number(0, 1, 'a share in [0, 1]')
_RULES = {
  'scales': rules.tuple_of(
    rules.positive_int(most=256),
    'positive whole numbers up to 256, one per block, at most 64 of them',
    most=64,
  ),
  'spatial_path': rules.truth(),
  'routing': rules.one_of(('stebs', 'gumbel', 'random', 'none')),
  'beta': _SHARE,
  'inference_beta': rules.either(None, _SHARE),
  'inference_routing': rules.one_of(('threshold', 'sample', 'all')),
  'temperature': rules.tuple_of(
    rules.number(0, above=True), 'two positive numbers', length=2
  ),
  'temperature_steps': rules.positive_int(most=10**9),
  'gate_penalty': rules.number(0),
  'router_scale': rules.positive_int(most=256),
  'router_standardised': rules.truth(),
  'initial_flow': rules.one_of(('zero', 'variational')),
  'keep_bars': rules.truth(),
  'supervision': rules.one_of(('deep', 'single')),
  'gamma': rules.number(0),
  'logarithmic': rules.truth(),
  'vgg_weight': rules.number(0),
  'flow_weight': rules.number(0),
  'rollout': rules.whole(0, 1000, 'a whole number, 0 or more, at most 1000'),
  'formulation': rules.one_of(('fast', 'published')),
  'dtype': rules.one_of(('float32', 'bfloat16')),
}


def checked(settings: Settings) -> Settings:
  """The settings; raises ValueError for the first that cannot be."""
  settings = rules.check(settings, _RULES)
  count = len(settings.scales)
  widths = rules.tuple_of(
    rules.positive_int(4, most=8192),
    f'{count} multiples of 4, one per scale factor',
    length=count,
  )
  return rules.check(settings, {'widths': rules.either(None, widths)})


# --------------------------------------------------------------------- routing


def routing_probabilities(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, budget: float
) -> tuple[jax.Array, jax.Array | None]:
  """The probability of each block, [B, n], and the router's logits.

  Args:
    model: the network.
    settings: its system's.
    variables: its variables.
    pair: [B, 2, H, W, 3].
    budget: the share of blocks that 'stebs' uses.
  """
  if settings.routing == 'random':
    return jnp.full((len(pair), len(settings.scales)), 0.5), None
  logits = model.apply(variables, pair, method='route')
  if settings.routing == 'gumbel':
    return jax.nn.softmax(logits, -1)[..., 1], logits
  return gating.budgeted_probabilities(logits[..., 0], budget), logits


def training_gates(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, key: jax.Array
) -> jax.Array | None:
  """Draws gates [B, n] with a gradient to the router; None: every block."""
  if settings.routing == 'none':
    return None
  chances, logits = routing_probabilities(
    model, settings, variables, pair, settings.beta
  )
  if settings.routing == 'gumbel':
    hot, cold = settings.temperature
    progress = variables['routing']['step'] / settings.temperature_steps
    tau = hot * (cold / hot) ** jnp.minimum(progress, 1.0)
    assert logits is not None  # only 'random' has none
    return gating.gumbel(key, logits, tau)
  return gating.bernoulli(key, chances)


def inference_gates(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, key: jax.Array
) -> jax.Array:
  """The gates at inference, [B, n], 0 or 1."""
  routing, how = settings.routing, settings.inference_routing
  if routing == 'none' or how == 'all':
    return jnp.ones((pair.shape[0], len(settings.scales)), jnp.float32)
  budget = settings.inference_beta
  budget = settings.beta if budget is None else budget
  chances, _ = routing_probabilities(model, settings, variables, pair, budget)
  if how == 'sample' or routing == 'random':
    return gating.bernoulli(key, chances)
  if routing == 'gumbel':
    return (chances >= 0.5).astype(jnp.float32)
  return gating.deterministic_gates(chances)


# ------------------------------------------------------------------------ loss


def example_loss(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, truth, flow, key
):
  """The loss of the predictions from pairs of frames.

  Args:
    model: the network.
    settings: its system's.
    variables: its variables.
    pair: [B, 2, H, W, 3].
    truth: [B, H, W, 3], the next frames.
    flow: [B, H, W, 4], the exact flow into the older and into the newer frame,
      where `flow_weight` is not 0.
    key: of the gates.

  Returns:
    `(loss, (metrics, prediction))`.
  """
  gates = training_gates(model, settings, variables, pair, key)
  output = model.apply(variables, pair, gates)
  last = slice(None) if settings.supervision == 'deep' else slice(-1, None)
  shown = jnp.stack(output.frames[last])
  distances = jax.vmap(losses.laplacian, (0, None))(shown, truth)
  counted = distances
  if settings.logarithmic:
    counted = jnp.log(distances + _LEAST_DISTANCE)
  total = losses.deep_supervision(counted.mean(1), settings.gamma)
  error = jnp.mean((output.frames[-1] - truth) ** 2, (1, 2, 3))
  metrics = {
    'laplacian': jnp.mean(distances[-1]),
    'psnr': jnp.mean(-10 * jnp.log10(jnp.maximum(error, 1e-10))),
    'blocks': jnp.float32(len(settings.scales))
    if gates is None
    else jnp.mean(jnp.sum(gates, 1)),
  }
  if settings.flow_weight:
    flows = jnp.stack(output.flows[last])
    errors = jax.vmap(_end_point_error, (0, None))(flows, flow)
    metrics['end_point_error'] = errors[-1]
    total += settings.flow_weight * losses.deep_supervision(
      errors, settings.gamma
    )
  if settings.routing == 'gumbel' and gates is not None:
    metrics['gate_penalty'] = jnp.mean(gates)
    total += settings.gate_penalty * metrics['gate_penalty']
  if settings.vgg_weight:
    metrics['vgg'] = _feature_distance(variables, output.frames[-1], truth)
    total += settings.vgg_weight * metrics['vgg']
  return total, (metrics, output.frames[-1])


def forecast_loss(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, truth, flow, key
):
  """The loss of a rollout: each frame is predicted from previous predictions.

  Args:
    model: the network.
    settings: its system's; the gradient is propagated through the last
      `rollout` predictions.
    variables: its variables.
    pair: [B, 2, H, W, 3], the context.
    truth: [B, N, H, W, 3].
    flow: [B, N, H, W, 4] or None, see `example_loss`.
    key: of the gates.

  Returns:
    `(loss, (metrics, predictions))`, means over the targets.
  """
  count = truth.shape[1]

  def step(pair, target):
    n, key, truth, flow = target
    total, (metrics, frame) = example_loss(
      model, settings, variables, pair, truth, flow, key
    )
    learns = n >= count - settings.rollout
    frame = jnp.where(learns, frame, jax.lax.stop_gradient(frame))
    return jnp.stack([pair[:, 1], frame], 1), (total, (metrics, frame))

  targets = (
    jnp.arange(count),
    jax.random.split(key, count),
    *jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (truth, flow)),
  )
  # Unrolled: in a loop a CPU takes four times as long for the convolutions.
  _, (total, (metrics, frames)) = jax.lax.scan(step, pair, targets, unroll=True)
  total, metrics = jax.tree.map(jnp.mean, (total, metrics))
  return total, (metrics, jnp.moveaxis(frames, 0, 1))


def loss_of_targets(
  model: dmvfn.DMVFN,
  settings: Settings,
  frames: Frames,
  variables,
  video: jax.Array,
  key: jax.Array,
  flow: jax.Array | None = None,
):
  """The loss of a clip, as `System.loss`."""
  count = len(frames.target)
  truth = take(video, frames.target)
  if flow is not None:
    flow = flow.reshape(len(flow), count, 2, *flow.shape[2:])
    flow = jnp.concatenate([flow[:, :, 0], flow[:, :, 1]], -1)
  if settings.rollout:
    pair = video[:, np.array(frames.context[-2:])]
    total, (metrics, _) = forecast_loss(
      model, settings, variables, pair, truth, flow, key
    )
  else:
    # One example per target, with the pair of true frames before it. The
    # batch stays the outer axis, so that each device keeps its clips.
    stride = frames.context[1] - frames.context[0]
    steps = np.array([-2 * stride, -stride])
    pairs = jnp.stack([video[:, t + steps] for t in frames.target], 1)
    pairs, truth, flow = jax.tree.map(
      lambda x: x.reshape(-1, *x.shape[2:]), (pairs, truth, flow)
    )
    total, (metrics, _) = example_loss(
      model, settings, variables, pairs, truth, flow, key
    )
  collections = {}
  if settings.routing == 'gumbel':
    collections['routing'] = {'step': variables['routing']['step'] + 1}
  if settings.vgg_weight:
    collections['vgg'] = variables['vgg']
  return total, (collections, metrics)


def _end_point_error(flow, truth):
  """The end-point error of two flows [B, H, W, 4], each known on its own."""
  shape = (*flow.shape[:-1], 2, 2)
  return losses.end_point_error(flow.reshape(shape), truth.reshape(shape))


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


# ------------------------------------------------------------------ prediction


def next_frame(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, key: jax.Array, kept
):
  """Predicts the frame after a pair [B, 2, H, W, 3].

  Args:
    model: the network.
    settings: its system's.
    variables: its variables.
    pair: the frames.
    key: of the gates.
    kept: the share of velocity that is kept, see `models.dmvfn.initial_state`.

  Returns:
    `([B, H, W, 3], diagnostics)`, see `System.diagnostics`.
  """
  newer = pair[:, 1]
  pair, inside = bars.fill(pair) if settings.keep_bars else (pair, True)
  gates = inference_gates(model, settings, variables, pair, key)
  output = model.apply(variables, pair, gates, kept, method='run_route')
  used = jnp.any(gates != 0, 1)[:, None, None, None]
  # Without flow and without any block there is nothing but the mean of both.
  used |= settings.initial_flow != 'zero'
  frame = jnp.where(used & inside, output.frames[-1], newer)
  mask = jnp.where(used, jax.nn.sigmoid(output.mask), 0.0)
  flow = jnp.where(inside, output.flow[..., 2:], 0)
  diagnostics = {'flow': flow, 'mask': mask, 'blocks': gates}
  return frame, diagnostics


def make(*, frames: Frames, **settings) -> System:
  """Makes the system.

  Args:
    frames: two context frames and targets that go on at the same step, such as
      `((0, 1), (2, 3, 4))` or `((0, 2), (4,))`. With a 'variational' flow
      there may be five context frames or more: they say how far the motion of
      the last two goes on (`ops.persistence`), from the second target on.
      Predictions that are fed back begin anew in this.
    **settings: fields of `Settings`.

  Returns:
    The system. Metrics of its loss: 'laplacian' (of the last output), 'psnr'
    (of the last output, dB), 'blocks' (used, mean over the batch), and 'vgg',
    'end_point_error' (of the last output, pixels) and 'gate_penalty' where they
    are part of the loss; all of them means over the targets.

  Raises:
    ValueError: if `frames` or a setting cannot be.
  """
  chosen = checked(Settings(**settings))
  more = chosen.initial_flow == 'variational'
  more = more and len(frames.context) >= persistence.LEAST_FRAMES
  count = None if more else 2
  check_frames(frames, 'dmvfn', '((0, 1), (2, 3, 4))', context=count)
  model = dmvfn.DMVFN(
    scales=chosen.scales,
    widths=chosen.widths,
    spatial_path=chosen.spatial_path,
    router_outputs={'stebs': 1, 'gumbel': 2}.get(chosen.routing, 0),
    router_scale=chosen.router_scale,
    router_standardised=chosen.router_standardised,
    initial_flow=chosen.initial_flow,
    formulation=chosen.formulation,
    dtype=jnp.dtype(chosen.dtype),
  )
  multiple = dmvfn.size_multiple(chosen.scales, chosen.router_scale)
  stride = frames.context[1] - frames.context[0]

  def init(key, video):
    check_shape(video, frames.length, 3, multiple)
    pair = jax.ShapeDtypeStruct((1, 2, multiple, multiple, 3), jnp.float32)
    variables = initial.draw(key, model, pair)
    if chosen.routing == 'gumbel':
      variables['routing'] = {'step': jnp.zeros((), jnp.int32)}
    return variables

  def loss(variables, video, key, flow=None):
    check_clip(video, frames.length, 3, multiple)
    check_flow(flow, chosen.flow_weight)
    return loss_of_targets(model, chosen, frames, variables, video, key, flow)

  def diagnostics(variables, context, key):
    check_context(context, len(frames.context), 3, multiple)
    fitted = more and len(frames.target) > 1
    factor = persistence.factor(context) if fitted else persistence.KEPT

    def step(pair, key, n):
      kept = jnp.where(n == 0, persistence.KEPT, factor)
      return next_frame(model, chosen, variables, pair, key, kept)

    return feed_back(step, context[:, -2:], key, len(frames.target))

  def predict(variables, context, key):
    return diagnostics(variables, context, key)[0]

  draws = chosen.inference_routing == 'sample' or chosen.routing == 'random'
  routes = chosen.routing != 'none' and chosen.inference_routing != 'all'
  return System(
    init=init,
    loss=loss,
    predict=predict,
    frames=frames,
    multiple=multiple,
    stochastic=routes and draws,
    repeats_context=more,
    diagnostics=diagnostics,
    flow_pairs=tuple((t, t - k * stride) for t in frames.target for k in (2, 1))
    if chosen.flow_weight
    else (),
  )
