"""Exported systems: folders with the weights and settings of a system."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from vidpred_jax import atomic, stored, systems
from vidpred_jax import params as params_lib
from vidpred_jax.checkpoint import records, remote, states
from vidpred_jax.checkpoint.records import CONFIG
from vidpred_jax.checkpoint.remote import RECORD, WEIGHTS


def save_system(
  path: str | os.PathLike,
  *,
  system: str,
  settings: Mapping[str, Any],
  frames: systems.Frames,
  variables: Mapping[str, Any],
  data: systems.DataSpec | None = None,
  dtype: str = 'float32',
  overwrite: bool = False,
) -> None:
  """Writes a system and its weights to the folder `path`.

  The folder is written beside its place and moved there when complete.

  Args:
    path: the folder to make, or an address of object storage (see `remote`),
      where nothing is replaced.
    system: name in `systems.SYSTEMS`.
    settings: keyword arguments of `systems.make`, JSON values and tuples.
    frames: the frames for which it is loaded; for a run those of its
      evaluation.
    variables: Flax variables, any nesting of dicts of arrays.
    data: the description of the training data; None if unknown.
    dtype: 'float32' keeps arrays as they are; 'float16' stores float32 arrays
      in half the space. They are read as float32 again.
    overwrite: whether an existing export at `path` may be replaced.

  Raises:
    FileExistsError: if `path` exists and `overwrite` is False, or if it is not
      an export.
    ValueError: for an unknown dtype, or a weight that is too large for it.
    OSError: if writing fails; existing files are unchanged.
  """
  place, away = pathlib.Path(path), atomic.is_address(path)
  if not away:
    ours = (place / RECORD).exists()
    atomic.check_new(path, overwrite=overwrite and ours, parents=True)
  leaves = {
    name: np.asarray(leaf, order='C')  # a scalar stays one
    for name, leaf in params_lib.flatten(variables).items()
  }
  if dtype == 'float16':
    leaves = {name: _halved(name, leaf) for name, leaf in leaves.items()}
  elif dtype != 'float32':
    raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}.")
  weights = safetensors.numpy.save(leaves)
  record = {
    'format': 1,
    'system': system,
    'settings': dict(settings),
    'frames': {
      'context': list(frames.context),
      'target': list(frames.target),
    },
  }
  if data is not None:
    record['data'] = records.spec_to_json(data)
  record['sha256'] = stored.digest(record, weights)
  text = json.dumps(record, indent=2) + '\n'
  content = {WEIGHTS: weights, RECORD: text.encode()}
  if away:
    return remote.put(path, content)
  with atomic.replacing(path, overwrite=overwrite) as partial:
    partial.mkdir(parents=True)
    for name, data in content.items():
      (partial / name).write_bytes(data)


def export(
  system: systems.System,
  variables: Mapping[str, Any],
  folder: str,
  *,
  dtype: str = 'float32',
  overwrite: bool = False,
) -> None:
  """Writes a system and its weights to a folder that `load` takes.

  Args:
    system: from `systems.make` or `load`.
    variables: its Flax variables, any nesting of dicts of arrays.
    folder: the folder to make.
    dtype: 'float32' or, for half the space, 'float16'; see `save_system`.
    overwrite: whether an existing export may be replaced.

  Raises:
    FileExistsError: if `folder` exists and is not to be overwritten, or is
      something else than an export.
    ValueError: if these are not variables of the system, or it was not made by
      `systems.make`.
    OSError: if the disk does not take it; nothing existing is changed.
  """
  if not system.name:
    raise ValueError('Got a system without a name; `make` gives it one.')
  variables = check_variables(
    'variables', {'system': system.name}, system, variables
  )
  save_system(
    folder,
    system=system.name,
    settings=systems.SYSTEMS[system.name]
    .Settings(**dict(system.settings))
    ._asdict(),
    frames=system.frames,
    variables=variables,
    data=system.data,
    dtype=dtype,
    overwrite=overwrite,
  )


def _halved(name: str, leaf: np.ndarray) -> np.ndarray:
  if leaf.dtype != np.float32:
    return leaf
  if np.abs(leaf).max(initial=0) > np.finfo(np.float16).max:
    raise ValueError(f'{name} is too large for float16.')
  return leaf.astype(np.float16)


def load(
  path: str | os.PathLike, /, *, allow_nonfinite: bool = False, **overrides
):
  """Loads an exported system, or the weights of a training run.

  Of a finished training run it loads the export, of an unfinished one the
  newest checkpoint (the averaged weights if the run averages).

  Args:
    path: an exported folder, the `--workdir` of a run, the name of a model that
      comes with the package (see `zoo`), or the address of an export (see
      `remote`).
    allow_nonfinite: whether weights may be infinite or NaN.
    **overrides: settings that replace the stored ones, `frames` among them.

  Returns:
    `(system, variables)`; `system.data` describes the training data.

  Raises:
    FileNotFoundError: if `path` holds neither.
    ValueError: if a file is damaged, or the weights are not those of the
      system with these settings.
  """
  with remote.local(path) as folder:
    record, variables = read(folder, allow_nonfinite=allow_nonfinite)
    data = records.read_data_spec(folder) or systems.DataSpec()
  system = records.system_from_record(record, **overrides)._replace(data=data)
  return system, check_variables(path, record, system, variables)


def check_variables(path, record, system: systems.System, variables):
  """Returns `variables` if they fit `system`; raises ValueError if not."""
  try:
    size = system.clip_size and system.clip_size(variables)
    height, width = size or 2 * (4 * system.multiple,)
    clip = jax.ShapeDtypeStruct(
      (1, system.frames.length, height, width, system.channels), jnp.float32
    )
    expected = jax.eval_shape(system.init, jax.random.key(0), clip)
  except Exception as error:  # of all kinds, where settings fit no weights
    raise ValueError(
      f'{path}: {record["system"]} cannot be made with these settings for '
      f'these weights ({type(error).__name__}: {error}).'
    ) from error
  try:
    merged = params_lib.merge_or_refuse(expected, variables)
  except ValueError as error:
    raise ValueError(
      f'{path} does not hold weights of {record["system"]} with these '
      f'settings. {error}'
    ) from None
  wanted = params_lib.flatten(expected)
  for name, leaf in params_lib.flatten(merged).items():
    floating = jnp.issubdtype(wanted[name].dtype, jnp.floating)
    if floating != jnp.issubdtype(leaf.dtype, jnp.floating):
      raise ValueError(
        f'{path}: {name} is of type {leaf.dtype}, expected '
        f'{wanted[name].dtype}.'
      )
  return merged


def read(
  path: str | os.PathLike, *, allow_nonfinite: bool = False
) -> tuple[dict, dict]:
  """Reads the record and the variables of an export or a run; see `load`."""
  with remote.local(path) as folder:
    record, variables = _read(folder)
    if not allow_nonfinite:
      try:
        params_lib.check_finite(params_lib.flatten(variables))
      except ValueError as error:
        raise ValueError(f'{folder}: {error}') from None
    return record, variables


def _read(path: pathlib.Path) -> tuple[dict, dict]:
  if (path / RECORD).exists():
    return _read_export(path)
  if (path / 'export' / RECORD).exists():
    return _read_export(path / 'export')
  if (path / CONFIG).exists() and (path / 'checkpoints').is_dir():
    return _read_run(path)
  raise FileNotFoundError(
    f'{path} holds neither an exported system ({RECORD} and {WEIGHTS}) nor a '
    f'training run ({CONFIG} and checkpoints/).'
  )


def _read_export(path: pathlib.Path) -> tuple[dict, dict]:
  record = stored.read_record(path / RECORD)
  stored.check(path / RECORD, record, records.DIGEST)
  data = stored.read_bytes(path / WEIGHTS, stored.MOST_OF_WEIGHTS)
  got, expected = stored.digest(record, data), record['sha256']
  if got != expected:
    raise ValueError(
      f'{path / WEIGHTS} or {path / RECORD} is damaged: their SHA-256 is '
      f'{got[:12]}..., it was {stored.shown(expected[:12])} when they were '
      'written.'
    )
  records.check_record(path / RECORD, record)
  records.data_spec(path / RECORD, record.get('data'))
  arrays = params_lib.read_safetensors(data, str(path / WEIGHTS))
  whole = {
    name: leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf
    for name, leaf in arrays.items()
  }
  return record, params_lib.unflatten(whole)


def _read_run(path: pathlib.Path) -> tuple[dict, dict]:
  config = records.read_config(path)
  stored.check(path / CONFIG, config, records.RUN)
  record = {
    'format': 1,
    'system': config['system'],
    'settings': config['model'],
    'frames': config['eval']['frames'],
  }
  records.check_record(path / CONFIG, record)
  with states.manager(path, read_only=True) as saved:
    step = saved.latest_step()
    if step is None:
      raise FileNotFoundError(f'{path}/checkpoints has no checkpoint yet.')
    state = states.restore(saved, step)
  record |= {'sha256': state['fingerprint']}
  return record, inference_variables(
    state['params'], state['collections'], state['ema'], config['features']
  )


def inference_variables(params, collections, ema, features) -> dict:
  """The variables of a training state that inference needs.

  Args:
    params: parameters of the state.
    collections: the other Flax collections of the state, or None.
    ema: averaged parameters of the state, used instead of `params` unless
      empty.
    features: names of collections that are frozen networks of the loss; these
      are left out.
  """
  kept = {k: v for k, v in (collections or {}).items() if k not in features}
  return {'params': ema or params, **kept}
