"""RVD's published weights: names of parameters, clips, and settings."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidpred_jax import params, systems
from vidpred_jax.convert import weights
from vidpred_jax.ops import diffusion

_NETS = {
  'denoiser': 'denoise_fn',
  'context_net': 'history_fn',
  'mean_net': 'transform_fn',
}
_BLOCK = {
  'conv_0': 'block1.block.0',
  'norm_0': 'block1.block.1',
  'conv_1': 'block2.block.0',
  'norm_1': 'block2.block.1',
  'shift': 'mlp.1',
  'shortcut': 'res_conv',
}
_ATTENTION = {
  'norm': 'fn.norm',
  'qkv': 'fn.fn.to_qkv',
  'out': 'fn.fn.to_out',
}
_CELL = {'gates': 'conv_gates.0', 'candidate': 'conv_cans.0'}
# Parts of a level of the recurrent networks, and of the denoiser.
_LEVEL = {'block': '0', 'cell': '1', 'shrink': '2.conv', 'grow': '1.conv'}
_DENOISER_LEVEL = {
  'block_0': '0',
  'block_1': '1',
  'attention': '2',
  'shrink': '3.conv',
  'grow': '3.conv',
}
_SINGLE = {
  'time_0': 'time_mlp.1',
  'time_1': 'time_mlp.3',
  'middle_0': 'mid_block1',
  'middle_attention': 'mid_attn',
  'middle_1': 'mid_block2',
  'last': 'final_conv.0.block.0',
  'last_norm': 'final_conv.0.block.1',
}


def torch_widths(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
  """The fields of `RVD` that follow from a published checkpoint's shapes.

  Args:
    shapes: `{published name: shape}`.

  Returns:
    `channels`, `dim`, `mults` and, where there is a network of the mean,
    `mean_mults`; {} if they are other weights.
  """

  def levels(net):
    names = (
      f'{_NETS[net]}.downs.{i}.0.block1.block.0.weight'
      for i in itertools.count()
    )
    kernels = (shapes.get(name, ()) for name in names)
    return list(itertools.takewhile(lambda x: len(x) == 4 and all(x), kernels))

  contexts, means = levels('context_net'), levels('mean_net')
  if not contexts:
    return {}
  dim, channels, *_ = contexts[0]
  fields = {'channels': channels, 'dim': dim}
  for name, kernels in (('mults', contexts), ('mean_mults', means)):
    if kernels:
      fields[name] = tuple(kernel[0] // dim for kernel in kernels)
  return fields


def torch_names(variables: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
  """Maps the published checkpoint's names to parameters.

  Args:
    variables: `{path: array or shape}` of all parameters, such as
      'params/denoiser/level_0/block_0/conv_0/kernel'.

  Returns:
    `{published name: (path, layout)}` with the layout 'conv',
    'conv_transpose', 'linear', 'vector' or 'plane' ([1, C, 1, 1]).
  """
  layouts = {1: 'vector', 2: 'linear', 4: 'conv'}
  result = {}
  for path, leaf in variables.items():
    _, net, *parts, last = path.split('/')
    names, layout = [_NETS[net]], layouts[len(leaf.shape)]
    inside = {}
    for part in (p for p in parts if p != 'memory'):
      kind, _, index = part.partition('_')
      if part in inside:
        names.append(inside[part])
      elif part == 'readout':
        names.append('mu' if net == 'mean_net' else 'final_conv.1')
      elif kind in ('level', 'up'):
        names.append(f'{"downs" if kind == "level" else "ups"}.{index}')
      else:
        names.append(_SINGLE[part])
      if kind in ('level', 'up'):
        inside = _DENOISER_LEVEL if net == 'denoiser' else _LEVEL
      elif 'attention' in part:
        inside = _ATTENTION
      else:
        inside = _CELL if part == 'cell' else _BLOCK
    attention = len(parts) > 1 and 'attention' in parts[-2]
    if attention and parts[-1] == 'norm':
      names.append({'scale': 'g', 'bias': 'b'}[last])
      layout = 'plane'
    else:
      names.append('bias' if last == 'bias' else 'weight')
    if parts[-1] == 'grow' and last == 'kernel':
      layout = 'conv_transpose'
    result['.'.join(names)] = (path, layout)
  return result


# Arrays that the reference computes from N and stores with its weights.
_SCHEDULE = {
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

# What published names begin with.
FIRSTS = '|'.join((*_NETS.values(), *_SCHEDULE))


def convert(
  state_dict,
  expected,
  *,
  num_timesteps: int = 1600,
  sigma: float | None = None,
  mode: str = 'residual',
):
  """Converts RVD's `state_dict`, 'model' or 'ema' of the published file."""
  has_mean = any(name.startswith('transform_fn.') for name in state_dict)
  if has_mean and mode == 'residual' and sigma != 1:
    raise ValueError(
      f'They were trained with sigma=1; got sigma={sigma} (None is the 2 of '
      'the paper). Set sigma=1.'
    )
  betas = diffusion.cosine(num_timesteps).betas
  trained = np.asarray(state_dict.get('betas', betas))
  if len(trained) != num_timesteps:
    raise ValueError(
      f'They were trained with num_timesteps={len(trained)}; got '
      f'{num_timesteps}.'
    )
  if not np.allclose(trained, betas, rtol=1e-4, atol=1e-6):
    raise ValueError(
      'They were trained with another schedule of noise; expected the cosine.'
    )
  names = torch_names(params.flatten(expected))
  own = {k: x for k, x in state_dict.items() if k not in _SCHEDULE}
  return weights.rearrange(names, own, expected)


def clip(state_dict):
  """The frames they were trained for, and a size, see `Converter`."""
  del state_dict
  # As it was evaluated; it was trained on 2 and 6.
  return systems.Frames((0, 1, 2, 3), tuple(range(4, 20))), (1, 1)


def settings(state_dict):
  """The settings of the system that the weights determine."""
  fields = torch_widths({k: np.shape(x) for k, x in state_dict.items()})
  if fields and 'mean_mults' not in fields:
    fields['mode'] = 'frame'
  if len(betas := np.shape(state_dict.get('betas', 0))) == 1:
    fields['num_timesteps'], *_ = betas
  return fields
