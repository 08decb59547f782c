"""Published weights to Flax variables, strictly and without PyTorch.

`read_torch` turns a weight file into `{name: array}`, `from_torch` that into
the variables of a system; `vgg19`, `alexnet` and `lpips` do both for the frozen
feature networks. Every array of a file must have a place and every parameter
must get an array of its shape; otherwise ValueError names both sides.

Command line:

  python -m vidpred_jax.convert --system=dmvfn --input=weights.pkl --output=DIR
      [--set name=value ...] [--key=NAME]

writes an exported checkpoint. Each `--set` is a setting of the system, such as
`--set router_scale=4`, or of the conversion, such as `--set channel_order=rgb`.
"""

import ast
import inspect
import json
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vidpred_jax import checkpoint, params, runtime, systems, torch_file
from vidpred_jax.models import dmvfn, features, simvp

# --- Reading files -----------------------------------------------------------


def read_torch(path: str, key: str | None = None) -> dict[str, np.ndarray]:
  """Reads named arrays from a file of weights.

  Args:
    path: what `torch.save` wrote (either format), a `.safetensors` or a `.npz`
      file; told apart by their content. No code in it is run.
    key: where in nested dicts the weights are, such as 'state_dict' or
      'model/ema'. Not needed if they are at the top or in the only place that
      holds arrays.

  Returns:
    `{name: array}`, read-only, a `module.` in front of all names removed.
    bfloat16 comes back as float32.

  Raises:
    ValueError: if it is no such file, is damaged, refers to anything but
      tensors, or it is unclear which arrays are meant.
    OSError: if it cannot be read.
  """
  with open(path, 'rb') as stream:
    start = stream.read(9)
  if not start:
    raise ValueError(f'{path} is empty.')
  if start[8:9] == b'{':
    tree = _read_safetensors(path)
  elif start[:2] == b'PK' and _is_npz(path):
    tree = _read_npz(path)
  else:
    tree = torch_file.load(path)
  return _without(_named_arrays(tree, path, key), 'module.')


def _is_npz(path: str) -> bool:
  try:
    with zipfile.ZipFile(path) as archive:
      return all(name.endswith('.npy') for name in archive.namelist())
  except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
    raise ValueError(f'{path} is damaged: {error}') from None


def _read_npz(path: str) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays}
  except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
    raise ValueError(f'{path} cannot be read: {error}') from None


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
  arrays = params.read_safetensors(pathlib.Path(path).read_bytes(), path)
  return {
    name: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x
    for name, x in arrays.items()
  }


def _named_arrays(tree: Any, path: str, key: str | None):
  """The dict of arrays in a file's content."""
  if key is not None:
    for part in key.split('/'):
      if not isinstance(tree, dict) or part not in tree:
        there = sorted(map(str, tree)) if isinstance(tree, dict) else 'no names'
        raise ValueError(
          f'{path} has no {part!r} (of key {key!r}); there is {there}.'
        )
      tree = tree[part]
  if not isinstance(tree, dict) or not tree:
    raise ValueError(
      f'{path} holds no named arrays but a {type(tree).__name__}.'
    )
  if _is_named_arrays(tree):
    return tree
  places = sorted(str(k) for k, v in tree.items() if _is_named_arrays(v))
  if key is None and len(places) == 1:
    return tree[places[0]]
  if places:
    raise ValueError(
      f'{path} holds several sets of weights; say which one by key: '
      f'{", ".join(places)}.'
    )
  others = [str(k) for k, v in tree.items() if not isinstance(v, np.ndarray)]
  raise ValueError(
    f'{path} holds things that are no arrays: {", ".join(others[:8])}.'
  )


def _is_named_arrays(tree: Any) -> bool:
  return (
    isinstance(tree, dict)
    and bool(tree)
    and all(
      isinstance(k, str) and isinstance(v, np.ndarray) for k, v in tree.items()
    )
  )


def _without(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  """Removes the `module.` of PyTorch's data parallelism, or the like."""
  while arrays and all(name.startswith(prefix) for name in arrays):
    arrays = {name.removeprefix(prefix): x for name, x in arrays.items()}
  return dict(arrays)


# --- Layouts -----------------------------------------------------------------

# kind -> the axes of PyTorch's array, in the order Flax has them.
_AXES = {
  'conv': (2, 3, 1, 0),  # OIHW -> HWIO
  'conv_transpose': (2, 3, 0, 1),  # IOHW -> HWIO, not flipped
  'depthwise': (2, 3, 0),  # O1HW -> HWO
  'linear': (1, 0),
  'matrix': (0, 1),
  'plane': (1,),  # 1C11 -> C
  'vector': (0,),
}
_RANKS = {'depthwise': 4, 'plane': 4}  # where there are axes of length 1


def _rearrange(
  names: Mapping[str, tuple[str, str]],
  state_dict: Mapping[str, Any],
  expected: Mapping[str, Any],
) -> dict[str, Any]:
  """Puts each array into its place.

  Args:
    names: `{torch name: (path, kind)}`.
    state_dict: `{torch name: array}`.
    expected: the tree of parameters or variables, of arrays or shapes.

  Returns:
    A tree like `expected`, float32.

  Raises:
    ValueError: listing what is missing, unexpected or of another shape, in
      PyTorch's names and layout.
  """
  flat = params.flatten(expected)
  wanted = {}
  for name, (path, kind) in names.items():
    axes, shape = _AXES[kind], flat[path].shape
    there = [1] * _RANKS.get(kind, len(axes))
    for axis, size in zip(axes, shape):
      there[axis] = size
    wanted[name] = jax.ShapeDtypeStruct(tuple(there), jnp.float32)
  arrays = {name: np.asarray(x) for name, x in state_dict.items()}
  arrays = params.merge_or_refuse(wanted, arrays)
  result = {}
  for name, (path, kind) in names.items():
    axes, array = _AXES[kind], arrays[name]
    others = [i for i in range(array.ndim) if i not in axes]
    moved = array.transpose(*axes, *others).reshape(flat[path].shape)
    result[path] = np.array(moved, np.float32, order='C')
  return params.merge_or_refuse(expected, params.unflatten(result))


# --- Systems -----------------------------------------------------------------


def _dmvfn(state_dict, expected, *, channel_order: str = 'bgr'):
  """DMVFN's published `state_dict`, trained on BGR, for RGB input."""
  if channel_order not in ('bgr', 'rgb'):
    raise ValueError(
      f"channel_order must be 'bgr' or 'rgb', got {channel_order!r}."
    )
  tree = expected['params']
  names = dmvfn.torch_names(
    num_blocks=sum(name.startswith('block_') for name in tree),
    spatial_path='spatial_0' in tree['block_0'],
    router='router' in tree,
  )
  places = {name: (path, kind) for name, (path, kind, _) in names.items()}
  tree = _rearrange(places, state_dict, tree)
  flat = params.flatten(tree)
  for path, _, images in names.values():
    for i in images if channel_order == 'bgr' else ():
      kernel = flat[path]
      kernel[:, :, i : i + 3] = kernel[:, :, i : i + 3][:, :, ::-1].copy()
  return {'params': tree}


def _simvp(state_dict, expected, *, translator: str = 'gsta'):
  """OpenSTL's `state_dict`, of any translator, also as Lightning saves it."""
  names = simvp.torch_names(params.flatten(expected), translator)
  return _rearrange(names, _weights_of_simvp(state_dict), expected)


def _weights_of_simvp(state_dict):
  """Without Lightning's prefix and what PyTorch computes by itself."""
  derived = r'.*\.(num_batches_tracked|relative_position_index|attn_mask)'
  return {
    name: x
    for name, x in _without(state_dict, 'model.').items()
    if not re.fullmatch(derived, name)
  }


def _clip_of_dmvfn(state_dict):
  del state_dict
  return systems.Frames((0, 1), (2,)), (4, 4)


def _clip_of_simvp(state_dict):
  weights = _weights_of_simvp(state_dict)
  shapes = {name: np.shape(x) for name, x in weights.items()}
  count, *size = simvp.torch_clip(shapes)
  context, target = range(count), range(count, 2 * count)
  return systems.Frames(tuple(context), tuple(target)), size


class _Converter(NamedTuple):
  """How the published weights of a system are taken over.

  Attributes:
    convert: `(state_dict, expected variables, **settings) -> variables`.
    clip: `state_dict -> (frames, (H, W))`: what they were trained for, and a
      size at which parameters have their shapes, in multiples of the system's.
  """

  convert: Callable
  clip: Callable


_CONVERTERS = {
  'dmvfn': _Converter(_dmvfn, _clip_of_dmvfn),
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
  state_dict = _without(state_dict, 'module.')
  return _CONVERTERS[system_name].clip(state_dict)[0]


def from_torch(
  system_name: str, state_dict: Mapping[str, Any], **settings
) -> dict[str, Any]:
  """Variables of a system from a published `state_dict`.

  Args:
    system_name: a system whose original was published in PyTorch: 'dmvfn' or
      'simvp' (OpenSTL, any translator).
    state_dict: `{name: array}`, as from `read_torch`; anything NumPy can take.
    **settings: of the system where they differ from its defaults, but for
      `frames`, and of the conversion. For 'dmvfn': `channel_order='bgr'` (as
      published: colours are read in the order of OpenCV, so the input channels
      are reversed and the variables expect RGB like all others) or `'rgb'`
      (left as they are). For 'simvp' the number of context frames is the
      weights'; sizes and the translator are settings of the system.

  Returns:
    `{'params': ...}` and the system's other collections, NumPy float32.

  Raises:
    ValueError: if the names or shapes are not those of the system, or there is
      no such system or setting.
  """
  if system_name not in _CONVERTERS:
    raise ValueError(
      f'There are no published weights to convert for {system_name!r}; there '
      f'are for {", ".join(_CONVERTERS)}.'
    )
  converter = _CONVERTERS[system_name]
  state_dict = _without(state_dict, 'module.')
  frames, (height, width) = converter.clip(state_dict)
  if 'frames' in settings:
    raise ValueError(
      f'frames is no setting of a conversion, got {settings["frames"]!r}: the '
      f'weights of {system_name} were trained for {frames}. Give '
      'other frames when the converted system is loaded.'
    )
  own, settings = _split_settings(system_name, settings)
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


def _split_settings(system_name, settings):
  """The settings of the conversion, and those of the system."""
  signature = inspect.signature(_CONVERTERS[system_name].convert)
  own = {
    name: settings[name]
    for name, parameter in signature.parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name in settings
  }
  shared = inspect.signature(systems.SYSTEMS[system_name]).parameters
  return own, {k: v for k, v in settings.items() if k not in own or k in shared}


# --- Feature networks --------------------------------------------------------


def _features(path: str, key, module, indices, ignored: str, source: str):
  """The parameter tree of a module of `models.features`."""
  arrays = read_torch(path, key)
  arrays = {k: x for k, x in arrays.items() if not re.fullmatch(ignored, k)}
  clip = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  expected = jax.eval_shape(module.init, jax.random.key(0), clip)['params']
  names = {}
  for i in indices:
    names[f'features.{i}.weight'] = (f'features_{i}/kernel', 'conv')
    names[f'features.{i}.bias'] = (f'features_{i}/bias', 'vector')
  try:
    return _rearrange(names, arrays, expected)
  except ValueError as error:
    raise ValueError(f'{path} is not {source}. {error}') from None


def vgg19(path: str, key: str | None = None) -> dict[str, Any]:
  """Parameters of `models.features.VGG19` from torchvision's weights.

  Args:
    path: torchvision's vgg19-dcbb9e9d.pth or its `state_dict` in another form
      that `read_torch` reads; layers that are not needed may be absent.
    key: as for `read_torch`.

  Returns:
    The parameter tree, NumPy float32.

  Raises:
    ValueError: if they are other weights.
    OSError: if the file cannot be read.
  """
  return _features(
    path,
    key,
    features.VGG19(),
    features.VGG19_CONVOLUTIONS,
    r'features\.(30|32|34)\..*|classifier\..*',
    "torchvision's VGG19",
  )


def alexnet(path: str, key: str | None = None) -> dict[str, Any]:
  """Parameters of `models.features.AlexNet` from torchvision's weights.

  Args:
    path: torchvision's alexnet-owt-7be5be79.pth or its `state_dict` in another
      form that `read_torch` reads; the classifier may be absent.
    key: as for `read_torch`.

  Returns:
    The parameter tree, NumPy float32.

  Raises:
    ValueError: if they are other weights.
    OSError: if the file cannot be read.
  """
  return _features(
    path,
    key,
    features.AlexNet(),
    features.ALEXNET_CONVOLUTIONS,
    r'classifier\..*',
    "torchvision's AlexNet",
  )


def lpips(alexnet_path: str, heads_path: str) -> dict[str, Any]:
  """What the metric `lpips/alex` needs.

  Args:
    alexnet_path: torchvision's alexnet-owt-7be5be79.pth.
    heads_path: lpips/weights/v0.1/alex.pth of richzhang/PerceptualSimilarity.
      (v0.0 has the same form and cannot be told apart; it belongs to another
      input scaling.)

  Returns:
    `{'alexnet': parameters, 'heads': {'lin0': [64], ... 'lin4': [256]}}`.

  Raises:
    ValueError: if they are other weights.
    OSError: if a file cannot be read.
  """
  channels = [c for c, *_ in features.ALEXNET_CONVOLUTIONS.values()]
  expected = {
    f'lin{i}.model.1.weight': np.empty((1, c, 1, 1))
    for i, c in enumerate(channels)
  }
  try:
    heads = params.merge_or_refuse(expected, read_torch(heads_path))
  except ValueError as error:
    raise ValueError(
      f"{heads_path} does not hold LPIPS's heads for AlexNet. {error}"
    ) from None
  return {
    'alexnet': alexnet(alexnet_path),
    'heads': {
      name.split('.')[0]: np.array(x, np.float32).reshape(-1)
      for name, x in heads.items()
    },
  }


# collection of a system's variables -> function(path) -> parameters
FEATURES = {'vgg': vgg19}


# --- Command line ------------------------------------------------------------


def _parse_settings(texts) -> dict[str, Any]:
  """`['name=value', ...]` -> dict; values are literals or bare words."""
  settings = {}
  for text in texts:
    name, equals, value = text.partition('=')
    if not equals or not name.isidentifier():
      raise ValueError(f'--set must be name=value, got {text!r}.')
    if name in settings:
      raise ValueError(f'--set {name} is given twice.')
    try:
      settings[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      if not re.fullmatch(r'[A-Za-z]\w*', value):
        raise ValueError(
          f'--set {name}: {value!r} is neither a Python literal nor a word.'
        ) from None
      settings[name] = value
  return settings


def _define_flags() -> None:
  flags.DEFINE_enum('system', None, sorted(_CONVERTERS), 'What it is.')
  flags.DEFINE_string('input', None, 'The file of weights.')
  flags.DEFINE_string('output', None, 'The folder to make.')
  flags.DEFINE_string('key', None, 'Where in the file the weights are.')
  flags.DEFINE_multi_string('set', [], 'A setting, name=value; repeatable.')
  flags.mark_flags_as_required(['system', 'input', 'output'])


def main(argv) -> None:
  """Converts one file as the flags say and prints what was written."""
  del argv
  values = flags.FLAGS
  if pathlib.Path(values.output).exists():
    raise FileExistsError(f'{values.output} exists already; nothing was read.')
  settings = _parse_settings(values.set)
  state_dict = read_torch(values.input, values.key)
  variables = from_torch(values.system, state_dict, **settings)
  _, settings = _split_settings(values.system, settings)
  checkpoint.save_system(
    values.output,
    system=values.system,
    settings=settings,
    frames=trained_frames(values.system, state_dict),
    variables=variables,
  )
  leaves = jax.tree.leaves(variables['params'])
  report = {
    'output': values.output,
    'system': values.system,
    'settings': settings,
    'parameters': sum(leaf.size for leaf in leaves),
  }
  print(json.dumps(report))


if __name__ == '__main__':
  runtime.run(main, _define_flags)
