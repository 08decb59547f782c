"""The machine: allocator, compilation cache, compiler options, device mesh.

Programs (`main`, `predict`, `cost`) call `setup` once, before anything large is
allocated. `jit` is `jax.jit` with the compiler options that measured fastest on
the platform; programs only use it: for the training step, the evaluation step,
prediction, what `cost` measures, and the solver of `simulation`.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging as python_logging
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax._src import compilation_cache
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_LOG = python_logging.getLogger(__name__)
_USELESS = (
  'The compilation cache in %s cannot be read or written (%s); programs are '
  'compiled anew.'
)
_get_file_cache = compilation_cache.get_file_cache

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
    compilation_cache.get_file_cache = _checked_cache


def _checked_cache(path: str):
  """In place of JAX's function of this name: a cache that heals.

  2026-11: JAX 0.10 warns of an entry that was cut by a full disk or a kill at
  every start, compiles again each time and never replaces it.
  """
  try:
    cache = _get_file_cache(path)
  except OSError as error:
    _LOG.warning(_USELESS, path, error)
    return None
  return cache and (CheckedCache(cache[0]), path)


class CheckedCache(compilation_cache.CacheInterface):
  """A compilation cache whose damaged entries are removed when they are met.

  Beside each entry lies its SHA-256. Entries without are taken if they can be
  unpacked.
  """

  def __init__(self, inner):
    self._inner = inner
    self._path = pathlib.Path(str(inner._path))
    self._has_failed = False

  def get(self, key: str) -> bytes | None:
    """The entry; None if there is none or it was damaged."""
    try:
      value = self._inner.get(key)
    except OSError as error:
      self._failed(key, error)
      return None
    if value is None or self._is_whole(key, value):
      return value
    _LOG.warning(
      'An entry of the compilation cache in %s was damaged and is made anew.',
      self._path,
    )
    self._remove(key)
    return None

  def put(self, key: str, value: bytes) -> None:
    """Adds an entry, whole or not at all."""
    try:
      self._inner.put(key, value)
      self._sum(key).write_text(hashlib.sha256(value).hexdigest())
    except OSError as error:
      self._failed(key, error)

  def _failed(self, key: str, error: OSError) -> None:
    """Removes an entry that cannot be read or written; warns once."""
    self._remove(key)
    if not self._has_failed:
      _LOG.warning(_USELESS, self._path, error)
    self._has_failed = True

  def _is_whole(self, key: str, value: bytes) -> bool:
    with contextlib.suppress(OSError, UnicodeDecodeError):
      return self._sum(key).read_text() == hashlib.sha256(value).hexdigest()
    try:
      compilation_cache.decompress_executable(value)
    except Exception:  # of whichever library packs
      return False
    return True

  def _sum(self, key: str) -> pathlib.Path:
    return self._path / f'{key}-sum'

  def _remove(self, key: str) -> None:
    for path in (*self._path.glob(f'{key}-cache*'), self._sum(key)):
      with contextlib.suppress(OSError):
        if path.is_dir():
          shutil.rmtree(path)
        else:
          path.unlink()


def trim(after: Any) -> None:
  """Waits for a tree of arrays, then gives free memory back to the system.

  2026-11: after `setup` a program's one block of temporaries, some GB, is kept
  for the next call; but once anything small has been put into it, it is too
  short, and another one is taken. A frame of 3840x2160 in tiles had up to 13 GB
  resident in place of 4.

  Args:
    after: arrays that use the memory, in any tree.
  """
  jax.block_until_ready(after)
  if sys.platform == 'linux':
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'malloc_trim'):
      libc.malloc_trim(0)


def key(seed: int) -> jax.Array:
  """A random key whose draws compile and run fast (the 'rbg' generator).

  Args:
    seed: any integer.

  Returns:
    The key.
  """
  return jax.random.key(seed, impl='rbg')


@functools.cache
def accepted(option: str, value: Any) -> bool:
  """Whether the installed XLA takes a compiler option with this value.

  Options come and go with its versions. One that is refused is logged once and
  done without: what it does is speed.

  Args:
    option: its name.
    value: its value.

  Returns:
    False if the compiler refuses it.
  """
  jitted = jax.jit(lambda x: x, compiler_options={option: value})
  try:
    jitted.lower(0.0).compile()
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0]
    logging.warning(
      'The compiler option %s=%s is left out: %s', option, value, reason
    )
    return False
  return True


def jit(function, cpu_options: Sequence[tuple[str, Any]] = (), **kwargs):
  """`jax.jit` with this platform's fastest compiler options, as far as known.

  Args:
    function: to be compiled.
    cpu_options: options for a CPU that win over those that are best for most
      models, `System.cpu_options`.
    **kwargs: of `jax.jit`.

  Returns:
    The compiled function.
  """
  if jax.default_backend() == 'cpu':
    wanted = _CPU_OPTIONS | dict(cpu_options)
    options = {k: v for k, v in wanted.items() if accepted(k, v)}
    return jax.jit(function, compiler_options=options, **kwargs)
  return jax.jit(function, **kwargs)


def mesh(devices=None) -> Mesh:
  """The mesh of all devices of all processes with one axis, `'data'`.

  Args:
    devices: None: all.

  Returns:
    The mesh.
  """
  devices = jax.devices() if devices is None else devices
  return Mesh(np.asarray(devices), ('data',), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding that splits the leading axis over the devices.

  Args:
    mesh: with the axis `'data'`.

  Returns:
    The sharding.
  """
  return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding that puts the whole array on every device.

  Args:
    mesh: any.

  Returns:
    The sharding.
  """
  return NamedSharding(mesh, PartitionSpec())


def initialize_distributed(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins the processes of a run; with all None the cluster sets them.

  Args:
    coordinator: `host:port` of process 0.
    num_processes: how many there are.
    process_id: which one this is.

  Raises:
    ValueError: if they cannot be reached or do not fit together.
  """
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except (RuntimeError, TypeError, AttributeError) as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise ValueError(
      f'Could not join the run at {coordinator} as process {process_id} of '
      f'{num_processes}: {reason}'
    ) from None
