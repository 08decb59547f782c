"""The systems by name, and the one way to make them."""

from vidpred_jax import names
from vidpred_jax.systems import apr_vfi, dmvfn, rvd, simvp
from vidpred_jax.systems.base import DataSpec, Frames, System

__all__ = ['SYSTEMS', 'DataSpec', 'Frames', 'System', 'make']

# Each has `Settings`, a NamedTuple with the paper's defaults, and `make`.
SYSTEMS = {'apr_vfi': apr_vfi, 'dmvfn': dmvfn, 'rvd': rvd, 'simvp': simvp}


def make(name: str, *, frames: Frames, **settings) -> System:
  """Makes a system by name.

  Args:
    name: one of `SYSTEMS`.
    frames: which frames are seen and which are asked for.
    **settings: fields of `Settings` of systems/<name>.py; their defaults are
      the paper's.

  Returns:
    The system.

  Raises:
    ValueError: if there is no such system or setting, or it cannot serve
      `frames`.
  """
  system = names.choose('system', name, SYSTEMS)
  names.check_settings(name, settings, system.Settings._fields)
  frames = Frames(tuple(frames[0]), tuple(frames[1]))
  chosen = system.Settings(**settings)._asdict()
  made = system.make(frames=frames, **settings)
  return made._replace(name=name, settings=tuple(chosen.items()))
