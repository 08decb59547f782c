"""Frame-by-frame metrics: errors, PSNR and the SSIM family.

Every function takes `pred` and `target`, both `[B, N, H, W, C]`, and returns
`[B, N]` float32. Images are float in [0, 1]; uint8 is divided by 255 first, so
differences do not overflow. Errors use `pred` without clipping; the others clip
`pred`, not `target`, to [0, 1].

All SSIM conventions share one local formula (Wang et al. 2004, eq. 13), with
means, variances and covariance under a window that sums to 1:

  ssim = (2 mx my + C1) (2 cov + C2) / ((mx^2 + my^2 + C1) (vx + vy + C2))

with C1 = (0.01 R)^2, C2 = (0.03 R)^2 for data range R. They differ in window,
border, R and rounding, which changes the result by several points on the same
pictures.

Windows are separable. A pass along one axis is a sum of shifted slices of
planes [..., H, W], which is about ten times faster than a convolution on a CPU
and one fused kernel on other devices. Target frames are processed one after
another, which bounds memory. The batch axis is not split, so it may be sharded.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Wang, Simoncelli, Bovik 2003: the exponents of the five scales.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def as_float(x) -> jax.Array:
  """Converts an image array to float32: uint8 is divided by 255.

  Raises:
    ValueError: for any other type, whose range would be a guess.
  """
  if x.dtype == jnp.uint8:
    return jnp.asarray(x, jnp.float32) / 255
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f'Frames must be floats or uint8, got {x.dtype}.')
  return jnp.asarray(x, jnp.float32)


def check(pred, target, *, minimum_size: int = 1) -> None:
  """Checks that both are `[B, N, H, W, C]`, of equal shape and large enough.

  Raises:
    ValueError: with what was got and what was expected.
  """
  if pred.ndim != 5 or pred.shape != target.shape:
    raise ValueError(
      'Prediction and target must both be [B, N, H, W, C], got '
      f'{tuple(pred.shape)} and {tuple(target.shape)}.'
    )
  height, width = pred.shape[2:4]
  if min(height, width) < minimum_size:
    raise ValueError(
      f'Frames of {height}x{width} are too small for this metric: both sides '
      f'must be at least {minimum_size}.'
    )


def each_target(function, pred, target) -> jax.Array:
  """Applies `([B, H, W, C], [B, H, W, C]) -> [B]` to each target frame.

  Args:
    function: gets the clipped prediction and the target, float32.
    pred: `[B, N, H, W, C]`.
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N]`.
  """
  by_frame = jax.lax.map(
    lambda pair: function(jnp.clip(as_float(pair[0]), 0, 1), as_float(pair[1])),
    (jnp.moveaxis(pred, 1, 0), jnp.moveaxis(target, 1, 0)),
  )
  return jnp.moveaxis(by_frame, 0, 1)


# --- Errors ------------------------------------------------------------------


def mse_mean(pred, target) -> jax.Array:
  """Mean of (pred - target)^2 over C, H, W; `pred` is not clipped."""
  check(pred, target)
  return jnp.mean(jnp.square(as_float(pred) - as_float(target)), axis=(2, 3, 4))


def mae_mean(pred, target) -> jax.Array:
  """Mean of |pred - target| over C, H, W; `pred` is not clipped."""
  check(pred, target)
  return jnp.mean(jnp.abs(as_float(pred) - as_float(target)), axis=(2, 3, 4))


def mse_sum(pred, target) -> jax.Array:
  """Sum of (pred - target)^2 over C, H, W (OpenSTL's "MSE"); not clipped.

  With a square root after the mean over clips and frames it is OpenSTL's RMSE:
  the root of the mean, not the mean of roots.
  """
  return mse_mean(pred, target) * float(np.prod(pred.shape[2:]))


def mae_sum(pred, target) -> jax.Array:
  """Sum of |pred - target| over C, H, W (OpenSTL's "MAE"); not clipped."""
  return mae_mean(pred, target) * float(np.prod(pred.shape[2:]))


# --- PSNR --------------------------------------------------------------------


def _decibel(mse, cap: float):
  return jnp.minimum(-10 * jnp.log10(mse), cap)


def psnr(pred, target, *, cap: float = np.inf) -> jax.Array:
  """-10 log10(mse) in dB for a peak of 1, of the unquantised prediction.

  Identical frames have an infinite PSNR, and then so has the mean, as in
  OpenSTL and scikit-image. Video with repeated frames makes that happen to the
  copy-last baseline.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1].
    target: `[B, N, H, W, C]`.
    cap: larger values are replaced by this one, in dB; no published protocol
      does so.

  Returns:
    `[B, N]`.
  """
  check(pred, target)
  difference = jnp.clip(as_float(pred), 0, 1) - as_float(target)
  return _decibel(jnp.mean(jnp.square(difference), axis=(2, 3, 4)), cap)


def psnr_round8(pred, target, *, cap: float = np.inf) -> jax.Array:
  """PSNR after rounding the clipped prediction to multiples of 1/255.

  Halves go to the even number, as in NumPy. The target is rounded too: it comes
  from an 8-bit image, so that only takes float32 noise away.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1], then rounded.
    target: `[B, N, H, W, C]`, rounded.
    cap: as in `psnr`.

  Returns:
    `[B, N]`.
  """
  check(pred, target)
  pred = jnp.round(jnp.clip(as_float(pred), 0, 1) * 255)
  difference = pred - jnp.round(as_float(target) * 255)
  mse = jnp.mean(jnp.square(difference), axis=(2, 3, 4))
  return _decibel(mse / 255**2, cap)


def psnr_e3d_wrap(pred, target, *, cap: float = np.inf) -> jax.Array:
  """The PSNR of E3D-LSTM and SimVP's first code: arithmetic modulo 256.

  Both images are cut down to uint8 (towards zero), and both the difference and
  its square wrap around, which makes large errors small. Only for comparison
  with numbers published before OpenSTL's correction of 2023-06-08; it reads
  several dB higher than `psnr`.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1].
    target: `[B, N, H, W, C]`, in [0, 1].
    cap: as in `psnr`.

  Returns:
    `[B, N]`.
  """
  check(pred, target)

  def truncate(x):
    if x.dtype != jnp.uint8:
      x = jnp.clip(as_float(x), 0, 1) * 255
    return jnp.asarray(x, jnp.int32)

  # In int32 with an explicit wrap: XLA's CPU compiler (jaxlib 0.10, 2026-11)
  # loses the one of uint8 where it fuses it with the sum.
  difference = truncate(pred) - truncate(target)
  square = (difference * difference) & 255
  mse = jnp.mean(square.astype(jnp.float32), axis=(2, 3, 4))
  return _decibel(mse / 255**2, cap)


# --- SSIM --------------------------------------------------------------------


def _exact(taps) -> np.ndarray:
  """Rounds weights to multiples of 2^-24 that sum to exactly 1.

  Otherwise E[x^2] and E[x]^2 differ even where x is constant, by more than the
  constants C1, C2 forgive.
  """
  taps = np.round(taps / np.sum(taps) * 2**24) / 2**24
  taps[len(taps) // 2] += 1 - taps.sum()
  return taps


_GAUSSIAN = _exact(np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2)))
_UNIFORM = _exact(np.ones(7))


def _window(taps):
  """Weighted local means over H and W of planes [..., H, W], no padding."""

  def mean(x):
    for axis in (x.ndim - 1, x.ndim - 2):
      size = x.shape[axis] - len(taps) + 1
      x = sum(
        float(tap) * jax.lax.slice_in_dim(x, i, i + size, axis=axis)
        for i, tap in enumerate(taps)
      )
    return x

  return mean


def _planes(x):
  """`[B, H, W, C]` -> `[B, C, H, W]`."""
  return jnp.moveaxis(x, -1, 1)


def _similarity(x, y, window, *, data_range=1.0, unbias=1.0):
  """The SSIM map and its contrast-structure factor.

  Works on the sum and the difference d of the two images rather than on the
  images: with u = x + y - 1,

    vx + vy = (var u + var d) / 2,   2 cov = (var u - var d) / 2,

  both factors become 1 - (something small) / (something positive), exactly 1
  for equal images, and float32 is good to about 1e-7, ten times better than the
  textbook form.

  Args:
    x: planes `[B, C, H, W]`.
    y: planes `[B, C, H, W]`.
    window: weighted local mean of planes `[..., C, H, W]`.
    data_range: R of the constants C1, C2.
    unbias: factor on variances and covariance.

  Returns:
    Two arrays `[B, C, H', W']`.
  """
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  u, d = x + y - 1, x - y
  mean_u, mean_d, square_u, square_d = window(jnp.stack([u, d, u * u, d * d]))
  var_u = unbias * (square_u - mean_u * mean_u)
  var_d = unbias * (square_d - mean_d * mean_d)
  structure = 1 - var_d / ((var_u + var_d) / 2 + c2)
  means = jnp.square(mean_u + 1) + jnp.square(mean_d)
  luminance = 1 - jnp.square(mean_d) / (means / 2 + c1)
  return luminance * structure, structure


def ssim_gaussian(pred, target) -> jax.Array:
  """SSIM of pytorch_msssim and tf.image: Gaussian window, valid positions.

  11x11 taps, sigma 1.5, biased variances, R = 1, mean over channels and
  positions. The two libraries agree; frames with a side below 11, for which
  pytorch_msssim silently leaves the window out, are refused.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1].
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: if a side is below 11.
  """
  check(pred, target, minimum_size=11)
  window = _window(_GAUSSIAN)

  def frame(x, y):
    similarity, _ = _similarity(_planes(x), _planes(y), window)
    return jnp.mean(similarity, axis=(1, 2, 3))

  return each_target(frame, pred, target)


def _ssim_skimage(pred, target, *, data_range: float, round8: bool = False):
  check(pred, target, minimum_size=7)
  window = _window(_UNIFORM)

  def frame(x, y):
    if round8:
      x, y = jnp.round(x * 255) / 255, jnp.round(y * 255) / 255
    similarity, _ = _similarity(
      _planes(x), _planes(y), window, data_range=data_range, unbias=49 / 48
    )
    return jnp.mean(similarity, axis=(1, 2, 3))

  return each_target(frame, pred, target)


def ssim_skimage_dr1(pred, target) -> jax.Array:
  """scikit-image's `structural_similarity(channel_axis=-1, data_range=1)`.

  7x7 uniform window, sample (co)variances (factor 49/48), mean over channels
  and the positions where the window fits.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1].
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: if a side is below 7.
  """
  return _ssim_skimage(pred, target, data_range=1)


def ssim_skimage_dr2(pred, target) -> jax.Array:
  """As `ssim_skimage_dr1` with data range 2: OpenSTL's published numbers.

  scikit-image up to 0.19 assumed the range -1..1 for float images when none was
  given, which makes the constants four times larger and the number better.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1].
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: if a side is below 7.
  """
  return _ssim_skimage(pred, target, data_range=2)


def ssim_skimage_dr255(pred, target) -> jax.Array:
  """As `ssim_skimage_dr1` on images rounded to 8 bits: the Xiph benchmark.

  Computed in units of the full range, which is the same as range 255 on
  0..255.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1], then rounded.
    target: `[B, N, H, W, C]`, rounded.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: if a side is below 7.
  """
  return _ssim_skimage(pred, target, data_range=1, round8=True)


def ssim_matlab3d(pred, target) -> jax.Array:
  """SSIM over the colour image as a volume: `ssim_matlab` of EBME and RIFE.

  An 11x11x11 Gaussian over (C, H, W), sigma 1.5, each axis extended by its edge
  values, R = 1. With three channels the window mixes them almost evenly, so the
  number is higher than that of the other conventions.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1].
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: if a side is below 11, where the original changes its window.
  """
  check(pred, target, minimum_size=11)
  channels = pred.shape[-1]
  # The pass over C, edges repeated, as a matrix [C, C].
  mix = np.zeros((channels, channels), np.float32)
  for out in range(channels):
    for offset, tap in enumerate(_GAUSSIAN):
      mix[out, np.clip(out + offset - 5, 0, channels - 1)] += tap

  def window(x):
    x = sum(
      mix[:, c].reshape((1,) * (x.ndim - 3) + (channels, 1, 1))
      * x[..., c : c + 1, :, :]
      for c in range(channels)
    )
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(5, 5)] * 2, mode='edge')
    return _window(_GAUSSIAN)(x)

  def frame(x, y):
    similarity, _ = _similarity(_planes(x), _planes(y), window)
    return jnp.mean(similarity, axis=(1, 2, 3))

  return each_target(frame, pred, target)


def _halve(x):
  """2x2 means; an odd side is extended by zeros on both ends, as in torch."""
  height, width = x.shape[-2:]
  pad = [(0, 0)] * (x.ndim - 2) + [(height % 2,) * 2, (width % 2,) * 2]
  x = jnp.pad(x, pad)
  rows, columns = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
  x = x[..., :rows:2, :] + x[..., 1:rows:2, :]
  return (x[..., :columns:2] + x[..., 1:columns:2]) / 4


def ms_ssim(pred, target) -> jax.Array:
  """Multi-scale SSIM of pytorch_msssim, the first metric of DMVFN's tables.

  The contrast-structure factor of four scales and the full SSIM of the fifth,
  each averaged over positions, negative values set to 0, raised to the weights
  of Wang et al. 2003 and multiplied; then the mean over channels. Between
  scales images are halved by 2x2 means.

  Args:
    pred: `[B, N, H, W, C]`, clipped to [0, 1].
    target: `[B, N, H, W, C]`.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: if a side is 160 or less: the window of 11 would not fit the
      fifth scale.
  """
  check(pred, target, minimum_size=161)
  window = _window(_GAUSSIAN)

  def frame(x, y):
    x, y = _planes(x), _planes(y)
    product = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS):
      if scale:
        x, y = _halve(x), _halve(y)
      similarity, structure = _similarity(x, y, window)
      last = scale == len(_SCALE_WEIGHTS) - 1
      factor = jnp.mean(similarity if last else structure, axis=(2, 3))
      product *= jnp.maximum(factor, 0) ** weight
    return jnp.mean(product, axis=1)

  return each_target(frame, pred, target)
