import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import cost, params
from vidpred_jax.models import layers, simvp, translators

NAMES = (
  'gSTA', 'TAU', 'VAN', 'ConvMixer', 'ConvNeXt', 'HorNet', 'MLP', 'Moga',
  'Poolformer', 'Swin', 'Uniformer', 'ViT', 'IncepU',
)  # fmt: skip
SMALL = dict(frames=2, hid_s=8, hid_t=16, n_t=2, mlp_ratio=2.0)


def clip(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def shapes(model, size=(64, 64)):
  video = clip(1, model.frames, *size, model.channels)
  return jax.eval_shape(model.init, jax.random.key(0), video)


# ------------------------------------------------------- what the network does


def test_refuses_other_clips():
  model = simvp.SimVP(**SMALL)
  variables = shapes(model, (16, 16))
  apply = functools.partial(jax.eval_shape, model.apply, variables)
  for bad in ((1, 3, 16, 16, 1), (1, 2, 16, 16, 3), (2, 16, 16, 1)):
    message = r'Got a clip of shape .*expected \[B, 2, H, W, 1\]'
    with pytest.raises(ValueError, match=message):
      apply(clip(*bad))
  for bad in ((18, 16), (16, 22), (0, 16)):
    with pytest.raises(ValueError, match=f'{bad[0]}x{bad[1]}.*divisible by 4'):
      apply(clip(1, 2, *bad, 1))
  for bad, message in (
    ({'translator': 'gru'}, "'gru'"),
    ({'n_s': 3}, 'n_s=3'),
    ({'n_t': 1}, 'n_t=1'),
  ):
    with pytest.raises(ValueError, match=message):
      shapes(simvp.SimVP(**SMALL | bad))


@pytest.mark.parametrize('n_s, factor', [(2, 2), (4, 4), (6, 8)])
def test_two_units_halve_the_size(n_s, factor):
  model = simvp.SimVP(**SMALL, n_s=n_s, encoder_size=5, decoder_size=7)
  video = clip(3, 2, 16, 24, 1)

  def parts(model, video):
    features, first = model.encode(video)
    return features, first, model.decode(features, first)

  (features, first, out), _ = jax.eval_shape(
    functools.partial(model.init_with_output, method=parts),
    jax.random.key(0),
    video,
  )
  assert features.shape == (3, 2, 16 // factor, 24 // factor, 8)
  assert first.shape == (6, 16, 24, 8)
  assert out.shape == video.shape
  kernels = {
    leaf.shape[:2]
    for path, leaf in params.flatten(shapes(model)['params']).items()
    if 'unit' in path and 'kernel' in path
  }
  assert kernels == {(5, 5), (7, 7)}


def test_the_translator_sees_frame_after_frame():
  """Channel t * hid_s + c of its input is channel c of frame t."""
  model = simvp.SimVP(**SMALL)
  features = jax.random.normal(jax.random.key(0), (2, 2, 4, 6, 8))
  seen = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, translators.MetaFormer):
      seen.append(args[0])
      return args[0]
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    out = model.apply({}, features, method='translate')
  np.testing.assert_array_equal(out, features)
  assert seen[0].shape == (2, 4, 6, 16)
  np.testing.assert_array_equal(seen[0][..., 8 + 3], features[:, 1, ..., 3])


def test_half_precision_stays_close():
  settings = dict(translator='uniformer', n_s=2)
  model = simvp.SimVP(**SMALL, **settings)
  video = jax.random.uniform(jax.random.key(0), (2, 2, 16, 16, 1))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32),
    shapes(model, (16, 16)),
  )
  half = simvp.SimVP(**SMALL, **settings, dtype=jnp.bfloat16)
  train = dict(
    train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)}
  )
  results = {}
  for name, module in (('full', model), ('half', half)):
    apply = jax.jit(functools.partial(module.apply, **train))
    results[name] = apply(variables, video)
  (out, stats), (out_half, stats_half) = results['full'], results['half']
  assert out_half.dtype == jnp.float32
  scale = np.abs(out - out.mean()).max()
  np.testing.assert_allclose(out_half, out, atol=0.05 * scale)
  assert np.abs(out_half - out).max() > 1e-5 * scale  # it was used
  for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(stats_half)):
    assert b.dtype == jnp.float32
    np.testing.assert_allclose(a, b, atol=0.02 * np.abs(a).max())


# ------------------------------------------------------------ published counts

# Parameters and G multiply-adds of the published networks, by fvcore. It does
# not know ConvMixer's kind of padding and leaves out the 11x11 convolutions.
WIDE = 11**2 * 16**2 * (640 + 7 * 512) / 1e9
S = {
  'vit': (46.10, 16.928),
  'swin': (46.11, 16.409),
  'poolformer': (37.12, 14.076),
  'mlp': (38.19, 14.651),
  'convmixer': (3.92, 5.450 + WIDE),
  'incepu': (57.95, 19.431),
  'gsta': (46.77, 16.526),
  'tau': (44.66, 15.953),
  'van': (44.52, 15.951),
  'convnext': (37.31, 14.124),
  'uniformer': (44.83, 16.449),
  'hornet': (45.74, 16.271),
  'moga': (46.78, 16.519),
}
L = {'gsta': (524.00, 152.149), 'incepu': (684.97, 193.61)}


NORMS = {layers.GroupNorm: 5, layers.LayerNorm: 5, layers.BatchNorm: 2}


def measured(**settings):
  """Millions of parameters and, of each part, G multiply-adds.

  As fvcore counts them: norms, too, of a batch norm a factor and an offset.
  """
  model = simvp.SimVP(10, **settings)
  norms, sizes = {}, {}

  def record(call, args, kwargs, context):
    if type(context.module) in NORMS:
      part = context.module.path[0]
      macs = NORMS[type(context.module)] * args[0].size
      norms[part] = norms.get(part, 0) + macs
    return call(*args, **kwargs)

  def run(key, video):
    out, variables = model.init_with_output(key, video)
    sizes.update(cost.parameters(variables))
    return out

  with nn.intercept_methods(record):
    key = jax.random.key(0)
    count = cost.count_macs(run, key, clip(1, 10, 64, 64, 1))
  assert set(sizes) == {'encoder', 'translation', 'decoder'}
  parts = cost.by_part(count, sizes)
  parts = {part: (parts[part] + norms.get(part, 0)) / 1e9 for part in parts}
  return sum(sizes.values()) / 1e6, parts


def extrapolated(n_t, **settings):
  """`measured`, of two and three blocks: every further one is the same."""
  (size, parts), (more, more_parts) = (
    measured(n_t=n, **settings) for n in (2, 3)
  )
  further = n_t - 2
  return size + further * (more - size), {
    part: parts[part] + further * (more_parts[part] - parts[part])
    for part in parts
  }


@pytest.mark.parametrize('translator', S)
def test_small_networks_have_the_published_size_and_cost(translator):
  size, parts = extrapolated(8, translator=translator)
  assert size == pytest.approx(S[translator][0], abs=0.006)
  assert sum(parts.values()) == pytest.approx(S[translator][1], rel=1e-3)
  assert parts['encoder'] == pytest.approx(0.893, abs=6e-4)
  assert parts['decoder'] == pytest.approx(3.810, abs=6e-4)


@pytest.mark.parametrize('translator', L)
def test_large_networks_have_the_published_size_and_cost(translator):
  size, parts = extrapolated(24, translator=translator, hid_s=128, hid_t=1024)
  assert size == pytest.approx(L[translator][0], abs=0.006)
  assert sum(parts.values()) == pytest.approx(L[translator][1], rel=1e-3)


def test_every_further_block_is_the_same():
  settings = dict(translator='vit', hid_s=8, hid_t=16)
  size, parts = measured(n_t=5, **settings)
  expected_size, expected_parts = extrapolated(5, **settings)
  assert size == pytest.approx(expected_size)
  assert parts == pytest.approx(expected_parts)
