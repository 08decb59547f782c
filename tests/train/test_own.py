"""Runs whose clips are a user's own: arrays, and objects in Python."""

import json

import numpy as np
import pytest

from tests.train import test_loop
from vidpred_jax import build, checkpoint
from vidpred_jax.evaluate import run as evaluation
from vidpred_jax.train import loop


class Clips:
  """Dots that move, uint8 [3, 32, 32, 3]."""

  def __init__(self, count=8, channels=3):
    self.count, self.channels = count, channels

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    y, x = np.mgrid[:32, :32]
    frames = [
      np.exp(-((y - 9 - i - t) ** 2 + (x - 12 - t) ** 2) / 9) for t in range(4)
    ]
    video = np.repeat(np.stack(frames)[..., None], self.channels, -1)
    return {'video': (255 * video).astype(np.uint8)}


def tiny_config():
  config = test_loop.tiny_config()
  config.eval.metrics = ()
  config.eval.show = 0
  config.steps = 3
  return config


def test_objects_train_and_are_measured(tmp_path):
  config = tiny_config()
  sources = {'train': Clips(), 'test': Clips(3)}
  assert loop.run(config, tmp_path / 'run', sources=sources)
  written = evaluation.run(config, tmp_path / 'run', sources=sources)
  assert written['clips'] == 3
  assert set(written['metrics']) == {'psnr/float', 'ssim/pmss', 'mae/mean'}
  card = (tmp_path / 'run' / 'export' / 'README.md').read_text()
  assert '3 clips of Clips, split test.' in card
  assert "Objects of one's own, in batches of" in card and '"own"' not in card
  kept = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert kept['data'] == {'source': 'own'}
  _, variables = checkpoint.load(tmp_path / 'run')
  assert 'params' in variables
  # The command line cannot go on with them, and says so.
  config.data.unlock()
  config.data = {'source': 'own'}
  config.eval.data.unlock()
  config.eval.data = {}
  with pytest.raises(ValueError, match="no data source 'own'"):
    loop.run(config, tmp_path / 'other')


def test_objects_for_validation_are_measured_while_training(tmp_path):
  config = tiny_config()
  config.eval.every = 2
  sources = {'train': Clips(), 'test': Clips(3)}
  with pytest.raises(ValueError, match="quick_split='val'.*has train, test"):
    loop.run(config, tmp_path / 'run', sources=sources)
  sources['val'] = Clips(2)
  assert loop.run(config, tmp_path / 'run', sources=sources)
  text = (tmp_path / 'run' / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  assert [x['step'] for x in lines if 'psnr/float' in x] == [2]


def test_objects_of_other_channels_are_refused(tmp_path):
  config = tiny_config()
  with pytest.raises(ValueError, match='frames of 2 channels; this.* sees 3'):
    loop.run(config, tmp_path, sources={'train': Clips(channels=2)})
  with pytest.raises(ValueError, match="split 'test'; sources has train"):
    build.evaluation(config, {'train': Clips()})


@pytest.mark.parametrize('name', ['simvp', 'rvd'])
def test_channels_are_those_of_the_arrays(tmp_path, name):
  config = test_loop.smoke_config(name)
  # The fields of the variant `arrays` that matter.
  with config.unlocked():
    config.data = {'source': 'arrays', 'root': str(tmp_path / 'a.npy')}
    config.eval.data = {}
  config.eval.metrics = ()
  config.eval.mean_frame = 0
  config.model.channels = None
  values = np.random.default_rng(0).normal(size=(4, 6, 16, 16, 5))
  np.save(tmp_path / 'a.npy', values)
  complete = build.completed(config)
  assert complete.model.channels == 5 and config.model.channels is None
  assert build.completed(complete) is complete
  described = build.evaluation(config)
  assert described.system.channels == 5
  assert described.system.data.variables == ('c0', 'c1', 'c2', 'c3', 'c4')
  assert set(described.metrics) >= {'rmse/mean[c0]', 'mae/mean[c4]'}
  np.save(tmp_path / 'a.npy', values.astype(np.uint8))
  assert 'psnr/float' in build.evaluation(config).metrics
  np.save(tmp_path / 'a.npy', values[:, :2])
  with pytest.raises(ValueError, match='the longest has 2'):
    build.evaluation(config)
