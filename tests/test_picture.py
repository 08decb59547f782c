import numpy as np
import pytest
from PIL import Image

from vidpred_jax import picture


def _vectors(*vectors):
  return np.array(vectors, np.float32)[None]


def test_directions_have_the_colours_of_the_benchmark():
  colours = picture.flow_to_rgb(
    _vectors((1, 0), (0, 1), (-1, 0), (0, -1), (0, 0)), 1
  )[0]
  right, down, left, up, still = colours.astype(int)
  np.testing.assert_array_equal(right, (255, 0, 0))
  assert down[0] > 200 and down[1] > 200 and down[2] == 0  # yellow
  assert left[0] == 0 and left[1] > 150 and left[2] == 255  # cyan to blue
  assert up[0] > 80 and up[1] == 0 and up[2] == 255  # violet
  np.testing.assert_array_equal(still, (255, 255, 255))


def test_hue_is_a_property_of_direction_alone():
  angles = np.linspace(0, 2 * np.pi, 97)[:-1]
  unit = np.stack([np.cos(angles), np.sin(angles)], -1)[None]
  full = picture.flow_to_rgb(unit, 1).astype(float)
  half = picture.flow_to_rgb(unit / 2, 1).astype(float)
  # Half the length is half way to white.
  np.testing.assert_allclose(half, (full + 255) / 2, atol=1)
  # Going round, colours change by small steps; the benchmark's wheel has its
  # largest one where magenta closes on red.
  steps = np.abs(full[0] - np.roll(full[0], 1, 0)).max(-1)
  assert steps.max() < 70
  assert len(np.unique(full[0], axis=0)) == 96


def test_scale_defaults_to_the_longest_vector_and_long_ones_darken():
  flow = _vectors((3, 4), (0, 0))
  np.testing.assert_array_equal(
    picture.flow_to_rgb(flow), picture.flow_to_rgb(flow, 5)
  )
  assert picture.largest_magnitude(flow) == pytest.approx(5)
  within = picture.flow_to_rgb(flow, 5)[0, 0].astype(float)
  beyond = picture.flow_to_rgb(flow, 2)[0, 0].astype(float)
  np.testing.assert_allclose(beyond, 0.75 * within, atol=1)


def test_flow_that_is_not_finite_is_black():
  flow = _vectors((np.nan, 1), (np.inf, 0), (1, 0))
  np.testing.assert_array_equal(
    picture.flow_to_rgb(flow)[0], [(0, 0, 0), (0, 0, 0), (255, 0, 0)]
  )


def test_bars_fill_as_much_as_was_used():
  bars = picture.block_bars(np.array([1, 0, 0.5, 1]), 60, 80)
  filled = (bars == np.array([255, 176, 59])).all(-1)
  share = [filled[:, 20 * i : 20 * i + 20].sum() for i in range(4)]
  assert share[1] == 0 and share[0] == share[3]
  assert share[2] == pytest.approx(share[0] / 2, rel=0.05)
  assert bars.shape == (60, 80, 3) and bars.dtype == np.uint8


def test_grid_keeps_every_pixel_of_images_of_different_sizes():
  rng = np.random.default_rng(0)
  large = rng.integers(0, 256, (200, 170, 3), dtype=np.uint8)
  grey = rng.integers(0, 256, (41, 161, 1), dtype=np.uint8)
  image = picture.grid(
    [[large, grey], [None, large]],
    column_titles=['left', 'right'],
    row_labels=['one', 'two\nlines'],
    title='A title',
  )
  assert image.shape[0] % 2 == 0 and image.shape[1] % 2 == 0
  for part in (large, picture.to_rgb(grey)):
    windows = np.lib.stride_tricks.sliding_window_view(
      image, part.shape[:2], axis=(0, 1)
    )
    corner = (image[..., :] == part[0, 0]).all(-1)
    places = [
      (y, x)
      for y, x in np.argwhere(corner)
      if y < windows.shape[0] and x < windows.shape[1]
    ]
    assert any(
      (windows[y, x] == part.transpose(2, 0, 1)).all() for y, x in places
    )


def test_small_images_are_enlarged_by_a_whole_factor():
  image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
  shown = picture.grid([[image]], min_side=64)
  y, x = np.argwhere((shown == image[0, 0]).all(-1))[0]
  np.testing.assert_array_equal(shown[y : y + 64 : 16, x : x + 64 : 16], image)


def test_text_is_drawn():
  image = np.zeros((200, 200, 3), np.uint8)
  plain = picture.grid([[image]])
  titled = picture.grid([[image]], column_titles=['prediction'])
  added = titled[: titled.shape[0] - plain.shape[0]]
  assert (added == 235).all(-1).any()


def test_demo_frames_have_one_even_size_and_a_panel_for_each_array():
  rng = np.random.default_rng(0)
  clip = rng.integers(0, 256, (5, 33, 47, 3), dtype=np.uint8)
  flow = rng.normal(size=(3, 33, 47, 2)).astype(np.float32)
  blocks = np.eye(9)[:3]
  frames = picture.demo_frames(
    clip[:2], clip[2:] / 255, clip[2:], flow=flow, blocks=blocks, title='a'
  )
  assert len(frames) == 3
  assert {f.shape for f in frames} == {frames[0].shape}
  assert all(s % 2 == 0 for s in frames[0].shape[:2])
  fewer = picture.demo_frames(clip[:2], clip[2:])
  assert fewer[0].shape[1] < frames[0].shape[1] / 2
  both = picture.demo_frames(clip[:2], clip[2:], between=True)
  assert both[0].shape[1] > fewer[0].shape[1]
  # Prediction and truth are equal here, so their panels are too.
  enlarged = clip[2].repeat(4, 0).repeat(4, 1)
  corner = (frames[0] == clip[2][0, 0]).all(-1)
  found = [
    (y, x)
    for y, x in np.argwhere(corner)
    if np.array_equal(frames[0][y : y + 132, x : x + 188], enlarged)
  ]
  assert len(found) == 2


def test_frames_of_different_clips_have_the_same_size():
  clip = np.zeros((2, 90, 50, 3), np.uint8)
  flow = np.ones((1, 90, 50, 2))
  sizes = {
    picture.demo_frames(clip[:1], clip[1:], flow=flow * scale)[0].shape
    for scale in (0, 1, 8, 14, 200)
  }
  assert len(sizes) == 1


def test_demo_grid_has_a_row_for_each_clip_and_step():
  clip = np.zeros((5, 64, 96, 1), np.uint8)
  one = dict(context=clip[:2], prediction=clip[2:], title='first')
  single = picture.demo_grid([one])
  four = picture.demo_grid([one, one], steps=(0, -1))
  row = 64 * 2 + 6
  assert four.shape[0] - single.shape[0] == 3 * row
  with pytest.raises(ValueError, match='different panels'):
    picture.demo_grid([one, one | dict(target=clip[2:])])


def test_pictures_beside_each_other_are_padded():
  a, b = np.full((5, 4, 3), 7, np.uint8), np.full((2, 3, 1), 9, np.uint8)
  image = picture.hstack([a, b])
  assert image.shape == (6, 8, 3)
  assert (image[:5, :4] == 7).all() and (image[:2, 4:7] == 9).all()


def test_a_png_keeps_the_image(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
  path = tmp_path / 'new' / 'image.png'
  picture.save_png(path, image)
  np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


@pytest.mark.parametrize(
  'call',
  [
    lambda: picture.to_rgb(np.zeros((4, 4))),
    lambda: picture.to_rgb(np.zeros((4, 4, 4), np.uint8)),
    lambda: picture.to_rgb(np.zeros((4, 4, 3), np.int32)),
    lambda: picture.flow_to_rgb(np.zeros((4, 4, 3))),
    lambda: picture.grid([]),
    lambda: picture.grid([[np.zeros((4, 4, 3))]], column_titles=['a', 'b']),
    lambda: picture.demo_frames(
      np.zeros((2, 4, 4, 3)), np.zeros((3, 4, 4, 3)), np.zeros((2, 4, 4, 3))
    ),
  ],
)
def test_what_cannot_be_shown_is_refused(call):
  with pytest.raises(ValueError, match='got|Got|has'):
    call()


def test_heat_goes_from_black_over_red_and_yellow_to_white():
  colours = picture.heatmap(np.array([[0, 1, 2, 3, 9, -1]]), 3)[0]
  expected = [(0,) * 3, (255, 0, 0), (255, 255, 0), (255,) * 3]
  np.testing.assert_array_equal(colours, [*expected, (255,) * 3, (0,) * 3])
  ramp = picture.heatmap(np.linspace(0, 1, 50)[None], 1)[0].astype(int).sum(-1)
  assert (np.diff(ramp) > 0).all()
  with pytest.raises(ValueError, match=r'shape \(2, 2, 3\) and 1'):
    picture.heatmap(np.zeros((2, 2, 3)), 1)


def test_a_histogram_has_a_bar_for_each_rank():
  bars = picture.histogram([0.5, 0.25, 0, 0.25], height=100, width=80)
  filled = (bars == np.array([255, 176, 59])).all(-1)
  heights = [filled[:, 20 * i + 8].sum() for i in range(4)]
  assert heights[2] <= 1 and abs(heights[0] - 2 * heights[1]) <= 3
  assert heights[1] == heights[3] > 30
  line = (bars == np.array([235, 235, 235])).all(-1)
  assert line.all(1).sum() == 1
