"""Initial values: what each parameter is drawn from, and draws of a model.

Layers declare parameters by `param`, which is `Module.param` of Flax and tells
`draw` the distribution. `Module.init` works as ever, but XLA compiles each draw
and each array anew: 47 s for the 546 of RVD. `draw` gives other values of the
same distributions without a compiler: NumPy draws them.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

# The deviation of a standard normal that is cut at -2 and 2.
_CUT_DEVIATION = 0.87962566103423978

# A random stream, with which layers tell and draw nothing, and the collection
# of what they tell.
_TOLD = 'distributions'


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Distribution:
  """What a parameter is drawn from; an initialiser `(key, shape, dtype)`.

  Attributes:
    kind: 'constant', 'uniform', 'normal' or 'truncated_normal'.
    scale: the constant; the bound b of a uniform one, in [-b, b); the standard
      deviation of a normal one, of mean 0. The truncated one is cut at two
      deviations of the normal that it is cut from.
  """

  kind: str
  scale: float

  def __call__(self, key, shape, dtype=jnp.float32):
    """An array of this shape, by JAX; of a constant `key` may be None."""
    if self.kind == 'constant':
      return jnp.full(shape, self.scale, dtype)
    if self.kind == 'uniform':
      return jax.random.uniform(key, shape, dtype, -self.scale, self.scale)
    if self.kind == 'normal':
      return self.scale * jax.random.normal(key, shape, dtype)
    cut = jax.random.truncated_normal(key, -2, 2, shape, dtype)
    return self.scale / _CUT_DEVIATION * cut

  def sample(self, rng: np.random.Generator, shape) -> np.ndarray:
    """An array of this shape, float32, by NumPy."""
    if self.kind == 'constant':
      return np.full(shape, self.scale, np.float32)
    if self.kind == 'uniform':
      values = rng.random(shape, np.float32)
      values *= 2 * self.scale
      values -= self.scale
      return values
    values = rng.standard_normal(shape, np.float32)
    scale = self.scale
    if self.kind == 'truncated_normal':
      scale /= _CUT_DEVIATION
      while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(outside.sum(), np.float32)
    values *= scale
    return values


def constant(value: float) -> Distribution:
  """Always this value."""
  return Distribution('constant', value)


def uniform(bound: float) -> Distribution:
  """Uniform in [-bound, bound)."""
  return Distribution('uniform', bound)


def normal(deviation: float) -> Distribution:
  """Normal of mean 0 and this standard deviation."""
  return Distribution('normal', deviation)


def truncated_normal(deviation: float) -> Distribution:
  """Of mean 0 and this deviation, a normal cut at two of its own deviations."""
  return Distribution('truncated_normal', deviation)


ZEROS, ONES = constant(0.0), constant(1.0)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Derived:
  """The value of a parameter that follows from another one of its layer.

  It is an initialiser `(key, source) -> array`.

  Attributes:
    function: of the source, an array of NumPy or JAX.
    source: the name of the other parameter.
  """

  function: Callable[[Any], Any]
  source: str

  def __call__(self, key, source):
    """`function(source)`."""
    return self.function(source)


def param(
  module: nn.Module, name: str, distribution: Distribution | Derived, of
) -> jax.Array:
  """Declares a parameter, in place of `module.param`.

  Args:
    module: the layer.
    name: of the parameter.
    distribution: what it is drawn from.
    of: its shape, or the value that it is derived from.

  Returns:
    Its value.
  """
  told = _tell(module, name, distribution)
  if isinstance(distribution, Distribution) and (
    told or module.has_variable('params', name)
  ):
    # Flax traces the draw of a parameter that is there too, for its shape.
    distribution = ZEROS
  return module.param(name, distribution, of)


def variable(
  module: nn.Module,
  collection: str,
  name: str,
  distribution: Distribution,
  shape: tuple[int, ...],
) -> nn.Variable:
  """Declares a constant of another collection, in place of `module.variable`.

  Args:
    module: the layer.
    collection: such as 'batch_stats'.
    name: other than those of the layer's parameters.
    distribution: a constant.
    shape: of the array.

  Returns:
    The variable.
  """
  _tell(module, name, distribution)
  return module.variable(collection, name, distribution, None, shape)


def _tell(module, name, distribution):
  """Tells what a parameter is drawn from, if `draw` asks; whether it does."""
  told = module.has_rng(_TOLD)
  if told:
    module.put_variable(_TOLD, name, distribution)
  return told


def draw(key: jax.Array, module: nn.Module, *args, **kwargs) -> dict[str, Any]:
  """Draws the variables of a model, as distributed as by `module.init`.

  A value is a function of the key and of the names of the parameter, whatever
  else is in the model. The model is traced, not run.

  Args:
    key: a random key. Under `jit`, where it is not known yet, the compiled
      program asks NumPy when it runs.
    module: whose layers declare their parameters by `param` and `variable`.
    *args: of its call; shapes do.
    **kwargs: of its call, static.

  Returns:
    `{'params': ...}` and the module's other collections, as of `module.init`.

  Raises:
    ValueError: if a layer declares a parameter otherwise.
  """
  init = functools.partial(module.init, **kwargs)
  shapes = dict(jax.eval_shape(init, {'params': key, _TOLD: key}, *args))
  told = traverse_util.flatten_dict(shapes.pop(_TOLD, {}))
  shapes = traverse_util.flatten_dict(shapes)
  for path in shapes:
    if path[1:] not in told:
      raise ValueError(
        f'{"/".join(path)} is not declared by vidpred_jax.models.initial.'
      )

  def values(words):
    drawn = {}
    for derived in (False, True):
      for path, leaf in shapes.items():
        rule = told[path[1:]]
        if isinstance(rule, Derived) != derived:
          continue
        if derived:
          drawn[path] = rule.function(drawn[*path[:-1], rule.source])
        else:
          drawn[path] = rule.sample(_generator(words, path), leaf.shape)
    return _nested(drawn)

  words = jax.random.key_data(key)
  if not isinstance(words, jax.core.Tracer):
    return jax.device_put(values(words))
  return jax.pure_callback(
    values, _nested(shapes), words, vmap_method='sequential'
  )


def _nested(flat):
  """A tree of variables; a model may have no parameters."""
  return {'params': {}} | traverse_util.unflatten_dict(flat)


def _generator(words, path):
  """The generator of one parameter."""
  name = hashlib.sha256('/'.join(path).encode()).digest()
  seed = np.append(np.asarray(words), np.frombuffer(name, np.uint32))
  return np.random.default_rng(seed)
