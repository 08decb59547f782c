"""RVD, residual video diffusion, as a system: its loss and its samples.

Yang, Srivastava and Mandt, "Diffusion Probabilistic Modeling for Video
Generation", 2022; equation, section and table numbers are this paper's. The
next frame is a mean mu, given by a network that watches the frames before, plus
sigma times a residual y_0, drawn by diffusion (equation 5). In training the
frames before are the true ones; in prediction drawn frames are fed back, cut
off to the range of images. `predict` draws one future of each clip.

The ablations of table 2 are settings: VD, diffusion of the frames themselves,
is `mode='frame'`; RVD(p + q), trained on p frames that only condition and q
whose loss counts, is the length of `frames.context` and `frames.target` in
training: RVD(2+6) is `Frames((0, 1), (2, ..., 7))`, RVD(2+3)
`Frames((0, 1), (2, 3, 4))`. Evaluation sees 4 and draws 16.

Differences from the reference: the defaults are the paper's where it differs
from its published code; the code has `sigma=1` and `error='l1'`. Both draw one
step n for all frames of a clip; `shared_step=False` is ours. The code draws
from n = 1..N as we do, the paper's algorithm 1 from 0..N. The estimate of y_0
is cut off at +-2 in the code, with its sigma as far as a frame can be from mu;
`clip=None` is that for any sigma (the paper does not say). Drawn frames are cut
off to [0, 1]; the code leaves the frames it stores as they are.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax.models import rvd
from vidpred_jax.ops import diffusion
from vidpred_jax.systems import settings as rules
from vidpred_jax.systems.base import (
  Frames,
  Recurrence,
  System,
  check_clip,
  check_context,
  check_frames,
  check_shape,
  take,
)


class Settings(NamedTuple):
  """What can be set.

  Attributes:
    channels: of a frame, C.
    dim: channels at full resolution (table 3): 64 for 128 pixels.
    mults: widths of the denoiser's levels, in units of `dim`; as many as halve
      the size of the frame.
    mean_mults: the same of the network of the mean, if there is one.
    mode: 'residual': mu by a network; 'frame': mu = 0, the ablation VD of
      section 3.6.
    sigma: of equation 5; None is 2, and 1 for `mode='frame'`.
    depth: N, the number of diffusion steps.
    predicts: what the denoiser estimates: 'noise', or 'clean', the residual.
    error: 'l2' or 'l1', of that estimate in the loss.
    shared_step: in training, whether the frames of a clip share one step n
      (algorithm 1) or each has its own.
    clip: in prediction, estimates of the residual are cut off at +- this; None
      is as far as a frame can be from mu, 2 / sigma (1 / sigma for
      `mode='frame'`); infinity: not at all.
    sampler: in prediction, one of `ops.diffusion.SAMPLERS`: 'ancestral' (the
      paper's), 'ddim', 'dpm++'.
    steps: how many steps of it, up to `depth`; None is `depth`.
    eta: of 'ddim': how much it draws at each step, 0 (none) to 1.
    dtype: of the networks' computation, 'float32' or 'bfloat16'; parameters,
      norms, noise and residuals are float32.
  """

  channels: int = 1
  dim: int = 64
  mults: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
  mean_mults: tuple[int, ...] = (1, 2, 3, 4)
  mode: str = 'residual'
  sigma: float | None = None
  depth: int = 1600
  predicts: str = 'noise'
  error: str = 'l2'
  shared_step: bool = True
  clip: float | None = None
  sampler: str = 'ancestral'
  steps: int | None = None
  eta: float = 0.0
  dtype: str = 'float32'


_MULTS = rules.Rule(
  lambda x: (
    rules.tuple_of(rules.positive_int(), '', least=2).accepts(x) and x[0] == 1
  ),
  'two or more whole numbers, the first of them 1',
)
_POSITIVE = rules.number(0, expected='a positive number or None', above=True)
_RULES = {
  'channels': rules.positive_int(),
  'dim': rules.positive_int(8),
  'mults': _MULTS,
  'mean_mults': _MULTS,
  'mode': rules.one_of(('residual', 'frame')),
  'sigma': rules.either(None, _POSITIVE),
  'depth': rules.positive_int(),
  'predicts': rules.one_of(('noise', 'clean')),
  'error': rules.one_of(('l2', 'l1')),
  'shared_step': rules.truth(),
  'clip': rules.either(None, rules.either(math.inf, _POSITIVE)),
  'sampler': rules.one_of(diffusion.SAMPLERS),
  'eta': rules.number(0, 1, 'a number in [0, 1]'),
  'dtype': rules.one_of(('float32', 'bfloat16')),
}


def checked(settings: Settings) -> Settings:
  """The settings; raises ValueError for the first that cannot be."""
  settings = rules.check(settings, _RULES)
  depth, sampler = settings.depth, settings.sampler
  together = {
    'steps': rules.either(
      None,
      rules.Rule(
        lambda x: rules.positive_int().accepts(x) and x <= depth,
        f'1 to {depth}, the depth, or None',
      ),
    ),
    'eta': rules.Rule(
      lambda x: x == 0 or sampler == 'ddim',
      f'0: only ddim has an eta, not {sampler}',
    ),
  }
  return rules.check(settings, together)


class Process(NamedTuple):
  """How residuals are made noisy, estimated and drawn.

  Attributes:
    schedule: of the noise.
    sigma: frame = mean + sigma * residual.
    predicts: what the network estimates: 'noise' or 'clean', the residual.
    error: 'l2' or 'l1', of the estimate.
    clip: estimates of the residual are cut off at +- this; None: not.
    steps: the sampler.
  """

  schedule: diffusion.Schedule
  sigma: float
  predicts: str
  error: str
  clip: float | None
  steps: diffusion.Steps


def denoising_loss(
  model: rvd.RVD,
  variables,
  clip: jax.Array,
  seen: int,
  n: jax.Array,
  noise: jax.Array,
  process: Process,
) -> tuple[jax.Array, jax.Array]:
  """The loss of equation 9, a mean over frames and pixels.

  The recurrent networks watch the true frames; then the residuals of all frames
  are denoised as one batch.

  Args:
    model: the networks.
    variables: theirs.
    clip: [B, T, H, W, C] in [-1, 1].
    seen: the first frames, which only condition.
    n: step for each frame after them, int32 [B, T - seen].
    noise: standard normal, [B, T - seen, H, W, C].
    process: the diffusion.

  Returns:
    The loss, and the residuals y_0 [B, T - seen, H, W, C].
  """

  def rows(x):
    return x.reshape(-1, *x.shape[2:])

  def networks(model):
    batch, _, height, width, _ = clip.shape
    state = model.start(batch, height, width)
    contexts, mean, _ = model.watch(clip[:, :-1], state, since=seen - 1)
    residual = (clip[:, seen:] - mean) / process.sigma
    clean, steps, drawn = rows(residual), rows(n), rows(noise)
    noisy = diffusion.diffuse(process.schedule, clean, steps, drawn)
    prepared = model.prepare([rows(c) for c in contexts])
    estimate = model.denoise(noisy, steps, prepared)
    truth = drawn if process.predicts == 'noise' else clean
    return estimate - truth, residual

  off, residual = model.apply(variables, method=networks)
  off = jnp.abs(off) if process.error == 'l1' else jnp.square(off)
  return jnp.mean(off), residual


def begin(model: rvd.RVD, variables, context: jax.Array):
  """What is remembered of the context: the networks' states, the last frame.

  Args:
    model: the networks.
    variables: theirs.
    context: [B, K, H, W, C] in [-1, 1].

  Returns:
    A tree for `advance`.
  """
  batch, seen, height, width, _ = context.shape
  state = model.start(batch, height, width)
  if seen > 1:
    *_, state = model.apply(variables, context[:, :-1], state, method='watch')
  return state, context[:, -1]


def advance(model: rvd.RVD, variables, memory, noise: Callable, process):
  """Draws the next frame.

  The recurrent networks run once, the denoiser `len(process.steps.times)`
  times.

  Args:
    model: the networks.
    variables: theirs.
    memory: from `begin` or `advance`.
    noise: `k -> [B, H, W, C]`, what `diffusion.sample` takes.
    process: the diffusion, a `Process`.

  Returns:
    What is remembered then, and the frame [B, H, W, C] as drawn: not cut off.
  """

  def apply(*args, method):
    return model.apply(variables, *args, method=method)

  state, previous = memory
  contexts, mean, state = apply(previous[:, None], state, method='watch')
  prepared = apply([c[:, 0] for c in contexts], method='prepare')
  estimate = diffusion.estimator(
    lambda noisy, n: apply(noisy, n, prepared, method='denoise'),
    process.schedule,
    predicts=process.predicts,
    clip=process.clip,
  )
  residual = diffusion.sample(estimate, process.steps, noise)
  frame = mean[:, 0] + process.sigma * residual
  return (state, jnp.clip(frame, -1, 1)), frame


def forecast(
  model: rvd.RVD,
  variables,
  context: jax.Array,
  count: int,
  noise: Callable,
  process: Process,
) -> jax.Array:
  """Draws the frames that follow.

  Args:
    model: the networks.
    variables: theirs.
    context: [B, K, H, W, C] in [-1, 1].
    count: how many frames, N.
    noise: `t -> (k -> [B, H, W, C])`, for frame t what `diffusion.sample`
      takes; t is a traced integer.
    process: the diffusion.

  Returns:
    [B, N, H, W, C], as drawn: not cut off.
  """

  def next_frame(memory, t):
    return advance(model, variables, memory, noise(t), process)

  memory = begin(model, variables, context)
  _, frames = jax.lax.scan(next_frame, memory, jnp.arange(count))
  return jnp.moveaxis(frames, 0, 1)


def process_of(settings: Settings) -> Process:
  """The diffusion of a system's settings."""
  largest = 2.0 if settings.mode == 'residual' else 1.0
  sigma = largest if settings.sigma is None else settings.sigma
  clip = largest / sigma if settings.clip is None else settings.clip
  schedule = diffusion.cosine(settings.depth)
  kwargs = {'eta': settings.eta} if settings.sampler == 'ddim' else {}
  sampler = diffusion.SAMPLERS[settings.sampler]
  return Process(
    schedule,
    sigma,
    settings.predicts,
    settings.error,
    clip if math.isfinite(clip) else None,
    sampler(schedule, settings.steps, **kwargs),
  )


def clip_loss(
  model: rvd.RVD,
  settings: Settings,
  process: Process,
  frames: Frames,
  variables,
  video: jax.Array,
  key: jax.Array,
):
  """The loss of a clip; arguments and result are those of `System.loss`."""
  seen, asked = len(frames.context), len(frames.target)
  video = 2 * take(video, frames.context + frames.target) - 1
  of_steps, of_noise = jax.random.split(key)
  batch, _, *shape = video.shape
  steps = 1 if settings.shared_step else asked
  n = jax.random.randint(of_steps, (batch, steps), 0, settings.depth)
  noise = jax.random.normal(of_noise, (batch, asked, *shape))
  n = jnp.broadcast_to(n, (batch, asked))
  total, y = denoising_loss(model, variables, video, seen, n, noise, process)
  metrics = {'residual': jnp.sqrt(jnp.mean(jnp.square(y)))}
  return total, ({}, metrics)


def noise_of_rows(key: jax.Array, shape: tuple[int, ...]) -> Callable:
  """What `forecast` takes as noise for frames of `shape` [B, H, W, C].

  Args:
    key: one, of which each row gets its own by its number, or keys [B].
    shape: of a batch of frames.
  """
  keys = diffusion.row_keys(key, shape[0])

  def of_frame(t):
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
    return diffusion.drawn(own, shape[1:])

  return of_frame


def as_image(frame: jax.Array) -> jax.Array:
  """A drawn frame in [0, 1]."""
  return jnp.clip((frame + 1) / 2, 0, 1)


def make(*, frames: Frames, **settings) -> System:
  """Makes the system.

  `predict(variables, context, key)` takes one key, of which each row of the
  batch gets its own by its number, or keys [B], one for each row. What a row
  draws depends on its key only: S futures of a clip are the clip S times with
  S keys, and equal S predictions with one key each, up to rounding.

  Args:
    frames: the context and targets that go on at its step. In training the
      context only conditions, see the module.
    **settings: fields of `Settings`.

  Returns:
    The system. Metrics of its loss: 'residual', the root mean square of y_0.

  Raises:
    ValueError: if `frames` or a setting cannot be.
  """
  chosen = checked(Settings(**settings))
  check_frames(frames, 'rvd', '((0, 1), (2, 3, 4))')
  process, channels = process_of(chosen), chosen.channels
  seen, asked = len(frames.context), len(frames.target)
  model = rvd.RVD(
    channels=channels,
    dim=chosen.dim,
    mults=chosen.mults,
    mean_mults=chosen.mean_mults if chosen.mode == 'residual' else None,
    dtype=jnp.dtype(chosen.dtype),
  )
  multiple = model.multiple()

  def init(key, video):
    check_shape(video, frames.length, channels, multiple)
    batch, _, *frame = video.shape
    # Lazily: the parameters are drawn, nothing is run.
    return model.lazy_init(
      key,
      jax.ShapeDtypeStruct((batch, 1, *frame), jnp.float32),
      jax.ShapeDtypeStruct((batch, *frame), jnp.float32),
      jax.ShapeDtypeStruct((), jnp.int32),
    )

  def loss(variables, video, key):
    check_clip(video, frames.length, channels, multiple)
    return clip_loss(model, chosen, process, frames, variables, video, key)

  def watched(context):
    check_context(context, seen, channels, multiple)
    return 2 * context - 1

  def predict(variables, context, key):
    context = watched(context)
    noise = noise_of_rows(key, (len(context), *context.shape[2:]))
    drawn = forecast(model, variables, context, asked, noise, process)
    return as_image(drawn)

  def following(variables, memory, key, n):
    noise = noise_of_rows(key, memory[1].shape)(n)
    memory, frame = advance(model, variables, memory, noise, process)
    return memory, as_image(frame)

  return System(
    init=init,
    loss=loss,
    predict=predict,
    frames=frames,
    multiple=multiple,
    stochastic=True,
    channels=channels,
    recurrence=Recurrence(
      lambda variables, context: begin(model, variables, watched(context)),
      following,
    ),
  )
