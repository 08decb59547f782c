"""What could routing be worth? The loss of every route of a DMVFN.

  python -m experiments.routes --checkpoint=DIR [--clips=192] [--size=64]
    [--max_speed=8] [--steps=0]

runs every subset of the blocks on photographs in motion that it did not learn
from, and compares, for each number of blocks: the best route of all clips, the
best route of each third of them by motion, and the best route of each clip,
which no router can beat. If the first two are as good as each other, a router
that gives all clips one route is right. The loss is the Laplacian one of the
next frame. 2**n routes cost 2**n blocks: at most ten.

With `--steps=400` a router alone is then trained on these losses, as published
and standardised, by drawn gates with a straight-through gradient; and likewise
on made-up ones, of which a router that sees the motion can make much: there the
first blocks help fast clips and the last ones slow clips. Every fourth clip is
kept aside. Printed are the routes that these get.
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidpred_jax import checkpoint, losses, runtime
from vidpred_jax.config import photographs
from vidpred_jax.data.photos import PhotosInMotion
from vidpred_jax.models import dmvfn, dmvfn_layers
from vidpred_jax.ops import resize, routing
from vidpred_jax.systems.dmvfn import Settings

NAMES = ('slow', 'medium', 'fast')


class Losses(NamedTuple):
  """What every route gives.

  Attributes:
    routes: [S, n], 0 or 1.
    loss: [N, S], of each clip.
    frames: [N, H, W, 6], what the router sees.
    motion: [N], mean length of the flow, pixels a frame.
    third: [N], 0 for slow, 2 for fast.
  """

  routes: np.ndarray
  loss: np.ndarray
  frames: np.ndarray
  motion: np.ndarray
  third: np.ndarray


def all_routes(count: int) -> np.ndarray:
  """Every subset of `count` blocks, [2**count, count]; the first uses none."""
  places = np.arange(count - 1, -1, -1)
  return (np.arange(2**count)[:, None] >> places) & 1


def losses_of_routes(model: dmvfn.DMVFN, params, video) -> np.ndarray:
  """The loss of the next frame by every route.

  Routes that begin alike share what they have in common.

  Args:
    model: the network.
    params: its parameters.
    video: [N, 3, H, W, 3] in [0, 1].

  Returns:
    [N, 2**n], in the order of `all_routes`.
  """
  frames = dmvfn.concat_pair(video[:, :2])

  def add(i, weights, frames, voxel):
    block = model._block(i, parent=None)
    unwarped = model._unwarped(i)
    state = dmvfn.warp_frames(frames, voxel)
    if unwarped:
      state = dmvfn.State(voxel, frames[..., :3], frames[..., 3:])
    step = block.apply({'params': weights}, frames, state, first=unwarped)
    return voxel + step

  @jax.jit
  def measure(frames, voxel, truth):
    shown = dmvfn.blend(dmvfn.warp_frames(frames, voxel), None)
    return losses.laplacian(shown, truth)

  voxels = [dmvfn.initial_state(video[:, :2], model.begin(video[:, :2])).voxel]
  for i in range(len(model.scales)):
    run = jax.jit(add, static_argnums=0)
    weights = params[f'block_{i}']
    voxels = [v for x in voxels for v in (x, run(i, weights, frames, x))]
  each = [measure(frames, x, video[:, 2]) for x in voxels]
  return np.stack(each, 1)


def measured(folder: str, clips: int, size: int, max_speed: float) -> Losses:
  """Runs every route of a system on test clips, see the module."""
  record, variables = checkpoint.read(folder)
  if record['system'] != 'dmvfn':
    raise ValueError(f'{folder} holds {record["system"]!r}, expected dmvfn.')
  settings = Settings(**record['settings'])
  if settings.hindsight:
    raise ValueError(f'{folder} has hindsight; routes here see two frames.')
  model = dmvfn.DMVFN(
    scales=tuple(settings.scales),
    widths=settings.widths and tuple(settings.widths),
    spatial_path=settings.spatial_path,
    initial_flow=settings.initial_flow,
    router_outputs=0,
  )
  multiple = dmvfn.size_multiple(model.scales, 1)
  if len(model.scales) > 10 or size % multiple:
    raise ValueError(
      f'Got {len(model.scales)} blocks and size {size}; expected at most ten '
      f'blocks and a multiple of {multiple}.'
    )
  source = PhotosInMotion(
    'test',
    3,
    flow_pairs=((1, 0),),
    num_clips=clips,
    **photographs(size, max_speed=max_speed) | {'still': 0.0},
  )
  items = [source[i] for i in range(clips)]
  motion = np.array(
    [np.nanmean(np.linalg.norm(x['flow'][0], axis=-1)) for x in items]
  )
  videos = np.float32(np.stack([x['video'] for x in items])) / 255
  parts = [
    losses_of_routes(model, variables['params'], videos[i : i + 32])
    for i in range(0, clips, 32)
  ]
  frames = resize.bilinear(dmvfn.concat_pair(videos[:, :2]), scale=0.5)
  third = np.digitize(motion, np.quantile(motion, [1 / 3, 2 / 3]))
  return Losses(
    all_routes(len(model.scales)),
    np.concatenate(parts),
    np.asarray(frames),
    motion,
    third,
  )


def with_something_to_route(found: Losses) -> Losses:
  """The same clips with losses that depend on route and motion by a rule.

  Of n blocks the first half gains 0.016 each on the fastest clips and nothing
  on the slowest, the second half the other way round; one in the middle 0.008.
  """
  count = found.routes.shape[1]
  fast = 1 / (1 + (np.median(found.motion) / found.motion) ** 6)
  half = count // 2
  gains = np.stack([fast] * half + [1 - fast] * (count - half), 1)
  if count % 2:
    gains[:, half] = 0.5
  return found._replace(loss=0.1 - 0.016 * gains @ found.routes.T)


def trained_routes(
  found: Losses,
  key: jax.Array,
  *,
  steps: int,
  standardised: bool,
  beta: float = 0.5,
  rate: float = 2.5e-3,
  batch: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
  """Trains a router alone on the losses of routes.

  Gates are drawn from budgeted probabilities; what a gate's gradient would be
  is the difference in loss that turning it makes, the other gates being as
  drawn.

  Args:
    found: the losses of routes.
    key: of the initial weights, the batches and the gates.
    steps: of Adam, the rate falling to 0 by a cosine.
    standardised: as `models.dmvfn.DMVFN.router_standardised`.
    beta: the budget.
    rate: the highest learning rate.
    batch: clips in a step.

  Returns:
    The routes [M, n] of the clips that were kept aside, and which these are.
  """
  count = found.routes.shape[1]
  place = 2 ** np.arange(count - 1, -1, -1)
  aside = np.arange(len(found.loss)) % 4 == 3
  seen = jnp.asarray(found.frames)
  if standardised:
    seen = dmvfn.standardised(seen)
  loss = jnp.asarray(found.loss, jnp.float32)
  router = dmvfn_layers.Router(count, formulation='published')
  key, first = jax.random.split(key)
  params = router.init(first, seen[:1])
  rule = optax.adam(optax.cosine_decay_schedule(rate, steps))

  def chances(params, frames):
    return routing.budgeted_probabilities(router.apply(params, frames), beta)

  @jax.jit
  def step(params, state, key):
    of_clips, of_gates = jax.random.split(key)
    chosen = jax.random.choice(of_clips, np.flatnonzero(~aside), (batch,))

    def objective(params):
      share = chances(params, seen[chosen])
      gates = jax.random.bernoulli(of_gates, share).astype(jnp.int32)
      route = jnp.sum(gates * place[None], -1, keepdims=True)
      on = route + (1 - gates) * place[None]
      read = lambda s: jnp.take_along_axis(loss[chosen], s, 1)  # noqa: E731
      gain = read(on - place[None]) - read(on)
      return -jnp.mean(jnp.sum(share * gain, -1))

    update, state = rule.update(jax.grad(objective)(params), state, params)
    return optax.apply_updates(params, update), state

  state = rule.init(params)
  for one in jax.random.split(key, steps):
    params, state = step(params, state, one)
  gates = routing.deterministic_gates(chances(params, seen[aside]))
  return np.asarray(gates).astype(int), np.flatnonzero(aside)


def told(found: Losses, gates: np.ndarray, clips: np.ndarray) -> str:
  """What routes of clips there are, how they depend on motion, their loss."""
  count = found.routes.shape[1]
  index = gates @ 2 ** np.arange(count - 1, -1, -1)
  third = found.third[clips]
  used = '; '.join(
    f'{name} {" ".join(f"{x:.2f}" for x in gates[third == i].mean(0))}'
    for i, name in enumerate(NAMES)
  )
  return (
    f'{len(set(index))} routes, loss {found.loss[clips, index].mean():.4f}, '
    f'use of blocks: {used}'
  )


def table(found: Losses) -> str:
  """The comparison as text, a line for each number of blocks."""
  routes, loss = found.routes, found.loss
  count = routes.shape[1]
  lines = [
    'motion, pixels a frame: '
    + ', '.join(
      f'{name} {found.motion[found.third == i].mean():.2f}'
      for i, name in enumerate(NAMES)
    ),
    'what a block gains on average:',
  ]
  bits = 2 ** np.arange(count - 1, -1, -1)
  for i, bit in enumerate(bits):
    on = np.flatnonzero(routes[:, i])
    gain = (loss[:, on - bit] - loss[:, on]).mean(1)
    thirds = ', '.join(
      f'{name} {gain[found.third == k].mean():.5f}'
      for k, name in enumerate(NAMES)
    )
    lines.append(f'  block {i + 1}: {gain.mean():.5f} ({thirds})')
  lines.append('blocks, best route of all, of each third, of each clip: loss')
  for k in range(count + 1):
    chosen = np.flatnonzero(routes.sum(1) == k)
    of_all = chosen[loss[:, chosen].mean(0).argmin()]
    best = [
      chosen[loss[found.third == i][:, chosen].mean(0).argmin()]
      for i in range(3)
    ]
    by_third = loss[np.arange(len(loss)), np.take(best, found.third)].mean()
    names = ' '.join(_text(routes[b]) for b in best)
    lines.append(
      f'  {k}: {_text(routes[of_all])} {loss[:, of_all].mean():.4f}, '
      f'{names} {by_third:.4f}, {loss[:, chosen].min(1).mean():.4f}'
    )
  return '\n'.join(lines)


def _text(route: np.ndarray) -> str:
  return ''.join(map(str, route))


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--checkpoint', required=True)
  parser.add_argument('--clips', type=int, default=192)
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--max_speed', type=float, default=8.0)
  parser.add_argument('--steps', type=int, default=0)
  options = parser.parse_args()
  found = measured(
    options.checkpoint, options.clips, options.size, options.max_speed
  )
  print(table(found))
  if not options.steps:
    return
  for name, losses_ in (
    ('these losses', found),
    ('losses by the motion', with_something_to_route(found)),
  ):
    for standardised in (False, True):
      routes = trained_routes(
        losses_,
        runtime.key(0),
        steps=options.steps,
        standardised=standardised,
      )
      kind = 'standardised' if standardised else 'as published'
      print(f'router {kind}, {name}: {told(losses_, *routes)}', flush=True)


if __name__ == '__main__':
  main()
