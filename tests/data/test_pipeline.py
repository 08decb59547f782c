import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from vidpred_jax import data
from vidpred_jax.data import typed

PHOTOS = {'num_frames': 3, 'size': (24, 32), 'num_clips': 20}
AUGMENT = {
  'crop': (16, 16),
  'rotate': True,
  'flip': True,
  'reverse_time': True,
  'reverse_channels': True,
}


def train(steps, **settings):
  settings = {'batch_size': 4, 'seed': 1} | PHOTOS | settings
  with data.train_iterator('photos', **settings) as batches:
    return [b['video'] for b in itertools.islice(batches, steps)]


class TestTraining:
  def test_batches(self):
    first, second = train(2)
    assert first.shape == (4, 3, 24, 32, 3) and first.dtype == np.uint8
    assert not np.array_equal(first, second)
    assert train(1, **AUGMENT)[0].shape == (4, 3, 16, 16, 3)

  def test_is_a_function_of_seed_and_step(self):
    once = train(12, **AUGMENT)  # more than two passes over 20 clips
    np.testing.assert_array_equal(once, train(12, **AUGMENT))
    for start in (1, 7):
      rest = train(12 - start, start_step=start, **AUGMENT)
      np.testing.assert_array_equal(once[start:], rest)
    assert not np.array_equal(once, train(12, **AUGMENT | {'seed': 2}))

  @pytest.mark.parametrize('count', [2, 4])
  def test_is_the_same_for_any_number_of_processes(self, count):
    whole = train(5, **AUGMENT)
    parts = [
      train(5, process_index=i, process_count=count, **AUGMENT)
      for i in range(count)
    ]
    joined = [np.concatenate(step) for step in zip(*parts)]
    np.testing.assert_array_equal(whole, joined)

  @pytest.mark.parametrize('workers', [1, 2])
  def test_is_the_same_for_any_number_of_workers(self, workers):
    expected = train(5, start_step=3, **AUGMENT)
    got = train(5, start_step=3, workers=workers, **AUGMENT)
    np.testing.assert_array_equal(expected, got)
    assert type(got[0]) is np.ndarray and got[0].flags.writeable

  def test_each_pass_has_every_clip_once_in_a_new_order(self):
    source = data.make_source('photos', split='train', **PHOTOS)
    known = {source[i]['video'].tobytes(): i for i in range(20)}
    clips = np.concatenate(train(15))
    order = [known[clip.tobytes()] for clip in clips]
    passes = [order[k : k + 20] for k in (0, 20, 40)]
    assert all(sorted(p) == list(range(20)) for p in passes)
    assert len(set(map(tuple, passes))) == 3

  def test_each_visit_is_augmented_anew(self):
    clips = train(
      30, num_clips=1, batch_size=1, flip=True, reverse_channels=True
    )
    assert len({clip.tobytes() for clip in clips}) == 8

  def test_flips_can_be_chosen(self):
    (plain,) = train(1, num_clips=1, batch_size=1)
    for name, axis in (('vertical', 2), ('horizontal', 3)):
      clips = train(12, num_clips=1, batch_size=1, flip=name)
      found = {clip.tobytes() for clip in clips}
      assert found == {plain.tobytes(), np.flip(plain, axis).tobytes()}

  def test_flow_comes_along(self):
    settings = PHOTOS | {'batch_size': 4, 'seed': 0}
    pairs = ((2, 1), (2, 0))
    with data.train_iterator('photos', flow_pairs=pairs, **settings) as batches:
      batch = next(batches)
    assert batch['flow'].shape == (4, 2, 24, 32, 2)
    assert np.isfinite(batch['flow']).mean() > 0.4
    with data.train_iterator('photos', **settings) as batches:
      assert set(next(batches)) == {'video'}

  def test_a_source_without_flow_has_an_unknown_one(self):
    with data.train_iterator(
      'moving_digits', num_frames=3, batch_size=2, seed=0, flow_pairs=((2, 1),)
    ) as batches:
      flow = next(batches)['flow']
    assert flow.shape[:2] == (2, 1) and np.isnan(flow).all()


def evaluation(**settings):
  source = data.make_source('photos', split='test', **PHOTOS)
  with data.eval_batches(source, **{'batch_size': 4} | settings) as batches:
    return list(batches)


class TestEvaluation:
  def test_every_clip_once_in_order(self):
    source = data.make_source('photos', split='test', **PHOTOS)
    batches = evaluation(batch_size=8)
    assert [b['video'].shape[0] for b in batches] == [8, 8, 8]
    valid = np.concatenate([b['valid'] for b in batches])
    assert valid.tolist() == 20 * [True] + 4 * [False]
    clips = np.concatenate([b['video'] for b in batches])
    for i in range(24):
      expected = source[min(i, 19)]['video']
      np.testing.assert_array_equal(clips[i], expected)

  @pytest.mark.parametrize('count', [2, 4])
  def test_is_the_same_for_any_number_of_processes(self, count):
    whole = evaluation(batch_size=8)
    parts = [
      evaluation(batch_size=8, process_index=i, process_count=count)
      for i in range(count)
    ]
    assert {len(part) for part in parts} == {3}
    for k in ('video', 'valid'):
      joined = [np.concatenate([b[k] for b in step]) for step in zip(*parts)]
      np.testing.assert_array_equal([b[k] for b in whole], joined)

  def test_a_limit_spreads_over_the_split(self):
    source = data.make_source('photos', split='test', **PHOTOS)
    batches = evaluation(limit=5)
    assert sum(int(b['valid'].sum()) for b in batches) == 5
    clips = np.concatenate([b['video'] for b in batches])[:5]
    expected = [source[i]['video'] for i in (0, 4, 8, 12, 16)]
    np.testing.assert_array_equal(clips, expected)
    assert sum(int(b['valid'].sum()) for b in evaluation(limit=99)) == 20


def test_closed_iterators_end():
  batches = data.train_iterator('photos', batch_size=2, seed=0, **PHOTOS)
  next(batches)
  batches.close()
  batches.close()
  with pytest.raises(StopIteration):
    next(batches)


def test_errors_of_a_source_reach_the_reader(monkeypatch):
  class Broken:
    def __init__(self, split, num_frames):
      del split, num_frames

    def __len__(self):
      return 4

    def __getitem__(self, i):
      raise ValueError('clip.mp4 is damaged')

  monkeypatch.setitem(data.SOURCES, 'broken', Broken)
  with pytest.raises(ValueError, match='clip.mp4 is damaged'):
    next(data.train_iterator('broken', num_frames=3, batch_size=2, seed=0))
  with pytest.raises(ValueError, match='clip.mp4 is damaged'):
    next(data.eval_batches(Broken('test', 3), batch_size=2))


def test_wrong_names_and_numbers():
  with pytest.raises(ValueError, match='foto.*frames, .*photos, .*videos'):
    data.make_source('foto', split='train', num_frames=3)
  with pytest.raises(ValueError, match='no setting spede; .*max_speed'):
    data.make_source('photos', split='train', num_frames=3, spede=3)
  for batch_size, index, count in ((3, 0, 2), (0, 0, 1), (4, 2, 2)):
    share = {'process_index': index, 'process_count': count}
    with pytest.raises(ValueError, match='batch_size|process_index'):
      train(1, batch_size=batch_size, **share)
    with pytest.raises(ValueError, match='batch_size|process_index'):
      evaluation(batch_size=batch_size, **share)
  with pytest.raises(ValueError, match='flip must be'):
    train(1, flip='sideways')
  with pytest.raises(ValueError, match='Cannot crop 99x99'):
    train(1, crop=99)


@pytest.mark.parametrize(
  'name, settings',
  [
    ('videos', {'cache_mb': '512'}),
    ('videos', {'val_fraction': 'nan'}),
    ('videos', {'test_fraction': float('nan')}),
    ('videos', {'size': (0, 8)}),
    ('videos', {'size': (8, 8, 3)}),
    ('videos', {'short_side': 10**6}),
    ('videos', {'scan_cache': 1}),
    ('arrays', {'root': 3}),
    ('arrays', {'mean': (0.5, 'x')}),
    ('photos', {'num_frames': 10**9}),
    ('photos', {'size': (10**6, 10**6)}),
    ('photos', {'seed': 2**70}),
    ('vortices', {'frames': 5}),
    ('mix', {'parts': {'a': 1}}),
    ('mix', {'parts': {'a': {'source': 'photos', 'weight': 'x'}}}),
    ('mix', {}),
  ],
)
def test_settings_of_another_type_are_refused(name, settings):
  """By all sources; what is in the way of it is named."""
  settings = {'num_frames': 3} | settings
  wrong = list(settings)[-1] if len(settings) > 1 else 'num_frames|parts'
  with pytest.raises(ValueError, match=f'{wrong}|Weights must'):
    data.make_source(name, split='train', **settings)


@pytest.mark.parametrize(
  'value', [np.array([0.5, 0.25]), jnp.array([0.5, 0.25]), range(2), [0.5, 0]]
)
def test_arrays_and_ranges_count_as_tuples(value):
  def made(*, mean: tuple[float, ...] | None = None):
    del mean

  typed.check('made', made, {'mean': value})
  with pytest.raises(ValueError, match='made: got mean='):
    typed.check('made', made, {'mean': np.array(['a', 'b'])})


def test_augmentation_of_fields():
  class Field:
    kind = 'field'

    def __init__(self, split, num_frames):
      del split
      self.shape = (num_frames, 6, 6, 3)

    def __len__(self):
      return 4

    def __getitem__(self, i):
      size = np.prod(self.shape)
      values = np.arange(size, dtype=np.float32).reshape(self.shape)
      return {'video': values + 0.5 * (i % 2), 'name': str(i)}

  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(data.SOURCES, 'field', Field)
    settings = {'num_frames': 2, 'batch_size': 4, 'seed': 3}
    some = {'crop': (4, 5), 'flip': True, 'reverse_time': True}
    with data.train_iterator('field', **settings, **some) as batches:
      video = next(batches)['video']
    assert video.dtype == np.float32 and video.shape == (4, 2, 4, 5, 3)
    whole = np.arange(2 * 6 * 6 * 3, dtype=np.float32).reshape(2, 6, 6, 3)
    for clip in video:  # values are moved, never mixed
      assert len(np.unique(clip)) == clip.size
      assert np.isin(clip, np.concatenate([whole, whole + 0.5])).all()
    with pytest.raises(ValueError, match='red and blue.*physical'):
      data.train_iterator('field', **settings, reverse_channels=True)
