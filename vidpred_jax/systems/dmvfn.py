"""DMVFN as a system: its loss, its routing and its prediction.

Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video Prediction", CVPR
2023; equation and table numbers are this paper's. Images are RGB.

Differences from the reference: inference is deterministic by default
(`inference_routing`); the published code draws gates at random there too. The
feature network of the loss gets RGB, as in its training; the published code
passes BGR.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import losses
from vidpred_jax.models import dmvfn, features, initial
from vidpred_jax.ops import hindsight, persistence
from vidpred_jax.systems import dmvfn_forecast
from vidpred_jax.systems import dmvfn_routing as routing
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
from vidpred_jax.systems.dmvfn_settings import Settings, checked

# Below them `logarithmic` makes no difference.
_LEAST_DISTANCE = {'laplacian': 1e-3, 'squared': 1e-5}


def example_loss(
  model: dmvfn.DMVFN,
  settings: Settings,
  variables,
  pair,
  truth,
  flow,
  key,
  start: dmvfn.Start | None = None,
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
    start: what the blocks begin with; None: what follows from the pair.

  Returns:
    `(loss, (metrics, output))`.
  """
  gates = routing.training_gates(model, settings, variables, pair, key)
  output = model.apply(variables, pair, gates, start)
  last = slice(None) if settings.supervision == 'deep' else slice(-1, None)
  flows = [voxel[..., :4] for voxel in output.voxels[last]]
  total, metrics = shown_loss(
    settings, variables, output.frames[last], flows, truth, flow
  )
  metrics['blocks'] = (
    jnp.float32(len(settings.scales))
    if gates is None
    else jnp.mean(jnp.sum(gates, 1))
  )
  if settings.routing == 'gumbel' and gates is not None:
    metrics['gate_penalty'] = jnp.mean(gates)
    total += settings.gate_penalty * metrics['gate_penalty']
  return total, (metrics, output)


def shown_loss(settings: Settings, variables, frames, flows, truth, flow):
  """The loss of one or more predictions of the same frames.

  Args:
    settings: the system's.
    variables: its variables.
    frames: the predictions, each [B, H, W, 3]; the last counts most.
    flows: [B, H, W, 4], that of each.
    truth: [B, H, W, 3].
    flow: as in `example_loss`.

  Returns:
    `(loss, metrics)`.
  """
  kind = settings.distance
  distance = losses.laplacian if kind == 'laplacian' else _squared_error
  distances = jax.vmap(distance, (0, None))(jnp.stack(frames), truth)
  counted = distances
  if settings.logarithmic:
    counted = jnp.log(distances + _LEAST_DISTANCE[kind])
  total = losses.deep_supervision(counted.mean(1), settings.gamma)
  error = _squared_error(frames[-1], truth)
  metrics = {
    kind: jnp.mean(distances[-1]),
    'psnr': jnp.mean(-10 * jnp.log10(jnp.maximum(error, 1e-10))),
  }
  if settings.flow_weight:
    errors = jax.vmap(_end_point_error, (0, None))(jnp.stack(flows), flow)
    metrics['end_point_error'] = errors[-1]
    total += settings.flow_weight * losses.deep_supervision(
      errors, settings.gamma
    )
  if settings.vgg_weight:
    metrics['vgg'] = _feature_distance(variables, frames[-1], truth)
    total += settings.vgg_weight * metrics['vgg']
  return total, metrics


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
    `(loss, metrics)`, means over the targets.
  """
  count = truth.shape[1]

  def step(pair, target):
    n, key, truth, flow = target
    total, (metrics, output) = example_loss(
      model, settings, variables, pair, truth, flow, key
    )
    frame = output.frames[-1]
    learns = n >= count - settings.rollout
    frame = jnp.where(learns, frame, jax.lax.stop_gradient(frame))
    return jnp.stack([pair[:, 1], frame], 1), (total, metrics)

  targets = (
    jnp.arange(count),
    jax.random.split(key, count),
    *jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (truth, flow)),
  )
  # Unrolled: in a loop a CPU takes four times as long for the convolutions.
  _, sums = jax.lax.scan(step, pair, targets, unroll=True)
  return jax.tree.map(jnp.mean, sums)


def motion_loss(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, truth, flow, key
):
  """The loss of predictions whose motion goes on after the first.

  Arguments and results are those of `forecast_loss`.
  """
  first, *later = range(truth.shape[1])
  flow_of = (lambda n: None) if flow is None else (lambda n: flow[:, n])
  total, (metrics, output) = example_loss(
    model, settings, variables, pair, truth[:, first], flow_of(first), key
  )
  frames, flows = persistence.go_on(
    pair[:, 1], output.flow[..., 2:], persistence.KEPT, len(later)
  )
  results = [(total, metrics)] + [
    shown_loss(
      settings,
      variables,
      [frames[:, n - 1]],
      [flows[:, n - 1]],
      truth[:, n],
      flow_of(n),
    )
    for n in later
  ]
  total = jnp.mean(jnp.stack([total for total, _ in results]))
  return total, {
    name: jnp.mean(jnp.stack([x[name] for _, x in results if name in x]))
    for name in metrics
  }


def hindsight_loss(
  model: dmvfn.DMVFN, settings: Settings, variables, context, truth, key
):
  """The loss of the next frame and of a later one, drawn for each clip.

  Args:
    model: the network.
    settings: its system's.
    variables: its variables.
    context: [B, K, H, W, 3].
    truth: [B, N, H, W, 3].
    key: of the draw and of the gates.

  Returns:
    `(loss, metrics)`.
  """
  batch, count = truth.shape[:2]
  of_frame, of_gates = jax.random.split(key)
  numbers = jnp.zeros((batch, 1), jnp.int32)
  if count > 1:
    later = jax.random.randint(of_frame, (batch, 1), 1, count)
    numbers = jnp.concatenate([numbers, later], 1)
  seen = hindsight.look_back(context)
  flows, _ = persistence.paths(seen.flow, seen.kept, count)

  def drawn(x):
    return jax.vmap(lambda x, n: x[n])(x, numbers).reshape(-1, *x.shape[2:])

  # The batch stays the outer axis, so that each device keeps its clips.
  pair, seen = jax.tree.map(
    lambda x: jnp.repeat(x, numbers.shape[1], 0), (context[:, -2:], seen)
  )
  start = dmvfn_forecast.start(
    pair, drawn(flows), seen, numbers.reshape(-1) + 1
  )
  total, (metrics, _) = example_loss(
    model, settings, variables, pair, drawn(truth), None, of_gates, start
  )
  return total, metrics


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
  if settings.hindsight:
    context = video[:, np.array(frames.context)]
    total, metrics = hindsight_loss(
      model, settings, variables, context, truth, key
    )
  elif settings.rollout:
    pair = video[:, np.array(frames.context[-2:])]
    of_all = forecast_loss if settings.initial_flow == 'zero' else motion_loss
    total, metrics = of_all(model, settings, variables, pair, truth, flow, key)
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


def _squared_error(frame, truth):
  """The mean squared error [B] of frames [B, H, W, C]."""
  return jnp.mean((frame - truth) ** 2, (1, 2, 3))


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


def make(*, frames: Frames, **settings) -> System:
  """Makes the system.

  Args:
    frames: two context frames and targets that go on at the same step, such as
      `((0, 1), (2, 3, 4))` or `((0, 2), (4,))`. With a 'variational' flow
      there may be five context frames or more: they say how far the motion of
      the last two goes on (`ops.persistence`).
      Predictions that are fed back begin anew in this.
    **settings: fields of `Settings`.

  Returns:
    The system. Metrics of its loss: 'laplacian' or 'squared' (distance of the
    last output), 'psnr' (of the last output, dB), 'blocks' (used, mean over the
    batch), and 'vgg', 'end_point_error' (of the last output, pixels) and
    'gate_penalty' where they are part of the loss; all of them means over the
    targets, with `hindsight` over two of them, 'blocks' and 'gate_penalty' over
    those for which the network runs.

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
    others=hindsight.OTHERS if chosen.hindsight else 0,
    hints=hindsight.HINTS if chosen.hindsight else 0,
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
    if chosen.hindsight and not more:
      raise ValueError(
        f'Learning with hindsight takes at least {hindsight.LEAST_FRAMES} '
        f'context frames, got {frames.context}.'
      )
    return loss_of_targets(model, chosen, frames, variables, video, key, flow)

  def diagnostics(variables, context, key):
    check_context(context, len(frames.context), 3, multiple)
    given = model, chosen, variables, context, key
    return dmvfn_forecast.forecast(*given, len(frames.target))

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
