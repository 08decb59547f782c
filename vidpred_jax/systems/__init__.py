"""The systems by name, and `make`, which makes them."""

from vidpred_jax import names
from vidpred_jax.systems import apr_vfi, dmvfn, renamed, rvd, simvp
from vidpred_jax.systems import settings as rules
from vidpred_jax.systems.base import DataSpec, Frames, System

__all__ = ['SYSTEMS', 'DataSpec', 'Frames', 'System', 'make', 'renamed']

# Each has `Settings`, a NamedTuple with the paper's defaults, and `make`.
SYSTEMS = {'apr_vfi': apr_vfi, 'dmvfn': dmvfn, 'rvd': rvd, 'simvp': simvp}


def make(name: str, /, *, frames: Frames, **settings) -> System:
  """Makes a system by name.

  Args:
    name: one of `SYSTEMS`.
    frames: indices of the context and target frames.
    **settings: fields of `Settings` of systems/<name>.py; their defaults are
      the paper's.

  Returns:
    The system, with its name and the settings that differ from the defaults.

  Raises:
    ValueError: for an unknown system or setting, or `frames` that the system
      cannot serve.
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
      f'Got frames {frames!r}; expected indices of context and target frames, '
      'such as ((0, 1), (2, 3)).'
    )
  context, target = frames
  return Frames(tuple(map(int, context)), tuple(map(int, target)))
