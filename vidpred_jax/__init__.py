"""Video prediction and frame interpolation in JAX.

Names are looked up when they are used: `import vidpred_jax` alone loads neither
JAX nor anything else that takes time.

Example:
  import vidpred_jax as vp

  system, variables = vp.load('runs/demo')
  future = vp.Predictor(system, variables).predict(clip, num_frames=5)
  vp.save(system, variables, 'mine')
"""

import importlib
from typing import TYPE_CHECKING

from vidpred_jax import starting

if starting.is_command():  # before anything that takes time is imported
  starting.begin()

# First the room of that name, or its import would hide the function below.
importlib.import_module('vidpred_jax.models')
from vidpred_jax.zoo import models  # noqa: E402

if TYPE_CHECKING:
  from vidpred_jax.checkpoint import export as save
  from vidpred_jax.checkpoint import load
  from vidpred_jax.predict.predictor import Predictor
  from vidpred_jax.runtime import key
  from vidpred_jax.systems import Frames, System, make

__all__ = [
  'Frames',
  'Predictor',
  'System',
  'convert',
  'key',
  'load',
  'make',
  'models',
  'save',
]

# name: (module, name there).
_NAMES = {
  'Frames': ('systems', 'Frames'),
  'Predictor': ('predict.predictor', 'Predictor'),
  'System': ('systems', 'System'),
  'key': ('runtime', 'key'),
  'load': ('checkpoint', 'load'),
  'make': ('systems', 'make'),
  'save': ('checkpoint', 'export'),
}
_MODULES = {
  name: name
  for name in (
    'checkpoint', 'convert', 'cost', 'data', 'evaluate', 'losses',
    'metrics', 'ops', 'picture', 'predict', 'runtime', 'systems', 'video_io',
  )
} | {'frame_rate': 'predict.frame_rate', 'optim': 'train.optim'}  # fmt: skip


def __getattr__(name: str):
  if name in _NAMES:
    module, name_there = _NAMES[name]
    loaded = importlib.import_module(f'vidpred_jax.{module}')
    return getattr(loaded, name_there)
  if name in _MODULES:
    return importlib.import_module(f'vidpred_jax.{_MODULES[name]}')
  if name == '__version__':
    return _version()
  raise AttributeError(f'vidpred_jax has no attribute {name!r}.')


def __dir__() -> list[str]:
  return sorted({*globals(), *_NAMES, *_MODULES, '__version__'})


def _version() -> str:
  from importlib import metadata

  try:
    return metadata.version('vidpred_jax')
  except metadata.PackageNotFoundError:  # a checkout that is not installed
    return '0+unknown'
