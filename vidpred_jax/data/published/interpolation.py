"""The published data sets of frame interpolation; part of `prediction`.

Numbers of clips and layouts are those of the data sets' own lists and of the
published evaluations: EBME for Vimeo90K, UCF101, SNU-FILM and X4K1000FPS,
SoftSplat for Xiph. The triplets of Vimeo90K are in `prediction`, since they are
used for prediction too.

Differences from the reference:
  - Xiph: 4096x2160 in 10 bits is read from the y4m files themselves, with the
    conversion to 8 bits that `ffmpeg -pix_fmt rgb24` makes (FFmpeg's defaults,
    which darken by 1 to 2 levels, the truth as well as what is seen).
  - X4K1000FPS: training clips are 1 to 5 frames apart (testing: 4), with a
    random start; XVFI draws the distance of the outer frames.
"""

from vidpred_jax.data.published.protocol import Count, Protocol

XIPH_CLIPS = {
  'BoxingPractice': 'ElFuente',
  'Crosswalk': 'ElFuente',
  'DrivingPOV': 'Chimera',
  'FoodMarket': 'ElFuente',
  'FoodMarket2': 'ElFuente',
  'RitualDance': 'ElFuente',
  'SquareAndTimelapse': 'ElFuente',
  'Tango': 'ElFuente',
}
# The frame asked for, counted from 1; its neighbours are seen.
XIPH_FRAMES = range(2, 99, 2)

SNUFILM_LEVELS = {'easy': 2, 'medium': 4, 'hard': 8, 'extreme': 16}


def _snufilm(level: str, distance: int) -> Protocol:
  return Protocol(
    title=f'SNU-FILM, {level}',
    url='https://myungsub.github.io/CAIN (SNU-FILM.zip and the lists '
    'test-*.txt)',
    licence='none seen',
    layout=f'[eval_modes/]test-{level}.txt, three paths a line; and '
    '[test/]GOPRO_test/<clip>/*.png, [test/]YouTube_test/<clip>/*.png',
    size=None,
    resize='none: up to 720x1280, of several sizes',
    window=3,
    test='first',
    train='all',
    counts={'test': Count(310, True, 'lines of the list')},
    protocol=f'frames {distance} apart of 240 frames a second -> the one in '
    'the middle',
  )


def _xiph(title: str, fit: str, resize: str) -> Protocol:
  return Protocol(
    title=title,
    url='https://media.xiph.org/video/derf/ElFuente/ (DrivingPOV: Chimera/) '
    'Netflix_<clip>_4096x2160_60fps_10bit_420.y4m; the first 100 frames, '
    '2.65 GB of each file, are enough',
    licence='Netflix, of the family of CC BY-NC-ND 4.0; see each clip',
    layout='[netflix/]Netflix_<clip>_4096x2160_60fps_10bit_420.y4m, or frames '
    '[netflix/]<clip>-<frame, 3 digits from 001>.png; <clip>: '
    + ', '.join(XIPH_CLIPS),
    size=(1080, 2048),
    resize=resize,
    window=3,
    test='first',
    train='all',
    counts={'test': Count(392, True, '49 of each of 8 clips')},
    protocol='frames i - 1, i + 1 -> i, i = 2, 4, .., 98 counted from 1; '
    'psnr/round8 and ssim/skimage7_dr255, the mean of all',
    fit=fit,
  )


PROTOCOLS = {
  'vimeo90k_septuplets': Protocol(
    title='Vimeo90K septuplets',
    url='http://toflow.csail.mit.edu/ (vimeo_septuplet.zip, 82 GB)',
    licence='non-commercial use only',
    layout='[vimeo_septuplet/]sequences/<a>/<b>/im{1..7}.png and '
    'sep_{train,test}list.txt',
    size=(256, 448),
    resize='none',
    window=7,
    test='first',
    train='all',
    counts={
      'train': Count(64612, False, 'as users count the list'),
      'test': Count(7824, True, 'lines of sep_testlist.txt'),
    },
    protocol='im1, im7 -> im2..im6, or any three in a row',
  ),
  'ucf101_triplets': Protocol(
    title='UCF101 triplets',
    url='https://github.com/liuziwei7/voxel-flow (UCF101_results.zip)',
    licence='none stated',
    layout='[ucf101_interp_ours/]<number>/frame_00.png, frame_01_gt.png, '
    'frame_02.png',
    size=(256, 256),
    resize='none',
    window=3,
    test='first',
    train='all',
    counts={'test': Count(379)},
    protocol='frame_00, frame_02 -> frame_01_gt, without masks of motion',
  ),
  **{
    f'snufilm_{level}': _snufilm(level, distance)
    for level, distance in SNUFILM_LEVELS.items()
  },
  'x4k1000fps': Protocol(
    title='X4K1000FPS',
    url='https://github.com/JihyongOh/XVFI (test.zip, encoded_train.zip)',
    licence='none seen',
    layout='test/Type{1,2,3}/<clip>/0000.png to 0032.png; '
    '[encoded_]train/<scene>/<clip>/0000.png to 0064.png or '
    '[encoded_]train/<scene>/<clip>.mp4',
    size=None,
    resize='none: 2160x4096 for testing, 768x768 for training',
    window=9,
    test='first',
    train='random',
    counts={
      'train': Count(4408, True, 'clips of 65 frames'),
      'test': Count(15, True, 'clips of 33 frames'),
    },
    protocol='x8: frames 0, 32 -> 4, 8, .., 28; a clip is every 4th frame, '
    'frames 0, 8 -> 1..7 of it',
  ),
  'middlebury': Protocol(
    title='Middlebury, other sequences with a true middle frame',
    url='https://vision.middlebury.edu/flow/data/ (other-color-twoframes.zip, '
    'other-gt-interp.zip)',
    licence='none seen',
    layout='other-data/<sequence>/frame10.png, frame11.png and '
    'other-gt-interp/<sequence>/frame10i11.png',
    size=None,
    resize='none: up to 480x640, of several sizes',
    window=3,
    test='first',
    train='all',
    counts={'test': Count(12)},
    protocol='frame10, frame11 -> frame10i11',
  ),
  'xiph_2k': _xiph(
    'Xiph-2K', 'area', 'cv2.resize, INTER_AREA: each 2x2 pixels are averaged'
  ),
  'xiph_4k': _xiph(
    'Xiph-"4K"', 'crop', 'none: the centre of 2160x4096 is cut out'
  ),
}
