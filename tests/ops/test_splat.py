import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.arrays import flow_of
from vidpred_jax.ops import routing, splat

splatted = jax.jit(splat.splat)
forward = jax.jit(splat.forward, static_argnames='mode')
listing = jax.jit(splat.bin_by_patch, static_argnums=1)


@pytest.fixture
def image():
  return jax.random.uniform(jax.random.key(0), (2, 12, 17, 3))


def random_flow(image, size=4.0):
  return size * jax.random.normal(jax.random.key(1), (*image.shape[:3], 2))


def by_definition(values, flow):
  """Pixel by pixel, float64."""
  values, flow = np.asarray(values, np.float64), np.asarray(flow, np.float64)
  out = np.zeros_like(values)
  batch, height, width, _ = values.shape
  for b, y, x in np.ndindex(batch, height, width):
    to_x, to_y = x + flow[b, y, x, 0], y + flow[b, y, x, 1]
    for i in (int(np.floor(to_y)), int(np.floor(to_y)) + 1):
      for j in (int(np.floor(to_x)), int(np.floor(to_x)) + 1):
        if 0 <= i < height and 0 <= j < width:
          share = (1 - abs(to_x - j)) * (1 - abs(to_y - i))
          out[b, i, j] += share * values[b, y, x]
  return out


@pytest.mark.parametrize(
  'dx, dy', [(0, 0), (3, 0), (0, -2), (-4, 5), (100, -100)]
)
def test_whole_flow_is_a_shift_that_leaves_holes(image, dx, dy):
  out = np.zeros_like(image)
  for y in range(12):
    for x in range(17):
      if 0 <= y + dy < 12 and 0 <= x + dx < 17:
        out[:, y + dy, x + dx] = image[:, y, x]
  np.testing.assert_array_equal(splatted(image, flow_of(dx, dy, image)), out)
  moved, weight = forward(image, flow_of(dx, dy, image))
  np.testing.assert_array_equal(moved, out)
  np.testing.assert_array_equal(weight[..., 0] != 0, out.any(-1))


def test_agrees_with_its_definition(image):
  flow = random_flow(image)
  np.testing.assert_allclose(
    splatted(image, flow), by_definition(image, flow), atol=1e-5
  )


@pytest.mark.parametrize('channels', [1, 3, 4, 12, 17, 38])
def test_forms_for_other_platforms_agree(channels):
  """Of two images of 2x3, several pixels to one place, some to the margins."""
  keys = jax.random.split(jax.random.key(3), 3)
  values = jax.random.normal(keys[0], (2, 2, 3, channels))
  shares = jax.random.uniform(keys[1], (2, 12))
  index = jax.random.randint(keys[2], (12,), 0, 60 - 7)
  assert len(set(index.tolist())) < 12
  given = values, index, *shares
  ours = splat._scatter_add_loop(*given)
  np.testing.assert_allclose(ours, splat._scatter_add(*given), atol=1e-6)
  assert ours.any()


def test_with_64_bits(image):
  flow = random_flow(image)
  with jax.enable_x64(True):
    image = np.asarray(image, np.float64)
    out = splatted(image, np.asarray(flow))
    total = jax.jit(jax.grad(lambda x: splat.splat(x, flow).sum()))
    assert total(image).any()
  np.testing.assert_allclose(out, splatted(image, flow), atol=1e-6)


def listed(bins, patch):
  """The pixels in the list of a patch."""
  pixels, entry = [], int(bins.head[patch])
  while entry >= 0:
    pixels.append(entry // 4)
    entry = int(bins.next[entry])
  return pixels


@pytest.mark.parametrize(
  'size, patch, channels',
  [((12, 17), 8, 4), ((12, 17), 5, 28), ((3, 4), 8, 21), ((5, 4), 1, 3)],
)
def test_some_patches_are_those_of_the_whole(size, patch, channels):
  """Of three images per sample, some pixels of which have nowhere to go."""
  keys = jax.random.split(jax.random.key(4), 2)
  values = jax.random.normal(keys[0], (2, 3, *size, channels))
  flow = np.array(3 * jax.random.normal(keys[1], (2, 3, *size, 2)))
  flow[0, 0, 0], flow[1, 2, :, 0], flow[0, 1, 1] = np.nan, 1e30, -np.inf
  bins = listing(flow, patch)
  count = len(bins.shifts)
  at = np.array([count - 1, 0, count // 2, 0])
  some = jax.jit(splat.splat_patches, static_argnums=2)(values, bins, patch, at)
  assert some.shape == (4, patch, patch, 3, channels)

  def to_patches(x):
    concat_pair = np.moveaxis(x, 1, 3).reshape(2, *size, -1)
    patches = np.asarray(routing.to_patches(concat_pair, patch))
    return patches[at].reshape(some.shape)

  flat = lambda x: x.reshape(6, *x.shape[2:])  # noqa: E731
  whole = splatted(flat(values), flat(flow)).reshape(values.shape)
  inside = to_patches(np.ones_like(values))
  np.testing.assert_allclose(some * inside, to_patches(whole), atol=1e-5)
  for i in range(count):
    pixels = listed(bins, i)
    assert sorted(set(pixels)) == pixels


def test_pixels_are_listed_where_they_arrive():
  """Two rows of two patches; pixel 9 to where four meet, a row out of them."""
  flow = np.zeros((1, 1, 8, 8, 2), np.float32)
  flow[0, 0, 1, 1], flow[0, 0, 0, 0], flow[0, 0, 5] = 2.5, (4, 0), 99
  bins = listing(flow, 4)
  lists = [listed(bins, i) for i in range(4)]
  assert [9 in x for x in lists] == [True, True, True, True]
  assert [0 in x for x in lists] == [False, True, False, False]
  assert not any(40 + i in x for x in lists for i in range(8))


def test_no_colour_is_lost_or_made_within_the_image(image):
  """What stays inside keeps its sum, whatever the flow."""
  wide = jnp.pad(image, ((0, 0), (9, 9), (9, 9), (0, 0)))
  flow = jnp.clip(random_flow(wide), -8, 8)
  np.testing.assert_allclose(
    splatted(wide, flow).sum((1, 2)), image.sum((1, 2)), rtol=1e-5
  )


def test_gradient_is_that_of_the_definition(image):
  image = image[:1, :5, :6]
  flow = random_flow(image, 2.0)
  cotangent = jax.random.normal(jax.random.key(2), image.shape)
  _, pull = jax.vjp(splatted, image, flow)
  of_values, of_flow = pull(cotangent)

  def total(values, flow):
    return np.sum(by_definition(values, flow) * np.asarray(cotangent))

  for given, of in ((0, of_values), (1, of_flow)):
    for at in [(0, 0, 0, 0), (0, 2, 3, 1), (0, 4, 5, 1), (0, 1, 4, 0)]:
      sides = []
      for step in (-1e-4, 1e-4):
        arguments = [np.asarray(image, np.float64), np.asarray(flow, float)]
        arguments[given][at] += step
        sides.append(total(*arguments))
      slope = (sides[1] - sides[0]) / 2e-4
      np.testing.assert_allclose(of[at], slope, atol=1e-3)


def test_what_leaves_or_has_no_flow_is_lost_without_a_gradient(image):
  flow = random_flow(image).at[0, :6].set(jnp.nan).at[0, 6:].set(1e30)
  out, pull = jax.vjp(splatted, image, flow)
  assert np.all(out[0] == 0)
  of_values, of_flow = pull(jnp.ones_like(out))
  assert np.all(of_values[0] == 0) and np.all(of_flow[0] == 0)
  assert np.all(np.isfinite(of_flow[1])) and np.any(of_flow[1] != 0)


def test_kinds_of_splatting_where_two_pixels_meet():
  """Pixels 0 and 1 of a row both go to 2; their metrics are 1 and 3."""
  image = jnp.asarray([10.0, 20.0, 0.0, 7.0]).reshape(1, 1, 4, 1)
  dx = jnp.asarray([2.0, 1.0, 5.0, 0.0]).reshape(1, 1, 4, 1)
  flow = jnp.concatenate([dx, jnp.zeros_like(dx)], -1)
  metric = jnp.asarray([1.0, 3.0, 2.0, 2.0]).reshape(1, 1, 4, 1)
  e = np.exp(1.0), np.exp(3.0)
  expected = {
    'sum': 30,
    'average': 15,
    'linear': (10 + 60) / 4,
    'softmax': (10 * e[0] + 20 * e[1]) / (e[0] + e[1]),
  }
  for mode, value in expected.items():
    given = {} if mode in ('sum', 'average') else {'metric': metric}
    out, weight = forward(image, flow, mode=mode, **given)
    np.testing.assert_allclose(out[0, 0, :, 0], [0, 0, value, 7], rtol=1e-5)
    np.testing.assert_array_equal(weight[0, 0, :, 0] > 0, [0, 0, 1, 1])
  far = forward(image, flow, mode='softmax', metric=100 * metric)[0]
  np.testing.assert_allclose(far[0, 0, 2, 0], 20, rtol=1e-5)


def test_constant_metrics_are_the_average(image):
  flow = random_flow(image)
  average, _ = forward(image, flow)
  for mode in ('linear', 'softmax'):
    metric = jnp.full((*image.shape[:3], 1), 2.5)
    out, _ = forward(image, flow, mode=mode, metric=metric)
    np.testing.assert_allclose(out, average, atol=1e-5)


def test_metric_gets_a_gradient(image):
  flow = random_flow(image, 0.7)
  metric = jnp.ones((*image.shape[:3], 1))
  for mode in ('linear', 'softmax'):

    def total(metric, mode=mode):
      out, _ = forward(image, flow, mode=mode, metric=metric)
      return jnp.sum(out**2)

    gradient = jax.jit(jax.grad(total))(metric)
    step = 1e-2
    at = (1, 5, 6, 0)
    slope = (
      total(metric.at[at].add(step)) - total(metric.at[at].add(-step))
    ) / (2 * step)
    np.testing.assert_allclose(gradient[at], slope, rtol=0.05, atol=1e-3)


def test_keeps_half_precision(image):
  half = image.astype(jnp.bfloat16)
  out, weight = forward(half, random_flow(image))
  assert out.dtype == jnp.bfloat16 and weight.dtype == jnp.float32
  full, _ = forward(image, random_flow(image))
  np.testing.assert_allclose(out.astype(jnp.float32), full, atol=0.02)


def test_wrong_modes_are_refused(image):
  flow, metric = flow_of(0, 0, image), jnp.ones((*image.shape[:3], 1))
  with pytest.raises(ValueError, match='mean.*average'):
    forward(image, flow, mode='mean')
  with pytest.raises(ValueError, match='without a metric'):
    forward(image, flow, mode='softmax')
  with pytest.raises(ValueError, match='with a metric'):
    forward(image, flow, mode='average', metric=metric)
