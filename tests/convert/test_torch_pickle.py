"""Weight files without PyTorch: what is read, and what is refused."""

import ipaddress
import pathlib
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.convert.harm import Command
from tests.convert.published import legacy, saved, zipped
from vidpred_jax import convert

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
    '_orig_mod.encoder.{}.weight',
    'module._orig_mod.encoder.{}.weight',
    '_orig_mod.module.encoder.{}.weight',
    'encoder._orig_mod.{}.weight',
    'encoder.module.{}.weight',
    '_forward_module.encoder.{}._fsdp_wrapped_module.weight',
    'encoder._checkpoint_wrapped_module.{}.weight',
  ],
)
def test_names_as_before_they_were_wrapped(tmp_path, wrapped):
  arrays = [np.full(2, k, np.float32) for k in range(3)]
  np.savez(
    tmp_path / 'a.npz', **{wrapped.format(k): x for k, x in enumerate(arrays)}
  )
  expected = {f'encoder.{k}.weight': x for k, x in enumerate(arrays)}
  assert_same(convert.read_torch(tmp_path / 'a.npz'), expected)


def test_a_name_of_wrappers_alone_is_refused(tmp_path):
  np.savez(tmp_path / 'a.npz', **{'_orig_mod': np.ones(2, np.float32)})
  with pytest.raises(ValueError, match='_orig_mod, which says nothing'):
    convert.read_torch(tmp_path / 'a.npz')


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


@pytest.mark.parametrize('key', ['ema_model', 'state_dict/ema_model'])
def test_a_key_may_be_what_names_begin_with(tmp_path, key):
  ours = {'a.weight': np.ones(2, np.float32)}
  names = {f'ema_model.{k}': x for k, x in ours.items()}
  names |= {'online_model.a.weight': np.zeros(2), 'step': np.array(3)}
  path = tmp_path / 'a.npz'
  np.savez(path, **names)
  if key == 'ema_model':
    assert_same(convert.read_torch(path, key=key), ours)
  else:
    with pytest.raises(ValueError, match="no 'state_dict'"):
      convert.read_torch(path, key=key)


def test_numbers_are_no_names_of_places(tmp_path):
  path = tmp_path / 'a.pth'
  data = saved({'\0': {'w': np.ones(2, np.float32)}})
  path.write_bytes(data.replace(b"S'\0'", b'I000'))
  assert list(convert.read_torch(path)) == ['w']


def test_what_stands_beside_the_weights_is_named(shared):
  path = shared / 'data/weights/ebme/ebme_bi-flownet.pkl'
  state = convert.read_torch(path)
  both = {f'{p}.{k}': x for k, x in state.items() for p in ('net', 'ema')}
  loss = {f'net.{k}': x for k, x in state.items()} | {'vgg.w': np.ones(2)}
  for names, message in (
    (both, r'begin with ema\., net\.; say by key .* such as ema\.'),
    (loss, r'begin with net\. and there are others: vgg; say by key'),
  ):
    with pytest.raises(ValueError, match=message):
      convert.from_torch('apr_vfi', names, synthesis='warp')


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
    ({'a': np.polynomial.Polynomial([1])}, r'numpy\.polynomial'),
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


@pytest.mark.parametrize('bit', ['neg', 'conj'])
def test_views_with_another_sign_are_refused(tmp_path, bit):
  """What is stored is not what they hold."""
  data = tensor_file(0, (2,), (1,))
  end = b'I00\n}'
  said = end + b"}S'%s'\nI01\ns" % bit.encode()
  (tmp_path / 'a.pth').write_bytes(data.replace(end, said))
  with pytest.raises(ValueError, match=r'a\.pth.*negative or conjugate'):
    convert.read_torch(tmp_path / 'a.pth')


@pytest.mark.parametrize(
  'kind', ['torch\nTensor', 'torch.nn.parameter\nBuffer']
)
def test_tensors_with_attributes(tmp_path, kind):
  data = tensor_file(0, (2,), (1,))
  call = b'ctorch._utils\n_rebuild_tensor_v2\n('
  typed = b'ctorch._tensor\n_rebuild_from_type_v2\n(' + call[:-1]
  typed += b'c' + kind.encode() + b'\n('
  data = data.replace(call, typed).replace(b'}tRs.', b'}t}tRs.')
  (tmp_path / 'a.pth').write_bytes(data)
  np.testing.assert_array_equal(
    convert.read_torch(tmp_path / 'a.pth')['x'], [0, 1]
  )


# --- Damage and confusion ----------------------------------------------------


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth'])
def test_truncated_files_are_refused(name, tmp_path):
  data = (FILES / name).read_bytes()
  for length in range(0, len(data), 61):
    (tmp_path / 'cut.pth').write_bytes(data[:length])
    with pytest.raises(ValueError, match='cut.pth'):
      convert.read_torch(tmp_path / 'cut.pth')


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
