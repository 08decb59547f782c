"""Weights of VGG19 and AlexNet as Flax variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import convert
from vidpred_jax.models import features


@pytest.mark.parametrize(
  ('convert_it', 'module', 'channels', 'ignored'),
  [
    (
      convert.vgg19,
      features.VGG19(),
      features.VGG19_CONVOLUTIONS,
      ['features.34.weight', 'classifier.0.weight'],
    ),
    (
      convert.alexnet,
      features.AlexNet(),
      features.ALEXNET_CONVOLUTIONS,
      ['classifier.6.weight'],
    ),
  ],
)
def test_feature_networks(convert_it, module, channels, ignored, tmp_path):
  variables = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )
  rng = np.random.default_rng(0)
  state = {}
  for i in channels:
    layer = variables['params'][f'features_{i}']
    shape = tuple(layer['kernel'].shape[axis] for axis in (3, 2, 0, 1))
    state[f'features.{i}.weight'] = rng.random(shape, np.float32)
    state[f'features.{i}.bias'] = rng.random(shape[0], np.float32)
  state |= {name: np.zeros((2, 2), np.float32) for name in ignored}
  path = tmp_path / 'weights.npz'
  np.savez(path, **state)
  tree = convert_it(path)
  jax.tree.map(lambda a, b: a.shape == b.shape, tree, variables['params'])
  for i in channels:
    np.testing.assert_array_equal(
      tree[f'features_{i}']['kernel'][1, 2, 0, 3],
      state[f'features.{i}.weight'][3, 0, 1, 2],
    )
  first = next(iter(channels))
  del state[f'features.{first}.bias']
  np.savez(path, **state, extra=np.zeros(1))
  expected = rf'missing: features.{first}.bias; not expected: extra'
  with pytest.raises(ValueError, match=expected):
    convert_it(path)
