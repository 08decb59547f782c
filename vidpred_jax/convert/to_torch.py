"""The way back: variables under the authors' names, in PyTorch's layout.

`to_torch` is the inverse of `from_torch`, and `save_torch` writes what it gives
as `.safetensors` or `.pth`, without PyTorch. The authors' code loads it with
`strict=False` where it keeps buffers that it computes itself (RVD its schedule
of noise, SimVP's Swin the offsets of its windows).
"""

import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from vidpred_jax import atomic, params, systems
from vidpred_jax.convert import dmvfn, ebme, rvd, simvp, weights

WEIGHTS = ('.safetensors', '.pth', '.pt', '.pkl')  # kinds of files


def to_torch(
  system: systems.System,
  variables: Mapping[str, Any],
  *,
  channel_order: str = 'bgr',
) -> dict[str, np.ndarray]:
  """Variables by the names of the authors' `state_dict`.

  Args:
    system: from `systems.make` or `checkpoint.load`.
    variables: its variables.
    channel_order: of 'dmvfn' and 'apr_vfi': 'bgr' for weights that read colours
      as the published code does; 'rgb' leaves the input channels as they are.

  Returns:
    `{name: array}`, in PyTorch's layout, float32.

  Raises:
    ValueError: if no code of the authors has such a system, or these are not
      its variables.
  """
  flat = {k: np.asarray(x) for k, x in params.flatten(variables).items()}
  names = _names(system, variables, flat)
  converted = {}
  for name, (path, kind, images) in names.items():
    if path not in flat:
      raise ValueError(f'These are no variables of {system.name}: no {path}.')
    array = np.array(flat.pop(path), np.float32)
    weights.reverse(array, images, channel_order)
    converted[name] = _in_layout(array, kind)
  if flat:
    raise ValueError(
      f"The authors' code has no place for {', '.join(sorted(flat)[:8])}."
    )
  return converted


# Settings that change what the same parameters mean, as published.
_PUBLISHED = {
  'initial_flow': 'zero',
  'router_standardised': False,
  'standardised': False,
}


def _names(system, variables, flat) -> dict[str, tuple[str, str, tuple]]:
  """`{published name: (path, kind, images)}`; paths are those of `flat`."""
  tree, settings = variables['params'], dict(system.settings)
  for name, published in _PUBLISHED.items():
    if settings.get(name, published) != published:
      raise ValueError(
        f"The authors' code of {system.name} knows only {name}={published!r}; "
        f'these weights are of {settings[name]!r}.'
      )
  if system.name == 'dmvfn':
    return _below('params', dmvfn.torch_names_of(tree))
  if system.name == 'apr_vfi':
    if set(tree) != {'flow'}:
      raise ValueError(
        'Of apr_vfi only the flow was published (synthesis=warp); there is no '
        'code of the authors that could load the rest.'
      )
    return _below('params/flow', ebme.torch_names())
  if system.name == 'rvd':
    places = rvd.torch_names(flat)
  elif system.name == 'simvp':
    chosen = systems.simvp.Settings(**settings)
    places = simvp.torch_names(flat, chosen.translator)
  else:
    raise ValueError(f'There is no published code of {system.name!r}.')
  return {name: (*place, ()) for name, place in places.items()}


def _below(root: str, names) -> dict[str, tuple[str, str, tuple]]:
  return {
    name: (f'{root}/{path}', kind, images)
    for name, (path, kind, images) in names.items()
  }


def _in_layout(array: np.ndarray, kind: str) -> np.ndarray:
  """Inverse of what `weights.rearrange` does to an array."""
  axes = weights.AXES[kind]
  rank = weights.RANKS.get(kind, len(axes))
  others = [i for i in range(rank) if i not in axes]
  array = array.reshape(*array.shape, *[1] * len(others))
  order = np.argsort([*axes, *others])
  return np.ascontiguousarray(array.transpose(*order))


def save_torch(
  path: str | os.PathLike,
  arrays: Mapping[str, np.ndarray],
  *,
  overwrite: bool = False,
) -> None:
  """Writes named arrays as PyTorch's users have them.

  Args:
    path: `.safetensors`, or `.pth`, `.pt` or `.pkl` as `torch.save` writes it.
    arrays: `{name: array}`, float32.
    overwrite: whether an existing file may be replaced.

  Raises:
    ValueError: if the path ends otherwise, or an array is not float32.
    FileExistsError: if the file exists and is not to be overwritten.
    OSError: if it cannot be written.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() not in WEIGHTS:
    raise ValueError(f'{path} must end in one of {", ".join(WEIGHTS)}.')
  atomic.check_new(path, overwrite=overwrite)
  for name, array in arrays.items():
    if array.dtype != np.float32:
      raise ValueError(f'{name} is {array.dtype}, expected float32.')
  with atomic.replacing(path, overwrite=overwrite) as partial:
    if path.suffix.lower() == '.safetensors':
      data = safetensors.numpy.save(dict(arrays), metadata={'format': 'pt'})
      partial.write_bytes(data)
    else:
      _write_archive(partial, path.stem, arrays)


def _write_archive(path: pathlib.Path, root: str, arrays) -> None:
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    archive.writestr(f'{root}/data.pkl', _pickled(arrays))
    archive.writestr(f'{root}/byteorder', 'little')
    for i, array in enumerate(arrays.values()):
      little = np.ascontiguousarray(array, '<f4')
      archive.writestr(f'{root}/data/{i}', little.tobytes())
    archive.writestr(f'{root}/version', '3\n')


# ---------------------------------------------------------- pickle, by opcode


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
  """A dict of tensors: PyTorch's names are written, nothing is imported."""
  parts = [pickle.PROTO, b'\x02', pickle.EMPTY_DICT, pickle.MARK]
  for i, (name, array) in enumerate(arrays.items()):
    array = np.ascontiguousarray(array)
    strides = [x // array.itemsize for x in array.strides]
    parts += [
      _text(name),
      _global('torch._utils', '_rebuild_tensor_v2'),
      pickle.MARK,
      # ('storage', type, key, place, count), which the reader resolves.
      pickle.MARK,
      _text('storage'),
      _global('torch', 'FloatStorage'),
      _text(str(i)),
      _text('cpu'),
      _int(array.size),
      pickle.TUPLE,
      pickle.BINPERSID,
      _int(0),  # where in the storage it begins
      _ints(array.shape),
      _ints(strides),
      pickle.NEWFALSE,  # needs no gradient
      _global('collections', 'OrderedDict'),
      pickle.EMPTY_TUPLE,
      pickle.REDUCE,
      pickle.TUPLE,
      pickle.REDUCE,
    ]
  return b''.join([*parts, pickle.SETITEMS, pickle.STOP])


def _global(module: str, name: str) -> bytes:
  return pickle.GLOBAL + f'{module}\n{name}\n'.encode('ascii')


def _text(text: str) -> bytes:
  data = text.encode('utf-8')
  return pickle.BINUNICODE + struct.pack('<I', len(data)) + data


def _int(value: int) -> bytes:
  if value < 2**31:
    return pickle.BININT + struct.pack('<i', value)
  data = pickle.encode_long(value)
  return pickle.LONG1 + struct.pack('<B', len(data)) + data


def _ints(values) -> bytes:
  return pickle.MARK + b''.join(map(_int, values)) + pickle.TUPLE
