"""Numbers over the steps of a run as small diagrams."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidpred_jax.picture import grids
from vidpred_jax.picture.colours import BACKGROUND, FAINT, TEXT, USED


def curves(
  lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> np.ndarray:
  """Numbers over the steps of a run, a small diagram for each.

  Args:
    lines: `{name: (steps, values)}`; values that are not finite leave gaps.

  Returns:
    uint8 `[H, W, 3]`: three diagrams in a row, each with the name, the last
    value, and the least and greatest one at its axis.

  Raises:
    ValueError: if there is no line.
  """
  if not lines:
    raise ValueError('There is nothing to draw.')
  panels = [_curve(*line) for line in lines.values()]
  rows = [panels[i : i + 3] for i in range(0, len(panels), 3)]
  titles = [
    f'{name}, last {_last_finite(values):.4g}'
    for name, (_, values) in lines.items()
  ]
  # Each row has titles of its own.
  parts = [
    grids.grid([row], column_titles=titles[3 * i : 3 * i + 3])
    for i, row in enumerate(rows)
  ]
  canvas = grids.empty(
    sum(p.shape[0] for p in parts), max(p.shape[1] for p in parts)
  )
  y = 0
  for part in parts:
    canvas[y : y + part.shape[0], : part.shape[1]] = part
    y += part.shape[0]
  return canvas


def _last_finite(values: Sequence[float]) -> float:
  finite = [x for x in values if np.isfinite(x)]
  return finite[-1] if finite else float('nan')


def _curve(steps, values) -> np.ndarray:
  height, width = 160, 320
  image = Image.new('RGB', (width, height), BACKGROUND)
  draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
  draw.rectangle((0, 0, width - 1, height - 1), outline=FAINT)
  steps, values = np.asarray(steps, float), np.asarray(values, float)
  finite = np.isfinite(values)
  if not finite.any():
    return np.asarray(image)
  low, high = values[finite].min(), values[finite].max()
  span = (high - low) or max(abs(high), 1e-9)
  extent = (steps.max() - steps.min()) or 1.0
  x = 4 + (steps - steps.min()) / extent * (width - 9)
  y = height - 18 - (values - low) / span * (height - 36)
  for i in range(len(x)):
    if not finite[i]:
      continue
    if i and finite[i - 1]:
      draw.line((x[i - 1], y[i - 1], x[i], y[i]), fill=USED, width=2)
    else:
      draw.ellipse((x[i] - 1, y[i] - 1, x[i] + 1, y[i] + 1), fill=USED)
  draw.text((5, 3), f'{high:.4g}', TEXT, font)
  draw.text((5, height - 4), f'{low:.4g}', TEXT, font, anchor='ls')
  last = f'step {steps.max():.0f}'
  draw.text((width - 5, height - 4), last, FAINT, font, anchor='rs')
  return np.asarray(image)
