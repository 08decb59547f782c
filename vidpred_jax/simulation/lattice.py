"""A two-dimensional fluid solver by the lattice Boltzmann method, D2Q9.

The state is `[9, H, W]`: the populations of nine velocities, `VELOCITIES`, at
each node, as differences from a fluid at rest with density 1 (so that float32
keeps small values). Lengths are in nodes, times in ticks; the first axis of a
plane is y, the second x. Velocities should stay below some 0.15 nodes per tick:
the speed of sound is `3**-0.5`, and the compressibility error grows with the
square of the velocity.

A tick is a collision followed by streaming. The collision relaxes moments about
the local velocity. Of the second moments the shear relaxes at the rate that
gives the viscosity, the trace at a second rate, which gives the bulk viscosity.
The third and fourth moments go to equilibrium in one tick (Geier et al. 2006,
in the moments of De Rosis 2017). With this collision a vortex street at a
Reynolds number of some hundreds is stable on 128 nodes. A large bulk viscosity
damps the sound that otherwise rings between the boundaries. Measured there: one
rate for all moments (BGK) is stable, too, but has no separate bulk viscosity;
two rates (TRT, magic parameter 1/4 or 3/16) blew up at Reynolds numbers of 200
and 400.

Boundaries: the lattice is periodic. Solid nodes reflect populations, so a wall
lies half-way between the last fluid node and the first solid one. With an
inflow, the left column has the given velocity and the right column the density
of rest; their other moments are those of the next column (Guo et al. 2002).

All functions are pure; the caller compiles them, and `jax.vmap` simulates
several flows at once.

References:
  Geier, Greiner, Korvink: Cascaded digital lattice Boltzmann automata for high
    Reynolds number flow. Phys. Rev. E 73 (2006).
  De Rosis: Nonorthogonal central-moments-based lattice Boltzmann scheme in
    three dimensions. Phys. Rev. E 95 (2017).
  Guo, Zheng, Shi: Non-equilibrium extrapolation method for velocity and
    pressure boundary conditions. Chin. Phys. 11 (2002).
"""

import jax
import jax.numpy as jnp

# (x, y) in nodes per tick.
VELOCITIES = (
  (0, 0),
  (1, 0),
  (0, 1),
  (-1, 0),
  (0, -1),
  (1, 1),
  (-1, 1),
  (-1, -1),
  (1, -1),
)
_OPPOSITE = (0, 3, 4, 1, 2, 7, 8, 5, 6)


def equilibrium(density: jax.Array, velocity: jax.Array) -> jax.Array:
  """The populations of a fluid without stress.

  Args:
    density: [H, W], as the difference from 1.
    velocity: [2, H, W], (x, y).

  Returns:
    The state [9, H, W].
  """
  return _populations(density, velocity, (0.0, 0.0, 0.0))


def moments(state: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Density and velocity.

  Args:
    state: [9, H, W].

  Returns:
    density [H, W], as the difference from 1, and velocity [2, H, W], (x, y).
  """
  f = state
  density = ((f[1] + f[3]) + (f[2] + f[4])) + (
    ((f[5] + f[7]) + (f[6] + f[8])) + f[0]
  )
  x = (f[1] - f[3]) + ((f[5] - f[7]) - (f[6] - f[8]))
  y = (f[2] - f[4]) + ((f[5] - f[7]) + (f[6] - f[8]))
  mass = 1 + density
  return density, jnp.stack([x / mass, y / mass])


def tick(
  state: jax.Array,
  *,
  solid: jax.Array,
  viscosity: jax.Array | float,
  bulk_viscosity: jax.Array | float | None = None,
  inflow: jax.Array | None = None,
) -> jax.Array:
  """The state one tick later.

  Args:
    state: [9, H, W].
    solid: bool [H, W], where there is no fluid.
    viscosity: kinematic shear viscosity, a number or [H, W], above 0.
    bulk_viscosity: against compression; None for the shear viscosity, as
      with a single relaxation time.
    inflow: velocity [2] of what enters on the left; None: the lattice is
      periodic in x, too.

  Returns:
    The state [9, H, W].
  """
  # XLA would fuse the steps and, on CPUs, collide anew for each velocity.
  barrier = jax.lax.optimization_barrier
  state = barrier(_collided(state, viscosity, bulk_viscosity))
  state = barrier(_streamed(state, solid))
  return state if inflow is None else _opened(state, solid, inflow)


def vorticity(state: jax.Array, solid: jax.Array) -> jax.Array:
  """dv/dx - du/dy [H, W] per tick by central differences; 0 where solid."""
  _, velocity = moments(state)
  velocity = jnp.where(solid[None], 0.0, velocity)
  curl = (
    jnp.gradient(velocity[1], axis=1)
    - (_shifted(velocity[0], -1, 0) - _shifted(velocity[0], 1, 0)) * 0.5
  )
  return jnp.where(solid, 0.0, curl)


def _stress(f, density, velocity):
  """Non-equilibrium second central moments: (xx, yy, xy), each [H, W]."""
  x, y = velocity
  mass, diagonals = 1 + density, (f[5] + f[7]) + (f[6] + f[8])
  xx = (f[1] + f[3]) + diagonals - density / 3 - mass * x * x
  yy = (f[2] + f[4]) + diagonals - density / 3 - mass * y * y
  xy = (f[5] + f[7]) - (f[6] + f[8]) - mass * x * y
  return xx, yy, xy


def _populations(density, velocity, stress):
  """The state with these moments, its third and fourth in equilibrium."""
  x, y = velocity
  mass = 1 + density
  xx, yy, xy = stress
  # Moments about the velocity, then about rest, as differences from rest.
  full_xx, full_yy = xx + mass / 3, yy + mass / 3
  m_x, m_y = mass * x, mass * y
  m_xx, m_yy = xx + density / 3 + m_x * x, yy + density / 3 + m_y * y
  m_xy = xy + m_x * y
  m_xxy = (full_xx + m_x * x) * y + 2 * x * xy
  m_xyy = (full_yy + m_y * y) * x + 2 * y * xy
  m_xxyy = (
    density / 9 + x * x * full_yy + y * y * full_xx + x * y * (m_x * y + 4 * xy)
  )
  axis_x, axis_y = m_xx - m_xxyy, m_yy - m_xxyy
  return jnp.stack(
    [
      density - m_xx - m_yy + m_xxyy,
      (axis_x + (m_x - m_xyy)) / 2,
      (axis_y + (m_y - m_xxy)) / 2,
      (axis_x - (m_x - m_xyy)) / 2,
      (axis_y - (m_y - m_xxy)) / 2,
      ((m_xxyy + m_xy) + (m_xxy + m_xyy)) / 4,
      ((m_xxyy - m_xy) + (m_xxy - m_xyy)) / 4,
      ((m_xxyy + m_xy) - (m_xxy + m_xyy)) / 4,
      ((m_xxyy - m_xy) - (m_xxy - m_xyy)) / 4,
    ]
  )


def _collided(f, viscosity, bulk_viscosity):
  if bulk_viscosity is None:
    bulk_viscosity = viscosity
  shear = 1 - 1 / (3 * viscosity + 0.5)
  bulk = 1 - 1 / (3 * bulk_viscosity + 0.5)
  density, velocity = moments(f)
  xx, yy, xy = _stress(f, density, velocity)
  trace, difference = bulk * (xx + yy) / 2, shear * (xx - yy) / 2
  stress = trace + difference, trace - difference, shear * xy
  return _populations(density, velocity, stress)


def _streamed(f, solid):
  planes = []
  for i, (x, y) in enumerate(VELOCITIES):
    # From a solid node comes back what would go there.
    came = jnp.where(
      _shifted(solid, y, x), f[_OPPOSITE[i]], _shifted(f[i], y, x)
    )
    planes.append(jnp.where(solid, 0.0, came))
  return jnp.stack(planes)


def _shifted(plane, down, right):
  """Rolls a plane by at most one node in each direction."""
  for axis, by in ((0, down), (1, right)):
    if by:
      # Slices are much faster than jnp.roll on CPUs.
      size = plane.shape[axis]
      head, tail = jnp.split(plane, [size - 1 if by > 0 else 1], axis)
      plane = jnp.concatenate([tail, head], axis)
  return plane


def _opened(f, solid, inflow):
  """Applies the boundary conditions of the first and last columns."""
  left, right = f[:, :, 1:2], f[:, :, -2:-1]
  density, velocity = moments(left)
  entering = jnp.broadcast_to(inflow[:, None, None], velocity.shape)
  left = _populations(density, entering, _stress(left, density, velocity))
  density, velocity = moments(right)
  stress = _stress(right, density, velocity)
  right = _populations(jnp.zeros_like(density), velocity, stress)
  left = jnp.where(solid[None, :, :1], f[:, :, :1], left)
  right = jnp.where(solid[None, :, -1:], f[:, :, -1:], right)
  return jnp.concatenate([left, f[:, :, 1:-1], right], axis=2)
