"""One warping of the variational method: the flow of the linearised energy.

Once both frames are warped by the flow so far, their differences are linear in
what is added to it, (u, v). `relaxed` minimises over it the sum over pixels of

  sum over channels of psi_d(sqrt(unit) |difference + dx u + dy v|)
  + ALPHA psi_s(|gradient of the flow|)

In outer iterations the weights psi' are computed anew, in inner iterations the
linear system is relaxed by red-black over-relaxation. `ops.variational` has the
sources.

This is most of the time that a flow takes. Pictures lie flat here, with a row
of numbers before and after, so that a neighbour is the same array some places
on. 2026-11: with padding instead, a sweep takes a CPU two to three times as
long.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax.ops import layout

_RELAXATION = 1.6
_EPSILON_DATA = 0.1  # pixels
_EPSILON_SMOOTH = 0.1  # pixels a pixel
_SMALLEST_GRADIENT = 0.02  # where there is less, differences count less


class _Grid(NamedTuple):
  """The pixels of [H, W], which lie flat: [B, N]; with a halo [B, N + 2 W].

  Attributes:
    width: W.
    starts: whether a pixel is in the first column; in the first row; [1, N].
    ends: whether it is in the last column; in the last row.
    red: whether it is updated first.
  """

  width: int
  starts: tuple[np.ndarray, np.ndarray]
  ends: tuple[np.ndarray, np.ndarray]
  red: np.ndarray

  def haloed(self, x):
    return jnp.pad(x, ((0, 0), (self.width, self.width)))

  def inner(self, x, offset=0):
    """The pixels at an offset from each; beyond a border any finite number."""
    start = self.width + offset
    return jax.lax.slice_in_dim(x, start, start + self.red.size, axis=1)

  def beside(self, x, axis):
    """The pixels before and after each, along x (0) or y (1)."""
    step = (1, self.width)[axis]
    return self.inner(x, -step), self.inner(x, step)

  def replaced(self, x, pixels):
    return jax.lax.dynamic_update_slice(x, pixels, (0, self.width))


def relaxed(
  flow: jax.Array,
  first: jax.Array,
  second: jax.Array,
  seen: jax.Array,
  alpha: float,
  *,
  outer: int,
  inner: int,
) -> jax.Array:
  """Minimises the linearised energy over the flow.

  Args:
    flow: [B, H, W, 2], by which the frames were warped, in pixels.
    first: [B, H, W, C], what is compared of the first frame, warped.
    second: likewise of the second.
    seen: [B, H, W, 1], bool, whether both frames are known there.
    alpha: the weight of smoothness.
    outer: how often psi' is computed.
    inner: sweeps for each.

  Returns:
    The new flow, [B, H, W, 2].
  """
  chex.assert_equal_shape([first, second])
  grid = _grid(*flow.shape[1:3])
  start = _flat(flow)
  # Or each of the many that use them would read between the pixels anew.
  first = layout.materialize(first, function=_flat)
  second = layout.materialize(second, function=_flat)
  data = _linearised(grid, first, second, _flat(seen)[0])

  def relinearised(_, planes):
    links = _links(grid, planes, alpha)
    added = [grid.inner(x) - x0 for x, x0 in zip(planes, start)]
    system = _solved(_normal_equations(data, added), start, grid, links)

    def sweep(_, buffers):
      # Each half reads one buffer and writes the other, or XLA would copy.
      one, two = buffers
      two = _half_sweep(grid, links, system, one, two, grid.red)
      one = _half_sweep(grid, links, system, two, one, ~grid.red)
      return one, two

    return jax.lax.fori_loop(0, inner, sweep, (planes, planes))[0]

  new = tuple(grid.haloed(x) for x in start)
  new = jax.lax.fori_loop(0, outer, relinearised, new)
  return jnp.stack([grid.inner(x) for x in new], -1).reshape(flow.shape)


def _grid(height, width):
  """The grid of pictures of a size."""
  row, column = (x.reshape(1, -1) for x in np.indices((height, width)))
  return _Grid(
    width,
    (column == 0, row == 0),
    (column == width - 1, row == height - 1),
    (row + column) % 2 == 0,
  )


def _flat(x):
  """The channels of [B, H, W, C], [C, B, N]."""
  return jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), -1, 0)


def _linearised(grid, first, second, seen):
  """(difference, dx, dy, unit) of each channel."""
  data = []
  for one, two in zip(first, second):
    dx, dy = _gradient(grid, grid.haloed(0.5 * (one + two)))
    unit = seen / (dx**2 + dy**2 + _SMALLEST_GRADIENT**2)
    data.append((two - one, dx, dy, unit))
  return data


def _links(grid, flow, alpha):
  """The smoothness weights between pixels and those after them, with a halo.

  Returns:
    Those to the right and those below; 0 across the borders.
  """
  square = sum(x**2 for plane in flow for x in _gradient(grid, plane))
  weight = grid.haloed(alpha * jax.lax.rsqrt(square + _EPSILON_SMOOTH**2))
  links = []
  for axis, ends in enumerate(grid.ends):
    _, after = grid.beside(weight, axis)
    link = 0.5 * (grid.inner(weight) + after)
    links.append(grid.haloed(jnp.where(ends, 0, link)))
  return links


def _gradient(grid, x):
  """Central differences along x and along y; a border is its own neighbour."""
  centre = grid.inner(x)
  for axis, (starts, ends) in enumerate(zip(grid.starts, grid.ends)):
    before, after = grid.beside(x, axis)
    before = jnp.where(starts, centre, before)
    after = jnp.where(ends, centre, after)
    yield 0.5 * (after - before)


def _normal_equations(data, added):
  """[[a, b], [b, c]] (u, v) = (p, q) of the data term, (a, b, c, p, q)."""
  u, v = added
  sums = [jnp.zeros_like(u)] * 5
  for difference, dx, dy, unit in data:
    rest = difference + dx * u + dy * v
    weight = unit * jax.lax.rsqrt(unit * rest**2 + _EPSILON_DATA**2)
    # Not weight * (dx * dx): XLA would store those products before the loop.
    x, y = weight * dx, weight * dy
    terms = x * dx, x * dy, y * dy, -x * difference, -y * difference
    sums = [total + term for total, term in zip(sums, terms)]
  return sums


def _solved(equations, start, grid, links):
  """A pixel's equations, solved for its flow by those of its neighbours.

  Returns:
    `(constant, inverse)`: the new flow is (1 - _RELAXATION) flow + constant +
    inverse s, with s the sum of the neighbours by their links.
  """
  a, b, c, p, q = equations
  total = jnp.zeros_like(a)
  for axis, link in enumerate(links):
    total += grid.inner(link) + grid.beside(link, axis)[0]
  # Where a pixel has neither neighbours nor data the numerators are 0, too.
  factor = _RELAXATION / ((a + total) * (c + total) - b * b + 1e-12)
  inverse = factor * (c + total), -factor * b, factor * (a + total)
  right = [x - total * x0 for x, x0 in zip((p, q), start)]
  constant = [
    _RELAXATION * x0 + x for x0, x in zip(start, _times(inverse, right))
  ]
  return constant, inverse


def _times(matrix, vector):
  """[[a, b], [b, c]] (u, v)."""
  (a, b, c), (u, v) = matrix, vector
  return a * u + b * v, b * u + c * v


def _half_sweep(grid, links, system, planes, into, chosen):
  """The flow with new values at the chosen pixels, in another buffer."""
  constant, inverse = system

  def sum_beside(x):
    total = 0
    for axis, link in enumerate(links):
      before, after = grid.beside(x, axis)
      link_before, _ = grid.beside(link, axis)
      total += grid.inner(link) * after + link_before * before
    return total

  of_neighbours = _times(inverse, [sum_beside(x) for x in planes])
  new = []
  for x, buffer, known, other in zip(planes, into, constant, of_neighbours):
    old = grid.inner(x)
    value = (1 - _RELAXATION) * old + known + other
    new.append(grid.replaced(buffer, jnp.where(chosen, value, old)))
  return tuple(new)
