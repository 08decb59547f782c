"""Other axes: of the Climate Data Store since 2024, and of climate models."""

import numpy as np
import pytest

from vidpred_jax.data import fields

netCDF4 = pytest.importorskip('netCDF4')


class TestOtherFiles:
  def make(
    self, root, *, name='time', units, values, axes=(), calendar=None,
    latitude='latitude', order=None,
  ):  # fmt: skip
    folder = root / '2m_temperature'
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for year, times in values.items():
      with netCDF4.Dataset(folder / f'{year}.nc', 'w') as file:
        sizes = {name: len(times), **dict(axes), latitude: 4, 'longitude': 8}
        for axis, size in sizes.items():
          file.createDimension(axis, size)
        time = file.createVariable(name, 'f8', (name,))
        time.units, time[:] = units, times
        if calendar:
          time.calendar = calendar
        lat = file.createVariable(latitude, 'f4', (latitude,))
        lat.units, lat[:] = 'degrees_north', np.linspace(60, -60, 4)
        sizes = {axis: sizes[axis] for axis in order or sizes}
        t2m = file.createVariable('t2m', 'f4', tuple(sizes))
        data = rng.normal(size=tuple(sizes.values()))
        if dict(axes).get('expver') == 2:  # each hour is in one of the two
          data[: len(times) // 2, 1] = data[len(times) // 2 :, 0] = np.nan
        t2m[:] = data

  def read(self, root, frames=6):
    return fields.Fields(
      'test', frames, root=root, train_years=(2015, 2015),
      test_years=(2017, 2017),
    )  # fmt: skip

  @pytest.mark.parametrize(
    'axes', [(), (('number', 1),), (('expver', 2),), (('expver', 1), ('n', 1))]
  )
  def test_time_has_another_name_and_axes_lie_between(self, tmp_path, axes):
    starts = {2015: 1425168000, 2017: 1488326400}
    self.make(
      tmp_path, name='valid_time', units='seconds since 1970-01-01', axes=axes,
      values={y: s + 3600 * np.arange(12) for y, s in starts.items()},
    )  # fmt: skip
    clips = self.read(tmp_path)
    assert len(clips) == 7 and clips[0]['name'] == '2017-03-01T00'
    assert clips[0]['video'].shape == (6, 4, 8, 1)
    assert np.isfinite(clips[6]['video']).all()

  @pytest.mark.parametrize('name', ['Time', 'forecast_reference_time'])
  def test_axes_by_their_units(self, tmp_path, name):
    starts = {2015: 1425168000, 2017: 1488326400}
    self.make(
      tmp_path, name=name, units='seconds since 1970-01-01',
      values={y: s + 3600 * np.arange(12) for y, s in starts.items()},
      latitude='nav_lat', order=('longitude', 'nav_lat', name),
    )  # fmt: skip
    clips = self.read(tmp_path)
    assert len(clips) == 7 and clips[0]['name'] == '2017-03-01T00'
    assert clips[0]['video'].shape == (6, 4, 8, 1)
    np.testing.assert_allclose(clips.latitudes, [60, 20, -20, -60])

  def test_a_calendar_without_leap_days(self, tmp_path):
    # Day 365 * 47 + 59 of years of 365 days is the first of March 2017.
    days = {y: 365 * (y - 1970) + 59 + np.arange(12) / 24 for y in (2015, 2017)}
    self.make(
      tmp_path, units='days since 1970-01-01', calendar='noleap', values=days
    )
    assert self.read(tmp_path)[0]['name'] == '2017-03-01T00'

  def test_a_calendar_of_thirty_days(self, tmp_path):
    days = {y: 360 * (y - 1970) + 58 + np.arange(48) / 24 for y in (2015, 2017)}
    self.make(
      tmp_path, units='days since 1970-01-01', calendar='360_day', values=days
    )
    clips = self.read(tmp_path)
    assert [clips[k]['name'] for k in (0, 24)] == [
      '2017-02-29T00', '2017-02-30T00',
    ]  # fmt: skip

  @pytest.mark.parametrize(
    'calendar,days', [('noleap', 365), ('365_day', 365), ('360_day', 360)]
  )
  def test_no_hour_is_missing_in_a_whole_year_of_a_calendar(
    self, tmp_path, caplog, calendar, days
  ):
    every = np.arange(0, days, 0.25)
    years = {y: days * (y - 1970) + every for y in (2015, 2016)}
    self.make(
      tmp_path, units='days since 1970-01-01', calendar=calendar, values=years
    )
    clips = fields.Fields(
      'test', 6, root=tmp_path, train_years=(2015, 2015), test_years=(2016,) * 2
    )
    assert not caplog.text
    assert len(clips) == len(every) - 5  # windows cross the end of February
    said = repr(clips)
    assert '2016-01-01T00' in said
    assert f'2016-12-{30 if days == 360 else 31}T18' in said

  def test_files_of_two_calendars(self, tmp_path):
    for calendar, year in (('noleap', 2015), ('360_day', 2017)):
      self.make(
        tmp_path,
        units='hours since 2015-01-01',
        calendar=calendar,
        values={year: 24 * 366 * (year - 2015) + np.arange(12)},
      )
    with pytest.raises(ValueError, match='calendar 360_day, .* has noleap'):
      self.read(tmp_path)

  def test_an_axis_that_nobody_chose(self, tmp_path):
    hours = {y: np.arange(12) for y in (2015,)}
    self.make(
      tmp_path, units='hours since 2015-01-01', values=hours, axes=(('n', 3),)
    )
    with pytest.raises(ValueError, match=r'axis n of 3 .*\.isel\(n=0\)'):
      self.read(tmp_path)

  @pytest.mark.parametrize('axis', ['number', 'realization'])
  def test_members_of_an_ensemble(self, tmp_path, axis):
    self.make(
      tmp_path, units='hours since 2015-01-01', values={2015: np.arange(12)},
      axes=((axis, 3),),
    )  # fmt: skip
    (path,) = (tmp_path / '2m_temperature').iterdir()
    with netCDF4.Dataset(path, 'a') as file:
      file.createVariable(axis, 'i4', (axis,))[:] = range(3)
    with pytest.raises(ValueError, match=rf'\.isel\({axis}=0\)'):
      self.read(tmp_path)

  @pytest.mark.parametrize('units, scale', [('Pa', 100), ('hPa', 1)])
  def test_levels_in_pascal(self, tmp_path, units, scale):
    path = tmp_path / 'a.nc'
    with netCDF4.Dataset(path, 'w') as file:
      for axis, size in (('time', 40), ('plev', 2), ('lat', 4), ('lon', 8)):
        file.createDimension(axis, size)
      time = file.createVariable('time', 'f8', ('time',))
      time.units, time[:] = 'hours since 2015-01-01', np.arange(40)
      levels = file.createVariable('plev', 'f8', ('plev',))
      levels.units, levels[:] = units, [500 * scale, 850 * scale]
      z = file.createVariable('z', 'f4', ('time', 'plev', 'lat', 'lon'))
      z[:] = np.random.default_rng(0).normal(size=z.shape)
      z[:, 1] += 100
    clips = fields.Fields('train', 2, root=path, variables='z850')
    assert abs(float(clips.mean[0]) - 100) < 1
    with pytest.raises(ValueError, match=r'levels \[500.0, 850.0\]; got z700'):
      fields.Fields('train', 2, root=path, variables='z700')


class TestAxesOfOthers:
  """Axes of other variables of a file are not those of the one asked for."""

  def make(self, path, axes):
    """Two variables on a grid of 4 x 8; axes: {name: (units, values)}."""
    with netCDF4.Dataset(path, 'w') as file:
      for name, (units, numbers) in axes.items():
        file.createDimension(name, len(numbers))
        made = file.createVariable(name, 'f8', (name,))
        made.units, made[:] = units, numbers
    return path

  def add(self, path, *dims):
    with netCDF4.Dataset(path, 'a') as file:
      t2m = file.createVariable('t2m', 'f4', dims)
      t2m[:] = np.random.default_rng(0).normal(size=t2m.shape)
    return fields.Fields('train', 2, root=path)

  @pytest.mark.parametrize(
    'other, own', [('atime', 'ftime'), ('time', 'valid_time')]
  )
  def test_two_times(self, tmp_path, other, own):
    path = self.make(
      tmp_path / 'a.nc',
      {
        other: ('hours since 1990-01-01', np.arange(40)),
        own: ('hours since 2015-01-01', np.arange(40)),
        'lat': ('degrees_north', np.linspace(60, -60, 4)),
        'lon': ('degrees_east', np.arange(8)),
      },
    )
    clips = self.add(path, own, 'lat', 'lon')
    assert clips[0]['name'] == '2015-01-01T00'

  @pytest.mark.parametrize('other, own', [('yv', 'yt'), ('lat', 'latitude')])
  def test_staggered_latitudes(self, tmp_path, other, own):
    path = self.make(
      tmp_path / 'a.nc',
      {
        other: ('degrees_north', np.linspace(70, -70, 5)),
        own: ('degrees_north', np.linspace(60, -60, 4)),
        'time': ('hours since 2015-01-01', np.arange(40)),
        'lon': ('degrees_east', np.arange(8)),
      },
    )
    clips = self.add(path, 'lon', own, 'time')
    np.testing.assert_allclose(clips.latitudes, [60, 20, -20, -60])
    assert clips[0]['video'].shape == (2, 4, 8, 1)

  @pytest.mark.parametrize('names', [('a', 'b'), ('time', 'valid_time')])
  def test_two_that_fit_equally(self, tmp_path, names):
    path = self.make(
      tmp_path / 'a.nc',
      {
        **{n: ('hours since 2015-01-01', np.arange(9)) for n in names},
        'lat': ('degrees_north', np.linspace(60, -60, 4)),
        'lon': ('degrees_east', np.arange(8)),
      },
    )
    with pytest.raises(ValueError, match=f'{names[0]} or {names[1]}'):
      self.add(path, *names, 'lat', 'lon')
