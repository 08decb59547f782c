import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vidpred_jax.ops import variational, warp

# Compiled once for all times of a size.
optical_flow = jax.jit(variational.optical_flow, static_argnames='thorough')


def texture(size=(64, 80), seed=0):
  """A smooth periodic texture [H, W, 3] in [0, 1]."""
  noise = np.random.default_rng(seed).normal(size=(*size, 3))
  smooth = ndimage.gaussian_filter(noise, (3, 3, 0), mode='wrap')
  return (0.5 + 0.15 * smooth / smooth.std()).clip(0, 1)


def moved(image, dx, dy):
  """The image moved to the right and downwards, [1, H, W, 3]."""
  image = ndimage.shift(image, (dy, dx, 0), order=3, mode='grid-wrap')
  return jnp.asarray(image[None], jnp.float32)


@pytest.mark.parametrize('time', [0.0, 0.5, 1.0, -1.0])
@pytest.mark.parametrize('dx, dy', [(3.4, -2.2), (-9.0, 4.5)])
def test_motion_is_found_at_any_time(time, dx, dy):
  image = texture()
  first, second = moved(image, 0, 0), moved(image, dx, dy)
  flow = optical_flow(first, second, time=time)
  inner = np.asarray(flow)[0, 16:-16, 20:-20]
  error = np.linalg.norm(inner - np.float32([dx, dy]), axis=-1)
  assert error.mean() < 0.1
  read = warp.backward(first, -time * flow)[0, 16:-16, 20:-20]
  truth = moved(image, time * dx, time * dy)[0, 16:-16, 20:-20]
  assert np.abs(read - truth).mean() < 0.01


def test_motion_of_one_part_ends_at_its_border():
  image = texture((64, 96))
  still = np.array(image)
  other = ndimage.shift(image, (0, 4, 0), order=1, mode='grid-wrap')
  other[:, :48] = still[:, :48]
  flow = optical_flow(*jnp.asarray([still, other])[:, None])[0]
  assert np.abs(flow[8:-8, 8:36]).mean() < 0.2
  np.testing.assert_allclose(flow[8:-8, 60:86, 0].mean(), 4, atol=0.3)


@pytest.mark.parametrize(
  'lit', [lambda x: x + 0.1, lambda x: 0.8 * x], ids=['lighter', 'darker']
)
def test_a_change_of_light_is_not_motion(lit):
  first, second = moved(texture(), 0, 0), moved(texture(), 2, 1)
  flow = optical_flow(first, lit(second))[0, 16:-16, 20:-20]
  np.testing.assert_allclose(flow.mean((0, 1)), (2, 1), atol=0.15)


def test_each_clip_of_a_batch_is_by_itself():
  a, b = moved(texture(seed=1), 0, 0), moved(texture(seed=2), 0, 0)
  first, second = jnp.concatenate([a, b]), jnp.concatenate([b, a])
  both = optical_flow(first, second)
  alone = optical_flow(a, b)
  np.testing.assert_allclose(both[:1], alone, atol=1e-3)


@pytest.mark.parametrize('size', [(33, 51), (8, 200), (1, 1)])
def test_any_size_and_nothing_to_see(size):
  flat = jnp.full((1, *size, 3), 0.3)
  flow = optical_flow(flat, flat)
  assert flow.shape == (1, *size, 2)
  np.testing.assert_array_equal(flow, 0)


def test_it_has_no_gradient():
  first, second = moved(texture(), 0, 0), moved(texture(), 1, 0)

  def total(first, second):
    return jnp.sum(optical_flow(first, second))

  for gradient in jax.grad(total, (0, 1))(first, second):
    np.testing.assert_array_equal(gradient, 0)


def test_each_pair_may_have_its_own_time():
  first, second = moved(texture(), 0, 0), moved(texture(), 3, 0)
  pair = [jnp.concatenate([x, x]) for x in (first, second)]
  both = optical_flow(*pair, time=jnp.array([0.5, -1.0]))
  for flow, time in zip(both, (0.5, -1.0)):
    alone = optical_flow(first, second, time=time)[0]
    np.testing.assert_allclose(flow, alone, atol=1e-4)
  assert np.abs(both[0] - both[1]).max() > 0.01


@pytest.mark.parametrize('time', [0.5, -1.0])
def test_what_is_written_over_a_moving_picture_stands_still(time):
  frames = [np.array(moved(texture(), dx, 0)[0]) for dx in (0, 6)]
  strokes = np.random.default_rng(1).uniform(size=(4, 8)) < 0.5
  letters = np.zeros((64, 80), bool)
  letters[26:42, 26:58] = np.kron(strokes, np.ones((4, 4)))
  for frame in frames:
    frame[letters] = 1
  flow = optical_flow(*jnp.asarray(frames)[:, None], time=time)[0]
  assert np.mean(np.linalg.norm(flow[letters], axis=-1) < 0.5) > 0.7
  np.testing.assert_allclose(flow[50:, 20:-20, 0].mean(), 6, atol=0.2)


@pytest.mark.parametrize('time', [0.0, 0.5])
def test_what_is_small_and_fast_is_found_by_being_thorough(time):
  ground = texture((160, 256))
  cells = np.random.default_rng(4).uniform(size=(4, 4, 1))
  thing = np.kron(cells, np.ones((16, 16, 3)))
  frames = []
  for t in range(2):
    frame = ndimage.shift(ground, (0, -2 * t, 0), order=1, mode='grid-wrap')
    frame[48:112, 60 + 32 * t : 124 + 32 * t] = thing
    frames.append(frame)
  pair = jnp.asarray(np.stack(frames), jnp.float32)[:, None]
  left = int(60 + 32 * time)
  few, many = (
    optical_flow(*pair, time=time, thorough=thorough)
    for thorough in (False, True)
  )
  few, many = (
    x[0, 64:96, left + 16 : left + 48, 0].mean() for x in (few, many)
  )
  assert few < 16
  np.testing.assert_allclose(many, 32, atol=1)
