"""Clips are predicted and measured: scores of a system and of baselines.

Clips come as a stream. Values per clip and target frame are computed on the
devices and summed in float64 on the host in the order of the clips, so that the
numbers do not depend on the number of devices. Aggregations are named:
`per_frame[k]`, `cumulative[k]` (mean over target frames 0..k, which is what
DMVFN's published tables list) and `mean` over all.

A stochastic system gives S samples of each clip (`systems.sampling`). Every
clip has a key by its number in the stream, so what is drawn depends neither on
the batch size nor on the devices. Ensemble metrics see all samples, the others
are averaged over them, `_best` ones take the best sample of the clip. A
deterministic prediction, as every baseline, is an ensemble of one: its CRPS is
its absolute error.

A batch is one call: the bar counts its clips when all their samples are drawn
and measured. Over devices the clips of a batch are divided, not their samples:
a batch of fewer clips than devices is filled up with copies that do not count.
A device holds all samples of its clips at once, about twice (as compiled for a
CPU): 8 S N H W C bytes for each clip, beside what drawing `at_once` of them
takes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from vidpred_jax import metrics, runtime, systems
from vidpred_jax.metrics import distribution
from vidpred_jax.systems import base, sampling

_SHOWN_SAMPLES = 3


class Result(NamedTuple):
  """What an evaluation gives.

  Attributes:
    clips: how many clips were predicted.
    samples: S, how many times each.
    values: `{source: {metric: {'per_frame': [N], 'cumulative': [N], 'mean': x,
      ...}}}`, the sources being `'prediction'` and the baselines. A metric of
      sets has empty lists, and beside `'mean'` what it was computed from.
    blocks: mean use of each block [K] where the system routes, else None.
    shown: the first clips as host arrays, a dict of lists: `'video'`,
      `'frames'` (the first sample), what `System.explain` gives, and of a
      stochastic system `'drawn'`, `'average'`, `'spread'` and `'crps'`, as for
      `report.write_pictures`.
    skipped: metrics that are not defined on frames this small.
    data: what the source says of itself.
  """

  clips: int
  samples: int
  values: dict[str, dict[str, dict[str, Any]]]
  blocks: list[float] | None
  shown: dict[str, list[np.ndarray]]
  skipped: list[str]
  data: str = ''


def baselines(
  frames: systems.Frames, context: jax.Array, mean_frame=None
) -> dict:
  """Predictions that need no model, each [B, N, H, W, C].

  `'copy_last'` repeats the last context frame; between frames there is also
  `'average'`, the blend of the first and last context frame by time. With
  `mean_frame` [H, W, C] there is `'mean_frame'`, which is always this one.
  """
  count = len(frames.target)
  result = {'copy_last': jnp.repeat(context[:, -1:], count, axis=1)}
  if frames.interpolates:
    first, last = min(frames.context), max(frames.context)
    time = (jnp.array(frames.target) - first) / (last - first)
    time = time.reshape(1, -1, 1, 1, 1).astype(context.dtype)
    result['average'] = context[:, :1] * (1 - time) + context[:, -1:] * time
  if mean_frame is not None:
    frame = jnp.asarray(mean_frame, context.dtype)[None, None]
    result['mean_frame'] = jnp.broadcast_to(
      frame, (len(context), count, *frame.shape[2:])
    )
  return result


def make_eval_step(
  system: systems.System,
  measures: dict,
  mesh,
  field=None,
  *,
  samples: int = 1,
  at_once: int | None = None,
  mean_frame=None,
  show: bool = False,
):
  """A function `(variables, video, numbers, key) -> dict`; not yet compiled.

  Args:
    system: what to evaluate.
    measures: `{name: metrics.Metric or metrics.SetMetric}`.
    mesh: from `runtime.mesh`.
    field: as for `evaluate`, as are `samples`, `at_once` and `mean_frame`.
    show: whether to give what is shown of samples.

  Returns:
    The step. `numbers`, int [B], are those of the clips. It gives `'values'`
    {source: {metric: [B, N] or [B, N, K]}}, `'features'` {metric: {'truth' or
    source: [B, S, D]}}, `'frames'` [B, N, H, W, C], and what else
    `Result.shown` has.
  """
  pairs = {k: m for k, m in measures.items() if isinstance(m, metrics.Metric)}
  sets = {k: m for k, m in measures.items() if k not in pairs}
  times = np.argsort(system.frames.context + system.frames.target)
  explain = system.explain or (lambda *args: (system.predict(*args), {}))

  def predict(variables, context, keys):
    if system.stochastic:
      return sampling.draw(explain, variables, context, keys, samples, at_once)
    return jax.tree.map(lambda x: x[None], explain(variables, context, keys[0]))

  if mesh.size > 1:
    # Each device by itself: a system may loop over its clips.
    every, batch = PartitionSpec(), PartitionSpec('data')
    predict = jax.shard_map(
      predict,
      mesh=mesh,
      in_specs=(every, batch, batch),
      out_specs=PartitionSpec(None, 'data'),
      check_vma=False,
    )

  def in_units(frames):
    if field is None:
      return frames
    shape = (1,) * (frames.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(x, jnp.float32).reshape(shape) for x in field)
    return frames * std + mean

  def features(metric, context, frames):
    if metric.context:
      frames = jnp.concatenate([context, frames], axis=1)
      frames = base.take(frames, times)
    return metric.features(frames)

  def eval_step(variables, video, numbers, key):
    video = base.as_float(video)
    context = base.take(video, system.frames.context)
    true = base.take(video, system.frames.target)
    target = in_units(true)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    drawn, details = predict(variables, context, keys)
    others = baselines(system.frames, context, mean_frame)
    forecasts = {
      'prediction': drawn,
      **{source: frames[None] for source, frames in others.items()},
    }
    out = {
      'values': {
        source: metrics.of_samples(pairs, in_units(forecast), target)
        for source, forecast in forecasts.items()
      },
      'features': {
        name: {
          source: jnp.moveaxis(
            jax.lax.map(functools.partial(features, metric, context), forecast),
            0,
            1,
          )
          for source, forecast in {'truth': true[None], **forecasts}.items()
        }
        for name, metric in sets.items()
      },
      'frames': drawn[0],
      **{k: x[0] for k, x in details.items()},
    }
    if 'blocks' in details:
      out['blocks'] = details['blocks'].mean(0)
    if show and system.stochastic:
      unit = 1 if field else 255
      drawn = drawn if field else jnp.clip(drawn, 0, 1)
      told = in_units(drawn)
      out |= {
        'drawn': jnp.moveaxis(drawn[:_SHOWN_SAMPLES], 0, 1),
        'average': drawn.mean(0),
        'spread': unit * told.std(0),
        'crps': unit * distribution.crps_map(told, target),
      }
    return out

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
  samples: int = 1,
  at_once: int | None = None,
  mean_frame=None,
) -> Result:
  """Measures a system on a stream of batches.

  Args:
    system: what to evaluate.
    variables: its variables.
    batches: `dict(video=[B, T, H, W, C], valid=bool [B])` each, as from
      `data.eval_batches`.
    measures: `{name: metrics.Metric or metrics.SetMetric}`.
    key: clip i of the stream is predicted with `fold_in(key, i)`, its sample s
      with `fold_in` of that and s.
    mesh: from `runtime.mesh`; None for one of all devices.
    show: keep this many clips for pictures.
    field: None if the clips are images; for physical fields `(mean, std)`, each
      [C] or a number: the clips are normalised by them and measured in the
      field's own units.
    samples: S, of a stochastic system.
    at_once: at most so many samples of each clip are drawn together, which
      bounds memory; None: all.
    mean_frame: [H, W, C] as the clips are, a baseline; None: without it.

  Returns:
    A `Result`.

  Raises:
    ValueError: if there is no clip, or a metric does not suit the clips or the
      number of samples.
  """
  mesh = mesh or runtime.mesh()
  sharding = runtime.batch_sharding(mesh)
  measures = dict(measures)
  metrics.check_kind(field, measures)
  metrics.check_samples(system, samples, measures)
  skipped, step = [], None
  clips, sums, block_sum, shown, features = 0, None, 0.0, {}, []
  bar = tqdm.tqdm(
    desc='evaluate',
    unit=' clips',
    disable=jax.process_index() > 0,
    leave=False,
  )
  for index, batch in enumerate(batches):
    video, valid = _pad(batch['video'], np.asarray(batch['valid']))
    if step is None:
      side = min(video.shape[2:4])
      skipped = [k for k, m in measures.items() if side < m.minimum_size]
      measures = {k: m for k, m in measures.items() if k not in skipped}
      step = make_eval_step(
        system,
        measures,
        mesh,
        field,
        samples=samples,
        at_once=at_once,
        mean_frame=mean_frame,
        show=show > 0,
      )
      step = runtime.jit(step, system.cpu_options)
    local = len(batch['video'])
    start = (index * jax.process_count() + jax.process_index()) * local
    numbers = start + np.arange(len(video), dtype=np.int32)
    out = step(
      variables,
      jax.make_array_from_process_local_data(sharding, video),
      jax.make_array_from_process_local_data(sharding, numbers),
      key,
    )
    valid = _gather(valid)
    values = _sum_valid(out.pop('values'), valid)
    sums = values if sums is None else jax.tree.map(np.add, sums, values)
    features.append(_valid(out.pop('features'), valid))
    clips += int(valid.sum())
    bar.update(int(valid.sum()))
    if 'blocks' in out:
      block_sum = block_sum + _gather(out['blocks'])[valid].mean(1).sum(0)
    missing = show - len(shown.get('video', ()))
    if missing > 0 and jax.process_count() == 1:
      for name, array in {'video': video, **out}.items():
        kept = np.asarray(array)[valid][:missing]
        shown.setdefault(name, []).extend(kept)
  bar.close()
  if not clips:
    raise ValueError('There is no clip to evaluate.')
  features = jax.tree.map(lambda *rows: np.concatenate(rows), *features)
  values = {
    source: {
      k: _aggregate(sums[source][k] / clips, m)
      if isinstance(m, metrics.Metric)
      else _of_sets(
        m, system.frames, video.shape, features[k]['truth'], features[k][source]
      )
      for k, m in measures.items()
    }
    for source in sorted(sums, key=lambda s: s != 'prediction')
  }
  blocks = None
  if np.ndim(block_sum):
    blocks = [round(float(x), 6) for x in block_sum / clips]
  return Result(clips, samples, values, blocks, shown, skipped)


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


def _valid(tree, valid: np.ndarray):
  return jax.tree.map(lambda x: _gather(x)[valid].astype(np.float32), tree)


def _sum_valid(tree, valid: np.ndarray):
  return jax.tree.map(lambda x: _gather(x)[valid].sum(0), tree)


def _aggregate(means: np.ndarray, metric: metrics.Metric) -> dict:
  """Of the means over clips, [N] or [N, K]."""
  counts = np.arange(1, len(means) + 1)
  cumulative = (np.cumsum(means, axis=0).T / counts).T
  mean = means.mean(0)
  return {
    'per_frame': [float(metric.finish(x)) for x in means],
    'cumulative': [float(metric.finish(x)) for x in cumulative],
    'mean': float(metric.finish(mean)),
    **(metric.details(mean) if metric.details else {}),
  }


def _of_sets(metric: metrics.SetMetric, asked, shape, real, generated) -> dict:
  """The same of features [M, 1, D] and [M, S, D] of clips of a shape."""
  found = metric.distance(real[:, 0], generated)
  context = len(asked.context) * metric.context
  about = {
    'frames_per_video': context + len(asked.target),
    'context_frames': context,  # of these
    'video_size': list(shape[2:4]),  # before it is made `size`
    **metric.about,
  }
  return {'per_frame': [], 'cumulative': [], **found, **about}
