import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import cost
from vidpred_jax.ops import routing


@pytest.mark.parametrize('size, patch', [((16, 24), 8), ((13, 30), 8)])
def test_patches_are_squares_of_the_image_padded_with_zeros(size, patch):
  x = jax.random.uniform(jax.random.key(0), (2, *size, 3))
  rows, columns = routing.patch_grid(*size, patch)
  patches = routing.to_patches(x, patch)
  assert patches.shape == (2 * rows * columns, patch, patch, 3)
  pads = (0, rows * patch - size[0]), (0, columns * patch - size[1])
  wide = np.pad(x, ((0, 0), *pads, (0, 0)))
  for n, (b, i, j) in enumerate(np.ndindex(2, rows, columns)):
    y, x0 = i * patch, j * patch
    np.testing.assert_array_equal(
      patches[n], wide[b, y : y + patch, x0 : x0 + patch]
    )
  np.testing.assert_array_equal(routing.from_patches(patches, size), x)


@functools.cache
def processed(chunk):
  def function(patches, others):
    return jnp.sin(patches) * (1 + others)

  return function, jax.jit(
    lambda x, others, chosen: routing.apply_to_selected(
      function, x, others, chosen, chunk=chunk
    )
  )


@pytest.mark.parametrize('chunk', [3, 64, None])
def test_only_chosen_patches_change(chunk):
  """Any number of them: none, fewer than a chunk, some chunks, all."""
  count = 17
  x, others = jax.random.normal(jax.random.key(1), (2, count, 4, 4, 2))
  function, process = processed(chunk)
  expected = function(x, others)
  order = np.random.default_rng(0).permutation(count)
  for some in (0, 1, 2, 3, 4, 9, count - 1, count):
    chosen = np.zeros(count, np.float32)
    chosen[order[:some]] = 1
    out = process(x, others, chosen)
    np.testing.assert_allclose(
      out, np.where(chosen[:, None, None, None], expected, x), rtol=1e-6
    )


def test_work_is_that_of_the_chosen_chunks():
  x = jnp.ones((20, 4, 4, 2))
  kernel = jnp.ones((2, 2))

  def run(chosen):
    return routing.apply_to_selected(
      lambda patches, _: patches @ kernel, x, (), chosen, chunk=4
    )

  def macs(count):
    chosen = (jnp.arange(20) < count).astype(jnp.float32)
    return cost.count_macs(run, chosen, run=True).total()

  chunk = 4 * 16 * 4
  assert [macs(n) for n in (0, 1, 4, 5, 20)] == [
    n * chunk for n in (0, 1, 1, 2, 5)
  ]


def test_highest_takes_the_ratio_of_each_row():
  scores = jax.random.normal(jax.random.key(2), (3, 10))
  for ratio, count in ((0, 0), (0.1, 1), (0.25, 3), (0.9, 9), (1, 10)):
    gates = np.asarray(routing.top_fraction_mask(scores, ratio))
    np.testing.assert_array_equal(gates.sum(-1), count)
    for row, chosen in zip(scores, gates.astype(bool)):
      if 0 < count < 10:
        assert row[chosen].min() > row[~chosen].max()
  ties = routing.top_fraction_mask(jnp.zeros((1, 4)), 0.5)
  np.testing.assert_array_equal(ties, [[1, 1, 0, 0]])


def test_forms_for_other_platforms_agree():
  """The last patches of a chunk may be one and the same."""
  x, new = jnp.zeros((5, 2, 3)), jax.random.normal(jax.random.key(3), (4, 2, 3))
  new, at = new.at[3].set(new[2]), jnp.asarray([1, 3, 4, 4])
  ours = routing._scatter_loop(x, new, at)
  np.testing.assert_array_equal(ours, routing._scatter(x, new, at))
  np.testing.assert_array_equal(ours[jnp.asarray([1, 3, 4])], new[:3])
