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

import functools
import itertools
import os
import pathlib

import numpy as np

from vidpred_jax.data import validation, weather
from vidpred_jax.data.moments import moments


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
    variables = tuple(weather.find(root, name, split) for name in names)
    if root.suffix == '.npz':
      spans = _shares(variables[0], train_fraction, val_fraction, split)
    else:
      years = {'train': train_years, 'test': test_years}
      spans = _spans(years | ({'val': val_years} if split == 'val' else {}))
    region = None if region is None else tuple(region)
    self._root, self._split, self.variables = root, split, names
    self._num_frames = num_frames
    self.units = ', '.join(weather.VARIABLES[v.name][1] for v in variables)
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

  def _frame_interval(self) -> int:
    """Hours between frames."""
    return int(np.diff(self._hours).min()) if len(self._hours) > 1 else 1


def count(root, split: str) -> int:
  """Windows of 12 + 12 hours of t2m in the paper's years.

  Raises:
    FileNotFoundError: if there are no files.
  """
  variable = weather.find(pathlib.Path(root).expanduser(), 't2m', split)
  hours = _common_hours(
    (variable,), _spans({'train': (1979, 2015), 'test': (2017, 2018)})[split]
  )
  return int((hours[23:] - hours[:-23] == 23).sum())


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
  variable: weather.Variable, fraction: float, val_fraction: float, split: str
) -> dict[str, tuple]:
  """The splits of an npz file, by time."""
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
    raise ValueError(
      f'{variable.paths[0].parent} has no hours of {variable.name} for '
      f'training, from {_time(span[0])} to before {_time(span[1])}.'
    )
  return mean.item(), std.item()


def _common_hours(variables, span) -> np.ndarray:
  """Hours since 1970 within a span; all variables must have the same."""
  all_hours = []
  for variable in variables:
    parts = [weather.hours_of(variable, path) for path in variable.paths]
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
