import fractions
import tracemalloc
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import checkpoint, runtime, systems
from vidpred_jax.predict import engine, predictor
from vidpred_jax.systems import base

F = base.Frames
NEXT = F((0, 1), (2,))
HALF = F((0, 2), (1,))


def make(
  predict, frames=NEXT, *, multiple=8, stochastic=False, diagnostics=None
):
  """A system of two lines, enough to see what the Predictor does with it."""

  def checked(variables, context, key):
    assert context.shape[1] == len(frames.context)
    assert context.shape[2] % multiple == context.shape[3] % multiple == 0
    return predict(variables['params']['x'], context, key)

  return base.System(
    init=None,
    loss=None,
    predict=checked,
    frames=frames,
    multiple=multiple,
    stochastic=stochastic,
    diagnostics=diagnostics,
  )


VARIABLES = {'params': {'x': jnp.float32(0.5)}}


def damped(x, context, key):
  """The next frame of a motion that loses half its speed each time."""
  del key
  a, b = context[:, -2], context[:, -1]
  return (b + x * (b - a))[:, None]


def blend(frames):
  def predict(x, context, key):
    del x, key
    first, last = frames.context
    t = jnp.array(frames.target) - first
    t = (t / (last - first)).reshape(1, -1, 1, 1, 1).astype(jnp.float32)
    return (1 - t) * context[:, :1] + t * context[:, 1:]

  return make(predict, frames)


def noisy(x, context, key):
  noise = jax.random.normal(key, context[:, -1:].shape)
  return context[:, -1:] + 0.1 * x * noise


def clip_of(length, height=40, width=56, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  shape = (length, height, width, channels)
  return rng.integers(0, 256, shape, dtype=np.uint8)


def smooth(length, height, width):
  t, y, x = np.mgrid[:length, :height, :width].astype(float)
  planes = [
    np.sin(x / 31 + t / 3) * np.cos(y / 23),
    np.sin((x + y) / 47 - t / 4),
    np.cos(x / 19) * np.sin(y / 41 + t / 5),
  ]
  return np.rint(127.5 + 127 * np.stack(planes, -1)).astype(np.uint8)


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


# -------------------------------------------------------------- interpolation


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


def ramp(side=48, step=0):
  """A frame of a scene that moves by `step` pixels to the right."""
  x = np.arange(side) - step
  grey = 128 + 100 * np.sin(x / 9) * np.cos(np.arange(side) / 7)[:, None]
  return np.repeat(grey[:, :, None], 3, 2).astype(np.uint8)


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


@pytest.mark.parametrize('parts', [2, 3])
def test_across_a_cut_the_nearer_frame_is_shown(parts):
  clip = np.stack([ramp(), 255 - ramp()])
  frames = F((0, parts), tuple(range(1, parts)))
  serve = predictor.Predictor(blend(frames), VARIABLES)
  got = list(serve.resample(enumerate(clip), parts))
  numbers = [int(np.array_equal(frame, clip[1])) for frame in got]
  assert numbers == {2: [0, 0, 1, 1], 3: [0, 0, 1, 1, 1, 1]}[parts]


def test_between_equal_frames_nothing_is_computed():
  def fails(x, context, key):
    raise AssertionError('called')

  serve = predictor.Predictor(make(fails, HALF), VARIABLES)
  clip = np.stack([ramp()] * 3)
  got = list(serve.interpolate(clip, with_diagnostics=False))
  np.testing.assert_array_equal(np.stack(got), np.stack([ramp()] * 5))


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


def test_slower_is_served_too():
  serve = predictor.Predictor(blend(HALF), VARIABLES)
  times = [fractions.Fraction(i, 30) for i in range(30)]
  ones = [(t, np.full((8, 8, 3), i, np.uint8)) for i, t in enumerate(times)]
  got = [f[0, 0, 0] for f in serve.resample(ones, 10)]
  assert got == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]


def test_times_must_increase():
  serve = predictor.Predictor(blend(HALF), VARIABLES)
  with pytest.raises(ValueError, match='must increase'):
    list(serve.resample(brightening([0.0, 1.0, 1.0]), 2))


def test_only_the_frames_needed_are_computed():
  frames = F((0, 4), (1, 2, 3))

  def one_by_one(x, context, key):
    del x, key

    parts = []
    for t in frames.target:
      frame = context[:, 0] * (1 - t / 4) + context[:, 1] * (t / 4)
      # Something dear that the compiler cannot share between targets.
      for _ in range(3):
        frame = jnp.einsum('bhwc,hk->bkwc', frame, jnp.eye(8) + 0 * t)
      parts.append(frame)
    return jnp.stack(parts, 1)

  serve = predictor.Predictor(make(one_by_one, frames), VARIABLES)

  def flops(wanted):
    context = tuple(jnp.zeros((8, 8, 3)) for _ in range(2))
    compiled = serve._engine._step.lower(
      VARIABLES,
      context,
      np.array([8, 8], np.int32),
      jax.random.key(0),
      wanted=wanted,
      with_diagnostics=False,
    ).compile()
    return compiled.cost_analysis()['flops']

  assert flops((1,)) < 0.5 * flops((0, 1, 2))


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


def test_a_deterministic_system_has_no_samples():
  serve = predictor.Predictor(make(damped), VARIABLES)
  with pytest.raises(ValueError, match='deterministic'):
    serve.samples(clip_of(2), 1, 4)


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
  'between one': Case(
    lambda p, i: list(i.interpolate(clip_of(1))), 'has 1 frame,'
  ),
  'no explanation': Case(
    lambda p, i: p.stream(clip_of(2), 1, with_diagnostics=True),
    'has no diagnostics',
  ),
  'fps': Case(lambda p, i: i.resample([], 0), 'positive'),
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


# --------------------------------------------------------------------- fields

FIELD = (np.array([250.0, 5e4]), np.array([3.0, 700.0]))


SPEC = base.DataSpec('field', ('t2m', 'z500'), 'K', *map(tuple, FIELD))


def fields_of(length, height=20, width=28):
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(length, height, width, 2))
  return (FIELD[0] + FIELD[1] * noise).astype(np.float32)


@pytest.mark.parametrize('tile', [None, (16, 16)])
def test_fields_are_predicted_in_units_of_their_own(tile):
  """A linear motion is the same in any units; nothing is clipped or rounded."""
  system = make(damped)._replace(channels=2, data=SPEC)
  serve = predictor.Predictor(system, VARIABLES, tile=tile, overlap=8)
  clip = fields_of(3)
  got = serve.predict(clip, 3)
  assert got.shape == (3, 20, 28, 2) and got.dtype == np.float32
  a, b = clip[-2:].astype(float)
  for frame in got:
    a, b = b, b + 0.5 * (b - a)
    np.testing.assert_allclose(frame, b, rtol=1e-5)


def test_a_system_of_fields_sees_them_normalised():
  seen = []

  def keep(x, context, key):
    del x, key
    jax.debug.callback(lambda c: seen.append(np.array(c)), context)
    return context[:, -1:]

  system = make(keep, multiple=4)._replace(channels=2, data=SPEC)
  predictor.Predictor(system, VARIABLES).predict(fields_of(2), 1)
  jax.effects_barrier()
  expected = (fields_of(2).astype(float) - FIELD[0]) / FIELD[1]
  np.testing.assert_allclose(seen[0][0], expected, atol=1e-4)


def test_futures_of_fields_vary_in_their_units():
  system = make(noisy, stochastic=True)._replace(channels=2, data=SPEC)
  serve = predictor.Predictor(system, VARIABLES)
  futures = serve.samples(fields_of(2), 1, 3)
  np.testing.assert_array_equal(futures.mean, futures.frames.mean(0))
  np.testing.assert_array_equal(futures.spread, futures.frames.std(0))
  ratio = futures.spread[..., 1].mean() / futures.spread[..., 0].mean()
  assert 200 < ratio < 270  # 700 / 3


@pytest.mark.parametrize(
  'clip, message',
  [
    (clip_of(2, channels=2), 'floating.*got uint8'),
    (list(clip_of(2, channels=2)), 'floating.*got uint8'),
    (np.full((2, 8, 8, 2), np.nan, np.float32), 'not finite'),
  ],
)
def test_what_is_no_field_is_refused(clip, message):
  serve = predictor.Predictor(
    make(damped)._replace(channels=2, data=SPEC), VARIABLES
  )
  with pytest.raises(ValueError, match=message):
    serve.predict(clip, 1)


def test_a_loaded_system_of_fields_is_served_in_their_units(tmp_path):
  """What an export says of its clips goes where its weights go."""
  frames = base.Frames((0, 1), (2, 3))
  settings = {'channels': 2, 'hid_s': 4, 'hid_t': 8, 'n_s': 2, 'n_t': 2}
  system = systems.make('simvp', frames=frames, **settings)
  clip = fields_of(2, 8, 12)
  video = np.zeros((1, 4, 8, 12, 2), np.float32)
  variables = jax.jit(system.init)(jax.random.key(0), video)
  checkpoint.save_system(
    tmp_path / 'a',
    system='simvp',
    settings=settings,
    frames=frames,
    variables=variables,
    data=SPEC,
  )
  given = ((clip - FIELD[0]) / FIELD[1]).astype(np.float32)[None]
  expected = jax.jit(system.predict)(variables, given, jax.random.key(0))[0]
  expected = np.float64(expected) * FIELD[1] + FIELD[0]
  for serve in (
    predictor.Predictor.load(tmp_path / 'a'),
    predictor.Predictor(*checkpoint.load(tmp_path / 'a')),
    predictor.Predictor.load(tmp_path / 'a', max_pixels=4096, dtype='float32'),
  ):
    assert serve.system.data == SPEC
    got = serve.predict(clip, 2)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
  with pytest.raises(ValueError, match='floating.*got uint8'):
    serve.predict(clip_of(2, 8, 12, channels=2), 2)
