"""Forecasts in NetCDF and Zarr, as WeatherBench-X scores them."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from tests.data.test_weather import write_store as write
from vidpred_jax.predict import fields
from vidpred_jax.systems import base

NAMES = ('t2m', 'z500', 'temperature_850')
SPEC = base.DataSpec(
  'field',
  variables=NAMES,
  units='K, m^2/s^2, K',
  mean=(280.0, 5e4, 270.0),
  std=(9.0, 700.0, 8.0),
)


def straight(context=(0, 1)):
  """Loads a system of fields that go on in a straight line."""

  def line(variables, seen, key):
    del variables, key
    return 2 * seen[:, -1:] - seen[:, -2:-1]

  frames = base.Frames(context, (max(context) + 1,))
  system = base.System(None, None, line, frames, 8, False, 3, SPEC)
  return system, {'params': {'x': jnp.float32(0.5)}}


def analysis(hours=20, gap=None):
  """Weather that changes evenly, 6 hours apart, as WeatherBench 2 has it."""
  rng = np.random.default_rng(0)
  times = np.arange(hours)
  if gap is not None:
    times[gap:] += 1

  def rising(*size):
    slope, start = rng.normal(size=(2, *size))
    return start + slope * times.reshape(-1, *(1,) * len(size))

  plane = ('time', 'longitude', 'latitude')
  cube = ('time', 'level', 'longitude', 'latitude')
  return xarray.Dataset(
    {
      '2m_temperature': (plane, 280 + rising(16, 8)),
      'geopotential': (cube, 5e4 + 700 * rising(2, 16, 8)),
      'temperature': (cube, 270 + rising(2, 16, 8)),
    },
    {
      'time': np.datetime64('2018-01-01T06', 'ns')
      + times * np.timedelta64(6, 'h'),
      'level': [500, 850],
      'longitude': np.arange(16) * 22.5,
      'latitude': np.linspace(80, -80, 8),
    },
  )


def opened(path):
  is_zarr = path.suffix == '.zarr'
  return xarray.open_dataset(path, engine='zarr' if is_zarr else 'netcdf4')


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
  'names', [('in.zarr', 'out.zarr'), ('in.nc', 'out.nc'), ('in.nc', 'o.zarr')]
)
def test_forecasts_score_as_weatherbench_x_does_it(tmp_path, names):
  source, output = (tmp_path / name for name in names)
  write(source, analysis())
  count = fields.predict_field(
    straight, source, output, num_frames=4, init_every=12
  )
  assert count == 4 and len(list(tmp_path.iterdir())) == 2
  with opened(source) as truth, opened(output) as made:
    assert {**made.sizes} == {
      'time': 10,
      'prediction_timedelta': 4,
      'level': 2,
      'latitude': 8,
      'longitude': 16,
    }
    assert {*made} == {*truth}
    assert made['2m_temperature'].units == 'K'
    assert made['geopotential'].units == 'm^2/s^2'
    assert made.latitude.units == 'degrees_north' and not made.attrs
    # Their loaders rename the axes and take the targets' times of validity.
    made = made.rename(time='init_time', prediction_timedelta='lead_time')
    made = made.isel(init_time=slice(0, 8))
    valid = made.init_time + made.lead_time
    target = truth.rename(time='valid_time').sel(valid_time=valid)
    with xarray.set_options(arithmetic_join='exact'):
      error = abs(made - target).drop_vars('valid_time').max(
        ('init_time', 'lead_time', 'latitude', 'longitude')
      )  # fmt: skip
    assert float(error['2m_temperature']) < 1e-3
    assert float(error['geopotential'].sel(level=500)) < 0.1
    assert float(error['temperature'].sel(level=850)) < 1e-3
    # What this system does not predict is absent.
    assert np.isnan(error['geopotential'].sel(level=850))
    starts = made.init_time.values
    assert str(starts[0]) == '2018-01-01T12:00:00.000000000'
    assert (np.diff(starts) == np.timedelta64(12, 'h')).all()


def test_by_default_one_forecast_starts_at_the_end(tmp_path):
  write(tmp_path / 'in.nc', analysis())
  paths = tmp_path / 'in.nc', tmp_path / 'out.nc'
  assert fields.predict_field(straight, *paths) == 1
  with opened(paths[1]) as made, opened(paths[0]) as truth:
    assert made.sizes['time'] == 1
    assert made.time.values[0] == truth.time.values[-1]
  with pytest.raises(FileExistsError, match='out.nc'):
    fields.predict_field(straight, *paths)


@pytest.mark.parametrize('calendar,last', [('360_day', 30), ('noleap', 28)])
@pytest.mark.parametrize('output', ['out.NC', 'out.ZARR'])
def test_forecasts_keep_the_calendar(tmp_path, calendar, last, output):
  times = xarray.date_range(
    f'2018-02-{last - 2}',
    periods=16,
    freq='6h',
    calendar=calendar,
    use_cftime=True,
  )
  given = analysis(16).assign_coords(time=times)
  given.to_netcdf(tmp_path / 'in.NC', engine='netcdf4')
  fields.predict_field(
    straight, tmp_path / 'in.NC', tmp_path / output, init_every=6
  )
  engine = 'zarr' if output == 'out.ZARR' else 'netcdf4'
  with xarray.open_dataset(tmp_path / output, engine=engine) as made:
    assert made.time.dt.calendar == calendar
    assert list(made.time.values) == list(times[1:])


def test_no_forecast_crosses_a_gap(tmp_path):
  write(tmp_path / 'in.nc', analysis(gap=10))
  paths = tmp_path / 'in.nc', tmp_path / 'out.nc'
  seeing = lambda: straight((0, 1, 2))  # noqa: E731
  fields.predict_field(seeing, *paths, init_every=6)
  with opened(paths[1]) as made:
    assert made.sizes['time'] == 20 - 2 - 2
  write(tmp_path / 'late.nc', analysis(gap=19))
  with pytest.raises(ValueError, match='no 3 times, 6 hours apart.*last one'):
    fields.predict_field(seeing, tmp_path / 'late.nc', tmp_path / 'o.nc')


@pytest.mark.parametrize(
  'options, message',
  [
    ({'init_every': 0}, 'init_every=0'),
    ({'init_every': 1000}, 'a multiple of 1000 hours'),
  ],
)
def test_starts_that_there_are_not(tmp_path, options, message):
  write(tmp_path / 'in.nc', analysis())
  with pytest.raises(ValueError, match=message):
    fields.predict_field(
      straight, tmp_path / 'in.nc', tmp_path / 'out.nc', **options
    )
  assert [p.name for p in tmp_path.iterdir()] == ['in.nc']


def test_coordinates_come_from_the_input(tmp_path):
  write(tmp_path / 'in.nc', analysis())
  np.save(tmp_path / 'in.npy', np.zeros((5, 8, 16, 3), np.float32))
  for source, output in (('in.nc', 'out.npz'), ('in.npy', 'out.nc')):
    with pytest.raises(ValueError, match='for both input and output'):
      fields.predict_field(straight, tmp_path / source, tmp_path / output)
  with pytest.raises(ValueError, match='no times; --init_every'):
    fields.predict_field(
      straight, tmp_path / 'in.npy', tmp_path / 'o.npy', init_every=6
    )
