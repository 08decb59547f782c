from fractions import Fraction

import numpy as np
import pytest

from tests.predict.toys import ramp
from vidpred_jax.predict import frame_rate
from vidpred_jax.video_io import scenes


def image(value, shape=(2, 3, 3)):
  return np.full(shape, value, np.uint8)


def filled(video, phases, parts, cuts=(), **kwargs):
  """Values of the frames, and of which `make` was asked."""
  asked = []

  def make(context, wanted):
    before, after = context
    asked.append((after.number + 1, *wanted))
    step = (after.image.astype(float) - before.image) / parts
    return [(before.image + k * step, {'phase': k}) for k in wanted]

  marked = ((time, frame, frame.flat[0] in cuts) for time, frame in video)
  frames = frame_rate.interpolate(marked, phases, parts, make, **kwargs)
  shown = [(frame.flat[0], diagnostics) for frame, diagnostics in frames]
  for value, diagnostics in shown:
    assert diagnostics in ({}, {'phase': value % 10 * parts / 10})
  return [value for value, _ in shown], asked


def untimed(*values):
  return [(None, image(value)) for value in values]


def test_every_interval_is_filled():
  values, asked = filled(
    untimed(0, 10, 20), frame_rate.upsampled_phases(2, 4), 4
  )
  assert values == [0, 5, 10, 15, 20]
  assert asked == [(2, 2), (3, 2)]
  values, asked = filled(untimed(0, 10), frame_rate.upsampled_phases(5, 5), 5)
  assert values == [0, 2, 4, 6, 8, 10]
  assert asked == [(2, 1, 2, 3, 4)]


def test_nothing_is_made_between_equal_frames_and_scenes():
  video = untimed(0, 0, 10, 90, 100)
  values, asked = filled(
    video, frame_rate.upsampled_phases(4, 4), 4, cuts=(90,)
  )
  # The middle is the earlier scene's.
  cut = [10, 10, 10, 90]
  assert values == [0] * 4 + [0, 2.5, 5, 7.5, *cut, 90, 92.5, 95, 97.5, 100]
  assert asked == [(3, 1, 2, 3), (5, 1, 2, 3)]


@pytest.mark.parametrize(
  'hold_last, more', [(True, [20, 20, 20]), (False, [20])]
)
def test_times_say_which_frames_are_made(hold_last, more):
  """10 frames per second from 4, for parts of a fifth."""
  video = [(Fraction(3) + Fraction(i, 4), image(10 * i)) for i in range(3)]
  phases = frame_rate.constant_rate_phases(10, 5)
  values, asked = filled(video, phases, 5, hold_last=hold_last)
  assert values == [0, 4, 8, 12, 16, *more]
  assert asked == [(2, 2, 4), (3, 1, 3)]


def seen(video, around=1, cuts=()):
  """The numbers of the frames that `make` sees of each interval."""
  windows = []

  def make(context, wanted):
    windows.append(tuple(frame.number for frame in context))
    return [(context[0].image, {}) for _ in wanted]

  marked = ((time, frame, frame.flat[0] in cuts) for time, frame in video)
  twice = frame_rate.upsampled_phases(2, 2)
  list(frame_rate.interpolate(marked, twice, 2, make, around=around))
  return windows


def test_frames_around_the_interval_are_of_its_scene():
  video = untimed(0, 10, 20, 90, 100, 110)
  assert seen(video) == [
    (0, 0, 1, 2),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (3, 4, 5, 5),
  ]
  # 90 begins a scene, so there is nothing between 20 and 90.
  cut = [(0, 0, 1, 2), (0, 1, 2, 2), (3, 3, 4, 5), (3, 4, 5, 5)]
  assert seen(video, cuts=(90,)) == cut
  assert seen(untimed(0, 10)) == [(0, 0, 1, 1)]
  two = [(0, 0, 0, 1, 2, 2), (0, 0, 1, 2, 2, 2)]
  assert seen(untimed(0, 10, 20), around=2) == two


def test_frames_around_the_interval_are_evenly_spread():
  times = [Fraction(t, 30) for t in (0, 1, 2, 4, 6, 8)]
  video = [(t, image(10 * n)) for n, t in enumerate(times)]
  assert seen(video) == [
    (0, 0, 1, 2),
    (0, 1, 2, 2),
    (2, 2, 3, 4),
    (2, 3, 4, 5),
    (3, 4, 5, 5),
  ]
  jitter = [(t + Fraction(n % 2, 400), f) for n, (t, f) in enumerate(video[:3])]
  assert seen(jitter) == [(0, 0, 1, 2), (0, 1, 2, 2)]


def test_fewer_frames_than_before():
  video = [(Fraction(i, 30), image(i)) for i in range(7)]
  values, asked = filled(
    video, frame_rate.constant_rate_phases(10, 4), 4, hold_last=True
  )
  assert values == [0, 3, 6]
  assert not asked


def test_errors():
  with pytest.raises(ValueError, match='fps=0, expected a positive number'):
    frame_rate.constant_rate_phases(0, 4)
  phases = frame_rate.constant_rate_phases(10, 4)
  with pytest.raises(ValueError, match='increase, got 1.0 s after 2.0 s'):
    phases(Fraction(2), Fraction(1))
  twice = frame_rate.upsampled_phases(2, 2)
  for few in ((), (1,)):
    with pytest.raises(ValueError, match=f'has {len(few)} frame.*at least 2'):
      filled(untimed(*few), twice, 2)
  sizes = [(None, image(1)), (None, image(2, (3, 3, 3)))]
  with pytest.raises(ValueError, match='one size, got'):
    filled(sizes, twice, 2)


def test_similarity():
  a = ramp()
  assert scenes.likeness(a, a) == pytest.approx(1)
  assert scenes.likeness(a, ramp(step=2)) > 0.9
  assert scenes.likeness(a, 255 - a) < -0.5
  black = np.zeros_like(a)
  assert scenes.likeness(a, black) < 0.1
  assert scenes.likeness(black, black + 1) > 0.8
  grey = scenes.likeness(a[..., :1], ramp(step=2)[..., :1])
  assert grey == pytest.approx(scenes.likeness(a, ramp(step=2)), abs=1e-6)


def test_the_likeness_of_frames_keeps_its_name():
  assert frame_rate.likeness is scenes.likeness
