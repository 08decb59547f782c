"""RVD, residual video diffusion (Yang et al., 2022): futures of a video.

python -m vidpred_jax.main --config=configs/rvd.py:demo --workdir=runs/rvd

Without a variant: RVD(2+6) on the Simulation set, 128x128, with the paper's
recipe, a million steps. The first run simulates the set into data/vortices,
which takes some minutes on two CPU cores (data/vortices.py). The paper's set
was not released; ours is another flow of the same kind.

Data sets, with the paper's results (Table 1; 50 clips, FVD and LPIPS with
weights that you supply, CRPS in 8-bit units of samples whose number it does
not give: neither FVD nor CRPS can be compared). None of them was trained here
at this size; `python -m experiments.tables rvd:2` has the command of each row.

  variants               FVD   LPIPS  CRPS
  (none), simulation     20    0.01   0.58   4 -> 16, 128x128
  bair                   1272  0.06   12.86  4 -> 16, 64x64
  kth                    1351  0.06   6.51   4 -> 12, 64x64
  cityscapes             997   0.11   9.84   4 -> 16, 128x128

The default evaluation runs the denoiser 1600 steps x 16 frames x 10 samples x
50 clips = 12.8 million times on one frame (KTH: 9.6). `ddim` needs 16 times
fewer evaluations, `dpm` 64 times fewer, with the same weights: `--mode=eval
--config.init_from=runs/rvd --workdir=runs/rvd_dpm` keeps the results of the
run. `--config.eval.samples_at_once` bounds the memory.

Ablations (Table 2, Simulation), to be combined with a data set:

  vd                     37    0.014  0.68   frames themselves are diffused
  rvd23                  33    0.018  0.63   trained on 2 + 3 frames

For the gradient a step keeps 11.9 GB at 128x128; with --config.model.remat=True
1.7 GB, and it computes the rest anew.

Others, separated by commas. The order in which variants are given does not
matter: data sets come first, then `small`, `demo` and `smoke`, then the rest.

  paper      the paper's settings where its code differs: sigma 2, squared
             error; this is the default
  code       the code's settings: sigma 1, absolute error, a learning rate that
             falls to a fifth after 100,000 steps
  ddim       samples in 100 steps instead of 1600 (with `smoke` in all 20),
             without retraining
  dpm        samples in 25 steps (DPM-Solver++), without retraining
  bair_png   BAIR as folders of PNG files; `bair` takes what
             tensorflow-datasets prepared of bair_robot_pushing_small
  videos     your own video files: --config.data.root=FOLDER; 128x128
  arrays     your own arrays, .npy, .npz or .zarr of [N, T, H, W, C] or
             [T, H, W, C], with any number of channels; bytes are images, floats
             physical fields (--config.data.kind)
  prepared   what `python -m vidpred_jax.data --prepare` wrote
  small      a small model and a run of minutes: `videos,small` for a CPU
  demo       a small street of vortices and a small model, minutes on a CPU
  smoke      the same in seconds, to see that everything runs
  bf16       computes in bfloat16; parameters and norms stay float32
  perceptual measures LPIPS and FVD, too; wants weights/alex.pth,
             weights/alexnet-owt-7be5be79.pth and weights/i3d_pretrained_400.pt

`python -m vidpred_jax.data --check NAME --root DIR` counts a data set's files;
NAME is bair (for `bair_png`), kth_64 or cityscapes_128.

Weights of the published code; their sizes and their number of timesteps follow
from the file. KEY is ema, or model, which the published evaluation loads:

python -m vidpred_jax.convert --system=rvd --input=FILE.pt --key=KEY \\
  --set sigma=1 --output=DIR
python -m vidpred_jax.predict --checkpoint=DIR --input=clip.mp4 \\
  --output=future.mp4 --samples=8 --set sampler=dpm++ --set sampling_steps=25
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


def get_config(variants: str = '') -> ConfigDict:
  """The configuration with the named variants applied."""
  config = base('rvd')

  config.model.channels = 1  # of a frame
  config.model.dim = 64  # width at full resolution
  config.model.mults = (1, 1, 2, 2, 4, 4)  # of the denoiser's levels
  config.model.mean_mults = (1, 2, 3, 4)  # of the levels of the mean's network
  config.model.mode = 'residual'  # or frame: no mean, VD
  # Frame = mean + sigma * residual; None: 2, and 1 for mode 'frame'.
  config.model.sigma = placeholder(float)
  config.model.num_timesteps = 1600  # N, steps of the diffusion
  config.model.prediction_type = 'epsilon'  # or sample, the residual
  config.model.loss_type = 'l2'  # or l1
  config.model.shared_step = True  # one n for all frames of a clip
  # Of residuals in sampling; None: the largest possible residual.
  config.model.clip_sample_range = placeholder(float)
  config.model.sampler = 'ancestral'  # or ddim, dpm++
  config.model.sampling_steps = placeholder(int)  # None: all
  config.model.eta = 0.0  # of ddim: 0 adds no noise
  config.model.dtype = 'float32'  # of the computation; or bfloat16
  config.model.remat = False  # trains in less memory and more time

  _simulation(config)
  # Paper 3.2: steps, rates, Adam, batches; its code has other rates (`code`).
  config.steps = 1_000_000
  config.schedule.peak = 5e-5
  _schedule(config, 500_000, 0.4)  # to 2e-5
  config.optim.name = 'adam'
  # The average of the parameters is what is evaluated and exported; the
  # published code keeps one, too, and evaluates without it.
  config.ema.update({'decay': 0.99, 'every': 5, 'start': 2000})
  config.checkpoint_every = 5000

  config.eval.batch_size = 10
  config.eval.samples = 10
  config.eval.mean_frame = 200
  config.eval.metrics = (
    'crps/ens',
    'crps/fair',
    'spread_skill/ratio',
    'ssim/pmss',
    'psnr/float',
    'psnr/float_best',
  )
  config.eval.limit = 50  # as published: config_test.py, 5 batches of 10
  config.eval.quick_limit = 10
  config.eval.show_as = 'gif'
  config.eval.show_fps = 5
  return apply(config, variants, VARIANTS)


def _frames(frames, seen, asked):
  set_frames(frames, range(seen), range(seen, seen + asked))


def _protocol(config, asked):
  _frames(config.frames, 2, 6)
  _frames(config.eval.frames, 4, asked)


def _large(config, channels):
  """Table 3, 128x128."""
  config.model.channels = channels
  config.model.dim = 64
  config.model.mults = (1, 1, 2, 2, 4, 4)
  config.model.mean_mults = (1, 2, 3, 4)
  config.batch_size = 4


def _little(config, channels):
  """Table 3, 64x64."""
  config.model.channels = channels
  config.model.dim = 48
  config.model.mults = (1, 2, 4, 8)
  config.model.mean_mults = (1, 2, 2, 4)
  config.batch_size = 8


def _simulation(config):
  set_data(
    config,
    source='vortices',
    root='data/vortices',  # each set of settings has a folder there
    size=(128, 128),  # H, W
    reynolds=200.0,  # speed times diameter over viscosity
    speed=0.06,  # of what flows in, nodes per tick
    bulk_viscosity=1.0,  # against sound
    gusts=0.2,  # swaying of what flows in; 0: none
    ticks=128,  # from frame to frame
    trajectories=(8, 8),  # for training and testing
    frames=(1000, 250),  # of each
  )
  _large(config, channels=1)
  _protocol(config, asked=16)


def _bair(config):
  set_data(config, **prepared_by_tfds('bair_robot_pushing_small', 'image_aux1'))
  _little(config, channels=3)
  _protocol(config, asked=16)


def _bair_png(config):
  set_data(config, **published('bair'))
  _little(config, channels=3)
  _protocol(config, asked=16)


def _kth(config):
  set_data(config, **published('kth_64', root='kth'))
  _little(config, channels=1)
  _protocol(config, asked=12)


def _cityscapes(config):
  set_data(config, **published('cityscapes_128', root='cityscapes'))
  _large(config, channels=3)
  _protocol(config, asked=16)


def _videos(config):
  set_data(config, **user_videos() | {'size': (128, 128)})
  _large(config, channels=3)
  _protocol(config, asked=16)


def _arrays(config):
  _videos(config)
  set_arrays(config)


def _prepared(config):
  _videos(config)
  set_prepared(config)


def _vd(config):
  config.model.mode = 'frame'
  config.model.sigma = None


def _rvd23(config):
  _frames(config.frames, 2, 3)


def _schedule(config, boundary, factor):
  config.schedule.name = 'step'
  config.schedule.boundaries = (boundary,)
  config.schedule.factor = factor


def _paper(config):
  config.model.sigma = None
  config.model.loss_type = 'l2'
  _schedule(config, 500_000, 0.4)


def _code(config):
  config.model.sigma = 1.0
  config.model.loss_type = 'l1'
  _schedule(config, 100_000, 0.2)


def _sampler(name, steps):
  def change(config):
    config.model.sampler = name
    config.model.sampling_steps = min(steps, config.model.num_timesteps)

  return change


def _small(config):
  config.model.dim = 16
  config.model.mults = (1, 2, 4)
  config.model.mean_mults = (1, 2, 4)
  # In a few hundred steps the networks learn residuals of unit size and their
  # clean form, not faint ones by the noise: sampling divides its error by abar.
  config.model.sigma = 0.02
  config.model.prediction_type = 'sample'
  config.model.sampler = 'dpm++'
  config.model.sampling_steps = 20
  _frames(config.frames, 2, 4)
  _frames(config.eval.frames, 4, 4)
  config.batch_size = 4
  config.steps = 500
  config.schedule.name = 'cosine'
  config.schedule.peak = 2e-3
  config.schedule.warmup = 50
  config.ema.update({'decay': 0.99, 'every': 1, 'start': 100})
  config.workers = 0
  config.log_every = 25
  config.checkpoint_every = 250
  config.eval.batch_size = 8
  config.eval.samples = 8
  config.eval.limit = 16


def _demo(config):
  set_data(
    config,
    source='vortices',
    root='data/vortices',
    size=(32, 32),
    scale=2,  # nodes of the lattice per pixel
    reynolds=120.0,
    diameter=0.15,  # of the cylinder, relative to the height
    gusts=0.2,
    ticks=64,
    spin_up=40,  # frames before the first
    trajectories=(8, 4),
    frames=(150, 50),
  )
  config.model.channels = 1
  _small(config)


def _smoke(config):
  _demo(config)
  config.data.size = (16, 16)
  config.data.ticks = 8
  config.data.spin_up = 4
  config.data.trajectories = (2, 1)
  config.data.frames = (20, 12)
  config.model.dim = 8
  config.model.mults = (1, 2)
  config.model.mean_mults = (1, 2)
  config.model.num_timesteps = 20
  config.model.sampling_steps = 4
  _frames(config.frames, 2, 2)
  _frames(config.eval.frames, 2, 2)
  config.batch_size = 4
  config.steps = 6
  config.schedule.warmup = 2
  config.ema.update({'decay': 0.9, 'every': 1, 'start': 2})
  config.log_every = 2
  config.checkpoint_every = 3
  config.eval.batch_size = 4
  config.eval.samples = 2
  config.eval.limit = 4
  config.eval.mean_frame = 8
  config.eval.show = 2


def _bf16(config):
  config.model.dtype = 'bfloat16'


def _perceptual(config):
  measure_perceptual(config, 'lpips/alex', 'fvd/i3d400')


# What comes later changes what comes before: the order they are applied in.
VARIANTS = {
  'simulation': _simulation,
  'bair': _bair,
  'bair_png': _bair_png,
  'kth': _kth,
  'cityscapes': _cityscapes,
  'videos': _videos,
  'arrays': _arrays,
  'prepared': _prepared,
  'small': _small,
  'demo': _demo,
  'smoke': _smoke,
  'vd': _vd,
  'rvd23': _rvd23,
  'paper': _paper,
  'code': _code,
  'ddim': _sampler('ddim', 100),
  'dpm': _sampler('dpm++', 25),
  'bf16': _bf16,
  'perceptual': _perceptual,
}
