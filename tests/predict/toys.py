"""Systems of a few lines, and films for them: enough to see what is served."""

import jax
import jax.numpy as jnp
import numpy as np

from vidpred_jax import video_io
from vidpred_jax.systems import base

F = base.Frames
NEXT = F((0, 1), (2,))
HALF = F((0, 2), (1,))


def make(
  predict, frames=NEXT, *, multiple=8, stochastic=False, diagnostics=None
):
  """A system of two lines, enough to see what the Predictor does with it."""

  def checked(variables, context, key):
    assert context.shape[1] == len(frames.context)
    assert context.shape[2] % multiple == context.shape[3] % multiple == 0
    return predict(variables['params']['x'], context, key)

  return base.System(
    init=None,
    loss=None,
    predict=checked,
    frames=frames,
    multiple=multiple,
    stochastic=stochastic,
    diagnostics=diagnostics,
  )


VARIABLES = {'params': {'x': jnp.float32(0.5)}}


def damped(x, context, key):
  """The next frame of a motion that loses half its speed each time."""
  del key
  a, b = context[:, -2], context[:, -1]
  return (b + x * (b - a))[:, None]


def blend(frames):
  def predict(x, context, key):
    del x, key
    first, last = frames.context
    t = jnp.array(frames.target) - first
    t = (t / (last - first)).reshape(1, -1, 1, 1, 1).astype(jnp.float32)
    return (1 - t) * context[:, :1] + t * context[:, 1:]

  return make(predict, frames)


def noisy(x, context, key):
  noise = jax.random.normal(key, context[:, -1:].shape)
  return context[:, -1:] + 0.1 * x * noise


def clip_of(length, height=40, width=56, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  shape = (length, height, width, channels)
  return rng.integers(0, 256, shape, dtype=np.uint8)


def smooth(length, height, width):
  t, y, x = np.mgrid[:length, :height, :width].astype(float)
  planes = [
    np.sin(x / 31 + t / 3) * np.cos(y / 23),
    np.sin((x + y) / 47 - t / 4),
    np.cos(x / 19) * np.sin(y / 41 + t / 5),
  ]
  return np.rint(127.5 + 127 * np.stack(planes, -1)).astype(np.uint8)


def ramp(side=48, step=0):
  """A frame of a scene that moves by `step` pixels to the right."""
  x = np.arange(side) - step
  grey = 128 + 100 * np.sin(x / 9) * np.cos(np.arange(side) / 7)[:, None]
  return np.repeat(grey[:, :, None], 3, 2).astype(np.uint8)


def forward(**overrides):
  """Loads a system that predicts a straight line and explains itself."""

  def diagnostics(variables, context, key):
    del variables, key
    a, b = context[:, -2:-1], context[:, -1:]
    flow = jnp.concatenate([b - a, a - b], -1)[..., 2:4]
    diagnostics = {
      'flow': flow,
      'mask': b[..., :1],
      'blocks': jnp.ones((1, 1, 9)),
    }
    return b + 0.5 * (b - a), diagnostics

  assert not overrides
  return make(damped, diagnostics=diagnostics), VARIABLES


def straight(**facts):
  """Loads a system that goes on in a straight line."""
  system = make(lambda x, c, key: 2 * c[:, 1:] - c[:, :1])
  return system._replace(**facts), VARIABLES


def again(**_):
  """Loads a system that predicts the last frame once more."""
  return make(lambda x, c, key: c[:, -1:]), VARIABLES


def between(frames=HALF):
  """Loads a system that blends."""
  return blend(frames), VARIABLES


def drawn():
  """Loads a system that draws two frames at random."""

  def pair(x, context, key):
    return jnp.repeat(noisy(x, context, key), 2, 1)

  return make(pair, F((0, 1), (2, 3)), stochastic=True), VARIABLES


def moving(length, height=40, width=56):
  t, y, x = np.mgrid[:length, :height, :width].astype(float)
  planes = [
    np.sin((x + 3 * t) / 9),
    np.cos((y - 2 * t) / 7),
    np.sin(t + x / 20),
  ]
  return np.rint(127.5 + 100 * np.stack(planes, -1)).astype(np.uint8)


def write(path, clip, fps=10, times=None):
  with video_io.Writer(path, fps=fps) as writer:
    for i, frame in enumerate(clip):
      writer.write(frame, None if times is None else times[i])
  return path
