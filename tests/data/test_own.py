import itertools

import numpy as np
import pytest

from vidpred_jax import data


class Clips:
  """Six clips of five frames; the first pixel says which."""

  def __init__(self, make=lambda video: video, count=6):
    self.make, self.count = make, count

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    video = np.full((5, 4, 6, 2), 10 * i, np.uint8)
    video += np.arange(5, dtype=np.uint8)[:, None, None, None]
    return self.make(video)


SETTINGS = {'num_frames': 3, 'batch_size': 2, 'seed': 0}


@pytest.mark.parametrize(
  'make',
  [
    lambda video: video,
    lambda video: {'video': video, 'name': 'one'},
    lambda video: {'video': video[:3]},
  ],
)
def test_any_object_gives_batches(make):
  with data.train_iterator(Clips(make), **SETTINGS) as batches:
    found = list(itertools.islice(batches, 6))
  assert {batch['video'].shape for batch in found} == {(2, 3, 4, 6, 2)}
  seen = [int(v) for b in found for v in b['video'][:, 0, 0, 0, 0]]
  assert sorted(seen[:6]) == sorted(seen[6:]) == [0, 10, 20, 30, 40, 50]
  with data.train_iterator(Clips(make), start_step=2, **SETTINGS) as batches:
    np.testing.assert_array_equal(next(batches)['video'], found[2]['video'])


def test_it_is_augmented_and_evaluated():
  source = data.own_source(Clips(), num_frames=5)
  assert repr(source) == 'Clips of 6 clips' and source.kind == 'image'
  with data.eval_batches(source, batch_size=4) as batches:
    videos = np.concatenate([b['video'] for b in batches])
  assert videos[:6, 0, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
  with data.train_iterator(
    Clips(), crop=(2, 3), reverse_time=True, **SETTINGS
  ) as batches:
    assert next(batches)['video'].shape == (2, 3, 2, 3, 2)


def test_a_list_of_arrays_is_one():
  clips = list(np.zeros((4, 3, 4, 6, 1), np.float64))
  source = data.own_source(clips, num_frames=3)
  assert source[0]['video'].dtype == np.float32 and source[3]['name'] == '3'


def test_fields_say_what_they_are():
  clips = Clips(lambda video: video.astype(np.float64))
  clips.kind = 'field'
  with pytest.raises(ValueError, match='no mean, std, variables, units'):
    data.own_source(clips, num_frames=3)
  clips.mean, clips.std = np.zeros(2), np.ones(2)
  clips.variables, clips.units = ('u', 'v'), 'm/s'
  source = data.own_source(clips, num_frames=3)
  assert source.units == 'm/s' and source.latitudes is None
  assert source[1]['video'].dtype == np.float32
  with pytest.raises(ValueError, match='red and blue'):
    data.train_iterator(clips, reverse_channels=True, **SETTINGS)


@pytest.mark.parametrize(
  'clips, words',
  [
    (3, 'int; a source is a name or has __len__'),
    (Clips(count=0), 'has no clips'),
    (Clips(lambda video: video[0]), r'\[4, 6, 2\]; expected \[T, H, W, C\]'),
    (Clips(lambda video: video[:2]), 'at least 3 frames'),
    (Clips(lambda video: video.astype(int)), 'int64; expected uint8 or floats'),
    (
      Clips(lambda video: 2.0 * video),
      r'\[0, 4\]; expected images in \[0, 1\]',
    ),
    (Clips(lambda video: video * np.nan), 'not finite'),
    (Clips(lambda video: {'clip': video}), 'has clip; expected video'),
  ],
)
def test_other_objects_are_refused_in_a_sentence(clips, words):
  with pytest.raises(ValueError, match=words):
    data.train_iterator(clips, **SETTINGS)


def test_it_has_no_settings():
  with pytest.raises(ValueError, match='no setting root'):
    data.train_iterator(Clips(), root='there', **SETTINGS)
