"""Builds what a configuration describes: system, data, metrics, evaluation.

Modules below this one never see a ConfigDict; they take keyword arguments.
"""

import copy
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from vidpred_jax import convert, data, ranges, systems
from vidpred_jax import metrics as metrics_lib
from vidpred_jax.config import given
from vidpred_jax.systems.base import DataSpec


def system(config, frames) -> systems.System:
  """Makes the system of a configuration.

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
  """Checks a configuration; adds what it leaves to the data.

  Left to the data is `model.channels` where it is None.

  Args:
    config: the configuration.
    sources: objects that clips come from instead of `config.data`, by split.

  Returns:
    `config`, or a copy of it that says what is taken from the data.

  Raises:
    ValueError: if a field is out of range, or the data are wrong.
    FileNotFoundError: if they are missing.
  """
  ranges.check(config)
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
  """The number of channels of the clips of the first split that has any."""
  errors = []
  for split in ('train', 'test'):
    try:
      clips = source(config, split, num_frames=1, sources=sources)
      return int(clips[0]['video'].shape[-1])
    except ValueError as error:
      errors.append(error)
  raise errors[0]


def evaluated_data(config) -> dict:
  """The settings of the evaluation's data: `data` updated by `eval.data`.

  A field of `eval.data` that is None keeps the value of `data`. If `eval.data`
  has a `source`, its fields alone are used.
  """
  own = given(config.eval.data)
  return own if 'source' in own else given(config.data) | own


def source(
  config,
  split: str = 'test',
  *,
  num_frames: int | None = None,
  sources: Mapping[str, Any] | None = None,
):
  """Makes the source of a split of the evaluation's data.

  Args:
    config: the configuration.
    split: 'test', 'train' or 'val'.
    num_frames: of a clip; None: the length that `config.eval.frames` need.
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
    split: name of the split.

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
  """The `DataSpec` of a source's clips."""
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
  """Makes the metrics of `config.eval`, by name.

  Fields of several variables have one metric per variable: `rmse/mean[z500]`.

  Args:
    config: the configuration.
    source: the clips that are measured.

  Raises:
    ValueError: for an unknown metric, or one that cannot measure these clips.
  """
  files = config.eval.lpips
  result = {}
  chosen = config.eval.metrics
  if not chosen:
    of_samples = _SAMPLE_METRICS if config.eval.samples > 1 else {}
    chosen = (*of_samples.get(source.kind, ()), *_METRICS[source.kind])
  for name in chosen:
    extra: dict[str, Any] = {}
    if name.startswith('lpips') and files.backbone and files.heads:
      _look_for(name, files.backbone, files.heads)
      extra['variables'] = convert.lpips(files.backbone, files.heads)
    if name.startswith('fvd') and config.eval.i3d:
      _look_for(name, config.eval.i3d)
      extra['variables'] = convert.i3d(config.eval.i3d)
    if name.endswith('/latitude'):
      if source.kind != 'field' or source.latitudes is None:
        raise ValueError(
          f'{name} needs physical fields with latitudes; {source!r} has none.'
        )
      extra['latitudes'] = source.latitudes
    if name.startswith('acc/'):
      extra['climatology'] = getattr(source, 'climatology', None)
    result[name] = metrics_lib.make(name, **extra)
  metrics_lib.check_kind(source.kind, result)
  if source.kind == 'field' and len(source.variables) > 1:
    # Their units differ, so each variable has its own metric.
    result = {
      f'{name}[{variable}]': metric._replace(
        values=functools.partial(_of_channel, metric.values, c)
      )
      for name, metric in result.items()
      if isinstance(metric, metrics_lib.Metric)
      for c, variable in enumerate(source.variables)
    }
  return result


def _look_for(metric: str, *paths: str) -> None:
  """Raises FileNotFoundError for missing weights; says where to get them."""
  missing = [path for path in paths if not pathlib.Path(path).exists()]
  if missing:
    try:
      metrics_lib.make(metric)
    except ValueError as error:
      raise FileNotFoundError(
        f'{", ".join(missing)} is not there. {error}'
      ) from None


def _of_channel(values, channel: int, pred, target):
  part = slice(channel, channel + 1)
  own = {}
  if 'climatology' in values.keywords:  # of a metric's settings it has channels
    own['climatology'] = values.keywords['climatology'][..., part]
  return values(pred[..., part], target[..., part], **own)


def mean_frame(source, count: int) -> np.ndarray:
  """The mean frame [H, W, C] of `count` clips, in a system's values.

  Float32 in [0, 1], or normalised like the source's fields. The clips are
  spread evenly over the source.
  """
  total, clips = np.float64(0), 0
  for batch in data.eval_batches(source, batch_size=1, limit=count):
    video = batch['video'][0]
    frame = video.mean(0, dtype=np.float64)
    total = total + (frame / 255 if video.dtype == np.uint8 else frame)
    clips += 1
  return np.asarray(total / clips, np.float32)


class Evaluation(NamedTuple):
  """The evaluation that `config.eval` describes.

  Attributes:
    system: the system, for the frames and the data of the evaluation.
    source: the split that is evaluated on.
    metrics: `{name: metrics.Metric or metrics.SetMetric}`.
    mean_frame: [H, W, C], the mean of some training clips, or None.
  """

  system: systems.System
  source: Any
  metrics: dict[str, Any]
  mean_frame: np.ndarray | None = None


def evaluation(config, sources: Mapping[str, Any] | None = None) -> Evaluation:
  """Builds everything an evaluation needs, so mistakes show before training.

  Args:
    config: the configuration.
    sources: objects that clips come from instead of `config.data`, by split.

  Returns:
    What `config.eval` describes.

  Raises:
    ValueError: if the configuration describes no valid evaluation.
    FileNotFoundError: if data or weights of a metric are missing.
  """
  config = completed(config, sources)
  clips = source(config, config.eval.split, sources=sources)
  model = system(config, config.eval.frames)._replace(data=data_spec(clips))
  check_channels(model, clips, clips[0]['video'].shape[-1])
  measures = metrics(config, clips)
  metrics_lib.check_samples(model, config.eval.samples, measures)
  frame = None
  if config.eval.mean_frame:
    train = source(config, 'train', sources=sources)
    frame = mean_frame(train, config.eval.mean_frame)
  return Evaluation(model, clips, measures, frame)


def check_frames(config, planned: Evaluation) -> None:
  """Checks, before training, that its weights fit the frames of evaluation.

  Args:
    config: the configuration.
    planned: its evaluation.

  Raises:
    ValueError: if they have other shapes for those frames.
  """
  trained = system(config, config.frames)
  if trained.frames == planned.system.frames:
    return
  size = planned.source[0]['video'].shape[1:]

  def shapes(made):
    clip = jax.ShapeDtypeStruct((1, made.frames.length, *size), np.float32)
    return jax.eval_shape(made.init, jax.random.key(0), clip)

  if shapes(trained) != shapes(planned.system):
    raise ValueError(
      f'The weights of {config.system} depend on its frames: it is trained '
      f'for {_said(trained)}, and evaluated for {_said(planned.system)}. Set '
      'config.eval.frames, too.'
    )


def _said(made: systems.System) -> str:
  return f'{len(made.frames.target)} frames of {len(made.frames.context)}'
