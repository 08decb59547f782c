"""The systems by name, and the one way to make them."""

import inspect

from vidpred_jax.systems import apr_vfi, dmvfn, rvd, simvp
from vidpred_jax.systems.base import DataSpec, Frames, System

__all__ = ['SYSTEMS', 'DataSpec', 'Frames', 'System', 'make']

SYSTEMS = {
  'apr_vfi': apr_vfi.make,
  'dmvfn': dmvfn.make,
  'rvd': rvd.make,
  'simvp': simvp.make,
}


def make(name: str, *, frames: Frames, **settings) -> System:
  """Makes a system by name.

  Args:
    name: one of `SYSTEMS`.
    frames: which frames are seen and which are asked for.
    **settings: the keyword arguments of `systems/<name>.py:make`; their
      defaults are the paper's.

  Returns:
    The system.

  Raises:
    ValueError: if there is no such system or setting, or it cannot serve
      `frames`.
  """
  if name not in SYSTEMS:
    raise ValueError(
      f'There is no system {name!r}; there are {", ".join(sorted(SYSTEMS))}.'
    )
  frames = Frames(tuple(frames[0]), tuple(frames[1]))
  accepted = inspect.signature(SYSTEMS[name]).parameters
  unknown = sorted(set(settings) - set(accepted))
  if unknown:
    raise ValueError(
      f'{name} has no setting {", ".join(unknown)}; it has '
      f'{", ".join(k for k in accepted if k != "frames")}.'
    )
  return SYSTEMS[name](frames=frames, **settings)
