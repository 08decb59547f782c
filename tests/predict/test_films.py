"""Films of all kinds through `predict_video`: what is kept and what is said."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.predict.toys import again, between
from vidpred_jax import command, predict, video_io
from vidpred_jax.data import photos, videos


def moving(seed, number=6, size=(64, 96)):
  clips = photos.PhotosInMotion('train', number, size=size, seed=seed)
  return clips[0]['video']


def write(path, clip, times=None, **settings):
  with video_io.Writer(path, **{'fps': 25} | settings) as writer:
    for n, frame in enumerate(clip):
      writer.write(frame, None if times is None else times[n])
  return path


@pytest.mark.parametrize('name', ['a.ts', 'a.mpg', 'a.flv', 'a.mkv', 'a.gif'])
def test_what_follows_any_kind_of_film(tmp_path, name):
  path = tmp_path / name
  codec = {'a.mpg': 'mpeg2video', 'a.flv': 'flv1', 'a.gif': 'gif'}
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(codec.get(name, 'libx264'), rate=25)
    stream.width, stream.height = 96, 64
    stream.pix_fmt = 'rgb8' if name == 'a.gif' else 'yuv420p'
    for frame in moving(0, 60):
      output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
    output.mux(stream.encode())
  predict.predict_video(again, path, tmp_path / 'out', num_frames=1)
  np.testing.assert_array_equal(
    video_io.read(tmp_path / 'out')[0], video_io.read(path)[-1]
  )


@pytest.mark.parametrize('bars', [0, 20])
def test_nothing_is_blended_where_the_scene_changes(tmp_path, bars):
  clip = np.concatenate([moving(0), moving(3)])
  clip[:, :, :bars] = clip[:, :, 96 - bars :] = 0
  source = write(tmp_path / 'in', clip)
  for n, settings in enumerate([{}, {'cut': -1.0}]):
    predict.predict_video(between, source, tmp_path / f'out{n}', **settings)
  found, never = (video_io.read(tmp_path / f'out{n}') for n in (0, 1))
  np.testing.assert_array_equal(found[11], clip[5])  # not half of both
  assert not np.array_equal(never[11], clip[5])
  np.testing.assert_array_equal(found[:11], never[:11])


@pytest.mark.parametrize('text', ['3', '0:00.12'])
def test_a_list_of_cuts_is_obeyed(tmp_path, text):
  clip = moving(0)
  source, cuts = write(tmp_path / 'in', clip), tmp_path / 'cuts.txt'
  cuts.write_text(text)
  for fps in (None, Fraction(50)):
    output = tmp_path / f'out{fps or ""}'.replace('.', '')
    predict.predict_video(
      between, source, output, fps=fps, reading={'cuts': cuts}
    )
    got = video_io.read(output)
    np.testing.assert_array_equal(got[5], clip[2])
    assert not np.array_equal(got[3], clip[1])


@pytest.mark.parametrize('text, wrong', [('3\n-1', '-1'), ('2,9,900', '9')])
def test_cuts_that_are_not_in_the_film_are_told(tmp_path, caplog, text, wrong):
  source = write(tmp_path / 'in', moving(0)[:9])
  (tmp_path / 'cuts.txt').write_text(text)
  video_io.Film(source, cuts=tmp_path / 'cuts.txt')
  (said,) = [r.getMessage() for r in caplog.records]
  assert said.endswith(f'are not in the film, such as {wrong}.')


@pytest.mark.parametrize('curve', ['pq', 'hlg'])
def test_high_dynamic_range_is_mapped_with_a_word_or_kept(
  tmp_path, curve, caplog
):
  levels = (0.3, 0.4, 0.5)
  frames = [np.full((64, 96, 3), 65535 * v, np.uint16) for v in levels]
  source = write(tmp_path / 'in.mkv', frames, curve=curve)
  predict.predict_video(between, source, tmp_path / 'out.mp4')
  assert 'high dynamic range' in caplog.text and '--hdr=keep' in caplog.text
  assert video_io.probe(tmp_path / 'out.mp4').curve is None
  caplog.clear()
  output = tmp_path / 'kept.mkv'
  predict.predict_video(between, source, output, reading={'hdr': 'keep'})
  assert not caplog.text and video_io.probe(output).curve == curve
  got = [f.mean() / 65535 for _, f in video_io.frames(output, keep_hdr=True)]
  np.testing.assert_allclose(got, np.linspace(0.3, 0.5, 5), atol=3e-3)
  with pytest.raises(ValueError, match='cannot keep high dynamic range'):
    predict.predict_video(
      between, source, tmp_path / 'a.avi', reading={'hdr': 'keep'}
    )


def test_a_cut_is_seen_in_kept_high_dynamic_range(tmp_path):
  clip = np.concatenate([moving(0), moving(3)]).astype(np.uint16) * 257
  source = write(tmp_path / 'in.mkv', clip, curve='pq', quality=4)
  predict.predict_video(
    between, source, tmp_path / 'out.mkv', reading={'hdr': 'keep'}
  )
  got = [
    f.astype(int)
    for _, f in video_io.frames(tmp_path / 'out.mkv', keep_hdr=True)
  ]
  distances = [np.abs(got[11] - got[n]).mean() / 257 for n in (10, 12)]
  assert min(distances) < 4 and max(distances) > 15


def test_interlaced_video_is_named_or_made_one(tmp_path, caplog):
  path = tmp_path / 'in.mkv'
  with av.open(str(path), 'w') as output:
    stream = output.add_stream('mpeg2video', rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
    flags = av.codec.context.Flags
    stream.codec_context.flags |= int(
      flags.interlaced_dct | flags.interlaced_me
    )
    stream.codec_context.field_order = 2
    for frame in moving(0):
      output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
    output.mux(stream.encode())
  predict.predict_video(between, path, tmp_path / 'a.mkv')
  assert 'interlaced' in caplog.text
  caplog.clear()
  count = predict.predict_video(
    between, path, tmp_path / 'b.mkv', reading={'deinterlace': True}
  )
  assert count == 11 and not caplog.text
  predict.predict_video(
    again, path, tmp_path / 'c', reading={'deinterlace': True}
  )


@pytest.mark.parametrize('name', ['out.mp4', 'out.mkv', 'out.mov'])
def test_the_shape_of_pixels_is_kept(tmp_path, name):
  aspect = Fraction(32, 27)
  source = write(tmp_path / 'in.mp4', moving(0), pixel_aspect=aspect)
  predict.predict_video(between, source, tmp_path / name)
  assert video_io.probe(tmp_path / name).pixel_aspect == aspect


@pytest.mark.parametrize('fps', [12, Fraction(24000, 1001)])
def test_the_rate_of_a_folder(tmp_path, fps):
  source = write(tmp_path / 'in', moving(0))
  output = tmp_path / 'out.mp4'
  predict.predict_video(between, source, output, reading={'fps': fps})
  assert video_io.probe(output, count=True).fps == 2 * Fraction(fps)
  with pytest.raises(ValueError, match='says itself when'):
    predict.predict_video(
      between, output, tmp_path / 'b.mp4', reading={'fps': fps}
    )


class TestTimes:
  def test_a_pause_at_the_end_stays_one(self, tmp_path):
    images = [Image.fromarray(f) for f in moving(0)]
    source = tmp_path / 'in.gif'
    images[0].save(
      source, save_all=True, append_images=images[1:],
      duration=[100, 200, 100, 100, 300, 1000],
    )  # fmt: skip
    predict.predict_video(between, source, tmp_path / 'out.gif')
    with Image.open(tmp_path / 'out.gif') as image:
      delays = []
      for n in range(image.n_frames):
        image.seek(n)
        delays.append(image.info['duration'])
    assert delays == [50, 50, 100, 100, 50, 50, 50, 50, 150, 150, 1000]

  def test_slides(self, tmp_path):
    times = [Fraction(t) for t in (0, 1, 3)]
    source = write(
      tmp_path / 'in.mkv', moving(0, 3), times, last=Fraction(4), fps=1
    )
    output = tmp_path / 'out.mkv'
    predict.predict_video(between, source, output)
    with av.open(str(output)) as container:
      assert container.duration / 1e6 == pytest.approx(7, abs=0.1)
    even = tmp_path / 'even.avi'
    predict.predict_video(between, source, even, fps=Fraction(5))
    number = video_io.probe(even, count=True).num_frames
    assert number == pytest.approx(35, abs=1)

  def test_more_than_a_gif_can_show(self, tmp_path):
    source = write(tmp_path / 'in.mp4', moving(0))
    with pytest.raises(ValueError, match='--fps=50'):
      predict.predict_video(between, source, tmp_path / 'a.gif', factor=4)

  @pytest.mark.parametrize('name', ['a.mkv', 'a.webm'])
  def test_frames_with_one_time(self, tmp_path, name):
    source = tmp_path / name
    with av.open(str(source), 'w') as output:
      codec = 'libx264' if name == 'a.mkv' else 'libvpx'
      options = {'bf': '0'} if name == 'a.mkv' else {'auto-alt-ref': '0'}
      stream = output.add_stream(codec, rate=25, options=options)
      stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
      packets = []
      for frame in moving(0, 10):
        packets += stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24'))
      packets += stream.encode()
      for n, packet in enumerate(packets):
        if n == 3:  # both of one tick in Matroska
          packet.pts = packet.dts = 2
        output.mux(packet)
    output = tmp_path / 'out.mkv'
    predict.predict_video(between, source, output, fps=Fraction(60))
    assert len(video_io.read(output)) == pytest.approx(24, abs=2)
    predict.predict_video(between, source, output, overwrite=True)
    assert len(video_io.read(output)) == 19


class TestTraining:
  def test_what_is_left_out_is_named(self, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv('VIDPRED_JAX_CACHE', '')
    for n in range(3):
      write(tmp_path / f'{n}.mp4', moving(n))
    write(tmp_path / 'short.mp4', moving(4, 2))
    (tmp_path / 'broken.mp4').write_text('no video' * 100)
    (tmp_path / 'empty.mkv').write_bytes(b'')
    videos.VideoClips('train', 4, root=tmp_path, test_fraction=0.0)
    for name in ('broken.mp4', 'empty.mkv', 'short.mp4'):
      assert name in caplog.text
    assert 'Of 6 files for train 3 are left out' in caplog.text


def test_commands_show_our_warnings(capfd):
  import logging

  ours = logging.getLogger('vidpred_jax')
  before = ours.handlers[:], ours.level, ours.propagate
  try:
    command._show_warnings()
    logging.getLogger('vidpred_jax.data.videos').warning('Left out: %s', 'a')
    logging.getLogger('absl').warning('of others')
  finally:
    ours.handlers[:], ours.propagate = before[0], before[2]
    ours.setLevel(before[1])
  assert 'Warning: Left out: a\n' in capfd.readouterr().err


def test_the_future_is_marked_and_a_long_one_is_told(tmp_path, caplog):
  source = write(tmp_path / 'in', moving(0, 4))
  predict.predict_video(
    again,
    source,
    tmp_path / 'out',
    num_frames=2,
    with_input=True,
    mark=True,
  )
  seen, made = video_io.read(source), video_io.read(tmp_path / 'out')
  np.testing.assert_array_equal(made[:4], seen)
  for frame in made[4:]:
    # A bar of one colour at the top; below it is what was predicted.
    assert (frame[:2] == frame[0, 0]).all() and frame[0, 0, 0] == 255
    np.testing.assert_array_equal(frame[2:], seen[-1][2:])
  assert '2 frames are asked for; these weights were measured on 1' in (
    caplog.text
  )
  caplog.clear()
  predict.predict_video(again, source, tmp_path / 'one', num_frames=1)
  np.testing.assert_array_equal(video_io.read(tmp_path / 'one')[0], seen[-1])
  assert not caplog.text


def test_the_codec_of_the_output_can_lose_nothing(tmp_path):
  source = write(tmp_path / 'in', moving(0, 4))
  predict.predict_video(
    again, source, tmp_path / 'out.mkv', num_frames=1, codec='ffv1'
  )
  made = video_io.read(tmp_path / 'out.mkv')
  np.testing.assert_array_equal(made[0], video_io.read(source)[-1])


def test_less_crf_is_more_bytes(tmp_path):
  source = write(tmp_path / 'in', moving(0, 4))
  sizes = []
  for quality in (4, 40):
    output = tmp_path / f'{quality}.mp4'
    predict.predict_video(
      again, source, output, with_input=True, quality=quality
    )
    sizes.append(output.stat().st_size)
  assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize(
  'name, settings, words',
  [
    ('a.mp4', {'codec': 'ffv1'}, 'matroska'),
    ('a.mkv', {'codec': 'mpeg'}, 'ffv1, h264, h265, vp9'),
    ('a', {'codec': 'h264'}, 'folder'),
    ('a.gif', {'quality': 3}, 'no quality'),
    ('a.mkv', {'codec': 'ffv1', 'quality': 3}, 'no quality'),
    ('a.mp4', {'quality': 52}, r'quality 52 \(--crf\), expected 0 .* to 51'),
    ('a.webm', {'quality': -1}, 'expected 0 .* to 63'),
    ('a.avi', {'quality': 0}, 'expected 1 .* to 31'),
  ],
)
def test_a_codec_or_quality_that_cannot_be_is_refused(
  tmp_path, name, settings, words
):
  with pytest.raises(ValueError, match=words):
    video_io.Writer(tmp_path / name, fps=5, **settings)


@pytest.mark.parametrize(
  'name, codec', [('a.mp4', 'h265'), ('a.mkv', 'vp9'), ('a.mov', 'h264')]
)
def test_other_codecs_give_the_same_film(tmp_path, name, codec):
  clip = moving(1, 3)
  path = write(tmp_path / name, clip, codec=codec, quality=10)
  made = video_io.read(path).astype(np.float32)
  assert made.shape == clip.shape
  assert np.abs(made - clip).mean() < 6
