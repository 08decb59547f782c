"""The written results of an evaluation."""

import json

import numpy as np
import pytest
from PIL import Image

from vidpred_jax import picture, systems, video_io
from vidpred_jax.evaluate import report


def of_one(name, numbers, mean):
  return {name: {'per_frame': numbers, 'cumulative': numbers, 'mean': mean}}


def test_infinite_values_are_json():
  values = of_one('psnr/float', [float('inf'), 1.5], float('nan'))
  text = report.as_json({'a': values, 'b': (1, 2)})
  assert json.loads(text, parse_constant=pytest.fail) == {
    'a': of_one('psnr/float', ['inf', 1.5], 'nan'),
    'b': [1, 2],
  }


def test_the_table_names_frames_relative_to_the_last_one_seen():
  values = {
    'prediction': of_one('psnr/float', [30.5, 20.25], 25.375)
    | of_one('fvd/i3d400', [], 131.0),
    'copy_last': of_one('psnr/float', [10.0, 9.0], 9.5)
    | of_one('fvd/i3d400', [], 150.0),
  }
  lines = report.table(values, (2, 3), (4, 6)).splitlines()
  assert lines[0].split() == ['t+1', 't+3', 'mean']
  assert lines[1].split() == (
    ['psnr/float', 'prediction', '30.5000', '20.2500', '25.3750']
  )
  assert lines[2].split() == ['copy_last', '10.0000', '9.0000', '9.5000']
  # A number of a whole set stands below the means.
  assert lines[3].split() == ['fvd/i3d400', 'prediction', '131.0000']
  assert lines[3].index('131') > lines[1].index('20.25') + 5
  assert len({len(line) for line in lines}) == 1
  # Frames between two are counted from the first.
  lines = report.table(values, (2, 8), (4, 6)).splitlines()
  assert lines[0].split() == ['t+2', 't+4', 'mean']


FRAMES = systems.Frames((0, 1), (2, 3, 4))


def clip(seed, dtype=np.uint8):
  rng = np.random.default_rng(seed)
  shape = (3, 20, 24, 3)
  frames = rng.random((7, *shape), np.float32)
  if dtype == np.uint8:
    video = rng.integers(0, 256, (5, *shape[1:]), dtype=np.uint8)
  else:
    frames = 280 + 20 * frames[..., :2]
    video = np.concatenate([frames[5, :2], frames[6]])
  return report.Shown(
    video=video,
    prediction=frames[0],
    samples=frames[:3],
    mean=frames[3],
    spread=frames[4] - frames[4].min(),
    crps=10 * (frames[4] - frames[4].min()),
  )


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_samples_are_shown_beside_the_truth(tmp_path, monkeypatch, dtype):
  seen = []
  grid = picture.grid

  def spy(rows, **settings):
    seen.append((rows, settings))
    return grid(rows, **settings)

  monkeypatch.setattr(report.picture, 'grid', spy)
  clips = [clip(0, dtype), clip(1, dtype)]
  written = report.write_pictures(tmp_path, clips, FRAMES, fps=2, film='gif')
  assert written == ['picture.png', 'video.gif']
  rows, settings = seen[0]
  titles = settings['column_titles']
  parts = 3 if dtype == np.uint8 else 1
  errors = [c.crps[..., :parts].mean(-1) for c in clips]
  largest = np.quantile(errors, 0.99)
  assert titles[:6] == (
    ['context t', 'truth', 'sample 1', 'sample 2', 'sample 3', 'mean']
  )
  assert titles[6].startswith('spread, white ')
  assert titles[7] == f'crps, white {largest:.3g}'
  assert len(rows) == 4  # first and last frame of two clips
  row = rows[1]
  if dtype == np.uint8:
    np.testing.assert_array_equal(row[0], clips[0].video[1])
    np.testing.assert_array_equal(row[1], clips[0].video[4])
    np.testing.assert_array_equal(row[3], clips[0].samples[1, 2])
  else:
    # Greys of the first variable, from the least to the largest true value.
    true = clips[0].video[..., 0]
    expected = (clips[0].mean[2, ..., 0] - true.min()) / np.ptp(true)
    np.testing.assert_allclose(row[5][..., 0], expected, atol=1e-5)
  assert video_io.probe(tmp_path / 'video.gif', count=True).num_frames == 6


def test_rank_histograms_are_a_picture_of_their_own(tmp_path):
  shares = {'rank_deviation/round8': [0.5, 0.25, 0.25]}
  written = report.write_pictures(
    tmp_path, [], FRAMES, fps=2, histograms=shares
  )
  assert written == ['ranks.png'] == [p.name for p in tmp_path.iterdir()]
  assert report.write_pictures(tmp_path / 'none', [], FRAMES, fps=2) == []


def test_without_samples_flow_and_blocks_are_shown(tmp_path):
  video, prediction, *_ = clip(0)
  plain = report.Shown(video, prediction, blocks=np.ones((3, 4)))
  written = report.write_pictures(tmp_path, [plain], FRAMES, fps=2, film='gif')
  assert written == ['picture.png', 'video.gif']


def test_what_was_logged_is_drawn(tmp_path):
  assert report.curves(tmp_path) == []
  lines = [
    {'step': n, 'loss': 1 / n, 'psnr/float': float('inf')} for n in range(1, 9)
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  text += '[1]\n3\n{"step": "x", "loss": 1}\n' + '[' * 5000 + '\n\xff\n'
  text += '{"step": 9, "lo'
  (tmp_path / 'metrics.jsonl').write_text(text, 'latin-1')
  assert report.curves(tmp_path) == ['curves.png']
  image = np.asarray(Image.open(tmp_path / 'curves.png'))
  assert image.ndim == 3 and (image == (255, 176, 59)).all(-1).any()


def test_predictions_are_kept_as_arrays(tmp_path):
  shown = [clip(0), clip(1)]
  names = report.predictions(tmp_path, shown, FRAMES, systems.DataSpec())
  assert names == ['predictions.npz']
  with np.load(tmp_path / 'predictions.npz') as arrays:
    kept = dict(arrays)
  assert kept['context'].dtype == np.uint8
  for i, one in enumerate(shown):
    np.testing.assert_array_equal(kept['context'][i], one.video[:2])
    np.testing.assert_array_equal(kept['target'][i], one.video[2:])
    np.testing.assert_array_equal(kept['prediction'][i], one.prediction)
  assert report.predictions(tmp_path, [], FRAMES, systems.DataSpec()) == []


def test_kept_fields_are_in_their_units(tmp_path):
  spec = systems.DataSpec('field', ('t',), 'K', (280.0,), (10.0,))
  one = clip(0)
  field = report.Shown(
    video=one.video[..., :1] / np.float32(255),
    prediction=np.zeros((3, 20, 24, 1), np.float32),
  )
  report.predictions(tmp_path, [field], FRAMES, spec)
  with np.load(tmp_path / 'predictions.npz') as arrays:
    np.testing.assert_array_equal(arrays['prediction'], 280)
    np.testing.assert_allclose(
      arrays['target'][0], 10 * field.video[2:] + 280, rtol=1e-5
    )


def test_a_prediction_of_many_frames_is_shown_over_time(tmp_path):
  one = clip(0)
  frames = systems.Frames((0,), (1, 2, 3, 4))
  shown = report.Shown(video=one.video, prediction=one.video[1:] / 255)
  written = report.write_pictures(tmp_path, [shown], frames, fps=2)
  assert set(written) == {'strip.png', 'picture.png', 'video.mp4'}
  image = np.asarray(Image.open(tmp_path / 'strip.png'))
  # Four columns of frames of 96 or more, four rows.
  assert image.shape[0] > 4 * 80 and image.shape[1] > 4 * 96
