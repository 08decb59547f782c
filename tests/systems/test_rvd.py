import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import cost, systems
from vidpred_jax.models import rvd as networks
from vidpred_jax.ops import diffusion
from vidpred_jax.systems import base, rvd

FRAMES = systems.Frames((0, 1), (2, 3))
SMALL = {'dim': 8, 'mults': (1, 2), 'mean_mults': (1, 2), 'num_timesteps': 6}


@functools.cache
def made(**extra):
  return systems.make('rvd', frames=FRAMES, **SMALL | extra)


def clip(length=4, seed=0):
  return jax.random.uniform(jax.random.key(seed), (2, length, 8, 12, 1))


@functools.cache
def variables():
  """Random ones, without compiling how networks begin."""
  shapes = jax.eval_shape(made().init, jax.random.key(0), clip())
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(random.normal(0, 0.1, x.shape), jnp.float32), shapes
  )


def model(**extra):
  return networks.RVD(
    **{k: v for k, v in SMALL.items() if k != 'num_timesteps'} | extra
  )


@functools.cache
def predictor(**extra):
  return jax.jit(made(**extra).predict)


def code_process(num_timesteps, **changes):
  schedule = diffusion.cosine(num_timesteps)
  steps = diffusion.ancestral(schedule)
  process = rvd.Process(schedule, 1.0, 'epsilon', 'l1', 2.0, steps)
  return process._replace(**changes)


# ------------------------------------------------------------------------- loss


def test_the_loss_takes_each_frame_after_the_true_ones():
  """All frames at once, against one by one."""
  video = 2 * clip() - 1
  schedule = diffusion.cosine(6)
  n = jnp.asarray([[0, 3], [5, 2]])
  noise = jax.random.normal(jax.random.key(1), video[:, 2:].shape)
  process = code_process(6, sigma=0.7, loss_type='l2')
  total, residual = jax.jit(
    lambda v: rvd.denoising_loss(model(), v, video, 2, n, noise, process)
  )(variables())

  @jax.jit
  def after(variables, frame, state, noisy, n):
    def apply(*args, method):
      return model().apply(variables, *args, method=method)

    contexts, mean, state = apply(frame[:, None], state, method='observe')
    prepared = apply([c[:, 0] for c in contexts], method='prepare')
    return apply(noisy, n, prepared, method='denoise'), mean[:, 0], state

  errors, state = [], model().initial_state(2, 8, 12)
  for t in range(3):
    # The mean does not depend on what is denoised.
    step, fresh = n[:, t - 1], noise[:, t - 1]
    _, mean, following = after(variables(), video[:, t], state, fresh, step)
    if t:
      clean = (video[:, t + 1] - mean) / 0.7
      np.testing.assert_allclose(residual[:, t - 1], clean, atol=1e-5)
      noisy = diffusion.q_sample(schedule, clean, step, fresh)
      out, _, _ = after(variables(), video[:, t], state, noisy, step)
      errors.append(np.mean((np.asarray(out) - fresh) ** 2))
    state = following
  np.testing.assert_allclose(total, np.mean(errors), rtol=1e-4)


def seen_by_loss(monkeypatch, key=0, **settings):
  """What the loss draws, and its metrics, without running the networks."""
  found = {}

  def instead(model, variables, video, seen, n, noise, process):
    found.update(video=video, seen=seen, n=n, noise=noise, process=process)
    return jnp.float32(0), video[:, seen:]

  monkeypatch.setattr(rvd, 'denoising_loss', instead)
  system = systems.make(
    'rvd', frames=systems.Frames((0, 2), (4, 6, 8)), **SMALL | settings
  )
  video = jax.random.uniform(jax.random.key(9), (64, 9, 8, 8, 1))
  _, (collections, metrics) = system.loss({}, video, jax.random.key(key))
  assert not collections
  return found | {'metrics': metrics, 'given': video}


def test_a_clip_has_one_step_or_each_frame_its_own(monkeypatch):
  shared = seen_by_loss(monkeypatch)
  assert shared['n'].shape == (64, 3) and shared['seen'] == 2
  assert set(np.unique(shared['n'])) == set(range(6))
  np.testing.assert_array_equal(shared['n'], shared['n'][:, :1].repeat(3, 1))
  own = seen_by_loss(monkeypatch, shared_step=False)
  assert np.any(own['n'] != own['n'][:, :1])
  # Frames as the indices say, in [-1, 1].
  np.testing.assert_allclose(
    shared['video'], 2 * shared['given'][:, ::2] - 1, atol=1e-6
  )
  rms = np.sqrt(np.mean(np.square(shared['video'][:, 2:])))
  np.testing.assert_allclose(shared['metrics']['residual'], rms, rtol=1e-5)
  noise = shared['noise']
  assert noise.shape == shared['video'][:, 2:].shape
  np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.03)
  other = seen_by_loss(monkeypatch, key=1)
  assert np.any(other['n'] != shared['n'])
  assert np.all(other['noise'] != noise)


@pytest.mark.parametrize(
  'settings, sigma, limit',
  [
    ({}, 2, 1),
    ({'sigma': 1.0, 'loss_type': 'l1'}, 1, 2),  # the published code
    ({'mode': 'frame'}, 1, 1),
    ({'mode': 'frame', 'sigma': 0.5}, 0.5, 2),
    ({'clip_sample_range': 3}, 2, 3),
    ({'clip_sample_range': math.inf}, 2, None),
  ],
)
def test_sigma_and_clip_go_together(monkeypatch, settings, sigma, limit):
  process = seen_by_loss(monkeypatch, **settings)['process']
  assert process.sigma == sigma and process.clip_range == limit
  assert process.loss_type == settings.get('loss_type', 'l2')
  assert len(process.sampler.timesteps) == 6


def test_frames_themselves_are_diffused_without_a_mean():
  system = made(mode='frame')
  shapes = jax.eval_shape(system.init, jax.random.key(0), clip())
  assert set(shapes['params']) == {'context_net', 'denoiser'}
  assert system.multiple == 2
  rest = {k: v for k, v in variables()['params'].items() if k != 'mean_net'}
  total, (_, metrics) = jax.jit(system.loss)(
    {'params': rest}, clip(), jax.random.key(0)
  )
  frames = 2 * np.asarray(clip()[:, 2:]) - 1
  rms = np.sqrt(np.mean(frames**2))
  np.testing.assert_allclose(metrics['residual'], rms, rtol=1e-5)
  assert np.isfinite(total)


# ------------------------------------------------------------------ prediction


def test_samples_in_one_batch_equal_single_runs():
  """A row depends on its own key only."""
  keys = jax.random.split(jax.random.key(3), 4)
  context = clip()[:, :2]
  rows = jnp.concatenate([context[:1]] * 3 + [context[1:]])
  many = predictor()(variables(), rows, keys)
  for i in range(4):
    alone = predictor()(variables(), rows[i : i + 1], keys[i : i + 1])
    # What rounds differently the first step makes larger by 1 / sqrt(abar).
    np.testing.assert_allclose(alone[0], many[i], atol=2e-4)
  assert np.abs(many[0] - many[1]).max() > 0.01
  # With one key, a row's own is made of that and its number.
  key = jax.random.key(5)
  drawn = predictor()(variables(), rows, key)
  own = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(4))
  given = predictor()(variables(), rows, own)
  np.testing.assert_allclose(drawn, given, atol=1e-5)
  with pytest.raises(ValueError, match=r'keys of shape \(4,\).*2 of them'):
    made().predict(variables(), context, keys)


def test_frames_are_means_and_residuals_within_the_limit():
  """With no room for residuals the mean is left, whatever the sampler."""
  context = clip()[:, :2]
  state = model().initial_state(2, 8, 12)
  _, mean, _ = jax.jit(functools.partial(model().apply, method='observe'))(
    variables(), 2 * context - 1, state
  )
  tight = predictor(clip_sample_range=1e-6, sampler='dpm++', sampling_steps=3)
  frames = tight(variables(), context, jax.random.key(0))
  np.testing.assert_allclose(frames[:, 0], (mean[:, 1] + 1) / 2, atol=1e-5)
  # The second frame is the mean after the first.
  more = jnp.concatenate([context, frames[:, :1]], 1)
  _, mean, _ = jax.jit(functools.partial(model().apply, method='observe'))(
    variables(), 2 * more - 1, state
  )
  np.testing.assert_allclose(frames[:, 1], (mean[:, 2] + 1) / 2, atol=1e-5)


def test_recurrent_networks_run_once_a_frame_not_once_a_step():
  """Multiply-adds grow with the steps by the denoiser's, and no more."""
  shapes = jax.eval_shape(made().init, jax.random.key(0), clip())
  context = jax.ShapeDtypeStruct((2, 2, 8, 12, 1), jnp.float32)
  key = jax.random.key(0)

  def macs(**extra):
    return cost.count_macs(made(**extra).predict, shapes, context, key).total()

  def step(model):
    contexts, _, _ = model.observe(
      jnp.zeros((2, 1, 8, 12, 1)), model.initial_state(2, 8, 12)
    )
    return model.prepare([c[:, 0] for c in contexts])

  net = model()
  shares = jax.eval_shape(functools.partial(net.apply, method=step), shapes)
  one = cost.count_macs(
    functools.partial(net.apply, method='denoise'),
    shapes,
    jax.ShapeDtypeStruct((2, 8, 12, 1), jnp.float32),
    jax.ShapeDtypeStruct((), jnp.int32),
    shares,
  ).total()
  for sampler in diffusion.SAMPLERS:
    few, many = (macs(sampler=sampler, sampling_steps=s) for s in (2, 5))
    assert many - few == len(FRAMES.target) * 3 * one


def test_a_forecast_frame_by_frame_is_that_of_one_call():
  context = clip()[:, :2]
  key = jax.random.key(3)
  frames = predictor()(variables(), context, key)
  init_carry, step = made().recurrence
  carry = jax.jit(init_carry)(variables(), context)
  step = jax.jit(step)
  for n in range(frames.shape[1] + 2):
    carry, frame = step(variables(), carry, key, n)
    assert frame.shape == (2, 8, 12, 1)
    assert frame.min() >= 0 and frame.max() <= 1
    if n < frames.shape[1]:
      np.testing.assert_allclose(frame, frames[:, n], atol=1e-5)


def test_targets_go_on_after_the_context_of_any_step():
  frames = systems.Frames((0, 3), (6,))
  system = systems.make('rvd', frames=frames, **SMALL)
  video = clip(7)
  context = base.take(video, frames.context)
  out = jax.eval_shape(system.predict, variables(), context, jax.random.key(0))
  assert out.shape == (2, 1, 8, 12, 1)
  for bad in (((0, 1), (3,)), ((0, 2), (1,))):
    with pytest.raises(ValueError, match='rvd needs targets that go on'):
      systems.make('rvd', frames=systems.Frames(*bad), **SMALL)
  for empty in (((), (1,)), ((0, 1), ())):
    with pytest.raises(ValueError, match='indices of context and target'):
      systems.make('rvd', frames=systems.Frames(*empty), **SMALL)


@pytest.mark.parametrize(
  'bad, message',
  [
    ({'sigma': 0}, 'sigma=0.*positive'),
    ({'clip_sample_range': -1.0}, 'clip_sample_range=-1.0.*positive'),
    ({'sampling_steps': 7}, 'sampling_steps=7.*1 to 6'),
    ({'sampling_steps': 0}, 'sampling_steps=0.*1 to 6'),
    ({'num_timesteps': 0}, 'num_timesteps=0.*positive'),
    ({'eta': 0.5}, 'eta=0.5.*only ddim'),
    ({'eta': 2.0, 'sampler': 'ddim'}, r'eta=2.0.*\[0, 1\]'),
    ({'dim': 12}, 'dim=12.*multiple of 8'),
    ({'mults': (2, 4)}, r'mults=\(2, 4\).*first of them 1'),
    ({'mults': (1,)}, r'mults=\(1,\).*2 to 12'),
    ({'mean_mults': (3, 1)}, r'mean_mults=\(3, 1\).*first of them 1'),
    ({'mean_mults': 'ab'}, "mean_mults='ab'"),
  ],
)
def test_refuses_settings_that_cannot_be(bad, message):
  with pytest.raises(ValueError, match=message):
    systems.make('rvd', frames=FRAMES, **SMALL | bad)


# ----------------------------------------------------------------- memory


def test_remat_has_the_same_gradient_and_keeps_less_for_it():
  video = jax.random.uniform(jax.random.key(0), (1, 4, 16, 16, 1))
  gradients, kept = [], []
  for remat in (False, True):
    loss = functools.partial(_loss_of, made(remat=remat), video)
    _, pullback = jax.jit(functools.partial(jax.vjp, loss))(variables())
    gradients.append(jax.jit(lambda pull: pull(1.0)[0])(pullback))
    kept.append(sum(math.prod(x.shape) for x in jax.tree.leaves(pullback)))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    *gradients,
  )
  assert kept[1] < 0.7 * kept[0], kept


def _loss_of(system, video, variables):
  return system.loss(variables, video, jax.random.key(1))[0]
