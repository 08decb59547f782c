"""Converts published weights to Flax variables, strictly, without PyTorch.

`read_torch` reads a weight file to `{name: array}`; `from_torch` converts that
to the variables of a system. `vgg19`, `alexnet` and `lpips` do both for the
frozen feature networks. Every array of a file must have a place, and every
parameter must get an array of its shape; otherwise a ValueError names both
sides. The command is `python -m vidpred_jax.convert`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax import params, systems
from vidpred_jax.convert import dmvfn, ebme, rvd, simvp, weights
from vidpred_jax.convert.features import FEATURES, alexnet, i3d, lpips, vgg19
from vidpred_jax.convert.to_torch import WEIGHTS, save_torch, to_torch
from vidpred_jax.convert.weights import read_torch

__all__ = [
  'FEATURES',
  'WEIGHTS',
  'alexnet',
  'from_torch',
  'i3d',
  'lpips',
  'read_torch',
  'save_torch',
  'split_settings',
  'to_torch',
  'trained_frames',
  'trained_settings',
  'vgg19',
]


class Converter(NamedTuple):
  """The conversion of a system's published weights.

  Attributes:
    convert: `(state_dict, expected variables, **settings) -> variables`.
    firsts: a regular expression of what their names begin with.
    clip: `state_dict -> (frames, (H, W))`: what they were trained for, and a
      size at which parameters have their shapes, in multiples of the system's.
    settings: `state_dict -> dict`: what they tell of the system's settings.
  """

  convert: Callable
  firsts: str
  clip: Callable
  settings: Callable = lambda state_dict: {}


CONVERTERS = {
  'apr_vfi': Converter(ebme.convert, ebme.FIRSTS, ebme.clip),
  'dmvfn': Converter(dmvfn.convert, dmvfn.FIRSTS, dmvfn.clip),
  'rvd': Converter(rvd.convert, rvd.FIRSTS, rvd.clip, rvd.settings),
  'simvp': Converter(simvp.convert, simvp.FIRSTS, simvp.clip),
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
  converter = CONVERTERS[system_name]
  return converter.clip(weights.own_names(state_dict, converter.firsts))[0]


def trained_settings(
  system_name: str, state_dict: Mapping[str, Any]
) -> dict[str, Any]:
  """The settings of a system that follow from the shapes of its weights.

  Args:
    system_name: as for `from_torch`.
    state_dict: the same.

  Returns:
    For 'rvd' `channels`, `dim`, `mults`, `mean_mults` or `mode='frame'`, and
    `num_timesteps`; {} for others.
  """
  converter = CONVERTERS[system_name]
  return converter.settings(weights.own_names(state_dict, converter.firsts))


def from_torch(
  system_name: str,
  state_dict: Mapping[str, Any],
  /,
  *,
  allow_nonfinite: bool = False,
  **settings,
) -> dict[str, Any]:
  """Variables of a system from a published `state_dict`.

  Args:
    system_name: a system whose original was published in PyTorch: 'dmvfn',
      'rvd', 'simvp' (OpenSTL, any translator), or of 'apr_vfi' the flow
      (EBME's bi-flownet.pkl, with or without high synthesis).
    state_dict: `{name: array}`, as from `read_torch`; anything NumPy can take.
    allow_nonfinite: whether weights may be infinite or no numbers.
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
  state_dict = weights.own_names(state_dict, converter.firsts)
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
    variables = converter.convert(state_dict, expected, **own)
    if not allow_nonfinite:
      params.check_finite(params.flatten(variables))
    return variables
  except ValueError as error:
    raise ValueError(
      f'These weights cannot become {system_name} with these settings. {error}'
    ) from None


def split_settings(system_name, settings):
  """Splits settings into those of the conversion and those of the system.

  Args:
    system_name: as for `from_torch`.
    settings: by name.

  Returns:
    Two dicts; what both know is in both.
  """
  signature = inspect.signature(CONVERTERS[system_name].convert)
  own = {
    name: settings[name]
    for name, parameter in signature.parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name in settings
  }
  shared = systems.SYSTEMS[system_name].Settings._fields
  return own, {k: v for k, v in settings.items() if k not in own or k in shared}
