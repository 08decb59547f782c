"""What a configuration describes: system, sources, metrics, evaluation."""

import functools
from typing import Any, NamedTuple

import numpy as np

from vidpred_jax import convert, data, metrics, systems


def make_system(config, frames) -> systems.System:
  """The system of a configuration, for other frames if need be."""
  return systems.make(
    config.system,
    frames=systems.Frames(tuple(frames.context), tuple(frames.target)),
    **config.model.to_dict(),
  )


def protocol_data(config) -> dict:
  """The data that is evaluated on: `data` with the fields of `eval.data`.

  With a source of its own `eval.data` stands for itself.
  """
  own = config.eval.data.to_dict()
  return own if 'source' in own else config.data.to_dict() | own


def describe(source) -> dict:
  """What the clips of a source are, as `checkpoint.save_system` stores it."""
  if source.kind != 'field':
    return {'kind': source.kind}
  return {
    'kind': source.kind,
    'mean': np.asarray(source.mean).tolist(),
    'std': np.asarray(source.std).tolist(),
    'units': source.units,
    'variables': list(source.variables),
  }


def make_measures(config, source) -> dict:
  """The metrics of `config.eval`; raises ValueError if one cannot be.

  Of fields of several variables there is one for each: `rmse/mean[z500]`.
  """
  files = config.eval.lpips
  measures = {}
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
    measures[name] = metrics.make(name, **extra)
  metrics.check_kind(field(source), measures)
  if source.kind == 'field' and len(source.variables) > 1:
    # Their units differ: each by itself.
    measures = {
      f'{name}[{variable}]': measure._replace(
        values=functools.partial(_of_channel, measure.values, c)
      )
      for name, measure in measures.items()
      for c, variable in enumerate(source.variables)
    }
  return measures


def _of_channel(values, channel: int, pred, target):
  part = slice(channel, channel + 1)
  return values(pred[..., part], target[..., part])


def make_source(config, system, split: str = 'test'):
  """The split that is evaluated on, or another of the same data."""
  settings = protocol_data(config)
  return data.make_source(
    settings.pop('source'),
    split=split,
    num_frames=system.frames.length,
    **settings,
  )


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


def field(source):
  """The mean and std of physical fields, None for images."""
  return (source.mean, source.std) if source.kind == 'field' else None


class Protocol(NamedTuple):
  """What `config.eval` describes: made once in a run, for it may read for long.

  Attributes:
    system: what is evaluated, for the frames of the evaluation.
    source: the split that is evaluated on.
    measures: `{name: metrics.Metric or metrics.SetMetric}`.
    mean_frame: [H, W, C], the mean of some of the training split, or None.
  """

  system: systems.System
  source: Any
  measures: dict[str, Any]
  mean_frame: np.ndarray | None = None


def check(config) -> Protocol:
  """The protocol of a configuration; raises what would keep it from being."""
  system = make_system(config, config.eval.frames)
  source = make_source(config, system)
  measures = make_measures(config, source)
  metrics.check_samples(system, config.eval.samples, measures)
  frame = None
  if config.eval.mean_frame:
    training = make_source(config, system, 'train')
    frame = mean_frame(training, config.eval.mean_frame)
  return Protocol(system, source, measures, frame)
