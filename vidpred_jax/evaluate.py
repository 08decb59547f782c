"""Evaluation: predict a split, measure every target frame, write one file.

The split is streamed. Values per clip and target frame are computed on the
devices and summed in float64 on the host in the order of the clips, so that the
numbers do not depend on the number of devices. (Those of a stochastic system
depend on the batch size: a batch has one key.) Aggregations are named:
`per_frame[k]`, `cumulative[k]` (mean over target frames 0..k, which is what
DMVFN's published tables list) and `mean` over all.
"""

import functools
import importlib.metadata
import json
import pathlib
import platform
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from vidpred_jax import (
  checkpoint,
  convert,
  data,
  metrics,
  picture,
  runtime,
  systems,
  video_io,
)
from vidpred_jax.systems import base


class Result(NamedTuple):
  """What an evaluation gives.

  Attributes:
    clips: how many clips were predicted.
    values: `{source: {metric: {'per_frame': [N], 'cumulative': [N], 'mean':
      x}}}`, the sources being `'prediction'` and the baselines.
    blocks: mean use of each block [K] where the system routes, else None.
    shown: the first clips as host arrays, a dict of lists: `'video'`,
      `'frames'`, and what `System.explain` gives.
    skipped: metrics that are not defined on frames this small.
    data: what the source says of itself.
  """

  clips: int
  values: dict[str, dict[str, dict[str, Any]]]
  blocks: list[float] | None
  shown: dict[str, list[np.ndarray]]
  skipped: list[str]
  data: str = ''


def baselines(frames: systems.Frames, context: jax.Array) -> dict:
  """Predictions that need no model, each [B, N, H, W, C].

  `'copy_last'` repeats the last context frame; between frames there is also
  `'average'`, the blend of the first and last context frame by time.
  """
  count = len(frames.target)
  result = {'copy_last': jnp.repeat(context[:, -1:], count, axis=1)}
  if frames.interpolates:
    first, last = min(frames.context), max(frames.context)
    time = (jnp.array(frames.target) - first) / (last - first)
    time = time.reshape(1, -1, 1, 1, 1).astype(context.dtype)
    result['average'] = context[:, :1] * (1 - time) + context[:, -1:] * time
  return result


def make_eval_step(system: systems.System, measures: dict, mesh, field=None):
  """A function `(variables, video, key) -> dict`; not yet compiled.

  Args:
    system: what to evaluate.
    measures: `{name: metrics.Metric}`.
    mesh: from `runtime.mesh`.
    field: as for `evaluate`.

  Returns:
    The step. It gives `'values'` {source: {metric: [B, N]}}, `'frames'`
    [B, N, H, W, C] and what `System.explain` gives.
  """

  def predict(variables, context, key):
    if system.explain is None:
      return system.predict(variables, context, key), {}
    return system.explain(variables, context, key)

  if mesh.size > 1 and not system.stochastic:
    # Each device by itself: a system may loop over its samples. Not where they
    # are drawn, for what is drawn depends on the shape of the whole batch.
    every, batch = PartitionSpec(), PartitionSpec('data')
    predict = jax.shard_map(
      predict,
      mesh=mesh,
      in_specs=(every, batch, every),
      out_specs=batch,
      check_vma=False,
    )

  def in_units(frames):
    if field is None:
      return frames
    mean, std = (jnp.asarray(x, jnp.float32) for x in field)
    return frames * std.reshape(1, 1, 1, 1, -1) + mean.reshape(1, 1, 1, 1, -1)

  def eval_step(variables, video, key):
    video = base.as_float(video)
    context = base.take(video, system.frames.context)
    target = in_units(base.take(video, system.frames.target))
    frames, details = predict(variables, context, key)
    predictions = {
      'prediction': frames,
      **baselines(system.frames, context),
    }
    values = {
      source: {k: m.values(in_units(pred), target) for k, m in measures.items()}
      for source, pred in predictions.items()
    }
    return {'values': values, 'frames': frames, **details}

  return eval_step


def evaluate(
  system: systems.System,
  variables,
  batches,
  measures: dict,
  *,
  key: jax.Array,
  mesh=None,
  show: int = 0,
  field=None,
) -> Result:
  """Measures a system on a stream of batches.

  Args:
    system: what to evaluate.
    variables: its variables.
    batches: `dict(video=[B, T, H, W, C], valid=bool [B])` each, as from
      `data.eval_batches`.
    measures: `{name: metrics.Metric}`.
    key: batch i is predicted with `fold_in(key, i)`.
    mesh: from `runtime.mesh`; None for one of all devices.
    show: keep this many clips for pictures.
    field: None if the clips are images; for physical fields `(mean, std)`, each
      [C] or a number: the clips are normalised by them and measured in the
      field's own units.

  Returns:
    A `Result`.

  Raises:
    ValueError: if there is no clip, an image metric is asked for on physical
      fields, or a field metric on images.
  """
  mesh = mesh or runtime.mesh()
  sharding = runtime.batch_sharding(mesh)
  measures = dict(measures)
  _check_kind(field, measures)
  skipped, step = [], None
  clips, sums, block_sum, shown = 0, None, 0.0, {}
  bar = tqdm.tqdm(
    batches,
    desc='evaluate',
    disable=jax.process_index() > 0,
    leave=False,
  )
  for index, batch in enumerate(bar):
    video, valid = _pad(batch['video'], np.asarray(batch['valid']))
    if step is None:
      side = min(video.shape[2:4])
      skipped = [k for k, m in measures.items() if side < m.minimum_size]
      measures = {k: m for k, m in measures.items() if k not in skipped}
      step = runtime.jit(make_eval_step(system, measures, mesh, field))
    out = step(
      variables,
      jax.make_array_from_process_local_data(sharding, video),
      jax.random.fold_in(key, index),
    )
    valid = _gather(valid)
    values = _sum_valid(out['values'], valid)
    sums = values if sums is None else jax.tree.map(np.add, sums, values)
    clips += int(valid.sum())
    if 'blocks' in out:
      block_sum = block_sum + _gather(out['blocks'])[valid].mean(1).sum(0)
    missing = show - len(shown.get('video', ()))
    if missing > 0 and jax.process_count() == 1:
      extra = {k: v for k, v in out.items() if k != 'values'}
      for name, array in {'video': video, **extra}.items():
        kept = np.asarray(array)[valid][:missing]
        shown.setdefault(name, []).extend(kept)
  if not clips:
    raise ValueError('There is no clip to evaluate.')
  values = {
    source: {
      k: _aggregate(sums[source][k] / clips, m.finish)
      for k, m in measures.items()
    }
    for source in sorted(sums, key=lambda s: s != 'prediction')
  }
  blocks = None
  if np.ndim(block_sum):
    blocks = [round(float(x), 6) for x in block_sum / clips]
  return Result(clips, values, blocks, shown, skipped)


def _check_kind(field, measures) -> None:
  """Raises ValueError for metrics that do not fit what is measured."""
  wrong = 'field' if field is None else 'image'
  refused = ', '.join(k for k, m in measures.items() if m.kind == wrong)
  if refused and field is None:
    raise ValueError(
      f'{refused} measure physical fields on a grid of latitudes; these clips '
      'are images, use psnr, ssim, mse or mae.'
    )
  if refused:
    raise ValueError(
      f'{refused} measure images in [0, 1]; these clips are physical fields '
      'in units of their own, use mse, mae or rmse.'
    )


def _pad(video, valid):
  """Fills a batch up, with clips that do not count, to divide by devices."""
  missing = -len(video) % jax.local_device_count()
  if missing:
    video = np.concatenate([video, np.repeat(video[-1:], missing, axis=0)])
    valid = np.concatenate([valid, np.zeros(missing, bool)])
  return video, valid


def _gather(array) -> np.ndarray:
  """The rows of all processes, on the host; sums must be float64."""
  if jax.process_count() > 1:
    array = multihost_utils.process_allgather(array, tiled=True)
  array = np.asarray(array)
  return array if array.dtype == bool else array.astype(np.float64)


def _sum_valid(tree, valid: np.ndarray):
  return jax.tree.map(lambda x: _gather(x)[valid].sum(0), tree)


def _aggregate(means: np.ndarray, finish) -> dict:
  cumulative = np.cumsum(means) / np.arange(1, len(means) + 1)
  return {
    'per_frame': [float(finish(x)) for x in means],
    'cumulative': [float(finish(x)) for x in cumulative],
    'mean': float(finish(means.mean())),
  }


def _json(value) -> str:
  """JSON proper: it has no infinity, so 'inf' (PSNR of equal frames)."""

  def plain(x):
    if isinstance(x, dict):
      return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
      return [plain(v) for v in x]
    return str(x) if isinstance(x, float) and not np.isfinite(x) else x

  return json.dumps(plain(value), indent=2, allow_nan=False) + '\n'


def table(result: Result, frames: systems.Frames) -> str:
  """The result as text: a row per metric and source, a column per frame."""
  last = max(frames.context)
  columns = [f't{t - last:+d}' for t in frames.target] + ['mean']
  width = max(map(len, result.values['prediction']), default=0) + 2
  lines = [' ' * (width + 12) + ''.join(f'{c:>10}' for c in columns)]
  for name in result.values['prediction']:
    for source, by_metric in result.values.items():
      numbers = [*by_metric[name]['per_frame'], by_metric[name]['mean']]
      label = f'{name:{width}}' if source == 'prediction' else ' ' * width
      lines.append(
        f'{label}{source:12}' + ''.join(f'{x:10.4f}' for x in numbers)
      )
  if result.blocks:
    used = ' '.join(f'{x:.2f}' for x in result.blocks)
    lines.append(
      f'blocks used: {sum(result.blocks):.2f} of {len(result.blocks)} ({used})'
    )
  if result.skipped:
    lines.append(f'frames are too small for {", ".join(result.skipped)}')
  return '\n'.join(lines)


# ------------------------------------------------------- from a configuration


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
    if name.endswith('/latitude'):
      if source.kind != 'field' or source.latitudes is None:
        raise ValueError(
          f'{name} needs physical fields with latitudes; {source!r} has none.'
        )
      extra['latitudes'] = source.latitudes
    measures[name] = metrics.make(name, **extra)
  _check_kind(_field(source), measures)
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


def make_source(config, system):
  """The split that is evaluated on."""
  settings = protocol_data(config)
  return data.make_source(
    settings.pop('source'),
    split='test',
    num_frames=system.frames.length,
    **settings,
  )


def _field(source):
  return (source.mean, source.std) if source.kind == 'field' else None


class Protocol(NamedTuple):
  """What `config.eval` describes: made once in a run, for it may read for long.

  Attributes:
    system: what is evaluated, for the frames of the evaluation.
    source: the split that is evaluated on.
    measures: `{name: metrics.Metric}`.
  """

  system: systems.System
  source: Any
  measures: dict[str, metrics.Metric]


def check(config) -> Protocol:
  """The protocol of a configuration; raises what would keep it from being."""
  system = make_system(config, config.eval.frames)
  source = make_source(config, system)
  return Protocol(system, source, make_measures(config, source))


def measure(
  config, variables, mesh, protocol: Protocol, *, limit=None, show=0
) -> Result:
  """Evaluates variables by `protocol`, which is that of `config`."""
  system, source, measures = protocol
  processes = jax.process_count()
  batches = data.eval_batches(
    source,
    batch_size=-(-config.eval.batch_size // processes) * processes,
    process_index=jax.process_index(),
    process_count=processes,
    limit=limit or config.eval.limit or None,
  )
  result = evaluate(
    system,
    variables,
    batches,
    measures,
    key=jax.random.key(config.eval.seed),
    mesh=mesh,
    show=show,
    field=_field(source),
  )
  return result._replace(data=repr(source))


def quick(config, variables, mesh, protocol: Protocol) -> dict[str, float]:
  """Mean of each metric on some clips of the split, while training."""
  limit = config.eval.quick_limit
  result = measure(config, variables, mesh, protocol, limit=limit)
  return {k: v['mean'] for k, v in result.values['prediction'].items()}


def run(config, workdir: str, protocol: Protocol | None = None) -> dict:
  """Evaluates the weights in `workdir`; writes `results.json` and pictures.

  Where `workdir` holds no weights, those of `config.init_from` are taken.

  Args:
    config: the configuration.
    workdir: the run's folder.
    protocol: what `check(config)` gave, if it was called.

  Returns:
    What was written to `results.json`.
  """
  workdir = pathlib.Path(workdir)
  has_run = (workdir / 'export').exists() or (workdir / 'checkpoints').exists()
  if not has_run and not config.init_from:
    raise FileNotFoundError(
      f'{workdir} holds no weights; train first, or name some by init_from.'
    )
  source = workdir if has_run else config.init_from
  record, variables = checkpoint.read(source)
  if record['system'] != config.system:
    raise ValueError(
      f'{source} holds weights of {record["system"]!r}, the configuration is '
      f'for {config.system!r}.'
    )
  frames = config.eval.frames
  variables = checkpoint.fitted(
    source, record, make_system(config, frames), variables
  )
  mesh = runtime.mesh()
  variables = jax.device_put(variables, runtime.replicated(mesh))
  protocol = protocol or check(config)
  result = measure(config, variables, mesh, protocol, show=config.eval.show)
  settings = protocol_data(config)
  report = {
    'system': config.system,
    'checkpoint': record['sha256'],
    'protocol': {
      'model': config.model.to_dict(),
      'data': settings,
      'source': result.data,
      'split': 'test',
      'context': list(frames.context),
      'target': list(frames.target),
      'aggregation': ['per_frame', 'cumulative', 'mean'],
      'skipped_metrics': result.skipped,
    },
    'clips': result.clips,
    'seed': config.eval.seed,
    'versions': _versions(),
    'metrics': result.values['prediction'],
    'baselines': {k: v for k, v in result.values.items() if k != 'prediction'},
  }
  if result.blocks is not None:
    report['blocks_used'] = result.blocks
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(workdir / 'results.json', _json(report))
    print(f'\n{result.clips} clips of {result.data}')
    print(table(result, systems.Frames(frames.context, frames.target)))
    written = ['results.json', *_show(result, config, workdir)]
    print(f'Written to {workdir}: {", ".join(written)}')
  return report


def _versions() -> dict[str, str]:
  names = ('vidpred_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'av')
  found = {name: importlib.metadata.version(name) for name in names}
  device = jax.devices()[0].device_kind
  return {'python': platform.python_version(), 'device': device, **found}


def _show(result: Result, config, workdir: pathlib.Path) -> list[str]:
  """Writes the kept clips as one picture and one film."""
  if not result.shown:
    return []
  shown = result.shown
  clips = []
  for i, video in enumerate(shown['video']):
    context, target, prediction = _as_images(
      video[list(config.eval.frames.context)],
      video[list(config.eval.frames.target)],
      shown['frames'][i],
    )
    optional = {k: shown[k][i] for k in ('flow', 'blocks') if k in shown}
    clips.append(
      {
        'context': context,
        'prediction': prediction,
        'target': target,
        'title': f'clip {i}',
        **optional,
      }
    )
  count = len(config.eval.frames.target)
  steps = sorted({0, count - 1})
  picture.save_png(
    workdir / 'picture.png', picture.demo_grid(clips, steps=steps)
  )
  film = f'video.{config.eval.show_as}'
  with video_io.Writer(
    workdir / film, fps=config.eval.show_fps, overwrite=True
  ) as writer:
    for clip in clips:
      for frame in picture.demo_frames(**clip):
        writer.write(frame)
  return ['picture.png', film]


def _as_images(context, target, prediction):
  """Frames that can be looked at: images as they are, else the first channel.

  Its greys run from the least to the greatest of what was true.
  """
  if context.dtype == np.uint8 and context.shape[-1] in (1, 3):
    return context, target, prediction
  if context.dtype == np.uint8:
    context, target = context / 255, target / 255
  true = np.concatenate([context, target])[..., :1]
  low, high = true.min(), true.max()
  span = max(high - low, 1e-6)
  return [(x[..., :1] - low) / span for x in (context, target, prediction)]
