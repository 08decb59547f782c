"""DMVFN: a dynamic multi-scale voxel flow network (Hu et al., CVPR 2023).

python -m vidpred_jax.main --config=configs/dmvfn.py:demo --workdir=runs/demo

Without a variant: the paper's recipe on Cityscapes. MS-SSIM x 100 / LPIPS x 100
as in the paper, whose code averages over t+1..t+k (our `cumulative`); ours: not
measured yet, the data sets need registration or hundreds of gigabytes.

  variants         size      t+1            t+3            t+5
  (none)           512x1024  95.73 / 5.58   89.24 / 10.47  83.45 / 14.82
  kitti            256x832   88.53 / 10.74  78.01 / 19.27  70.52 / 26.05
  ucf101           480x864   83.97 / 9.96   74.81 / 17.28
  ucf101,on_vimeo  256x448   97.01 / 3.69

Variants are separated by commas. Their order does not matter: data sets come
first, then `code`, then small models and films, then the rest.

  demo       photographs in motion, a small model, minutes on a CPU
  smoke      the same in seconds, to see that everything runs
  videos     your own video files: --config.data.root=FOLDER
  small      a small model and a run of minutes: `videos,small` for a CPU
  film1      the first of three runs that make a model for any film: motion from
             photographs whose exact flow is known, hours on a CPU
  film2      photographs and films, from runs/film1
  film3      as film2, by rollouts of five frames, with the router, from film2
  kitti      KITTI raw
  ucf101     trained on UCF101, evaluated on DAVIS 2017
  vimeo      Vimeo90K triplets
  ucfsports  UCF Sports, 4 -> 6 frames at 512x512 (Table 3)
  human36m   Human3.6M, 4 -> 4 frames at 1024x1024 (Table 3)
  on_davis, on_vimeo  evaluate on DAVIS 2017 or Vimeo90K
  code       the published code's settings that the paper does not mention:
             weight decay 1e-3, warm-up, crop 256, and half the VGG19 feature
             distance (its weights: --config.features.vgg=vgg19-dcbb9e9d.pth)
  bf16       computes in bfloat16; parameters stay float32

`python -m vidpred_jax.data --check NAME --root DIR` counts a data set's files.
"""

from ml_collections import ConfigDict

from vidpred_jax.config import (
  apply,
  base,
  published,
  set_augment,
  set_data,
  set_films,
  set_frames,
  set_photographs,
  user_videos,
)


def get_config(variants: str = '') -> ConfigDict:
  """The configuration with the named variants applied."""
  config = base('dmvfn')
  set_frames(config.frames, (0, 1), (2,))
  set_frames(config.eval.frames, (2, 3), range(4, 9))

  config.model.scales = (4, 4, 4, 2, 2, 2, 1, 1, 1)  # S^i, Table 11
  config.model.widths = (160, 160, 160, 80, 80, 80, 44, 44, 44)  # channels
  config.model.spatial_path = True  # Table 7
  config.model.routing = 'stebs'  # or gumbel, random, none: Table 5
  config.model.beta = 0.5  # share of the blocks in training, eq. (10)
  config.model.inference_beta = 0.5  # the same at inference, Table 8
  config.model.inference_routing = 'threshold'  # or sample (published), all
  config.model.temperature = (10.0, 0.1)  # of gumbel: at the start, at the end
  config.model.temperature_steps = 100_000  # of gumbel: from one to the other
  config.model.gate_penalty = 1.0  # of gumbel: weight of the mean gate
  config.model.router_scale = 1  # the router sees frames shrunk by this
  config.model.supervision = 'deep'  # or single: Table 9
  config.model.gamma = 0.8  # eq. (13)
  config.model.vgg_weight = 0.0  # 0.5 in the published code
  config.model.flow_weight = 0.0  # of the end-point error, where it is known
  config.model.rollout = 0  # predictions that the gradient goes back through
  config.model.formulation = 'fast'  # or published: the same numbers
  config.model.dtype = 'float32'  # of the computation; or bfloat16
  config.features.vgg = ''  # weights of VGG19, for vgg_weight

  set_data(config, **published('cityscapes', size=(512, 1024)))
  config.augment.crop = (224, 224)
  config.augment.flip = True
  config.augment.rotate = True
  config.augment.reverse_time = True
  config.augment.reverse_channels = True

  config.batch_size = 64
  config.steps = _steps(2975, triplets=28)
  config.schedule.final = 1e-5
  config.optim.weight_decay = 1e-4
  config.eval.metrics = ('ms_ssim/pmss', 'ssim/pmss', 'psnr/float')
  return apply(config, variants, VARIANTS)


def _steps(clips, triplets):
  """300 passes over the triplets of so many clips, 64 at a time."""
  return 300 * clips * triplets // 64


def _dataset(config, name, size, clips, triplets):
  set_data(config, **published(name, size=size))
  config.steps = _steps(clips, triplets)


def _kitti(config):
  _dataset(config, 'kitti', (256, 832), 13500, 7)


def _ucf101(config):
  _dataset(config, 'ucf101', None, 9537, 8)
  _on_davis(config)


def _vimeo(config):
  _dataset(config, 'vimeo90k', (256, 448), 51312, 1)
  _on_vimeo(config)


def _ucfsports(config):
  _dataset(config, 'ucfsports', (512, 512), 6288, 8)
  set_frames(config.eval.frames, (2, 3), range(4, 10))


def _human36m(config):
  _dataset(config, 'human36m', (1024, 1024), 73404, 6)
  set_frames(config.eval.frames, (2, 3), range(4, 8))


def _on_davis(config):
  config.eval.data = ConfigDict(published('davis17', size=(480, 864)))


def _on_vimeo(config):
  config.eval.data = ConfigDict(published('vimeo90k', size=(256, 448)))
  set_frames(config.eval.frames, (0, 1), (2,))


def _videos(config):
  set_data(config, **user_videos())
  config.augment.crop = (224, 224)
  config.steps = 100_000
  set_frames(config.eval.frames, (0, 1), (2, 3, 4))
  config.eval.batch_size = 4


def _small(config):
  config.model.scales = (4, 4, 2, 2, 1, 1)
  config.model.widths = (64, 64, 48, 48, 24, 24)
  config.model.router_scale = 4
  config.model.beta = 0.83  # of six blocks few can be missed
  config.model.inference_beta = 0.83
  config.batch_size = 4
  config.steps = 1200  # nothing moves before step 400 or so
  config.schedule.peak = 1.5e-3  # with 3e-3 some runs lose their flow for good
  config.schedule.warmup = 100
  config.optim.clip_norm = 0.3
  config.workers = 0
  config.log_every = 100
  config.checkpoint_every = 400
  config.augment.crop = (64, 64)


def _photos(config):
  set_data(
    config,
    source='photos',
    size=(96, 96),
    max_speed=2.5,  # pixels per frame
  )
  set_augment(config)
  set_frames(config.eval.frames, (0, 1), (2, 3, 4))
  config.eval.batch_size = 8


def _demo(config):
  _photos(config)
  _small(config)
  config.augment.crop = (48, 48)  # more and smaller steps learn sooner
  config.steps = 2200


def _smoke(config):
  _demo(config)
  config.model.scales = (4, 2, 1)
  config.model.widths = (16, 8, 8)
  config.data.size = (64, 64)
  config.augment.crop = None
  config.batch_size = 8
  config.steps = 6
  config.schedule.warmup = 2
  config.log_every = 2
  config.checkpoint_every = 3
  config.eval.frames.target = (2, 3)
  config.eval.limit = 8
  config.eval.show = 2


def _film1(config):
  config.model.scales = (8, 8, 4, 4, 2, 2, 1)
  config.model.widths = (144, 144, 112, 112, 72, 64, 32)
  config.model.router_scale = 8
  config.model.routing = 'none'
  config.model.flow_weight = 0.05
  set_photographs(config, max_speed=128 / 8)
  config.schedule.peak = 1e-3
  config.log_every = 100
  set_frames(config.eval.frames, (0, 1), (2, 3, 4))


def _film2(config):
  _film1(config)
  config.init_from = 'runs/film1'
  config.model.flow_weight = 0.02
  set_films(config, steps=(1, 2), max_speed=192 / 8)
  config.schedule.peak = 3e-4


def _film3(config):
  _film2(config)
  config.init_from = 'runs/film2'
  config.init_match = 'block_.*'
  config.frames.target = (2, 3, 4, 5, 6)
  config.model.routing = 'stebs'
  config.model.beta = 0.7
  config.model.inference_beta = 0.7
  config.model.rollout = 2
  config.model.flow_weight = 0.01
  config.data.parts.films.step = (1,)
  config.batch_size = 2
  config.schedule.peak = 1e-4


def _code(config):
  config.optim.weight_decay = 1e-3
  config.schedule.warmup = 2000
  config.augment.crop = (256, 256)
  config.model.vgg_weight = 0.5


def _bf16(config):
  config.model.dtype = 'bfloat16'


# What comes later changes what comes before: the order they are applied in.
VARIANTS = {
  'kitti': _kitti,
  'ucf101': _ucf101,
  'vimeo': _vimeo,
  'ucfsports': _ucfsports,
  'human36m': _human36m,
  'videos': _videos,
  'code': _code,
  'small': _small,
  'demo': _demo,
  'smoke': _smoke,
  'film1': _film1,
  'film2': _film2,
  'film3': _film3,
  'on_davis': _on_davis,
  'on_vimeo': _on_vimeo,
  'bf16': _bf16,
}
