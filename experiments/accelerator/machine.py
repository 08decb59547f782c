"""Versions, device, missing dependencies of the project."""

import importlib.metadata
import os
import pathlib
import platform
import re
import tomllib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]


def rows(options, left) -> Iterator[dict]:
  """Versions, device, missing dependencies."""
  del options, left
  names = ('jax', 'jaxlib', 'flax', 'optax', 'grain', 'numpy', 'torch')
  found = {name: _version(name) for name in names}
  yield {
    'python': platform.python_version(),
    'cpus': os.cpu_count(),
    **{name: version for name, version in found.items() if version},
  }
  yield {'missing': missing() or 'nothing'}
  import jax

  device = jax.devices()[0]
  memory = device.memory_stats() or {}
  yield {
    'backend': jax.default_backend(),
    'device': device.device_kind,
    'devices': jax.device_count(),
    'gigabytes': memory.get('bytes_limit', 0) / 1e9,
  }


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def missing() -> list[str]:
  """The project's dependencies that are not installed, or too old."""
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  found = []
  for requirement in project['dependencies']:
    name, _, wanted = requirement.partition('>=')
    version = _version(name)
    if version is None:
      found.append(requirement)
    elif _numbers(version) < _numbers(wanted):
      found.append(f'{requirement} (is {version})')
  return found


def _numbers(version: str) -> list[int]:
  return [int(n) for n in re.findall(r'\d+', version)[:3]]
