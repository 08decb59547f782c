"""APR-VFI: frame interpolation by patch-level routing (Chen et al., 2024).

python -m vidpred_jax.main --config=configs/apr_vfi.py:demo --workdir=runs/vfi

The paper's recipe is three runs on Vimeo90K triplets. Each starts from the
weights of the previous one in runs/apr_vfi/stage1 and stage2:

  stage1     all networks, on whole images: 800k steps
  stage2     synthesis by patches of 64x64, with the flow frozen: 200k
  stage3     as stage2 with the router, the paper's APR-VFI: 200k; this is the
             default
  static     the model without the router: as stage1, for use with other
             variants: `demo,static` has the schedule of `demo`

PSNR and SSIM of the paper, tera multiply-adds of 2048x1080. None of it was
trained here at this size. The metrics are those of the protocols; every row of
tables 1 to 5: `python -m experiments.tables apr:2 --scale=paper`.

  variants                 Xiph-2K (on_xiph2k)  Xiph-"4K" (on_xiph4k)
  stage1, static           36.67/0.967  1.730   34.02/0.946  1.730   Table 1
  stage3                   36.46/0.966  1.220   33.90/0.944  1.271
  stage3,keep_2_5_7_10     36.49/0.965          33.90/0.944  1.341   Table 3
  stage3,keep_2_4_6_8      36.45/0.965          33.87/0.944  1.296
  stage3,keep_5_5_5_5      36.45/0.965          33.84/0.943  1.389
  stage3,keep_9_6_4_1      36.42/0.965          33.86/0.944  1.504
  stage2,patch8            36.48/0.966          33.89/0.945          Table 2
  stage2,patch16           36.54/0.966          33.92/0.945
  stage2,patch32           36.61/0.967          33.90/0.945
  stage2                   36.64/0.967          34.02/0.946
  stage2,patch128          36.67/0.967          34.05/0.946
  stage3,by_image          36.42/0.9654         33.86/0.9435         Table 4
  stage3,by_reconstruction 36.42/0.9655         33.84/0.9436
  static,concat            36.68/0.9672         33.97/0.9457         Table 5
  static,unfused           36.64/0.9670         33.93/0.9456

On Vimeo90K 36.05 dB (static), 0.2 dB less with the router. The SSIM of the
paper's baselines is of several conventions: compare rows of ours alone.

A run that begins with weights names them in init_from and ends at once where
they are not. Of the variants below `videos`, `demo`, `smoke`, `small` and
`film1` begin with none; data sets alone (`septuplets`, `x4k`) are the recipe's
last run on other clips: with stage1 or static they begin with none, too.

Others, separated by commas. Their order does not matter: data sets and static
come first, then small models and films, x2 to x8, the stages, and the rest.

  demo       photographs in motion, a small model, minutes on a CPU
  smoke      the same in seconds, to see that everything runs
  videos     your own video files, in one run from no weights:
             --config.data.root=FOLDER
  arrays     your own arrays, .npy, .npz or .zarr of [N, T, H, W, C] or
             [T, H, W, C], of 3 channels or grey: --config.data.root=FOLDER
  prepared   what `python -m vidpred_jax.data --prepare` wrote
  x2, x4, x8 one, three or seven frames between two: `videos,x4`
  small      a small model and a run of minutes: `videos,small` for a CPU
  film1      the first of three runs that make a model for any film: the flow
             alone, from photographs whose exact flow is known, hours on a CPU
  film2      photographs and films, with the synthesis network, from runs/film1
  film3      as film2, by patches and with the router, from film2
  variational  motion is estimated without weights, and clips count alike: ours;
             `film2,variational` begins with none and needs no film1; not with
             film1, warp and ebme. With --config.frames.context="(0,2,4,6)" and
             .target="(3,)" it sees how motion changes
  ebme       the flow network has EBME's weights, converted to weights/ebme, and
             is frozen; the other networks are trained from scratch
  warp       no synthesis network: the mean of both warped frames; `ebme,warp`
  vimeo      Vimeo90K triplets; also without a variant
  septuplets Vimeo90K septuplets, five frames between the outer two
  x4k        X4K1000FPS, x8
  on_vimeo, on_septuplets, on_ucf101, on_snufilm_easy, on_snufilm_medium,
  on_snufilm_hard, on_snufilm_extreme, on_x4k, on_middlebury, on_xiph2k,
  on_xiph4k  evaluate on these data sets; SNU-FILM and Middlebury have frames of
             several sizes, so one clip at a time
  bf16       computes in bfloat16; parameters, flow and warping stay float32

`python -m vidpred_jax.data --check NAME --root DIR` counts a data set's files;
NAME is vimeo90k, vimeo90k_septuplets, ucf101_triplets, snufilm_easy and so on,
x4k1000fps, middlebury, xiph_2k or xiph_4k.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vidpred_jax.config import (
  apply,
  base,
  published,
  set_arrays,
  set_data,
  set_films,
  set_frames,
  set_photographs,
  set_prepared,
  user_videos,
)


def get_config(variants: str = '') -> ConfigDict:
  """The configuration with the named variants applied."""
  config = base('apr_vfi')
  _frames(config, (0, 2), (1,))

  config.model.synthesis = 'routed'  # or patches, whole, warp
  config.model.patch = 64  # side of a patch, Table 2
  config.model.keep_ratios = (0.1, 0.4, 0.6, 0.9)  # kr_1..kr_d, Table 3
  config.model.inference_routing = 'argmax'  # or ratios, reference, all
  config.model.supervision = 'warped'  # or image, reconstruction: Table 4
  config.model.fusion = 'add'  # or concat, none: Table 5
  config.model.widths = (80, 96, 96, 48, 32)  # of the blocks
  config.model.depths = (2, 5, 4, 3, 3)  # their convolutions
  config.model.features = 32  # channels between the blocks
  config.model.context_channels = 16  # features of a frame for each block
  config.model.context_hidden = 48  # channels of what makes them
  # Or variational: an optical flow without weights; not in the paper.
  config.model.motion = 'biflownet'
  # Whether black edges that stand still are left as they are: ours.
  config.model.keep_bars = False
  config.model.levels = placeholder(int)  # of the flow; None: by the width
  config.model.standardised = False  # features are, before they are compared
  config.model.train_flow = False  # whether eq. (4) has a gradient to the flow
  config.model.temperature = 1.0  # of the Gumbel-softmax
  config.model.census_weight = 0.1  # lambda_1, eq. (4)
  # Whether each clip's distance counts by its logarithm: ours.
  config.model.logarithmic = False
  config.model.apr_weight = 0.01  # lambda_2, eq. (4)
  config.model.warp_weight = 0.0  # of the warped frames' own differences
  config.model.flow_weight = 0.0  # of the end-point error, where it is known
  config.model.flow_gamma = 0.8  # weight of a level there to the next finer one
  config.model.dtype = 'float32'  # of the computation; or bfloat16

  set_data(config, **published('vimeo90k', size=(256, 448)))
  # Paper 4, implementation details; crop and channels as EBME's code.
  config.augment.crop = (256, 256)
  config.augment.flip = True
  config.augment.rotate = True
  config.augment.reverse_time = True
  config.augment.reverse_channels = True

  config.batch_size = 32
  config.steps = 200_000
  config.schedule.peak = 2e-4
  config.schedule.final = 2e-5
  config.schedule.warmup = 2000
  config.optim.weight_decay = 1e-4
  config.optim.frozen = ('flow/.*',)
  config.init_from = 'runs/apr_vfi/stage2'
  config.init_match = '(flow|context|synthesis)/.*'  # the router is new
  config.eval.metrics = ('psnr/float', 'ssim/matlab3d')
  return apply(config, variants, VARIANTS)


def _static(config):
  config.model.synthesis = 'whole'
  config.steps = 800_000  # paper 4, implementation details: the first stage
  _from_scratch(config)


def _from_scratch(config):
  """No weights to begin with, so the flow is trained, too."""
  config.model.train_flow = True
  config.optim.frozen = ()
  config.init_from = ''
  config.init_match = '.*'


def _stage2(config):
  _continued(config, 'patches', 'stage1')


def _stage3(config):
  _continued(config, 'routed', 'stage2')


def _continued(config, synthesis, before):
  config.model.synthesis = synthesis
  config.model.train_flow = False
  config.optim.frozen = ('flow/.*',)
  config.init_from = f'runs/apr_vfi/{before}'
  config.init_match = '(flow|context|synthesis)/.*'
  config.steps = 200_000


def _ebme(config):
  config.model.train_flow = False
  config.optim.frozen = ('flow/.*',)
  config.init_from = 'weights/ebme'  # what vidpred_jax.convert wrote
  config.init_match = 'flow/.*'


def _model(**settings):
  def change(config):
    config.model.update(settings)

  return change


def _keep(*ratios):
  def change(config):
    blocks = len(config.model.widths) - 1
    if len(ratios) != blocks:
      raise ValueError(
        f'The variants keep_* give the shares of {len(ratios)} blocks after '
        f'the first; this model has {blocks}: they do not go with small, demo, '
        'smoke, film1, film2 and film3.'
      )
    config.model.keep_ratios = ratios

  return change


def _frames(config, context, target, eval_target=None):
  set_frames(config.frames, context, target)
  set_frames(config.eval.frames, context, eval_target or target)


def _between(factor):
  """Frames `factor` apart are seen, those between asked for."""

  def change(config):
    _frames(config, (0, factor), range(1, factor))

  return change


def _vimeo(config):
  set_data(config, **published('vimeo90k', size=(256, 448)))
  _frames(config, (0, 2), (1,))


def _septuplets(config):
  set_data(config, **published('vimeo90k_septuplets', size=(256, 448)))
  _frames(config, (0, 6), (1, 3, 5), (1, 2, 3, 4, 5))


def _x4k(config):
  set_data(config, **published('x4k1000fps', size=None))
  _frames(config, (0, 8), (2, 4, 6), range(1, 8))
  config.eval.batch_size = 1


def _on(name, size=None, root='', last=2, metrics=None):
  """Evaluates on one of data/published, frames 0 and `last` being seen."""

  def change(config):
    config.eval.data = ConfigDict(published(name, root=root, size=size))
    set_frames(config.eval.frames, (0, last), range(1, last))
    config.eval.batch_size = 1
    config.eval.limit = 0
    config.eval.metrics = metrics or ('psnr/float', 'ssim/matlab3d')

  return change


def _on_xiph(name):
  metrics = ('psnr/round8', 'ssim/skimage7_dr255')
  return _on(name, (1080, 2048), 'xiph', metrics=metrics)


def _videos(config):
  _from_scratch(config)
  set_data(config, **user_videos())
  config.steps = 100_000
  config.eval.batch_size = 4


def _arrays(config):
  _videos(config)
  set_arrays(config, colour=True)


def _prepared(config):
  _videos(config)
  set_prepared(config)


def _small(config):
  _from_scratch(config)
  config.model.patch = 16
  config.model.widths = (24, 24, 16)
  config.model.depths = (1, 1, 1)
  config.model.keep_ratios = (0.3, 0.7)
  config.model.features = 12
  config.model.context_channels = 4
  config.model.context_hidden = 8
  config.model.levels = 2  # of the flow's pyramid, whatever the width
  config.batch_size = 4
  config.steps = 1500
  config.schedule.peak = 1e-3
  config.schedule.warmup = 50
  config.optim.clip_norm = 1.0
  config.workers = 0
  config.log_every = 100
  config.checkpoint_every = 500
  config.augment.crop = (64, 64)


def _film1(config):
  _from_scratch(config)
  config.model.synthesis = 'warp'
  config.model.levels = 3
  config.model.standardised = True
  config.model.patch = 32
  config.model.widths = (64, 48, 32)
  config.model.depths = (2, 2, 1)
  config.model.keep_ratios = (0.3, 0.7)
  config.model.features = 16
  config.model.context_channels = 8
  config.model.context_hidden = 16
  config.model.flow_weight = 0.05
  config.model.warp_weight = 1.0
  set_photographs(config, max_speed=128 / 10)
  config.schedule.peak = 1.5e-3
  config.optim.b2 = 0.99  # early gradients are large


def _film2(config):
  _film1(config)
  config.model.synthesis = 'whole'
  config.init_from = 'runs/film1'
  config.init_match = 'flow/.*'
  config.model.flow_weight = 0.02
  set_films(config, steps=(1, 2, 3), max_speed=192 / 10)
  config.schedule.peak = 4e-4


def _film3(config):
  _film2(config)
  config.model.synthesis = 'routed'
  config.init_from = 'runs/film2'
  config.init_match = '(flow|context|synthesis)/.*'
  config.schedule.peak = 2e-4


def _variational(config):
  if config.model.synthesis == 'warp' or config.init_match == 'flow/.*':
    if config.init_from != 'runs/film1':
      raise ValueError(
        'The variants warp, ebme and film1 do not go with variational, which '
        'learns no flow.'
      )
    config.init_from, config.init_match = '', '.*'  # film2 without film1
  config.model.motion = 'variational'
  config.model.keep_bars = True
  config.model.logarithmic = True
  config.model.flow_weight = 0.0
  config.model.warp_weight = 0.0
  config.optim.frozen = ()
  if config.init_match.startswith('(flow|'):
    config.init_match = config.init_match.replace('(flow|', '(')
  if 'parts' in config.data:
    config.data.parts.films.teacher = ''


def _demo(config):
  set_data(
    config,
    source='photos',
    size=(64, 64),
    max_speed=2.5,  # pixels per frame
  )
  config.eval.batch_size = 8
  config.eval.metrics = ('psnr/float', 'ssim/matlab3d')
  _frames(config, (0, 2), (1,))
  _small(config)
  config.model.levels = 1
  config.model.train_flow = False  # it learns by warping alone
  config.model.warp_weight = 1.0
  config.augment.crop = (48, 48)  # more and smaller steps learn sooner
  config.schedule.peak = 1e-3
  config.schedule.warmup = 100


def _smoke(config):
  _demo(config)
  config.model.widths = (8, 8)
  config.model.depths = (1, 1)
  config.model.keep_ratios = (0.5,)
  config.model.levels = 1
  config.data.size = (64, 64)
  config.augment.crop = (32, 32)
  config.steps = 6
  config.schedule.warmup = 2
  config.log_every = 2
  config.checkpoint_every = 3
  config.eval.limit = 8
  config.eval.show = 2


# What comes later changes what comes before: the order they are applied in.
VARIANTS = {
  'vimeo': _vimeo,
  'septuplets': _septuplets,
  'x4k': _x4k,
  'static': _static,
  'videos': _videos,
  'arrays': _arrays,
  'prepared': _prepared,
  'small': _small,
  'demo': _demo,
  'smoke': _smoke,
  'film1': _film1,
  'film2': _film2,
  'film3': _film3,
  'x2': _between(2),
  'x4': _between(4),
  'x8': _between(8),
  'stage1': _static,
  'stage2': _stage2,
  'stage3': _stage3,
  'ebme': _ebme,
  'warp': _model(synthesis='warp'),
  'variational': _variational,
  'keep_2_5_7_10': _keep(0.2, 0.5, 0.7, 1.0),
  'keep_2_4_6_8': _keep(0.2, 0.4, 0.6, 0.8),
  'keep_5_5_5_5': _keep(0.5, 0.5, 0.5, 0.5),
  'keep_9_6_4_1': _keep(0.9, 0.6, 0.4, 0.1),
  'patch8': _model(patch=8),
  'patch16': _model(patch=16),
  'patch32': _model(patch=32),
  'patch128': _model(patch=128),
  'by_image': _model(supervision='image'),
  'by_reconstruction': _model(supervision='reconstruction'),
  'concat': _model(fusion='concat'),
  'unfused': _model(fusion='none'),
  'on_vimeo': _on('vimeo90k', (256, 448)),
  'on_septuplets': _on('vimeo90k_septuplets', (256, 448), last=6),
  'on_ucf101': _on('ucf101_triplets', (256, 256)),
  'on_snufilm_easy': _on('snufilm_easy', root='snufilm'),
  'on_snufilm_medium': _on('snufilm_medium', root='snufilm'),
  'on_snufilm_hard': _on('snufilm_hard', root='snufilm'),
  'on_snufilm_extreme': _on('snufilm_extreme', root='snufilm'),
  'on_x4k': _on('x4k1000fps', last=8),
  'on_middlebury': _on('middlebury'),
  'on_xiph2k': _on_xiph('xiph_2k'),
  'on_xiph4k': _on_xiph('xiph_4k'),
  'bf16': _model(dtype='bfloat16'),
}
