"""Counts multiply-adds of a program.

Multiply-adds (MACs, which papers mostly call FLOPs) are counted on the jaxpr of
the program after dead-code elimination:

- `dot_general` and `conv_general_dilated`, grouped ones by their groups. Taps
  on padding count, as in the literature; taps on zeros that `lhs_dilation`
  inserts (transposed convolutions) do not.
- Every multiplication inside a `jax.named_scope` called 'bilinear': papers
  count resizing, but not warping (`grid_sample`) and pointwise functions. So
  does every multiplication in a scope called 'depthwise': a convolution as a
  sum of shifted images.
- The body of a scan counts once per iteration. A `cond` counts its most
  expensive branch. A `while` loop counts N iterations, where a
  `jax.named_scope` directly around it is called 'at_most_N_times'. With
  `run=True` the program is evaluated on the given arguments, and the branch
  taken and the iterations made count.
- Of code with one version per platform, the version for this platform counts.
"""

import collections
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

COUNTED_SCOPES = frozenset({'bilinear', 'depthwise'})

# What they compute cannot be seen here.
_OPAQUE = frozenset(
  {
    'ffi_call',
    'pallas_call',
    'pure_callback',
    'ragged_dot_general',
    'shard_map',
  }
)


def count_macs(
  fn: Callable, *args, run: bool = False
) -> collections.Counter[str]:
  """Counts the multiply-adds of a call.

  Args:
    fn: a function that JAX can trace.
    *args: its arguments: arrays, or `jax.ShapeDtypeStruct`s if not `run`.
    run: evaluate the program, so that the branches taken are counted and loops
      as often as they run; otherwise of each `cond` the dearest branch.

  Returns:
    MACs by name scope, for instance 'DMVFN/block_0/Conv_0'; see `by_part`.

  Raises:
    ValueError: if the number depends on a `while` loop that does not say how
      often it runs at most and not `run`, or the program contains calls that
      cannot be looked into.
  """
  closed = jax.make_jaxpr(fn)(*args)
  jaxpr, _ = partial_eval.dce_jaxpr(
    closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True
  )
  count = collections.Counter()
  if run:
    _run(jaxpr, closed.consts, jax.tree.leaves(args), '', count, {})
  else:
    _count(jaxpr, '', 1, count)
  return count


def by_part(
  count: collections.Counter[str], parts: Iterable[str]
) -> dict[str, int]:
  """Sums MACs over the scopes below each part of a model.

  Args:
    count: from `count_macs`.
    parts: names of submodules, for instance `variables['params']`.

  Returns:
    `{part: MACs}` for the parts that have some, then 'other' if there are.
  """
  parts = list(parts)
  sums = dict.fromkeys([*parts, 'other'], 0)
  for path, macs in count.items():
    # 'transpose(jvp(Net))/block_0.method' lies in Net and block_0.
    matches = [name for name in re.findall(r'\w+', path) if name in sums]
    sums[matches[0] if matches else 'other'] += macs
  return {part: macs for part, macs in sums.items() if macs}


# ------------------------------------------------------------------ the count


def _eqn_macs(eqn, path: str) -> int:
  """The MACs of one primitive that has no inner jaxprs."""
  name = eqn.primitive.name
  if name in _OPAQUE:
    raise ValueError(f'The program calls {name}, whose cost cannot be counted.')
  out: Any = eqn.outvars[0].aval if eqn.outvars else None
  if name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    shape = eqn.invars[0].aval.shape
    return _product(out.shape) * _product(shape[i] for i in contracted)
  if name == 'conv_general_dilated':
    return _conv_macs(eqn, out.shape)
  # Also in 'vmap(bilinear)'.
  scopes = re.findall(r'\w+', path)
  if name == 'mul' and not COUNTED_SCOPES.isdisjoint(scopes):
    return _product(out.shape)
  return 0


def _conv_macs(eqn, out) -> int:
  params = eqn.params
  _, rhs_spec, out_spec = params['dimension_numbers']
  kernel = eqn.invars[1].aval.shape
  # The kernel's input channels are those of one group already.
  macs = out[out_spec[0]] * out[out_spec[1]] * kernel[rhs_spec[1]]
  for i, axis in enumerate(out_spec[2:]):
    size, dilation = kernel[rhs_spec[2 + i]], params['lhs_dilation'][i]
    if dilation == 1:
      macs *= out[axis] * size
      continue
    place = (
      np.arange(out[axis])[:, None] * params['window_strides'][i]
      + np.arange(size)[None, :] * params['rhs_dilation'][i]
      - params['padding'][i][0]
    )
    macs *= int(np.sum(place % dilation == 0))
  return macs


def _count(jaxpr, prefix: str, times: int, count) -> None:
  """Adds the MACs of a jaxpr that is called `times` times."""
  for eqn in jaxpr.eqns:
    path = _join(prefix, eqn)
    name = eqn.primitive.name
    if name == 'cond':
      branches = []
      for branch in _inner(eqn):
        branches.append(collections.Counter())
        _count(branch, path, times, branches[-1])
      count.update(max(branches, key=lambda c: c.total()))
    elif name == 'while':
      if not any(_works(jaxpr, path) for jaxpr in _inner(eqn)):
        continue
      scopes = str(eqn.source_info.name_stack)
      # At the end, within 'vmap(...)' and the like.
      most = re.search(r'\bat_most_(\d+)_times\)*$', scopes)
      if most is None:
        raise ValueError(
          'The number of MACs depends on how often a while loop runs; count '
          'with run=True on real arguments.'
        )
      most = int(most[1])
      _count(eqn.params['body_jaxpr'].jaxpr, path, times * most, count)
      _count(eqn.params['cond_jaxpr'].jaxpr, path, times * (most + 1), count)
    else:
      macs = _eqn_macs(eqn, path)
      if macs:
        count[path] += times * macs
      length = eqn.params['length'] if name == 'scan' else 1
      for inner in _inner(eqn):
        _count(inner, path, times * length, count)


def _depends(eqn, prefix: str) -> bool:
  """Whether MACs depend on values: in a while loop, or in unequal branches."""
  name, inner, path = eqn.primitive.name, _inner(eqn), _join(prefix, eqn)
  if any(_depends(e, path) for jaxpr in inner for e in jaxpr.eqns):
    return True
  if name == 'cond':
    counts = [collections.Counter() for _ in inner]
    for branch, count in zip(inner, counts):
      _count(branch, path, 1, count)
    return len({count.total() for count in counts}) > 1
  return name == 'while' and any(_works(jaxpr, path) for jaxpr in inner)


def _works(jaxpr, prefix: str) -> bool:
  """Whether a jaxpr has any MAC."""
  for eqn in jaxpr.eqns:
    path = _join(prefix, eqn)
    if _eqn_macs(eqn, path) or any(_works(e, path) for e in _inner(eqn)):
      return True
  return False


def _run(jaxpr, consts, args, prefix: str, count, programs) -> list:
  """Evaluates a jaxpr and adds the MACs of the executed equations.

  What lies between two decisions is compiled, once: `programs` keeps it, by the
  identity of its first equation.
  """
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))

  def read(atom):
    return atom.val if isinstance(atom, core.Literal) else values[atom]

  for depends, eqns in itertools.groupby(
    jaxpr.eqns, lambda eqn: _depends(eqn, prefix)
  ):
    eqns = list(eqns)
    if depends:
      for eqn in eqns:
        inputs = [read(v) for v in eqn.invars]
        path = _join(prefix, eqn)
        outputs = _run_inner(eqn, inputs, path, count, programs)
        values.update(zip(eqn.outvars, outputs))
    else:
      if id(eqns[0]) not in programs:
        part = _part(jaxpr, eqns)
        function = core.jaxpr_as_fun(core.ClosedJaxpr(part, ()))
        programs[id(eqns[0])] = part, jax.jit(function)
      part, program = programs[id(eqns[0])]
      _count(part, prefix, 1, count)
      outputs = program(*map(read, part.invars))
      values.update(zip(part.outvars, outputs))
  return [read(v) for v in jaxpr.outvars]


def _part(jaxpr, eqns):
  """Some consecutive equations of a jaxpr as one of their own."""

  def variables(equations):
    return [
      v for e in equations for v in e.invars if not isinstance(v, core.Literal)
    ]

  made = {v for e in eqns for v in e.outvars}
  inside = {id(e) for e in eqns}
  outside = [e for e in jaxpr.eqns if id(e) not in inside]
  final = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
  return jaxpr.replace(
    constvars=[],
    invars=[v for v in dict.fromkeys(variables(eqns)) if v not in made],
    outvars=[v for v in made if v in final | set(variables(outside))],
    eqns=eqns,
    debug_info=jaxpr.debug_info.with_unknown_names(),
  )


def _run_inner(eqn, inputs, path, count, programs) -> list:
  """Evaluates control flow on which the number of MACs depends."""
  name, params = eqn.primitive.name, eqn.params

  def call(closed, *args):
    return _run(closed.jaxpr, closed.consts, args, path, count, programs)

  if name == 'cond':
    branches = params['branches']
    index = int(np.clip(int(inputs[0]), 0, len(branches) - 1))
    return call(branches[index], *inputs[1:])
  if name == 'while':
    split = params['cond_nconsts'], params['body_nconsts']
    cond_consts = inputs[: split[0]]
    body_consts = inputs[split[0] : sum(split)]
    state = inputs[sum(split) :]
    if params['cond_jaxpr'].out_avals[0].shape:
      raise ValueError(
        'Got a while loop under vmap, which runs until every sample is done; '
        'count a single sample.'
      )
    while bool(call(params['cond_jaxpr'], *cond_consts, *state)[0]):
      state = call(params['body_jaxpr'], *body_consts, *state)
    return state
  if name == 'scan':
    if 'ft_in' in params:  # 2026-11: of JAX 0.12
      consts, carry, _ = params['ft_in'].unpack()
      num_consts, num_carry = len(list(consts)), len(list(carry))
    else:
      num_consts, num_carry = params['num_consts'], params['num_carry']
    consts = inputs[:num_consts]
    carry = inputs[num_consts : num_consts + num_carry]
    rows = inputs[num_consts + num_carry :]
    order = range(params['length'])
    results = []
    for i in reversed(order) if params['reverse'] else order:
      out = call(params['jaxpr'], *consts, *carry, *[x[i] for x in rows])
      carry = out[:num_carry]
      results.append(out[num_carry:])
    if params['reverse']:
      results.reverse()
    return [*carry, *[jnp.stack(row) for row in zip(*results)]]
  closed = params.get('jaxpr', params.get('call_jaxpr'))
  if closed is None:
    raise ValueError(f'Branches inside {name} cannot be followed.')
  if hasattr(closed, 'jaxpr'):
    return call(closed, *inputs)
  return _run(closed, (), inputs, path, count, programs)


def _inner(eqn) -> list:
  """The jaxprs that an equation calls.

  Of the branches of `lax.platform_dependent` only this platform's.
  """
  platforms = eqn.params.get('branches_platforms')
  if platforms is not None:
    branches = zip(eqn.params['branches'], platforms)
    here = [b.jaxpr for b, of in branches if not of or _platform() in of]
    if not here:
      raise ValueError(f'The program has no branch for {_platform()}.')
    return here[:1]
  jaxprs = []
  for value in eqn.params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, 'jaxpr', item)
      if isinstance(item, core.Jaxpr):
        jaxprs.append(item)
  return jaxprs


def _platform() -> str:
  """As `lax.platform_dependent` calls it."""
  name = jax.default_backend()
  if name != 'gpu':
    return name
  version = jax.devices()[0].client.platform_version
  return 'rocm' if 'rocm' in version.lower() else 'cuda'


def _join(prefix: str, eqn) -> str:
  own = str(eqn.source_info.name_stack)
  return '/'.join(p for p in (prefix, own) if p)


def _product(sizes) -> int:
  result = 1
  for size in sizes:
    result *= int(size)
  return result
