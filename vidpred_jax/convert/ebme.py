"""EBME's published weights of the flow network, for APR-VFI."""

from vidpred_jax import systems
from vidpred_jax.convert import weights

# What published names begin with.
FIRSTS = 'feat_pyramid|flow_estimator'


def torch_names() -> dict[str, tuple[str, str, tuple[int, ...]]]:
  """Maps the published checkpoint's names to parameters.

  Returns:
    `{torch name: (path, kind, images)}`: `path` is '/'-joined below the
    parameters of `BiFlowNet`; `kind` says how the array is laid out there,
    'conv' (OIHW -> HWIO) or 'vector'; `images` are the first input channels of
    the three-channel images that the layer sees. The published weights expect
    BGR there, so for RGB variables input channels [i, i + 3) of each i in
    `images` are reversed.
  """
  places = {}
  for i in range(3):
    places[f'feat_pyramid.conv_stage1.{2 * i}'] = f'encoder/conv_{i}'
  for i in range(6):
    places[f'feat_pyramid.conv_stage2.{2 * i}'] = f'encoder/conv_{3 + i}'
  for i in range(6):
    places[f'flow_estimator.conv_layer{i + 1}.0'] = f'estimator/conv_{i}'
  names: dict[str, tuple[str, str, tuple[int, ...]]] = {}
  for name, path in places.items():
    images = (0,) if path == 'encoder/conv_0' else ()
    names[f'{name}.weight'] = (f'{path}/kernel', 'conv', images)
    names[f'{name}.bias'] = (f'{path}/bias', 'vector', ())
  return names


def convert(state_dict, expected, *, channel_order: str = 'bgr'):
  """Converts EBME's `bi-flownet.pkl`, trained on BGR, for RGB input."""
  if set(expected['params']) != {'flow'}:
    raise ValueError(
      'Published are weights of the flow alone. Set synthesis=warp; training '
      "starts from the result by init_from and init_match='flow/.*'."
    )
  tree = expected['params']['flow']
  names = torch_names()
  flow = weights.rearrange_images(names, state_dict, tree, channel_order)
  return {'params': {'flow': flow}}


def clip(state_dict):
  """The frames they were trained for, and a size, see `Converter`."""
  del state_dict
  return systems.Frames((0, 2), (1,)), (32, 32)
