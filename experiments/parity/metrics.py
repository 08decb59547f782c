"""Metrics of the published code, on the same frames.

Errors are relative; those of structural similarity are absolute.
"""

import numpy as np

from experiments.parity.arrays import Kind, Row, channels_last, largest, read
from vidpred_jax import metrics, runtime

# (ours, frames, stored number, tolerance). pytorch_msssim and EBME compute in
# float32 with windows that do not quite sum to 1, hence their tolerances: in
# float64 the same formulas give what ours do.
PAIRS = [
  *(
    (f'{name}/sum_chw', '', f'metric64_{name}', 1e-6)
    for name in ('mse', 'mae', 'rmse')
  ),
  *(
    (f'{name}/mean', '', f'metric_spatialnorm_{name}', 1e-6)
    for name in ('mse', 'mae', 'rmse')
  ),
  ('psnr/float', '', 'metric64_psnr', 1e-6),
  ('ssim/skimage7_dr1', '', 'ssim_R1', 1e-6),
  ('ssim/skimage7_dr2', '', 'metric_ssim', 1e-6),
  ('ssim/skimage7_dr2', '', 'ssim_per_frame_R2', 1e-6),
  ('ssim/pmss', 'ms_', 'pytorch_msssim_ssim', 3e-6),
  ('ms_ssim/pmss', 'ms_', 'pytorch_msssim_msssim', 1e-6),
  ('ssim/matlab3d', 'ms_', 'ebme_ssim_matlab', 2e-5),
]


def rows(path):
  """Rows of all metrics that have a stored number."""
  case, _ = read(path)
  for name, frames, key, tolerance in PAIRS:
    if key not in case:
      continue
    pair = [channels_last(case[f'{frames}{k}']) for k in ('pred', 'true')]
    pair = [x if x.ndim == 5 else x[:, None] for x in pair]
    metric = metrics.make(name)
    ours = np.asarray(runtime.jit(metric.values)(*pair), np.float64)
    theirs = case[key]
    if theirs.size == 1:
      ours, theirs = metric.finish(ours.mean()), theirs.reshape(())
    error = largest(ours, theirs)
    if not name.startswith(('ssim', 'ms_ssim')):
      error /= abs(float(theirs))
    yield Row(f'{key} ({name})', error, tolerance)


KINDS = [Kind('metric64_mse', rows)]
