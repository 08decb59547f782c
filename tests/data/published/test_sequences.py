"""Runs of frames: pictures, videos, y4m; the others with their data sets."""

import numpy as np
import pytest

from tests.data.published.tiny import levels, planes, save, write_y4m
from vidpred_jax import video_io
from vidpred_jax.data.published import sequences


@pytest.fixture
def paths(tmp_path):
  result = [tmp_path / f'{k}.png' for k in range(6)]
  for k, path in enumerate(result):
    save(path, 10 * k)
  return tuple(map(str, result))


def test_pictures_by_number_and_step(paths):
  run = sequences.Sequence('a', paths)
  assert sequences.length(run) == 6
  clip = sequences.read(run, 1, 3, step=2)
  assert clip.shape == (3, 8, 12, 3) and clip.dtype == np.uint8
  assert levels(clip) == [10, 30, 50]
  small = sequences.read(run, 0, 2, size=(4, 6), fit='area')
  assert small.shape == (2, 4, 6, 3)


def test_runs_that_are_too_short_or_damaged_are_refused(paths, tmp_path):
  run = sequences.Sequence('ski', paths)
  with pytest.raises(ValueError, match='ski has 6 frames; 3 from frame 4'):
    sequences.read(run, 4, 3)
  save(tmp_path / '3.png', 0, size=(8, 14))
  with pytest.raises(ValueError, match='frames of ski differ in size'):
    sequences.read(run, 2, 3)
  (tmp_path / '3.png').unlink()
  with pytest.raises(FileNotFoundError, match='3.png'):
    sequences.read(run, 2, 3)


def test_a_part_of_a_video(tmp_path):
  """From its frame 4 on every second one: numbers are those of the run."""
  path = tmp_path / 'a.avi'
  with video_io.Writer(path, fps=30) as writer:
    for k in range(20):
      writer.write(np.full((16, 24, 3), 6 * k, np.uint8))
  run = sequences.Sequence('a', str(path), first=4, step=2)
  assert sequences.length(run) == 8
  marks = np.array(levels(sequences.read(run, 1, 3, step=2))) / 6
  assert np.abs(marks - [6, 10, 14]).max() < 0.5
  assert sequences.length(run._replace(number=5)) == 5


def test_it_is_a_run_of_frames(tmp_path):
  path = tmp_path / 'a.y4m'
  write_y4m(path, [planes(64 + 80 * k) for k in range(9)])
  run = sequences.Sequence('a', str(path), first=1, step=2)
  assert sequences.length(run) == 4
  got = levels(sequences.read(run, 1, 3))
  wanted = 80 * np.array([3, 5, 7]) / 876 * 255
  assert np.abs(got - wanted).max() < 4  # 1 to 2 levels darker
