"""Reads weight files to named arrays, and arranges arrays in parameter trees.

Both are strict. A file that holds anything but weights is refused. So is an
array without a place, or a parameter without an array of its shape. No code in
a file is run, and PyTorch is not needed.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import params, stored
from vidpred_jax.convert import torch_file

# Bytes that an npz file may become, and how many for one of its own.
_LEAST_OF_NPZ, _MOST_PACKED = 256 << 20, 20
# What PyTorch's wrappers call what they wrap, wherever it stands in a name.
_WRAPPERS = {
  '_orig_mod',
  '_fsdp_wrapped_module',
  '_fpw_module',
  '_checkpoint_wrapped_module',
  '_forward_module',
}

# --- Reading files -----------------------------------------------------------


def read_torch(path: str, key: str | None = None) -> dict[str, np.ndarray]:
  """Reads named arrays from a file of weights.

  Args:
    path: what `torch.save` wrote (either format), a `.safetensors` or a `.npz`
      file; told apart by their content. No code in it is run.
    key: where in nested dicts the weights are, such as 'state_dict' or
      'model/ema'. Not needed if they are at the top or in the only place that
      holds arrays. It may end with what their names begin with: 'model' are
      those called `model.` and more, without that.

  Returns:
    `{name: array}`, read-only, a `module.` in front of all names removed, and
    the names of other wrappers, such as `_orig_mod.`, wherever they stand.
    bfloat16 comes back as float32.

  Raises:
    ValueError: if it is no such file, is damaged, refers to anything but
      tensors, or it is unclear which arrays are meant.
    OSError: if it cannot be read.
  """
  data = stored.read_bytes(path, stored.MOST_OF_WEIGHTS)
  if not data:
    raise ValueError(f'{path} is empty.')
  if data[8:9] == b'{':
    tree = _read_safetensors(data, path)
  elif data[:2] == b'PK' and (archive := _npz(data, path)) is not None:
    tree = archive
  else:
    tree = torch_file.load(path)
  return unwrapped(_named_arrays(tree, path, key))


def _npz(data: bytes, path: str) -> dict[str, np.ndarray] | None:
  """The arrays of an npz file; None for another zip archive."""
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      if not all(name.endswith('.npy') for name in archive.namelist()):
        return None
      size = sum(i.file_size for i in archive.infolist())
      if size > max(_LEAST_OF_NPZ, _MOST_PACKED * len(data)):
        raise ValueError(f'{len(data)} bytes that become {size}')
      with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}
  except Exception as error:  # of zipfile, zlib, lzma, tokenize, NumPy
    why = f'{type(error).__name__}: {str(error)[:200]}'
    raise ValueError(f'{path} is damaged or no npz file ({why}).') from None


def _read_safetensors(data: bytes, path: str) -> dict[str, np.ndarray]:
  arrays = params.read_safetensors(data, path)
  return {
    name: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x
    for name, x in arrays.items()
  }


def _named_arrays(tree: Any, path: str, key: str | None):
  """The dict of arrays in a file's content."""
  for part in key.split('/') if key is not None else ():
    tree = _part(tree, part, path, key)
  if not isinstance(tree, dict) or not tree:
    raise ValueError(
      f'{path} holds no named arrays but a {type(tree).__name__}.'
    )
  if _is_named_arrays(tree):
    return tree
  places = [k for k, v in tree.items() if _is_named_arrays(v)]
  if key is None and len(places) == 1:
    return tree[places[0]]
  if places:
    raise ValueError(
      f'{path} holds several sets of weights; say which one by key: '
      f'{", ".join(sorted(map(str, places)))}.'
    )
  others = [str(k) for k, v in tree.items() if not isinstance(v, np.ndarray)]
  raise ValueError(
    f'{path} holds things that are no arrays: {", ".join(others[:8])}.'
  )


def _part(tree: Any, part: str, path: str, key: str | None):
  """What one part of a key names: an entry, or what names begin with."""
  if isinstance(tree, dict) and part in tree:
    return tree[part]
  places = [tree]
  if isinstance(tree, dict) and not _is_named_arrays(tree):
    places = [x for x in tree.values() if _is_named_arrays(x)]
  if len(places) == 1 and _is_named_arrays(places[0]):
    begin = f'{part}.'
    named = {
      name.removeprefix(begin): x
      for name, x in places[0].items()
      if name.startswith(begin)
    }
    if named:
      return named
  content = sorted(map(str, tree)) if isinstance(tree, dict) else 'no names'
  raise ValueError(
    f'{path} has no {part!r} (of key {key!r}); there is {content}.'
  )


def _is_named_arrays(tree: Any) -> bool:
  return (
    isinstance(tree, dict)
    and bool(tree)
    and all(
      isinstance(k, str) and isinstance(v, np.ndarray) for k, v in tree.items()
    )
  )


def unwrapped(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Removes the prefixes that PyTorch's wrappers add to names.

  What compiles, shards or recomputes a network puts its own name in front of
  what it wraps, a part or the whole; data parallelism and averaging put
  `module.` there, averaging with a count `n_averaged` beside.
  """
  inner = {}
  for name, x in arrays.items():
    parts = [p for p in name.split('.') if p not in _WRAPPERS]
    if not parts:
      raise ValueError(f'Got weights of the name {name}, which says nothing.')
    first, *rest = parts
    plain = '.'.join([first, *(p for p in rest if p != 'module')])
    if plain in inner:
      raise ValueError(f'The weights hold {plain} twice, wrapped and not.')
    inner[plain] = x
  if any('module' in name.split('.') for name in arrays):
    counts = [k for k in inner if k.split('.')[-1] == 'n_averaged']
    inner = {k: x for k, x in inner.items() if k not in counts}
  return without(inner, 'module.')


def own_names(arrays: Mapping[str, Any], firsts: str) -> dict[str, Any]:
  """Removes what stands in front of a network's names, such as `model.`.

  Args:
    arrays: `{name: array}`.
    firsts: a regular expression of what the names of the network begin with.

  Returns:
    The arrays; as they are if none has such a name.

  Raises:
    ValueError: if others are beside them, or there are several such networks.
  """
  arrays = unwrapped(arrays)
  pattern = re.compile(rf'((?:[^.]+\.)*?)(?:{firsts})(?:\..*)?')
  prefixes = {}
  for name in arrays:
    matched = pattern.fullmatch(name)
    prefixes.setdefault(matched and matched[1], []).append(name)
  known = sorted(p for p in prefixes if p is not None)
  if not known or '' in known:
    return arrays
  if len(prefixes) > 1:
    others = sorted({x.partition('.')[0] for x in prefixes.get(None, ())})
    raise ValueError(
      f'The names of the weights begin with {", ".join(known)}'
      f'{" and there are others: " if others else ""}{", ".join(others)}; say '
      f'by key which are meant, such as {known[0].rstrip(".")}.'
    )
  return without(arrays, known[0])


def without(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  """Removes the `module.` of PyTorch's data parallelism, or the like."""
  while arrays and all(name.startswith(prefix) for name in arrays):
    arrays = {name.removeprefix(prefix): x for name, x in arrays.items()}
  return dict(arrays)


# --- Layouts -----------------------------------------------------------------

# kind -> the axes of PyTorch's array, in the order Flax has them.
AXES = {
  'conv': (2, 3, 1, 0),  # OIHW -> HWIO
  'conv3d': (2, 3, 4, 1, 0),  # OITHW -> THWIO
  'conv_transpose': (2, 3, 0, 1),  # IOHW -> HWIO, not flipped
  'depthwise': (2, 3, 0),  # O1HW -> HWO
  'linear': (1, 0),
  'linear3d': (1, 0),  # OI111 -> IO
  'matrix': (0, 1),
  'plane': (1,),  # 1C11 -> C
  'vector': (0,),
}
RANKS = {
  'depthwise': 4,
  'linear3d': 5,
  'plane': 4,
}  # where there are axes of length 1


def rearrange(
  names: Mapping[str, tuple[str, str]],
  state_dict: Mapping[str, Any],
  expected: Mapping[str, Any],
) -> dict[str, Any]:
  """Arranges arrays in a tree of parameters.

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
    axes, shape = AXES[kind], flat[path].shape
    expanded = [1] * RANKS.get(kind, len(axes))
    for axis, size in zip(axes, shape):
      expanded[axis] = size
    wanted[name] = jax.ShapeDtypeStruct(tuple(expanded), jnp.float32)
  arrays = {name: np.asarray(x) for name, x in state_dict.items()}
  arrays = params.merge_or_refuse(wanted, arrays)
  for name, array in arrays.items():
    if array.dtype.kind not in 'fiub' and array.dtype != jnp.bfloat16:
      raise ValueError(
        f'{name} is of type {array.dtype}, expected real numbers.'
      )
  result = {}
  for name, (path, kind) in names.items():
    axes, array = AXES[kind], arrays[name]
    others = [i for i in range(array.ndim) if i not in axes]
    moved = array.transpose(*axes, *others).reshape(flat[path].shape)
    with np.errstate(over='ignore'):  # what is infinite is looked for later
      result[path] = np.array(moved, np.float32, order='C')
  return params.merge_or_refuse(expected, params.unflatten(result))


def rearrange_images(names, state_dict, tree, channel_order):
  """As `rearrange`, for weights trained on BGR; image layers are reversed.

  Args:
    names: `{torch name: (path, kind, images)}`, see `dmvfn.torch_names`.
    state_dict: `{torch name: array}`.
    tree: the expected parameters.
    channel_order: 'bgr': what the layers see is turned to RGB; 'rgb': left.

  Returns:
    The parameters.
  """
  places = {name: (path, kind) for name, (path, kind, _) in names.items()}
  tree = rearrange(places, state_dict, tree)
  flat = params.flatten(tree)
  for path, _, images in names.values():
    reverse(flat[path], images, channel_order)
  return tree


def reverse(kernel: np.ndarray, images, channel_order: str) -> None:
  """Turns the input channels of images around, in place, if they are BGR.

  Args:
    kernel: [h, w, inputs, outputs].
    images: the first channel of each image.
    channel_order: 'bgr', or 'rgb' for nothing to do.

  Raises:
    ValueError: if it is neither.
  """
  if channel_order not in ('bgr', 'rgb'):
    raise ValueError(
      f"channel_order must be 'bgr' or 'rgb', got {channel_order!r}."
    )
  for i in images if channel_order == 'bgr' else ():
    kernel[:, :, i : i + 3] = kernel[:, :, i : i + 3][:, :, ::-1].copy()
