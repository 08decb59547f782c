"""The settings of DMVFN, and what each may be."""

from typing import NamedTuple

from vidpred_jax.systems import settings as rules


class Settings(NamedTuple):
  """The settings of DMVFN.

  Attributes:
    scales: the blocks' scale factors S^i, one per block (tables 6, 11).
    widths: the blocks' channels, multiples of 4; None is 160, 80, 44 for the
      first, second and last third of the blocks.
    spatial_path: whether blocks have the full-resolution path (table 7).
    routing: how training selects blocks (table 5). 'stebs': gates are drawn
      from budgeted probabilities with a straight-through gradient (equations
      10-12); 'gumbel': Gumbel-softmax (equation 9); 'random': each block with
      probability 1/2; 'none': all blocks.
    beta: the fraction of blocks that 'stebs' uses (equation 10).
    inference_beta: beta at inference (tables 8, 13); None is `beta`.
    inference_routing: 'threshold': the most probable blocks of each sample, as
      many as sampling uses on average (`ops.routing.deterministic_gates`); for
      'gumbel' the blocks of probability 1/2 and more. 'sample': gates are drawn
      at random, as published. 'all': every block. With 'random' routing
      'threshold' draws gates too, since it has no probabilities.
    temperature: 'gumbel' only: tau at the start and at the end of training.
    temperature_steps: 'gumbel' only: the number of calls of `loss` in which tau
      falls exponentially from the first to the second temperature. The count is
      in `variables['routing']`.
    gate_penalty: 'gumbel' only: weight of the mean gate in the loss.
    router_scale: the router sees the frames downsampled by this factor. The
      published 1 costs 23 % of all nine blocks.
    router_standardised: the router sees each pair of frames less its mean, in
      units of its standard deviation. The paper does not do so; then the
      router's logits follow the brightness of the frames, and it takes far more
      steps until they follow the motion.
    initial_flow: what the blocks begin with. 'zero': no flow, as published.
      'variational': an optical flow that goes on, in training at 0.95 of its
      velocity, in a prediction as `ops.persistence.first_flow` has it.
    hindsight: whether the blocks also see how wrong the last frames would have
      been foretold, and choose among more candidates (`ops.hindsight`). The
      paper does not do so. It takes a 'variational' flow, no `flow_weight` and
      no `rollout`;
      with less than five context frames no block runs. Its loss is that of the
      next frame and, if there are more targets, of another one drawn at random.
    keep_bars: whether a prediction leaves black edges that stand still as they
      are, see `ops.bars.fill`. The paper does not do so.
    supervision: 'deep': the loss of every block's output (equation 13);
      'single': of the last output only (table 9).
    gamma: of equation 13.
    distance: of a prediction from the truth. 'laplacian': that of Laplacian
      pyramids, as published; 'squared': the mean squared error, as in PSNR.
    logarithmic: whether each prediction's distance in equation 13 counts by its
      logarithm, as in PSNR. The paper does not do so. Otherwise a clip in which
      little can be predicted counts most: what is nearly right, such as a still
      scene, gets worse for it.
    vgg_weight: weight of the VGG19 feature distance of the last output (the
      published code: 0.5). Needs `variables['vgg']`, the parameters of
      `models.features.VGG19`.
    flow_weight: weight of the end-point error of both flows in pixels, where
      the exact flow is known, for the same outputs as the rest of the loss. The
      paper does not have this term. With it a flow is learnt in a fraction of
      the steps.
    rollout: 0: each target is predicted from the two true frames before it, as
      published. n >= 1: all are predicted from the context, as at inference.
      They are predicted one after the other from predictions, and the gradient
      is propagated through the last n. With a 'variational' flow motion goes on
      after the first, and n does not count.
    formulation: 'fast' or 'published', see `models.dmvfn.DMVFN`.
    dtype: of the blocks' convolutions, 'float32' or 'bfloat16'.
  """

  scales: tuple[int, ...] = (4, 4, 4, 2, 2, 2, 1, 1, 1)
  widths: tuple[int, ...] | None = None
  spatial_path: bool = True
  routing: str = 'stebs'
  beta: float = 0.5
  inference_beta: float | None = None
  inference_routing: str = 'threshold'
  temperature: tuple[float, float] = (10.0, 0.1)
  temperature_steps: int = 100_000
  gate_penalty: float = 1.0
  router_scale: int = 1
  router_standardised: bool = False
  initial_flow: str = 'zero'
  hindsight: bool = False
  keep_bars: bool = False
  supervision: str = 'deep'
  gamma: float = 0.8
  distance: str = 'laplacian'
  logarithmic: bool = False
  vgg_weight: float = 0.0
  flow_weight: float = 0.0
  rollout: int = 0
  formulation: str = 'fast'
  dtype: str = 'float32'


_SHARE = rules.number(0, 1, 'a share in [0, 1]')
_RULES = {
  'scales': rules.tuple_of(
    rules.positive_int(most=256),
    'positive whole numbers up to 256, one per block, at most 64 of them',
    most=64,
  ),
  'spatial_path': rules.truth(),
  'routing': rules.one_of(('stebs', 'gumbel', 'random', 'none')),
  'beta': _SHARE,
  'inference_beta': rules.either(None, _SHARE),
  'inference_routing': rules.one_of(('threshold', 'sample', 'all')),
  'temperature': rules.tuple_of(
    rules.number(0, above=True), 'two positive numbers', length=2
  ),
  'temperature_steps': rules.positive_int(most=10**9),
  'gate_penalty': rules.number(0),
  'router_scale': rules.positive_int(most=256),
  'router_standardised': rules.truth(),
  'initial_flow': rules.one_of(('zero', 'variational')),
  'hindsight': rules.truth(),
  'keep_bars': rules.truth(),
  'supervision': rules.one_of(('deep', 'single')),
  'gamma': rules.number(0),
  'distance': rules.one_of(('laplacian', 'squared')),
  'logarithmic': rules.truth(),
  'vgg_weight': rules.number(0),
  'flow_weight': rules.number(0),
  'rollout': rules.whole(0, 1000, 'a whole number, 0 or more, at most 1000'),
  'formulation': rules.one_of(('fast', 'published')),
  'dtype': rules.one_of(('float32', 'bfloat16')),
}


def checked(settings: Settings) -> Settings:
  """The settings; raises ValueError for the first that cannot be."""
  settings = rules.check(settings, _RULES)
  count = len(settings.scales)
  widths = rules.tuple_of(
    rules.positive_int(4, most=8192),
    f'{count} multiples of 4, one per scale factor',
    length=count,
  )
  settings = rules.check(settings, {'widths': rules.either(None, widths)})
  others = settings.flow_weight or settings.rollout
  if settings.hindsight and (settings.initial_flow != 'variational' or others):
    raise ValueError(
      "hindsight=True takes initial_flow='variational', flow_weight=0 and "
      f'rollout=0, got initial_flow={settings.initial_flow!r}, '
      f'flow_weight={settings.flow_weight} and rollout={settings.rollout}.'
    )
  return settings
