import numpy as np
import pytest
from PIL import Image

from vidpred_jax import data

PHOTOS = {'source': 'photos', 'size': 24, 'num_clips': 50}
PARTS = {
  'fast': {'weight': 3, **PHOTOS, 'max_speed': 9.0},
  'still': {'weight': 1, **PHOTOS, 'still': 1.0},
}


def mixed(parts=None, **settings):
  settings = {'split': 'train', 'num_frames': 2} | settings
  return data.make_source('mix', parts=parts or PARTS, **settings)


def test_parts_come_as_often_as_their_weights_say():
  source = mixed(num_clips=400)
  assert len(source) == 400 and len(mixed()) == 100
  names = [source[i]['name'] for i in range(400)]
  share = np.mean([name.startswith('fast/') for name in names])
  assert 0.69 < share < 0.81
  assert len(set(names)) > 60  # of a hundred, at random


def test_items_are_functions_of_seed_and_number():
  a, b = mixed(), mixed()
  a[7]
  np.testing.assert_array_equal(a[3]['video'], b[3]['video'])
  others = [mixed(seed=1)[i]['name'] for i in range(20)]
  assert others != [a[i]['name'] for i in range(20)]
  with pytest.raises(IndexError):
    a[100]


def test_only_parts_that_know_their_flow_have_one(tmp_path):
  rng = np.random.default_rng(0)
  for t in range(6):
    frame = rng.integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(frame).save(tmp_path / f'{t}.png')
  film = {'weight': 3, 'source': 'videos', 'root': str(tmp_path)}
  parts = {'fast': PARTS['fast'], 'film': film | {'test_fraction': 0.0}}
  with data.train_iterator(
    'mix', parts=parts, num_frames=2, batch_size=24, seed=0, crop=16,
    flip=True, flow_pairs=((1, 0),),
  ) as batches:  # fmt: skip
    flow = next(batches)['flow']
  assert flow.shape == (24, 1, 16, 16, 2)
  known = np.isfinite(flow).any((1, 2, 3, 4))
  assert 3 < known.sum() < 21


@pytest.mark.parametrize(
  'parts, message',
  [
    ({'a': PHOTOS}, "part 'a' .* no weight"),
    ({'a': {'weight': 1}}, "part 'a' .* no source"),
    ({'a': {'weight': 1, 'source': 'photo'}}, "no data source 'photo'"),
    ({'a': {'weight': 0, **PHOTOS}}, 'nor all be 0'),
    ({'a': {'weight': -1, **PHOTOS}, 'b': {'weight': 2, **PHOTOS}}, 'negative'),
    ({'a': {'weight': 1, 'speed': 3, **PHOTOS}}, 'no setting speed'),
  ],
)
def test_wrong_parts(parts, message):
  with pytest.raises(ValueError, match=message):
    mixed(parts)
