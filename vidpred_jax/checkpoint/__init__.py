"""Checkpoints: exported systems, and the states of training runs.

An *export* is for others: a folder with `weights.safetensors` and `system.json`
(name, settings, frames, a description of the training data, and a SHA-256 over
all of it). A *training state* is an Orbax checkpoint under
`<workdir>/checkpoints` with a fingerprint per leaf, since Orbax itself does not
notice a flipped bit. Loading refuses either, naming the leaf or file, if the
sums do not agree.

The training data are described by a `systems.DataSpec`, stored as `{'kind':
'image'}`, or for physical fields `{'kind': 'field', 'mean': [C], 'std': [C],
'units': text, 'variables': [C]}`. Converted weights have no description: their
clips are images.
"""

from vidpred_jax.checkpoint.exported import (
  check_variables,
  export,
  inference_variables,
  load,
  read,
  save_system,
)
from vidpred_jax.checkpoint.records import (
  CONFIG,
  DATA,
  read_config,
  read_data_spec,
  spec_to_json,
  system_from_record,
  write_json,
)
from vidpred_jax.checkpoint.remote import RECORD, WEIGHTS
from vidpred_jax.checkpoint.states import (
  fingerprints,
  manager,
  restore,
  save,
)

__all__ = [
  'CONFIG',
  'DATA',
  'RECORD',
  'WEIGHTS',
  'check_variables',
  'export',
  'fingerprints',
  'inference_variables',
  'load',
  'manager',
  'read',
  'read_config',
  'read_data_spec',
  'restore',
  'save',
  'save_system',
  'spec_to_json',
  'system_from_record',
  'write_json',
]
