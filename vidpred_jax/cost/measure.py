"""Measures a prediction: parameters, multiply-adds, memory, latency."""

import os
import pathlib
import platform
import re
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import runtime
from vidpred_jax.cost.macs import by_part, count_macs


def measure(
  system,
  variables: Any,
  video: np.ndarray,
  *,
  architecture=None,
  repeats: int = 20,
) -> dict[str, Any]:
  """Measures `system.predict` on a clip.

  Args:
    system: the system to measure.
    variables: its variables.
    video: `[B, T, H, W, C]`, uint8 or float [0, 1]; it holds the context
      frames. Routes depend on its content.
    architecture: the system in the formulation of its paper, if it has another
      one.
    repeats: timed calls, after two warm-up calls.

  Returns:
    A dict for JSON. `'macs'` are those of the whole batch and all target
    frames. `'full'` and `'taken'` count the paper's layers: `'full'` with the
    most expensive branch of each condition and all iterations of each loop,
    `'taken'` on the route of this clip, the router included (if patches run in
    chunks, the last chunk counts as a whole one). `'executed'` counts the
    program that runs here on that route, which may have fewer or, for speed,
    more. Bytes are those of the compiled program.
  """
  context = jnp.asarray(video)[:, np.array(system.frames.context)]
  if context.dtype == jnp.uint8:
    context = context.astype(jnp.float32) / 255
  variables = jax.device_put(variables)
  args = (variables, context, jax.random.key(0))
  size = parameters(variables)
  report: dict[str, Any] = {
    'batch': context.shape[0],
    'context_frames': len(system.frames.context),
    'target_frames': len(system.frames.target),
    'size': list(context.shape[2:4]),
    'parameters': {'total': sum(size.values()), 'parts': size},
    'macs': {},
  }
  drawn = system if architecture is None else architecture
  counts = {
    'full': count_macs(drawn.predict, *args),
    'taken': count_macs(drawn.predict, *args, run=True),
  }
  counts['executed'] = counts['taken']
  if architecture is not None:
    counts['executed'] = count_macs(system.predict, *args, run=True)
  for name, count in counts.items():
    report['macs'][name] = {
      'total': count.total(),
      'per_frame': round(
        count.total() / (len(system.frames.target) * len(context))
      ),
      'parts': by_part(count, size),
    }
  predict = runtime.jit(system.predict, system.cpu_options)
  compiled = predict.lower(*args).compile()
  report['memory'] = _memory(compiled)
  report['latency'] = _latency(compiled, args, repeats)
  report['machine'] = machine()
  return report


def _memory(compiled) -> dict[str, int]:
  stats = compiled.memory_analysis()
  if stats is None:
    return {}
  sizes = {
    'arguments': stats.argument_size_in_bytes,
    'outputs': stats.output_size_in_bytes,
    'temporaries': stats.temp_size_in_bytes,
  }
  peak = sum(sizes.values()) - stats.alias_size_in_bytes
  return {'peak': peak, **sizes}


def _latency(compiled, args, repeats: int) -> dict[str, Any]:
  times = []
  for i in range(repeats + 2):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    if i >= 2:
      times.append(1e3 * (time.perf_counter() - start))
  return {
    'median_ms': round(statistics.median(times), 3),
    'min_ms': round(min(times), 3),
    'repeats': repeats,
  }


def machine() -> dict[str, Any]:
  """Describes the machine of the measurement."""
  processor = platform.processor()
  info = pathlib.Path('/proc/cpuinfo')
  if info.exists():
    match = re.search(r'model name\s*:\s*(.+)', info.read_text())
    processor = match.group(1) if match else processor
  device = jax.devices()[0]
  return {
    'device': device.device_kind,
    'platform': device.platform,
    'processor': processor,
    'cores': os.cpu_count(),
    'jax': jax.__version__,
  }


def parameters(variables: Any) -> dict[str, int]:
  """The number of parameters of each part of the collection 'params'."""
  return {
    name: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(part))
    for name, part in variables['params'].items()
  }
