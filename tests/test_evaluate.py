import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vidpred_jax import data, evaluate, metrics, runtime, systems
from vidpred_jax.systems import base

FRAMES = systems.Frames((0, 1), (2, 3, 4))


def toy(frames=FRAMES):
  """Predicts the last frame, a little darker with each step."""

  def predict(variables, context, key):
    del key
    steps = jnp.arange(1, 1 + len(frames.target)).reshape(1, -1, 1, 1, 1)
    return context[:, -1:] - variables['params']['fade'] * steps / 255.0

  return systems.System(
    init=lambda key, video: {'params': {'fade': jnp.float32(1)}},
    loss=None,
    predict=predict,
    frames=frames,
    multiple=1,
    stochastic=False,
  )


def batches(clips, size, total=None):
  for i in range(0, len(clips), size):
    video = clips[i : i + size]
    missing = size - len(video)
    valid = np.arange(size) < len(video)
    video = np.concatenate([video, np.repeat(clips[-1:], missing, 0)])
    yield {'video': video, 'valid': valid}


def clips(count=11, side=16, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, 5, side, side, 3), dtype=np.uint8)


def measured(*names):
  return {name: metrics.make(name) for name in names}


def run(video, size, mesh=None, names=('psnr/float', 'rmse/mean'), **kwargs):
  system = toy()
  return evaluate.evaluate(
    system,
    {'params': {'fade': jnp.float32(2)}},
    batches(video, size),
    measured(*names),
    key=jax.random.key(0),
    mesh=mesh,
    **kwargs,
  )


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
    result = evaluate.evaluate(
      system,
      variables,
      found,
      measured('rmse/mean', 'mae/mean'),
      key=jax.random.key(0),
      mesh=runtime.mesh(jax.devices()[:devices]),
      field=(source.mean, source.std),
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


def test_metrics_that_need_larger_frames_are_named_not_guessed():
  result = run(clips(2), 2, names=('psnr/float', 'ms_ssim/pmss'))
  assert result.skipped == ['ms_ssim/pmss']
  assert set(result.values['prediction']) == {'psnr/float'}
  assert 'ms_ssim/pmss' in evaluate.table(result, FRAMES)


def test_no_clip_is_an_error():
  with pytest.raises(ValueError, match='no clip'):
    run(clips()[:0], 4)


def test_shown_clips_are_the_first_ones():
  video = clips()
  result = run(video, 4, show=6)
  np.testing.assert_array_equal(np.stack(result.shown['video']), video[:6])
  assert len(result.shown['frames']) == 6


def test_the_table_names_frames_relative_to_the_last_one_seen():
  result = run(clips(2), 2)
  text = evaluate.table(result, FRAMES)
  assert 't+1' in text and 't+3' in text and 'copy_last' in text


def test_between_frames_the_average_is_a_baseline_too():
  frames = systems.Frames((0, 4), (1, 2, 3))
  context = jnp.stack([jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))], axis=1)
  found = evaluate.baselines(frames, context)
  np.testing.assert_allclose(
    found['average'][0, :, 0, 0, 0], [0.25, 0.5, 0.75], rtol=1e-6
  )
  assert set(evaluate.baselines(FRAMES, context)) == {'copy_last'}


def test_frames_are_taken_by_index():
  video = jnp.arange(5.0).reshape(1, 5, 1, 1, 1)
  taken = base.take(video, (2, 4))
  np.testing.assert_array_equal(taken[0, :, 0, 0, 0], [2, 4])


def test_image_metrics_refuse_physical_fields():
  fields, scale = clips(3).astype(np.float32), (250.0, 3.0)
  with pytest.raises(ValueError, match='psnr/float.*physical fields'):
    run(fields, 3, field=scale)
  names = ('rmse/mean', 'mae/mean')
  result = run(fields, 3, names=names, field=scale).values['copy_last']
  # In the field's own units: the mean cancels, the standard deviation scales.
  plain = run(fields, 3, names=names, field=(0.0, 1.0)).values['copy_last']
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
    evaluate.evaluate(
      toy(), {}, [], {'some/field': measure}, key=jax.random.key(0)
    )


def test_infinite_values_are_json():
  still = np.repeat(clips(2)[:, :1], 5, axis=1)
  result = run(still, 2)
  text = evaluate._json(result.values)
  assert json.loads(text, parse_constant=pytest.fail)['copy_last'][
    'psnr/float'
  ] == {'per_frame': ['inf'] * 3, 'cumulative': ['inf'] * 3, 'mean': 'inf'}


def test_variables_of_a_field_are_measured_one_by_one():
  class Source:
    kind, variables, latitudes = 'field', ('t2m', 'z500'), None
    mean, std = np.zeros(2), np.ones(2)

  protocol = {'metrics': ('mae/mean',), 'lpips': {'backbone': '', 'heads': ''}}
  config = ConfigDict({'eval': protocol})
  measures = evaluate.make_measures(config, Source())
  assert list(measures) == ['mae/mean[t2m]', 'mae/mean[z500]']
  pred = jnp.zeros((1, 2, 4, 4, 2))
  target = pred + jnp.array([1.0, 50.0]).reshape(1, 1, 1, 1, 2)
  for measure, expected in zip(measures.values(), (1, 50)):
    np.testing.assert_allclose(measure.values(pred, target), expected)
  config.eval.metrics = ('rmse/latitude',)
  with pytest.raises(ValueError, match='needs physical fields with latitudes'):
    evaluate.make_measures(config, Source())
