"""DMVFN's published weights: names of parameters, and clips."""

from vidpred_jax import systems
from vidpred_jax.convert import weights

# What published names begin with.
FIRSTS = r'block\d+\.(?:conv\w*|lastconv)|routing|l1'


def torch_names(
  num_blocks: int = 9, spatial_path: bool = True, router: bool = True
) -> dict[str, tuple[str, str, tuple[int, ...]]]:
  """Maps the published checkpoint's names to parameters.

  Args:
    num_blocks: how many blocks.
    spatial_path: whether they have the full-resolution path.
    router: whether there is a router.

  Returns:
    `{torch name: (path, kind, images)}`. `path` is '/'-joined below
    `variables['params']`. `kind` says how the array is laid out there: 'conv'
    OIHW -> HWIO, transpose (2, 3, 1, 0); 'conv_transpose' (in, out, kh, kw) ->
    (kh, kw, in, out), transpose (2, 3, 0, 1), no flip; 'linear' (out, in) ->
    (in, out), transpose; 'vector' as it is. `images` are the first input
    channels of the three-channel images that the layer sees: the published
    weights expect BGR there, so for RGB variables input channels [i, i + 3) of
    each i in `images` are reversed.
  """
  pair = (0, 3)
  names = {}

  def add(name, path, images=(), slope=''):
    names[f'{name}.weight'] = (f'{path}/kernel', 'conv', images)
    names[f'{name}.bias'] = (f'{path}/bias', 'vector', ())
    if slope:
      names[f'{slope}.weight'] = (f'{path}/slope', 'vector', ())

  if router:
    add('routing.0', 'router/conv_0', pair)
    add('routing.2', 'router/conv_1')
    names['l1.weight'] = ('router/linear_kernel', 'linear', ())
    names['l1.bias'] = ('router/linear_bias', 'vector', ())
  layers = {
    'conv0.0': 'motion_in_0',
    'conv0.1': 'motion_in_1',
    'convblock.0': 'motion_mid_0',
    'convblock.1': 'motion_mid_1',
    'convblock.2': 'motion_mid_2',
    'conv_sq': 'motion_out',
  }
  if spatial_path:
    layers |= {'conv1.0': 'spatial_0', 'convblock1.0': 'spatial_1'}
  for i in range(num_blocks):
    for layer, path in layers.items():
      first = path in ('motion_in_0', 'spatial_0')
      name = f'block{i}.{layer}'
      add(
        f'{name}.0',
        f'block_{i}/{path}',
        (0, 3, 6, 9) if first else (),
        slope=f'{name}.1',
      )
    head = f'block_{i}/head'
    names[f'block{i}.lastconv.weight'] = (
      f'{head}/kernel',
      'conv_transpose',
      (),
    )
    names[f'block{i}.lastconv.bias'] = (f'{head}/bias', 'vector', ())
  return names


def torch_names_of(tree) -> dict[str, tuple[str, str, tuple[int, ...]]]:
  """`torch_names` of the model that has these parameters."""
  return torch_names(
    num_blocks=sum(name.startswith('block_') for name in tree),
    spatial_path='spatial_0' in tree['block_0'],
    router='router' in tree,
  )


def convert(state_dict, expected, *, channel_order: str = 'bgr'):
  """Converts DMVFN's published `state_dict`, trained on BGR, for RGB input."""
  tree = expected['params']
  names = torch_names_of(tree)
  return {
    'params': weights.rearrange_images(names, state_dict, tree, channel_order)
  }


def clip(state_dict):
  """The frames they were trained for, and a size, see `Converter`."""
  del state_dict
  return systems.Frames((0, 1), (2,)), (4, 4)
