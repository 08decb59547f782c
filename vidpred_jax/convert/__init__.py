"""Published weights to Flax variables, strictly and without PyTorch.

`read_torch` turns a weight file into `{name: array}`, `from_torch` that into
the variables of a system; `vgg19`, `alexnet` and `lpips` do both for the frozen
feature networks. Every array of a file must have a place and every parameter
must get an array of its shape; otherwise ValueError names both sides.
`python -m vidpred_jax.convert` does it from the command line.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import params, systems
from vidpred_jax.convert import weights
from vidpred_jax.convert.networks import FEATURES, alexnet, i3d, lpips, vgg19
from vidpred_jax.convert.weights import read_torch
from vidpred_jax.models import dmvfn, ebme, rvd, simvp
from vidpred_jax.ops import diffusion

__all__ = [
  'FEATURES',
  'alexnet',
  'from_torch',
  'i3d',
  'lpips',
  'read_torch',
  'split_settings',
  'trained_frames',
  'trained_settings',
  'vgg19',
]


def _rearrange_images(names, state_dict, tree, channel_order):
  """`weights.rearrange` where some layers see images, trained on BGR.

  Args:
    names: `{torch name: (path, kind, images)}`, see `models.dmvfn.torch_names`.
    state_dict: `{torch name: array}`.
    tree: the expected parameters.
    channel_order: 'bgr': what the layers see is turned to RGB; 'rgb': left.

  Returns:
    The parameters.
  """
  if channel_order not in ('bgr', 'rgb'):
    raise ValueError(
      f"channel_order must be 'bgr' or 'rgb', got {channel_order!r}."
    )
  places = {name: (path, kind) for name, (path, kind, _) in names.items()}
  tree = weights.rearrange(places, state_dict, tree)
  flat = params.flatten(tree)
  for path, _, images in names.values():
    for i in images if channel_order == 'bgr' else ():
      kernel = flat[path]
      kernel[:, :, i : i + 3] = kernel[:, :, i : i + 3][:, :, ::-1].copy()
  return tree


def _dmvfn(state_dict, expected, *, channel_order: str = 'bgr'):
  """DMVFN's published `state_dict`, trained on BGR, for RGB input."""
  tree = expected['params']
  names = dmvfn.torch_names(
    num_blocks=sum(name.startswith('block_') for name in tree),
    spatial_path='spatial_0' in tree['block_0'],
    router='router' in tree,
  )
  return {'params': _rearrange_images(names, state_dict, tree, channel_order)}


def _apr_vfi(state_dict, expected, *, channel_order: str = 'bgr'):
  """EBME's `bi-flownet.pkl`, trained on BGR, for RGB input."""
  if set(expected['params']) != {'flow'}:
    raise ValueError(
      'Published are weights of the flow alone. Set synthesis=warp; training '
      "starts from the result by init_from and init_match='flow/.*'."
    )
  tree = expected['params']['flow']
  names = ebme.torch_names()
  flow = _rearrange_images(names, state_dict, tree, channel_order)
  return {'params': {'flow': flow}}


def _simvp(state_dict, expected, *, translator: str = 'gsta'):
  """OpenSTL's `state_dict`, of any translator, also as Lightning saves it."""
  names = simvp.torch_names(params.flatten(expected), translator)
  return weights.rearrange(names, _weights_of_simvp(state_dict), expected)


def _weights_of_simvp(state_dict):
  """Without Lightning's prefix and what PyTorch computes by itself."""
  derived = r'.*\.(num_batches_tracked|relative_position_index|attn_mask)'
  return {
    name: x
    for name, x in weights.without(state_dict, 'model.').items()
    if not re.fullmatch(derived, name)
  }


# What the reference computes from N and keeps among its weights.
_SCHEDULE_OF_RVD = {
  'betas',
  'alphas_cumprod',
  'alphas_cumprod_prev',
  'sqrt_alphas_cumprod',
  'sqrt_one_minus_alphas_cumprod',
  'log_one_minus_alphas_cumprod',
  'sqrt_recip_alphas_cumprod',
  'sqrt_recipm1_alphas_cumprod',
  'posterior_variance',
  'posterior_log_variance_clipped',
  'posterior_mean_coef1',
  'posterior_mean_coef2',
}


def _rvd(
  state_dict,
  expected,
  *,
  depth: int = 1600,
  sigma: float | None = None,
  mode: str = 'residual',
):
  """RVD's `state_dict`, 'model' or 'ema' of the published file."""
  has_mean = any(name.startswith('transform_fn.') for name in state_dict)
  if has_mean and mode == 'residual' and sigma != 1:
    raise ValueError(
      f'They were trained with sigma=1; got sigma={sigma} (None is the 2 of '
      'the paper). Set sigma=1.'
    )
  betas = diffusion.cosine(depth).betas
  trained = np.asarray(state_dict.get('betas', betas))
  if len(trained) != depth:
    raise ValueError(
      f'They were trained with depth={len(trained)}; got {depth}.'
    )
  if not np.allclose(trained, betas, rtol=1e-4, atol=1e-6):
    raise ValueError(
      'They were trained with another schedule of noise; expected the cosine.'
    )
  names = rvd.torch_names(params.flatten(expected))
  own = {k: x for k, x in state_dict.items() if k not in _SCHEDULE_OF_RVD}
  return weights.rearrange(names, own, expected)


def _clip_of_apr_vfi(state_dict):
  del state_dict
  return systems.Frames((0, 2), (1,)), (32, 32)


def _clip_of_dmvfn(state_dict):
  del state_dict
  return systems.Frames((0, 1), (2,)), (4, 4)


def _clip_of_simvp(state_dict):
  weights = _weights_of_simvp(state_dict)
  shapes = {name: np.shape(x) for name, x in weights.items()}
  count, *size = simvp.torch_clip(shapes)
  context, target = range(count), range(count, 2 * count)
  return systems.Frames(tuple(context), tuple(target)), size


def _clip_of_rvd(state_dict):
  del state_dict
  # As it was evaluated; it was trained on 2 and 6.
  return systems.Frames((0, 1, 2, 3), tuple(range(4, 20))), (1, 1)


def _settings_of_rvd(state_dict):
  found = rvd.torch_widths({k: np.shape(x) for k, x in state_dict.items()})
  if found and 'mean_mults' not in found:
    found['mode'] = 'frame'
  if len(betas := np.shape(state_dict.get('betas', 0))) == 1:
    found['depth'], *_ = betas
  return found


class _Converter(NamedTuple):
  """How the published weights of a system are taken over.

  Attributes:
    convert: `(state_dict, expected variables, **settings) -> variables`.
    clip: `state_dict -> (frames, (H, W))`: what they were trained for, and a
      size at which parameters have their shapes, in multiples of the system's.
    settings: `state_dict -> dict`: what they tell of the system's settings.
  """

  convert: Callable
  clip: Callable
  settings: Callable = lambda state_dict: {}


CONVERTERS = {
  'apr_vfi': _Converter(_apr_vfi, _clip_of_apr_vfi),
  'dmvfn': _Converter(_dmvfn, _clip_of_dmvfn),
  'rvd': _Converter(_rvd, _clip_of_rvd, _settings_of_rvd),
  'simvp': _Converter(_simvp, _clip_of_simvp),
}


def trained_frames(
  system_name: str, state_dict: Mapping[str, Any]
) -> systems.Frames:
  """The frames that published weights were trained for.

  Args:
    system_name: as for `from_torch`.
    state_dict: the same.

  Returns:
    For 'simvp' as many targets as context frames.
  """
  state_dict = weights.unwrapped(state_dict)
  return CONVERTERS[system_name].clip(state_dict)[0]


def trained_settings(
  system_name: str, state_dict: Mapping[str, Any]
) -> dict[str, Any]:
  """Settings of the system that published weights tell by their shapes.

  Args:
    system_name: as for `from_torch`.
    state_dict: the same.

  Returns:
    For 'rvd' `channels`, `dim`, `mults`, `mean_mults` or `mode='frame'`, and
    `depth`; {} for others.
  """
  state_dict = weights.unwrapped(state_dict)
  return CONVERTERS[system_name].settings(state_dict)


def from_torch(
  system_name: str, state_dict: Mapping[str, Any], **settings
) -> dict[str, Any]:
  """Variables of a system from a published `state_dict`.

  Args:
    system_name: a system whose original was published in PyTorch: 'dmvfn',
      'rvd', 'simvp' (OpenSTL, any translator), or of 'apr_vfi' the flow
      (EBME's bi-flownet.pkl, with or without high synthesis).
    state_dict: `{name: array}`, as from `read_torch`; anything NumPy can take.
    **settings: of the system where they differ from its defaults, but for
      `frames`, and of the conversion. For 'dmvfn': `channel_order='bgr'` (as
      published: colours are read in the order of OpenCV, so the input channels
      are reversed and the variables expect RGB like all others) or `'rgb'`
      (left as they are). For 'apr_vfi' the same, and `synthesis='warp'` must be
      given: nothing but the flow was published. For 'simvp' the number of
      context frames is the weights'; sizes and the translator are settings of
      the system. For 'rvd' `sigma=1` must be given, with which the published
      code trains (the paper's 2 is the default of the system); all else is
      `trained_settings`, which must be given to make the system. The file holds
      weights twice: `read_torch` needs the key 'model', what was trained and
      what the published evaluation loads, or 'ema', its average.

  Returns:
    `{'params': ...}` and the system's other collections, NumPy float32.

  Raises:
    ValueError: if the names or shapes are not those of the system, or there is
      no such system or setting.
  """
  if system_name not in CONVERTERS:
    raise ValueError(
      f'There are no published weights to convert for {system_name!r}; there '
      f'are for {", ".join(CONVERTERS)}.'
    )
  converter = CONVERTERS[system_name]
  state_dict = weights.unwrapped(state_dict)
  frames, (height, width) = converter.clip(state_dict)
  if 'frames' in settings:
    raise ValueError(
      f'frames is no setting of a conversion, got {settings["frames"]!r}: the '
      f'weights of {system_name} were trained for {frames}. Give '
      'other frames when the converted system is loaded.'
    )
  settings = converter.settings(state_dict) | settings
  own, settings = split_settings(system_name, settings)
  system = systems.make(system_name, frames=frames, **settings)
  size = height * system.multiple, width * system.multiple
  clip = jax.ShapeDtypeStruct(
    (1, frames.length, *size, system.channels), jnp.float32
  )
  expected = jax.eval_shape(system.init, jax.random.key(0), clip)
  try:
    return converter.convert(state_dict, expected, **own)
  except ValueError as error:
    raise ValueError(
      f'These weights cannot become {system_name} with these settings. {error}'
    ) from None


def split_settings(system_name, settings):
  """Splits `from_torch`'s settings: the conversion's own, and the system's."""
  signature = inspect.signature(CONVERTERS[system_name].convert)
  own = {
    name: settings[name]
    for name, parameter in signature.parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name in settings
  }
  shared = inspect.signature(systems.SYSTEMS[system_name]).parameters
  return own, {k: v for k, v in settings.items() if k not in own or k in shared}
