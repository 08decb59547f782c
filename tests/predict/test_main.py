import pathlib
import re
import subprocess
import sys
import types
from fractions import Fraction

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidpred_jax as vp
from vidpred_jax import checkpoint, runtime, systems, video_io, zoo
from vidpred_jax.predict import __main__ as predict
from vidpred_jax.predict import videos
from vidpred_jax.predict.predictor import Predictor
from vidpred_jax.systems import base

HALF = base.Frames((0, 2), (1,))
VARIABLES = {'params': {'x': jnp.float32(0.5)}}


def _system(function, frames, stochastic=False, diagnostics=None):
  return base.System(
    None, None, function, frames, 8, stochastic, diagnostics=diagnostics
  )


def forward(**overrides):
  """Loads a system that predicts a straight line and explains itself."""

  def diagnostics(variables, context, key):
    del variables, key
    a, b = context[:, -2:-1], context[:, -1:]
    flow = jnp.concatenate([b - a, a - b], -1)[..., 2:4]
    diagnostics = {
      'flow': flow,
      'mask': b[..., :1],
      'blocks': jnp.ones((1, 1, 9)),
    }
    return b + 0.5 * (b - a), diagnostics

  assert not overrides
  frames = base.Frames((0, 1), (2,))
  predicts = lambda v, c, key: diagnostics(v, c, key)[0]  # noqa: E731
  return _system(predicts, frames, diagnostics=diagnostics), VARIABLES


def between(frames=HALF):
  """Loads a system that blends."""

  def blend(variables, context, key):
    del variables, key
    t = jnp.array(frames.target) / frames.context[-1]
    t = t.reshape(1, -1, 1, 1, 1).astype(jnp.float32)
    return (1 - t) * context[:, :1] + t * context[:, 1:]

  return _system(blend, frames), VARIABLES


def drawn():
  """Loads a system that draws at random."""

  def noisy(variables, context, key):
    del variables
    noise = jax.random.normal(key, context[:, -1:].shape)
    return context[:, -1:] + 0.1 * noise

  frames = base.Frames((0, 1), (2, 3))
  pair = lambda v, c, key: jnp.repeat(noisy(v, c, key), 2, 1)  # noqa: E731
  return _system(pair, frames, stochastic=True), VARIABLES


def moving(length, height=40, width=56):
  t, y, x = np.mgrid[:length, :height, :width].astype(float)
  planes = [
    np.sin((x + 3 * t) / 9),
    np.cos((y - 2 * t) / 7),
    np.sin(t + x / 20),
  ]
  return np.rint(127.5 + 100 * np.stack(planes, -1)).astype(np.uint8)


def write(path, clip, fps=10, times=None):
  with video_io.Writer(path, fps=fps) as writer:
    for i, frame in enumerate(clip):
      writer.write(frame, None if times is None else times[i])
  return path


@pytest.fixture
def folder(tmp_path):
  """A folder with six pictures, stored without loss."""
  return write(tmp_path / 'in', moving(6))


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
  ],
)
def test_what_does_not_suit_is_refused(
  folder, tmp_path, load, settings, message
):
  with pytest.raises(ValueError, match=message):
    predict.predict_video(load, folder, tmp_path / 'out', **settings)
  assert [p.name for p in tmp_path.iterdir()] == ['in']


def test_one_picture_is_not_enough(tmp_path):
  source = write(tmp_path / 'in', moving(1))
  for load in (forward, between):
    with pytest.raises(ValueError, match='1 frame'):
      predict.predict_video(load, source, tmp_path / 'out.mp4')
  assert [p.name for p in tmp_path.iterdir()] == ['in']


def test_an_existing_file_is_kept(folder, tmp_path):
  output = tmp_path / 'out.gif'
  output.write_bytes(b'precious')
  with pytest.raises(FileExistsError, match='out.gif'):
    predict.predict_video(forward, folder, output)
  assert output.read_bytes() == b'precious'
  predict.predict_video(forward, folder, output, overwrite=True)
  assert video_io.probe(output, count=True).num_frames == 1


# --------------------------------------------------------------------- fields

KNOWN = base.DataSpec(
  'field',
  variables=('t2m', 'z500'),
  units='K, m^2/s^2',
  mean=(280.0, 5e4),
  std=(9.0, 700.0),
)


def straight(data=KNOWN):
  """Loads a system of fields that go on in a straight line."""

  def line(variables, context, key):
    del variables, key
    return 2 * context[:, 1:] - context[:, :1]

  frames = base.Frames((0, 1), (2,))
  channels = len(data.variables)
  system = base.System(None, None, line, frames, 8, False, channels, data)
  return system, VARIABLES


def hours(length=5):
  rng = np.random.default_rng(0)
  fields = KNOWN.mean + rng.normal(size=(length, 11, 13, 2)) * KNOWN.std
  return fields.astype(np.float32)


def test_fields_go_from_arrays_to_arrays(tmp_path):
  clip = hours()
  last, step = clip[-1].astype(float), clip[-1].astype(float) - clip[-2]
  expected = np.stack([last + step, last + 2 * step])
  np.save(tmp_path / 'in.npy', clip)
  t2m, z500 = np.moveaxis(clip, -1, 0)
  np.savez(tmp_path / 'in.npz', z500=z500, t2m=t2m, time=np.arange(5))
  for source, output in (('in.npy', 'a.npy'), ('in.npz', 'a.npz')):
    paths = tmp_path / source, tmp_path / output
    assert predict.predict_field(straight, *paths, num_frames=2) == 2
    got = np.load(paths[1])
    if output == 'a.npz':
      got = np.stack([got[name] for name in KNOWN.variables], -1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    with pytest.raises(FileExistsError, match=output):
      predict.predict_field(straight, *paths)
    predict.predict_field(straight, *paths, overwrite=True)
  assert np.load(tmp_path / 'a.npy').shape == (1, 11, 13, 2)
  assert len(list(tmp_path.iterdir())) == 4


def test_one_variable_needs_no_axis(tmp_path):
  known = KNOWN._replace(mean=(280.0,), std=(9.0,), variables=('t2m',))
  np.save(tmp_path / 'in.npy', hours()[..., 0])
  load = lambda: straight(known)  # noqa: E731
  paths = tmp_path / 'in.npy', tmp_path / 'out.npy'
  predict.predict_field(load, *paths, num_frames=3)
  assert np.load(paths[1]).shape == (3, 11, 13)


@pytest.mark.parametrize(
  'array, message',
  [
    (hours()[..., :1], r'has 1 arrays.*each of t2m, z500'),
    (hours()[0], 'each of t2m, z500'),
    (hours()[:1], '1 frame'),
    (hours().astype(str), 'expected numbers'),
    (np.array([{}]), 'damaged or no npy'),
  ],
)
def test_other_arrays_are_refused(array, message, tmp_path):
  np.save(tmp_path / 'in.npy', array)
  with pytest.raises(ValueError, match=message):
    predict.predict_field(straight, tmp_path / 'in.npy', tmp_path / 'out.npy')
  assert [p.name for p in tmp_path.iterdir()] == ['in.npy']


@pytest.mark.parametrize(
  'paths', [('in.mp4', 'out.npy'), ('in.npy', 'out.gif'), ('in', 'out')]
)
def test_fields_are_no_videos(paths, tmp_path):
  paths = [tmp_path / path for path in paths]
  with pytest.raises(ValueError, match='learned from physical fields.*t2m'):
    predict.predict_field(straight, *paths)


# -------------------------------------------------------------------- command


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A small DMVFN, as `main` would export it."""
  path = tmp_path_factory.mktemp('exported') / 'dmvfn'
  frames = systems.Frames((0, 1), (2,))
  settings = dict(scales=(2, 1), widths=(8, 8), router_scale=2)
  system = systems.make('dmvfn', frames=frames, **settings)
  clip = np.zeros((1, 3, 16, 16, 3), np.float32)
  checkpoint.save_system(
    path,
    system='dmvfn',
    settings=settings,
    frames=frames,
    variables=jax.jit(system.init)(runtime.key(0), clip),
  )
  return path


def command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'vidpred_jax.predict', *map(str, arguments)],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_the_command_predicts_a_video(exported, tmp_path):
  source = write(tmp_path / 'in.mp4', moving(5, 90, 50), fps=24)
  output = tmp_path / 'out.mp4'
  got = command(
    f'--checkpoint={exported}',
    f'--input={source}',
    f'--output={output}',
    '--num_frames=3',
    '--overlay=flow,blocks',
  )
  assert got.returncode == 0, got.stderr
  assert '3 frames' in got.stdout
  (warning,) = got.stderr.splitlines()[:1]
  assert 'these weights were measured on 1' in warning
  info = video_io.probe(output, count=True)
  assert (info.num_frames, info.height, info.width) == (3, 90, 150)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--input=none.mp4'], 'none.mp4'),
    (['--factor=2'], '--factor'),
    (['--fps=fast'], 'expected a number'),
    (['--checkpoint=nowhere'], 'nowhere'),
    (['--output=out.txt'], 'out.txt'),
  ],
)
def test_the_command_refuses_in_one_line(
  exported, folder, tmp_path, arguments, message
):
  got = command(
    f'--checkpoint={exported}',
    f'--input={folder}',
    f'--output={tmp_path}/out.mp4',
    *arguments,
  )
  assert got.returncode == 2
  assert message in got.stderr.splitlines()[-1]
  assert 'Traceback' not in got.stderr
  assert [p.name for p in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('name', ['same', 'link'])
def test_the_command_never_replaces_its_input(exported, tmp_path, name):
  source = write(tmp_path / 'same', moving(4))
  (tmp_path / 'link').symlink_to(source)
  before = video_io.read(source)
  got = command(
    f'--checkpoint={exported}',
    f'--input={source}',
    f'--output={tmp_path / name}',
    '--overwrite',
  )
  assert got.returncode == 2 and 'is the input' in got.stderr
  np.testing.assert_array_equal(video_io.read(source), before)


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


def test_the_command_knows_fields_from_videos(folder, tmp_path):
  frames = systems.Frames((0, 1), (2, 3))
  settings = dict(hid_s=4, hid_t=8, n_s=2, n_t=2, channels=2)
  system = systems.make('simvp', frames=frames, **settings)
  clip = jax.ShapeDtypeStruct((1, 4, 8, 8, 2), np.float32)
  variables = jax.tree.map(
    lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype),
    jax.eval_shape(system.init, jax.random.key(0), clip),
  )
  weights = tmp_path / 'weights'
  checkpoint.save_system(
    weights,
    system='simvp',
    settings=settings,
    frames=frames,
    variables=variables,
    data=KNOWN,
  )
  source, output = tmp_path / 'in.npy', tmp_path / 'out.npy'
  np.save(source, hours())
  arguments = f'--checkpoint={weights}', f'--output={output}'
  got = command(*arguments, f'--input={folder}')
  assert got.returncode == 2
  assert 'not from pictures' in got.stderr.splitlines()[-1]
  got = command(*arguments, f'--input={source}', '--samples=2')
  assert got.returncode == 2
  assert '--samples' in got.stderr.splitlines()[-1]
  got = command(*arguments, f'--input={source}', '--num_frames=3')
  assert got.returncode == 0, got.stderr
  assert '3 frames' in got.stdout
  seen = (hours()[None, -2:] - KNOWN.mean) / KNOWN.std
  padded = np.pad(
    seen.astype(np.float32), [(0, 0)] * 2 + [(0, 1)] * 2 + [(0, 0)], 'edge'
  )
  predicted = jax.jit(system.predict)(variables, padded, jax.random.key(0))
  expected = np.asarray(predicted)[0, :, :11, :13] * np.float32(KNOWN.std)
  expected += np.float32(KNOWN.mean)
  np.testing.assert_allclose(np.load(output)[:2], expected, rtol=1e-4)


# ------------------------------------------- no input, no checkpoint


def asked(tmp_path, **options):
  """The flags of a command without --input."""
  usual = {'factor': None, 'num_frames': None, 'samples': None, 'seed': 0}
  usual |= {'output': str(tmp_path / 'out.mp4'), 'overwrite': False}
  return types.SimpleNamespace(**usual | options)


def test_without_input_a_film_of_known_truth_is_predicted(tmp_path, capsys):
  predict._try_out(forward, asked(tmp_path, num_frames=3), None)
  said = capsys.readouterr().out
  assert said.startswith('3 frames written')
  assert 'copies of the last frame' in said
  assert len(video_io.read(tmp_path / 'out.mp4')) == 3


def test_without_input_a_film_of_known_truth_is_interpolated(tmp_path, capsys):
  predict._try_out(between, asked(tmp_path, factor=2), None)
  said = capsys.readouterr().out
  assert said.startswith('15 frames written')
  # This system is the mean of the frames around, but for its rounding.
  ours, theirs = re.findall(r'([\d.]+) dB', said)
  assert abs(float(ours) - float(theirs)) < 0.1
  assert len(video_io.read(tmp_path / 'out.mp4')) == 15


@pytest.mark.parametrize('options', [{'samples': 2}, {'fps': Fraction(60)}])
def test_what_a_generated_film_is_not_for_is_refused(tmp_path, options):
  fps = options.pop('fps', None)
  with pytest.raises(ValueError, match='generated film'):
    predict._try_out(forward, asked(tmp_path, **options), fps)


def test_the_model_for_any_film_is_taken_by_what_is_asked():
  assert predict._FOR_ANY_FILM == {False: 'dmvfn-film', True: 'apr-vfi-film'}
  for between_frames, name in predict._FOR_ANY_FILM.items():
    if name in zoo.models():
      assert vp.load(name)[0].frames.interpolates == between_frames
