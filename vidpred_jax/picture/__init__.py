"""Visualisation: flow as colours, bars of used blocks, labelled grids.

Functions take NumPy arrays of one clip (no batch axis) and return uint8 RGB
images `[H, W, 3]`. Images may be uint8 or float in [0, 1], with 1 or 3
channels. Flow is `[H, W, 2]`, (dx, dy) in pixels, x to the right and y down.

`demo_frames` makes the frames of a film, with the panels context | prediction |
truth | flow | blocks. `demo_grid` makes a still with a row for each clip:

  frames = picture.demo_frames(context, prediction, target, flow=flow)
  picture.save_png('demo.png', picture.demo_grid([clip_a, clip_b]))
"""

from vidpred_jax.picture.colours import (
  block_bars,
  colour_wheel,
  flow_to_rgb,
  heatmap,
  histogram,
  largest_magnitude,
  to_rgb,
)
from vidpred_jax.picture.curves import curves
from vidpred_jax.picture.grids import (
  demo_frames,
  demo_grid,
  grid,
  hstack,
  save_png,
)

__all__ = [
  'block_bars',
  'colour_wheel',
  'curves',
  'demo_frames',
  'demo_grid',
  'flow_to_rgb',
  'grid',
  'heatmap',
  'histogram',
  'hstack',
  'largest_magnitude',
  'save_png',
  'to_rgb',
]
