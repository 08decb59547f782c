"""Objects beside the weights of a file; for the rest test_torch_pickle.py."""

import argparse
import collections
import datetime
import decimal
import fractions
import functools
import io
import ipaddress
import pathlib
import pickle
import re
import sys
import types
import zipfile
import zoneinfo

import numpy as np
import pytest

from tests.convert.harm import Command
from vidpred_jax import convert
from vidpred_jax.convert import torch_file

FILES = pathlib.Path(__file__).parent / 'torch_files'

SETTINGS = {
  'lr': np.float64(1e-3),
  'epoch': np.int64(7),
  'name': np.str_('simvp'),
  'mean': np.array([0.5, 0.25], np.float32),
  'none': np.zeros((0, 3)),
  'sizes': [np.array([[1, 2], [3, 4]]).T, {'flag': np.bool_(True)}],
  'mixed': np.array(['a', None], object),
  'type': np.dtype('float32'),
  'model': 'SimVP',
  'steps': 40,
}


def lightning(path, settings, protocol=2, place='numpy._core'):
  """A checkpoint as Lightning lays it out: the weights of zip.pth, settings.

  Two pickles become values of one dict: each without its first two bytes (the
  protocol) and its last (the end).
  """
  with zipfile.ZipFile(FILES / 'zip.pth') as old:
    entries = {name: old.read(name) for name in old.namelist()}
  (name,) = (n for n in entries if n.endswith('data.pkl'))
  second = pickle.dumps(settings, protocol)[2:-1]
  entries[name] = b''.join(
    [
      b'\x80\x02}',
      b'X\x0a\x00\x00\x00state_dict' + entries[name][2:-1] + b's',
      b'X\x10\x00\x00\x00hyper_parameters' + second + b's.',
    ]
  ).replace(b'numpy._core', place.encode())
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as new:
    for name, content in entries.items():
      new.writestr(name, content)
  path.write_bytes(stream.getvalue())
  return path


@pytest.mark.parametrize('place', ['numpy._core', 'numpy.core'])
def test_objects_of_numpy_are_read_past(tmp_path, place):
  path = lightning(tmp_path / 'last.ckpt', SETTINGS, place=place)
  got = convert.read_torch(path)
  expected = convert.read_torch(FILES / 'zip.pth')
  assert list(got) == list(expected)
  for name in expected:
    np.testing.assert_array_equal(got[name], expected[name])
  settings = torch_file.load(path)['hyper_parameters']
  assert settings.keys() == SETTINGS.keys()
  assert (settings['model'], settings['steps']) == ('SimVP', 40)
  others = settings.keys() - {'model', 'steps', 'sizes'}
  found = [settings[k] for k in others]
  found += [settings['sizes'][0], settings['sizes'][1]['flag']]
  assert all(type(x) is torch_file.NumPy for x in found)


@pytest.mark.parametrize('protocol', [0, 3, 4])
def test_in_any_protocol(tmp_path, protocol):
  payload = pickle.dumps({'a': SETTINGS}, protocol)
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
    archive.writestr('a/data.pkl', payload)
  got = torch_file.load(tmp_path / 'a.pth')['a']
  assert got['steps'] == 40 and type(got['mean']) is torch_file.NumPy


def test_they_are_no_weights(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
    archive.writestr('a/data.pkl', pickle.dumps({'w': np.ones(3)}, 2))
  with pytest.raises(ValueError, match='no arrays: w'):
    convert.read_torch(tmp_path / 'a.pth')


class Sub(np.ndarray):
  """An array of a class of its own."""


def test_what_they_hold_is_not_run_either(tmp_path):
  trace = tmp_path / 'was_here'
  for settings, name in (
    (np.array([Command(trace)], object), 'system'),
    (np.ones(2).view(Sub), 'Sub'),
    (np.array([ipaddress.ip_address('::1')], object), 'ipaddress.IPv6'),
    (np.polynomial.Polynomial([1]), r'numpy\.polynomial'),
  ):
    path = lightning(tmp_path / 'a.ckpt', settings)
    with pytest.raises(ValueError, match=name):
      torch_file.load(path)
  assert not trace.exists()


@pytest.mark.parametrize(
  'module, name',
  [
    ('torch.nn.modules.loss', 'MSELoss'),
    ('torch.optim.adamw', 'AdamW'),
    ('torch.nn.functional', 'relu'),
  ],
)
@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('is_made', [True, False])
def test_layers_and_optimizers_beside_weights(
  tmp_path, monkeypatch, module, name, protocol, is_made
):
  kind = type(name, (), {'__module__': module})
  monkeypatch.setitem(
    sys.modules, module, types.SimpleNamespace(**{name: kind})
  )
  for place in ('torch', 'torch.nn', 'torch.nn.modules', 'torch.optim'):
    if place != module and place not in sys.modules:
      monkeypatch.setitem(sys.modules, place, types.ModuleType(place))
  part = kind()
  part.reduction = 'mean'
  tree = {'hyper_parameters': {'x': part if is_made else kind}, 'steps': 40}
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
    archive.writestr('a/data.pkl', pickle.dumps(tree, protocol))
  got = torch_file.load(tmp_path / 'a.pth')
  assert got['steps'] == 40
  found = got['hyper_parameters']['x']
  assert (found.part if is_made else found) == f'{module}.{name}'
  with pytest.raises(ValueError, match='no arrays: hyper_parameters, steps'):
    convert.read_torch(tmp_path / 'a.pth')
  with pytest.raises(ValueError, match='no named arrays but a'):
    convert.read_torch(tmp_path / 'a.pth', key='hyper_parameters/x')


@pytest.mark.parametrize(
  'beside',
  [
    argparse.Namespace(rate=0.1, path=pathlib.PurePosixPath('/data')),
    {1, 2},
    frozenset('ab'),
    collections.Counter('aab'),
    collections.defaultdict(list, a=[1]),
    datetime.datetime(2024, 1, 1),
    datetime.timedelta(hours=1),
    decimal.Decimal('0.1'),
    fractions.Fraction(1, 3),
    range(3),
    slice(0, 2),
    1 + 2j,
    bytearray(b'ab'),
    collections.deque([1]),
    collections.UserDict(a=1),
    zoneinfo.ZoneInfo('UTC'),
    functools.partial(int, base=2),
    re.compile('a'),
    np.float32,
    np.random.default_rng(0),
    np.random.RandomState(0),
    np.ma.array([1, 2], mask=[0, 1]),
    ...,
    types.SimpleNamespace(a=1),
    pathlib.PurePosixPath('/data'),
  ],
  ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_what_programs_keep_beside_weights(tmp_path, beside, protocol):
  tree = {'args': {'x': beside, 'y': [beside, (beside,)]}, 'steps': 40}
  with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
    archive.writestr('a/data.pkl', pickle.dumps(tree, protocol))
  got = torch_file.load(tmp_path / 'a.pth')
  assert got['steps'] == 40
  kinds = torch_file.Other | torch_file.NumPy | dict | str
  assert isinstance(got['args']['x'], kinds)
