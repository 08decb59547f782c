"""Predictions without a model."""

import numpy as np

from vidpred_jax import systems
from vidpred_jax.evaluate import baselines

# One clip, a black frame and a white one of 2x2 pixels.
CONTEXT = np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))])[None]


def test_after_the_context_the_last_frame_is_repeated():
  predicted = baselines.predict(systems.Frames((0, 1), (2, 3, 4)), CONTEXT)
  assert set(predicted) == {'copy_last'}
  np.testing.assert_array_equal(
    predicted['copy_last'], np.ones((1, 3, 2, 2, 1))
  )


def test_between_frames_they_are_blended_by_time():
  predicted = baselines.predict(systems.Frames((0, 4), (1, 2, 3)), CONTEXT)
  assert set(predicted) == {'copy_last', 'average'}
  np.testing.assert_allclose(
    predicted['average'][0, :, 0, 0, 0], [0.25, 0.5, 0.75], rtol=1e-6
  )


def test_frames_around_the_two_do_not_count():
  frames = systems.Frames((0, 2, 4, 6), (3,))
  around = np.full((1, 1, 2, 2, 1), 9.0)
  predicted = baselines.predict(frames, np.hstack([around, CONTEXT, around]))
  np.testing.assert_allclose(
    predicted['average'], 0.5 * np.ones((1, 1, 2, 2, 1))
  )
  np.testing.assert_array_equal(predicted['copy_last'], CONTEXT[:, 1:])


def test_a_mean_frame_is_predicted_always():
  frame = np.full((2, 2, 1), 0.3, np.float32)
  predicted = baselines.predict(
    systems.Frames((0, 1), (2, 3)), CONTEXT, mean_frame=frame
  )
  np.testing.assert_array_equal(
    predicted['mean_frame'], np.stack([frame, frame])[None]
  )
