"""States of training runs: Orbax checkpoints with a sum for each leaf."""

import hashlib
import json
import os
import pathlib

import jax
import jax.numpy as jnp
from jax import lax

_STEP = '/step'  # beside the sums of leaves, whose names begin otherwise


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
    pathlib.Path(os.path.realpath(workdir)) / 'checkpoints',
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
        sums=ocp.args.JsonSave({**fingerprints(state._asdict()), _STEP: step}),
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
    step: number of the step.
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
  # Older ones do not say it.
  if (said := expected.pop(_STEP, step)) != step:
    raise ValueError(
      f'The checkpoint of step {step} in {saved.directory} is that of step '
      f'{said}, copied or renamed. Remove that folder to use an older one.'
    )
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
