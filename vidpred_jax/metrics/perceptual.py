"""LPIPS: distance between the features of a network trained on ImageNet.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", version 0.1 with AlexNet. The weights are the user's:
`convert.lpips(alexnet_path, heads_path)` reads torchvision's AlexNet and the
linear heads of the authors into the tree `variables` of these functions.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vidpred_jax.metrics import frames
from vidpred_jax.models import features
from vidpred_jax.ops import resize

# Below this AlexNet's second pooling has no complete window.
MINIMUM_SIZE = 31


def check_variables(name: str, variables) -> None:
  """Raises ValueError without the two weight files.

  Raises:
    ValueError: if `variables` is not the tree of `convert.lpips`.
  """
  if isinstance(variables, Mapping) and set(variables) == {'alexnet', 'heads'}:
    return
  got = sorted(variables) if isinstance(variables, Mapping) else variables
  raise ValueError(
    f'{name} needs variables=convert.lpips(alexnet_path, heads_path), got '
    f'{got}. The two files, which are not part of this project, are '
    "torchvision's alexnet-owt-7be5be79.pth "
    '(https://download.pytorch.org/models/alexnet-owt-7be5be79.pth) and '
    'lpips/weights/v0.1/alex.pth of '
    'https://github.com/richzhang/PerceptualSimilarity.'
  )


def _distance(variables, x, y, flip: bool, spatial: bool):
  """`[B, H, W, C]` twice -> `[B]`."""
  size = x.shape[1:3]
  if x.shape[-1] == 1:
    x, y = jnp.repeat(x, 3, axis=-1), jnp.repeat(y, 3, axis=-1)
  pair = jnp.concatenate([x, y])
  pair = features.lpips_normalise(pair[..., ::-1] if flip else pair)
  taps = features.AlexNet().apply({'params': variables['alexnet']}, pair)
  total = 0.0
  for index, tap in enumerate(taps):
    first, second = jnp.split(features.unit_normalise(tap), 2)
    head = variables['heads'][f'lin{index}']
    difference = jnp.einsum(
      'bhwc,c->bhw', jnp.square(first - second), head, precision='highest'
    )
    if spatial:
      difference = resize.bilinear(difference[..., None], size=size)[..., 0]
    total += jnp.mean(difference, axis=(1, 2))
  return total


def _measure(pred, target, variables, flip: bool, spatial: bool = False):
  frames.check(pred, target, minimum_size=MINIMUM_SIZE)
  if pred.shape[-1] not in (1, 3):
    raise ValueError(
      f'LPIPS is defined for 1 or 3 channels, got {pred.shape[-1]}.'
    )
  return frames.each_target(
    lambda x, y: _distance(variables, x, y, flip, spatial), pred, target
  )


def lpips(pred, target, *, variables) -> jax.Array:
  """LPIPS v0.1 with AlexNet.

  d = sum_l mean_hw w_l . (f_l(x) - f_l(y))^2, features of unit length per
  position (eq. 1 of the paper), input scaled to [-1, 1] and then as the
  authors' scaling layer does. Grey frames are repeated to three channels, as in
  OpenSTL.

  Args:
    pred: `[B, N, H, W, C]`, RGB or grey, clipped to [0, 1].
    target: `[B, N, H, W, C]`.
    variables: `{'alexnet': parameters of features.AlexNet, 'heads': {'lin0':
      [64], ... 'lin4': [256]}}` from `convert.lpips`.

  Returns:
    `[B, N]`; 0 for equal frames. Some tables give 100 times this.

  Raises:
    ValueError: if a side is below 31, or C is neither 1 nor 3.
  """
  return _measure(pred, target, variables, flip=False)


def lpips_bgr(pred, target, *, variables) -> jax.Array:
  """LPIPS with the channels in the wrong order, as DMVFN evaluates it.

  DMVFN reads images with OpenCV and hands BGR to LPIPS; its tables give 100
  times this number. The frames given here are RGB all the same.

  Args:
    pred: `[B, N, H, W, C]`, RGB, clipped to [0, 1].
    target: `[B, N, H, W, C]`.
    variables: as for `lpips`.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: as `lpips`.
  """
  return _measure(pred, target, variables, flip=True)


def lpips_bgr_spatial(pred, target, *, variables) -> jax.Array:
  """The mean of LPIPS's map of distances, as STRPM evaluates it.

  The authors' `spatial=True` brings the differences of each layer to the size
  of the frames, bilinearly, before they are added; the mean of that map weighs
  the positions at a layer's border differently from `lpips`. STRPM reads BGR
  and gives 100 times this number, and DMVFN's Table 3 follows it.

  Args:
    pred: `[B, N, H, W, C]`, RGB, clipped to [0, 1].
    target: `[B, N, H, W, C]`.
    variables: as for `lpips`.

  Returns:
    `[B, N]`.

  Raises:
    ValueError: as `lpips`.
  """
  return _measure(pred, target, variables, flip=True, spatial=True)
