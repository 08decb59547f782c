"""Runs on object storage, for which fsspec's memory and a disk stand in."""

import contextlib
import errno
import json
import os
import threading

import fsspec
import jax
import numpy as np
import pytest

from tests.train.test_loop import tiny_config
from vidpred_jax import checkpoint, compare
from vidpred_jax.checkpoint import mirror, remote
from vidpred_jax.evaluate import run as evaluation
from vidpred_jax.train import loop

ADDRESS = 'memory://bucket/runs/a'
DOWN = ConnectionError('the line is down')


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """Where working copies are made; each test leaves it empty."""
  place = tmp_path / 'here'
  place.mkdir()
  monkeypatch.setattr(mirror.tempfile, 'tempdir', str(place))
  return place


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run on a disk, which those at addresses are compared with."""
  workdir = tmp_path_factory.mktemp('run') / 'a'
  config = tiny_config(steps=4, checkpoint_every=1, log_every=1)
  assert loop.run(config, workdir)
  evaluation.run(config, workdir)
  return config, workdir


@pytest.fixture
def there(finished, memory):
  """The finished run at its address."""
  memory.put(str(finished[1]), '/bucket/runs/a', recursive=True)


def names(files, root='/bucket/runs/a'):
  return {x[len(root) + 1 :] for x in files.find(root)}


def same_weights(one, other):
  a, b = (checkpoint.read(x)[1] for x in (one, other))
  jax.tree.map(np.testing.assert_array_equal, a, b)


def steps(files):
  found = [x.split('/') for x in names(files)]
  return sorted({x[1] for x in found if x[0] == 'checkpoints'})


class Plug(Exception):
  """The machine was switched off."""


def pulled(patch, at, before_last_copy=False):
  """Ends a run after its checkpoint of a step, with or without its copy."""
  save = loop.checkpoint.save

  def save_then_die(saved, step, *args, **kwargs):
    save(saved, step, *args, **kwargs)
    if step == at:
      raise Plug

  patch.setattr(loop.checkpoint, 'save', save_then_die)
  if before_last_copy:
    patch.setattr(mirror._Copies, 'end', lambda self, raises: None)


def waiting(patch):
  """Makes training wait for copies: the toy is faster than they are."""
  begin = mirror._Copies.begin

  def begin_and_wait(self):
    begin(self)
    if self._thread:
      self._thread.join()

  patch.setattr(mirror._Copies, 'begin', begin_and_wait)


@contextlib.contextmanager
def failing(memory, where='', *, how='put_file', error=DOWN):
  """Moves of files whose names hold `where` fail."""
  move = getattr(memory, how)

  def fails(source, target):
    if where in (target if how == 'put_file' else source):
      raise error
    move(source, target)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(type(memory), how, staticmethod(fails))
    yield


@contextlib.contextmanager
def noting(memory, note):
  """Calls `note` with each file that is put or removed, and how, after it."""

  def noted(how):
    do = getattr(memory, how)

    def done(*args):
      do(*args)
      note(how, args[-1].removeprefix('/bucket/runs/a/'))

    return staticmethod(done)

  with pytest.MonkeyPatch.context() as patch:
    for how in ('put_file', 'rm_file'):
      patch.setattr(type(memory), how, noted(how))
    yield


@pytest.mark.parametrize('address', [ADDRESS, 'file://{}/storage/a'])
def test_a_run_at_an_address_is_the_run_of_a_disk(
  finished, memory, address, tmp_path, here
):
  config, workdir = finished
  address = address.format(tmp_path)
  assert loop.run(config, address)
  results = evaluation.run(config, address)
  for path in workdir.rglob('*'):
    name = path.relative_to(workdir).as_posix()
    if path.is_file() and not name.startswith(('events', 'checkpoints')):
      with fsspec.open(f'{address}/{name}') as file:
        there = file.read()
      if name not in ('metrics.jsonl', 'results.json', 'curves.png'):  # times
        assert there == path.read_bytes(), name
  same_weights(workdir, address)
  assert checkpoint.read_data_spec(address).kind == 'image'
  expected = compare.read(workdir)['metrics']
  assert results['metrics'] == compare.read(address)['metrics'] == expected
  # It is finished there, too.
  assert loop.run(config, address)
  assert not list(here.iterdir())


@pytest.mark.parametrize('before_last_copy', [False, True])
def test_another_machine_goes_on_bit_for_bit(
  finished, memory, monkeypatch, before_last_copy, here
):
  config, workdir = finished
  with monkeypatch.context() as patch:
    pulled(patch, 3, before_last_copy)
    with pytest.raises(Plug):
      loop.run(config, ADDRESS)
  kept = ['2'] if before_last_copy else ['2', '3']
  assert set(kept) <= set(steps(memory))
  checkpoint.load(ADDRESS)  # an unfinished run loads too
  assert loop.run(config, ADDRESS)
  assert steps(memory) == ['3', '4']
  same_weights(workdir, ADDRESS)
  logged = memory.cat('/bucket/runs/a/metrics.jsonl').splitlines()
  assert [json.loads(x)['step'] for x in logged] == [1, 2, 3, 4]


def test_at_any_moment_the_address_has_a_run_that_goes_on(finished, memory):
  """After each single file that is put or removed there."""
  config, workdir = finished
  moments = []

  def note(*_):
    moments.append(
      {x: memory.cat(f'/bucket/runs/a/{x}') for x in names(memory)}
    )

  with noting(memory, note):
    assert loop.run(config, ADDRESS)
  assert len(moments) > 30
  begun = {}
  for content in moments:
    whole = remote.of_weights(content)
    key = tuple(sorted(x for x in whole if mirror.sign(x)))
    begun.setdefault(key, content)  # the first at which these are the newest
    # Of a checkpoint that is whole, all is there.
    for name in key:
      assert content[name] == moments[-1].get(name, content[name])
    assert remote.CONFIG in content
  assert len(begun) == 6  # none, four checkpoints, the export
  for content in list(begun.values())[1:3]:
    memory.rm('/bucket', recursive=True)
    memory.pipe({f'/bucket/runs/a/{x}': data for x, data in content.items()})
    assert loop.run(config, ADDRESS)
    same_weights(workdir, ADDRESS)


def test_a_checkpoint_half_copied_is_left_out_and_cleared(
  finished, memory, there
):
  config, workdir = finished
  memory.rm('/bucket/runs/a/export', recursive=True)
  memory.rm_file('/bucket/runs/a/checkpoints/4/_CHECKPOINT_METADATA')
  memory.pipe('/bucket/runs/a/checkpoints/4/state/d/left', b'over')
  assert loop.run(config, ADDRESS)
  assert 'checkpoints/4/state/d/left' not in names(memory)
  same_weights(workdir, ADDRESS)


def test_a_network_that_goes_away_does_not_stop_training(
  finished, memory, monkeypatch, caplog
):
  config, workdir = finished
  put, failed = memory.put_file, []

  def flaky(source, target):
    if '/checkpoints/2/' in target and not failed:
      failed.append(target)
      raise DOWN
    put(source, target)

  waiting(monkeypatch)
  monkeypatch.setattr(type(memory), 'put_file', staticmethod(flaky))
  assert loop.run(config, ADDRESS)
  assert failed
  assert caplog.text.count('the line is down). The next checkpoint tries') == 1
  assert steps(memory) == ['3', '4']
  same_weights(workdir, ADDRESS)


@pytest.mark.parametrize('address', [ADDRESS, 'file://{}/storage/a'])
def test_what_is_deleted_there_already_is_no_error(
  finished, memory, address, monkeypatch, tmp_path, caplog
):
  config, workdir = finished
  address = address.format(tmp_path)
  files, _ = fsspec.url_to_fs(address)
  remove, gone = files.rm_file, []

  def of_a_lost_reply(path):
    remove(path)
    gone.append(path)
    remove(path)

  with monkeypatch.context() as patch:
    patch.setattr(type(files), 'rm_file', staticmethod(of_a_lost_reply))
    assert loop.run(config, address)
  assert gone and 'tries again' not in caplog.text
  same_weights(workdir, address)


def test_a_disk_without_second_names_is_enough(
  finished, memory, monkeypatch, caplog
):
  config, workdir = finished

  def link(source, target):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

  waiting(monkeypatch)
  monkeypatch.setattr(mirror.os, 'link', link)
  assert loop.run(config, ADDRESS)
  assert not caplog.text
  same_weights(workdir, ADDRESS)


def test_a_full_disk_here_is_no_fault_of_the_storage(
  finished, memory, monkeypatch, caplog, here
):
  config, workdir = finished
  copy, failed = mirror.shutil.copy2, []

  def full(source, target):
    if source.name == 'metrics.jsonl' and not failed:
      failed.append(target)
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    copy(source, target)

  waiting(monkeypatch)
  monkeypatch.setattr(mirror.shutil, 'copy2', full)
  assert loop.run(config, ADDRESS)
  assert failed and not list(here.iterdir())
  (said,) = caplog.messages
  assert said.startswith(f'{ADDRESS} was not written to: ')
  assert 'No space left' in said and said.endswith('tries again.')
  same_weights(workdir, ADDRESS)

  error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  with (
    failing(memory, how='get_file', error=error),
    pytest.raises(OSError, match='could not be written: No space') as told,
  ):
    loop.run(config, ADDRESS)
  assert 'reached' not in str(told.value)


def test_an_export_that_is_replaced_is_never_torn(finished, memory):
  config, done = finished[0], []
  assert loop.run(config, ADDRESS)
  with noting(memory, lambda *change: done.append(change)):
    assert loop.run(config, ADDRESS)  # writes the export once more
    assert [x for x in done if x[1].startswith('export/')] == [
      ('rm_file', 'export/system.json'),
      ('put_file', 'export/weights.safetensors'),
      ('put_file', 'export/system.json'),
    ]
    # A card says nothing of weights, so they stay.
    done.clear()
    evaluation.run(config, ADDRESS)
    assert [x for x in done if x[1].startswith('export/')] == [
      ('put_file', 'export/README.md')
    ]


def test_a_network_that_stays_away_loses_nothing(
  finished, memory, caplog, here
):
  config, workdir = finished
  with (
    failing(memory, '/checkpoints/'),
    pytest.raises(OSError, match=f'^{ADDRESS} could not be comp.*is down'),
  ):
    loop.run(config, ADDRESS)
  (kept,) = here.iterdir()
  assert f'--workdir={kept} goes on from there' in caplog.text
  same_weights(workdir, kept)
  with pytest.raises(FileNotFoundError, match='nor a run with a checkpoint'):
    checkpoint.load(ADDRESS)
  mirror.shutil.rmtree(kept)
  # What was there already does not stand in the way.
  assert loop.run(config, ADDRESS)
  same_weights(workdir, ADDRESS)


def test_a_run_that_fails_says_what_its_last_copy_failed_of(
  finished, memory, monkeypatch, caplog, here
):
  save = loop.checkpoint.save
  with contextlib.ExitStack() as stack:

    def save_then_die(*args, **kwargs):
      save(*args, **kwargs)
      stack.enter_context(failing(memory))
      raise Plug

    monkeypatch.setattr(loop.checkpoint, 'save', save_then_die)
    with pytest.raises(Plug):
      loop.run(finished[0], ADDRESS)
  (kept,) = here.iterdir()
  reason, place = caplog.messages[-2:]
  assert f'{ADDRESS} could not be completed: ' in reason
  assert 'the line is down' in reason
  assert f'--workdir={kept} goes on from there' in place


def test_results_that_do_not_arrive_are_not_trained_over(
  finished, memory, there, caplog, here
):
  config, _ = finished
  with (
    failing(memory, 'results.json'),
    pytest.raises(OSError, match=f'^{ADDRESS} could not be completed'),
  ):
    evaluation.run(config, ADDRESS)
  (kept,) = here.iterdir()
  assert f'lacks what is in {kept}; the results lie there' in caplog.text
  assert f'evaluating {ADDRESS} again' in caplog.text
  assert 'goes on from there' not in caplog.text
  # There is no checkpoint in it to go on from.
  before = (kept / 'export' / 'system.json').read_bytes()
  with pytest.raises(ValueError, match='has an export and no checkpoints'):
    loop.run(config, kept)
  assert (kept / 'export' / 'system.json').read_bytes() == before
  results = json.loads((kept / 'results.json').read_text())
  assert evaluation.run(config, ADDRESS)['metrics'] == results['metrics']
  mirror.shutil.rmtree(kept)


def test_a_slow_storage_does_not_hold_training_up(
  finished, memory, monkeypatch, caplog
):
  """Each checkpoint is deleted here before the first one has been copied."""
  config, workdir = finished
  put, trained = memory.put_file, threading.Event()
  end = mirror._Copies.end

  def slow(source, target):
    if '/checkpoints/1/' in target:
      assert trained.wait(60)
    put(source, target)

  def ended(self, raises):
    threading.Timer(0.2, trained.set).start()  # while it is waited for
    end(self, raises)

  monkeypatch.setattr(type(memory), 'put_file', staticmethod(slow))
  monkeypatch.setattr(mirror._Copies, 'end', ended)
  monkeypatch.setattr(mirror, '_QUIET', 0)
  assert loop.run(config, ADDRESS)
  assert 'still goes on; the next checkpoint is copied after' in caplog.text
  assert f'The copy to {ADDRESS} still goes on; waiting.' in caplog.text
  assert steps(memory) == ['3', '4']
  same_weights(workdir, ADDRESS)


def test_what_cannot_be_written_shows_before_training(
  finished, memory, monkeypatch, here
):
  monkeypatch.setattr(loop, '_run', None)
  with (
    failing(memory, error=PermissionError('403: no access to this bucket')),
    pytest.raises(ValueError, match=f'{ADDRESS} cannot be .*403: no acc'),
  ):
    loop.run(finished[0], ADDRESS)


def test_a_bucket_that_is_not_there_is_named(finished, memory, monkeypatch):
  def find(path, **kwargs):
    raise FileNotFoundError('The specified bucket does not exist')

  monkeypatch.setattr(type(memory), 'find', staticmethod(find))
  with pytest.raises(FileNotFoundError, match=f'^{ADDRESS}: The specified'):
    loop.run(finished[0], ADDRESS)


def test_a_network_that_goes_away_at_the_beginning_leaves_nothing(
  finished, memory, there, here, caplog
):
  with (
    failing(memory, 'metrics.jsonl', how='get_file'),
    pytest.raises(ValueError, match=f'^{ADDRESS} cannot be reached .*down'),
  ):
    loop.run(finished[0], ADDRESS)
  assert not list(here.iterdir()) and 'lacks' not in caplog.text


def test_another_run_is_left_alone(memory, there, here):
  before = {x: memory.cat(f'/bucket/runs/a/{x}') for x in names(memory)}
  with pytest.raises(ValueError, match=f'^{ADDRESS} holds another run.*seed'):
    loop.run(tiny_config(steps=4, checkpoint_every=1, seed=1), ADDRESS)
  assert before == {x: memory.cat(f'/bucket/runs/a/{x}') for x in names(memory)}
  assert not list(here.iterdir())


def test_a_run_that_begins_there_meanwhile_is_left_alone(
  finished, memory, monkeypatch, here
):
  config, _ = finished
  save = loop.checkpoint.save

  def save_late(*args, **kwargs):
    save(*args, **kwargs)
    memory.pipe('/bucket/runs/a/config.json', b'{"seed": 7}')

  monkeypatch.setattr(loop.checkpoint, 'save', save_late)
  with pytest.raises(OSError, match='Another process has written to memory:'):
    loop.run(config, ADDRESS)
  assert memory.cat('/bucket/runs/a/config.json') == b'{"seed": 7}'
  assert (next(here.iterdir()) / 'export' / 'system.json').exists()


def test_an_address_with_other_things_is_not_fetched(finished, memory, here):
  memory.pipe('/bucket/runs/a/notes.txt', b'mine')
  with pytest.raises(ValueError, match='not empty and holds no run'):
    loop.run(finished[0], ADDRESS)
  with pytest.raises(FileNotFoundError, match=f'^{ADDRESS} holds no weights'):
    evaluation.run(finished[0], ADDRESS)
  assert names(memory) == {'notes.txt'}
  assert not list(here.iterdir())


def test_a_name_that_leads_out_is_refused(finished, memory, here):
  memory.pipe('/bucket/runs/a/../../../out', b'x')
  memory.store['/bucket/runs/a/../../out'] = memory.store[
    '/bucket/runs/a/../../../out'
  ]
  with pytest.raises(ValueError, match='which leads out of it'):
    loop.run(finished[0], ADDRESS)


def test_several_processes_need_a_folder(finished, monkeypatch):
  monkeypatch.setattr(mirror.jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match='2 processes; expected the path of a'):
    with mirror.working(ADDRESS):
      pass
