"""`predict.windows`: frames between frames only where the film moves."""

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from tests.predict.toys import (
  HALF,
  VARIABLES,
  F,
  between,
  blend,
  clip_of,
  make,
  write,
)
from vidpred_jax import predict
from vidpred_jax.predict import engine, predictor, windows
from vidpred_jax.systems import base

SIZE = 160, 240
AROUND = F((0, 2, 4, 6), (3,))


def inverse(frames=HALF, **facts):
  """A system whose frames are unlike any mean, and depend on what it sees."""

  def inverted(x, context, key):
    del x, key
    level = context.mean((1, 2, 3, 4), keepdims=True)
    shown = 1 - context[:, :1] * level
    return jnp.repeat(shown, len(frames.target), 1)

  return make(inverted, frames)._replace(**facts)


def still(length, places=(), side=12, size=SIZE):
  """A film that stands still but for squares, each on a path of places."""
  film = np.repeat(clip_of(1, *size), length, 0)
  for path in places:
    for frame, (top, left) in zip(film, path):
      frame[top : top + side, left : left + side] = 255 - frame[0, 0]
  return film


def walk(top, left, length, down=0, right=6):
  return [(top + down * n, left + right * n) for n in range(length)]


def ladder(size=SIZE, multiple=8):
  return windows.ladder(*size, multiple=multiple, fits=lambda *size: True)


def covered(before, after, given=None):
  given = given or ladder(before.shape[:2])
  return windows.cover(windows.moving(before, after), given.sizes, given)


@pytest.fixture
def at_once(monkeypatch):
  """Every size is in use from the beginning."""
  monkeypatch.setattr(windows, 'COMPILED', 0)


@pytest.fixture
def calls(monkeypatch):
  """The sizes that the engine is called with."""
  sizes, inner = [], engine.Engine.predict

  def seen(self, states, size, *args, **kwargs):
    sizes.append(tuple(size))
    return inner(self, states, size, *args, **kwargs)

  monkeypatch.setattr(engine.Engine, 'predict', seen)
  return sizes


def shown(system, film, **settings):
  serve = predictor.Predictor(system, VARIABLES, cut=-1, **settings)
  return np.stack(list(serve.interpolate(film)))


# ------------------------------------------------------------------ the plan


@pytest.mark.parametrize(
  'size', [(360, 640), (1080, 1920), (720, 404), (2160, 3840)]
)
def test_sizes_are_parts_in_the_aspect_of_the_frame_and_strips(size):
  sizes = set(ladder(size, multiple=1).sizes)
  longer = int(np.argmax(size))
  strips = {x for x in sizes if x[1 - longer] == size[1 - longer]}
  assert len(sizes) == 5 and len(strips) == 2
  for found, parts in (sizes - strips, (16, 8, 4)), (strips, (4, 2)):
    for window, part in zip(sorted(found), parts):
      assert 1 <= math.prod(window) / math.prod(size) * part < 1.35
  for window in sizes - strips:
    assert all(side % 8 == 0 for side in window)
    assert abs(window[0] / window[1] * size[1] / size[0] - 1) < 0.1
  areas = list(map(math.prod, ladder(size, multiple=1).sizes))
  assert areas == sorted(areas)


def test_sizes_suit_the_system():
  given = ladder((999, 777), 32)
  assert all(x % 32 == 0 or x in given.frame for y in given.sizes for x in y)
  assert ladder((48, 64)).sizes == ()
  small = windows.ladder(*SIZE, multiple=8, fits=lambda h, w: h * w < 8000)
  assert small.sizes == ((64, 88),)


def test_blocks_that_move():
  film = np.full((2, 10, 14, 3), 100, np.uint8)
  assert not windows.moving(*film).any()
  film[1, :4, :4] += 12  # three times the threshold: as noise may
  assert not windows.moving(*film).any()
  film[1, 0, 0] += 1
  assert np.argwhere(windows.moving(*film)).tolist() == [[0, 0]]
  film[1] = film[0]
  film[1, 4:, 3:] -= 5  # beyond the last whole block, too
  expected = np.zeros((3, 4), bool)
  expected[1:, 1:] = True
  np.testing.assert_array_equal(windows.moving(*film), expected)


@pytest.mark.parametrize('seed', range(20))
def test_windows_hold_all_that_moves(seed):
  rng = np.random.default_rng(seed)
  size = (int(rng.integers(200, 400)), int(rng.integers(200, 400)))
  given = ladder(size, multiple=1)
  blocks = np.zeros([math.ceil(side / 4) for side in size], bool)
  for _ in range(rng.integers(1, 5)):
    top, left = (rng.integers(0, side - 6) for side in blocks.shape)
    blocks[top : top + rng.integers(1, 7), left : left + rng.integers(1, 7)] = 1
  places = windows.cover(blocks, given.sizes, given)
  if places is None:
    return
  assert windows.pixels(places, given) <= 0.9 * math.prod(size)
  held = np.zeros(size, bool)
  for window in places:
    inner = []
    for start, side, whole in zip(window[:2], window.size, size):
      assert start >= 0 and start + side <= whole
      assert start % 8 == 0 or start + side == whole
      first = start + given.margin if start else 0
      end = start + side
      inner.append(slice(first, end - given.margin if end < whole else end))
    held[tuple(inner)] = True
  moves = np.kron(blocks, np.ones((4, 4), bool))[: size[0], : size[1]]
  assert not (moves & ~held).any()


def test_the_random_places_were_mostly_covered():
  """So that the test before is about something."""
  given, found = ladder((300, 300)), 0
  for seed in range(20):
    blocks = np.zeros((75, 75), bool)
    top, left = np.random.default_rng(seed).integers(0, 70, 2)
    blocks[top : top + 5, left : left + 5] = True
    places = windows.cover(blocks, given.sizes, given)
    found += len(places) == 1 and places[0].size == given.sizes[0]
  assert found == 20


def test_what_moves_far_apart_has_a_window_each():
  paths = walk(20, 20, 2), walk(120, 200, 2)
  film = still(2, paths)
  places = covered(*film)
  assert len(places) == 2
  assert {window.size for window in places} == {ladder().sizes[0]}
  apart = [covered(*still(2, [path])) for path in paths]
  assert sorted(places) == sorted(window for (window,) in apart)


@pytest.mark.parametrize('gap, count', [(8, 1), (16, 2)])
def test_what_is_near_may_be_one_thing_and_is_not_cut(gap, count):
  """In a frame where two small windows are less than one that holds both."""
  film = np.full((2, 400, 1600, 3), 100, np.uint8)
  for left in (400 - 176, 400 + gap):
    film[1, 40:200, left : left + 176] = 200
  sizes = (264, 280), (400, 800)
  given = windows.Ladder((400, 1600), sizes, 24)
  assert len(covered(*film, given)) == count


def test_a_window_has_what_moves_in_its_middle():
  (window,) = covered(*still(2, [[(72, 112), (76, 116)]]))
  height, width = window.size
  assert abs(window.top + height / 2 - 80) <= 8
  assert abs(window.left + width / 2 - 120) <= 8


@pytest.mark.parametrize('top', [0, 148])
@pytest.mark.parametrize('left', [0, 228])
def test_a_corner(top, left, at_once):
  film = still(2)
  film[1, top : top + 12, left : left + 12] = 255
  (window,) = covered(*film)
  assert window.top == (top and SIZE[0] - window.size[0])
  assert window.left == (left and SIZE[1] - window.size[1])
  corner = np.s_[(top and -1), (left and -1)]
  made = shown(inverse(), film)[1]
  alone = shown(inverse(), film[(slice(None), *window.place)], whole=True)[1]
  np.testing.assert_array_equal(made[corner], alone[corner])


def test_much_or_everything_that_moves_takes_the_whole_frame():
  film = still(2)
  film[1] = 255 - film[0]
  assert covered(*film) is None
  spread = still(2)
  spread[1, ::40] ^= 255
  assert covered(*spread) is None


def intervals(film, count=1):
  """What is chosen for each interval of a film."""
  spared, chosen = {}, []
  for before, after in zip(film, film[1:]):
    places, spared = windows.choose(spared, ladder(), before, after, count)
    chosen.append(places and {window.size for window in places})
  return chosen


def test_a_size_is_used_when_it_would_have_spared_a_compilation(monkeypatch):
  small, *_, large = ladder().sizes
  frame = math.prod(SIZE)
  monkeypatch.setattr(windows, 'COMPILED', 3 * (frame - math.prod(small)))
  film = still(8, [walk(60, 60, 8)])
  assert intervals(film) == 3 * [None] + 4 * [{small}]
  assert intervals(film, 3) == [None] + 6 * [{small}]
  # Until a smaller one is in use, a larger one serves.
  spared = {(large, 1): windows.COMPILED}
  places, after = windows.choose(spared, ladder(), film[0], film[1], 1)
  assert [window.size for window in places] == [large]
  assert after == {**spared, (small, 1): math.prod(large) - math.prod(small)}
  # Sizes in use for two new frames are not for one: these are programs, too.
  spared = {(small, 2): windows.COMPILED}
  assert windows.choose(spared, ladder(), film[0], film[1], 1)[0] is None


def test_weights_begin_within_the_margin():
  window = windows.Window(0, 20, (40, 88))
  frame = np.zeros((40, 240, 1), np.uint8)
  windows.paste(frame, np.full((40, 88, 1), 200, np.uint8), window, 24)
  assert (frame == frame[:1]).all()
  row = frame[0, :, 0].astype(int)
  assert not row[:26].any() and not row[102:].any()
  assert (row[38:90] == 200).all()
  assert (np.diff(row[20:40]) >= 0).all() and np.abs(np.diff(row)).max() <= 18


# ----------------------------------------------------------------- the frames


@pytest.mark.parametrize('frames', [HALF, AROUND, AROUND.divided(4)])
@pytest.mark.parametrize('ahead', [0, 3])
def test_windows_are_the_system_on_them_and_the_mean_around(
  frames, ahead, at_once
):
  film = still(4, [walk(72, 90, 4)])
  film[:, 20:40, 20:40] = 100 + np.arange(4)[:, None, None, None]
  serve = predictor.Predictor(inverse(frames), VARIABLES, cut=-1)
  parts = len(frames.target) + 1
  made = np.stack(list(serve.interpolate(film, ahead=ahead)))
  np.testing.assert_array_equal(made[::parts], film)
  for n, (before, after) in enumerate(zip(film, film[1:])):
    (window,) = covered(before, after)
    crop = film[(slice(None), *window.place)]
    alone = shown(inverse(frames), crop, whole=True)
    around = np.ones(SIZE, bool)
    around[window.place] = False
    core = tuple(slice(s.start + 18, s.stop - 18) for s in window.place)
    for k in range(1, parts):
      got = made[n * parts + k]
      whole = np.zeros_like(got)
      whole[window.place] = alone[n * parts + k]
      np.testing.assert_array_equal(got[core], whole[core])
      mean = before + (after.astype(float) - before) * k / parts
      assert np.abs(got - mean)[around].max() <= 0.51
      assert np.abs(got - mean)[core].max() > 20


@pytest.mark.parametrize('frames', [HALF, AROUND])
def test_a_film_that_moves_everywhere_is_computed_as_a_whole(
  frames, calls, at_once
):
  film = clip_of(5, *SIZE)
  made = shown(inverse(frames), film)
  assert calls == 4 * [SIZE]
  expected = shown(inverse(frames), film, whole=True)
  np.testing.assert_array_equal(made, expected)


def test_whole_computes_everything(calls, at_once):
  film = still(3, [walk(72, 90, 3)])
  shown(inverse(), film, whole=True)
  assert calls == 2 * [SIZE]
  shown(inverse(), film)
  assert calls[2:] == 2 * [ladder().sizes[0]]


def test_a_file_is_restored_in_windows_or_as_a_whole(tmp_path, calls, at_once):
  film = still(3, [walk(72, 90, 3)])
  source = write(tmp_path / 'in', film)
  for whole, size in (True, SIZE), (False, ladder().sizes[0]):
    predict.predict_video(
      between, source, tmp_path / f'{whole}', factor=2, cut=-1, whole=whole
    )
    assert calls == 2 * [size]
    calls.clear()


def test_where_nothing_moves_the_system_is_not_called(calls):
  film = np.stack([np.full((9, 13, 3), 100 + n, np.uint8) for n in (0, 4, 7)])
  made = shown(inverse(AROUND.divided(4)), film)
  assert not calls
  expected = [100, 101, 102, 103, 104, 104.75, 105.5, 106.25, 107]
  assert np.abs(made[:, 0, 0, 0] - np.array(expected)).max() <= 0.5
  assert (made == made[:, :1, :1, :1]).all()


def test_a_still_film_of_other_channels_is_refused():
  serve = predictor.Predictor(inverse(), VARIABLES)
  for channels in (1, 4):
    film = still(3)[..., :1].repeat(channels, -1)
    with pytest.raises(ValueError, match=f'have {channels} channels'):
      list(serve.interpolate(film))


def test_a_flash_in_a_still_film_takes_the_whole_frame(calls, at_once):
  film = still(5, [walk(72, 90, 5)])
  film[2] = film[2] // 2 + 127
  made = shown(inverse(), film)
  small = ladder().sizes[0]
  assert calls == [small, SIZE, SIZE, small]
  whole = shown(inverse(), film, whole=True)
  np.testing.assert_array_equal(made[3:6], whole[3:6])


def test_a_film_is_resampled_in_windows(calls, at_once):
  film = still(4, [walk(72, 90, 4)])
  serve = predictor.Predictor(inverse(AROUND.divided(5)), VARIABLES, cut=-1)
  times = np.arange(4) / 24
  made = list(serve.resample(zip(times, film), 60))
  assert len(made) == 10
  assert set(calls) == {ladder().sizes[0]}
  interpolated = list(serve.interpolate(film))
  for n in range(8):
    np.testing.assert_array_equal(made[n], interpolated[2 * n])


@pytest.mark.parametrize('often', [2, 3])
def test_a_frame_that_is_shown_more_than_once_stays_the_same(
  often, calls, at_once
):
  film = still(3, [walk(72, 90, 3)])
  serve = predictor.Predictor(inverse(), VARIABLES, cut=-1)
  times = [Fraction(n, 24) for n in range(3)]
  made = list(serve.resample(zip(times, film), 24 * 2 * often))
  interpolated = list(serve.interpolate(film))
  for frame in made:
    same = [np.array_equal(frame, other) for other in interpolated]
    assert any(same)
  assert len(made) == 3 * 2 * often


@pytest.mark.parametrize(
  'facts',
  [
    dict(stochastic=True),
    dict(clip_size=lambda variables: SIZE),
    dict(data=base.DataSpec('field', ('a',) * 3, '', (0.0,) * 3, (1.0,) * 3)),
  ],
)
def test_systems_that_see_the_whole_picture_keep_it(facts, calls, at_once):
  film = still(3, [walk(72, 90, 3)])
  if 'data' in facts:
    film = film.astype(np.float32)
  shown(inverse(**facts), film)
  assert calls == 2 * [SIZE]


def test_diagnostics_are_of_whole_frames(calls, at_once):
  def diagnostics(variables, context, key):
    return system.predict(variables, context, key), {'mask': context[:, :1]}

  system = inverse()._replace(diagnostics=diagnostics)
  film = still(3, [walk(72, 90, 3)])
  serve = predictor.Predictor(system, VARIABLES, cut=-1)
  shots = list(serve.interpolate(film, with_diagnostics=True))
  assert calls == 2 * [SIZE]
  assert shots[1][1]['mask'].shape[:2] == SIZE


def test_of_a_frame_in_tiles_windows_of_one_tile_are_used(calls, at_once):
  film = still(4, [walk(72, 90, 4)])
  film[3] = 255 - film[2]
  settings = dict(max_pixels=8000, overlap=16)
  made = shown(inverse(), film, **settings)
  small = ladder().sizes[0]
  assert math.prod(small) <= 8000 < math.prod(ladder().sizes[1])
  assert calls == [small, small, SIZE]
  np.testing.assert_array_equal(made[:5], shown(inverse(), film[:3]))
  whole = shown(inverse(), film, whole=True, **settings)
  np.testing.assert_array_equal(made[5], whole[5])


def test_a_mean_is_the_mean():
  film = clip_of(2)
  for share in (0.25, 0.5, 1 / 3):
    mean = windows.mixed(*film, share)
    expected = film[0] * (1 - share) + film[1] * share
    assert np.abs(mean - expected).max() <= 0.501
  system = blend(HALF)
  np.testing.assert_allclose(
    windows.mixed(*film, 0.5), shown(system, film, whole=True)[1], atol=1
  )
