"""Forward warping (splatting): every pixel is moved along a flow and added.

Flows are forward flows in the convention of `warp`. `splat` moves all pixels of
an image; `bin_by_patch` and `splat_patches` compute selected patches only.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from vidpred_jax.ops import routing, warp


@jax.custom_vjp
def splat(values: jax.Array, flow: jax.Array) -> jax.Array:
  """Sum splatting: moves every pixel along a flow and adds it there.

  Niklaus and Liu, "Softmax Splatting for Video Frame Interpolation", CVPR 2020,
  equations (1) to (3). The gradient at a whole number is that of the interval
  to its right. Pixels whose flow is not finite are dropped. It has no
  forward-mode derivative.

  Args:
    values: [B, H, W, C], any range.
    flow: [B, H, W, 2], (dx, dy) in pixels, where each pixel goes.

  Returns:
    [B, H, W, C], float32.
  """
  chex.assert_rank([values, flow], 4)
  batch, height, width, channels = values.shape
  chex.assert_shape(flow, (batch, height, width, 2))
  index, (wx, wy), _ = _targets(flow)
  images = (height + 3) * (width + 3) * jnp.arange(batch, dtype=jnp.int32)
  index = index + images[:, None, None]
  return jax.lax.platform_dependent(
    values.astype(jnp.float32),
    *(x.reshape(-1) for x in (index, wx, wy)),
    cpu=_scatter_add_loop,
    default=_scatter_add,
  )


def _scatter_add_loop(values, index, wx, wy):
  """Adds values [B, H, W, C] to pixel `index` and its three neighbours.

  Indices count the pixels of all images with their margins, see `_targets`.

  2026-11: `_scatter_add` takes about twice as long on a CPU. There a scatter is
  a loop as well, over four times as many weighted values, which are stored in
  memory first.

  Returns:
    [B, H, W, C].
  """
  batch, height, width, _ = values.shape
  shape = batch, height + 3, width + 3

  def add(sums, values):
    def body(i, sums):
      weights = (_read(x, i) for x in (index, wx, wy))
      return _add_one(sums, values, i, *weights, (width + 3, 1))

    return jax.lax.fori_loop(0, index.shape[0], body, sums)

  sums = _by_groups(add, math.prod(shape), values)
  sums = [x.reshape(*shape, -1)[:, 1:-2, 1:-2] for x in sums]
  return jnp.concatenate(sums, -1)


def _by_groups(add, size, values):
  """Applies `add` to groups of 16 channels, one group after another.

  2026-11: XLA compiles a loop as a whole if an iteration touches little, here
  some 18 channels; with more channels the loop takes several times as long.
  LLVM unrolls a short loop over the last axis before it would vectorise it. So
  channels are not the last axis where they fill whole vectors (16 channels:
  half the time).

  Args:
    add: a function of sums [size, c, 1] or [size, 1, c], at first 0, and of
      values [N, c], that returns the sums.
    size: the number of pixels that are added to.
    values: [..., C].

  Returns:
    The sums [size, c] of each group. With more than one group the values are
    copied, unless `values` is a concatenation of exactly these groups.
  """
  out = []
  for start in range(0, values.shape[-1], 16):
    # Cut before the axes are merged, so that XLA can drop a concatenation.
    part = values[..., start : start + 16]
    count = part.shape[-1]
    shape = (size, count, 1) if count % 4 == 0 else (size, 1, count)
    sums = add(jnp.zeros(shape, jnp.float32), part.reshape(-1, count))
    out.append(sums.reshape(size, count))
  return out


def _slice(x, start, shape):
  """`dynamic_slice` at a non-negative start, without the check of its sign."""
  start = [jnp.asarray(i, jnp.int32) for i in start]
  return jax.lax.dynamic_slice(x, start, shape, allow_negative_indices=False)


def _update(x, value, start):
  """`dynamic_update_slice`, see `_slice`."""
  start = [jnp.asarray(i, jnp.int32) for i in start]
  return jax.lax.dynamic_update_slice(
    x, value, start, allow_negative_indices=False
  )


def _read(x, i):
  """`x[i]`, i not negative."""
  return jax.lax.dynamic_index_in_dim(
    x, i, keepdims=False, allow_negative_indices=False
  )


def _write(x, value, i):
  """`x` with `value` for `x[i]`, i not negative."""
  return jax.lax.dynamic_update_index_in_dim(
    x, value, i, 0, allow_negative_indices=False
  )


def _add_one(sums, values, i, index, wx, wy, steps):
  """Adds `values[i]`, of [N, c], to pixel `index` and its three neighbours.

  Sums are [M, c, 1], updated in vectors of 8 (the last may have 4), or
  [M, 1, c]. `steps` are the index distances of the next row and column.
  """
  row, column = steps
  count = values.shape[1]
  upright = sums.shape[2] == 1
  most = 8 if upright else count
  for below, share_y in ((0, 1 - wy), (row, wy)):
    for right, share_x in ((0, 1 - wx), (column, wx)):
      at = index + (below + right)
      for start in range(0, count, most):
        size = min(most, count - start)
        shape = (1, size, 1) if upright else (1, 1, size)
        value = _slice(values, (i, start), (1, size)).reshape(shape)
        total = _slice(sums, (at, start, 0), shape)
        total += value * (share_y * share_x)
        sums = _update(sums, total, (at, start, 0))
  return sums


def _scatter_add(values, index, wx, wy):
  """Equals `_scatter_add_loop`, by one scatter."""
  batch, height, width, channels = values.shape
  shape, row = (batch, height + 3, width + 3), width + 3
  shares = [(1 - wx) * (1 - wy), wx * (1 - wy), (1 - wx) * wy, wx * wy]
  shares = jnp.stack(shares, -1)[..., None]
  parts = values.reshape(-1, 1, channels) * shares
  index = jnp.stack([index, index + 1, index + row, index + row + 1], -1)
  sums = jnp.zeros((math.prod(shape), channels), jnp.float32)
  sums = sums.at[index].add(parts, mode='promise_in_bounds')
  return sums.reshape(*shape, channels)[:, 1:-2, 1:-2]


def _targets(flow):
  """The upper-left of the four pixels that each pixel is splatted to.

  Indices count pixels of an image with a margin: one pixel at the left and top,
  two at the right and bottom. Pixels that move out of the image end there.

  Returns:
    The index [B, H, W] among (H + 3)(W + 3) pixels; the distances in x and y
    from that pixel, [B, H, W]; and whether x and y lie in the image or its
    margin.
  """
  _, height, width, _ = flow.shape
  flow = flow.astype(jnp.float32)
  firsts, distances, inside = [], [], []
  for axis, side in enumerate((width, height)):
    shape = [1, 1, -1] if axis == 0 else [1, -1, 1]
    at = jnp.arange(side, dtype=jnp.float32).reshape(shape) + flow[..., axis]
    valid = (at >= -1) & (at <= side)  # and not NaN
    at = jnp.clip(jnp.where(jnp.isnan(at), -1, at), -1, side)
    first = jnp.floor(at)
    firsts.append(first.astype(jnp.int32) + 1)
    distances.append(at - first)
    inside.append(valid)
  return firsts[1] * (width + 3) + firsts[0], distances, inside


def _splat_forward(values, flow):
  return splat(values, flow), (values, flow)


def _splat_backward(saved, gradient):
  """Gathers the gradient at each pixel's target; nothing is scattered."""
  values, flow = saved
  batch, height, width, channels = values.shape
  index, (wx, wy), inside = _targets(flow)
  pads = ((0, 0), (1, 2), (1, 2), (0, 0))
  gradient = jnp.pad(gradient, pads).reshape(batch, -1, channels)
  read = jax.vmap(lambda g, i: g.at[i].get(mode='promise_in_bounds'))
  below = width + 3
  a, b, c, d = (read(gradient, index + k) for k in (0, 1, below, below + 1))
  wx, wy = wx[..., None], wy[..., None]
  upper, lower = a * (1 - wx) + b * wx, c * (1 - wx) + d * wx
  slopes = ((b - a) * (1 - wy) + (d - c) * wy, lower - upper)
  of_flow = [
    jnp.where(valid, warp.sum_channels(values.astype(jnp.float32) * slope), 0)
    for valid, slope in zip(inside, slopes)
  ]
  of_values = upper * (1 - wy) + lower * wy
  return (
    of_values.astype(values.dtype),
    jnp.stack(of_flow, -1).astype(flow.dtype),
  )


splat.defvjp(_splat_forward, _splat_backward)


class PatchBins(NamedTuple):
  """Linked lists of the pixels that a flow moves into each patch.

  Pixels of F images per sample are numbered consecutively, S = B F H W. The N
  patches are those of `ops/routing.py`, each with a margin of one pixel. So if
  one of the four pixels that a pixel is splatted to lies in a patch, all four
  lie in the patch or its margin.

  Attributes:
    cell: [S], int32, the index of the upper-left of these four in a patch at
      (0, 0) with margin whose height is unlimited, F cells per pixel.
    wx: [S], the distance from that pixel in x.
    wy: [S], in y.
    head: [N + 1], int32, the first entry of each patch's linked list; the last
      list holds what reaches no patch. Entries 4 i to 4 i + 3 belong to pixel
      i, which can reach four patches. -1: the list is empty.
    next: [4 S], int32, the entry after each entry in its list. -1: none.
    shifts: [N], int32, `cell` of the first cell of each patch.
  """

  cell: jax.Array
  wx: jax.Array
  wy: jax.Array
  head: jax.Array
  next: jax.Array
  shifts: jax.Array


def bin_by_patch(flow: jax.Array, patch: int) -> PatchBins:
  """Lists the pixels that a flow moves into each patch, for `splat_patches`.

  It loops over pixels, so it is fast on CPUs only.

  Args:
    flow: [B, F, H, W, 2], (dx, dy) in pixels, where each pixel goes.
    patch: side P of the patches.

  Returns:
    The lists.
  """
  chex.assert_shape(flow, (None, None, None, None, 2))
  batch, images, height, width, _ = flow.shape
  rows, columns = routing.patch_grid(height, width, patch)
  nowhere = batch * rows * columns
  index, (wx, wy), _ = _targets(flow.reshape(-1, height, width, 2))
  # `lax.div`: `//` rounds down, with extra work for signs.
  y = jax.lax.div(index, width + 3)
  y, x = y - 1, index - y * (width + 3) - 1
  number = jnp.arange(batch * images, dtype=jnp.int32)[:, None, None]
  clip, image = number // images, number % images

  def reached(at, side):
    # Along one axis; the second pixel only if it is in another patch.
    first, second = (
      jnp.where((i >= 0) & (i < side), jax.lax.div(i, patch), -1)
      for i in (at, at + 1)
    )
    return first, jnp.where(second == first, -1, second)

  patches = []
  for row in reached(y, height):
    for column in reached(x, width):
      inside = (row >= 0) & (column >= 0)
      at = (clip * rows + row) * columns + column
      patches.append(jnp.where(inside, at, nowhere).reshape(-1))

  count = index.size

  def link(j, state):
    head, following = state
    i = count - 1 - j  # so that lists go through the pixels forwards
    for k, of in enumerate(patches):
      at, entry = _read(of, i), 4 * i + k
      after = _read(head, at)
      following = _write(following, after, entry)
      # 2026-11: reading it back tells XLA that `head` changes after
      # `following`; else it copies `head` for every pixel.
      head = _write(head, entry + _read(following, entry) - after, at)
    return head, following

  head = jnp.full(nowhere + 1, -1, jnp.int32)
  following = jnp.full(4 * count, -1, jnp.int32)
  head, following = jax.lax.fori_loop(0, count, link, (head, following))
  cell = ((y * (patch + 2) + x) * images + image).reshape(-1)
  tops = patch * jnp.arange(rows, dtype=jnp.int32)[:, None] - 1
  lefts = patch * jnp.arange(columns, dtype=jnp.int32)[None] - 1
  shifts = ((tops * (patch + 2) + lefts) * images).reshape(-1)
  shifts = jnp.tile(shifts, batch)
  return PatchBins(
    cell, wx.reshape(-1), wy.reshape(-1), head, following, shifts
  )


def splat_patches(
  values: jax.Array, bins: PatchBins, patch: int, at: jax.Array
) -> jax.Array:
  """Sum splatting into selected patches.

  The time is proportional to the number of pixels that reach these patches. It
  has no gradient and is for CPUs, see `bin_by_patch`.

  Args:
    values: [B, F, H, W, C], any range.
    bins: `bin_by_patch` of the flow, with the same patches.
    patch: their side P.
    at: [K], the indices of the patches.

  Returns:
    [K, P, P, F, C], float32: the patches of `splat` of each of the F images.
    Pixels of a patch outside the image are not zeroed.
  """
  chex.assert_rank(values, 5)
  images, channels = values.shape[1], values.shape[-1]
  values = values.astype(jnp.float32)
  chex.assert_shape(bins.cell, (values.size // channels,))
  side = patch + 2
  size, steps = side * side * images, (side * images, images)

  def add(sums, values):
    def add_patch(k, sums):
      shift = k * size - _read(bins.shifts, _read(at, k))

      def add_next(state):
        entry, sums = state
        i = jax.lax.div(entry, 4)
        index = _read(bins.cell, i) + shift
        wx, wy = _read(bins.wx, i), _read(bins.wy, i)
        sums = _add_one(sums, values, i, index, wx, wy, steps)
        return _read(bins.next, entry), sums

      state = _read(bins.head, _read(at, k)), sums
      return jax.lax.while_loop(lambda x: x[0] >= 0, add_next, state)[1]

    return jax.lax.fori_loop(0, at.shape[0], add_patch, sums)

  sums = _by_groups(add, at.shape[0] * size, values)
  shape = (at.shape[0], side, side, images, -1)
  return jnp.concatenate([x.reshape(shape)[:, 1:-1, 1:-1] for x in sums], -1)


SPLATTINGS = ('sum', 'average', 'linear', 'softmax')


def forward(
  image: jax.Array,
  flow: jax.Array,
  *,
  mode: str = 'average',
  metric: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Forward warping: moves an image along a flow.

  With w the weight of a pixel and S the sum splatting of `splat`:

  - 'sum': S(image), w = 1;
  - 'average': S(image) / S(1);
  - 'linear': S(w image) / S(w), w the metric;
  - 'softmax': the same with w = exp(metric).

  Holes are 0.

  Args:
    image: [B, H, W, C], any range.
    flow: [B, H, W, 2], (dx, dy) in pixels, where each pixel goes.
    mode: one of `SPLATTINGS`.
    metric: [B, H, W, 1], the importance of pixels, for 'linear' (positive) and
      'softmax' (any).

  Returns:
    The image [B, H, W, C] in its dtype, and the weight S(w), [B, H, W, 1] in
    float32, which is exactly 0 in holes. (For 'softmax' w is divided by its
    maximum in the image.)

  Raises:
    ValueError: for an unknown mode, a missing metric, or a metric that the mode
      does not use.
  """
  if mode not in SPLATTINGS:
    raise ValueError(f'Got mode={mode!r}; expected one of {SPLATTINGS}.')
  if (metric is None) != (mode in ('sum', 'average')):
    raise ValueError(
      f'Got mode={mode!r} {"without" if metric is None else "with"} a metric; '
      "only 'linear' and 'softmax' have one, and need it."
    )
  if metric is None:
    weight = jnp.ones((*image.shape[:3], 1), jnp.float32)
  else:
    weight = metric.astype(jnp.float32)
    if mode == 'softmax':
      greatest = jnp.max(weight, (1, 2, 3), keepdims=True)
      weight = jnp.exp(weight - jax.lax.stop_gradient(greatest))
  both = jnp.concatenate([image.astype(jnp.float32) * weight, weight], -1)
  sums = splat(both, flow)
  out, weight = sums[..., :-1], sums[..., -1:]
  if mode != 'sum':
    out = out / jnp.where(weight == 0, 1, weight)
  return out.astype(image.dtype), weight
