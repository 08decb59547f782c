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
import safetensors.numpy
from jax import lax

from vidpred_jax import atomic, stored, systems, zoo
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
  record['sha256'] = stored.digest(record, weights)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic.replacing(path) as partial:
    partial.mkdir()
    (partial / WEIGHTS).write_bytes(weights)
    (partial / RECORD).write_text(json.dumps(record, indent=2) + '\n')


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
  path: str | os.PathLike, *, allow_nonfinite: bool = False, **overrides
):
  """Loads an exported system, or the weights of a training run.

  For a finished training run it loads the export, for an unfinished one the
  newest checkpoint (the averaged weights if the run averages).

  Args:
    path: an exported folder, the `--workdir` of a run, or the name of a model
      that comes with the package (see `zoo`).
    allow_nonfinite: whether weights may be infinite or no numbers.
    **overrides: settings that replace the stored ones, `frames` among them.

  Returns:
    `(system, variables)`; `system.data` describes the training data.

  Raises:
    FileNotFoundError: if `path` holds neither.
    ValueError: if a file is damaged, or the weights are not those of the
      system with these settings.
  """
  record, variables = read(path, allow_nonfinite=allow_nonfinite)
  system = system_from_record(record, **overrides)
  system = system._replace(data=read_data_spec(path) or systems.DataSpec())
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
  """The record and the variables in an export or a run; see `load`."""
  path = zoo.find(path)
  record, variables = _read(path)
  if not allow_nonfinite:
    try:
      params_lib.check_finite(params_lib.flatten(variables))
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from None
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
      record = stored.read_record(folder / RECORD)
      return _spec(folder / RECORD, record.get('data'))
  path = path / DATA
  return _spec(path, stored.read_summed(path)) if path.exists() else None


def spec_to_json(data: systems.DataSpec) -> dict[str, Any]:
  """Converts a `DataSpec` to JSON; for images only the field `kind`."""
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in data._asdict().items()
    if data.is_field or name == 'kind'
  }


def _spec(path: pathlib.Path, stored_data) -> systems.DataSpec | None:
  if stored_data is None:
    return None
  if not isinstance(stored_data, dict):
    raise ValueError(
      f'{path}: data is {stored.shown(stored_data)}, expected {{...}}.'
    )
  stored.check(path, stored_data, _DATA, 'data.')
  given = {
    name: _tuples(value)
    for name, value in stored_data.items()
    if name in systems.DataSpec._fields
  }
  spec = systems.DataSpec(**given)
  count = len(spec.variables)
  if spec.is_field and not count == len(spec.mean) == len(spec.std) > 0:
    raise ValueError(
      f'{path}: data has {count} variables, {len(spec.mean)} means and '
      f'{len(spec.std)} standard deviations, expected as many of each.'
    )
  return spec


def _is_index(value) -> bool:
  return type(value) is int and 0 <= value < 100_000


def _is_list_of(accepts, most: int, least: int = 0):
  return lambda x: (
    isinstance(x, list) and least <= len(x) <= most and all(map(accepts, x))
  )


def _is_number(value) -> bool:
  return type(value) in (int, float) and abs(value) < 1e38  # of float32


def _is_name(value) -> bool:
  return isinstance(value, str) and len(value) <= 200 and value.isprintable()


def _is_setting(value, depth: int = 2) -> bool:
  """Whether a value is a setting in JSON: a number, text, or lists of them."""
  if isinstance(value, list):
    fine = depth and len(value) <= 1000
    return bool(fine) and all(_is_setting(x, depth - 1) for x in value)
  if type(value) is int:
    return abs(value) < 2**63
  return value is None or isinstance(value, bool | float | str)


_INDICES = stored.Field(
  _is_list_of(_is_index, 1000, 1), '1 to 1000 indices of frames'
)
_FRAMES = {'context': _INDICES, 'target': _INDICES}
_RECORD = {
  'format': stored.Field(
    lambda x: type(x) is int and x == 1, '1, the only one there is'
  ),
  'system': stored.Field(
    lambda x: isinstance(x, str) and x in systems.SYSTEMS,
    f'one of {", ".join(systems.SYSTEMS)}',
  ),
  'settings': stored.Field(
    lambda x: isinstance(x, dict) and all(map(_is_setting, x.values())),
    'settings by name: numbers, words and short lists of them',
  ),
  'frames': stored.Field(lambda x: isinstance(x, dict), 'context and target'),
}
_DIGEST = {
  'sha256': stored.Field(
    lambda x: isinstance(x, str) and len(x) == 64, '64 letters'
  ),
}
_NAMES = stored.Field(_is_list_of(_is_name, 4096), 'names', required=False)
_DATA = {
  'kind': stored.Field(lambda x: x in ('image', 'field'), "'image' or 'field'"),
  'variables': _NAMES,
  'units': stored.Field(_is_name, 'a short text', required=False),
  'mean': stored.Field(
    _is_list_of(_is_number, 4096), 'finite numbers', required=False
  ),
  'std': stored.Field(
    _is_list_of(lambda x: _is_number(x) and x > 0, 4096),
    'positive numbers',
    required=False,
  ),
}
_CONFIG = {
  'system': _RECORD['system'],
  'model': _RECORD['settings'],
  'features': stored.Field(lambda x: isinstance(x, dict), 'files by name'),
  'eval': stored.Field(
    lambda x: isinstance(x, dict) and isinstance(x.get('frames'), dict),
    'a section with frames',
  ),
}


def _check_record(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Raises ValueError unless a system may be built of a record."""
  stored.check(path, record, _RECORD)
  stored.check(path, record['frames'], _FRAMES, 'frames.')
  known = systems.SYSTEMS[record['system']].Settings._fields
  for name in systems.renamed.current(record['system'], record['settings']):
    if name not in known:
      raise ValueError(
        f'{path}: settings has {stored.shown(name)}, expected settings of '
        f'{record["system"]}: {", ".join(known)}.'
      )
  try:
    system_from_record(record)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def system_from_record(
  record: Mapping[str, Any], **overrides
) -> systems.System:
  """Makes the system that a record describes, with some settings replaced."""
  named = systems.renamed.current(record['system'], record['settings'])
  settings = {k: _tuples(v) for k, v in named.items()}
  indices = record['frames']
  frames = overrides.pop('frames', None) or systems.Frames(
    tuple(indices['context']), tuple(indices['target'])
  )
  return systems.make(record['system'], frames=frames, **(settings | overrides))


def _read_export(path: pathlib.Path) -> tuple[dict, dict]:
  record = stored.read_record(path / RECORD)
  stored.check(path / RECORD, record, _DIGEST)
  data = stored.read_bytes(path / WEIGHTS, stored.MOST_OF_WEIGHTS)
  got, expected = stored.digest(record, data), record['sha256']
  if got != expected:
    raise ValueError(
      f'{path / WEIGHTS} or {path / RECORD} is damaged: their SHA-256 is '
      f'{got[:12]}..., it was {stored.shown(expected[:12])} when they were '
      'written.'
    )
  _check_record(path / RECORD, record)
  _spec(path / RECORD, record.get('data'))
  arrays = params_lib.read_safetensors(data, str(path / WEIGHTS))
  whole = {
    name: leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf
    for name, leaf in arrays.items()
  }
  return record, params_lib.unflatten(whole)


def _read_run(path: pathlib.Path) -> tuple[dict, dict]:
  config = read_config(path)
  stored.check(path / CONFIG, config, _CONFIG)
  record = {
    'format': 1,
    'system': config['system'],
    'settings': config['model'],
    'frames': config['eval']['frames'],
  }
  _check_record(path / CONFIG, record)
  with manager(path, read_only=True) as saved:
    step = saved.latest_step()
    if step is None:
      raise FileNotFoundError(f'{path}/checkpoints has no checkpoint yet.')
    state = restore(saved, step)
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


def write_json(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes a record of a run, with a checksum."""
  text = json.dumps(stored.with_sum(record), indent=2) + '\n'
  atomic.write_text(path, text)


def read_config(workdir: pathlib.Path) -> dict:
  """The configuration of the run in `workdir`.

  Settings of its system that have been renamed since have their new names.

  Raises:
    ValueError: if the file is damaged.
  """
  config = stored.read_summed(workdir / CONFIG)
  named = isinstance(config.get('system'), str)
  if named and isinstance(config.get('model'), dict):
    config['model'] = systems.renamed.current(config['system'], config['model'])
  return config


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
):
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
  import orbax.checkpoint as ocp  # takes a third of a second
  from orbax.checkpoint.checkpoint_managers import preservation_policy

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
  import orbax.checkpoint as ocp

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
  import orbax.checkpoint as ocp

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
  if not isinstance(expected, dict):
    expected = {}
  damaged = sorted(
    k for k in {*expected, *got} if expected.get(k) != got.get(k)
  )
  if damaged:
    raise ValueError(
      f'The checkpoint of step {step} in {saved.directory} is damaged: '
      f'{len(damaged)} of {len(got)} arrays differ from what was saved, '
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
