"""Dates of climate models' calendars, as hours of the civil calendar."""

import datetime

import numpy as np

from vidpred_jax.data.files import reading

_OURS = ('standard', 'gregorian', 'proleptic_gregorian')
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def since_1970(path, times, units: str, calendar: str) -> np.ndarray:
  """Converts times in a file's units to hours since 1970, civil calendar.

  Raises:
    ValueError: if one is a date that there is not, such as 30 February.
  """
  import cftime  # comes with netCDF4

  with reading(path, 'file with units of time'):
    if calendar in _OURS:
      # Two known days give the line from the file's numbers to hours.
      days = [datetime.datetime(1970, 1, d) for d in (1, 2)]
      first, second = cftime.date2num(days, units, calendar)
      return np.rint((times - first) * 24 / (second - first))
    dates = cftime.num2date(times, units, calendar)
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
  return np.rint(np.array(hours, np.float64))
