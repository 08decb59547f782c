"""Rules for the values of settings, and the check that applies them.

The settings of a system are a NamedTuple `Settings`, whose defaults are the
paper's, with a dict of rules. A rule describes the valid values of a setting,
as a function and in words.
"""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar('T', bound=tuple)

_MOST = 1e38  # of float32


class Rule(NamedTuple):
  """The valid values of a setting.

  Attributes:
    accepts: whether a value is valid.
    expected: the valid values in words, after 'expected'.
  """

  accepts: Callable[[Any], bool]
  expected: str


def check(settings: T, rules: Mapping[str, Rule]) -> T:
  """Checks settings by rules.

  Args:
    settings: a NamedTuple.
    rules: for some of its fields.

  Returns:
    The settings, with tuples instead of lists.

  Raises:
    ValueError: for the first setting that breaks its rule.
  """
  for name, rule in rules.items():
    value = getattr(settings, name)
    if not rule.accepts(value):
      raise ValueError(f'Got {name}={value!r}; expected {rule.expected}.')
  return type(settings)(
    *(tuple(x) if isinstance(x, list) else x for x in settings)
  )


def one_of(choices: Sequence[str]) -> Rule:
  """A rule for one of several names."""
  names = tuple(choices)
  return Rule(lambda x: isinstance(x, str) and x in names, f'one of {names}')


def truth() -> Rule:
  """A rule for a bool."""
  return Rule(lambda x: isinstance(x, bool), 'True or False')


def number(
  low: float = -math.inf,
  high: float = math.inf,
  expected: str = 'a number, 0 or more',
  *,
  above: bool = False,
) -> Rule:
  """A rule for a finite number from `low`, or above it, to `high`."""

  def accepts(x):
    real = isinstance(x, numbers.Real) and not isinstance(x, bool)
    if not real or not -_MOST < x < _MOST:
      return False
    return low <= x <= high and not (above and x == low)

  return Rule(accepts, expected)


def whole(low: int, high: int, expected: str = '') -> Rule:
  """A rule for a whole number from `low` to `high`."""

  def accepts(x):
    is_whole = isinstance(x, numbers.Integral) and not isinstance(x, bool)
    return is_whole and low <= x <= high

  return Rule(accepts, expected or f'a whole number from {low} to {high}')


def positive_int(
  multiple: int = 1, expected: str = '', *, most: int = 65536
) -> Rule:
  """A positive whole number up to `most` that `multiple` divides."""
  positive = whole(1, most)
  words = f'a multiple of {multiple}'
  if multiple == 1:
    words = 'a positive whole number'
  return Rule(
    lambda x: positive.accepts(x) and x % multiple == 0,
    f'{expected or words}, at most {most}',
  )


def either(value: Any, rule: Rule) -> Rule:
  """A rule for `value`, of the same type, or what another rule accepts."""

  def accepts(x):
    return (type(x) is type(value) and x == value) or rule.accepts(x)

  return Rule(accepts, rule.expected)


def tuple_of(
  rule: Rule,
  expected: str,
  *,
  length: int | None = None,
  least: int = 1,
  most: int = 10_000,
) -> Rule:
  """A rule for sequences: `length` values, or `least` to `most` values."""

  def accepts(x):
    if not isinstance(x, Sequence) or isinstance(x, str):
      return False
    enough = least <= len(x) <= most if length is None else len(x) == length
    return enough and all(map(rule.accepts, x))

  return Rule(accepts, expected)
