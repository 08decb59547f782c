"""Prediction by DMVFN: one frame, and those that follow it.

Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video Prediction", CVPR
2023. What goes by `initial_flow` and `hindsight` is ours.
"""

import jax
import jax.numpy as jnp

from vidpred_jax.models import dmvfn
from vidpred_jax.ops import bars, hindsight, persistence
from vidpred_jax.systems import dmvfn_routing as routing
from vidpred_jax.systems.dmvfn_settings import Settings
from vidpred_jax.systems.rollout import rollout as feed_back


def start(
  pair: jax.Array,
  flow: jax.Array,
  seen: hindsight.Hindsight,
  horizon: jax.Array,
) -> dmvfn.Start:
  """What the blocks begin with; arguments are those of `hindsight.begin`."""
  others, hints = hindsight.begin(pair, flow, seen, horizon)
  return dmvfn.Start(flow, others, hints)


def next_frame(
  model: dmvfn.DMVFN,
  settings: Settings,
  variables,
  pair,
  key,
  begun: dmvfn.Start | None = None,
  *,
  on: jax.Array | None = None,
):
  """Predicts the frame after a pair [B, 2, H, W, 3].

  Args:
    model: the network.
    settings: its system's.
    variables: its variables.
    pair: the frames.
    key: of the gates.
    begun: as in `models.dmvfn.DMVFN.run_route`.
    on: [B], whether any block runs; None: the gates alone decide.

  Returns:
    `([B, H, W, 3], diagnostics)`, see `System.diagnostics`.
  """
  gates = routing.inference_gates(model, settings, variables, pair, key)
  if on is not None:
    gates *= on[:, None]
  output = model.apply(variables, pair, gates, begun, method='run_route')
  used = jnp.any(gates != 0, 1)[:, None, None, None]
  # Without flow and without any block there is nothing but the mean of both.
  used |= settings.initial_flow != 'zero'
  frame = jnp.where(used, output.frames[-1], pair[:, 1])
  mask = jnp.where(used, jax.nn.sigmoid(output.mask), 0.0)
  return frame, {'flow': output.flow[..., 2:], 'mask': mask, 'blocks': gates}


def forecast(
  model: dmvfn.DMVFN, settings: Settings, variables, context, key, count: int
):
  """Predicts frames after a context [B, K, H, W, 3].

  As published, predictions are fed back. With a 'variational' flow the last
  true frames are read once for each prediction.

  Args:
    model: the network.
    settings: its system's.
    variables: its variables.
    context: the frames.
    key: of the gates.
    count: N, how many frames.

  Returns:
    `([B, N, H, W, 3], diagnostics)`, see `System.diagnostics`.
  """
  filled, inside = context, True
  if settings.keep_bars:
    filled, inside = bars.fill(context)
    inside = inside[:, None]
  given = model, settings, variables, filled, key, count
  if settings.initial_flow == 'zero':
    frames, diagnostics = _fed_back(*given)
  elif settings.hindsight and context.shape[1] >= hindsight.LEAST_FRAMES:
    frames, diagnostics = _by_hindsight(*given)
  else:
    frames, diagnostics = _gone_on(*given)
  diagnostics['flow'] = jnp.where(inside, diagnostics['flow'], 0)
  return jnp.where(inside, frames, context[:, -1:]), diagnostics


def _fed_back(model, settings, variables, context, key, count):
  """Each frame from the two before it, true or predicted."""

  def step(pair, key):
    return next_frame(model, settings, variables, pair, key)

  return feed_back(step, context[:, -2:], key, count)


def _gone_on(model, settings, variables, context, key, count):
  """One frame by the network; then its motion goes on."""
  pair = context[:, -2:]
  flow, kept = persistence.first_flow(context)
  begun = dmvfn.Start(flow)
  if settings.hindsight:  # Without hindsight no block knows what to do.
    state = dmvfn.initial_state(pair, begun)
    blocks = jnp.zeros((pair.shape[0], len(settings.scales)))
    mask = jax.nn.sigmoid(state.voxel[..., 4:])
    first = dmvfn.blend(state, None)
    diagnostics = {'flow': flow[..., 2:], 'mask': mask, 'blocks': blocks}
  else:
    first, diagnostics = next_frame(
      model, settings, variables, pair, key, begun
    )
  more, flows = persistence.go_on(
    pair[:, 1], diagnostics['flow'], kept, count - 1
  )
  frames = jnp.concatenate([first[:, None], more], 1)
  diagnostics = {
    name: jnp.zeros((x.shape[0], count, *x.shape[1:]), x.dtype).at[:, 0].set(x)
    for name, x in diagnostics.items()
  }
  diagnostics['flow'] = diagnostics['flow'].at[:, 1:].set(flows[..., 2:])
  return frames, diagnostics


def _by_hindsight(model, settings, variables, context, key, count):
  """Each frame from the last two true ones, by what was foretold wrongly."""
  pair = context[:, -2:]
  seen = hindsight.look_back(context)
  on = hindsight.is_visible(seen)
  flows, steps = persistence.paths(seen.flow, seen.kept, count)

  def one(given):
    number, flow, key = given
    horizon = jnp.full((pair.shape[0],), 1.0 + number)
    begun = start(pair, flow, seen, horizon)
    return next_frame(model, settings, variables, pair, key, begun, on=on)

  numbers, keys = jnp.arange(count), jax.random.split(key, count)
  results = jax.lax.map(one, (numbers, jnp.swapaxes(flows, 0, 1), keys))
  frames, diagnostics = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), results)
  diagnostics['flow'] = diagnostics['flow'].at[:, 1:].set(steps[:, 1:])
  return frames, diagnostics
