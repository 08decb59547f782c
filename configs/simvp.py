"""SimVP and SimVPv2 (CVPR 2022; Tan et al., 2022): T frames in, T frames out.

python -m vidpred_jax.main --config=configs/simvp.py:demo --workdir=runs/simvp

Without a variant: SimVPv2-S on Moving MNIST with the paper's recipe, 200
epochs. Paper (Tables II and VIII, after 200 epochs), MSE and MAE summed over a
frame, SSIM; what ours reach is in experiments/README.md where it was measured.

  variants           MSE    MAE    SSIM       parameters  multiply-adds
  (none), gsta       26.60  77.32  0.940      46.8 M      16.5 G
  large              21.81  66.43  0.952      524 M       152.2 G
  incepu (SimVP v1)  32.22  89.19  0.927      58.0 M      19.4 G
  vit                35.15  95.87  0.914      46.1 M      16.9 G
  swin               29.70  84.05  0.933      46.1 M      16.4 G
  poolformer         31.79  88.48  0.927      37.1 M      14.1 G
  mlp                29.52  83.36  0.934      38.2 M      14.7 G
  convmixer          32.09  88.93  0.926      3.9 M       5.5 G

and, not in the paper's tables but in OpenSTL's (docs/en/model_zoos), which
prints the numbers of TAU as a second row of gSTA:

  tau                24.60  71.93  0.945      44.7 M      16.0 G
  moga               25.57  75.19  0.943      46.8 M      16.5 G
  van                26.10  76.11  0.942      44.5 M      16.0 G
  convnext           26.94  77.23  0.940      37.3 M      14.1 G
  hornet             29.64  83.26  0.933      45.7 M      16.3 G
  uniformer          30.38  85.87  0.931      44.8 M      16.5 G

  x3, x5, x10        22.37, 16.47, 15.05 with gSTA: 600, 1000 and 2000 epochs

None of them was trained here at this size. Every row of tables II to VIII:
`python -m experiments.tables simvp:8 --scale=paper`. PSNR is psnr/e3d_wrap in
the paper's tables, whose 8-bit differences wrap around: up to 6 dB more than
psnr/float, and not to be compared with it.

Data sets, with the paper's results (ours: never trained):

  taxibj     4 -> 4    MSE x 100 34.8, MAE 15.6, SSIM 0.984 (Table III)
  weather    12 -> 12  MAE 0.7475 K, RMSE 1.0785 K (Table IV); the published
             configuration, which this is, trains on 2010-2015 only (MAE 0.6567,
             RMSE 1.051), `weather,paper` on 1979-2015; 5.625 degrees, or
             1.40625 if that is what lies in --config.data.root
  uv10, tcc  of wind, in two channels, and of cloud cover; others by
             --config.data.variables (names of `data.weather.VARIABLES`, some
             with a level: r500) and as many --config.model.channels
  caltech    10 -> 1   SSIM 0.949, PSNR 33.2, LPIPS x 100 3.11 (Table V), with
             psnr/e3d_wrap; trained on KITTI, 100 epochs as OpenSTL's benchmark,
             50 by `caltech,paper`. Colours are RGB throughout; the published
             evaluation mixes RGB and BGR
  kth        10 -> 20  SSIM 0.913, PSNR 34.24 (Table VI), psnr/e3d_wrap
  kth,long   10 -> 40  SSIM 0.895, PSNR 33.35 (`long`: 40 after any context)
  human36m   4 -> 4
  robonet    2 -> 10   SSIM 0.856, PSNR 22.78 (Table VII)
  bridge     2 -> 10   SSIM 0.865, PSNR 22.62
  bair       2 -> 10   not in the paper; bair_robot_pushing_small of
             tensorflow-datasets, prepared as ArrayRecords

Your own: `videos` and `arrays`, 10 -> 10, with --config.data.root=FOLDER, on a
CPU with `small`. Videos are resized to --config.data.size. Arrays are .npy,
.npz or .zarr files of [N, T, H, W, C] or [T, H, W, C] with any number of
channels; bytes are images, floats physical fields (--config.data.kind). What
`python -m vidpred_jax.data --prepare` wrote is read by `prepared`.

Others, separated by commas. Their order does not matter: data sets come first,
then the translator, with IncepU's own widths and rates on each data set, small
models and the rest.

  paper      what the paper says where the published code differs: weather of
             1979-2015, 50 epochs on KITTI

  demo       moving digits, those that come with scikit-learn unless MNIST is
             found in data/mnist; a small model, minutes on a CPU
  smoke      the same in seconds, to see that everything runs
  small      a small model and a run of minutes
  era5       temperatures in one npz, NetCDF or Zarr file, or a folder of these:
             --config.data.root=FILE; `era5,small` for a CPU
  bf16       computes in bfloat16; parameters and norms stay float32
  perceptual measures LPIPS, too; wants weights/alexnet-owt-7be5be79.pth and
             weights/alex.pth

`python -m vidpred_jax.data --check NAME --root DIR` counts a data set's files.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vidpred_jax.config import (
  apply,
  base,
  measure_perceptual,
  prepared_by_tfds,
  published,
  set_arrays,
  set_data,
  set_frames,
  set_prepared,
  user_videos,
)

# Learning rates on Moving MNIST: OpenSTL, configs/mmnist/simvp/SimVP_*.py. On
# other data sets a translator has the rate of the data set.
TRANSLATORS = {
  'gsta': 1e-3,
  'tau': 1e-3,
  'van': 1e-3,
  'vit': 5e-4,
  'swin': 1e-3,
  'poolformer': 1e-3,
  'mlp': 1e-3,
  'convmixer': 1e-2,
  'convnext': 1e-2,
  'hornet': 1e-3,
  'moga': 1e-3,
  'uniformer': 5e-4,
  'incepu': 1e-3,
}


# What differs for SimVP's IncepU: OpenSTL, configs/kth/simvp/SimVP_IncepU.py,
# and its like in human, kitticaltech, taxibj, weather/t2m_5_625, uv10_5_625.
INCEPU = {
  'kth': {'n_t': 4, 'drop_path': 0.1, 'peak': 1e-3},
  'caltech': {'n_t': 4, 'drop_path': 0.1, 'peak': 5e-3},
  'human36m_256': {'hid_t': 512, 'n_t': 6, 'drop_path': 0.1, 'peak': 1e-3},
  'taxibj': {'peak': 1e-3},
  't2m': {'peak': 1e-2},
  'u10,v10': {'drop_path': 0.1, 'peak': 5e-3},
}


def get_config(variants: str = '') -> ConfigDict:
  """The configuration with the named variants applied."""
  config = base('simvp')
  _frames(config, 10, 10)

  config.model.channels = 1  # of a frame
  config.model.hid_s = 64  # width of encoder and decoder
  config.model.hid_t = 512  # width of the translator
  config.model.n_s = 4  # layers of encoder and decoder; 2^(n_s/2) smaller
  config.model.n_t = 8  # blocks of the translator
  config.model.translator = 'gsta'  # one of models.simvp.TRANSLATORS
  config.model.mlp_ratio = 8.0  # width of hidden layers, relative
  config.model.drop_path = 0.0  # stochastic depth of the last block
  config.model.first_drop_path = 0.01  # the same of the first, as published
  # None: as published, 0.1 for tau.
  config.model.divergence_weight = placeholder(float)
  config.model.dtype = 'float32'  # of the computation; or bfloat16

  set_data(
    config,
    source='moving_digits',
    digits='mnist',  # or sklearn, which needs no root; or auto
    root='data/mnist',
    size=(64, 64),  # H, W
  )
  config.steps = _steps(200, 10_000)
  # Paper V-A1 and OpenSTL, configs/mmnist/simvp/SimVP_gSTA.py.
  config.schedule.name = 'onecycle'
  config.schedule.peak = 1e-3
  config.optim.name = 'adam'
  config.eval.batch_size = 16
  config.eval.metrics = (
    'mse/sum_chw',
    'mae/sum_chw',
    'ssim/skimage7_dr2',
    'psnr/float',
  )
  config.eval.show_as = 'gif'
  config.eval.show_fps = 5
  return apply(config, variants, VARIANTS)


def _steps(epochs, clips):
  """So many passes over so many clips, 16 at a time."""
  return epochs * clips // 16


def _frames(config, seen, asked):
  for frames in (config.frames, config.eval.frames):
    set_frames(frames, range(seen), range(seen, seen + asked))


def _model(config, hid_s, hid_t, n_t, n_s, drop_path, channels=3):
  config.model.update(
    {
      'hid_s': hid_s,
      'hid_t': hid_t,
      'n_t': n_t,
      'n_s': n_s,
      'drop_path': drop_path,
      'channels': channels,
    }
  )


def _schedule(config, name, peak, epochs, clips, warmup=0):
  config.schedule.name = name
  config.schedule.peak = peak
  if name == 'cosine':
    config.schedule.final = 1e-6  # OpenSTL, docs/en/model_zoos
  config.steps = _steps(epochs, clips)
  config.schedule.warmup = _steps(warmup, clips)


def _large(config):
  config.model.hid_s = 128
  config.model.hid_t = 1024
  config.model.n_t = 24


def _translator(name):
  def change(config):
    config.model.translator = name
    data = config.data
    if data.source == 'moving_digits':
      config.schedule.peak = TRANSLATORS[name]
    elif name == 'incepu':
      known = data.get('dataset') or ','.join(data.get('variables', ()))
      own = dict(INCEPU.get(known or data.source, {}))
      config.schedule.peak = own.pop('peak', config.schedule.peak)
      config.model.update(own)

  return change


def _longer(factor):
  def change(config):
    config.steps *= factor
    config.schedule.warmup *= factor

  return change


def _taxibj(config):
  # Paper V-A2; OpenSTL, configs/taxibj/simvp/SimVP_gSTA.py.
  set_data(config, source='taxibj', root='data/taxibj')
  _model(config, 32, 256, n_t=8, n_s=2, drop_path=0.1, channels=2)
  _schedule(config, 'cosine', 5e-4, epochs=50, clips=20_461, warmup=5)
  _frames(config, 4, 4)
  config.augment.flip = 'horizontal'
  config.workers = 0  # each would hold all of the data


def _weather(config):
  # Paper V-A3; OpenSTL, configs/weather/t2m_5_625/SimVP_gSTA.py.
  set_data(
    config,
    source='weather',
    root='data/weatherbench',
    variables=('t2m',),  # channels, names of the files' variables
    train_years=(2010, 2015),  # the paper: (1979, 2015), `paper`
    test_years=(2017, 2018),
    region=placeholder(tuple),  # (H, W): only the first rows and columns
  )
  config.workers = 0  # each would hold all of the data
  _model(config, 32, 256, n_t=8, n_s=2, drop_path=0.1, channels=1)
  _schedule(config, 'cosine', 5e-3, epochs=50, clips=52_561)
  _frames(config, 12, 12)
  config.eval.metrics = ('mae/mean', 'rmse/mean', 'mse/mean')


def _uv10(config):
  _weather(config)
  config.data.variables = ('u10', 'v10')
  config.model.channels = 2
  # OpenSTL, configs/weather/uv10_5_625/SimVP_gSTA.py.
  config.model.drop_path = 0.2


def _tcc(config):
  _weather(config)
  config.data.variables = ('tcc',)
  # OpenSTL, configs/weather/tcc_5_625/SimVP_gSTA.py.
  config.schedule.peak = 1e-2


def _era5(config):
  _weather(config)
  set_data(
    config,
    source='weather',
    root='data/era5.npz',
    variables=('t2m',),
    train_fraction=0.8,  # of the hours, the first ones
    region=(32, 48),  # both sides must be divisible by 2^(n_s/2)
  )


def _kth(config):
  # Paper V-C; OpenSTL, configs/kth/simvp/SimVP_gSTA.py.
  set_data(config, **published('kth'))
  _model(config, 64, 256, n_t=6, n_s=2, drop_path=0.2, channels=1)
  _schedule(config, 'onecycle', 1e-3, epochs=100, clips=5_200)
  _frames(config, 10, 20)
  config.eval.batch_size = 4
  config.eval.metrics = ('ssim/skimage7_dr2', 'psnr/float', 'psnr/e3d_wrap')


def _long(config):
  seen = len(config.eval.frames.context)
  config.eval.frames.target = tuple(range(seen, seen + 40))


def _caltech(config):
  # OpenSTL, configs/kitticaltech/SimVP.py; its benchmark trains 100 epochs.
  set_data(config, **published('caltech'))
  _model(config, 64, 256, n_t=6, n_s=2, drop_path=0.2)
  _schedule(config, 'onecycle', 5e-3, epochs=100, clips=2_042)
  _frames(config, 10, 1)
  config.eval.metrics = (
    'mse/sum_chw',
    'mae/sum_chw',
    'ssim/skimage7_dr2',
    'psnr/float',
    'psnr/e3d_wrap',
  )


def _human36m(config):
  # OpenSTL, configs/human/simvp/SimVP_gSTA.py.
  set_data(config, **published('human36m_256', root='human36m'))
  _model(config, 64, 256, n_t=8, n_s=4, drop_path=0.1)
  _schedule(config, 'cosine', 1e-3, epochs=50, clips=73_404)
  _frames(config, 4, 4)


def _robot(name, clips):
  """The paper gives no recipe: settings of the other images in colour."""

  def change(config):
    set_data(config, **published(name))
    _model(config, 64, 256, n_t=6, n_s=2, drop_path=0.2)
    _schedule(config, 'onecycle', 1e-3, epochs=50, clips=clips)
    _frames(config, 2, 10)
    config.eval.metrics = ('ssim/skimage7_dr2', 'psnr/float')

  return change


def _paper(config):
  if config.data.get('dataset') == 'caltech':
    config.steps = _steps(50, 2_042)  # paper V-B
  if 'train_years' in config.data:  # paper V-A3
    config.data.train_years = (1979, 2015)
    config.steps = _steps(50, 324_313)


def _bair(config):
  _robot('bair', 43_264)(config)
  set_data(config, **prepared_by_tfds('bair_robot_pushing_small', 'image_aux1'))


def _videos(config):
  """The paper gives no recipe: settings of the other images in colour."""
  set_data(config, **user_videos() | {'size': (128, 128)})
  _model(config, 64, 256, n_t=6, n_s=2, drop_path=0.2)
  config.steps = 100_000
  config.eval.batch_size = 4
  config.eval.metrics = ('ssim/skimage7_dr2', 'psnr/float')


def _arrays(config):
  _videos(config)
  set_arrays(config)


def _prepared(config):
  _videos(config)
  set_prepared(config)


def _small(config):
  config.model.hid_s = 16
  config.model.hid_t = 128
  config.model.n_t = 4
  config.model.mlp_ratio = 4.0
  config.model.drop_path = 0.0
  config.model.first_drop_path = 0.0
  config.batch_size = 8
  config.eval.batch_size = 8
  config.steps = 300
  config.schedule.name = 'onecycle'
  config.schedule.peak = 5e-3
  config.schedule.warmup = 0
  config.workers = 0
  config.log_every = 25
  config.checkpoint_every = 100


def _demo(config):
  set_data(config, source='moving_digits', digits='auto', root='data/mnist')
  config.eval.metrics = (
    'mse/sum_chw',
    'ssim/skimage7_dr2',  # the papers' tables
    'ssim/pmss',
    'psnr/float',
  )
  _small(config)
  _frames(config, 5, 5)  # half of the usual: twice the steps in the same time
  config.steps = 600
  config.eval.limit = 256


def _smoke(config):
  _demo(config)
  config.data.size = (32, 32)
  config.model.hid_s = 4
  config.model.hid_t = 16
  config.model.n_t = 2
  config.model.n_s = 2
  _frames(config, 3, 3)
  config.steps = 6
  config.log_every = 2
  config.checkpoint_every = 3
  config.eval.limit = 8
  config.eval.show = 2


def _bf16(config):
  config.model.dtype = 'bfloat16'


def _perceptual(config):
  measure_perceptual(config, 'lpips/alex')


# What comes later changes what comes before: the order they are applied in.
VARIANTS = {
  'taxibj': _taxibj,
  'weather': _weather,
  'uv10': _uv10,
  'tcc': _tcc,
  'era5': _era5,
  'kth': _kth,
  'caltech': _caltech,
  'human36m': _human36m,
  'robonet': _robot('robonet', 145_000),
  'bridge': _robot('bridgedata', 31_775),
  'paper': _paper,
  'bair': _bair,
  'videos': _videos,
  'arrays': _arrays,
  'prepared': _prepared,
  'large': _large,
  **{name: _translator(name) for name in TRANSLATORS},
  'x3': _longer(3),
  'x5': _longer(5),
  'x10': _longer(10),
  'small': _small,
  'demo': _demo,
  'smoke': _smoke,
  'long': _long,
  'bf16': _bf16,
  'perceptual': _perceptual,
}
