import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import cost
from vidpred_jax.models import rvd

SMALL = dict(channels=2, dim=8, mults=(1, 2), mean_mults=(1, 3))


def image(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def shapes(model, size=64):
  frame = (1, size, size, model.channels)
  n = jax.ShapeDtypeStruct((), jnp.int32)
  return jax.eval_shape(
    model.init, jax.random.key(0), image(1, 1, *frame[1:]), image(*frame), n
  )


def sizes(model):
  tree = shapes(model)['params']
  return {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in tree.items()}


@functools.cache
def small():
  model = rvd.RVD(**SMALL)
  clip = jax.random.uniform(
    jax.random.key(0), (2, 2, 8, 12, 2), jnp.float32, -1, 1
  )
  noisy = jax.random.normal(jax.random.key(1), clip[:, 0].shape)
  random = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: jnp.asarray(random.normal(0, 0.1, x.shape), jnp.float32),
    shapes(model),
  )
  return model, variables, clip, noisy


# --------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
  'channels, widths, expected',
  [
    (3, rvd.WIDTHS_64, (18_744_291, 13_750_032, 5_117_091)),
    (3, {}, (18_951_683, 12_991_296, 11_670_723)),
    (1, rvd.WIDTHS_64, 37_607_570),
    (1, {}, 43_608_578),
  ],
)
def test_sizes_are_the_published_ones(channels, widths, expected):
  found = sizes(rvd.RVD(channels=channels, **widths))
  if isinstance(expected, int):
    assert sum(found.values()) == expected
  else:
    names = ('denoiser', 'context_net', 'mean_net')
    assert tuple(found[k] for k in names) == expected


def test_costs_are_the_published_ones():
  """G multiply-adds at 64 pixels: a denoising step, contexts, the mean."""
  model = rvd.RVD(channels=3, **rvd.WIDTHS_64)
  frame, n = image(1, 64, 64, 3), jax.ShapeDtypeStruct((), jnp.int32)
  variables = shapes(model)

  def count(method, *args):
    call = functools.partial(model.apply, method=method)
    macs = cost.count_macs(call, variables, *args)
    return jax.eval_shape(call, variables, *args), macs

  state = jax.eval_shape(lambda: model.initial_state(1, 64, 64))
  (contexts, _, _), frames = count('observe', image(1, 1, 64, 64, 3), state)
  contexts = [image(1, *c.shape[2:]) for c in contexts]
  prepared, once = count('prepare', contexts)
  _, step = count('denoise', frame, n, prepared)
  parts = cost.by_part(frames, ('context_net', 'mean_net'))
  found = (
    step.total() + once.total(), parts['context_net'], parts['mean_net']
  )  # fmt: skip
  np.testing.assert_allclose(np.array(found) / 1e9, (2.81, 2.59, 1.92), 5e-3)
  assert once.total() > 0.1 * step.total()  # not repeated from step to step


# ------------------------------------------------------------------ identities


def test_frames_at_once_equal_frames_one_by_one():
  """The state holds all that is remembered."""
  model, variables, clip, _ = small()
  observe = jax.jit(functools.partial(model.apply, method='observe'))
  at_once = observe(variables, clip, model.initial_state(2, 8, 12))
  state = model.initial_state(2, 8, 12)
  for t in range(2):
    contexts, mean, state = observe(variables, clip[:, t : t + 1], state)
    for a, b in zip([*contexts, mean], [*at_once[0], at_once[1]]):
      np.testing.assert_allclose(a[:, 0], b[:, t], atol=2e-6)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(at_once[2])):
    np.testing.assert_allclose(a, b, atol=2e-6)
  # The past matters.
  fresh = observe(variables, clip[:, 1:], model.initial_state(2, 8, 12))
  assert np.abs(fresh[1] - at_once[1][:, 1:]).max() > 1e-4


def test_what_is_asked_since_a_frame_is_the_end_of_all():
  model, variables, clip, _ = small()
  observe = functools.partial(model.apply, method='observe')
  state = model.initial_state(2, 8, 12)
  every = jax.jit(observe)(variables, clip, state)
  last = jax.jit(functools.partial(observe, since=1))(variables, clip, state)
  for a, b in zip(jax.tree.leaves(last[:2]), jax.tree.leaves(every[:2])):
    np.testing.assert_allclose(a, b[:, 1:], atol=2e-6)


def test_means_stay_in_the_range_of_images_and_may_be_none():
  model, variables, clip, noisy = small()
  clip, n = clip[:, :1], jnp.int32(3)
  apply = jax.jit(model.apply)
  grown = jax.tree.map(lambda x: 9 * np.asarray(x), variables)
  out, mean = apply(grown, clip, noisy, n)
  assert mean.min() == -1 and mean.max() == 1
  assert out.dtype == mean.dtype == jnp.float32
  without = rvd.RVD(**SMALL | {'mean_mults': None})
  rest = {k: v for k, v in variables['params'].items() if k != 'mean_net'}
  assert set(sizes(without)) == set(rest)
  other, mean = jax.jit(without.apply)({'params': rest}, clip, noisy, n)
  same, _ = apply(variables, clip, noisy, n)
  np.testing.assert_allclose(other, same, atol=1e-6)
  assert not mean.any()
  # Half precision stays close.
  half = rvd.RVD(**SMALL, dtype=jnp.bfloat16)
  rough, _ = jax.jit(half.apply)(variables, clip, noisy, n)
  assert rough.dtype == jnp.float32
  error = np.abs(rough - same)
  assert 0 < error.max() and error.mean() < 0.05 * np.std(same)


def test_the_size_of_frames_is_that_of_the_deeper_network():
  assert rvd.RVD().multiple() == 32
  assert rvd.RVD(**rvd.WIDTHS_64).multiple() == 8
  assert rvd.RVD(mults=(1, 2), mean_mults=(1, 2, 2)).multiple() == 4
  assert rvd.RVD(mults=(1, 2), mean_mults=None).multiple() == 2
