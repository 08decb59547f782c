"""Video prediction and frame interpolation in JAX.

Example:
  import vidpred_jax as vp

  system, variables = vp.load('runs/demo')
  future = vp.Predictor(system, variables).predict(clip, num_frames=5)
"""

import importlib
from importlib import metadata

from vidpred_jax.checkpoint import load
from vidpred_jax.predict.predictor import Predictor
from vidpred_jax.systems import Frames, System, make
from vidpred_jax.zoo import models

__all__ = [
  'Frames',
  'Predictor',
  'System',
  'convert',
  'load',
  'make',
  'models',
]

try:
  __version__ = metadata.version('vidpred_jax')
except metadata.PackageNotFoundError:  # a checkout that is not installed
  __version__ = '0+unknown'


def __getattr__(name):
  # Not imported above: `python -m vidpred_jax.convert` would run it twice.
  if name == 'convert':
    return importlib.import_module('vidpred_jax.convert')
  raise AttributeError(f'vidpred_jax has no attribute {name!r}.')
