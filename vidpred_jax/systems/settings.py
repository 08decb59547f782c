"""What settings may be: rules for values, and the check that names a wrong one.

A system has its settings as a NamedTuple `Settings`, whose defaults are the
paper's, and a dict of rules. A rule is what a value must be, in code and words.
"""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar('T', bound=tuple)

_MOST = 1e38  # of float32


class Rule(NamedTuple):
  """What a value must be.

  Attributes:
    accepts: whether a value is that.
    expected: the same in words, after 'expected'.
  """

  accepts: Callable[[Any], bool]
  expected: str


def check(settings: T, rules: Mapping[str, Rule]) -> T:
  """The settings, their lists as tuples, if all rules hold.

  Args:
    settings: a NamedTuple.
    rules: for some of its fields.

  Returns:
    The settings.

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
  """One of some names."""
  names = tuple(choices)
  return Rule(lambda x: isinstance(x, str) and x in names, f'one of {names}')


def truth() -> Rule:
  """A bool."""
  return Rule(lambda x: isinstance(x, bool), 'True or False')


def number(
  low: float = -math.inf,
  high: float = math.inf,
  expected: str = 'a number, 0 or more',
  *,
  above: bool = False,
) -> Rule:
  """A finite number from `low`, or above it, to `high`."""

  def accepts(x):
    real = isinstance(x, numbers.Real) and not isinstance(x, bool)
    if not real or not -_MOST < x < _MOST:
      return False
    return low <= x <= high and not (above and x == low)

  return Rule(accepts, expected)


def whole(low: int, high: int, expected: str = '') -> Rule:
  """A whole number from `low` to `high`."""

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
  """`value`, of the same type, or what a rule accepts."""

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
  """Several values that a rule accepts: `length`, or `least` to `most`."""

  def accepts(x):
    if not isinstance(x, Sequence) or isinstance(x, str):
      return False
    enough = least <= len(x) <= most if length is None else len(x) == length
    return enough and all(map(rule.accepts, x))

  return Rule(accepts, expected)
