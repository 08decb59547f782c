"""Errors, PSNR and the SSIM family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vidpred_jax import metrics

FRAME = [
  name
  for name, metric in metrics.METRICS.items()
  if isinstance(metric, metrics.Metric)
  and metric.samples == 'mean'
  and not name.startswith('lpips')
  and not name.endswith('latitude')
]
IMAGE = [name for name in FRAME if metrics.METRICS[name].kind == 'image']


@functools.cache
def compiled(name):
  return jax.jit(metrics.make(name).values)


def measure(name, pred, target):
  return np.asarray(compiled(name)(pred, target))


def mean(name, pred, target):
  metric = metrics.make(name)
  return metric.finish(measure(name, pred, target).astype(np.float64).mean())


@pytest.fixture(scope='module')
def clips():
  """Two clips of three photographs, and blurred, noisy, faded copies."""
  crops = [
    data.astronaut()[:168, 100:276],
    data.coffee()[100:268, 200:376],
    data.rocket()[100:268, 200:376],
  ]
  target = np.stack([np.stack(crops), np.stack(crops[::-1])]) / 255
  rng = np.random.default_rng(0)
  pred = target.copy()
  pred[:, 0] = ndimage.gaussian_filter(pred[:, 0], (0, 1.5, 1.5, 0))
  pred[:, 1] += 0.03 * rng.standard_normal(pred[:, 1].shape)
  pred[:, 2] = 0.9 * pred[:, 2] + 0.1
  return pred.astype(np.float32), target.astype(np.float32)


def each(function, pred, target):
  """Applies a function of two float64 frames to every pair."""
  return np.array(
    [
      [
        function(p.astype(np.float64), t.astype(np.float64))
        for p, t in zip(p_clip, t_clip)
      ]
      for p_clip, t_clip in zip(pred, target)
    ]
  )


# --- Identities --------------------------------------------------------------


@pytest.mark.parametrize('name', FRAME)
def test_equal_frames_are_perfect(name, clips):
  _, target = clips
  best = {'psnr': np.inf, 'ssim': 1, 'ms_ssim': 1}.get(name.split('/')[0], 0)
  values = measure(name, target, target)
  assert values.shape == (2, 3)
  assert values.dtype == np.float32
  np.testing.assert_allclose(values, best, rtol=2e-7)


@pytest.mark.parametrize('name', FRAME)
def test_symmetric_for_images(name, clips):
  pred, target = np.clip(clips[0], 0, 1), clips[1]
  np.testing.assert_allclose(
    measure(name, pred, target), measure(name, target, pred), rtol=1e-6
  )


@pytest.mark.parametrize('name', FRAME)
def test_better_is_better(name, clips):
  pred, target = clips
  pred = np.clip(pred, 0, 1)
  closer = 0.5 * pred + 0.5 * target
  if name == 'psnr/e3d_wrap':
    pytest.skip('wrapped arithmetic has no order')
  difference = measure(name, closer, target) - measure(name, pred, target)
  assert (difference > 0).all() == metrics.make(name).higher_is_better
  assert (difference != 0).all()


@pytest.mark.parametrize('name', FRAME)
def test_uint8_equals_float(name, clips):
  pred, target = (np.round(np.clip(x, 0, 1) * 255) for x in clips)
  np.testing.assert_allclose(
    measure(name, pred.astype(np.uint8), target.astype(np.uint8)),
    measure(name, np.float32(pred / 255), np.float32(target / 255)),
    rtol=2e-6,
  )


def test_constant_offset_has_known_psnr():
  target = np.full((1, 1, 16, 16, 3), 0.25, np.float32)
  np.testing.assert_allclose(
    measure('psnr/float', target + 0.1, target), 20, atol=1e-4
  )


@pytest.mark.parametrize('name', IMAGE)
def test_images_are_clipped(name, clips):
  pred, target = clips
  beyond = np.where(target > 0.5, pred + 0.7, pred - 0.7)
  np.testing.assert_array_equal(
    measure(name, beyond, target),
    measure(name, np.clip(beyond, 0, 1), target),
  )


@pytest.mark.parametrize('name', ['mse/mean', 'mae/sum_chw', 'rmse/mean'])
def test_errors_are_not_clipped(name):
  target = np.full((1, 1, 4, 4, 1), 280.0, np.float32)  # kelvin
  size = 16 if name.endswith('sum_chw') else 1
  np.testing.assert_allclose(mean(name, target + 3, target), {
    'mse/mean': 9, 'mae/sum_chw': 3 * size, 'rmse/mean': 3
  }[name], rtol=1e-6)  # fmt: skip


def test_rmse_is_the_root_of_the_mean():
  target = np.zeros((2, 1, 4, 4, 1), np.float32)
  pred = target + np.array([1, 7], np.float32).reshape(2, 1, 1, 1, 1)
  np.testing.assert_allclose(mean('rmse/mean', pred, target), 5)
  np.testing.assert_allclose(mean('rmse/sum_chw', pred, target), 20)


def test_rounding_happens_before_round8_only():
  target = np.full((1, 1, 8, 8, 1), 100 / 255, np.float32)
  pred = target + np.float32(0.4 / 255)
  assert np.isinf(measure('psnr/round8', pred, target)).all()
  expected = -20 * np.log10(0.4 / 255)
  np.testing.assert_allclose(
    measure('psnr/float', pred, target), expected, atol=1e-3
  )


def test_infinite_psnr_can_be_capped():
  target = np.zeros((1, 2, 8, 8, 1), np.float32)
  pred = target + np.array([0, 0.1], np.float32).reshape(1, 2, 1, 1, 1)
  metric = metrics.make('psnr/float', cap=50.0)
  np.testing.assert_allclose(metric.values(pred, target), [[50, 20]], 1e-6)


def test_gradient_of_ssim_is_finite(clips):
  pred, target = (x[:1, :1, :32, :32] for x in clips)
  gradient = jax.grad(
    lambda x: jnp.sum(metrics.make('ssim/pmss').values(x, target))
  )(pred)
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_batch_split_over_devices(clips):
  pred, target = (np.concatenate([x] * 4)[:, :, :32, :32] for x in clips)
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ('data',))
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  for name in ('ssim/pmss', 'psnr/float'):
    alone = measure(name, pred, target)
    together = jax.jit(metrics.make(name).values)(
      jax.device_put(pred, split), jax.device_put(target, split)
    )
    assert together.sharding.is_equivalent_to(split, 2)
    np.testing.assert_allclose(together, alone, rtol=1e-6)


# --- Independent implementations in float64 ----------------------------------


def test_errors_and_psnr_against_numpy(clips):
  pred, target = (x.astype(np.float64) for x in clips)
  square, absolute = (pred - target) ** 2, np.abs(pred - target)
  for name, value in {
    'mse/mean': square.mean((2, 3, 4)),
    'mse/sum_chw': square.sum((2, 3, 4)),
    'mae/mean': absolute.mean((2, 3, 4)),
    'mae/sum_chw': absolute.sum((2, 3, 4)),
  }.items():
    np.testing.assert_allclose(measure(name, *clips), value, rtol=1e-6)
  clipped = np.clip(pred, 0, 1)
  np.testing.assert_allclose(
    measure('psnr/float', *clips),
    each(
      lambda p, t: peak_signal_noise_ratio(t, p, data_range=1), clipped, target
    ),
    atol=1e-5,
  )
  bytes_ = [np.uint8(np.round(np.clip(x, 0, 1) * 255)) for x in clips]
  np.testing.assert_allclose(
    measure('psnr/round8', *clips),
    [[peak_signal_noise_ratio(t, p) for p, t in zip(*c)] for c in zip(*bytes_)],
    atol=1e-5,
  )


def test_wrapped_psnr_against_numpy(clips):
  pred, target = np.clip(clips[0], 0, 1), clips[1]

  def published(p, t):
    a, b = np.uint8(np.float32(p) * 255), np.uint8(np.float32(t) * 255)
    return 20 * np.log10(255) - 10 * np.log10(np.mean((a - b) ** 2))

  expected = each(published, pred, target)
  np.testing.assert_allclose(
    measure('psnr/e3d_wrap', pred, target), expected, atol=1e-5
  )
  assert (expected > measure('psnr/float', pred, target) + 1).any()


@pytest.mark.parametrize('data_range', [1, 2, 255])
def test_ssim_against_scikit_image(data_range, clips):
  pred, target = np.clip(clips[0], 0, 1), clips[1]
  if data_range == 255:
    pred, target = np.round(pred * 255), np.round(target * 255)
  expected = each(
    lambda p, t: structural_similarity(
      p, t, channel_axis=-1, data_range=data_range
    ),
    pred,
    target,
  )
  np.testing.assert_allclose(
    measure(f'ssim/skimage7_dr{data_range}', *clips), expected, atol=1e-6
  )


@pytest.mark.parametrize('name', ['ssim/pmss', 'ssim/tf11'])
def test_gaussian_ssim_against_scikit_image(name, clips):
  expected = each(
    lambda p, t: structural_similarity(
      p,
      t,
      channel_axis=-1,
      data_range=1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
    ),
    np.clip(clips[0], 0, 1),
    clips[1],
  )
  np.testing.assert_allclose(measure(name, *clips), expected, atol=1e-6)


def gaussian(x, axes):
  """11 taps, sigma 1.5, edges repeated."""
  taps = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
  for axis in axes:
    x = ndimage.correlate1d(x, taps / taps.sum(), axis, mode='nearest')
  return x


def similarity(p, t, axes):
  """The textbook formula in float64."""
  mean_p, mean_t = gaussian(p, axes), gaussian(t, axes)
  var_p = gaussian(p * p, axes) - mean_p**2
  var_t = gaussian(t * t, axes) - mean_t**2
  covariance = gaussian(p * t, axes) - mean_p * mean_t
  structure = (2 * covariance + 9e-4) / (var_p + var_t + 9e-4)
  luminance = (2 * mean_p * mean_t + 1e-4) / (mean_p**2 + mean_t**2 + 1e-4)
  return luminance * structure, structure


def test_volume_ssim_against_scipy(clips):
  for channels in (3, 1):
    pred, target = (x[..., :channels] for x in clips)
    expected = each(
      lambda p, t: similarity(p, t, (0, 1, 2))[0].mean(),
      np.clip(pred, 0, 1),
      target,
    )
    np.testing.assert_allclose(
      measure('ssim/matlab3d', pred, target), expected, atol=1e-6
    )


def halve(x):
  x = np.pad(x, [(n % 2, n % 2) for n in x.shape[:2]] + [(0, 0)])
  rows, columns = (n // 2 for n in x.shape[:2])
  x = x[: 2 * rows, : 2 * columns]
  return x.reshape(rows, 2, columns, 2, -1).mean((1, 3))


@pytest.mark.parametrize('size', [(168, 176), (161, 175)])
def test_multi_scale_ssim_against_scipy(size, clips):
  pred, target = (x[:1, :, : size[0], : size[1]] for x in clips)

  def published(p, t):
    factors = []
    for scale in range(5):
      full, structure = similarity(p, t, (0, 1))
      chosen = full if scale == 4 else structure
      factors.append(np.maximum(chosen[5:-5, 5:-5].mean((0, 1)), 0))
      p, t = halve(p), halve(t)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    return np.prod(np.array(factors) ** weights[:, None], axis=0).mean()

  np.testing.assert_allclose(
    measure('ms_ssim/pmss', pred, target),
    each(published, np.clip(pred, 0, 1), target),
    atol=1e-6,
  )


# --- Bad input ---------------------------------------------------------------


@pytest.mark.parametrize('name', FRAME)
def test_too_small_frames_are_refused(name):
  smallest = metrics.make(name).minimum_size
  frame = np.zeros((1, 1, smallest, smallest + 3, 1), np.float32)
  assert np.shape(jax.eval_shape(metrics.make(name).values, frame, frame)) == (
    1,
    1,
  )
  if smallest == 1:
    return
  for small in (frame[:, :, 1:], frame.swapaxes(2, 3)[:, :, :, 1:]):
    with pytest.raises(ValueError, match=f'{smallest - 1}.*{smallest}'):
      metrics.make(name).values(small, small)


@pytest.mark.parametrize('name', FRAME)
def test_unequal_shapes_are_refused(name):
  frame = np.zeros((1, 2, 200, 200, 3), np.float32)
  with pytest.raises(ValueError, match=r'\(1, 2, 200, 200, 3\).*\(1, 1,'):
    metrics.make(name).values(frame, frame[:, :1])
  with pytest.raises(ValueError, match='B, N, H, W, C'):
    metrics.make(name).values(frame[0], frame[0])


def test_other_integers_are_refused():
  frame = np.zeros((1, 1, 16, 16, 1), np.int32)
  with pytest.raises(ValueError, match='int32'):
    metrics.make('mse/mean').values(frame, frame)
