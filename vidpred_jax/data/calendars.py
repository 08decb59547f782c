"""Dates of climate models' calendars, as hours of the civil calendar."""

import datetime

import numpy as np

from vidpred_jax.data.files import reading

_OURS = ('standard', 'gregorian', 'proleptic_gregorian')
# Hours; days since 1900 are up to 0.05 off in float32.
_MOST_ROUNDED = 0.15
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def since_1970(path, times, units: str, calendar: str) -> np.ndarray:
  """Converts times in a file's units to hours since 1970, civil calendar.

  Raises:
    ValueError: if one is a date that there is not, such as 30 February, or
      stands between two hours.
  """
  import cftime  # comes with netCDF4

  with reading(path, 'file with units of time'):
    if calendar in _OURS:
      # Two known days give the line from the file's numbers to hours.
      days = [datetime.datetime(1970, 1, d) for d in (1, 2)]
      first, second = cftime.date2num(days, units, calendar)
      hours = (times - first) * 24 / (second - first)
    else:
      dates = cftime.num2date(times, units, calendar)
  if calendar not in _OURS:
    hours = _civil(path, dates, calendar)
  return _whole(path, hours)


def _civil(path, dates, calendar: str) -> np.ndarray:
  """Hours since 1970 of dates whose calendar has other days than ours."""
  hours = []
  for d in np.atleast_1d(dates):
    try:
      day = datetime.date(d.year, d.month, d.day).toordinal()
    except ValueError:
      raise ValueError(
        f'{path} has the date {d} of the calendar {calendar}, which there is '
        'not in ours; expected standard, noleap or the like.'
      ) from None
    hours.append((day - _EPOCH) * 24 + d.hour + d.minute / 60 + d.second / 3600)
  return np.array(hours, np.float64)


def _whole(path, hours: np.ndarray) -> np.ndarray:
  """Rounds away what a float32 of days or seconds lacks, and no more."""
  whole = np.rint(hours)
  between = np.flatnonzero(np.abs(hours - whole) > _MOST_ROUNDED)
  if len(between):
    raise ValueError(
      f"time of {path} is {hours[between[0]] % 24:.2f} o'clock; expected whole "
      'hours.'
    )
  return whole
