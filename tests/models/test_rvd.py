import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import params
from vidpred_jax.convert import weights
from vidpred_jax.convert.rvd import torch_names
from vidpred_jax.models import denoiser, rvd

SMALL = dict(channels=2, dim=8, mults=(1, 2), mean_mults=(1, 3))
CASES = ('case_a_4level_dim16_C3_32x32', 'case_a2_6level_dim16_C1_64x64')


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


def to_nhwc(x):
  return np.moveaxis(np.asarray(x, np.float32), -3, -1)


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


def loaded(path):
  case = dict(np.load(path))
  cfg = json.loads(bytes(case['meta_json']))['cfg']
  model = rvd.RVD(
    channels=cfg['ch'],
    dim=cfg['dim'],
    mults=tuple(cfg['mults']),
    mean_mults=tuple(cfg['tmults']),
  )
  expected = shapes(model)
  names = torch_names(params.flatten(expected))
  state = {k[2:]: x for k, x in case.items() if k.startswith('w/')}
  return case, model, weights.rearrange(names, state, expected)


@pytest.mark.parametrize('name', CASES)
def test_networks_equal_the_published_ones(shared, name):
  case, model, variables = loaded(shared / 'parity' / 'rvd' / f'{name}.npz')
  video = jnp.asarray(to_nhwc(case['video'])).swapaxes(0, 1)
  n = jnp.asarray(case['t'], jnp.int32)

  watch = jax.jit(functools.partial(model.apply, method='watch'))
  state, seen = model.start(len(video), *video.shape[2:4]), []
  for t in range(6):
    contexts, mean, state = watch(variables, video[:, t : t + 1], state)
    seen.append((contexts, mean))
  contexts, mean = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *seen)

  def denoise(model, contexts, noisy, n):
    return model.denoise(noisy, n, model.prepare(contexts))

  out = jax.jit(functools.partial(model.apply, method=denoise))(
    variables, [c[:, -1] for c in contexts], to_nhwc(case['x_noisy']), n
  )
  near = functools.partial(np.testing.assert_allclose, rtol=0)
  near(mean.swapaxes(0, 1), to_nhwc(case['mu']), atol=2e-5)
  for i in range(6):
    near(contexts[-1][:, i], to_nhwc(case[f'ctx_f{i}_last']), atol=2e-5)
  assert len(contexts) == len(model.mults)
  for i, context in enumerate(contexts):
    stored = to_nhwc(case[f'ctx_f5_l{i}'])
    near(context[:, 5, ..., : stored.shape[-1]], stored, atol=2e-5)
  for i, hidden in enumerate(state.mean):
    stored = to_nhwc(case[f'hist_state_l{i}'])
    near(hidden[..., : stored.shape[-1]], stored, atol=2e-5)
  # A phase n * f in float32 is the less exact the greater n is.
  late = int(case['t'].max()) > 100
  near(out, to_nhwc(case['denoise_out']), atol=2e-4 if late else 3e-5)
  phases = denoiser.embedded(n, model.dim)
  near(phases, case['posemb'], atol=1e-4)
  time = model.apply(variables, n, method='embed')
  near(time, case['temb'], atol=1e-4)


BLOCKS = {
  'resnet_time': (denoiser.ResBlock(16, 32, time=16), 'denoiser/level_0'),
  'resnet_same': (denoiser.ResBlock(16, 16), 'denoiser/level_0'),
  'linattn': (denoiser.LinearAttention(32), 'denoiser/level_0'),
  'upsample': (denoiser.Conv(16, 16, size=4), 'denoiser/up_0'),
  'downsample': (denoiser.Conv(16, 16), 'denoiser/level_0'),
  'gru_3steps': (rvd.ConvGRU(16, 32), 'context_net/level_0'),
}
PARTS = {
  'resnet_time': ('block_0', '0.'),
  'resnet_same': ('block_0', '0.'),
  'linattn': ('attention', '2.'),
  'upsample': ('grow', '3.'),
  'downsample': ('shrink', '3.'),
  'gru_3steps': ('cell', '1.'),
}


@pytest.mark.parametrize('name', BLOCKS)
def test_blocks_equal_the_published_ones(shared, name):
  """Their inputs are so small that every epsilon counts."""
  arrays = np.load(shared / 'parity' / 'rvd' / 'blocks.npz')
  facts = json.loads(bytes(arrays['meta_json']))['info'][name]
  case = {
    k.removeprefix(f'{name}/'): arrays[k]
    for k in arrays
    if k.startswith(f'{name}/')
  }
  module, place = BLOCKS[name]
  part, before = PARTS[name]
  x = jnp.asarray(to_nhwc(case['x0']))
  args = [x]
  if name == 'resnet_time':
    args.append(jnp.asarray(case['x1'], jnp.float32))
  elif name == 'gru_3steps':
    frames = [to_nhwc(case[f'x{i}']) for i in range(3)]
    args = [jnp.stack(frames, 1), jnp.zeros((*x.shape[:-1], 32))]
  init = functools.partial(module.init, jax.random.key(0))
  expected = jax.eval_shape(init, *args)['params']
  flat = {
    f'params/{place}/{part}/{path}': leaf
    for path, leaf in params.flatten(expected).items()
  }
  net, number = place.split('/')
  net = {'denoiser': 'denoise_fn', 'context_net': 'history_fn'}[net]
  kind, index = number.split('_')
  kind = {'level': 'downs', 'up': 'ups'}[kind]
  state = {
    f'{net}.{kind}.{index}.{before}{k[2:]}': v
    for k, v in case.items()
    if k.startswith('w/')
  }
  tree = weights.rearrange(torch_names(flat), state, params.unflatten(flat))
  for key in ('params', *place.split('/'), part):
    tree = tree[key]
  stride = {'stride': 2} if name == 'downsample' else {}
  out = module.apply({'params': tree}, *args, **stride)
  if name == 'gru_3steps':
    out = out[0].swapaxes(0, 1)
  atol = max(1e-5, 10 * facts['fp32_vs_fp64'])
  np.testing.assert_allclose(out, to_nhwc(case['out']), rtol=0, atol=atol)


# ------------------------------------------------------------------ identities


def test_frames_at_once_equal_frames_one_by_one():
  """The state holds all that is remembered."""
  model, variables, clip, _ = small()
  watch = jax.jit(functools.partial(model.apply, method='watch'))
  at_once = watch(variables, clip, model.start(2, 8, 12))
  state = model.start(2, 8, 12)
  for t in range(2):
    contexts, mean, state = watch(variables, clip[:, t : t + 1], state)
    for a, b in zip([*contexts, mean], [*at_once[0], at_once[1]]):
      np.testing.assert_allclose(a[:, 0], b[:, t], atol=2e-6)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(at_once[2])):
    np.testing.assert_allclose(a, b, atol=2e-6)
  # The past matters.
  fresh = watch(variables, clip[:, 1:], model.start(2, 8, 12))
  assert np.abs(fresh[1] - at_once[1][:, 1:]).max() > 1e-4


def test_what_is_asked_since_a_frame_is_the_end_of_all():
  model, variables, clip, _ = small()
  watch = functools.partial(model.apply, method='watch')
  state = model.start(2, 8, 12)
  every = jax.jit(watch)(variables, clip, state)
  last = jax.jit(functools.partial(watch, since=1))(variables, clip, state)
  for a, b in zip(jax.tree.leaves(last[:2]), jax.tree.leaves(every[:2])):
    np.testing.assert_allclose(a, b[:, 1:], atol=2e-6)


def test_a_prepared_context_is_a_concatenated_one():
  x, context = jax.random.normal(jax.random.key(0), (2, 2, 4, 6, 8))
  both = denoiser.ResBlock(16, 8)
  split = denoiser.ResBlock(8, 8, context=8)
  joined = jnp.concatenate([x, context], -1)
  expected, variables = both.init_with_output(jax.random.key(1), joined)
  share = split.apply(variables, context, method='prepare')
  out = split.apply(variables, x, share=share)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_attention_sums_values_by_keys_and_gives_them_out_by_queries():
  """Head by head and pixel by pixel, in NumPy."""
  module = denoiser.LinearAttention(8, heads=2, width=4)
  x = jax.random.normal(jax.random.key(0), (1, 2, 3, 8))
  out, variables = module.init_with_output(jax.random.key(1), x)
  weight = variables['params']
  pixels = np.asarray(x, np.float64).reshape(6, 8)
  normal = pixels - pixels.mean(1, keepdims=True)
  normal /= np.sqrt(normal.var(1, keepdims=True) + 1e-5)
  qkv = normal @ np.asarray(weight['qkv']['kernel'])[0, 0]
  heads = []
  for h in range(2):
    query, key, value = (qkv[:, 8 * i + 4 * h :][:, :4] for i in range(3))
    share = np.exp(key) / np.exp(key).sum(0)
    heads.append(query / 2 @ (share.T @ value))
  expected = (
    np.concatenate(heads, 1) @ np.asarray(weight['out']['kernel'])[0, 0]
  )
  expected += pixels + np.asarray(weight['out']['bias'])
  np.testing.assert_allclose(out.reshape(6, 8), expected, atol=1e-5)


def test_means_stay_in_the_range_of_images_and_may_be_none():
  model, variables, clip, noisy = small()
  clip, n = clip[:, :1], jnp.int32(3)
  apply = jax.jit(model.apply)
  grown = jax.tree.map(lambda x: 9 * x, variables)
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


def test_names_of_the_published_checkpoint_cover_all_parameters():
  for extra in ({}, {'mean_mults': None}):
    flat = params.flatten(shapes(rvd.RVD(**SMALL | extra)))
    names = torch_names(flat)
    assert {path for path, _ in names.values()} == set(flat)
    assert len(names) == len(flat)


def test_the_size_of_frames_is_that_of_the_deeper_network():
  assert rvd.RVD().multiple() == 32
  assert rvd.RVD(**rvd.WIDTHS_64).multiple() == 8
  assert rvd.RVD(mults=(1, 2), mean_mults=(1, 2, 2)).multiple() == 4
  assert rvd.RVD(mults=(1, 2), mean_mults=None).multiple() == 2
