"""Any system on video of any length and size: `Predictor`, and the command."""

import importlib


def __getattr__(name):
  # Not imported above: `python -m vidpred_jax.predict` would run it twice.
  if name in ('predict_field', 'predict_video'):
    command = importlib.import_module('vidpred_jax.predict.__main__')
    return getattr(command, name)
  raise AttributeError(f'vidpred_jax.predict has no attribute {name!r}.')
