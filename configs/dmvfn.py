"""DMVFN: a dynamic multi-scale voxel flow network (Hu et al., CVPR 2023).

python -m vidpred_jax.main --config=configs/dmvfn.py:demo --workdir=runs/demo

Without a variant: the paper's recipe on Cityscapes. MS-SSIM x 100 / LPIPS x 100
in the paper, cumulative means over t+1..t+k as its published code logs them:

  variant      size      paper t+1      t+3           t+5           ours
  (none)       512x1024  95.73 / 5.58   89.24 / 10.47 83.45 / 14.82 not measured
  kitti        256x832   88.53 / 10.74  78.01 / 19.27 70.52 / 26.05 not measured
  ucf101,davis 480x864   83.97 / 9.96   74.81 / 17.28               not measured
  ucf101,vimeo 256x448   97.01 / 3.69                               not measured

Variants, comma-separated, applied in this order:
  demo     photographs in motion, a small model, minutes on a CPU, no download
  smoke    the same in seconds, to see that everything runs
  videos   your own video files: --config.data.root=FOLDER
  kitti, ucf101, vimeo, davis, ucfsports, human36m    the other data sets
           (vimeo and davis after ucf101 change what is evaluated only)
  code     where the published code differs from the paper: weight decay,
           warm-up, batch of 8 per GPU, crop and the VGG term (give
           --config.features.vgg=vgg19-dcbb9e9d.pth)
  bf16     computes in bfloat16, parameters stay float32
"""

from ml_collections import ConfigDict


def get_config(variants: str = '') -> ConfigDict:
  """The configuration with the named variants applied."""
  config = ConfigDict()

  # What is trained.
  config.system = 'dmvfn'
  config.frames = ConfigDict({'context': (0, 1), 'target': (2,)})
  config.model = ConfigDict()  # arguments of systems/dmvfn.py:make
  config.model.scales = (4, 4, 4, 2, 2, 2, 1, 1, 1)  # S^i, Table 11
  config.model.widths = (160, 160, 160, 80, 80, 80, 44, 44, 44)
  config.model.spatial_path = True  # Table 7
  config.model.routing = 'stebs'  # or gumbel, random, none: Table 5
  config.model.beta = 0.5  # share of the blocks in training, eq. (10)
  config.model.inference_beta = 0.5  # the same at inference, Table 8
  config.model.inference_routing = 'threshold'  # or sample (published), all
  config.model.router_scale = 1  # the router sees frames shrunk by this
  config.model.supervision = 'deep'  # or single: Table 9
  config.model.gamma = 0.8  # eq. (13)
  config.model.vgg_weight = 0.0  # 0.5 in the published code
  config.model.dtype = 'float32'  # of the computation; or bfloat16
  config.features = ConfigDict({'vgg': ''})  # weight files of frozen nets

  # Data. `data` goes to the source in training and evaluation.
  config.data = ConfigDict()
  config.data.source = 'frames'
  config.data.dataset = 'cityscapes'
  config.data.root = 'data/cityscapes'
  config.data.size = (512, 1024)  # H, W
  config.augment = ConfigDict()  # in training only
  config.augment.crop = (224, 224)
  config.augment.flip = True
  config.augment.rotate = True
  config.augment.reverse_time = True
  config.augment.reverse_channels = True
  config.workers = 4  # processes that load data

  # Training. 300 passes over the 28 triplets of each of 2945 clips.
  config.seed = 0
  config.batch_size = 64
  config.steps = 300 * 2945 * 28 // 64
  config.accumulate = 1  # micro-batches per batch
  config.schedule = ConfigDict()  # arguments of optim.schedule
  config.schedule.name = 'cosine'
  config.schedule.peak = 1e-4
  config.schedule.final = 1e-5
  config.schedule.warmup = 0
  config.optim = ConfigDict()  # arguments of optim.make
  config.optim.name = 'adamw'
  config.optim.weight_decay = 1e-4
  config.optim.clip_norm = 0.0  # largest gradient norm; 0: no clipping
  config.optim.frozen = ()  # regular expressions of parameter names
  config.ema = ConfigDict({'decay': 0.0, 'every': 1, 'start': 0})  # 0: none
  config.init_from = ''  # an exported system or a run to start from
  config.init_match = '.*'  # which of its parameters to take
  config.shard_params = False  # split parameters over the devices too
  config.log_every = 100
  config.checkpoint_every = 2000
  config.keep = 2  # newest checkpoints kept

  # Evaluation.
  config.eval = ConfigDict()
  config.eval.frames = ConfigDict(
    {'context': (2, 3), 'target': tuple(range(4, 9))}
  )
  config.eval.data = ConfigDict()  # replaces fields of `data`
  config.eval.batch_size = 1
  config.eval.metrics = ('ms_ssim/pmss', 'ssim/pmss', 'psnr/float')
  config.eval.lpips = ConfigDict({'backbone': '', 'heads': ''})  # for lpips/*
  config.eval.limit = 0  # clips; 0: all
  config.eval.seed = 0
  config.eval.every = 0  # steps between evaluations in training; 0: none
  config.eval.quick_limit = 64  # clips of those evaluations
  config.eval.best = ''  # a metric: its best checkpoint is kept and exported
  config.eval.show = 4  # clips in picture.png and video.mp4
  config.eval.show_fps = 2
  config.lock()

  named = [v for v in variants.split(',') if v]
  unknown = sorted(set(named) - set(VARIANTS))
  if unknown:
    raise ValueError(
      f'configs/dmvfn.py has no variant {", ".join(unknown)}; it has '
      f'{", ".join(VARIANTS)}.'
    )
  for name in named:
    VARIANTS[name](config)
  return config


def _photos(config):
  config.data = ConfigDict({'source': 'photos', 'size': (96, 96)})
  config.augment = ConfigDict()
  config.workers = 0
  config.eval.frames.context = (0, 1)
  config.eval.frames.target = (2, 3, 4)
  config.eval.batch_size = 8
  config.eval.metrics = ('psnr/float', 'ssim/pmss', 'ms_ssim/pmss')


def _demo(config):
  _photos(config)
  config.model.widths = (64, 64, 64, 48, 48, 48, 24, 24, 24)
  config.batch_size = 8
  config.steps = 1000
  config.schedule.peak = 1e-3
  config.schedule.warmup = 50
  config.optim.clip_norm = 1.0
  config.log_every = 50
  config.checkpoint_every = 500


def _smoke(config):
  _photos(config)
  config.model.widths = (16, 16, 16, 8, 8, 8, 8, 8, 8)
  config.data.size = (64, 64)
  config.batch_size = 8
  config.steps = 6
  config.log_every = 2
  config.checkpoint_every = 3
  config.eval.frames.target = (2, 3)
  config.eval.limit = 8
  config.eval.show = 2


VARIANTS = {
  'demo': _demo,
  'smoke': _smoke,
}
