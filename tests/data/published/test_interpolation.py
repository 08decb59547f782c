"""The data sets of frame interpolation, made small: real names, tiny frames."""

import numpy as np
import pytest

from tests.data.published.tiny import (
  levels,
  pictures,
  planes,
  save,
  source,
  write_y4m,
)
from vidpred_jax import data, video_io
from vidpred_jax.data import __main__ as command
from vidpred_jax.data.published import (
  interpolation,
  resize,
  y4m,
)


def septuplets(root):
  for clip in ('00001/0001', '00002/0001'):
    for k in range(1, 8):
      save(root / 'vimeo_septuplet/sequences' / clip / f'im{k}.png', k)
  place = root / 'vimeo_septuplet'
  (place / 'sep_trainlist.txt').write_text('00001/0001\n')
  (place / 'sep_testlist.txt').write_text('00002/0001\n\n')


def ucf101(root):
  names = ('frame_00', 'frame_01_gt', 'frame_02', 'frame_01_ours')
  for clip in ('1', '11', '2'):
    for k, name in enumerate(names):
      save(root / 'ucf101_interp_ours' / clip / f'{name}.png', 10 * k)


def snufilm(root):
  for clip in ('GOPRO_test/GOPR0384_11_00', 'YouTube_test/0000'):
    for k in range(1, 40):
      save(root / 'test' / clip / f'{k:06d}.png', k)
  for level, distance in interpolation.SNUFILM_LEVELS.items():
    lines = [
      ' '.join(
        f'data/SNU-FILM/test/{clip}/{1 + k * distance // 2:06d}.png'
        for k in range(3)
      )
      for clip in ('GOPRO_test/GOPR0384_11_00', 'YouTube_test/0000')
    ]
    (root / f'test-{level}.txt').write_text('\n'.join(lines) + '\n')


def x4k1000fps(root):
  for clip in ('Type1/TEST01', 'Type3/TEST11'):
    for k in range(33):
      save(root / 'test' / clip / f'{k:04d}.png', k)
  for k in range(65):
    save(root / 'train/002/occ008.320' / f'{k:04d}.png', k)


def middlebury(root):
  for name in ('Beanbags', 'Walking'):
    save(root / 'other-data' / name / 'frame10.png', 10)
    save(root / 'other-data' / name / 'frame11.png', 30)
    save(root / 'other-gt-interp' / name / 'frame10i11.png', 20)
  save(root / 'other-data/Army/frame10.png', 0)


def xiph(root):
  for clip in ('Crosswalk', 'Tango'):
    path = root / f'Netflix_{clip}_4096x2160_60fps_10bit_420.y4m'
    write_y4m(path, [planes(64 + 8 * k) for k in range(100)])


MAKERS = {
  'vimeo90k_septuplets': septuplets,
  'ucf101_triplets': ucf101,
  **{f'snufilm_{level}': snufilm for level in interpolation.SNUFILM_LEVELS},
  'x4k1000fps': x4k1000fps,
  'middlebury': middlebury,
  'xiph_2k': xiph,
  'xiph_4k': xiph,
}


@pytest.mark.parametrize('dataset', interpolation.PROTOCOLS)
def test_every_data_set_gives_clips_and_is_counted(tmp_path, dataset):
  MAKERS[dataset](tmp_path)
  protocol = interpolation.PROTOCOLS[dataset]
  for split in protocol.counts:
    clips = data.make_source(
      'frames',
      split=split,
      num_frames=3,
      dataset=dataset,
      root=str(tmp_path),
      size=None,
    )
    for i in (0, len(clips) - 1):
      item = clips[i]
      assert item['video'].shape == (3, 8, 12, 3) and item['name']
      assert item['video'].dtype == np.uint8
  if split == 'test':
    # Without a list of its own it is a part of what is for training.
    trains = 'train' in protocol.counts
    expected = 'val_fraction' if trains else f'{dataset} has .*not .val'
    with pytest.raises(ValueError, match=expected):
      source(dataset, tmp_path, 'val')
  table, good = command.check(dataset, str(tmp_path))
  assert not good  # fewer than there should be
  found = str(len(source(dataset, tmp_path)))
  wanted = str(protocol.counts['test'].clips)
  row = next(x for x in table.splitlines() if x.startswith('test '))
  assert row.split() == ['test', found, wanted, 'differs']


def test_the_table_has_the_numbers_of_the_data_sets():
  assert {
    name: {split: c.clips for split, c in p.counts.items()}
    for name, p in interpolation.PROTOCOLS.items()
  } == {
    'vimeo90k_septuplets': {'train': 64612, 'test': 7824},
    'ucf101_triplets': {'test': 379},
    'snufilm_easy': {'test': 310},
    'snufilm_medium': {'test': 310},
    'snufilm_hard': {'test': 310},
    'snufilm_extreme': {'test': 310},
    'x4k1000fps': {'train': 4408, 'test': 15},
    'middlebury': {'test': 12},
    'xiph_2k': {'test': 392},
    'xiph_4k': {'test': 392},
  }
  frames = interpolation.XIPH_FRAMES
  assert len(frames) * len(interpolation.XIPH_CLIPS) == 392
  assert (frames[0], frames[-1]) == (2, 98)


class TestClips:
  def test_septuplets(self, tmp_path):
    septuplets(tmp_path)
    test = source('vimeo90k_septuplets', tmp_path, num_frames=7)
    assert len(test) == 1 and levels(test[0]['video']) == list(range(1, 8))
    train = source('vimeo90k_septuplets', tmp_path, 'train')
    found = [levels(train[i]['video']) for i in range(len(train))]
    assert found == [[k, k + 1, k + 2] for k in range(1, 6)]

  def test_ucf101(self, tmp_path):
    ucf101(tmp_path)
    test = source('ucf101_triplets', tmp_path)
    assert [test[i]['name'] for i in range(3)] == ['1@0', '2@0', '11@0']
    assert levels(test[1]['video']) == [0, 10, 20]

  @pytest.mark.parametrize(
    'level, wanted',
    [
      ('easy', [1, 2, 3]),
      ('medium', [1, 3, 5]),
      ('hard', [1, 5, 9]),
      ('extreme', [1, 9, 17]),
    ],
  )
  def test_snufilm(self, tmp_path, level, wanted):
    snufilm(tmp_path)
    test = source(f'snufilm_{level}', tmp_path)
    assert [levels(test[i]['video']) for i in (0, 1)] == [wanted, wanted]
    assert test[0]['name'] == f'GOPR0384_11_00/{wanted[1]:06d}@0'

  def test_snufilm_with_a_line_of_another_kind(self, tmp_path):
    snufilm(tmp_path)
    (tmp_path / 'test-hard.txt').write_text('a.png b.png\n')
    with pytest.raises(ValueError, match='test-hard.txt .*2 paths.* three'):
      source('snufilm_hard', tmp_path)

  def test_x4k1000fps(self, tmp_path):
    x4k1000fps(tmp_path)
    test = source('x4k1000fps', tmp_path, num_frames=9)
    assert len(test) == 2 and test[1]['name'] == 'Type3/TEST11@0'
    assert levels(test[1]['video']) == list(range(0, 33, 4))
    # Any start, 1 to 5 frames apart; folders or films.
    path = tmp_path / 'film/encoded_train/002/occ008.320.mp4'
    path.parent.mkdir(parents=True)
    with video_io.Writer(path, fps=30) as writer:
      for k in range(65):
        writer.write(np.full((16, 24, 3), 3 * k, np.uint8))
    clips = source('x4k1000fps', tmp_path, 'train', num_frames=9)
    films = source('x4k1000fps', tmp_path / 'film', 'train', num_frames=9)
    assert clips[0]['name'].split('@')[0] == '002/occ008.320'
    assert films[0]['name'] == clips[0]['name']
    seen = set()
    for i in range(60):
      marks = levels(clips[i]['video'])
      seen |= set(np.diff(marks).tolist())
      if i < 3:
        shown = np.array(levels(films[i]['video'])) / 3
        assert np.abs(shown - marks).max() <= 1
    assert seen == {1, 2, 3, 4, 5}

  def test_middlebury(self, tmp_path):
    middlebury(tmp_path)
    test = source('middlebury', tmp_path)
    assert len(test) == 2
    assert levels(test[0]['video']) == [10, 20, 30]
    (tmp_path / 'other-data/Walking/frame11.png').unlink()
    table, good = command.check('middlebury', str(tmp_path))
    assert not good and '1 files missing' in table

  def test_any_video_twice_four_and_eight_times(self, tmp_path):
    path = tmp_path / 'a.avi'
    with video_io.Writer(path, fps=30) as writer:
      for k in range(40):
        writer.write(np.full((16, 24, 3), 6 * k, np.uint8))
    for factor in (2, 4, 8):
      clips = data.make_source(
        'videos',
        split='test',
        num_frames=factor + 1,
        root=str(path),
        test_fraction=1.0,
        scan_cache=False,
      )
      assert len(clips) == 40 // (factor + 1)
      marks = np.array(levels(clips[1]['video'])) / 6
      wanted = np.arange(factor + 1, 2 * factor + 2)
      assert np.abs(marks - wanted).max() < 0.5


class TestXiph:
  def test_windows(self, tmp_path):
    xiph(tmp_path)
    test = source('xiph_2k', tmp_path)
    assert len(test) == 2 * 49
    assert [test[i]['name'] for i in (0, 48, 49)] == [
      'Crosswalk/2@0',
      'Crosswalk/98@0',
      'Tango/2@0',
    ]
    # Counted from 1: frames 1, 2, 3 and 97, 98, 99.
    path = tmp_path / 'Netflix_Tango_4096x2160_60fps_10bit_420.y4m'
    for i, numbers in ((49, range(3)), (97, range(96, 99))):
      frames = y4m.read(path, numbers)
      np.testing.assert_array_equal(test[i]['video'], frames)
      assert len(set(levels(frames))) == 3

  def test_pictures_instead(self, tmp_path):
    for k in range(1, 101):
      save(tmp_path / 'netflix' / f'Tango-{k:03d}.png', 2 * k)
    test = source('xiph_4k', tmp_path)
    assert len(test) == 49 and test[0]['name'] == 'Tango/2@0'
    assert levels(test[48]['video']) == [194, 196, 198]

  def test_the_size_of_either_protocol(self, tmp_path):
    path = tmp_path / 'netflix/Netflix_Tango_4096x2160_60fps_10bit_420.y4m'
    frame = pictures(0, (2160, 4096))
    write_y4m(path, [frame] * 3)
    whole = source('xiph_2k', tmp_path)[0]['video'][0]
    assert whole.shape == (2160, 4096, 3)
    half = source('xiph_2k', tmp_path, size='protocol')[0]['video']
    assert half.shape == (3, 1080, 2048, 3)
    squares = whole.reshape(1080, 2, 2048, 2, 3).astype(float)
    mean = np.floor(squares.mean((1, 3)) + 0.5)
    np.testing.assert_array_equal(half[0], mean)
    part = source('xiph_4k', tmp_path, size='protocol')[0]['video']
    np.testing.assert_array_equal(part[0], whole[540:-540, 1024:-1024])


class TestResize:
  def test_means_of_squares(self):
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    wide = image.reshape(2, 3, 3, 3, 3).astype(float)
    got = resize.area(image, (2, 3))
    np.testing.assert_array_equal(got, np.rint(wide.mean((1, 3))))
    # Halves are rounded up.
    pair = np.array([[0, 1], [0, 1]], np.uint8)[..., None]
    assert resize.area(pair, (1, 1)).item() == 1
    assert resize.area(image, (6, 9)) is image
    for size in ((4, 9), (2, 9), (12, 18)):
      with pytest.raises(ValueError, match='6x9 is no multiple of'):
        resize.area(image, size)

  def test_the_centre(self):
    image = np.arange(30, dtype=np.uint8).reshape(5, 6, 1)
    np.testing.assert_array_equal(resize.crop(image, (3, 2)), image[1:4, 2:4])
    with pytest.raises(ValueError, match='5x6 is too small .* 7x2'):
      resize.crop(image, (7, 2))
