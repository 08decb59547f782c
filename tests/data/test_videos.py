import json
import pickle

import numpy as np
import pytest
from PIL import Image

from vidpred_jax import data, video_io
from vidpred_jax.data import photos, videos
from vidpred_jax.video_io import scenes


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  folder = tmp_path_factory.mktemp('cache')
  monkeypatch.setenv('VIDPRED_JAX_CACHE', str(folder))
  return folder / 'scans'


def moving(seed, num_frames=30, size=(48, 64)):
  """A real photograph in motion: ordinary video without cuts."""
  clips = photos.PhotosInMotion('train', num_frames, size=size, seed=seed)
  return clips[0]['video']


def write(path, clip):
  path.parent.mkdir(exist_ok=True, parents=True)
  # GIF and folders of pictures have no quality to set.
  quality = None if path.suffix in ('.gif', '') else 10
  with video_io.Writer(path, fps=25, quality=quality) as writer:
    for frame in clip:
      writer.write(frame)
  return path


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Six videos, two of them in a folder below, one as pictures."""
  root = tmp_path_factory.mktemp('videos')
  for i, name in enumerate(
    ['a.mp4', 'b.mkv', 'c.gif', 'sub/d.mp4', 'sub/e.avi', 'f']
  ):
    write(root / name, moving(i, 20 + i))
  return root


def test_windows_are_the_frames_of_the_file(folder):
  clips = videos.VideoClips('train', 3, root=folder, step=2, test_fraction=0)
  assert len(clips.files) == 6
  assert len(clips) == sum(20 + i - 4 for i in range(6))
  for i in (0, 15, 16, 60, len(clips) - 1):
    item = clips[i]
    name, start = item['name'].rsplit('@', 1)
    whole = video_io.read(name)
    expected = whole[int(start) : int(start) + 5 : 2]
    np.testing.assert_array_equal(item['video'], expected)
  names = {clips[i]['name'] for i in range(len(clips))}
  assert len(names) == len(clips)


def test_windows_of_several_steps(folder):
  settings = {'root': folder, 'test_fraction': 0}
  counts = [
    len(videos.VideoClips('train', 3, step=step, **settings)) for step in (1, 3)
  ]
  both = videos.VideoClips('train', 3, step=(1, 3), **settings)
  assert len(both) == sum(counts)
  first, last = (
    videos.VideoClips('train', 3, step=step, **settings)[-1] for step in (1, 3)
  )
  for i, item in ((counts[0] - 1, first), (-1, last)):
    assert both[i]['name'] == item['name']
    np.testing.assert_array_equal(both[i]['video'], item['video'])


def test_decoding_windows_and_whole_files_is_the_same(folder):
  settings = {'root': folder, 'size': (32, 40), 'test_fraction': 0}
  whole = videos.VideoClips('train', 4, **settings)
  windows = videos.VideoClips('train', 4, **settings, cache_mb=0)
  for i in range(0, len(whole), 13):
    assert whole[i]['name'] == windows[i]['name']
    np.testing.assert_array_equal(whole[i]['video'], windows[i]['video'])


def test_a_file_that_does_not_fit_leaves_the_cache_to_others(
  folder, monkeypatch
):
  # In 1 MiB there is room for 24 of these frames; f has 25 and sub/d.mp4 23.
  clips = videos.VideoClips(
    'train',
    3,
    root=(folder / 'f', folder / 'sub/d.mp4'),
    size=(120, 120),
    test_fraction=0,
    cache_mb=1,
  )
  decoded = []
  read = video_io.read

  def recorded(path, **settings):
    decoded.append(path.name)
    return read(path, **settings)

  monkeypatch.setattr(video_io, 'read', recorded)
  for i in (0, 1, 30, 31, 32):
    clips[i]
  assert decoded == ['f', 'f', 'd.mp4']


def test_hop(folder):
  train = videos.VideoClips('train', 5, root=folder / 'a.mp4', test_fraction=0)
  assert len(train) == 16
  test = videos.VideoClips('test', 5, root=folder / 'a.mp4', test_fraction=1)
  # Without overlap: 0, 5, 10, 15.
  assert [test[i]['name'].split('@')[1] for i in range(len(test))] == [
    '0', '5', '10', '15'
  ]  # fmt: skip
  hop = videos.VideoClips(
    'test', 5, root=folder / 'a.mp4', test_fraction=1, hop=7
  )
  assert len(hop) == 3


class TestSplits:
  def test_no_file_is_in_both(self, folder):
    for fraction in (0.01, 0.2, 0.5, 0.99):
      train, test = (
        videos.VideoClips(s, 3, root=folder, test_fraction=fraction)
        for s in ('train', 'test')
      )
      assert not set(train.files) & set(test.files)
      assert sorted(train.files + test.files) == videos.find(folder)
    again = videos.VideoClips('test', 3, root=folder, test_fraction=0.99)
    assert again.files == test.files

  def test_by_list(self, folder):
    settings = {'root': folder, 'test_files': str(folder / 'sub')}
    test = videos.VideoClips('test', 3, **settings)
    train = videos.VideoClips('train', 3, **settings)
    assert [p.name for p in test.files] == ['d.mp4', 'e.avi']
    assert [p.name for p in train.files] == ['a.mp4', 'b.mkv', 'c.gif', 'f']

  def test_one_file_cannot_serve_both(self, folder):
    videos.VideoClips('train', 3, root=folder / 'a.mp4')
    with pytest.raises(ValueError, match='None of the 1 files is left for'):
      videos.VideoClips('test', 3, root=folder / 'a.mp4')


class TestFind:
  def test_folder_list_pattern_and_file(self, folder):
    assert len(videos.find(folder)) == 6
    assert len(videos.find(str(folder / '*.m*'))) == 2
    assert len(videos.find((folder / 'sub', str(folder / '*.m*')))) == 4
    assert videos.find(folder / 'a.mp4') == [folder / 'a.mp4']

  def test_nothing_there(self, tmp_path):
    for root in (tmp_path, tmp_path / 'none', str(tmp_path / '*.mp4')):
      with pytest.raises(FileNotFoundError, match='no videos at'):
        videos.find(root)
    with pytest.raises(FileNotFoundError, match='needs root'):
      videos.VideoClips('train', 3)


class TestSize:
  def test_cover_keeps_shapes_and_cuts_evenly(self, folder):
    clips = videos.VideoClips('train', 3, root=folder / 'f', size=(24, 24))
    whole = video_io.read(folder / 'f', count=3, size=(24, 32))
    np.testing.assert_array_equal(clips[0]['video'], whole[:, :, 4:28])

  def test_stretch_and_short_side(self, folder):
    clips = videos.VideoClips(
      'train', 3, root=folder / 'f', size=(24, 24), fit='stretch'
    )
    whole = video_io.read(folder / 'f', count=3, size=(24, 24))
    np.testing.assert_array_equal(clips[0]['video'], whole)
    clips = videos.VideoClips('train', 3, root=folder / 'f', short_side=36)
    assert clips[0]['video'].shape == (3, 36, 48, 3)

  def test_different_sizes_in_one_batch(self, tmp_path):
    write(tmp_path / 'a.mp4', moving(0, 6))
    write(tmp_path / 'b.mp4', moving(1, 6, size=(40, 64)))
    settings = {
      'num_frames': 3,
      'batch_size': 8,
      'seed': 0,
      'root': tmp_path,
      'test_fraction': 0,
    }
    with pytest.raises(ValueError, match='differ in size.*give the source'):
      next(data.train_iterator('videos', **settings))
    with data.train_iterator('videos', **settings, crop=(32, 32)) as batches:
      assert next(batches)['video'].shape == (8, 3, 32, 32, 3)


class TestCuts:
  def test_no_clip_crosses_a_cut(self, tmp_path):
    lengths = {3: 12, 8: 9, 2: 3, 6: 20}
    scenes = [moving(seed, n) for seed, n in lengths.items()]
    write(tmp_path / 'a.mp4', np.concatenate(scenes))
    clips = videos.VideoClips('train', 4, root=tmp_path)
    starts = [int(clips[i]['name'].split('@')[1]) for i in range(len(clips))]
    # The third scene is too short.
    assert starts == [*range(9), *range(12, 18), *range(24, 41)]

  def test_fast_motion_is_no_cut(self):
    clips = photos.PhotosInMotion('train', 14, size=(144, 256), max_speed=10.0)
    for i in range(10):
      marked = scenes.mark(clips[i]['video'])
      assert not any(begins for _, begins in marked)

  def test_real_cut(self, shared):
    path = shared / 'data/natural/torchcodec_nasa_13013.mp4'
    assert videos.scan_file(path, stream=0).cuts == (202,)
    assert videos.scan_file(path).cuts == (240,)  # the other stream

  @pytest.mark.parametrize(
    'name',
    [
      'action/sam2_bedroom.mp4',
      'natural/mdn_elf.mp4',
      'driving/udacity_project_video_seg1.mp4',
      'action_asl/again.mkv',
    ],
  )
  def test_real_motion_is_no_cut(self, shared, name):
    assert videos.scan_file(shared / 'data' / name).cuts == ()


class TestUnreadable:
  @pytest.fixture
  def damaged(self, tmp_path):
    write(tmp_path / 'good.mp4', moving(0, 8))
    (tmp_path / 'text.mp4').write_text('no video')
    data = write(tmp_path / 'half.mp4', moving(1, 30)).read_bytes()
    (tmp_path / 'half.mp4').write_bytes(data[: len(data) // 2])
    return tmp_path

  def test_skipped_and_reported(self, damaged):
    clips = videos.VideoClips('train', 3, root=damaged, test_fraction=0)
    assert [p.name for p in clips.files] == ['good.mp4']
    assert {p.name for p, _ in clips.unreadable} == {'text.mp4', 'half.mp4'}
    assert all(str(p) in why for p, why in clips.unreadable)

  @pytest.mark.parametrize('name', ['loop.mp4', 'nowhere.mp4'])
  def test_a_link_to_nothing_given_by_name(self, tmp_path, name):
    (tmp_path / 'loop.mp4').symlink_to('loop.mp4')
    (tmp_path / 'nowhere.mp4').symlink_to('gone.mp4')
    with pytest.raises((ValueError, FileNotFoundError), match=name):
      videos.VideoClips('train', 3, root=tmp_path / name, test_fraction=0)

  def test_what_is_no_film_by_its_name_is_named(self, tmp_path, caplog):
    (tmp_path / 'there.mp4').symlink_to(tmp_path / 'nowhere.mp4')
    for name in ('notes.txt', 'film.mp4.part', '._a.mp4', 'Thumbs.db'):
      (tmp_path / name).write_text('x')
    path = write(tmp_path / 'a.gif', moving(0, 4, (16, 16)))
    assert video_io.find_videos(tmp_path) == [path]
    said = [r.getMessage() for r in caplog.records]
    names = 'film.mp4.part, notes.txt, there.mp4'
    assert said == [f'Passed over in {tmp_path}, no films or pictures: {names}']

  def test_pictures_of_several_sizes(self, tmp_path):
    for n, height in enumerate((48, 48, 40)):
      image = Image.fromarray(np.zeros((height, 64, 3), np.uint8))
      image.save(tmp_path / f'{n}.png')
    with pytest.raises(ValueError, match='2.png is 40x64'):
      videos.scan_file(tmp_path)

  def test_fatal_on_request(self, damaged):
    with pytest.raises(ValueError, match='half.mp4'):
      videos.VideoClips(
        'train', 3, root=damaged, test_fraction=0, on_error='raise'
      )

  def test_nothing_left(self, damaged):
    with pytest.raises(ValueError, match='(?s)1 files cannot be read.*text'):
      videos.VideoClips('train', 3, root=damaged / 'text.mp4', test_fraction=0)
    with pytest.raises(ValueError, match='has 20 frames'):
      videos.VideoClips('train', 20, root=damaged, test_fraction=0)


class TestScanCache:
  def test_is_used_until_the_file_changes(self, tmp_path, cache, monkeypatch):
    path = write(tmp_path / 'a.mp4', moving(0, 8))
    first = videos.VideoClips('train', 3, root=path)
    (entry,) = cache.iterdir()
    assert json.loads(entry.read_text())['num_frames'] == 8

    def never(*args):
      raise AssertionError('scanned again')

    with monkeypatch.context() as patch:
      patch.setattr(videos, 'scan_file', never)
      again = videos.VideoClips('train', 3, root=path)
      np.testing.assert_array_equal(first[2]['video'], again[2]['video'])
    path.unlink()
    write(path, moving(1, 11))
    assert len(videos.VideoClips('train', 3, root=path)) == 9

  def test_a_damaged_entry_is_replaced(self, tmp_path, cache):
    path = write(tmp_path / 'a.mp4', moving(0, 8))
    videos.VideoClips('train', 3, root=path)
    (entry,) = cache.iterdir()
    whole = entry.read_text()
    entry.write_text(whole[:20])
    assert len(videos.VideoClips('train', 3, root=path)) == 6
    assert entry.read_text() == whole

  def test_none_on_request(self, tmp_path, cache, monkeypatch):
    path = write(tmp_path / 'a.mp4', moving(0, 8))
    videos.VideoClips('train', 3, root=path, scan_cache=False)
    assert not cache.exists()
    monkeypatch.setenv('VIDPRED_JAX_CACHE', '')
    videos.VideoClips('train', 3, root=path)
    assert not cache.exists()


def test_can_be_sent_to_a_worker(folder):
  clips = videos.VideoClips('train', 3, root=folder)
  before = clips[4]
  there = pickle.loads(pickle.dumps(clips))
  assert len(pickle.dumps(clips)) < 50_000  # no decoded frames
  np.testing.assert_array_equal(there[4]['video'], before['video'])


@pytest.mark.parametrize(
  'settings, message',
  [
    ({'split': 'dev'}, "'val' or 'test'"),
    ({'fit': 'crop'}, 'fit must be'),
    ({'on_error': 'ignore'}, 'on_error'),
    ({'size': (8, 8), 'short_side': 8}, 'not both'),
    ({'step': 0}, 'at least 1'),
    ({'step': ()}, 'at least 1'),
    ({'teacher': 'raft'}, "'dis' or empty"),
    ({'hop': 0}, 'at least 1'),
    ({'test_fraction': 2.0}, 'test_fraction'),
  ],
)
def test_wrong_settings(folder, settings, message):
  arguments = {'split': 'train', 'num_frames': 3, 'root': folder} | settings
  with pytest.raises(ValueError, match=message):
    videos.VideoClips(**arguments)
