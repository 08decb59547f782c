"""Calendars: hours and dates, also of climate models.

Their years may have 360 or 365 days. Hours are counted from 1970-01-01 in the
file's own calendar, in which no hour is missing at the end of February.
"""

import numpy as np

from vidpred_jax.data.files import reading

STANDARD = 'standard'
_SAME = (STANDARD, 'gregorian', 'proleptic_gregorian')
# Hours; days since 1900 are up to 0.05 off in float32.
_MOST_ROUNDED = 0.15
_HOURS = 'hours since 1970-01-01'


def named(calendar) -> str:
  """A calendar's name in a file; all names of the civil one are `STANDARD`."""
  name = str(calendar).strip().lower()
  return STANDARD if name in _SAME else name


def since_1970(path, times, units: str, calendar: str) -> np.ndarray:
  """Converts times in a file's units to hours since 1970 of its calendar.

  Raises:
    ValueError: if units or calendar are unknown, or a time stands between two
      hours.
  """
  import cftime  # comes with netCDF4

  with reading(path, 'file with units of time'):
    # Two known days give the line from the file's numbers to hours.
    days = [cftime.datetime(1970, 1, d, calendar=calendar) for d in (1, 30)]
    first, last = cftime.date2num(days, units, calendar)
    hours = (times - first) * (29 * 24) / (last - first)
  whole = np.rint(hours)
  between = np.flatnonzero(np.abs(hours - whole) > _MOST_ROUNDED)
  if len(between):
    raise ValueError(
      f"time of {path} is {hours[between[0]] % 24:.2f} o'clock; expected whole "
      'hours.'
    )
  return whole


def begin(year: int, calendar: str) -> int:
  """The hour at which a year begins, since 1970."""
  if calendar == STANDARD:
    return int(np.datetime64(f'{year}-01-01', 'h').astype(np.int64))
  import cftime

  date = cftime.datetime(year, 1, 1, calendar=calendar)
  return int(cftime.date2num(date, _HOURS, calendar))


def dates(hours: np.ndarray, calendar: str) -> np.ndarray:
  """Dates of hours since 1970: datetime64, or of other calendars cftime's."""
  if calendar == STANDARD:
    return np.asarray(hours).astype('M8[h]').astype('M8[ns]')
  import cftime

  return np.asarray(cftime.num2date(hours, _HOURS, calendar))


def said(hour: int, calendar: str) -> str:
  """An hour since 1970 as a text, 2018-03-01T00."""
  if calendar == STANDARD:
    return str(np.datetime64(int(hour), 'h'))
  return dates(np.array(hour), calendar).item().strftime('%Y-%m-%dT%H')
