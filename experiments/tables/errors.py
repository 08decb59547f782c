"""Means over clips and seeds, and how far they may be off."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats


def gathered(each: list[dict | None]) -> dict[str, Any] | None:
  """A number of several seeds as one.

  Args:
    each: of `measured.value`, one for each seed.

  Returns:
    `{'mean', 'each'}`; of several seeds with their `'deviation'`; and where the
    error over clips is known, `'standard_error'`: that of the mean, over clips
    and seeds. None if a seed lacks the number.
  """
  known = [x for x in each if x is not None]
  if len(known) < len(each) or not known:
    return None
  numbers = [x['mean'] for x in known]
  found = {'mean': float(np.mean(numbers)), 'each': numbers}
  of_seeds = 0.0
  if len(numbers) > 1:
    equal = len(set(numbers)) == 1  # rounding would make a deviation of it
    found['deviation'] = 0.0 if equal else float(np.std(numbers, ddof=1))
    of_seeds = found['deviation'] / math.sqrt(len(numbers))
  errors = [x.get('standard_error') for x in known]
  if None not in errors:
    # All seeds have the same clips: their error does not shrink with the seeds.
    found['standard_error'] = math.hypot(float(np.mean(errors)), of_seeds)
  return found


class Difference(NamedTuple):
  """How far two rows are apart.

  Attributes:
    mean: over clips and seeds.
    error: its standard error, over both.
    bound: half of its 95 % interval, by Student's t.
  """

  mean: float
  error: float
  bound: float


def difference(a: npt.ArrayLike, b: npt.ArrayLike) -> Difference:
  """Of two rows of the same clips.

  The errors over clips and over seeds are added as if independent, which
  counts what clips and seeds do together twice: never too small. The degrees
  of freedom are those of Welch and Satterthwaite: nearly the number of seeds
  less one where the seeds make the error.

  Args:
    a: the values of a row [S, M], S seeds and M clips.
    b: those of the other, of the same seeds and clips.

  Returns:
    Of a - b.
  """
  each = np.subtract(a, b)
  parts = [
    (np.var(means, ddof=1) / len(means), len(means) - 1)
    for means in (each.mean(0), each.mean(1))
    if len(means) > 1
  ]
  variance = sum(v for v, _ in parts)
  if not variance:
    return Difference(float(each.mean()), 0.0, 0.0)
  freedom = variance**2 / sum(v**2 / n for v, n in parts)
  error = math.sqrt(variance)
  bound = float(stats.t.ppf(0.975, freedom)) * error
  return Difference(float(each.mean()), error, bound)
