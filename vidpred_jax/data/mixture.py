"""A weighted mixture of several sources."""

from collections.abc import Mapping
from typing import Any

import numpy as np


class Mixture:
  """A grain random access source; item `i` is a function of (seed, i).

  Attributes:
    sources: the parts by name.
  """

  kind = 'image'

  def __init__(
    self,
    sources: Mapping[str, Any],
    weights: Mapping[str, float],
    *,
    num_clips: int | None = None,
    seed: int = 0,
  ):
    """Mixes sources of images.

    Args:
      sources: `{name: source}`, all of the same number of frames per clip.
      weights: `{name: weight}`, how often each is drawn, in any unit.
      num_clips: length of the mixture; None is that of all sources together.
      seed: other seeds draw other clips.

    Raises:
      ValueError: if there is no source, a source has physical fields, or
        the weights or the length are out of range.
    """
    if not sources:
      raise ValueError('A mixture needs at least one source, got none.')
    fields = [name for name, s in sources.items() if s.kind != 'image']
    if fields:
      raise ValueError(
        f'A mixture is of images; {", ".join(fields)} has physical fields.'
      )
    given = [weights[name] for name in sources]
    are_numbers = all(isinstance(x, int | float) for x in given)
    shares = np.array(given if are_numbers else [np.nan], np.float64)
    if not np.isfinite(shares).all() or shares.min() < 0 or not shares.sum():
      raise ValueError(
        f'Weights must not be negative nor all be 0, got {dict(weights)}.'
      )
    self.sources = dict(sources)
    self._ends = np.cumsum(shares / shares.sum())
    self._seed = seed
    if num_clips is None:
      num_clips = sum(len(source) for source in sources.values())
    if num_clips < 1:
      raise ValueError(f'num_clips must be at least 1, got {num_clips}.')
    self._length = num_clips

  def __len__(self) -> int:
    return self._length

  def __repr__(self) -> str:
    return f'Mixture({", ".join(map(repr, self.sources.values()))})'

  def __getitem__(self, index) -> dict:
    index = range(self._length)[index]
    rng = np.random.default_rng([self._seed, index])
    part = int(np.searchsorted(self._ends, rng.uniform(), side='right'))
    part = min(part, len(self._ends) - 1)
    name, source = list(self.sources.items())[part]
    item = source[int(rng.integers(len(source)))]
    return item | {'name': f'{name}/{item["name"]}'}
