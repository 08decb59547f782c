"""Times, ends and places of frames are those that a player finds."""

import re
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests import muxing
from vidpred_jax import video_io
from vidpred_jax.data import videos
from vidpred_jax.video_io import decoding, endings, nut, timing


@pytest.mark.parametrize(
  'name, codec, options',
  [
    ('a.ts', 'libx264', {'g': '30'}),
    ('b.ts', 'mpeg2video', {'g': '15', 'bf': '2'}),
    ('a.mpg', 'mpeg1video', {'bf': '2'}),
    ('a.vob', 'mpeg2video', {'bf': '2', 'g': '12'}),
    ('a.flv', 'flv1', {'g': '30'}),
    ('a.m2ts', 'libx264', {'x264-params': 'open-gop=1:keyint=25:bframes=3'}),
    ('a.mkv', 'libx264', {'x264-params': 'intra-refresh=1:keyint=40'}),
    ('a.mp4', 'libx264', {'x264-params': 'open-gop=1:keyint=20:bframes=3'}),
    ('a.avi', 'mpeg4', {'bf': '2'}),
  ],
)
def test_frames_are_found_again(tmp_path, name, codec, options):
  path = muxing.encode(
    tmp_path / name, muxing.clip_of(90), codec, options=options
  )
  whole = video_io.read(path)
  assert len(whole) == 90
  found = video_io.index(path)
  for start in (1, 21, 37, 50, 85, 88):
    got = video_io.read(path, start=start, count=2, index=found)
    np.testing.assert_array_equal(got, whole[start : start + 2])
  np.testing.assert_array_equal(video_io.read_last(path, 3), whole[-3:])
  np.testing.assert_allclose(
    muxing.times_of(path), np.arange(90) / 25, atol=2e-3
  )


def test_a_seek_is_not_believed(tmp_path):
  """With marks of other pictures everything is decoded from the beginning."""
  path = muxing.encode(
    tmp_path / 'a.mp4', muxing.clip_of(60), options={'g': '10'}
  )
  found = video_io.index(path)
  wrong = found._replace(marks=found.marks ^ 1)
  got = video_io.read(path, start=55, count=2, index=wrong)
  np.testing.assert_array_equal(got, video_io.read(path)[55:57])


class TestSpeed:
  def test_a_pause_at_the_end_of_a_gif(self, tmp_path):
    images = [Image.fromarray(frame) for frame in muxing.clip_of(10)]
    path = tmp_path / 'a.gif'
    images[0].save(
      path, save_all=True, append_images=images[1:], duration=[40] * 9 + [2000]
    )
    info = video_io.probe(path, times=True)
    assert (info.fps, info.variable, info.last) == (25, False, 2)
    assert video_io.probe(path, count=True).fps == 25
    np.testing.assert_allclose(muxing.times_of(path), np.arange(10) / 25)

  @pytest.mark.parametrize('name', ['a.mp4', 'a.mov', 'a.mkv'])
  def test_a_last_sample_that_lasts(self, tmp_path, name):
    path = muxing.encode(
      tmp_path / name, muxing.clip_of(10), times=range(0, 400, 40), last=3000,
      options={'bf': '0'},
    )  # fmt: skip
    info = video_io.probe(path, times=True)
    assert (info.fps, info.variable) == (25, False)
    assert info.last == 3 or name == 'a.mkv'  # which keeps only the sum

  def test_raw_dv(self, tmp_path):
    path = muxing.encode(
      tmp_path / 'a.dv',
      muxing.clip_of(4, (576, 720)),
      'dvvideo',
      container='dv',
    )
    for settings in ({'count': True}, {'times': True}):
      info = video_io.probe(path, **settings)
      assert (info.fps, info.variable, info.num_frames) == (25, False, 4)

  @pytest.mark.parametrize('minutes', [[0, 60], [0, 50, 110], [0, 40, 80, 120]])
  def test_pictures_an_hour_apart(self, tmp_path, minutes):
    times = [60_000 * n for n in minutes]
    path = muxing.encode(
      tmp_path / 'a.mkv', muxing.clip_of(len(times)), times=times,
      options={'bf': '0'},
    )  # fmt: skip
    assert muxing.times_of(path) == [t / 1000 for t in times]
    info = video_io.Film(path).info
    assert 1 / info.fps == pytest.approx(times[-1] / 1000 / (len(times) - 1))
    with video_io.Writer(tmp_path / 'b.mkv', fps=info.fps) as writer:
      for time, frame in video_io.frames(path):
        writer.write(frame, time)
    assert muxing.times_of(tmp_path / 'b.mkv') == muxing.times_of(path)

  def test_a_stamp_of_many_million_years(self):
    times = [Fraction(0), Fraction(1, 25), Fraction(2, 25), Fraction(10**18)]
    times += [times[-1] + Fraction(n, 25) for n in range(1, 5)]
    found = timing.rate(times, Fraction(1, 1000), Fraction(25))
    assert found.fps == 25 and found.variable

  def test_a_pause_between_does_not_slow_the_rest(self):
    times = [Fraction(n, 30) + (10 if n > 40 else 0) for n in range(90)]
    rate = timing.rate(times, Fraction(1, 90_000), Fraction(7))
    assert rate.variable and rate.fps == pytest.approx(30, rel=1e-3)

  def test_ticks_of_a_millisecond(self):
    times = [Fraction(round(n * 1001 / 24), 1000) for n in range(50)]
    header = Fraction(24000, 1001)
    rate = timing.rate(times, Fraction(1, 1000), header)
    assert (rate.fps, rate.variable) == (header, False)
    rate = timing.rate(times, Fraction(1, 1000), Fraction(5))
    assert rate.fps == header


class TestEnds:
  @pytest.mark.parametrize('name', ['a.mkv', 'a.webm', 'a.mp4'])
  def test_slides_are_whole(self, tmp_path, name):
    codec = 'libvpx-vp9' if name == 'a.webm' else 'libx264'
    options = {'bf': '0'} if codec == 'libx264' else {}
    path = muxing.encode(
      tmp_path / name, muxing.clip_of(4), codec, times=range(0, 16000, 4000),
      last=10000, options=options,
    )  # fmt: skip
    assert video_io.probe(path, count=True).num_frames == 4
    np.testing.assert_allclose(muxing.times_of(path), [0, 4, 8, 12], atol=2e-3)

  @pytest.mark.parametrize('codec', ['mpeg4', 'mjpeg'])
  def test_dropped_frames_of_avi(self, tmp_path, codec):
    path = tmp_path / 'a.avi'
    pixels = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
    with av.open(str(path), 'w') as output:
      stream = output.add_stream(codec, rate=25)
      stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
      for t, frame in enumerate(muxing.clip_of(25)):
        picture = av.VideoFrame.from_ndarray(frame, 'rgb24')
        picture.pts, picture.time_base = t, Fraction(1, 25)
        if not 5 <= t < 15:
          output.mux(stream.encode(picture))
      output.mux(stream.encode())
    kept = [t / 25 for t in range(25) if not 5 <= t < 15]
    np.testing.assert_allclose(muxing.times_of(path), kept)
    found = video_io.index(path)
    assert found.num_frames == 15 and found.time(14) == Fraction(24, 25)

  @pytest.mark.parametrize('codec', ['mpeg4', 'mpeg2video'])
  def test_dropped_frames_of_avi_that_are_not_in_order(self, tmp_path, codec):
    """A frame waits for the packet that completes it."""
    path = tmp_path / 'a.avi'
    with av.open(str(path), 'w') as output:
      stream = output.add_stream(codec, rate=25, options={'bf': '2'})
      stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
      packets = []
      kept = [t for t in range(25) if not 8 <= t < 12]
      for t, frame in enumerate(muxing.clip_of(len(kept))):
        picture = av.VideoFrame.from_ndarray(frame, 'rgb24')
        picture.pts, picture.time_base = kept[t], Fraction(1, 25)
        packets += stream.encode(picture)
      for packet in packets + stream.encode():
        output.mux(packet)
    times = [round(25 * t) for t in muxing.times_of(path)]
    assert times == kept

  @pytest.mark.parametrize('piped', [False, True])
  @pytest.mark.parametrize(
    'name, codec, options',
    [
      ('a.flv', 'flv', {}),
      ('a.ivf', 'libvpx', {}),
      ('a.ogv', 'libvpx', {}),
      ('a.mxf', 'mpeg2video', {}),
      ('a.nut', 'mpeg4', {}),
      ('a.ts', 'mpeg2video', {}),
      ('a.m2ts', 'libx264', {'mpegts_m2ts_mode': '1'}),
      ('a.mpg', 'mpeg1video', {}),
      ('a.vob', 'mpeg2video', {}),
      ('a.mkv', 'libx264', {}),
      ('a.webm', 'libvpx', {'live': '1'}),
      ('a.avi', 'mjpeg', {}),
      ('a.wmv', 'wmv2', {}),
      (
        'a.mp4',
        'libx264',
        {'movflags': 'frag_keyframe+empty_moov+default_base_moof'},
      ),
      ('b.mp4', 'libx264', {'movflags': 'dash+empty_moov+default_base_moof'}),
      ('a.mov', 'mpeg4', {'movflags': 'faststart'}),
      ('a.y4m', 'wrapped_avframe', {}),
      ('a.gif', 'gif', {}),
    ],
  )
  def test_a_missing_end(self, tmp_path, caplog, name, codec, options, piped):
    if piped and 'faststart' in options.values():
      pytest.skip('this is written by going back')
    path = muxing.muxed(
      tmp_path / name, codec, muxing.clip_of(40), options, piped
    )
    assert len(muxing.times_of(path)) == 40
    assert not caplog.records
    data = path.read_bytes()
    path.write_bytes(data + bytes(300))  # other programs' data
    assert len(muxing.times_of(path)) == 40
    assert not [r for r in caplog.messages if 'ends within' in r]
    for part in (0.5, 0.77, 0.93):
      path.write_bytes(data[: int(part * len(data)) + 5])
      caplog.clear()
      if name.endswith(('ts', 'mpg', 'vob')):
        assert 0 < len(muxing.times_of(path)) <= 40
        assert f'{name} ends within a packet' in caplog.text
      else:
        with pytest.raises(ValueError, match=f'{name} is truncated'):
          muxing.times_of(path)

  def test_a_list_of_segments_that_is_longer_than_its_box(self, tmp_path):
    path = muxing.encode(tmp_path / 'a.mp4', muxing.clip_of(5))
    box = struct.pack('>I4s20xHH', 32, b'sidx', 0, 0xFFFF)
    path.write_bytes(path.read_bytes() + 500 * box)
    assert len(muxing.times_of(path)) == 5

  def test_frames_that_are_shorter_than_their_head(self):
    rule = bytes([0, 8, 0, 1, 0, 0, 0, 0x82, 0, 0, 1])  # of frames of 0 bytes
    body = bytes([3, 1, 1, 1, 1, 25]) + rule + bytes([1, 1, 170])
    kinds = {name: code for code, name in nut.HEADS.items()}
    heads = [
      kinds['main'],
      bytes([len(body)]),
      body,
      kinds['point'],
      bytes([0]),
    ]
    data = nut.NAME + b''.join(heads) + bytes(1)
    assert nut.end(data) == 0
    assert nut.end(data[:-1]) == len(data) - 1

  def test_the_pages_of_a_recorded_stream(self, tmp_path):
    path = muxing.muxed(tmp_path / 'a.ogv', 'libvpx', muxing.clip_of(20))
    data = bytearray(path.read_bytes())
    data[data.rindex(b'OggS') + 5] &= ~4  # it is not the last one
    assert endings._ogg(bytes(data), None) == len(data)
    assert endings._ogg(bytes(data[:-1]), None) == len(data)

  def test_the_last_frames_of_what_is_left(self, tmp_path):
    path = muxing.muxed(tmp_path / 'a.flv', 'flv', muxing.clip_of(160))
    assert len(video_io.read_last(path, 2)) == 2
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match='a.flv is truncated'):
      video_io.read_last(path, 2)


@pytest.mark.parametrize(
  'name, codec, others',
  [('a.flv', 'flv', 0), ('a.mp4', 'mpeg4', 0), ('a.wmv', 'wmv2', 0),
   ('a.ivf', 'libvpx', 0), ('a.rm', 'rv20', None), ('a.swf', 'flv', 0),
   ('a.wtv', 'mpeg2video', 0), ('a.mkv', 'mpeg4', 5),
   ('a.ts', 'mpeg2video', 5)],
)  # fmt: skip
def test_joined_files_are_read_or_it_says_so(
  tmp_path, caplog, name, codec, others
):
  path = muxing.muxed(tmp_path / name, codec, muxing.clip_of(5))
  assert len(muxing.times_of(path)) == 5 and not caplog.text
  data = path.read_bytes()
  path.write_bytes(2 * data)
  number = len(muxing.times_of(path))
  assert others is None or number == 5 + others  # RealMedia: some of them
  assert others is None or video_io.probe(path, times=True).num_frames == number
  said = f'the next begins at byte {len(data)}.' in caplog.text
  assert said == (not others)


def test_a_film_in_fragments_may_repeat_its_head(tmp_path, caplog):
  path = muxing.muxed(
    tmp_path / 'a.mp4', 'mpeg4', muxing.clip_of(5),
    {'movflags': 'frag_keyframe+empty_moov+default_base_moof'},
  )  # fmt: skip
  data = path.read_bytes()
  path.write_bytes(data[: data.index(b'moof') - 4] + data)
  assert len(muxing.times_of(path)) == 5 and not caplog.text


class TestPacketsWithoutFrames:
  @pytest.mark.parametrize('codec', ['mpeg2video', 'libx264', 'libx265'])
  def test_a_recording_that_begins_between_key_frames(self, tmp_path, codec):
    whole = muxing.encode(
      tmp_path / 'a.ts',
      muxing.clip_of(75),
      codec,
      options={'g': '12', 'bf': '2'},
    )
    data = whole.read_bytes()
    path = tmp_path / 'b.ts'
    path.write_bytes(data[len(data) // 188 // 3 * 188 :])
    number = len(video_io.read(path))
    assert 20 < number < 60
    assert videos.scan_file(path).index.num_frames == number
    assert video_io.probe(path, count=True).num_frames == number
    info = video_io.probe(path, times=True)
    assert (info.num_frames, info.fps, info.variable) == (number, 25, False)

  def test_a_comment_behind_the_last_picture(self, tmp_path):
    images = [Image.fromarray(frame) for frame in muxing.clip_of(5)]
    path = tmp_path / 'a.gif'
    images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    comment = b'\x21\xfe\x05hello\x00;'
    path.write_bytes(path.read_bytes()[:-1] + comment)
    assert video_io.index(path).num_frames == 5
    assert videos.scan_file(path).index.num_frames == 5

  @pytest.mark.parametrize('size', [0, 1])
  def test_empty_packets_are_passed_over(self, size):
    """As Theora writes where nothing moves."""

    class Packet:
      def __init__(self, size, dts):
        self.size, self.dts = size, dts

    class Container:
      def demux(self, _):
        return iter([Packet(9, 0), Packet(size, 1), Packet(0, None)])

    found = [p.dts for p in decoding.packets(Container(), None, [])]
    assert found == ([0, 1, None] if size else [0, None])


def spoilt(path, clip):
  """A film with zeros in place of a part of it."""
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('mpeg2video', rate=25)
    stream.width, stream.height = 96, 64
    for frame in clip:
      image = av.VideoFrame.from_ndarray(frame, 'rgb24')
      output.mux(stream.encode(image))
    output.mux(stream.encode())
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 300] = bytes(300)
  path.write_bytes(data)


def spoilt_packet(path, codec, at, value):
  """A film of which a byte of the seventh packet has changed."""
  clip = muxing.clip_of(12)
  muxing.encode(path, clip, codec, options={'x265-params': 'log-level=none'})
  with av.open(str(path)) as container:
    packets = [p for p in container.demux(video=0) if p.size]
    head = bytes(packets[6])[:40]
  data = bytearray(path.read_bytes())
  assert data.count(head) == 1
  data[data.index(head) + at] ^= value
  path.write_bytes(data)
  return path


@pytest.mark.parametrize('codec', ['mpeg1video', 'mpeg2video'])
@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4'])
def test_a_picture_without_its_head_is_told(tmp_path, caplog, name, codec):
  path = spoilt_packet(tmp_path / name, codec, 2, 0x55)
  assert len(muxing.times_of(path)) == 11
  assert f'{name}: 1 packets are damaged' in caplog.text or (
    f'{name}: damaged frames: 1' in caplog.text  # it is joined to another's
  )


@pytest.mark.parametrize('at, value', [(4, 0x55), (5, 0x10)])
def test_a_lost_frame_takes_no_others_along(tmp_path, caplog, at, value):
  path = spoilt_packet(tmp_path / 'a.mkv', 'libx265', at, value)
  assert len(muxing.times_of(path)) == 11
  assert 'a.mkv: damaged frames: ' in caplog.text


@pytest.mark.parametrize('name', ['a.m2v', 'a.mpg'])
def test_damaged_frames_are_told(tmp_path, caplog, name):
  spoilt(tmp_path / name, muxing.clip_of(20))
  assert muxing.times_of(tmp_path / name)
  assert f'{name}: damaged frames: ' in caplog.text


@pytest.mark.parametrize('name', ['a.avi', 'a.mkv'])
def test_a_damaged_packet_is_passed_over(tmp_path, caplog, name):
  path = tmp_path / name
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('mjpeg', rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuvj420p'
    packets = []
    for frame in muxing.clip_of(10):
      packets += stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24'))
    packets += stream.encode()
    for n, packet in enumerate(packets):
      if n == 5:
        spoilt = av.Packet(bytes(len(bytes(packet))))
        spoilt.pts, spoilt.dts = packet.pts, packet.dts
        spoilt.time_base, spoilt.stream = packet.time_base, stream
        spoilt.duration = packet.duration
        packet = spoilt
      output.mux(packet)
  times = muxing.times_of(path)
  np.testing.assert_allclose(
    times, [n / 25 for n in range(10) if n != 5], atol=2e-3
  )
  assert 'a' in caplog.text and '1 packets are damaged' in caplog.text
  assert videos.scan_file(path).index.num_frames == 9


class TestDamagedMatroska:
  @pytest.mark.parametrize(
    'name, codec, options, piped',
    [
      ('a.mkv', 'libx264', {}, False),
      ('a.webm', 'libvpx', {'cluster_time_limit': '300'}, True),
      ('b.webm', 'libvpx', {'live': '1'}, True),
    ],
  )
  def test_lost_frames_are_counted(
    self, tmp_path, caplog, name, codec, options, piped
  ):
    path = muxing.muxed(
      tmp_path / name, codec, muxing.clip_of(75), options, piped
    )
    data = bytearray(path.read_bytes())
    assert len(muxing.times_of(path)) == 75 and not caplog.records
    middle = len(data) // 2
    data[middle : middle + 900] = bytes(900)
    path.write_bytes(data)
    lost = 75 - len(muxing.times_of(path))
    (told,) = re.findall(rf'{name} is damaged: about (\d+) fr', caplog.text)
    assert lost > 0
    assert abs(int(told) - lost) <= (2 if name[0] == 'a' else lost // 2)

  @pytest.mark.parametrize('name', ['a.mkv', 'a.webm'])
  def test_a_frame_of_a_track_that_is_not_there(self, tmp_path, caplog, name):
    path = muxing.muxed(tmp_path / name, 'libvpx', muxing.clip_of(12))
    with av.open(str(path)) as container:
      packets = [p for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    data[data.index(bytes(packets[6])) - 4] ^= 0x10
    path.write_bytes(data)
    lost = 12 - len(muxing.times_of(path))
    assert lost > 0
    assert f'{name} is damaged: about {lost} frames are lost' in caplog.text

  def test_of_which_one_frame_is_left(self, tmp_path, caplog):
    path = muxing.muxed(tmp_path / 'a.mkv', 'libx264', muxing.clip_of(40))
    with av.open(str(path)) as film:
      second = [packet.pos for packet in film.demux(video=0)][1]
    data = bytearray(path.read_bytes())
    data[second - 10 : second + 100] = bytes(110)
    path.write_bytes(data)
    assert len(muxing.times_of(path)) == 1
    assert 'a.mkv is damaged: about 39 frames are lost' in caplog.text

  @pytest.mark.parametrize('name', ['a.mkv', 'a.webm'])
  def test_of_a_variable_rate(self, tmp_path, caplog, name):
    steps = np.random.default_rng(2).choice((33, 40, 100, 400, 5000), 60)
    path = muxing.encode(
      tmp_path / name, muxing.clip_of(60),
      'libx264' if 'k' in name else 'libvpx',
      times=[int(t) for t in np.cumsum(steps)], last=4000,
    )  # fmt: skip
    assert len(muxing.times_of(path)) == 60 and not caplog.records
    data = bytearray(path.read_bytes())
    data[-2000:-1500] = bytes(500)
    path.write_bytes(data)
    assert len(muxing.times_of(path)) < 60
    assert f'{name} is damaged: frames are lost, the first ' in caplog.text

  @pytest.mark.parametrize('size', [1, 40, 5000])
  def test_data_of_other_programs(self, tmp_path, caplog, size):
    path = muxing.muxed(
      tmp_path / 'a.webm', 'libvpx', muxing.clip_of(40), {'live': '1'}, True
    )
    other = np.random.default_rng(0).bytes(size)
    path.write_bytes(path.read_bytes() + other)
    assert len(muxing.times_of(path)) == 40 and 'lost' not in caplog.text


def test_names_that_look_like_protocols(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  other = muxing.encode(tmp_path / 'v.mp4', muxing.clip_of(3))
  for name in ('12:30:05.mp4', 'concat:v.mp4', 'file:x.mp4'):
    muxing.encode(tmp_path / 'whole.mp4', muxing.clip_of(5)).rename(
      tmp_path / name
    )
    assert len(video_io.read(name)) == 5
    with video_io.Writer(name, fps=25, overwrite=True) as writer:
      for frame in muxing.clip_of(4):
        writer.write(frame)
    assert len(video_io.read(name)) == 4
  assert len(video_io.read(other)) == 3
