"""Which blocks of DMVFN run: gates in training and at inference.

Hu et al., "A Dynamic Multi-Scale Voxel Flow Network for Video Prediction", CVPR
2023; equation and table numbers are this paper's.
"""

import jax
import jax.numpy as jnp

from vidpred_jax.models import dmvfn
from vidpred_jax.ops import routing
from vidpred_jax.systems.dmvfn_settings import Settings


def probabilities(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, budget: float
) -> tuple[jax.Array, jax.Array | None]:
  """The probability of each block, [B, n], and the router's logits.

  Args:
    model: the network.
    settings: its system's.
    variables: its variables.
    pair: [B, 2, H, W, 3].
    budget: the share of blocks that 'stebs' uses.
  """
  if settings.routing == 'random':
    return jnp.full((len(pair), len(settings.scales)), 0.5), None
  logits = model.apply(variables, pair, method='route')
  if settings.routing == 'gumbel':
    return jax.nn.softmax(logits, -1)[..., 1], logits
  return routing.budgeted_probabilities(logits[..., 0], budget), logits


def training_gates(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, key: jax.Array
) -> jax.Array | None:
  """Draws gates [B, n] with a gradient to the router; None: every block."""
  if settings.routing == 'none':
    return None
  chances, logits = probabilities(
    model, settings, variables, pair, settings.beta
  )
  if settings.routing == 'gumbel':
    hot, cold = settings.temperature
    progress = variables['routing']['step'] / settings.temperature_steps
    tau = hot * (cold / hot) ** jnp.minimum(progress, 1.0)
    assert logits is not None  # only 'random' has none
    return routing.gumbel(key, logits, tau)
  return routing.bernoulli(key, chances)


def inference_gates(
  model: dmvfn.DMVFN, settings: Settings, variables, pair, key: jax.Array
) -> jax.Array:
  """The gates at inference, [B, n], 0 or 1."""
  kind, how = settings.routing, settings.inference_routing
  if kind == 'none' or how == 'all':
    return jnp.ones((pair.shape[0], len(settings.scales)), jnp.float32)
  budget = settings.inference_beta
  budget = settings.beta if budget is None else budget
  chances, _ = probabilities(model, settings, variables, pair, budget)
  if how == 'sample' or kind == 'random':
    return routing.bernoulli(key, chances)
  if kind == 'gumbel':
    return (chances >= 0.5).astype(jnp.float32)
  return routing.deterministic_gates(chances)
