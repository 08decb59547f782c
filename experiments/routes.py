"""What could routing be worth? The loss of every route of a DMVFN.

  python -m experiments.routes --checkpoint=DIR [--clips=192] [--size=64]
    [--max_speed=8]

runs every subset of the blocks on photographs in motion that it did not learn
from, and compares, for each number of blocks: the best route of all clips, the
best route of each third of them by motion, and the best route of each clip,
which no router can beat. If the first two are as good as each other, a router
that gives all clips one route is right. The loss is the Laplacian one of the
next frame. 2**n routes cost 2**n blocks: at most ten.
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import checkpoint, losses
from vidpred_jax.config import photographs
from vidpred_jax.data.photos import PhotosInMotion
from vidpred_jax.models import dmvfn
from vidpred_jax.systems.dmvfn import Settings

NAMES = ('slow', 'medium', 'fast')


class Losses(NamedTuple):
  """What every route gives.

  Attributes:
    routes: [S, n], 0 or 1.
    loss: [N, S], of each clip.
    motion: [N], mean length of the flow, pixels a frame.
    third: [N], 0 for slow, 2 for fast.
  """

  routes: np.ndarray
  loss: np.ndarray
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
  frames = jnp.concatenate([video[:, 0], video[:, 1]], -1)

  def add(i, weights, frames, voxel):
    block = model._block(i, parent=None)
    state = dmvfn.warp_frames(frames, voxel)
    if i == 0:
      state = dmvfn.initial_state(frames)
    step = block.apply({'params': weights}, frames, state, first=i == 0)
    return voxel + step

  @jax.jit
  def measure(frames, voxel, truth):
    shown = dmvfn.blend(dmvfn.warp_frames(frames, voxel))
    return losses.laplacian(shown, truth)

  voxels = [jnp.zeros((*frames.shape[:-1], 5), jnp.float32)]
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
  model = dmvfn.DMVFN(
    scales=tuple(settings.scales),
    widths=settings.widths and tuple(settings.widths),
    spatial_path=settings.spatial_path,
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
  parts = []
  for start in range(0, clips, 32):
    video = np.stack([x['video'] for x in items[start : start + 32]])
    parts.append(
      losses_of_routes(model, variables['params'], np.float32(video) / 255)
    )
  third = np.digitize(motion, np.quantile(motion, [1 / 3, 2 / 3]))
  return Losses(
    all_routes(len(model.scales)), np.concatenate(parts), motion, third
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
  options = parser.parse_args()
  print(
    table(
      measured(
        options.checkpoint, options.clips, options.size, options.max_speed
      )
    )
  )


if __name__ == '__main__':
  main()
