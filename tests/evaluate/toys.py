"""A system of a few lines, clips, and how they are measured."""

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import metrics, systems
from vidpred_jax.evaluate import scoring

FRAMES = systems.Frames((0, 1), (2, 3, 4))


def toy(frames=FRAMES):
  """Predicts the last frame, a little darker with each step."""

  def predict(variables, context, key):
    del key
    steps = jnp.arange(1, 1 + len(frames.target)).reshape(1, -1, 1, 1, 1)
    return context[:, -1:] - variables['params']['fade'] * steps / 255.0

  return systems.System(
    init=lambda key, video: {'params': {'fade': jnp.float32(1)}},
    loss=None,
    predict=predict,
    frames=frames,
    multiple=1,
    stochastic=False,
  )


def drawing(frames=FRAMES, with_diagnostics=False):
  """Adds noise to the last frame; its draw depends on the batch's shape."""

  def predict(variables, context, key):
    shape = (len(context), len(frames.target), *context.shape[2:])
    noise = jax.random.normal(key, shape)
    return context[:, -1:] + variables['params']['size'] * noise

  def diagnosed(variables, context, key):
    drawn = predict(variables, context, key)
    return drawn, {'blocks': (drawn[:, :, :4, 0, 0] > 0.5).astype(jnp.float32)}

  return systems.System(
    init=None,
    loss=None,
    predict=predict,
    frames=frames,
    multiple=1,
    stochastic=True,
    diagnostics=diagnosed if with_diagnostics else None,
  )


DRAWN = {'params': {'size': jnp.float32(0.1)}}


def batches(clips, size, total=None):
  for i in range(0, len(clips), size):
    video = clips[i : i + size]
    missing = size - len(video)
    valid = np.arange(size) < len(video)
    video = np.concatenate([video, np.repeat(clips[-1:], missing, 0)])
    yield {'video': video, 'valid': valid}


def clips(count=11, side=16, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, 5, side, side, 3), dtype=np.uint8)


def measured(*names):
  return {name: metrics.make(name) for name in names}


IMAGES = systems.DataSpec()


def field(mean, std):
  """Physical fields of two variables, or of one for all channels."""
  return systems.DataSpec('field', ('a', 'b'), 'K', mean, std)


def run(
  video,
  size,
  mesh=None,
  names=('psnr/float', 'rmse/mean'),
  data=IMAGES,
  **kwargs,
):
  system = toy()._replace(data=data)
  return scoring.evaluate(
    system,
    {'params': {'fade': jnp.float32(2)}},
    batches(video, size),
    measured(*names),
    key=jax.random.key(0),
    mesh=mesh,
    **kwargs,
  )
