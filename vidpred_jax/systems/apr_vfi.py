"""APR-VFI as a system: frame interpolation.

Chen et al., "Alignment-aware Patch-level Routing for Dynamic Video Frame
Interpolation", 2024; equation and table numbers are this paper's. Images are
RGB. It interpolates any number of frames at any times; the flow and the
features of the two frames are computed once.

The paper's three stages of training are three settings of `synthesis`:
'whole', then 'patches' and 'routed' with `train_flow=False` and the flow's
parameters frozen. 'warp' has no synthesis network, for weights of the flow
alone.

Choices where the paper is silent:

- Gates in training are drawn by the straight-through Gumbel-softmax at
  temperature 1. The loss compares the router's probabilities, not the gates,
  with the reference route map (with the gates the router learns less well).
- The census transform is `losses.census`.
- Differences are absolute values, averaged over colours.
- The hole region at the edge of a warped image is `ops.routing.edge_holes`.
- Predictions are clipped to [0, 1], but not in the loss.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax import losses
from vidpred_jax.models import apr_vfi, blending, ebme, initial
from vidpred_jax.ops import bars
from vidpred_jax.ops import routing as gating
from vidpred_jax.systems import base
from vidpred_jax.systems import settings as rules


class Settings(NamedTuple):
  """The settings of APR-VFI.

  Attributes:
    synthesis: 'whole': every block runs on the whole image (stage 1).
      'patches': every block but the first runs on every patch by itself (stage
      2). 'routed': blocks run on the patches that the router selects (stage 3).
      'warp': no synthesis; frames are the mean of both warped frames.
    patch: side of a patch in pixels, a multiple of 4 (table 2).
    keep_ratios: kr_1..kr_d, the fraction of patches that each block after the
      first should process (table 3).
    inference_routing: 'routed' only, the patches that a block processes.
      'argmax': those that the router selects, as published; 'ratios': the
      patches with the highest scores of the router, their fraction by
      `keep_ratios`; 'reference': the patches whose warped frames differ most,
      likewise, without the router; 'all': every patch.
    supervision: of the router (table 4): by the difference of the warped frames
      ('warped'), of the frames without warping ('image'), or of the prediction
      and the truth ('reconstruction').
    fusion: of the blocks' features, 'add', 'concat' or 'none' (table 5).
    widths: channels of the refine blocks at half resolution.
    depths: convolutions of the refine blocks at half resolution.
    features: channels between the blocks.
    context_channels: features of a frame for each block.
    context_hidden: channels of the convolutions that make them.
    motion: 'biflownet', as published, or 'variational': an optical flow without
      weights, see `models.apr_vfi.APRVFI.warp`; `warp_weight` and `flow_weight`
      must be 0.
    levels: of the flow's pyramid; None: by the frames' width,
      `models.ebme.num_levels`.
    standardised: see `models.ebme.BiFlowNet`; weights are of one or the other.
    keep_bars: whether a prediction leaves black edges that stand still as they
      are, see `ops.bars.fill`. The paper does not do so.
    train_flow: whether equation 4 has a gradient to the flow (`optim.frozen`).
    temperature: of the Gumbel-softmax.
    census_weight: lambda_1 of equation 4.
    logarithmic: whether the first two terms of equation 4 count, for each clip,
      by the logarithm of their sum, as in PSNR. The paper does not do so.
      Otherwise a clip in which little can be restored counts most.
    apr_weight: lambda_2 of equation 4.
    warp_weight: weight of the Laplacian-pyramid difference of each warped frame
      from the truth, with a gradient to the flow in any case. The paper does
      not have this term. From random weights it alone teaches a flow in some
      hundred steps; equation 4 is first minimised by blending.
    flow_weight: weight of the end-point error of both flows in pixels, at every
      level of the pyramid, where the exact flow is known, with a gradient to
      the flow in any case. The paper does not have this term.
    flow_gamma: the factor of a level in that error relative to the next finer.
    dtype: of the convolutions, 'float32' or 'bfloat16'.
  """

  synthesis: str = 'routed'
  patch: int = 64
  keep_ratios: tuple[float, ...] = (0.1, 0.4, 0.6, 0.9)
  inference_routing: str = 'argmax'
  supervision: str = 'warped'
  fusion: str = 'add'
  widths: tuple[int, ...] = (80, 96, 96, 48, 32)
  depths: tuple[int, ...] = (2, 5, 4, 3, 3)
  features: int = 32
  context_channels: int = 16
  context_hidden: int = 48
  motion: str = 'biflownet'
  levels: int | None = None
  standardised: bool = False
  keep_bars: bool = False
  train_flow: bool = True
  temperature: float = 1.0
  census_weight: float = 0.1
  logarithmic: bool = False
  apr_weight: float = 0.01
  warp_weight: float = 0.0
  flow_weight: float = 0.0
  flow_gamma: float = 0.8
  dtype: str = 'float32'


_RULES = {
  'synthesis': rules.one_of(('routed', 'patches', 'whole', 'warp')),
  'patch': rules.positive_int(4, most=1024),
  'inference_routing': rules.one_of(('argmax', 'ratios', 'reference', 'all')),
  'supervision': rules.one_of(('warped', 'image', 'reconstruction')),
  'fusion': rules.one_of(apr_vfi.FUSIONS),
  'widths': rules.tuple_of(
    rules.positive_int(most=8192),
    'two to 16 positive whole numbers',
    least=2,
    most=16,
  ),
  'features': rules.positive_int(most=8192),
  'context_channels': rules.positive_int(most=8192),
  'context_hidden': rules.positive_int(most=8192),
  'motion': rules.one_of(('biflownet', 'variational')),
  'levels': rules.either(
    None, rules.whole(1, 12, 'a whole number from 1 to 12, or None')
  ),
  'standardised': rules.truth(),
  'keep_bars': rules.truth(),
  'train_flow': rules.truth(),
  'temperature': rules.number(0, expected='a positive number', above=True),
  'census_weight': rules.number(0),
  'logarithmic': rules.truth(),
  'apr_weight': rules.number(0),
  'warp_weight': rules.number(0),
  'flow_weight': rules.number(0),
  'flow_gamma': rules.number(0),
  'dtype': rules.one_of(('float32', 'bfloat16')),
}


def checked(settings: Settings) -> Settings:
  """The settings; raises ValueError for the first that cannot be."""
  settings = rules.check(settings, _RULES)
  blocks = len(settings.widths)
  of_blocks = {
    'depths': rules.tuple_of(
      rules.whole(0, 64),
      f'{blocks} whole numbers up to 64, one per width',
      length=blocks,
    ),
    'keep_ratios': rules.tuple_of(
      rules.number(0, 1),
      f'{blocks - 1} shares in [0, 1], one per block after the first',
      length=blocks - 1,
    ),
  }
  if settings.motion == 'variational':
    expected = "0 with motion='variational', which learns no flow"
    nothing = rules.number(0, 0, expected)
    of_blocks |= {'warp_weight': nothing, 'flow_weight': nothing}
  return rules.check(settings, of_blocks)


# -------------------------------------------------------------------- routing


def reference_routes(
  settings: Settings,
  difference: jax.Array,
  warped: blending.Warped | None = None,
) -> jax.Array:
  """Selects the patches that differ most, [B, nh, nw, d], by `keep_ratios`.

  Args:
    settings: of the system.
    difference: [B, H, W, 3], of two images.
    warped: the warped frames, whose holes at the edges are left out; or None.
  """
  magnitude = jnp.mean(jnp.abs(difference), -1, keepdims=True)
  if warped is not None:
    for i in range(2):
      magnitude *= 1 - gating.edge_holes(warped.weight[:, i])
  differences = gating.patch_difference(magnitude, settings.patch)
  return gating.reference_routes(differences, settings.keep_ratios)


def routes_of_warped(settings: Settings, warped: blending.Warped) -> jax.Array:
  """`reference_routes` by the difference of the two warped frames."""
  difference = warped.frames[:, 0] - warped.frames[:, 1]
  return reference_routes(settings, difference, warped)


def inference_gates(
  model: apr_vfi.APRVFI, settings: Settings, variables, warped: blending.Warped
) -> jax.Array:
  """The gates at inference, [B, nh, nw, d], 0 or 1."""
  how = settings.inference_routing
  batch, _, height, width, _ = warped.frames.shape
  grid = gating.patch_grid(height, width, settings.patch)
  shape = (batch, *grid, len(settings.widths) - 1)
  if settings.synthesis != 'routed' or how == 'all':
    return jnp.ones(shape)
  if how == 'reference':
    return routes_of_warped(settings, warped)
  logits = model.apply(variables, warped, method='route')
  scores = logits[..., 1] - logits[..., 0]
  if how == 'argmax':
    return (scores > 0).astype(jnp.float32)
  columns = [
    gating.top_fraction_mask(scores[..., i].reshape(batch, -1), ratio)
    for i, ratio in enumerate(settings.keep_ratios)
  ]
  return jnp.stack(columns, -1).reshape(shape)


# ----------------------------------------------------------------------- loss


class Scene(NamedTuple):
  """Two frames and the results that all times between them share.

  Attributes:
    prepared: flow and features, without a gradient to the flow where
      `train_flow` is False.
    estimated: flow and features, with a gradient to the flow.
  """

  prepared: blending.Prepared
  estimated: blending.Prepared


def frame_loss(
  model: apr_vfi.APRVFI,
  settings: Settings,
  variables,
  scene: Scene,
  time,
  truth: jax.Array,
  key: jax.Array,
):
  """The loss of the frame at one time: equation 4 and our additional terms.

  Args:
    model: the networks.
    settings: of their system.
    variables: of the networks.
    scene: the frames between which it lies.
    time: in (0, 1).
    truth: [B, H, W, 3].
    key: of the gates.

  Returns:
    `(loss, metrics)`.
  """
  warped = model.apply(variables, scene.prepared, time, method='warp')
  if settings.synthesis == 'warp':
    output, total, metrics = blending.blend(scene.prepared, warped), 0.0, {}
  elif settings.synthesis != 'routed':
    output = model.apply(variables, scene.prepared, warped, method='synthesise')
    total, metrics = 0.0, {}
  else:
    output, metrics = _routed(
      model, settings, variables, scene, warped, truth, key
    )
    total = settings.apr_weight * metrics['apr']
  distance = jax.vmap(losses.charbonnier)(output.frame, truth)
  metrics['charbonnier'] = jnp.mean(distance)
  if settings.census_weight:
    census = jax.vmap(lambda a, b: losses.census(a[None], b[None]))
    census = census(output.frame, truth)
    metrics['census'] = jnp.mean(census)
    distance += settings.census_weight * census
  if settings.logarithmic:
    distance = jnp.log(distance)
  total += jnp.mean(distance)
  if settings.warp_weight:
    metrics['warp'] = _warp_loss(model, variables, scene, time, truth)
    total += settings.warp_weight * metrics['warp']
  shown = jnp.clip(output.frame, 0, 1)
  error = jnp.mean((shown - truth) ** 2, (1, 2, 3))
  metrics['psnr'] = jnp.mean(-10 * jnp.log10(jnp.maximum(error, 1e-10)))
  return total, metrics


def _routed(model, settings, variables, scene, warped, truth, key):
  """The output with drawn gates, and the router's metrics."""
  logits = model.apply(variables, warped, method='route')
  soft = gating.gumbel(key, logits, settings.temperature)
  hard = (soft > 0.5).astype(jnp.float32)
  gates = gating.straight_through(hard, soft)
  output = model.apply(
    variables, scene.prepared, warped, gates, method='synthesise'
  )
  if settings.supervision == 'warped':
    routes = routes_of_warped(settings, warped)
  elif settings.supervision == 'image':
    pair = scene.prepared.pair
    routes = reference_routes(settings, pair[:, 0] - pair[:, 1])
  else:
    routes = reference_routes(settings, output.frame - truth)
  chances = jax.nn.softmax(logits, -1)[..., 1]
  return output, {
    'apr': losses.route_distance(chances, routes),
    'blocks': 1 + jnp.mean(jnp.sum(hard, -1)),
  }


def _warp_loss(model, variables, scene, time, truth):
  """Laplacian difference of each warped frame from the truth, outside holes."""
  warped = model.apply(variables, scene.estimated, time, method='warp')
  error = warped.frames - truth[:, None]
  error = blending.flatten_pair(jnp.where(warped.weight > 0, error, 0))
  return jnp.mean(losses.laplacian(error, jnp.zeros_like(error), levels=4))


def clip_loss(
  model: apr_vfi.APRVFI,
  settings: Settings,
  frames: base.Frames,
  variables,
  video: jax.Array,
  key: jax.Array,
  flow: jax.Array | None = None,
):
  """The loss of a clip; arguments and result are those of `System.loss`."""
  context = base.take(video, frames.context)
  prepared = estimated = model.apply(
    variables, context, settings.levels, method='prepare'
  )
  if not settings.train_flow:
    prepared = prepared._replace(flow=jax.lax.stop_gradient(prepared.flow))
  one = functools.partial(
    frame_loss, model, settings, variables, Scene(prepared, estimated)
  )
  times = frames.times
  if len(times) == 1:
    total, metrics = one(times[0], video[:, frames.target[0]], key)
  else:
    truth = jnp.moveaxis(base.take(video, frames.target), 1, 0)
    keys = jax.random.split(key, len(times))
    total, metrics = jax.lax.map(
      lambda item: one(*item), (jnp.asarray(times), truth, keys)
    )
  total, metrics = jax.tree.map(jnp.mean, (total, metrics))
  if flow is not None:
    flows = ebme.whole_flows(estimated.pyramid, (flow.shape[2], flow.shape[3]))
    errors = jnp.stack([losses.end_point_error(x, flow) for x in flows])
    metrics['end_point_error'] = errors[-1]
    total += settings.flow_weight * losses.deep_supervision(
      errors, settings.flow_gamma
    )
  return total, ({}, metrics)


# ----------------------------------------------------------------- prediction


def frame_at(
  model: apr_vfi.APRVFI,
  settings: Settings,
  variables,
  prepared: blending.Prepared,
  time: jax.Array,
):
  """Interpolates the frame at one time.

  Returns:
    `([B, H, W, 3], diagnostics)`; `make` lists the diagnostics.
  """
  warped = model.apply(variables, prepared, time, method='warp')
  diagnostics = {'flow': warped.to[:, 0]}
  if settings.synthesis == 'warp':
    output = blending.blend(prepared, warped)
  elif settings.synthesis == 'whole':
    output = model.apply(variables, prepared, warped, method='synthesise')
  else:
    gates = inference_gates(model, settings, variables, warped)
    output = model.apply(
      variables, prepared, warped, gates, routed=True, method='synthesise'
    )
    shares = jnp.mean(gates, (1, 2))
    first, size = jnp.ones((len(gates), 1)), warped.frames.shape[2:4]
    diagnostics['blocks'] = jnp.concatenate([first, shares], -1)
    routes = jnp.mean(gates, -1, keepdims=True)
    diagnostics['routes'] = gating.per_pixel(routes, settings.patch, size)
  diagnostics['mask'] = output.mask
  return jnp.clip(output.frame, 0, 1), diagnostics


def make(*, frames: base.Frames, **settings) -> base.System:
  """Makes the system.

  Args:
    frames: two context frames and targets between them, such as
      `((0, 8), (1, 2, 3, 4, 5, 6, 7))`. With 'variational' motion also four,
      such as `((0, 2, 4, 6), (3,))`: the outer ones say how motion changes.
      Where there is none, the inner one is given again.
    **settings: fields of `Settings`.

  Returns:
    The system. Metrics of its loss: 'charbonnier', 'census', 'warp', 'psnr'
    (dB), 'end_point_error' (pixels, of the finest level), and for 'routed'
    'apr' and 'blocks', how many of the blocks patches went through on average.
    Its diagnostics: 'flow' (from the first frame to the wanted time), 'mask';
    and where it works on patches 'blocks', the fraction of patches that each
    block processed, and 'routes' [B, N, H, W, 1], the fraction of the blocks
    after the first that processed each pixel.

  Raises:
    ValueError: if `frames` or a setting cannot be.
  """
  chosen = checked(Settings(**settings))
  _check_frames(frames, chosen.motion)
  model = apr_vfi.APRVFI(
    synthesised=chosen.synthesis != 'warp',
    routed=chosen.synthesis == 'routed',
    patch=chosen.patch if chosen.synthesis in ('routed', 'patches') else None,
    widths=chosen.widths,
    depths=chosen.depths,
    features=chosen.features,
    context_channels=chosen.context_channels,
    context_hidden=chosen.context_hidden,
    fusion=chosen.fusion,
    motion=chosen.motion,
    standardised=chosen.standardised,
    dtype=jnp.dtype(chosen.dtype),
  )

  def init(key, video):
    base.check_shape(video, frames.length, 3, 1)
    # No parameter depends on the size.
    side = max(32, chosen.patch)
    pair = jax.ShapeDtypeStruct((1, 2, side, side, 3), jnp.float32)
    return initial.draw(key, model, pair)

  def loss(variables, video, key, flow=None):
    base.check_clip(video, frames.length, 3, 1)
    base.check_flow(flow, chosen.flow_weight)
    return clip_loss(model, chosen, frames, variables, video, key, flow)

  def select(variables, context, key, targets):
    del key
    base.check_context(context, len(frames.context), 3, 1)
    filled, inside = bars.fill(context) if chosen.keep_bars else (context, True)
    prepared = model.apply(variables, filled, chosen.levels, method='prepare')
    older, newer = frames.around(context)

    def at(time):
      frame, shown = frame_at(model, chosen, variables, prepared, time)
      shown['flow'] = jnp.where(inside, shown['flow'], 0)
      mean = (1 - time) * older + time * newer
      return jnp.where(inside, frame, mean), shown

    times = jnp.asarray(frames.times, jnp.float32)[targets]
    if len(times) == 1:  # without a loop, which converters to ONNX do not know
      return jax.tree.map(lambda x: x[:, None], at(times[0]))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), jax.lax.map(at, times))

  def diagnostics(variables, context, key):
    return select(variables, context, key, jnp.arange(len(frames.target)))

  flow_pairs = frames.enclosing, frames.enclosing[::-1]
  return base.System(
    init=init,
    loss=loss,
    predict=lambda *given: diagnostics(*given)[0],
    frames=frames,
    multiple=1,
    stochastic=False,
    diagnostics=diagnostics,
    select=select,
    flow_pairs=flow_pairs if chosen.flow_weight else (),
  )


def _check_frames(frames, motion):
  """Raises ValueError unless all targets lie between two context frames."""
  context, target = frames
  counts = (2, 4) if motion == 'variational' else (2,)
  even = len({b - a for a, b in zip(context, context[1:])}) == 1
  fits = len(context) in counts and even and target and frames.interpolates
  if not fits or frames.enclosing != context[len(context) // 2 - 1 :][:2]:
    raise ValueError(
      f"Got frames {tuple(frames)}; apr_vfi with motion='{motion}' needs "
      f'{" or ".join(map(str, counts))} context frames, evenly spread, and '
      'targets between the two in the middle, such as ((0, 2), (1,)).'
    )
