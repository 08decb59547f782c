"""Compares each system with the numbers of the published PyTorch code.

  python -m experiments.parity [--shared=../shared] [--systems=dmvfn,rvd]

The folder `parity` of `--shared` holds a folder of `.npz` files for each system
and for the metrics: inputs, weights and results of the published code. A file's
kind follows from the arrays in it, and all sizes from its `meta_json` and the
shapes of its weights; every file is compared.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from experiments.parity import arrays, dmvfn, ebme, metrics, rvd, simvp
from experiments.parity.arrays import Row

SYSTEMS = {
  'dmvfn': dmvfn.KINDS,
  'simvp': simvp.KINDS,
  'rvd': rvd.KINDS,
  'ebme': ebme.KINDS,
  'metrics': metrics.KINDS,
}


class Case(NamedTuple):
  """One stored file, or part of it, against one of our variants.

  Attributes:
    system: of `SYSTEMS`.
    name: of the file, and the variant or part.
    rows: compares, which takes compiling; yields a `Row` per array.
  """

  system: str
  name: str
  rows: Callable[[], Iterator[Row]]


def cases(
  shared: str | pathlib.Path, systems: Iterable[str] = tuple(SYSTEMS)
) -> list[Case]:
  """All cases of a folder; nothing is computed yet.

  Args:
    shared: a folder with the folder `parity`.
    systems: which, of `SYSTEMS`.

  Returns:
    At least one.

  Raises:
    FileNotFoundError: if there are no stored arrays.
    ValueError: if a file is of no known kind.
  """
  root, result = pathlib.Path(shared) / 'parity', []
  for system in systems:
    kinds = SYSTEMS[system]
    for path in sorted((root / system).glob('*.npz')):
      names = arrays.names(path)
      if 'meta_json' not in names:  # weights
        continue
      fitting = [kind for kind in kinds if arrays.is_of(kind, names)]
      if not fitting:
        markers = ', '.join(dict.fromkeys(kind.marker for kind in kinds))
        raise ValueError(f'{path} has none of the arrays {markers}.')
      for kind in fitting:
        name = path.stem + (f' ({kind.variant})' if kind.variant else '')
        rows = functools.partial(kind.rows, path)
        result.append(Case(system, name, rows))
  if not result:
    raise FileNotFoundError(f'{root} holds no arrays of {", ".join(systems)}.')
  return result


def compare(shared, systems=tuple(SYSTEMS)):
  """Yields (case, array, error, tolerance) of `cases`."""
  for case in cases(shared, systems):
    for row in case.rows():
      yield case, *row
