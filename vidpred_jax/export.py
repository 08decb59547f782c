"""Exports a system as StableHLO, or its weights by the authors' names.

  vidpred export --checkpoint=dmvfn-film --size=256x448 --output=exported

writes a folder with the prediction as StableHLO, weights included, for CPUs,
NVIDIA GPUs and TPUs:

  predict.jax_export   `jax.export.deserialize(data).call(context)`
  predict.stablehlo    the same as portable bytecode, for other runtimes
  export.json          inputs, outputs, versions, checksums

It needs neither this package nor other files. Its input is `context`
[B, Tc, H, W, C], float32 (images in [0, 1], fields normalised), and for a
stochastic system `seed`, a uint32. Its output is the frames [B, N, H, W, C].
The written file is read again and called, and must give the same bits.
`difference` in export.json is the largest difference from the system itself: 0,
or 5e-5 for RVD, which XLA compiles differently.

`--batch=any` leaves B open, if the system allows it. `--plain` exports one form
of every operation instead of one for each platform (`lax.platform_dependent`).
That form is slower on a CPU and gives the same numbers up to rounding.
`plain_prediction` is for converters to other formats.

  vidpred export --checkpoint=simvp-digits --size=64x64 --output=digits.onnx

writes ONNX by jax2onnx (`pip install 'vidpred_jax[onnx]'`), runs it in ONNX
Runtime and compares. Deterministic systems alone can be written.

  vidpred export --checkpoint=simvp-digits --output=weights.pth

writes the weights by the names of the authors' code instead
(`convert.to_torch`): `.safetensors`, `.pth`, `.pt` or `.pkl`.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import export as jax_export
from jax.interpreters import partial_eval

from vidpred_jax import atomic, checkpoint, command, convert, runtime, systems

PLATFORMS = ('cpu', 'cuda', 'tpu')
_KNOWN = (*PLATFORMS, 'rocm')
_MOST = 1 << 28  # numbers of a context, 1 GB
# Largest difference of values in [0, 1] by another order of sums.
_TOLERANCE = 1e-3
_ONNX = '.onnx'


@contextlib.contextmanager
def one_form() -> Iterator[None]:
  """Traces operations in a form that all platforms run, inside the block.

  `lax.platform_dependent` takes its default, or without one its form for CPUs.
  Functions that were compiled before are not affected.
  """

  def chosen(*args, default: Callable | None = None, **forms: Callable):
    form = default or forms.get('cpu') or next(iter(forms.values()))
    return form(*args)

  with mock.patch.object(jax.lax, 'platform_dependent', chosen):
    yield


@contextlib.contextmanager
def short_loops_unrolled() -> Iterator[None]:
  """Traces `lax.fori_loop` of up to three steps step by step, inside the block.

  2026-11: jax2onnx takes shapes of a loop for those of the loop around it.
  """
  loop = jax.lax.fori_loop

  def repeated(lower, upper, body, value):
    if not isinstance(upper, int) or upper - lower > 3:
      return loop(lower, upper, body, value)
    for i in range(lower, upper):
      value = body(i, value)
    return value

  with mock.patch.object(jax.lax, 'fori_loop', repeated):
    yield


def prediction(system: systems.System, variables) -> Callable:
  """The prediction as a function of arrays alone, weights included.

  Args:
    system: any system.
    variables: its variables.

  Returns:
    `context -> frames`, of a stochastic system `(context, seed) -> frames`.
  """
  if system.stochastic:

    def predict(context, seed):
      return system.predict(variables, context, jax.random.key(seed))

    return predict

  def predict_only(context):
    return system.predict(variables, context, jax.random.key(0))

  return predict_only


def plain_prediction(
  system: systems.System,
  variables,
  size: tuple[int, int],
  *,
  batch: int = 1,
) -> tuple[Callable, jax.ShapeDtypeStruct]:
  """The prediction for converters to other formats, such as ONNX.

  Operations have one form for all platforms. Operations that no frame depends
  on are left out, such as the random keys of a deterministic system.

  Args:
    system: a deterministic system.
    variables: its variables.
    size: (H, W) of the frames.
    batch: B.

  Returns:
    `context -> frames`, and the shape of the context.

  Raises:
    ValueError: if the system is stochastic, or the size does not suit it.
  """
  if system.stochastic:
    raise ValueError(
      f'{system.name} draws random numbers; it has no such form.'
    )
  _check_size(system, size, batch)
  shape = batch, len(system.frames.context), *size, system.channels
  context = jax.ShapeDtypeStruct(shape, jnp.float32)
  with one_form(), short_loops_unrolled():
    closed = jax.make_jaxpr(prediction(system, variables))(context)
  used, _ = partial_eval.dce_jaxpr(
    closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True
  )

  def predict(context):
    (frames,) = jax.core.eval_jaxpr(used, closed.consts, context)
    return frames

  return predict, context


def _check_size(
  system: systems.System, size: tuple[int, int], batch: int
) -> None:
  height, width = size
  if min(size) < 1 or height % system.multiple or width % system.multiple:
    raise ValueError(
      f'Got the size {height}x{width}; expected both sides divisible by '
      f'{system.multiple}.'
    )
  clip = len(system.frames.context) * height * width * system.channels
  if clip > _MOST:
    raise ValueError(
      f'Got the size {height}x{width}; what {system.name} sees would '
      f'have {clip} numbers, expected at most {_MOST}.'
    )
  if not 1 <= batch <= _MOST // clip:
    raise ValueError(
      f'Got a batch of {batch}, expected 1 to {_MOST // clip} of this size.'
    )


def stablehlo(
  system: systems.System,
  variables,
  size: tuple[int, int],
  *,
  batch: int | None = 1,
  platforms: Sequence[str] = PLATFORMS,
  plain: bool = False,
) -> jax_export.Exported:
  """Exports the prediction.

  Args:
    system: any system.
    variables: its variables; they become part of what is exported.
    size: (H, W) of the frames.
    batch: B; None leaves it open, where the system allows it.
    platforms: of 'cpu', 'cuda', 'tpu' and 'rocm'.
    plain: whether operations have one form for all platforms.

  Returns:
    The export of `jax.export`: `.call`, `.serialize()`, `.mlir_module()`.

  Raises:
    ValueError: if the size does not suit the system, or it needs a batch, or a
      platform is unknown.
  """
  _check_size(system, size, 1 if batch is None else batch)
  unknown = [name for name in platforms if name not in _KNOWN]
  if unknown or not platforms:
    raise ValueError(
      f'Got the platforms {", ".join(platforms)}; expected some of '
      f'{", ".join(_KNOWN)}.'
    )
  count: Any = batch
  if batch is None:
    (count,) = jax_export.symbolic_shape('b')
  shape = count, len(system.frames.context), *size, system.channels
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32)]
  if system.stochastic:
    inputs.append(jax.ShapeDtypeStruct((), jnp.uint32))
  traced = jax.jit(prediction(system, variables))
  form = one_form() if plain else contextlib.nullcontext()
  try:
    with form:
      return jax_export.export(traced, platforms=list(platforms))(*inputs)
  except Exception as error:  # JAX raises all kinds where a size must be known
    if batch is not None:
      raise
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise ValueError(
      f'{system.name} needs a batch of a known size (--batch=N): {reason[:160]}'
    ) from None


def outputs(
  exported: jax_export.Exported, system: systems.System, variables, *, plain
) -> tuple[jax.Array, jax.Array]:
  """Predicts from random frames, by an export and by its system.

  Args:
    exported: the export, from `stablehlo` or from a file.
    system: the exported system.
    variables: its variables.
    plain: as for `stablehlo`.

  Returns:
    The frames of the export, and those of the system.
  """
  context, *seed = exported.in_avals
  count = context.shape[0] if isinstance(context.shape[0], int) else 2
  shape = (count, *context.shape[1:])
  frames = np.random.default_rng(0).random(shape, np.float32)
  arguments = [jnp.asarray(frames), *(jnp.uint32(7) for _ in seed)]
  with one_form() if plain else contextlib.nullcontext():
    expected = jax.jit(prediction(system, variables))(*arguments)
  return exported.call(*arguments), expected


def save(
  folder: str | pathlib.Path,
  system: systems.System,
  variables,
  size: tuple[int, int],
  *,
  overwrite: bool = False,
  **options,
) -> dict[str, Any]:
  """Exports the prediction to a folder, reads it again and compares.

  Args:
    folder: the folder to make; see the module for its files.
    system: any system.
    variables: its variables.
    size: (H, W) of the frames.
    overwrite: whether an existing export may be replaced.
    **options: options of `stablehlo`.

  Returns:
    The content of `export.json`.

  Raises:
    FileExistsError: if the folder exists and may not be replaced.
    ValueError: as `stablehlo`, or if the file predicts differently.
  """
  folder = pathlib.Path(folder)
  kept = folder.exists() and not (folder / 'export.json').exists()
  empty = folder.is_dir() and not any(folder.iterdir())
  if overwrite and kept and not empty:
    raise FileExistsError(
      f'{folder} is no export of StableHLO, and is not replaced.'
    )
  atomic.check_new(folder, overwrite=overwrite, parents=True)
  if importlib.util.find_spec('flatbuffers') is None:
    raise ValueError(
      "Writing StableHLO needs flatbuffers: pip install 'vidpred_jax[export]'."
    )
  exported = stablehlo(system, variables, size, **options)
  data = bytes(exported.serialize())
  module = exported.mlir_module_serialized
  plain = options.get('plain', False)
  difference = None
  if jax.default_backend() in exported.platforms:
    before, expected = outputs(exported, system, variables, plain=plain)
    again = jax_export.deserialize(bytearray(data))
    after, _ = outputs(again, system, variables, plain=plain)
    difference = float(jnp.abs(after - expected).max())
    if not (after == before).all() or not difference <= _TOLERANCE:
      raise ValueError(
        f'What was exported differs from {system.name} by up to {difference}.'
      )
  names = ('vidpred_jax', 'jax', 'jaxlib')
  record = {
    'system': system.name,
    'frames': {
      'context': list(system.frames.context),
      'target': list(system.frames.target),
    },
    'inputs': [str(aval) for aval in exported.in_avals],
    'outputs': [str(aval) for aval in exported.out_avals],
    'platforms': list(exported.platforms),
    'plain': plain,
    'difference': difference,
    'versions': {name: _version(name) for name in names},
    'sha256': {
      'predict.jax_export': hashlib.sha256(data).hexdigest(),
      'predict.stablehlo': hashlib.sha256(module).hexdigest(),
    },
  }
  with atomic.replacing(folder, overwrite=overwrite) as partial:
    partial.mkdir(parents=True)
    (partial / 'predict.jax_export').write_bytes(data)
    (partial / 'predict.stablehlo').write_bytes(module)
    text = json.dumps(record, indent=2) + '\n'
    (partial / 'export.json').write_text(text, encoding='utf-8')
  return record


def save_onnx(
  path: str | pathlib.Path,
  system: systems.System,
  variables,
  size: tuple[int, int],
  *,
  batch: int = 1,
  overwrite: bool = False,
) -> float:
  """Writes the prediction as ONNX, runs it and compares.

  Args:
    path: the file to make.
    system: a deterministic system.
    variables: its variables.
    size: (H, W) of the frames.
    batch: B.
    overwrite: whether an existing file may be replaced.

  Returns:
    The largest difference from the system, for random frames.

  Raises:
    FileExistsError: if the file exists and may not be replaced.
    ValueError: as `plain_prediction`; if the converter is missing or cannot
      convert the system, or if the file predicts differently.
  """
  path = pathlib.Path(path)
  atomic.check_new(path, overwrite=overwrite)
  for package in ('jax2onnx', 'onnxruntime'):
    if importlib.util.find_spec(package) is None:
      raise ValueError(
        f"Writing ONNX needs {package}: pip install 'vidpred_jax[onnx]'."
      )
  predict, shape = plain_prediction(system, variables, size, batch=batch)
  frames = np.random.default_rng(0).random(shape.shape, np.float32)
  expected = jax.jit(prediction(system, variables))(frames)
  with atomic.replacing(path, overwrite=overwrite) as partial:
    try:
      import jax2onnx
      import onnxruntime

      jax2onnx.to_onnx(
        predict,
        [shape],
        model_name=system.name,
        return_mode='file',
        output_path=str(partial),
      )
      session = onnxruntime.InferenceSession(str(partial))
      (name,) = (given.name for given in session.get_inputs())
      (got,) = session.run(None, {name: frames})
    except Exception as error:  # each library raises its own
      reason = ' '.join(f'{type(error).__name__}: {error}'.split())
      raise ValueError(
        f'jax2onnx {_version("jax2onnx")} with jax {jax.__version__} cannot '
        f'convert {system.name}: {reason[:200]}'
      ) from None
    difference = float(np.abs(got - expected).max())
    if not difference <= _TOLERANCE:
      raise ValueError(
        f'The ONNX file differs from {system.name} by up to {difference}.'
      )
  return difference


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return '0+unknown'


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_string(
    'checkpoint', None, 'Exported system, --workdir or name of a model.'
  )
  flags.DEFINE_string(
    'output', None, 'The folder, or file of weights, to make.'
  )
  flags.DEFINE_string('size', None, 'HxW of the frames.')
  flags.DEFINE_string('batch', '1', 'Clips at once, or any.')
  flags.DEFINE_list('platforms', list(PLATFORMS), 'Platforms to export for.')
  flags.DEFINE_bool('plain', False, 'One form of operations for all platforms.')
  flags.DEFINE_bool('overwrite', False, 'Replace an existing export.')
  flags.DEFINE_multi_string(
    'set', [], 'A setting of the system, name=value; repeatable.'
  )
  command.require('checkpoint', 'output')


def main(argv) -> None:
  """Exports one system as the flags say."""
  del argv
  options = flags.FLAGS
  output = pathlib.Path(options.output)
  kind = output.suffix.lower()
  if re.fullmatch(r'\.[A-Za-z]\w*', output.suffix) and (
    kind not in (*convert.WEIGHTS, _ONNX)
  ):
    raise ValueError(
      f'Got --output={output}; expected a folder, without a suffix, a file '
      f'of weights ({", ".join(convert.WEIGHTS)}), or {_ONNX}.'
    )
  runtime.setup()
  settings = command.parse_settings(options.set)
  system, variables = checkpoint.load(options.checkpoint, **settings)
  if kind in convert.WEIGHTS:
    for name in ('size', 'batch', 'platforms', 'plain'):
      if options[name].present:
        raise ValueError(f'Weights, {output}, have no --{name}.')
    arrays = convert.to_torch(system, variables)
    convert.save_torch(output, arrays, overwrite=options.overwrite)
    count = sum(array.size for array in arrays.values())
    print(f'{len(arrays)} arrays, {count:,} numbers, written to {output}')
    return
  if options.size is None:
    raise ValueError('--size=HxW is needed, such as --size=256x448.')
  size = command.parse_size(options.size)
  if not (options.batch == 'any' or options.batch.isdecimal()):
    raise ValueError(f'Got --batch={options.batch}, expected a number or any.')
  if kind == _ONNX:
    if not options.batch.isdecimal():
      raise ValueError(f'Got --batch={options.batch}; ONNX needs a number.')
    difference = save_onnx(
      output,
      system,
      variables,
      size,
      batch=int(options.batch),
      overwrite=options.overwrite,
    )
    print(f'{system.name} written to {output}; difference {difference:.2g}')
    return
  record = save(
    output,
    system,
    variables,
    size,
    batch=None if options.batch == 'any' else int(options.batch),
    platforms=options.platforms,
    plain=options.plain,
    overwrite=options.overwrite,
  )
  print(json.dumps(record, indent=2))


if __name__ == '__main__':
  command.run(main, define_flags)
