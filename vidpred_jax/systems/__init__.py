"""The systems by name, and `make`, which makes them."""

from vidpred_jax import names
from vidpred_jax.systems import apr_vfi, dmvfn, renamed, rvd, simvp
from vidpred_jax.systems import settings as rules
from vidpred_jax.systems.base import DataSpec, Frames, System

__all__ = ['SYSTEMS', 'DataSpec', 'Frames', 'System', 'make', 'renamed']

# Each has `Settings`, a NamedTuple with the paper's defaults, and `make`.
SYSTEMS = {'apr_vfi': apr_vfi, 'dmvfn': dmvfn, 'rvd': rvd, 'simvp': simvp}


def make(name: str, *, frames: Frames, **settings) -> System:
  """Makes a system by name.

  Args:
    name: one of `SYSTEMS`.
    frames: indices of the context and target frames.
    **settings: fields of `Settings` of systems/<name>.py; their defaults are
      the paper's.

  Returns:
    The system, which knows its name and which settings differ from those.

  Raises:
    ValueError: if there is no such system or setting, or it cannot serve
      `frames`.
  """
  module = names.choose('system', name, SYSTEMS)
  names.check_settings(
    name, settings, module.Settings._fields, renamed.NAMES.get(name, {})
  )
  system = module.make(frames=_checked(frames), **settings)
  defaults = module.Settings._field_defaults
  tuples = (
    (key, tuple(value) if isinstance(value, list) else value)
    for key, value in sorted(settings.items())
  )
  changed = tuple(item for item in tuples if item not in defaults.items())
  return system._replace(name=name, settings=changed)


def _checked(frames) -> Frames:
  """Frames of any two sequences of indices; ValueError for anything else."""
  indices = rules.tuple_of(rules.whole(0, 100_000), '', least=1)
  two = rules.tuple_of(indices, '', length=2)
  if not two.accepts(frames):
    raise ValueError(
      f'Got frames {frames!r}; expected indices of what is seen and of what is '
      'asked for, such as ((0, 1), (2, 3)).'
    )
  seen, asked = frames
  return Frames(tuple(map(int, seen)), tuple(map(int, asked)))
