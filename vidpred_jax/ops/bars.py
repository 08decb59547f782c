"""Bars: black edges of a film that stand still while the picture moves.

A few columns at the side, the bars above and below a wide picture, those beside
an upright one. A flow that is smooth moves them with the picture, and the
picture under them.
"""

import chex
import jax
import jax.numpy as jnp

_STILL = 1 / 255  # mean change of a line of pixels that stands still
_FLAT = 2 / 255  # mean distance from the line's mean colour
_BLACK = 0.1  # colour that a bar has at most
_FADE = 1  # lines beside a bar that resizing has mixed with it
_EDGE = 8 / 255  # difference of a pixel of the picture from the bar beside it
_EDGES = 0.5  # share of the pixels beside a bar that differ so


def fill(frames: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Continues the picture over its bars.

  A bar is made of whole rows or columns at an edge, which are black and do not
  change in time. It ends all at once: most pixels of the line behind it have
  other colours. So a plain dark ground, into which things may move, is none.
  The line next to a bar counts as a part of it, for it may be a mixture.

  Args:
    frames: [B, T, H, W, C] in [0, 1]; they share their bars.

  Returns:
    `(filled, inside)`: the frames, in whose bars each pixel is the nearest one
    of the picture; and where the picture is, [B, H, W, 1], bool. All of it
    where there is no picture between the bars.
  """
  chex.assert_rank(frames, 5)
  edges = jnp.array([0, -1])  # most films have no bars
  possible = _are_bars(frames[:, :, edges], along=3).any()
  possible |= _are_bars(frames[:, :, :, edges], along=2).any()
  shape = frames.shape[0], *frames.shape[2:4], 1
  return jax.lax.cond(
    possible, _fill, lambda frames: (frames, jnp.ones(shape, bool)), frames
  )


def _fill(frames):
  """Fills, whether or not an edge may be a bar."""
  rows = _between(frames, along=3, across=2)
  columns = _between(frames, along=2, across=3)
  frames, row_inside = _continued(frames, rows, across=2)
  frames, column_inside = _continued(frames, columns, across=3)
  inside = row_inside & column_inside
  return frames, inside[:, 0, ..., :1]


def _are_bars(frames, *, along):
  """Whether each line along an axis may belong to a bar, [B, lines]."""
  colour = jnp.mean(frames, along, keepdims=True)
  flat = jnp.mean(jnp.abs(frames - colour), (1, along, 4)) < _FLAT
  black = colour.max((1, along, 4)) < _BLACK
  change = jnp.abs(frames - frames[:, :1])
  still = jnp.mean(change, (along, 4)).max(1) < _STILL
  return flat & black & still


def _between(frames, *, along, across):
  """The first and the last line [B] of the picture across an axis."""
  bar = _are_bars(frames, along=along).astype(jnp.int32)
  size = frames.shape[across]
  before = _width(frames, bar, across)
  behind = _width(jnp.flip(frames, across), bar[:, ::-1], across)
  exists = before + behind < size
  return jnp.where(exists, before, 0), jnp.where(
    exists, size - 1 - behind, size - 1
  )


def _width(frames, bar, across):
  """The lines [B] of the bar at the start of an axis and the one beside it."""
  width = jnp.sum(jnp.cumprod(bar, 1), 1)
  last = frames.shape[across] - 1

  def line(at):
    at = jnp.clip(at, 0, last)
    return jax.vmap(lambda x, i: jnp.take(x, i, across - 1))(frames, at)

  differs = jnp.abs(line(width + _FADE) - line(width - 1)).max(-1) > _EDGE
  ends = jnp.mean(differs, tuple(range(1, differs.ndim))) >= _EDGES
  return jnp.where((width > 0) & ends, width + _FADE, 0)


def _continued(frames, lines, *, across):
  """Repeats the first and the last line [B] of the picture to the edges.

  Returns:
    `(frames, inside)`, of one shape.
  """
  # By comparisons: to gather lines XLA would lay out the frames in another way.
  line = jax.lax.broadcasted_iota(jnp.int32, frames.shape, across)
  first, last = (x.reshape(-1, 1, 1, 1, 1) for x in lines)

  def at(i):
    take = jax.vmap(lambda x, i: jax.lax.dynamic_index_in_dim(x, i, across - 1))
    return take(frames, i.ravel())

  inside = (first <= line) & (line <= last)
  nearest = jnp.where(line < first, at(first), at(last))
  return jnp.where(inside, frames, nearest), inside
