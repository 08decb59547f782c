"""Prediction of physical fields: files of arrays in the variables' units."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vidpred_jax import atomic
from vidpred_jax.predict.predictor import Predictor

_ARRAYS = ('.npy', '.npz')


def predict_field(
  load: Callable[..., tuple[Any, Any]],
  source: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  num_frames: int | None = None,
  overwrite: bool = False,
  key: jax.Array | None = None,
  **settings,
) -> int:
  """Predicts physical fields, in the variables' units, from file to file.

  Args:
    load: `() -> (system, variables)`, as `checkpoint.load` of a path.
      `system.data` says which fields.
    source: npz file with an array [T, H, W] per variable, or npy file
      [T, H, W, C]; [T, H, W] of one variable.
    output: the same, to write, float32; npy has the axes that `source` has.
    num_frames: how many, by default as many as the system's frames say.
    overwrite: whether an existing output may be replaced.
    key: for stochastic systems.
    **settings: of `Predictor`.

  Returns:
    How many frames were written.

  Raises:
    ValueError: if `source` holds no such fields, or either is no such file.
    OSError: if a file is not there or cannot be written.
  """
  system, variables = load()
  output, names = pathlib.Path(output), system.data.variables
  for path in map(pathlib.Path, (source, output)):
    if path.suffix not in _ARRAYS:
      raise ValueError(
        f'{path}: this system learned from physical fields '
        f'({", ".join(names)} in {system.data.units}), not from pictures; '
        'expected an npz or npy file with arrays in these units.'
      )
  if output.exists() and not overwrite:
    raise FileExistsError(f'{output} exists already; nothing was written.')
  clip, flat = _read_field(pathlib.Path(source), names)
  serve = Predictor(system, variables, **settings)
  num_frames = len(system.frames.target) if num_frames is None else num_frames
  frames = serve.predict(clip, num_frames, key)
  with atomic.replacing(output) as partial:
    if output.suffix == '.npz':
      np.savez(partial, **dict(zip(names, np.moveaxis(frames, -1, 0))))
    else:
      np.save(partial, frames[..., 0] if flat else frames)
  return num_frames


def _read_field(path, names) -> tuple[np.ndarray, bool]:
  """Reads the variables, [T, H, W, C], and whether the file has no axis C."""
  from vidpred_jax.data import files  # not where only videos are read

  if path.suffix == '.npz':
    arrays = [files.npz_array(path, name) for name in names]
  else:
    with files.reading(path, 'npy file'):
      array = np.load(path, allow_pickle=False)
    arrays = np.moveaxis(array, -1, 0) if array.ndim == 4 else [array]
  shapes = sorted({x.shape for x in arrays})
  good = all(x.ndim == 3 and x.dtype.kind in 'iuf' for x in arrays)
  if not good or len(shapes) > 1 or len(arrays) != len(names):
    raise ValueError(
      f'{path} has {len(arrays)} arrays {", ".join(map(str, shapes))}; '
      f'expected numbers [T, H, W] for each of {", ".join(names)}.'
    )
  clip = np.stack(arrays, -1).astype(np.float32)
  return clip, path.suffix == '.npy' and array.ndim == 3
