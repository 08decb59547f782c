"""Frames in, frames out: images as arrays in files of NumPy or Zarr."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vidpred_jax import atomic
from vidpred_jax.predict import inputs
from vidpred_jax.predict.predictor import Predictor

SUFFIXES = ('.npy', '.npz', '.zarr')


def is_array(path: str | pathlib.Path) -> bool:
  """Whether a path names a file of arrays, by its suffix."""
  return pathlib.Path(path).suffix.lower() in SUFFIXES


def predict_array(
  load: Callable[..., tuple[Any, Any]],
  source: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  num_frames: int | None = None,
  factor: int | None = None,
  samples: int | None = None,
  overwrite: bool = False,
  key: jax.Array | None = None,
  **settings,
) -> int:
  """Predicts or interpolates frames from a file of arrays to another.

  Args:
    load: `(**overrides) -> (system, variables)`, as `checkpoint.load` of a
      path; `frames` is overridden for interpolation.
    source: npy, npz or Zarr of uint8 [T, H, W, C], or of several films [N, T,
      H, W, C]; an npz or Zarr with one array.
    output: the same, to write: [N, T, H, W, C] where `source` has N; with
      samples [S, T, H, W, C] or [N, S, T, H, W, C]. The array of an npz is
      called `frames`.
    num_frames: prediction: how many, by default as many as the system's frames
      say.
    factor: interpolation: how many times as many frames; 2 by default.
    samples: prediction: draw so many futures.
    overwrite: whether an existing output may be replaced.
    key: for stochastic systems; each film has its own of it.
    **settings: of `Predictor`.

  Returns:
    How many frames were written of each film.

  Raises:
    ValueError: if the request does not suit the system or the arrays.
    OSError: if a file is not there or cannot be written.
  """
  from vidpred_jax.data import array_files  # not where only videos are read

  for path in map(pathlib.Path, (source, output)):
    if not is_array(path):
      raise ValueError(
        f'{path} is no file of arrays; input and output must both be '
        f'{", ".join(SUFFIXES)}, or both videos.'
      )
  output = pathlib.Path(os.path.expanduser(output))
  atomic.check_new(output, overwrite=overwrite)
  system, variables = load()
  inputs.check_request(
    system.frames.interpolates,
    num_frames=num_frames,
    samples=samples,
    factor=factor,
    whole=settings.get('whole') or None,
  )
  parts = None
  if system.frames.interpolates:
    parts = factor or 2
    system, variables = load(frames=system.frames.divided(parts))
  films = array_files.opened(*array_files.stamp(source))
  if films.dtype != np.uint8:
    raise ValueError(
      f'{source} holds {films.dtype}; this system sees images, expected uint8.'
    )
  channels = films.shape[-1]
  if channels not in (system.channels, 1):
    raise ValueError(
      f'{source} has a last axis of {channels} channels; this system sees '
      f'{system.channels}.'
    )
  serve = Predictor(system, variables, **settings)
  count = len(system.frames.target) if num_frames is None else num_frames
  length = films.shape[-4]
  made_of_each = count * (samples or 1) if parts is None else length * parts
  inputs.check_memory(films.size // length * made_of_each)

  def made(film, own_key):
    film = np.repeat(np.asarray(film), system.channels // channels, -1)
    if parts is not None:
      result = np.stack(list(serve.interpolate(film, parts, own_key)))
    elif samples is not None:
      result = serve.samples(film, count, samples, own_key).frames
    else:
      result = serve.predict(film, count, own_key)
    if channels < system.channels:  # grey: of what is equal but for rounding
      result = np.rint(result.mean(-1, keepdims=True)).astype(np.uint8)
    return result

  if films.ndim == 4:
    result = made(films, key)
  else:
    key = inputs.key(key)
    keys = [jax.random.fold_in(key, n) for n in range(films.shape[0])]
    result = np.stack([made(films[n], k) for n, k in enumerate(keys)])
  write(output, {'frames': result}, overwrite=overwrite)
  return result.shape[-4]


def write(
  output: pathlib.Path, arrays: dict[str, Any], *, overwrite: bool
) -> None:
  """Writes arrays by their names, of which npy and Zarr hold the only one.

  Args:
    output: the file.
    arrays: `{name: array}`.
    overwrite: whether an existing file may be replaced.

  Raises:
    OSError: if it cannot be written.
  """
  suffix = output.suffix.lower()
  first, *_ = arrays.values()
  with atomic.replacing(output, overwrite=overwrite) as partial:
    if suffix == '.zarr':
      import zarr

      zarr.save_array(partial, first)  # type: ignore[arg-type]
      return
    with partial.open('wb') as file:  # by a name, NumPy would add .npy to .NPY
      if suffix == '.npy':
        np.save(file, first)
      else:
        np.savez(file, **arrays)
