"""PyTorch weight files as NumPy arrays, without PyTorch and without unpickling.

A PyTorch file holds a pickle, and a pickle is a program: unpickling calls
whatever functions it names. Here nothing is unpickled. A small interpreter
reads the instructions one by one and knows what the few names that weight files
need mean (tensors, parameters, ordered dicts); any other name, and any
instruction that could make an object in another way, is refused. There is no
call to anything the file could choose. What programs keep beside the weights of
a training file (NumPy's numbers, arrays and types, their arguments, paths,
dates, sets, layers and optimizers) is read past: `NumPy` or `Other` stands for
each, whatever it holds.

Both formats are read: the zip archive (since PyTorch 1.6) and the legacy stream
of pickles before it. Data are little-endian unless the archive says otherwise.
Tensors become read-only views into one array per storage, so shared storages
stay shared; bfloat16 becomes float32, which holds it exactly.

A small file stays small: what it mentions again and again is made once, what it
copies is counted, and neither its entries nor its tensors hold more than there
is.
"""

import io
import math
import struct
import zipfile
from typing import Any

import numpy as np

from vidpred_jax import stored
from vidpred_jax.convert.torch_pickle import (
  DTYPES,
  Machine,
  Name,
  NumPy,
  Other,
  Slice,
  Storage,
  Tensor,
)

__all__ = ['NumPy', 'Other', 'load']

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Elements of a tensor that repeats those of its storage.
_MOST_REPEATED = 1 << 20


def load(path: str) -> Any:
  """Reads a file that `torch.save` wrote.

  Args:
    path: the file.

  Returns:
    What was saved: dicts, lists, tuples, numbers and strings, with read-only
    NumPy arrays for tensors and parameters, `NumPy()` for each object of
    NumPy's own and `Other()` for each of another known kind.

  Raises:
    ValueError: if it is no PyTorch file, is damaged, or contains an object of
      an unknown kind (the message names it).
    OSError: if it cannot be read.
  """
  data = stored.read_bytes(path, stored.MOST_OF_WEIGHTS)
  try:
    return _load_zip(data) if data[:2] == b'PK' else _load_legacy(data)
  except zipfile.BadZipFile as error:
    raise ValueError(f'{path} is damaged: {error}') from None
  except ValueError as error:
    raise ValueError(f'{path} cannot be read: {error}') from None
  except (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    struct.error,
  ) as error:
    raise ValueError(
      f'{path} is damaged or no PyTorch file ({type(error).__name__}: '
      f'{str(error)[:200]}).'
    ) from None


def _load_zip(data: bytes) -> Any:
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    entries = [n for n in archive.namelist() if n.split('/')[-1] == 'data.pkl']
    if len(entries) != 1:
      raise ValueError('a zip archive without a PyTorch pickle (data.pkl)')
    if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
      raise ValueError('PyTorch does not compress its archives, this one is')
    if sum(i.file_size for i in archive.infolist()) > len(data):
      raise ValueError('its entries overlap')
    folder = entries[0].removesuffix('data.pkl')
    order = '<'
    if f'{folder}byteorder' in archive.namelist():
      order = {b'little': '<', b'big': '>'}[archive.read(f'{folder}byteorder')]
    pickle = archive.read(entries[0])
    machine = Machine(io.BytesIO(pickle), len(pickle))
    tree = machine.run()
    for key, storage in machine.storages.items():
      storage.bytes = archive.read(f'{folder}data/{key}')
      storage.order = order
      _check_size(storage, len(storage.bytes))
  return _arrays(tree)


def _load_legacy(data: bytes) -> Any:
  stream = io.BytesIO(data)
  size = len(data)
  if data[:1] != b'\x80' or Machine(stream, size).run() != _MAGIC:
    raise ValueError(
      'it is no PyTorch file (neither a zip archive nor the older format)'
    )
  version = Machine(stream, size).run()
  if version != _PROTOCOL:
    raise ValueError(
      f'format version {stored.shown(version)}, expected {_PROTOCOL}'
    )
  # Sizes on the writer's machine; data do not need them.
  Machine(stream, size).run()
  machine = Machine(stream, size)
  tree = machine.run()
  keys = Machine(stream, size).run()
  if not isinstance(keys, list) or sorted(keys) != sorted(machine.storages):
    raise ValueError('the list of storages does not fit the tensors')
  for key in keys:
    storage = machine.storages[key]
    (count,) = struct.unpack('<q', stream.read(8))
    if count != storage.count:
      raise ValueError(
        f'storage {key} has {count} elements, expected {storage.count}'
      )
    size = np.dtype(DTYPES[storage.dtype]).itemsize if storage.dtype else 1
    start = stream.tell()
    storage.bytes = memoryview(data)[start : start + count * size]
    _check_size(storage, len(storage.bytes))
    stream.seek(start + count * size)
  return _arrays(tree)


def _check_size(storage: Storage, got: int) -> None:
  size = np.dtype(DTYPES[storage.dtype]).itemsize if storage.dtype else 1
  if got != storage.count * size:
    raise ValueError(
      f'storage {storage.key} has {got} bytes, expected {storage.count * size}'
    )


def _arrays(tree: Any, made: dict[int, Any] | None = None) -> Any:
  """Replaces the tensors in nested containers by arrays.

  Args:
    tree: what the pickle holds.
    made: what became of a container, by its `id`: each is replaced once.
  """
  made = {} if made is None else made
  match tree:
    case Tensor():
      return _strided(tree)
    case Name():
      return tree.name.replace(' ', '.')
    case Slice():
      return Other()  # a storage that is no tensor
    case dict():
      if id(tree) not in made:
        made[id(tree)] = {k: _arrays(v, made) for k, v in tree.items()}
      return made[id(tree)]
    case list() | tuple():
      if id(tree) not in made:
        made[id(tree)] = type(tree)([_arrays(item, made) for item in tree])
      return made[id(tree)]
  return tree


def _strided(tensor: Tensor) -> np.ndarray:
  numbers = (tensor.start, *tensor.shape, *tensor.strides)
  if len(tensor.shape) != len(tensor.strides) or not all(
    type(n) is int and n >= 0 for n in numbers
  ):
    raise ValueError(
      f'a tensor of shape {stored.shown(tensor.shape)}, strides '
      f'{stored.shown(tensor.strides)} and offset {stored.shown(tensor.start)}'
    )
  flat = tensor.storage.array(tensor.dtype)
  size = math.prod(tensor.shape)
  if size > max(len(flat), _MOST_REPEATED):
    raise ValueError(
      f'a tensor of {stored.shown(size)} elements of a storage of {len(flat)}'
    )
  last = tensor.start + sum(
    (n - 1) * s for n, s in zip(tensor.shape, tensor.strides)
  )
  if not size:
    return np.zeros(tensor.shape, flat.dtype)
  if last >= len(flat):
    raise ValueError(
      f'a tensor reaches to element {last} of a storage of {len(flat)}'
    )
  return np.lib.stride_tricks.as_strided(
    flat[tensor.start :],
    tensor.shape,
    [s * flat.itemsize for s in tensor.strides],
    writeable=False,
  )
