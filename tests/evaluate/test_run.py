"""Evaluation by a configuration: what is made, measured, written, shown."""

import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.evaluate.toys import DRAWN, drawing
from vidpred_jax import build, command, data
from vidpred_jax.evaluate import run as evaluation


@pytest.fixture
def config(monkeypatch):
  """A small protocol of photographs in motion, for `drawing`."""
  monkeypatch.setattr(build, 'system', lambda config, frames: drawing())
  return ConfigDict(
    {
      'system': 'rvd',
      'model': {},
      'init_from': '',
      'frames': {'context': (0, 1), 'target': (2,)},
      'data': {'source': 'photos', 'size': (16, 16)},
      'eval': {
        'frames': {'context': (0, 1), 'target': (2, 3, 4)},
        'data': {},
        'split': 'test',
        'batch_size': 4,
        'metrics': ('crps/ens', 'rank_deviation/round8', 'psnr/float'),
        'lpips': {'backbone': '', 'heads': ''},
        'i3d': '',
        'samples': 4,
        'samples_at_once': 2,
        'mean_frame': 3,
        'limit': 5,
        'quick_limit': 2,
        'seed': 0,
        'show': 2,
        'save': 0,
        'show_as': 'gif',
        'show_fps': 2,
      },
    }
  )


@pytest.fixture
def workdir(monkeypatch, tmp_path):
  """The folder of a run of `drawing`."""
  record = {'system': 'rvd', 'sha256': 'abc'}
  monkeypatch.setattr(
    evaluation.checkpoint, 'read', lambda path: (record, DRAWN)
  )
  monkeypatch.setattr(
    evaluation.checkpoint, 'check_variables', lambda *args: DRAWN
  )
  (tmp_path / 'export').mkdir()
  return tmp_path


def test_a_forecast_by_samples_is_written_and_shown(config, workdir):
  told = evaluation.run(config, workdir)
  found = json.loads((workdir / 'results.json').read_text())
  assert found['protocol']['samples'] == 4 and found['clips'] == 5
  assert found['protocol']['mean_frame_of_clips'] == 3
  assert set(found['baselines']) == {'copy_last', 'mean_frame'}
  for values in (found['metrics'], *found['baselines'].values()):
    assert set(values) == set(config.eval.metrics)
  assert found['metrics']['crps/ens'] == told['metrics']['crps/ens']
  assert len(found['metrics']['rank_deviation/round8']['histogram']) == 5
  for name in ('picture.png', 'video.gif', 'ranks.png'):
    assert (workdir / name).stat().st_size > 1000, name


def test_weights_of_metrics_are_told_by_their_content(config, workdir):
  without = build.evaluation(config)._replace(metrics={})
  for name in ('i3d', 'alex', 'heads'):
    (workdir / f'{name}.pt').write_text(name)
  config.eval.i3d = str(workdir / 'i3d.pt')
  config.eval.lpips.backbone = str(workdir / 'alex.pt')
  config.eval.lpips.heads = str(workdir / 'heads.pt')
  config.eval.show = 0

  def file(name):
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {'file': f'{name}.pt', 'sha256': digest}

  lpips = {'backbone': file('alex'), 'heads': file('heads')}
  fvd = {'i3d': file('i3d')}
  for names, expected in (
    (('psnr/float',), {}),
    (('fvd/i3d400', 'fvd/i3d400_context'), {'fvd': fvd}),
    (('lpips/alex_best', 'fvd/i3d400'), {'lpips': lpips, 'fvd': fvd}),
  ):
    config.eval.metrics = names
    evaluation.run(config, workdir, evaluation.make_measure(config, without))
    found = json.loads((workdir / 'results.json').read_text())
    assert found['protocol']['metric_weights'] == expected


def test_the_card_of_an_export_says_what_was_measured(config, workdir):
  results = evaluation.run(config, workdir)
  card = (workdir / 'export' / 'README.md').read_text()
  assert card.startswith(f'# {workdir.name}\n')
  for said in (
    '"photos"',
    'the frames [2] of a clip from [0, 1],',
    'measured with [2, 3, 4] from [0, 1].',
    '\n## Settings\n',
    f'{results["clips"]} clips of',
    'crps/ens',
  ):
    assert said in card, said
  mean = results['metrics']['crps/ens']['mean']
  assert f'{mean:.4g}'[:5] in card and 'copy_last' in card
  assert ' {' not in card.partition('## Measured')[2]  # no format left open


def test_frames_that_weights_depend_on_are_asked_for_before_training():
  def check(config):
    build.check_frames(config, build.evaluation(config))

  config = command.configuration('simvp.py:smoke')
  check(config)
  config.frames.context, config.frames.target = (0, 1), (2, 3)
  with pytest.raises(
    ValueError, match='trained for 2 frames of 2, and evaluated for'
  ):
    check(config)
  config = command.configuration('dmvfn.py:smoke')  # whose weights do not
  config.eval.frames.target = (2, 3, 4, 5)
  check(config)


def test_the_mean_frame_is_that_of_training_clips(config):
  protocol = build.evaluation(config)
  training = data.make_source(
    'photos', split='train', num_frames=5, size=(16, 16)
  )
  count = len(training)
  some = [training[i * count // 3]['video'] for i in range(3)]
  expected = np.mean(some, (0, 1)) / 255
  assert protocol.mean_frame.shape == (16, 16, 3)
  np.testing.assert_allclose(protocol.mean_frame, expected, rtol=1e-5)
  config.eval.mean_frame = 0
  assert build.evaluation(config).mean_frame is None


def test_fvd_needs_weights_and_nine_frames(config, monkeypatch, tmp_path):
  config.eval.metrics = ('fvd/i3d400',)
  with pytest.raises(
    ValueError, match='fvd/i3d400 needs variables=convert.i3d'
  ):
    build.evaluation(config)
  config.eval.i3d = str(tmp_path / 'i3d.pt')
  with pytest.raises(FileNotFoundError, match='i3d.pt is not there.*https'):
    build.evaluation(config)
  (tmp_path / 'i3d.pt').touch()
  monkeypatch.setattr(
    build.convert, 'i3d', lambda path: {'Conv3d_1a_7x7': path}
  )
  with pytest.raises(ValueError, match='9 frames or more, these have 3'):
    build.evaluation(config)


def test_quick_evaluation_gives_means(config):
  measure = evaluation.make_measure(config, build.evaluation(config))
  clips = build.source(config, 'test')
  found = evaluation.quick_eval(config, DRAWN, measure, clips)
  assert list(found) == list(config.eval.metrics)
  assert all(np.isfinite(list(found.values())))


def test_variables_of_a_field_are_measured_one_by_one():
  class Source:
    kind, variables, latitudes = 'field', ('t2m', 'z500'), None
    mean, std = np.zeros(2), np.ones(2)

  protocol = {'metrics': ('mae/mean',), 'lpips': {'backbone': '', 'heads': ''}}
  config = ConfigDict({'eval': protocol})
  measures = build.metrics(config, Source())
  assert list(measures) == ['mae/mean[t2m]', 'mae/mean[z500]']
  pred = jnp.zeros((1, 2, 4, 4, 2))
  target = pred + jnp.array([1.0, 50.0]).reshape(1, 1, 1, 1, 2)
  for measure, expected in zip(measures.values(), (1, 50)):
    np.testing.assert_allclose(measure.values(pred, target), expected)
  config.eval.metrics = ('rmse/latitude',)
  with pytest.raises(ValueError, match='needs physical fields with latitudes'):
    build.metrics(config, Source())
  source = Source()
  source.latitudes = np.linspace(60, -60, 4)
  config.eval.metrics = ('acc/latitude',)
  with pytest.raises(ValueError, match='acc/latitude needs climatology'):
    build.metrics(config, source)
  # Anomalies of one sign from one mean and of two from the other.
  source.climatology = np.zeros((4, 4, 2)) + (-1, 25)
  measures = build.metrics(config, source)
  for measure, expected in zip(measures.values(), (1, -1)):
    np.testing.assert_allclose(measure.values(pred, target), expected)
