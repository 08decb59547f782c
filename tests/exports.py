"""Exports and runs whose files say what they should not."""

import json
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np

from vidpred_jax import params, stored

DEEP = '[' * 5000 + ']' * 5000
# (name, how system.json is written anew): what parses, and what does not.
TEXTS = {
  'a list': '[]',
  'null': 'null',
  'a number': '3',
  'a text': '"x"',
  'nothing': '',
  'half': '{"format": 1, ',
  'deep': DEEP,
  'deep object': '{"a":' * 5000 + '1' + '}' * 5000,
  'no text': b'\xff\xfe\x00',
  'an endless number': '{"format": ' + '9' * 5000 + '}',
}
# Fields and what stands in them; `None` as a key: the field is removed.
MISSING = object()
VALUES = [
  ('format', [99, 0, '1', 1.0, True, None, [], MISSING]),
  ('system', ['dvf', [], None, 3, {}, 'x' * 10**6, '\x1b[31m', MISSING]),
  (
    'settings',
    [
      [], None, 3, 'x', MISSING,
      {'frames': [[0], [1]]}, {'name': 'dmvfn'}, {'nonsense': 1},
      {'\x1b]0;x\x07': 1}, {'scales': 3}, {'scales': 'abc'},
      {'scales': [2.5, 1]}, {'scales': [1048576, 2, 1]},
      {'scales': [1] * 2000}, {'scales': []}, {'scales': None},
      {'scales': [0, 1]}, {'scales': [-2, 1]}, {'scales': {}},
      {'widths': [8, 8, 8]}, {'widths': [10**12, 8]}, {'widths': [7, 8]},
      {'beta': 1e400}, {'beta': 'x'}, {'beta': 2}, {'beta': {}},
      {'beta': [0.5]}, {'gamma': 10**400}, {'router_scale': 10**6},
      {'router_scale': 0}, {'dtype': 'float128'}, {'dtype': []},
      {'rollout': 10**9}, {'temperature': [1]}, {'temperature': [[1], [2]]},
      {'temperature_steps': 10**30}, {'scales': [[[[1]]]]},
      {'routing': None}, {'spatial_path': 1}, {'spatial_path': False},
      {'x' * 10**6: 1},
    ],
  ),
  (
    'frames',
    [
      [], None, 'x', 3, {}, MISSING,
      {'context': [0, 1]}, {'target': [2]},
      {'context': [], 'target': [2]}, {'context': [0, 1], 'target': []},
      {'context': [0, 'x'], 'target': [2]}, {'context': 'ab', 'target': [2]},
      {'context': [0, 1.0], 'target': [2]}, {'context': 0, 'target': 2},
      {'context': [0, 1], 'target': [1e30]},
      {'context': [0, 1], 'target': [10**30]},
      {'context': [0, 1], 'target': [-1]},
      {'context': [0, True], 'target': [2]},
      {'context': [0, 1], 'target': list(range(2, 5002))},
      {'context': [0, 1], 'target': [10**8]},
      {'context': [[0], [1]], 'target': [2]},
      {'context': None, 'target': None},
    ],
  ),
  (
    'data',
    [
      [], 3, 'x', {}, {'kind': 'film'}, {'kind': []}, {'kind': None},
      {'kind': 'field'},
      {'kind': 'field', 'variables': ['a'], 'mean': [0], 'std': [0]},
      {'kind': 'field', 'variables': ['a'], 'mean': [], 'std': [1]},
      {'kind': 'field', 'variables': ['a'], 'mean': ['x'], 'std': [1]},
      {'kind': 'field', 'variables': ['a'], 'mean': [1e400], 'std': [1]},
      {'kind': 'field', 'variables': 'abc', 'mean': [0] * 3, 'std': [1] * 3},
      {'kind': 'field', 'variables': ['\x1b[2J'] * 3, 'mean': [0] * 3,
       'std': [1] * 3},
      {'kind': 'field', 'variables': [3, 4, 5], 'mean': [0] * 3,
       'std': [1] * 3},
      {'kind': 'field', 'variables': ['a', 'b', 'c'], 'mean': [0] * 3,
       'std': [1] * 3, 'units': 5},
      {'kind': 'field', 'variables': ['a', 'b', 'c'], 'mean': None,
       'std': None},
    ],
  ),
  ('sha256', [None, [], 3, '', 'x' * 64, MISSING]),
]  # fmt: skip


def hostile_records(record):
  """Yields (name, record or text) made of a good one."""
  yield from TEXTS.items()
  for field, values in VALUES:
    for n, value in enumerate(values):
      made = dict(record)
      if value is MISSING:
        del made[field]
      elif field == 'settings' and isinstance(value, dict):
        made[field] = record[field] | value
      else:
        made[field] = value
      yield f'{field} {n}', made


def hostile_weights(arrays):
  """Yields (name, arrays) made of good ones."""
  first = next(iter(arrays))
  yield 'nan', arrays | {first: np.full_like(arrays[first], np.nan)}
  yield 'infinite', arrays | {first: np.full_like(arrays[first], np.inf)}
  yield 'none', {}
  yield 'missing', {k: v for k, v in arrays.items() if k != first}
  yield 'deep', arrays | {'/'.join('a' * 5000): np.zeros(1, np.float32)}
  yield 'long', arrays | {'a' * 10**6: np.zeros(1, np.float32)}
  yield 'inside', arrays | {f'{first}/b': np.zeros(1, np.float32)}
  yield 'around', arrays | {first.rpartition('/')[0]: np.zeros(1, np.float32)}
  yield 'whole', {k: v.astype(np.int32) for k, v in arrays.items()}
  yield 'turned', {k: v.T for k, v in arrays.items()}
  yield 'empty', arrays | {first: np.zeros((0, 3), np.float32)}
  yield 'escape', arrays | {'params/\x1b[31mred': np.zeros(1, np.float32)}
  yield 'no params', {f'x{k}': v for k, v in arrays.items()}


def write(folder, record, weights: bytes):
  """Writes an export whose sum fits."""
  folder = pathlib.Path(folder)
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  (folder / 'weights.safetensors').write_bytes(weights)
  if isinstance(record, dict):
    keep = 'sha256' not in record or not _is_sum(record['sha256'])
    if not keep:
      record = record | {'sha256': stored.digest(record, weights)}
    record = json.dumps(record)
  if isinstance(record, str):
    record = record.encode()
  (folder / 'system.json').write_bytes(record)


def _is_sum(value):
  return isinstance(value, str) and len(value) == 64 and value != 'x' * 64


def good(folder):
  """The record and the arrays of an export."""
  record = json.loads((folder / 'system.json').read_text())
  weights = (folder / 'weights.safetensors').read_bytes()
  return record, params.read_safetensors(weights, 'weights')


class State(NamedTuple):
  """What a checkpoint must hold to be loaded."""

  params: Any
  collections: Any
  ema: Any
