import functools

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.arrays import normal
from vidpred_jax import params
from vidpred_jax.models import blocks, translators


def images(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def init(module, x, train=False):
  key = jax.random.key(0, impl='rbg')
  return functools.partial(module.init, key, train=train)(x)


def drawn(module, x):
  """Variables of a module, not those it begins with."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32),
    jax.eval_shape(functools.partial(init, module), x),
  )


# ----------------------------------------------------------- stochastic depth


def rates(**settings):
  """Of the blocks of a row, as they are called."""
  seen = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, blocks.ViT):
      seen.append(context.module.rate)
    return call(*args, **kwargs)

  module = translators.MetaFormer('vit', 5, 16, 1.0, **settings)
  with nn.intercept_methods(record):
    jax.eval_shape(functools.partial(init, module), images(1, 2, 2, 8))
  return seen


def test_rates_rise_from_block_to_block():
  published = [0.01, 0.0325, 0.055, 0.0775, 0.1]
  np.testing.assert_allclose(rates(drop_path=0.1), published, rtol=1e-6)
  np.testing.assert_allclose(rates(), [0.01, 0.0075, 0.005, 0.0025, 0])
  np.testing.assert_array_equal(rates(first_drop_path=0.0), np.zeros(5))


def test_a_branch_is_dropped_for_whole_samples_and_its_mean_kept():
  module = blocks.ConvNeXt(1.0, 0.25)
  x = normal(0, 64, 2, 2, 8)
  variables = drawn(module, x)

  @jax.jit
  def both(x):
    rngs = {'dropout': jax.random.key(1)}
    return module.apply(variables, x, False), module.apply(
      variables, x, True, rngs=rngs
    )

  whole, out = both(x)
  kept = np.any(out != x, (1, 2, 3))
  np.testing.assert_allclose(
    (out - x)[kept], (whole - x)[kept] / 0.75, atol=1e-5
  )
  assert 6 <= np.sum(~kept) <= 27  # 16 +- 3 deviations


def test_without_stochastic_depth_training_needs_no_randomness():
  module = translators.MetaFormer('vit', 2, 8, 1.0, first_drop_path=0.0)
  x = normal(0, 2, 2, 2, 8)
  variables = drawn(module, x)

  def program(module, train):
    return str(
      jax.make_jaxpr(lambda x: module.apply(variables, x, train=train))(x)
    )

  assert program(module, True) == program(module, False)
  with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
    program(translators.MetaFormer('vit', 2, 8, 1.0), True)


# -------------------------------------------------------------- initial values


def starts(kind, **settings):
  """How each layer of a block begins, by name."""
  seen = {}

  def record(call, args, kwargs, context):
    start = getattr(context.module, 'init_scheme', None)
    if start is not None:
      seen[context.module.name] = start
    return call(*args, **kwargs)

  module = translators.MetaFormer(kind, 2, 24, 2.0, **settings)
  if kind == 'incepu':
    module = translators.IncepU(2, 24)
  with nn.intercept_methods(record):
    shapes = jax.eval_shape(functools.partial(init, module), images(1, 8, 8, 8))
  return seen, shapes


@pytest.mark.parametrize(
  'kind, linear, convolutions, exceptions',
  [
    ('gsta', None, 'fan_out', {}),
    ('van', None, 'fan_out', {}),
    (
      'tau',
      'torch',
      'torch',
      {'mlp_in': 'fan_out', 'mlp_local': 'fan_out', 'mlp_out': 'fan_out'},
    ),
    ('convmixer', None, 'fan_out', {}),
    ('convnext', None, 'fan_out', {}),
    ('hornet', 'small', 'fan_out', {}),
    ('mlp', 'small', None, {}),
    ('moga', None, 'fan_out', {}),
    ('poolformer', None, 'small', {}),
    ('swin', 'small', None, {}),
    ('uniformer', 'small', 'fan_out', {}),
    ('vit', 'small', None, {}),
    ('incepu', None, 'torch', {}),
  ],
)
def test_initial_values(kind, linear, convolutions, exceptions):
  seen, shapes = starts(kind)
  exceptions = exceptions | {'width_0': 'torch', 'width_1': 'torch'}
  ranks = {}
  for path, leaf in params.flatten(shapes['params']).items():
    *_, layer, name = path.split('/')
    if name == 'kernel':
      ranks[layer] = len(leaf.shape)
  assert set(seen) == set(ranks)
  for layer, start in seen.items():
    expected = linear if ranks[layer] == 2 else convolutions
    assert start == exceptions.get(layer, expected), layer


def test_uniformers_position_begins_as_in_pytorch_where_it_attends():
  for local, start in ((True, 'fan_out'), (False, 'torch')):
    seen = {}

    def record(call, args, kwargs, context, seen=seen):
      seen[context.module.name] = getattr(context.module, 'init_scheme', None)
      return call(*args, **kwargs)

    module = blocks.Uniformer(2.0, local=local)
    with nn.intercept_methods(record):
      jax.eval_shape(functools.partial(init, module), images(1, 4, 4, 16))
    assert seen['position'] == start


@pytest.mark.parametrize(
  'kind, name, value',
  [
    ('gsta', 'scale', 1e-2),
    ('tau', 'scale', 1e-2),
    ('van', 'scale', 1e-2),
    ('convnext', 'scale', 1e-6),
    ('hornet', 'scale', 1e-6),
    ('moga', 'scale', 1e-5),
    ('moga', 'sigma', 1e-5),
    ('poolformer', 'scale', 1e-5),
    ('uniformer', 'scale', 1e-6),
  ],
)
def test_a_branch_begins_small(kind, name, value):
  @jax.jit
  def factors():
    tree = init(blocks.BLOCKS[kind](2.0), jnp.zeros((1, 4, 4, 8)))
    return [tree['params'][k] for k in tree['params'] if name in k]

  found = factors()
  assert len(found) == (1 if kind == 'convnext' else 2)
  for factor in found:
    np.testing.assert_allclose(factor, value, rtol=1e-6)


# ---------------------------------------------------------------------- pieces


@pytest.mark.parametrize('size', [(5, 7), (2, 3), (1, 4)])
def test_the_mean_of_neighbours_leaves_out_what_is_not_there(size):
  x = normal(0, 2, *size, 3)
  expected = nn.avg_pool(
    x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=False
  )
  out = jax.jit(blocks.mean_of_neighbours)(x)
  np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize(
  'height, width, side',
  [
    (16, 16, 4),
    (32, 40, 4),
    (14, 16, 7),
    (28, 28, 7),
    (96, 96, 6),
    (128, 128, 8),
    (256, 256, 8),
    (8, 8, 4),
    (3, 8, 3),
    (16, 2, 2),
    (7, 7, 7),
  ],
)
def test_the_window_follows_the_size(height, width, side):
  assert blocks.swin_window(height, width) == side


def test_attention_stays_within_its_window():
  """And within the moved one where it is moved, around the border."""
  x = normal(0, 1, 8, 8, 8)
  other = x.at[0, 1, 1, 0].add(1)
  for shifted in (False, True):
    module = blocks.Swin(1.0, shifted=shifted)
    apply = functools.partial(module.apply, drawn(module, x), train=False)
    pair = jax.jit(apply)(jnp.concatenate([x, other]))
    expected = np.zeros((8, 8), bool)
    expected[:4, :4] = True
    if shifted:
      expected = np.roll(expected, (-2, -2), (0, 1))
    np.testing.assert_array_equal(np.any(pair[0] != pair[1], -1), expected)


# ------------------------------------------------------------------- refusals


def applied(module, size, other):
  """Applies a block to images of another size than it was made for."""
  variables = jax.eval_shape(
    functools.partial(init, module), images(1, *size, 8)
  )
  return jax.eval_shape(
    lambda v, x: module.apply(v, x, False), variables, images(2, *other, 8)
  )


def test_sizes_that_a_block_was_not_made_for():
  message = r"'mlp'.*another size.*6x4.*24 rows, got 16"
  with pytest.raises(ValueError, match=message):
    applied(blocks.MLPMixer(1.0), (4, 4), (6, 4))
  assert applied(blocks.MLPMixer(1.0), (4, 4), (4, 4)).shape[0] == 2
  with pytest.raises(ValueError, match='14x14 features.*window, 4'):
    applied(blocks.Swin(1.0), (16, 16), (14, 14))
  # The window stays that of the size it was made for.
  assert applied(blocks.Swin(1.0), (14, 14), (21, 28)).shape[2] == 28
  assert applied(blocks.Swin(1.0), (16, 16), (32, 40)).shape[2] == 40
  with pytest.raises(ValueError, match='16x18 features.*window, 4'):
    applied(blocks.Swin(1.0), (16, 16), (16, 18))
  for name in ('vit', 'gsta', 'moga'):
    assert applied(blocks.BLOCKS[name](1.0), (4, 4), (5, 6)).shape[1] == 5


@pytest.mark.parametrize('kind', ['vit', 'swin', 'hornet', 'moga'])
def test_widths_must_be_multiples_of_eight(kind):
  with pytest.raises(ValueError, match=f'12 channels.*{kind}.*multiple of 8'):
    jax.eval_shape(
      functools.partial(init, blocks.BLOCKS[kind](1.0)),
      images(1, 4, 4, 12),
    )


def test_widths_of_incepu():
  def shape(width, outer):
    module = translators.IncepU(2, width)
    x = images(1, 4, 4, outer)
    return jax.eval_shape(functools.partial(init, module), x)['params']

  # Eight groups, or one where they do not fit.
  assert shape(16, 8)['encode_0']['conv_3']['kernel'].shape == (3, 3, 1, 16)
  assert shape(12, 5)['encode_0']['conv_3']['kernel'].shape == (3, 3, 6, 12)
  with pytest.raises(ValueError, match='12 channels.*incepu.*multiple of 8'):
    shape(16, 12)


def test_gelu_is_the_exact_one():
  x = jnp.linspace(-8, 8, 1001)
  for ours, theirs in zip(
    jax.vmap(jax.value_and_grad(blocks._gelu))(x),
    jax.vmap(jax.value_and_grad(lambda x: jax.nn.gelu(x, False)))(x),
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
  half = x.astype(jnp.bfloat16)
  exact = jax.vmap(jax.value_and_grad(blocks._gelu))(half.astype(float))
  for ours, wide in zip(
    jax.vmap(jax.value_and_grad(blocks._gelu))(half), exact
  ):
    np.testing.assert_array_equal(ours, wide.astype(jnp.bfloat16))
