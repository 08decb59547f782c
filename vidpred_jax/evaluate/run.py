"""Runs the evaluation of a configuration and writes `results.json`.

`config.eval` names the data, the frames, the metrics and the number of samples.
`scoring` predicts and measures; `report` writes the results.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax

from vidpred_jax import atomic, build, checkpoint, data, runtime, systems
from vidpred_jax.checkpoint import mirror
from vidpred_jax.evaluate import card, report, scoring


def make_measure(
  config, evaluation: build.Evaluation
) -> Callable[..., scoring.Result]:
  """Makes a function that measures weights; it is compiled once, when called.

  Args:
    config: the configuration.
    evaluation: its evaluation, `build.evaluation(config)`.

  Returns:
    A function `(variables, limit=None, clips=None) -> scoring.Result`; `limit`
    is a number of clips in place of `config.eval.limit`, `clips` a source in
    place of that of `evaluation`, with clips of the same kind.
  """
  system, source, measures, mean_frame = evaluation
  score = scoring.make_evaluator(
    system,
    measures,
    show=max(config.eval.show, config.eval.save),
    samples=config.eval.samples,
    at_once=config.eval.samples_at_once or None,
    mean_frame=mean_frame,
  )

  def measure(
    variables, limit: int | None = None, clips=None
  ) -> scoring.Result:
    processes = jax.process_count()
    clips = source if clips is None else clips
    batches = data.eval_batches(
      clips,
      batch_size=-(-config.eval.batch_size // processes) * processes,
      process_index=jax.process_index(),
      process_count=processes,
      limit=limit or config.eval.limit or None,
    )
    result = score(variables, batches, jax.random.key(config.eval.seed))
    return result._replace(data=repr(clips))

  return measure


def quick_eval(config, variables, measure: Callable, clips) -> dict[str, float]:
  """The mean of each metric on some clips of a source, during training."""
  result = measure(variables, config.eval.quick_limit, clips)
  return {k: v['mean'] for k, v in result.values['prediction'].items()}


def run(
  config,
  workdir: str,
  measure: Callable | None = None,
  *,
  sources: Mapping[str, Any] | None = None,
) -> dict:
  """Evaluates the weights in `workdir`; writes `results.json` and pictures.

  Where `workdir` holds no weights, those of `config.init_from` are taken.

  Args:
    config: the configuration.
    workdir: the run's folder, or an address, see `checkpoint.mirror`.
    measure: the result of `make_measure`, if it was called.
    sources: objects that clips come from instead of `config.data`, by split.

  Returns:
    What was written to `results.json`.

  Raises:
    FileNotFoundError: if there are no weights.
    ValueError: if they are not those of the configuration's system, or another
      process is in that folder.
  """
  config = build.completed(config, sources)
  with contextlib.ExitStack() as stack:
    folder, _ = stack.enter_context(mirror.working(workdir))
    record, variables = _weights(config, folder)
    if jax.process_index() == 0:
      folder.mkdir(parents=True, exist_ok=True)
      stack.enter_context(atomic.holding(folder))
    measure = measure or make_measure(config, build.evaluation(config, sources))
    return _run(config, folder, workdir, measure, record, variables)


def _run(config, folder, workdir, measure, record, variables) -> dict:
  result = measure(variables)
  written = _results(config, record, result)
  if jax.process_index() == 0:
    # First, so that a full disk does not lose the numbers.
    each = f' {result.samples} times each' if result.samples > 1 else ''
    print(f'\n{result.clips} clips{each} of {result.data}')
    print(table(result, systems.Frames(**config.eval.frames)), flush=True)
    text = report.as_json(written)
    atomic.write_text(folder / 'results.json', text)
    if (folder / 'export').is_dir():
      name = os.path.basename(os.fspath(workdir).rstrip('/'))
      said = card.text(name, config, json.loads(text))
      atomic.write_text(folder / 'export' / 'README.md', said)
    files = ['results.json', *_show(result, config, folder)]
    print(f'Written to {workdir}: {", ".join(files)}')
  return written


def _weights(config, workdir: pathlib.Path):
  """The record and the variables of a run or of `config.init_from`."""
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
  system = build.system(config, config.eval.frames)
  variables = checkpoint.check_variables(source, record, system, variables)
  return record, jax.device_put(variables, runtime.replicated(runtime.mesh()))


def _results(config, record, result: scoring.Result) -> dict:
  """The content of `results.json`."""
  frames = config.eval.frames
  results = {
    'system': config.system,
    'checkpoint': record['sha256'],
    'protocol': {
      'model': config.model.to_dict(),
      'data': build.evaluated_data(config),
      'source': result.data,
      'split': config.eval.split,
      'context': list(frames.context),
      'target': list(frames.target),
      'samples': result.samples,
      'mean_frame_of_clips': config.eval.mean_frame,
      'aggregation': ['per_frame', 'cumulative', 'mean'],
      'metric_weights': _metric_weights(config),
      'skipped_metrics': result.skipped,
    },
    'clips': result.clips,
    'seed': config.eval.seed,
    'versions': _versions(),
    'metrics': result.values['prediction'],
    'baselines': {k: v for k, v in result.values.items() if k != 'prediction'},
  }
  if result.clips_per_second is not None:
    frames_of_clip = len(frames.target) * result.samples
    results['frames_per_second'] = frames_of_clip * result.clips_per_second
  if result.blocks is not None:
    results['blocks_used'] = result.blocks
  return results


def table(result: scoring.Result, frames: systems.Frames) -> str:
  """The result as text: values, use of blocks, skipped metrics."""
  lines = [report.table(result.values, frames.context, frames.target)]
  if result.blocks:
    used = ' '.join(f'{x:.2f}' for x in result.blocks)
    lines.append(
      f'blocks used: {sum(result.blocks):.2f} of {len(result.blocks)} ({used})'
    )
  if result.clips_per_second is not None:
    rate = len(frames.target) * result.samples * result.clips_per_second
    lines.append(f'{rate:.3g} frames a second, loading and measuring included')
  if result.skipped:
    lines.append(f'frames are too small for {", ".join(result.skipped)}')
  return '\n'.join(lines)


def _metric_weights(config) -> dict[str, dict]:
  """The weight files of metrics: `{measure: {part: {'file', 'sha256'}}}`."""
  files = {
    'lpips': config.eval.lpips.to_dict(),
    'fvd': {'i3d': config.eval.i3d},
  }

  def file_record(path):
    with open(path, 'rb') as stream:
      digest = hashlib.file_digest(stream, 'sha256')
    return {'file': pathlib.Path(path).name, 'sha256': digest.hexdigest()}

  measures = {name.split('/')[0] for name in config.eval.metrics}
  return {
    measure: {part: file_record(path) for part, path in parts.items()}
    for measure, parts in files.items()
    if measure in measures
  }


def _versions() -> dict[str, str]:
  names = ('vidpred_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'av')
  versions = {name: importlib.metadata.version(name) for name in names}
  device = jax.devices()[0].device_kind
  return {'python': platform.python_version(), 'device': device, **versions}


def _show(result: scoring.Result, config, workdir: pathlib.Path) -> list[str]:
  """Writes the kept clips: arrays, one picture and one film; and diagrams."""
  values = result.values['prediction']
  frames = systems.Frames(**config.eval.frames)
  saved = result.shown[: config.eval.save]
  return [
    *report.predictions(workdir, saved, frames, result.spec),
    *report.write_pictures(
      workdir,
      result.shown[: config.eval.show],
      frames,
      fps=config.eval.show_fps,
      film=config.eval.show_as,
      histograms={
        k: v['histogram'] for k, v in values.items() if 'histogram' in v
      },
    ),
    *report.curves(workdir),
  ]
