"""Scores of a system and of baselines: predicts clips and measures them.

Clips are a stream of batches. Devices compute the values per clip and target
frame. The host sums them in float64 in the order of the clips, so the numbers
do not depend on the number of devices. Aggregations are named: `per_frame[k]`,
`cumulative[k]` (the mean over target frames 0..k, which DMVFN's published
tables list) and `mean` over all frames.

A stochastic system draws S samples of each clip (`systems.sampling`). The key
of a clip follows from its number in the stream, so the samples depend neither
on the batch size nor on the devices. Ensemble metrics see all samples. Other
metrics are averaged over the samples; `_best` metrics take the best sample of
the clip. A deterministic prediction, like every baseline, is an ensemble of
one: its CRPS is its absolute error.

A batch is one call; the progress bar advances when all samples of its clips are
measured. Devices share the clips of a batch, not the samples of a clip. A batch
with fewer clips than devices is filled up with copies, which do not count.
Memory: about 8 S N H W C bytes per clip on each device (two float32 copies of
all samples, as compiled for a CPU), plus what drawing `at_once` samples needs.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from vidpred_jax import metrics, runtime, systems
from vidpred_jax.evaluate import baselines, report
from vidpred_jax.metrics import distribution
from vidpred_jax.systems import base, sampling

_SHOWN_SAMPLES = 3


class Result(NamedTuple):
  """The result of an evaluation.

  Attributes:
    clips: the number of clips.
    samples: S, the number of samples of each clip.
    values: `{source: {metric: {'per_frame': [N], 'cumulative': [N], 'mean': x,
      ...}}}` for the sources `'prediction'` and the baselines. A metric of sets
      has empty lists, and further entries that say what it was computed from.
      A metric with one number per clip also has `'interval'`, [low, high]: its
      mean over clips plus and minus 1.96 standard errors.
    blocks: mean use of each block [K] over clips and frames, if the system
      routes, else None.
    shown: the first clips, for pictures.
    skipped: metrics that are undefined for frames of this size.
    data: `repr` of the source.
    clips_per_second: from loading to measuring, but for the first batch, which
      is compiled; None of one batch. `vidpred_jax.cost` times the model alone.
    spec: the data of the clips.
  """

  clips: int
  samples: int
  values: dict[str, dict[str, dict[str, Any]]]
  blocks: list[float] | None
  shown: list[report.Shown]
  skipped: list[str]
  data: str = ''
  clips_per_second: float | None = None
  spec: systems.DataSpec = systems.DataSpec()


def make_eval_step(
  system: systems.System,
  measures: dict,
  mesh,
  *,
  samples: int = 1,
  at_once: int | None = None,
  mean_frame=None,
  show: bool = False,
):
  """Makes the step `(variables, video, numbers, key) -> dict`, not compiled.

  Args:
    system: the system to evaluate.
    measures: `{name: metrics.Metric or metrics.SetMetric}`.
    mesh: from `runtime.mesh`.
    samples: as for `make_evaluator`.
    at_once: as for `make_evaluator`.
    mean_frame: as for `make_evaluator`.
    show: whether the result has the arrays for pictures.

  Returns:
    The step. `numbers`, int [B], are the clips' numbers in the stream. The
    result has `'values'` {source: {metric: [B, N] or [B, N, K]}}, `'features'`
    {metric: {'truth' or source: [B, S, D]}}, `'blocks'` [B, N, K] if the system
    routes, and with `show` also `'shown'`, a dict of fields of `report.Shown`
    with a leading axis B.
  """
  pairs = {k: m for k, m in measures.items() if isinstance(m, metrics.Metric)}
  sets = {k: m for k, m in measures.items() if k not in pairs}
  predict = _over_devices(_forecast(system, samples, at_once), mesh)
  in_units = system.data.in_units

  def eval_step(variables, video, numbers, key):
    video = base.as_float(video)
    context = base.take(video, system.frames.context)
    true = base.take(video, system.frames.target)
    target = in_units(true)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    drawn, diagnostics = predict(variables, context, keys)
    simple = baselines.predict(system.frames, context, mean_frame=mean_frame)
    forecasts = {
      'prediction': drawn,
      **{source: frames[None] for source, frames in simple.items()},
    }
    out = {
      'values': {
        source: metrics.of_samples(pairs, in_units(forecast), target)
        for source, forecast in forecasts.items()
      },
      'features': {
        name: {
          source: _features(metric, system.frames, context, forecast)
          for source, forecast in {'truth': true[None], **forecasts}.items()
        }
        for name, metric in sets.items()
      },
    }
    if 'blocks' in diagnostics:
      out['blocks'] = diagnostics['blocks'].mean(0)
    if show:
      out['shown'] = {'prediction': drawn[0]}
      if 'flow' in diagnostics:
        out['shown']['flow'] = diagnostics['flow'][0]
      if 'blocks' in diagnostics:
        out['shown']['blocks'] = out['blocks']
      if system.stochastic:
        out['shown'] |= _shown_samples(system.data, drawn, target)
    return out

  return eval_step


def _forecast(system, samples, at_once):
  """Makes `(variables, context, keys) -> (frames, diagnostics)`, S leading."""
  diagnostics = system.diagnostics or (
    lambda *args: (system.predict(*args), {})
  )

  def predict(variables, context, keys):
    if system.stochastic:
      return sampling.draw(
        diagnostics, variables, context, keys, samples, at_once
      )
    return jax.tree.map(
      lambda x: x[None], diagnostics(variables, context, keys[0])
    )

  return predict


def _over_devices(predict, mesh):
  """Maps over devices; each runs alone, since a system may loop over clips."""
  if mesh.size == 1:
    return predict
  every, batch = PartitionSpec(), PartitionSpec('data')
  return jax.shard_map(
    predict,
    mesh=mesh,
    in_specs=(every, batch, batch),
    out_specs=PartitionSpec(None, 'data'),
    check_vma=False,
  )


def _features(metric, frames: systems.Frames, context, forecast):
  """[B, S, D] of a forecast [S, B, N, H, W, C]."""
  times = np.argsort(frames.context + frames.target)

  def of_sample(video):
    if metric.context:
      video = base.take(jnp.concatenate([context, video], axis=1), times)
    return metric.features(video)

  return jnp.moveaxis(jax.lax.map(of_sample, forecast), 0, 1)


def _shown_samples(data: systems.DataSpec, drawn, target) -> dict:
  """The arrays for pictures of samples [S, B, N, H, W, C]."""
  unit = 1 if data.is_field else 255
  drawn = drawn if data.is_field else jnp.clip(drawn, 0, 1)
  in_units = data.in_units(drawn)
  return {
    'samples': jnp.moveaxis(drawn[:_SHOWN_SAMPLES], 0, 1),
    'mean': drawn.mean(0),
    'spread': unit * in_units.std(0),
    'crps': unit * distribution.crps_map(in_units, target),
  }


def make_evaluator(
  system: systems.System,
  measures: dict,
  *,
  mesh=None,
  show: int = 0,
  samples: int = 1,
  at_once: int | None = None,
  mean_frame=None,
) -> Callable[..., Result]:
  """Makes a function that measures a system; it is compiled once, when called.

  Args:
    system: the system to evaluate. Physical fields (`system.data`) are measured
      in their own units.
    measures: `{name: metrics.Metric or metrics.SetMetric}`.
    mesh: from `runtime.mesh`; None for one of all devices.
    show: the number of clips kept for pictures.
    samples: S, of a stochastic system.
    at_once: the largest number of samples of a clip that are drawn together,
      which bounds memory; None: all.
    mean_frame: [H, W, C], in the clips' values, a baseline; None: without it.

  Returns:
    A function `(variables, batches, key) -> Result`. `batches` are
    `dict(video=[B, T, H, W, C], valid=bool [B])`, as from `data.eval_batches`;
    clip i of the stream is predicted with `fold_in(key, i)`, its sample s with
    `fold_in` of that and s. It raises ValueError if there is no clip.

  Raises:
    ValueError: if a metric does not suit the clips or the number of samples.
  """
  mesh = mesh or runtime.mesh()
  measures = dict(measures)
  metrics.check_kind(system.data.kind, measures)
  metrics.check_samples(system, samples, measures)

  @functools.cache
  def compiled(names: tuple[str, ...]):
    step = make_eval_step(
      system,
      {name: measures[name] for name in names},
      mesh,
      samples=samples,
      at_once=at_once,
      mean_frame=mean_frame,
      show=show > 0,
    )
    return runtime.jit(step, system.cpu_options)

  def measure(variables, batches, key) -> Result:
    used, total, shown = (), None, []
    begin, first = 0.0, 0
    with _bar() as bar:
      for index, batch in enumerate(batches):
        video, valid = _pad(batch['video'], np.asarray(batch['valid']))
        if total is None:
          side = min(video.shape[2:4])
          used = tuple(k for k, m in measures.items() if side >= m.minimum_size)
        local = len(batch['video'])
        start = (index * jax.process_count() + jax.process_index()) * local
        numbers = start + np.arange(len(video), dtype=np.int32)
        split = functools.partial(
          jax.make_array_from_process_local_data, runtime.batch_sharding(mesh)
        )
        out = compiled(used)(variables, split(video), split(numbers), key)
        valid = _gather(valid)
        part = _of_batch(out, valid)
        if total is None:  # and compiled
          begin, first = time.perf_counter(), part.clips
        total = part if total is None else _added(total, part)
        bar.set_description('evaluate', refresh=False)
        bar.update(part.clips)
        if len(shown) < show and jax.process_count() == 1:
          shown += _shown_clips(video, out['shown'], valid)
    if not (total and total.clips):
      raise ValueError('There is no clip to evaluate.')
    rest, took = total.clips - first, time.perf_counter() - begin
    return Result(
      total.clips,
      samples,
      _values(
        total, {k: measures[k] for k in used}, system.frames, video.shape
      ),
      _use_of_blocks(total),
      shown[:show],
      [k for k in measures if k not in used],
      clips_per_second=rest / took if rest else None,
      spec=system.data,
    )

  return measure


def evaluate(
  system: systems.System, variables, batches, measures: dict, *, key, **options
) -> Result:
  """Measures a system once; arguments as for `make_evaluator`."""
  return make_evaluator(system, measures, **options)(variables, batches, key)


class _Sums(NamedTuple):
  """Sums over the clips so far, on the host."""

  clips: int
  values: dict  # {source: {metric: [N] or [N, K]}}, sums over clips, float64
  squares: dict  # {source: {metric: [] or [K]}}, of means over frames
  features: list  # of a batch each
  blocks: np.ndarray | None  # [K], sums over clips


def _of_batch(out, valid: np.ndarray) -> _Sums:
  blocks = None
  if 'blocks' in out:
    blocks = _gather(out['blocks'])[valid].mean(1).sum(0)
  return _Sums(
    int(valid.sum()),
    _sum_valid(out['values'], valid),
    _sum_valid(out['values'], valid, lambda x: x.mean(1) ** 2),
    [_valid(out['features'], valid)],
    blocks,
  )


def _added(total: _Sums, part: _Sums) -> _Sums:
  return _Sums(
    total.clips + part.clips,
    jax.tree.map(np.add, total.values, part.values),
    jax.tree.map(np.add, total.squares, part.squares),
    total.features + part.features,
    None if part.blocks is None else total.blocks + part.blocks,
  )


def _values(total: _Sums, measures, frames, shape) -> dict:
  """`Result.values`; `shape` is that of a batch of clips."""
  features = jax.tree.map(lambda *rows: np.concatenate(rows), *total.features)
  return {
    source: {
      k: _aggregate(
        total.values[source][k] / total.clips,
        total.squares[source][k] / total.clips,
        total.clips,
        m,
      )
      if isinstance(m, metrics.Metric)
      else _of_sets(m, frames, shape, features[k]['truth'], features[k][source])
      for k, m in measures.items()
    }
    for source in sorted(total.values, key=lambda s: s != 'prediction')
  }


def _use_of_blocks(total: _Sums) -> list[float] | None:
  if total.blocks is None:
    return None
  return [round(float(x), 6) for x in total.blocks / total.clips]


def _shown_clips(video, arrays, valid: np.ndarray) -> list[report.Shown]:
  arrays = {'video': video, **arrays}
  rows = {name: np.asarray(array)[valid] for name, array in arrays.items()}
  return [
    report.Shown(**{name: array[i] for name, array in rows.items()})
    for i in range(int(valid.sum()))
  ]


def _bar() -> tqdm.tqdm:
  return tqdm.tqdm(
    desc='compiling',
    unit=' clips',
    disable=jax.process_index() > 0,
    leave=False,
  )


def _pad(video, valid):
  """Fills up a batch with copies, not valid, until the devices divide it."""
  missing = -len(video) % jax.local_device_count()
  if missing:
    video = np.concatenate([video, np.repeat(video[-1:], missing, axis=0)])
    valid = np.concatenate([valid, np.zeros(missing, bool)])
  return video, valid


def _gather(array) -> np.ndarray:
  """Gathers the rows of all processes on the host, as float64 or bool."""
  if jax.process_count() > 1:
    array = multihost_utils.process_allgather(array, tiled=True)
  array = np.asarray(array)
  return array if array.dtype == bool else array.astype(np.float64)


def _valid(tree, valid: np.ndarray):
  return jax.tree.map(lambda x: _gather(x)[valid].astype(np.float32), tree)


def _sum_valid(tree, valid: np.ndarray, of=lambda x: x):
  return jax.tree.map(lambda x: of(_gather(x)[valid]).sum(0), tree)


def _aggregate(means, square, clips: int, metric: metrics.Metric) -> dict:
  """The values of a metric of a source.

  Args:
    means: means over clips for each frame, [N] or [N, K].
    square: mean over clips of the squared mean over frames, [] or [K].
    clips: number of clips.
    metric: the metric.
  """
  counts = np.arange(1, len(means) + 1)
  cumulative = (np.cumsum(means, axis=0).T / counts).T
  mean = means.mean(0)
  return {
    'per_frame': [float(metric.finish(x)) for x in means],
    'cumulative': [float(metric.finish(x)) for x in cumulative],
    'mean': float(metric.finish(mean)),
    **_interval(mean, square, clips, metric),
    **(metric.details(mean) if metric.details else {}),
  }


def _interval(mean, square, clips: int, metric: metrics.Metric) -> dict:
  """`{'interval': [low, high]}` of a mean over clips, or {} without one."""
  if clips < 2 or np.ndim(mean) or not np.isfinite(square):
    return {}
  half = 1.96 * math.sqrt(max(square - mean**2, 0) / (clips - 1))
  with np.errstate(invalid='ignore'):  # the root of less than nothing
    ends = [float(metric.finish(x)) for x in (mean - half, mean + half)]
  return {'interval': ends} if np.isfinite(ends).all() else {}


def _of_sets(metric: metrics.SetMetric, frames, shape, real, generated) -> dict:
  """The distance of features [M, 1, D] and [M, S, D], in the same form."""
  distance = metric.distance(real[:, 0], generated)
  context = len(frames.context) * metric.context
  about = {
    'frames_per_video': context + len(frames.target),
    'context_frames': context,  # of these
    'video_size': list(shape[2:4]),  # before it is made `size`
    **metric.about,
  }
  return {'per_frame': [], 'cumulative': [], **distance, **about}
