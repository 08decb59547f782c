"""Physical fields: hourly weather on a grid.

`root` is a folder of WeatherBench (NetCDF, one folder per variable) or an npz
file with an array `[T, H, W]` per variable and optionally `time` (hours) and
`lat` (degrees).

A clip is float32 `[T, H, W, C]`, one channel per variable. Each variable is
normalised by its mean and standard deviation over all hours and points of the
training split (within `region`). The value in the variable's unit is `video *
std + mean`. A clip never crosses a gap in time or the border of a split.

The training years differ: the paper (SimVPv2, V-A) says 1979 to 2015, the
configurations of the published code 2010 to 2015; both test on 2017 and 2018.
2016 is for validation: `test_years=(2016, 2016)`.

A process holds a split in memory: 37 years of one variable are 2.7 GB at 5.625
degrees and 43 GB at 1.40625. Load it with threads, `workers=0`, which share it.

Differences from the reference:
  - Every window of a split is used; the published loader drops the last two.
"""

import contextlib
import functools
import importlib.util
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vidpred_jax.data import calendars, validation
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


class Fields:
  """A grain random access source of windows of fields.

  Items are dicts with `video` float32 [T, H, W, C], normalised, and `name`, the
  hour of the first frame.

  Attributes:
    mean: float32 [C], of the training split, in the variables' units.
    std: float32 [C], likewise.
    variables: the names of the channels.
    units: the units of the channels, one text.
    latitudes: float32 [H], degrees; None if the file does not say.
  """

  kind = 'field'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike = '',
    variables: tuple[str, ...] | str = ('t2m',),
    train_years: tuple[int, int] = (1979, 2015),
    val_years: tuple[int, int] = (2016, 2016),
    test_years: tuple[int, int] = (2017, 2018),
    train_fraction: float = 0.8,
    val_fraction: float = 0.0,
    region: tuple[int, int] | None = None,
  ):
    """Loads a split.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      root: a folder of WeatherBench, or an npz file.
      variables: the channels, by the names in WeatherBench's files: 't2m',
        'u10', 'v10', 'tcc', ...; with the pressure level in hPa where there are
        levels: 'z500', 't850', 'r1000' (what the published code calls 'r').
      train_years: of a folder: first and last year for training.
      val_years: of a folder: first and last year for validation.
      test_years: of a folder: first and last year for testing.
      train_fraction: of an npz file: the first part of its hours, for training.
      val_fraction: of an npz file: share of these, the last ones, that 'val'
        has instead of 'train'.
      region: (H, W): only so many of the first rows and columns; None for all.

    Raises:
      ValueError: if a setting is wrong, a file damaged or a value missing.
      FileNotFoundError: if a file is not there.
    """
    validation.check(split)
    if num_frames < 1:
      raise ValueError(f'num_frames must be at least 1, got {num_frames}.')
    names = (variables,) if isinstance(variables, str) else tuple(variables)
    if not names or len(set(names)) < len(names):
      raise ValueError(f'variables must be different names, got {names}.')
    root = pathlib.Path(root).expanduser()
    variables = tuple(_variable(root, name, split) for name in names)
    if root.suffix == '.npz':
      spans = _shares(variables[0], train_fraction, val_fraction, split)
    else:
      years = {'train': train_years, 'test': test_years}
      spans = _spans(years | ({'val': val_years} if split == 'val' else {}))
    region = None if region is None else tuple(region)
    self._root, self._split, self.variables = root, split, names
    self._num_frames = num_frames
    self.units = ', '.join(VARIABLES[v.name][1] for v in variables)
    statistics = [_statistics(v, spans['train'], region) for v in variables]
    self.mean, self.std = np.array(statistics, np.float32).T.copy()
    if not (self.std > 0).all():
      raise ValueError(
        f'{root}: one of {", ".join(names)} is the same everywhere.'
      )
    self._hours = _common_hours(variables, spans[split])
    self.latitudes = _latitudes(variables[0], region)
    self._values = self._load(variables, spans[split], region)
    # First hours of windows within which no hour is missing.
    last = len(self._hours) - num_frames
    starts = np.arange(max(last + 1, 0))
    passed = self._hours[starts + num_frames - 1] - self._hours[starts]
    self._starts = starts[passed == (num_frames - 1) * self._frame_interval()]
    if not len(self._starts):
      raise ValueError(
        f'The {split} split of {root} has {len(self._hours)} hours; none of '
        f'its windows has {num_frames} without a gap.'
      )
    rows = self._values.shape[1]
    if self.latitudes is not None and len(self.latitudes) != rows:
      raise ValueError(
        f'{root} has {len(self.latitudes)} latitudes; expected one for each '
        f'of {rows} rows.'
      )

  def __len__(self) -> int:
    return len(self._starts)

  def __repr__(self) -> str:
    begin, end = (_time(self._hours[k]) for k in (0, -1))
    names = ', '.join(self.variables)
    return (
      f'Fields({self._split!r}: {len(self)} windows of {names} in'
      f' {self._root}, {begin} to {end}, in {self.units})'
    )

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    start = int(self._starts[i])
    clip = self._values[start : start + self._num_frames].copy()
    return {'video': clip, 'name': _time(self._hours[start])}

  def _load(self, variables, span, region) -> np.ndarray:
    """All hours of a split, normalised: float32 [T, H, W, C]."""
    values = np.empty(0, np.float32)
    for channel, variable in enumerate(variables):
      begin = 0
      for block in _blocks(variable, span, region):
        if not values.size:
          shape = (len(self._hours), *block.shape[1:], len(variables))
          values = np.empty(shape, np.float32)
        if block.shape[1:] != values.shape[1:3]:
          raise ValueError(
            f'{variable.paths[0]}: {variable.name} has a grid of '
            f'{block.shape[1:]}, others have {values.shape[1:3]}.'
          )
        block = (block - self.mean[channel]) / self.std[channel]
        values[begin : begin + len(block), ..., channel] = block
        begin += len(block)
    return values

  def _frame_interval(self) -> int:
    """Hours between frames."""
    return int(np.diff(self._hours).min()) if len(self._hours) > 1 else 1


def count(root, split: str) -> int:
  """Windows of 12 + 12 hours of t2m in the paper's years.

  Raises:
    FileNotFoundError: if there are no files.
  """
  variable = _variable(pathlib.Path(root).expanduser(), 't2m', split)
  hours = _common_hours(
    (variable,), _spans({'train': (1979, 2015), 'test': (2017, 2018)})[split]
  )
  return int((hours[23:] - hours[:-23] == 23).sum())


class _Variable(NamedTuple):
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


def _variable(root: pathlib.Path, name: str, split: str) -> _Variable:
  match = re.fullmatch(r'([a-z]+)(\d+)', name)
  if name in VARIABLES:
    short, level = name, None
  elif match and match[1] in _LEVELS:
    short, level = match[1], int(match[2])
  else:
    raise ValueError(
      f'There is no variable {name!r}; there are {", ".join(VARIABLES)}, the '
      'last ones with a level, like z500.'
    )
  if root.suffix == '.npz':
    if not root.is_file():
      raise FileNotFoundError(f'There is no file {root}.')
    return _Variable(short, level, (root,), _stamps(root))
  folder = VARIABLES[short][0]
  for place in (f'{folder}_{level}', folder):
    paths = tuple(sorted((root / place).glob('*.nc')))
    if paths:
      return _Variable(short, level, paths, _stamps(*paths))
  missing = f'{folder}_{level} or {folder}' if level else folder
  raise FileNotFoundError(
    f'{absent("weatherbench", root, split)}\n  Missing: {missing}'
  )


def _stamps(*paths: pathlib.Path) -> tuple[tuple[int, int], ...]:
  stats = (path.stat() for path in paths)
  return tuple((s.st_mtime_ns, s.st_size) for s in stats)


def _time(hour) -> str:
  return str(np.datetime64(int(hour), 'h'))


def _spans(years) -> dict[str, tuple[int, int]]:
  """First hour and the one after the last, since 1970, of each split."""
  for first, last in years.values():
    if first > last:
      raise ValueError(f'Years must be (first, last), got {(first, last)}.')
  for one, other in itertools.combinations(years, 2):
    a, b = tuple(years[one]), tuple(years[other])
    if max(a[0], b[0]) <= min(a[1], b[1]):
      raise ValueError(f'{one}_years {a} and {other}_years {b} overlap.')

  def hour(year):
    return int(np.datetime64(f'{year}-01-01', 'h').astype(np.int64))

  return {
    split: (hour(first), hour(last + 1))
    for split, (first, last) in years.items()
  }


def _shares(
  variable: _Variable, fraction: float, val_fraction: float, split: str
) -> dict[str, tuple]:
  """The splits of an npz file, by time."""
  hours = _hours(variable, variable.paths[0])
  border = round(fraction * len(hours))
  if not 0 < border < len(hours):
    raise ValueError(
      f'train_fraction must leave hours for either split, got {fraction} of '
      f'{len(hours)}.'
    )
  spans = {'test': (int(hours[border]), int(hours[-1]) + 1)}
  for name in {'train', split} - {'test'}:
    chosen = validation.part(name, border, val_fraction, 'hours')
    spans[name] = (int(hours[chosen.start]), int(hours[chosen.stop]))
  return spans


@functools.lru_cache(maxsize=64)
def _statistics(variable: _Variable, span, region) -> tuple[float, float]:
  """Mean and standard deviation of all values in a span of hours."""
  number, mean, squares = 0, 0.0, 0.0
  for block in _blocks(variable, span, region):
    # Chan's update: blocks of any size, nothing cancels.
    own = block.mean(dtype=np.float64)
    apart, total = own - mean, number + block.size
    squares += np.square(block - own, dtype=np.float64).sum()
    squares += apart**2 * number * block.size / total
    mean += apart * block.size / total
    number = total
  if not number:
    raise ValueError(
      f'{variable.paths[0].parent} has no hours of {variable.name} for '
      f'training, from {_time(span[0])} to before {_time(span[1])}.'
    )
  return mean, np.sqrt(squares / number)


def _common_hours(variables, span) -> np.ndarray:
  """Hours since 1970 within a span; all variables must have the same."""
  all_hours = []
  for variable in variables:
    parts = [_hours(variable, path) for path in variable.paths]
    hours = np.concatenate(parts)
    if (np.diff(hours) <= 0).any():
      raise ValueError(
        f'The hours of {variable.name} in {variable.paths[0].parent} do not '
        'ascend from file to file.'
      )
    all_hours.append(hours[slice(*np.searchsorted(hours, span))])
  for variable, hours in zip(variables, all_hours):
    if not np.array_equal(hours, all_hours[0]):
      raise ValueError(
        f'{variable.name} has {len(hours)} hours, {variables[0].name} has '
        f'{len(all_hours[0])}, and they must be the same.'
      )
  return all_hours[0]


@functools.lru_cache(maxsize=1024)
def _hours(variable: _Variable, path: pathlib.Path) -> np.ndarray:
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
  match = next((n for n in names if n in file.variables), None)
  if match is None:
    raise ValueError(f'it has none of {", ".join(names)}')
  return match


def _latitudes(variable: _Variable, region) -> np.ndarray | None:
  path, names = variable.paths[0], ('lat', 'latitude')
  if path.suffix == '.npz':
    name = next((n for n in names if n in npz_names(path)), None)
    latitudes = None if name is None else npz_array(path, name)
  else:
    with _netcdf(path) as file, reading(path, 'file with latitudes'):
      known = file.variables
      latitudes = next(
        (np.asarray(known[n][:]) for n in names if n in known), None
      )
  if latitudes is None:
    return None
  if latitudes.dtype.kind not in 'iuf' or latitudes.ndim != 1:
    raise ValueError(
      f'The latitudes of {path} are {latitudes.dtype} {latitudes.shape}; '
      'expected numbers of one axis.'
    )
  return latitudes.astype(np.float32)[: region[0] if region else None]


def _blocks(variable: _Variable, span, region) -> Iterator[np.ndarray]:
  """Values in a span of hours, in order: float32 [t, H, W] with t <= 1000.

  Raises:
    ValueError: if values are missing or the array is none of that kind.
  """
  rows, columns = map(slice, region or (None, None))
  for path in variable.paths:
    hours = _hours(variable, path)
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
def _opened(variable: _Variable, path: pathlib.Path):
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


def _place(variable: _Variable, path, file, axis: str, length: int):
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


def _array(variable: _Variable, path: pathlib.Path) -> np.ndarray:
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
