"""Parameter trees by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from vidpred_jax import params

TREE = {
  'router': {'conv': {'kernel': np.ones((3, 2)), 'bias': np.zeros(2)}},
  'block_0': {'kernel': np.zeros((1, 4))},
  'block_10': {'kernel': np.zeros((1, 4))},
}
NAMES = [
  'block_0/kernel',
  'block_10/kernel',
  'router/conv/bias',
  'router/conv/kernel',
]


def test_flatten_and_back():
  flat = params.flatten(TREE)
  assert list(flat) == NAMES
  assert flat['router/conv/bias'] is TREE['router']['conv']['bias']
  jax.tree.map(np.testing.assert_array_equal, params.unflatten(flat), TREE)


def test_reads_every_type_of_safetensors():
  types = ['float16', 'float32', 'float64', 'bool', jnp.bfloat16]
  types += [f'{sign}int{bits}' for sign in 'u ' for bits in (8, 16, 32, 64)]
  types = [np.dtype(x.strip() if isinstance(x, str) else x) for x in types]
  arrays = {str(x): np.arange(6).reshape(2, 3).astype(x) for x in types}
  arrays |= {'empty': np.zeros((0, 2)), 'scalar': np.array(7.0)}
  data = safetensors.numpy.save(arrays)
  got = params.read_safetensors(data, 'a')
  assert set(got) == set(arrays)
  for name, array in arrays.items():
    assert got[name].dtype == array.dtype and not got[name].flags.writeable
    np.testing.assert_array_equal(got[name], array)


def test_refuses_damaged_safetensors_and_foreign_types():
  data = safetensors.numpy.save({'w': np.zeros(4, np.uint8)})
  with pytest.raises(ValueError, match='weights is damaged'):
    params.read_safetensors(data[:-1], 'weights')
  header = data.replace(b'"U8"', b'"F8_E5M2"')
  length = int.from_bytes(data[:8], 'little') + len('F8_E5M2') - len('U8')
  with pytest.raises(ValueError, match='weights: w is of type F8_E5M2'):
    params.read_safetensors(
      length.to_bytes(8, 'little') + header[8:], 'weights'
    )


def test_names_are_those_of_flax():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(2, name='head')(nn.Dense(3)(x))

  variables = Net().init(jax.random.key(0), jnp.zeros((1, 4)))
  assert list(params.flatten(variables['params'])) == [
    'Dense_0/bias',
    'Dense_0/kernel',
    'head/bias',
    'head/kernel',
  ]


@pytest.mark.parametrize(
  ('patterns', 'names'),
  [
    ([], []),
    (['router/.*'], NAMES[2:]),
    ([r'block_\d/.*', '.*bias'], [NAMES[0], NAMES[2]]),
    (['.*'], NAMES),
  ],
)
def test_match_whole_names(patterns, names):
  matched = params.match(TREE, patterns)
  assert jax.tree.structure(matched) == jax.tree.structure(TREE)
  assert [k for k, hit in params.flatten(matched).items() if hit] == names


@pytest.mark.parametrize(
  ('pattern', 'message'),
  [
    ('router', r"'router' matches no.*block_0/kernel"),
    ('conv/.*', 'matches no'),
    ('[', 'no.* a regular expression|is not a regular expression'),
  ],
)
def test_match_refuses(pattern, message):
  with pytest.raises(ValueError, match=message):
    params.match(TREE, ['.*', pattern])


def test_merge_takes_what_it_got():
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE)
  merged = params.merge_or_refuse(shapes, TREE)
  jax.tree.map(np.testing.assert_array_equal, merged, TREE)


def test_merge_refuses_and_names_both_sides():
  flat = params.flatten(TREE)
  del flat['router/conv/bias']
  flat['router/conv/scale'] = np.ones(2)
  flat['block_0/kernel'] = np.zeros((4, 1))
  with pytest.raises(ValueError) as caught:
    params.merge_or_refuse(TREE, params.unflatten(flat))
  message = str(caught.value)
  assert 'missing: router/conv/bias' in message
  assert 'not expected: router/conv/scale' in message
  assert 'block_0/kernel is (4, 1), expected (1, 4)' in message


def test_long_lists_are_cut():
  many = {f'layer_{i:02}': np.zeros(1) for i in range(20)}
  with pytest.raises(ValueError, match='layer_07 and 12 more'):
    params.merge_or_refuse(many, {})


def test_take_matching():
  other = jax.tree.map(lambda x: x + 5, TREE)
  merged = params.take_matching(TREE, other, 'router/.*')
  assert (merged['router']['conv']['bias'] == 5).all()
  assert (merged['block_0']['kernel'] == 0).all()
  del other['router']['conv']['bias']
  with pytest.raises(ValueError, match='missing: router/conv/bias'):
    params.take_matching(TREE, other, 'router/.*')
  other['router']['conv']['bias'] = np.zeros(3)
  with pytest.raises(ValueError, match=r'\(3,\), expected \(2,\)'):
    params.take_matching(TREE, other, 'router/.*')


def test_overview(monkeypatch):
  pytest.importorskip('clu')
  tree = {'a': {'kernel': np.ones((3, 3, 4), np.float32), 'bias': np.zeros(4)}}
  text = params.overview(tree, stats=True)
  assert 'a/kernel' in text and '(3, 3, 4)' in text and '1.0' in text
  assert text.splitlines()[-1].startswith('Total: 40')
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree))
  assert params.overview(shapes).splitlines()[-1].startswith('Total: 40')
  monkeypatch.setattr(params, 'has_overview', lambda: False)
  with pytest.raises(FileNotFoundError, match=r'vidpred_jax\[clu\]'):
    params.overview(tree)
