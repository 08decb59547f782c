"""Every table of the papers as data: its rows are configurations.

The papers' own numbers are in `experiments/papers.json`, under the same names
and labels; those of others, which are not implemented here, are there alone.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
  """A row, of one of our systems.

  Attributes:
    label: as the paper prints it.
    variants: what makes this row, beside the data set.
    small: the same at the scales 'small' and 'tiny': variants, and settings
      `name=value`, in place of `variants` of the full model; None: `variants`.
    weights: a label, the row whose weights are evaluated; nothing is trained.
    baseline: of the row `weights`: this one of its baselines.
    why: the reason why the row cannot be had.
    not_small: the reason why it is left out at the small scales.
    paper: the label of the paper's numbers, if it is another.
    times: at the scales 'small' and 'tiny': so many times the steps.
  """

  label: str
  variants: str = ''
  small: tuple[str, ...] | None = None
  weights: str = ''
  baseline: str = ''
  why: str = ''
  not_small: str = ''
  paper: str = ''
  times: int = 1


class Scale(NamedTuple):
  """How a configuration is made small.

  Attributes:
    variants: of the configuration.
    settings: of the command line, without `--config.`.
    columns: what is shown of the results, see `Table.quantities`.
    before: variants and settings, as `Row.small`, of a run whose weights all
      rows begin with; empty: there is none.
  """

  variants: str
  settings: tuple[str, ...]
  columns: tuple[str, ...]
  before: tuple[str, ...] = ()


class Table(NamedTuple):
  """A table.

  Attributes:
    config: of `configs/`.
    rows: ours.
    sets: data sets of its columns, of `SETS`.
    quantities: `{name in a column: (metric, aggregation, factor)}`.
    columns: at the scales 'small' and 'tiny', beside those of `SCALES`.
    not_small: why there is no small scale; empty: there is one.
    note: what must be known to read it.
    small_note: the same at the scales 'small' and 'tiny'.
  """

  config: str
  rows: tuple[Row, ...]
  sets: tuple[str, ...]
  quantities: Mapping[str, tuple[str, str, float]]
  columns: tuple[str, ...] = ()
  not_small: str = ''
  note: str = ''
  small_note: str = ''


class Set(NamedTuple):
  """A data set of a table's columns.

  Attributes:
    variants: of the configuration.
    weights: the set that was trained on; empty: this one.
  """

  variants: str
  weights: str = ''


SETS = {
  'dmvfn': {
    'cityscapes': Set(''),
    'kitti': Set('kitti'),
    'davis': Set('ucf101'),
    'vimeo': Set('ucf101,on_vimeo', 'davis'),
    'ucfsports': Set('ucfsports,strpm'),
    'human36m': Set('human36m,strpm'),
    'vimeo90k': Set('vimeo'),
  },
  'simvp': {
    'mnist': Set(''),
    'taxibj': Set('taxibj'),
    'weather': Set('weather,paper'),
    'caltech': Set('caltech,paper'),
    'kth': Set('kth'),
    'kth40': Set('kth,long', 'kth'),
    'robonet': Set('robonet'),
    'bridge': Set('bridge'),
  },
  'rvd': {
    'kth': Set('kth'),
    'bair': Set('bair'),
    'simulation': Set('simulation'),
    'cityscapes': Set('cityscapes'),
  },
  'apr_vfi': {
    'vimeo90k': Set(''),
    'xiph2k': Set('on_xiph2k', 'vimeo90k'),
    'xiph4k': Set('on_xiph4k', 'vimeo90k'),
  },
}

# APR-VFI's later runs begin with the weights of earlier ones.
BEFORE = {'stage2': 'stage1', 'stage3': 'stage2'}

# The paper's stages 2 and 3: what a row changes is trained from the weights of
# stage 1, with the flow as it is.
_APR_SMALL = (
  'init_match=(flow|context|synthesis)/.*',
  "optim.frozen=('flow/.*',)",
  'model.warp_weight=0.0',
)
_THREE = (  # blocks, as many as the small scale has, for its keep ratios
  'model.widths=(8,8,8)',
  'model.depths=(1,1,1)',
  'model.keep_ratios=(0.3,0.7)',
)
# In 300 steps at 0.001 a parameter moves by 0.15: too little for a new router.
_ROUTER = "optim.rates=(('router/.*',5.0),)"
_NEW = 'init_match=flow/.*'  # the synthesis has random weights
SCALES = {
  'small': {
    # From random weights. Without the true flow of the photographs nothing
    # moves in so few steps, and when it begins to hangs on the seed.
    'dmvfn': Scale(
      'demo',
      (
        'steps=400',
        'schedule.warmup=40',
        'model.flow_weight=0.05',
        'eval.show=2',
        'eval.save=64',
      ),
      ('PSNR t+1', 'PSNR t+3', 'PSNR gain', 'SSIM t+1', 'blocks', 'GFLOPs'),
    ),
    # Half the demo's steps of half as many clips: a minute of one core a row.
    'simvp': Scale(
      'demo',
      (
        'steps=300',
        'batch_size=4',
        'model.n_t=3',
        'eval.limit=128',
        'eval.show=2',
        'eval.save=128',
      ),
      ('MSE', 'MSE gain', 'SSIM', 'parameters (M)', 'GFLOPs'),
    ),
    # Half the demo's steps, which have up to 6 frames instead of 4; samples of
    # 10 steps, as good as of 20 (`experiments/README.md`): 3 minutes a row.
    'rvd': Scale(
      'demo',
      (
        'steps=250',
        'model.sampling_steps=10',
        'eval.show=2',
        'eval.save=16',
      ),
      ('CRPS', 'fair CRPS', 'fair CRPS gain', 'spread/skill', 'PSNR'),
    ),
    # Before: the demo as it is, but for the router. Its flow is poor enough for
    # the synthesis to have something to do, which that of the zoo is not.
    'apr_vfi': Scale(
      'demo',
      (
        *_APR_SMALL,
        'steps=300',
        'schedule.warmup=15',
        'eval.show=2',
        'eval.save=64',
      ),
      ('PSNR', 'PSNR gain', 'SSIM', 'blocks', 'ms of a frame'),
      ('static',),
    ),
  },
  'tiny': {
    'dmvfn': Scale(
      'smoke',
      ('eval.show=0', 'eval.save=2'),
      ('PSNR t+1', 'PSNR gain', 'blocks', 'GFLOPs'),
    ),
    'simvp': Scale(
      'smoke',
      ('steps=6', 'eval.show=0', 'model.hid_s=8'),
      ('MSE', 'parameters (M)', 'GFLOPs'),
    ),
    'rvd': Scale('smoke', ('eval.show=0',), ('CRPS', 'spread/skill')),
    'apr_vfi': Scale(
      'smoke',
      (*_APR_SMALL, *_THREE, 'eval.show=0'),
      ('PSNR', 'blocks'),
      ('static', *_THREE),
    ),
  },
}

_DMVFN = {
  'MS-SSIM': ('ms_ssim/pmss', 'cumulative', 100),
  'LPIPS': ('lpips/alex_bgr', 'cumulative', 100),
  'PSNR': ('psnr/float', 'cumulative', 1),
  'SSIM': ('ssim/pmss', 'cumulative', 1),
}
_STRPM = {
  'PSNR': ('psnr/float', 'per_frame', 1),
  'spatial LPIPS': ('lpips/alex_bgr_spatial', 'per_frame', 100),
}
_SIMVP = {
  'MSE': ('mse/sum_chw', 'mean', 1),
  'MAE': ('mae/sum_chw', 'mean', 1),
  'SSIM': ('ssim/skimage7_dr2', 'mean', 1),
  'PSNR': ('psnr/e3d_wrap', 'mean', 1),
  'LPIPS': ('lpips/alex', 'mean', 100),
}
_SIMVP_SMALL = _SIMVP | {
  'SSIM': ('ssim/pmss', 'mean', 1),
  'PSNR': ('psnr/float', 'mean', 1),
}
_PREDBENCH = _SIMVP | {'PSNR': ('psnr/float', 'mean', 1)}
_WEATHER = {'MAE': ('mae/mean', 'mean', 1), 'RMSE': ('rmse/mean', 'mean', 1)}
_RVD = {
  'FVD': ('fvd/i3d400', 'mean', 1),
  'LPIPS': ('lpips/alex', 'mean', 1),
  'CRPS': ('crps/ens', 'mean', 1),
  'CRPS of frame': ('crps/ens', 'per_frame', 1),
  'fair CRPS': ('crps/fair', 'mean', 1),
  'spread/skill': ('spread_skill/ratio', 'mean', 1),
  'PSNR': ('psnr/float', 'mean', 1),
}
_APR = {
  'PSNR': ('psnr/round8', 'mean', 1),
  'SSIM': ('ssim/skimage7_dr255', 'mean', 1),
}
_APR_OWN = {
  'PSNR': ('psnr/float', 'mean', 1),
  'SSIM': ('ssim/matlab3d', 'mean', 1),
}
# What the order of rows is judged by: ours, on the same clips (its column is
# `... gain`), what the paper's column has in its name, and 1 where more is
# better.
ORDERS = {
  'dmvfn': ('PSNR', 'MS-SSIM t+1', 1),
  'simvp': ('MSE', 'MSE', -1),
  # Of the few samples that are saved: the one that their number leaves alone.
  'rvd': ('fair CRPS', 'simulation CRPS', -1),
  'apr_vfi': ('PSNR', 'xiph2k PSNR', 1),
}
# At the small scales images are measured by these instead.
SMALL_QUANTITIES = {
  'dmvfn': _DMVFN,
  'simvp': _SIMVP_SMALL,
  'rvd': _RVD,
  'apr_vfi': _APR_OWN,
}

# A block is worth some 0.05 of this loss: the weight 1 closes every gate.
_GUMBEL = ('gumbel', 'model.gate_penalty=0.05', 'model.temperature_steps=400')
_ROUTING = (
  Row('copy', weights='STEBS', baseline='copy_last'),
  Row('w/o routing', 'no_routing'),
  Row('Random', 'random'),
  Row('Gumbel Softmax', 'gumbel', _GUMBEL),
  Row('STEBS'),
  Row('STEBS, standardised', 'standardised'),
)
_SCALES = tuple(
  Row(label, variants)
  for label, variants in {
    'DMVFN [1]': 'scales_1',
    'DMVFN [2]': 'scales_2',
    'DMVFN [4]': 'scales_4',
    'DMVFN [1, 2]': 'scales_1_2',
    'DMVFN [1, 4]': 'scales_1_4',
    'DMVFN [2, 1]': 'scales_2_1',
    'DMVFN [4, 1]': 'scales_4_1',
    'DMVFN [1, 2, 4]': 'scales_1_2_4',
    'DMVFN [4, 2, 1]': '',
  }.items()
)
_PATH = (
  Row('w/o r, w/o path', 'no_routing,no_path'),
  Row('w/o r', 'no_routing'),
  Row('w/o path', 'no_path'),
  Row('DMVFN'),
)
_BETA = (
  *(Row(f'beta 0.{b}', f'beta_{b}', weights='DMVFN') for b in range(3, 9)),
  Row('DMVFN'),
)
_SUPERVISION = (
  Row('w/o routing, single supervision', 'no_routing,single'),
  Row('w/o routing', 'no_routing'),
  Row('single supervision', 'single'),
  Row('DMVFN'),
)
_ROUTED = (
  Row('DMVFN (w/o r)', 'no_routing'),
  Row('DMVFN'),
  Row(
    'DMVFN, routes drawn',
    'sampled',
    weights='DMVFN',
    not_small='routes are drawn in dmvfn:8',
    paper='DMVFN',
  ),
)
_V1_V2 = (Row('SimVP', 'incepu'), Row('SimVPv2'))
_FOUR = ('cityscapes', 'kitti', 'davis', 'vimeo')
_MNIST = (
  Row('SimVP', 'incepu'),
  Row('SimVPv2-S'),
  *(Row(f'SimVPv2-S x{k}', f'x{k}', (), times=k) for k in (3, 5, 10)),
  Row('SimVPv2-L', 'large', ('model.hid_t=256', 'model.n_t=8')),
)
_USAGE = tuple(f'block {i}' for i in range(1, 10))
_WITHOUT_GPU = 'Seconds are of the machine that runs it.'
_ONE_BY_ONE = (
  _WITHOUT_GPU + " The paper's frames a second are of clips one by one: "
  '--config.eval.batch_size=1.'
)
_TRIALS = 'The paper has three trials: --seeds=3. ' + _ONE_BY_ONE
_OTHERS = ('Uniformer', 'ConvNeXt', 'VAN', 'HorNet', 'MogaNet', 'TAU')
_SECOND = "not in the paper's table but in OpenSTL's"
_DRAWN = (
  "The paper's routes are drawn. Ours are the most probable blocks, as many as "
  'drawing takes, but for rows of beta and of drawn routes; `sampled` draws '
  'those of any run.'
)
_SMALL_DMVFN = (
  'Here STEBS is trained at beta 0.83, since few of six blocks can be missed; '
  'the paper has 0.5. Routes that are drawn at the evaluation are drawn by one '
  'key in all rows and seeds.'
)
_ANOTHER = 'It shows what seeds alone do, at the small scale.'
_NO_DATA = 'Its question needs data that cannot be made: see --scale=paper.'


def _dmvfn(rows, sets, quantities=_DMVFN, note=_DRAWN, **more):
  more = {'note': note, 'small_note': _SMALL_DMVFN} | more
  return Table('dmvfn', rows, sets, quantities, **more)


def _apr(rows, **more):
  return Table('apr_vfi', rows, ('xiph2k', 'xiph4k'), _APR, **more)


def _keep(label, variant, *ratios):
  settings = ('model.synthesis=routed', f'model.keep_ratios={ratios}', _ROUTER)
  return Row(label, ','.join(filter(None, ('stage3', variant))), settings)


def _made(label, variants, *more, not_small='', **settings):
  changed = tuple(f'model.{k}={v}' for k, v in settings.items())
  return Row(label, variants, changed + more, not_small=not_small)


def _by_motion(kind, weights):
  why = 'The lists of Vimeo-Slow, -Medium and -Fast were not published.'
  for label, low, high in (
    ('Slow', 0.1, 0.4),
    ('Medium', 0.4, 1.0),
    ('Fast', 1.0, 2.5),
  ):
    settings = (
      f'eval.data.min_speed={low}',
      f'eval.data.max_speed={high}',
      'eval.data.still=0.0',
    )
    yield Row(label + kind, '', settings, weights, why=why)


TABLES = {
  'dmvfn:1': _dmvfn(_ROUTED, _FOUR[:2]),
  'dmvfn:2': _dmvfn(_ROUTED, _FOUR[2:]),
  'dmvfn:3': _dmvfn(
    (Row('DMVFN'),),
    ('ucfsports', 'human36m'),
    _STRPM,
    note="The list of UCF Sports' windows is a dead link (MMVP, issue 2). "
    + _DRAWN,
  ),
  'dmvfn:4': _dmvfn(
    (Row('KITTI-A', why='The 103 sequences of KITTI-A were not published.'),),
    ('kitti',),
    not_small='see dmvfn:figure5',
    note='',
  ),
  'dmvfn:5': _dmvfn(_ROUTING, _FOUR[:2]),
  'dmvfn:6': _dmvfn(
    tuple(r for r in _SCALES if r.variants in ('scales_1', 'scales_2_1', '')),
    _FOUR[:2],
  ),
  'dmvfn:7': _dmvfn(_PATH, _FOUR[:2]),
  'dmvfn:8': _dmvfn(_BETA, ('kitti',), columns=('ms of a frame',)),
  'dmvfn:9': _dmvfn(_SUPERVISION, _FOUR),
  'dmvfn:10': _dmvfn(_ROUTING[1:], _FOUR),
  'dmvfn:11': _dmvfn(_SCALES, _FOUR),
  'dmvfn:12': _dmvfn(_PATH, _FOUR),
  'dmvfn:13': _dmvfn(
    _BETA, ('cityscapes', 'vimeo'), columns=('ms of a frame',)
  ),
  'dmvfn:figure5': _dmvfn(
    (
      Row('DMVFN'),
      *_by_motion('', 'DMVFN'),
      Row('DMVFN, standardised', 'standardised'),
      *_by_motion(', standardised', 'DMVFN, standardised'),
      *(
        Row(f'interval {k}', f'interval_{k}' if k < 5 else '',
            (f'eval.frames.context=(0,{k})', f'eval.frames.target=({2 * k},)'),
            'DMVFN',
            why='' if k < 5 else 'Septuplets have no frame 10 to ask for.')
        for k in (1, 3, 5)
      ),
    ),
    ('vimeo90k',),
    columns=_USAGE,
  ),
  'simvp:2': Table('simvp', _MNIST, ('mnist',), _SIMVP,
                   ('seconds an epoch', 'frames a second'),
                   note=_TRIALS),
  'simvp:3': Table(
    'simvp',
    _V1_V2,
    ('taxibj',),
    _SIMVP | {'MSE x 100': ('mse/sum_chw', 'mean', 100)},
    not_small=_NO_DATA,
  ),
  'simvp:4': Table(
    'simvp',
    (Row('Copying', weights='SimVPv2', baseline='copy_last'), *_V1_V2),
    ('weather',),
    _WEATHER,
    not_small=_NO_DATA,
  ),
  'simvp:5': Table('simvp', _V1_V2, ('caltech',), _SIMVP, not_small=_NO_DATA),
  'simvp:6': Table(
    'simvp', _V1_V2, ('kth', 'kth40'), _SIMVP, not_small=_NO_DATA
  ),
  'simvp:7': Table(
    'simvp', _V1_V2, ('robonet', 'bridge'), _PREDBENCH, not_small=_NO_DATA
  ),
  'simvp:8': Table(
    'simvp',
    tuple(
      Row(label, variant, not_small=_SECOND if label in _OTHERS else '')
      for label, variant in {
        'ViT': 'vit',
        'Swin Transformer': 'swin',
        'Poolformer': 'poolformer',
        'MLPMixer': 'mlp',
        'ConvMixer': 'convmixer',
        'IncepU': 'incepu',
        'gSTA': '',
        'Uniformer': 'uniformer',
        'ConvNeXt': 'convnext',
        'VAN': 'van',
        'HorNet': 'hornet',
        'MogaNet': 'moga',
        'TAU': 'tau',
      }.items()
    ) + (
      Row('gSTA, another seed', '', ('seed=1',), why=_ANOTHER),
      Row('copy', weights='gSTA', baseline='copy_last'),
    ),
    ('mnist',),
    _SIMVP,
  ),
  'simvp:figure7': Table(
    'simvp', _MNIST, ('mnist',), _SIMVP,
    ('seconds an epoch', 'frames a second'), note=_ONE_BY_ONE,
  ),  # fmt: skip
  'rvd:1': Table(
    'rvd',
    (Row('RVD (ours)'),),
    ('kth', 'bair', 'simulation', 'cityscapes'),
    _RVD,
    note='12.8 million calls of the denoiser a set: `dpm` takes a 64th.',
  ),
  'rvd:2': Table(
    'rvd',
    (
      Row('VD(2+6)', 'vd', ('vd', 'frames.target=(2,3,4,5,6,7)')),
      Row('RVD(2+6)', '', ('frames.target=(2,3,4,5,6,7)',)),
      Row('RVD(2+3)', 'rvd23', ('frames.target=(2,3,4)',)),
    ),
    ('kth', 'bair', 'simulation', 'cityscapes'),
    _RVD,
  ),  # fmt: skip
  'rvd:figure3': Table(
    'rvd',
    (Row('RVD (ours)'),),
    ('kth', 'bair', 'simulation', 'cityscapes'),
    _RVD,
    tuple(f'CRPS of frame t+{k}' for k in range(1, 5)),
  ),
  'apr:1': _apr((
    _made('Ours(w/o APR)', 'stage1', synthesis='whole'),
    _made('Ours(with APR)', 'stage3', _ROUTER, synthesis='routed'),
  ), note=_WITHOUT_GPU),
  'apr:2': _apr(tuple(
    _made(
      str(side),
      'stage2' if side == 64 else f'stage2,patch{side}',
      not_small='the small frames are 64x64' if side > 64 else '',
      synthesis='patches', patch=side,
    )
    for side in (8, 16, 32, 64, 128)
  ), small_note='Frames are 64x64, so 64 is the whole frame.'),
  'apr:3': _apr((
    _keep('0.2 0.5 0.7 1.0', 'keep_2_5_7_10', 0.35, 0.85),
    _keep('0.1 0.4 0.6 0.9', '', 0.25, 0.75),
    _keep('0.2 0.4 0.6 0.8', 'keep_2_4_6_8', 0.3, 0.7),
    _keep('0.5 0.5 0.5 0.5', 'keep_5_5_5_5', 0.5, 0.5),
    _keep('0.9 0.6 0.4 0.1', 'keep_9_6_4_1', 0.75, 0.25),
  ), small_note='Two ratios, the means of the first and the last two.'),
  'apr:4': _apr((
    _made('warped difference', 'stage3', _ROUTER, synthesis='routed'),
    _made('image difference', 'stage3,by_image', _ROUTER,
          synthesis='routed', supervision='image'),
    _made('reconstruction loss', 'stage3,by_reconstruction', _ROUTER,
          synthesis='routed', supervision='reconstruction'),
  )),
  'apr:5': _apr((
    _made('add&norm', 'stage1', _NEW, synthesis='whole'),
    _made('concat&conv', 'stage1,concat', _NEW,
          synthesis='whole', fusion='concat'),
    _made('no fusion', 'stage1,unfused', _NEW,
          synthesis='whole', fusion='none'),
  ), small_note='The synthesis is trained from random weights.'),
}  # fmt: skip
