"""The published data sets of video prediction: their protocols.

One table, `PROTOCOLS`. Numbers of clips, windows and sizes are those of DMVFN
(paper 4.1 and its published code) and, for UCF Sports and Human3.6M, of STRPM,
whose setting DMVFN's Table 3 follows; from `kth` on those of SimVPv2 (paper V),
whose published code is OpenSTL, and for RoboNet and BridgeData of PredBench;
those of `bair`, `kth_64` and `cityscapes_128` are RVD's. A `Count` that is not
`exact` is stated somewhere but could not be confirmed; `note` says why. Those
of frame interpolation alone stand in `interpolation`.

Differences from the reference:
  - Cityscapes: the paper trains on 2945 clips; the data set and the published
    code have 2975, which are used here.
  - KITTI: windows of all drives in sorted order; the published preparation does
    not sort the files of a drive.
  - RVD reports 50 clips of each test split and does not say which: the source
    has all, configs/rvd.py takes 50 of them, evenly spread. KTH's persons for
    testing are those its code evaluates, which it calls validation; it leaves
    out those of its list for testing.
"""

from vidpred_jax.data.published import interpolation
from vidpred_jax.data.published.protocol import Count, Protocol

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
  'kth': Protocol(
    title='KTH actions',
    url='https://www.csc.kth.se/cvap/actions/, or its frames kth_action.zip of '
    'github.com/chengtan9907/OpenSTL/releases',
    licence='none stated',
    layout='[kth/]<action>/person<nn>_<action>_d<n>_uncomp.avi and '
    '[kth/]00sequences.txt; or frames: '
    '[kth/]<action>/person<nn>_<action>_d<n>_uncomp/image_<number>.jpg',
    size=(128, 128),
    resize=f'{_CV2}, grey, whatever the shape of the frames (OpenSTL)',
    window=30,
    test='back',
    train='back',
    counts={
      'train': Count(
        5200,
        False,
        'persons 1-16; as published for 10 -> 20. The published rule gives '
        'more windows of 30 in the annotated frames, some 460 of a person',
      ),
      'test': Count(3167, False, 'persons 17-25; likewise'),
    },
    protocol='10 frames -> 20 or 40; windows are as long as what is asked for',
    channels=1,
  ),
  'caltech': Protocol(
    title='KITTI raw -> Caltech Pedestrian',
    url='training: https://www.cvlibs.net/datasets/kitti/raw_data.php (city, '
    'residential, road); testing: https://data.caltech.edu/records/f6rph-90m20',
    licence='KITTI: CC BY-NC-SA 3.0, needs registration; Caltech: none seen',
    layout='[kitti/][<category>/][<date>/]<drive>_sync/image_03/data/*.png of '
    'the 57 drives; [caltech/]set06 to set10/V*.seq (or .avi, or folders of '
    'frames, with all 30 frames a second)',
    size=(128, 160),
    resize='to a height of 128, bilinear with antialiasing, then the centre of '
    'the width (PredNet)',
    window=11,
    test='back',
    train='back',
    counts={
      'train': Count(
        2042,
        False,
        'drives as PredNet. Published for 10 -> 1, but they fit windows of 20 '
        'frames; of 11 frames users count 3738',
      ),
      'test': Count(1983, False, 'every 3rd frame of set06 to set10; likewise'),
    },
    protocol='10 frames -> 1, at 10 frames a second',
    fit='centre',
  ),
  'human36m_256': Protocol(
    title='Human3.6M, 256x256',
    url='http://vision.imar.ro/human3.6m, or its frames of '
    'github.com/chengtan9907/OpenSTL, with the window lists',
    licence='academic use only; needs a signed form',
    layout='{train,test}.txt with lines `images/<name>_,<first frame>,...`; '
    'images/<subject>_<action>.<camera>_<frame, 6 digits>.jpg',
    size=(256, 256),
    resize='cv2.resize, INTER_CUBIC (OpenSTL); for training there to 292x292, '
    'then a random crop of 256 and quarter turns',
    window=8,
    test='first',
    train='all',
    counts={
      'train': Count(73404, True, 'windows of 8 frames, 5 apart'),
      'test': Count(8582, True, 'windows of 8 frames, 5 apart'),
    },
    protocol='4 frames -> 4, every 5th frame (SimVPv2)',
    fit='cubic',
  ),
  'robonet': Protocol(
    title='RoboNet',
    url='https://github.com/SudeepDasari/RoboNet (hdf5, 36 GB); lists: '
    'data/annotations/robonet/*.json of github.com/OpenEarthLab/PredBench',
    licence='none seen',
    layout='[hdf5/]*.hdf5; [annotations/]robonet_{train,val,test}.json, lists '
    'of their names; without robonet_train.json all others are for training',
    size=(120, 160),
    resize=f'{_CV2} (PredBench)',
    window=12,
    test='middle',
    train='start',
    counts={
      'train': Count(
        145000, False, 'about: some 162000 episodes less those of the lists'
      ),
      'val': Count(16217, True, 'episodes'),
      'test': Count(256, True, 'episodes, those of FitVid'),
    },
    protocol='2 frames -> 10; training camera 0, testing a random camera',
  ),
  'bridgedata': Protocol(
    title='BridgeData v1',
    url='https://sites.google.com/view/bridgedata (v1); lists: '
    'data/annotations/bridgedata/*.json of github.com/OpenEarthLab/PredBench',
    licence='CC BY 4.0',
    layout='[annotations/]bridgedata_{train,val,test}.json with '
    '`{folder: number of frames}`, and [bridge_data_v1/]<folder>/im_<k>.jpg',
    size=(120, 160),
    resize=f'{_CV2} (PredBench)',
    window=12,
    test='middle',
    train='start',
    counts={
      'train': Count(31775, True, 'episodes of at least 12 frames'),
      'val': Count(3973, True, 'episodes of at least 12 frames'),
      'test': Count(3971, True, 'episodes of at least 12 frames'),
    },
    protocol='2 frames -> 10; v2 (TFDS: `bridge`) is another data set',
  ),
  'bair': Protocol(
    title='BAIR robot pushing',
    url='http://rail.eecs.berkeley.edu/datasets/'
    'bair_robot_pushing_dataset_v0.tar (TFRecord files, 30 GB); write '
    'image_aux1 of each step of an episode to a PNG file, as convert_bair.py '
    'of github.com/edenton/svg does; or take bair_robot_pushing_small of '
    "TensorFlow Datasets by the source 'tfds', without such files",
    licence='none seen',
    layout='[processed_data/]{train,test}/[<file>/]<episode>/<frame>.png',
    size=(64, 64),
    resize='none: frames are 64x64',
    window=30,
    test='first',
    train='all',
    counts={
      'train': Count(43264, True, 'episodes of 30 frames'),
      'test': Count(256, True, 'episodes of 30 frames'),
    },
    protocol='4 frames -> 16, the first ones; trained on 8 (RVD)',
    fit='antialiased',
  ),
  'kth_64': Protocol(
    title='KTH actions, 64x64',
    url='https://www.csc.kth.se/cvap/actions/, or its frames kth_action.zip of '
    'github.com/chengtan9907/OpenSTL/releases',
    licence='none stated',
    layout='as for kth',
    size=(64, 64),
    resize='bilinear with antialiasing (Pillow), grey, whatever the shape of '
    'the frames (RVD)',
    window=16,
    test='first',
    train='all',
    counts={
      'train': Count(
        760,
        False,
        'sequences of persons 11-18 as annotated; those that follow one '
        'another are one here',
      ),
      'test': Count(768, False, 'persons 1, 4, 19-21, 23-25; likewise'),
    },
    protocol='4 frames -> 12 from the 13th frame of a sequence on; trained on '
    '8 (RVD)',
    fit='antialiased',
    channels=1,
  ),
  'cityscapes_128': Protocol(
    title='Cityscapes sequences, 128x128',
    url='https://www.cityscapes-dataset.com/downloads/ '
    '(leftImg8bit_sequence_trainvaltest.zip, 324 GB)',
    licence='own licence, non-commercial; needs registration',
    layout='as for cityscapes: leftImg8bit_sequence/{train,val}/<city>/'
    '*_leftImg8bit.png; ' + _PREPARED,
    size=(128, 128),
    resize='to a height of 128, bilinear with antialiasing, then the centre of '
    'the width (RVD)',
    window=30,
    test='first',
    train='all',
    counts={
      'train': Count(2975, True, 'the paper does not say'),
      'test': Count(500),
    },
    protocol='4 frames -> 16, the first ones; trained on 8 (RVD)',
    fit='centre',
  ),
  'moving_mnist': Protocol(
    title='Moving MNIST',
    url='https://ossci-datasets.s3.amazonaws.com/mnist/ (IDX files), '
    'https://www.cs.toronto.edu/~nitish/unsupervised_video/ '
    '(mnist_test_seq.npy)',
    licence='MNIST: CC BY-SA 3.0, as commonly stated',
    layout='[moving_mnist/]train-images-idx3-ubyte[.gz] and '
    'mnist_test_seq.npy, or to generate the test clips '
    't10k-images-idx3-ubyte[.gz]',
    size=(64, 64),
    resize='none',
    window=20,
    test='all',
    train='all',
    counts={
      'train': Count(60000, True, 'digits; clips are generated'),
      'test': Count(10000, True, 'clips of mnist_test_seq.npy'),
    },
    protocol='10 frames -> 10',
    channels=1,
    source='moving_digits',
  ),
  'weatherbench': Protocol(
    title='WeatherBench',
    url='https://dataserv.ub.tum.de/index.php/s/m1524895 (5.625deg and '
    '1.40625deg)',
    licence='ERA5: Copernicus licence, with attribution',
    layout='<variable>/*.nc, one file per year, such as '
    '2m_temperature/2m_temperature_1979_5.625deg.nc',
    size=None,
    resize='none: 32x64 at 5.625 degrees, 128x256 at 1.40625',
    window=24,
    test='all',
    train='all',
    counts={
      'train': Count(
        324313, False, 'windows in 1979 to 2015; the published code: 2010 on'
      ),
      'test': Count(
        17497, False, 'windows in 2017 and 2018; the published code: 17495'
      ),
    },
    protocol='12 hours -> 12; RMSE and MAE in kelvin, without weights',
    source='weather',
  ),
  'taxibj': Protocol(
    title='TaxiBJ',
    url='taxibj of github.com/chengtan9907/OpenSTL/releases (dataset.npz)',
    licence='none seen',
    layout='[taxibj/]dataset.npz with X_train, Y_train, X_test, Y_test of '
    '[N, 4, 2, 32, 32] in [-1, 1]',
    size=(32, 32),
    resize='none',
    window=8,
    test='all',
    train='all',
    counts={
      'train': Count(20461, False, 'as users report'),
      'test': Count(500, False, 'as OpenSTL states'),
    },
    protocol='4 frames -> 4, rescaled to [0, 1]; the MSE of tables is of that, '
    'summed over a frame, times 100',
    channels=2,
    source='taxibj',
  ),
  **interpolation.PROTOCOLS,
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

# What PredNet trains on: city (less one drive for validation and one for
# testing), residential and road (less one each), the camera image_03.
PREDNET_DRIVES = tuple(
  sorted(
    {*KITTI_DRIVES['train'], *KITTI_DRIVES['test']}
    - {f'2011_09_26_drive_{n:04d}_sync' for n in (5, 104)}
    | {
      f'{date}_drive_{number:04d}_sync'
      for date, numbers in {
        '2011_09_26': (15, 19, 20, 22, 23, 27, 28, 29, 32, 35, 36, 39, 46, 52)
        + (61, 64, 86, 87, 101),
        '2011_09_29': (4,),
        '2011_09_30': (16, 18, 20, 27, 28, 33, 34),
        '2011_10_03': (27, 34, 42, 47),
      }.items()
      for number in numbers
    }
  )
)


# Who trains and who is evaluated in RVD's code, whose list for testing it does
# not use; the usual three parts of the data set.
KTH_PERSONS = {
  'train': tuple(range(11, 19)),
  'test': (1, 4, 19, 20, 21, 23, 24, 25),
}


def absent(dataset: str, root, split: str) -> str:
  """The message about a missing data set."""
  protocol = PROTOCOLS[dataset]
  return (
    f'{protocol.title} ({split}) is not at {str(root)!r}.\n'
    f'  Get it from: {protocol.url}\n'
    f'  Licence: {protocol.licence}\n'
    f'  Expected there: {protocol.layout}'
  )
