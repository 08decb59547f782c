"""The base configuration with every field, and the application of variants.

A file in `configs/` is the recipe of a paper. It calls `base`, sets the fields
that differ and the settings of its system, and calls `apply`, which applies the
variants named on the command line.
"""

from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

# The settings of every source of `data.SOURCES`, by name. Those that a
# configuration does not give are None there: the source's own default, which
# its docstring has.
SOURCES = {
  'photos': (
    'size',
    'max_speed',
    'min_speed',
    'still',
    'rotation',
    'zoom',
    'cutouts',
    'border',
    'shutter',
    'light',
    'noise',
    'coding',
    'folder',
    'num_clips',
    'seed',
    'val_fraction',
  ),
  'mix': ('parts', 'num_clips', 'seed'),
  'moving_digits': (
    'digits',
    'root',
    'num_digits',
    'size',
    'test_clips',
    'val_fraction',
  ),
  'videos': (
    'root',
    'size',
    'fit',
    'short_side',
    'step',
    'hop',
    'test_fraction',
    'test_files',
    'val_fraction',
    'val_files',
    'on_error',
    'cache_mb',
    'scan_cache',
    'stream',
    'teacher',
  ),
  'arrays': (
    'root',
    'array',
    'kind',
    'test_fraction',
    'val_fraction',
    'test_files',
    'val_files',
    'step',
    'hop',
    'colour',
    'variables',
    'units',
    'mean',
    'std',
  ),
  'tfds': (
    'name',
    'key',
    'data_dir',
    'train_split',
    'test_split',
    'val_fraction',
    'step',
    'hop',
  ),
  'prepared': ('root', 'val_fraction', 'step', 'hop'),
  'frames': ('dataset', 'root', 'size', 'val_fraction'),
  'episodes': ('root', 'array', 'test_fraction', 'val_fraction'),
  'weather': (
    'root',
    'variables',
    'train_years',
    'val_years',
    'test_years',
    'train_fraction',
    'val_fraction',
    'region',
  ),
  'taxibj': ('root', 'val_fraction'),
  'vortices': (
    'root',
    'hop',
    'size',
    'scale',
    'reynolds',
    'speed',
    'bulk_viscosity',
    'diameter',
    'gusts',
    'ticks',
    'spin_up',
    'trajectories',
    'frames',
    'seed',
    'val_fraction',
  ),
}


def base(system: str) -> ConfigDict:
  """Makes a configuration with the fields that all systems share.

  A run that was begun before there was a field goes on with its default. So the
  default of a new field, here or in a system's `Settings`, does what was done
  before.

  Args:
    system: one of `systems.SYSTEMS`.

  Returns:
    The configuration, not locked. `model`, `features` and `data` are empty:
    their fields depend on the system and on the source of the data.
  """
  config = ConfigDict()

  # The system.
  config.system = system  # one of systems.SYSTEMS
  config.frames = ConfigDict()  # indices into a clip, in training
  config.frames.context = ()  # the frames that the system sees
  config.frames.target = ()  # the frames that it predicts
  config.model = ConfigDict()  # settings of systems/<system>.py
  config.features = ConfigDict()  # weight files of frozen nets of the loss

  # Data, for training and evaluation.
  config.data = ConfigDict()  # `source`, one of data.SOURCES, and its settings
  config.augment = ConfigDict()  # in training only
  config.augment.crop = placeholder(tuple)  # H, W; None: the whole frame
  # True, False, 'horizontal' or 'vertical'.
  config.augment.flip = FieldReference(False, field_type=object)
  config.augment.rotate = False  # by quarter turns
  config.augment.reverse_time = False  # last frame first
  config.augment.reverse_channels = False  # RGB to BGR
  config.workers = 4  # processes that load data; 0: threads of this one

  # Training.
  config.seed = 0  # of initial weights, data order and random draws
  config.batch_size = 16  # clips, over all devices and processes
  config.steps = 100_000  # batches
  config.accumulate = 1  # micro-batches per batch
  config.schedule = ConfigDict()  # arguments of optim.schedule
  config.schedule.name = 'cosine'  # or constant, onecycle, step
  config.schedule.peak = 1e-4  # highest learning rate
  config.schedule.final = 0.0  # learning rate at the end, of cosine
  config.schedule.initial = 0.0  # learning rate that the warm-up begins with
  config.schedule.warmup = 0  # steps from there to the peak, not of onecycle
  config.schedule.boundaries = ()  # steps at which it falls, of step
  config.schedule.factor = 1.0  # by which it is multiplied there
  # Of onecycle: optim.b1 at both ends and at the peak, PyTorch's default for
  # OneCycleLR; (): optim.b1 throughout.
  config.schedule.b1_cycle = (0.95, 0.85)
  config.optim = ConfigDict()  # arguments of optim.make
  config.optim.name = 'adamw'  # or adam
  config.optim.b1 = 0.9  # decay of the mean of the gradients
  config.optim.b2 = 0.999  # decay of the mean of their squares
  config.optim.weight_decay = 0.0  # of every parameter
  config.optim.clip_norm = 0.0  # largest gradient norm; 0: no clipping
  config.optim.frozen = ()  # regular expressions of parameter names
  # Pairs of such an expression and a factor of the learning rate.
  config.optim.rates = ()
  config.ema = ConfigDict()  # the average of the parameters
  config.ema.decay = 0.0  # of the average, per update; 0: no average
  config.ema.every = 1  # steps between updates
  config.ema.start = 0  # before this step it is the parameters themselves
  config.init_from = ''  # an exported system or a run to start from
  config.init_match = '.*'  # which of its parameters to take
  config.shard_params = False  # split parameters over the devices too
  config.log_every = 100  # steps
  config.profile = ()  # the first and the last step that are traced; (): none
  config.checkpoint_every = 2000  # steps
  config.keep = 2  # newest checkpoints kept
  config.export_dtype = 'float32'  # of the weights in export/; or float16

  # Evaluation.
  config.eval = ConfigDict()  # the protocol
  config.eval.frames = ConfigDict()  # indices into a clip
  config.eval.frames.context = ()  # the frames that the system sees
  config.eval.frames.target = ()  # the frames that it predicts
  # Replaces fields of `data`; with a `source`, all of it. None: as there.
  config.eval.data = ConfigDict()
  config.eval.split = 'test'  # of the data: what results are of
  config.eval.batch_size = 1  # clips, over all devices and processes
  # Conventions by name: metrics/__init__.py; (): some that suit the data.
  config.eval.metrics = ()
  config.eval.lpips = ConfigDict()  # weight files for lpips/*
  config.eval.lpips.backbone = ''  # of the classifier
  config.eval.lpips.heads = ''  # of the linear layers
  config.eval.i3d = ''  # weight file for fvd/*
  config.eval.samples = 1  # futures of each clip, of a stochastic system
  config.eval.samples_at_once = 0  # of these drawn together; 0: all
  config.eval.mean_frame = 0  # training clips of this baseline; 0: without it
  config.eval.limit = 0  # clips, evenly spread; 0: all
  config.eval.seed = 0  # of stochastic predictions
  config.eval.every = 0  # steps between evaluations in training; 0: none
  # The split of those evaluations, by which eval.best chooses: see data.val_*.
  config.eval.quick_split = 'val'
  config.eval.quick_limit = 64  # clips of those evaluations
  config.eval.best = ''  # a metric: its best checkpoint is kept and exported
  config.eval.show = 4  # clips in picture.png and the film
  config.eval.save = 0  # clips whose predictions go to predictions.npz
  config.eval.show_as = 'mp4'  # or gif
  config.eval.show_fps = 2  # of the film
  return config


def apply(
  config: ConfigDict,
  variants: str,
  table: Mapping[str, Callable[[ConfigDict], None]],
) -> ConfigDict:
  """Applies variants in the order of the table and locks the configuration.

  The order on the command line does not matter: a later variant of the table
  overrides an earlier one. Afterwards `data` has every field of its source and
  `eval.data` those of all sources, None where nothing was given, so that the
  command line can set them.

  Args:
    config: the configuration without a variant.
    variants: names, separated by commas.
    table: `{name: function}`; the function changes the configuration.

  Returns:
    `config`.

  Raises:
    ValueError: for an unknown variant, or two that exclude each other.
  """
  config.lock()
  named = [name for name in variants.split(',') if name]
  unknown = [name for name in named if name not in table]
  if unknown:
    raise ValueError(
      f'There is no variant {unknown[0]!r} of {config.system}; there are '
      f'{", ".join(table)}.'
    )
  for name, change in table.items():
    if name in named:
      change(config)
  with config.unlocked():
    _complete(config.data)
    for fields in SOURCES.values():
      _add(config.eval.data, ('source', *fields))
  config.lock()
  return config


def _complete(data: ConfigDict) -> None:
  """Adds the fields of its source, and those of the parts of a mixture."""
  _add(data, SOURCES.get(data.get('source'), ()))
  for part in (data.get('parts') or {}).values():
    _complete(part)


def _add(data: ConfigDict, names: Sequence[str]) -> None:
  for name in names:
    if name not in data:
      data[name] = placeholder(object)


def given(data: ConfigDict) -> dict:
  """The settings of `data` or `eval.data` that are not None."""
  return {
    name: {part: given(x) for part, x in value.items()}
    if isinstance(value, ConfigDict)
    else value
    for name, value in data.items()
    if value is not None
  }


def set_frames(
  frames: ConfigDict, context: Sequence[int], target: Sequence[int]
) -> None:
  """Sets `config.frames` or `config.eval.frames`."""
  frames.update({'context': tuple(context), 'target': tuple(target)})


def set_data(config: ConfigDict, **settings) -> None:
  """Replaces `config.data`, for training and evaluation alike."""
  config.data = ConfigDict(settings)
  config.eval.data = ConfigDict()


def set_augment(config: ConfigDict, **settings) -> None:
  """Sets some fields of `config.augment` and turns the others off."""
  defaults = {name: False for name in config.augment} | {'crop': None}
  config.augment.update(defaults | settings)


def published(name: str, *, root: str = '', **settings) -> dict:
  """The fields of `data` for a data set of a paper.

  Args:
    name: one of data/published.
    root: its folder below data/; by default `name`.
    **settings: further settings of the source, such as `size`: (H, W), or None
      for the size of the files. By default it is the published size.
  """
  fields = {'source': 'frames', 'dataset': name, 'root': f'data/{root or name}'}
  if 'size' in settings and settings['size'] is None:
    settings['size'] = placeholder(tuple)
  return fields | settings


def measure_perceptual(config: ConfigDict, *metrics: str) -> None:
  """Adds metrics that need weights, and where these files are looked for.

  `vidpred_jax.build` says where to get those that are not there.

  Args:
    config: to be changed.
    *metrics: such as 'lpips/alex' or 'fvd/i3d400'.
  """
  missing = [name for name in metrics if name not in config.eval.metrics]
  config.eval.metrics = tuple(config.eval.metrics) + tuple(missing)
  config.eval.lpips.backbone = 'weights/alexnet-owt-7be5be79.pth'
  config.eval.lpips.heads = 'weights/alex.pth'
  config.eval.i3d = 'weights/i3d_pretrained_400.pt'


def photographs(side: int, *, max_speed: float) -> dict:
  """The fields of the source 'photos' for motion with camera effects.

  Args:
    side: of the clips, in pixels.
    max_speed: pixels a frame.
  """
  return {
    'size': (side, side),
    'max_speed': max_speed,
    'min_speed': 0.25,
    'still': 0.15,
    'rotation': 0.05,
    'zoom': 0.04,
    'cutouts': 2,
    'border': 0.25,
    'shutter': 0.5,
    'light': 0.05,
    'noise': 4.0,
    'coding': 0.3,
    'folder': '',  # more photographs
  }


def set_photographs(config: ConfigDict, *, max_speed: float) -> None:
  """Trains on photographs in motion, as the first run of a film recipe does.

  Args:
    config: to be changed.
    max_speed: pixels a frame, of clips of 128 pixels.
  """
  photos = photographs(128, max_speed=max_speed)
  config.data = ConfigDict(photos | {'source': 'photos'})
  config.eval.data = ConfigDict({'num_clips': 64})
  set_augment(config, flip=True, rotate=True, reverse_channels=True)
  config.batch_size = 4
  config.steps = 4000
  config.workers = 0
  config.schedule.final = 1e-5
  config.schedule.warmup = 200
  config.optim.clip_norm = 1.0
  config.ema.update({'decay': 0.999, 'start': 1000})
  config.export_dtype = 'float16'
  config.checkpoint_every = 250
  config.eval.batch_size = 4


def set_films(
  config: ConfigDict, *, steps: tuple[int, ...], max_speed: float
) -> None:
  """Trains on films, and every fourth time on photographs in motion.

  Args:
    config: to be changed.
    steps: distances of a clip's frames in a film.
    max_speed: of the photographs, pixels a frame.
  """
  films = {
    'source': 'videos',
    'weight': 3.0,
    'root': 'data/films/train',
    'test_fraction': 0.0,
    'size': (256, 448),
    'step': steps,
    'teacher': 'dis',  # needs OpenCV; empty for none
    'cache_mb': 5000,
  }
  photos = photographs(192, max_speed=max_speed)
  photos |= {'source': 'photos', 'weight': 1.0}
  config.data = ConfigDict({'source': 'mix'})
  config.data.parts = ConfigDict({'films': films, 'photos': photos})
  config.augment.crop = (192, 192)
  config.augment.reverse_time = True
  config.eval.data = ConfigDict(
    {
      'source': 'videos',
      'root': 'data/films/test',
      'test_fraction': 1.0,
      'size': (256, 448),
      'hop': 20,
    }
  )


def user_videos() -> dict:
  """The fields of `data` for the user's own video files."""
  return {
    'source': 'videos',
    'root': 'data/videos',  # a folder, a file or a pattern
    'size': (256, 448),  # H, W
    'test_fraction': 0.2,  # of the files
    'test_files': placeholder(tuple),  # these instead, if given
    'step': 1,  # distance of successive frames
    'on_error': 'skip',  # or raise, for files that cannot be read
  }


def prepared_by_tfds(name: str, key: str) -> dict:
  """The fields of `data` for a data set that tensorflow-datasets prepared.

  Args:
    name: of the data set.
    key: of the frames in an example.
  """
  return {'source': 'tfds', 'name': name, 'key': key}


def set_arrays(config: ConfigDict, *, colour: bool = False) -> None:
  """Takes arrays of one's own, for training and evaluation alike.

  What depends on them is left to the data: the channels, where the model has a
  number of them, and the metrics.

  Args:
    config: to be changed.
    colour: whether the model needs three channels.
  """
  # Grey is then given three times.
  set_data(config, source='arrays', root='data/arrays', colour=colour)
  leave_to_data(config)


def set_prepared(config: ConfigDict) -> None:
  """Takes what `python -m vidpred_jax.data --prepare` wrote, see `set_arrays`.

  Args:
    config: to be changed.
  """
  set_data(config, source='prepared', root='data/prepared')
  leave_to_data(config)


def leave_to_data(config: ConfigDict) -> None:
  """Leaves channels, where the model has a number, and metrics to the data.

  Frames are not cropped: they may be small.
  """
  if 'channels' in config.model:
    config.model.channels = None
  config.augment.crop = None
  config.eval.metrics = ()
