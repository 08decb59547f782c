"""Checkpoints: exported systems, and the states of training runs.

An *export* is for others: a folder with `weights.safetensors` and `system.json`
(name, settings, frames, a description of the training data, and a SHA-256 over
all of it). A *training state* is an Orbax checkpoint under
`<workdir>/checkpoints` with a fingerprint per leaf, since Orbax itself does not
notice a flipped bit. Loading refuses either, naming the leaf or file, if the
sums do not agree.

The training data are described by a `systems.DataSpec`, stored as `{'kind':
'image'}`, or for physical fields `{'kind': 'field', 'mean': [C], 'std': [C],
'units': text, 'variables': [C]}`. Converted weights have no description: their
clips are images.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
from jax import lax
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vidpred_jax import atomic, systems, zoo
from vidpred_jax import params as params_lib

WEIGHTS = 'weights.safetensors'
RECORD = 'system.json'
CONFIG = 'config.json'
DATA = 'data.json'


# ------------------------------------------------------------------ exported


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
    path: the folder to make.
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
  path = pathlib.Path(path)
  if path.exists() and not (overwrite and (path / RECORD).exists()):
    raise FileExistsError(f'{path} exists already; nothing was written.')
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
    record['data'] = spec_to_json(data)
  record['sha256'] = _digest(record, weights)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic.replacing(path) as partial:
    partial.mkdir()
    (partial / WEIGHTS).write_bytes(weights)
    (partial / RECORD).write_text(json.dumps(record, indent=2) + '\n')


def _halved(name: str, leaf: np.ndarray) -> np.ndarray:
  if leaf.dtype != np.float32:
    return leaf
  if np.abs(leaf).max(initial=0) > np.finfo(np.float16).max:
    raise ValueError(f'{name} is too large for float16.')
  return leaf.astype(np.float16)


def load(path: str | os.PathLike, **overrides):
  """Loads an exported system, or the weights of a training run.

  For a finished training run it loads the export, for an unfinished one the
  newest checkpoint (the averaged weights if the run averages).

  Args:
    path: an exported folder, the `--workdir` of a run, or the name of a model
      that comes with the package (see `zoo`).
    **overrides: settings that replace the stored ones, `frames` among them.

  Returns:
    `(system, variables)`; `system.data` describes the training data.

  Raises:
    FileNotFoundError: if `path` holds neither.
    ValueError: if a file is damaged, or the weights are not those of the
      system with these settings.
  """
  record, variables = read(path)
  system = system_from_record(record, **overrides)
  system = system._replace(data=read_data_spec(path) or systems.DataSpec())
  return system, check_variables(path, record, system, variables)


def check_variables(path, record, system: systems.System, variables):
  """Returns `variables` if they fit `system`; raises ValueError if not."""
  size = system.clip_size and system.clip_size(variables)
  height, width = size or 2 * (4 * system.multiple,)
  clip = jax.ShapeDtypeStruct(
    (1, system.frames.length, height, width, system.channels), jnp.float32
  )
  expected = jax.eval_shape(system.init, jax.random.key(0), clip)
  try:
    return params_lib.merge_or_refuse(expected, variables)
  except ValueError as error:
    raise ValueError(
      f'{path} does not hold weights of {record["system"]} with these '
      f'settings. {error}'
    ) from None


def read(path: str | os.PathLike) -> tuple[dict, dict]:
  """The record and the variables in an export or a run; see `load`."""
  path = zoo.find(path)
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


def read_data_spec(path: str | os.PathLike) -> systems.DataSpec | None:
  """Reads the description of the training data of an export or a run.

  Returns:
    The description, or None if it is unknown.

  Raises:
    ValueError: if its file is damaged.
  """
  path = zoo.find(path)
  for folder in (path, path / 'export'):
    if (folder / RECORD).exists():
      return _spec(folder / RECORD, _read_json(folder / RECORD).get('data'))
  path = path / DATA
  return _spec(path, _read_json(path)) if path.exists() else None


def spec_to_json(data: systems.DataSpec) -> dict[str, Any]:
  """Converts a `DataSpec` to JSON; for images only the field `kind`."""
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in data._asdict().items()
    if data.is_field or name == 'kind'
  }


def _spec(path: pathlib.Path, stored) -> systems.DataSpec | None:
  if stored is None:
    return None
  try:
    return systems.DataSpec(**{k: _tuples(v) for k, v in stored.items()})
  except (AttributeError, TypeError) as error:
    raise ValueError(f'{path} is damaged: {error}') from None


def system_from_record(
  record: Mapping[str, Any], **overrides
) -> systems.System:
  """Makes the system that a record describes, with some settings replaced."""
  stored = systems.renamed.current(record['system'], record['settings'])
  settings = {k: _tuples(v) for k, v in stored.items()}
  stored = record['frames']
  frames = overrides.pop('frames', None) or systems.Frames(
    tuple(stored['context']), tuple(stored['target'])
  )
  return systems.make(record['system'], frames=frames, **(settings | overrides))


def _read_export(path: pathlib.Path) -> tuple[dict, dict]:
  try:
    record = json.loads((path / RECORD).read_text())
    expected = record['sha256']
    data = (path / WEIGHTS).read_bytes()
  except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
    raise ValueError(f'{path / RECORD} is damaged: {error}') from None
  got = _digest(record, data)
  if got != expected:
    raise ValueError(
      f'{path / WEIGHTS} or {path / RECORD} is damaged: their SHA-256 is '
      f'{got[:12]}..., it was {expected[:12]}... when they were written.'
    )
  arrays = params_lib.read_safetensors(data, str(path / WEIGHTS))
  whole = {
    name: leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf
    for name, leaf in arrays.items()
  }
  return record, params_lib.unflatten(whole)


def _digest(record: Mapping[str, Any], data: bytes) -> str:
  rest = {k: v for k, v in record.items() if k != 'sha256'}
  digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
  digest.update(data)
  return digest.hexdigest()


def _read_run(path: pathlib.Path) -> tuple[dict, dict]:
  config = read_config(path)
  with manager(path, read_only=True) as saved:
    step = saved.latest_step()
    if step is None:
      raise FileNotFoundError(f'{path}/checkpoints has no checkpoint yet.')
    state = restore(saved, step)
  record = {
    'system': config['system'],
    'settings': config['model'],
    'frames': config['eval']['frames'],
    'sha256': state['fingerprint'],
  }
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


def read_config(workdir: pathlib.Path) -> dict:
  """The configuration of the run in `workdir`.

  Settings of its system that have been renamed since have their new names.

  Raises:
    ValueError: if the file is damaged.
  """
  config = _read_json(workdir / CONFIG)
  if 'model' in config:
    config['model'] = systems.renamed.current(config['system'], config['model'])
  return config


def _read_json(path: pathlib.Path) -> dict:
  try:
    return json.loads(path.read_text())
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f'{path} is damaged: {error}') from None


def _tuples(value):
  """Converts JSON lists back to tuples, as settings have them."""
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


# ----------------------------------------------------------- training states


def manager(
  workdir: str | os.PathLike,
  *,
  keep: int = 2,
  best: tuple[str, bool] | None = None,
  read_only: bool = False,
) -> ocp.CheckpointManager:
  """Makes the Orbax manager of a run's checkpoints.

  Args:
    workdir: the run's folder.
    keep: the number of newest checkpoints to keep.
    best: a metric given to `save` and whether higher is better: the best
      checkpoint is kept too.
    read_only: whether the manager only reads.

  Returns:
    The manager; use it in a `with` block.

  Raises:
    ValueError: if `keep` is below 1.
  """
  if keep < 1:
    raise ValueError(
      f'keep must be at least 1, got {keep}: a run without checkpoints could '
      'not go on.'
    )
  policies = [preservation_policy.LatestN(keep)]
  options = {}
  if best:
    name, higher = best

    def metric(metrics):
      return metrics[name]

    # Alone, BestN would delete the newest checkpoint; without best_fn the
    # metrics would be dropped without a word.
    policies.append(
      preservation_policy.BestN(
        get_metric_fn=metric,
        n=1,
        reverse=not higher,
        keep_checkpoints_without_metrics=False,
      )
    )
    options = {'best_fn': metric, 'best_mode': 'max' if higher else 'min'}
  return ocp.CheckpointManager(
    pathlib.Path(workdir).resolve() / 'checkpoints',
    item_handlers={
      'state': ocp.StandardCheckpointHandler(),
      'sums': ocp.JsonCheckpointHandler(),
    },
    options=ocp.CheckpointManagerOptions(
      preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
      read_only=read_only,
      # In the background a full disk would show up as tracebacks of threads.
      enable_async_checkpointing=False,
      cleanup_tmp_directories=not read_only,
      **options,
    ),
  )


def save(saved, step: int, state, metrics=None) -> None:
  """Saves a training state.

  Args:
    saved: from `manager`.
    step: its step.
    state: a NamedTuple of trees.
    metrics: for `manager`'s `best`.

  Raises:
    OSError: if it cannot be written; older checkpoints stay as they are.
  """
  try:
    saved.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state._asdict()),
        sums=ocp.args.JsonSave(fingerprints(state._asdict())),
      ),
      metrics=metrics,
      force=True,
    )
  except (OSError, ValueError) as error:  # a full disk is a ValueError there
    raise OSError(
      f'The checkpoint of step {step} could not be saved in '
      f'{saved.directory}; older ones were kept. Is the disk full? '
      f'({str(error)[-160:]})'
    ) from None


def restore(saved, step: int, like=None):
  """Restores a training state and checks every leaf.

  Args:
    saved: from `manager`.
    step: which one.
    like: a state with the structure, shapes and shardings of the result. None:
      the result is a dict of host arrays with an additional 'fingerprint'.

  Returns:
    The state.

  Raises:
    ValueError: if a leaf is damaged or the checkpoint does not fit `like`.
  """
  try:
    if like is not None:
      target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
    else:
      device = jax.local_devices()[0]
      target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape,
          leaf.dtype,
          sharding=jax.sharding.SingleDeviceSharding(device),
        ),
        dict(saved.item_metadata(step)['state']),
      )
    restored = saved.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(target), sums=ocp.args.JsonRestore()
      ),
    )
  except Exception as error:  # Orbax raises all kinds, bare ones among them
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise ValueError(
      f'The checkpoint of step {step} in {saved.directory} cannot be read: '
      f'{reason[:300]} Remove that folder to use an older one.'
    ) from None
  expected, got = restored['sums'], fingerprints(restored['state'])
  damaged = sorted(k for k in expected if expected[k] != got.get(k))
  if damaged:
    raise ValueError(
      f'The checkpoint of step {step} in {saved.directory} is damaged: '
      f'{len(damaged)} of {len(expected)} arrays differ from what was saved, '
      f'the first is {damaged[0]}. Remove that folder to use an older one.'
    )
  if like is None:
    digest = hashlib.sha256(json.dumps(expected, sort_keys=True).encode())
    return dict(restored['state']) | {'fingerprint': digest.hexdigest()}
  return type(like)(**restored['state'])


def fingerprints(tree) -> dict[str, int]:
  """A 32-bit checksum per leaf that any single flipped bit changes.

  It sums the array's bits, as integers, times odd weights, modulo 2^32. The sum
  is exact, so it does not depend on how devices and processes share the array.
  """
  # Names without the kind of container: Orbax restores NamedTuples as dicts.
  names = [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree.leaves_with_path(tree)
  ]
  sums = jax.device_get(_sums(jax.tree.leaves(tree)))
  return {name: int(value) for name, value in zip(names, sums)}


@jax.jit
def _sums(leaves):
  return [_sum(jnp.asarray(leaf)) for leaf in leaves]


def _sum(leaf):
  if leaf.dtype == jnp.bool_:
    bits = leaf.astype(jnp.uint32)
  else:
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
  # Built from one iota per axis, so that a sharded array is summed in place.
  position = jnp.zeros(leaf.shape, jnp.uint32)
  for axis, size in enumerate(leaf.shape):
    index = lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    position = position * jnp.uint32(size) + index
  return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)
