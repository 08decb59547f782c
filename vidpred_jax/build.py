"""What a configuration describes: system, source of clips, metrics, evaluation.

A ConfigDict goes no further down than this room; what is below takes plain
keyword arguments.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from vidpred_jax import convert, data, ranges, systems
from vidpred_jax import metrics as metrics_lib
from vidpred_jax.systems.base import DataSpec


def system(config, frames) -> systems.System:
  """The system of a configuration.

  Args:
    config: the configuration.
    frames: `config.frames` or `config.eval.frames`.
  """
  return systems.make(
    config.system,
    frames=systems.Frames(tuple(frames.context), tuple(frames.target)),
    **config.model.to_dict(),
  )


def evaluated_data(config) -> dict:
  """The data that is evaluated on: `data` with the fields of `eval.data`.

  A field of `eval.data` that is None is that of `data`. With a source of its
  own `eval.data` stands for itself.
  """
  own = config.eval.data.to_dict()
  if 'source' in own:
    return own
  changed = {name: value for name, value in own.items() if value is not None}
  return config.data.to_dict() | changed


def source(config, split: str = 'test', *, num_frames: int | None = None):
  """A split of the data that is evaluated on.

  Args:
    config: the configuration.
    split: 'test', or another that the source has.
    num_frames: of a clip; by default as many as `config.eval.frames` need.
  """
  settings = evaluated_data(config)
  frames = config.eval.frames
  length = 1 + max(tuple(frames.context) + tuple(frames.target))
  return data.make_source(
    settings.pop('source'),
    split=split,
    num_frames=num_frames or length,
    **settings,
  )


def data_spec(source) -> DataSpec:
  """What the clips of a source are."""
  if source.kind != 'field':
    return DataSpec(source.kind)
  return DataSpec(
    source.kind,
    variables=tuple(source.variables),
    units=source.units,
    mean=tuple(np.asarray(source.mean).tolist()),
    std=tuple(np.asarray(source.std).tolist()),
  )


def metrics(config, source) -> dict[str, Any]:
  """The metrics of `config.eval`, by name.

  Of fields of several variables there is one for each: `rmse/mean[z500]`.

  Args:
    config: the configuration.
    source: the clips that they are to measure.

  Raises:
    ValueError: if there is no such metric, or it cannot measure these clips.
  """
  files = config.eval.lpips
  found = {}
  for name in config.eval.metrics:
    extra = {}
    if name.startswith('lpips') and files.backbone and files.heads:
      extra['variables'] = convert.lpips(files.backbone, files.heads)
    if name.startswith('fvd') and config.eval.i3d:
      extra['variables'] = convert.i3d(config.eval.i3d)
    if name.endswith('/latitude'):
      if source.kind != 'field' or source.latitudes is None:
        raise ValueError(
          f'{name} needs physical fields with latitudes; {source!r} has none.'
        )
      extra['latitudes'] = source.latitudes
    found[name] = metrics_lib.make(name, **extra)
  metrics_lib.check_kind(source.kind, found)
  if source.kind == 'field' and len(source.variables) > 1:
    # Their units differ: each by itself.
    found = {
      f'{name}[{variable}]': metric._replace(
        values=functools.partial(_of_channel, metric.values, c)
      )
      for name, metric in found.items()
      for c, variable in enumerate(source.variables)
    }
  return found


def _of_channel(values, channel: int, pred, target):
  part = slice(channel, channel + 1)
  return values(pred[..., part], target[..., part])


def mean_frame(source, count: int) -> np.ndarray:
  """The mean [H, W, C] of all frames of `count` clips, as systems see them.

  Float32 in [0, 1], or normalised as the source's fields are. The clips are
  spread evenly over the source.
  """
  total, clips = 0.0, 0
  for batch in data.eval_batches(source, batch_size=1, limit=count):
    video = batch['video'][0]
    frame = video.mean(0, dtype=np.float64)
    total = total + (frame / 255 if video.dtype == np.uint8 else frame)
    clips += 1
  return np.float32(total / clips)


class Evaluation(NamedTuple):
  """What `config.eval` describes.

  Attributes:
    system: what is evaluated, for the frames of the evaluation and its data.
    source: the split that is evaluated on.
    metrics: `{name: metrics.Metric or metrics.SetMetric}`.
    mean_frame: [H, W, C], the mean of some of the training split, or None.
  """

  system: systems.System
  source: Any
  metrics: dict[str, Any]
  mean_frame: np.ndarray | None = None


def evaluation(config) -> Evaluation:
  """Makes all that an evaluation needs, so that mistakes show before training.

  Raises:
    ValueError: if the configuration describes no evaluation that can be made.
    FileNotFoundError: if data or weights of a metric are missing.
  """
  ranges.check(config)
  clips = source(config)
  model = system(config, config.eval.frames)._replace(data=data_spec(clips))
  measures = metrics(config, clips)
  metrics_lib.check_samples(model, config.eval.samples, measures)
  frame = None
  if config.eval.mean_frame:
    frame = mean_frame(source(config, 'train'), config.eval.mean_frame)
  return Evaluation(model, clips, measures, frame)
