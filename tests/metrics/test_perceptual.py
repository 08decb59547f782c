"""LPIPS, with a random backbone: the trained one is the user's."""

import jax
import numpy as np
import pytest

from vidpred_jax import convert, metrics

# channels in, channels out, kernel, stride, pad of AlexNet's convolutions
LAYERS = {
  0: (3, 64, 11, 4, 2),
  3: (64, 192, 5, 1, 2),
  6: (192, 384, 3, 1, 1),
  8: (384, 256, 3, 1, 1),
  10: (256, 256, 3, 1, 1),
}


@pytest.fixture(scope='module')
def weights():
  """Random weights under the published names, in PyTorch's layout."""
  rng = np.random.default_rng(0)
  backbone, heads = {}, {}
  for number, (index, layer) in enumerate(LAYERS.items()):
    inputs, outputs, kernel, _, _ = layer
    shape = (outputs, inputs, kernel, kernel)
    scale = np.sqrt(2 / (inputs * kernel**2))
    kernel = scale * rng.standard_normal(shape)
    backbone[f'features.{index}.weight'] = kernel.astype(np.float32)
    bias = 0.1 * rng.standard_normal(outputs)
    backbone[f'features.{index}.bias'] = bias.astype(np.float32)
    head = rng.random((1, outputs, 1, 1), np.float32)
    heads[f'lin{number}.model.1.weight'] = head
  backbone['classifier.6.bias'] = np.zeros(1000, np.float32)
  return backbone, heads


@pytest.fixture(scope='module')
def variables(weights, tmp_path_factory):
  folder = tmp_path_factory.mktemp('lpips')
  np.savez(folder / 'alexnet.npz', **weights[0])
  np.savez(folder / 'heads.npz', **weights[1])
  return convert.lpips(folder / 'alexnet.npz', folder / 'heads.npz')


@pytest.fixture(scope='module')
def clips():
  rng = np.random.default_rng(1)
  target = rng.random((2, 2, 40, 56, 3), np.float32)
  noise = 0.2 * rng.standard_normal(target.shape).astype(np.float32)
  return np.clip(target + noise, 0, 1), target


def windows(x, kernel, stride):
  """`[C, H, W]` -> `[C, H', W', kernel, kernel]`."""
  views = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (1, 2))
  return views[:, ::stride, ::stride]


def reference(weights, x, y):
  """LPIPS of two float64 frames `[H, W, 3]` in [0, 1], channels first."""
  return sum(m.mean() for m in reference_maps(weights, x, y))


def reference_maps(weights, x, y):
  """The distances [H', W'] of each layer."""
  backbone, heads = weights
  maps = []
  pair = []
  for image in (x, y):
    image = 2 * np.moveaxis(image, -1, 0) - 1
    shift = np.array([-0.030, -0.088, -0.188])[:, None, None]
    scale = np.array([0.458, 0.448, 0.450])[:, None, None]
    pair.append((image - shift) / scale)
  for number, (index, (_, _, kernel, stride, pad)) in enumerate(LAYERS.items()):
    for i, z in enumerate(pair):
      if index in (3, 6):
        z = windows(z, 3, 2).max((3, 4))
      z = np.pad(z, [(0, 0), (pad, pad), (pad, pad)])
      z = np.einsum(
        'chwij,ocij->ohw',
        windows(z, kernel, stride),
        backbone[f'features.{index}.weight'].astype(np.float64),
        optimize=True,
      )
      bias = backbone[f'features.{index}.bias']
      pair[i] = np.maximum(z + bias[:, None, None], 0)
    unit = [z / (np.sqrt((z**2).sum(0)) + 1e-10) for z in pair]
    head = heads[f'lin{number}.model.1.weight'].reshape(-1, 1, 1)
    maps.append((head * (unit[0] - unit[1]) ** 2).sum(0))
  return maps


def measure(name, variables, pred, target):
  return np.asarray(
    jax.jit(metrics.make(name, variables=variables).values)(pred, target)
  )


def test_equals_the_formula(weights, variables, clips):
  expected = [
    [reference(weights, *np.float64(pair)) for pair in zip(*clip)]
    for clip in zip(*clips)
  ]
  got = measure('lpips/alex', variables, *clips)
  assert got.shape == (2, 2)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_equal_frames_have_no_distance(variables, clips):
  _, target = clips
  for frame in (target, np.zeros_like(target)):
    np.testing.assert_allclose(
      measure('lpips/alex', variables, frame, frame), 0, atol=1e-12
    )


def test_symmetric(variables, clips):
  np.testing.assert_allclose(
    measure('lpips/alex', variables, *clips),
    measure('lpips/alex', variables, *clips[::-1]),
    rtol=1e-6,
  )


def test_bgr_is_rgb_of_flipped_frames(variables, clips):
  got = measure('lpips/alex_bgr', variables, *clips)
  flipped = [x[..., ::-1].copy() for x in clips]
  np.testing.assert_allclose(
    got, measure('lpips/alex', variables, *flipped), rtol=1e-6
  )
  assert np.abs(got - measure('lpips/alex', variables, *clips)).max() > 1e-4


def test_spatial_is_the_mean_of_the_map_brought_to_the_frames_size(
  weights, variables, clips
):
  torch = pytest.importorskip('torch')
  maps = reference_maps(
    weights, *(np.float64(x[0, 0, :, :, ::-1]) for x in clips)
  )
  grown = [
    torch.nn.functional.interpolate(
      torch.from_numpy(m)[None, None], size=(40, 56), mode='bilinear'
    )
    for m in maps
  ]
  got = measure('lpips/alex_bgr_spatial', variables, *clips)[0, 0]
  np.testing.assert_allclose(got, float(sum(grown).mean()), rtol=1e-5)
  # The layers' borders weigh differently: not the same number as before.
  plain = measure('lpips/alex_bgr', variables, *clips)[0, 0]
  assert abs(got / plain - 1) > 1e-4


def test_grey_is_repeated(variables, clips):
  grey = [x[..., :1] for x in clips]
  np.testing.assert_allclose(
    measure('lpips/alex', variables, *grey),
    measure('lpips/alex', variables, *(np.repeat(x, 3, -1) for x in grey)),
    rtol=1e-6,
  )


def test_prediction_is_clipped(variables, clips):
  pred, target = clips
  beyond = np.where(target > 0.5, pred + 0.7, pred - 0.7)
  np.testing.assert_allclose(
    measure('lpips/alex', variables, beyond, target),
    measure('lpips/alex', variables, np.clip(beyond, 0, 1), target),
    rtol=1e-6,
  )


def test_published_heads(shared, weights, tmp_path):
  np.savez(tmp_path / 'alexnet.npz', **weights[0])
  variables = convert.lpips(
    tmp_path / 'alexnet.npz', shared / 'data/weights/lpips/v0.1/alex.pth'
  )
  sizes = [len(variables['heads'][f'lin{i}']) for i in range(5)]
  assert sizes == [64, 192, 384, 256, 256]
  assert all((head >= 0).all() for head in variables['heads'].values())
  with pytest.raises(ValueError, match=r'vgg.pth.*lin1.*128'):
    convert.lpips(
      tmp_path / 'alexnet.npz', shared / 'data/weights/lpips/v0.1/vgg.pth'
    )


@pytest.mark.parametrize('name', ['lpips/alex', 'lpips/alex_bgr'])
def test_without_weights_it_says_where_they_are(name):
  expected = r'(?s)alexnet-owt-7be5be79.pth.*v0.1/alex.pth.*PerceptualSimilari'
  for settings in ({}, {'variables': None}, {'variables': {'params': {}}}):
    with pytest.raises(ValueError, match=expected):
      metrics.make(name, **settings)


def test_wrong_frames_are_refused(variables):
  metric = metrics.make('lpips/alex', variables=variables)
  assert metric.minimum_size == 31
  small = np.zeros((1, 1, 30, 64, 3), np.float32)
  with pytest.raises(ValueError, match='30x64.*31'):
    metric.values(small, small)
  smallest = np.zeros((1, 1, 31, 31, 3), np.float32)
  assert jax.eval_shape(metric.values, smallest, smallest).shape == (1, 1)
  four = np.zeros((1, 1, 64, 64, 4), np.float32)
  with pytest.raises(ValueError, match='got 4'):
    metric.values(four, four)
