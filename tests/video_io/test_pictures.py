"""Damaged pictures are refused; what their headers claim takes no memory."""

import io
import resource
import struct
import time
import tracemalloc
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from vidpred_jax import video_io
from vidpred_jax.data import videos


@pytest.fixture(scope='module')
def image():
  noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3))
  return (noise // 8 * 8).astype(np.uint8)


def packed(image, kind, **settings):
  stream = io.BytesIO()
  Image.fromarray(image).save(stream, kind, **settings)
  return stream.getvalue()


@pytest.mark.parametrize('damage', ['bit', 'cut', 'filled', 'emptied'])
@pytest.mark.parametrize('pages', [0, 1])
def test_a_damaged_png_is_no_other_picture(tmp_path, image, damage, pages):
  more = {'save_all': True, 'append_images': [Image.fromarray(image[::-1])]}
  good = packed(image, 'PNG', **(more if pages else {}))
  rng = np.random.default_rng(1)
  path = tmp_path / 'a.png'
  refused = 0
  for _ in range(100):
    made, at = bytearray(good), int(rng.integers(40, len(good)))
    if damage == 'bit':
      made[at] ^= 1 << int(rng.integers(8))
    elif damage == 'cut':
      del made[at:]
    elif damage == 'filled':
      made[at : at + 16] = rng.bytes(16)
    else:
      made[at : at + 200] = bytes(200)
    path.write_bytes(made)
    try:
      for n, (_, frame) in enumerate(video_io.frames(path)):
        np.testing.assert_array_equal(frame, image if n == 0 else image[::-1])
    except ValueError as error:
      assert 'a.png' in str(error)
      refused += 1
  assert refused > 80


def part(kind, content):
  total = struct.pack('>I', zlib.crc32(kind + content))
  return struct.pack('>I', len(content)) + kind + content + total


def of_one_colour(width, height):
  """A PNG picture, packed a thousand times."""
  packing = zlib.compressobj()
  row = bytes(3 * width + 1)
  content = b''.join(packing.compress(row) for _ in range(height))
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + part(b'IHDR', header)
    + part(b'IDAT', content + packing.flush())
    + part(b'IEND', b'')
  )


@pytest.mark.parametrize('size', [(9000, 6000), (100, 500_000)])
def test_a_small_file_is_no_picture_of_gigabytes(tmp_path, size):
  (tmp_path / 'a.png').write_bytes(of_one_colour(*size))
  begin = time.time()
  with pytest.raises(ValueError, match='a.png.*header says'):
    video_io.read(tmp_path / 'a.png')
  assert time.time() - begin < 2


def test_a_black_frame_of_a_film_stays_one(tmp_path):
  (tmp_path / 'a.png').write_bytes(of_one_colour(1920, 1080))
  assert video_io.read(tmp_path / 'a.png').shape == (1, 1080, 1920, 3)


@pytest.mark.parametrize('kind', ['gif', 'y4m', 'mkv', 'webm'])
def test_a_film_that_is_cut_off_is_refused(tmp_path, image, kind):
  path = tmp_path / f'a.{kind}'
  with video_io.Writer(path, fps=10) as writer:
    for n in range(6):
      writer.write(np.roll(image, 5 * n, 1))
  whole = path.read_bytes()
  assert len(list(video_io.frames(path))) == 6
  for share in (0.4, 0.7, 0.9, 0.97):
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=path.name):
      list(video_io.frames(path))


def folder_with(folder, pages, films):
  """A folder of small pictures and films."""
  folder.mkdir()
  image = np.zeros((16, 16, 3), np.uint8)
  for name in pages:
    Image.fromarray(image).save(folder / name)
  for name in films:
    with video_io.Writer(folder / name, fps=10) as writer:
      writer.write(image)
      writer.write(image)
  return folder


@pytest.mark.parametrize('pages', [(), ('cover.jpg',), ('poster.png',)])
def test_a_folder_of_films_is_no_film(tmp_path, pages):
  folder = folder_with(tmp_path / 'a', pages, ('b.mkv', 'a.mp4'))
  for read in (video_io.probe, video_io.read, video_io.index, video_io.Film):
    with pytest.raises(ValueError, match=r'films \(a.mp4, b.mkv\) and no pict'):
      read(folder)
  found = [folder / name for name in ('a.mp4', 'b.mkv', *pages)]
  assert video_io.find_videos(folder) == found


def test_pictures_beside_films_are_used_and_it_says_so(tmp_path, caplog):
  folder = folder_with(tmp_path / 'a', ('1.png', '2.png'), ('a.mp4',))
  assert video_io.Film(folder).info.num_frames == 2
  assert f'Passed over in {folder}, no pictures: a.mp4' in caplog.text
  assert video_io.find_videos(folder) == [folder, folder / 'a.mp4']


@pytest.mark.parametrize('name', ['2.png', '2.webp', '2.tif'])
def test_an_animation_in_a_folder_is_no_picture(tmp_path, image, name):
  folder = folder_with(tmp_path / 'a', ('1.png',), ())
  pages = [Image.fromarray(image[:16, at : at + 16]) for at in (0, 16)]
  pages[0].save(folder / name, save_all=True, append_images=pages[1:])
  with pytest.raises(ValueError, match=f'{name} holds 2 pictures'):
    video_io.read(folder)
  assert len(video_io.read(folder / name)) == 2


@pytest.mark.parametrize('kind', ['webp', 'tif', 'png'])
def test_animations_in_a_folder_are_films_of_their_own(tmp_path, image, kind):
  paths = [tmp_path / f'{n}.{kind}' for n in range(3)]
  for n, path in enumerate(paths):
    pages = [Image.fromarray(image[n:16, at : at + 16]) for at in (0, 8, 16)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
  assert video_io.find_videos(tmp_path) == paths
  source = videos.VideoClips(
    'train', 2, root=tmp_path, test_fraction=0.0, scan_cache=False
  )
  assert len(source.files) == 3 and len(source) == 6


def test_a_small_picture_beside_the_first_is_left_out(tmp_path, image):
  folder = folder_with(tmp_path / 'a', (), ())
  pages = [Image.fromarray(image), Image.fromarray(image[::4, ::4])]
  pages[0].save(folder / '1.tif', save_all=True, append_images=pages[1:])
  pages[0].save(folder / '2.tif')
  np.testing.assert_array_equal(video_io.read(folder), [image, image])


@pytest.mark.parametrize('bits', [12, 16])
def test_packed_bits_of_tiff_reach_white(tmp_path, bits):
  values = np.arange(0, 1 << bits, 1 << bits - 4, np.uint16).reshape(4, 4)
  values[-1, -1] = (1 << bits) - 1
  if bits == 16:
    content = values.tobytes()
  else:
    digits = ''.join(f'{value:03x}' for value in values.flat)
    content = bytes.fromhex(digits)
  tags = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 1), (273, 8),
          (277, 1), (278, 4), (279, len(content))]  # fmt: skip
  path = tmp_path / 'a.tif'
  content += bytes(len(content) % 2)
  path.write_bytes(
    struct.pack('<2sHI', b'II', 42, 8 + len(content))
    + content
    + struct.pack('<H', len(tags))
    + b''.join(struct.pack('<HHII', tag, 3, 1, value) for tag, value in tags)
    + bytes(4)
  )
  expected = np.rint(values / ((1 << bits) - 1) * 255)
  np.testing.assert_array_equal(video_io.read(path)[0, :, :, 0], expected)


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_few_bits_in_sixteen_are_dark_and_it_says_so(tmp_path, caplog, name):
  ramp = np.tile(np.linspace(0, 4095, 16).astype(np.uint16), (8, 1))
  Image.fromarray(ramp).save(tmp_path / name)
  for _ in range(2):
    assert video_io.read(tmp_path / name).max() == 16
  (said,) = [r.getMessage() for r in caplog.records]
  assert f'in {tmp_path} holds no number above 4095 and is dark' in said
  caplog.clear()
  Image.fromarray(16 * ramp).save(tmp_path / name)
  assert video_io.read(tmp_path / name).max() == 255 and not caplog.records


def test_few_bits_in_sixteen_of_each_colour(tmp_path, caplog):
  ramp = np.linspace(0, 4095, 48).reshape(4, 4, 3)
  for n, values in enumerate((16 * ramp, ramp)):
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    parts = {
      b'IHDR': struct.pack('>IIBBBBB', 4, 4, 16, 2, 0, 0, 0),
      b'IDAT': zlib.compress(rows),
      b'IEND': b'',
    }
    path = tmp_path / f'{n}.png'
    path.write_bytes(
      b'\x89PNG\r\n\x1a\n'
      + b''.join(
        struct.pack('>I', len(data)) + kind + data
        + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in parts.items()
      )
    )  # fmt: skip
    assert video_io.read(path).max() == (255, 15)[n]
    assert len(caplog.records) == n
  assert 'no number above 4095 and is dark' in caplog.text


@pytest.mark.parametrize(
  'name',
  [
    '@eaDir/1.png/SYNOPHOTO.jpg',
    '__MACOSX/1.png',
    'System Volume Information/1.png',
    '__macosx/2.png',
    '#recycle/0.png',
  ],
)
def test_what_systems_put_in_folders_is_no_picture(tmp_path, caplog, name):
  folder = folder_with(tmp_path / 'a', ('1.png', '2.png'), ())
  (folder / name).parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', (8, 8)).save(folder / name)
  assert len(video_io.read(folder)) == 2
  assert video_io.find_videos(folder) == [folder]
  assert video_io.find_pictures(folder) == [folder / '1.png', folder / '2.png']
  assert not caplog.records


def test_a_single_picture_is_still_one(tmp_path):
  folder = folder_with(tmp_path / 'a', ('1.png',), ())
  assert video_io.probe(folder).num_frames == 1
  assert video_io.find_videos(folder) == [folder]


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_a_large_picture_is_not_held_twice(tmp_path, channels):
  tile = np.random.default_rng(0).integers(0, 255, (300, 300, channels))
  large = np.tile(tile.astype(np.uint8), (10, 10, 1))
  path = tmp_path / 'a.png'
  Image.fromarray(large[:, :, 0] if channels == 1 else large).save(
    path, compress_level=1
  )
  (found,) = video_io.read(path)  # first, for what is imported on the way
  tracemalloc.start()
  (found,) = video_io.frames(path)
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  expected = large[:, :, :3].astype(np.uint16)
  if channels == 4:
    expected = (expected * large[:, :, 3:] + 127) // 255
  np.testing.assert_array_equal(
    found[1], np.broadcast_to(expected, found[1].shape)
  )
  assert most < 2 * found[1].nbytes


@pytest.mark.parametrize('suffix', ['pcx', 'sgi', 'qoi', 'pbm', 'j2k', 'PFM'])
def test_kinds_that_are_read_singly_are_found_in_a_folder(tmp_path, suffix):
  grey = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)
  image = Image.fromarray(np.stack([grey, grey.T.reshape(24, 32), grey], -1))
  kinds = {'pbm': 'PPM', 'j2k': 'JPEG2000', 'PFM': 'PPM'}
  if suffix == 'pbm':
    image = image.convert('1')
  if suffix == 'PFM':
    image = Image.fromarray(np.float32(grey / 255))
  for k in range(2):
    image.save(tmp_path / f'{k}.{suffix}', kinds.get(suffix, suffix.upper()))
  frames = video_io.read(tmp_path)
  (alone,) = video_io.read(tmp_path / f'0.{suffix}')
  assert frames.shape == (2, 24, 32, 3)
  np.testing.assert_array_equal(frames, [alone, alone])


@pytest.mark.parametrize('other', ['b.jxl', 'c.dng', 'making_of.mp4'])
def test_what_looks_like_a_picture_and_is_left_out_is_named(
  tmp_path, caplog, other
):
  for k in range(2):
    Image.new('RGB', (8, 8)).save(tmp_path / f'{k}.png')
  for name in (other, 'notes.txt', '.hidden.png', 'times.csv'):
    (tmp_path / name).write_text('x')
  for _ in range(2):
    assert len(video_io.read(tmp_path)) == 2
  (said,) = [r.getMessage() for r in caplog.records]
  assert said == f'Passed over in {tmp_path}, no pictures: {other}'


def as_float(path, values):
  """Writes light, [H, W] or [H, W, 3] of R, G, B, as EXR or Radiance."""
  if values.ndim == 2 or path.suffix == '.hdr':
    values = np.broadcast_to(values.reshape(*values.shape[:2], -1), (16, 24, 3))
  if path.suffix == '.hdr':
    lines = []
    for row in values:
      powers = np.frexp(row.max(-1))[1]
      shared = np.floor(np.ldexp(row, 8 - powers[:, None]))
      lines.append(np.concatenate([shared, powers[:, None] + 128], -1))
    head = b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 16 +X 24\n'
    path.write_bytes(head + np.array(lines).astype(np.uint8).tobytes())
    return path
  with av.open(str(path), 'w', format='image2') as output:
    stream = output.add_stream('exr', rate=25)
    stream.width, stream.height, stream.pix_fmt = 24, 16, 'gbrpf32le'
    frame = av.VideoFrame.from_ndarray(values.astype(np.float32), 'gbrpf32le')
    output.mux(stream.encode(frame))
    output.mux(stream.encode())
  return path


class TestPicturesOfLight:
  @pytest.mark.parametrize('kind', ['exr', 'hdr'])
  def test_folder_of_a_renderer(self, tmp_path, kind):
    light = np.array([0.0, 0.214, 0.5, 1.0])  # of 0, 127, 188, 255 of sRGB
    values = np.repeat(light, 6) * np.ones((16, 1))
    for n in range(3):
      as_float(tmp_path / f'{n}.{kind}', values)
    assert video_io.find_videos(tmp_path) == [tmp_path]
    frames = video_io.read(tmp_path)
    assert frames.shape == (3, 16, 24, 3)
    found = frames[:, :, 3::6].astype(int)
    assert np.abs(found - np.array([0, 127, 188, 255])[:, None]).max() <= 1
    (alone,) = video_io.read(tmp_path / f'0.{kind}')
    np.testing.assert_array_equal(alone, frames[0])

  def test_colours_have_their_places(self, tmp_path):
    path = as_float(tmp_path / 'a.exr', np.ones((16, 24, 1)) * [1, 0.214, 0])
    assert np.abs(video_io.read(path)[0, 0, 0] - [255.0, 127, 0]).max() <= 1

  @pytest.mark.parametrize('kind', ['exr', 'hdr'])
  @pytest.mark.parametrize('high', [1.5, 100.0])
  def test_what_is_no_colour_is_refused(self, tmp_path, kind, high):
    path = as_float(tmp_path / f'a.{kind}', np.full((16, 24), high))
    with pytest.raises(
      ValueError, match=f'{path.name}.*reach from .* to {high:g}'
    ):
      video_io.read(path)

  def test_a_small_file_is_no_picture_of_gigabytes(self, tmp_path):
    path = as_float(tmp_path / 'a.exr', np.full((16, 24), 0.5))
    data = bytearray(path.read_bytes())
    for name in (b'dataWindow', b'displayWindow'):
      at = data.index(name + b'\0box2i\0') + len(name) + 11
      data[at : at + 16] = struct.pack('<4i', 0, 0, 15_999, 15_999)
    path.write_bytes(data)
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match='a.exr'):
      video_io.read(path)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert most - begin < 100 << 10  # kB

  def test_in_a_film(self, tmp_path):
    path = tmp_path / 'a.mov'
    with av.open(str(path), 'w') as output:
      stream = output.add_stream('exr', rate=25)
      stream.width, stream.height, stream.pix_fmt = 24, 16, 'gbrpf32le'
      for light in (0, 0.5, 2):
        values = np.full((16, 24, 3), light, np.float32)
        frame = av.VideoFrame.from_ndarray(values, 'gbrpf32le')
        output.mux(stream.encode(frame))
      output.mux(stream.encode())
    frames = video_io.frames(path)
    assert [next(frames)[1].max() for _ in range(2)] == [0, 188]
    with pytest.raises(ValueError, match='reach from 0 to 2'):
      next(frames)


@pytest.mark.parametrize('kind', [b'PF', b'Pf'])
def test_pfm_is_read_from_the_bottom(tmp_path, kind):
  channels = 3 if kind == b'PF' else 1
  ramp = np.linspace(0, 1, 16 * 24 * channels).reshape(16, 24, channels)
  path = tmp_path / 'a.pfm'
  rows = ramp[::-1].astype('<f4').tobytes()
  path.write_bytes(kind + b'\n24 16\n-1\n' + rows)
  expected = np.broadcast_to(255 * ramp, (16, 24, 3))
  np.testing.assert_allclose(video_io.read(path)[0], expected, atol=0.51)


def test_a_kind_of_tiff_that_is_not_read(tmp_path):
  path = tmp_path / 'a.tif'
  Image.fromarray(np.zeros((8, 8), np.float32)).save(path)
  data = path.read_bytes()
  bits = struct.pack('<HHIH', 258, 3, 1, 32)
  assert bits in data
  path.write_bytes(data.replace(bits, struct.pack('<HHIH', 258, 3, 1, 64)))
  with pytest.raises(ValueError, match='TIFF may have 8 or 16 bits'):
    video_io.read(path)


def tiff(path, values, tags):
  """Pillow writes no negative pictures; the tags are changed afterwards."""
  Image.fromarray(values).save(path)
  data = bytearray(path.read_bytes())
  for tag, value in tags.items():
    at = data.index(struct.pack('<HH', tag, 3))
    data[at + 8 : at + 10] = struct.pack('<H', value)
  path.write_bytes(data)
  return path


@pytest.mark.parametrize('kind', [np.uint16, np.float32])
def test_zero_may_be_white(tmp_path, kind):
  ramp = np.linspace(0, 1, 256).reshape(16, 16)
  values = ramp.astype(kind) if kind is np.float32 else np.uint16(ramp * 65535)
  path = tiff(tmp_path / 'a.tif', values, {262: 0})
  np.testing.assert_allclose(
    video_io.read(path)[0, :, :, 0], 255 - 255 * ramp, atol=1
  )


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
@pytest.mark.parametrize('orientation, turns', [(6, -1), (8, 1)])
def test_turned_by_a_tag(tmp_path, kind, orientation, turns):
  grey = np.arange(16 * 12).reshape(16, 12)
  scale = 1 if kind is np.uint8 else 257
  path = tmp_path / 'a.tif'
  image = Image.fromarray((scale * grey).astype(kind))
  image.save(path, tiffinfo={274: orientation})
  found = video_io.read(path)[0, :, :, 0]
  np.testing.assert_array_equal(found, np.rot90(grey, turns))


def test_signed_numbers_of_16_bits_reach_white(tmp_path):
  ramp = np.linspace(0, 32767, 256).reshape(16, 16)
  path = tmp_path / 'a.tif'
  Image.fromarray(ramp.astype(np.uint16)).save(path, tiffinfo={339: 2})
  np.testing.assert_allclose(
    video_io.read(path)[0, :, :, 0], ramp / 32767 * 255, atol=1
  )


def test_signed_numbers_of_8_bits_are_refused(tmp_path):
  path = tmp_path / 'a.tif'
  Image.fromarray(np.zeros((16, 16), np.uint8)).save(path, tiffinfo={339: 2})
  with pytest.raises(ValueError, match='have a sign'):
    video_io.read(path)
