"""SimVP and SimVPv2 as a system: its loss and its prediction.

Tan et al., "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive
Learning", 2022 (Gao et al., CVPR 2022, is SimVP with the translator 'incepu').
One call maps T context frames to the next T frames. Other numbers of target
frames follow section V-C: of fewer targets the first ones are taken; for more
targets predictions are fed back as the next context, T at a time, in training
as in prediction.

Batch normalisation: in training the statistics are those of the whole batch
over all devices and hosts (the published code normalises each GPU's part by
itself), or of one micro-batch where gradients are accumulated. The running
statistics are in `variables['batch_stats']`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax import losses
from vidpred_jax.models import initial, simvp
from vidpred_jax.systems import base
from vidpred_jax.systems import settings as rules

# 2026-11, gSTA-S: Eigen's matrix products in place of YNNPACK's save 5 % of the
# time of a batch of 16, vectors of 512 bits (where there are) 3 %. DMVFN gets
# slower by either.
CPU_OPTIONS = (
  ('xla_cpu_experimental_ynn_fusion_type', 'LIBRARY_FUSION_TYPE_REDUCE'),
  ('xla_cpu_prefer_vector_width', 512),
)


class Settings(NamedTuple):
  """The settings of SimVP.

  Attributes:
    channels: of a frame, C.
    hid_s: width of the encoder and decoder.
    hid_t: width of the translator.
    n_s: layers of the encoder, and of the decoder, even; the encoder
      downsamples frames by 2^(n_s / 2).
    n_t: blocks of the translator (for 'incepu' of each half).
    translator: one of `models.simvp.TRANSLATORS`.
    mlp_ratio: width of the blocks' hidden layers, relative.
    drop_path: rate of stochastic depth in the last block.
    first_drop_path: the rate in the first block; it is linear in between. The
      published code has 0.01 for any `drop_path`.
    divergence_weight: of the differential divergence in the loss; None is 0.1
      for 'tau', as published, and 0 for the others.
    dtype: of the computation, 'float32' or 'bfloat16'; parameters, norms and
      the loss are float32.
  """

  channels: int = 1
  hid_s: int = 64
  hid_t: int = 512
  n_s: int = 4
  n_t: int = 8
  translator: str = 'gsta'
  mlp_ratio: float = 8.0
  drop_path: float = 0.0
  first_drop_path: float = 0.01
  divergence_weight: float | None = None
  dtype: str = 'float32'


_RATE = rules.Rule(
  lambda x: rules.number(0, 1).accepts(x) and x < 1, 'a probability below 1'
)
_RULES = {
  'channels': rules.positive_int(most=4096),
  # Two groups of the norms; eight heads, or parts, of the translators.
  'hid_s': rules.positive_int(2, most=16384),
  'hid_t': rules.positive_int(8, most=16384),
  'n_s': rules.positive_int(2, 'an even number of layers', most=24),
  'n_t': rules.whole(2, 128, 'at least 2 blocks, at most 128'),
  'translator': rules.one_of(simvp.TRANSLATORS),
  'mlp_ratio': rules.number(0.1, expected='a positive number'),
  'drop_path': _RATE,
  'first_drop_path': _RATE,
  'divergence_weight': rules.either(
    None, rules.number(0, expected='0 or more, or None')
  ),
  'dtype': rules.one_of(('float32', 'bfloat16')),
}


def forecast(
  model: simvp.SimVP, variables, context: jax.Array, count: int
) -> jax.Array:
  """Predicts `count` frames after a context [B, T, H, W, C], T at a time."""
  length, parts = context.shape[1], []
  for _ in range(0, count, length):
    context = model.apply(variables, context, train=False)
    parts.append(context)
  return jnp.concatenate(parts, 1)[:, :count]


def training_forecast(
  model: simvp.SimVP, variables, context: jax.Array, count: int, key: jax.Array
):
  """As `forecast`, with stochastic depth and the batch's statistics.

  Returns:
    The frames, and the variables with new running statistics.
  """
  length, parts = context.shape[1], []
  for i in range(0, count, length):
    context, updated = model.apply(
      variables,
      context,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.fold_in(key, i)},
    )
    variables = {**variables, **updated}
    parts.append(context)
  return jnp.concatenate(parts, 1)[:, :count], variables


def clip_loss(
  model: simvp.SimVP,
  frames: base.Frames,
  divergence_weight: float,
  variables,
  video: jax.Array,
  key: jax.Array,
):
  """The loss of a clip, as `System.loss`."""
  context = base.take(video, frames.context)
  target = base.take(video, frames.target)
  prediction, variables = training_forecast(
    model, variables, context, len(frames.target), key
  )
  total = jnp.mean((prediction - target) ** 2)
  metrics = {'mse': total}
  if divergence_weight:
    metrics['divergence'] = losses.differential_divergence(prediction, target)
    total += divergence_weight * metrics['divergence']
  collections = {k: v for k, v in variables.items() if k != 'params'}
  return total, (collections, metrics)


def make(*, frames: base.Frames, **settings) -> base.System:
  """Makes a SimVP.

  Args:
    frames: the context, at even steps, and targets that go on at that step.
    **settings: fields of `Settings`.

  Returns:
    The system. Metrics of its loss: 'mse' and, where it counts, 'divergence'.

  Raises:
    ValueError: if `frames` or a setting cannot be.
  """
  chosen = rules.check(Settings(**settings), _RULES)
  base.check_frames(frames, 'simvp', '((0, 1, 2), (3, 4, 5))')
  channels, divergence_weight = chosen.channels, chosen.divergence_weight
  if divergence_weight is None:
    divergence_weight = 0.1 if chosen.translator == 'tau' else 0.0
  num_context = len(frames.context)
  model = simvp.SimVP(
    frames=num_context,
    channels=channels,
    hid_s=chosen.hid_s,
    hid_t=chosen.hid_t,
    n_s=chosen.n_s,
    n_t=chosen.n_t,
    translator=chosen.translator,
    mlp_ratio=chosen.mlp_ratio,
    drop_path=chosen.drop_path,
    first_drop_path=chosen.first_drop_path,
    dtype=jnp.dtype(chosen.dtype),
  )
  multiple = 2 ** (chosen.n_s // 2)

  def init(key, video):
    base.check_shape(video, frames.length, channels, multiple)
    seen_clip = (len(video), num_context, *video.shape[2:])
    seen = jax.ShapeDtypeStruct(seen_clip, jnp.float32)
    return initial.draw(key, model, seen, train=False)

  def clip_size(variables):
    size = simvp.feature_size(variables['params'])
    return size and (size[0] * multiple, size[1] * multiple)

  def loss(variables, video, key):
    base.check_clip(video, frames.length, channels, multiple)
    return clip_loss(model, frames, divergence_weight, variables, video, key)

  def predict(variables, context, key):
    del key
    base.check_context(context, num_context, channels, multiple)
    return forecast(model, variables, context, len(frames.target))

  return base.System(
    init=init,
    loss=loss,
    predict=predict,
    frames=frames,
    multiple=multiple,
    stochastic=False,
    channels=channels,
    clip_size=clip_size,
    cpu_options=CPU_OPTIONS,
  )
