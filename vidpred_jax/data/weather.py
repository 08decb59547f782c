"""Files of weather: NetCDF of WeatherBench, and npz, hour by hour."""

import contextlib
import functools
import importlib.util
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vidpred_jax.data import calendars
from vidpred_jax.data.files import npz_array, npz_names, reading
from vidpred_jax.data.published.prediction import absent

# Name -> folder in WeatherBench, and unit.
VARIABLES = {
  't2m': ('2m_temperature', 'K'),
  'u10': ('10m_u_component_of_wind', 'm/s'),
  'v10': ('10m_v_component_of_wind', 'm/s'),
  'tcc': ('total_cloud_cover', '1'),
  'tp': ('total_precipitation', 'm'),
  'tisr': ('toa_incident_solar_radiation', 'J/m^2'),
  't': ('temperature', 'K'),
  'z': ('geopotential', 'm^2/s^2'),
  'q': ('specific_humidity', 'kg/kg'),
  'r': ('relative_humidity', '%'),
  'u': ('u_component_of_wind', 'm/s'),
  'v': ('v_component_of_wind', 'm/s'),
  'vo': ('vorticity', '1/s'),
  'pv': ('potential_vorticity', 'K m^2/(kg s)'),
}
# Names of the axes in files of different years.
_TIMES = ('time', 'valid_time')
_MEMBERS = ('number', 'realization', 'member', 'step', 'surface', 'height')
_LEVELS = ('t', 'z', 'q', 'r', 'u', 'v', 'vo', 'pv')


class Variable(NamedTuple):
  """The files of a variable.

  Attributes:
    name: in the files.
    level: pressure level in hPa, where the files may hold several.
    paths: NetCDF files in the order of time, or one npz file.
    stamps: the modification time (ns) and the size of each file, so that a
      changed file is read again.
  """

  name: str
  level: int | None
  paths: tuple[pathlib.Path, ...]
  stamps: tuple[tuple[int, int], ...]


def find(root: pathlib.Path, name: str, split: str) -> Variable:
  """Finds the files of a variable.

  Args:
    root: a folder of WeatherBench or an npz file.
    name: such as 't2m', or 'z500' with its level.
    split: for messages.

  Returns:
    The files.

  Raises:
    ValueError: if there is no such variable.
    FileNotFoundError: if its files are not there.
  """
  parts = re.fullmatch(r'([a-z]+)(\d+)', name)
  if name in VARIABLES:
    short, level = name, None
  elif parts and parts[1] in _LEVELS:
    short, level = parts[1], int(parts[2])
  else:
    raise ValueError(
      f'There is no variable {name!r}; there are {", ".join(VARIABLES)}, the '
      'last ones with a level, like z500.'
    )
  if root.suffix == '.npz':
    if not root.is_file():
      raise FileNotFoundError(f'There is no file {root}.')
    return Variable(short, level, (root,), _stamps(root))
  folder = VARIABLES[short][0]
  for place in (f'{folder}_{level}', folder):
    paths = tuple(sorted((root / place).glob('*.nc')))
    if paths:
      return Variable(short, level, paths, _stamps(*paths))
  missing = f'{folder}_{level} or {folder}' if level else folder
  raise FileNotFoundError(
    f'{absent("weatherbench", root, split)}\n  Missing: {missing}'
  )


def _stamps(*paths: pathlib.Path) -> tuple[tuple[int, int], ...]:
  stats = (path.stat() for path in paths)
  return tuple((s.st_mtime_ns, s.st_size) for s in stats)


@functools.lru_cache(maxsize=1024)
def hours_of(variable: Variable, path: pathlib.Path) -> np.ndarray:
  """The hours of a file, int64, since 1970; or its steps, if it has no time."""
  if path.suffix == '.npz':
    if 'time' not in npz_names(path):
      return np.arange(len(_array(variable, path)))
    hours = npz_array(path, 'time')
    if hours.dtype.kind == 'M':
      hours = hours.astype('M8[h]') - np.datetime64(0, 'h')
      hours = np.where(np.isnat(hours), np.nan, hours.astype(np.float64))
    elif hours.dtype.kind not in 'iuf':
      raise ValueError(f'time of {path} is {hours.dtype}; expected hours.')
  else:
    with _netcdf(path) as file, reading(path, 'file with time and its units'):
      time = file.variables[_named(file, _TIMES)]
      calendar = getattr(time, 'calendar', 'standard').lower()
      times, units = (
        np.ma.filled(time[:].astype(np.float64), np.nan),
        time.units,
      )
    hours = calendars.since_1970(path, times, units, calendar)
  good = np.abs(hours) < 2**53  # not of NaN
  if hours.ndim != 1 or not good.all():
    raise ValueError(
      f'time of {path} is {hours.shape}, {good.sum()} of them hours; expected '
      'one axis of hours.'
    )
  return hours.astype(np.int64)


def _named(file, names) -> str:
  """Finds the one of several names that a NetCDF file has."""
  present = next((n for n in names if n in file.variables), None)
  if present is None:
    raise ValueError(f'it has none of {", ".join(names)}')
  return present


def latitudes(variable: Variable, region) -> np.ndarray | None:
  """The latitudes [H] of a grid in degrees; None if its files do not say."""
  path, names = variable.paths[0], ('lat', 'latitude')
  if path.suffix == '.npz':
    name = next((n for n in names if n in npz_names(path)), None)
    values = None if name is None else npz_array(path, name)
  else:
    with _netcdf(path) as file, reading(path, 'file with latitudes'):
      known = file.variables
      values = next(
        (np.asarray(known[n][:]) for n in names if n in known), None
      )
  if values is None:
    return None
  if values.dtype.kind not in 'iuf' or values.ndim != 1:
    raise ValueError(
      f'The latitudes of {path} are {values.dtype} {values.shape}; expected '
      'numbers of one axis.'
    )
  return values.astype(np.float32)[: region[0] if region else None]


def blocks(variable: Variable, span, region) -> Iterator[np.ndarray]:
  """Values in a span of hours, in order: float32 [t, H, W] with t <= 1000.

  Raises:
    ValueError: if values are missing or the array is none of that kind.
  """
  rows, columns = map(slice, region or (None, None))
  for path in variable.paths:
    hours = hours_of(variable, path)
    first, last = np.searchsorted(hours, span)
    if first == last:
      continue
    with _opened(variable, path) as (array, take):
      height, width = array.shape[-2:]
      if len(array) != len(hours):
        raise ValueError(
          f'{path} has {len(hours)} times and {len(array)} of {variable.name}.'
        )
      if region and (region[0] > height or region[1] > width):
        raise ValueError(
          f'region {region} is larger than the {height}x{width} points of '
          f'{path}.'
        )
      for begin in range(first, last, 1000):
        part = slice(begin, min(begin + 1000, last))
        with reading(path, f'file with values of {variable.name}'):
          block = take(part)
          block = np.asarray(block[:, rows, columns], np.float32)
        if not np.isfinite(block).all():
          raise ValueError(f'{path} lacks values of {variable.name}.')
        yield block


@contextlib.contextmanager
def _opened(variable: Variable, path: pathlib.Path):
  """The array (time, ..., lat, lon), and how to take [t, H, W] of it."""
  name = variable.name
  if path.suffix == '.npz':
    values = _array(variable, path)
    yield values, lambda part: values[part]
    return
  with _netcdf(path) as file:
    if name not in file.variables or file.variables[name].ndim < 3:
      raise ValueError(
        f'{path} has the variables {", ".join(file.variables)}; expected '
        f'{name} of (time, [level,] lat, lon).'
      )
    array = file.variables[name]
    between = array.dimensions[1:-2]
    chosen = [
      _place(variable, path, file, axis, array.shape[n])
      for n, axis in enumerate(between, 1)
    ]

    def take(part):
      block = np.ma.filled(array[(part, *chosen)], np.nan)
      # Of two versions of the data each hour is in one.
      while block.ndim > 3:
        first = block[:, :1]
        for k in range(1, block.shape[1]):
          first = np.where(np.isnan(first), block[:, k : k + 1], first)
        block = first[:, 0]
      return block

    yield array, take


def _place(variable: Variable, path, file, axis: str, length: int):
  """The index of the values on an axis between time and latitude."""
  if axis == 'expver':
    return slice(None)
  values: list[int | None] = [None]
  if axis in file.variables:
    with reading(path, 'file with levels'):
      values = np.atleast_1d(file.variables[axis][:]).tolist()
  if variable.level in values and variable.level is not None:
    return values.index(variable.level)
  levelled = variable.name in _LEVELS and axis not in _MEMBERS
  if length == 1 and not levelled:
    return 0
  if values[0] is None:
    raise ValueError(
      f'{path} has an axis {axis} of {length} between time and latitude; '
      'expected a level, expver or a length of 1.'
    )
  raise ValueError(
    f'{path} has the levels {values}; got {variable.name}'
    f'{variable.level or ""}, expected for example {variable.name}'
    f'{values[0]:g}.'
  )


def _array(variable: Variable, path: pathlib.Path) -> np.ndarray:
  """A variable of an npz file, [T, H, W]."""
  name = f'{variable.name}{variable.level or ""}'
  array = npz_array(path, name)
  if array.dtype.kind not in 'iuf' or array.ndim != 3:
    raise ValueError(
      f'{name} of {path} is {array.dtype} {array.shape}; expected numbers '
      '[T, H, W].'
    )
  return array


def _netcdf(path: pathlib.Path):
  if importlib.util.find_spec('netCDF4') is None:
    raise FileNotFoundError(
      f"{path} needs the package netCDF4: pip install 'vidpred_jax[fields]'"
    )
  import netCDF4

  with reading(path, 'NetCDF file'):
    return netCDF4.Dataset(path)
