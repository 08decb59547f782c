"""RVD, residual video diffusion, as a system: its loss and its samples.

Yang, Srivastava and Mandt, "Diffusion Probabilistic Modeling for Video
Generation", 2022; equation, section and table numbers are this paper's. The
next frame is mu + sigma y_0 (equation 5). A recurrent network predicts the mean
mu from the previous frames; diffusion draws the residual y_0. In training the
previous frames are the true ones. In prediction they are the drawn frames,
clipped to the range of images. `predict` draws one future of each clip.

The ablations of table 2 are settings. VD, diffusion of the frames themselves,
is `mode='frame'`. RVD(p + q) is trained on p frames that only condition and q
frames whose loss counts: p and q are the lengths of `frames.context` and
`frames.target` in training. RVD(2+6) is `Frames((0, 1), (2, ..., 7))`, RVD(2+3)
is `Frames((0, 1), (2, 3, 4))`. Evaluation conditions on 4 frames and draws 16.

Differences from the reference: where the paper and its published code differ
the defaults are the paper's; the code has `sigma=1` and `loss_type='l1'`. Both
draw one step n for all frames of a clip; `shared_step=False` is ours. The code
draws n from 1..N as we do, the paper's algorithm 1 from 0..N. The published
code clips the estimate of y_0 to [-2, 2], the largest possible residual for
sigma = 1; `clip_sample_range=None` generalises this to 2 / sigma (the paper
does not say). Drawn frames are clipped to [0, 1]; the code does not clip the
frames that it stores.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vidpred_jax.models import initial, rvd
from vidpred_jax.ops import diffusion
from vidpred_jax.systems import base
from vidpred_jax.systems import settings as rules


class Settings(NamedTuple):
  """The settings of RVD.

  Attributes:
    channels: of a frame, C.
    dim: channels at full resolution (table 3): 64 for 128 pixels.
    mults: widths of the denoiser's levels, in units of `dim`. Each level after
      the first halves the height and width.
    mean_mults: widths of the mean network's levels, likewise; not used in mode
      'frame'.
    mode: 'residual': a network predicts mu; 'frame': mu = 0, the ablation VD of
      section 3.6.
    sigma: of equation 5; None is 2, and 1 for `mode='frame'`.
    num_timesteps: N, the number of diffusion steps.
    prediction_type: what the denoiser estimates: 'epsilon', the noise, or
      'sample', the residual y_0.
    loss_type: the error of that estimate in the loss: 'l2' or 'l1'.
    shared_step: in training, whether the frames of a clip share one step n
      (algorithm 1) or each has its own.
    clip_sample_range: in prediction, estimates of the residual are clipped to
      plus or minus this. None is the largest possible residual, 2 / sigma (1 /
      sigma for `mode='frame'`); infinity: they are not clipped.
    sampler: in prediction, one of `ops.diffusion.SAMPLERS`: 'ancestral' (the
      paper's), 'ddim', 'dpm++'.
    sampling_steps: steps of the sampler, up to `num_timesteps`; None is
      `num_timesteps`.
    eta: of 'ddim': how much noise each step adds, 0 (none) to 1.
    dtype: of the networks' computation, 'float32' or 'bfloat16'; parameters,
      norms, noise and residuals are float32.
    remat: in training, whether a level's inside is computed anew for the
      gradient and not kept: less memory, more time, the same gradient.
  """

  channels: int = 1
  dim: int = 64
  mults: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
  mean_mults: tuple[int, ...] = (1, 2, 3, 4)
  mode: str = 'residual'
  sigma: float | None = None
  num_timesteps: int = 1600
  prediction_type: str = 'epsilon'
  loss_type: str = 'l2'
  shared_step: bool = True
  clip_sample_range: float | None = None
  sampler: str = 'ancestral'
  sampling_steps: int | None = None
  eta: float = 0.0
  dtype: str = 'float32'
  remat: bool = False


_LEVELS = rules.tuple_of(rules.positive_int(most=64), '', least=2, most=12)
_MULTS = rules.Rule(
  lambda x: _LEVELS.accepts(x) and x[0] == 1,
  '2 to 12 whole numbers up to 64, the first of them 1',
)
_POSITIVE = rules.number(0, expected='a positive number or None', above=True)
_RULES = {
  'channels': rules.positive_int(most=4096),
  'dim': rules.positive_int(8, most=4096),
  'mults': _MULTS,
  'mean_mults': _MULTS,
  'mode': rules.one_of(('residual', 'frame')),
  'sigma': rules.either(None, _POSITIVE),
  'num_timesteps': rules.positive_int(most=100_000),
  'prediction_type': rules.one_of(('epsilon', 'sample')),
  'loss_type': rules.one_of(('l2', 'l1')),
  'shared_step': rules.truth(),
  'clip_sample_range': rules.either(None, rules.either(math.inf, _POSITIVE)),
  'sampler': rules.one_of(tuple(diffusion.SAMPLERS)),
  'eta': rules.number(0, 1, 'a number in [0, 1]'),
  'dtype': rules.one_of(('float32', 'bfloat16')),
  'remat': rules.truth(),
}


def checked(settings: Settings) -> Settings:
  """The settings; raises ValueError for the first that cannot be."""
  settings = rules.check(settings, _RULES)
  num_timesteps, sampler = settings.num_timesteps, settings.sampler
  together = {
    'sampling_steps': rules.either(
      None,
      rules.Rule(
        lambda x: rules.positive_int().accepts(x) and x <= num_timesteps,
        f'1 to {num_timesteps}, which is num_timesteps, or None',
      ),
    ),
    'eta': rules.Rule(
      lambda x: x == 0 or sampler == 'ddim',
      f'0: only ddim has an eta, not {sampler}',
    ),
  }
  return rules.check(settings, together)


class Process(NamedTuple):
  """The diffusion of residuals: forward process, estimate and sampler.

  Attributes:
    schedule: of the noise.
    sigma: frame = mean + sigma * residual.
    prediction_type: see `Settings`.
    loss_type: see `Settings`.
    clip_range: estimates of the residual are clipped to [-clip_range,
      clip_range]; None: they are not clipped.
    sampler: the sampler's table.
  """

  schedule: diffusion.Schedule
  sigma: float
  prediction_type: str
  loss_type: str
  clip_range: float | None
  sampler: diffusion.SamplerTable


def denoising_loss(
  model: rvd.RVD,
  variables,
  video: jax.Array,
  num_context: int,
  n: jax.Array,
  noise: jax.Array,
  process: Process,
) -> tuple[jax.Array, jax.Array]:
  """The loss of equation 9, a mean over frames and pixels.

  The recurrent networks observe the true frames. The residuals of all target
  frames are then denoised as one batch.

  Args:
    model: the networks.
    variables: theirs.
    video: [B, T, H, W, C] in [-1, 1].
    num_context: K, the number of first frames, which only condition.
    n: step of each later frame, int32 [B, T - K].
    noise: standard normal, [B, T - K, H, W, C].
    process: the diffusion.

  Returns:
    The loss, and the residuals y_0 [B, T - K, H, W, C].
  """

  def rows(x):
    return x.reshape(-1, *x.shape[2:])

  def networks(model):
    batch, _, height, width, _ = video.shape
    state = model.initial_state(batch, height, width)
    contexts, mean, _ = model.observe(
      video[:, :-1], state, since=num_context - 1
    )
    residual = (video[:, num_context:] - mean) / process.sigma
    clean, steps, epsilon = rows(residual), rows(n), rows(noise)
    noisy = diffusion.q_sample(process.schedule, clean, steps, epsilon)
    prepared = model.prepare([rows(c) for c in contexts])
    estimate = model.denoise(noisy, steps, prepared)
    truth = epsilon if process.prediction_type == 'epsilon' else clean
    return estimate - truth, residual

  error, residual = model.apply(variables, method=networks)
  error = jnp.abs(error) if process.loss_type == 'l1' else jnp.square(error)
  return jnp.mean(error), residual


def init_carry(model: rvd.RVD, variables, context: jax.Array):
  """The carry after the context: the networks' states and the last frame.

  Args:
    model: the networks.
    variables: theirs.
    context: [B, K, H, W, C] in [-1, 1].

  Returns:
    A tree for `next_frame`.
  """
  batch, count, height, width, _ = context.shape
  state = model.initial_state(batch, height, width)
  if count > 1:
    *_, state = model.apply(variables, context[:, :-1], state, method='observe')
  return state, context[:, -1]


def next_frame(model: rvd.RVD, variables, carry, noise: Callable, process):
  """Draws the next frame.

  The recurrent networks run once, the denoiser
  `len(process.sampler.timesteps)` times.

  Args:
    model: the networks.
    variables: theirs.
    carry: from `init_carry` or `next_frame`.
    noise: `k -> [B, H, W, C]`, what `diffusion.sample` takes.
    process: the diffusion, a `Process`.

  Returns:
    The new carry, and the drawn frame [B, H, W, C], which is not clipped.
  """

  def apply(*args, method):
    return model.apply(variables, *args, method=method)

  state, previous = carry
  contexts, mean, state = apply(previous[:, None], state, method='observe')
  prepared = apply([c[:, 0] for c in contexts], method='prepare')
  estimate = diffusion.estimator(
    lambda noisy, n: apply(noisy, n, prepared, method='denoise'),
    process.schedule,
    prediction_type=process.prediction_type,
    clip_range=process.clip_range,
  )
  residual = diffusion.sample(estimate, process.sampler, noise)
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
  """Draws the frames that follow a context.

  Args:
    model: the networks.
    variables: theirs.
    context: [B, K, H, W, C] in [-1, 1].
    count: how many frames, N.
    noise: `t -> (k -> [B, H, W, C])`, for frame t what `diffusion.sample`
      takes; t is a traced integer.
    process: the diffusion.

  Returns:
    [B, N, H, W, C], not clipped.
  """

  def step(carry, t):
    return next_frame(model, variables, carry, noise(t), process)

  carry = init_carry(model, variables, context)
  _, frames = jax.lax.scan(step, carry, jnp.arange(count))
  return jnp.moveaxis(frames, 0, 1)


def make_process(settings: Settings) -> Process:
  """Makes the diffusion that settings describe."""
  largest = 2.0 if settings.mode == 'residual' else 1.0
  sigma = largest if settings.sigma is None else settings.sigma
  clip_range = settings.clip_sample_range
  if clip_range is None:
    clip_range = largest / sigma
  schedule = diffusion.cosine(settings.num_timesteps)
  kwargs = {'eta': settings.eta} if settings.sampler == 'ddim' else {}
  sampler = diffusion.SAMPLERS[settings.sampler]
  return Process(
    schedule,
    sigma,
    settings.prediction_type,
    settings.loss_type,
    clip_range if math.isfinite(clip_range) else None,
    sampler(schedule, settings.sampling_steps, **kwargs),
  )


def clip_loss(
  model: rvd.RVD,
  settings: Settings,
  process: Process,
  frames: base.Frames,
  variables,
  video: jax.Array,
  key: jax.Array,
):
  """The loss of a clip, as `System.loss`."""
  num_context, num_target = len(frames.context), len(frames.target)
  video = 2 * base.take(video, frames.context + frames.target) - 1
  steps_key, noise_key = jax.random.split(key)
  batch, _, *shape = video.shape
  steps = 1 if settings.shared_step else num_target
  n = jax.random.randint(steps_key, (batch, steps), 0, settings.num_timesteps)
  noise = jax.random.normal(noise_key, (batch, num_target, *shape))
  n = jnp.broadcast_to(n, (batch, num_target))
  total, y = denoising_loss(
    model, variables, video, num_context, n, noise, process
  )
  metrics = {'residual': jnp.sqrt(jnp.mean(jnp.square(y)))}
  return total, ({}, metrics)


def noise_per_example(key: jax.Array, shape: tuple[int, ...]) -> Callable:
  """Makes the noise that `forecast` takes; each example has its own key.

  Args:
    key: a random key, of which each example gets its own by its number, or
      keys [B].
    shape: of a batch of frames, (B, H, W, C).
  """
  keys = diffusion.keys_per_example(key, shape[0])

  def of_frame(t):
    frame_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
    return diffusion.gaussian_noise_fn(frame_keys, shape[1:])

  return of_frame


def as_image(frame: jax.Array) -> jax.Array:
  """Maps a drawn frame from [-1, 1] to [0, 1] and clips it."""
  return jnp.clip((frame + 1) / 2, 0, 1)


def make(*, frames: base.Frames, **settings) -> base.System:
  """Makes the system.

  `predict(variables, context, key)` takes one key, of which each example of the
  batch gets its own by its number, or keys [B], one for each example. An
  example depends on its own key only. So S futures of a clip are one batch of
  the clip S times with S keys; they equal S predictions with one key each, up
  to rounding.

  Args:
    frames: the context, and targets that continue it at the same step. In
      training the context only conditions, see the module.
    **settings: fields of `Settings`.

  Returns:
    The system. Metrics of its loss: 'residual', the root mean square of y_0.

  Raises:
    ValueError: if `frames` or a setting cannot be.
  """
  chosen = checked(Settings(**settings))
  base.check_frames(frames, 'rvd', '((0, 1), (2, 3, 4))')
  process, channels = make_process(chosen), chosen.channels
  num_context, num_target = len(frames.context), len(frames.target)
  model = rvd.RVD(
    channels=channels,
    dim=chosen.dim,
    mults=chosen.mults,
    mean_mults=chosen.mean_mults if chosen.mode == 'residual' else None,
    dtype=jnp.dtype(chosen.dtype),
    remat=chosen.remat,
  )
  multiple = model.multiple()

  def init(key, video):
    base.check_shape(video, frames.length, channels, multiple)
    batch, _, *frame = video.shape
    return initial.draw(
      key,
      model,
      jax.ShapeDtypeStruct((batch, 1, *frame), jnp.float32),
      jax.ShapeDtypeStruct((batch, *frame), jnp.float32),
      jax.ShapeDtypeStruct((), jnp.int32),
    )

  def loss(variables, video, key):
    base.check_clip(video, frames.length, channels, multiple)
    return clip_loss(model, chosen, process, frames, variables, video, key)

  def scaled(context):
    base.check_context(context, num_context, channels, multiple)
    return 2 * context - 1

  def predict(variables, context, key):
    context = scaled(context)
    noise = noise_per_example(key, (context.shape[0], *context.shape[2:]))
    drawn = forecast(model, variables, context, num_target, noise, process)
    return as_image(drawn)

  def step(variables, carry, key, n):
    noise = noise_per_example(key, carry[1].shape)(n)
    carry, frame = next_frame(model, variables, carry, noise, process)
    return carry, as_image(frame)

  return base.System(
    init=init,
    loss=loss,
    predict=predict,
    frames=frames,
    multiple=multiple,
    stochastic=True,
    channels=channels,
    recurrence=base.Recurrence(
      lambda variables, context: init_carry(model, variables, scaled(context)),
      step,
    ),
  )
