"""Published weights of DMVFN as Flax variables."""

import jax
import numpy as np
import pytest

from vidpred_jax import convert
from vidpred_jax.models import dmvfn


def predict(variables, pair):
  output = jax.jit(dmvfn.DMVFN().apply)(variables, pair)
  return np.asarray(output.frames[-1]), np.asarray(output.flow)


def test_rgb_into_converted_is_bgr_into_published(published):
  pair = np.random.default_rng(1).random((1, 2, 48, 64, 3), np.float32)
  as_is = convert.from_torch('dmvfn', published, channel_order='rgb')
  converted = convert.from_torch('dmvfn', published)
  frame, flow = predict(converted, pair)
  frame_bgr, flow_bgr = predict(as_is, pair[..., ::-1].copy())
  np.testing.assert_allclose(frame, frame_bgr[..., ::-1], atol=1e-5)
  np.testing.assert_allclose(flow, flow_bgr, atol=1e-4)
  assert np.abs(flow - predict(as_is, pair)[1]).max() > 1e-3
  routes = [
    dmvfn.DMVFN().apply(variables, x, method='route')
    for variables, x in ((converted, pair), (as_is, pair[..., ::-1]))
  ]
  np.testing.assert_allclose(*routes, atol=1e-5)


def test_dmvfn_gives_the_published_numbers(shared):
  with np.load(shared / 'parity/dmvfn/weights_a.npz') as file:
    state = {f'module.{k}': file[k] for k in file if k != 'meta_json'}
  with np.load(shared / 'parity/dmvfn/case_a2_1x48x80.npz') as file:
    case = dict(file)
  variables = convert.from_torch('dmvfn', state)
  assert sum(x.size for x in jax.tree.leaves(variables)) == 3_559_930
  bgr = case['x'].astype(np.float32).reshape(1, 2, 3, 48, 80)
  rgb = np.moveaxis(bgr, 2, -1)[..., ::-1].copy()
  frame, flow = predict(variables, rgb)
  expected = np.moveaxis(case['eval_final_all'], 1, -1)[..., ::-1]
  np.testing.assert_allclose(frame, expected, atol=3e-5)
  flow_expected = np.moveaxis(case['eval_flow_all'], 1, -1)
  np.testing.assert_allclose(flow, flow_expected, atol=1e-4)


def test_every_name_and_shape_counts(published):
  state = dict(published)
  del state['block3.lastconv.bias']
  state['block9.lastconv.bias'] = np.zeros(5)
  state['l1.weight'] = np.zeros((32, 9))
  with pytest.raises(ValueError) as caught:
    convert.from_torch('dmvfn', state)
  message = str(caught.value)
  assert 'dmvfn' in message
  assert 'missing: block3.lastconv.bias' in message
  assert 'not expected: block9.lastconv.bias' in message
  assert 'l1.weight is (32, 9), expected (9, 32)' in message


def test_settings_decide_what_is_expected(published):
  with pytest.raises(ValueError, match='not expected: .*block0.conv1'):
    convert.from_torch('dmvfn', published, spatial_path=False)
  with pytest.raises(ValueError, match='not expected: l1.bias'):
    convert.from_torch('dmvfn', published, routing='none')
  with pytest.raises(ValueError, match='not expected: block8'):
    convert.from_torch(
      'dmvfn',
      published,
      scales=(4,) * 3 + (2,) * 3 + (1,) * 2,
      widths=(160,) * 3 + (80,) * 3 + (44,) * 2,
    )
  variables = convert.from_torch('dmvfn', published, router_scale=4, beta=0.3)
  assert list(variables) == ['params']
  for bad, message in (
    ({'channel_order': 'gbr'}, "'gbr'"),
    ({'colour': 'bgr'}, 'colour'),
    ({'scales': (4, -1)}, 'scales'),
  ):
    with pytest.raises(ValueError, match=message):
      convert.from_torch('dmvfn', published, **bad)


def test_unknown_systems_are_refused(published):
  with pytest.raises(ValueError, match="'vgg'.*dmvfn"):
    convert.from_torch('vgg', published)
