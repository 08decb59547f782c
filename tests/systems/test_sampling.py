"""Futures of a clip are its own, however many are drawn and with whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax.systems import sampling


def walk(variables, context, key):
  """A random walk whose noise depends on the shape of the whole batch."""
  shape = (len(context), 3, *context.shape[2:])
  steps = variables['size'] * jax.random.normal(key, shape)
  return context[:, -1:] + jnp.cumsum(steps, 1)


VARIABLES = {'size': jnp.float32(0.1)}
CONTEXT = np.random.default_rng(0).random((4, 2, 3, 5, 1), np.float32)
KEYS = jax.random.split(jax.random.key(0), 4)


@pytest.fixture(scope='module')
def alone():
  """[5, 4, N, H, W, C], each predicted by itself."""
  predict = jax.jit(walk)
  return np.array(
    [
      [
        predict(VARIABLES, CONTEXT[b : b + 1], jax.random.fold_in(KEYS[b], s))
        for b in range(4)
      ]
      for s in range(5)
    ]
  )[:, :, 0]


@pytest.mark.parametrize(
  'clips, count, at_once',
  [
    (slice(4), 5, None),
    (slice(4), 1, 3),
    (slice(1, 4), 5, 2),
    (slice(2, 3), 3, 1),
    (slice(2, 3), 5, None),
  ],
)
def test_every_future_is_that_of_its_clip_alone(alone, clips, count, at_once):
  got = jax.jit(
    lambda context, keys: sampling.draw(
      walk, VARIABLES, context, keys, count, at_once
    )
  )(CONTEXT[clips], KEYS[clips])
  assert got.shape == (count, len(KEYS[clips]), 3, 3, 5, 1)
  np.testing.assert_allclose(got, alone[:count, clips], atol=1e-6)


def test_a_single_future_still_skips_what_is_not_wanted():
  """One clip, one at a time: a condition is no selection."""

  def decide(variables, context, key):
    del variables
    return jax.lax.cond(
      jax.random.bernoulli(key), lambda x: x, lambda x: 2 * x, context
    )

  def text(**settings):
    function = functools.partial(sampling.draw, decide, None, **settings)
    return str(jax.make_jaxpr(function)(CONTEXT[:1], KEYS[:1]))

  assert 'cond[' in text(count=3, at_once=1)
  assert 'cond[' not in text(count=3)


def test_details_are_drawn_along():
  def diagnostics(variables, context, key):
    frames = walk(variables, context, key)
    return frames, {'sum': frames.sum((2, 3, 4))}

  frames, diagnostics = sampling.draw(diagnostics, VARIABLES, CONTEXT, KEYS, 2)
  assert diagnostics['sum'].shape == (2, 4, 3)
  np.testing.assert_allclose(
    diagnostics['sum'], frames.sum((3, 4, 5)), rtol=1e-5
  )


def test_numbers_below_one_are_refused():
  for count, at_once in ((0, None), (2, 0)):
    with pytest.raises(ValueError, match=f'{count} samples, {at_once} at once'):
      sampling.draw(walk, VARIABLES, CONTEXT, KEYS, count, at_once)
