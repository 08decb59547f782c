"""OpenSTL's weights of SimVPv2: names of parameters, clips, sizes."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidpred_jax import params, systems
from vidpred_jax.convert import weights
from vidpred_jax.models import blocks

# What published names begin with.
FIRSTS = r'enc\.enc|hid\.(?:enc|dec)|dec\.(?:dec|readout)'

_NORMS = {'norm_0': 'norm1', 'norm_1': 'norm2'}
_SCALES = {'scale_0': 'layer_scale_1', 'scale_1': 'layer_scale_2'}
_MLP = {'mlp_in': 'mlp.fc1', 'mlp_out': 'mlp.fc2'}
_ATTENTION = {'qkv': 'attn.qkv', 'proj_out': 'attn.proj'}
_LARGE_KERNEL = {
  **_NORMS,
  **_SCALES,
  **_MLP,
  'mlp_local': 'mlp.dwconv.dwconv',
  'proj_in': 'attn.proj_1',
  'local': 'attn.spatial_gating_unit.conv0',
  'wide': 'attn.spatial_gating_unit.conv_spatial',
  'mix': 'attn.spatial_gating_unit.conv1',
  'squeeze': 'attn.spatial_gating_unit.fc.0',
  'excite': 'attn.spatial_gating_unit.fc.2',
  'proj_out': 'attn.proj_2',
}

# Of the layers and parameters in a translator's block, ours: published.
_BLOCKS = {
  'gsta': _LARGE_KERNEL,
  'tau': _LARGE_KERNEL,
  'van': _LARGE_KERNEL,
  'convmixer': {
    'wide': 'conv_dw',
    'norm_0': 'norm_1',
    'mix': 'conv_pw',
    'norm_1': 'norm_2',
  },
  'convnext': {**_MLP, 'wide': 'conv_dw', 'norm': 'norm', 'scale': 'gamma'},
  'hornet': {
    **_NORMS,
    'scale_0': 'gamma1',
    'scale_1': 'gamma2',
    'proj_in': 'gnconv.proj_in',
    'wide': 'gnconv.dwconv',
    'order_0': 'gnconv.pws.0',
    'order_1': 'gnconv.pws.1',
    'order_2': 'gnconv.pws.2',
    'proj_out': 'gnconv.proj_out',
    'mlp_in': 'pwconv1',
    'mlp_out': 'pwconv2',
  },
  'mlp': {
    **_NORMS,
    'tokens_in': 'mlp_tokens.fc1',
    'tokens_out': 'mlp_tokens.fc2',
    'mlp_in': 'mlp_channels.fc1',
    'mlp_out': 'mlp_channels.fc2',
  },
  'moga': {
    **_NORMS,
    **_SCALES,
    **_MLP,
    'sigma': 'attn.sigma',
    'proj_in': 'attn.proj_1',
    'gate': 'attn.gate',
    'order_0': 'attn.value.DW_conv0',
    'order_1': 'attn.value.DW_conv1',
    'order_2': 'attn.value.DW_conv2',
    'mix': 'attn.value.PW_conv',
    'proj_out': 'attn.proj_2',
    'mlp_local': 'mlp.dwconv',
    'mlp_common': 'mlp.decompose',
    'mlp_sigma': 'mlp.sigma',
  },
  'poolformer': {**_NORMS, **_SCALES, **_MLP},
  'swin': {
    **_NORMS,
    **_MLP,
    **_ATTENTION,
    'offsets': 'attn.relative_position_bias_table',
  },
  'uniformer': {
    **_NORMS,
    **_MLP,
    **_ATTENTION,
    'scale_0': 'gamma_1',
    'scale_1': 'gamma_2',
    'position': 'pos_embed',
    'conv_in': 'conv1',
    'conv_local': 'attn',
    'conv_out': 'conv2',
  },
  'vit': {**_NORMS, **_MLP, **_ATTENTION},
}
_BLOCKS['incepu'] = {'conv': 'conv1'} | {
  f'{ours}_{size}': f'layers.{i}.{ours}'
  for i, size in enumerate((3, 5, 7, 11))
  for ours in ('conv', 'norm')
}
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}


def torch_names(
  variables: Mapping[str, Any], translator: str
) -> dict[str, tuple[str, str]]:
  """Maps the published checkpoint's names to parameters.

  Args:
    variables: `{path: array or shape}` of all collections, such as
      'params/encoder/unit_0/kernel'.
    translator: one of `models.simvp.TRANSLATORS`.

  Returns:
    `{published name: (path, layout)}` with the layout 'conv', 'depthwise',
    'linear', 'vector', 'plane' ([1, C, 1, 1]) or 'matrix' (not transposed).
  """
  layouts = {1: 'vector', 2: 'linear', 3: 'depthwise', 4: 'conv'}
  result = {}
  for path, leaf in variables.items():
    _, part, module, *rest = path.split('/')
    layout = layouts[len(leaf.shape)]
    kind, _, index = module.partition('_')
    if part == 'translation':
      name = f'hid.{"dec" if kind == "decode" else "enc"}.{index}'
      if kind == 'width':
        name += '.reduction'
      else:
        ours, *rest = rest
        name += '.block.' if kind == 'block' else '.'
        name += _BLOCKS[translator][ours]
        if ours == 'offsets':
          layout = 'matrix'
        if translator == 'moga' and not rest:
          layout = 'plane'
    elif module == 'readout':
      name = 'dec.readout'
    else:
      name = f'{part[:3]}.{part[:3]}.{index}.conv'
      if rest[0] == 'norm':
        name += '.norm'
      else:
        # What doubles the size is a sequence of two layers.
        up = part == 'decoder' and int(index) % 2 == 0
        name += '.conv.0' if up else '.conv'
    if rest:
      name += '.' + _LEAVES[rest[-1]]
    result[name] = (path, layout)
  return result


def torch_clip(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int]:
  """The clips that a published checkpoint can take.

  Args:
    shapes: `{published name: shape}`.

  Returns:
    T, and a height and width of the translator's input at which parameters have
    these shapes ('mlp' tells the number of its pixels, 'swin' the side of its
    windows, the others nothing). If they are other weights, any numbers.
  """

  def size(pattern, axis):
    matches = [shapes[k] for k in sorted(shapes) if re.fullmatch(pattern, k)]
    return matches[0][axis] if matches and len(matches[0]) > axis else None

  features = size(r'enc\.enc\.0\.conv\.norm\.weight', 0) or 1
  width = size(r'hid\.enc\.0\.block\.norm_?1?\.weight', 0)  # MetaFormer
  width = width or size(r'hid\.enc\.0\.conv1\.weight', 1)  # IncepU
  frames = max((width or 10 * features) // features, 1)
  if pixels := size(r'hid\.enc\.0\.block\.mlp_tokens\.fc1\.weight', 1):
    return frames, 1, pixels
  rows = size(r'hid\.enc\.0\.block\..*position_bias_table', 0)
  return frames, *((rows and blocks.swin_size(rows)) or (4, 4))


def convert(state_dict, expected, *, translator: str = 'gsta'):
  """Converts OpenSTL's `state_dict` of any translator, also Lightning's."""
  names = torch_names(params.flatten(expected), translator)
  return weights.rearrange(names, _own_weights(state_dict), expected)


def _own_weights(state_dict):
  """Removes arrays that PyTorch computes by itself."""
  derived = r'.*\.(num_batches_tracked|relative_position_index|attn_mask)'
  return {
    name: x for name, x in state_dict.items() if not re.fullmatch(derived, name)
  }


def clip(state_dict):
  """The frames they were trained for, and a size, see `Converter`."""
  own = _own_weights(state_dict)
  shapes = {name: np.shape(x) for name, x in own.items()}
  count, *size = torch_clip(shapes)
  context, target = range(count), range(count, 2 * count)
  return systems.Frames(tuple(context), tuple(target)), size
