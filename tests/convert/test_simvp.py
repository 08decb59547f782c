"""OpenSTL's weights of SimVP as Flax variables."""

import jax
import numpy as np
import pytest

from tests.convert.published import SMALL, openstl, saved
from vidpred_jax import convert

DERIVED = {
  'hid.enc.0.block.norm1.num_batches_tracked': np.float32(3.0).reshape(1),
  'hid.enc.1.block.attn.relative_position_index': np.zeros((16, 16), 'f4'),
  'hid.enc.1.block.attn_mask': np.zeros((16, 16, 16), np.float32),
}


def test_both_formats_of_openstl(tmp_path):
  """A plain `state_dict`, and what Lightning saves."""
  state, expected = openstl('gsta')
  full = state | DERIVED
  lightning = {
    'epoch': 7,
    'state_dict': {f'model.net.{k}': x for k, x in full.items()},
    'loops': {'fit_loop': {'state_dict': {}}},
  }
  (tmp_path / 'plain.pth').write_bytes(saved(full))
  (tmp_path / 'lightning.ckpt').write_bytes(saved(lightning))
  for name in ('plain.pth', 'lightning.ckpt'):
    arrays = convert.read_torch(tmp_path / name)
    got = convert.from_torch('simvp', arrays, **SMALL)
    assert list(got) == ['batch_stats', 'params']
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert convert.trained_frames('simvp', arrays) == ((0, 1, 2), (3, 4, 5))


@pytest.mark.parametrize(
  'translator, size',
  [('tau', (16, 16)), ('moga', (16, 16)), ('incepu', (16, 16)),
   ('convmixer', (16, 16)), ('uniformer', (16, 16)), ('mlp', (24, 12)),
   ('swin', (56, 28)), ('swin', (24, 8))],
)  # fmt: skip
def test_every_kind_of_translator(translator, size):
  """Weights that are tied to a size tell it."""
  state, expected = openstl(translator, size)
  got = convert.from_torch('simvp', state, translator=translator, **SMALL)
  jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_weights_of_simvp_must_fit():
  state, _ = openstl('gsta')
  state['enc.enc.4.conv.norm.bias'] = np.zeros(8)
  del state['hid.enc.1.block.norm2.running_var']
  state['dec.readout.weight'] = np.zeros((1, 8, 1, 1))
  with pytest.raises(ValueError) as caught:
    convert.from_torch('simvp', state, **SMALL)
  message = str(caught.value)
  assert 'cannot become simvp' in message
  assert 'missing: hid.enc.1.block.norm2.running_var' in message
  assert 'not expected: enc.enc.4.conv.norm.bias' in message
  assert 'weight is (1, 8, 1, 1), expected (2, 8, 1, 1)' in message
  state, _ = openstl('vit')
  with pytest.raises(ValueError, match='missing: hid.enc.0.block.attn.proj_1'):
    convert.from_torch('simvp', state, **SMALL)
  with pytest.raises(
    ValueError, match=r'trained for.*\(0, 1, 2\).*\(3, 4, 5\)'
  ):
    convert.from_torch('simvp', state, frames=((0,), (1,)), **SMALL)
  with pytest.raises(ValueError, match='cannot become simvp.*missing: dec'):
    convert.from_torch('simvp', {'weight': np.zeros(3)})


def test_the_translator_is_a_setting_of_the_system_too():
  settings = {'translator': 'tau', 'n_t': 3}
  assert convert.split_settings('simvp', settings) == (
    {'translator': 'tau'},
    settings,
  )
