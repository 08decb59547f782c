import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.simulation import lattice


@jax.jit
def run(state, ticks, solid, viscosity, bulk_viscosity, inflow=None):
  """So many ticks; the masks are arguments, for XLA folds constants slowly."""
  return jax.lax.fori_loop(
    0,
    ticks,
    lambda _, state: lattice.tick(
      state,
      solid=solid,
      viscosity=viscosity,
      bulk_viscosity=bulk_viscosity,
      inflow=inflow,
    ),
    state,
  )


SIDE = 24
EMPTY = np.zeros((SIDE, SIDE), bool)


def random_state(seed=0, shape=(SIDE, SIDE), speed=0.05):
  rng = np.random.default_rng(seed)
  density = rng.normal(size=shape) * 0.01
  velocity = rng.uniform(-speed, speed, (2, *shape))
  return lattice.equilibrium(
    *(jnp.asarray(x, 'f') for x in (density, velocity))
  )


def test_moments_of_an_equilibrium_are_those_it_was_made_of():
  rng = np.random.default_rng(1)
  density = rng.normal(size=(5, 7)).astype('f') * 0.01
  velocity = rng.uniform(-0.1, 0.1, (2, 5, 7)).astype('f')
  found = lattice.moments(lattice.equilibrium(density, velocity))
  np.testing.assert_allclose(found[0], density, atol=1e-7)
  np.testing.assert_allclose(found[1], velocity, atol=1e-7)


def test_an_equilibrium_is_that_of_the_books():
  """To second order: w rho (1 + 3 eu + 4.5 (eu)^2 - 1.5 u^2)."""
  velocity = np.float32([0.02, -0.03])
  weights = np.array([4 / 9] + [1 / 9] * 4 + [1 / 36] * 4)
  along = np.array(lattice.VELOCITIES) @ velocity
  books = 1 + 3 * along + 4.5 * along**2 - 1.5 * velocity @ velocity
  found = lattice.equilibrium(
    jnp.full((1, 1), 0.01), jnp.asarray(velocity).reshape(2, 1, 1)
  )
  # What is left is of third order in the velocity.
  np.testing.assert_allclose(
    found[:, 0, 0] + weights, 1.01 * weights * books, atol=3e-5
  )


def test_a_box_keeps_its_mass_and_without_walls_its_momentum():
  rng = np.random.default_rng(2)
  for solid in (EMPTY, rng.random(EMPTY.shape) < 0.2):
    state = jnp.where(solid[None], 0.0, random_state())
    after = run(state, 500, solid, 0.02, 0.1)
    sums = [np.float64(lattice.moments(s)[0]).sum() for s in (state, after)]
    # 576 nodes of density 1, float32.
    assert abs(sums[1] - sums[0]) < 1e-7 * solid.size
    assert not np.asarray(after)[:, solid].any()
    if not solid.any():
      momentum = [
        np.float64(np.asarray(s)).sum((1, 2)) @ np.array(lattice.VELOCITIES)
        for s in (state, after)
      ]
      np.testing.assert_allclose(*momentum, atol=1e-7 * solid.size)


def test_nothing_stays_nothing():
  solid = EMPTY.copy()
  solid[5:9, 4:8] = True
  rest = lattice.equilibrium(jnp.zeros(solid.shape), jnp.zeros((2, SIDE, SIDE)))
  assert not np.asarray(run(rest, 20, solid, 0.01, 0.1)).any()


def test_the_directions_are_alike():
  """Mirrored or with its axes exchanged a flow stays the same flow."""
  solid = np.random.default_rng(3).random(EMPTY.shape) < 0.1
  state = random_state(4)
  after = run(state, 10, solid, 0.02, 0.1)
  names = list(lattice.VELOCITIES)
  for direction, moved in (
    (lambda x, y: (y, x), lambda plane: np.swapaxes(plane, -1, -2)),
    (lambda x, y: (-x, y), lambda plane: np.asarray(plane)[..., ::-1]),
  ):
    order = np.array([names.index(direction(*v)) for v in names])
    other = run(moved(state)[order], 10, moved(solid), 0.02, 0.1)
    np.testing.assert_allclose(other, moved(after)[order], atol=1e-6)


def test_waves_decay_at_the_rates_of_the_viscosities():
  """A shear wave by the shear viscosity, sound by half of both together."""
  k = 2 * np.pi / SIDE
  wave = np.cos(k * np.arange(SIDE)).astype('f')
  shear, bulk, ticks = 0.01, 0.05, 400
  velocity = np.zeros((2, SIDE, SIDE), 'f')
  velocity[0] = 0.01 * wave[:, None]
  state = lattice.equilibrium(jnp.zeros((SIDE, SIDE)), jnp.asarray(velocity))
  after = lattice.moments(run(state, ticks, EMPTY, shear, bulk))[1]
  left = float(2 * jnp.mean(after[0] * wave[:, None])) / 0.01
  assert left == pytest.approx(np.exp(-shear * k**2 * ticks), rel=0.01)

  density = jnp.asarray(np.tile(1e-3 * wave, (SIDE, 1)))
  state = lattice.equilibrium(density, jnp.zeros((2, SIDE, SIDE)))
  # Five whole periods of standing sound, to a tenth of a tick.
  ticks = round(5 * SIDE * 3**0.5)
  after = lattice.moments(run(state, ticks, EMPTY, shear, bulk))[0]
  left = float(2 * jnp.mean(after * wave[None, :])) / 1e-3
  expected = np.exp(-(shear + bulk) / 2 * k**2 * ticks)
  assert left == pytest.approx(expected, rel=0.02)


def test_vorticity_of_a_wheel_is_twice_its_turning():
  y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
  velocity = jnp.asarray(1e-3 * np.stack([-y, x]), jnp.float32)
  state = lattice.equilibrium(jnp.zeros((SIDE, SIDE)), velocity)
  solid = EMPTY.copy()
  solid[3, 3] = True
  curl = np.asarray(lattice.vorticity(state, solid))
  np.testing.assert_allclose(curl[6:-6, 6:-6], 2e-3, rtol=1e-4)
  assert curl[3, 3] == 0


def test_poiseuille():
  """Between walls an even inflow becomes a parabola, the pressure a slope."""
  width, viscosity = 20, 0.1
  solid = np.zeros((width + 2, 64), bool)
  solid[[0, -1]] = True
  rest = lattice.equilibrium(
    jnp.zeros(solid.shape), jnp.zeros((2, *solid.shape))
  )
  inflow = jnp.array([0.03, 0.0])
  state = run(rest, 6000, solid, viscosity, viscosity, inflow)
  density, velocity = (np.asarray(x) for x in lattice.moments(state))
  flux = ((1 + density) * velocity[0])[1:-1]
  # What flows in flows through: the flow is steady and nothing is lost.
  through = flux[:, 5:-5].sum(0)
  np.testing.assert_allclose(through, through[0], rtol=2e-3)
  place = (np.arange(width) + 0.5) / width
  parabola = 6 * flux[:, 44].mean() * place * (1 - place)
  assert np.abs(flux[:, 44] - parabola).max() < 0.01 * parabola.max()
  slope = (density[1:-1, 56].mean() - density[1:-1, 36].mean()) / 20 / 3
  expected = -12 * viscosity * flux.mean() / width**2
  assert slope == pytest.approx(expected, rel=0.02)


@pytest.fixture(scope='module')
def wakes():
  """Crosswise speed behind a cylinder, every 8 ticks, at Re 100 and 20."""
  diameter, speed, shape = 8, 0.1, (64, 96)
  y, x = np.mgrid[: shape[0], : shape[1]]
  solid = np.hypot(x - 20, y - 31.5) <= diameter / 2
  velocity = np.zeros((2, *shape), 'f')
  velocity[0] = speed * ~solid
  # A push to one side.
  velocity[1] = 0.02 * np.exp(-(((x - 30) / 8) ** 2) - ((y - 31.5) / 8) ** 2)
  start = lattice.equilibrium(jnp.zeros(shape), jnp.asarray(velocity))
  inflow = jnp.array([speed, 0.0])

  def wake(start, viscosity, solid):
    def sampled(state, _):
      state = run(state, 8, solid, viscosity, 0.5, inflow)
      return state, lattice.moments(state)[1][1, 31:33, 44].mean()

    return jax.lax.scan(sampled, start, length=1000)[1]

  # A long run: here code that is compiled well pays.
  options = {'xla_backend_optimization_level': 3}
  wake = jax.jit(wake, compiler_options=options)

  wakes = {
    reynolds: np.asarray(wake(start, speed * diameter / reynolds, solid))
    for reynolds in (100, 20)
  }
  return wakes, diameter / speed / 8


def test_strouhal_number(wakes):
  """Vortices at Re 100: 0.164 in the open, more between neighbours."""
  wakes, unit = wakes
  late = wakes[100][500:]
  assert late.std() > 0.005
  spectrum = np.abs(np.fft.rfft((late - late.mean()) * np.hanning(500), 5000))
  strouhal = spectrum.argmax() / 5000 * unit
  assert 0.16 < strouhal < 0.22
  # A regular street: one frequency and its overtones.
  assert np.abs(late).max() < 2 * late.std()


def test_no_vortices_at_low_reynolds_number(wakes):
  wakes, _ = wakes
  early, late = wakes[20][:200], wakes[20][800:]
  assert np.abs(early).max() > 1e-3
  assert np.abs(late).max() < 1e-5
