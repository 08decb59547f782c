"""Clips predicted several times, and measured."""

import jax
import numpy as np
import pytest

from tests.evaluate.toys import (
  DRAWN,
  batches,
  clips,
  drawing,
  field,
  measured,
  run,
)
from vidpred_jax import metrics, runtime
from vidpred_jax.evaluate import scoring

ENSEMBLE = (
  'crps/ens',
  'crps/fair',
  'spread_skill/ratio',
  'rank_deviation/round8',
  'psnr/float',
  'psnr/float_best',
  'mae/mean',
)


def drawn(video, size=4, devices=1, names=ENSEMBLE, system=None, **kwargs):
  return scoring.evaluate(
    system or drawing(),
    DRAWN,
    batches(video, size),
    measured(*names),
    key=jax.random.key(3),
    mesh=runtime.mesh(jax.devices()[:devices]),
    **kwargs,
  )


def futures(video, samples):
  """[S, B, N, H, W, C], every future predicted by itself."""
  context = video[:, :2] / np.float32(255)
  predict = jax.jit(drawing().predict)
  key = jax.random.key(3)

  def one(b, s):
    of_clip = jax.random.fold_in(jax.random.fold_in(key, b), s)
    return predict(DRAWN, context[b : b + 1], of_clip)[0]

  return np.array(
    [[one(b, s) for b in range(len(video))] for s in range(samples)]
  )


@pytest.fixture(scope='module')
def ensemble():
  video = clips(5, side=12)
  return video, futures(video, 6), drawn(video, samples=6)


def test_samples_are_those_of_every_clip_by_itself(ensemble):
  video, samples, result = ensemble
  assert result.clips == 5 and result.samples == 6
  target = video[:, 2:] / np.float32(255)
  expected = metrics.of_samples(measured(*ENSEMBLE), samples, target)
  for name, metric in measured(*ENSEMBLE).items():
    means = np.float64(expected[name]).mean(0)
    got = result.values['prediction'][name]
    np.testing.assert_allclose(
      got['per_frame'], [metric.finish(x) for x in means], rtol=2e-5
    )
    np.testing.assert_allclose(
      got['mean'], metric.finish(means.mean(0)), rtol=2e-5
    )
    np.testing.assert_allclose(
      got['cumulative'][1], metric.finish(means[:2].mean(0)), rtol=2e-5
    )
  values = result.values['prediction']
  histogram = values['rank_deviation/round8']['histogram']
  assert len(histogram) == 7
  np.testing.assert_allclose(sum(histogram), 1, rtol=1e-5)
  assert values['spread_skill/ratio']['spread'] == pytest.approx(
    0.1 * np.sqrt(7 / 6), rel=0.02
  )
  best = values['psnr/float_best']['mean']
  assert best > values['psnr/float']['mean']


@pytest.mark.parametrize(
  'size, devices, at_once', [(1, 1, 1), (3, 8, 4), (5, 2, None)]
)
def test_nothing_depends_on_batches_devices_and_groups(
  ensemble, size, devices, at_once
):
  video, _, result = ensemble
  names = ('crps/ens', 'psnr/float_best')
  other = drawn(video, size, devices, names, samples=6, at_once=at_once)
  for name in names:
    np.testing.assert_allclose(
      other.values['prediction'][name]['per_frame'],
      result.values['prediction'][name]['per_frame'],
      rtol=2e-5,
    )


def test_a_baseline_is_an_ensemble_of_one(ensemble):
  video, _, result = ensemble
  values = result.values['copy_last']
  x = video / 255
  error = np.abs(x[:, 1:2] - x[:, 2:]).mean((0, 2, 3, 4))
  for name in ('crps/ens', 'crps/fair'):
    np.testing.assert_allclose(
      values[name]['per_frame'], 255 * error, rtol=1e-5
    )
  assert values['psnr/float_best'] == values['psnr/float']
  assert values['spread_skill/ratio']['mean'] == 0


def test_the_mean_frame_is_a_baseline():
  video = clips(3)
  frame = np.linspace(0, 1, 16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3)
  result = run(video, 3, names=('mae/mean', 'crps/ens'), mean_frame=frame)
  expected = np.abs(frame - video[:, 2:] / 255).mean((0, 2, 3, 4))
  values = result.values['mean_frame']
  np.testing.assert_allclose(
    values['mae/mean']['per_frame'], expected, rtol=1e-5
  )
  np.testing.assert_allclose(
    values['crps/ens']['per_frame'], 255 * expected, rtol=1e-5
  )
  assert 'mean_frame' not in run(video, 3).values


def test_what_is_shown_of_samples(ensemble):
  video, samples, _ = ensemble
  result = drawn(video, 3, names=('mae/mean',), samples=6, show=4)
  shown = {
    name: np.stack([getattr(clip, name) for clip in result.shown])
    for name in ('video', 'prediction', 'samples', 'mean', 'spread', 'crps')
  }
  np.testing.assert_array_equal(shown['video'], video[:4])
  np.testing.assert_allclose(shown['prediction'], samples[0, :4], atol=1e-6)
  four = np.clip(samples[:, :4], 0, 1)
  target = video[:4, 2:] / 255
  first = np.moveaxis(four[:3], 0, 1)
  np.testing.assert_allclose(shown['samples'], first, atol=1e-6)
  np.testing.assert_allclose(shown['mean'], four.mean(0), atol=1e-6)
  np.testing.assert_allclose(shown['spread'], 255 * four.std(0), atol=1e-3)
  crps = metrics.distribution.crps_map(four, np.float32(target))
  np.testing.assert_allclose(shown['crps'], 255 * crps, atol=1e-3)


def test_use_of_blocks_is_averaged_over_samples():
  video = clips(3, side=12)
  result = drawn(
    video,
    3,
    names=('mae/mean',),
    samples=5,
    system=drawing(with_diagnostics=True),
  )
  on = futures(video, 5)[:, :, :, :4, 0, 0] > 0.5
  np.testing.assert_allclose(result.blocks, on.mean((0, 1, 2)), atol=1e-6)


def test_fields_by_samples_are_in_their_units():
  rng = np.random.default_rng(0)
  video = rng.standard_normal((2, 5, 6, 6, 2)).astype(np.float32)
  names = ('crps/units', 'spread_skill/ratio', 'rank_deviation/units')
  scale = field((280.0, 5.0), (20.0, 20.0))
  scaled = drawing()._replace(data=scale)
  one = drawn(video, 2, names=names, samples=4)
  result = drawn(video, 2, names=names, samples=4, system=scaled)
  plain, in_units = (x.values['prediction'] for x in (one, result))
  for name, factor in zip(names, (20, 1, 1)):
    np.testing.assert_allclose(
      in_units[name]['mean'], factor * plain[name]['mean'], rtol=1e-3
    )
  with pytest.raises(ValueError, match='crps/ens measure images.*crps/units'):
    drawn(video, 2, names=('crps/ens',), samples=4, system=scaled)


def test_numbers_of_samples_that_cannot_be():
  video = clips(2)
  with pytest.raises(ValueError, match='deterministic.*got 3 samples'):
    run(video, 2, samples=3)
  with pytest.raises(ValueError, match='Got 0 samples'):
    drawn(video, 2, samples=0)
  for name in ('crps/fair', 'spread_skill/ratio'):
    with pytest.raises(ValueError, match=f'{name} needs 2 samples.*got 1'):
      drawn(video, 2, names=(name,))
    assert run(video, 2, names=(name,)).samples == 1


# ------------------------------------------------------------------ by sets


def of_colours(context):
  """A distance of sets whose features are mean colours of first and last."""

  def features(video):
    return video[:, (0, -1)].mean((2, 3)).reshape(len(video), -1)

  return metrics.METRICS['fvd/i3d400']._replace(
    features=features, context=context, minimum_frames=3 + 2 * context
  )


@pytest.mark.parametrize('context', [False, True])
def test_sets_are_those_of_all_clips_and_samples(context):
  video = clips(7, side=12, seed=4)
  result = scoring.evaluate(
    drawing(),
    DRAWN,
    batches(video, 3),
    {'colours': of_colours(context)},
    key=jax.random.key(3),
    mesh=runtime.mesh(jax.devices()[:2]),
    samples=4,
  )
  metric, samples = of_colours(context), futures(video, 4)
  real = video / np.float32(255)
  first = np.broadcast_to(real[None, :, :2], (4, *real[:, :2].shape))
  if context:
    samples = np.concatenate([first, samples], 2)
  else:
    real = real[:, 2:]
  generated = np.stack([metric.features(x) for x in samples], 1)
  expected = metrics.distribution.frechet_of_sets(
    metric.features(real), generated
  )
  got = result.values['prediction']['colours']
  assert got['per_frame'] == [] and got['cumulative'] == []
  np.testing.assert_allclose(got['mean'], expected['mean'], rtol=1e-4)
  np.testing.assert_allclose(got['interval'], expected['interval'], rtol=1e-3)
  assert got['videos'] == 7 and got['generated_videos'] == 28
  assert got['frames_per_video'] == 3 + 2 * context
  assert got['context_frames'] == 2 * context
  assert got['video_size'] == [12, 12] and got['size'] == 224
  assert result.values['copy_last']['colours']['generated_videos'] == 7
