"""Parameter trees by name: reading, flattening, matching and merging.

A name is the path of keys joined by '/', such as 'block_0/head/kernel'. Trees
are nested dicts of arrays, as Flax makes them.
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from flax import traverse_util

# Of names: parts and letters.
_DEEPEST, _LONGEST = 50, 1000

_SAFETENSORS_DTYPES = {
  'BF16': jnp.bfloat16,
  'F16': np.float16,
  'F32': np.float32,
  'F64': np.float64,
  'I8': np.int8,
  'I16': np.int16,
  'I32': np.int32,
  'I64': np.int64,
  'U8': np.uint8,
  'U16': np.uint16,
  'U32': np.uint32,
  'U64': np.uint64,
  'BOOL': np.bool_,
}


def read_safetensors(data: bytes, file: str) -> dict[str, np.ndarray]:
  """The arrays in a safetensors file, which may be bfloat16.

  Args:
    data: its content.
    file: its name, for messages.

  Returns:
    `{name: array}`, read-only, as stored.

  Raises:
    ValueError: if it is damaged or holds a type that NumPy has not.
  """
  try:
    entries = safetensors.deserialize(data)
  except safetensors.SafetensorError as error:
    raise ValueError(f'{file} is damaged: {error}') from None
  check_names([name for name, _ in entries], file)
  arrays = {}
  for name, entry in entries:
    dtype = _SAFETENSORS_DTYPES.get(entry['dtype'])
    if dtype is None:
      raise ValueError(
        f'{file}: {name} is of type {entry["dtype"]}; known are '
        f'{", ".join(_SAFETENSORS_DTYPES)}.'
      )
    content = memoryview(entry['data']).toreadonly()
    arrays[name] = np.frombuffer(content, dtype).reshape(entry['shape'])
  return arrays


def check_names(names: Sequence[str], file: str) -> None:
  """Checks that names make a tree of parameters.

  Args:
    names: paths such as `block_0/conv/kernel`.
    file: where they stand, for the message.

  Raises:
    ValueError: if a name is too deep or too long, or is a part of another.
  """
  taken = set(names)
  for name in names:
    parts = name.split('/')
    if len(parts) > _DEEPEST or len(name) > _LONGEST:
      raise ValueError(
        f'{file} is damaged: a parameter is called {name[:60]!r}..., which has '
        f'{len(parts)} parts and {len(name)} letters.'
      )
    for n in range(1, len(parts)):
      if '/'.join(parts[:n]) in taken:
        raise ValueError(
          f'{file} is damaged: {name!r} lies in another parameter.'
        )


def check_finite(arrays: Mapping[str, Any]) -> None:
  """Raises ValueError if a number is infinite or none.

  Args:
    arrays: `{name: array}` of any type.
  """
  bad = [
    name
    for name, x in arrays.items()
    if jnp.issubdtype(x.dtype, jnp.inexact) and not np.isfinite(x).all()
  ]
  if bad:
    raise ValueError(
      f'{len(bad)} of {len(arrays)} arrays hold numbers that are not finite: '
      f'{_listed(bad)}. Use them all the same with allow_nonfinite.'
    )


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
  """`{'a': {'b': x}}` to `{'a/b': x}`, sorted by name; empty dicts vanish.

  Args:
    tree: nested dicts.

  Returns:
    `{path: leaf}`.
  """
  return dict(sorted(traverse_util.flatten_dict(tree, sep='/').items()))


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`.

  Args:
    flat: `{path: leaf}`.

  Returns:
    Nested dicts.
  """
  return traverse_util.unflatten_dict(dict(flat), sep='/')


def match(tree: Mapping[str, Any], patterns: Sequence[str]) -> dict[str, Any]:
  """Tells for each name whether it matches a regular expression.

  Args:
    tree: nested dicts.
    patterns: regular expressions; a name matches if one of them matches it
      from beginning to end.

  Returns:
    A tree like `tree` of bools.

  Raises:
    ValueError: if an expression is none or matches no name.
  """
  names = list(flatten(tree))
  matched = set()
  for pattern in patterns:
    try:
      matches = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
      raise ValueError(
        f'{pattern!r} is not a regular expression: {error}.'
      ) from None
    if not matches:
      raise ValueError(
        f'{pattern!r} matches no parameter; there are {_listed(names)}.'
      )
    matched.update(matches)
  return unflatten({name: name in matched for name in names})


def merge_or_refuse(
  expected: Mapping[str, Any], got: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns `got` if it has exactly the names and shapes of `expected`.

  Args:
    expected: nested dicts of arrays or shapes.
    got: nested dicts of arrays.

  Returns:
    `got`, nested like `expected`, empty dicts included.

  Raises:
    ValueError: listing what is missing, unexpected or of another shape.
  """
  want, have = flatten(expected), flatten(got)
  problems = []
  missing = [name for name in want if name not in have]
  if missing:
    problems.append(f'missing: {_listed(missing)}')
  unexpected = [name for name in have if name not in want]
  if unexpected:
    problems.append(f'not expected: {_listed(unexpected)}')
  shapes = [
    f'{name} is {tuple(have[name].shape)}, expected {tuple(leaf.shape)}'
    for name, leaf in want.items()
    if name in have and tuple(have[name].shape) != tuple(leaf.shape)
  ]
  if shapes:
    problems.append(f'of another shape: {_listed(shapes)}')
  if problems:
    raise ValueError(f'The parameters do not fit: {"; ".join(problems)}.')
  nodes = traverse_util.flatten_dict(expected, keep_empty_nodes=True, sep='/')
  return unflatten(nodes | have)


def take_matching(
  tree: Mapping[str, Any], other: Mapping[str, Any], pattern: str
) -> dict[str, Any]:
  """Returns `tree` with the parameters of matching names replaced by `other`'s.

  Args:
    tree: nested dicts of arrays.
    other: where to take from; it must have every matching name of `tree`.
    pattern: a regular expression for whole names.

  Returns:
    The new tree.

  Raises:
    ValueError: if a name is missing there or has another shape.
  """
  flat, have = flatten(tree), flatten(other)
  wanted = {
    name: flat[name]
    for name, hit in flatten(match(tree, [pattern])).items()
    if hit
  }
  taken = merge_or_refuse(
    unflatten(wanted),
    unflatten({name: have[name] for name in wanted if name in have}),
  )
  return unflatten(flat | flatten(taken))


def _listed(names: Sequence[str], most: int = 8) -> str:
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def has_overview() -> bool:
  """Looks for the package that `overview` needs.

  Returns:
    Whether it is installed.
  """
  return importlib.util.find_spec('clu') is not None


def overview(tree: Mapping[str, Any], *, stats: bool = False) -> str:
  """A table of arrays by name: shape, type, size; the sum below it.

  Args:
    tree: arrays, or their shapes.
    stats: whether mean and standard deviation of each are told.

  Returns:
    The table of `clu.parameter_overview`.

  Raises:
    FileNotFoundError: if the package clu is not installed.
  """
  if not has_overview():
    raise FileNotFoundError(
      'The table of parameters needs the package clu: pip install '
      "'vidpred_jax[clu]'"
    )
  from clu import parameter_overview

  return parameter_overview.get_parameter_overview(
    tree, include_stats=stats, max_lines=None
  )
