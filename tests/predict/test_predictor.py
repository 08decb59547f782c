import tracemalloc
from typing import NamedTuple

import jax
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
  noisy,
  smooth,
)
from vidpred_jax import runtime, systems
from vidpred_jax.predict import predictor
from vidpred_jax.systems import base

# ------------------------------------------------------------------------ words


def test_a_predictor_says_what_it_is():
  system = systems.make(
    'simvp', frames=F((0, 1), (2,)), hid_s=4, hid_t=16, n_s=4, n_t=2
  )
  weights = {'params': {'a': jnp.zeros((100, 20)), 'b': jnp.zeros(3)}}
  lines = [
    'Predictor of System simvp',
    '  frames: (0, 1) -> (2,), deterministic',
    '  clips: images, 1 channel, sides divisible by 4',
    '  settings: hid_s=4, hid_t=16, n_t=2',
    '  weights: 2,003 parameters',
  ]
  small = predictor.Predictor(system, weights, max_pixels=2000, overlap=8)
  text = '  larger frames: in tiles of at most 2,000 pixels, overlapping by 8'
  assert repr(small).splitlines() == [*lines, text]
  tiled = predictor.Predictor(system, weights, tile=(64, 96), overlap=8)
  text = '  larger frames: in tiles of 64x96 pixels, overlapping by 8'
  assert repr(tiled).splitlines() == [*lines, text]


# ----------------------------------------------------------------- prediction


def test_it_compiles_with_the_options_of_the_system(monkeypatch):
  asked = []

  def accepted(option, value):
    asked.append((option, value))
    return False

  monkeypatch.setattr(runtime, 'accepted', accepted)
  system = make(damped)._replace(cpu_options=(('xla_of_the_system', 1),))
  predictor.Predictor(system, VARIABLES).predict(clip_of(2), 1)
  assert ('xla_of_the_system', 1) in asked


def test_predictions_are_fed_back_without_rounding():
  clip = clip_of(4)
  clip = 100 + clip // 8  # far from black and white
  got = predictor.Predictor(make(damped), VARIABLES).predict(clip, 6)
  a, b = clip[-2].astype(float), clip[-1].astype(float)
  for frame in got:
    a, b = b, b + 0.5 * (b - a)
    # Near a half float32 may round the other way.
    sure = np.abs(b - np.floor(b) - 0.5) > 1e-3
    np.testing.assert_array_equal(frame[sure], np.rint(b)[sure])
  assert got.shape == (6, 40, 56, 3) and got.dtype == np.uint8


@pytest.mark.parametrize('size', [(40, 56), (41, 57), (7, 130), (1, 1)])
def test_any_size_is_padded_by_its_border_and_cropped_back(size):
  def sees(x, context, key):
    del x, key
    # The rightmost column everywhere, to look into the padding.
    return jnp.broadcast_to(context[:, -1:, :, -1:], context[:, -1:].shape)

  clip = clip_of(2, *size)
  got = predictor.Predictor(make(sees), VARIABLES).predict(clip, 1)
  expected = np.broadcast_to(clip[-1:, :, -1:], got.shape)
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
  'frames, expected',
  [
    (F((0, 1), (2,)), [10, 11]),
    (F((2, 3), (4, 5)), [10, 11]),
    (F((0, 2), (4,)), [9, 11]),
    (F((0, 1, 5), (6, 7)), [6, 7, 11]),
  ],
)
def test_the_last_frames_are_seen_as_far_apart_as_asked(frames, expected):
  clip = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones(
    (1, 8, 8, 3), np.uint8
  )
  levels = []

  def sees(x, context, key):
    del x, key
    jax.debug.callback(lambda c: levels.append(c[0, :, 0, 0, 0] * 255), context)
    return jnp.repeat(context[:, -1:], len(frames.target), 1)

  predictor.Predictor(make(sees, frames), VARIABLES).predict(clip, 1)
  jax.effects_barrier()
  np.testing.assert_allclose(levels[0], expected, atol=1e-4)


@pytest.mark.parametrize(
  'frames',
  [
    F((0, 1), (2,)),
    F((0, 1), (2, 3, 4)),
    F((2, 3), (4, 5, 6, 7, 8)),
    F((0, 2), (4, 6)),
    F((0, 1, 2, 3, 4), (5, 6)),
    F((0, 2, 3), (4, 5)),
  ],
)
def test_a_straight_line_goes_on_for_any_number_of_frames(frames):
  def line(x, context, key):
    del x, key
    first, last = frames.context[-2:]
    slope = (context[:, -1] - context[:, -2]) / (last - first)
    return jnp.stack(
      [context[:, -1] + (t - last) * slope for t in frames.target], 1
    )

  time = np.arange(10, dtype=np.uint8)[:, None, None, None]
  clip = (50 + 3 * time) * np.ones((1, 8, 8, 3), np.uint8)
  got = predictor.Predictor(make(line, frames), VARIABLES).predict(clip, 7)
  step = frames.target[0] - frames.context[-1]
  np.testing.assert_array_equal(
    got[:, 0, 0, 0], 50 + 3 * (9 + step * np.arange(1, 8))
  )


def test_frames_that_do_not_lead_on_are_refused():
  system = make(lambda x, c, key: jnp.repeat(c[:, -1:], 1, 1), F((0, 1), (3,)))
  serve = predictor.Predictor(system, VARIABLES)
  assert len(serve.predict(clip_of(2), 1)) == 1
  with pytest.raises(ValueError, match='cannot go on'):
    serve.predict(clip_of(2), 2)


def remembering(calls):
  """Steps from frame to frame grow for as long as a forecast lasts."""

  def init_carry(variables, context):
    calls.append('init_carry')
    return context[:, -1], jnp.float32(0)

  def step(variables, carry, key, n):
    calls.append('step')
    frame, steps = carry
    steps = steps + variables['params']['x'] * 4 + 0 * jax.random.normal(key)
    frame = frame + steps / 255
    # The number of the frame is that of the steps: 2 (n + 1) = steps.
    return (frame, steps), frame + (2 * (n + 1) - steps)

  system = make(None, F((0, 1), (2, 3)), stochastic=True)
  return system._replace(recurrence=base.Recurrence(init_carry, step))


@pytest.mark.parametrize('tile', [None, (16, 24)])
def test_what_a_system_remembers_lasts_as_long_as_the_forecast(tile):
  calls = []
  serve = predictor.Predictor(
    remembering(calls), VARIABLES, tile=tile, overlap=8
  )
  clip = clip_of(3) // 4
  steps = 2 * np.cumsum(np.arange(1, 6)).reshape(-1, 1, 1, 1)
  got = serve.predict(clip, 5)
  np.testing.assert_array_equal(got, clip[-1:] + steps)
  np.testing.assert_array_equal(serve.predict(clip, 1), got[:1])
  # Compiled once for any number of frames, and not called for more of them.
  assert calls == ['init_carry', 'step']
  futures = serve.samples(clip, 5, 3)
  np.testing.assert_array_equal(futures.frames[2], got)


def test_a_frame_that_is_remembered_from_is_given_at_once():
  drawn = []

  def step(variables, carry, key, n):
    jax.debug.callback(lambda n: drawn.append(int(n)), n)
    return carry, carry

  system = make(None, stochastic=True)._replace(
    recurrence=base.Recurrence(lambda _, context: context[:, -1], step)
  )
  frames = predictor.Predictor(system, VARIABLES).stream(clip_of(2), 4)
  next(frames)
  jax.effects_barrier()
  assert drawn == [0]


def test_a_stream_is_what_predict_gives_and_waits_to_be_asked():
  calls = []

  def counted(x, context, key):
    jax.debug.callback(lambda: calls.append(1))
    return damped(x, context, key)

  serve = predictor.Predictor(make(counted), VARIABLES)
  whole = serve.predict(clip_of(2), 4)
  calls.clear()
  frames = serve.stream(iter(clip_of(2)), 4)
  first = next(frames)
  jax.effects_barrier()
  assert len(calls) == 1
  np.testing.assert_array_equal(np.stack([first, *frames]), whole)


def test_a_long_video_is_not_held():
  def video():
    for i in range(300):
      yield np.full((128, 128, 3), i % 251, np.uint8)

  serve = predictor.Predictor(make(damped), VARIABLES)
  serve.predict(clip_of(2, 128, 128), 1)
  middle = predictor.Predictor(blend(HALF), VARIABLES)
  list(middle.interpolate(clip_of(2, 128, 128)))
  tracemalloc.start()
  for _ in serve.stream(video(), 100):
    pass
  for _ in middle.interpolate(video()):
    pass
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 40 * 128 * 128 * 3  # of 300


def test_one_compilation_for_each_padded_size():
  traces = []

  def traced(x, context, key):
    traces.append(context.shape)
    return damped(x, context, key)

  serve = predictor.Predictor(make(traced), VARIABLES)
  for size in ((40, 56), (33, 49), (39, 50), (48, 56)):
    serve.predict(clip_of(2, *size), 3)
  assert [t[2:4] for t in traces] == [(40, 56), (48, 56)]


# ---------------------------------------------------------------------- tiles


def box(radius):
  """Mean of a neighbourhood, with the border repeated."""

  def predict(x, context, key):
    del x, key
    size = 2 * radius + 1
    pads = ((0, 0), (radius, radius), (radius, radius), (0, 0))
    padded = jnp.pad(context[:, -1], pads, mode='edge')
    total = jax.lax.reduce_window(
      padded, 0.0, jax.lax.add, (1, size, size, 1), (1, 1, 1, 1), 'VALID'
    )
    return total[:, None] / size**2

  return predict


def test_tiles_change_nothing_where_models_look_less_far_than_they_overlap():
  clip = smooth(2, 150, 210)
  whole = predictor.Predictor(make(box(5)), VARIABLES).predict(clip, 3)
  tiled = predictor.Predictor(
    make(box(5)), VARIABLES, tile=(64, 80), overlap=32
  ).predict(clip, 3)
  # The last row and column of tiles are padded nowhere, the frame is.
  assert np.abs(tiled[0].astype(int) - whole[0]).max() <= 1
  assert np.abs(tiled.astype(int) - whole).max() <= 2


def test_tiles_that_disagree_leave_no_seam():
  def shaded(x, context, key):
    """Depends on the whole picture: each tile gets its own mean."""
    del x, key
    mean = context[:, -1:].mean((2, 3), keepdims=True)
    return 0 * context[:, -1:] + mean

  height, width = 96, 320
  ramp = np.linspace(0, 255, width)[None, None, :, None]
  clip = np.broadcast_to(ramp, (2, height, width, 3)).astype(np.uint8)
  overlap = 64
  serve = predictor.Predictor(
    make(shaded), VARIABLES, tile=(96, 128), overlap=overlap
  )
  got = serve.predict(clip, 1)[0].astype(int)
  jump = got.max() - got.min()
  assert jump > 100
  steps = np.abs(np.diff(got, axis=1)).max()
  assert steps <= jump / 2 / (overlap / 2) + 2


def test_a_pixel_budget_gives_the_same_frames():
  clip = smooth(2, 130, 190)
  whole = predictor.Predictor(make(damped), VARIABLES).predict(clip, 4)
  for settings in (dict(max_pixels=8000, overlap=16), dict(tile=(64, 64))):
    settings = dict(overlap=24) | settings
    serve = predictor.Predictor(make(damped), VARIABLES, **settings)
    got = serve.predict(clip, 4)
    assert np.abs(got.astype(int) - whole).max() <= 1


# -------------------------------------------------------------------- samples


def test_samples_are_several_futures():
  serve = predictor.Predictor(make(noisy, stochastic=True), VARIABLES)
  clip = np.full((2, 40, 40, 3), 128, np.uint8)
  futures = serve.samples(clip, 3, 16, jax.random.key(1))
  assert futures.frames.shape == (16, 3, 40, 40, 3)
  assert futures.mean.shape == futures.spread.shape == (3, 40, 40, 3)
  # A walk with steps of 0.05: the spread grows like the root of time.
  np.testing.assert_allclose(
    futures.spread.mean((1, 2, 3)), 0.05 * np.sqrt([1, 2, 3]), rtol=0.08
  )
  np.testing.assert_allclose(futures.mean.mean((1, 2, 3)), 128, atol=1)
  values = futures.frames / 255
  np.testing.assert_allclose(futures.spread, values.std(0), atol=1e-5)
  assert len({f.tobytes() for f in futures.frames}) == 16


def test_the_same_key_gives_the_same_video():
  serve = predictor.Predictor(make(noisy, stochastic=True), VARIABLES)
  clip = clip_of(2)
  a = serve.predict(clip, 3, jax.random.key(7))
  np.testing.assert_array_equal(a, serve.predict(clip, 3, jax.random.key(7)))
  assert (a != serve.predict(clip, 3, jax.random.key(8))).any()
  np.testing.assert_array_equal(
    serve.predict(clip, 3), serve.predict(clip, 3, jax.random.key(0))
  )
  few = serve.samples(clip, 2, 2, jax.random.key(7))
  many = serve.samples(clip, 2, 3, jax.random.key(7))
  np.testing.assert_array_equal(few.frames, many.frames[:2])


@pytest.mark.parametrize(
  'settings',
  [
    {},  # all together
    {'max_pixels': 2 * 40 * 56},  # two at a time, five: the last group is odd
    {'max_pixels': 40 * 56},  # one at a time
    {'tile': (24, 32), 'overlap': 8},
  ],
)
def test_each_sample_is_a_prediction_by_itself(settings):
  serve = predictor.Predictor(
    make(noisy, stochastic=True), VARIABLES, **settings
  )
  clip = clip_of(3)
  futures = serve.samples(clip, 3, 5, jax.random.key(7))
  assert futures.frames.shape == (5, 3, 40, 56, 3)
  for s in range(5):
    alone = serve.predict(clip, 3, jax.random.fold_in(jax.random.key(7), s))
    # Rounding may go the other way where sums are taken in another order.
    off = np.abs(np.int32(futures.frames[s]) - alone)
    assert off.max() <= 1 and (off > 0).mean() < 1e-3


# ---------------------------------------------------------------- diagnostics


def diagnosed(variables, context, key):
  del variables, key
  frame = context[:, -1:]
  red = context[:, -1:, ..., :1]
  return frame, {
    'flow': jnp.concatenate([red, -red], -1),
    'mask': red,
    'blocks': jnp.array([[[1.0, 0.0, 1.0]]]),
  }


@pytest.mark.parametrize('settings', [{}, dict(tile=(32, 32), overlap=8)])
def test_diagnostics_come_with_the_frames(settings):
  system = make(lambda x, c, key: c[:, -1:], diagnostics=diagnosed)
  clip = clip_of(2, 45, 51)
  serve = predictor.Predictor(system, VARIABLES, **settings)
  for frame, diagnostics in serve.stream(clip, 2, with_diagnostics=True):
    np.testing.assert_array_equal(frame, clip[-1])
    red = clip[-1, ..., :1] / 255
    np.testing.assert_allclose(diagnostics['mask'], red, atol=1e-5)
    np.testing.assert_allclose(
      diagnostics['flow'], np.concatenate([red, -red], -1), atol=1e-5
    )
    np.testing.assert_allclose(diagnostics['blocks'], [1, 0, 1], atol=1e-6)


# --------------------------------------------------------------------- refuse


class Case(NamedTuple):
  call: object
  message: str


CASES = {
  'one frame': Case(lambda p, i: p.predict(clip_of(1), 1), 'has 1 frame, exp'),
  'no frame': Case(lambda p, i: p.predict(clip_of(0), 1), 'has 0 frames'),
  'none asked': Case(lambda p, i: p.predict(clip_of(2), 0), 'at least 1'),
  'float': Case(lambda p, i: p.predict(clip_of(2) / 255, 1), 'float64'),
  'no clip': Case(lambda p, i: p.predict(clip_of(2)[0], 1), r'\(40, 56, 3\)'),
  'float frames': Case(
    lambda p, i: p.predict(list(clip_of(2) / 255), 1), 'float64'
  ),
  'sizes': Case(
    lambda p, i: p.predict([clip_of(1)[0], clip_of(1, 8)[0]], 1), 'one size'
  ),
  'predict between': Case(
    lambda p, i: i.predict(clip_of(2), 1), 'interpolates between'
  ),
  'interpolate after': Case(
    lambda p, i: p.interpolate(clip_of(2)), 'predicts what follows'
  ),
  'resample after': Case(
    lambda p, i: p.resample([], 60), 'predicts what follows'
  ),
  'no explanation': Case(
    lambda p, i: p.stream(clip_of(2), 1, with_diagnostics=True),
    'has no diagnostics',
  ),
  'one future': Case(lambda p, i: p.samples(clip_of(2), 1, 4), 'determinist'),
}


@pytest.mark.parametrize('name', CASES)
def test_bad_input_is_refused_in_one_line(name):
  case = CASES[name]
  with pytest.raises(ValueError, match=case.message):
    case.call(
      predictor.Predictor(make(damped), VARIABLES),
      predictor.Predictor(blend(HALF), VARIABLES),
    )


@pytest.mark.parametrize('channels', [1, 4])
def test_channels_the_system_does_not_take_are_named(channels):
  def colour(x, context, key):
    del x, key
    weights = jnp.ones((3, 3)) / 3
    return jnp.dot(context[:, -1:], weights)

  serve = predictor.Predictor(make(colour), VARIABLES)
  with pytest.raises(ValueError, match=f'have {channels} channels.*takes 3'):
    serve.predict(clip_of(2, channels=channels), 1)


def test_grey_systems_serve_grey_video():
  serve = predictor.Predictor(make(damped)._replace(channels=1), VARIABLES)
  assert serve.predict(clip_of(2, channels=1), 2).shape == (2, 40, 56, 1)


def test_errors_of_the_system_itself_come_through():
  def broken(x, context, key):
    raise KeyError('mine')

  with pytest.raises(KeyError, match='mine'):
    predictor.Predictor(make(broken), VARIABLES).predict(clip_of(2), 1)
