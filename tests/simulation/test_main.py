import errno
import os

import jax
import numpy as np
import pytest

from vidpred_jax.data import vortices
from vidpred_jax.simulation import __main__ as simulation

SETTINGS = vortices.Settings(
  size=(20, 32),
  scale=2,
  reynolds=100.0,
  ticks=8,
  spin_up=3,
  trajectories=(2, 1),
  frames=(5, 3),
)


def keywords(settings):
  return settings._asdict()


@pytest.fixture(scope='module')
def films(tmp_path_factory):
  """The folder of films, made as who trains makes it: by the source."""
  root = tmp_path_factory.mktemp('films')
  vortices.Vortices('train', 3, root=root, **keywords(SETTINGS))
  return vortices.folder(root, SETTINGS)


def test_the_source_makes_its_films(films):
  assert sorted(p.name for p in films.iterdir()) == [
    'settings.json',
    'test.npy',
    'train.npy',
  ]
  # Nothing is left beside it.
  assert list(films.parent.iterdir()) == [films]
  train, test = (np.load(films / f'{k}.npy') for k in ('train', 'test'))
  assert train.shape == (2, 5, 20, 32) and test.shape == (1, 3, 20, 32)
  assert train.dtype == test.dtype == np.uint8
  clips = vortices.Vortices('test', 3, root=films.parent, **keywords(SETTINGS))
  np.testing.assert_array_equal(clips[0]['video'][..., 0], test[0])


def test_trajectories_differ_and_move(films):
  train, test = (np.load(films / f'{k}.npy') for k in ('train', 'test'))
  starts = [train[0, 0], train[1, 0], test[0, 0]]
  for k in range(3):
    change = np.abs(starts[k].astype(int) - starts[k - 1])
    assert change.mean() > 1
  assert np.abs(np.diff(train.astype(int), axis=1)).mean() > 0.5
  # No vorticity is grey, and both turns are there.
  assert 120 < np.median(train) < 135
  assert train.min() < 60 and train.max() > 195


def test_the_same_settings_give_the_same_films(films, tmp_path):
  again = simulation.generate(tmp_path, SETTINGS)
  assert again.name == films.name
  for name in ('train.npy', 'test.npy', 'settings.json'):
    assert (again / name).read_bytes() == (films / name).read_bytes()
  # What is there is not made again, nor touched.
  before = (again / 'train.npy').stat().st_mtime_ns
  assert simulation.generate(tmp_path, SETTINGS) == again
  assert (again / 'train.npy').stat().st_mtime_ns == before
  (again / 'settings.json').unlink()
  with pytest.raises(ValueError, match='no folder of simulated films'):
    simulation.generate(tmp_path, SETTINGS)


def test_trajectories_do_not_see_each_other(films):
  """All at once they are what they are one by one."""
  made = np.zeros((2, 5, 20, 32), np.uint8)
  simulation.simulate(SETTINGS, 'train', made, together=2)
  alone = np.load(films / 'train.npy')
  assert np.abs(made.astype(int) - alone).max() <= 1


def test_a_frame_is_the_vorticity_by_its_scale(films):
  """By hand: tick by tick, from the velocity, means of 2x2 nodes."""
  from vidpred_jax.simulation import lattice

  room = simulation.channel(SETTINGS)
  rng = np.random.default_rng([SETTINGS.seed, False, 1])
  velocity = simulation.start(SETTINGS, room, rng)
  across = simulation.gusts(SETTINGS, rng, 9)
  state = lattice.equilibrium(
    np.zeros(room.solid.shape, 'f'), velocity.astype('f')
  )
  tick = jax.jit(lattice.tick)
  for k in range(4):
    for j in range(8):
      gust = across[k] + (across[k + 1] - across[k]) * j / 8
      state = tick(
        state,
        solid=room.solid,
        viscosity=room.viscosity,
        bulk_viscosity=room.bulk_viscosity,
        inflow=np.float32([SETTINGS.speed, gust]),
      )
  u, v = np.where(room.solid, 0, np.asarray(lattice.moments(state)[1]))
  curl = np.gradient(v, axis=1)
  curl -= (np.roll(u, -1, 0) - np.roll(u, 1, 0)) / 2
  curl = np.where(room.solid, 0, curl)[:, :64].reshape(20, 2, 32, 2)
  diameter = SETTINGS.diameter * 40
  level = curl.mean((1, 3)) * diameter / SETTINGS.speed / 5 * 127.5 + 127.5
  found = np.load(films / 'train.npy')[1, 0]
  assert np.abs(found - np.clip(level, 0, 255)).max() < 0.6


def test_the_channel():
  room = simulation.channel(vortices.Settings(reynolds=160.0))
  assert room.solid.shape == (128, 160)
  # The same seen upside down; a disc of the diameter that was asked for.
  np.testing.assert_array_equal(room.solid, room.solid[::-1])
  assert np.pi * 8**2 == pytest.approx(room.solid.sum(), rel=0.05)
  assert np.argwhere(room.solid).mean(0) == pytest.approx([63.5, 25.1], abs=0.5)
  inside = room.viscosity[:, :128]
  np.testing.assert_allclose(inside, 0.06 * 16 / 160, rtol=1e-6)
  assert (np.diff(room.viscosity[0, 128:]) > 0).all()


def test_gusts():
  settings = vortices.Settings()
  values = simulation.gusts(settings, np.random.default_rng(0), 20000)
  expected = settings.gusts * settings.speed
  assert values[0] == 0 and np.abs(values).max() <= 2 * expected + 1e-9
  assert values.std() == pytest.approx(expected, rel=0.15)
  likeness = np.corrcoef(values[:-1], values[1:])[0, 1]
  assert likeness == pytest.approx(0.9, abs=0.03)
  calm = simulation.gusts(
    settings._replace(gusts=0.0), np.random.default_rng(0), 50
  )
  assert not calm.any()


def test_a_flow_that_blows_up_leaves_nothing(tmp_path):
  wild = SETTINGS._replace(reynolds=1e7, speed=0.2, frames=(400, 3), ticks=40)
  with pytest.raises(ValueError, match='blew up.*10000000.*scale above 2'):
    simulation.generate(tmp_path, wild)
  assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='has no /proc')
@pytest.mark.parametrize('full', ['train.npy', 'test.npy'])
def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch, full):
  """What is mapped into memory and has no room ends a process by a signal."""

  def allocate(file, begin, size):
    if os.readlink(f'/proc/self/fd/{file}').endswith(full):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'posix_fallocate', allocate)
  monkeypatch.setattr(simulation, 'simulate', None)
  with pytest.raises(OSError, match='20x32-.* could not be written: No space'):
    simulation.generate(tmp_path, SETTINGS)
  assert not list(tmp_path.iterdir())


def test_who_comes_second_finds_it_done(tmp_path, monkeypatch):
  """Another process has made the folder in the meantime."""

  def simulate(settings, split, films, bar):
    place = vortices.folder(tmp_path, settings)
    if not place.exists():
      place.mkdir()
      vortices.write_settings(place, settings)

  monkeypatch.setattr(simulation, 'simulate', simulate)
  place = simulation.generate(tmp_path, SETTINGS)
  assert [p.name for p in tmp_path.iterdir()] == [place.name]
  assert [p.name for p in place.iterdir()] == ['settings.json']


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--size=64', 'size must be two whole numbers, got 64.'),
    ('--frames=9,x', "frames must be two whole numbers, got '9,x'."),
    ('--scale=1.5', 'scale must be a whole number, got 1.5.'),
    ('--reynolds=nan', "reynolds must be a number, got 'nan'."),
  ],
)
def test_the_command_says_what_is_wrong(tmp_path, forks, flag, message):
  status, _, err = forks.run(
    'vidpred_jax.simulation', flag, f'--root={tmp_path}'
  )
  assert (status, err.strip()) == (2, f'Error: {message}')
