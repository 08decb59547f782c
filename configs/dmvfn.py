"""DMVFN: a dynamic multi-scale voxel flow network (Hu et al., CVPR 2023).

python -m vidpred_jax.main --config=configs/dmvfn.py:demo --workdir=runs/demo

Without a variant: the paper's recipe on Cityscapes. MS-SSIM x 100 / LPIPS x 100
as in the paper, whose code averages over t+1..t+k (our `cumulative`). None of
it was trained here: the data sets need registration or hundreds of gigabytes.

  variants         size      t+1            t+3            t+5
  (none)           512x1024  95.73 / 5.58   89.24 / 10.47  83.45 / 14.82
  kitti            256x832   88.53 / 10.74  78.01 / 19.27  70.52 / 26.05
  ucf101           480x864   83.97 / 9.96   74.81 / 17.28
  ucf101,on_vimeo  256x448   97.01 / 3.69

The paper's 12.71 GFLOPs of a routed frame (24.51 with all blocks) are without
the router, which is 5.74 of them at this size: fvcore cannot see it in the
published code. `vidpred_jax.cost` counts it, so compare with its `full`. Every
row of tables 1 to 13: `python -m experiments.tables dmvfn:5 --scale=paper`.

Variants are separated by commas. Their order does not matter: data sets come
first, then `code`, then small models and films, then the rest.

  demo       photographs in motion, a small model, minutes on a CPU
  smoke      the same in seconds, to see that everything runs
  videos     your own video files: --config.data.root=FOLDER
  arrays     your own arrays, .npy, .npz or .zarr of [N, T, H, W, C] or
             [T, H, W, C], of 3 channels or grey: --config.data.root=FOLDER
  prepared   what `python -m vidpred_jax.data --prepare` wrote
  small      a small model and a run of minutes: `videos,small` for a CPU
  film1      the first of three runs that make a model for any film: motion from
             photographs whose exact flow is known, hours on a CPU
  film2      photographs and films, from runs/film1
  film3      as film2, by forecasts of five frames, with the router, from film2
  variational  blocks begin with an optical flow, and clips count alike: ours;
             `film2,variational` needs no film1 before it
  hindsight  for any film, from random weights: a block weighs predictions by
             how wrong they would have been for the last of eight frames: ours
  kitti      KITTI raw
  ucf101     trained on UCF101, evaluated on DAVIS 2017
  vimeo      Vimeo90K triplets, as the paper says; its code takes frames 1 to 5
             of a septuplet, two apart
  ucfsports  UCF Sports, 4 -> 6 frames at 512x512 (Table 3)
  human36m   Human3.6M, 4 -> 4 frames at 1024x1024 (Table 3)
  on_davis, on_vimeo  evaluate on DAVIS 2017 or Vimeo90K
  code       the published code's settings that the paper does not mention:
             weight decay 1e-3, a warm-up of 2000 batches from 1e-5, each of all
             triplets of its clips, crop 256 (Vimeo90K: 224), and half the VGG19
             feature distance (weights/vgg19-dcbb9e9d.pth)
  bf16       computes in bfloat16; parameters stay float32
  perceptual measures LPIPS, too (`strpm`: the spatial one of Table 3); wants
             weights/alexnet-owt-7be5be79.pth and weights/alex.pth

The ablations, each with a data set:

  stebs, no_routing, random, gumbel  the routing; stebs is the paper's and the
             default, but of film1 and film2 (Tables 5, 10)
  scales_1, scales_2, scales_4, scales_1_2, scales_1_4, scales_2_1, scales_4_1,
  scales_1_2_4  of the blocks, the default being 4_2_1 (Tables 6, 11)
  no_path    without the spatial path (Tables 7, 12; `no_routing,no_path`)
  beta_3, beta_4, beta_5, beta_6, beta_7, beta_8  0.3 to 0.8 at inference with
             routes drawn as published (Tables 8, 13): --mode=eval with
             --config.init_from=RUN
  interval_1, interval_3  evaluate on Vimeo90K septuplets, frames 1 or 3 apart:
             for the use of blocks (Figure 5c; 5 apart none is left to ask for)
  standardised  the router sees frames without brightness and contrast: ours
  sampled    draws routes at inference, as published: Table 1
  single     supervision of the last block alone (Table 9)

`python -m vidpred_jax.data --check NAME --root DIR` counts a data set's files.
"""

from ml_collections import ConfigDict

from vidpred_jax.config import (
  apply,
  base,
  measure_perceptual,
  published,
  set_arrays,
  set_augment,
  set_data,
  set_films,
  set_frames,
  set_photographs,
  set_prepared,
  user_videos,
)

# Triplets of a training clip: the published code steps once for each.
TRIPLETS = {
  'cityscapes': 28,
  'kitti': 7,
  'ucf101': 8,
  'vimeo90k': 1,
  'ucfsports': 8,  # ours: as many as its windows have
  'human36m': 6,
}


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
  # It sees frames without their brightness and contrast; not in the paper.
  config.model.router_standardised = False
  # Or variational: blocks begin with an optical flow; not in the paper.
  config.model.initial_flow = 'zero'
  # Whether black edges that stand still are left as they are: ours.
  config.model.keep_bars = False
  # Whether blocks see how wrong the last frames would have been foretold: ours.
  config.model.hindsight = False
  config.model.supervision = 'deep'  # or single: Table 9
  config.model.gamma = 0.8  # eq. (13)
  # Whether each prediction's distance counts by its logarithm: ours.
  config.model.logarithmic = False
  config.model.distance = 'laplacian'  # or squared, as in PSNR: ours
  config.model.vgg_weight = 0.0  # 0.5 in the published code
  config.model.flow_weight = 0.0  # of the end-point error, where it is known
  # Predictions that the gradient goes back through; 0: none is fed back.
  config.model.rollout = 0
  config.model.formulation = 'fast'  # or published: the same numbers
  config.model.dtype = 'float32'  # of the computation; or bfloat16
  config.features.vgg = ''  # weights of VGG19, for vgg_weight

  set_data(config, **published('cityscapes', size=(512, 1024)))
  config.augment.crop = (224, 224)  # paper 3.3
  # Code: dataset/dataset.py, which does not reverse time.
  config.augment.flip = True
  config.augment.rotate = True
  config.augment.reverse_channels = True

  config.batch_size = 64  # paper 3.3
  config.steps = _steps('cityscapes', 2975)
  config.schedule.peak = 1e-4  # paper 3.3, as are the next two
  config.schedule.final = 1e-5
  config.optim.weight_decay = 1e-4
  config.eval.metrics = ('ms_ssim/pmss', 'ssim/pmss', 'psnr/float')
  return apply(config, variants, VARIANTS)


def _steps(name, clips):
  """300 passes over the triplets of so many clips, 64 at a time: paper 3.3."""
  return 300 * clips * TRIPLETS[name] // 64


def _dataset(config, name, size, clips):
  set_data(config, **published(name, size=size))
  config.steps = _steps(name, clips)


def _kitti(config):
  _dataset(config, 'kitti', (256, 832), 13500)


def _ucf101(config):
  _dataset(config, 'ucf101', None, 9537)
  _on_davis(config)


def _vimeo(config):
  _dataset(config, 'vimeo90k', (256, 448), 51312)
  _on_vimeo(config)


def _ucfsports(config):
  _dataset(config, 'ucfsports', (512, 512), 6288)
  set_frames(config.eval.frames, (2, 3), range(4, 10))


def _human36m(config):
  _dataset(config, 'human36m', (1024, 1024), 73404)
  set_frames(config.eval.frames, (2, 3), range(4, 8))


def _on_davis(config):
  config.eval.data = ConfigDict(published('davis17', size=(480, 864)))


def _on_vimeo(config):
  config.eval.data = ConfigDict(published('vimeo90k', size=(256, 448)))
  set_frames(config.eval.frames, (0, 1), (2,))


def _interval(step):
  def change(config):
    data = published('vimeo90k_septuplets', size=(256, 448))
    config.eval.data = ConfigDict(data)
    set_frames(config.eval.frames, (0, step), (2 * step,))

  return change


def _videos(config):
  set_data(config, **user_videos())
  config.augment.crop = (224, 224)
  config.steps = 100_000
  set_frames(config.eval.frames, (0, 1), (2, 3, 4))
  config.eval.batch_size = 4


def _arrays(config):
  _videos(config)
  set_arrays(config, colour=True)


def _prepared(config):
  _videos(config)
  set_prepared(config)


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


def _variational(config):
  config.model.initial_flow = 'variational'
  config.model.keep_bars = True
  config.model.logarithmic = True
  if config.init_from == 'runs/film1':  # nothing of which is needed
    config.init_from = ''


def _hindsight(config):
  _film2(config)
  _variational(config)
  config.model.hindsight = True
  config.model.scales = (1,)
  config.model.widths = (64,)
  config.model.router_scale = 4
  config.model.distance = 'squared'
  config.model.flow_weight = 0.0
  config.model.rollout = 0
  config.data = config.data.parts.films
  config.data.step = (1,)
  config.data.teacher = ''
  del config.data['weight']
  set_frames(config.frames, range(8), range(8, 13))
  set_frames(config.eval.frames, range(8), range(8, 13))
  config.steps = 4000
  config.schedule.peak = 1e-3
  config.optim.clip_norm = 1.0
  config.ema.start = 200
  config.ema.decay = 0.998


def _code(config):
  dataset = config.data.get('dataset')
  config.optim.weight_decay = 1e-3  # model/model.py
  # scripts/train.py: 2000 batches, in each a step for every triplet.
  config.schedule.initial = 1e-5
  config.schedule.warmup = 2000 * TRIPLETS.get(dataset, 1)
  side = 224 if dataset == 'vimeo90k' else 256  # dataset/dataset.py
  config.augment.crop = (side, side)
  config.model.vgg_weight = 0.5  # model/model.py
  config.features.vgg = 'weights/vgg19-dcbb9e9d.pth'


def _model(**settings):
  def change(config):
    config.model.update(settings)

  return change


def _gumbel(config):
  config.model.routing = 'gumbel'
  steps = min(config.model.temperature_steps, config.steps)
  config.model.temperature_steps = steps


def _scales(*factors):
  """As many blocks of each factor; of two the second has one more of nine.

  That is how the list of Table 11 divides them. Paper 4.3 has five and four for
  [2, 1], beside the same numbers.
  """

  def change(config):
    blocks, kinds = len(config.model.widths), len(factors)
    config.model.scales = tuple(
      factors[min(i // max(1, blocks // kinds), kinds - 1)]
      for i in range(blocks)
    )

  return change


def _beta(share):
  return _model(inference_beta=share, inference_routing='sample')


def _perceptual(config):
  measure_perceptual(config, 'lpips/alex_bgr')


def _strpm(config):
  measure_perceptual(config, 'lpips/alex_bgr_spatial')


# What comes later changes what comes before: the order they are applied in.
VARIANTS = {
  'kitti': _kitti,
  'ucf101': _ucf101,
  'vimeo': _vimeo,
  'ucfsports': _ucfsports,
  'human36m': _human36m,
  'videos': _videos,
  'arrays': _arrays,
  'prepared': _prepared,
  'code': _code,
  'small': _small,
  'demo': _demo,
  'smoke': _smoke,
  'film1': _film1,
  'film2': _film2,
  'film3': _film3,
  'variational': _variational,
  'hindsight': _hindsight,
  'on_davis': _on_davis,
  'on_vimeo': _on_vimeo,
  'bf16': _model(dtype='bfloat16'),
  'interval_1': _interval(1),
  'interval_3': _interval(3),
  'stebs': _model(routing='stebs'),
  'no_routing': _model(routing='none'),
  'random': _model(routing='random'),
  'gumbel': _gumbel,
  'scales_1': _scales(1),
  'scales_2': _scales(2),
  'scales_4': _scales(4),
  'scales_1_2': _scales(1, 2),
  'scales_1_4': _scales(1, 4),
  'scales_2_1': _scales(2, 1),
  'scales_4_1': _scales(4, 1),
  'scales_1_2_4': _scales(1, 2, 4),
  'no_path': _model(spatial_path=False),
  'single': _model(supervision='single'),
  'standardised': _model(router_standardised=True),
  'sampled': _model(inference_routing='sample'),
  'beta_3': _beta(0.3),
  'beta_4': _beta(0.4),
  'beta_5': _beta(0.5),
  'beta_6': _beta(0.6),
  'beta_7': _beta(0.7),
  'beta_8': _beta(0.8),
  'perceptual': _perceptual,
  'strpm': _strpm,
}
