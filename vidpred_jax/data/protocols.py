"""The published data sets: where they come from, how they are cut into clips.

One table, `PROTOCOLS`. Numbers of clips, windows and sizes are those of DMVFN
(paper 4.1 and its published code) and, for UCF Sports and Human3.6M, of STRPM,
whose setting DMVFN's Table 3 follows. A `Count` that is not `exact` is stated
somewhere but could not be confirmed; `note` says why.

Differences from the reference:
  - Cityscapes: the paper trains on 2945 clips; the data set and the published
    code have 2975, which are used here.
  - KITTI: windows of all drives in sorted order; the published preparation does
    not sort the files of a drive.
"""

from typing import NamedTuple


class Count(NamedTuple):
  """How many clips a split has.

  Attributes:
    clips: the number of protocol windows (test) or sequences (train).
    exact: whether a different number is an error.
    note: what is known about the number.
  """

  clips: int
  exact: bool = True
  note: str = ''


class Protocol(NamedTuple):
  """A data set and how the published evaluations use it.

  Attributes:
    title: its name.
    url: where to get it.
    licence: terms and gates, as far as known.
    layout: the folders that are understood, below `root`.
    size: (H, W) to which frames are resized; None: as on disk.
    resize: how, and on whose word.
    window: frames in a test clip.
    test: which windows are for testing: 'first' one of each sequence or 'all'.
    train: which windows are for training: 'all' of each sequence, or
      'random': one of a random video with a random start and step.
    counts: split -> what should be there.
    protocol: which frames are seen, asked for and reported.
  """

  title: str
  url: str
  licence: str
  layout: str
  size: tuple[int, int] | None
  resize: str
  window: int
  test: str
  train: str
  counts: dict[str, Count]
  protocol: str


_PREPARED = 'or prepared: {train,test}/<clip>/<frame>.png'
_CV2 = 'cv2.resize, INTER_LINEAR'

PROTOCOLS = {
  'cityscapes': Protocol(
    title='Cityscapes sequences',
    url='https://www.cityscapes-dataset.com/downloads/ '
    '(leftImg8bit_sequence_trainvaltest.zip, 324 GB)',
    licence='own licence, non-commercial; needs registration',
    layout='leftImg8bit_sequence/{train,val}/<city>/*_leftImg8bit.png, '
    'successive 30 files are a clip; ' + _PREPARED,
    size=(512, 1024),
    resize=f'{_CV2} (DMVFN)',
    window=30,
    test='first',
    train='all',
    counts={
      'train': Count(2975, True, 'the paper says 2945'),
      'test': Count(500),
    },
    protocol='frames 2, 3 -> 4..8; t+1, t+3, t+5 as cumulative means',
  ),
  'kitti': Protocol(
    title='KITTI raw, synced and rectified',
    url='https://www.cvlibs.net/datasets/kitti/raw_data.php',
    licence='CC BY-NC-SA 3.0; needs registration',
    layout='[<date>/]<drive>_sync/image_02/data/*.png of the 28 drives, for '
    'training also image_03; ' + _PREPARED,
    size=(256, 832),
    resize=f'{_CV2} (DMVFN)',
    window=9,
    test='all',
    train='all',
    counts={
      'train': Count(
        13500,
        False,
        'windows of 9 frames, both cameras; users count 6749 in image_02',
      ),
      'test': Count(1337, True, 'windows of 9 frames, image_02 of 4 drives'),
    },
    protocol='frames 2, 3 -> 4..8; t+1, t+3, t+5 as cumulative means',
  ),
  'ucf101': Protocol(
    title='UCF101',
    url='https://www.crcv.ucf.edu/data/UCF101.php, or its frames '
    'jpegs_256 of feichtenhofer/twostreamfusion',
    licence='none stated',
    layout='[UCF-101/]<class>/v_*.avi or [jpegs_256/]v_*/*.jpg; and '
    '[ucfTrainTestlist/]trainlist01.txt, testlist01.txt',
    size=None,
    resize='none: avi are 240x320, jpegs_256 about 256x341; training crops',
    window=10,
    test='first',
    train='random',
    counts={
      'train': Count(9537, True, 'videos of trainlist01'),
      'test': Count(3783, True, 'videos of testlist01; not used by DMVFN'),
    },
    protocol='training only: 10 frames, 1 to 5 apart (DMVFN)',
  ),
  'vimeo90k': Protocol(
    title='Vimeo90K triplets',
    url='http://toflow.csail.mit.edu/ (moved to http://data.csail.mit.edu/tofu)',
    licence='none seen',
    layout='[vimeo_triplet/]sequences/<a>/<b>/im{1,2,3}.png and '
    'tri_{train,test}list.txt; or, for testing, '
    '[vimeo_interp_test/]target/<a>/<b>/im{1,2,3}.png',
    size=(256, 448),
    resize='none',
    window=3,
    test='first',
    train='all',
    counts={
      'train': Count(51312, False, 'papers say 51312 or 51313'),
      'test': Count(3782),
    },
    protocol='im1, im2 -> im3; interpolation im1, im3 -> im2',
  ),
  'davis17': Protocol(
    title='DAVIS 2017, 480p',
    url='https://davischallenge.org/davis2017/code.html '
    '(DAVIS-2017-trainval-480p.zip)',
    licence='none seen',
    layout='[DAVIS/]JPEGImages/480p/<sequence>/*.jpg and '
    'ImageSets/2017/{train,val}.txt; ' + _PREPARED,
    size=(480, 864),
    resize=f'{_CV2}; DMVFN publishes frames of this size, not how they were '
    'made',
    window=9,
    test='first',
    train='all',
    counts={'train': Count(60), 'test': Count(30)},
    protocol='frames 2, 3 -> 4..8; t+1, t+3 as cumulative means',
  ),
  'ucfsports': Protocol(
    title='UCF Sports',
    url='https://www.crcv.ucf.edu/data/UCF_Sports_Action.php; window lists: '
    'datasets/ucfsports/{train,test}.txt of github.com/ZhengChang467/STRPM',
    licence='none stated',
    layout='{train,test}.txt with lines `<folder>/,<first frame>`, and '
    '[ucf_action_images/]<action>/<number>/<frame>.png',
    size=(512, 512),
    resize=f'{_CV2}; how STRPM made its frames of this size is not published',
    window=10,
    test='first',
    train='all',
    counts={
      'train': Count(6288, True, 'windows of 10 frames'),
      'test': Count(752, True, 'windows of 10 frames'),
    },
    protocol='4 frames -> 6; t+1 and t+6',
  ),
  'human36m': Protocol(
    title='Human3.6M',
    url='http://vision.imar.ro/human3.6m; window lists: '
    'datasets/human3.6m/*.txt of github.com/ZhengChang467/STRPM',
    licence='academic use only; needs a signed form',
    layout='{train,test}.txt with lines `<folder>/,<name>_,<first frame>,...`, '
    'and <subject>/<subject>_<action>.<camera>_<frame, 6 digits>.jpg',
    size=(1024, 1024),
    resize=f'{_CV2}; how STRPM made its frames of this size is not published',
    window=8,
    test='first',
    train='all',
    counts={
      'train': Count(
        73404, False, "OpenSTL's list of windows; STRPM publishes no train list"
      ),
      'test': Count(8582, True, 'windows of 8 frames, 5 apart'),
    },
    protocol='4 frames -> 4, every 5th frame; t+1 and t+4',
  ),
}

KITTI_DRIVES = {
  'train': tuple(
    f'2011_09_{day}_drive_{number:04d}_sync'
    for day, numbers in {
      26: (1, 2, 5, 9, 11, 13, 14, 17, 18, 48, 51, 56, 57, 59, 91, 95, 104, 106)
      + (113, 117),
      28: (1, 2),
      29: (26, 71),
    }.items()
    for number in numbers
  ),
  'test': tuple(
    f'2011_09_26_drive_{number:04d}_sync' for number in (60, 84, 93, 96)
  ),
}
