"""What kind of work an operation is, of XLA and of PyTorch."""

import collections
import heapq
import re
from collections.abc import Iterable

DENSE = 'convolutions and products'
DEPTHWISE = 'depthwise convolutions'
REDUCTIONS = 'reductions and norms'
COPIES = 'copies and transposes'
GATHERS = 'gathers, scatters, resizing'
LOOPS = 'other loops'
REST = 'between operations'
KINDS = DENSE, DEPTHWISE, REDUCTIONS, COPIES, GATHERS, LOOPS, REST

_COMPUTATION = re.compile(r'(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = (.*)$')
_OPCODE = re.compile(r'(?:^| )([a-z][a-z0-9\-]*)\(')
_CALLED = re.compile(r'(?:calls|to_apply)=%?([\w.\-]+)')
_GROUPS = re.compile(r'(?:feature|batch)_group_count=(?!1\b)\d+')
_LIBRARY = re.compile(r'custom_call_target="[^"]*(?:matmul|dot|conv)', re.I)
_MOVING = frozenset(
  'bitcast broadcast concatenate constant copy dynamic-slice '
  'dynamic-update-slice get-tuple-element iota pad parameter reshape reverse '
  'slice transpose tuple'.split()
)
# Opcodes of each kind; an operation is of the first that it has a part of.
_OPCODES = {
  DENSE: {'dot', 'convolution', 'library'},
  DEPTHWISE: {'depthwise'},
  GATHERS: {'gather', 'scatter', 'select-and-scatter'},
  REDUCTIONS: {'reduce', 'reduce-window', 'sort', 'topk'},
}
# Beginnings of PyTorch's names; an operation is of the first kind that fits.
_BEGINNINGS = {
  DENSE: (
    *('conv', '_conv', 'mkldnn', '_slow_conv', 'slow_conv', 'thnn_conv'),
    *('mm', 'bmm', 'addmm', 'baddbmm', 'matmul', 'linear', 'cudnn'),
  ),
  GATHERS: (
    *('grid_sampler', 'index', 'gather', 'scatter', 'upsample', '_upsample'),
    *('embedding', 'take'),
  ),
  REDUCTIONS: (
    *('native_group_norm', 'native_batch_norm', 'native_layer_norm'),
    *('group_norm', 'batch_norm', 'layer_norm', '_batch_norm'),
    *('sum', 'mean', 'var', 'var_mean', 'std', 'amax', 'max', 'min', 'softmax'),
    *('_softmax', '_log_softmax', 'norm', 'linalg_vector_norm'),
  ),
  COPIES: (
    *('copy', 'contiguous', 'clone', '_to_copy', 'to', 'cat', 'stack', 'fill'),
    *('zero', 'constant_pad', 'pad', 'reflection_pad', 'replication_pad'),
    *('pixel_shuffle', 'pixel_unshuffle', 'slice_backward'),
    *('select_backward', 'repeat', 'roll', 'flip'),
  ),
  # Views and memory: bookkeeping, no work on elements.
  REST: (
    *('as_strided', 'view', '_unsafe_view', 'reshape', 'slice', 'select'),
    *('narrow', 'expand', 'permute', 'transpose', 't', 'unsqueeze', 'squeeze'),
    *('split', 'chunk', 'unbind', 'unflatten', 'flatten', 'empty', 'resize'),
    *('_reshape', 'result_type', 'detach', 'set', 'alias', 'item', '_local'),
  ),
}


def of_hlo(text: str) -> dict[str, str]:
  """{instruction: kind} of a compiled module.

  A fusion or a call is of the kind of what it computes; a loop of the host is
  not: its parts are events of their own.
  """
  computations, codes, called = {}, {}, {}
  inside = ''
  for line in text.splitlines():
    if begun := _COMPUTATION.match(line):
      inside = begun[1]
    elif found := _INSTRUCTION.match(line):
      name, rest = found.groups()
      codes[name] = _code(rest)
      computations.setdefault(inside, []).append(name)
      if codes[name] in ('fusion', 'call') and (to := _CALLED.search(rest)):
        called[name] = to[1]

  def parts(name):
    if name not in called:
      return {codes[name]}
    inner = computations.get(called[name], ())
    return set().union(*(parts(part) for part in inner))

  return {name: _of_opcodes(parts(name)) for name in codes}


def _code(rest):
  """The opcode of an instruction, 'depthwise' and 'library' among them."""
  found = _OPCODE.search(rest)
  code = found[1] if found else ''
  if code == 'convolution' and _GROUPS.search(rest):
    return 'depthwise'
  return 'library' if _LIBRARY.search(rest) else code


def _of_opcodes(opcodes):
  for kind, wanted in _OPCODES.items():
    if opcodes & wanted:
      return kind
  return COPIES if opcodes <= _MOVING else LOOPS


def of_pytorch(name: str, shapes: Iterable = ()) -> str:
  """The kind of an operation of PyTorch with inputs of these shapes."""
  if not name.startswith('aten::'):
    return REST
  name = name.removeprefix('aten::')
  for kind, beginnings in _BEGINNINGS.items():
    if any(_begins(name, beginning) for beginning in beginnings):
      if kind == DENSE and 'conv' in name and _is_depthwise(shapes):
        return DEPTHWISE
      return kind
  return LOOPS


def _begins(name, beginning):
  """A short beginning is a whole word: `t` is no `tanh`, `to` no `topk`."""
  if len(beginning) > 3:
    return name.startswith(beginning)
  return name.rstrip('_').split('_backward')[0] == beginning


def _is_depthwise(shapes):
  """Whether the kernel, the last of four axes, has less than its input."""
  of_four = [shape for shape in shapes if len(shape) == 4]
  return len(of_four) > 1 and of_four[-1][1] == 1 < of_four[-2][1]


def own_times(events) -> collections.Counter[str]:
  """{name: time} of (name, begin, duration); no moment counts twice.

  It belongs to the operation that was begun last of those that run: a loop has
  what the operations of its body leave.
  """
  events = sorted(events, key=lambda event: (event[1], -event[2]))
  own, running, now = collections.Counter(), [], 0.0
  for order, (name, begin, duration) in enumerate(
    [*events, ('', float('inf'), 0.0)]
  ):
    while running and now < begin:
      _, end, last = running[0]
      if end > now:
        own[last] += min(end, begin) - now
        now = min(end, begin)
      if end <= now:
        heapq.heappop(running)
    now = begin
    heapq.heappush(running, (-order, begin + duration, name))
  return own
