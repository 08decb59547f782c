"""Weights under published names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import params
from vidpred_jax.convert.dmvfn import torch_names as dmvfn_names
from vidpred_jax.models import dmvfn


@pytest.fixture(scope='module')
def published():
  """Random weights under the published names, in PyTorch's layout."""
  model = dmvfn.DMVFN()
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 2, 16, 16, 3))
  )
  flat = params.flatten(shapes['params'])
  rng = np.random.default_rng(0)
  state = {}
  for name, (path, kind, _) in dmvfn_names().items():
    shape = flat[path].shape
    array = 0.3 * rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
    array = array.astype(np.float32)
    to_torch = {'conv': (3, 2, 0, 1), 'conv_transpose': (2, 3, 0, 1)}
    state[name] = array.transpose(to_torch.get(kind, range(array.ndim)[::-1]))
  return state
