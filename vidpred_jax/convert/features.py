"""Converts published weights of the frozen feature networks."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import params
from vidpred_jax.convert import weights
from vidpred_jax.models import features


def _features(path: str, module, indices, ignored: str, source: str):
  """The parameter tree of a module of `models.features`."""
  arrays = weights.read_torch(path)
  arrays = {k: x for k, x in arrays.items() if not re.fullmatch(ignored, k)}
  clip = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  expected = jax.eval_shape(module.init, jax.random.key(0), clip)['params']
  names = {}
  for i in indices:
    names[f'features.{i}.weight'] = (f'features_{i}/kernel', 'conv')
    names[f'features.{i}.bias'] = (f'features_{i}/bias', 'vector')
  try:
    tree = weights.rearrange(names, arrays, expected)
    params.check_finite(params.flatten(tree))
    return tree
  except ValueError as error:
    raise ValueError(f'{path} is not {source}. {error}') from None


def vgg19(path: str) -> dict[str, Any]:
  """Parameters of `models.features.VGG19` from torchvision's weights.

  Args:
    path: torchvision's vgg19-dcbb9e9d.pth or its `state_dict` in another form
      that `weights.read_torch` reads; layers that are not needed may be absent.

  Returns:
    The parameter tree, NumPy float32.

  Raises:
    ValueError: if they are other weights.
    OSError: if the file cannot be read.
  """
  return _features(
    path,
    features.VGG19(),
    features.VGG19_CONVOLUTIONS,
    r'features\.(30|32|34)\..*|classifier\..*',
    "torchvision's VGG19",
  )


def alexnet(path: str) -> dict[str, Any]:
  """Parameters of `models.features.AlexNet` from torchvision's weights.

  Args:
    path: torchvision's alexnet-owt-7be5be79.pth or its `state_dict` in another
      form that `weights.read_torch` reads; the classifier may be absent.

  Returns:
    The parameter tree, NumPy float32.

  Raises:
    ValueError: if they are other weights.
    OSError: if the file cannot be read.
  """
  return _features(
    path,
    features.AlexNet(),
    features.ALEXNET_CONVOLUTIONS,
    r'classifier\..*',
    "torchvision's AlexNet",
  )


def lpips(alexnet_path: str, heads_path: str) -> dict[str, Any]:
  """Reads the parameters of the metric `lpips/alex`.

  Args:
    alexnet_path: torchvision's alexnet-owt-7be5be79.pth.
    heads_path: lpips/weights/v0.1/alex.pth of richzhang/PerceptualSimilarity.
      (v0.0 has the same form and cannot be told apart; it belongs to another
      input scaling.)

  Returns:
    `{'alexnet': parameters, 'heads': {'lin0': [64], ... 'lin4': [256]}}`.

  Raises:
    ValueError: if they are other weights.
    OSError: if a file cannot be read.
  """
  channels = [c for c, *_ in features.ALEXNET_CONVOLUTIONS.values()]
  expected = {
    f'lin{i}.model.1.weight': np.empty((1, c, 1, 1))
    for i, c in enumerate(channels)
  }
  try:
    heads = params.merge_or_refuse(expected, weights.read_torch(heads_path))
    params.check_finite(heads)
  except ValueError as error:
    raise ValueError(
      f"{heads_path} does not hold LPIPS's heads for AlexNet. {error}"
    ) from None
  return {
    'alexnet': alexnet(alexnet_path),
    'heads': {
      name.split('.')[0]: np.array(x, np.float32).reshape(-1)
      for name, x in heads.items()
    },
  }


# What the file of StyleGAN-V calls units -> the names of pytorch-i3d.
_I3D_NAMES = (
  (r'conv3d_0c_1x1\.', 'logits.'),
  (r'conv3d_(\w+?)\.', r'Conv3d_\1.'),
  (r'mixed_(\w+?)\.', r'Mixed_\1.'),
  (r'(\w+)\.branch_0\.', r'\1.b0.'),
  (r'(\w+)\.branch_([12])\.0\.', r'\1.b\2a.'),
  (r'(\w+)\.branch_([12])\.1\.', r'\1.b\2b.'),
  (r'(\w+)\.branch_3\.1\.', r'\1.b3b.'),
  (r'(.*)\.batch3d\.', r'\1.bn.'),
)


def i3d(path: str) -> dict[str, Any]:
  """Parameters of `models.features.I3D`, for the Frechet video distance.

  Args:
    path: weights for RGB and 400 classes under the names of pytorch-i3d
      (`Mixed_3b.b1a.conv3d.weight`; VideoGPT's i3d_pretrained_400.pt) or those
      of StyleGAN-V (`mixed_3b.branch_1.0.conv3d.weight`). The latter's
      i3d_torchscript.pt is a program: save `torch.jit.load(...).state_dict()`.

  Returns:
    The parameter tree, NumPy float32.

  Raises:
    ValueError: if they are other weights.
    OSError: if the file cannot be read.
  """
  arrays = {}
  for name, array in weights.read_torch(path).items():
    for pattern, new in _I3D_NAMES:
      name = re.sub(f'^{pattern}', new, name)
    if not name.endswith('.num_batches_tracked'):
      arrays[name] = array
  clip = jax.ShapeDtypeStruct((1, features.I3D_MINIMUM_FRAMES, 32, 32, 3), 'f4')
  expected = jax.eval_shape(features.I3D().init, jax.random.key(0), clip)
  expected = expected['params']
  parts = {
    'scale': ('bn.weight', 'vector'),
    'bias': ('bn.bias', 'vector'),
    'mean': ('bn.running_mean', 'vector'),
    'var': ('bn.running_var', 'vector'),
    'kernel': ('conv3d.weight', 'conv3d'),
  }
  names = {}
  for place in params.flatten(expected):
    unit, part = place.rsplit('/', 1)
    name, kind = parts[part]
    names[f'{unit.replace("/", ".")}.{name}'] = (place, kind)
  del names['logits.bn.bias']
  names['logits.conv3d.bias'] = ('logits/bias', 'vector')
  names['logits.conv3d.weight'] = ('logits/kernel', 'linear3d')
  try:
    tree = weights.rearrange(names, arrays, expected)
    params.check_finite(params.flatten(tree))
    return tree
  except ValueError as error:
    raise ValueError(f'{path} is not I3D of Kinetics-400. {error}') from None


# collection of a system's variables -> function(path) -> parameters
FEATURES = {'vgg': vgg19}
