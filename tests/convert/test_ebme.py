import jax
import numpy as np
import pytest

from vidpred_jax import checkpoint, convert, params, systems
from vidpred_jax.convert.ebme import torch_names
from vidpred_jax.models import ebme

SHAPES = jax.eval_shape(
  ebme.BiFlowNet().init,
  jax.random.key(0),
  jax.ShapeDtypeStruct((1, 2, 32, 32, 3), 'f4'),
)['params']


def random_weights():
  """As published, of random numbers."""
  rng = np.random.default_rng(0)
  flat, weights = params.flatten(SHAPES), {}
  for name, (path, kind, _) in torch_names().items():
    shape = flat[path].shape
    if kind == 'conv':
      height, width, inputs, outputs = shape
      shape = outputs, inputs, height, width
    weights[name] = rng.normal(size=shape).astype(np.float32)
  return weights


def test_flow_becomes_that_of_a_system_that_only_warps():
  weights = random_weights()
  variables = convert.from_torch('apr_vfi', weights, synthesis='warp')
  assert set(variables['params']) == {'flow'}
  assert jax.tree.structure(variables['params']['flow']) == jax.tree.structure(
    SHAPES
  )
  flow = variables['params']['flow']
  np.testing.assert_array_equal(
    flow['estimator']['conv_1']['kernel'][2, 0, 5, 7],
    weights['flow_estimator.conv_layer2.0.weight'][7, 5, 2, 0],
  )
  # They see BGR, we show RGB.
  first = weights['feat_pyramid.conv_stage1.0.weight'].transpose(2, 3, 1, 0)
  kernel = flow['encoder']['conv_0']['kernel']
  np.testing.assert_array_equal(kernel, first[:, :, ::-1])
  kept = convert.from_torch(
    'apr_vfi', weights, synthesis='warp', channel_order='rgb'
  )
  kernel = kept['params']['flow']['encoder']['conv_0']['kernel']
  np.testing.assert_array_equal(kernel, first)


def test_what_cannot_be_is_refused():
  weights = random_weights()
  with pytest.raises(ValueError, match='flow alone.*synthesis=warp'):
    convert.from_torch('apr_vfi', weights)
  with pytest.raises(ValueError, match="'gbr'"):
    convert.from_torch(
      'apr_vfi', weights, synthesis='warp', channel_order='gbr'
    )
  del weights['flow_estimator.conv_layer6.0.bias']
  with pytest.raises(ValueError, match='missing: flow_estimator'):
    convert.from_torch('apr_vfi', weights, synthesis='warp')


@pytest.mark.parametrize('name', ['ebme', 'ebme-h'])
def test_published_file_becomes_an_exported_system(shared, tmp_path, name):
  """Whose flow another system takes over."""
  file = shared / 'data' / 'weights' / 'ebme' / f'{name}_bi-flownet.pkl'
  direct = convert.from_torch(
    'apr_vfi', convert.read_torch(str(file)), synthesis='warp'
  )
  if name == 'ebme':
    stored = np.load(shared / 'parity' / 'ebme' / 'weights_ebme.npz')
    jax.tree.map(
      np.testing.assert_array_equal,
      direct,
      convert.from_torch('apr_vfi', dict(stored), synthesis='warp'),
    )
  output = tmp_path / 'system'
  checkpoint.save_system(
    str(output),
    system='apr_vfi',
    settings={'synthesis': 'warp'},
    frames=convert.trained_frames('apr_vfi', {}),
    variables=direct,
  )
  system, variables = checkpoint.load(str(output))
  assert system.frames == systems.Frames((0, 2), (1,))
  jax.tree.map(np.testing.assert_array_equal, dict(variables), direct)

  stage1 = systems.make('apr_vfi', frames=system.frames, synthesis='whole')
  shapes = jax.eval_shape(
    stage1.init, jax.random.key(0), np.zeros((1, 3, 32, 32, 3), np.float32)
  )
  empty = jax.tree.map(lambda x: np.zeros(x.shape), shapes['params'])
  taken = params.take_matching(empty, variables['params'], 'flow/.*')
  jax.tree.map(
    np.testing.assert_array_equal, taken['flow'], direct['params']['flow']
  )
  assert not np.any(taken['context']['conv_0_0']['kernel'])


def test_published_flow_makes_middle_frames(shared):
  """Real frames moved by a known translation: far better than their mean."""
  stored = np.load(shared / 'parity' / 'ebme' / 'weights_ebme.npz')
  variables = convert.from_torch('apr_vfi', dict(stored), synthesis='warp')
  case = np.load(shared / 'parity' / 'ebme' / 'case_a_beanbags_pyr3.npz')
  image = np.moveaxis(case['img0'], 1, -1)[..., ::-1].astype(np.float32) / 255
  clip = np.stack(
    [
      image[:, 40 - 3 * t : 168 - 3 * t, 60 + 5 * t : 220 + 5 * t]
      for t in range(3)
    ],
    1,
  )
  system = systems.make(
    'apr_vfi', frames=systems.Frames((0, 2), (1,)), synthesis='warp', levels=3
  )
  frames = jax.jit(system.predict)(variables, clip[:, ::2], jax.random.key(0))

  def psnr(x):
    return -10 * np.log10(np.mean((np.asarray(x) - clip[:, 1]) ** 2))

  assert psnr(frames[:, 0]) > psnr(clip[:, ::2].mean(1)) + 5
