"""Video prediction and frame interpolation in JAX.

Example:
  import vidpred_jax as vp

  system, variables = vp.load('runs/demo')
  future = vp.Predictor(system, variables).predict(clip, num_frames=5)
"""

from vidpred_jax import convert
from vidpred_jax.checkpoint import load
from vidpred_jax.predict import Predictor
from vidpred_jax.systems import Frames, System, make

__all__ = ['Frames', 'Predictor', 'System', 'convert', 'load', 'make']
