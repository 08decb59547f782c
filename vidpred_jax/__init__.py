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


# Not imported above: `python -m vidpred_jax.convert` would run it twice. The
# other one is known by this name, too.
_LATER = {'convert': 'convert', 'frame_rate': 'predict.frame_rate'}


def __getattr__(name):
  if name in _LATER:
    return importlib.import_module(f'vidpred_jax.{_LATER[name]}')
  raise AttributeError(f'vidpred_jax has no attribute {name!r}.')
