"""The rule for a change of scene, and lists of them."""

import os
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from vidpred_jax.data import photos
from vidpred_jax.video_io import scenes


def moving(seed, num_frames=6, size=(144, 256)):
  clips = photos.PhotosInMotion('train', num_frames, size=size, seed=seed)
  return clips[0]['video']


def placed(clip, box, around):
  """A clip shrunk into a part of the picture."""
  top, left, height, width = box
  shown = np.full_like(clip, around)
  for page, frame in zip(shown, clip):
    part = Image.fromarray(frame).resize((width, height))
    page[top : top + height, left : left + width] = part
  return shown


SHOWN = {
  'whole': lambda c: c,
  'bars': lambda c: placed(c, (18, 0, 108, 256), 0),
  'upright': lambda c: placed(c, (0, 87, 144, 81), 0),
  'window': lambda c: placed(c, (36, 64, 72, 128), 255),
  'dark': lambda c: np.rint(0.15 * c).astype(np.uint8),
  'grey': lambda c: c.mean(-1, keepdims=True).astype(np.uint8),
}


def found(clip):
  return [n for n, (_, begins) in enumerate(scenes.mark(clip)) if begins]


@pytest.mark.parametrize('shown', SHOWN)
def test_a_cut_is_found_however_it_is_shown(shown):
  parts = [SHOWN[shown](moving(seed)) for seed in (0, 3, 8, 4)]
  assert found(np.concatenate(parts)) == [6, 12, 18]
  for part in parts:
    assert found(part) == []


@pytest.mark.parametrize('frames', [2, 6, 25])
def test_a_fade_is_no_cut(frames):
  clip = moving(0, frames + 1).astype(np.float32)
  light = np.linspace(0, 1, len(clip))[:, None, None, None]
  for shown in (clip * light, clip * (1 - light)):
    assert found(np.rint(shown).astype(np.uint8)) in ([], [frames])[:1]
  other = moving(3, frames + 1)
  crossed = np.rint(clip * light + other * (1 - light)).astype(np.uint8)
  if frames > 2:
    assert found(crossed) == []


def test_what_is_small_or_even_is_no_scene():
  still = np.repeat(moving(0)[:1], 6, axis=0)
  still[3:, 100:108, 40:60] = 255  # a word appears
  assert found(still) == []
  flicker = np.zeros((6, 36, 64, 3), np.uint8)
  flicker[3] = 1
  assert found(flicker) == []


def test_never_on_request_and_two_frames_of_two_scenes():
  pair = [moving(0)[0], moving(3)[0]]
  assert found(pair) == [1]
  assert not any(begins for _, begins in scenes.mark(pair, least=-1))
  assert scenes.find(map(scenes.thumbnail, pair)) == (1,)
  assert scenes.find([]) == ()


def test_two_frames_alone_that_move_fast_are_one_scene():
  """No other step shows how much the picture usually changes."""
  clip = photos.PhotosInMotion(
    'train', 4, size=(144, 256), seed=0, max_speed=10
  )[0]['video']
  alike = scenes.likeness(clip[0], clip[3])
  assert 0.55 < alike < scenes.MIN_SIMILARITY
  assert found(clip[[0, 3]]) == []
  assert found(np.stack([clip[0], moving(3)[0]])) == [1]


@pytest.mark.parametrize(
  'given, kept',
  [('aaaa', 4), ('aa', 2), ('aaabb', 2), ('abbb', 3), ('aaaab', 5), ('ab', 2)],
)
def test_the_last_two_frames_are_always_of_the_last_scene(given, kept):
  films = {'a': iter(moving(0)), 'b': iter(moving(3))}
  frames = [next(films[letter]) for letter in given]
  got = scenes.last_scene(frames)
  assert len(got) == kept
  for frame, expected in zip(got, frames[-kept:]):
    np.testing.assert_array_equal(frame, expected)
  whole = [frame.astype(np.float32) for frame in frames]
  assert len(scenes.last_scene(whole, least=-1)) == len(given)


def test_motion_that_begins_at_the_end_begins_no_scene():
  photo = moving(8, 1, (144, 300))[0]
  frames = [photo[:, x : x + 256] for x in (0, 0, 0, 0, 0, 0, 0, 30)]
  assert found(np.stack(frames)) == [7]
  assert len(scenes.last_scene(frames)) == 8


class TestLists:
  def begins(self, tmp_path, text):
    path = tmp_path / 'cuts.txt'
    path.write_text(text)
    listed = scenes.read_list(path)
    times = [Fraction(n, 25) for n in range(100)]
    return [n for n, time in enumerate(times) if listed(n, time)]

  @pytest.mark.parametrize(
    'text, numbers',
    [
      ('3\n10\n', [3, 10]),
      ('3, 10 # the end\n# no frame\n', [3, 10]),
      ('0\n3\n', [3]),
      ('0:01\n0:02.49\n', [25, 63]),
      ('0:00:01.00\n4', [4, 25]),
      (
        'Timecode List:,00:00:00.400\n'
        'Scene Number,Start Frame,Start Timecode\n'
        '1,1,00:00:00.000\n2,11,00:00:00.400\n',
        [10],
      ),
    ],
  )
  def test_numbers_times_and_tables(self, tmp_path, text, numbers):
    assert self.begins(tmp_path, text) == numbers

  @pytest.mark.parametrize('text', ['three', '1:x', '3.5'])
  def test_something_else(self, tmp_path, text):
    with pytest.raises(ValueError, match='neither a frame number nor a time'):
      self.begins(tmp_path, text)

  @pytest.mark.parametrize('text', ['"' + 'a' * 140_000, '\udcff3'])
  def test_no_text_or_too_long_a_cell(self, tmp_path, text):
    path = tmp_path / 'cuts.txt'
    path.write_text(text, errors='surrogateescape')
    with pytest.raises(ValueError, match='no text with frame numbers'):
      scenes.read_list(path)

  def test_a_pipe_is_not_waited_for(self, tmp_path):
    os.mkfifo(tmp_path / 'cuts.txt')
    with pytest.raises(ValueError, match='no ordinary file'):
      scenes.read_list(tmp_path / 'cuts.txt')
