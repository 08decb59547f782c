"""A system of two convolutions, which the loop trains as any other.

What the loop promises holds for every system alike, and this one is traced and
compiled in a moment. That it holds for a published one is seen from outside, in
`tests/test_main.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax.systems import base


class Settings(NamedTuple):
  channels: int = 3
  draws: bool = True  # which pixels count is drawn
  statistics: bool = False  # keeps the running mean of what it sees


def make(*, frames, **changed):
  settings = Settings(**changed)

  def init(key, video):
    shape = 3, 3, settings.channels, settings.channels
    variables = {
      'params': {
        f'block_{i}': {
          'kernel': 0.1 * jax.random.normal(key, shape),
          'bias': jnp.zeros(settings.channels),
        }
        for i, key in enumerate(jax.random.split(key))
      }
    }
    if settings.statistics:
      mean = jnp.zeros(settings.channels)
      variables['batch_stats'] = {'norm': {'mean': mean}}
    return variables

  def following(params, frame):
    for block in params.values():
      change = jax.lax.conv_general_dilated(
        frame, block['kernel'], (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )  # fmt: skip
      bias = block['bias'].reshape(1, 1, 1, -1)
      frame = frame + jnp.tanh(change + bias)
    return frame

  def predict(variables, context, key):
    del key
    found = [context[:, -1]]
    for _ in frames.target:
      found.append(following(variables['params'], found[-1]))
    return jnp.stack(found[1:], 1)

  def loss(variables, video, key):
    base.check_clip(video, frames.length, settings.channels, 1)
    prediction = predict(variables, base.take(video, frames.context), key)
    error = (prediction - base.take(video, frames.target)) ** 2
    if settings.draws:
      error *= jax.random.bernoulli(key, 0.5, error.shape)
    updates = {}
    if settings.statistics:
      mean = 0.9 * variables['batch_stats']['norm']['mean']
      mean += 0.1 * video.mean((0, 1, 2, 3))
      updates = {'batch_stats': {'norm': {'mean': mean}}}
    return error.mean(), (updates, {'error': error.mean()})

  return base.System(
    init=init,
    loss=loss,
    predict=predict,
    frames=frames,
    multiple=1,
    stochastic=False,
    channels=settings.channels,
  )
