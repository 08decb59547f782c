import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.ops import routing


def test_probabilities_sum_to_the_budget():
  logits = jax.random.normal(jax.random.key(0), (5, 9))
  for beta in (0.1, 0.3, 0.5):
    chances = routing.budgeted_probabilities(logits, beta)
    np.testing.assert_allclose(jnp.sum(chances, -1), 9 * beta, rtol=1e-5)
  assert np.all(routing.budgeted_probabilities(logits, 1.0) <= 1)
  np.testing.assert_allclose(
    routing.budgeted_probabilities(jnp.zeros((1, 9)), 0.5), 0.5, rtol=1e-6
  )


def test_no_gradient_where_a_probability_is_cut_off():
  logits = jnp.asarray([4.0, -4.0, -4.0, -4.0])
  assert routing.budgeted_probabilities(logits, 0.5)[0] == 1
  jacobian = jax.jacobian(lambda v: routing.budgeted_probabilities(v, 0.5))(
    logits
  )
  assert np.all(jacobian[0] == 0)
  assert np.all(np.diag(jacobian)[1:] > 0)


def test_drawn_gates_are_binary_with_the_gradient_of_the_probabilities():
  chances = jnp.asarray([[0.2, 0.7, 1.0, 0.0]] * 500)
  gates, pull = jax.vjp(
    lambda p: routing.bernoulli(jax.random.key(0), p), chances
  )
  assert set(np.unique(gates)) == {0, 1}
  np.testing.assert_allclose(jnp.mean(gates, 0), chances[0], atol=0.07)
  cotangent = jax.random.normal(jax.random.key(1), chances.shape)
  np.testing.assert_array_equal(pull(cotangent)[0], cotangent)


def test_gumbel_gates_are_soft_when_hot_and_binary_when_cold():
  logits = jnp.asarray([[0.0, 1.0], [2.0, 0.0]])
  logits = jnp.broadcast_to(logits[None], (4000, 2, 2))
  key = jax.random.key(0)
  hot = routing.gumbel(key, logits, 100.0)
  np.testing.assert_allclose(hot, 0.5, atol=0.1)
  cold = routing.gumbel(key, logits, 1e-3)
  assert np.mean((cold < 0.01) | (cold > 0.99)) > 0.99
  # The Gumbel-max trick: then the gate is a draw from the softmax.
  np.testing.assert_allclose(
    jnp.mean(cold, 0), jax.nn.softmax(logits[0])[:, 1], atol=0.03
  )


@pytest.mark.parametrize('beta, count', [(0.0, 0), (0.3, 3), (0.5, 5), (1, 9)])
def test_deterministic_gates_keeps_the_budget(beta, count):
  """beta n, rounded, a half upwards: 2.7 -> 3, 4.5 -> 5."""
  logits = 0.1 * jax.random.normal(jax.random.key(0), (7, 9))
  gates = routing.deterministic_gates(
    routing.budgeted_probabilities(logits, beta)
  )
  np.testing.assert_array_equal(jnp.sum(gates, -1), count)


def test_deterministic_gates_takes_the_highest_and_earlier_of_equals():
  gates = routing.deterministic_gates(jnp.asarray([0.2, 0.9, 0.5, 0.5, 0.4]))
  np.testing.assert_array_equal(gates, [0, 1, 1, 1, 0])
  gates = routing.deterministic_gates(jnp.full((5,), 0.4))
  np.testing.assert_array_equal(gates, [1, 1, 0, 0, 0])


def test_a_smaller_budget_never_adds_a_block():
  logits = 3 * jax.random.normal(jax.random.key(3), (20, 9))
  before = jnp.zeros_like(logits)
  for beta in np.linspace(0, 1, 21):
    gates = routing.deterministic_gates(
      routing.budgeted_probabilities(logits, beta)
    )
    assert np.all(gates >= before)
    before = gates


def test_straight_through_gives_gates_with_the_gradient_of_chances():
  gates, chances = jnp.asarray([0.0, 1.0, 1.0]), jnp.asarray([0.3, 0.6, 1.0])
  out, pull = jax.vjp(routing.straight_through, gates, chances)
  np.testing.assert_allclose(out, gates, atol=1e-7)
  cotangent = jnp.asarray([1.0, -2.0, 3.0])
  of_gates, of_chances = pull(cotangent)
  np.testing.assert_array_equal(of_gates, 0)
  np.testing.assert_array_equal(of_chances, cotangent)


def test_edge_holes_reach_the_border_in_a_straight_line():
  weight = np.array(
    [
      [0, 1, 1, 0, 1],
      [0, 0, 1, 1, 1],
      [1, 1, 0, 1, 1],
      [1, 1, 1, 1, 0],
    ],
    np.float32,
  )
  edge = routing.edge_holes(jnp.asarray(weight)[None, ..., None])[0, ..., 0]
  expected = 1 - weight
  expected[2, 2] = 0  # within the image
  np.testing.assert_array_equal(edge, expected)


def test_patch_difference_is_the_greatest_mean_of_4x4():
  difference = np.random.default_rng(0).uniform(size=(2, 16, 24, 1))
  ours = routing.patch_difference(jnp.float32(difference), 8)
  assert ours.shape == (2, 2, 3)
  for b, i, j in np.ndindex(2, 2, 3):
    part = difference[b, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8, 0]
    cells = [part[y : y + 4, x : x + 4].mean() for y in (0, 4) for x in (0, 4)]
    np.testing.assert_allclose(ours[b, i, j], max(cells), rtol=1e-5)
  odd = routing.patch_difference(jnp.float32(difference[:, :13, :17]), 8)
  assert odd.shape == (2, 2, 3)


def test_reference_routes_are_the_patches_that_differ_most():
  differences = jax.random.uniform(jax.random.key(2), (2, 4, 5))
  ratios = (0.1, 0.4, 0.6, 0.9)
  routes = routing.reference_routes(differences, ratios)
  assert routes.shape == (2, 4, 5, 4)
  np.testing.assert_array_equal(
    routes.sum((1, 2)), [[2, 8, 12, 18], [2, 8, 12, 18]]
  )
  for image, route in zip(np.asarray(differences), np.asarray(routes)):
    for k in range(4):
      chosen = route[..., k] == 1
      assert image[chosen].min() > image[~chosen].max()
    # The more a patch differs, the more blocks it goes through.
    assert np.all(np.diff(route, axis=-1) >= 0)
