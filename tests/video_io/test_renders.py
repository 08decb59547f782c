"""EXR and Radiance: what is lost is named, and alpha darkens only once."""

import struct

import av
import numpy as np
import pytest
from PIL import Image

from vidpred_jax import video_io


def exr(path, values, compression='zip16', kind='gbrpf32le'):
  with av.open(str(path), 'w', format='image2') as output:
    stream = output.add_stream('exr', rate=25)
    stream.height, stream.width = values.shape[:2]
    stream.pix_fmt, stream.options = kind, {'compression': compression}
    planes = [values[:, :, c] for c in (1, 2, 0, 3)[: values.shape[2]]]
    frame = av.VideoFrame(stream.width, stream.height, kind)
    for plane, numbers in zip(frame.planes, planes):
      rows = np.zeros((stream.height, plane.line_size // 4), np.float32)
      rows[:, : stream.width] = numbers
      plane.update(rows.tobytes())
    output.mux(stream.encode(frame))
    output.mux(stream.encode())
  return path


def noise():
  return np.random.default_rng(0).integers(0, 8, (48, 24, 3)) / np.float32(8)


@pytest.mark.parametrize('compression', ['none', 'rle', 'zip1', 'zip16'])
class TestDamage:
  def test_whole_files_are_read(self, tmp_path, compression):
    path = exr(tmp_path / 'a.exr', noise(), compression)
    assert video_io.read(path).shape == (1, 48, 24, 3)

  @pytest.mark.parametrize('share', [0.02, 0.1, 0.5, 0.8, 0.95, 0.99])
  @pytest.mark.parametrize('is_filled', [False, True])
  def test_cut_or_zeroed(self, tmp_path, compression, share, is_filled):
    path = exr(tmp_path / 'a.exr', noise(), compression)
    data = path.read_bytes()
    if is_filled and share > 0.9 and compression in ('none', 'rle'):
      pytest.skip('has no sums; a zero may be a colour')
    made = data[: int(share * len(data))]
    path.write_bytes(made.ljust(len(data), b'\0') if is_filled else made)
    with pytest.raises(ValueError, match='a.exr'):
      video_io.read(path)

  def test_an_offset_of_zero(self, tmp_path, compression):
    path = exr(tmp_path / 'a.exr', noise(), compression)
    data = bytearray(path.read_bytes())
    at = data.index(b'lavc') + 5
    data[at + 8 : at + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(ValueError, match='a.exr.*chunk'):
      video_io.read(path)


@pytest.mark.parametrize('alpha', [0.25, 0.5])
def test_colours_are_stored_as_they_lie_over_black(tmp_path, alpha):
  values = np.full((16, 24, 4), alpha, np.float32)
  shown = exr(tmp_path / 'a.exr', values, kind='gbrapf32le')
  plain = exr(tmp_path / 'b.exr', values[:, :, :3])
  np.testing.assert_array_equal(video_io.read(shown), video_io.read(plain))


@pytest.mark.parametrize(
  'kind, size, message',
  [
    (b'32-bit_rle_xyze', b'-Y 16 +X 24', 'FORMAT is 32-bit_rle_xyze'),
    (b'32-bit_rle_rgbe', b'+Y 16 +X 24', r"size is '\+Y 16 \+X 24'"),
    (b'32-bit_rle_rgbe', b'+X 24 -Y 16', r"size is '\+X 24 -Y 16'"),
  ],
)
def test_radiance_in_other_ways(tmp_path, kind, size, message):
  path = tmp_path / 'a.hdr'
  pixels = bytes([128, 128, 128, 128]) * 16 * 24
  head = b'#?RADIANCE\nFORMAT=%s\n\n%s\n'
  path.write_bytes(head % (b'32-bit_rle_rgbe', b'-Y 16 +X 24') + pixels)
  assert video_io.read(path).shape == (1, 16, 24, 3)
  path.write_bytes(head % (kind, size) + pixels)
  with pytest.raises(ValueError, match=message):
    video_io.read(path)


@pytest.mark.parametrize('white', [1023, 4095])
def test_white_of_colours_in_tiff(tmp_path, white):
  tifffile = pytest.importorskip('tifffile')
  path = tmp_path / 'a.tif'
  values = np.full((16, 24, 3), white, np.uint16)
  for most in (65535, white):
    tifffile.imwrite(
      path, values, photometric='rgb', extratags=[(281, 'H', 3, (most,) * 3, 1)]
    )
    if most == 65535:
      assert video_io.read(path).max() == white >> 8
  with pytest.raises(ValueError, match=f'MaxSampleValue is {white}'):
    video_io.read(path)


@pytest.mark.parametrize('high', [1 << 31, (1 << 32) - 1])
def test_numbers_of_32_bits_without_a_sign(tmp_path, high):
  path = tmp_path / 'a.tif'
  values = np.array([[0, high]], np.uint32).view(np.int32)
  Image.fromarray(values).save(path)
  data = path.read_bytes()  # Pillow writes numbers with a sign
  signed, unsigned = (struct.pack('<HHIH', 339, 3, 1, n) for n in (2, 1))
  assert signed in data
  path.write_bytes(data.replace(signed, unsigned))
  with pytest.raises(ValueError, match=f'from 0 to {high}'):
    video_io.read(path)


def tiled(path, *, cut=0, last=(2, 1, 0, 0)):
  """Grey EXR of 40 x 24 pixels in tiles of 16 x 16, not packed."""

  def attribute(name, kind, content):
    return (
      name + b'\0' + kind + b'\0' + struct.pack('<I', len(content)) + content
    )

  window = struct.pack('<4i', 0, 0, 39, 23)
  channel = b'Y\0' + struct.pack('<4i', 2, 0, 1, 1) + b'\0'
  head = struct.pack('<2I', 20000630, 2 | 0x200) + b''.join(
    (
      attribute(b'channels', b'chlist', channel),
      attribute(b'compression', b'compression', b'\0'),
      attribute(b'dataWindow', b'box2i', window),
      attribute(b'displayWindow', b'box2i', window),
      attribute(b'lineOrder', b'lineOrder', b'\0'),
      attribute(b'pixelAspectRatio', b'float', struct.pack('<f', 1)),
      attribute(b'screenWindowCenter', b'v2f', bytes(8)),
      attribute(b'screenWindowWidth', b'float', struct.pack('<f', 1)),
      attribute(b'tiles', b'tiledesc', struct.pack('<2IB', 16, 16, 0)),
      b'\0',
    )
  )
  chunks, offsets = b'', []
  for y, height in enumerate((16, 8)):
    for x, width in enumerate((16, 16, 8)):
      offsets.append(len(head) + 6 * 8 + len(chunks))
      pixels = np.ones(height * width, '<f4').tobytes()
      name = last if (x, y) == (2, 1) else (x, y, 0, 0)
      chunks += struct.pack('<5i', *name, len(pixels)) + pixels
  data = head + struct.pack('<6Q', *offsets) + chunks
  path.write_bytes(data[: len(data) - cut])
  return path


def test_tiles(tmp_path):
  found = video_io.read(tiled(tmp_path / 'a.exr'))
  np.testing.assert_array_equal(found, np.full((1, 24, 40, 3), 255))


@pytest.mark.parametrize(
  'damage', [{'cut': 1}, {'cut': 900}, {'last': (0,) * 4}]
)
def test_a_tile_that_is_lost(tmp_path, damage):
  with pytest.raises(ValueError, match='a.exr.*chunk at'):
    video_io.read(tiled(tmp_path / 'a.exr', **damage))


def test_deep_exr_is_named(tmp_path):
  path = tiled(tmp_path / 'a.exr')
  data = bytearray(path.read_bytes())
  data[5] |= 8
  path.write_bytes(data)
  with pytest.raises(ValueError, match='deep EXR'):
    video_io.read(path)
