"""The machine: allocator, compilation cache, compiler options, device mesh.

Programs (`main`, `predict`, `cost`) call `setup` once, before anything large is
allocated. `jit` is `jax.jit` with the compiler options that measured fastest on
the platform; programs only use it: for state creation, the training step, the
evaluation step, prediction, what `cost` measures, and the solver of
`simulation`.
"""

import ast
import ctypes
import logging as python_logging
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# 2026-11: jaxlib 0.10 sends CPU convolutions to YNNPACK, which is up to twice
# as slow as Eigen for most shapes here; its dot and reduce kernels stay on.
_CPU_OPTIONS = {
  'xla_cpu_experimental_ynn_fusion_type': (
    'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'
  )
}


def setup() -> None:
  """Sets the allocator and the persistent compilation cache of this process.

  The cache lies in `$VIDPRED_JAX_CACHE`, else in the user's cache folder; set
  `VIDPRED_JAX_CACHE=` (empty) to do without one.
  """
  if sys.platform == 'linux':
    # XLA allocates its temporaries anew on every call. By default glibc gives
    # large blocks back each time, and the page faults cost 2-8x.
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
      libc.mallopt(-4, 0)  # M_MMAP_MAX
      libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD
      libc.mallopt(-8, 1)  # M_ARENA_MAX
      libc.mallopt(-2, 64 << 20)  # M_TOP_PAD
  default = pathlib.Path(
    os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
  )
  cache = os.environ.get('VIDPRED_JAX_CACHE', str(default / 'vidpred_jax'))
  if cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def trim(after: Any) -> None:
  """Waits for a tree of arrays, then gives free memory back to the system.

  2026-11: after `setup` a program's one block of temporaries, some GB, is kept
  for the next call; but once anything small has been put into it, it is too
  short, and another one is taken. A frame of 3840x2160 in tiles had up to 13 GB
  resident in place of 4.
  """
  jax.block_until_ready(after)
  if sys.platform == 'linux':
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'malloc_trim'):
      libc.malloc_trim(0)


def key(seed: int) -> jax.Array:
  """A random key whose `init` programs compile fast (the 'rbg' generator)."""
  return jax.random.key(seed, impl='rbg')


def jit(function, cpu_options: Sequence[tuple[str, Any]] = (), **kwargs):
  """`jax.jit` with this platform's fastest compiler options.

  Args:
    function: to be compiled.
    cpu_options: options for a CPU that win over those that are best for most
      models, `System.cpu_options`.
    **kwargs: of `jax.jit`.
  """
  if jax.default_backend() == 'cpu':
    options = _CPU_OPTIONS | dict(cpu_options)
    return jax.jit(function, compiler_options=options, **kwargs)
  return jax.jit(function, **kwargs)


def mesh(devices=None) -> Mesh:
  """All devices of all processes along one axis, `'data'`."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices), ('data',), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis split over the devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(mesh, PartitionSpec())


def initialize_distributed(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins this process to the others of a run; all None: as the cluster says.

  Args:
    coordinator: `host:port` of process 0.
    num_processes: how many there are.
    process_id: which one this is.
  """
  jax.distributed.initialize(coordinator, num_processes, process_id)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
  """`['name=value', ...]` -> dict; values are literals or bare words."""
  settings = {}
  for text in texts:
    name, equals, value = text.partition('=')
    if not equals or not name.isidentifier():
      raise ValueError(f'--set must be name=value, got {text!r}.')
    if name in settings:
      raise ValueError(f'--set {name} is given twice.')
    try:
      settings[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      if not re.fullmatch(r'[A-Za-z][\w+]*', value):
        raise ValueError(
          f'--set {name}: {value!r} is neither a Python literal nor a word.'
        ) from None
      settings[name] = value
  return settings


def run(main, define_flags) -> None:
  """Runs a command; a user's error is one line on stderr and exit status 2.

  Args:
    main: `main(argv)`.
    define_flags: called before the flags are parsed.
  """

  def parse(argv):
    try:
      return flags.FLAGS(argv)
    except flags.Error as error:
      # A config file's own error comes wrapped in the text of a traceback.
      lines = [x.strip() for x in str(error).splitlines() if x.strip()]
      _complain(ValueError(lines[-1].removeprefix('ValueError: ')))
    except (ValueError, OSError, AttributeError, KeyError, TypeError) as error:
      _complain(error)  # what a config raises for unknown fields and values

  def guarded(argv):
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.FATAL)
      _quieten_failed_writes()
    _speak()
    try:
      if len(argv) > 1:
        raise ValueError(
          f'Got the argument {argv[1]!r}; options are written --name=value.'
        )
      return main(argv)
    except (ValueError, OSError) as error:
      _complain(error)

  define_flags()
  app.run(guarded, flags_parser=parse)


def _speak() -> None:
  """Shows our own warnings, a line each: what was left out or changed."""
  ours = python_logging.getLogger('vidpred_jax')
  shown = python_logging.StreamHandler(sys.stderr)
  shown.setFormatter(python_logging.Formatter('Warning: %(message)s'))
  ours.addHandler(shown)
  ours.setLevel(python_logging.WARNING)
  ours.propagate = False


def _quieten_failed_writes() -> None:
  """Keeps Orbax's tracebacks of a failed write off the screen.

  The failure itself is raised where it is saved. It is also logged by asyncio,
  and TensorStore's threads, which find the event loop closed by the first
  failure, hand theirs to `sys.unraisablehook`.
  """
  python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  shown = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      shown(unraisable)

  sys.unraisablehook = hook


def _complain(error: Exception) -> None:
  """Prints an error on one line, or raises it under VIDPRED_JAX_TRACEBACK."""
  if os.environ.get('VIDPRED_JAX_TRACEBACK'):
    raise error
  text = ' '.join(str(error).split())
  print(f'Error: {text}', file=sys.stderr)
  sys.exit(2)
