"""I3D's weights under both names they are published with."""

import jax
import numpy as np
import pytest

from vidpred_jax import convert, params
from vidpred_jax.models import features

BRANCHES = {
  'b0': 'branch_0',
  'b1a': 'branch_1.0',
  'b1b': 'branch_1.1',
  'b2a': 'branch_2.0',
  'b2b': 'branch_2.1',
  'b3b': 'branch_3.1',
}


def published():
  """Random arrays under pytorch-i3d's names, from the paper's Figure 3."""
  rng = np.random.default_rng(0)
  arrays = {}

  def unit(name, inputs, outputs, size):
    shape = (outputs, inputs, size, size, size)
    arrays[f'{name}.conv3d.weight'] = rng.random(shape, np.float32)
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      arrays[f'{name}.bn.{part}'] = rng.random(outputs, np.float32)
    arrays[f'{name}.bn.num_batches_tracked'] = np.int64(3)

  unit('Conv3d_1a_7x7', 3, 64, 7)
  unit('Conv3d_2b_1x1', 64, 64, 1)
  unit('Conv3d_2c_3x3', 64, 192, 3)
  channels = 192
  for name, widths in {
    '3b': (64, 96, 128, 16, 32, 32),
    '3c': (128, 128, 192, 32, 96, 64),
    '4b': (192, 96, 208, 16, 48, 64),
    '4c': (160, 112, 224, 24, 64, 64),
    '4d': (128, 128, 256, 24, 64, 64),
    '4e': (112, 144, 288, 32, 64, 64),
    '4f': (256, 160, 320, 32, 128, 128),
    '5b': (256, 160, 320, 32, 128, 128),
    '5c': (384, 192, 384, 48, 128, 128),
  }.items():
    b0, b1a, b1b, b2a, b2b, b3b = widths
    unit(f'Mixed_{name}.b0', channels, b0, 1)
    unit(f'Mixed_{name}.b1a', channels, b1a, 1)
    unit(f'Mixed_{name}.b1b', b1a, b1b, 3)
    unit(f'Mixed_{name}.b2a', channels, b2a, 1)
    unit(f'Mixed_{name}.b2b', b2a, b2b, 3)
    unit(f'Mixed_{name}.b3b', channels, b3b, 1)
    channels = b0 + b1b + b2b + b3b
  arrays['logits.conv3d.weight'] = rng.random((400, 1024, 1, 1, 1), np.float32)
  arrays['logits.conv3d.bias'] = rng.random(400, np.float32)
  return arrays


def renamed(name):
  """pytorch-i3d's name as StyleGAN-V has it."""
  name = name.replace('logits.', 'conv3d_0c_1x1.').replace('.bn.', '.batch3d.')
  name = name.replace('Conv3d_', 'conv3d_').replace('Mixed_', 'mixed_')
  for short, long in BRANCHES.items():
    name = name.replace(f'.{short}.', f'.{long}.')
  return name


def test_every_array_has_its_place(tmp_path):
  arrays = published()
  np.savez(tmp_path / 'i3d.npz', **arrays)
  tree = convert.i3d(tmp_path / 'i3d.npz')
  clip = jax.ShapeDtypeStruct((1, 9, 32, 32, 3), np.float32)
  expected = jax.eval_shape(features.I3D().init, jax.random.key(0), clip)
  assert jax.tree.map(np.shape, tree) == jax.tree.map(
    lambda x: x.shape, expected['params']
  )
  unit = tree['Mixed_4c']['b2b']
  kernel = arrays['Mixed_4c.b2b.conv3d.weight']
  np.testing.assert_array_equal(unit['kernel'][2, 0, 1], kernel[..., 2, 0, 1].T)
  for ours, theirs in (
    ('scale', 'weight'),
    ('bias', 'bias'),
    ('mean', 'running_mean'),
    ('var', 'running_var'),
  ):
    theirs = arrays[f'Mixed_4c.b2b.bn.{theirs}']
    np.testing.assert_array_equal(unit[ours], theirs)
  logits = arrays['logits.conv3d.weight'][:, :, 0, 0, 0]
  np.testing.assert_array_equal(tree['logits']['kernel'], logits.T)

  np.savez(tmp_path / 'other.npz', **{renamed(k): x for k, x in arrays.items()})
  other = params.flatten(convert.i3d(tmp_path / 'other.npz'))
  for name, array in params.flatten(tree).items():
    np.testing.assert_array_equal(other[name], array, name)

  del arrays['Mixed_5b.b1a.bn.running_var']
  np.savez(tmp_path / 'less.npz', **arrays)
  expected = r'less.npz is not I3D of Kin.*Mixed_5b.b1a.bn.running_var'
  with pytest.raises(ValueError, match=f'(?s){expected}'):
    convert.i3d(tmp_path / 'less.npz')
