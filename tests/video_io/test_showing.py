"""Frames look as a player shows them; pictures as their files mean them."""

import gc
import pathlib
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from vidpred_jax import video_io
from vidpred_jax.video_io import cropping, hdr


def encode(path, frames, codec='libx264', form='rgb24', **settings):
  """Writes frames as one file; settings are those of the coding."""
  options = settings.pop('options', {})
  pixels = settings.pop('pixels', 'yuv420p')
  matrix = settings.pop('matrix', 'ITU709')
  with av.open(str(path), 'w', format=settings.pop('container', None)) as c:
    stream = c.add_stream(codec, rate=25, options=options)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = pixels
    for name, value in settings.items():
      setattr(stream.codec_context, name, value)
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(frame, form)
      picture = picture.reformat(
        format=pixels, dst_colorspace=matrix, dst_color_range='MPEG'
      )
      c.mux(stream.encode(picture))
    c.mux(stream.encode())
  return path


def flat(colour, size=(64, 96), kind=np.uint8):
  return np.full((*size, 3), colour, kind)


class TestColours:
  @pytest.mark.parametrize(
    'size, matrix',
    [((720, 1280), 'ITU709'), ((1280, 720), 'ITU709'), ((480, 640), 'ITU601')],
  )
  @pytest.mark.parametrize('name', ['a.mp4', 'a.avi'])
  def test_without_a_tag_the_size_tells(self, tmp_path, size, matrix, name):
    codec = 'libx264' if name == 'a.mp4' else 'mpeg4'
    path = encode(
      tmp_path / name, [flat((200, 30, 40), size)] * 2, codec, matrix=matrix,
      options={'crf': '4', 'q': '1'},
    )  # fmt: skip
    got = video_io.read(path)[0, 100, 100].astype(int)
    assert np.abs(got - (200, 30, 40)).max() <= 4

  @pytest.mark.parametrize('name', ['a.avi', 'a.y4m', 'a.mp4', 'a.webm'])
  @pytest.mark.parametrize('size', [(720, 1280), (64, 96)])
  def test_what_we_write_is_read_so(self, tmp_path, name, size):
    path = tmp_path / name
    with video_io.Writer(path, fps=25) as writer:
      writer.write(flat((200, 30, 40), size))
    got = video_io.read(path)[0, 30, 40].astype(int)
    assert np.abs(got - (200, 30, 40)).max() <= 5


class TestHighDynamicRange:
  def film(self, path, code, curve):
    frame = flat(round(65535 * code), kind=np.uint16)
    with video_io.Writer(path, fps=25, curve=curve) as writer:
      for _ in range(3):
        writer.write(frame)
    return path

  @pytest.mark.parametrize(
    'curve, code, level',
    [
      ('pq', 0.5806, 241),  # 203 cd/m^2, paper
      ('pq', 0.0, 0),
      ('pq', 0.4, 119),  # 32.5 cd/m^2: 255 (32.5 / 203) ** (1 / 2.4)
      ('pq', 1.0, 255),
      ('hlg', 0.75, 241),
      ('hlg', 0.0, 0),
      ('hlg', 1.0, 254),
    ],
  )
  @pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
  def test_is_mapped(self, tmp_path, name, curve, code, level):
    path = self.film(tmp_path / name, code, curve)
    assert video_io.probe(path).curve == curve
    got = video_io.read(path)
    assert got.dtype == np.uint8
    assert abs(got.mean() - level) <= 3

  @pytest.mark.parametrize('curve', ['pq', 'hlg'])
  @pytest.mark.parametrize(
    'colour', [(20000, 40000, 30000), (50000, 25000, 20000)]
  )
  def test_colours_survive(self, tmp_path, curve, colour):
    path = tmp_path / 'a.mp4'
    frame = np.empty((64, 96, 3), np.uint16)
    frame[:] = colour
    with video_io.Writer(path, fps=10, curve=curve) as writer:
      writer.write(frame)
    _, kept = next(video_io.frames(path, keep_hdr=True))
    np.testing.assert_allclose(kept.mean((0, 1)), colour, atol=300)
    _, shown = next(video_io.frames(path))
    expected = hdr.to_standard(frame, curve).astype(int)
    assert np.abs(shown.astype(int) - expected).max() <= 3

  @pytest.mark.parametrize('settings', [{'curve': 'pq'}, {'codec': 'h265'}])
  def test_a_lone_frame_is_written_every_time(self, tmp_path, settings):
    kind = np.uint16 if 'curve' in settings else np.uint8
    for n in range(20):
      path = tmp_path / f'{n}.mp4'
      with video_io.Writer(path, fps=10, **settings) as writer:
        writer.write(flat(100, kind=kind))
      assert video_io.probe(path, count=True).num_frames == 1

  @pytest.mark.parametrize('curve', ['pq', 'hlg'])
  def test_can_be_kept(self, tmp_path, curve):
    path = self.film(tmp_path / 'a.mov', 0.5, curve)
    _, frame = next(video_io.frames(path, keep_hdr=True))
    assert frame.dtype == np.uint16 and abs(frame.mean() / 65535 - 0.5) < 2e-3
    with av.open(str(path)) as container:
      context = container.streams.video[0].codec_context
      assert context.color_trc == hdr.NUMBERS[curve]
      assert (context.color_primaries, context.colorspace) == (9, 9)
      assert context.pix_fmt == 'yuv420p10le'

  def test_light_is_that_of_the_standard(self):
    # BT.2100: these code values are these lights.
    code = np.array([0.0, 0.50808, 0.58069, 0.75183, 1.0])
    np.testing.assert_allclose(
      hdr.light(code, 'pq'), [0, 100, 203, 1000, 10_000], rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(
      hdr.light(np.array([0.0, 0.5, 1.0]), 'hlg'), [0, 1 / 12, 1], atol=1e-6
    )

  def test_colours_keep_their_hue_and_greys_stay_grey(self):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    grey = np.repeat(ramp[:, None, None], 3, axis=2)
    for curve in ('pq', 'hlg'):
      got = hdr.to_standard(grey, curve).astype(int)
      assert np.ptp(got, axis=-1).max() <= 1
      assert (np.diff(got[:, 0, 0]) >= 0).all()

  @pytest.mark.parametrize('name', ['a.avi', 'a.gif', 'a.webm', 'folder'])
  def test_where_it_cannot_be(self, tmp_path, name):
    with pytest.raises(ValueError, match='cannot keep high dynamic range'):
      video_io.Writer(tmp_path / name, fps=25, curve='pq')


class TestShape:
  @pytest.mark.parametrize('kind', ['mp4', 'mkv', 'mov', 'avi', 'gif'])
  def test_of_pixels_is_kept(self, tmp_path, kind):
    shape, path = Fraction(32, 27), tmp_path / f'a.{kind}'
    with video_io.Writer(path, fps=25, pixel_aspect=shape) as writer:
      writer.write(flat(90))
      writer.write(flat(180))
    info = video_io.probe(path)
    assert float(info.pixel_aspect) == pytest.approx(float(shape), rel=0.02)
    assert (info.width, info.height) == (96, 64)

  @pytest.mark.parametrize('name', ['a.webm', 'a.y4m', 'folder'])
  def test_becomes_square_where_it_cannot(self, tmp_path, name, caplog):
    path = tmp_path / name
    with video_io.Writer(path, fps=25, pixel_aspect=Fraction(3, 2)) as writer:
      writer.write(flat(90))
    info = video_io.probe(path)
    assert (info.width, info.height, info.pixel_aspect) == (144, 64, 1)
    assert 'resized' in caplog.text

  @pytest.mark.parametrize('kind', [b'\x18\x53\x80\x67', b'\x16\x54\xae\x6b'])
  def test_sizes_beyond_the_file_of_matroska(self, tmp_path, kind):
    path = encode(tmp_path / 'a.mkv', [flat(90)] * 3)
    data = bytearray(path.read_bytes())
    at = data.index(kind) + 4
    data[at : at + 8] = b'\x01' + b'\xff' * 6 + b'\xf0'
    path.write_bytes(data)
    assert cropping.read(path, 'matroska,webm', 0) == (0, 0, 0, 0)

  def test_crop_flags_of_matroska(self, tmp_path):
    frame = np.arange(64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)
    path = encode(tmp_path / 'a.mkv', [frame] * 3, 'ffv1', pixels='bgr0')
    whole = video_io.read(path)
    cut = tmp_path / 'b.mkv'
    cut.write_bytes(with_crop(path, top=8, bottom=6, left=16, right=2))
    assert cropping.read(cut, 'matroska,webm', 0) == (8, 6, 16, 2)
    got = video_io.read(cut)
    np.testing.assert_array_equal(got, whole[:, 8:58, 16:94])
    info = video_io.probe(cut)
    assert (info.height, info.width) == (50, 78)
    found = video_io.index(cut)
    again = video_io.read(cut, start=1, count=2, index=found)
    np.testing.assert_array_equal(again, got[1:])
    assert video_io.read(cut, size=(25, 39)).shape == (3, 25, 39, 3)

  @pytest.mark.parametrize('codec', ['h264', 'hevc'])
  def test_crop_of_the_coding_itself(self, tmp_path, codec):
    """Of 8 columns at the left, which FFmpeg alone would leave."""
    path = tmp_path / f'a.{codec}'
    name = {'h264': 'libx264', 'hevc': 'libx265'}[codec]
    encode(path, [flat(90)] * 3, name)
    with av.open(str(path)) as source:
      video = source.streams.video[0]
      crop = av.bitstream.BitStreamFilterContext(
        f'{codec}_metadata=crop_left=8:crop_top=8', video
      )
      packets = [p for p in source.demux(video) if p.size]
      data = b''.join(bytes(c) for p in packets for c in crop.filter(p))
    path.write_bytes(data)
    assert video_io.read(path).shape[1:] == (56, 88, 3)

  def test_clean_aperture_of_mp4(self, tmp_path):
    path = encode(tmp_path / 'a.mp4', [flat(90)] * 3)
    data = path.read_bytes()
    numbers = (80, 1, 48, 1, 4, 1, 2, 1)  # width, height, to the right, down
    box = struct.pack('>I4s8i', 40, b'clap', *numbers)
    path.write_bytes(inserted(data, box))
    info = video_io.probe(path)
    assert (info.height, info.width) == (48, 80)
    assert cropping.read(path, 'mov,mp4', 0) == (10, 6, 12, 4)
    assert video_io.read(path).shape == (3, 48, 80, 3)


def with_crop(path, **sides):
  """A Matroska file with crop flags: its parents grow."""
  names = {'bottom': 0x54AA, 'top': 0x54BB, 'left': 0x54CC, 'right': 0x54DD}
  flags = b''.join(
    struct.pack('>HBB', names[k], 0x81, v) for k, v in sides.items()
  )
  data = bytearray(path.read_bytes())
  parents = []
  with open(path, 'rb') as file:
    at, end = 0, len(data)
    for kind in (0x18538067, 0x1654AE6B, 0xAE, 0xE0):
      begin, end = cropping._child(file, at, end, kind)
      parents.append((begin, end))
      at = begin
  for begin, end in parents:
    for n in range(1, 9):  # bytes of its size, with a bit that says how many
      mark = 1 << 7 * n
      stored = int.from_bytes(data[begin - n : begin], 'big')
      if end - begin < mark and stored == mark | (end - begin):
        size = end - begin + len(flags)
        assert size < mark
        data[begin - n : begin] = (mark | size).to_bytes(n, 'big')
        break
    else:
      raise AssertionError('a size that is not known')
  begin = parents[-1][0]
  return bytes(data[:begin] + flags + data[begin:])


def inserted(data: bytes, box: bytes) -> bytes:
  """An MP4 file with a box at the end of its sample entry."""
  data = bytearray(data)
  at, end = 0, len(data)
  for name in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'stsd'):
    at = data.index(name, at) - 4
    size = int.from_bytes(data[at : at + 4], 'big')
    data[at : at + 4] = (size + len(box)).to_bytes(4, 'big')
    end = at + size
    at += 8
  entry = at + 8  # after version and count
  size = int.from_bytes(data[entry : entry + 4], 'big')
  data[entry : entry + 4] = (size + len(box)).to_bytes(4, 'big')
  return bytes(data[:end] + box + data[end:])


class TestFields:
  def interlaced(self, path, codec, size=(64, 96)):
    """Rows of two moments: a bar that moves 8 pixels from field to field."""
    frames = []
    for t in range(8):
      frame = flat(60, size)
      for field in (0, 1):
        at = 8 + 8 * (2 * t + field) % (size[1] - 16)
        frame[field::2, at : at + 8] = 220
      frames.append(frame)
    flags = av.codec.context.Flags
    with av.open(str(path), 'w') as c:
      options = {'x264-params': 'tff=1'} if codec == 'libx264' else {}
      stream = c.add_stream(codec, rate=25, options=options)
      stream.height, stream.width, stream.pix_fmt = *size, 'yuv420p'
      stream.codec_context.flags |= int(
        flags.interlaced_dct | flags.interlaced_me
      )
      stream.codec_context.field_order = 2
      for frame in frames:
        picture = av.VideoFrame.from_ndarray(frame, 'rgb24')
        c.mux(stream.encode(picture))
      c.mux(stream.encode())
    return path

  @pytest.mark.parametrize(
    'name, codec', [('a.mp4', 'libx264'), ('a.mkv', 'mpeg2video')]
  )
  def test_are_noticed_and_made_one(self, tmp_path, name, codec):
    path = self.interlaced(tmp_path / name, codec)
    info = video_io.probe(path)
    assert info.interlaced
    assert any('interlaced' in line for line in video_io.notices(info))
    assert not video_io.notices(info, deinterlace=True)
    combed = video_io.read(path).astype(int)
    timed = list(video_io.frames(path, deinterlace=True))
    assert [t for t, _ in timed] == [t for t, _ in video_io.frames(path)]
    whole = np.stack([f for _, f in timed]).astype(int)
    teeth = [np.abs(np.diff(x, axis=1)).mean() for x in (combed, whole)]
    assert teeth[1] < 0.3 * teeth[0]

  def test_progressive_video_is_none(self, tmp_path):
    path = encode(tmp_path / 'a.mp4', [flat(90)] * 3)
    assert not video_io.probe(path).interlaced


@pytest.mark.parametrize(
  'name, codec', [
    ('a.avi', 'mjpeg'), ('a.mkv', 'mjpeg'), ('a.mov', 'png'), ('b.avi', 'png')
  ],
)  # fmt: skip
def test_pictures_with_exif_and_a_profile_in_a_video(tmp_path, name, codec):
  exif = Image.Exif()
  exif[0x010F] = 'Camera'
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  kind = 'png' if codec == 'png' else 'jpg'
  paths = [tmp_path / f'{n}.{kind}' for n in range(4)]
  for n, path in enumerate(paths):
    image = Image.fromarray(flat(40 * n))
    image.save(path, exif=exif, icc_profile=profile)
  with av.open(str(tmp_path / name), 'w') as output:
    stream = output.add_stream(codec, rate=25)
    stream.width, stream.height = 96, 64
    stream.pix_fmt = 'rgb24' if kind == 'png' else 'yuvj420p'
    for n, path in enumerate(paths):
      packet = av.Packet(path.read_bytes())
      packet.pts = packet.dts = n
      packet.time_base, packet.stream = Fraction(1, 25), stream
      output.mux(packet)
  got = video_io.read(tmp_path / name)
  gc.collect()  # what is freed twice crashes only now
  assert np.abs(got.mean((1, 2, 3)) - [0, 40, 80, 120]).max() < 2


@pytest.mark.parametrize('codec', ['libvpx', 'libvpx-vp9'])
def test_transparency_of_webm(tmp_path, codec):
  path = tmp_path / 'a.webm'
  with av.open(str(path), 'w') as output:
    options = {'auto-alt-ref': '0'}
    stream = output.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuva420p'
    stream.metadata['alpha_mode'] = '1'
    for _ in range(5):
      rgba = np.dstack([flat(200), np.full((64, 96), 128, np.uint8)])
      picture = av.VideoFrame.from_ndarray(rgba, 'rgba')
      output.mux(stream.encode(picture.reformat(format='yuva420p')))
    output.mux(stream.encode())
  assert abs(video_io.read(path).mean() - 100) < 4


class TestSeveralPictures:
  @pytest.mark.parametrize(
    'name, settings',
    [
      ('a.png', {'duration': 100}),
      ('a.webp', {'duration': 100, 'lossless': True}),
      ('a.tif', {}),
    ],
  )
  def test_in_one_file_are_frames(self, tmp_path, name, settings):
    images = [Image.fromarray(flat(40 * n)) for n in range(5)]
    path = tmp_path / name
    images[0].save(path, save_all=True, append_images=images[1:], **settings)
    got = list(video_io.frames(path))
    assert [int(f.mean()) for _, f in got] == [0, 40, 80, 120, 160]
    step = 0.1 if settings else 0.04
    np.testing.assert_allclose([float(t) for t, _ in got], np.arange(5) * step)
    assert video_io.index(path).num_frames == 5
    info = video_io.probe(path, count=True)
    assert info.num_frames == 5 and float(info.fps) == pytest.approx(1 / step)
    if settings:
      with pytest.raises(ValueError, match='says itself when'):
        video_io.probe(path, fps=Fraction(30))

  def test_delays_that_differ(self, tmp_path):
    images = [Image.fromarray(flat(40 * n)) for n in range(3)]
    path = tmp_path / 'a.png'
    images[0].save(
      path, save_all=True, append_images=images[1:], duration=[100, 300, 900]
    )
    assert [float(t) for t, _ in video_io.frames(path)] == [0, 0.1, 0.4]
    info = video_io.probe(path, times=True)
    assert info.variable and float(info.last) == 0.9

  def test_a_small_one_beside_is_left_out(self, tmp_path, caplog):
    images = [Image.fromarray(flat(40)), Image.fromarray(flat(9, (32, 48)))]
    images[0].save(tmp_path / 'a.tif', save_all=True, append_images=images[1:])
    assert len(video_io.read(tmp_path / 'a.tif')) == 1
    assert 'left out' in caplog.text


class TestNumbers:
  @pytest.mark.parametrize('value, level', [(0.0, 0), (0.5, 128), (1.0, 255)])
  def test_floats_from_black_to_white(self, tmp_path, value, level):
    grey = np.full((8, 8), value, np.float32)
    Image.fromarray(grey).save(tmp_path / 'a.tif')
    assert video_io.read(tmp_path / 'a.tif')[0, 0, 0, 0] == level

  @pytest.mark.parametrize(
    'values',
    [
      np.linspace(0, 100_000, 64).astype(np.int32),
      np.linspace(-5, 500, 64).astype(np.int32),
      np.linspace(0, 3, 64).astype(np.float32),
      np.linspace(-1, 1, 64).astype(np.float32),
      np.full(64, np.nan, np.float32),
    ],
    ids=['large', 'negative', 'above 1', 'below 0', 'nan'],
  )
  def test_others_are_refused(self, tmp_path, values):
    Image.fromarray(values.reshape(8, 8)).save(tmp_path / 'a.tif')
    with pytest.raises(ValueError, match=r'a.tif.*(its numbers|not finite)'):
      video_io.read(tmp_path / 'a.tif')

  def test_twelve_bits_where_a_tag_says_so(self, tmp_path):
    ramp = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / 'a.tif', tiffinfo={281: 4095})
    got = video_io.read(tmp_path / 'a.tif')[0, :, :, 0]
    np.testing.assert_array_equal(got, np.floor(ramp / 4095 * 255 + 0.5))


class TestFolders:
  def test_what_is_no_picture(self, tmp_path):
    (tmp_path / 'old.png').mkdir()
    (tmp_path / '.#1.png').symlink_to('me@host.1:2')
    (tmp_path / 'gone.png').symlink_to('nowhere.png')
    for n in range(3):
      Image.fromarray(flat(40 * n)).save(tmp_path / f'{n} m\u00b2.png')
    assert len(video_io.read(tmp_path)) == 3
    assert video_io.find_videos(tmp_path) == [tmp_path]

  @pytest.mark.parametrize(
    'names',
    [
      ['IMG_2.png', 'Img_11.png', 'img_12.png'],
      ['f-1.png', 'f-2.png', 'f-10.png'],
      ['f-2.png', 'f-1.png', 'f0.png', 'f1.png'],
      ['0.033.png', '0.5.png', '1.png', '1.25.png'],
      ['a.2.png', 'a.10.png'],
      ['1\u00b2.png', '2.png', '10.png'],
      ['a9.png', 'a10.png', 'b1.png'],
    ],
  )
  def test_order(self, names):
    assert video_io.in_order(reversed(names)) == names

  @pytest.mark.parametrize('rate', [12, Fraction(30000, 1001)])
  def test_their_rate(self, tmp_path, rate):
    for n in range(4):
      Image.fromarray(flat(40 * n)).save(tmp_path / f'{n}.png')
    for settings in ({}, {'count': True}, {'times': True}):
      info = video_io.probe(tmp_path, fps=rate, **settings)
      assert info.fps == rate
    times = [t for t, _ in video_io.frames(tmp_path, fps=Fraction(rate))]
    assert times == [n / Fraction(rate) for n in range(4)]

  def test_kinds_of_films(self, tmp_path):
    names = [
      '1.MTS',
      '2.3gp',
      '3.VOB',
      '4.mxf',
      '5.dv',
      '6.ogv',
      '7.m2ts',
      '8.MOD',
      '9.TOD',
    ]
    for name in (*names, 'notes.txt', 'a.srt'):
      (tmp_path / name).write_text('')
    assert [p.name for p in video_io.find_videos(tmp_path)] == names

  @pytest.mark.parametrize('name', ['~a.mp4', '~$a b.mp4'])
  def test_nobodys_home(self, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with video_io.Writer(name, fps=25) as writer:
      writer.write(flat(90))
    assert len(video_io.read(name)) == 1 and video_io.Film(name).info
    assert video_io.find_videos('.') == [pathlib.Path(name)]

  def test_home(self, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    with video_io.Writer('~/a.mp4', fps=25) as writer:
      writer.write(flat(90))
    assert (tmp_path / 'a.mp4').exists() and len(video_io.read('~/a.mp4')) == 1
