import io
import struct

import numpy as np
import pytest
from PIL import Image

from vidpred_jax.data.published import norpix


def picture(k):
  """Smooth, so that JPEG keeps it, and another for every k."""
  y, x = np.mgrid[:24, :32]
  channels = [x * 4 + k, y * 5 + 2 * k, 200 - 3 * x - k]
  return np.stack(channels, -1).astype(np.uint8)


def write(path, number, *, stamp=8, code=201, told=None):
  header = struct.pack('<I', 0xFEED) + 'Norpix seq'.encode('utf-16-le')
  numbers = (32, 24, 24, 8, 2304, code, number if told is None else told, 0, 0)
  header = header.ljust(548, b'\0') + struct.pack('<9Id', *numbers, 30.0)
  files = []
  with path.open('wb') as file:
    file.write(header.ljust(1024, b'\0'))
    for k in range(number):
      buffer = io.BytesIO()
      # Files of different lengths.
      Image.fromarray(picture(k)).save(buffer, 'JPEG', quality=80 + k)
      files.append(buffer.getvalue())
      file.write(struct.pack('<I', len(files[-1]) + 4) + files[-1])
      file.write(b'\x51\x0a\xff\xd8' + bytes(stamp - 4))
  return [np.asarray(Image.open(io.BytesIO(f))) for f in files]


@pytest.mark.parametrize('stamp', [6, 8, 16])
def test_frames(tmp_path, stamp):
  expected = write(tmp_path / 'a.seq', 9, stamp=stamp)
  assert norpix.probe(tmp_path / 'a.seq') == (24, 32, 9, 30.0)
  for numbers in (range(9), range(2, 9, 3), [4], [0, 8]):
    frames = norpix.read(tmp_path / 'a.seq', numbers)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, [expected[k] for k in numbers])
  assert np.abs(expected[3].astype(int) - picture(3)).mean() < 3


@pytest.mark.parametrize('stamp', [6, 8, 16])
def test_frames_are_counted(tmp_path, stamp):
  path = tmp_path / 'a.seq'
  write(path, 5, stamp=stamp, told=0)
  assert norpix.probe(path).num_frames == 0 and norpix.count(path) == 5
  # Where a recording ends, a part of a frame is none.
  data = path.read_bytes()
  path.write_bytes(data[: len(data) - 200])
  assert norpix.count(path) == 4
  write(path, 0)
  with pytest.raises(ValueError, match='has no frames'):
    norpix.count(path)


def test_files_that_cannot_be_read(tmp_path):
  path = tmp_path / 'a.seq'
  write(path, 5)
  with pytest.raises(ValueError, match='has 5 frames; frame 7 was asked for'):
    norpix.read(path, [1, 7])
  data = path.read_bytes()
  path.write_bytes(data[: len(data) - 200])
  with pytest.raises(ValueError, match='Frame 4 of .*a.seq is damaged'):
    norpix.read(path, [4])
  write(path, 5, code=100)
  with pytest.raises(ValueError, match='format 100; only JPEG, 102 or 201'):
    norpix.read(path, [0])
  for content in (b'', b'RIFF' + bytes(2000)):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='no Norpix seq file'):
      norpix.probe(path)
  with pytest.raises(FileNotFoundError):
    norpix.probe(tmp_path / 'b.seq')
