"""What a configuration describes: system, source of clips, metrics, evaluation.

A ConfigDict goes no further down than this room; what is below takes plain
keyword arguments.
"""

import copy
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from vidpred_jax import convert, data, systems
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


# Of a configuration that leaves its metrics to the data.
_METRICS = {
  'image': ('psnr/float', 'ssim/pmss', 'mae/mean'),
  'field': ('rmse/mean', 'mae/mean'),
}
_SAMPLE_METRICS = {'image': ('crps/ens',), 'field': ('crps/units',)}
# The source of a configuration whose clips come from Python objects.
_OWN = 'own'


def completed(config, sources: Mapping[str, Any] | None = None):
  """The configuration with what it leaves to the data, or itself.

  Left to the data is `model.channels` where it is None.

  Args:
    config: the configuration.
    sources: objects that clips come from instead of `config.data`, by split.

  Returns:
    `config`, or a copy of it that says what is taken from the data.

  Raises:
    ValueError: if the data are wrong.
    FileNotFoundError: if they are missing.
  """
  if sources is not None and config.data.get('source') != _OWN:
    config = copy.deepcopy(config)
    with config.unlocked():
      config.data = ConfigDict({'source': _OWN})
      config.eval.data = ConfigDict()
  if config.model.get('channels', 0) is None:
    config = copy.deepcopy(config)
    config.model.channels = _channels(config, sources)
  return config


def _channels(config, sources) -> int:
  """Of the clips; there may be some of one split alone."""
  found = []
  for split in ('train', 'test'):
    try:
      clips = source(config, split, num_frames=1, sources=sources)
      return int(clips[0]['video'].shape[-1])
    except ValueError as error:
      found.append(error)
  raise found[0]


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


def source(
  config,
  split: str = 'test',
  *,
  num_frames: int | None = None,
  sources: Mapping[str, Any] | None = None,
):
  """A split of the data that is evaluated on.

  Args:
    config: the configuration.
    split: 'test', or another that the source has.
    num_frames: of a clip; by default as many as `config.eval.frames` need.
    sources: objects that clips come from instead, by split.

  Returns:
    The source.

  Raises:
    ValueError: if the data are wrong, or `sources` has no such split.
    FileNotFoundError: if they are missing.
  """
  frames = config.eval.frames
  length = 1 + max(tuple(frames.context) + tuple(frames.target))
  if sources is not None:
    return data.own_source(own(sources, split), num_frames=num_frames or length)
  settings = evaluated_data(config)
  return data.make_source(
    settings.pop('source'),
    split=split,
    num_frames=num_frames or length,
    **settings,
  )


def own(sources: Mapping[str, Any], split: str):
  """The object that the clips of a split come from.

  Args:
    sources: objects by split.
    split: which.

  Returns:
    The object.

  Raises:
    ValueError: if there is none.
  """
  if split not in sources:
    raise ValueError(
      f'There are no clips of the split {split!r}; sources has '
      f'{", ".join(sources) or "none"}.'
    )
  return sources[split]


def check_channels(system: systems.System, source, channels: int) -> None:
  """Raises ValueError unless clips have the channels that a system sees."""
  if channels != system.channels:
    raise ValueError(
      f'{source!r} has frames of {channels} channels; this system sees '
      f'{system.channels}.'
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
  chosen = config.eval.metrics
  if not chosen:
    of_samples = _SAMPLE_METRICS if config.eval.samples > 1 else {}
    chosen = (*of_samples.get(source.kind, ()), *_METRICS[source.kind])
  for name in chosen:
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


def evaluation(config, sources: Mapping[str, Any] | None = None) -> Evaluation:
  """Makes all that an evaluation needs, so that mistakes show before training.

  Args:
    config: the configuration.
    sources: objects that clips come from instead of `config.data`, by split.

  Returns:
    What `config.eval` describes.

  Raises:
    ValueError: if the configuration describes no evaluation that can be made.
    FileNotFoundError: if data or weights of a metric are missing.
  """
  config = completed(config, sources)
  clips = source(config, sources=sources)
  model = system(config, config.eval.frames)._replace(data=data_spec(clips))
  check_channels(model, clips, clips[0]['video'].shape[-1])
  measures = metrics(config, clips)
  metrics_lib.check_samples(model, config.eval.samples, measures)
  frame = None
  if config.eval.mean_frame:
    train = source(config, 'train', sources=sources)
    frame = mean_frame(train, config.eval.mean_frame)
  return Evaluation(model, clips, measures, frame)
