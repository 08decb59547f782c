"""Reads stored arrays and measures errors relative to them."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from vidpred_jax.convert import weights


class Row(NamedTuple):
  """One compared array.

  Attributes:
    array: its name in the file.
    error: the difference; see the function that yields the row.
    tolerance: the error that is allowed.
  """

  array: str
  error: float
  tolerance: float


class Kind(NamedTuple):
  """What is done with files of one kind.

  Attributes:
    marker: an array that only files of this kind hold, or each entry of them
      (`ENTRY/marker`).
    rows: path -> rows.
    variant: of ours, or part of the file, where there are several.
  """

  marker: str
  rows: Callable[[pathlib.Path], Iterator[Row]]
  variant: str = ''


def names(path: pathlib.Path) -> list[str]:
  """The names of the arrays in a file."""
  with np.load(path) as file:
    return file.files


def is_of(kind: Kind, arrays: list[str]) -> bool:
  """Whether a file with arrays of these names is of this kind."""
  return any(
    name.rpartition('/')[2] == kind.marker
    for name in arrays
    if not name.startswith('w/')
  )


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The arrays of a file, and what its `meta_json` says."""
  with np.load(path) as file:
    arrays = dict(file)
  meta = arrays.pop('meta_json', None)
  return arrays, {} if meta is None else json.loads(bytes(meta))


def below(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
  """What lies under a prefix, without it."""
  return {
    name.removeprefix(prefix): x
    for name, x in arrays.items()
    if name.startswith(prefix)
  }


def stored_weights(path, arrays, meta) -> dict[str, np.ndarray]:
  """The published weights of a case.

  They are in the case's own file (`w/NAME`), in `weights_NAME.npz` beside it if
  `meta_json` has a `weights: NAME`, else in the only such file, or the one
  whose arrays the case was made with according to its letter (`case_a1` and
  `weights_a`).
  """
  if own := below('w/', arrays):
    return own
  if name := meta.get('weights'):
    return read(path.with_name(f'weights_{name}.npz'))[0]
  files = sorted(path.parent.glob('weights_*.npz'))
  if len(files) > 1:
    letter = path.stem.partition('_')[2][:1]
    files = [file for file in files if file.stem == f'weights_{letter}']
  if len(files) != 1:
    raise ValueError(
      f'Got {len(files)} files of weights for {path}, expected one: name it in '
      '`weights` of its meta_json.'
    )
  return read(files[0])[0]


def laid_out(theirs, kind: str, shape) -> np.ndarray:
  """A published parameter, or its gradient, as ours is.

  Args:
    theirs: the array.
    kind: how it is laid out, of `convert.weights.AXES`.
    shape: of ours.
  """
  axes = weights.AXES[kind]
  others = [i for i in range(theirs.ndim) if i not in axes]
  return theirs.transpose(*axes, *others).reshape(shape)


def channels_last(x) -> np.ndarray:
  """[..., C, H, W] to [..., H, W, C], float32."""
  return np.moveaxis(np.asarray(x, np.float32), -3, -1)


def largest(ours, theirs) -> float:
  """The largest absolute difference; shapes must be the same."""
  ours = np.asarray(ours, np.float64)
  if ours.shape != np.shape(theirs):
    raise ValueError(f'Got shape {ours.shape}, expected {np.shape(theirs)}.')
  return float(np.max(np.abs(ours - theirs)))


def largest_of_images(ours, theirs) -> float:
  """The same; theirs are [..., C, H, W]."""
  return largest(ours, channels_last(theirs))


def relative(ours, theirs) -> float:
  """The relative L2 error; shapes must be the same."""
  theirs = np.asarray(theirs, np.float64)
  difference = np.asarray(ours, np.float64) - theirs
  if difference.shape != theirs.shape:
    raise ValueError(f'Got {np.shape(ours)}, expected {theirs.shape}.')
  return float(np.linalg.norm(difference) / np.linalg.norm(theirs))


def allowed(fixed: float, floor: float = 0.0, factor: float = 2.5) -> float:
  """A tolerance.

  Args:
    fixed: for the cases that it was chosen for.
    floor: how far the published code in float32 is from itself in float64,
      where a file says so; it is greater for larger networks.
    factor: how many times this is allowed.

  Returns:
    The greater of both.
  """
  return max(fixed, factor * floor)
