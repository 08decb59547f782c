"""Weight files that are small and mean harm, or damaged, end soon in words."""

import io
import os
import resource
import time
import zipfile

import numpy as np
import pytest

from vidpred_jax import convert
from vidpred_jax.convert import weights


def tensor(shape, strides):
  """A tensor of a storage of four float32."""
  listed = [b''.join(b'I%d\n' % n for n in x) for x in (shape, strides)]
  return (
    b'ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\n'
    b'V0\nVcpu\nI4\ntQI0\n(%st(%stI00\nccollections\nOrderedDict\n)RtR'
  ) % tuple(listed)


def archive(program, data=bytes(16), **others):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as made:
    made.writestr('a/data.pkl', program)
    made.writestr('a/data/0', data)
    for name, content in others.items():
      made.writestr(f'a/{name}', content)
  return stream.getvalue()


def memo_bomb(depth, end=b'', kind=b't'):
  program = b'\x80\x02(K\x01K\x01tq\x00'
  for k in range(1, depth):
    pair = b'(h' + bytes([k - 1]) + b'h' + bytes([k - 1]) + kind
    program += b'0' + pair + b'q' + bytes([k])
  return archive(program + end + b'.')


def copies(name, kind):
  """One long list or dict, copied again and again."""
  many = b''.join(b'K\x01' for _ in range(20_000))
  if kind == 'pairs':
    begin = b'\x80\x02](' + b''.join(
      b'(X\x04\x00\x00\x00%04dK\x01t' % n for n in range(5000)
    )
    begin += b'eq\x00'
  else:
    begin = b'\x80\x02](' + many + b'eq\x00'
  call = b'c' + name + b'\n(h\x00tR'
  return archive(begin + b'(' + call * 20_000 + b'l.')


def npz():
  stream = io.BytesIO()
  np.savez(stream, w=np.arange(6, dtype=np.float32))
  return stream.getvalue()


def npz_of(header, packed=zipfile.ZIP_STORED, content=bytes(64)):
  stream = io.BytesIO()
  text = header.ljust(117).encode('latin-1') + b'\n'
  with zipfile.ZipFile(stream, 'w', packed) as made:
    npy = b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text
    made.writestr('w.npy', npy + content)
  return stream.getvalue()


def header(shape, kind='<f4'):
  return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


def overlapping():
  """A zip archive whose entries are the same bytes."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as made:
    made.writestr('a/data.pkl', b'\x80\x02}.')
    made.writestr('a/data/0', bytes(200_000))
    info = made.infolist()[1]
    for n in range(1, 50):
      other = zipfile.ZipInfo(f'a/data/{n}')
      other.header_offset, other.CRC = info.header_offset, info.CRC
      other.file_size = other.compress_size = info.file_size
      made.filelist.append(other)
  return stream.getvalue()


def flagged(bit, method=None):
  data = bytearray(npz())
  for signature, at in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
    place = data.index(signature) + at
    data[place] |= bit
    if method is not None:
      data[place + 2 : place + 4] = method.to_bytes(2, 'little')
  return bytes(data)


HARMFUL = {
  'tuples in tuples': lambda: memo_bomb(60),
  'tuples as a key': lambda: memo_bomb(60, b'q\x00}h\x00K\x01s'),
  'lists in lists': lambda: memo_bomb(28, kind=b'l'),
  'a list in itself': lambda: archive(b'\x80\x02]q\x00h\x00a.'),
  'very deep': lambda: archive(b'\x80\x02' + b']' * 5000 + b'a' * 4999 + b'.'),
  'copies of a dict': lambda: copies(b'collections\nOrderedDict', 'pairs'),
  'copies of a size': lambda: copies(b'torch\nSize', 'list'),
  'a tensor without end': lambda: archive(
    b'\x80\x02}X\x05\x00\x00\x00betas' + tensor((10**9,), (0,)) + b's.'
  ),
  'a tensor of many axes': lambda: archive(
    b'\x80\x02}X\x01\x00\x00\x00w' + tensor((1,) * 5000, (1,) * 5000) + b's.'
  ),
  'entries that overlap': overlapping,
  'a long name': lambda: archive(b'c' + b'x' * 10**6 + b'\ny\n.'),
  'an escape': lambda: archive(b'c\x1b[31mos\nsystem\n.'),
  'zeros that are packed': lambda: npz_of(
    header('(100000000,)'), zipfile.ZIP_DEFLATED, bytes(400_000_000)
  ),
  'npz of a huge shape': lambda: npz_of(header('(1000000000000,)')),
  'npz of a shape beyond': lambda: npz_of(header('(18446744073709551616,)')),
  'npz without a header': lambda: npz_of("{'descr': (((("),
  'npz of objects': lambda: npz_of(header('(2,)', '|O')),
  'npz of half a text': lambda: npz_of("{'descr': '''<f4"),
  'npz that is encrypted': lambda: flagged(1),
  'npz of an unknown method': lambda: flagged(0, 99),
  'npz of patched data': lambda: flagged(1 << 5),
  'npz of damaged LZMA': lambda: flagged(0, 14),
  'half a zip': lambda: npz()[:100],
  'complex': lambda: npz_of(header('(8,)', '<c8')),
  'dates': lambda: npz_of(header('(8,)', '<M8[s]')),
  'text': lambda: npz_of(header('(4,)', '<U4')),
}


@pytest.mark.parametrize('name', HARMFUL)
def test_a_harmful_file_ends_soon_and_in_words(name, tmp_path):
  path = tmp_path / 'x.pth'
  path.write_bytes(HARMFUL[name]())
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  start = time.time()
  with pytest.raises(ValueError) as error:
    convert.from_torch('dmvfn', convert.read_torch(path))
  assert time.time() - start < 20
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 600 << 10  # kB
  assert len(str(error.value)) < 3000


@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_what_is_no_file_is_refused(kind, tmp_path):
  path = {'pipe': tmp_path / 'p', 'device': '/dev/zero', 'folder': tmp_path}
  if kind == 'pipe':
    os.mkfifo(path[kind])
  with pytest.raises((ValueError, OSError), match='no ordinary|directory'):
    convert.read_torch(path[kind])


def test_every_damaged_byte_of_a_file_ends_in_words(tmp_path):
  """Flipped, cut and filled: pickles in zip, npz."""
  rng = np.random.default_rng(0)
  good = archive(
    b'\x80\x02}X\x01\x00\x00\x00w' + tensor((2, 2), (2, 1)) + b's.',
    np.arange(4, dtype=np.float32).tobytes(),
  )
  path = tmp_path / 'x'
  path.write_bytes(good)
  assert convert.read_torch(path)['w'].shape == (2, 2)
  for content in (good, npz()):
    for n in range(600):
      damaged = bytearray(content)
      at = int(rng.integers(len(damaged)))
      if n % 3 == 0:
        damaged[at] ^= 1 << int(rng.integers(8))
      elif n % 3 == 1:
        del damaged[at:]
      else:
        damaged[at : at + 8] = rng.bytes(8)
      path.write_bytes(damaged)
      try:
        convert.read_torch(path)
      except ValueError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_taken_when_asked_for(value, tmp_path):
  """Real numbers that are too large for float32 are not finite there."""
  names = {'w': ('params/w', 'vector')}
  expected = {'params': {'w': np.zeros(2, np.float32)}}
  found = weights.rearrange(names, {'w': np.array([value, 0.0])}, expected)
  assert not np.isfinite(found['params']['w']).all()


def test_the_command_refuses_them_and_names_the_flag(shared, tmp_path):
  flow = shared / 'weights' / 'ebme' / 'ebme_bi-flownet.pkl'
  if not flow.exists():
    pytest.skip('the published flow is not here')
  arrays = dict(convert.read_torch(flow))
  name = next(iter(arrays))
  arrays[name] = np.full_like(arrays[name], np.nan)
  with pytest.raises(ValueError, match='1 of .* not finite.*allow_nonfinite'):
    convert.from_torch('apr_vfi', arrays, synthesis='warp')
  convert.from_torch('apr_vfi', arrays, synthesis='warp', allow_nonfinite=True)
