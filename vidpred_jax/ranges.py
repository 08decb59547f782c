"""The valid values of each field of the base configuration: one table.

They are checked before anything is built, so that a wrong value shows before
hours of training. The rules for settings of a system are in the module of that
system. The rules for settings of a data source are in the module of the source,
except those for sizes, which are here.
"""

import re
from typing import Any

from ml_collections import ConfigDict

from vidpred_jax import systems
from vidpred_jax.systems import settings as rules

_COUNT = 10**9
_SIDE = 16384  # pixels

_TEXT = rules.Rule(lambda x: isinstance(x, str), 'a text')
_INDICES = rules.tuple_of(
  rules.whole(0, 9999), '1 to 1000 indices of frames, 0 to 9999', most=1000
)
_SHARE = rules.Rule(
  lambda x: rules.number(0, 1).accepts(x) and x < 1, 'a number from 0, below 1'
)
_SIZE = rules.either(
  None,
  rules.tuple_of(
    rules.whole(1, _SIDE),
    f'height and width, 1 to {_SIDE} pixels each, or None',
    length=2,
  ),
)
_PERIOD = rules.whole(1, _COUNT)
_LIMIT = rules.whole(0, _COUNT)
_STEPS = rules.tuple_of(_PERIOD, 'two steps', length=2)


def _is_pattern(text: Any) -> bool:
  try:
    re.compile(text)
  except (re.error, TypeError, RecursionError, OverflowError):
    return False
  return isinstance(text, str)


_PATTERN = rules.Rule(_is_pattern, 'a regular expression')
_FACTOR = rules.number(0, 10**6)
_RATE = rules.Rule(
  lambda x: (
    isinstance(x, tuple | list)
    and len(x) == 2
    and _is_pattern(x[0])
    and _FACTOR.accepts(x[1])
  ),
  'a pair',
)

# Field -> rule, without `data`, `model` and `features`.
RANGES = {
  'system': rules.one_of(tuple(systems.SYSTEMS)),
  'frames.context': _INDICES,
  'frames.target': _INDICES,
  'augment.crop': _SIZE,
  'augment.flip': rules.Rule(
    lambda x: isinstance(x, bool) or x in ('horizontal', 'vertical'),
    "True, False, 'horizontal' or 'vertical'",
  ),
  'augment.rotate': rules.truth(),
  'augment.reverse_time': rules.truth(),
  'augment.reverse_channels': rules.truth(),
  'workers': rules.whole(0, 1024),
  'seed': rules.whole(0, 2**31 - 1),
  'batch_size': rules.whole(1, 16384),
  'steps': _PERIOD,
  'accumulate': rules.whole(1, 16384),
  'schedule.name': rules.one_of(('cosine', 'constant', 'onecycle', 'step')),
  'schedule.peak': rules.number(
    0, 10, 'a number above 0, at most 10', above=True
  ),
  'schedule.initial': rules.number(0, 10, 'a number from 0 to 10'),
  'schedule.b1_cycle': rules.either(
    (), rules.tuple_of(_SHARE, 'two numbers from 0, below 1, or ()', length=2)
  ),
  'schedule.final': rules.number(0, 10, 'a number from 0 to 10'),
  'schedule.warmup': _LIMIT,
  'schedule.boundaries': rules.tuple_of(
    _PERIOD, f'whole numbers from 1 to {_COUNT}', least=0
  ),
  'schedule.factor': rules.number(
    0, 1000, 'a number above 0, at most 1000', above=True
  ),
  'optim.name': rules.one_of(('adamw', 'adam')),
  'optim.b1': _SHARE,
  'optim.b2': _SHARE,
  'optim.weight_decay': rules.number(0, 100, 'a number from 0 to 100'),
  'optim.clip_norm': rules.number(0),
  'optim.frozen': rules.tuple_of(_PATTERN, 'regular expressions', least=0),
  'optim.rates': rules.tuple_of(
    _RATE, 'pairs of a regular expression and a number of at least 0', least=0
  ),
  'ema.decay': _SHARE,
  'ema.every': _PERIOD,
  'ema.start': _LIMIT,
  'init_from': _TEXT,
  'init_match': _PATTERN,
  'shard_params': rules.truth(),
  'log_every': _PERIOD,
  'profile': rules.either(
    (),
    rules.Rule(
      lambda x: _STEPS.accepts(x) and x[0] <= x[1],
      f'the first and the last step, 1 to {_COUNT}, or ()',
    ),
  ),
  'checkpoint_every': _PERIOD,
  'keep': rules.whole(
    1, 10**6, 'a whole number from 1: without checkpoints a run cannot go on'
  ),
  'export_dtype': rules.one_of(('float32', 'float16')),
  'eval.split': rules.one_of(('train', 'val', 'test')),
  'eval.quick_split': rules.one_of(('train', 'val', 'test')),
  'eval.save': _LIMIT,
  'eval.frames.context': _INDICES,
  'eval.frames.target': _INDICES,
  'eval.batch_size': rules.whole(1, 16384),
  'eval.metrics': rules.tuple_of(_TEXT, 'names of metrics', least=0),
  'eval.lpips.backbone': _TEXT,
  'eval.lpips.heads': _TEXT,
  'eval.i3d': _TEXT,
  'eval.samples': rules.whole(1, 10_000),
  'eval.samples_at_once': rules.whole(0, 10_000),
  'eval.mean_frame': _LIMIT,
  'eval.limit': _LIMIT,
  'eval.seed': rules.whole(0, 2**31 - 1),
  'eval.every': _LIMIT,
  'eval.quick_limit': _PERIOD,
  'eval.best': _TEXT,
  'eval.show': rules.whole(0, 1000),
  'eval.show_as': rules.one_of(('mp4', 'gif', 'mkv', 'mov', 'webm')),
  'eval.show_fps': rules.number(
    0, 50, 'a number above 0, at most 50', above=True
  ),
}
_SIZES = ('data.size', 'eval.data.size')


def check(config: ConfigDict) -> None:
  """Checks the fields of a configuration.

  Args:
    config: the configuration; fields that it lacks are not checked.

  Raises:
    ValueError: for the first invalid field; names the field, its value and the
      valid values.
  """
  for field, rule in {**RANGES, **dict.fromkeys(_SIZES, _SIZE)}.items():
    value: Any = config
    present = True
    for name in field.split('.'):
      present = present and isinstance(value, ConfigDict) and name in value
      value = value[name] if present else None
    if present and not rule.accepts(value):
      raise ValueError(
        f'config.{field} is {value!r}, expected {rule.expected}.'
      )
