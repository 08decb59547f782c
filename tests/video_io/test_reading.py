"""Films and pictures are read as they were written."""

import itertools
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.video_io.clips import clip_of, encode, write
from vidpred_jax import video_io

KINDS = {
  'a.mp4': 7,
  'a.mov': 7,
  'a.m4v': 7,
  'a.mkv': 7,
  'a.webm': 9,
  'a.avi': 9,
  'a.y4m': 0.5,
  'a.gif': 0,
  'folder': 0,
}


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('size', [(48, 64), (47, 63)])
def test_what_is_written_is_read(tmp_path, name, size):
  clip = clip_of(30, *size)
  path = write(tmp_path / name, clip, fps=Fraction(30000, 1001))

  read = video_io.read(path)
  assert read.shape == clip.shape and read.dtype == np.uint8
  assert np.abs(read.astype(int) - clip).mean() <= KINDS[name]
  assert [p.name for p in tmp_path.iterdir()] == [name]  # nothing left over

  info = video_io.probe(path, count=True)
  assert (info.height, info.width, info.num_frames) == (*size, 30)
  assert info.variable is False and not info.has_audio
  if name not in ('a.gif', 'folder'):
    assert info.fps == Fraction(30000, 1001)
    np.testing.assert_allclose(info.duration, 30 * 1001 / 30000, atol=2e-3)


@pytest.mark.parametrize('name', KINDS)
def test_exact_clip_access(tmp_path, name):
  path = write(tmp_path / name, clip_of(300 if name == 'a.mp4' else 40))
  whole = video_io.read(path)
  found = video_io.index(path)
  assert found.num_frames == len(whole)
  for start, count, step in [(0, 3, 1), (17, 4, 5), (len(whole) - 2, 2, 1)]:
    expected = whole[start : start + (count - 1) * step + 1 : step]
    for index in (None, found):
      got = video_io.read(
        path, start=start, count=count, step=step, index=index
      )
      np.testing.assert_array_equal(got, expected)
  np.testing.assert_array_equal(video_io.read(path, start=30), whole[30:])
  with pytest.raises(ValueError, match='no 5 frames from frame'):
    video_io.read(path, start=len(whole) - 4, count=5, index=found)
  for wrong in ({'start': -3}, {'count': 0}, {'step': 0}, {'size': (0, 8)}):
    with pytest.raises(ValueError, match=f'Got .*{list(wrong)[0]}='):
      video_io.read(path, **{'count': 2} | wrong, index=found)


@pytest.mark.parametrize('name', ['a.mp4', 'a.png'])
def test_a_pipe_is_not_waited_for(tmp_path, name):
  os.mkfifo(tmp_path / name)
  for read in (video_io.probe, video_io.read, video_io.index):
    with pytest.raises(ValueError, match='no ordinary file|not a video'):
      read(tmp_path / name)


def test_streams_frames_with_their_times(tmp_path):
  path = write(tmp_path / 'a.mp4', clip_of(20), fps=10)
  whole = video_io.read(path)
  got = list(video_io.frames(path, start=4, stop=15, step=3))
  assert [t for t, _ in got] == [Fraction(i, 10) for i in (4, 7, 10, 13)]
  np.testing.assert_array_equal([f for _, f in got], whole[4:15:3])


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.webm', 'a.gif'])
def test_variable_frame_rate_keeps_its_times(tmp_path, name):
  times = [Fraction(t, 100) for t in (0, 4, 8, 20, 24, 50)]
  path = write(tmp_path / name, clip_of(6), times=times)
  read = [t for t, _ in video_io.frames(path)]
  np.testing.assert_allclose(
    np.array(read, float), np.array(times, float), atol=1e-3
  )
  assert video_io.probe(path, count=True).variable is True


def test_dropped_frame_is_a_variable_rate(tmp_path):
  times = [Fraction(t, 30) for t in range(40) if t != 20]
  path = write(tmp_path / 'a.mkv', clip_of(39), fps=30, times=times)
  assert video_io.probe(path, count=True).variable is True


@pytest.mark.parametrize('degrees', [0, 90, 180, 270])
@pytest.mark.parametrize('flip', [False, True])
def test_rotation_flag_is_honoured(tmp_path, degrees, flip):
  clip = clip_of(3)
  stored = video_io.read(encode(tmp_path / 'plain.mp4', clip))
  path = encode(tmp_path / 'a.mp4', clip, rotation=(degrees, flip))
  # Counterclockwise, then mirrored.
  expected = np.rot90(stored, degrees // 90, axes=(1, 2))
  expected = expected[:, :, ::-1] if flip else expected
  np.testing.assert_array_equal(video_io.read(path), expected)
  info = video_io.probe(path)
  assert (info.height, info.width) == expected.shape[1:3]


def test_resizes_like_pillow_and_after_turning(tmp_path):
  clip = clip_of(3, 96, 128)
  for path in (
    encode(tmp_path / 'plain.mp4', clip),
    encode(tmp_path / 'turned.mp4', clip, rotation=(90, False)),
    write(tmp_path / 'folder', clip),
  ):
    whole = video_io.read(path)
    expected = [
      Image.fromarray(f).resize((40, 24), Image.Resampling.BICUBIC)
      for f in whole
    ]
    got = video_io.read(path, size=(24, 40)).astype(int)
    assert got.shape == (3, 24, 40, 3)
    assert np.abs(got - np.stack(expected)).mean() < 1


def test_raw_h264_has_no_times(tmp_path):
  clip = clip_of(30)
  path = encode(tmp_path / 'a.264', clip, container='h264')
  read = video_io.read(path)
  assert np.abs(read.astype(int) - clip).mean() < 4
  assert video_io.index(path).pts is None
  np.testing.assert_array_equal(
    video_io.read(path, start=11, count=3, step=2), read[11:16:2]
  )


@pytest.mark.parametrize('bits', [8, 10])
def test_y4m_made_by_hand(tmp_path, bits):
  # Limited range: 16 is black and 235 white, times 4 with ten bits.
  luma = np.repeat(np.linspace(16, 235, 64)[None], 48, axis=0)
  scale, kind = (1, np.uint8) if bits == 8 else (4, '<u2')
  planes = [luma, np.full((24, 32), 128), np.full((24, 32), 128)]
  data = b''.join(np.rint(p * scale).astype(kind).tobytes() for p in planes)
  chroma = b'420jpeg' if bits == 8 else b'420p10 XYSCSS=420P10'
  path = tmp_path / 'a.y4m'
  path.write_bytes(
    b'YUV4MPEG2 W64 H48 F30:1 Ip A1:1 C'
    + chroma
    + b'\n'
    + 3 * (b'FRAME\n' + data)
  )
  read = video_io.read(path)
  assert read.shape == (3, 48, 64, 3)
  grey = np.round((luma - 16) / 219 * 255)
  assert np.abs(read.astype(float) - grey[None, :, :, None]).max() <= 1
  assert video_io.probe(path).fps == 30


class TestPictures:
  def test_natural_order(self, tmp_path):
    for number in (1, 2, 10):
      grey = np.full((8, 8, 3), number, np.uint8)
      Image.fromarray(grey).save(tmp_path / f'f{number}.png')
    (tmp_path / 'notes.txt').write_text('not a picture')
    assert video_io.read(tmp_path)[:, 0, 0, 0].tolist() == [1, 2, 10]

  def test_grey_alpha_palette_and_16_bits_become_rgb(self, tmp_path):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    grey = np.repeat(ramp[:, :, None], 3, axis=2)

    def saved(image, name='a.png'):
      image.save(tmp_path / name)
      return video_io.read(tmp_path / name)[0]

    np.testing.assert_array_equal(saved(Image.fromarray(ramp)), grey)
    np.testing.assert_array_equal(
      saved(Image.fromarray(ramp.astype(np.uint16) * 257)), grey
    )
    np.testing.assert_array_equal(
      saved(Image.fromarray(ramp).convert('P')), grey
    )
    rgba = np.dstack([np.full_like(grey, 200), ramp])
    np.testing.assert_array_equal(
      saved(Image.fromarray(rgba)),
      np.rint(200 * (grey / 255)).astype(np.uint8),
    )

  def test_orientation_of_a_photo(self, tmp_path):
    image = clip_of(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    Image.fromarray(image).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(
      video_io.read(tmp_path / 'a.png')[0], np.rot90(image, -1)
    )

  def test_empty_folder(self, tmp_path):
    with pytest.raises(ValueError, match='holds no pictures'):
      video_io.probe(tmp_path)

  def test_mixed_sizes(self, tmp_path):
    for i, size in enumerate([(8, 8), (8, 9)]):
      Image.fromarray(np.zeros((*size, 3), np.uint8)).save(
        tmp_path / f'{i}.png'
      )
    with pytest.raises(ValueError, match='1.png is 8x9, but 0.png is 8x8'):
      video_io.read(tmp_path)

  def test_truncated_picture(self, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / 'a.png')
    data = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match='a.png'):
      video_io.read(tmp_path)


class TestBadFiles:
  def refused(self, path, error=ValueError, match=None):
    for function in (video_io.probe, video_io.index, video_io.read):
      with pytest.raises(error, match=match or path.name):
        function(path)

  def test_missing(self, tmp_path):
    self.refused(tmp_path / 'none.mp4', FileNotFoundError)

  def test_text_and_nothing(self, tmp_path):
    (tmp_path / 'a.mp4').write_text('this is not a video\n' * 100)
    self.refused(tmp_path / 'a.mp4')
    (tmp_path / 'b.mp4').write_bytes(b'')
    self.refused(tmp_path / 'b.mp4')

  def test_without_video(self, tmp_path):
    with av.open(str(tmp_path / 'a.mp4'), 'w') as output:
      stream = output.add_stream('aac', rate=48_000)
      frame = av.AudioFrame.from_ndarray(
        np.zeros((1, 9600), np.int16), format='s16', layout='stereo'
      )
      frame.sample_rate = 48_000
      output.mux(stream.encode(frame))
      output.mux(stream.encode())
    self.refused(tmp_path / 'a.mp4', match='a.mp4 has no video stream')

  @pytest.mark.parametrize('name', ['a.mp4', 'a.mov', 'a.mkv', 'a.avi'])
  def test_truncated(self, tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    path = write(tmp_path / name, noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for function in (video_io.index, video_io.read):
      with pytest.raises(ValueError, match=name):
        function(path)

  def test_wrong_stream(self, tmp_path):
    path = write(tmp_path / 'a.mp4', clip_of(3))
    with pytest.raises(ValueError, match='1 video streams'):
      video_io.probe(path, stream=1)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_is_bounded(tmp_path):
  frame = np.zeros((480, 640, 3), np.uint8)
  path = write(tmp_path / 'a.mp4', itertools.repeat(frame, 600), quality=40)
  code = (
    'import re, sys\n'
    'from vidpred_jax import video_io\n'
    'def memory(kind):\n'
    '  text = open("/proc/self/status").read()\n'
    '  return int(re.search(kind + r":\\s+(\\d+)", text)[1])\n'
    'before = memory("VmRSS")\n'
    'assert sum(1 for _ in video_io.frames(sys.argv[1])) == 600\n'
    'print(memory("VmHWM") - before)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(path)], capture_output=True, check=True
  )
  assert int(done.stdout) < 60_000  # kilobytes; all frames are 553 MB


def test_finds_videos_and_folders_of_pictures(tmp_path):
  (tmp_path / 'b').mkdir()
  write(tmp_path / 'b' / 'clip.mp4', clip_of(2))
  write(tmp_path / 'a', clip_of(2))
  (tmp_path / 'b' / 'notes.txt').write_text('')
  (tmp_path / '.hidden.mp4').write_text('')
  (tmp_path / 'b' / 'loop').symlink_to(tmp_path)
  assert video_io.find_videos(tmp_path) == [
    tmp_path / 'a',
    tmp_path / 'b' / 'clip.mp4',
  ]


def test_real_clips(shared):
  # The best of two video streams unless asked for another.
  nasa = shared / 'data/natural/torchcodec_nasa_13013.mp4'
  best, first = video_io.probe(nasa), video_io.probe(nasa, stream=0)
  assert (best.width, best.height, best.num_frames) == (480, 270, 390)
  assert (first.width, first.height, first.num_frames) == (320, 180, 325)
  # The header counts frames that are not to be shown.
  cut = shared / 'data/driving/udacity_project_video_seg1.mp4'
  assert video_io.probe(cut, count=True).num_frames == 88
  clip = video_io.read(cut, start=40, count=3, step=2)
  streamed = itertools.islice(video_io.frames(cut), 40, 45, 2)
  np.testing.assert_array_equal(clip, [f for _, f in streamed])
