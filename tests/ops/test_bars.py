import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.ops import bars

fill = jax.jit(bars.fill)

H, W = 24, 32


def frames(batch=1):
  return np.random.default_rng(0).uniform(size=(batch, 2, H, W, 3))


@pytest.mark.parametrize(
  'rows, columns',
  [
    (slice(4, -3), slice(None)),
    (slice(None), slice(0, -2)),
    (slice(5, -5), slice(6, -1)),
  ],
  ids=['above and below', 'at the right', 'around'],
)
@pytest.mark.parametrize('colour', [0.0, (0.06, 0.06, 0.08)])
def test_the_picture_goes_on_over_its_bars(rows, columns, colour):
  video = frames()
  barred = np.broadcast_to(np.float32(colour), video.shape).copy()
  barred[:, :, rows, columns] = video[:, :, rows, columns]
  filled, inside = fill(jnp.asarray(barred, jnp.float32))
  # The line beside a bar belongs to it.
  expected = np.zeros((H, W), bool)
  edges = [
    (s.start and s.start + 1, s.stop and s.stop - 1) for s in (rows, columns)
  ]
  expected[slice(*edges[0]), slice(*edges[1])] = True
  np.testing.assert_array_equal(inside[0, ..., 0], expected)
  at = [
    np.arange(n).clip(k[0] or 0, n - 1 + (k[1] or 0))
    for n, k in zip((H, W), edges)
  ]
  wanted = video[:, :, at[0]][:, :, :, at[1]]
  np.testing.assert_allclose(filled, wanted, atol=1e-6)


def test_each_clip_has_its_own_and_noise_of_coding_is_no_picture():
  video = frames(3)
  video[1, :, :, :3] = 0.05 + 0.002 * video[1, :, :, :3]
  video[2, 1, :2] = 0  # only in the second frame
  filled, inside = fill(jnp.asarray(video, jnp.float32))
  np.testing.assert_array_equal(np.asarray(inside)[[0, 2]], True)
  np.testing.assert_allclose(filled[0], video[0], atol=1e-6)
  assert not inside[1, :, :4].any() and inside[1, :, 4:].all()


@pytest.mark.parametrize('shape', [(1, 2, 8, 8, 3), (1, 2, 1, 1, 3)])
def test_nothing_but_bars_is_all_picture(shape):
  flat = jnp.full(shape, 0.5)
  filled, inside = fill(flat)
  np.testing.assert_array_equal(filled, flat)
  np.testing.assert_array_equal(inside, True)


def test_a_moving_flat_edge_is_picture():
  video = frames()
  video[:, 0, :3], video[:, 1, :3] = 0.2, 0.3
  _, inside = fill(jnp.asarray(video, jnp.float32))
  np.testing.assert_array_equal(inside, True)


@pytest.mark.parametrize('ground', [0.0, 0.05, 0.7])
def test_a_plain_ground_is_no_bar(ground):
  """Things move into it."""
  video = np.full((1, 2, H, W, 3), ground)
  video[:, 0, 8:18, 6:16] = frames()[:, 0, 8:18, 6:16]
  video[:, 1, 8:18, 9:19] = video[:, 0, 8:18, 6:16]
  filled, inside = fill(jnp.asarray(video, jnp.float32))
  np.testing.assert_allclose(filled, video, atol=1e-6)
  np.testing.assert_array_equal(inside, True)


def test_a_bright_edge_is_picture():
  video = frames()
  video[:, :, :6] = 0.8
  _, inside = fill(jnp.asarray(video, jnp.float32))
  np.testing.assert_array_equal(inside, True)
