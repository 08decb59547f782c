"""Settings that had another name once: the one table of old and new names.

Exports (`system.json`) and runs (`config.json`) store settings by name. Those
written before a setting was renamed are read with the new name. Everywhere else
an old name is an error, which says what the setting is called now.
"""

from collections.abc import Mapping
from typing import Any

# {system: {old name: new name}}
NAMES = {
  'rvd': {
    'depth': 'num_timesteps',
    'predicts': 'prediction_type',
    'error': 'loss_type',
    'clip': 'clip_sample_range',
    'steps': 'sampling_steps',
  },
}
# {system: {new name: {old value: new value}}}
_VALUES: dict[str, dict[str, dict[str, Any]]] = {
  'rvd': {'prediction_type': {'noise': 'epsilon', 'clean': 'sample'}},
}


def current(system: str, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Stored settings by the names and values that they have now.

  Args:
    system: name of the system.
    settings: as they were stored, by old or new names.

  Returns:
    The settings by their new names; others are unchanged.
  """
  names, values = NAMES.get(system, {}), _VALUES.get(system, {})
  result = {}
  for name, value in settings.items():
    if name in names:
      name = names[name]
      value = values.get(name, {}).get(value, value)
    result[name] = value
  return result
