from fractions import Fraction

import av
import jax
import numpy as np
import pytest

from tests.predict.toys import between, drawn, forward, moving, write
from vidpred_jax import video_io
from vidpred_jax.predict import __main__ as predict
from vidpred_jax.predict import videos
from vidpred_jax.predict.predictor import Predictor
from vidpred_jax.systems import base

# ----------------------------------------------------------------- prediction


def test_the_output_is_what_the_predictor_gives(folder, tmp_path):
  count = predict.predict_video(forward, folder, tmp_path / 'out', num_frames=4)
  assert count == 4
  expected = Predictor(*forward()).predict(moving(6), 4)
  np.testing.assert_array_equal(video_io.read(tmp_path / 'out'), expected)


def test_without_a_number_as_many_as_the_system_says(folder, tmp_path):
  assert predict.predict_video(drawn, folder, tmp_path / 'out') == 2


def test_the_input_can_come_first(folder, tmp_path):
  predict.predict_video(
    forward, folder, tmp_path / 'out', num_frames=3, with_input=True
  )
  got = video_io.read(tmp_path / 'out')
  np.testing.assert_array_equal(got[:6], moving(6))
  np.testing.assert_array_equal(
    got[6:], Predictor(*forward()).predict(moving(6), 3)
  )


@pytest.mark.parametrize('name', ['a.mp4', 'a.gif', 'a.mkv', 'a.y4m', 'a.avi'])
@pytest.mark.parametrize('size', [(64, 36), (41, 57)])
def test_any_kind_and_size_of_video(tmp_path, name, size):
  clip = moving(4, *size)
  source = write(tmp_path / f'in_{name}', clip, fps=20)
  output = tmp_path / name
  predict.predict_video(forward, source, output, num_frames=3)
  info = video_io.probe(output, count=True)
  assert (info.height, info.width, info.num_frames) == (*size, 3)
  assert info.fps == 20
  expected = Predictor(*forward()).predict(video_io.read(source), 3)
  error = np.abs(video_io.read(output).astype(float) - expected).mean()
  assert error < (6 if name == 'a.gif' else 4)  # the loss of the coding


def test_an_uneven_video_goes_on_at_its_mean_rate(tmp_path):
  times = [Fraction(t, 10) for t in (0, 1, 3, 4, 8)]
  source = write(tmp_path / 'in.mp4', moving(5), times=times)
  output = tmp_path / 'out.mp4'
  predict.predict_video(forward, source, output, num_frames=2, with_input=True)
  got = np.array([time for time, _ in video_io.frames(output)], float)
  np.testing.assert_allclose(got[:5], np.array(times, float), atol=1e-3)
  np.testing.assert_allclose(np.diff(got)[-2:], 0.2, atol=1e-3)


def test_what_is_seen_is_put_beside_the_frames(folder, tmp_path):
  predict.predict_video(
    forward,
    folder,
    tmp_path / 'out',
    num_frames=2,
    with_input=True,
    overlay=['mask', 'flow', 'blocks'],
  )
  got = video_io.read(tmp_path / 'out')
  clip = moving(6)
  assert got.shape == (8, 40, 4 * 56, 3)
  np.testing.assert_array_equal(got[:6, :, :56], clip)
  assert (got[:6, :, 56:] == 0).all()  # nothing explains the input
  red = np.repeat(clip[-1, ..., :1], 3, -1)
  np.testing.assert_array_equal(got[6, :, 56:112], red)
  assert got[6, :, 112:168].std() > 1
  assert (got[6, :, 168:] == (255, 176, 59)).all(-1).any()


def test_samples_are_videos_of_their_own(folder, tmp_path):
  predict.predict_video(
    drawn,
    folder,
    tmp_path / 'out',
    num_frames=3,
    samples=2,
    key=jax.random.key(5),
  )
  futures = Predictor(*drawn()).samples(moving(6), 3, 2, jax.random.key(5))
  for s in range(2):
    np.testing.assert_array_equal(
      video_io.read(tmp_path / f'out_{s}'), futures.frames[s]
    )
  np.testing.assert_array_equal(
    video_io.read(tmp_path / 'out_mean'), futures.mean
  )
  spread = video_io.read(tmp_path / 'out_spread') / 1020
  np.testing.assert_allclose(
    spread, np.minimum(futures.spread, 0.25), atol=1e-3
  )
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'in', 'out_0', 'out_1', 'out_mean', 'out_spread',
  ]  # fmt: skip


# -------------------------------------------------------------- interpolation


def test_a_factor_fills_between_the_frames(folder, tmp_path):
  predict.predict_video(between, folder, tmp_path / 'out', factor=3)
  got = video_io.read(tmp_path / 'out')
  assert len(got) == 16
  np.testing.assert_array_equal(got[::3], moving(6))
  expected = moving(6)[0] * (2 / 3) + moving(6)[1] / 3
  assert np.abs(got[1] - expected).max() <= 0.51
  assert predict.predict_video(between, folder, tmp_path / 'twice') == 11


def with_sound(path, clip, fps, times=None):
  """An mp4 with a tone as long as the video."""
  silent = write(path.with_name('silent.mp4'), clip, fps, times)
  duration = video_io.probe(silent, count=True).duration
  with av.open(str(silent)) as source, av.open(str(path), 'w') as target:
    video = target.add_stream_from_template(source.streams.video[0])
    sound = target.add_stream('aac', rate=16000)
    sound.layout = 'mono'
    for packet in source.demux(video=0):
      if packet.dts is not None:
        packet.stream = video
        target.mux(packet)
    wave = np.sin(np.arange(round(16000 * duration)) / 10).astype(np.float32)
    for start in range(0, len(wave), 1024):
      part = wave[None, start : start + 1024]
      frame = av.AudioFrame.from_ndarray(part, 'fltp', 'mono')
      frame.sample_rate, frame.pts = 16000, start
      target.mux(sound.encode(frame))
    target.mux(sound.encode())
  return path


def packets(path):
  with av.open(str(path)) as source:
    audio = source.streams.audio[0]
    return [
      (float(p.pts * audio.time_base), bytes(p))
      for p in source.demux(audio)
      if p.size
    ]


def test_24_to_60_frames_per_second_with_sound(tmp_path):
  source = with_sound(tmp_path / 'in.mp4', moving(48), 24)
  output = tmp_path / 'out.mp4'
  count = predict.predict_video(between, source, output, fps=Fraction(60))
  info = video_io.probe(output, count=True)
  assert count == info.num_frames == 120 and info.fps == 60
  assert info.duration == pytest.approx(2, abs=0.02)
  assert not info.variable and info.has_audio
  before, after = packets(source), packets(output)
  assert [p for _, p in after] == [p for _, p in before]
  np.testing.assert_allclose(
    [t for t, _ in after], [t for t, _ in before], atol=2e-3
  )
  # Output frame 5 lies at the time of input frame 2, 7 at 2.8 of it.
  frames, given = video_io.read(output), video_io.read(source).astype(float)
  # x264 gives other bytes from run to run: 3.02 was seen.
  assert np.abs(frames[5] - given[2]).mean() < 4
  assert np.abs(frames[7] - 0.2 * given[2] - 0.8 * given[3]).mean() < 4


def test_sound_can_be_left_out(tmp_path):
  source = with_sound(tmp_path / 'in.mp4', moving(6), 24)
  predict.predict_video(between, source, tmp_path / 'a.mp4')
  predict.predict_video(between, source, tmp_path / 'b.mp4', audio=False)
  assert video_io.probe(tmp_path / 'a.mp4').has_audio
  assert not video_io.probe(tmp_path / 'b.mp4').has_audio
  assert video_io.probe(tmp_path / 'a.mp4').fps == 48


def test_an_uneven_video_keeps_its_times(tmp_path):
  times = [Fraction(t, 20) for t in (0, 1, 4, 5, 9)]
  source = write(tmp_path / 'in.mp4', moving(5), fps=20, times=times)
  output = tmp_path / 'out.mp4'
  predict.predict_video(between, source, output, factor=2)
  got = np.array([time for time, _ in video_io.frames(output)], float)
  expected = np.interp(np.arange(9) / 2, np.arange(5), np.array(times, float))
  np.testing.assert_allclose(got, expected, atol=1e-3)
  even = tmp_path / 'even.mp4'
  predict.predict_video(between, source, even, fps=Fraction(30))
  info = video_io.probe(even, count=True)
  assert not info.variable and info.fps == 30
  # Up to the end of the last frame, which lasts 1/20 s.
  assert info.num_frames == 30 * (9 + 1) / 20


@pytest.mark.parametrize(
  'rate, fps, parts',
  [
    (24, 60, 5),
    (25, 50, 2),
    (30, 24, 4),
    (60, 30, 2),
    (Fraction(24000, 1001), Fraction(60000, 1001), 5),
    (30, Fraction('59.94'), 16),
  ],
)
def test_intervals_are_divided_as_finely_as_needed(rate, fps, parts):
  info = video_io.Info(
    'a.mp4', 8, 8, Fraction(rate), 9, 1.0, False, False, 'h264'
  )
  assert videos._parts(info, None, Fraction(fps)) == parts


# --------------------------------------------------------------------- refuse


@pytest.mark.parametrize(
  'load, settings, message',
  [
    (forward, dict(factor=2), 'predicts what follows.*--factor'),
    (forward, dict(fps=Fraction(60)), 'predicts what follows.*--fps'),
    (forward, dict(samples=2), 'deterministic'),
    (forward, dict(num_frames=0), 'num_frames=0'),
    (forward, dict(num_frames=10**9), 'num_frames=1000000000, expected 1 to'),
    (forward, dict(overlay=['root']), 'has blocks, flow, mask'),
    (forward, dict(max_pixels=10), 'max_pixels=10'),
    (between, dict(num_frames=2), 'interpolates.*--num_frames'),
    (between, dict(samples=2), 'interpolates.*--samples'),
    (between, dict(with_input=True), 'interpolates.*--with_input'),
    (between, dict(factor=1), 'factor=1'),
    (between, dict(fps=Fraction(0)), 'positive'),
    (between, dict(fps=Fraction(60), factor=2), 'both'),
    (between, dict(overlay=['flow']), 'has no diagnostics'),
    (drawn, dict(samples=2, with_input=True), '--samples together'),
    (drawn, dict(samples=10**8), 'samples=100000000, expected 1 to 256'),
    (forward, dict(samples=0), 'samples=0, expected 1'),
  ],
)
def test_what_does_not_suit_is_refused(
  folder, tmp_path, load, settings, message
):
  with pytest.raises(ValueError, match=message):
    predict.predict_video(load, folder, tmp_path / 'out', **settings)
  assert [p.name for p in tmp_path.iterdir()] == ['in']


def test_an_existing_file_is_kept(folder, tmp_path):
  output = tmp_path / 'out.gif'
  output.write_bytes(b'precious')
  with pytest.raises(FileExistsError, match='out.gif'):
    predict.predict_video(forward, folder, output)
  assert output.read_bytes() == b'precious'
  predict.predict_video(forward, folder, output, overwrite=True)
  assert video_io.probe(output, count=True).num_frames == 1


def test_a_grey_system_sees_the_luma_of_a_colour_video(tmp_path):
  clip = np.zeros((4, 16, 16, 3), np.uint8)
  clip[..., 1] = 200
  source = tmp_path / 'in'
  with video_io.Writer(source, fps=5) as writer:
    for frame in clip:
      writer.write(frame)
  frames = base.Frames((0, 1), (2,))
  shapes = []

  def last(variables, context, key):
    shapes.append(context.shape)
    return context[:, -1:]

  system = base.System(None, None, last, frames, 8, False, 1)
  output = tmp_path / 'out'
  predict.predict_video(lambda **_: (system, {}), source, output, num_frames=2)
  assert shapes[0][-1] == 1
  np.testing.assert_array_equal(video_io.read(output), 117)  # 0.587 * 200
