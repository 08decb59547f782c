"""Makes films of vortex streets: the program behind the source 'vortices'.

python -m vidpred_jax.simulation --root=data/vortices [--reynolds=150 ...]

The source 'vortices' is NumPy code. It runs this program if its films are
absent, in a process of its own: an accelerator serves one process, and that of
training has it already. This program compiles the solver, `lattice`, and writes
the films. Its flags are the fields of `data.vortices.Settings`.

The lattice is a quarter longer than the picture. The viscosity grows in that
part, so that vortices leave without reflection. An accelerator simulates all
trajectories of a split at once. A CPU simulates them one after the other, since
its caches hold one. Films are written to a temporary folder, which is renamed
when it is complete.
"""

import ast
import math
import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import flags

from vidpred_jax import atomic, command, runtime
from vidpred_jax.data import vortices
from vidpred_jax.simulation import lattice

# Length of the lattice in front of and behind the right edge of the picture,
# relative to the picture, and the viscosity added at its end.
_OUTLET = 0.25
_OUTLET_VISCOSITY = 0.1
# Of the gusts, from frame to frame.
_CORRELATION = 0.9

_HELP = {
  'size': 'Height and width of a frame, in pixels.',
  'scale': 'Nodes of the lattice per pixel, each way; a whole number.',
  'reynolds': 'Reynolds number: speed times diameter over viscosity.',
  'speed': 'Speed of what flows in, nodes per tick; at most 0.2.',
  'bulk_viscosity': 'Viscosity against compression, nodes^2 per tick.',
  'diameter': 'Diameter of the cylinder over the height; at most 0.5.',
  'gusts': 'Swaying of what flows in, over the speed; 0 (none) to 0.5.',
  'ticks': 'Ticks of the solver from frame to frame.',
  'spin_up': 'Frames before the first, in which the street forms.',
  'trajectories': 'Trajectories for training, for testing.',
  'frames': 'Frames of each trajectory, for training, for testing.',
  'seed': 'Of the trajectories: other seeds make other ones.',
}


class Channel(NamedTuple):
  """The constant part of the simulation.

  Attributes:
    solid: bool [H, W] of the lattice.
    viscosity: float32 [H, W].
    bulk_viscosity: float32 [H, W].
    unit: vorticity of speed over diameter.
  """

  solid: np.ndarray
  viscosity: np.ndarray
  bulk_viscosity: np.ndarray
  unit: float


def channel(settings: vortices.Settings) -> Channel:
  """Makes the channel with its cylinder, periodic across the flow."""
  height, width = (n * settings.scale for n in settings.size)
  length = width + math.ceil(_OUTLET * width)
  diameter = settings.diameter * height
  y, x = np.mgrid[:height, :length]
  # Half a node off every node, so that the mirror image is the same.
  distance = np.hypot(x + 0.5 - width / 5, y + 0.5 - height / 2)
  viscosity = settings.speed * diameter / settings.reynolds
  beyond = np.clip((x - width) / (length - width), 0, 1)
  viscosity = viscosity + _OUTLET_VISCOSITY * beyond**2
  bulk = np.maximum(viscosity, settings.bulk_viscosity)
  return Channel(
    distance <= diameter / 2,
    viscosity.astype(np.float32),
    bulk.astype(np.float32),
    settings.speed / diameter,
  )


def start(
  settings: vortices.Settings, room: Channel, rng: np.random.Generator
) -> np.ndarray:
  """The initial velocity [2, H, W]: the inflow and random eddies."""
  height, length = room.solid.shape
  y, x = np.mgrid[:height, :length]
  velocity = np.zeros((2, height, length), np.float32)
  velocity[0] = settings.speed
  for _ in range(8):
    place = rng.uniform(0, (length, height))
    radius = settings.diameter * height * rng.uniform(0.3, 1.0)
    right, down = (x - place[0]) / radius, (y - place[1]) / radius
    turn = settings.speed * rng.uniform(-0.5, 0.5)
    eddy = turn * np.exp(-(right**2 + down**2) / 2)
    velocity += np.stack([-down * eddy, right * eddy])
  return np.where(room.solid, 0, velocity)


def gusts(
  settings: vortices.Settings, rng: np.random.Generator, count: int
) -> np.ndarray:
  """The crosswise speed of the inflow at `count` times, one frame apart."""
  values, value = np.zeros(count, np.float32), 0.0
  for k in range(1, count):
    push = rng.normal() * math.sqrt(1 - _CORRELATION**2)
    value = _CORRELATION * value + push
    values[k] = np.clip(value, -2, 2) * settings.gusts * settings.speed
  return values


def make_advance(settings: vortices.Settings):
  """Makes the function from one frame to the next, not compiled.

  Returns:
    `(states [E, 9, H, W], before [E], after [E], channel) -> (states, pictures
    uint8 [E, *size])`: E trajectories, and their gusts at either end.
  """
  scale, speed = settings.scale, settings.speed

  def advance(state, before, after, room):
    def tick(k, state):
      share = k / settings.ticks
      across = before * (1 - share) + after * share
      return lattice.tick(
        state,
        solid=room.solid,
        viscosity=room.viscosity,
        bulk_viscosity=room.bulk_viscosity,
        inflow=jnp.stack([jnp.full_like(across, speed), across]),
      )

    state = jax.lax.fori_loop(0, settings.ticks, tick, state)
    height, width = settings.size
    shown = lattice.vorticity(state, room.solid)[:, : width * scale]
    shown = shown.reshape(height, scale, width, scale).mean((1, 3))
    level = 127.5 * (1 + shown / (room.unit * vortices.LIMIT))
    # Not a number stays visible: as a byte it would not.
    broken = jnp.logical_not(jnp.isfinite(level).all())
    return state, jnp.clip(jnp.round(level), 0, 255).astype(jnp.uint8), broken

  return jax.vmap(advance, in_axes=(0, 0, 0, None))


def simulate(
  settings: vortices.Settings,
  split: str,
  films,
  bar=None,
  together: int | None = None,
) -> None:
  """Simulates the films of a split.

  Args:
    settings: what to simulate.
    split: 'train' or 'test'.
    films: an array uint8 [E, T, *size] to write to, E trajectories.
    bar: is told of each frame, by `update(number of trajectories)`.
    together: how many trajectories advance at once; None: as is fast here.

  Raises:
    ValueError: if the flow grows without bounds.
  """
  room = channel(settings)
  advance = runtime.jit(make_advance(settings), donate_argnums=0)
  if together is None:
    together = 1 if jax.default_backend() == 'cpu' else len(films)
  moments = settings.spin_up + films.shape[1] + 1
  device_room = jax.tree.map(jnp.asarray, room)
  for first in range(0, len(films), together):
    group = range(first, min(first + together, len(films)))
    rngs = [
      np.random.default_rng([settings.seed, split == 'test', k]) for k in group
    ]
    velocity = np.stack([start(settings, room, rng) for rng in rngs])
    across = np.stack([gusts(settings, rng, moments) for rng in rngs])
    rest = jnp.zeros(room.solid.shape)
    states = jax.vmap(lattice.equilibrium, in_axes=(None, 0))(
      rest, jnp.asarray(velocity, jnp.float32)
    )
    for k in range(moments - 1):
      states, pictures, broken = advance(
        states, across[:, k], across[:, k + 1], device_room
      )
      if np.any(broken):
        raise ValueError(
          f'The flow blew up in frame {k} of {split} at a Reynolds number of '
          f'{settings.reynolds} and a speed of {settings.speed}: lower one, or '
          f'take a scale above {settings.scale}.'
        )
      if k >= settings.spin_up:
        films[group.start : group.stop, k - settings.spin_up] = pictures
      if bar is not None:
        bar.update(len(group))


def generate(
  root: str | os.PathLike, settings: vortices.Settings
) -> pathlib.Path:
  """Makes the films of both splits unless they exist.

  Args:
    root: where the folders of films lie.
    settings: what to simulate.

  Returns:
    The folder: train.npy, test.npy uint8 [E, T, H, W], settings.json.

  Raises:
    ValueError: if the folder holds something else or the flow cannot be
      simulated.
  """
  settings = vortices.checked(settings)
  place = vortices.folder(root, settings)
  if place.exists():
    return vortices.check(place, settings)
  place.parent.mkdir(parents=True, exist_ok=True)
  part = atomic.beside(place)
  part.mkdir()
  try:
    total = sum(
      e * (t + settings.spin_up)
      for e, t in zip(settings.trajectories, settings.frames)
    )
    films = {}
    for k, split in enumerate(('train', 'test')):
      shape = (settings.trajectories[k], settings.frames[k], *settings.size)
      with atomic.naming(place, part):
        films[split] = np.lib.format.open_memmap(
          part / f'{split}.npy', mode='w+', dtype=np.uint8, shape=shape
        )
        _take_room(part / f'{split}.npy')
    with tqdm.tqdm(total=total, desc='simulate', unit='frame') as bar:
      for split, array in films.items():
        simulate(settings, split, array, bar)
        array.flush()
    vortices.write_settings(part, settings)
    try:
      part.rename(place)
    except OSError:
      # Another process was first.
      vortices.check(place, settings)
  finally:
    atomic.remove(part)
  return place


def _take_room(path: pathlib.Path) -> None:
  """Takes the room on the disk of a file that is mapped into memory.

  Without, a disk that is full later ends the process by a signal.

  Raises:
    OSError: if there is not so much room.
  """
  if hasattr(os, 'posix_fallocate'):
    with path.open('r+b') as file:
      os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string('root', vortices.ROOT, 'Where the films will lie.')
  for name, value in vortices.Settings._field_defaults.items():
    text = ','.join(map(str, value)) if isinstance(value, tuple) else value
    flags.DEFINE_string(name, str(text), _HELP[name])


def _parsed(text):
  """Parses '8,8' to (8, 8); other texts stay texts, which are refused."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def main(argv) -> None:
  """Makes the films and prints their folder."""
  del argv
  runtime.setup()
  names = vortices.Settings._fields
  fields = {name: _parsed(str(flags.FLAGS[name].value)) for name in names}
  print(generate(flags.FLAGS.root, vortices.Settings(**fields)))


if __name__ == '__main__':
  command.run(main, define_flags)
