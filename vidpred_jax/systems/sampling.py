"""Draws many futures of a batch of clips from a stochastic system.

The samples of a clip depend on the clip's key alone. They do not depend on the
other clips of the batch, on the number of samples, on how many are drawn at
once, or on the devices. One of a hundred samples equals, up to rounding, a
prediction by itself.

`draw` does not distribute over devices. `evaluate.scoring` divides the clips,
and each device draws all samples of its clips.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def draw(
  function: Callable,
  variables,
  context: jax.Array,
  keys: jax.Array,
  count: int,
  at_once: int | None = None,
):
  """Draws S futures of each clip; a pure function, compiled by the caller.

  Args:
    function: a system's `predict` or `diagnostics`.
    variables: its variables.
    context: [B, K, H, W, C].
    keys: [B], one for each clip; its future s is drawn with `fold_in(key, s)`.
    count: S, futures of each clip.
    at_once: the largest number of futures of a clip that are drawn together;
      groups are drawn one after another. None: all together.

  Returns:
    The result of `function` with a leading axis S in every array: frames are
    [S, B, N, H, W, C].

  Raises:
    ValueError: if `count` or `at_once` is below 1.
  """
  if count < 1 or (at_once is not None and at_once < 1):
    raise ValueError(
      f'Got {count} samples, {at_once} at once; expected 1 or more.'
    )

  def clip(context, key):
    out = function(variables, context[None], key)
    return jax.tree.map(lambda x: x[0], out)

  def future(s):
    of_future = jax.vmap(jax.random.fold_in, (0, None))(keys, s)
    return _each(clip, context, of_future)

  # Groups of one size, so that there is one program.
  groups = -(-count // (at_once or count))
  size = -(-count // groups)
  numbers = jnp.arange(groups * size).reshape(groups, size)
  out = jax.lax.map(lambda some: _each(future, some), numbers)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], out)


def _each(function, *arrays):
  """`vmap`, except for a single element, so that `lax.cond` still skips work.

  (Under `vmap` both branches of a condition are computed.)
  """
  if len(arrays[0]) > 1:
    return jax.vmap(function)(*arrays)
  out = function(*(x[0] for x in arrays))
  return jax.tree.map(lambda x: x[None], out)
