"""Times of calls in turns, beside the machine's matrix product."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import runtime


def rounds(calls, repeats):
  """{name: [(seconds, processor seconds)]} of zero-argument calls, in turns."""
  for call in calls.values():
    jax.block_until_ready(call())
  times = {name: [] for name in calls}
  for _ in range(repeats):
    for name, call in calls.items():
      start = time.perf_counter(), time.process_time()
      jax.block_until_ready(call())
      end = time.perf_counter(), time.process_time()
      times[name].append((end[0] - start[0], end[1] - start[1]))
  return times


def statistics(pairs):
  """Columns of a table from what `rounds` gives for one call."""
  wall, processor = zip(*pairs)
  return {
    'min_ms': 1e3 * min(wall),
    'median_ms': 1e3 * float(np.median(wall)),
    'cpu_ms': 1e3 * min(processor),
  }


def shown(row):
  """The columns of `statistics` as text."""
  names = 'min_ms', 'median_ms', 'cpu_ms'
  return ' '.join(f'{row[name]:9.1f}' for name in names)


def best_ms(times):
  """{name: smallest milliseconds}."""
  return {name: 1e3 * min(wall for wall, _ in t) for name, t in times.items()}


def matmul(size=2048):
  """A float32 matrix product to measure the machine by, and its GFLOP."""
  a = jax.random.normal(jax.random.key(0), (size, size))
  product = runtime.jit(functools.partial(jnp.matmul, precision='highest'))
  return lambda: product(a, a), 2 * size**3 / 1e9


def rounds_and_peak(calls, repeats):
  """`rounds` of the calls, and GFLOP/s of the matrix product beside them."""
  product, gflop = matmul()
  times = rounds(calls | {'matmul': product}, repeats)
  return times, gflop / min(wall for wall, _ in times.pop('matmul'))
