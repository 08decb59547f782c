"""Every field of the base configuration has a range, and it is checked."""

import math

import pytest
from ml_collections import ConfigDict

from tests.train import test_loop
from vidpred_jax import build, ranges
from vidpred_jax import config as base

# What other rooms check: settings of a system, of a source, files by name.
ELSEWHERE = ('model', 'features', 'data', 'eval.data')


def fields(section, prefix=''):
  """The dotted names of the fields."""
  found = []
  for name in section:
    value = section[name]
    if prefix + name in ELSEWHERE:
      continue
    if isinstance(value, ConfigDict):
      found += fields(value, f'{prefix}{name}.')
    else:
      found.append(prefix + name)
  return found


FIELDS = fields(base.base('dmvfn'))


def smoke(**changes):
  config = test_loop.smoke_config('dmvfn')
  with config.ignore_type():
    for name, value in changes.items():
      *sections, last = name.split('.')
      section = config
      for part in sections:
        section = section[part]
      section[last] = value
  return config


def test_every_field_has_a_range_and_no_other():
  assert sorted(FIELDS) == sorted(ranges.RANGES)


@pytest.mark.parametrize('name', FIELDS)
def test_a_value_outside_is_refused_by_name(name):
  ranges.check(smoke())
  wrong = [-1, -1.5, 10**12, math.nan, math.inf, 'no(thing', (), (-1,), 3.5]
  refused = []
  for value in [*wrong, ('a', -1), b'x']:
    try:
      ranges.check(smoke(**{name: value}))
    except ValueError as error:
      assert str(error).startswith(f'config.{name} is ')
      assert ', expected ' in str(error)
      refused.append(value)
  assert len(refused) >= 5, refused


@pytest.mark.parametrize(
  'name, value',
  [
    ('keep', 0),
    ('accumulate', 0),
    ('checkpoint_every', 0),
    ('log_every', 0),
    ('profile', (3, 2)),
    ('seed', 2**70),
    ('batch_size', 10**9),
    ('optim.b1', 2.0),
    ('ema.decay', 2.0),
    ('eval.batch_size', 0),
    ('eval.show_fps', 0),
    ('eval.show_as', 'webp'),
    ('data.size', (100_000, 100_000)),
    ('eval.frames.target', ()),
    ('eval.frames.target', tuple(range(2, 5002))),
  ],
)
def test_what_failed_late_or_never_is_refused_at_once(name, value):
  with pytest.raises(ValueError, match=f'config.{name} is .*, expected '):
    ranges.check(smoke(**{name: value}))


def test_all_that_build_from_a_configuration_check_it():
  with pytest.raises(ValueError, match='config.data.size is .*, expected '):
    build.completed(smoke(**{'data.size': ('x',)}))
  with pytest.raises(ValueError, match='config.batch_size is .*, expected '):
    build.evaluation(smoke(batch_size=-1))


@pytest.mark.parametrize('system', ['apr_vfi', 'dmvfn', 'rvd', 'simvp'])
def test_the_recipes_are_within(system):
  ranges.check(test_loop.smoke_config(system))
