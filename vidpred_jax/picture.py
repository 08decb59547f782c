"""Visualisation: flow as colours, bars of used blocks, labelled grids.

Functions take NumPy arrays of one clip (no batch axis) and return uint8 RGB
images `[H, W, 3]`. Images may be uint8 or float in [0, 1], with 1 or 3
channels. Flow is `[H, W, 2]`, (dx, dy) in pixels, x to the right and y down.

`demo_frames` makes the frames of a film, with the panels context | prediction |
truth | flow | blocks. `demo_grid` makes a still with a row for each clip:

  frames = picture.demo_frames(context, prediction, target, flow=flow)
  picture.save_png('demo.png', picture.demo_grid([clip_a, clip_b]))
"""

import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidpred_jax import atomic

_BACKGROUND = (24, 26, 30)
_TEXT = (235, 235, 235)
_FAINT = (84, 88, 96)
_USED = (255, 176, 59)
_GAP = 6
_FONT_SIZE = 15
_BAR = _FONT_SIZE + 9  # height of a line of text


def to_rgb(image: np.ndarray) -> np.ndarray:
  """Converts an image to uint8 RGB.

  Args:
    image: `[..., H, W, C]` with C 1 or 3, uint8, or float in [0, 1] (clipped).

  Returns:
    uint8 `[..., H, W, 3]`.

  Raises:
    ValueError: if the array is not an image.
  """
  image = np.asarray(image)
  if image.ndim < 3 or image.shape[-1] not in (1, 3):
    raise ValueError(
      f'An image is [H, W, 1] or [H, W, 3], got shape {image.shape}.'
    )
  if image.dtype != np.uint8:
    if not np.issubdtype(image.dtype, np.floating):
      raise ValueError(f'An image is uint8 or float, got {image.dtype}.')
    image = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
  return np.broadcast_to(image, image.shape[:-1] + (3,))


def _colour_wheel() -> np.ndarray:
  """The 55 colours `[55, 3]` of Baker et al.'s wheel, red first."""
  wheel = []
  # From one pure colour to the next: a channel rises, or one falls.
  for steps, start, channel, sign in (
    (15, (255, 0, 0), 1, 1),  # red to yellow
    (6, (255, 255, 0), 0, -1),  # to green
    (4, (0, 255, 0), 2, 1),  # to cyan
    (11, (0, 255, 255), 1, -1),  # to blue
    (13, (0, 0, 255), 0, 1),  # to magenta
    (6, (255, 0, 255), 2, -1),  # back to red
  ):
    for i in range(steps):
      colour = list(start)
      colour[channel] += sign * (255 * i // steps)
      wheel.append(colour)
  return np.array(wheel, np.float64)


def flow_to_rgb(
  flow: np.ndarray, max_magnitude: float | None = None
) -> np.ndarray:
  """Optical flow as colours, with the colour wheel of the Middlebury benchmark.

  Hue is the direction (right red, down yellow, left cyan, up violet);
  saturation is the length, so no motion is white. Vectors longer than
  `max_magnitude` are darkened; vectors that are not finite are black.

  Args:
    flow: `[..., H, W, 2]`, (dx, dy) in pixels.
    max_magnitude: length in pixels of full saturation; the longest finite
      vector by default.

  Returns:
    uint8 `[..., H, W, 3]`.

  References:
    Baker et al., A Database and Evaluation Methodology for Optical Flow, 2011.
  """
  flow = np.asarray(flow, np.float64)
  if flow.ndim < 3 or flow.shape[-1] != 2:
    raise ValueError(f'Flow is [H, W, 2], got shape {flow.shape}.')
  finite = np.isfinite(flow).all(-1, keepdims=True)
  flow = np.where(finite, flow, 0)
  length = np.hypot(flow[..., 0], flow[..., 1])
  if max_magnitude is None:
    max_magnitude = largest_magnitude(flow)
  length = length / max(max_magnitude, 1e-9)
  wheel = _colour_wheel() / 255
  turn = (np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi + 1) / 2
  position = turn * (len(wheel) - 1)
  low = np.floor(position).astype(int)
  fraction = (position - low)[..., None]
  high = (low + 1) % len(wheel)
  colour = (1 - fraction) * wheel[low] + fraction * wheel[high]
  length = length[..., None]
  colour = np.where(
    length <= 1 + 1e-9, 1 - length * (1 - colour), 0.75 * colour
  )
  return np.floor(255 * np.where(finite, colour, 0)).astype(np.uint8)


def largest_magnitude(flow: np.ndarray) -> float:
  """The length of the longest finite vector; 0 without any.

  Args:
    flow: `[..., 2]`, in pixels.

  Returns:
    In pixels.
  """
  length = np.hypot(flow[..., 0], flow[..., 1])
  return float(np.max(length, where=np.isfinite(length), initial=0))


def block_bars(blocks: np.ndarray, height: int, width: int) -> np.ndarray:
  """The use of blocks as a row of bars numbered from 1.

  Args:
    blocks: `[K]` in [0, 1]: 1 for a used block, 0 for a skipped one; values in
      between are the fraction of runs that used it.
    height: of the picture.
    width: of the picture.

  Returns:
    uint8 `[height, width, 3]`: a bar is filled up to its value.
  """
  blocks = np.clip(np.asarray(blocks, np.float64).reshape(-1), 0, 1)
  image = Image.new('RGB', (width, height), _BACKGROUND)
  draw = ImageDraw.Draw(image)
  label = f'{blocks.sum():.3g} of {len(blocks)} used'
  size = max(_FONT_SIZE, height // 24)
  font, line = ImageFont.load_default(size), size + 9
  lines = line if height > 3 * line else 0
  top, bottom = lines + 2, height - lines - 3
  if lines:
    draw.text((width / 2, 4), label, _TEXT, font, anchor='ma')
  slot = width / max(len(blocks), 1)
  for i, share in enumerate(blocks):
    left, right = i * slot + slot * 0.12, (i + 1) * slot - slot * 0.12
    draw.rectangle((left, top, right, bottom), outline=_FAINT)
    if share > 0:
      level = bottom - share * (bottom - top)
      draw.rectangle((left, level, right, bottom), fill=_USED)
    if lines and slot >= 12:
      draw.text(
        (left / 2 + right / 2, height - line + 4),
        str(i + 1),
        _TEXT if share > 0 else _FAINT,
        font,
        anchor='ma',
      )
  return np.asarray(image)


def heatmap(values: np.ndarray, largest: float) -> np.ndarray:
  """A map of numbers as colours: 0 is black, then red, yellow and white.

  Args:
    values: `[H, W]`.
    largest: the value that is white; larger values are white too.

  Returns:
    uint8 `[H, W, 3]`.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2 or largest <= 0:
    raise ValueError(
      f'A map is [H, W] with a positive number for white, got shape '
      f'{values.shape} and {largest}.'
    )
  part = 3 * np.clip(values / largest, 0, 1)[..., None] - np.arange(3)
  return np.rint(255 * np.clip(part, 0, 1)).astype(np.uint8)


def histogram(
  shares: Sequence[float], *, height: int = 200, width: int = 400
) -> np.ndarray:
  """A rank histogram: a bar for each rank, and a line at the uniform share.

  Args:
    shares: one for each rank, summing to 1.
    height: of the picture.
    width: of the picture.

  Returns:
    uint8 `[height, width, 3]`.
  """
  image = Image.new('RGB', (width, height), _BACKGROUND)
  draw = ImageDraw.Draw(image)
  flat, slot = 1 / len(shares), width / len(shares)
  unit = (height - 4) / max(2 * flat, *shares)
  for i, share in enumerate(shares):
    left = i * slot + slot * 0.06
    draw.rectangle(
      (left, height - 1 - share * unit, left + slot * 0.88, height - 1),
      fill=_USED,
    )
  level = height - 1 - flat * unit
  draw.line((0, level, width, level), fill=_TEXT)
  return np.asarray(image)


def hstack(panels: Sequence[np.ndarray], *, even: bool = True) -> np.ndarray:
  """Pictures side by side without gaps or text; smaller ones are padded below.

  Args:
    panels: images `[H, W, C]` of any sizes.
    even: also pad both sides to even numbers, as most video codecs need.

  Returns:
    uint8 `[max H, sum W, 3]`.
  """
  panels = [to_rgb(p) for p in panels]
  height = max(p.shape[0] for p in panels)
  width = sum(p.shape[1] for p in panels)
  canvas = _canvas(height + even * (height % 2), width + even * (width % 2))
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
  min_side: int = 160,
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
  canvas = _canvas(height + height % 2, width + width % 2)
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
    draw.text((_GAP, 4), title, _TEXT, _font())
  x = left
  for text, column_width in zip(column_titles, widths):
    draw.text(
      (x + column_width / 2, top - _BAR + 2), text, _TEXT, _font(), anchor='ma'
    )
    x += column_width + _GAP
  y = top
  for text, row_height in zip(row_labels, heights):
    draw.text((_GAP, y + row_height / 2), text, _TEXT, _font(), anchor='lm')
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
  captions: Sequence[str] = (),
  max_flow: float | None = None,
  between: bool = False,
  min_side: int = 160,
) -> list[np.ndarray]:
  """The frames of a film: context | prediction | truth | flow | blocks.

  Panels whose argument is None are left out. The context panel shows the
  newest context frame.

  Args:
    context: `[Tc, H, W, C]`, the frames the model saw.
    prediction: `[N, H, W, C]`.
    target: `[N, H, W, C]`, the true frames.
    flow: `[N, H, W, 2]`, in pixels.
    blocks: `[N, K]`, 1 for each block used.
    title: a line above the panels.
    captions: N texts, each at the left of its frame's title line, for instance
      'PSNR 27.1'.
    max_flow: length of full saturation in pixels; by default the longest vector
      of the whole clip, so that colours mean the same in all its frames.
    between: whether the predicted frames lie between the context frames; then
      the oldest context frame is shown too.
    min_side: smaller images are enlarged to at least this, see `grid`.

  Returns:
    N images uint8 `[H', W', 3]` of one size, both sides even.

  Raises:
    ValueError: if the numbers of frames differ.
  """
  if captions and len(captions) != len(prediction):
    raise ValueError(f'Got {len(captions)} captions, {len(prediction)} frames.')
  frames = []
  for n in range(len(prediction)):
    titles, panels = _panels(
      context, prediction, target, flow, blocks, max_flow, between, min_side, n
    )
    line = '   '.join(t for t in (title, *captions[n : n + 1]) if t)
    frames.append(
      grid(
        [panels],
        column_titles=titles,
        title=line or ' ',
        min_side=min_side,
      )
    )
  height = max((f.shape[0] for f in frames), default=0)
  width = max((f.shape[1] for f in frames), default=0)
  padded = []
  for frame in frames:
    canvas = _canvas(height, width)
    canvas[: frame.shape[0], : frame.shape[1]] = frame
    padded.append(canvas)
  return padded


def demo_grid(
  clips: Sequence[Mapping],
  *,
  steps: Sequence[int] = (0,),
  title: str = '',
  min_side: int = 160,
) -> np.ndarray:
  """A still of several clips, one row for each clip and step.

  Args:
    clips: for each the arguments of `demo_frames` by name: `context`,
      `prediction` and, where there are some, `target`, `flow`, `blocks`,
      `title`, `max_flow`, `between`. All clips have the same ones.
    steps: which target frames to show, from 0; negative ones count from the
      last.
    title: a line above the grid.
    min_side: smaller images are enlarged to at least this, see `grid`.

  Returns:
    uint8 `[H, W, 3]`.
  """
  rows, labels, titles = [], [], ()
  for clip in clips:
    for step in steps:
      n = range(len(clip['prediction']))[step]
      panel_titles, panels = _panels(
        clip['context'],
        clip['prediction'],
        clip.get('target'),
        clip.get('flow'),
        clip.get('blocks'),
        clip.get('max_flow'),
        clip.get('between', False),
        min_side,
        n,
      )
      panel_titles = [t.split(',')[0].split(' t+')[0] for t in panel_titles]
      if titles and panel_titles != titles:
        raise ValueError(
          f'Clips show different panels: {panel_titles}, {titles}.'
        )
      titles = panel_titles
      rows.append(panels)
      labels.append(
        '\n'.join(t for t in (clip.get('title'), f't+{n + 1}') if t)
      )
  return grid(
    rows,
    column_titles=titles,
    row_labels=labels,
    title=title,
    min_side=min_side,
  )


def _panels(
  context, prediction, target, flow, blocks, max_flow, between, min_side, n
):
  """Titles and images of frame n of a clip."""
  for name, given in (('target', target), ('flow', flow), ('blocks', blocks)):
    if given is not None and len(given) != len(prediction):
      raise ValueError(
        f'{name} has {len(given)} frames, the prediction {len(prediction)}.'
      )
  titles = ['before', 'after'] if between else ['context t']
  panels = [context[0], context[-1]] if between else [context[-1]]
  titles.append(f'prediction t+{n + 1}')
  panels.append(prediction[n])
  if target is not None:
    titles.append(f'truth t+{n + 1}')
    panels.append(target[n])
  if flow is not None:
    scale = (
      largest_magnitude(np.asarray(flow)) if max_flow is None else max_flow
    )
    titles.append(f'flow, longest {scale:5.1f} px')
    panels.append(flow_to_rgb(flow[n], scale))
  if blocks is not None:
    titles.append('blocks')
    height, width = prediction[n].shape[:2]
    factor = _factor(height, width, min_side)
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


def _canvas(height: int, width: int) -> np.ndarray:
  return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _font():
  return ImageFont.load_default(_FONT_SIZE)


def _text_width(text: str) -> int:
  # Counting digits as equally wide keeps the frames of a film equally wide.
  return int(np.ceil(_font().getlength(re.sub('[0-9 ]', '0', text))))


def _factor(height: int, width: int, min_side: int) -> int:
  return max(1, -(-min_side // max(height, width)))


def _enlarge(image: np.ndarray, min_side: int) -> np.ndarray:
  height, width = image.shape[:2]
  factor = _factor(height, width, min_side)
  return image.repeat(factor, 0).repeat(factor, 1)
