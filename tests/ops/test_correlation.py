import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.ops import correlation

local = jax.jit(correlation.local, static_argnames='radius')


def by_definition(first, second, radius):
  """One displacement after the other, float64."""
  first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
  _, height, width, _ = first.shape
  pads = ((0, 0), (radius, radius), (radius, radius), (0, 0))
  wide = np.pad(second, pads)
  planes = []
  for dy in range(2 * radius + 1):
    for dx in range(2 * radius + 1):
      seen = wide[:, dy : dy + height, dx : dx + width]
      planes.append(np.mean(first * seen, -1))
  return np.stack(planes, -1)


@pytest.mark.parametrize(
  'size, radius',
  [((5, 7), 4), ((3, 24), 4), ((16, 25), 4), ((6, 31), 2), ((4, 5), 1)],
)
def test_agrees_with_its_definition(size, radius):
  first, second = jax.random.normal(jax.random.key(0), (2, 2, *size, 6))
  out = local(first, second, radius=radius)
  expected = by_definition(first, second, radius)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_no_radius_is_an_error():
  with pytest.raises(ValueError, match='radius=0; expected at least 1'):
    correlation.local(*jnp.ones((2, 1, 4, 4, 3)), radius=0)


def test_no_images_give_none():
  assert correlation.local(*jnp.ones((2, 0, 4, 4, 3))).shape == (0, 4, 4, 81)


def test_displacements_are_counted_row_by_row():
  first = jnp.ones((1, 9, 9, 1))
  second = jnp.zeros((1, 9, 9, 1)).at[0, 6, 3, 0].set(1.0)
  out = local(first, second)[0, 4, 4]
  dx, dy = -1, 2
  assert np.flatnonzero(out).tolist() == [(dy + 4) * 9 + dx + 4]


@pytest.mark.parametrize('radius', [4, 2])
def test_gradient_is_that_of_the_definition(radius):
  """The volume is linear in each image: directional derivatives are exact."""
  keys = jax.random.split(jax.random.key(1), 5)
  first, second, along_a, along_b = (
    jax.random.normal(key, (2, 9, 26, 3)) for key in keys[:4]
  )
  of_radius = functools.partial(local, radius=radius)
  out, pull = jax.vjp(of_radius, first, second)
  cotangent = jax.random.normal(keys[4], out.shape)
  of_a, of_b = pull(cotangent)
  for of, along, change in (
    (of_a, along_a, by_definition(along_a, second, radius)),
    (of_b, along_b, by_definition(first, along_b, radius)),
  ):
    np.testing.assert_allclose(
      np.sum(of * along), np.sum(cotangent * change), rtol=1e-4
    )
