"""What a `Predictor` gives a system for context where a clip has less."""

import numpy as np
import pytest

from tests.predict.toys import VARIABLES, F, clip_of, damped, make, smooth
from vidpred_jax.predict import predictor
from vidpred_jax.systems import base


def test_a_short_clip_and_a_new_scene_begin_with_their_first_frame():
  def first(x, context, key):
    del x, key
    return context[:, :1]

  system = make(first, F((0, 1, 2, 3, 4), (5,)))
  other = clip_of(1, 5, 8).repeat(8, 1).repeat(8, 2).repeat(3, 0)
  clip = np.concatenate([smooth(3, 40, 64), other])
  with pytest.raises(ValueError, match='3 frames, expected at least 5'):
    predictor.Predictor(system, VARIABLES).predict(clip[:3], 1)
  system = system._replace(repeats_context=True)
  serve = predictor.Predictor(system, VARIABLES)
  for given, expected in ((clip[:2], 0), (clip[:3], 0), (clip, 3)):
    np.testing.assert_array_equal(serve.predict(given, 1)[0], clip[expected])
  whole = predictor.Predictor(system, VARIABLES, cut=-1)
  np.testing.assert_array_equal(whole.predict(clip, 1)[0], clip[1])
  with pytest.raises(ValueError, match='1 frame, expected at least 2'):
    serve.predict(clip[:1], 1)


@pytest.mark.parametrize('cut', [0.8, -1])
def test_frames_given_again_are_as_far_apart_as_the_others(cut):
  """Of the new scene's three frames two are two frames apart."""

  def all_of_them(x, context, key):
    del x, key
    return context

  frames = F((0, 2, 4), (6, 8, 10))
  system = make(all_of_them, frames)._replace(repeats_context=True)
  clip = np.concatenate([smooth(2, 40, 64), 255 - smooth(5, 40, 64)[2:]])
  got = predictor.Predictor(system, VARIABLES, cut=cut).predict(clip, 3)
  expected = clip[[0, 2, 4]] if cut == -1 else clip[[2, 2, 4]]
  np.testing.assert_array_equal(got, expected)


def test_fields_go_on_whatever_the_step_before():
  system = make(damped, F((0, 1, 2), (3,)))._replace(
    repeats_context=True,
    data=base.DataSpec('field', ('t', 'u', 'v'), 'K', (0.0,) * 3, (1.0,) * 3),
  )
  clip = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
  clip = clip.astype(np.float32)
  got = predictor.Predictor(system, VARIABLES).predict(clip, 1)
  expected = clip[1] + 0.5 * (clip[1] - clip[0])
  np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-5)
