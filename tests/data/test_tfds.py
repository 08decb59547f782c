"""Data sets are prepared here, as ArrayRecord, without TensorFlow."""

import io
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vidpred_jax import data
from vidpred_jax.data import tfds as room

tfds = pytest.importorskip('tensorflow_datasets')


def picture(value):
  """A PNG file whose first pixel says a number."""
  frame = np.full((8, 6, 3), value, np.uint8)
  file = io.BytesIO()
  Image.fromarray(frame).save(file, 'png')
  return file.getvalue()


def frames(episode, length):
  return [picture(16 * episode + t) for t in range(length)]


FEATURES = {
  # As bair_robot_pushing_small: all of it a sequence of stated length.
  'push': tfds.features.Sequence(
    {
      'image_main': tfds.features.Image(shape=(8, 6, 3)),
      'image_aux1': tfds.features.Image(shape=(8, 6, 3)),
      'action': tfds.features.Tensor(shape=(2,), dtype=np.float32),
    },
    length=7,
  ),
  # As Open X-Embodiment: steps of any number.
  'robot': tfds.features.FeaturesDict(
    {
      'steps': tfds.features.Dataset(
        {
          'observation': {'image': tfds.features.Image(shape=(8, 6, 3))},
          'reward': tfds.features.Scalar(dtype=np.float32),
        }
      )
    }
  ),
  'films': tfds.features.FeaturesDict(
    {
      'pictures': tfds.features.Sequence(tfds.features.Image(shape=(8, 6, 3))),
      'array': tfds.features.Tensor(shape=(None, 4, 4, 1), dtype=np.uint8),
      'label': tfds.features.Scalar(dtype=np.int64),
    }
  ),
}


def example(name, n):
  length = 4 + n
  if name == 'push':
    return {
      'image_main': frames(9, 7),
      'image_aux1': frames(n, 7),
      'action': np.zeros((7, 2), np.float32),
    }
  if name == 'robot':
    steps = [
      {'observation': {'image': frame}, 'reward': 0.0}
      for frame in frames(n, length)
    ]
    return {'steps': steps}
  values = 16 * n + np.arange(length, dtype=np.uint8)
  return {
    'pictures': frames(n, length),
    'array': values[:, None, None, None] + np.zeros((4, 4, 1), np.uint8),
    'label': n,
  }


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """A folder with the three, five examples for training and two for testing."""
  place = tmp_path_factory.mktemp('tensorflow_datasets')

  def build(name, **settings):
    def info(self):
      return tfds.core.DatasetInfo(builder=self, features=FEATURES[name])

    def split_generators(self, manager):
      del manager
      return {'train': self.examples(5), 'test': self.examples(2)}

    def examples(self, count):
      for n in range(count):
        yield n, example(name, n)

    kind = type(
      name,
      (tfds.core.GeneratorBasedBuilder,),
      {
        '__module__': __name__,
        'VERSION': tfds.core.Version('1.0.0'),
        'name': name,
        '_info': info,
        '_split_generators': split_generators,
        '_generate_examples': examples,
        'examples': examples,
      },
    )
    kind(data_dir=place, **settings).download_and_prepare()

  for name in FEATURES:
    build(name, file_format='array_record')
  return place


KEYS = {
  'push': 'image_aux1',
  'robot': 'steps/observation/image',
  'films': 'pictures',
}


def source(place, name, split='train', num_frames=3, **settings):
  settings = {'name': name, 'key': KEYS[name], 'data_dir': place} | settings
  return room.TfdsClips(split, num_frames, **settings)


def seen(clip):
  """Episode and first frame; the frames follow one another."""
  values = clip['video'][:, 0, 0, 0].astype(int)
  assert (np.diff(values) == 1).all()
  return divmod(values[0], 16)


def test_every_window_where_the_length_is_stated(prepared):
  clips = source(prepared, 'push')
  assert clips[0]['video'].shape == (3, 8, 6, 3) and clips.kind == 'image'
  assert clips[0]['video'].dtype == np.uint8
  found = sorted(seen(clips[i]) for i in range(len(clips)))
  assert found == [(n, t) for n in range(5) for t in range(5)]
  test = source(prepared, 'push', 'test')
  found = sorted(seen(test[i]) for i in range(len(test)))
  assert found == [(n, t) for n in range(2) for t in (0, 3)]
  apart = source(prepared, 'push', step=3)
  assert len(apart) == 5
  values = apart[0]['video'][:, 0, 0, 0].astype(int)
  assert np.diff(values).tolist() == [3, 3]


@pytest.mark.parametrize('name', ['robot', 'films'])
def test_windows_are_drawn_where_it_is_not(prepared, name):
  clips = source(prepared, name, num_frames=6)
  assert len(clips) == 500
  found = [seen(clips[i]) for i in range(100)]
  assert {n for n, _ in found} == {2, 3, 4}  # of the others none is long enough
  assert {t for n, t in found if n == 4} == {0, 1, 2}
  assert seen(clips[7]) == found[7] and clips[7]['name'].endswith(
    f'@{found[7][1]}'
  )
  test = source(prepared, name, 'test')
  assert sorted(seen(test[i]) for i in range(len(test))) == [(0, 0), (1, 0)]
  with pytest.raises(ValueError, match='has the 9 frames.*the longest has 5'):
    source(prepared, name, 'test', num_frames=9)
  with pytest.raises(ValueError, match='has 9 frames'):
    source(prepared, name, num_frames=9)[0]


def test_an_array_of_bytes_and_a_part_of_a_split(prepared):
  clips = source(prepared, 'films', key='array', train_split='train[:40%]')
  assert len(clips) == 200 and clips[0]['video'].shape == (3, 4, 4, 1)


@pytest.mark.parametrize('workers', [0, 1])
def test_batches(prepared, workers):
  with data.train_iterator(
    'tfds',
    num_frames=3,
    batch_size=4,
    seed=0,
    workers=workers,
    name='robot',
    key='steps/observation/image',
    data_dir=str(prepared),
  ) as batches:
    assert next(batches)['video'].shape == (4, 3, 8, 6, 3)


def test_a_worker_process_opens_it_anew(prepared):
  clips = source(prepared, 'robot')
  again = pickle.loads(pickle.dumps(clips))
  np.testing.assert_array_equal(again[5]['video'], clips[5]['video'])


def test_no_tensorflow(prepared):
  code = (
    'import sys; from vidpred_jax import data;'
    "assert 'tensorflow_datasets' not in sys.modules;"
    f"s = data.make_source('tfds', split='train', num_frames=3, name='push',"
    f"key='image_aux1', data_dir={str(prepared)!r}); s[0];"
    "assert 'tensorflow' not in sys.modules"
  )
  root = pathlib.Path(__file__).resolve().parents[2]
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True
  )
  assert not done.returncode, done.stderr


def test_what_cannot_be_read_is_refused(prepared, tmp_path):
  for key in ('', 'image', 'steps', 'steps/observation'):
    with pytest.raises(ValueError, match='are at steps/observation/image'):
      source(prepared, 'robot', key=key)
  with pytest.raises(ValueError, match="splits train, test, not 'val'"):
    source(prepared, 'robot', 'test', test_split='val')
  with pytest.raises(FileNotFoundError, match='tfds build .*array_record'):
    source(tmp_path, 'robot')
  with pytest.raises(ValueError, match='needs name'):
    room.TfdsClips('train', 3, key='v', data_dir=prepared)
  with pytest.raises(ValueError, match='val_fraction'):
    source(prepared, 'robot', 'val')
  with pytest.raises(ValueError, match='at least 1'):
    source(prepared, 'robot', step=0)


def copied(prepared, tmp_path, name, file, old, new):
  target = tmp_path / name / '1.0.0'
  target.mkdir(parents=True)
  for path in (prepared / name / '1.0.0').iterdir():
    (target / path.name).write_bytes(path.read_bytes())
  text = (target / file).read_text()
  assert old in text
  (target / file).write_text(text.replace(old, new))


def test_video_features_and_other_formats_are_refused(prepared, tmp_path):
  copied(
    prepared,
    tmp_path,
    'films',
    'features.json',
    'sequence_feature.Sequence"',
    'video_feature.Video"',
  )
  with pytest.raises(ValueError, match="TensorFlow alone.*source 'videos'"):
    source(tmp_path, 'films')
  copied(
    prepared,
    tmp_path,
    'robot',
    'dataset_info.json',
    '"array_record"',
    '"tfrecord"',
  )
  with pytest.raises(ValueError, match='--file_format=array_record'):
    source(tmp_path, 'robot')


@pytest.mark.parametrize('name', KEYS)
def test_the_last_examples_for_training_are_for_validation(prepared, name):
  taken = {}
  for split in ('train', 'val'):
    clips = source(prepared, name, split, num_frames=2, val_fraction=0.4)
    names = [clips[i]['name'] for i in range(len(clips))]
    assert len(set(names)) == len(names) or split == 'train'
    # Records lie in an order of their own: the number is that of the record.
    taken[split] = {x.partition('@')[0] for x in names}
  assert taken['val'] == {'train/3', 'train/4'}
  assert taken['train'] and taken['train'] <= {f'train/{n}' for n in range(3)}
