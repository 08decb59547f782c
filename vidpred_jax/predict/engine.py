"""Calls of a system on whole frames of any size: padded, or in tiles.

A frame that fits a tile is padded to `system.multiple` and stays on the device;
a larger one is cut into overlapping tiles, one after the other, which bounds
the memory, and what they give is blended.
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
  """A predicted frame: floats to go on from, a frame to show, and details."""

  state: Any
  frame: Any
  details: dict[str, Any]


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
      functools.partial(_step, system), static_argnames=('wanted', 'explain')
    )
    self._watch = jit(functools.partial(_watch, system))
    self._draw = jit(functools.partial(_draw, system))

  def enter(self, frame: np.ndarray, tiles: tiling.Tiles):
    """A frame as `advance` takes it: padded on the device, or whole."""
    state = self.system.data.normalise(frame)
    return jnp.asarray(tiling.pad(state, tiles)) if tiles.single else state

  def advance(
    self, states, size, tiles: tiling.Tiles, key, wanted, explain
  ) -> list[Prediction]:
    """One call of the system.

    Args:
      states: the context, from `enter` or the `state` of predictions.
      size: (H, W) of the frames.
      tiles: from `plan`.
      key: a random key, or keys [S] of S futures.
      wanted: which of the system's targets.
      explain: whether to give details.

    Returns:
      The predictions at the targets `wanted`; frames are cropped to `size`.
    """
    self._check_channels(states)

    def run(number, patch, covered):
      del number
      cut = tuple(_cut(state, patch, tiles) for state in states)
      found = self._step(
        self.variables, cut, covered, key, wanted=wanted, explain=explain
      )
      return found if patch is None else [(x.state, x.details) for x in found]

    found = self._blended(size, tiles, run)
    if not tiles.single:
      shown = self.system.data.denormalise
      return [Prediction(x, shown(x), details) for x, details in found]
    return [
      Prediction(
        x.state,
        np.asarray(x.frame)[..., : size[0], : size[1], :],
        {k: _crop(v, tiles, size) for k, v in x.details.items()},
      )
      for x in found
    ]

  def begin(self, context, size, tiles: tiling.Tiles, key) -> list:
    """What a recurrent system remembers of the context, for each tile."""
    self._check_channels(context)
    return [
      self._watch(
        self.variables,
        tuple(_cut(state, patch, tiles) for state in context),
        covered,
        key,
      )
      for patch, covered in self._pieces(size, tiles)
    ]

  def draw(self, memories: list, size, tiles: tiling.Tiles, key, n: int):
    """The memories after frame n, and that frame [(S,) H, W, C] to show."""
    memories = list(memories)

    def run(number, patch, covered):
      del patch, covered
      memories[number], part = self._draw(
        self.variables, memories[number], key, np.int32(n)
      )
      return part

    frame = self._blended(size, tiles, run)[..., : size[0], : size[1], :]
    return memories, np.asarray(self.system.data.denormalise(frame))

  def _pieces(self, size, tiles: tiling.Tiles):
    """Yields (patch, its height and width); None is the whole frame."""
    if tiles.single:
      yield None, np.array(size, np.int32)
      return
    for patch in tiling.patches(size, tiles, self._overlap):
      yield patch, np.array(patch.weight.shape[:2], np.int32)

  def _blended(self, size, tiles: tiling.Tiles, run):
    """What `run(number, patch, covered)` gives, blended over the tiles.

    Of a single tile it is what `run` gives, padded.
    """
    sums = tree = None
    for number, (patch, covered) in enumerate(self._pieces(size, tiles)):
      part = run(number, patch, covered)
      if patch is None:
        return part
      leaves, tree = jax.tree.flatten(part)
      sums = [
        tiling.add(total, leaf, patch, tiles, size)
        for total, leaf in zip(sums or [None] * len(leaves), leaves)
      ]
      runtime.trim(after=sums)
    return jax.tree.unflatten(tree, sums)

  def _check_channels(self, states) -> None:
    channels, expected = states[0].shape[-1], self.system.channels
    if channels != expected:
      raise ValueError(
        f'The frames have {channels} channels, this system takes {expected}. '
        'Drop an alpha channel, or repeat a grey one.'
      )


def fold_in(key, number: int):
  """`jax.random.fold_in` of one key or of keys [S]."""
  fold_in = jax.random.fold_in
  return (
    jax.vmap(fold_in, (0, None))(key, number)
    if key.ndim
    else fold_in(key, number)
  )


def _cut(state, patch: tiling.Patch | None, tiles: tiling.Tiles):
  """The part of a frame that a tile sees, on the device."""
  if patch is None:
    return state
  return jnp.asarray(tiling.pad(state[patch.place], tiles))


def _step(system, variables, context, size, key, *, wanted, explain):
  """A call of the system on one padded frame or tile, to be compiled.

  Args:
    system: the system.
    variables: its variables.
    context: tuple of frames `[H', W', C]`, float [0, 1] (fields: normalised),
      of which only the first `size` rows and columns are read.
    size: int32 `[2]`, (H, W).
    key: random key; or keys [S] of S futures, each of whose frames has S in
      front, in what is given and in `context` unless all see the same one.
    wanted: which targets to give. Those left out are not computed if the system
      computes targets one by one: the compiler removes them.
    explain: whether to give details.

  Returns:
    A `Prediction` for each one wanted, padded.
  """
  if key.ndim:
    one = functools.partial(_step, system, wanted=wanted, explain=explain)
    axes = tuple(0 if frame.ndim == 4 else None for frame in context)
    return jax.vmap(one, (None, axes, None, 0))(variables, context, size, key)
  context = _filled(context, size)
  if explain:
    frames, details = system.explain(variables, context, key)
  else:
    frames, details = system.predict(variables, context, key), {}
  shots = []
  for n in wanted:
    state = frames[0, n].astype(jnp.float32)
    shown = {k: v[0, n] for k, v in details.items()}
    shots.append(Prediction(state, system.data.denormalise(state), shown))
  return shots


def _filled(context, size):
  """Frames [H', W', C] as [1, K, H', W', C], beyond `size` the last pixels."""
  context = jnp.stack(context)
  rows = jnp.minimum(jnp.arange(context.shape[1]), size[0] - 1)
  columns = jnp.minimum(jnp.arange(context.shape[2]), size[1] - 1)
  return context[:, rows][:, :, columns][None]


def _watch(system, variables, context, size, key):
  """What a system remembers of the context; of keys [S] with S in front."""
  memory = system.recurrence.init_carry(variables, _filled(context, size))
  shape = key.shape
  return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + x.shape), memory)


def _draw(system, variables, memory, key, n):
  """The memory after the next frame, and the frame [(S,) H', W', C]."""
  if key.ndim:
    draw = functools.partial(_draw, system)
    return jax.vmap(draw, (None, 0, 0, None))(variables, memory, key, n)
  memory, frame = system.recurrence.step(variables, memory, key, n)
  return memory, frame[0].astype(jnp.float32)


def _crop(array, tiles: tiling.Tiles, size):
  array = np.asarray(array)
  if array.shape[:2] == (tiles.height, tiles.width):
    return array[: size[0], : size[1]]
  return array
