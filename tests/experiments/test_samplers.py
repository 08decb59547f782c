"""Samplers are compared on the same clips and keys."""

import argparse

import numpy as np
import pytest

import vidpred_jax as vp
from experiments import samplers
from vidpred_jax import runtime, systems

FRAMES = systems.Frames((0, 1), (2,))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  settings = {
    'channels': 1, 'dim': 8, 'mults': (1, 2), 'mean_mults': (1, 2),
    'num_timesteps': 20, 'sigma': 0.02,
  }  # fmt: skip
  system = systems.make('rvd', frames=FRAMES, **settings)
  clip = np.zeros((1, 3, 16, 16, 1), np.float32)
  variables = system.init(runtime.key(0), clip)
  path = tmp_path_factory.mktemp('samplers') / 'a'
  vp.save(system, variables, path)
  return path


def test_a_close_bound_keeps_samples_near_the_mean(weights):
  options = argparse.Namespace(checkpoint=weights, samples=2)
  video = np.random.default_rng(0).random((3, 3, 16, 16, 1), np.float32)
  free, close = (
    samplers.measured(options, name, 0, FRAMES, video)
    for name in ('dpm++:4', 'dpm++:4:0.5')
  )
  assert len(free['of_clips']) == 3 and free['seconds'] > 0
  # Samples are within 0.02 / 2 of the mean; both CRPS differ by their spread.
  spread = close['crps/ens'] - close['crps/fair']
  assert 0 < spread < 255 * 0.02 / 2
  assert free['crps/ens'] - free['crps/fair'] > 5 * spread
  assert np.mean(free['of_clips']) == pytest.approx(free['crps/fair'], rel=1e-5)


def test_the_difference_is_of_the_same_clips():
  first, other = {'of_clips': [1.0, 2.0, 6.0]}, {'of_clips': [2.0, 3.0, 7.0]}
  row = samplers.compared(other, first)
  assert row['over the first'] == 1 and row['standard error'] == 0
  row = samplers.compared({'of_clips': [2.0, 2.0, 9.0]}, first)
  assert row['over the first'] == pytest.approx(4 / 3)
  assert row['standard error'] == pytest.approx(np.sqrt(7 / 3 / 3))
