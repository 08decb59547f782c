"""Pictures together: side by side, in labelled grids, on disk."""

import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidpred_jax import atomic
from vidpred_jax.picture.colours import (
  BACKGROUND,
  FONT_SIZE,
  TEXT,
  block_bars,
  colour_wheel,
  flow_to_rgb,
  heatmap,
  largest_magnitude,
  to_rgb,
)

_WHITE_ERROR = 0.25  # a quarter of the range from black to white
_GAP = 6
_SIDE = 160  # smaller images are enlarged to at least this
_BAR = FONT_SIZE + 9  # height of a line of text


def hstack(panels: Sequence[np.ndarray]) -> np.ndarray:
  """Pictures side by side without gaps or text; smaller ones are padded below.

  Both sides are padded to even numbers, as most video codecs need.

  Args:
    panels: images `[H, W, C]` of any sizes.

  Returns:
    uint8 `[max H, sum W, 3]`.
  """
  panels = [to_rgb(p) for p in panels]
  height = max(p.shape[0] for p in panels)
  width = sum(p.shape[1] for p in panels)
  canvas = empty(height + height % 2, width + width % 2)
  x = 0
  for panel in panels:
    canvas[: panel.shape[0], x : x + panel.shape[1]] = panel
    x += panel.shape[1]
  return canvas


def grid(
  rows: Sequence[Sequence[np.ndarray | None]],
  *,
  column_titles: Sequence[str] = (),
  row_labels: Sequence[str] = (),
  title: str = '',
  min_side: int = _SIDE,
) -> np.ndarray:
  """A table of pictures with titles above the columns and labels at the left.

  Args:
    rows: images `[H, W, C]`, or None for an empty cell. Sizes may differ: an
      image smaller than `min_side` on its longer side is enlarged by a whole
      factor (pixels stay square), then centred in its cell.
    column_titles: one for each column, or none.
    row_labels: one for each row, or none; lines are split at newlines.
    title: a line above everything.
    min_side: least length of the longer side of an image, in pixels.

  Returns:
    uint8 `[H, W, 3]`, both sides even.

  Raises:
    ValueError: if there is no image, or titles do not match the rows.
  """
  columns = max((len(r) for r in rows), default=0)
  cells = [
    [None if c is None else _enlarge(to_rgb(c), min_side) for c in row]
    + [None] * (columns - len(row))
    for row in rows
  ]
  shown = [c for row in cells for c in row if c is not None]
  if not shown:
    raise ValueError('A grid needs at least one image, got none.')
  for name, given, expected in (
    ('column_titles', column_titles, columns),
    ('row_labels', row_labels, len(rows)),
  ):
    if given and len(given) != expected:
      raise ValueError(f'Expected {expected} {name}, got {len(given)}.')
  widths = [
    max(
      [c.shape[1] for c in column if c is not None]
      + [_text_width(t) for t in [*column_titles[i : i + 1]]]
      + [1]
    )
    for i, column in enumerate(zip(*cells))
  ]
  heights = [
    max([c.shape[0] for c in row if c is not None] + [1]) for row in cells
  ]
  left = _GAP + max(
    [_text_width(line) + _GAP for t in row_labels for line in t.split('\n')],
    default=0,
  )
  top = _GAP + _BAR * (bool(title) + bool(column_titles))
  width = left + sum(widths) + _GAP * columns
  width = max(width, _text_width(title) + 2 * _GAP)
  height = top + sum(heights) + _GAP * len(rows)
  canvas = empty(height + height % 2, width + width % 2)
  y = top
  for row, row_height in zip(cells, heights):
    x = left
    for cell, column_width in zip(row, widths):
      if cell is not None:
        dy = y + (row_height - cell.shape[0]) // 2
        dx = x + (column_width - cell.shape[1]) // 2
        canvas[dy : dy + cell.shape[0], dx : dx + cell.shape[1]] = cell
      x += column_width + _GAP
    y += row_height + _GAP
  image = Image.fromarray(canvas)
  draw = ImageDraw.Draw(image)
  if title:
    draw.text((_GAP, 4), title, TEXT, _font())
  x = left
  for text, column_width in zip(column_titles, widths):
    draw.text(
      (x + column_width / 2, top - _BAR + 2), text, TEXT, _font(), anchor='ma'
    )
    x += column_width + _GAP
  y = top
  for text, row_height in zip(row_labels, heights):
    draw.text((_GAP, y + row_height / 2), text, TEXT, _font(), anchor='lm')
    y += row_height + _GAP
  return np.asarray(image)


def demo_frames(
  context: np.ndarray,
  prediction: np.ndarray,
  target: np.ndarray | None = None,
  *,
  flow: np.ndarray | None = None,
  blocks: np.ndarray | None = None,
  title: str = '',
  between: bool = False,
) -> list[np.ndarray]:
  """The frames of a film: context | prediction | truth | flow | blocks.

  Panels whose argument is None are left out. The context panel shows the
  newest context frame.

  Args:
    context: `[Tc, H, W, C]`, the frames the model saw.
    prediction: `[N, H, W, C]`.
    target: `[N, H, W, C]`, the true frames.
    flow: `[N, H, W, 2]`, in pixels. The longest vector has full saturation, so
      colours mean the same in all frames.
    blocks: `[N, K]`, 1 for each block used.
    title: a line above the panels.
    between: whether the predicted frames lie in the middle of the context; then
      the two frames around them are shown.

  Returns:
    N images uint8 `[H', W', 3]` of one size, both sides even.

  Raises:
    ValueError: if the numbers of frames differ.
  """
  frames = []
  for n in range(len(prediction)):
    titles, panels = _panels(
      context, prediction, target, flow, blocks, None, between, n
    )
    frames.append(grid([panels], column_titles=titles, title=title or ' '))
  height = max((f.shape[0] for f in frames), default=0)
  width = max((f.shape[1] for f in frames), default=0)
  padded = []
  for frame in frames:
    canvas = empty(height, width)
    canvas[: frame.shape[0], : frame.shape[1]] = frame
    padded.append(canvas)
  return padded


def demo_grid(
  clips: Sequence[Mapping],
  *,
  steps: Sequence[int] = (0,),
) -> np.ndarray:
  """A still of several clips, one row for each clip and step.

  Args:
    clips: for each the arguments of `demo_frames` by name: `context`,
      `prediction` and, where there are some, `target`, `flow`, `blocks`,
      `title`, `between`. All clips have the same ones. There may be
      `simple`, a name and the `[N, H, W, C]` of another prediction, and
      `numbers`, N texts that go to the labels of the rows.
    steps: which target frames to show, from 0; negative ones count from the
      last.

  Returns:
    uint8 `[H, W, 3]`. With a target there is a column of errors, the mean over
    the channels; below flow there is the key to its colours.
  """
  rows, labels, titles = [], [], ()
  flows = [clip['flow'] for clip in clips if clip.get('flow') is not None]
  scale = max(
    [largest_magnitude(np.asarray(flow)) for flow in flows], default=None
  )
  for clip in clips:
    for step in steps:
      n = range(len(clip['prediction']))[step]
      panel_titles, panels = _panels(
        clip['context'],
        clip['prediction'],
        clip.get('target'),
        clip.get('flow'),
        clip.get('blocks'),
        scale,
        clip.get('between', False),
        n,
      )
      panel_titles = [t.split(',')[0].split(' t+')[0] for t in panel_titles]
      others = _comparison(clip, n)
      after = panel_titles.index('prediction') + 1 + ('truth' in panel_titles)
      panel_titles[after:after] = others
      panels[after:after] = others.values()
      if titles and panel_titles != titles:
        raise ValueError(
          f'Clips show different panels: {panel_titles}, {titles}.'
        )
      titles = panel_titles
      rows.append(panels)
      number = clip['numbers'][n] if 'numbers' in clip else ''
      lines = (clip.get('title'), f't+{n + 1}', number)
      labels.append('\n'.join(t for t in lines if t))
  if flows:
    key: list[np.ndarray | None] = [None] * len(titles)
    key[titles.index('flow')] = colour_wheel(_SIDE // 2)
    rows.append(key)
    labels.append(f'rim: {scale:.1f} px')
  return grid(rows, column_titles=titles, row_labels=labels)


def _comparison(clip: Mapping, n: int) -> dict[str, np.ndarray]:
  """{title: image}: the error of frame n, and another prediction of it."""
  panels = {}
  if clip.get('target') is not None:
    shown, truth = (to_rgb(clip[name][n]) for name in ('prediction', 'target'))
    error = np.abs(np.subtract(shown, truth, dtype=np.float64)).mean(-1) / 255
    panels[f'error (white {_WHITE_ERROR:g})'] = heatmap(error, _WHITE_ERROR)
  if 'simple' in clip:
    name, frames = clip['simple']
    panels[name] = frames[n]
  return panels


def _panels(context, prediction, target, flow, blocks, scale, between, n):
  """Titles and images of frame n of a clip."""
  for name, given in (('target', target), ('flow', flow), ('blocks', blocks)):
    if given is not None and len(given) != len(prediction):
      raise ValueError(
        f'{name} has {len(given)} frames, the prediction {len(prediction)}.'
      )
  titles = ['before', 'after'] if between else ['context t']
  middle = len(context) // 2
  panels = context[middle - 1 : middle + 1] if between else context[-1:]
  panels = list(panels)
  titles.append(f'prediction t+{n + 1}')
  panels.append(prediction[n])
  if target is not None:
    titles.append(f'truth t+{n + 1}')
    panels.append(target[n])
  if flow is not None:
    if scale is None:
      scale = largest_magnitude(np.asarray(flow))
    titles.append(f'flow, longest {scale:5.1f} px')
    panels.append(flow_to_rgb(flow[n], scale))
  if blocks is not None:
    titles.append('blocks')
    height, width = prediction[n].shape[:2]
    factor = _factor(height, width, _SIDE)
    panels.append(block_bars(blocks[n], height * factor, width * factor))
  return titles, panels


def save_png(path: str | pathlib.Path, image: np.ndarray) -> None:
  """Writes an image `[H, W, C]` as a PNG, making its folder if needed.

  An existing picture stays until the new one is complete.

  Args:
    path: of the file.
    image: `[H, W, C]`, see the module.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(np.ascontiguousarray(to_rgb(image)))
  with atomic.replacing(path) as partial:
    image.save(partial, format='PNG')


def empty(height: int, width: int) -> np.ndarray:
  """An empty picture, uint8 `[height, width, 3]`.

  Args:
    height: in pixels.
    width: in pixels.

  Returns:
    The picture.
  """
  return np.full((height, width, 3), BACKGROUND, np.uint8)


def _font():
  return ImageFont.load_default(FONT_SIZE)


def _text_width(text: str) -> int:
  # Counting digits as equally wide keeps the frames of a film equally wide.
  return int(np.ceil(_font().getlength(re.sub('[0-9 ]', '0', text))))


def _factor(height: int, width: int, min_side: int) -> int:
  return max(1, -(-min_side // max(height, width)))


def _enlarge(image: np.ndarray, min_side: int) -> np.ndarray:
  height, width = image.shape[:2]
  factor = _factor(height, width, min_side)
  return image.repeat(factor, 0).repeat(factor, 1)
