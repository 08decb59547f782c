import numpy as np
import pytest

from vidpred_jax import video_io
from vidpred_jax.predict import sample


def test_what_is_seen_comes_before_what_is_to_be_predicted(tmp_path):
  truth = sample.write(tmp_path / 'seen', num_frames=3, factor=None)
  seen = video_io.read(tmp_path / 'seen')
  assert truth.shape == (3, 256, 448, 3) and seen.shape == (8, 256, 448, 3)
  film = np.concatenate([seen, truth])
  np.testing.assert_array_equal(film, sample.frames(11))


def test_every_other_frame_is_seen_to_interpolate(tmp_path):
  truth = sample.write(tmp_path / 'seen', num_frames=None, factor=3)
  seen = video_io.read(tmp_path / 'seen')
  assert len(truth) == 22
  np.testing.assert_array_equal(seen, truth[::3])


def test_a_prediction_is_compared_with_copies():
  truth = np.full((2, 8, 8, 3), 100, np.uint8)
  said = sample.compare(truth + np.uint8(1), truth, last=truth[0] + 10)
  assert '48.13 dB' in said and 'copies of the last frame: 28.13 dB' in said


def test_an_interpolation_is_compared_with_means_where_nothing_was_seen():
  truth = np.zeros((5, 8, 8, 3), np.uint8)
  truth[2:] = 20
  made = truth.copy()
  made[1::2] += 1
  made[::2] += 200  # seen: does not count
  said = sample.compare(made, truth, factor=2)
  # Frame 1 is 10 off the mean of its neighbours, frame 3 is on it.
  assert '48.13 dB' in said
  mean = (10 * np.log10(255**2 / 100) + 10 * np.log10(255**2 / 1e-3)) / 2
  assert f'frames around: {mean:.2f} dB' in said


@pytest.mark.parametrize('count', [1, 30])
def test_the_film_moves_and_is_never_empty(count):
  film = sample.frames(count).astype(float)
  assert (film.std((1, 2, 3)) > 10).all()
  assert count == 1 or np.abs(np.diff(film, axis=0)).mean((1, 2, 3)).min() > 1
