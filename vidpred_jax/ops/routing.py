"""Routing: which blocks of a network run, for images or for their patches.

Images have gates `[B, n]` for n blocks. A router predicts logits (the v-tilde
of DMVFN's equation 7); the functions here turn logits into gates. The equations
are those of Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video
Prediction", CVPR 2023.

Patches are squares of P pixels, `[N, P, P, C]`, row by row, image after image,
with N = B nh nw. Images are padded with zeros at the right and bottom before
they are cut. `apply_to_selected` runs a function on selected patches, in time
proportional to their number.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp


def budgeted_probabilities(logits: jax.Array, beta: float) -> jax.Array:
  """Probabilities with a sum of at most `beta * n` (DMVFN's equation 10).

  `w_i = beta * n * sigmoid(v_i) / sum_j sigmoid(v_j)`, clipped to 1. Clipped
  probabilities have no gradient.

  Args:
    logits: [..., n].
    beta: the fraction of blocks to use, in [0, 1].

  Returns:
    [..., n] in [0, 1].
  """
  scores = jax.nn.sigmoid(logits)
  total = jnp.sum(scores, -1, keepdims=True) + 1e-6
  return jnp.clip(beta * logits.shape[-1] * scores / total, 0, 1)


def straight_through(gates: jax.Array, probabilities: jax.Array) -> jax.Array:
  """Returns `gates` with the gradient of `probabilities` (equation 12).

  Args:
    gates: 0 or 1, any shape.
    probabilities: the same shape.

  Returns:
    `gates`.
  """
  return jax.lax.stop_gradient(gates) + (
    probabilities - jax.lax.stop_gradient(probabilities)
  )


def bernoulli(key: jax.Array, probabilities: jax.Array) -> jax.Array:
  """Draws binary gates with a straight-through gradient (equations 11, 12).

  Args:
    key: a random key.
    probabilities: [..., n] in [0, 1].

  Returns:
    [..., n], 0 or 1 in the dtype of `probabilities`.
  """
  drawn = jax.random.bernoulli(key, probabilities)
  return straight_through(drawn.astype(probabilities.dtype), probabilities)


def gumbel(
  key: jax.Array, logits: jax.Array, temperature: float | jax.Array
) -> jax.Array:
  """Soft gates by the Gumbel-softmax (equation 9).

  Args:
    key: a random key.
    logits: [..., n, 2], for "skip" and "use".
    temperature: the tau of the equation; towards 0 the gates become binary.

  Returns:
    [..., n] in (0, 1).
  """
  noise = jax.random.gumbel(key, logits.shape, logits.dtype)
  return jax.nn.softmax((logits + noise) / temperature, axis=-1)[..., 1]


def deterministic_gates(probabilities: jax.Array) -> jax.Array:
  """Deterministic gates that use as many blocks as sampling does on average.

  The gates select the k most probable blocks, where k is the sum of the
  probabilities, rounded to the nearest integer (a half upwards). Of blocks with
  equal probability the earlier ones are selected. With probabilities from
  `budgeted_probabilities` beta remains a budget: k is `beta * n`, rounded, or
  less where probabilities were clipped to 1. A smaller beta never adds a block.

  Args:
    probabilities: [..., n] in [0, 1].

  Returns:
    [..., n], 0 or 1 in the dtype of `probabilities`.
  """
  # The 1e-6 in `budgeted_probabilities` makes the sum a little too small.
  count = jnp.floor(jnp.sum(probabilities, -1, keepdims=True) + 0.501)
  order = jnp.argsort(-probabilities, axis=-1, stable=True)
  rank = jnp.argsort(order, axis=-1)
  return (rank < count).astype(probabilities.dtype)


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
  """The number of patches that cover an image, (nh, nw).

  Args:
    height: of the image, in pixels.
    width: of the image, in pixels.
    patch: P, the side of a patch.

  Returns:
    The numbers of rows and columns of patches.
  """
  return -(-height // patch), -(-width // patch)


def to_patches(x: jax.Array, patch: int) -> jax.Array:
  """Cuts [B, H, W, C] into [B nh nw, P, P, C]; see the module.

  Args:
    x: [B, H, W, C].
    patch: P, the side of a patch.

  Returns:
    [B nh nw, P, P, C].
  """
  chex.assert_rank(x, 4)
  batch, height, width, channels = x.shape
  rows, columns = patch_grid(height, width, patch)
  pads = (0, rows * patch - height), (0, columns * patch - width)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  x = x.reshape(batch, rows, patch, columns, patch, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, patch, patch, channels)


def from_patches(patches: jax.Array, size: tuple[int, int]) -> jax.Array:
  """The inverse of `to_patches`: joins [B nh nw, P, P, C] to images.

  Args:
    patches: as `to_patches` gives them.
    size: (H, W) of the image.

  Returns:
    [B, H, W, C].
  """
  _, patch, _, channels = patches.shape
  rows, columns = patch_grid(*size, patch)
  x = patches.reshape(-1, rows, columns, patch, patch, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(-1, rows * patch, columns * patch, channels)
  return x[:, : size[0], : size[1]]


def per_pixel(
  values: jax.Array, patch: int, size: tuple[int, int]
) -> jax.Array:
  """Repeats a value of each patch, [B, nh, nw, C], for each of its pixels.

  Args:
    values: one for each patch.
    patch: P, the side of a patch.
    size: (H, W) of the image.

  Returns:
    [B, H, W, C].
  """
  values = jnp.repeat(jnp.repeat(values, patch, 1), patch, 2)
  return values[:, : size[0], : size[1]]


def apply_to_selected(
  function: Callable,
  patches: Any,
  others: Any,
  chosen: jax.Array,
  *,
  chunk: int | None = None,
) -> Any:
  """Applies a function to the selected patches; the others stay unchanged.

  Processes the selected patches in chunks, looping only as often as there are
  chunks to process. It has no reverse-mode gradient, since the number of
  iterations depends on the selection.

  Args:
    function: `(patches, others) -> patches` for K patches, each by itself.
    patches: [N, P, P, C], or a tree of arrays [N, ...].
    others: further inputs of the function, a tree of arrays [N, ...].
    chosen: [N], 0 for a patch that is not selected.
    chunk: K, or N if that is less. None: 8 on a CPU, where a small chunk stays
      in the cache; 64 on other devices, which a small chunk would leave idle.

  Returns:
    A tree like `patches`.
  """
  count = jnp.sum(chosen != 0)
  total = len(chosen)
  # The selected patches first, in order.
  order = jnp.argsort(chosen == 0, stable=True)

  def loop(patches, others, chunk, put):
    chunk = min(chunk, total)

    # The last chunk repeats its last patch: the same result is written to the
    # same place several times.
    def body(i, patches):
      at = order[jnp.minimum(i * chunk + jnp.arange(chunk), count - 1)]
      read = lambda x: x.at[at].get(mode='promise_in_bounds')  # noqa: E731
      new = function(jax.tree.map(read, patches), jax.tree.map(read, others))
      return jax.tree.map(
        lambda x, y: put(x, y.astype(x.dtype), at), patches, new
      )

    with jax.named_scope(f'at_most_{-(-total // chunk)}_times'):
      return jax.lax.fori_loop(0, -(-count // chunk), body, patches)

  few, many = (8, 64) if chunk is None else (chunk, chunk)
  return jax.lax.platform_dependent(
    patches,
    others,
    cpu=functools.partial(loop, chunk=few, put=_scatter_loop),
    default=functools.partial(loop, chunk=many, put=_scatter),
  )


def _scatter_loop(x, new, at):
  """Writes patches [K, ...] to places `at` [K] of x.

  2026-11: XLA fuses the last operation into each write, which saves 1-3 % of
  APR-VFI's synthesis on a CPU.
  """
  for i in range(len(new)):
    x = jax.lax.dynamic_update_index_in_dim(
      x, new[i], at[i], 0, allow_negative_indices=False
    )
  return x


def _scatter(x, new, at):
  """Equals `_scatter_loop`, by one scatter."""
  return x.at[at].set(new, mode='promise_in_bounds')


def top_fraction_mask(scores: jax.Array, ratio: float) -> jax.Array:
  """A mask of the highest scores of each row.

  Args:
    scores: [B, N].
    ratio: the fraction of N to select; their number is rounded to the nearest
      integer, a half upwards.

  Returns:
    [B, N], float32: 1 for the highest scores, 0 for the others. Of equal scores
    the earlier ones are selected.
  """
  chex.assert_rank(scores, 2)
  count = int(ratio * scores.shape[-1] + 0.5)
  order = jnp.argsort(-scores, axis=-1, stable=True)
  return (jnp.argsort(order, axis=-1) < count).astype(jnp.float32)


def edge_holes(weight: jax.Array) -> jax.Array:
  """A mask of the holes of a warped image that reach the image border.

  Content that moves away from the border leaves such holes. A hole pixel
  belongs to the edge if all pixels from it to the border, straight to the left,
  right, top or bottom, are holes.

  Args:
    weight: [B, H, W, 1], the splatted weight; 0 in holes.

  Returns:
    [B, H, W, 1], 1 in these holes and 0 elsewhere.
  """
  hole = (weight == 0).astype(jnp.float32)
  edge = jnp.zeros_like(hole)
  for axis in (1, 2):
    for reverse in (False, True):
      line = jax.lax.cummin(hole, axis=axis, reverse=reverse)
      edge = jnp.maximum(edge, line)
  return edge


def patch_difference(difference: jax.Array, patch: int) -> jax.Array:
  """The difference of two images in each patch (APR-VFI's equation 5).

  The largest mean over 4x4 pixels in the patch.

  Args:
    difference: [B, H, W, 1], magnitudes.
    patch: side of a patch, a multiple of 4.

  Returns:
    [B, nh, nw].
  """
  chex.assert_is_divisible(patch, 4)
  height, width = difference.shape[1:3]
  rows, columns = patch_grid(height, width, patch)
  cells = to_patches(difference, patch)
  cells = cells.reshape(-1, patch // 4, 4, patch // 4, 4)
  return jnp.max(jnp.mean(cells, (2, 4)), (1, 2)).reshape(-1, rows, columns)


def reference_routes(
  differences: jax.Array, keep_ratios: Sequence[float]
) -> jax.Array:
  """The reference routes that APR-VFI's router learns (section 3.3).

  Each block processes the patches with the largest differences of an image; its
  keep ratio is their fraction (`top_fraction_mask`).

  Args:
    differences: [B, nh, nw], of `patch_difference`.
    keep_ratios: kr_1..kr_d.

  Returns:
    [B, nh, nw, d], 0 or 1.
  """
  scores = differences.reshape(differences.shape[0], -1)
  routes = [top_fraction_mask(scores, ratio) for ratio in keep_ratios]
  return jnp.stack(routes, -1).reshape(*differences.shape, -1)
