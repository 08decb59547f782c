"""Simulated vortex streets: the Simulation set of RVD (section 3.1).

A fluid flows from left to right around a cylinder in the left of the picture,
which sheds vortices to both sides in turn. Frames are grey images of the
vorticity, uint8 `[T, H, W, 1]`: 127.5 is zero; 0 and 255 are `LIMIT` times the
speed over the diameter, counter-clockwise and clockwise (in pictures, with y
downwards). The cylinder has zero vorticity. The solver (`simulation.lattice`)
makes 128 ticks between frames.

Each set of settings has a folder below `root`, with two .npy files of films and
a file of the settings. If the folder is missing, the source runs `python -m
vidpred_jax.simulation` in a separate process, which takes some minutes on two
CPU cores for the default settings. Two processes that make the same folder at
once do the work twice; the folder is always complete.

Trajectories differ in their initial disturbance and in the gusts, slow random
changes of the inflow's direction. The two splits have different trajectories.

Differences from the reference:
  - The published set was not released, and the paper gives neither viscosities,
    speed nor the size of the cylinder. These are ours: Reynolds number 200,
    0.06 nodes per tick, an eighth of the height.
  - Without gusts (`gusts=0`) the street becomes periodic and all trajectories
    are equal except for a shift in time. The test films would then be training
    films, and the future would be certain. The paper calls its flow turbulent
    and does not say why.
"""

import hashlib
import json
import math
import numbers
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidpred_jax.data import validation
from vidpred_jax.data.files import reading

# Largest vorticity shown, in units of speed / diameter.
LIMIT = 5.0
# The default folder of films.
ROOT = 'data/vortices'
_FORMAT = 1  # of the folder; folders of another format are not used

_LONGEST = 16384  # nodes of a side of the lattice
_MOST = 10**6  # of what is counted


class Settings(NamedTuple):
  """The settings of a simulation, see `Vortices`."""

  size: tuple[int, int] = (128, 128)
  scale: int = 1
  reynolds: float = 200.0
  speed: float = 0.06
  bulk_viscosity: float = 1.0
  diameter: float = 1 / 8
  gusts: float = 0.2
  ticks: int = 128
  spin_up: int = 100
  trajectories: tuple[int, int] = (8, 8)
  frames: tuple[int, int] = (1000, 250)
  seed: int = 0


class Vortices:
  """A grain random access source; item `i` is a function of (settings, i).

  Items are dicts with `video` uint8 [T, H, W, 1] and `name`
  (`split/trajectory@first frame`).
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike = ROOT,
    hop: int | None = None,
    size: tuple[int, int] | int = (128, 128),
    scale: int = 1,
    reynolds: float = 200.0,
    speed: float = 0.06,
    bulk_viscosity: float = 1.0,
    diameter: float = 1 / 8,
    gusts: float = 0.2,
    ticks: int = 128,
    spin_up: int = 100,
    trajectories: tuple[int, int] = (8, 8),
    frames: tuple[int, int] = (1000, 250),
    seed: int = 0,
    val_fraction: float = 0.0,
  ):
    """Opens the films; makes them first if they are missing.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      root: where the folders of films lie.
      hop: distance of successive clips; None is 1 for train, and for test the
        length of a clip, so that clips do not overlap.
      size: (H, W) of a frame, or one number for both.
      scale: nodes of the lattice per pixel, each way; pixels are their means.
      reynolds: speed times diameter over viscosity, which it sets.
      speed: of what flows in, nodes per tick; at most 0.2.
      bulk_viscosity: against compression, nodes^2 per tick; much of it keeps
        sound from ringing in the lattice.
      diameter: of the cylinder, relative to the height.
      gusts: standard deviation of the crosswise speed of what flows in,
        relative to `speed`; it stays similar for some ten frames.
      ticks: of the solver, from frame to frame.
      spin_up: frames before the first one, in which the street forms.
      trajectories: how many for (train, test).
      frames: of each trajectory, for (train, test).
      seed: other seeds make other trajectories.
      val_fraction: share of the trajectories for training, the last ones, that
        'val' has instead.

    Raises:
      ValueError: if a setting is wrong, the simulation failed, or the folder
        holds something else.
    """
    validation.check(split)
    settings = checked(
      Settings(
        size=(size, size) if isinstance(size, int) else size,
        scale=scale,
        reynolds=reynolds,
        speed=speed,
        bulk_viscosity=bulk_viscosity,
        diameter=diameter,
        gusts=gusts,
        ticks=ticks,
        spin_up=spin_up,
        trajectories=trajectories,
        frames=frames,
        seed=seed,
      )
    )
    length = settings.frames[split == 'test']
    hops = hop is None or (isinstance(hop, int) and hop >= 1)
    if not 0 < num_frames <= length or not hops:
      raise ValueError(
        f'num_frames must lie in [1, {length}], the frames of a {split} '
        'trajectory, and hop must be a whole number, at least 1; got '
        f'{num_frames}, {hop!r}.'
      )
    self._folder = folder(root, settings)
    if not self._folder.exists():
      _simulate(root, settings)
    stored = 'test' if split == 'test' else 'train'
    self._path = check(self._folder, settings) / f'{stored}.npy'
    self._split, self._num_frames = split, num_frames
    hop = hop or (1 if split == 'train' else num_frames)
    self._starts = range(0, length - num_frames + 1, hop)
    films = settings.trajectories[split == 'test']
    self._shape = (films, length, *settings.size)
    self._chosen = range(films)
    if split != 'test':
      self._chosen = validation.part(split, films, val_fraction, 'trajectories')
    self._films = self._opened()

  def __len__(self) -> int:
    return len(self._chosen) * len(self._starts)

  def __repr__(self) -> str:
    return (
      f'Vortices({self._split!r}, {len(self)} clips of '
      f'{len(self._chosen)} '
      f'trajectories at {self._folder})'
    )

  def __getstate__(self) -> dict:
    # Worker processes map the file themselves; an array would be copied.
    return self.__dict__ | {'_films': None}

  def __setstate__(self, state: dict) -> None:
    self.__dict__ = state
    self._films = self._opened()

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    row, window = divmod(i, len(self._starts))
    film = self._chosen[row]
    start = self._starts[window]
    clip = np.array(self._films[film, start : start + self._num_frames])
    return {
      'video': clip[..., None],
      'name': f'{self._split}/{film}@{start}',
    }

  def _opened(self) -> np.ndarray:
    with reading(self._path, 'npy file'):
      films = np.lib.format.open_memmap(self._path, mode='r')
    if films.dtype != np.uint8 or films.shape != self._shape:
      raise ValueError(
        f'{self._path} holds {films.dtype} {films.shape}; expected uint8 '
        f'{self._shape}.'
      )
    return films


def checked(settings: Settings) -> Settings:
  """Checks settings and converts them to the types of their defaults.

  Raises:
    ValueError: if one is of another type or out of range; says what was
      expected.
  """
  s = Settings(*map(_typed, Settings._fields, settings))
  expected = {
    'scale': (1 <= s.scale <= _LONGEST, f'from 1 to {_LONGEST}'),
    'size': (
      16 <= min(s.size) * s.scale <= max(s.size) * s.scale <= _LONGEST,
      f'at least 16 nodes of the lattice, {_LONGEST} at most',
    ),
    'trajectories': (max(s.trajectories) <= _MOST, f'at most {_MOST}'),
    'frames': (max(s.frames) <= _MOST, f'at most {_MOST}'),
    'reynolds': (s.reynolds > 0, 'above 0'),
    'speed': (0 < s.speed <= 0.2, 'in (0, 0.2]'),
    'bulk_viscosity': (s.bulk_viscosity > 0, 'above 0'),
    'diameter': (0 < s.diameter <= 0.5, 'in (0, 0.5]'),
    'gusts': (0 <= s.gusts <= 0.5, 'in [0, 0.5]'),
    'ticks': (1 <= s.ticks <= _MOST, f'from 1 to {_MOST}'),
    'spin_up': (0 <= s.spin_up <= _MOST, f'from 0 to {_MOST}'),
    'seed': (s.seed >= 0, 'at least 0'),
  }
  for name, (good, what) in expected.items():
    if not good:
      raise ValueError(f'{name} must be {what}, got {getattr(s, name)}.')
  return s


def _typed(name: str, value):
  """Converts a setting to its default's type: 150 to 150.0, lists to tuples."""

  def number(x, kind):
    return isinstance(x, kind) and not isinstance(x, bool) and math.isfinite(x)

  kind = type(Settings._field_defaults[name])
  if kind is tuple:
    pair = isinstance(value, Sequence) and len(value) == 2
    if not pair or not all(number(x, numbers.Integral) for x in value):
      raise ValueError(f'{name} must be two whole numbers, got {value!r}.')
    if min(value) < 1:
      raise ValueError(f'{name} must be two positive numbers, got {value}.')
    return tuple(map(int, value))
  if not number(value, numbers.Integral if kind is int else numbers.Real):
    what = 'a whole number' if kind is int else 'a number'
    raise ValueError(f'{name} must be {what}, got {value!r}.')
  return kind(value)


def folder(root: str | os.PathLike, settings: Settings) -> pathlib.Path:
  """The folder for the films of these settings."""
  if not isinstance(root, str | os.PathLike):
    raise ValueError(f'root must be the path of a folder, got {root!r}.')
  text = json.dumps(_described(settings), sort_keys=True)
  height, width = settings.size
  name = f'{height}x{width}-{hashlib.sha256(text.encode()).hexdigest()[:10]}'
  return pathlib.Path(os.path.expanduser(root)) / name


def write_settings(place: pathlib.Path, settings: Settings) -> None:
  """Writes the settings to the folder of the films."""
  text = json.dumps(_described(settings), indent=2)
  (place / 'settings.json').write_text(text + '\n')


def check(place: pathlib.Path, settings: Settings) -> pathlib.Path:
  """Returns the folder if it was made with these settings.

  Raises:
    ValueError: if not; names what differs.
  """
  path = place / 'settings.json'
  try:
    stored = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError):
    stored = None
  if not isinstance(stored, dict):
    raise ValueError(
      f'{place} is no folder of simulated films: {path.name} is missing or '
      'damaged. Move it away.'
    )
  expected = _described(settings)
  wrong = [
    f'{name} {stored.get(name)!r}, expected {expected.get(name)!r}'
    for name in sorted({*stored, *expected})
    if stored.get(name) != expected.get(name)
  ]
  if wrong:
    raise ValueError(
      f'{place} was made with other settings: {"; ".join(wrong)}. Move it away.'
    )
  return place


def _described(settings: Settings) -> dict:
  """The settings after conversion to JSON and back."""
  fields = settings._asdict() | {'limit': LIMIT, 'format': _FORMAT}
  return json.loads(json.dumps(fields))


def _simulate(root, settings: Settings) -> None:
  """Makes the films in a separate process, since `data` does not import JAX."""
  flags = [f'--root={root}']
  for name, value in settings._asdict().items():
    text = ','.join(map(str, value)) if isinstance(value, tuple) else value
    flags.append(f'--{name}={text}')
  command = [sys.executable, '-m', 'vidpred_jax.simulation', *flags]
  package = str(pathlib.Path(__file__).resolve().parents[2])
  path = os.pathsep.join(filter(None, [package, os.environ.get('PYTHONPATH')]))
  # This process may hold most of an accelerator's memory.
  extra = {'PYTHONPATH': path, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  done = subprocess.run(command, env=os.environ | extra, check=False)
  if done.returncode:
    raise ValueError(
      f'The simulation ended with status {done.returncode}; what it said '
      f'stands above. By itself: python {" ".join(command[1:])}'
    )
