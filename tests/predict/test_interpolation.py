"""`Predictor.interpolate` and `resample`: frames between frames."""

import fractions

import jax.numpy as jnp
import numpy as np
import pytest

from tests.predict.toys import (
  HALF,
  VARIABLES,
  F,
  blend,
  clip_of,
  damped,
  make,
  ramp,
)
from vidpred_jax.predict import engine, predictor


@pytest.mark.parametrize('parts', [2, 3, 8])
def test_interpolation_keeps_the_frames_and_fills_between(parts):
  clip = clip_of(4, 9, 13)
  frames = F((0, parts), tuple(range(1, parts)))
  serve = predictor.Predictor(blend(frames), VARIABLES, cut=-1)
  got = np.stack(list(serve.interpolate(clip)))
  assert len(got) == 3 * parts + 1
  np.testing.assert_array_equal(got[::parts], clip)
  for i, frame in enumerate(got):
    a, t = divmod(i, parts)
    b = min(a + 1, 3)
    expected = clip[a] * (1 - t / parts) + clip[b] * (t / parts)
    assert np.abs(frame - expected).max() <= 0.51


def test_a_factor_that_divides_is_served():
  frames = F((0, 4), (1, 2, 3))
  serve = predictor.Predictor(blend(frames), VARIABLES)
  clip = clip_of(3)
  four = list(serve.interpolate(clip, 4))
  two = list(serve.interpolate(iter(clip), 2))
  np.testing.assert_array_equal(np.stack(two), np.stack(four)[::2])
  with pytest.raises(ValueError, match='factor=3.*by 4'):
    serve.interpolate(clip, 3)


@pytest.mark.parametrize('parts', [2, 4])
def test_a_system_may_see_the_frames_around_the_interval(parts):
  """Cubic interpolation of each pixel (Catmull-Rom)."""
  frames = F((0, 1, 2, 3), (1,)).divided(parts)
  assert frames.context == (0, parts, 2 * parts, 3 * parts)

  def cubic(x, context, key):
    del x, key
    p, a, b, n = (context[:, i : i + 1] for i in range(4))
    t = (jnp.arange(1, parts) / parts).reshape(1, -1, 1, 1, 1)
    slopes = (b - p) / 2, (n - a) / 2
    return (
      (2 * t**3 - 3 * t**2 + 1) * a
      + (t**3 - 2 * t**2 + t) * slopes[0]
      + (3 * t**2 - 2 * t**3) * b
      + (t**3 - t**2) * slopes[1]
    )

  clip = np.stack([np.full((9, 13, 3), v, np.uint8) for v in (9, 1, 1, 9, 25)])
  clip[..., 0] += np.arange(5, dtype=np.uint8)[:, None, None]
  serve = predictor.Predictor(
    make(cubic, frames), VARIABLES, cut=-1, whole=True
  )
  got = np.stack(list(serve.interpolate(clip))).astype(float)
  assert len(got) == 4 * parts + 1
  np.testing.assert_array_equal(got[::parts], clip)
  padded = [clip[0], *clip, clip[-1]]
  for i in range(4):
    context = jnp.stack(padded[i : i + 4])[None].astype(jnp.float32)
    expected = np.asarray(cubic(None, context, None))[0]
    made = got[i * parts + 1 : (i + 1) * parts]
    assert np.abs(made - expected).max() <= 0.51


def test_the_frames_before_one_of_another_size_are_right():
  clip = [np.full((9, 13, 3), v, np.uint8) for v in (0, 10, 20)]
  other = np.full((7, 15, 3), 30, np.uint8)
  for context in ((0, 2), (0, 2, 4, 6)):
    middle = (len(context) // 2 - 1) * 2 + 1
    serve = predictor.Predictor(
      make(lambda x, c, key: c[:, :1], F(context, (middle,))), VARIABLES, cut=-1
    )
    shown = serve.interpolate([*clip, other])
    for _ in range(4):
      assert next(shown).shape == (9, 13, 3)
    with pytest.raises(ValueError, match='one size'):
      list(shown)


@pytest.mark.parametrize('context', [(0, 2, 4), (0, 2, 4, 6, 8)])
def test_an_odd_number_of_frames_has_no_middle(context):
  serve = predictor.Predictor(
    make(lambda x, c, key: c[:, :1], F(context, (len(context) - 2,))), VARIABLES
  )
  with pytest.raises(ValueError, match='both sides; this system has'):
    serve.interpolate(clip_of(5))


def test_times_say_which_frames_are_around():
  frames = F((0, 2, 4, 6), (3,))

  def outer(x, context, key):
    del x, key
    return (context[:, :1] + context[:, 3:]) / 2

  clip = np.stack([np.full((9, 13, 3), v, np.uint8) for v in (0, 10, 30, 90)])
  serve = predictor.Predictor(make(outer, frames), VARIABLES, cut=-1)
  even = np.stack(list(serve.interpolate(clip)))[1::2, 0, 0, 0]
  np.testing.assert_array_equal(even, [15, 45, 50])
  times = [fractions.Fraction(t) for t in (0, 1, 2, 4)]
  timed = serve.interpolate(zip(times, clip), timed=True)
  uneven = np.stack(list(timed))[1::2, 0, 0, 0]
  np.testing.assert_array_equal(uneven, [15, 15, 60])


def test_nothing_is_blended_across_a_cut():
  other = ramp()[::-1, ::-1].transpose(1, 0, 2)
  clip = np.stack([ramp(), ramp(step=1), other])
  frames = F((0, 4), (1, 2, 3))
  got = list(predictor.Predictor(blend(frames), VARIABLES).interpolate(clip))
  assert len(got) == 9
  # Half of the way each of both scenes, the middle is the first's.
  for frame, expected in zip(got[4:], [1, 1, 1, 2, 2]):
    np.testing.assert_array_equal(frame, clip[expected])
  middle = np.mean(clip[:2].astype(float), 0)
  assert np.abs(got[2] - middle).max() <= 0.51
  always = predictor.Predictor(blend(frames), VARIABLES, cut=-1)
  middle = np.mean(clip[1:].astype(float), 0)
  assert np.abs(list(always.interpolate(clip))[6] - middle).max() <= 0.51


def test_frames_may_share_two_buffers():
  """Two intervals that are skipped lie between two that are not."""
  one, other = ramp(), ramp()[::-1, ::-1].transpose(1, 0, 2)
  video = [one, ramp(step=1), other, one, ramp(step=1), ramp(step=2)]
  buffers = np.zeros((2, *one.shape), np.uint8)

  def shared():
    for i, frame in enumerate(video):
      buffers[i % 2] = frame
      yield buffers[i % 2]

  system = predictor.Predictor(blend(F((0, 2), (1,))), VARIABLES)
  ours = [frame.copy() for frame in system.interpolate(shared())]
  np.testing.assert_array_equal(ours, list(system.interpolate(video)))


def test_every_frame_is_entered_once(monkeypatch):
  entered = []
  enter = engine.Engine.to_device

  def count(self, frame, tiles):
    entered.append(frame)
    return enter(self, frame, tiles)

  monkeypatch.setattr(engine.Engine, 'to_device', count)
  system = predictor.Predictor(blend(F((0, 2), (1,))), VARIABLES)
  clip = np.stack([ramp(step=i) for i in range(4)])
  assert len(list(system.interpolate(clip))) == 7
  assert len(entered) == 4


def test_a_cut_is_a_similarity():
  with pytest.raises(ValueError, match='cut=2'):
    predictor.Predictor(make(damped), VARIABLES, cut=2)


def test_interpolation_reads_only_as_far_as_it_must():
  taken = []

  def video():
    for i, frame in enumerate(clip_of(6)):
      taken.append(i)
      yield frame

  serve = predictor.Predictor(blend(HALF), VARIABLES)
  for n, _ in enumerate(serve.interpolate(video())):
    # Two frames more tell a change of scene from fast motion.
    assert len(taken) <= n // 2 + 4


def brightening(times):
  """Frames whose level is ten times their time in seconds, plus 20."""
  for time in times:
    level = 20 + 10 * float(time)
    yield time, np.full((8, 8, 3), round(level), np.uint8)


def test_24_to_60_frames_per_second():
  frames = F((0, 5), (1, 2, 3, 4))
  serve = predictor.Predictor(blend(frames), VARIABLES)
  times = [fractions.Fraction(i, 24) for i in range(240)]
  ones = [(t, np.full((8, 8, 3), i, np.uint8)) for i, t in enumerate(times)]
  got = list(serve.resample(ones, 60))
  assert len(got) == 600
  for n, frame in enumerate(got):
    assert abs(frame[0, 0, 0] - min(n * 24 / 60, 239)) <= 0.51


def test_uneven_times_are_followed():
  frames = F((0, 16), tuple(range(1, 16)))
  serve = predictor.Predictor(blend(frames), VARIABLES)
  times = [3.0, 3.5, 3.6, 5.0, 5.2]
  got = list(serve.resample(brightening(times), 20))
  assert len(got) == round(2.4 * 20)
  for n, frame in enumerate(got[:44]):
    expected = 20 + 10 * (3 + n / 20)
    # Source levels are rounded, times to a sixteenth of an interval.
    assert abs(frame[0, 0, 0] - expected) <= 1 + 10 * 1.4 / 32


def test_one_program_computes_any_frames_of_a_number():
  frames, traced = F((0, 16), tuple(range(1, 16))), []

  def select(variables, context, key, targets):
    del variables, key
    traced.append(len(targets))  # when it is compiled, not when it runs
    shares = ((1 + targets) / 16)[None, :, None, None, None]
    return context[:, :1] * (1 - shares) + context[:, 1:] * shares, {}

  system = blend(frames)._replace(select=select, predict=None)
  serve = predictor.Predictor(system, VARIABLES)
  times = [3.0, 3.5, 3.6, 5.0, 5.2]
  got = list(serve.resample(brightening(times), 20))
  expected = predictor.Predictor(blend(frames), VARIABLES)
  expected = list(expected.resample(brightening(times), 20))
  np.testing.assert_array_equal(got, expected)
  wanted = list(serve.resample(brightening([0.0, 1.0, 1.7, 2.5]), 3))
  assert [int(frame[0, 0, 0]) for frame in wanted][:3] == [20, 23, 27]
  assert len(traced) == len(set(traced)) > 1
