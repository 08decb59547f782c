"""Weight files without PyTorch, and published weights as Flax variables."""

import io
import ipaddress
import json
import os
import pathlib
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests import commands
from vidpred_jax import checkpoint, command, convert, params
from vidpred_jax.convert.dmvfn import torch_names as dmvfn_names
from vidpred_jax.convert.simvp import torch_names as simvp_names
from vidpred_jax.models import dmvfn, features, simvp

FILES = pathlib.Path(__file__).parent / 'torch_files'


def contents():
  """What tests/convert/torch_files/make.py saved, in NumPy."""
  base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  shared = np.arange(10, dtype=np.float32)
  return {
    'float32': base / 8,
    'transposed': (base + 100).transpose(2, 0, 1),
    'sliced': (base + 200)[:, 1:, ::2],
    'expanded': np.repeat(np.float32([[1.5], [2.5]]), 3, 1),
    'shared_a': shared[:6],
    'shared_b': shared[4:],
    'parameter': np.float32([0.25, -0.25]),
    'scalar': np.int64(7),
    'empty': np.zeros((0, 3), np.float32),
    'float64': np.array([1 / 3]),
    'float16': np.float16([0.5, -1024]),
    'bfloat16': np.float32([3.140625, -(2.0**100)]),
    'int8': np.int8([-128, 127]),
    'uint8': np.uint8([0, 255]),
    'int16': np.int16([-30000]),
    'int32': np.int32([-(2**31)]),
    'int64': np.int64([2**60 + 1]),
    'bool': np.array([True, False, True]),
    'complex64': np.complex64([1 - 2j]),
  }


def assert_same(got, expected):
  assert list(got) == list(expected)
  for name, value in expected.items():
    assert got[name].dtype == value.dtype, name
    np.testing.assert_array_equal(got[name], value, name)


# --- Files that PyTorch wrote ------------------------------------------------


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
def test_reads_both_formats(name):
  got = convert.read_torch(FILES / name)
  assert_same(got, contents())
  assert np.shares_memory(got['shared_a'], got['shared_b'])
  with pytest.raises(ValueError, match='read-only'):
    got['float32'][...] = 0


def test_reads_types_without_a_storage_class():
  got = convert.read_torch(FILES / 'uint16.pth')
  assert_same(got, {'uint16': np.uint16([65535])})


def test_finds_the_weights_in_a_training_file():
  """The only dict of arrays is taken, and `module.` removed."""
  got = convert.read_torch(FILES / 'training.pth')
  assert {k: x.shape for k, x in got.items()} == {
    'weight': (2, 3),
    'bias': (2,),
  }
  assert_same(convert.read_torch(FILES / 'training.pth', key='model'), got)
  deep = convert.read_torch(FILES / 'training.pth', key='model')
  np.testing.assert_allclose(deep['weight'], 0.499)
  with pytest.raises(ValueError, match='ema.*model.*optimizer'):
    convert.read_torch(FILES / 'training.pth', key='ema')
  with pytest.raises(ValueError, match='state.*no arrays|no arrays.*state'):
    convert.read_torch(FILES / 'training.pth', key='optimizer')


def test_published_files_equal_the_stored_arrays(shared):
  got = convert.read_torch(shared / 'data/weights/ebme/ebme_bi-flownet.pkl')
  with np.load(shared / 'parity/ebme/weights_ebme.npz') as file:
    expected = {k: file[k] for k in file if k != 'meta_json'}
  assert_same(dict(sorted(got.items())), dict(sorted(expected.items())))


def test_published_legacy_files(shared):
  for path in sorted((shared / 'data/weights/lpips').glob('*/*.pth')):
    for name, head in convert.read_torch(path).items():
      assert name.startswith('lin') and head.shape[0] == 1
      assert 0 <= head.min() and 0.1 < head.max() < 2


def test_reads_npz_and_safetensors(tmp_path):
  arrays = {k: x for k, x in contents().items() if k != 'complex64'}
  arrays = {f'module.{k}': np.ascontiguousarray(x) for k, x in arrays.items()}
  expected = {k.removeprefix('module.'): x for k, x in arrays.items()}
  np.savez_compressed(tmp_path / 'a.npz', **arrays)
  assert_same(convert.read_torch(tmp_path / 'a.npz'), expected)
  arrays['module.bfloat16'] = jnp.asarray(arrays['module.bfloat16'], 'bfloat16')
  arrays = {k: np.asarray(x) for k, x in arrays.items()}
  (tmp_path / 'weights').write_bytes(safetensors.numpy.save(arrays))
  got = convert.read_torch(tmp_path / 'weights')
  assert_same(dict(sorted(got.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize(
  'wrapped',
  [
    lambda k: f'_orig_mod.{k}',
    lambda k: f'module._orig_mod.{k}',
    lambda k: f'_orig_mod.module.{k}',
    lambda k: k.replace('.', '._orig_mod.', 1),
  ],
  ids=['compiled', 'in parallel', 'the other way', 'a part'],
)
def test_names_as_before_they_were_wrapped(tmp_path, wrapped):
  arrays = {f'encoder.{k}.weight': np.full(2, k, np.float32) for k in range(3)}
  np.savez(tmp_path / 'a.npz', **{wrapped(k): x for k, x in arrays.items()})
  assert_same(convert.read_torch(tmp_path / 'a.npz'), arrays)


def test_an_average_of_weights_has_a_count_beside(tmp_path):
  arrays = {'a.weight': np.ones(2, np.float32)}
  averaged = {f'module.{k}': x for k, x in arrays.items()}
  np.savez(tmp_path / 'a.npz', n_averaged=np.array(7), **averaged)
  assert_same(convert.read_torch(tmp_path / 'a.npz'), arrays)


@pytest.mark.parametrize('prefix', ['model.', 'model.net.', '_orig_mod.model.'])
def test_what_a_trainer_puts_in_front_is_no_name(shared, prefix):
  path = shared / 'data/weights/ebme/ebme_bi-flownet.pkl'
  state = convert.read_torch(path)
  plain = convert.from_torch('apr_vfi', state, synthesis='warp')
  state = {prefix + k: x for k, x in state.items()}
  got = convert.from_torch('apr_vfi', state, synthesis='warp')
  jax.tree.map(np.testing.assert_array_equal, got, plain)


def rewrite(path, replace):
  """A zip file like `zip.pth` with its entries changed by `replace`."""
  with zipfile.ZipFile(FILES / 'zip.pth') as old:
    entries = {
      name.removeprefix('zip/'): old.read(name) for name in old.namelist()
    }
  entries |= replace(entries)
  with zipfile.ZipFile(path, 'w') as new:
    for name, content in entries.items():
      if content is not None:
        new.writestr(f'other/{name}', content)
  return path


def test_big_endian(tmp_path):
  """The first storage holds 24 float32."""

  def swap(entries):
    first = np.frombuffer(entries['data/0'], '<f4').astype('>f4').tobytes()
    return {'byteorder': b'big', 'data/0': first}

  got = convert.read_torch(rewrite(tmp_path / 'big.pth', swap))
  np.testing.assert_array_equal(got['float32'], contents()['float32'])
  assert got['float32'].dtype == np.float32
  assert got['int64'] != contents()['int64']  # was not swapped


def test_old_zip_without_byte_order(tmp_path):
  path = rewrite(tmp_path / 'old.pth', lambda _: {'byteorder': None})
  assert_same(convert.read_torch(path), contents())


# --- Nothing is executed -----------------------------------------------------


class Command:
  """Pickles as a call of `os.system`."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


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


@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize('wrap', [legacy, zipped])
def test_a_malicious_file_is_refused_and_not_run(wrap, protocol, tmp_path):
  trace = tmp_path / 'was_here'
  payload = pickle.dumps({'weight': Command(trace)}, protocol)
  pickle.loads(payload)  # it works,
  assert trace.exists()
  trace.unlink()
  path = tmp_path / 'weights.pth'
  path.write_bytes(wrap(payload))
  with pytest.raises(ValueError, match=r'weights.pth.*(posix|nt)\.system'):
    convert.read_torch(path)
  assert not trace.exists()  # but not here


@pytest.mark.parametrize(
  'payload',
  [
    # Calls something that is no function but lies on the stack.
    pickle.PROTO + b'\x02}U\x04argsq\x00\x85R.',
    # The other ways of pickles to make objects.
    b'(ios\nsystem\n.',
    b'(cos\nsystem\no.',
    b'ccollections\nOrderedDict\n)\x81.',
    b'\x80\x04\x8c\x05posix\x8c\x06system\x93.',
    b'\x82\x01.',
    b'Pname\n.',
    # Attributes of something that is no ordered dict.
    b'ctorch\nFloatStorage\n}b.',
    # A tensor of a storage that is none.
    b'ctorch._utils\n_rebuild_tensor_v2\n(I1\nI0\n(t(t\x89}tR.',
    # A whole module.
    b"(S'module'\nS'a'\nS'b'\nS'c'\ntQ.",
    # A list that contains itself.
    b']q\x00h\x00a.',
  ],
)
@pytest.mark.parametrize('wrap', [legacy, zipped])
def test_other_pickles_are_refused(payload, wrap, tmp_path):
  (tmp_path / 'weights.pth').write_bytes(wrap(payload))
  with pytest.raises(ValueError, match='weights.pth'):
    convert.read_torch(tmp_path / 'weights.pth')


def test_foreign_classes_are_named(tmp_path):
  for content, name in (
    ({'a': ipaddress.ip_address('::1')}, 'ipaddress.IPv6'),
    ({'a': np.random.default_rng(0)}, r'numpy\.random'),
  ):
    (tmp_path / 'a.pth').write_bytes(zipped(pickle.dumps(content)))
    with pytest.raises(ValueError, match=name):
      convert.read_torch(tmp_path / 'a.pth')
  with pytest.raises(ValueError, match=r'torch\.nn.*Linear.*state_dict'):
    convert.read_torch(FILES / 'whole_module.pth')


def tensor_file(start, shape, strides, count=6):
  """A legacy file with one tensor over `count` float32."""
  identity = (
    b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\nNtQ" % count
  )

  def numbers(values):
    return b'(' + b''.join(b'I%d\n' % n for n in values) + b't'

  payload = (
    b"}S'x'\nctorch._utils\n_rebuild_tensor_v2\n("
    + identity
    + b'I%d\n' % start
    + numbers(shape)
    + numbers(strides)
    + b'I00\n}tRs.'
  )
  data = np.arange(6, dtype='<f4').tobytes()
  return legacy(payload, ['0']) + struct.pack('<q', 6) + data


def test_views_stay_inside_their_storage(tmp_path):
  path = tmp_path / 'a.pth'
  path.write_bytes(tensor_file(1, (2, 2), (1, 3)))
  np.testing.assert_array_equal(convert.read_torch(path)['x'], [[1, 4], [2, 5]])
  for bad in (
    (2, (2, 2), (1, 3)),
    (0, (7,), (1,)),
    (-1, (2,), (1,)),
    (0, (2,), (-1,)),
    (0, (2, 2), (1,)),
    (6, (1,), (1,)),
  ):
    path.write_bytes(tensor_file(*bad))
    with pytest.raises(ValueError, match=r'a\.pth.*tensor'):
      convert.read_torch(path)
  path.write_bytes(tensor_file(0, (2,), (1,), count=5))
  with pytest.raises(ValueError, match='6 elements, expected 5'):
    convert.read_torch(path)


# --- Damage and confusion ----------------------------------------------------


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
def test_truncated_files_are_refused(name, tmp_path):
  data = (FILES / name).read_bytes()
  for length in range(0, len(data), 61):
    (tmp_path / 'cut.pth').write_bytes(data[:length])
    with pytest.raises(ValueError, match='cut.pth'):
      convert.read_torch(tmp_path / 'cut.pth')


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth', 'uint16.pth'])
def test_damaged_files_raise_nothing_else(name, tmp_path):
  """A flipped byte is noticed or changes a number; it never crashes."""
  data = (FILES / name).read_bytes()
  rng = np.random.default_rng(0)
  for _ in range(200):
    damaged = bytearray(data)
    damaged[rng.integers(len(data))] = rng.integers(256)
    (tmp_path / 'bad.pth').write_bytes(damaged)
    try:
      convert.read_torch(tmp_path / 'bad.pth')
    except ValueError as error:
      assert 'bad.pth' in str(error)


def test_a_flipped_bit_in_a_zip_is_noticed(tmp_path):
  data = (FILES / 'zip.pth').read_bytes()
  position = data.index(struct.pack('<f', 107.0))
  damaged = data[:position] + b'\x01' + data[position + 1 :]
  (tmp_path / 'bad.pth').write_bytes(damaged)
  with pytest.raises(ValueError, match='bad.pth is damaged: Bad CRC'):
    convert.read_torch(tmp_path / 'bad.pth')


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is empty'),
    (b'Hello, I am no weights.', 'no PyTorch file'),
    (pickle.dumps({'a': 1}), 'no PyTorch file'),
    (pickle.dumps(2**70), 'no PyTorch file'),
    (zipped(pickle.dumps({})), 'no named arrays'),
    (zipped(pickle.dumps([1])), 'no named arrays but a list'),
    (zipped(pickle.dumps({'epoch': 3})), 'no arrays: epoch'),
    (b'\x08\0\0\0\0\0\0\0{"a": 1}', 'weights is damaged'),
  ],
)
def test_other_files_are_refused(content, message, tmp_path):
  path = tmp_path / 'weights'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    convert.read_torch(path)


def test_missing_file():
  with pytest.raises(FileNotFoundError):
    convert.read_torch('there_is_no_such_file.pth')


def test_object_arrays_are_refused(tmp_path):
  np.savez(tmp_path / 'a.npz', a=np.array([{}], dtype=object))
  with pytest.raises(ValueError, match='a.npz'):
    convert.read_torch(tmp_path / 'a.npz')


# --- DMVFN -------------------------------------------------------------------


@pytest.fixture(scope='module')
def published():
  """Random weights under the published names, in PyTorch's layout."""
  model = dmvfn.DMVFN()
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 2, 16, 16, 3))
  )
  flat = params.flatten(shapes['params'])
  rng = np.random.default_rng(0)
  state = {}
  for name, (path, kind, _) in dmvfn_names().items():
    shape = flat[path].shape
    array = 0.3 * rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
    array = array.astype(np.float32)
    to_torch = {'conv': (3, 2, 0, 1), 'conv_transpose': (2, 3, 0, 1)}
    state[name] = array.transpose(to_torch.get(kind, range(array.ndim)[::-1]))
  return state


def predict(variables, pair):
  output = jax.jit(dmvfn.DMVFN().apply)(variables, pair)
  return np.asarray(output.frames[-1]), np.asarray(output.flow)


def test_rgb_into_converted_is_bgr_into_published(published):
  pair = np.random.default_rng(1).random((1, 2, 48, 64, 3), np.float32)
  as_is = convert.from_torch('dmvfn', published, channel_order='rgb')
  converted = convert.from_torch('dmvfn', published)
  frame, flow = predict(converted, pair)
  frame_bgr, flow_bgr = predict(as_is, pair[..., ::-1].copy())
  np.testing.assert_allclose(frame, frame_bgr[..., ::-1], atol=1e-5)
  np.testing.assert_allclose(flow, flow_bgr, atol=1e-4)
  assert np.abs(flow - predict(as_is, pair)[1]).max() > 1e-3
  routes = [
    dmvfn.DMVFN().apply(variables, x, method='route')
    for variables, x in ((converted, pair), (as_is, pair[..., ::-1]))
  ]
  np.testing.assert_allclose(*routes, atol=1e-5)


def test_dmvfn_gives_the_published_numbers(shared):
  with np.load(shared / 'parity/dmvfn/weights_a.npz') as file:
    state = {f'module.{k}': file[k] for k in file if k != 'meta_json'}
  with np.load(shared / 'parity/dmvfn/case_a2_1x48x80.npz') as file:
    case = dict(file)
  variables = convert.from_torch('dmvfn', state)
  assert sum(x.size for x in jax.tree.leaves(variables)) == 3_559_930
  bgr = case['x'].astype(np.float32).reshape(1, 2, 3, 48, 80)
  rgb = np.moveaxis(bgr, 2, -1)[..., ::-1].copy()
  frame, flow = predict(variables, rgb)
  expected = np.moveaxis(case['eval_final_all'], 1, -1)[..., ::-1]
  np.testing.assert_allclose(frame, expected, atol=3e-5)
  flow_expected = np.moveaxis(case['eval_flow_all'], 1, -1)
  np.testing.assert_allclose(flow, flow_expected, atol=1e-4)


def test_every_name_and_shape_counts(published):
  state = dict(published)
  del state['block3.lastconv.bias']
  state['block9.lastconv.bias'] = np.zeros(5)
  state['l1.weight'] = np.zeros((32, 9))
  with pytest.raises(ValueError) as caught:
    convert.from_torch('dmvfn', state)
  message = str(caught.value)
  assert 'dmvfn' in message
  assert 'missing: block3.lastconv.bias' in message
  assert 'not expected: block9.lastconv.bias' in message
  assert 'l1.weight is (32, 9), expected (9, 32)' in message


def test_settings_decide_what_is_expected(published):
  with pytest.raises(ValueError, match='not expected: .*block0.conv1'):
    convert.from_torch('dmvfn', published, spatial_path=False)
  with pytest.raises(ValueError, match='not expected: l1.bias'):
    convert.from_torch('dmvfn', published, routing='none')
  with pytest.raises(ValueError, match='not expected: block8'):
    convert.from_torch(
      'dmvfn',
      published,
      scales=(4,) * 3 + (2,) * 3 + (1,) * 2,
      widths=(160,) * 3 + (80,) * 3 + (44,) * 2,
    )
  variables = convert.from_torch('dmvfn', published, router_scale=4, beta=0.3)
  assert list(variables) == ['params']
  for bad, message in (
    ({'channel_order': 'gbr'}, "'gbr'"),
    ({'colour': 'bgr'}, 'colour'),
    ({'scales': (4, -1)}, 'scales'),
  ):
    with pytest.raises(ValueError, match=message):
      convert.from_torch('dmvfn', published, **bad)


def test_unknown_systems_are_refused(published):
  with pytest.raises(ValueError, match="'vgg'.*dmvfn"):
    convert.from_torch('vgg', published)


# --- SimVP -------------------------------------------------------------------

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


DERIVED = {
  'hid.enc.0.block.norm1.num_batches_tracked': np.float32(3.0).reshape(1),
  'hid.enc.1.block.attn.relative_position_index': np.zeros((16, 16), 'f4'),
  'hid.enc.1.block.attn_mask': np.zeros((16, 16, 16), np.float32),
}


def test_both_formats_of_openstl(tmp_path):
  """A plain `state_dict`, and what Lightning saves."""
  state, expected = openstl('gsta')
  full = state | DERIVED
  lightning = {
    'epoch': 7,
    'state_dict': {f'model.{k}': x for k, x in full.items()},
    'loops': {'fit_loop': {'state_dict': {}}},
  }
  (tmp_path / 'plain.pth').write_bytes(saved(full))
  (tmp_path / 'lightning.ckpt').write_bytes(saved(lightning))
  for name in ('plain.pth', 'lightning.ckpt'):
    arrays = convert.read_torch(tmp_path / name)
    got = convert.from_torch('simvp', arrays, **SMALL)
    assert list(got) == ['batch_stats', 'params']
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert convert.trained_frames('simvp', arrays) == ((0, 1, 2), (3, 4, 5))


@pytest.mark.parametrize(
  'translator, size',
  [('tau', (16, 16)), ('moga', (16, 16)), ('incepu', (16, 16)),
   ('convmixer', (16, 16)), ('uniformer', (16, 16)), ('mlp', (24, 12)),
   ('swin', (56, 28)), ('swin', (24, 8))],
)  # fmt: skip
def test_every_kind_of_translator(translator, size):
  """Weights that are tied to a size tell it."""
  state, expected = openstl(translator, size)
  got = convert.from_torch('simvp', state, translator=translator, **SMALL)
  jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_weights_of_simvp_must_fit():
  state, _ = openstl('gsta')
  state['enc.enc.4.conv.norm.bias'] = np.zeros(8)
  del state['hid.enc.1.block.norm2.running_var']
  state['dec.readout.weight'] = np.zeros((1, 8, 1, 1))
  with pytest.raises(ValueError) as caught:
    convert.from_torch('simvp', state, **SMALL)
  message = str(caught.value)
  assert 'cannot become simvp' in message
  assert 'missing: hid.enc.1.block.norm2.running_var' in message
  assert 'not expected: enc.enc.4.conv.norm.bias' in message
  assert 'weight is (1, 8, 1, 1), expected (2, 8, 1, 1)' in message
  state, _ = openstl('vit')
  with pytest.raises(ValueError, match='missing: hid.enc.0.block.attn.proj_1'):
    convert.from_torch('simvp', state, **SMALL)
  with pytest.raises(
    ValueError, match=r'trained for.*\(0, 1, 2\).*\(3, 4, 5\)'
  ):
    convert.from_torch('simvp', state, frames=((0,), (1,)), **SMALL)
  with pytest.raises(ValueError, match='cannot become simvp.*missing: dec'):
    convert.from_torch('simvp', {'weight': np.zeros(3)})


def test_the_translator_is_a_setting_of_the_system_too():
  settings = {'translator': 'tau', 'n_t': 3}
  assert convert.split_settings('simvp', settings) == (
    {'translator': 'tau'},
    settings,
  )


# --- Feature networks --------------------------------------------------------


@pytest.mark.parametrize(
  ('convert_it', 'module', 'channels', 'ignored'),
  [
    (
      convert.vgg19,
      features.VGG19(),
      features.VGG19_CONVOLUTIONS,
      ['features.34.weight', 'classifier.0.weight'],
    ),
    (
      convert.alexnet,
      features.AlexNet(),
      features.ALEXNET_CONVOLUTIONS,
      ['classifier.6.weight'],
    ),
  ],
)
def test_feature_networks(convert_it, module, channels, ignored, tmp_path):
  variables = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )
  rng = np.random.default_rng(0)
  state = {}
  for i in channels:
    layer = variables['params'][f'features_{i}']
    shape = tuple(layer['kernel'].shape[axis] for axis in (3, 2, 0, 1))
    state[f'features.{i}.weight'] = rng.random(shape, np.float32)
    state[f'features.{i}.bias'] = rng.random(shape[0], np.float32)
  state |= {name: np.zeros((2, 2), np.float32) for name in ignored}
  path = tmp_path / 'weights.npz'
  np.savez(path, **state)
  tree = convert_it(path)
  jax.tree.map(lambda a, b: a.shape == b.shape, tree, variables['params'])
  for i in channels:
    np.testing.assert_array_equal(
      tree[f'features_{i}']['kernel'][1, 2, 0, 3],
      state[f'features.{i}.weight'][3, 0, 1, 2],
    )
  first = next(iter(channels))
  del state[f'features.{first}.bias']
  np.savez(path, **state, extra=np.zeros(1))
  expected = rf'missing: features.{first}.bias; not expected: extra'
  with pytest.raises(ValueError, match=expected):
    convert_it(path)


# --- Command line ------------------------------------------------------------


def test_command_line(published, tmp_path):
  np.savez(tmp_path / 'weights.npz', **published)
  output = tmp_path / 'export'
  arguments = (
    '--system=dmvfn',
    f'--input={tmp_path}/weights.npz',
    f'--output={output}',
    '--set=router_scale=4',
    '--set',
    'channel_order=rgb',
    '--set=inference_routing=all',
  )
  done = commands.run('vidpred_jax.convert', *arguments)
  assert done.returncode == 0, done.stderr
  report = json.loads(done.stdout)
  assert report['parameters'] == 3_559_930
  assert report['settings'] == {'router_scale': 4, 'inference_routing': 'all'}
  system, variables = checkpoint.load(output)
  assert system.multiple == 16 and system.frames == ((0, 1), (2,))
  expected = convert.from_torch('dmvfn', published, channel_order='rgb')
  jax.tree.map(np.testing.assert_array_equal, variables, expected)

  before = (output / 'system.json').read_bytes()
  again = commands.run('vidpred_jax.convert', *arguments)
  assert again.returncode == 2
  assert again.stderr.strip().splitlines()[-1].startswith('Error: ')
  assert 'exists already' in again.stderr
  assert 'Traceback' not in again.stderr
  assert (output / 'system.json').read_bytes() == before


def test_command_line_for_simvp(tmp_path):
  state, expected = openstl('tau')
  lightning = {'state_dict': {f'model.{k}': x for k, x in state.items()}}
  (tmp_path / 'best.ckpt').write_bytes(saved(lightning))
  done = commands.run(
    'vidpred_jax.convert',
    '--system=simvp',
    f'--input={tmp_path}/best.ckpt',
    f'--output={tmp_path}/export',
    '--set=translator=tau',
    *[f'--set={name}={value}' for name, value in SMALL.items()],
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)['settings'] == {'translator': 'tau', **SMALL}
  system, variables = checkpoint.load(tmp_path / 'export')
  assert system.frames == ((0, 1, 2), (3, 4, 5)) and system.channels == 2
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize('text', ['beta', '=3', 'a b=3'])
def test_settings_on_the_command_line(text):
  with pytest.raises(ValueError, match='name=value'):
    command.parse_settings([text])
  with pytest.raises(ValueError, match='twice'):
    command.parse_settings(['beta=1', 'beta=2'])
  with pytest.raises(ValueError, match='neither'):
    command.parse_settings(['scales=(4,2'])
  for path in ('my.npy', '../a/b-1.npz', '/data/*.npy', '~/x_2.zarr', './y'):
    assert command.parse_settings([f'root={path}']) == {'root': path}


def test_frames_belong_to_the_weights(published):
  settings = command.parse_settings(['frames=((0, 1), (2, 3))'])
  with pytest.raises(ValueError, match='frames is no setting.*trained for'):
    convert.from_torch('dmvfn', published, **settings)
  assert command.parse_settings(
    ['beta=0.25', 'scales=(4, 2)', 'routing=none', 'widths=None', "a='1'"]
  ) == {
    'beta': 0.25,
    'scales': (4, 2),
    'routing': 'none',
    'widths': None,
    'a': '1',
  }
