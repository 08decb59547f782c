"""Checks the settings of a source by the types that its signature names.

So no source need say what happens to a text where it expects a number.
"""

import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MOST = 2**63  # of whole numbers
# The largest values of what is counted in frames or pixels.
_LARGEST = {'num_frames': 10_000, 'size': 16384, 'short_side': 16384}


def check(owner: str, function: Callable, settings: Mapping[str, Any]) -> None:
  """Checks the keyword arguments of a call by its signature.

  Lists count as tuples, whole numbers as floats; floats must be finite. Of
  `num_frames`, `size` and `short_side` the range is checked, too.

  Args:
    owner: what is called, for messages.
    function: a function, or a class.
    settings: the arguments by name; `function` has them all.

  Raises:
    ValueError: for the first that is missing, has another type than the
      signature says, or is out of range.
  """
  made = function.__init__ if inspect.isclass(function) else function
  hints = typing.get_type_hints(made)
  for name, known in inspect.signature(function).parameters.items():
    is_keyword = known.kind is inspect.Parameter.KEYWORD_ONLY
    if is_keyword and known.default is known.empty and name not in settings:
      raise ValueError(f'{owner} needs {name}.')
  for name, value in settings.items():
    hint = hints.get(name, Any)
    expected = inspect.formatannotation(hint)
    if _fits(value, hint):
      most = _LARGEST.get(name)
      sides = value if isinstance(value, list | tuple) else (value,)
      if most is None or all(1 <= x <= most for x in map(_count, sides)):
        continue
      expected = f'numbers from 1 to {most}'
    raise ValueError(
      f'{owner}: got {name}={value!r:.200}, expected {expected}.'
    )


def _count(value: Any) -> int:
  """A whole number; 1 for what is none, such as None."""
  return int(value) if isinstance(value, numbers.Integral) else 1


def _fits(value: Any, hint: Any) -> bool:
  if isinstance(value, range):
    value = list(value)
  elif hasattr(value, 'tolist'):  # an array
    value = value.tolist()
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin in (types.UnionType, typing.Union):
    return any(_fits(value, part) for part in parts)
  if isinstance(value, bool) or hint is bool:
    return isinstance(value, bool) and hint is bool
  if hint is int:
    return isinstance(value, numbers.Integral) and abs(int(value)) < _MOST
  if hint is float:
    return isinstance(value, numbers.Real) and math.isfinite(value)
  if hint is tuple or origin in (tuple, Sequence):
    return isinstance(value, list | tuple) and _all_fit(value, parts)
  if origin is Mapping:
    return isinstance(value, Mapping) and _all_fit(
      list(value.values()), parts[1:]
    )
  return isinstance(value, hint)


def _all_fit(values: Sequence, parts: tuple) -> bool:
  """Whether the members of a tuple are of these types; () for any."""
  if not parts:
    return True
  if len(parts) == 1 or parts[-1] is Ellipsis:  # any number of them
    return all(_fits(value, parts[0]) for value in values)
  return len(values) == len(parts) and all(map(_fits, values, parts))
