"""Time stamps that are no times of frames, and clocks that are set anew."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests import muxing
from vidpred_jax import video_io
from vidpred_jax.video_io import decoding, timing


class TestStampsThatAreNotTimes:
  @pytest.mark.parametrize('name', ['a.mxf', 'a.asf'])
  def test_in_the_order_of_decoding(self, tmp_path, name):
    path = muxing.encode(
      tmp_path / name, muxing.clip_of(30), options={'bf': '3'}
    )
    np.testing.assert_allclose(
      muxing.times_of(path), np.arange(30) / 25, atol=2e-3
    )
    info = video_io.probe(path, times=True)
    assert (info.fps, info.variable, info.num_frames) == (25, False, 30)

  @pytest.mark.parametrize(
    'name, codec',
    [('a.m1v', 'mpeg1video'), ('a.m2v', 'mpeg2video'),
     ('a.h264', 'libx264')],
  )  # fmt: skip
  def test_raw_streams_have_the_rate_of_their_header(
    self, tmp_path, name, codec
  ):
    path = tmp_path / name
    form = {'a.m1v': 'mpeg1video', 'a.m2v': 'mpeg2video'}
    fps = Fraction(30000, 1001)
    with av.open(str(path), 'w', format=form.get(name, 'h264')) as output:
      stream = output.add_stream(codec, rate=fps)
      stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
      stream.codec_context.options = {'bf': '2'}
      for frame in muxing.clip_of(12):
        output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
      output.mux(stream.encode())
    expected = np.arange(12) * float(1 / fps)
    np.testing.assert_allclose(muxing.times_of(path), expected, atol=1e-4)
    info = video_io.probe(path, times=True)
    assert (info.fps, info.variable) == (fps, False)

  @pytest.mark.parametrize('fps', [Fraction(12), Fraction(60000, 1001)])
  @pytest.mark.parametrize(
    'name, form, codec',
    [('a.mjpeg', 'mjpeg', 'mjpeg'), ('a.h264', 'h264', 'libx264')],
  )
  def test_what_has_none_has_the_rate_that_is_given(
    self, tmp_path, name, form, codec, fps
  ):
    path = muxing.encode(
      tmp_path / name, muxing.clip_of(6), codec, container=form,
      pixels='yuvj420p' if form == 'mjpeg' else 'yuv420p',
    )  # fmt: skip
    film = video_io.Film(path, fps=fps)
    assert [time for time, _ in film.frames()] == [n / fps for n in range(6)]
    assert (film.info.fps, film.info.last) == (fps, 1 / fps)
    assert video_io.probe(path).fps == 25

  @pytest.mark.parametrize('name', ['a.gif', 'a.png'])
  def test_what_is_too_fast_for_browsers(self, tmp_path, name):
    images = [Image.fromarray(frame) for frame in muxing.clip_of(4)]
    images[0].save(
      tmp_path / name, save_all=True, append_images=images[1:], duration=10
    )
    np.testing.assert_allclose(
      muxing.times_of(tmp_path / name), [0, 0.1, 0.2, 0.3]
    )
    assert video_io.probe(tmp_path / name, times=True).duration == 0.4


class TestClocks:
  def mended(self, stamps, **settings):
    items = ((s, n) for n, s in enumerate(stamps))
    unit, usual = Fraction(1, 1000), Fraction(1, 25)
    found = list(timing.mended(items, unit, usual, **settings))
    assert [n for _, n in found] == list(range(len(stamps)))
    return [float(1000 * t) for t, _ in found]

  @pytest.mark.parametrize(
    'stamps, times',
    [
      ([0, 40, 80], [0, 40, 80]),
      ([500, 540, 700], [0, 40, 200]),
      ([0, 40, 40, 120], [0, 40, 80, 120]),
      ([0, 40, 30, 120], [0, 40, 80, 120]),
      ([0, 40, 40], [0, 40, 80]),
      ([7000, 7040, 0, 40], [0, 40, 80, 120]),
      ([None, None, None], [0, 40, 80]),
      ([0, 40, None, 120], [0, 40, 80, 120]),
      ([5] * 3, [0, 40, 80]),
    ],
  )
  def test_stamps_become_times(self, stamps, times):
    assert self.mended(stamps) == times

  def test_a_jump_forward(self):
    stamps = [0, 40, 60_000, 60_040]
    assert self.mended(stamps) == stamps
    assert self.mended(stamps, resets=True) == [0, 40, 80, 120]

  @pytest.mark.parametrize('again', [3600, 3601, 3603])
  def test_a_stamp_that_repeats_but_for_a_tick(self, again):
    stamps = [0, 3600, again, 10_800]
    items = ((s, None) for s in stamps)
    found = timing.mended(items, Fraction(1, 90_000), Fraction(1, 25))
    assert [float(t) for t, _ in found] == [0, 0.04, 0.08, 0.12]

  def test_many_that_are_all_the_same(self):
    times = self.mended([0] * 50)
    assert all(b > a for a, b in zip(times, times[1:]))

  def test_two_recordings_in_one_file(self, tmp_path):
    data = muxing.encode(tmp_path / 'a.ts', muxing.clip_of(30)).read_bytes()
    path = tmp_path / 'b.ts'
    path.write_bytes(2 * data)
    number = len(muxing.times_of(path))
    np.testing.assert_allclose(
      muxing.times_of(path), np.arange(number) / 25, atol=0.1
    )
    assert number == 60 and video_io.index(path).pts is None


@pytest.mark.parametrize('often', [1, 3])
def test_a_seek_that_fails_finds_nothing(tmp_path, monkeypatch, often):
  """In GXF FFmpeg may seek to where it cannot go on from."""
  path = muxing.encode(tmp_path / 'a.ts', muxing.clip_of(8), 'mpeg2video')
  whole, found = video_io.read(path), video_io.index(path)
  shots, fails = decoding.shots, iter(range(often))

  def failing(*arguments):
    if next(fails, None) is not None:
      raise av.error.PermissionError(1, 'Operation not permitted')
    return shots(*arguments)

  monkeypatch.setattr(decoding, 'shots', failing)
  got = video_io.read(path, start=5, count=2, index=found)
  np.testing.assert_array_equal(got, whole[5:7])
  assert next(fails, None) is None


@pytest.mark.parametrize(
  'name, codec',
  [('a.mov', 'smc'), ('b.mov', 'rawvideo'), ('a.avi', 'msrle')],
)
def test_a_palette_at_the_beginning_alone(tmp_path, name, codec):
  """QuickTime has it once; what is decoded without has other colours."""
  rng = np.random.default_rng(0)
  palette = rng.integers(0, 256, (256, 4), np.uint8)
  palette[:, 0] = 255
  with av.open(str(tmp_path / name), 'w') as output:
    stream = output.add_stream(codec, rate=25, options={'g': '5'})
    stream.width, stream.height, stream.pix_fmt = 96, 64, 'pal8'
    for frame in muxing.clip_of(12)[..., 0]:
      picture = av.VideoFrame.from_ndarray((frame, palette), 'pal8')
      output.mux(stream.encode(picture))
    output.mux(stream.encode())
  whole = video_io.read(tmp_path / name)
  found = video_io.index(tmp_path / name)
  for start in (1, 7):
    got = video_io.read(tmp_path / name, start=start, count=2, index=found)
    np.testing.assert_array_equal(got, whole[start : start + 2])


@pytest.mark.parametrize(
  'last, tick, header, fps',
  [
    (Fraction(1, 50), Fraction(1, 50), 50, 25),  # fields are counted
    (Fraction(1, 25), Fraction(1, 50), 50, 25),
    (Fraction(1, 25), Fraction(1, 1000), 24, 25),
  ],
)
def test_a_last_step_that_is_short_makes_no_odd_rate(last, tick, header, fps):
  times = [Fraction(n, 25) for n in range(24)]
  found = timing.rate([*times, times[-1] + last], tick, Fraction(header))
  assert (found.fps, found.variable) == (fps, False)


@pytest.mark.parametrize('minutes', [20, 25, 30])
def test_slow_rates_are_exact(tmp_path, minutes):
  fps = Fraction(1, 60 * minutes)
  assert timing.rounded(fps) == fps
  with video_io.Writer(tmp_path / 'a.mkv', fps=fps) as writer:
    for frame in muxing.clip_of(3):
      writer.write(frame)
  times = [n * 60 * minutes for n in range(3)]
  assert muxing.times_of(tmp_path / 'a.mkv') == times
  assert video_io.Film(tmp_path / 'a.mkv').info.fps == fps
