"""Files of weather: NetCDF, Zarr and npz, hour by hour.

NetCDF and Zarr are read by xarray, from one file or store, from a folder of
several, or from WeatherBench's folders, one per variable. Variables have the
short names of `VARIABLES`, WeatherBench 2's long ones, or any other that is in
the file. Axes may lie in any order.
"""

import contextlib
import functools
import importlib.util
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vidpred_jax import video_io
from vidpred_jax.data import array_files, axes, calendars, netcdf3
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
SUFFIXES = ('.nc', '.nc4', '.zarr')  # of NetCDF and Zarr
_GRIB = ('.grib', '.grib2', '.grb', '.grb2')
_PRESSURES = ('level', 'isobaricInhPa', 'pressure_level', 'plev')
_MEMBERS = ('number', 'realization', 'member', 'step', 'surface', 'height')
_LEVELS = ('t', 'z', 'q', 'r', 'u', 'v', 'vo', 'pv')
_UNITS = {
  name: unit
  for short, (long, unit) in VARIABLES.items()
  for name in (short, long)
}
_LEVELLED = {*_LEVELS, *(VARIABLES[name][0] for name in _LEVELS)}


class Variable(NamedTuple):
  """The files of a variable.

  Attributes:
    name: in the files.
    level: pressure level in hPa, where the files may hold several.
    unit: of its values; empty if nothing says it.
    paths: NetCDF files or Zarr stores in the order of time, or one npz file.
    stamps: the modification time (ns) and the size of each file, so that a
      changed file is read again.
    calendar: of its dates, see `calendars`.
  """

  name: str
  level: int | None
  unit: str
  paths: tuple[pathlib.Path, ...]
  stamps: tuple[tuple[int, int], ...]
  calendar: str = calendars.STANDARD


def find(root: pathlib.Path, name: str, split: str) -> Variable:
  """Finds the files of a variable.

  Args:
    root: an npz file, a NetCDF file or Zarr store, a folder of these, or a
      folder of WeatherBench.
    name: such as 't2m', or 'z500' with its level; of NetCDF and Zarr also
      '2m_temperature', 'geopotential_500' or any other that they have.
    split: for messages.

  Returns:
    The files.

  Raises:
    ValueError: if there is no such variable, or the files are of GRIB.
    FileNotFoundError: if its files are not there.
  """
  stores = _stores(root)
  if stores:
    found = _found(stores[0], name)
    calendar = _calendar(stores[0], found[0])
    return Variable(*found, stores, _stamps(*stores), calendar)
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
  folder, unit = VARIABLES[short]
  if root.suffix.lower() == '.npz':
    if not root.is_file():
      raise FileNotFoundError(f'There is no file {root}.')
    return Variable(short, level, unit, (root,), _stamps(root))
  for place in (f'{folder}_{level}', folder):
    paths = tuple(p for p in _files(root / place) if p.suffix.lower() == '.nc')
    if paths:
      calendar = _calendar(paths[0], short)
      return Variable(short, level, unit, paths, _stamps(*paths), calendar)
  missing = f'{folder}_{level} or {folder}' if level else folder
  raise FileNotFoundError(
    f'{absent("weatherbench", root, split)}\n  Missing: {missing}'
  )


def _stores(root: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """The NetCDF files and Zarr stores that `root` is or directly holds."""
  is_file = root.suffix.lower() in (*SUFFIXES, *_GRIB)
  paths = [root] if is_file else _files(root)
  stores = tuple(p for p in paths if p.suffix.lower() in SUFFIXES)
  gribs = [p for p in paths if p.suffix.lower() in _GRIB]
  if gribs and not stores:
    raise ValueError(
      f'{gribs[0]} is GRIB, which only ecCodes reads; convert it, with pip '
      "install cfgrib: xarray.open_dataset('in.grib', engine='cfgrib')"
      ".to_netcdf('out.nc')."
    )
  if stores == (root,) and not root.exists():
    raise FileNotFoundError(f'There is no file {root}.')
  return stores


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  paths = sorted(folder.glob('*'))
  return [p for p in paths if not video_io.is_of_a_system(p.name)]


def _calendar(path: pathlib.Path, variable: str) -> str:
  """Of a variable's times; `calendars.STANDARD` where nothing says it."""
  with _dataset(path) as file, reading(path, 'file with time'):
    name = axes.called(file, variable, axes.TIMES)
    attributes = file.variables[name].attrs if name else {}
  return calendars.named(attributes.get('calendar', calendars.STANDARD))


def _found(path: pathlib.Path, name: str) -> tuple[str, int | None, str]:
  """What a variable is called in a store, its level, and its unit."""
  parts = re.fullmatch(r'(.+?)_?(\d+)', name)
  choices: list[tuple[str, int | None]] = [(name, None)]
  if parts and name not in VARIABLES:  # u10 is no level of u
    choices.append((parts[1], int(parts[2])))
  with _dataset(path) as file:
    fields = {k: v for k, v in file.variables.items() if v.ndim >= 3}
    for short, level in choices:
      for own in (short, VARIABLES.get(short, ('',))[0]):
        if own in fields:
          _check_level(path, file, own, level)
          unit = fields[own].attrs.get('units', _UNITS.get(own, ''))
          return own, level, str(unit)
  raise ValueError(
    f'{path} has the variables {", ".join(fields) or "(none)"} of (time, '
    f'[level,] latitude, longitude); got {name}, expected one of them, with '
    'its level where there are levels, like z500.'
  )


def _check_level(path: pathlib.Path, file, name: str, level: int | None):
  """Raises ValueError if a level is asked of a variable without levels.

  It may have a single one, which a number of the file says.
  """
  if level is None or file.variables[name].ndim > 3:
    return
  said = [file.variables[n] for n in _PRESSURES if n in file.variables]
  known = [_pressures(v)[0] for v in said if v.ndim == 0]
  if known != [level]:
    at = f'is at level {known[0]:g}' if known else 'has no levels'
    raise ValueError(f'{name} of {path} {at}; got {name}{level}.')


def _stamps(*paths: pathlib.Path) -> tuple[tuple[int, int], ...]:
  return tuple(array_files.stamp(path)[1:3] for path in paths)


@functools.lru_cache(maxsize=1024)
def hours_of(variable: Variable, path: pathlib.Path) -> np.ndarray:
  """The hours of a file, int64, since 1970 of its calendar.

  An npz file without a time has its steps.
  """
  if path.suffix.lower() == '.npz':
    if 'time' not in npz_names(path):
      return np.arange(len(_array(variable, path)))
    hours = npz_array(path, 'time')
    if hours.dtype.kind == 'M':
      hours = hours.astype('M8[h]') - np.datetime64(0, 'h')
      hours = np.where(np.isnat(hours), np.nan, hours.astype(np.float64))
    elif hours.dtype.kind not in 'iuf':
      raise ValueError(f'time of {path} is {hours.dtype}; expected hours.')
  else:
    with _dataset(path) as file, reading(path, 'file with time and its units'):
      name = axes.called(file, variable.name, axes.TIMES)
      if name is None:
        raise ValueError(
          f'it has none of {", ".join(axes.TIMES)} and no axis in units of time'
        )
      time = file[name]
      times, units = time.values.astype(np.float64), time.units
    if (calendar := _calendar(path, variable.name)) != variable.calendar:
      raise ValueError(
        f'{path} has the calendar {calendar}, {variable.paths[0]} has '
        f'{variable.calendar}; expected one calendar.'
      )
    hours = calendars.since_1970(path, times, units, calendar)
  good = np.abs(hours) < 2**53  # not of NaN
  if hours.ndim != 1 or not good.all():
    raise ValueError(
      f'time of {path} is {hours.shape}, {good.sum()} of them hours; expected '
      'one axis of hours.'
    )
  return hours.astype(np.int64)


def _pressures(levels) -> list[float]:
  """The numbers of an axis of levels, in hPa if they are pressures."""
  values = np.atleast_1d(levels.values)
  is_pa = str(levels.attrs.get('units')) in ('Pa', 'pascal', 'Pascal')
  return (values / 100 if is_pa else values).tolist()


def latitudes(variable: Variable, region) -> np.ndarray | None:
  """The latitudes [H] of a grid in degrees; None if its files do not say."""
  values = axis(variable, axes.LATITUDES)
  if values is None:
    return None
  return values.astype(np.float32)[: region[0] if region else None]


def axis(variable: Variable, names: tuple[str, str]) -> np.ndarray | None:
  """The numbers of an axis in the first file.

  Args:
    variable: the files.
    names: what the axis may be called: `axes.LATITUDES` or `axes.LONGITUDES`.

  Returns:
    [H] or [W], degrees, in the file's type; None if there is none.

  Raises:
    ValueError: if it is no list of numbers.
  """
  path = variable.paths[0]
  if path.suffix.lower() == '.npz':
    name = next((n for n in names if n in npz_names(path)), None)
    values = None if name is None else npz_array(path, name)
  else:
    with _dataset(path) as file, reading(path, f'file with {names[1]}s'):
      name = axes.called(file, variable.name, names)
      values = None if name is None else file.variables[name].values
  if values is None:
    return None
  if values.dtype.kind not in 'iuf' or values.ndim != 1:
    raise ValueError(
      f'The {names[1]}s of {path} are {values.dtype} {values.shape}; expected '
      'numbers of one axis.'
    )
  return values


def blocks(variable: Variable, span, region) -> Iterator[np.ndarray]:
  """Values in a span of hours, in order: float32 [t, H, W] with t <= 1000.

  Raises:
    ValueError: if values are missing or the array is none of that kind.
  """
  for path in variable.paths:
    hours = hours_of(variable, path)
    first, last = np.searchsorted(hours, span)
    if first == last:
      continue
    with _opened(variable, path, region) as ((length, height, width), take):
      if length != len(hours):
        raise ValueError(
          f'{path} has {len(hours)} times and {length} of {variable.name}.'
        )
      if region and (region[0] > height or region[1] > width):
        raise ValueError(
          f'region {region} is larger than the {height}x{width} points of '
          f'{path}.'
        )
      for begin in range(first, last, 1000):
        part = slice(begin, min(begin + 1000, last))
        with reading(path, f'file with values of {variable.name}'):
          block = np.asarray(take(part), np.float32)
        if not np.isfinite(block).all():
          raise ValueError(f'{path} lacks values of {variable.name}.')
        yield block


@contextlib.contextmanager
def _opened(variable: Variable, path: pathlib.Path, region):
  """The shape (T, H, W) of the array, and how to take [t, h, w] of it."""
  name = variable.name
  rows, columns = map(slice, region or (None, None))
  if path.suffix.lower() == '.npz':
    values = _array(variable, path)
    yield values.shape, lambda part: values[part, rows, columns]
    return
  with _dataset(path) as file:
    if name not in file.variables or file.variables[name].ndim < 3:
      raise ValueError(
        f'{path} has the variables {", ".join(file.variables)}; expected '
        f'{name} of (time, [level,] lat, lon).'
      )
    array = file.variables[name]
    sizes = dict(zip(array.dims, array.shape))
    time, lat, lon = (
      next(
        (n for n in (*axes.along(file, name, names), *names) if n in sizes),
        other,
      )
      for names, other in (
        (axes.TIMES, array.dims[0]),
        (axes.LATITUDES, array.dims[-2]),
        (axes.LONGITUDES, array.dims[-1]),
      )
    )
    chosen = {
      axis: _place(variable, path, file, axis, length)
      for axis, length in sizes.items()
      if axis not in (time, lat, lon)
    }

    least, most, fill = _limits(array, path)

    def take(part):
      taken = array.isel({**chosen, time: part, lat: rows, lon: columns})
      block = taken.load().transpose(time, ..., lat, lon).values
      if (least, most, fill) != (-np.inf, np.inf, None):
        valid = (block >= least) & (block <= most)
        if fill is not None:
          valid &= ~np.isclose(block, fill, rtol=1e-6, atol=0)
        block = np.where(valid, block, np.nan)
      # Of two versions of the data each hour is in one.
      while block.ndim > 3:
        first = block[:, :1]
        for k in range(1, block.shape[1]):
          first = np.where(np.isnan(first), block[:, k : k + 1], first)
        block = first[:, 0]
      return block

    yield (sizes[time], sizes[lat], sizes[lon]), take


def _limits(array, path: pathlib.Path) -> tuple[float, float, float | None]:
  """The valid values of an array and what stands where nothing was written.

  xarray leaves to its users what CF and NetCDF say of these.

  Args:
    array: xarray's.
    path: of its file.

  Returns:
    `(least, most, fill)`, in the units of the values; fill is None where the
    file names its own, which xarray makes NaN.
  """
  attributes, stored = array.attrs, array.encoding
  least, most = attributes.get('valid_range', (-np.inf, np.inf))
  least = attributes.get('valid_min', least)
  most = attributes.get('valid_max', most)
  scale = float(stored.get('scale_factor', 1))
  offset = float(stored.get('add_offset', 0))
  # Packed numbers are rounded when they are unpacked.
  margin = abs(scale) / 2 if 'scale_factor' in stored else 0.0
  least, most = sorted(float(x) * scale + offset for x in (least, most))
  kind = np.dtype(stored.get('dtype', array.dtype))
  named = {'_FillValue', 'missing_value'} & {*stored, *attributes}
  if path.suffix.lower() == '.zarr' or named or kind.itemsize == 1:
    return least - margin, most + margin, None
  import netCDF4

  fill = netCDF4.default_fillvals.get(kind.str[1:])
  unpacked = None if fill is None else float(fill) * scale + offset
  return least - margin, most + margin, unpacked


def _place(variable: Variable, path, file, axis: str, length: int):
  """The index of the values on an axis between time and latitude."""
  if axis == 'expver':
    return slice(None)
  values: list[Any] = [None]
  if axis in file.variables:
    with reading(path, 'file with levels'):
      values = _pressures(file.variables[axis])
  if variable.level in values and variable.level is not None:
    return values.index(variable.level)
  levelled = variable.name in _LEVELLED and axis not in _MEMBERS
  if length == 1 and not levelled:
    return 0
  if values[0] is None or not (levelled or axis in _PRESSURES):
    raise ValueError(
      f'{path} has an axis {axis} of {length} beside time, latitude and '
      f'longitude; expected a level, expver or a length of 1. One of them is '
      f'chosen by xarray: .isel({axis}=0).'
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


@contextlib.contextmanager
def _dataset(path: pathlib.Path):
  """A NetCDF file or Zarr store, read when it is used."""
  for package in ('xarray', 'netCDF4', 'zarr'):
    if importlib.util.find_spec(package) is None:
      raise FileNotFoundError(
        f"{path} needs the package {package}: pip install 'vidpred_jax[fields]'"
      )
  import xarray

  is_zarr = path.suffix.lower() == '.zarr'
  settings: dict[str, Any] = {'engine': 'zarr' if is_zarr else 'netcdf4'}
  if is_zarr:  # asked for where there is none, xarray warns
    settings['consolidated'] = (path / '.zmetadata').exists()
  with reading(path, 'Zarr store' if is_zarr else 'NetCDF file'):
    if not is_zarr:
      netcdf3.check_end(path)
    file = xarray.open_dataset(
      path, decode_times=False, cache=False, **settings
    )
  with file:
    yield file
