"""What is replaced is whole, old or new."""

import errno
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from vidpred_jax import atomic
from vidpred_jax.data import files, prepare
from vidpred_jax.train import workdir


def test_a_file_and_a_folder_appear_when_they_are_complete(tmp_path):
  for _ in range(2):  # made, then replaced
    with atomic.replacing(tmp_path / 'a.txt') as partial:
      assert partial.parent == tmp_path and partial.suffix == '.txt'
      partial.write_text('new')
    with atomic.replacing(tmp_path / 'b') as partial:
      partial.mkdir()
      (partial / 'c').write_text('new')
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*')}
    assert names == {'a.txt', 'b', 'b/c'}
    (tmp_path / 'b' / 'd').write_text('of the old folder')


def test_after_an_error_the_old_one_is_there_and_nothing_else(tmp_path):
  atomic.write_text(tmp_path / 'a', 'old')
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'c').write_text('old')
  for name in 'ab':
    with pytest.raises(OSError, match='full'):
      with atomic.replacing(tmp_path / name) as partial:
        partial.write_text('half of')
        raise OSError('full')
  with pytest.raises(OSError):  # the block made nothing
    with atomic.replacing(tmp_path / 'b'):
      pass
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a', 'b']
  assert (tmp_path / 'a').read_text() == 'old'
  assert (tmp_path / 'b' / 'c').read_text() == 'old'


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
  def write(self, text, encoding):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(pathlib.Path, 'write_text', write)
  with pytest.raises(
    OSError, match='a.txt could not be written: No space left'
  ):
    atomic.write_text(tmp_path / 'a.txt', 'new')


def test_what_cannot_be_written_is_told_before_the_work(tmp_path):
  atomic.check_new(tmp_path / 'a.npy')
  atomic.check_new(tmp_path / 'b' / 'c' / 'd', parents=True)
  assert not list(tmp_path.iterdir())
  (tmp_path / 'a.npy').write_text('')
  (tmp_path / 'link').symlink_to(tmp_path / 'nothing')
  atomic.check_new(tmp_path / 'a.npy', overwrite=True)
  for name in ('a.npy', 'link'):
    with pytest.raises(FileExistsError, match=f'{name} exists already'):
      atomic.check_new(tmp_path / name)
  for wrong, parents in (('x/y.mp4', False), ('a.npy/y/z', True)):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
      atomic.check_new(tmp_path / wrong, parents=parents)
  with pytest.raises(
    OSError, match='xx cannot be written: .*File name too long'
  ):
    atomic.check_new(tmp_path / ('x' * 300))


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='has no /proc')
@pytest.mark.parametrize('name', ['o.mp4', 'o', 'o.npy', 'o/p/q'])
def test_a_place_that_takes_nothing(name):
  with pytest.raises(OSError, match=f'/proc/{name} cannot be written'):
    atomic.check_new(f'/proc/{name}', parents=True)


@pytest.mark.parametrize('name', ['a.npy', 'folder'])
def test_what_another_process_wrote_meanwhile_stays(tmp_path, name):
  path = tmp_path / name
  with pytest.raises(FileExistsError, match=f'{name} exists already'):
    with atomic.replacing(path, overwrite=False) as partial:
      for place, text in ((path, 'theirs'), (partial, 'ours')):
        if name == 'folder':
          place.mkdir()
          place = place / 'a'
        place.write_text(text)
  assert [p.name for p in tmp_path.iterdir()] == [name]
  text = (path / 'a' if name == 'folder' else path).read_text()
  assert text == 'theirs'


def test_an_error_of_reading_keeps_its_words(tmp_path):
  with pytest.raises(FileNotFoundError, match='There is no film x'):
    with atomic.replacing(tmp_path / 'a'):
      raise FileNotFoundError('There is no film x')
  with pytest.raises(FileNotFoundError, match="No such file.*'.*/film'"):
    with atomic.replacing(tmp_path / 'a'):
      (tmp_path / 'film').read_bytes()


_HOLD = """
import pathlib, sys, time
from vidpred_jax import atomic
with atomic.holding(sys.argv[1]):
  (atomic.beside(pathlib.Path(sys.argv[1], 'film.mp4'))).touch()
  (atomic.beside(pathlib.Path(sys.argv[1], 'pictures'))).mkdir()
  print('held', flush=True)
  time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that holds a folder and makes things in it."""
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLD, tmp_path],
    stdout=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(__file__).parents[1],
  )
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.wait()


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, holder):
  who = rf'process {holder.pid} on {re.escape(socket.gethostname())}'
  before = sorted(tmp_path.iterdir())
  for _ in range(2):
    with pytest.raises(ValueError, match=f'in use by {who}; wait'):
      with atomic.holding(tmp_path):
        pass
  with atomic.replacing(tmp_path / 'film.mp4') as partial:
    partial.touch()
  assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / 'film.mp4'])


def test_what_a_killed_process_held_and_made_is_free(tmp_path, holder):
  holder.kill()
  holder.wait()
  assert len(list(tmp_path.iterdir())) == 3
  for name in ('.thesis.part', '.part1-notours', '.a.b', '.git'):
    (tmp_path / name).touch()
  with atomic.holding(tmp_path):
    assert len(list(tmp_path.iterdir())) == 5
  assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize('name', ['film.mp4', 'pictures'])
def test_the_next_to_make_the_same_clears_what_was_left(tmp_path, holder, name):
  holder.kill()
  holder.wait()
  left = set(tmp_path.glob(f'.{pathlib.Path(name).stem}.part*'))
  others = set(tmp_path.iterdir()) - left
  atomic.beside(tmp_path / name)
  assert left and set(tmp_path.iterdir()) == others


def test_what_another_machine_makes_is_left_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(socket, 'gethostname', lambda: 'far.away')
  theirs = atomic.beside(tmp_path / 'a.mp4')
  theirs.touch()
  monkeypatch.undo()
  atomic.write_text(tmp_path / 'a.mp4', 'mine')
  assert theirs.exists()


@pytest.mark.parametrize('held', [False, True])
def test_killed_between_two_moves_the_old_one_comes_back(tmp_path, held):
  old = atomic.beside(tmp_path / 'export')
  old = old.with_name(old.name.replace('.part', '.old'))
  old.mkdir()
  (old / 'weights').touch()
  if held:
    with atomic.holding(tmp_path):
      pass
  else:
    atomic.beside(tmp_path / 'export')
  assert [p.name for p in tmp_path.rglob('*')] == ['export', 'weights']


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.EOPNOTSUPP, None])
def test_without_locks_there_is_a_warning(tmp_path, monkeypatch, caplog, code):
  def none(*_):
    raise OSError(code, os.strerror(code))

  if code is None:
    monkeypatch.setattr(atomic, 'fcntl', None)
  else:
    monkeypatch.setattr(atomic.fcntl, 'flock', none)
  with atomic.holding(tmp_path):
    atomic.write_text(tmp_path / 'a', 'b')
  assert [p.name for p in tmp_path.iterdir()] == ['a']
  assert 'cannot be locked' in caplog.text


@pytest.mark.parametrize(
  'path', ['gs://bucket/run', 's3://b/x.npz', pathlib.Path('gs://bucket/run')]
)
def test_addresses_are_refused_and_nothing_is_made(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  for use in (
    atomic.beside,
    lambda path: atomic.write_text(path, 'x'),
    lambda path: next(iter(workdir.held(path).gen)),
    lambda path: prepare.prepare('videos', path),
    lambda path: files.find(path, list, 'videos', '*.mp4'),
  ):
    with pytest.raises(ValueError, match='an address, not a path'):
      use(path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'path', ['run', '/tmp/run', './a:/b', 'C:/run', '12:30:05.mp4', 'a:b']
)
def test_paths_are_no_addresses(path):
  atomic.check_local(path)


def test_a_lock_is_given_back_after_an_error(tmp_path):
  for _ in range(2):
    with pytest.raises(KeyError), atomic.holding(tmp_path):
      raise KeyError
  assert not list(tmp_path.iterdir())
