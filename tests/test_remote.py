"""Exports on object storage, for which fsspec's memory stands in."""

import fsspec
import jax
import numpy as np
import pytest

from vidpred_jax import checkpoint, runtime, systems
from vidpred_jax.checkpoint import remote

FRAMES = systems.Frames((0, 1), (2,))
SETTINGS = {'scales': (2, 1), 'widths': (8, 8), 'beta': 0.6}
ADDRESS = 'memory://bucket/model'


@pytest.fixture(scope='module')
def made():
  system = systems.make('dmvfn', frames=FRAMES, **SETTINGS)
  clip = jax.ShapeDtypeStruct((1, 3, 16, 16, 3), np.float32)
  return system, system.init(runtime.key(0), clip)


def test_what_is_saved_at_an_address_is_loaded_from_it(memory, made, tmp_path):
  system, variables = made
  data = systems.DataSpec(
    'field', ('u', 'v', 'w'), 'm/s', (0.0,) * 3, (1.0,) * 3
  )
  checkpoint.export(system._replace(data=data), variables, ADDRESS)
  assert sorted(memory.ls('/bucket/model', detail=False)) == [
    '/bucket/model/system.json',
    '/bucket/model/weights.safetensors',
  ]
  again, loaded = checkpoint.load(ADDRESS, beta=0.3)
  assert again.data == checkpoint.read_data_spec(ADDRESS) == data
  assert dict(again.settings)['beta'] == 0.3
  jax.tree.map(np.testing.assert_array_equal, variables, loaded)
  # The same bytes as on a disk.
  checkpoint.export(system._replace(data=data), variables, tmp_path / 'a')
  for file in (tmp_path / 'a').iterdir():
    assert memory.cat(f'/bucket/model/{file.name}') == file.read_bytes()


def test_a_finished_run_that_was_copied_there_is_loaded(memory, made):
  checkpoint.export(*made, 'memory://bucket/run/export')
  memory.pipe('/bucket/run/config.json', b'{}')
  system, _ = checkpoint.load('memory://bucket/run/')
  assert system.name == 'dmvfn'


def test_an_export_at_an_address_is_never_replaced(memory, made):
  checkpoint.export(*made, ADDRESS)
  before = memory.cat('/bucket/model/system.json')
  for overwrite in (False, True):
    with pytest.raises(FileExistsError, match='memory://bucket/model exists'):
      checkpoint.export(*made, ADDRESS, overwrite=overwrite)
  assert memory.cat('/bucket/model/system.json') == before


@pytest.mark.parametrize('name', ['system.json', 'weights.safetensors'])
def test_an_upload_that_ended_early_is_no_export(
  memory, made, monkeypatch, name
):
  """And it does not stand in the way of the next one."""
  whole = memory.pipe_file

  def fails(path, *args, **kwargs):
    if path.endswith(name):
      raise OSError('the line is down')
    whole(path, *args, **kwargs)

  with monkeypatch.context() as broken:
    broken.setattr(type(memory), 'pipe_file', staticmethod(fails))
    with pytest.raises(ValueError, match='cannot be reached .*line is down'):
      checkpoint.export(*made, ADDRESS)
  with pytest.raises(FileNotFoundError, match='holds neither an exp'):
    checkpoint.load(ADDRESS)
  checkpoint.export(*made, ADDRESS)
  checkpoint.load(ADDRESS)


def test_damage_is_told_with_the_address(memory, made):
  checkpoint.export(*made, ADDRESS)
  weights = bytearray(memory.cat('/bucket/model/weights.safetensors'))
  weights[-1] ^= 1
  memory.pipe('/bucket/model/weights.safetensors', bytes(weights))
  with pytest.raises(ValueError, match=f'^{ADDRESS}/weights.*is damaged'):
    checkpoint.load(ADDRESS)


def test_files_too_large_are_not_fetched(memory, monkeypatch):
  memory.pipe('/bucket/model/system.json', b'{}')
  memory.pipe('/bucket/model/weights.safetensors', b'12345')
  monkeypatch.setitem(remote._MOST, 'weights.safetensors', 4)
  with pytest.raises(ValueError, match='has 5 bytes, expected at most 4'):
    checkpoint.load(ADDRESS)


@pytest.mark.parametrize(
  'address, message',
  [
    ('memory://bucket/nothing', 'bucket/nothing on that storage holds neither'),
    ('nosuch://bucket/model', 'nosuch'),
  ],
)
def test_what_is_not_there_is_refused(address, message):
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    checkpoint.load(address)


def test_a_storage_without_its_package_is_refused(monkeypatch):
  def missing(address):
    raise ImportError('Install s3fs to access S3')

  monkeypatch.setattr(fsspec, 'url_to_fs', missing)
  with pytest.raises(ValueError, match='s3://b/m cannot be .*Install s3fs'):
    checkpoint.load('s3:/b/m')  # as pathlib writes it


@pytest.mark.parametrize('form', ['file://{}', 'file:{}', 'local:/{}'])
def test_a_disk_is_an_address_too(form, made, tmp_path):
  address = form.format(tmp_path / 'a' / 'b')
  checkpoint.export(*made, address)
  assert checkpoint.load(address)[0].name == 'dmvfn'
  assert checkpoint.load(tmp_path / 'a' / 'b')[0].name == 'dmvfn'


def test_a_storage_that_fails_does_not_have_nothing(memory, made, monkeypatch):
  checkpoint.export(*made, ADDRESS)

  def fail(self, path):
    raise OSError('the line is down')

  monkeypatch.setattr(type(memory), 'info', fail)
  with pytest.raises(ValueError, match='the line is down'):
    checkpoint.export(*made, ADDRESS)
