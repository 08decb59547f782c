"""Do our metrics give the numbers of the published code and of scikit-image?

  python experiments/parity_metrics.py

Prints a table: our value (float32, jitted), the number stored in
../shared/parity/metrics by the published code, and scikit-image (float64) where
it has the convention, on the same frames.

The two largest differences are not ours: pytorch_msssim and EBME compute in
float32 with windows that do not quite sum to 1. The same formulas in float64
give 0.8022094 and 0.9183881 (tests/metrics/test_frames.py).
"""

import pathlib

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vidpred_jax import metrics, runtime

STORED = (
  pathlib.Path(__file__).resolve().parents[2]
  / 'shared/parity/metrics/case_a_B2T3C1_32x32.npz'
)


def measure(name, pred, target):
  metric = metrics.make(name)
  values = np.asarray(runtime.jit(metric.values)(pred, target), np.float64)
  return float(metric.finish(values.mean()))


def skimage(name, pred, target):
  """The mean over frames of scikit-image's number in float64, or None."""
  gaussian = dict(
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
  )
  settings = {
    'ssim/skimage7_dr1': dict(data_range=1),
    'ssim/skimage7_dr2': dict(data_range=2),
    'ssim/pmss': gaussian,
  }
  pred = np.clip(pred.astype(np.float64), 0, 1)
  pairs = list(
    zip(*(x.reshape(-1, *x.shape[2:]).astype(float) for x in (pred, target)))
  )
  if name == 'psnr/float':
    values = [peak_signal_noise_ratio(t, p, data_range=1) for p, t in pairs]
  elif name in settings:
    values = [
      structural_similarity(p, t, channel_axis=-1, **settings[name])
      for p, t in pairs
    ]
  else:
    return None
  return float(np.mean(values))


def main():
  with np.load(STORED) as file:
    arrays = {
      name: np.moveaxis(file[name].astype(np.float32), -3, -1)
      for name in ('pred', 'true', 'ms_pred', 'ms_true')
    }
    stored = {name: file[name] for name in file if file[name].size == 1}
  small = arrays['pred'], arrays['true']
  large = arrays['ms_pred'][:, None], arrays['ms_true'][:, None]
  rows = [
    ('mse/sum_chw', small, 'metric64_mse'),
    ('mae/sum_chw', small, 'metric64_mae'),
    ('rmse/sum_chw', small, 'metric64_rmse'),
    ('mse/mean', small, 'metric_spatialnorm_mse'),
    ('mae/mean', small, 'metric_spatialnorm_mae'),
    ('rmse/mean', small, 'metric_spatialnorm_rmse'),
    ('psnr/float', small, 'metric64_psnr'),
    ('ssim/skimage7_dr1', small, 'ssim_R1'),
    ('ssim/skimage7_dr2', small, 'metric_ssim'),
    ('ssim/pmss', large, 'pytorch_msssim_ssim'),
    ('ms_ssim/pmss', large, 'pytorch_msssim_msssim'),
    ('ssim/matlab3d', large, 'ebme_ssim_matlab'),
  ]
  print(
    f'{"metric":18}{"ours":>14}{"published":>14}{"difference":>12}'
    f'{"scikit-image":>14}{"difference":>12}'
  )
  for name, pair, key in rows:
    ours = measure(name, *pair)
    theirs = float(np.ravel(stored[key])[0])
    line = f'{name:18}{ours:14.8f}{theirs:14.8f}{ours - theirs:12.1e}'
    other = skimage(name, *pair)
    if other is not None:
      line += f'{other:14.8f}{ours - other:12.1e}'
    print(line)


if __name__ == '__main__':
  runtime.setup()
  main()
