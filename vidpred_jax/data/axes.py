"""Which axis of a file of weather is which: time, latitude, longitude."""

import re

# Names of the axes in files of different years; CF tells others by their units.
TIMES = ('time', 'valid_time')
LATITUDES = ('lat', 'latitude')
LONGITUDES = ('lon', 'longitude')
_UNITS = {
  TIMES: r'\w+ since .*',
  LATITUDES: r'degrees?_?N(orth)?',
  LONGITUDES: r'degrees?_?E(ast)?',
}


def called(file, variable: str, names: tuple[str, str]) -> str | None:
  """What an axis of a variable is called: one of its names, or by its units.

  A file may have several, of other variables. The variable's own dimensions
  come first, then a list along one of them with a name that is known, then
  whatever else there is.

  Args:
    file: xarray's.
    variable: its name; it may be missing.
    names: `TIMES`, `LATITUDES` or `LONGITUDES`.

  Returns:
    The name of a variable of the file; None if none fits.

  Raises:
    ValueError: if two fit equally.
  """
  known = file.variables
  dims = known[variable].dims if variable in known else ()
  own = [n for n in dims if n in known]
  beside = [n for n, v in known.items() if v.ndim == 1 and v.dims[0] in dims]
  lists = [n for n, v in known.items() if v.dims == (n,)]
  for named, others in ((own, own), (beside, own), (known, lists)):
    for found in (
      [n for n in named if n in names],
      [n for n in others if _has_units(known[n], names)],
    ):
      if len(found) > 1:
        raise ValueError(
          f'{variable} may have {" or ".join(found)} as its {names[1]}; '
          'expected one. Leave the others out by xarray: .drop_vars'
        )
      if found:
        return found[0]
  return None


def _has_units(values, names: tuple[str, str]) -> bool:
  units = str(values.attrs.get('units'))
  return re.fullmatch(_UNITS[names], units, re.IGNORECASE) is not None


def along(file, variable: str, names: tuple[str, str]) -> tuple[str, ...]:
  """The dimension of what `called` finds, `()` if it has none or several."""
  name = called(file, variable, names)
  dims = file.variables[name].dims if name else ()
  return dims if len(dims) == 1 else ()
