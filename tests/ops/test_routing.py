import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.ops import routing


def test_probabilities_sum_to_the_budget():
  logits = jax.random.normal(jax.random.key(0), (5, 9))
  for beta in (0.1, 0.3, 0.5):
    chances = routing.budgeted(logits, beta)
    np.testing.assert_allclose(jnp.sum(chances, -1), 9 * beta, rtol=1e-5)
  assert np.all(routing.budgeted(logits, 1.0) <= 1)
  np.testing.assert_allclose(
    routing.budgeted(jnp.zeros((1, 9)), 0.5), 0.5, rtol=1e-6
  )


def test_no_gradient_where_a_probability_is_cut_off():
  logits = jnp.asarray([4.0, -4.0, -4.0, -4.0])
  assert routing.budgeted(logits, 0.5)[0] == 1
  jacobian = jax.jacobian(lambda v: routing.budgeted(v, 0.5))(logits)
  assert np.all(jacobian[0] == 0)
  assert np.all(np.diag(jacobian)[1:] > 0)


def test_drawn_gates_are_binary_with_the_gradient_of_the_probabilities():
  chances = jnp.asarray([[0.2, 0.7, 1.0, 0.0]] * 500)
  gates, pull = jax.vjp(
    lambda p: routing.bernoulli(p, jax.random.key(0)), chances
  )
  assert set(np.unique(gates)) == {0, 1}
  np.testing.assert_allclose(jnp.mean(gates, 0), chances[0], atol=0.07)
  cotangent = jax.random.normal(jax.random.key(1), chances.shape)
  np.testing.assert_array_equal(pull(cotangent)[0], cotangent)


def test_gumbel_gates_are_soft_when_hot_and_binary_when_cold():
  logits = jnp.asarray([[0.0, 1.0], [2.0, 0.0]])
  logits = jnp.broadcast_to(logits[None], (4000, 2, 2))
  key = jax.random.key(0)
  hot = routing.gumbel(logits, key, 100.0)
  np.testing.assert_allclose(hot, 0.5, atol=0.1)
  cold = routing.gumbel(logits, key, 1e-3)
  assert np.mean((cold < 0.01) | (cold > 0.99)) > 0.99
  # The Gumbel-max trick: then the gate is a draw from the softmax.
  np.testing.assert_allclose(
    jnp.mean(cold, 0), jax.nn.softmax(logits[0])[:, 1], atol=0.03
  )


@pytest.mark.parametrize('beta, count', [(0.0, 0), (0.3, 3), (0.5, 5), (1, 9)])
def test_most_probable_keeps_the_budget(beta, count):
  """beta n, rounded, a half upwards: 2.7 -> 3, 4.5 -> 5."""
  logits = 0.1 * jax.random.normal(jax.random.key(0), (7, 9))
  gates = routing.most_probable(routing.budgeted(logits, beta))
  np.testing.assert_array_equal(jnp.sum(gates, -1), count)


def test_most_probable_takes_the_highest_and_earlier_of_equals():
  gates = routing.most_probable(jnp.asarray([0.2, 0.9, 0.5, 0.5, 0.4]))
  np.testing.assert_array_equal(gates, [0, 1, 1, 1, 0])
  gates = routing.most_probable(jnp.full((5,), 0.4))
  np.testing.assert_array_equal(gates, [1, 1, 0, 0, 0])


def test_a_smaller_budget_never_adds_a_block():
  logits = 3 * jax.random.normal(jax.random.key(3), (20, 9))
  before = jnp.zeros_like(logits)
  for beta in np.linspace(0, 1, 21):
    gates = routing.most_probable(routing.budgeted(logits, beta))
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
