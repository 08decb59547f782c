"""Rules for settings: what they accept, and that every setting has one."""

import inspect
from typing import NamedTuple

import numpy as np
import pytest

from vidpred_jax import systems
from vidpred_jax.systems import settings as rules


class Settings(NamedTuple):
  width: object = 8
  widths: object = (4, 8)


@pytest.mark.parametrize(
  'rule, good, bad',
  [
    (rules.one_of(('a', 'b')), ['a'], ['c', None, ('a',)]),
    (rules.truth(), [True, False], [1, 'True', None]),
    (rules.number(0, 1), [0, 0.5, np.float32(1)], [-1, 2, True, '1', None]),
    (rules.number(0, above=True), [1e-9], [0, float('nan'), float('inf')]),
    (rules.positive_int(), [1, np.int64(7)], [0, -1, 1.0, True, None]),
    (rules.positive_int(4), [4, 8], [2, 6]),
    (rules.either(None, rules.positive_int()), [None, 3], [0, 'None']),
    (rules.either(0, rules.positive_int()), [0, 3], [-1, False, 0.0, None]),
    (
      rules.tuple_of(rules.number(0, 1), 'two shares', length=2),
      [(0, 1), [0.5, 0.5]],
      [(0,), (0, 1, 1), (0, 2), 'ab', 0.5],
    ),
    (rules.tuple_of(rules.positive_int(), '', least=2), [(1, 2)], [(1,), ()]),
  ],
)
def test_rules_accept_what_they_say(rule, good, bad):
  assert all(rule.accepts(x) for x in good)
  assert not any(rule.accepts(x) for x in bad)


def test_the_first_wrong_setting_is_named_and_lists_become_tuples():
  table = {
    'width': rules.positive_int(4),
    'widths': rules.tuple_of(rules.positive_int(), 'whole numbers'),
  }
  found = rules.check(Settings(widths=[1, 2]), table)
  assert found == Settings(8, (1, 2)) and isinstance(found.widths, tuple)
  with pytest.raises(
    ValueError, match=r'Got width=6; expected a multiple of 4'
  ):
    rules.check(Settings(6, 'x'), table)
  with pytest.raises(ValueError, match=r"Got widths='x'; expected whole numb"):
    rules.check(Settings(widths='x'), table)


@pytest.mark.parametrize('name', systems.SYSTEMS)
def test_no_setting_of_a_system_is_unchecked(name):
  system = systems.SYSTEMS[name]
  example = {
    'apr_vfi': systems.Frames((0, 2), (1,)),
    'simvp': systems.Frames((0,), (1,)),
  }.get(name, systems.Frames((0, 1), (2,)))
  for field in system.Settings._fields:
    # Python 3.13 takes the indent off itself.
    assert f'\n  {field}: ' in inspect.getdoc(system.Settings), field
    with pytest.raises(ValueError, match=f'^Got {field}=.*; expected '):
      systems.make(name, frames=example, **{field: object()})
