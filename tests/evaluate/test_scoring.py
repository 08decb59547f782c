"""Clips predicted and measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluate.toys import batches, clips, field, measured, run, toy
from vidpred_jax import build, data, metrics, runtime, systems
from vidpred_jax.evaluate import scoring


def test_values_against_numpy_in_float64():
  video = clips()
  result = run(video, 4)
  assert result.clips == 11
  x = video.astype(np.float64) / 255
  steps = np.arange(1, 4).reshape(1, 3, 1, 1, 1)
  pred = x[:, 1:2] - 2 * steps / 255
  mse = ((pred - x[:, 2:]) ** 2).mean((2, 3, 4))
  rmse = result.values['prediction']['rmse/mean']
  np.testing.assert_allclose(rmse['per_frame'], np.sqrt(mse.mean(0)), rtol=1e-6)
  np.testing.assert_allclose(rmse['mean'], np.sqrt(mse.mean()), rtol=1e-6)
  copy = ((x[:, 1:2] - x[:, 2:]) ** 2).mean((2, 3, 4))
  psnr = result.values['copy_last']['psnr/float']
  expected = -10 * np.log10(copy)
  np.testing.assert_allclose(psnr['per_frame'], expected.mean(0), rtol=1e-6)
  np.testing.assert_allclose(
    psnr['cumulative'],
    [expected[:, : k + 1].mean() for k in range(3)],
    rtol=1e-6,
  )
  half = 1.96 * expected.mean(1).std(ddof=1) / np.sqrt(11)
  mean = expected.mean()
  np.testing.assert_allclose(
    psnr['interval'], [mean - half, mean + half], rtol=1e-5
  )


def test_batch_size_and_devices_do_not_change_the_numbers():
  video = clips()
  one = run(video, 3, runtime.mesh(jax.devices()[:1]))
  for size, mesh in ((11, runtime.mesh()), (1, runtime.mesh())):
    other = run(video, size, mesh)
    assert other.clips == one.clips
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6),
      other.values,
      one.values,
    )


def test_batch_norm_and_fields_on_any_number_of_devices(tmp_path):
  """Eleven clips in batches of four or eight: some only fill up."""
  rng = np.random.default_rng(0)
  np.savez(tmp_path / 'hours.npz', t2m=rng.normal(280, 9, (60, 8, 8)))
  settings = {'root': tmp_path / 'hours.npz', 'train_fraction': 0.75}
  source = data.make_source('weather', split='test', num_frames=5, **settings)
  assert len(source) == 11
  system = systems.make(
    'simvp',
    frames=systems.Frames((0, 1, 2), (3, 4)),
    **{'hid_s': 4, 'hid_t': 8, 'n_s': 2, 'n_t': 2},
  )
  clip = jax.ShapeDtypeStruct((1, 5, 8, 8, 1), jnp.float32)
  # Weights and statistics, not those it begins with.
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32),
    jax.eval_shape(system.init, jax.random.key(0), clip),
  )
  assert 'batch_stats' in variables

  def values(size, devices):
    found = list(data.eval_batches(source, batch_size=size))
    assert not found[-1]['valid'].all()
    result = scoring.evaluate(
      system._replace(data=build.data_spec(source)),
      variables,
      found,
      measured('rmse/mean', 'mae/mean'),
      key=jax.random.key(0),
      mesh=runtime.mesh(jax.devices()[:devices]),
    )
    assert result.clips == 11
    return result.values

  one = values(8, 1)
  for size in (4, 8):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6),
      values(size, 8),
      one,
    )
  video = np.stack([source[i]['video'] for i in range(11)])
  frames = jax.jit(system.predict)(variables, video[:, :3], jax.random.key(0))
  error = (np.float64(frames) - video[:, 3:]) * source.std
  expected = np.abs(error).mean((0, 2, 3, 4))
  got = one['prediction']['mae/mean']['per_frame']
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_an_evaluator_compiles_once():
  """Evaluations in training after the first one need no compiling."""
  traced = []
  system = toy()

  def predict(*args):
    traced.append(1)
    return system.predict(*args)

  measure = scoring.make_evaluator(
    system._replace(predict=predict), measured('psnr/float'), show=2
  )
  video, key = clips(8), jax.random.key(0)
  results = []
  for fade in (1, 2, 1):
    variables = {'params': {'fade': jnp.float32(fade)}}
    results.append(measure(variables, batches(video, 4), key))
    if len(results) == 1:
      once = len(traced)
  assert len(traced) == once > 0
  first, other, again = (x.values['prediction'] for x in results)
  assert first == again != other


def test_metrics_that_need_larger_frames_are_named_not_guessed():
  result = run(clips(2), 2, names=('psnr/float', 'ms_ssim/pmss'))
  assert result.skipped == ['ms_ssim/pmss']
  assert set(result.values['prediction']) == {'psnr/float'}


def test_no_clip_is_an_error():
  with pytest.raises(ValueError, match='no clip'):
    run(clips()[:0], 4)


def test_shown_clips_are_the_first_ones():
  video = clips()
  result = run(video, 4, show=6)
  assert len(result.shown) == 6
  for shown, clip in zip(result.shown, video):
    np.testing.assert_array_equal(shown.video, clip)
    expected = clip[1] / 255 - 2 * np.arange(1, 4).reshape(3, 1, 1, 1) / 255
    np.testing.assert_allclose(shown.prediction, expected, atol=1e-6)
    assert shown.samples is None and shown.flow is None


def test_image_metrics_refuse_physical_fields():
  fields, scale = clips(3).astype(np.float32), field((250.0,), (3.0,))
  with pytest.raises(ValueError, match='psnr/float.*physical fields'):
    run(fields, 3, data=scale)
  names = ('rmse/mean', 'mae/mean')
  result = run(fields, 3, names=names, data=scale).values['copy_last']
  # In the field's own units: the mean cancels, the standard deviation scales.
  unit = field((0.0,), (1.0,))
  plain = run(fields, 3, names=names, data=unit).values['copy_last']
  assert plain['rmse/mean']['mean'] > 1
  for name in names:
    np.testing.assert_allclose(
      result[name]['per_frame'],
      3 * np.array(plain[name]['per_frame']),
      rtol=1e-4,
    )


def test_field_metrics_refuse_images():
  measure = metrics.METRICS['mae/mean']._replace(kind='field')
  with pytest.raises(ValueError, match='some/field.*these clips are images'):
    scoring.evaluate(
      toy(), {}, [], {'some/field': measure}, key=jax.random.key(0)
    )


def test_the_interval_is_that_of_the_mean_over_clips():
  psnr = metrics.make('psnr/float')
  rng = np.random.default_rng(0)
  # Of each clip the mean over frames counts once.
  values = rng.normal(25, 3, (40, 5))
  each = values.mean(1)
  found = scoring._aggregate(
    values.mean(0), np.square(each).mean(), len(each), psnr
  )
  half = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
  np.testing.assert_allclose(
    found['interval'], [each.mean() - half, each.mean() + half]
  )
  rmse = scoring._aggregate(
    values.mean(0),
    np.square(each).mean(),
    len(each),
    metrics.make('rmse/mean'),
  )
  np.testing.assert_allclose(rmse['interval'], np.sqrt(found['interval']))
  assert 'interval' not in scoring._aggregate(values[0], 625.0, 1, psnr)
  endless = np.full(5, np.inf)
  assert 'interval' not in scoring._aggregate(endless, np.inf, 9, psnr)
