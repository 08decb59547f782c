"""Records of exports and runs: JSON files, checked before they are used."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vidpred_jax import atomic, stored, systems
from vidpred_jax.checkpoint import remote
from vidpred_jax.checkpoint.remote import CONFIG, DATA, RECORD


def write_json(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes a record with a checksum."""
  text = json.dumps(stored.with_sum(record), indent=2) + '\n'
  atomic.write_text(path, text)


def read_config(workdir: pathlib.Path) -> dict:
  """The configuration of the run in `workdir`.

  Settings of its system that have been renamed since have their new names.

  Raises:
    ValueError: if the file is damaged.
  """
  config = stored.read_summed(workdir / CONFIG)
  named = isinstance(config.get('system'), str)
  if named and isinstance(config.get('model'), dict):
    config['model'] = systems.renamed.current(config['system'], config['model'])
  return config


def read_data_spec(path: str | os.PathLike) -> systems.DataSpec | None:
  """Reads the description of the training data of an export or a run.

  Returns:
    The description, or None if it is unknown.

  Raises:
    ValueError: if its file is damaged.
  """
  with remote.local(path, (RECORD,)) as place:
    for folder in (place, place / 'export'):
      if (folder / RECORD).exists():
        record = stored.read_record(folder / RECORD)
        return data_spec(folder / RECORD, record.get('data'))
    file = place / DATA
    return data_spec(file, stored.read_summed(file)) if file.exists() else None


def spec_to_json(data: systems.DataSpec) -> dict[str, Any]:
  """Converts a `DataSpec` to JSON; for images only the field `kind`."""
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in data._asdict().items()
    if data.is_field or name == 'kind'
  }


def data_spec(path: pathlib.Path, stored_data) -> systems.DataSpec | None:
  """The description of the data in the file `path`, checked; None for None."""
  if stored_data is None:
    return None
  if not isinstance(stored_data, dict):
    raise ValueError(
      f'{path}: data is {stored.shown(stored_data)}, expected {{...}}.'
    )
  stored.check(path, stored_data, _DATA, 'data.')
  given = {
    name: _tuples(value)
    for name, value in stored_data.items()
    if name in systems.DataSpec._fields
  }
  spec = systems.DataSpec(**given)
  count = len(spec.variables)
  if spec.is_field and not count == len(spec.mean) == len(spec.std) > 0:
    raise ValueError(
      f'{path}: data has {count} variables, {len(spec.mean)} means and '
      f'{len(spec.std)} standard deviations, expected as many of each.'
    )
  return spec


def _is_index(value) -> bool:
  return type(value) is int and 0 <= value < 100_000


def _is_list_of(accepts, most: int, least: int = 0):
  return lambda x: (
    isinstance(x, list) and least <= len(x) <= most and all(map(accepts, x))
  )


def _is_number(value) -> bool:
  return type(value) in (int, float) and abs(value) < 1e38  # of float32


def _is_name(value) -> bool:
  return isinstance(value, str) and len(value) <= 200 and value.isprintable()


def _is_setting(value, depth: int = 2) -> bool:
  """Whether a JSON value is a setting: a plain value, or lists of them."""
  if isinstance(value, list):
    short = depth > 0 and len(value) <= 1000
    return short and all(_is_setting(x, depth - 1) for x in value)
  if type(value) is int:
    return abs(value) < 2**63
  return value is None or isinstance(value, bool | float | str)


_INDICES = stored.Field(
  _is_list_of(_is_index, 1000, 1), '1 to 1000 indices of frames'
)
_FRAMES = {'context': _INDICES, 'target': _INDICES}
_RECORD = {
  'format': stored.Field(
    lambda x: type(x) is int and x == 1, '1, the only one there is'
  ),
  'system': stored.Field(
    lambda x: isinstance(x, str) and x in systems.SYSTEMS,
    f'one of {", ".join(systems.SYSTEMS)}',
  ),
  'settings': stored.Field(
    lambda x: isinstance(x, dict) and all(map(_is_setting, x.values())),
    'settings by name: numbers, words and short lists of them',
  ),
  'frames': stored.Field(lambda x: isinstance(x, dict), 'context and target'),
}
DIGEST = {
  'sha256': stored.Field(
    lambda x: isinstance(x, str) and len(x) == 64, '64 letters'
  ),
}
_NAMES = stored.Field(_is_list_of(_is_name, 4096), 'names', required=False)
_DATA = {
  'kind': stored.Field(lambda x: x in ('image', 'field'), "'image' or 'field'"),
  'variables': _NAMES,
  'units': stored.Field(_is_name, 'a short text', required=False),
  'mean': stored.Field(
    _is_list_of(_is_number, 4096), 'finite numbers', required=False
  ),
  'std': stored.Field(
    _is_list_of(lambda x: _is_number(x) and x > 0, 4096),
    'positive numbers',
    required=False,
  ),
}
RUN = {
  'system': _RECORD['system'],
  'model': _RECORD['settings'],
  'features': stored.Field(lambda x: isinstance(x, dict), 'files by name'),
  'eval': stored.Field(
    lambda x: isinstance(x, dict) and isinstance(x.get('frames'), dict),
    'a section with frames',
  ),
}


def check_record(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Raises ValueError unless the record describes a system."""
  stored.check(path, record, _RECORD)
  stored.check(path, record['frames'], _FRAMES, 'frames.')
  known = systems.SYSTEMS[record['system']].Settings._fields
  for name in systems.renamed.current(record['system'], record['settings']):
    if name not in known:
      raise ValueError(
        f'{path}: settings has {stored.shown(name)}, expected settings of '
        f'{record["system"]}: {", ".join(known)}.'
      )
  try:
    system_from_record(record)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def system_from_record(
  record: Mapping[str, Any], **overrides
) -> systems.System:
  """Makes the system that a record describes, with some settings replaced."""
  named = systems.renamed.current(record['system'], record['settings'])
  settings = {k: _tuples(v) for k, v in named.items()}
  indices = record['frames']
  frames = overrides.pop('frames', None) or systems.Frames(
    tuple(indices['context']), tuple(indices['target'])
  )
  return systems.make(record['system'], frames=frames, **(settings | overrides))


def _tuples(value):
  """Converts JSON lists back to tuples, as settings have them."""
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
