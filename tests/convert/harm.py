"""Weight files that are small and mean harm."""

import io
import os
import zipfile

import numpy as np


class Command:
  """Pickles as a call of `os.system`."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


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
    header('(75000000,)'), zipfile.ZIP_DEFLATED, bytes(300_000_000)
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


def good_zip():
  """A tensor of four numbers."""
  program = b'\x80\x02}X\x01\x00\x00\x00w' + tensor((2, 2), (2, 1)) + b's.'
  return archive(program, np.arange(4, dtype=np.float32).tobytes())
