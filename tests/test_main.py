"""The command as a user runs it: separate processes, signals, two hosts."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests import commands
from vidpred_jax import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Those of `conftest` that this XLA has, but for the number of devices.
QUICK = ' '.join(
  flag
  for flag in os.environ['VIDPRED_JAX_TEST_FLAGS'].split()
  if 'device_count' not in flag
)
TINY = (
  '--config=configs/dmvfn.py:smoke',
  '--config.model.scales=(2,)',
  '--config.model.widths=(8,)',
  '--config.data.size=(32,32)',
  '--config.checkpoint_every=4',
)


def start(*arguments, module='vidpred_jax.main', devices=1):
  environment = dict(os.environ)
  environment['XLA_FLAGS'] = (
    f'{QUICK} --xla_force_host_platform_device_count={devices}'
  )
  return subprocess.Popen(
    [sys.executable, '-m', module, *map(str, arguments)],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process, timeout=300):
  out, err = process.communicate(timeout=timeout)
  return process.returncode, out, err


def command(*arguments, **kwargs):
  return finish(start(*arguments, **kwargs))


def wait_until(process, condition, timeout=200):
  """Waits for a process, and says why where it never comes so far."""
  end = time.time() + timeout
  while not condition():
    if process.poll() is not None or time.time() > end:
      process.kill()
      pytest.fail(f'It never came so far: {process.communicate()}')
    time.sleep(0.02)


def weights(workdir):
  return checkpoint.read(workdir)[1]


def log(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  for values in found:  # what it took is another time another
    for name in ('clips_per_second', 'epoch_seconds', 'data_wait'):
      values.pop(name, None)
  return found


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 40 steps that nobody disturbed."""
  workdir = tmp_path_factory.mktemp('main') / 'whole'
  status, out, err = command(
    *TINY,
    '--config.steps=40',
    '--config.log_every=1',
    '--config.eval.batch_size=4',
    f'--workdir={workdir}',
  )
  assert status == 0, err
  return workdir, out


def test_the_table_and_the_files(whole):
  workdir, out = whole
  assert 'psnr/float' in out and 'copy_last' in out and 't+1' in out
  report = json.loads((workdir / 'results.json').read_text())
  assert {
    'system',
    'checkpoint',
    'protocol',
    'clips',
    'seed',
    'versions',
    'metrics',
    'baselines',
  } <= set(report)
  assert report['system'] == 'dmvfn'
  assert report['protocol']['split'] == 'test'
  assert report['frames_per_second'] > 0 and 'frames a second' in out
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  timed = [json.loads(line) for line in lines[1:]]
  for values in timed:
    clips = values['clips_per_second'] * values['epoch_seconds']
    assert np.isclose(clips, 100_000)  # an epoch of photographs in motion
    assert 0 <= values['data_wait'] <= 1
  values = report['metrics']['psnr/float']
  assert len(values['per_frame']) == 2
  assert np.isclose(np.mean(values['per_frame']), values['mean'])
  assert set(report['baselines']['copy_last']) == set(report['metrics'])
  for name in ('picture.png', 'video.mp4', 'metrics.jsonl', 'config.json'):
    assert (workdir / name).stat().st_size > 100, name


def test_killed_by_sigkill_then_stopped_by_sigterm_it_ends_bit_identical(
  whole, tmp_path
):
  workdir, _ = whole
  place = tmp_path / 'a'
  arguments = (
    *TINY,
    '--config.steps=40',
    '--config.log_every=1',
    '--mode=train',
    f'--workdir={place}',
  )
  process = start(*arguments)
  wait_until(process, (place / 'checkpoints' / '8' / 'sums').exists)
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert not (place / 'export').exists()
  killed = log(place)[-1]['step']
  process = start(*arguments, '--config.checkpoint_every=1000')
  wait_until(process, lambda: log(place)[-1]['step'] > killed)
  process.send_signal(signal.SIGTERM)
  status, _, err = finish(process)
  assert status == 0, err
  with checkpoint.manager(place, read_only=True) as saved:
    assert killed < saved.latest_step() < 40
  assert not (place / 'export').exists()
  status, _, err = command(*arguments)
  assert status == 0, err
  jax.tree.map(np.testing.assert_array_equal, weights(workdir), weights(place))
  assert log(workdir) == log(place)


def test_two_processes_train_to_the_weights_of_one(tmp_path):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  arguments = (*TINY, '--config.steps=4', '--config.log_every=1')
  processes = [
    start(
      *arguments,
      f'--workdir={tmp_path / "two"}',
      f'--coordinator=127.0.0.1:{port}',
      '--num_processes=2',
      f'--process_id={i}',
    )
    for i in range(2)
  ]
  for process in processes:
    status, _, err = finish(process)
    assert status == 0, err
  status, _, err = command(*arguments, f'--workdir={tmp_path / "one"}')
  assert status == 0, err
  # Sums over a batch are taken in another order: equal up to rounding, which
  # Adam's division makes visible where a gradient is nearly zero.
  one, two = weights(tmp_path / 'one'), weights(tmp_path / 'two')
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), one, two
  )
  losses = [[x['loss'] for x in log(tmp_path / d)] for d in ('one', 'two')]
  np.testing.assert_allclose(*losses, rtol=1e-4)
  reports = [
    json.loads((tmp_path / d / 'results.json').read_text())
    for d in ('one', 'two')
  ]
  assert reports[0]['clips'] == reports[1]['clips']
  np.testing.assert_allclose(
    *[r['metrics']['psnr/float']['mean'] for r in reports], atol=0.02
  )


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--config=configs/dmvfn.py:smoek'], ['smoek', 'smoke', 'demo']),
    (['--config=configs/dvf.py'], ['dvf.py']),
    (
      [*TINY, '--config.stepz=3'],
      ["Error: --config has no field 'stepz'; it has accumulate, augment, "],
    ),
    (
      [*TINY, '--config.schedule.boundary=(3,)'],
      [
        "Error: --config.schedule has no field 'boundary'; it has b1_cycle, "
        'boundaries, '
        'factor, final, initial, name, peak, warmup.\n'
      ],
    ),
    ([*TINY, '--config.batch_size=7.5'], ['batch_size']),
    ([*TINY[:3], '--config.data.size=(30,32)'], ['30x32', '8']),
    ([*TINY, '--num_processes=2'], ['--coordinator']),
    ([*TINY, '--config.eval.metrics=("lpips/alex",)'], ['alexnet']),
    (
      [*TINY, '--config.init_from=nowhere'],
      ["init_from='nowhere'", 'Train them first'],
    ),
    (
      [*TINY, '--config.eval.data.dataset=kitti'],
      ["'photos' has no setting dataset; it has size, "],
    ),
    (
      [*TINY, '--config.eval.every=2'],
      ['eval.every=2', "eval.quick_split='val'", 'val_fraction=0'],
    ),
    ([*TINY, '--seeds=0'], ['--seeds', '0']),
    ([*TINY, '--mode=evaluate'], ['evaluate', 'train', 'eval']),
    ([*TINY, '--mode=eval'], ['holds no weights']),
    ([*TINY, 'config.steps=3'], ['config.steps=3', '--name=value']),
    ([*TINY, '--config.eval.best=psnr'], ["eval.best is 'psnr'", 'psnr/float']),
    (
      [*TINY, '--config.eval.best=psnr/float'],
      ["eval.best is 'psnr/float'", 'eval.every=0'],
    ),
    (['--config=LICENSE'], ['LICENSE']),
  ],
  ids=lambda x: x[-1] if isinstance(x, list) else '',
)
def test_a_users_mistake_is_one_line_without_a_traceback(
  arguments, words, tmp_path, forks
):
  said = forks.run(
    'vidpred_jax.main', *arguments, f'--workdir={tmp_path / "a"}'
  )
  commands.is_one_line(*said, *words)


def test_a_full_disk_is_one_message_and_keeps_the_older_checkpoints(
  whole, tmp_path
):
  """A run that is four steps from its end."""
  workdir = tmp_path / 'a'
  shutil.copytree(whole[0], workdir)
  for done in ('export', 'checkpoints/40'):
    shutil.rmtree(workdir / done)
  arguments = (
    *TINY,
    '--config.steps=40',
    '--mode=train',
    f'--workdir={workdir}',
  )
  # No file may grow beyond a few kB: what a full disk does to every write.
  limited = subprocess.run(
    [
      'bash',
      '-c',
      f'ulimit -f 16; exec {sys.executable} -m vidpred_jax.main "$@"',
      'bash',
      *arguments,
    ],
    cwd=ROOT,
    env=dict(os.environ) | {'XLA_FLAGS': QUICK},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert limited.returncode == 2, limited.stderr
  assert 'Traceback' not in limited.stderr
  assert 'could not be saved' in limited.stderr
  with checkpoint.manager(workdir, read_only=True) as saved:
    assert saved.latest_step() == 36
  status, _, err = command(*arguments)
  assert status == 0, err
  jax.tree.map(
    np.testing.assert_array_equal, weights(whole[0]), weights(workdir)
  )
