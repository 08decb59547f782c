import datetime

import netCDF4
import numpy as np
import pytest

from vidpred_jax import data
from vidpred_jax.data import fields

HOURS = 120


def hour(year):
  return int(np.datetime64(f'{year}-01-01', 'h').astype(int))


def values(first, number, shape=(4, 6), seed=0):
  """Like temperatures; what year it is can be told from the mean."""
  rng = np.random.default_rng([seed, first])
  field = rng.standard_normal((number, *shape)) + 280 + first % 97
  return field.astype(np.float32)


def write(
  path, name, first, array, *,
  units='hours since 1900-01-01', options=None, **more,
):  # fmt: skip
  """A file as of WeatherBench; `more` are levels."""
  options = options or {}
  path.parent.mkdir(parents=True, exist_ok=True)
  times = [
    datetime.datetime(1970, 1, 1) + datetime.timedelta(hours=first + k)
    for k in range(len(array))
  ]
  with netCDF4.Dataset(path, 'w') as file:
    rows = np.linspace(-67.5, 67.5, array.shape[-2])
    columns = np.arange(array.shape[-1]) * 60.0
    axes = {'time': netCDF4.date2num(times, units), **more}
    axes |= {'lat': rows, 'lon': columns}
    for axis, numbers in axes.items():
      file.createDimension(axis, len(numbers))
      file.createVariable(axis, 'f8', (axis,))[:] = numbers
    file.variables['time'].units = units
    file.createVariable(name, 'f4', tuple(axes), **options)[:] = array


@pytest.fixture
def bench(tmp_path):
  """Three years of 120 hours of two variables, and of levels."""
  for year in (2015, 2016, 2017):
    first = hour(year)
    for k, (name, folder) in enumerate(
      (('t2m', '2m_temperature'), ('u10', '10m_u_component_of_wind'))
    ):
      array = values(first, HOURS, seed=k)
      # Each year counts its hours from another day.
      write(
        tmp_path / folder / f'{folder}_{year}_5.625deg.nc',
        name, first, array, units=f'hours since {year - 3}-02-01 06:00',
      )  # fmt: skip
    levels = np.stack([values(first, HOURS, seed=k) for k in (5, 6)], 1)
    write(
      tmp_path / 'relative_humidity' / f'r_{year}.nc',
      'r', first, levels, level=[850, 1000],
    )  # fmt: skip
    write(
      tmp_path / 'geopotential_500' / f'z_{year}.nc',
      'z', first, values(first, HOURS, seed=7),
    )  # fmt: skip
  return tmp_path


YEARS = {'train_years': (2015, 2016), 'test_years': (2017, 2018)}


def source(root, split='train', num_frames=24, **settings):
  return fields.Fields(split, num_frames, root=root, **YEARS | settings)


def test_hours_that_are_not_there_are_told(bench, caplog):
  source(bench, 'test')
  (said,) = [r.getMessage() for r in caplog.records]
  assert f'has {HOURS} of {2 * 365 * 24} hours for test' in said
  assert 'from 2017-01-01T00 to 2017-01-05T23' in said
  assert 'those from 2017-01-01T00 to before 2019-01-01T00' in said


class TestWeatherBench:
  def test_windows_and_normalisation(self, bench):
    train, test = source(bench), source(bench, 'test')
    both = np.concatenate([values(hour(y), HOURS) for y in (2015, 2016)])
    for clips in (train, test):  # of the training years, whatever the split
      np.testing.assert_allclose(clips.mean, [both.mean()], rtol=1e-6)
      np.testing.assert_allclose(clips.std, [both.std()], rtol=1e-5)
      assert clips.mean.dtype == clips.std.dtype == np.float32
    # The years are apart by a gap, which no window crosses.
    assert len(train) == 2 * (HOURS - 23) and len(test) == HOURS - 23
    item = train[HOURS - 23 + 5]
    assert item['name'] == '2016-01-01T05'
    assert item['video'].shape == (24, 4, 6, 1)
    assert item['video'].dtype == np.float32
    back = item['video'] * train.std + train.mean
    expected = values(hour(2016), HOURS)[5:29]
    np.testing.assert_allclose(back[..., 0], expected, rtol=1e-6)
    last = test[len(test) - 1]
    assert last['name'] == '2017-01-05T00'
    np.testing.assert_allclose(
      (last['video'] * test.std + test.mean)[..., 0],
      values(hour(2017), HOURS)[-24:],
      rtol=1e-6,
    )

  def test_what_systems_put_in_folders_is_no_field(self, bench):
    number = len(source(bench))
    (bench / '2m_temperature' / '._2014.nc').write_bytes(b'of macOS')
    assert len(source(bench)) == number
    stores = bench / '2m_temperature'
    assert len(fields.read(stores, ['t2m']).hours) == 3 * HOURS

  def test_facts_for_the_evaluation(self, bench):
    clips = source(bench)
    assert clips.kind == 'field' and clips.units == 'K'
    np.testing.assert_allclose(clips.latitudes, [-67.5, -22.5, 22.5, 67.5])
    assert clips.latitudes.dtype == np.float32
    assert 't2m' in repr(clips) and '2015-01-01T00 to 2016-01-05T23' in repr(
      clips
    )

  def test_several_variables_and_levels(self, bench):
    names = ('u10', 'r1000', 'z500', 't2m')
    clips = source(bench, variables=names)
    assert clips.units == 'm/s, %, m^2/s^2, K'
    assert clips.variables == names and source(bench).variables == ('t2m',)
    video = clips[3]['video'] * clips.std + clips.mean
    for channel, seed in enumerate((1, 6, 7, 0)):
      expected = values(hour(2015), HOURS, seed=seed)
      np.testing.assert_allclose(video[..., channel], expected[3:27], rtol=1e-6)
      np.testing.assert_allclose(
        clips.mean[channel],
        np.mean([values(hour(y), HOURS, seed=seed) for y in (2015, 2016)]),
        rtol=1e-6,
      )
    for name, message in (
      ('r', r'levels \[850.0, 1000.0\]; got r, expected'),
      ('r500', 'got r500'),
      ('x2', "no variable 'x2'"),
      ('t2m850', "no variable 't2m850'"),
    ):
      with pytest.raises(ValueError, match=message):
        source(bench, variables=name)

  def test_a_region_keeps_the_first_rows_and_columns(self, bench):
    clips = source(bench, region=(2, 5))
    part = np.concatenate([values(hour(y), HOURS) for y in (2015, 2016)])
    part = part[:, :2, :5]
    np.testing.assert_allclose(clips.mean, [part.mean()], rtol=1e-6)
    assert clips[0]['video'].shape == (24, 2, 5, 1)
    np.testing.assert_allclose(clips.latitudes, [-67.5, -22.5])
    with pytest.raises(ValueError, match=r'region \(5, 5\) is larger.*4x6'):
      source(bench, region=(5, 5))
    assert source(bench, region=())[0]['video'].shape == (24, 4, 6, 1)
    with pytest.raises(ValueError, match=r'\(H, W\), or \(\) for the whole'):
      source(bench, region=('None',))

  def test_gaps_within_a_year(self, bench):
    array = values(hour(2018), 60)
    place = bench / '2m_temperature'
    for part, begin, shift in (('a', 0, 0), ('b', 30, 40)):
      write(
        place / f'2m_temperature_2018{part}.nc',
        't2m', hour(2018) + begin + shift, array[begin : begin + 30],
      )  # fmt: skip
    clips = source(bench, 'test', test_years=(2018, 2018))
    names = [clips[i]['name'] for i in range(len(clips))]
    assert len(names) == 2 * 7
    assert names[6:8] == ['2018-01-01T06', '2018-01-03T22']

  def test_what_is_missing_or_wrong(self, bench, tmp_path):
    with pytest.raises(FileNotFoundError, match='dataserv.ub.tum.de'):
      source(tmp_path / 'nowhere')
    with pytest.raises(
      FileNotFoundError, match='WeatherBench(?s:.*)Missing: total_cl'
    ):
      source(bench, variables='tcc')
    with pytest.raises(ValueError, match='no hours of t2m for training'):
      source(bench, train_years=(1979, 1980))
    with pytest.raises(ValueError, match='overlap'):
      source(bench, train_years=(2010, 2017))
    with pytest.raises(ValueError, match='none of its windows has 121'):
      source(bench, num_frames=121)
    with pytest.raises(ValueError, match='split must be'):
      source(bench, 'dev')
    place = bench / '10m_u_component_of_wind'
    (place / '10m_u_component_of_wind_2016_5.625deg.nc').unlink()
    with pytest.raises(ValueError, match='u10 has 120 hours, t2m has 240'):
      source(bench, variables=('t2m', 'u10'))

  def test_missing_values_are_found(self, bench):
    path = next((bench / 'geopotential_500').glob('*2016*'))
    with netCDF4.Dataset(path, 'a') as file:
      file.variables['z'][7, 1, 2] = np.nan
    with pytest.raises(ValueError, match='lacks values of z'):
      source(bench, variables='z500')

  def test_damaged_files(self, bench):
    path = next((bench / '2m_temperature').glob('*2016*'))
    good = path.read_bytes()

    def check(message):
      with pytest.raises(ValueError, match=message) as found:
        source(bench)
      assert '\n' not in str(found.value)

    for content in (b'', b'CDF nothing', good[: len(good) // 2]):
      path.write_bytes(content)
      check(f'{path.name} is damaged or no')
    path.write_bytes(good)
    with netCDF4.Dataset(path, 'a') as file:
      file.renameVariable('time', 'hours')
    check('no file with time and its units: .*none of time, valid_time')
    path.write_bytes(good)
    with netCDF4.Dataset(path, 'a') as file:
      file.variables['time'].delncattr('units')
    check('no file with time and its units: AttributeError')
    # Values that the sum of their bytes says are wrong.
    array = values(hour(2016), HOURS)
    path.unlink()
    write(path, 't2m', hour(2016), array, options={'fletcher32': True})
    content = bytearray(path.read_bytes())
    content[content.index(array[50:51].tobytes())] ^= 0xFF
    path.write_bytes(content)
    check('damaged or no file with values of t2m: RuntimeError')

  def test_a_file_that_changes_is_read_anew(self, bench):
    before = source(bench).mean
    path = next((bench / '2m_temperature').glob('*2016*'))
    path.unlink()
    array = values(hour(2016), HOURS) + 50
    write(path, 't2m', hour(2016), array)
    both = [values(hour(2015), HOURS), array]
    np.testing.assert_allclose(source(bench).mean, [np.mean(both)], rtol=1e-6)
    assert not np.allclose(before, np.mean(both), rtol=1e-3)

  def test_a_constant_cannot_be_normalised(self, bench):
    for year in (2015, 2016):
      write(
        bench / 'total_cloud_cover' / f'{year}.nc',
        'tcc', hour(year), np.full((30, 4, 6), 0.25),
      )  # fmt: skip
    with pytest.raises(ValueError, match='tcc is the same everywhere'):
      source(bench, variables='tcc')

  def test_count(self, bench):
    assert fields.count(bench, 'test') == HOURS - 23
    assert fields.count(bench, 'train') == HOURS - 23  # 1979 to 2015


class TestOneFile:
  def write(self, path, number=50, **more):
    array = values(0, number)
    np.savez(path, t2m=array, **more)
    return array

  def test_splits_by_time(self, tmp_path):
    path = tmp_path / 'field.npz'
    times = np.arange(50) + hour(2019)
    array = self.write(path, time=times, lat=np.array([1.0, 2, 3, 4]))
    settings = {'root': path, 'train_fraction': 0.6}
    train = fields.Fields('train', 5, **settings)
    test = fields.Fields('test', 5, **settings)
    assert (len(train), len(test)) == (30 - 4, 20 - 4)
    for clips in (train, test):
      np.testing.assert_allclose(clips.mean, [array[:30].mean()], rtol=1e-6)
      np.testing.assert_allclose(clips.std, [array[:30].std()], rtol=1e-5)
      np.testing.assert_allclose(clips.latitudes, [1, 2, 3, 4])

    def seen(clips, i):
      return (clips[i]['video'] * clips.std + clips.mean)[..., 0]

    np.testing.assert_allclose(seen(train, 25), array[25:30], rtol=1e-6)
    np.testing.assert_allclose(seen(test, 0), array[30:35], rtol=1e-6)
    assert test[0]['name'] == '2019-01-02T06'

  def test_times_of_any_kind(self, tmp_path):
    dates = np.datetime64('2019-01-01', 'ns') + np.arange(50) * np.timedelta64(
      3600, 's'
    )
    for k, more in enumerate(({}, {'time': dates})):
      self.write(tmp_path / f'{k}.npz', **more)
      clips = fields.Fields('train', 5, root=tmp_path / f'{k}.npz')
      assert len(clips) == 36 and clips.latitudes is None
    assert clips[1]['name'] == '2019-01-01T01'

  def test_wrong_files(self, tmp_path):
    with pytest.raises(FileNotFoundError, match='no file'):
      fields.Fields('train', 5, root=tmp_path / 'nothing.npz')
    path = tmp_path / 'field.npz'
    self.write(path)
    with pytest.raises(ValueError, match='arrays t2m; expected tcc'):
      fields.Fields('train', 5, root=path, variables='tcc')
    with pytest.raises(ValueError, match='either split, got 1.0 of 50'):
      fields.Fields('train', 5, root=path, train_fraction=1.0)
    for more, message in (
      ({'time': np.arange(60)}, '60 times and 50 of t2m'),
      ({'time': np.zeros((50, 2))}, r'time .* is \(50, 2\)'),
      ({'time': np.full(50, np.nan)}, 'time .* 0 of them hours'),
      ({'time': np.full(50, 'NaT', 'M8[h]')}, 'time .* 0 of them hours'),
      ({'time': np.array(['now'] * 50)}, 'time .* is <U3; expected hours'),
      ({'lat': np.arange(3)}, '3 latitudes; .* of 4 rows'),
      ({'lat': np.float32(3)}, r'latitudes .* float32 \(\)'),
    ):
      self.write(path, **more)
      with pytest.raises(ValueError, match=message):
        fields.Fields('train', 5, root=path)
    np.savez(path, t2m=np.zeros((50, 4)))
    with pytest.raises(ValueError, match=r'\(50, 4\); expected'):
      fields.Fields('train', 5, root=path)

  def test_levels_without_time(self, tmp_path):
    path = tmp_path / 'field.npz'
    np.savez(path, z500=values(0, 50), t850=values(1, 50))
    for names in ('z500', ('t850', 'z500')):
      clips = fields.Fields('train', 5, root=path, variables=names)
      assert len(clips) == 36
    with pytest.raises(ValueError, match='arrays z500, t850; expected t2m'):
      fields.Fields('train', 5, root=path)

  def test_damaged_files(self, tmp_path):
    path = tmp_path / 'field.npz'
    self.write(path)
    data = path.read_bytes()
    for content in (b'', b'nothing', data[:-30], data[: len(data) // 2]):
      path.write_bytes(content)
      with pytest.raises(ValueError, match='damaged or no npz') as found:
        fields.Fields('train', 5, root=path)
      assert '\n' not in str(found.value)

  def test_real_weather(self, shared):
    root = shared / 'data/weather/era5_t2m_2019-03_uk.npz'
    train, test = (
      data.make_source(
        'weather', split=split, num_frames=24, root=root, region=(32, 48)
      )
      for split in ('train', 'test')
    )
    assert (len(train), len(test)) == (461 - 23, 115 - 23)
    assert train[0]['video'].shape == (24, 32, 48, 1)
    assert 275 < train.mean[0] < 290 and 1 < train.std[0] < 5
    np.testing.assert_allclose(train.latitudes[[0, -1]], [58, 50.25])
    with data.eval_batches(test, batch_size=32) as batches:
      video = np.concatenate([b['video'] for b in batches])
    assert video.dtype == np.float32 and len(video) == 96
