"""Predictions that leave flat edges that stand still as they are."""

import functools

import jax
import numpy as np
import pytest

import vidpred_jax as vp

SMALL = {
  'dmvfn': {
    'scales': (2,),
    'widths': (8,),
    'routing': 'none',
    'initial_flow': 'variational',
  },
  'apr_vfi': {'synthesis': 'warp', 'motion': 'variational'},
}
FRAMES = {
  'dmvfn': vp.Frames((0, 1), (2, 3)),
  'apr_vfi': vp.Frames((0, 4), (1, 2)),
}


@functools.cache
def program(name, keep_bars):
  """Diagnostics of two frames of 48x64, compiled, and variables."""
  system = vp.systems.make(
    name, frames=FRAMES[name], **SMALL[name], keep_bars=keep_bars
  )
  video = np.zeros((1, system.frames.length, 48, 64, 3), np.float32)
  variables = system.init(jax.random.key(0), video)
  return jax.jit(system.diagnostics), variables


def shown(name, context, keep_bars):
  diagnostics, variables = program(name, keep_bars)
  frames, found = diagnostics(variables, context, jax.random.key(0))
  return np.asarray(frames), np.asarray(found['flow'])


def picture():
  """A picture that moves 3 columns, [1, 2, H, W, 3]."""
  rng = np.random.default_rng(0)
  wide = np.kron(rng.uniform(0.2, 1, (8, 12, 3)), np.ones((6, 6, 1)))
  frames = np.stack([wide[:, 3 * t : 3 * t + 64] for t in range(2)])
  return frames[None].astype(np.float32)


@pytest.mark.parametrize('name', SMALL)
def test_bars_are_left_as_they_are(name):
  context = picture()
  context[..., :5, :] = context[..., -4:, :] = 0
  frames, flow = shown(name, context, keep_bars=True)
  assert frames.shape == (1, 2, 48, 64, 3)
  np.testing.assert_array_equal(frames[..., :5, :], 0)
  np.testing.assert_array_equal(frames[..., -4:, :], 0)
  np.testing.assert_array_equal(flow[..., :6, :], 0)
  # The picture moves on beside them.
  assert np.abs(flow[..., 10:-10, 0]).mean() > 0.5
  assert np.abs(frames[:, 0, :, 8:-8] - context[:, 1, :, 8:-8]).mean() > 0.01


@pytest.mark.parametrize('name', SMALL)
def test_without_bars_nothing_changes(name):
  kept, plain = (shown(name, picture(), keep) for keep in (True, False))
  for a, b in zip(kept, plain):  # of the first frame, for errors add up
    np.testing.assert_allclose(a[:, 0], b[:, 0], atol=1e-3)
