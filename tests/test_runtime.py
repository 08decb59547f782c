import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest
from absl import logging
from jax._src import compilation_cache

from vidpred_jax import runtime


def test_an_option_that_xla_does_not_have_is_left_out_and_logged(monkeypatch):
  said = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *a: said.append(text % a)
  )
  for name, value in (('xla_no_such_option', 1), ('xla_nor_this', 'A,B')):
    function = runtime.jit(lambda x: x + 1, cpu_options=((name, value),))
    assert function(jnp.float32(1)) == 2
    assert function(jnp.float32(2)) == 3
    assert len([line for line in said if name in line]) == 1
    assert 'left out' in said[-1] and 'No such compile option' in said[-1]
    assert not runtime.accepted(name, value)


def test_a_value_that_an_option_does_not_take_is_left_out(monkeypatch):
  monkeypatch.setattr(logging, 'warning', lambda *args: None)
  name = 'xla_backend_optimization_level'
  assert runtime.accepted(name, 1)
  assert not runtime.accepted(name, 'fast')


def test_the_options_that_are_used_are_known_here():
  for name, value in runtime._CPU_OPTIONS.items():
    assert runtime.accepted(name, value)


class Stored:
  """What JAX keeps entries in: files in a folder."""

  def __init__(self, path):
    self._path = path

  def get(self, key):
    path = self._path / f'{key}-cache'
    return path.read_bytes() if path.exists() else None

  def put(self, key, value):
    (self._path / f'{key}-cache').write_bytes(value)


@pytest.mark.parametrize('damage', ['cut', 'emptied', 'flipped', 'no sum'])
def test_a_damaged_entry_of_the_cache_is_removed(tmp_path, damage, caplog):
  cache = runtime.CheckedCache(Stored(tmp_path))
  value = compilation_cache.compress_executable(bytes(range(256)) * 9)
  cache.put('a', value)
  assert cache.get('a') == value
  (tmp_path / 'a-sum').unlink()
  assert cache.get('a') == value  # one that others have written
  cache.put('a', value)
  path = tmp_path / 'a-cache'
  if damage == 'flipped':
    path.write_bytes(value[:40] + bytes([value[40] ^ 1]) + value[41:])
  else:
    path.write_bytes(value[: len(value) // 2 if damage != 'emptied' else 0])
  if damage == 'no sum':
    (tmp_path / 'a-sum').unlink()
  assert cache.get('a') is None
  assert not list(tmp_path.iterdir())
  assert 'damaged' in caplog.text


@pytest.mark.parametrize('what', ['entry', 'sum'])
def test_a_folder_in_place_of_a_file_of_the_cache(tmp_path, what, caplog):
  cache = runtime.CheckedCache(Stored(tmp_path))
  value = compilation_cache.compress_executable(bytes(range(256)) * 9)
  (tmp_path / f'a-{"cache" if what == "entry" else "sum"}' / 'b').mkdir(
    parents=True
  )
  for _ in range(2):
    if cache.get('a') is None:
      cache.put('a', value)
  assert cache.get('a') == value
  assert len(caplog.records) == 1


def test_a_cache_without_a_place_is_told_once(tmp_path, caplog):
  (tmp_path / 'file').write_text('')
  assert runtime._checked_cache(str(tmp_path / 'file')) is None
  assert 'compiled anew' in caplog.text and 'file' in caplog.text


def test_an_entry_that_cannot_be_written_leaves_nothing(tmp_path, caplog):
  class Full(Stored):
    def put(self, key, value):
      super().put(key, value[:5])
      raise OSError('full')

  cache = runtime.CheckedCache(Full(tmp_path))
  for key in 'ab':
    cache.put(key, b'123456789')
  assert not list(tmp_path.iterdir())
  (said,) = [r.getMessage() for r in caplog.records]
  assert '(full)' in said


def test_what_is_compiled_goes_through_the_cache_that_heals(tmp_path):
  code = (
    'import jax, jax.numpy as jnp\n'
    'from vidpred_jax import runtime\n'
    'runtime.setup()\n'
    'jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)\n'
    'print(jax.jit(lambda x: (x * 3).sum())(jnp.arange(9.0)))\n'
  )

  def run():
    return subprocess.run(
      [sys.executable, '-c', code],
      capture_output=True,
      text=True,
      env=os.environ | {'VIDPRED_JAX_CACHE': str(tmp_path)},
      cwd=pathlib.Path(__file__).parents[1],
    )

  first = run()
  entries = {p: p.read_bytes() for p in tmp_path.glob('*-cache')}
  assert entries and first.stdout == '108.0\n', first.stderr
  for path, content in entries.items():
    path.write_bytes(content[: len(content) // 2])
  second = run()
  assert second.stdout == first.stdout
  assert len(second.stderr.splitlines()) <= len(entries)
  assert 'was damaged and is made anew' in second.stderr
  for path in entries:
    assert path.stat().st_size > 10
  assert run().stderr == first.stderr
