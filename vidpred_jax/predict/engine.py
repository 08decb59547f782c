"""Runs a system on frames of any size: padded frames or overlapping tiles.

A frame that fits one tile is padded to `system.multiple` and stays on the
device. A larger frame is cut into overlapping tiles. The tiles run one after
the other, which bounds the memory, and their results are blended.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import runtime
from vidpred_jax.predict import tiling
from vidpred_jax.systems import base


class Prediction(NamedTuple):
  """A predicted frame.

  Attributes:
    state: the frame as floats, for use as context.
    frame: the frame to show, in the units of `system.data`.
    diagnostics: `{name: array}`, see `System.diagnostics`; may be empty.
  """

  state: Any
  frame: Any
  diagnostics: dict[str, Any]


class Engine:
  """A system with its variables on the device, compiled once for each size."""

  def __init__(
    self, system: base.System, variables, *, max_pixels, tile, overlap
  ):
    """Puts the variables on the device; arguments are those of `Predictor`."""
    self.system = system
    self.variables = jax.device_put(variables)
    self.plan = functools.partial(
      tiling.plan,
      multiple=system.multiple,
      max_pixels=max_pixels,
      tile=tile,
      overlap=overlap,
    )
    self._overlap = overlap
    jit = functools.partial(runtime.jit, cpu_options=system.cpu_options)
    self._step = jit(
      functools.partial(_step, system), static_argnames='with_diagnostics'
    )
    self._init_carry = jit(functools.partial(_init_carry, system))
    self._recurrent_step = jit(functools.partial(_recurrent_step, system))

  def to_device(self, frame: np.ndarray, tiles: tiling.Tiles):
    """A frame as `predict` takes it: padded on the device if it is one tile."""
    state = self.system.data.normalise(frame)
    return jnp.asarray(tiling.pad(state, tiles)) if tiles.single else state

  def predict(
    self, states, size, tiles: tiling.Tiles, key, targets, with_diagnostics
  ) -> list[Prediction]:
    """Predicts frames by one call of the system.

    Args:
      states: the context, from `to_device` or the `state` of predictions.
      size: (H, W) of the frames.
      tiles: from `plan`.
      key: a random key, or keys [S] of S futures.
      targets: which of the system's targets. There is one compiled program for
        each number of them.
      with_diagnostics: whether to give diagnostics.

    Returns:
      The predictions at these targets, for `shown`. The device may still be
      computing them.
    """
    self.check_channels(states[0])
    targets = np.array(targets, np.int32)

    def run(number, placement, covered):
      del number
      cut = tuple(_cut(state, placement, tiles) for state in states)
      predictions = self._step(
        self.variables,
        cut,
        covered,
        key,
        targets,
        with_diagnostics=with_diagnostics,
      )
      if placement is None:
        return predictions
      return [(x.state, x.diagnostics) for x in predictions]

    results = self._blended(size, tiles, run)
    if tiles.single:
      return results
    denormalise = self.system.data.denormalise
    return [Prediction(x, denormalise(x), detail) for x, detail in results]

  def init_carry(self, context, size, tiles: tiling.Tiles, key) -> list:
    """The carry of a recurrent system after the context, for each tile."""
    self.check_channels(context[0])
    return [
      self._init_carry(
        self.variables,
        tuple(_cut(state, placement, tiles) for state in context),
        covered,
        key,
      )
      for placement, covered in self._pieces(size, tiles)
    ]

  def recurrent_step(
    self, carries: list, size, tiles: tiling.Tiles, key, n: int
  ):
    """The carries after frame n, and that frame, for `shown`."""
    carries = list(carries)

    def run(number, placement, covered):
      del placement, covered
      carries[number], part = self._recurrent_step(
        self.variables, carries[number], key, np.int32(n)
      )
      return part

    frame = self._blended(size, tiles, run)
    return carries, Prediction(frame, self.system.data.denormalise(frame), {})

  def _pieces(self, size, tiles: tiling.Tiles):
    """Yields (placement, its height and width); None is the whole frame."""
    if tiles.single:
      yield None, np.array(size, np.int32)
      return
    for placement in tiling.placements(size, tiles, self._overlap):
      yield placement, np.array(placement.weight.shape[:2], np.int32)

  def _blended(self, size, tiles: tiling.Tiles, run):
    """Calls `run(number, placement, covered)` for each tile and blends.

    With a single tile the result is that of `run`, still padded.
    """
    sums: list = []
    tree = None
    for number, (placement, covered) in enumerate(self._pieces(size, tiles)):
      part = run(number, placement, covered)
      if placement is None:
        return part
      leaves, tree = jax.tree.flatten(part)
      sums = [
        tiling.add(total, leaf, placement, tiles, size)
        for total, leaf in zip(sums or [None] * len(leaves), leaves)
      ]
      runtime.trim(after=sums)
    return jax.tree.unflatten(tree, sums)

  def check_channels(self, frame) -> None:
    """Raises ValueError unless a frame [..., C] has the system's channels."""
    channels, expected = frame.shape[-1], self.system.channels
    if channels != expected:
      raise ValueError(
        f'The frames have {channels} channels, this system takes {expected}. '
        'Channels come last; drop an alpha channel, or repeat a grey one.'
      )


def shown(prediction: Prediction, size, tiles: tiling.Tiles):
  """Waits for a prediction.

  Args:
    prediction: of an `Engine`.
    size: (H, W) of the frames.
    tiles: those it was made with.

  Returns:
    `(frame, diagnostics)` as NumPy arrays, cropped to `size`.
  """
  frame = np.asarray(prediction.frame)[..., : size[0], : size[1], :]
  diagnostics = prediction.diagnostics.items()
  return frame, {k: _crop(v, tiles, size) for k, v in diagnostics}


def fold_in(key, number: int):
  """`jax.random.fold_in` of one key or of keys [S]."""
  fold_in = jax.random.fold_in
  return (
    jax.vmap(fold_in, (0, None))(key, number)
    if key.ndim
    else fold_in(key, number)
  )


def _cut(state, placement: tiling.Placement | None, tiles: tiling.Tiles):
  """The part of a frame that a tile sees, on the device."""
  if placement is None:
    return state
  return jnp.asarray(tiling.pad(state[placement.place], tiles))


def _step(system, variables, context, size, key, targets, *, with_diagnostics):
  """Calls the system on one padded frame or tile; to be compiled.

  Args:
    system: the system.
    variables: its variables.
    context: tuple of frames `[H', W', C]`, float [0, 1] (fields: normalised),
      of which only the first `size` rows and columns are read.
    size: int32 `[2]`, (H, W).
    key: a random key, or keys [S] of S futures. With S keys the predicted
      frames have a leading axis S, as has `context` unless all futures share
      it.
    targets: int32 `[M]`, which of the system's targets to return.
    with_diagnostics: whether to give diagnostics.

  Returns:
    A `Prediction` for each of these targets, padded.
  """
  if key.ndim:
    one = functools.partial(_step, system, with_diagnostics=with_diagnostics)
    axes = tuple(0 if frame.ndim == 4 else None for frame in context)
    one = jax.vmap(one, (None, axes, None, 0, None))
    return one(variables, context, size, key, targets)
  context = _filled(context, size)
  if system.select is not None:
    result = system.select(variables, context, key, targets)
  else:
    result = system.predict(variables, context, key), {}
    if with_diagnostics:
      result = system.diagnostics(variables, context, key)
    result = jax.tree.map(lambda x: x[:, targets], result)
  frames, diagnostics = result
  shots = []
  for n in range(len(targets)):
    state = frames[0, n].astype(jnp.float32)
    shown = {k: v[0, n] for k, v in diagnostics.items() if with_diagnostics}
    shots.append(Prediction(state, system.data.denormalise(state), shown))
  return shots


def _filled(context, size):
  """Stacks frames [H', W', C] as a batch of 1, edges extended over `size`."""
  context = jnp.stack(context)
  rows = jnp.minimum(jnp.arange(context.shape[1]), size[0] - 1)
  columns = jnp.minimum(jnp.arange(context.shape[2]), size[1] - 1)
  return context[:, rows][:, :, columns][None]


def _init_carry(system, variables, context, size, key):
  """The carry after the context; with keys [S] it has a leading axis S."""
  carry = system.recurrence.init_carry(variables, _filled(context, size))
  shape = key.shape
  return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + x.shape), carry)


def _recurrent_step(system, variables, carry, key, n):
  """The carry after the next frame, and the frame [(S,) H', W', C]."""
  if key.ndim:
    one = functools.partial(_recurrent_step, system)
    return jax.vmap(one, (None, 0, 0, None))(variables, carry, key, n)
  carry, frame = system.recurrence.step(variables, carry, key, n)
  return carry, frame[0].astype(jnp.float32)


def _crop(array, tiles: tiling.Tiles, size):
  array = np.asarray(array)
  if array.shape[:2] == (tiles.height, tiles.width):
    return array[: size[0], : size[1]]
  return array
