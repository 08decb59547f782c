import numpy as np
import pytest

from vidpred_jax.predict import tiling


@pytest.mark.parametrize('size', [(1080, 1920), (2160, 3840), (999, 401)])
@pytest.mark.parametrize('max_pixels', [1 << 21, 200_000, 60_000])
def test_tiles_cover_the_frame_within_the_budget(size, max_pixels):
  tiles = tiling.plan(*size, multiple=16, max_pixels=max_pixels, overlap=32)
  assert tiles.height * tiles.width <= max_pixels
  assert tiles.height % 16 == tiles.width % 16 == 0
  for side, tile, starts in (
    (size[0], tiles.height, tiles.rows),
    (size[1], tiles.width, tiles.columns),
  ):
    assert starts[0] == 0
    assert starts[-1] + tile >= side
    if len(starts) > 1:
      assert starts[-1] + tile == side
      assert max(np.diff(starts)) <= tile - 32


def test_frames_within_the_budget_are_one_padded_tile():
  tiles = tiling.plan(1080, 1920, multiple=16)
  assert tiles == tiling.Tiles(1088, 1920, (0,), (0,))
  assert tiles.single


def test_as_few_tiles_as_possible():
  tiles = tiling.plan(2160, 3840, multiple=16)
  # 8.3 megapixels in tiles of 2.1: four would leave no room for an overlap.
  assert len(tiles.rows) * len(tiles.columns) in (5, 6)


def test_a_given_tile_is_used():
  tiles = tiling.plan(100, 300, multiple=8, tile=(64, 128), overlap=16)
  assert (tiles.height, tiles.width) == (64, 128)
  assert tiles.rows == (0, 36)
  assert tiles.columns == (0, 86, 172)


@pytest.mark.parametrize('overlap', [0, 10, 32])
def test_weights_sum_to_one_everywhere(overlap):
  size = 150, 333
  tiles = tiling.plan(*size, multiple=8, tile=(64, 120), overlap=overlap)
  total = np.zeros((*size, 1))
  placements = tiling.placements(size, tiles, overlap)
  for placement in placements:
    assert placement.weight.min() >= 0
    total[placement.place] += placement.weight
  np.testing.assert_allclose(total, 1, atol=1e-6)
  assert sum(p.fraction for p in placements) == pytest.approx(1)


def test_the_outer_quarter_of_an_overlap_is_not_used():
  size = 64, 240
  tiles = tiling.plan(*size, multiple=8, tile=(64, 128), overlap=16)
  left, right = tiling.placements(size, tiles, 16)
  assert (left.weight[:, -4:] == 0).all() and (right.weight[:, :4] == 0).all()
  assert (left.weight[:, :4] == 1).all() and (right.weight[:, -4:] == 1).all()


def test_cutting_and_adding_gives_the_frame_back():
  size = 75, 131
  frame = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
  tiles = tiling.plan(*size, multiple=16, tile=(48, 64), overlap=12)
  total = uses = None
  for placement in tiling.placements(size, tiles, 12):
    part = tiling.pad(frame[placement.place], tiles)
    total = tiling.add(total, part, placement, tiles, size)
    uses = tiling.add(uses, np.array([1, 0, 1]), placement, tiles, size)
  np.testing.assert_allclose(total, frame, atol=1e-6)
  np.testing.assert_allclose(uses, [1, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
  'settings',
  [
    dict(tile=(60, 64), overlap=16),
    dict(tile=(16, 16), overlap=16),
    dict(max_pixels=100, overlap=16),
  ],
)
def test_impossible_tiles_are_refused(settings):
  with pytest.raises(ValueError, match='Got'):
    tiling.plan(300, 300, multiple=8, **settings)
