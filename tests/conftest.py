import gc
import os
import subprocess
import sys

# Eight devices. Unoptimised code runs the small programs of the tests as well,
# and compiles in a third of the time; loops made by the older emitter, in half
# of that; a program that is not split for threads, in four fifths.
_FLAGS = (
  '--xla_force_host_platform_device_count=8',
  '--xla_backend_optimization_level=0',
  '--xla_cpu_use_fusion_emitters=false',
  '--xla_cpu_parallel_codegen_split_count=1',
)


def _known(flag):
  """Whether this XLA has the flag: one that it has not ends the process."""
  code = 'import jax; jax.devices()'
  env = os.environ | {'XLA_FLAGS': flag, 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-c', code]
  return not subprocess.run(command, env=env, capture_output=True).returncode


# Asked once: the processes that share the tests inherit the answer.
if 'VIDPRED_JAX_TEST_FLAGS' not in os.environ:
  known = ' '.join(_FLAGS)
  if not _known(known):
    known = ' '.join(flag for flag in _FLAGS if _known(flag))
  os.environ['VIDPRED_JAX_TEST_FLAGS'] = known
os.environ['XLA_FLAGS'] = ' '.join(
  [os.environ.get('XLA_FLAGS', ''), os.environ['VIDPRED_JAX_TEST_FLAGS']]
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# A process of tests for each core: threads of NumPy's and PyTorch's products
# would only wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pathlib  # noqa: E402

import fsspec  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

from tests import commands  # noqa: E402
from vidpred_jax import runtime  # noqa: E402

runtime.setup()
# What one test or process has compiled, however small, no other does again.
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_numpy_rank_promotion', 'raise')
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()

# A folder beside the project's, and no part of it: reference arrays from the
# published implementations, and real clips. Tests that need it skip without it.
SHARED = pathlib.Path(__file__).resolve().parents[2] / 'shared'


def pytest_collection_finish():
  """Spares the collector what is imported: a tenth of the time went there."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(100_000, 20, 100)


@pytest.fixture(scope='session')
def shared():
  """The folder with reference numbers and real clips; skips without it."""
  if not SHARED.is_dir():
    pytest.skip('the folder ../shared with reference data is not here')
  return SHARED


@pytest.fixture(scope='session')
def forks():
  """Runs commands of the package in forks of one process."""
  with commands.Forks() as forks:
    yield forks


@pytest.fixture(params=['cpu', 'default'])
def platform(request, monkeypatch):
  """Runs what `lax.platform_dependent` has for CPUs, then for others, here."""
  monkeypatch.setattr(
    jax.lax,
    'platform_dependent',
    lambda *args, **forms: forms[request.param](*args),
  )
  return request.param


@pytest.fixture
def memory():
  """fsspec's memory, which stands in for object storage; emptied afterwards."""
  files = fsspec.filesystem('memory')
  yield files
  if files.exists('/bucket'):
    files.rm('/bucket', recursive=True)
