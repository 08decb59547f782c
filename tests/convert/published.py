"""Weights as their authors save them, made by chance."""

import io
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import params
from vidpred_jax.convert.simvp import torch_names as simvp_names
from vidpred_jax.models import simvp


def legacy(payload, keys=()):
  """A file of the older format around one pickle."""
  numbers = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}]
  head = b''.join(pickle.dumps(x, protocol=2) for x in numbers)
  return head + payload + pickle.dumps(list(keys), protocol=2)


def zipped(payload):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    archive.writestr('archive/data.pkl', payload)
    archive.writestr('archive/version', '3')
  return stream.getvalue()


SMALL = {'hid_s': 8, 'hid_t': 16, 'n_t': 3, 'mlp_ratio': 2.0, 'channels': 2}


def openstl(translator, size=(16, 16)):
  """Random weights under OpenSTL's names, and the tree they must become."""
  model = simvp.SimVP(3, translator=translator, **SMALL)
  clip = jax.ShapeDtypeStruct((1, 3, *size, 2), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), clip)
  rng = np.random.default_rng(0)
  flat = {
    path: rng.standard_normal(leaf.shape).astype(np.float32)
    for path, leaf in params.flatten(shapes).items()
  }
  state = {}
  for name, (path, layout) in simvp_names(flat, translator).items():
    x = flat[path]
    if layout == 'depthwise':
      x = x[:, :, None]
    if layout in ('conv', 'depthwise'):
      x = x.transpose(3, 2, 0, 1)
    if layout == 'linear':
      x = x.T
    if layout == 'plane':
      x = x[None, :, None, None]
    state[name] = np.ascontiguousarray(x)
  return state, params.unflatten(flat)


def saved(tree):
  """What `torch.save` makes of nested dicts of float32 and whole numbers."""
  storages = []

  def pickled(value):
    if isinstance(value, int):
      return b'I%d\n' % value
    if isinstance(value, dict):
      items = [b"S'%s'\n" % k.encode() + pickled(v) for k, v in value.items()]
      return b'}(' + b''.join(items) + b'u'
    storages.append(value)
    key = len(storages) - 1
    strides = [n // value.itemsize for n in value.strides]
    shape, strides = (
      b'(' + b''.join(b'I%d\n' % n for n in numbers) + b't'
      for numbers in (value.shape, strides)
    )
    return (
      b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\n"
      b"ctorch\nFloatStorage\nS'%d'\nS'cpu'\nI%d\nNtQI0\n"
      % (key, value.size)
      + shape
      + strides
      + b'I00\n}tR'
    )

  payload = pickled(tree) + b'.'
  data = [struct.pack('<q', x.size) + x.tobytes() for x in storages]
  keys = [str(i) for i in range(len(storages))]
  return legacy(payload, keys) + b''.join(data)
