"""Means and deviations of the results of one training from several seeds.

A difference between two rows of a table means little where it is smaller than
what another seed changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Means and deviations over several results of `evaluate.run`.

  Args:
    results: of runs that differ in their seed alone, in this order.

  Returns:
    `{'runs': n, 'metrics': {metric: {part: {'mean', 'deviation', 'each'}}}}`;
    the parts are `'mean'`, and `'per_frame'` and `'cumulative'` with lists in
    place of numbers. Deviations are those of a sample (n - 1), 0 of one run.

  Raises:
    ValueError: if there is no result, or they have different metrics.
  """
  named = [tuple(r['metrics']) for r in results]
  if not named or len(set(named)) > 1:
    raise ValueError(f'Expected results with the same metrics, got {named}.')
  parts = ('mean', 'per_frame', 'cumulative')
  return {
    'runs': len(results),
    'metrics': {
      name: {
        part: _over_seeds([r['metrics'][name][part] for r in results])
        for part in parts
      }
      for name in named[0]
    },
  }


def _over_seeds(each: list) -> dict[str, Any]:
  """Mean and deviation of numbers, or of lists of equal length."""
  values = np.array(each, np.float64)
  spread = values.std(0, ddof=1) if len(values) > 1 else 0 * values[0]
  return {
    'mean': values.mean(0).tolist(),
    'deviation': spread.tolist(),
    'each': each,
  }


def table(summarised: Mapping[str, Any]) -> str:
  """Writes the result of `summary` as text, a row for each metric."""
  width = max(map(len, summarised['metrics']), default=0)
  lines = [f'{summarised["runs"]} seeds, mean and standard deviation:']
  for name, values in summarised['metrics'].items():
    mean, deviation = values['mean']['mean'], values['mean']['deviation']
    lines.append(f'{name:{width}}  {mean:.4f} +- {deviation:.4f}')
  return '\n'.join(lines)
