"""Writes the results of an evaluation: JSON, a text table, pictures, a film.

`values` are those of `scoring.Result`: `{source: {metric: {'per_frame': [N],
'cumulative': [N], 'mean': x, ...}}}`. The lists of a metric of sets of videos
are empty.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vidpred_jax import atomic, names, picture, video_io
from vidpred_jax.evaluate import baselines


def as_json(value) -> str:
  """Valid JSON: infinity, the PSNR of equal frames, becomes 'inf'."""

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
    context: indices of the context frames.
    target: indices of the target frames.
  """
  columns = [*names.of_frames(context, target), 'mean']
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


def curves(folder: str | pathlib.Path) -> list[str]:
  """Draws the log of a run, `metrics.jsonl`, to `curves.png`.

  Args:
    folder: the folder of the run.

  Returns:
    The names of the written files; none if the log is empty.
  """
  folder, lines = pathlib.Path(folder), {}
  log = folder / 'metrics.jsonl'
  text = log.read_text('utf-8', 'replace') if log.exists() else ''
  for line in text.splitlines():
    try:
      values = json.loads(line)
      step = values.pop('step')
    # Cut off when a try was killed, or damaged.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
      continue
    for name, value in values.items():
      if isinstance(value, int | float) and isinstance(step, int):
        steps, numbers = lines.setdefault(name, ([], []))
        steps.append(step)
        numbers.append(value)
  if not lines:
    return []
  picture.save_png(folder / 'curves.png', picture.curves(lines))
  return ['curves.png']


def predictions(
  folder: str | pathlib.Path, clips: Sequence['Shown'], frames, data
) -> list[str]:
  """Writes clips and their predictions to `predictions.npz`.

  Args:
    folder: the folder of the file.
    clips: the clips to write.
    frames: the `systems.Frames` of the evaluation.
    data: the `systems.DataSpec` of the clips.

  Returns:
    The names of the written files; none without clips. The arrays are
    `context` [M, Tc, H, W, C] and `target` [M, N, H, W, C], images as uint8,
    `prediction` [M, N, H, W, C], images as float32 in [0, 1], and of a
    stochastic system `samples` [M, S, N, H, W, C] and `mean`, of all samples.
    Fields are in their units.
  """
  if not clips:
    return []
  folder = pathlib.Path(folder)
  video = data.in_units(np.stack([clip.video for clip in clips]))
  arrays = {
    'context': video[:, list(frames.context)],
    'target': video[:, list(frames.target)],
  }
  for name in ('prediction', 'samples', 'mean'):
    if getattr(clips[0], name) is not None:
      stacked = np.stack([getattr(clip, name) for clip in clips])
      arrays[name] = np.float32(data.in_units(stacked))
  with atomic.replacing(folder / 'predictions.npz') as partial:
    np.savez_compressed(partial, **arrays)
  return ['predictions.npz']


# ------------------------------------------------------------------- pictures


class Shown(NamedTuple):
  """A clip and its prediction, NumPy arrays without a batch axis.

  Images are uint8, or floats from 0, black, to 1, white. Fields have any units,
  which all arrays but `spread` and `crps` share.

  Attributes:
    video: [T, H, W, C], the whole clip.
    prediction: [N, H, W, C], the first sample of a stochastic system.
    samples: [S, N, H, W, C], some samples. This and the next three are None for
      a deterministic system.
    mean: [N, H, W, C], of all samples.
    spread: [N, H, W, C], the standard deviation of all samples, in 8-bit units
      for images, in their own units for fields.
    crps: [N, H, W, C], of all samples, in the units of `spread`.
    flow: [N, H, W, 2], (dx, dy) in pixels, or None.
    blocks: [N, K], 1 for each block used, or None.
  """

  video: np.ndarray
  prediction: np.ndarray
  samples: np.ndarray | None = None
  mean: np.ndarray | None = None
  spread: np.ndarray | None = None
  crps: np.ndarray | None = None
  flow: np.ndarray | None = None
  blocks: np.ndarray | None = None


def write_pictures(
  folder: str | pathlib.Path,
  clips: Sequence[Shown],
  frames,
  *,
  fps: float,
  film: str = 'mp4',
  histograms: Mapping[str, Sequence[float]] | None = None,
) -> list[str]:
  """Writes clips as one picture and one film.

  Args:
    folder: the folder of the files.
    clips: the clips to show, all of one system.
    frames: the `systems.Frames` of the evaluation.
    fps: of the film.
    film: 'mp4' or 'gif'.
    histograms: `{metric: shares of ranks}`, drawn to a picture of their own.

  Returns:
    The names of the written files.
  """
  folder, written = pathlib.Path(folder), []
  if histograms:
    rows = [[picture.histogram(shares)] for shares in histograms.values()]
    image = picture.grid(rows, row_labels=list(histograms))
    picture.save_png(folder / 'ranks.png', image)
    written.append('ranks.png')
  if not clips:
    return written
  fields = clips[0].video.dtype != np.uint8
  clips = [_as_images(clip) for clip in clips]
  if clips[0].samples is None:
    still, film_frames = _demo(clips, frames, fields)
    if len(frames.target) >= _STRIP:
      picture.save_png(folder / 'strip.png', _strip(clips[:2], frames))
      written.append('strip.png')
  else:
    still, film_frames = _forecast(clips, frames)
  picture.save_png(folder / 'picture.png', still)
  name = f'video.{film}'
  with video_io.Writer(folder / name, fps=fps, overwrite=True) as writer:
    for frame in film_frames:
      writer.write(frame)
  return [*written, 'picture.png', name]


# So many frames are shown over time.
_STRIP = 4


def _steps(clips: Sequence[Shown]) -> list[int]:
  """The target frames of the still: the first and the last."""
  return sorted({0, len(clips[0].prediction) - 1})


def _demo(clips: Sequence[Shown], frames, fields: bool):
  """The still of deterministic predictions, and the frames of their film."""
  panels = [
    {
      'context': clip.video[list(frames.context)],
      'target': clip.video[list(frames.target)],
      'prediction': clip.prediction,
      'flow': clip.flow,
      'blocks': clip.blocks,
      'between': frames.interpolates,
      'title': f'clip {i}',
    }
    for i, clip in enumerate(clips)
  ]
  film = (x for clip in panels for x in picture.demo_frames(**clip))
  still = picture.demo_grid(
    [clip | _compared(clip, frames, fields) for clip in panels],
    steps=_steps(clips),
  )
  return still, film


def _compared(clip: Mapping, frames, fields: bool) -> dict:
  """A baseline, and for each frame the numbers of both predictions."""
  name, simple = _baseline(clip['context'], frames)
  texts = (
    f'{_number(ours, true, fields)}\n({_number(theirs, true, fields)})'
    for ours, theirs, true in zip(clip['prediction'], simple, clip['target'])
  )
  return {'simple': (name, simple), 'numbers': list(texts)}


def _baseline(context: np.ndarray, frames) -> tuple[str, np.ndarray]:
  """The name and the frames of the simplest prediction, as floats."""
  name = 'average' if frames.interpolates else 'copy_last'
  (video,) = baselines.predict(frames, _unit(context)[None])[name]
  return name.replace('_', ' '), np.asarray(video)


def _number(prediction, truth, fields: bool) -> str:
  """PSNR of an image, of a field the error as a share of what is shown."""
  error = np.square(_unit(prediction) - _unit(truth)).mean()
  if fields:
    return f'RMSE {100 * np.sqrt(error):.1f} %'
  return f'{-10 * np.log10(max(error, 1e-10)):.2f} dB'


def _unit(image: np.ndarray) -> np.ndarray:
  scale = 255 if image.dtype == np.uint8 else 1
  return np.clip(np.asarray(image, np.float64) / scale, 0, 1)


def _strip(clips: Sequence[Shown], frames) -> np.ndarray:
  """Clips over time: rows of context, truth, prediction and error."""
  rows, labels = [], []
  for i, clip in enumerate(clips):
    truth = clip.video[list(frames.target)]
    errors = [
      picture.heatmap(np.abs(_unit(a) - _unit(b)).mean(-1), 0.25)
      for a, b in zip(clip.prediction, truth)
    ]
    rows += [
      list(clip.video[list(frames.context)]),
      list(truth),
      list(clip.prediction),
      errors,
    ]
    labels += [f'clip {i}: seen', 'truth', 'prediction', 'error']
  return picture.grid(
    rows,
    row_labels=labels,
    column_titles=[f't+{n + 1}' for n in range(max(map(len, rows)))],
    min_side=96,
  )


def _forecast(clips: Sequence[Shown], frames):
  """The still of forecasts by samples, and the frames of their film."""
  # One scale for all clips, so that they can be compared.
  scales = {
    name: max(
      np.quantile([getattr(c, name).mean(-1) for c in clips], 0.99), 1e-9
    )
    for name in ('spread', 'crps')
  }
  titles = list(_samples(clips[0], frames, 0, scales))
  steps = _steps(clips)
  still = picture.grid(
    [
      list(_samples(c, frames, n, scales).values())
      for c in clips
      for n in steps
    ],
    column_titles=titles,
    row_labels=[
      f'clip {i}\nt+{n + 1}' for i in range(len(clips)) for n in steps
    ],
  )
  return still, (
    picture.grid(
      [list(_samples(clip, frames, n, scales).values())],
      column_titles=titles,
      title=f'clip {i}   t+{n + 1}',
    )
    for i, clip in enumerate(clips)
    for n in range(len(clip.prediction))
  )


def _samples(clip: Shown, frames, n: int, scales) -> dict[str, np.ndarray]:
  """{title: picture} of frame n of a clip that was forecast by samples."""
  assert clip.samples is not None and clip.mean is not None
  samples = {f'sample {s + 1}': x[n] for s, x in enumerate(clip.samples)}
  maps = {
    f'{name}, white {largest:.3g}': picture.heatmap(
      getattr(clip, name)[n].mean(-1), largest
    )
    for name, largest in scales.items()
  }
  return {
    'context t': clip.video[frames.context[-1]],
    'truth': clip.video[frames.target[n]],
    **samples,
    'mean': clip.mean[n],
    **maps,
  }


def _as_images(clip: Shown) -> Shown:
  """Converts frames to images; of other than 1 or 3 channels the first.

  The range of greys is that of the true clip.
  """
  video = clip.video
  if video.dtype == np.uint8:
    if video.shape[-1] in (1, 3):
      return clip
    video = video / 255
  low, high = video[..., 0].min(), video[..., 0].max()
  span = max(high - low, 1e-6)

  def grey(x):
    return None if x is None else (x[..., :1] - low) / span

  def first(x):
    return None if x is None else x[..., :1]

  return clip._replace(
    video=grey(video),
    prediction=grey(clip.prediction),
    samples=grey(clip.samples),
    mean=grey(clip.mean),
    spread=first(clip.spread),
    crps=first(clip.crps),
  )
