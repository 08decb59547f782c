import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.ops import relaxation


def _pictures(key, shape):
  """Two smooth pictures with three channels and where they are known."""
  batch, height, width = shape
  keys = jax.random.split(key, 3)
  coarse = jax.random.uniform(keys[0], (batch, 3, 3, 3))
  first = jax.image.resize(coarse, (batch, height, width, 3), 'cubic')
  second = first + 0.05 * jax.random.normal(keys[1], first.shape)
  seen = jax.random.uniform(keys[2], (batch, height, width, 1)) > 0.1
  return first, second, seen


def _system(flow, first, second, seen, alpha):
  """The linear system of one picture, written out by pixels: matrix, right."""
  height, width = flow.shape[:2]

  def at(x, row, column):
    return x[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]

  def gradient(x, row, column):
    dx = at(x, row, column + 1) - at(x, row, column - 1)
    dy = at(x, row + 1, column) - at(x, row - 1, column)
    return dx / 2, dy / 2

  smooth = np.zeros((height, width))
  for row, column in np.ndindex(height, width):
    square = sum(np.sum(x**2) for x in gradient(flow, row, column))
    smooth[row, column] = alpha / np.sqrt(square + 0.1**2)
  matrix = np.zeros((height, width, 2, height, width, 2))
  right = np.zeros((height, width, 2))
  mean, difference = (first + second) / 2, second - first
  for row, column in np.ndindex(height, width):
    here = (row, column)
    slopes = np.stack(gradient(mean, row, column))
    unit = seen[here] / (np.sum(slopes**2, 0) + 0.02**2)
    weight = unit / np.sqrt(unit * difference[here] ** 2 + 0.1**2)
    matrix[here][:, row, column] += (weight * slopes) @ slopes.T
    # The data term is linear in what is added, smoothness in the whole flow.
    right[here] = matrix[here][:, row, column] @ flow[here]
    right[here] -= (weight * slopes) @ difference[here]
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
      there = row + dy, column + dx
      if 0 <= there[0] < height and 0 <= there[1] < width:
        link = (smooth[here] + smooth[there]) / 2
        for c in range(2):
          matrix[here][c, row, column, c] += link
          matrix[here][c, there[0], there[1], c] -= link
  return matrix.reshape(right.size, -1), right.ravel()


@pytest.mark.parametrize('shape', [(1, 6, 8), (2, 7, 5)])
def test_many_sweeps_solve_the_linear_system(shape):
  key = jax.random.key(0)
  first, second, seen = _pictures(key, shape)
  flow = 0.3 * jax.random.normal(key, (*shape, 2))
  found = relaxation.relaxed(flow, first, second, seen, 2.0, outer=1, inner=300)
  for i in range(shape[0]):
    given = (np.float64(x[i]) for x in (flow, first, second, seen))
    expected = np.linalg.solve(*_system(*given, 2.0))
    np.testing.assert_allclose(np.ravel(found[i]), expected, atol=2e-4)


def test_outer_iterations_begin_from_the_last():
  first, second, seen = _pictures(jax.random.key(1), (1, 8, 9))
  flow = jnp.zeros((1, 8, 9, 2))

  def relaxed(outer):
    return relaxation.relaxed(
      flow, first, second, seen, 0.7, outer=outer, inner=200
    )

  # Where psi' no longer changes the energy is at its minimum.
  far = np.abs(relaxed(40) - relaxed(1)).max()
  near = np.abs(relaxed(41) - relaxed(40)).max()
  assert far > 1e-3
  assert near < 1e-2 * far


def test_unseen_pixels_take_their_neighbours_flow():
  first, _, _ = _pictures(jax.random.key(2), (1, 12, 13))
  unseen = np.zeros((1, 12, 13, 1), bool)
  unseen[:, 4:8, 5:9] = True
  start = jnp.where(unseen, jnp.array([2.0, -1.0]), 0.0)
  # Both frames are the same, so where they are seen nothing moves.
  found = relaxation.relaxed(
    start, first, first, ~unseen, 2.0, outer=20, inner=30
  )
  np.testing.assert_allclose(found, 0, atol=0.02)


def test_pictures_of_a_batch_do_not_touch():
  first, second, seen = _pictures(jax.random.key(3), (2, 6, 7))
  broken = first.at[0, 5, 6].set(jnp.nan)
  flow = jnp.zeros((2, 6, 7, 2))
  for pictures in (first, broken):
    found = relaxation.relaxed(
      flow, pictures, second, seen, 2.0, outer=2, inner=5
    )
    assert np.isfinite(found[1]).all()
  assert np.isnan(found[0]).all()
