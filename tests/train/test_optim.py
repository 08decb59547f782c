import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vidpred_jax.train import optim

PARAMS = {
  'a': {'kernel': jnp.ones((3,)), 'bias': jnp.ones(())},
  'b': {'kernel': jnp.full((2,), 2.0)},
}


def values(schedule, steps):
  return np.array([float(schedule(s)) for s in steps])


def test_cosine_with_warmup_against_the_formula():
  s = optim.schedule('cosine', peak=1e-4, final=1e-5, steps=100, warmup=20)
  np.testing.assert_allclose(
    values(s, [0, 10, 20]), [0, 5e-5, 1e-4], atol=1e-10
  )
  t = np.arange(20, 101)
  expected = 1e-5 + 0.5 * 9e-5 * (1 + np.cos(np.pi * (t - 20) / 80))
  np.testing.assert_allclose(values(s, t), expected, rtol=1e-5)


def test_step_decay_is_counted_in_steps_of_the_run():
  s = optim.schedule(
    'step', peak=1.0, steps=50, warmup=10, boundaries=(20, 30), factor=0.1
  )
  np.testing.assert_allclose(
    values(s, [5, 10, 19, 25, 35]), [0.5, 1, 1, 0.1, 0.01], rtol=1e-6
  )


# Written by PyTorch, see its first lines.
TABLE = np.genfromtxt(
  pathlib.Path(__file__).parent / 'onecycle.csv', delimiter=',', skip_header=3
)


def test_onecycle_is_pytorchs_rate_and_beta1_at_every_step():
  assert len(TABLE) == 1000
  rate = optim.schedule('onecycle', peak=1e-3, steps=1000)
  beta = optim.first_moment('onecycle', steps=1000, b1=0.9)
  steps = jnp.arange(1000)
  np.testing.assert_allclose(rate(steps), TABLE[:, 0], rtol=3e-5, atol=2e-10)
  np.testing.assert_allclose(beta(steps), TABLE[:, 1], rtol=1e-6)


def test_adam_under_onecycle_takes_pytorchs_steps():
  rate = optim.schedule('onecycle', peak=1e-3, steps=1000)
  beta = optim.first_moment('onecycle', steps=1000, b1=0.9)
  rule = optim.make({'w': jnp.zeros(())}, rate, name='adam', b1=beta)

  def step(carry, i):
    w, state = carry
    grad = {'w': 2 * (w['w'] - 3) * jnp.cos(i / 10)}
    update, state = rule.update(grad, state, w)
    w = optax.apply_updates(w, update)
    return (w, state), w['w']

  w = {'w': jnp.zeros(())}
  _, found = jax.lax.scan(step, (w, rule.init(w)), jnp.arange(1000))
  np.testing.assert_allclose(found, TABLE[:, 2], rtol=2e-4, atol=2e-7)


@pytest.mark.parametrize('steps', [1, 2, 3, 7])
def test_a_short_onecycle_stays_between_its_ends(steps):
  found = values(
    optim.schedule('onecycle', peak=1.0, steps=steps), range(steps)
  )
  assert np.isfinite(found).all()
  assert found.min() > 3e-6 and found.max() <= 1


def test_beta1_is_cycled_by_onecycle_alone_and_unless_that_is_switched_off():
  assert optim.first_moment('cosine', steps=9, b1=0.9) == 0.9
  assert optim.first_moment('onecycle', steps=9, b1=0.8, cycle=()) == 0.8
  for cycle in ((0.9,), (0.9, 1.0)):
    with pytest.raises(ValueError, match='two numbers'):
      optim.first_moment('onecycle', steps=9, b1=0.9, cycle=cycle)


def test_a_warmup_begins_where_it_is_told():
  s = optim.schedule('cosine', peak=1e-4, initial=1e-5, steps=100, warmup=10)
  np.testing.assert_allclose(values(s, [0, 5]), [1e-5, 5.5e-5], rtol=1e-5)
  with pytest.raises(ValueError, match='between 0 and the peak'):
    optim.schedule('cosine', peak=1e-4, initial=1e-3, steps=100, warmup=10)


def test_constant():
  s = optim.schedule('constant', peak=3.0, steps=9)
  assert float(s(0)) == float(s(8)) == 3.0


@pytest.mark.parametrize(
  'kwargs',
  [
    {'name': 'cosine', 'steps': 10, 'warmup': 10},
    {'name': 'onecycle', 'steps': 10, 'warmup': 2},
  ],
)
def test_bad_schedules_are_refused(kwargs):
  with pytest.raises(ValueError, match='schedule'):
    optim.schedule(peak=1.0, **kwargs)


def test_frozen_parameters_never_change_even_by_weight_decay():
  rule = optim.make(
    PARAMS,
    optax.constant_schedule(0.1),
    weight_decay=0.5,
    frozen=('a/.*',),
  )
  grads = jax.tree.map(jnp.ones_like, PARAMS)
  updates, _ = rule.update(grads, rule.init(PARAMS), PARAMS)
  new = optax.apply_updates(PARAMS, updates)
  np.testing.assert_array_equal(new['a']['kernel'], PARAMS['a']['kernel'])
  assert np.all(np.asarray(new['b']['kernel']) < 2.0)


def test_frozen_expression_that_matches_nothing_is_refused():
  with pytest.raises(ValueError, match='encoder'):
    optim.make(PARAMS, optax.constant_schedule(0.1), frozen=('encoder/.*',))


def test_a_rate_of_its_own_is_a_factor_of_each_update():
  settings = {'weight_decay': 0.5}
  grads = jax.tree.map(jnp.ones_like, PARAMS)

  def updates(**more):
    rule = optim.make(PARAMS, optax.constant_schedule(0.1), **settings, **more)
    return rule.update(grads, rule.init(PARAMS), PARAMS)[0]

  plain = updates()
  faster = updates(rates=(('a/.*', 5.0),), frozen=('b/.*',))
  kernel = plain['a']['kernel']
  np.testing.assert_allclose(faster['a']['kernel'], 5 * kernel, rtol=1e-6)
  assert not np.any(faster['b']['kernel'])
  with pytest.raises(ValueError, match='router'):
    optim.make(PARAMS, optax.constant_schedule(0.1), rates=(('router', 2.0),))


def test_clipping_bounds_the_global_norm():
  rule = optim.make(
    PARAMS, optax.constant_schedule(1.0), name='adam', b1=0.0, clip_norm=1e-12
  )
  grads = jax.tree.map(jnp.ones_like, PARAMS)
  updates, _ = rule.update(grads, rule.init(PARAMS), PARAMS)
  # Adam divides by |g| + 1e-8: gradients clipped to 1e-12 hardly move.
  assert float(optax.tree.norm(updates)) < 1e-3


def test_adam_has_no_weight_decay():
  with pytest.raises(ValueError, match='adamw'):
    optim.make(
      PARAMS, optax.constant_schedule(1.0), name='adam', weight_decay=0.1
    )


def test_ema_copies_until_start_then_averages_every_second_step():
  ema = {'w': jnp.zeros(())}
  settings = {'decay': 0.9, 'every': 2, 'start': 2}
  history = []
  for step in range(1, 7):
    ema = optim.ema_update(
      ema, {'w': jnp.float32(step)}, jnp.int32(step), **settings
    )
    history.append(float(ema['w']))
  np.testing.assert_allclose(
    history, [1, 2, 2, 2 * 0.9 + 0.4, 2.2, 2.2 * 0.9 + 0.6], rtol=1e-6
  )
