"""What an evaluation is told as: JSON, a table, pictures and a film.

`values` is what `scoring.Result.values` holds: `{source: {metric: {'per_frame':
[N], 'cumulative': [N], 'mean': x, ...}}}`; a metric of sets of videos has no
frames. Clips are dicts of NumPy arrays without a batch axis.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vidpred_jax import picture, video_io


def as_json(value) -> str:
  """JSON proper: it has no infinity, so 'inf' (PSNR of equal frames)."""

  def plain(x):
    if isinstance(x, dict):
      return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
      return [plain(v) for v in x]
    return str(x) if isinstance(x, float) and not np.isfinite(x) else x

  return json.dumps(plain(value), indent=2, allow_nan=False) + '\n'


def table(
  values: Mapping, context: Sequence[int], target: Sequence[int]
) -> str:
  """The values as text: a row per metric and source, a column per frame.

  Args:
    values: see the module.
    context: which frames were seen.
    target: which were asked for; columns count from the last one seen, or where
      all lie between those seen from the first.
  """
  since = min(context) if max(target) < max(context) else max(context)
  columns = [f't{t - since:+d}' for t in target] + ['mean']
  width = max(map(len, values['prediction']), default=0) + 2
  lines = [' ' * (width + 12) + ''.join(f'{c:>10}' for c in columns)]
  for name in values['prediction']:
    for source, by_metric in values.items():
      numbers = by_metric[name]['per_frame'] or [''] * len(target)
      label = f'{name:{width}}' if source == 'prediction' else ' ' * width
      cells = [*numbers, by_metric[name]['mean']]
      text = [f'{x:10.4f}' if x != '' else ' ' * 10 for x in cells]
      lines.append(f'{label}{source:12}' + ''.join(text))
  return '\n'.join(lines)


# ------------------------------------------------------------------- pictures


def write_pictures(
  folder: str | pathlib.Path,
  clips: Sequence[Mapping[str, np.ndarray]],
  *,
  fps: float,
  film: str = 'mp4',
  histograms: Mapping[str, Sequence[float]] | None = None,
) -> list[str]:
  """Writes clips as one picture and one film.

  Args:
    folder: where to.
    clips: each with `'context'` [K, H, W, C], `'target'` and `'prediction'`
      [N, H, W, C], uint8, or floats of any units. Of a forecast by samples also
      `'drawn'` [S, N, H, W, C], some of them, `'average'` of all, `'spread'`,
      their standard deviation, and `'crps'`, both [N, H, W, C], the latter in
      the units it is to be told in. Else perhaps `'flow'`, `'blocks'` and
      `'between'` (`picture.demo_frames`).
    fps: of the film.
    film: 'mp4' or 'gif'.
    histograms: `{metric: shares of ranks}`, drawn to a picture of their own.

  Returns:
    The names of what was written.
  """
  folder, written = pathlib.Path(folder), []
  if histograms:
    rows = [[picture.histogram(shares)] for shares in histograms.values()]
    image = picture.grid(rows, row_labels=list(histograms))
    picture.save_png(folder / 'ranks.png', image)
    written.append('ranks.png')
  if not clips:
    return written
  clips = [
    {**_as_images(clip), 'title': f'clip {i}'} for i, clip in enumerate(clips)
  ]
  steps = sorted({0, len(clips[0]['prediction']) - 1})
  if 'drawn' in clips[0]:
    # One scale for all, so that they can be compared; few values beyond it.
    scales = {
      name: max(np.quantile([c[name].mean(-1) for c in clips], 0.99), 1e-9)
      for name in ('spread', 'crps')
    }
    titles = list(_samples(clips[0], 0, scales))
    still = picture.grid(
      [list(_samples(c, n, scales).values()) for c in clips for n in steps],
      column_titles=titles,
      row_labels=[f'{c["title"]}\nt+{n + 1}' for c in clips for n in steps],
    )
    frames = (
      picture.grid(
        [list(_samples(clip, n, scales).values())],
        column_titles=titles,
        title=f'{clip["title"]}   t+{n + 1}',
      )
      for clip in clips
      for n in range(len(clip['prediction']))
    )
  else:
    still = picture.demo_grid(clips, steps=steps)
    frames = (x for clip in clips for x in picture.demo_frames(**clip))
  picture.save_png(folder / 'picture.png', still)
  name = f'video.{film}'
  with video_io.Writer(folder / name, fps=fps, overwrite=True) as writer:
    for frame in frames:
      writer.write(frame)
  return [*written, 'picture.png', name]


def _samples(clip, n: int, scales) -> dict[str, np.ndarray]:
  """{title: picture} of frame n of a clip that was forecast by samples."""
  drawn = {f'sample {s + 1}': x[n] for s, x in enumerate(clip['drawn'])}
  maps = {
    f'{name}, white {largest:.3g}': picture.heat(
      clip[name][n].mean(-1), largest
    )
    for name, largest in scales.items()
  }
  return {
    'context t': clip['context'][-1],
    'truth': clip['target'][n],
    **drawn,
    'mean': clip['average'][n],
    **maps,
  }


def _as_images(clip) -> dict[str, np.ndarray]:
  """Frames that can be looked at: images as they are, else the first channel.

  Its greys run from the least to the greatest of what was true.
  """
  context, target = clip['context'], clip['target']
  if context.dtype == np.uint8 and context.shape[-1] in (1, 3):
    return dict(clip)
  if context.dtype == np.uint8:
    context, target = context / 255, target / 255
  clip = {**clip, 'context': context, 'target': target}
  true = np.concatenate([context, target])[..., :1]
  low, high = true.min(), true.max()
  span = max(high - low, 1e-6)
  for name in ('context', 'target', 'prediction', 'drawn', 'average'):
    if name in clip:
      clip[name] = (clip[name][..., :1] - low) / span
  for name in ('spread', 'crps'):
    if name in clip:
      clip[name] = clip[name][..., :1]
  return clip
