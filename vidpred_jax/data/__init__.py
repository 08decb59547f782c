"""Clips for training and evaluation: sources by name, two iterators.

A source is a grain random access source: `source[i]` is a dict with `video`
[T, H, W, C] and `name`, a function of `i` alone. `source.kind` says what the
values are:

  'image': uint8, or float32 in [0, 1].
  'field': float32 physical fields, each variable (channel) normalised: the
    value in its unit is `video * source.std + source.mean`. Such a source also
    has `mean` and `std` float32 [C], those of the training split, `units`, one
    text of all channels, and `latitudes` float32 [H] in degrees, or None. It
    may have `climatology`, a mean field [H, W, C] in the units.

A source whose published epochs are not `len(source)` clips says how many they
have, `source.epoch`.

`train_iterator` yields random batches without end, `eval_batches` every clip of
a source once. Any object with `len(x)` and `x[i]` serves, too: see `own`.
"""

from vidpred_jax.data.pipeline import (
  SOURCES,
  Batches,
  eval_batches,
  make_source,
  own_source,
  train_iterator,
)

__all__ = [
  'SOURCES',
  'Batches',
  'eval_batches',
  'make_source',
  'own_source',
  'train_iterator',
]
