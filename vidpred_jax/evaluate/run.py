"""Evaluation as a configuration says: a split, its scores, one file.

`config.eval` names the data, the frames, the metrics and how many samples are
drawn; `scoring` predicts and measures; `report` tells it.
"""

import hashlib
import importlib.metadata
import pathlib
import platform

import jax

from vidpred_jax import build, checkpoint, data, runtime, systems
from vidpred_jax.evaluate import report, scoring


def measure(
  config, variables, mesh, protocol: build.Protocol, *, limit=None, show=0
) -> scoring.Result:
  """Evaluates variables by `protocol`, which is that of `config`."""
  system, source, measures, mean_frame = protocol
  processes = jax.process_count()
  batches = data.eval_batches(
    source,
    batch_size=-(-config.eval.batch_size // processes) * processes,
    process_index=jax.process_index(),
    process_count=processes,
    limit=limit or config.eval.limit or None,
  )
  result = scoring.evaluate(
    system,
    variables,
    batches,
    measures,
    key=jax.random.key(config.eval.seed),
    mesh=mesh,
    show=show,
    field=build.field(source),
    samples=config.eval.samples,
    at_once=config.eval.samples_at_once or None,
    mean_frame=mean_frame,
  )
  return result._replace(data=repr(source))


def quick(
  config, variables, mesh, protocol: build.Protocol
) -> dict[str, float]:
  """Mean of each metric on some clips of the split, while training."""
  limit = config.eval.quick_limit
  result = measure(config, variables, mesh, protocol, limit=limit)
  return {k: v['mean'] for k, v in result.values['prediction'].items()}


def run(config, workdir: str, protocol: build.Protocol | None = None) -> dict:
  """Evaluates the weights in `workdir`; writes `results.json` and pictures.

  Where `workdir` holds no weights, those of `config.init_from` are taken.

  Args:
    config: the configuration.
    workdir: the run's folder.
    protocol: what `build.check(config)` gave, if it was called.

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
    source, record, build.make_system(config, frames), variables
  )
  mesh = runtime.mesh()
  variables = jax.device_put(variables, runtime.replicated(mesh))
  protocol = protocol or build.check(config)
  result = measure(config, variables, mesh, protocol, show=config.eval.show)
  settings = build.protocol_data(config)
  told = {
    'system': config.system,
    'checkpoint': record['sha256'],
    'protocol': {
      'model': config.model.to_dict(),
      'data': settings,
      'source': result.data,
      'split': 'test',
      'context': list(frames.context),
      'target': list(frames.target),
      'samples': result.samples,
      'mean_frame_of_clips': config.eval.mean_frame,
      'aggregation': ['per_frame', 'cumulative', 'mean'],
      'metric_weights': _weights(config),
      'skipped_metrics': result.skipped,
    },
    'clips': result.clips,
    'seed': config.eval.seed,
    'versions': _versions(),
    'metrics': result.values['prediction'],
    'baselines': {k: v for k, v in result.values.items() if k != 'prediction'},
  }
  if result.blocks is not None:
    told['blocks_used'] = result.blocks
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(workdir / 'results.json', report.as_json(told))
    each = f' {result.samples} times each' if result.samples > 1 else ''
    print(f'\n{result.clips} clips{each} of {result.data}')
    print(table(result, systems.Frames(frames.context, frames.target)))
    written = ['results.json', *_show(result, config, workdir)]
    print(f'Written to {workdir}: {", ".join(written)}')
  return told


def table(result: scoring.Result, frames: systems.Frames) -> str:
  """The result as text: values, use of blocks, what could not be measured."""
  lines = [report.table(result.values, frames.context, frames.target)]
  if result.blocks:
    used = ' '.join(f'{x:.2f}' for x in result.blocks)
    lines.append(
      f'blocks used: {sum(result.blocks):.2f} of {len(result.blocks)} ({used})'
    )
  if result.skipped:
    lines.append(f'frames are too small for {", ".join(result.skipped)}')
  return '\n'.join(lines)


def _weights(config) -> dict[str, dict]:
  """Which weights the metrics had: `{measure: {part: {'file', 'sha256'}}}`."""
  files = {
    'lpips': config.eval.lpips.to_dict(),
    'fvd': {'i3d': config.eval.i3d},
  }

  def told(path):
    with open(path, 'rb') as stream:
      digest = hashlib.file_digest(stream, 'sha256')
    return {'file': pathlib.Path(path).name, 'sha256': digest.hexdigest()}

  measures = {name.split('/')[0] for name in config.eval.metrics}
  return {
    measure: {part: told(path) for part, path in parts.items()}
    for measure, parts in files.items()
    if measure in measures
  }


def _versions() -> dict[str, str]:
  names = ('vidpred_jax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'av')
  found = {name: importlib.metadata.version(name) for name in names}
  device = jax.devices()[0].device_kind
  return {'python': platform.python_version(), 'device': device, **found}


def _show(result: scoring.Result, config, workdir: pathlib.Path) -> list[str]:
  """Writes the kept clips as one picture and one film, and rank histograms."""
  frames, shown = config.eval.frames, result.shown
  clips = []
  for i, video in enumerate(shown.get('video', ())):
    names = ('drawn', 'average', 'spread', 'crps', 'flow', 'blocks')
    clips.append(
      {
        'context': video[list(frames.context)],
        'target': video[list(frames.target)],
        'prediction': shown['frames'][i],
        'between': systems.Frames(frames.context, frames.target).interpolates,
        **{k: shown[k][i] for k in names if k in shown},
      }
    )
  values = result.values['prediction']
  return report.write_pictures(
    workdir,
    clips,
    fps=config.eval.show_fps,
    film=config.eval.show_as,
    histograms={
      k: v['histogram'] for k, v in values.items() if 'histogram' in v
    },
  )
