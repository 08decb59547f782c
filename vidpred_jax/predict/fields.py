"""Prediction of physical fields: files of arrays in the variables' units.

Forecasts in NetCDF and Zarr are as WeatherBench 2 has them, so that
WeatherBench-X scores them: dimensions `time` (when the forecast starts),
`prediction_timedelta` (how long after), `level` where there are levels (absent
ones are NaN), `latitude` and `longitude`, with the input's coordinates and
names of variables.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tqdm

from vidpred_jax import atomic
from vidpred_jax.predict import arrays, inputs
from vidpred_jax.predict.predictor import Predictor

_ARRAYS = ('.npy', '.npz')


def predict_field(
  load: Callable[..., tuple[Any, Any]],
  source: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  num_frames: int | None = None,
  init_every: int | None = None,
  overwrite: bool = False,
  key: jax.Array | None = None,
  **settings,
) -> int:
  """Predicts physical fields, in the variables' units, from file to file.

  Args:
    load: `() -> (system, variables)`, as `checkpoint.load` of a path.
      `system.data` says which fields.
    source: npz file with an array [T, H, W] per variable, or npy file
      [T, H, W, C]; [T, H, W] of one variable. Or NetCDF or Zarr with the
      variables, at hours of equal distance.
    output: the same, to write, float32; npy has the axes that `source` has.
    num_frames: how many, by default as many as the system's frames say.
    init_every: of NetCDF and Zarr: a forecast starts whenever the hours since
      1970 are a multiple of this, 12: at 0 and 12 UTC. By default one starts
      at the last hour of `source`.
    overwrite: whether an existing output may be replaced.
    key: for stochastic systems.
    **settings: of `Predictor`.

  Returns:
    How many frames were written, of each forecast.

  Raises:
    ValueError: if `source` holds no such fields, or either is no such file.
    OSError: if a file is not there or cannot be written.
  """
  from vidpred_jax.data import weather  # not where only videos are read

  system, variables = load()
  source, output = (
    pathlib.Path(os.path.expanduser(path)) for path in (source, output)
  )
  names = system.data.variables
  has_times = source.suffix.lower() not in _ARRAYS
  kinds = weather.SUFFIXES if has_times else _ARRAYS
  for path in (source, output):
    if path.suffix.lower() not in kinds:
      raise ValueError(
        f'{path}: this system learned from physical fields '
        f'({", ".join(names)} in {system.data.units}), not from pictures; '
        'expected npz or npy files with arrays in these units, or NetCDF (.nc) '
        'or Zarr (.zarr) for both input and output.'
      )
  atomic.check_new(output, overwrite=overwrite)
  inputs.check_request(False, num_frames=num_frames)
  serve = Predictor(system, variables, **settings)
  num_frames = len(system.frames.target) if num_frames is None else num_frames
  if has_times:
    dataset = _forecast(serve, source, num_frames, init_every, key)
    with atomic.replacing(output, overwrite=overwrite) as partial:
      if output.suffix.lower() == '.zarr':
        # As WeatherBench 2 has them; of format 3, readers warn.
        dataset.to_zarr(partial, zarr_format=2, consolidated=True)
      else:
        dataset.to_netcdf(partial, engine='netcdf4')
    return num_frames
  if init_every is not None:
    raise ValueError(
      f'{source} has no times; --init_every needs NetCDF or Zarr.'
    )
  clip, flat = _read_field(source, names)
  inputs.check_memory(clip[0].nbytes * num_frames)
  frames = serve.predict(clip, num_frames, key)
  made = {'': frames[..., 0] if flat else frames}
  if output.suffix.lower() == '.npz':
    made = dict(zip(names, np.moveaxis(frames, -1, 0)))
  arrays.write(output, made, overwrite=overwrite)
  return num_frames


def _read_field(path, names) -> tuple[np.ndarray, bool]:
  """Reads the variables, [T, H, W, C], and whether the file has no axis C."""
  from vidpred_jax.data import files  # not where only videos are read

  if path.suffix.lower() == '.npz':
    read = [files.npz_array(path, name) for name in names]
  else:
    with files.reading(path, 'npy file'):
      array = np.load(path, allow_pickle=False)
    read = np.moveaxis(array, -1, 0) if array.ndim == 4 else [array]
  shapes = sorted({x.shape for x in read})
  good = all(x.ndim == 3 and x.dtype.kind in 'iuf' for x in read)
  if not good or len(shapes) > 1 or len(read) != len(names):
    raise ValueError(
      f'{path} has {len(read)} arrays {", ".join(map(str, shapes))}; '
      f'expected numbers [T, H, W] for each of {", ".join(names)}.'
    )
  clip = np.stack(read, -1).astype(np.float32)
  return clip, path.suffix.lower() == '.npy' and array.ndim == 3


def _forecast(serve: Predictor, source, num_frames, every, key):
  """Predicts from a NetCDF file or Zarr store; an xarray.Dataset."""
  # Not where only videos are read.
  from vidpred_jax.data import calendars, fields

  data, context = serve.system.data, serve.system.frames.context
  grid = fields.read(source, data.variables)
  length = max(context) - min(context) + 1
  ends, step = _starts(source, grid.hours, length, every)
  inputs.check_memory(grid.values[0].nbytes * num_frames * len(ends))
  key = inputs.key(key)
  frames = np.stack(
    [
      serve.predict(
        grid.values[end - length + 1 : end + 1],
        num_frames,
        jax.random.fold_in(key, n) if every else key,
      )
      for n, end in enumerate(tqdm.tqdm(ends, 'forecasts', leave=False))
    ]
  )
  starts = calendars.dates(grid.hours[ends], grid.variables[0].calendar)
  return _dataset(grid, frames, starts, step, data)


def _starts(source, hours, length: int, every: int | None):
  """The places of the hours at which forecasts start, and the hours' distance.

  Raises:
    ValueError: if there is none with `length` hours of context without a gap.
  """
  if every is not None and every < 1:
    raise ValueError(f'Got --init_every={every}, expected 1 hour or more.')
  if len(hours) < max(length, 2):
    raise ValueError(
      f'{source} has {len(hours)} hours; this system sees {length}, and two '
      'say how far they are apart.'
    )
  step = int(np.diff(hours).min())
  ends = np.arange(length - 1, len(hours))
  passed = hours[ends] - hours[ends - length + 1]
  ends = ends[passed == (length - 1) * step]
  wanted = ends == len(hours) - 1 if every is None else hours[ends] % every == 0
  if not wanted.any():
    when = 'the last one' if every is None else f'a multiple of {every} hours'
    raise ValueError(
      f'{source} has no {length} times, {step} hours apart, that end at {when}.'
    )
  return ends[wanted], step


def _dataset(grid, frames, starts, step: int, data):
  """Forecasts [I, N, H, W, C] with their coordinates, an xarray.Dataset."""
  import xarray

  leads = np.arange(1, frames.shape[1] + 1) * step
  rows, columns = frames.shape[2:4]
  lat, lon = grid.latitudes, grid.longitudes
  coords = {
    'time': starts,
    'prediction_timedelta': leads.astype('m8[h]').astype('m8[ns]'),
    'latitude': np.arange(rows) if lat is None else lat,
    'longitude': np.arange(columns) if lon is None else lon,
  }
  units = data.units.split(', ')
  parts = []
  for c, variable in enumerate(grid.variables):
    array = xarray.DataArray(frames[..., c], coords, name=variable.name)
    # In the units that the system learned, if each is told.
    of_each = len(units) == len(grid.variables)
    array.attrs['units'] = units[c] if of_each else variable.unit
    if variable.level is not None:
      array = array.expand_dims(level=[variable.level], axis=2)
    parts.append(array.to_dataset())
  dataset = xarray.merge(parts, join='outer', compat='no_conflicts')
  for name, units in (
    ('latitude', 'degrees_north'),
    ('longitude', 'degrees_east'),
    ('level', 'hPa'),
  ):
    if name in dataset.coords:
      dataset[name].attrs['units'] = units
  return dataset
