"""Weights of the frozen feature networks, from the files others published."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import params
from vidpred_jax.convert import weights
from vidpred_jax.models import features


def _features(path: str, key, module, indices, ignored: str, source: str):
  """The parameter tree of a module of `models.features`."""
  arrays = weights.read_torch(path, key)
  arrays = {k: x for k, x in arrays.items() if not re.fullmatch(ignored, k)}
  clip = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  expected = jax.eval_shape(module.init, jax.random.key(0), clip)['params']
  names = {}
  for i in indices:
    names[f'features.{i}.weight'] = (f'features_{i}/kernel', 'conv')
    names[f'features.{i}.bias'] = (f'features_{i}/bias', 'vector')
  try:
    return weights.rearrange(names, arrays, expected)
  except ValueError as error:
    raise ValueError(f'{path} is not {source}. {error}') from None


def vgg19(path: str, key: str | None = None) -> dict[str, Any]:
  """Parameters of `models.features.VGG19` from torchvision's weights.

  Args:
    path: torchvision's vgg19-dcbb9e9d.pth or its `state_dict` in another form
      that `weights.read_torch` reads; layers that are not needed may be absent.
    key: as for `weights.read_torch`.

  Returns:
    The parameter tree, NumPy float32.

  Raises:
    ValueError: if they are other weights.
    OSError: if the file cannot be read.
  """
  return _features(
    path,
    key,
    features.VGG19(),
    features.VGG19_CONVOLUTIONS,
    r'features\.(30|32|34)\..*|classifier\..*',
    "torchvision's VGG19",
  )


def alexnet(path: str, key: str | None = None) -> dict[str, Any]:
  """Parameters of `models.features.AlexNet` from torchvision's weights.

  Args:
    path: torchvision's alexnet-owt-7be5be79.pth or its `state_dict` in another
      form that `weights.read_torch` reads; the classifier may be absent.
    key: as for `weights.read_torch`.

  Returns:
    The parameter tree, NumPy float32.

  Raises:
    ValueError: if they are other weights.
    OSError: if the file cannot be read.
  """
  return _features(
    path,
    key,
    features.AlexNet(),
    features.ALEXNET_CONVOLUTIONS,
    r'classifier\..*',
    "torchvision's AlexNet",
  )


def lpips(alexnet_path: str, heads_path: str) -> dict[str, Any]:
  """What the metric `lpips/alex` needs.

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


# collection of a system's variables -> function(path) -> parameters
FEATURES = {'vgg': vgg19}
