import gzip
import struct

import numpy as np
import pytest

from vidpred_jax.data import digits


def source(split='train', num_frames=20, **settings):
  return digits.MovingDigits(split, num_frames, **settings)


def write_idx(path, pictures, packed=True):
  data = struct.pack('>4I', 2051, len(pictures), 28, 28) + pictures.tobytes()
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(gzip.compress(data) if packed else data)


def marked(levels):
  """A full 28x28 square per level, so that a digit's place can be seen."""
  pictures = np.zeros((len(levels), 28, 28), np.uint8)
  pictures[:] = np.array(levels, np.uint8)[:, None, None]
  return pictures


@pytest.fixture
def mnist(tmp_path, monkeypatch):
  """Training digits 1..40, of which 10 are held out."""
  monkeypatch.setitem(digits._HELD_OUT, 'mnist', 10)
  write_idx(tmp_path / 'train-images-idx3-ubyte.gz', marked(np.arange(1, 41)))
  return tmp_path


def test_clips():
  clips = source()
  item = clips[5]
  assert item['video'].shape == (20, 64, 64, 1)
  assert item['video'].dtype == np.uint8 and item['video'].max() > 200
  again = source()[5]
  np.testing.assert_array_equal(item['video'], again['video'])
  others = [clips[i]['video'].tobytes() for i in range(20)]
  assert len(set(others)) == 20
  assert len(source('test', test_clips=7)) == 7
  # The beginning of a clip does not depend on its length.
  short = source(num_frames=4)[5]['video']
  np.testing.assert_array_equal(short, item['video'][:4])


def test_the_splits_have_their_own_digits_and_ways():
  bundled = digits._bundled()
  train = digits._divided(bundled, 'sklearn', 'train')
  test = digits._divided(bundled, 'sklearn', 'test')
  assert (len(train), len(test)) == (1437, 360)
  assert not {d.tobytes() for d in train} & {d.tobytes() for d in test}
  one, other = source()[0]['video'], source('test')[0]['video']
  assert not np.array_equal(one, other)


def test_bundled_digits_look_like_those_of_mnist():
  bundled = digits._bundled()
  assert bundled.shape == (1797, 28, 28)
  border = bundled.copy()
  border[:, 4:-4, 4:-4] = 0
  assert not border.any()
  assert 0.05 < bundled.mean() / 255 < 0.25  # MNIST: 0.13


def corners(clip):
  """Upper left corner of the lit square in each frame."""
  result = []
  for frame in clip[..., 0]:
    rows, columns = (np.flatnonzero(frame.any(axis)) for axis in (1, 0))
    # The whole square stays in the frame.
    assert len(rows) == len(columns) == 28
    result.append((rows[0], columns[0]))
  return np.array(result)


def test_digits_move_straight_on_and_bounce(mnist):
  clips = source(
    num_frames=40, digits='mnist', root=mnist, num_digits=1, size=(64, 100)
  )
  bounces = 0
  for i in range(40):
    way = corners(clips[i]['video'])
    assert way.min() >= 0 and (way.max(0) <= (36, 72)).all()
    turns = []
    for axis, room in ((0, 36), (1, 72)):
      place = way[:, axis]
      speeds = np.diff(place)
      assert np.abs(speeds).max() <= np.ceil(room / 10)
      inside = (place > 0) & (place < room)
      # Away from the borders the speed is one number, rounded to pixels.
      steady = inside[:-2] & inside[1:-1] & inside[2:]
      assert (np.abs(np.diff(speeds))[steady] <= 1).all()
      # After a border the digit comes back.
      for t in np.flatnonzero(place[1:-1] == room) + 1:
        assert place[t + 1] <= room
        bounces += place[t + 1] < room
      turns.append(speeds)
    # A tenth of the room per frame, whatever the heading.
    speed = np.hypot(
      *(np.median(np.abs(s)) / r for s, r in zip(turns, (36, 72)))
    )
    assert 0.05 < speed < 0.13
  assert bounces > 20


def test_the_path_is_that_of_a_billiard_ball():
  """Folding a straight line back, but for the stop at the border."""
  place, speed, line = 0.37, 0.083, []
  for _ in range(30):
    before = place
    place, speed = digits._moved(place, speed)
    line.append((before, place, speed))
  for before, after, speed in line:
    assert 0 <= after <= 1
    if 0 < after < 1:
      assert after - before == pytest.approx(speed)
    else:
      assert abs(after - before) <= 0.083 + 1e-12
      assert (speed < 0) == (after == 1)


def test_overlapping_digits_keep_the_brighter_pixel(mnist):
  clips = source(digits='mnist', root=mnist, num_digits=2)
  seen = 0
  for i in range(30):
    video = clips[i]['video']
    levels = np.unique(video[video > 0])
    assert len(levels) in (1, 2)
    if len(levels) == 2:
      # The brighter square is whole in every frame.
      assert ((video == levels[1]).sum((1, 2, 3)) == 28 * 28).all()
      seen += (video == levels[0]).sum((1, 2, 3)).min() < 28 * 28
  assert seen


class TestMnist:
  def test_without_test_files_training_digits_are_held_out(self, mnist):
    settings = {'digits': 'mnist', 'root': mnist}
    train, test = source(**settings), source('test', **settings)
    levels = {True: set(), False: set()}
    for i in range(60):
      for clips in (train, test):
        video = clips[i]['video']
        levels[clips is train] |= set(np.unique(video[video > 0]))
    assert levels[True] <= set(range(1, 31)) and len(levels[True]) > 20
    assert levels[False] == set(range(31, 41))
    assert 'generated clips of training digits of MNIST, the last 10' in repr(
      test
    )

  @pytest.mark.parametrize('packed', [True, False])
  def test_with_test_digits_all_others_train(self, mnist, packed):
    name = 't10k-images-idx3-ubyte' + '.gz' * packed
    write_idx(mnist / name, marked([201, 202]), packed)
    settings = {'digits': 'mnist', 'root': mnist}
    test = source('test', **settings)
    assert set(np.unique(test[0]['video'])) <= {0, 201, 202}
    assert 'generated clips of test digits' in repr(test)
    seen = {source(**settings)[i]['video'].max() for i in range(200)}
    assert 40 in seen and max(seen) == 40
    assert digits.count(mnist, 'train') == 40

  def test_the_published_clips(self, mnist):
    fixed = np.random.default_rng(0).integers(
      0, 256, (20, 6, 64, 64), dtype=np.uint8
    )
    np.save(mnist / 'mnist_test_seq.npy', fixed)
    settings = {'digits': 'mnist', 'root': mnist}
    test = source('test', **settings)
    assert len(test) == 6 and 'generated' not in repr(test)
    np.testing.assert_array_equal(test[4]['video'][..., 0], fixed[:, 4])
    first = source('test', 12, test_clips=2, **settings)
    assert len(first) == 2
    np.testing.assert_array_equal(first[1]['video'][..., 0], fixed[:12, 1])
    assert digits.count(mnist, 'test') == 6
    # All digits train now, so longer clips need digits of their own.
    with pytest.raises(FileNotFoundError, match='20 frames.*t10k'):
      source('test', 30, **settings)
    write_idx(mnist / 't10k-images-idx3-ubyte.gz', marked([201]))
    assert 'generated' in repr(source('test', 30, **settings))
    assert 'generated' in repr(source('test', num_digits=3, **settings))

  def test_real_digits(self, shared):
    root = shared / 'data/mnist'
    train = source(digits='mnist', root=root)
    assert train[0]['video'].max() == 255
    assert (len(train._digits), digits.count(root, 'train')) == (50000, 60000)

  def test_files_that_cannot_be_used(self, tmp_path):
    with pytest.raises(
      FileNotFoundError, match='(?s)ossci.*Licence.*IDX|ossci'
    ):
      source(digits='mnist', root=tmp_path)
    path = tmp_path / 'train-images-idx3-ubyte.gz'
    write_idx(path, marked([1]))
    with pytest.raises(ValueError, match='1 digits; more than 10000'):
      source(digits='mnist', root=tmp_path)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[10] |= 6  # of the bits of the first block, a kind that is none
    for k, (content, message) in enumerate(
      (
        (flipped, 'damaged or no gzip file: error'),
        (data[:-20], 'damaged'),
        (gzip.compress(gzip.decompress(data)[:-9]), 'do not hold 1'),
        (gzip.compress(b'\0' * 400), 'no IDX file'),
      )
    ):
      place = tmp_path / str(k)
      place.mkdir()
      (place / path.name).write_bytes(content)
      with pytest.raises(ValueError, match=message):
        source(digits='mnist', root=place)
    np.save(tmp_path / 'mnist_test_seq.npy', np.zeros((3, 20, 64, 64)))
    with pytest.raises(ValueError, match='float64.*expected uint8'):
      source('test', digits='mnist', root=tmp_path)
    path = tmp_path / 'mnist_test_seq.npy'
    data = path.read_bytes()
    for content in (b'', data[:50], data[:-1]):
      path.write_bytes(content)
      with pytest.raises(ValueError, match='damaged or no npy'):
        source('test', digits='mnist', root=tmp_path)


@pytest.mark.parametrize(
  'settings,message',
  [
    ({'split': 'dev'}, 'split must be'),
    ({'digits': 'letters'}, 'digits must be'),
    ({'size': (20, 64)}, 'at least 28'),
    ({'num_digits': 0}, 'at least 1'),
    ({'num_frames': 0}, 'at least 1'),
  ],
)
def test_wrong_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    source(**settings)


def test_auto_takes_mnist_where_it_is(mnist, tmp_path):
  for root, name in ((mnist, 'mnist'), (tmp_path / 'none', 'sklearn')):
    auto, named = (source(digits=d, root=root) for d in ('auto', name))
    assert repr(auto) == repr(named)
    np.testing.assert_array_equal(auto[5]['video'], named[5]['video'])
