"""Physical fields: hourly weather on a grid.

`root` is a folder of WeatherBench (NetCDF, one folder per variable); a NetCDF
file or Zarr store with variables of (time, [level,] latitude, longitude), or a
folder of these in the order of time, as WeatherBench 2 has them; or an npz file
with an array `[T, H, W]` per variable and optionally `time` (hours) and `lat`
(degrees).

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

import functools
import itertools
import logging
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidpred_jax import atomic
from vidpred_jax.data import axes, calendars, validation, weather
from vidpred_jax.data.moments import moments

_LOG = logging.getLogger(__name__)


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
    climatology: float32 [H, W, C], the mean of the training split at each
      point, in the units.
  """

  kind = 'field'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike = '',
    variables: tuple[str, ...] | str = ('t2m',),
    train_years: tuple[int, int] | None = None,
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
      root: NetCDF, Zarr, npz, or a folder; see above.
      variables: the channels, by the names in WeatherBench's files: 't2m',
        'u10', 'v10', 'tcc', ...; with the pressure level in hPa where there are
        levels: 'z500', 't850', 'r1000' (what the published code calls 'r'). Of
        NetCDF and Zarr also '2m_temperature', 'geopotential_500' or any other
        that they have.
      train_years: first and last year for training; by default (1979, 2015) of
        a folder, and None of one file, which is split by fractions. An npz file
        always is.
      val_years: first and last year for validation.
      test_years: first and last year for testing.
      train_fraction: of one file: the first part of its hours, for training.
      val_fraction: of one file: share of these, the last ones, that 'val' has
        instead of 'train'.
      region: (H, W): only so many of the first rows and columns; None or ()
        for all.

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
    atomic.check_local(root)
    root = pathlib.Path(os.path.expanduser(root))
    variables = tuple(weather.find(root, name, split) for name in names)
    kind = root.suffix.lower()
    by_shares = kind == '.npz' or (
      train_years is None and kind in weather.SUFFIXES
    )
    if by_shares:
      spans = _shares(variables[0], train_fraction, val_fraction, split)
    else:
      years = {'train': train_years or (1979, 2015), 'test': test_years}
      years |= {'val': val_years} if split == 'val' else {}
      spans = _spans(years, variables[0].calendar)
    region = tuple(region) if region else None
    if region is not None and len(region) != 2:
      raise ValueError(
        f'region must be (H, W), or () for the whole grid, got {region}.'
      )
    self._root, self._split, self.variables = root, split, names
    self._num_frames = num_frames
    self.units = ', '.join(v.unit for v in variables)
    self._training = variables, spans['train'], region
    statistics = [_statistics(v, spans['train'], region) for v in variables]
    self.mean, self.std = np.array(statistics, np.float32).T.copy()
    if not (self.std > 0).all():
      raise ValueError(
        f'{root}: one of {", ".join(names)} is the same everywhere.'
      )
    self._hours = _common_hours(variables, spans[split])
    self.latitudes = weather.latitudes(variables[0], region)
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
    if not by_shares:
      self._warn_of_missing(spans[split])
    rows = self._values.shape[1]
    if self.latitudes is not None and len(self.latitudes) != rows:
      raise ValueError(
        f'{root} has {len(self.latitudes)} latitudes; expected one for each '
        f'of {rows} rows.'
      )

  @property
  def climatology(self) -> np.ndarray:
    """The mean over the hours of the training split, float32 [H, W, C]."""
    variables, span, region = self._training
    return np.stack([_mean_frame(v, span, region) for v in variables], -1)

  def __len__(self) -> int:
    return len(self._starts)

  def __repr__(self) -> str:
    begin, end = (self._time(self._hours[k]) for k in (0, -1))
    names = ', '.join(self.variables)
    return (
      f'Fields({self._split!r}: {len(self)} windows of {names} in'
      f' {self._root}, {begin} to {end}, in {self.units})'
    )

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    start = int(self._starts[i])
    clip = self._values[start : start + self._num_frames].copy()
    return {'video': clip, 'name': self._time(self._hours[start])}

  def _time(self, hour) -> str:
    return calendars.said(hour, self._training[0][0].calendar)

  def _load(self, variables, span, region) -> np.ndarray:
    """All hours of a split, normalised: float32 [T, H, W, C]."""
    values = np.empty(0, np.float32)
    for channel, variable in enumerate(variables):
      begin = 0
      for block in weather.blocks(variable, span, region):
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

  def _warn_of_missing(self, span: tuple[int, int]) -> None:
    """Warns of hours of the years asked for that are in no file."""
    wanted = -(-(span[1] - span[0]) // self._frame_interval())
    if len(self._hours) < wanted:
      _LOG.warning(
        '%s has %d of %d hours for %s, from %s to %s; asked for are those from '
        '%s to before %s.',
        self._root, len(self._hours), wanted, self._split,
        *(self._time(self._hours[k]) for k in (0, -1)),
        *map(self._time, span),
      )  # fmt: skip

  def _frame_interval(self) -> int:
    """Hours between frames."""
    return int(np.diff(self._hours).min()) if len(self._hours) > 1 else 1


def count(root, split: str) -> int:
  """Windows of 12 + 12 hours of t2m in the paper's years.

  Raises:
    FileNotFoundError: if there are no files.
  """
  variable = weather.find(pathlib.Path(os.path.expanduser(root)), 't2m', split)
  hours = _common_hours(
    (variable,), _spans({'train': (1979, 2015), 'test': (2017, 2018)})[split]
  )
  return int((hours[23:] - hours[:-23] == 23).sum())


class Grid(NamedTuple):
  """All hours of some variables, in their units.

  Attributes:
    variables: the variables' files, names and units.
    hours: int64 [T], since 1970, of the variables' calendar.
    values: float32 [T, H, W, C].
    latitudes: [H], degrees, as in the files; None if they do not say.
    longitudes: [W], likewise.
  """

  variables: tuple[weather.Variable, ...]
  hours: np.ndarray
  values: np.ndarray
  latitudes: np.ndarray | None
  longitudes: np.ndarray | None


def read(root: str | os.PathLike, names: Sequence[str]) -> Grid:
  """Reads all hours of some variables of NetCDF or Zarr.

  Raises:
    ValueError: if a variable or value is missing, or a file damaged.
    FileNotFoundError: if a file is not there.
  """
  atomic.check_local(root)
  root = pathlib.Path(os.path.expanduser(root))
  variables = tuple(weather.find(root, name, 'test') for name in names)
  ever = (-(2**53), 2**53)
  hours = _common_hours(variables, ever)
  blocks = [list(weather.blocks(v, ever, None)) for v in variables]
  channels = [np.concatenate(parts) for parts in blocks if parts]
  shapes = {channel.shape for channel in channels}
  if len(shapes) != 1:
    raise ValueError(
      f'{root} has {len(hours)} hours of the grids '
      f'{", ".join(map(str, sorted(shapes)))}; expected one grid.'
    )
  return Grid(
    variables,
    hours,
    np.stack(channels, -1),
    weather.axis(variables[0], axes.LATITUDES),
    weather.axis(variables[0], axes.LONGITUDES),
  )


def _spans(
  years, calendar: str = calendars.STANDARD
) -> dict[str, tuple[int, int]]:
  """First hour and the one after the last, since 1970, of each split."""
  for first, last in years.values():
    if first > last:
      raise ValueError(f'Years must be (first, last), got {(first, last)}.')
  for one, other in itertools.combinations(years, 2):
    a, b = tuple(years[one]), tuple(years[other])
    if max(a[0], b[0]) <= min(a[1], b[1]):
      raise ValueError(f'{one}_years {a} and {other}_years {b} overlap.')
  return {
    split: (
      calendars.begin(first, calendar),
      calendars.begin(last + 1, calendar),
    )
    for split, (first, last) in years.items()
  }


def _shares(
  variable: weather.Variable, fraction: float, val_fraction: float, split: str
) -> dict[str, tuple]:
  """The splits of one file, by time."""
  hours = weather.hours_of(variable, variable.paths[0])
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
def _statistics(
  variable: weather.Variable, span, region
) -> tuple[float, float]:
  """Mean and standard deviation of all values in a span of hours."""
  blocks = weather.blocks(variable, span, region)
  mean, std = moments(block[..., None] for block in blocks)
  if np.isnan(mean):
    first, last = (calendars.said(hour, variable.calendar) for hour in span)
    raise ValueError(
      f'{variable.paths[0].parent} has no hours of {variable.name} for '
      f'training, from {first} to before {last}.'
    )
  return mean.item(), std.item()


@functools.lru_cache(maxsize=64)
def _mean_frame(variable: weather.Variable, span, region) -> np.ndarray:
  """The mean [H, W] over a span of hours, float32."""
  total, count = np.float64(0), 0
  for block in weather.blocks(variable, span, region):
    total, count = total + block.sum(0, np.float64), count + len(block)
  return np.asarray(total / count, np.float32)


def _common_hours(variables, span) -> np.ndarray:
  """Hours since 1970 within a span; all variables must have the same."""
  all_hours = []
  for variable in variables:
    parts = [weather.hours_of(variable, path) for path in variable.paths]
    hours = np.concatenate(parts)
    if (np.diff(hours) <= 0).any():
      raise ValueError(
        f'The hours of {variable.name} in {variable.paths[0].parent} do not '
        'ascend within and from file to file.'
      )
    all_hours.append(hours[slice(*np.searchsorted(hours, span))])
  for variable, hours in zip(variables, all_hours):
    same = variable.calendar == variables[0].calendar
    if not same or not np.array_equal(hours, all_hours[0]):
      raise ValueError(
        f'{variable.name} has {len(hours)} hours, {variables[0].name} has '
        f'{len(all_hours[0])}, and they must be the same.'
      )
  return all_hours[0]
