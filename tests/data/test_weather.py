"""Files and stores of several variables: names, levels, missing values."""

import netCDF4
import numpy as np
import pytest
import xarray

from tests.data.test_fields import hour, source, values, write
from vidpred_jax.data import fields, netcdf3


def grid(hours=40, first='2018-01-01', **axes):
  """Weather as WeatherBench 2 has it: longitude before latitude."""
  rng = np.random.default_rng(0)
  size = (hours, 3, 6, 4)
  plane = ('time', 'longitude', 'latitude')
  cube = ('time', 'level', 'longitude', 'latitude')
  return xarray.Dataset(
    {
      '2m_temperature': (plane, 280 + rng.normal(size=(hours, 6, 4))),
      'geopotential': (cube, 5e4 + 700 * rng.normal(size=size)),
      'sst': (plane, rng.normal(size=(hours, 6, 4)), {'units': 'degC'}),
    },
    {
      'time': np.datetime64(first, 'ns')
      + np.arange(hours) * np.timedelta64(6, 'h'),
      'level': [500, 700, 850],
      'longitude': np.arange(6) * 60.0,
      'latitude': np.linspace(-60, 60, 4),
      **axes,
    },
  ).astype('f4')


def write_store(path, dataset):
  if path.suffix == '.zarr':
    dataset.to_zarr(path, zarr_format=2, consolidated=True)
  else:
    dataset.to_netcdf(path, engine='netcdf4')


@pytest.mark.parametrize('suffix', ['.nc', '.zarr'])
class TestStores:
  """NetCDF files and Zarr stores that hold several variables."""

  def test_variables_by_short_long_and_other_names(self, tmp_path, suffix):
    path, stored = tmp_path / f'w{suffix}', grid()
    write_store(path, stored)
    names = ('t2m', 'z700', 'geopotential_850', 'sst')
    clips = fields.Fields('train', 5, root=path, variables=names)
    assert clips.units == 'K, m^2/s^2, m^2/s^2, degC'
    assert clips[0]['video'].shape == (5, 4, 6, 4)
    assert clips[1]['name'] == '2018-01-01T06' and len(clips) == 32 - 4
    video = clips[3]['video'] * clips.std + clips.mean
    of_time = stored.isel(time=slice(3, 8)).transpose(
      ..., 'latitude', 'longitude'
    )
    for channel, expected in enumerate(
      (
        of_time['2m_temperature'],
        of_time['geopotential'].sel(level=700),
        of_time['geopotential'].sel(level=850),
        of_time['sst'],
      )
    ):
      np.testing.assert_allclose(
        video[..., channel], expected.values, rtol=1e-4, atol=1e-5
      )
    np.testing.assert_allclose(clips.latitudes, stored.latitude)
    part = fields.Fields('train', 5, root=path, variables='sst', region=(2, 3))
    assert part[0]['video'].shape == (5, 2, 3, 1)

  def test_the_climatology_is_the_mean_of_training(self, tmp_path, suffix):
    path, stored = tmp_path / f'w{suffix}', grid()
    write_store(path, stored)
    for split in ('train', 'test'):
      clips = fields.Fields(split, 5, root=path, variables=('sst', 't2m'))
      mean = stored.isel(time=slice(32)).mean('time').transpose('latitude', ...)
      assert clips.climatology.dtype == np.float32
      for channel, name in enumerate(('sst', '2m_temperature')):
        np.testing.assert_allclose(
          clips.climatology[..., channel], mean[name], rtol=1e-4, atol=1e-6
        )

  def test_a_folder_of_them_is_split_by_years(self, tmp_path, suffix):
    for year in (2015, 2016, 2017):
      write_store(tmp_path / f'{year}{suffix}', grid(first=f'{year}-01-01'))
    clips = source(tmp_path, 'test', 4)
    assert len(clips) == 37 and clips[0]['name'] == '2017-01-01T00'
    one = source(tmp_path / f'2016{suffix}', 'train', 4)  # years are given
    assert len(one) == 37

  def test_what_is_not_there(self, tmp_path, suffix):
    path = tmp_path / f'w{suffix}'
    with pytest.raises(FileNotFoundError, match='no file'):
      fields.Fields('train', 5, root=path)
    write_store(path, grid())
    for name, message in (
      ('tcc', 'variables 2m_temperature, geopotential, sst of'),
      ('z', r'levels \[500, 700, 850\]; got geopotential, expected'),
      ('z600', 'got geopotential600'),
      ('latitude', 'got latitude, expected one of them'),
    ):
      with pytest.raises(ValueError, match=message):
        fields.Fields('train', 5, root=path, variables=name)

  def test_all_hours_are_read_with_their_coordinates(self, tmp_path, suffix):
    path, stored = tmp_path / f'w{suffix}', grid()
    write_store(path, stored)
    got = fields.read(path, ('sst', 'z500'))
    assert got.values.shape == (40, 4, 6, 2)
    assert got.hours[1] - got.hours[0] == 6
    np.testing.assert_array_equal(got.latitudes, stored.latitude)
    np.testing.assert_array_equal(got.longitudes, stored.longitude)
    assert [v.level for v in got.variables] == [None, 500]


def test_a_damaged_zarr_store(tmp_path):
  path = tmp_path / 'w.zarr'
  write_store(path, grid())
  (path / '.zmetadata').write_text('{')
  with pytest.raises(ValueError, match='damaged or no Zarr store') as found:
    fields.Fields('train', 5, root=path)
  assert '\n' not in str(found.value)


@pytest.mark.parametrize('name', ['w.grib', 'folder/w.grb2'])
def test_grib_is_refused_with_the_way_round(tmp_path, name):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(b'GRIB')
  root = path if name == 'w.grib' else path.parent
  with pytest.raises(ValueError, match=r'GRIB, which only ecCodes.*to_netcdf'):
    fields.Fields('train', 5, root=root)


def test_grib_beside_what_was_made_of_it(tmp_path):
  (tmp_path / 'w.grib').write_bytes(b'GRIB')
  write_store(tmp_path / 'w.nc', grid())
  assert len(fields.read(tmp_path, ('t2m',)).hours) == 40


def test_a_single_level_is_the_one_that_the_file_says(tmp_path):
  path = tmp_path / 'w.nc'
  write_store(path, grid().sel(level=850))
  assert fields.read(path, ('z850',)).values.shape == (40, 4, 6, 1)
  with pytest.raises(ValueError, match='is at level 850; got geopotential500'):
    fields.read(path, ('z500',))
  write_store(tmp_path / 'b.nc', grid().sel(level=850).drop_vars('level'))
  with pytest.raises(ValueError, match='has no levels; got geopotential850'):
    fields.read(tmp_path / 'b.nc', ('z850',))


def test_wind_at_10_m_is_not_that_at_10_hpa(tmp_path):
  stored = grid(level=[10, 500, 850]).rename(geopotential='u')
  write_store(tmp_path / 'w.nc', stored)
  with pytest.raises(ValueError, match='got u10, expected one of them'):
    fields.read(tmp_path / 'w.nc', ('u10',))


@pytest.mark.parametrize('how', ['never written', 'range', 'packed'])
def test_values_that_are_missing_by_the_conventions(tmp_path, how):
  path, array = tmp_path / 'w.nc', values(hour(2015), 30)
  write(path, 't2m', hour(2015), array)
  with netCDF4.Dataset(path, 'a') as file:
    variable = file.variables['t2m']
    if how == 'never written':
      file.set_auto_mask(False)
      variable[3] = netCDF4.default_fillvals['f4']
    elif how == 'range':
      variable[3] = -999
      variable.valid_range = np.float32([0, 500])
    else:
      other = file.createVariable('tcc', 'i2', variable.dimensions)
      other.scale_factor, other.add_offset = 0.01, 5.0
      other.valid_min = np.int16(-400)
      other.set_auto_maskandscale(False)
      other[:] = 100
      other[3] = -500
  name = 'tcc' if how == 'packed' else 't2m'
  with pytest.raises(ValueError, match=f'lacks values of {name}'):
    fields.read(path, (name,))


def test_an_address_is_no_folder():
  with pytest.raises(ValueError, match='gs://bucket/w.zarr is an address'):
    fields.Fields('train', 5, root='gs://bucket/w.zarr')


@pytest.mark.parametrize('unlimited', [(), ('time',)], ids=['fixed', 'records'])
@pytest.mark.parametrize('kind', ['NETCDF3_CLASSIC', 'NETCDF3_64BIT'])
def test_a_truncated_file_of_the_first_format(tmp_path, kind, unlimited):
  """What is beyond its end would be read as zeros."""
  path = tmp_path / 'w.nc'
  stored = grid().drop_vars('geopotential')
  stored.to_netcdf(
    path, engine='netcdf4', format=kind, unlimited_dims=unlimited
  )
  assert fields.read(path, ('sst',)).values.shape == (40, 4, 6, 1)
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ValueError, match=r'w\.nc is damaged.*it is truncated'):
    fields.read(path, ('sst',))


@pytest.mark.parametrize('size', [(1, 3), (3, 5), (4, 6)])
@pytest.mark.parametrize('kind', ['i1', 'i2', 'f4'])
@pytest.mark.parametrize(
  'form', ['NETCDF3_CLASSIC', 'NETCDF3_64BIT_OFFSET', 'NETCDF3_64BIT_DATA']
)
@pytest.mark.parametrize('records', [1, 2])
def test_the_end_of_records_of_the_first_formats(
  tmp_path, size, kind, form, records
):
  """A single variable of records is not padded, several are."""
  path = tmp_path / 'w.nc'
  with netCDF4.Dataset(path, 'w', format=form) as file:
    for name, length in (('time', None), ('y', size[0]), ('x', size[1])):
      file.createDimension(name, length)
    file.createVariable('fixed', 'i1', ('x',))[:] = 1
    for name in 'ab'[:records]:
      file.createVariable(name, kind, ('time', 'y', 'x'))[:5] = 7
  data = path.read_bytes()
  netcdf3.check_end(path)
  path.write_bytes(data[:-4])  # more than what pads the last one
  with pytest.raises(ValueError, match='truncated'):
    netcdf3.check_end(path)
  path.write_bytes(data[:60])
  with pytest.raises(ValueError, match='truncated'):
    netcdf3.check_end(path)


@pytest.mark.parametrize('calendar', ['standard', ' noleap'])
@pytest.mark.parametrize('first', ['00:30', '00:20'])
def test_times_between_hours_are_refused(tmp_path, calendar, first):
  path = tmp_path / 'w.nc'
  write_store(path, grid(first=f'2018-01-01T{first}'))
  with netCDF4.Dataset(path, 'a') as file:
    file['time'].calendar = calendar
  with pytest.raises(
    ValueError, match=r"^time of \S*w\.nc is .* o'clock; expected whole"
  ):
    fields.read(path, ('sst',))
