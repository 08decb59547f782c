"""The pickle of a PyTorch file as data: an interpreter that calls nothing.

`Machine` reads the instructions one by one. It knows what the few names mean
that weight files need; see `torch_file`.
"""

import pickletools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vidpred_jax import stored
from vidpred_jax.convert import beside

# Of what is not the numbers themselves: some kB in published files.
_LONGEST_PICKLE = 64 << 20
_MOST_STEPS = 20_000_000
_MOST_AXES = 32

DTYPES = {
  'float64': 'f8',
  'float32': 'f4',
  'float16': 'f2',
  'bfloat16': 'u2',  # widened to float32 when decoded
  'int64': 'i8',
  'int32': 'i4',
  'int16': 'i2',
  'int8': 'i1',
  'uint64': 'u8',
  'uint32': 'u4',
  'uint16': 'u2',
  'uint8': 'u1',
  'bool': '?',
  'complex64': 'c8',
  'complex128': 'c16',
}

_STORAGES = {
  'torch DoubleStorage': 'float64',
  'torch FloatStorage': 'float32',
  'torch HalfStorage': 'float16',
  'torch BFloat16Storage': 'bfloat16',
  'torch LongStorage': 'int64',
  'torch IntStorage': 'int32',
  'torch ShortStorage': 'int16',
  'torch CharStorage': 'int8',
  'torch ByteStorage': 'uint8',
  'torch BoolStorage': 'bool',
  'torch ComplexFloatStorage': 'complex64',
  'torch ComplexDoubleStorage': 'complex128',
  'torch.storage UntypedStorage': None,
}


class Storage:
  """One block of data, filled in after the pickle is read."""

  def __init__(self, key: str | int, dtype: str | None, count: int):
    self.key = key
    self.dtype = dtype
    self.count = count  # elements; bytes if dtype is None
    self.bytes: Any = None
    self.order: Any = '<'
    self._decoded = {}

  def array(self, dtype: str) -> np.ndarray:
    """The elements, one-dimensional, native byte order, decoded once."""
    if dtype not in self._decoded:
      stored: Any = np.dtype(DTYPES[dtype]).newbyteorder(self.order)
      flat = np.frombuffer(self.bytes, stored)
      flat = flat.astype(stored.newbyteorder('='), copy=False)
      if dtype == 'bfloat16':
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
      self._decoded[dtype] = flat
    return self._decoded[dtype]


class Slice(NamedTuple):
  """A part of a storage, from element `start`."""

  storage: Storage
  start: int


class Tensor(NamedTuple):
  """A strided view of a storage, in elements."""

  storage: Storage
  start: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  dtype: str


class Name(NamedTuple):
  """A name in the pickle; a tag that is never looked up."""

  name: str


def _tensor(slice_, start, shape, strides, dtype=None) -> Tensor:
  if not isinstance(slice_, Slice):
    raise ValueError('a tensor without a storage')
  dtype = slice_.storage.dtype or dtype
  if dtype is None:
    raise ValueError('a tensor without an element type')
  if max(len(shape), len(strides)) > _MOST_AXES:
    raise ValueError(f'a tensor of {len(shape)} axes')
  return Tensor(
    slice_.storage, slice_.start + start, tuple(shape), tuple(strides), dtype
  )


def _tensor_v3(slice_, start, shape, strides, grad, hooks, dtype, *_):
  del grad, hooks
  return _tensor(
    slice_, start, shape, strides, dtype.name.removeprefix('torch ')
  )


def _tensor_v2(slice_, start, shape, strides, *rest):
  """Of `rest` the last may say that what is stored is another's negative."""
  said = rest[2] if len(rest) > 2 else None
  if isinstance(said, dict) and any(said.get(k) for k in ('neg', 'conj')):
    raise ValueError(
      'a tensor that is the negative or conjugate of what is stored; save '
      'tensor.resolve_neg().resolve_conj()'
    )
  return _tensor(slice_, start, shape, strides)


def _typed(function, _, args, *__):
  """A tensor with attributes of its own, or of a kind such as a buffer."""
  if not isinstance(function, Name) or function.name not in _TENSORS:
    raise ValueError(f'a tensor made by {stored.shown(function)}')
  return _TENSORS[function.name](*args)


def _is_part(name: Any) -> bool:
  """Whether a name is that of a layer, a loss or an optimizer."""
  return isinstance(name, Name) and _PART.fullmatch(name.name) is not None


class NumPy:
  """Stands for a number, an array or a type of NumPy's; it holds nothing."""

  def __repr__(self) -> str:
    return 'NumPy()'


class Other:
  """Stands for an object of a known kind, no weight; it holds nothing.

  Attributes:
    part: the name of its kind if it is a part of a network, else empty.
  """

  def __init__(self, part: str = ''):
    self.part = part

  def __repr__(self) -> str:
    return 'Other()'


def _other(*_) -> Other:
  return Other()


def _mapping(pairs=()) -> dict:
  """A dict of pairs, or of another dict, as far as its keys are simple."""
  items = pairs.items() if isinstance(pairs, dict) else pairs
  return {key: value for key, value in items if _is_simple(key)}


def _is_simple(key: Any) -> bool:
  """Whether a key can be looked up: nested tuples may take for ever."""
  return not isinstance(key, tuple) or (
    len(key) <= 16 and not any(isinstance(x, tuple) for x in key)
  )


_TENSORS: dict[str, Callable[..., Any]] = {
  'torch._utils _rebuild_tensor': _tensor,
  'torch._utils _rebuild_tensor_v2': _tensor_v2,
  'torch._utils _rebuild_tensor_v3': _tensor_v3,
  'torch._utils _rebuild_parameter': lambda data, *_: data,
  'torch._utils _rebuild_parameter_with_state': lambda data, *_: data,
}
# What a weight file may "call", and what that means here.
_CALLS: dict[str, Callable[..., Any]] = {
  'collections OrderedDict': _mapping,
  'torch Size': lambda sizes=(): tuple(sizes),
  **_TENSORS,
  'torch._tensor _rebuild_from_type_v2': _typed,
  'numpy dtype': lambda *_: NumPy(),
  # The bytes of those, before protocol 3; only the text is kept.
  '_codecs encode': lambda text, *_: text,
  '__builtin__ bytes': lambda *_: '',
  'collections defaultdict': lambda *_: {},
  'collections Counter': _mapping,
}
for _module, _kinds in beside.OTHERS.items():
  for _place in {_module, beside.OLD.get(_module, _module)}:
    for _kind in _kinds:
      _CALLS.setdefault(f'{_place} {_kind}', _other)
for _place in ('numpy.core.multiarray', 'numpy._core.multiarray'):
  _CALLS[f'{_place} scalar'] = lambda *_: NumPy()
  _CALLS[f'{_place} _reconstruct'] = lambda *_: NumPy()
for _place in ('numpy.core.numeric', 'numpy._core.numeric'):
  _CALLS[f'{_place} _frombuffer'] = lambda *_: NumPy()
_NAMES = {
  *_CALLS,
  *_STORAGES,
  *(f'torch {name}' for name in DTYPES),
  'numpy ndarray',
  'torch Tensor',
  'torch._tensor Tensor',
  'torch.nn.parameter Parameter',
  'torch.nn.parameter Buffer',
}

_CONSTANTS: dict[str, Callable[[], Any]] = {
  'NONE': lambda: None,
  'NEWTRUE': lambda: True,
  'NEWFALSE': lambda: False,
  'EMPTY_LIST': list,
  'EMPTY_TUPLE': tuple,
  'EMPTY_DICT': dict,
  'EMPTY_SET': set,
}
_LITERALS = frozenset(
  'INT LONG BININT BININT1 BININT2 LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING '
  'SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES '
  'SHORT_BINBYTES BINBYTES8'.split()
)
# Layers, losses and optimizers, which programs keep among their arguments.
_PART = re.compile(r'torch\.(nn|optim)\.[\w.]+ \w+')
_MARK = object()
_MAPPINGS = ('collections defaultdict', 'collections Counter')


class Machine:
  """Reads one pickle from a stream, up to its end.

  Attributes:
    storages: the storages it mentions, by key.
  """

  def __init__(self, stream, size: int):
    self.storages: dict[str | int, Storage] = {}
    self._stream = stream
    self._steps = 0
    self._copies = size  # elements that may still be copied
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}

  def run(self) -> Any:
    """The value of the pickle."""
    begin = self._stream.tell()
    for opcode, arg, place in pickletools.genops(self._stream):
      self._steps += 1
      if self._steps > _MOST_STEPS or place - begin > _LONGEST_PICKLE:
        raise ValueError('what describes its tensors is too long')
      if opcode.name == 'STOP':
        return self._stack.pop()
      if opcode.name not in ('PROTO', 'FRAME'):  # which make no object
        self._step(opcode.name, arg)
    raise ValueError('the pickle has no end')

  def _pop_to_mark(self) -> list[Any]:
    items = []
    while (item := self._stack.pop()) is not _MARK:
      items.append(item)
    return items[::-1]

  def _step(self, name: str, arg: Any) -> None:
    stack = self._stack
    match name:
      case _ if name in _LITERALS:
        stack.append(arg)
      case _ if name in _CONSTANTS:
        stack.append(_CONSTANTS[name]())
      case 'MARK':
        stack.append(_MARK)
      case 'POP':
        stack.pop()
      case 'POP_MARK':
        self._pop_to_mark()
      case 'DUP':
        stack.append(stack[-1])
      case 'GET' | 'BINGET' | 'LONG_BINGET':
        stack.append(self._memo[arg])
      case 'PUT' | 'BINPUT' | 'LONG_BINPUT':
        self._memo[arg] = stack[-1]
      case 'MEMOIZE':
        self._memo[len(self._memo)] = stack[-1]
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        size = int(name[-1])
        stack[-size:] = [tuple(stack[-size:])]
      case 'TUPLE':
        stack.append(tuple(self._pop_to_mark()))
      case 'LIST':
        stack.append(self._pop_to_mark())
      case 'DICT':
        items = self._pop_to_mark()
        stack.append(_mapping(zip(items[::2], items[1::2])))
      case 'APPEND':
        item = stack.pop()
        if not isinstance(stack[-1], Other):
          self._top(list).append(item)
      case 'APPENDS':
        items = self._pop_to_mark()
        if not isinstance(stack[-1], Other):
          self._top(list).extend(items)
      case 'ADDITEMS':
        items = self._pop_to_mark()
        if not isinstance(stack[-1], Other):
          self._top(set)
          stack[-1] = Other()  # what it holds may be no key
      case 'SETITEM':
        value, key = stack.pop(), stack.pop()
        if not isinstance(stack[-1], Other):
          self._top(dict).update(_mapping([(key, value)]))
      case 'SETITEMS':
        items = self._pop_to_mark()
        if not isinstance(stack[-1], Other):
          self._top(dict).update(_mapping(zip(items[::2], items[1::2])))
      case 'FROZENSET':
        self._pop_to_mark()
        stack.append(Other())
      case 'BYTEARRAY8':
        stack.append(Other())
      case 'GLOBAL':
        stack.append(_named(arg))
      case 'STACK_GLOBAL':
        attribute, module = stack.pop(), stack.pop()
        stack.append(_named(f'{module} {attribute}'))
      case 'REDUCE':
        args, function = stack.pop(), stack.pop()
        if isinstance(function, Other):
          return stack.append(Other())
        if _is_part(function):
          return stack.append(Other(function.name.replace(' ', '.')))
        if not isinstance(function, Name) or function.name not in _CALLS:
          raise ValueError(
            f'it calls {stored.shown(function)}, which no weight file does'
          )
        self._copies -= sum(
          len(x) for x in args if isinstance(x, dict | list | tuple)
        )
        if self._copies < 0:
          raise ValueError('it copies the same again and again')
        stack.append(_CALLS[function.name](*args))
      case 'NEWOBJ' | 'NEWOBJ_EX':
        stack.pop()  # what it is made of
        if name == 'NEWOBJ_EX':
          stack.pop()
        kind = stack.pop()
        if _is_part(kind):
          return stack.append(Other(kind.name.replace(' ', '.')))
        if not isinstance(kind, Name) or kind.name not in _CALLS:
          raise ValueError(
            f'it makes {stored.shown(kind)}, which no weight file does'
          )
        made = {'collections OrderedDict', *_MAPPINGS}
        stack.append({} if kind.name in made else Other())
      case 'BUILD':
        # The attributes of an ordered dict (`_metadata`) are of no use here,
        # nor is what NumPy's objects hold.
        stack.pop()
        if not isinstance(stack[-1], NumPy | Other):
          self._top(dict)
      case 'BINPERSID':
        identity = stack.pop()
        is_part = identity[0] == 'module' and _is_part(identity[1])
        stack.append(identity[1] if is_part else self._storage(identity))
      case _:
        raise ValueError(f'it has the instruction {name}, which is not allowed')

  def _top(self, kind: type) -> Any:
    top = self._stack[-1]
    if not isinstance(top, kind):
      raise ValueError(f'got {type(top).__name__}, expected {kind.__name__}')
    return top

  def _storage(self, identity: Any) -> Slice:
    """`('storage', type, key, device, size[, view])` -> the storage."""
    if identity[0] != 'storage':
      raise ValueError(
        f'it holds a whole {stored.shown(identity[0])}, not weights; save its '
        'state_dict()'
      )
    _, kind, key, _, count, *view = identity
    if not isinstance(kind, Name) or kind.name not in _STORAGES:
      raise ValueError(f'a storage of type {stored.shown(kind)}')
    if not isinstance(key, str | int) or type(count) is not int or count < 0:
      raise ValueError('a storage without a name or a size')
    storage = self.storages.get(key)
    if storage is None:
      storage = Storage(key, _STORAGES[kind.name], count)
      self.storages[key] = storage
    elif (storage.dtype, storage.count) != (_STORAGES[kind.name], count):
      raise ValueError(f'storage {key} is described in two ways')
    start = 0
    if view and view[0] is not None:
      _, start, _ = view[0]
    return Slice(storage, start)


def _named(name: str) -> Name:
  if name not in _NAMES and not _PART.fullmatch(name):
    raise ValueError(
      f'it refers to {name[:200].replace(" ", ".")}, which is no part of a '
      'weight file; nothing of it was run. If you trust the file, load it in '
      'PyTorch and save only its state_dict().'
    )
  return Name(name)
