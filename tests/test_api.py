"""How public functions are written down and called, by introspection."""

import importlib
import inspect
import pathlib
import subprocess
import sys
import tomllib

import pytest

import vidpred_jax

PACKAGE = pathlib.Path(vidpred_jax.__file__).parent
ROOMS = ('ops', 'losses', 'metrics', 'models', 'picture', 'params', 'runtime')

# Optional, and yet by position.
BY_POSITION = {
  # Samplers are called alike, by name: `SAMPLERS[name](schedule, steps)`.
  'vidpred_jax.ops.diffusion.ancestral': {'sampling_steps'},
  'vidpred_jax.ops.diffusion.ddim': {'sampling_steps'},
  'vidpred_jax.ops.diffusion.dpm_solver': {'sampling_steps'},
  'vidpred_jax.ops.diffusion.spaced_timesteps': {'sampling_steps'},
  # Where in the file the weights are: `read_torch(path, 'ema')`.
  'vidpred_jax.convert.weights.read_torch': {'key'},
  # As `jax.jit(function, ...)` and `Mesh(devices)`.
  'vidpred_jax.runtime.jit': {'cpu_options'},
  'vidpred_jax.runtime.mesh': {'devices'},
  # Context, prediction, truth: the order of the panels.
  'vidpred_jax.picture.grids.demo_frames': {'target'},
  'vidpred_jax.picture.colours.flow_to_rgb': {'max_magnitude'},
  # How many samples, and how many of them at once.
  'vidpred_jax.systems.sampling.draw': {'at_once'},
}
# One line says what goes in and what comes out; or, for conventions of metrics,
# the room's docstring does, for all of them.
ONE_LINE = (
  'vidpred_jax.metrics.',
  'vidpred_jax.models.',
  'vidpred_jax.video_io.pictures.',
)


def module_names(room):
  place = PACKAGE / room
  if not place.is_dir():
    return [f'vidpred_jax.{room}']
  return [f'vidpred_jax.{room}'] + [
    f'vidpred_jax.{room}.{path.stem}'
    for path in sorted(place.glob('*.py'))
    if not path.stem.startswith('__')
  ]


def public_functions():
  """{name: function}: of the rooms, and what packages name in `__all__`."""
  result = {}
  for room in ROOMS:
    for module in map(importlib.import_module, module_names(room)):
      for name, value in vars(module).items():
        own = getattr(value, '__module__', None) == module.__name__
        if own and inspect.isroutine(inspect.unwrap(value)):
          result[f'{module.__name__}.{name}'] = value
  for package in ('', '.convert', '.data', '.systems.sampling', '.video_io'):
    module = importlib.import_module(f'vidpred_jax{package}')
    for name in getattr(module, '__all__', ['draw']):
      value = getattr(module, name)
      if inspect.isfunction(value):
        result[f'{value.__module__}.{value.__name__}'] = value
  return {
    name: value
    for name, value in result.items()
    if not name.rpartition('.')[2].startswith('_')
  }


FUNCTIONS = public_functions()


def parameters(function):
  return list(inspect.signature(function).parameters.values())


def test_there_are_functions_of_every_room():
  for room in ROOMS:
    assert any(f'vidpred_jax.{room}' in name for name in FUNCTIONS), room
  assert 'vidpred_jax.ops.warp.sample' in FUNCTIONS  # with its own gradient
  assert 'vidpred_jax.checkpoint.exported.load' in FUNCTIONS


@pytest.mark.parametrize('name', FUNCTIONS)
def test_a_docstring_says_what_goes_in_and_what_comes_out(name):
  function = FUNCTIONS[name]
  text = inspect.getdoc(function) or ''
  assert text and text.splitlines()[0].endswith(('.', ';', ':')), text
  if name.startswith(ONE_LINE) and '\n\n' not in text:
    return
  if parameters(function) and not name.startswith(ONE_LINE):
    assert '\nArgs:\n' in text
  signature = inspect.signature(function)
  if signature.return_annotation not in (None, 'None'):
    if not name.startswith(ONE_LINE):
      assert '\nReturns:\n' in text or '\nYields:\n' in text
  if '\nArgs:\n' in text:
    listed = text.partition('\nArgs:\n')[2]
    for parameter in signature.parameters:
      assert f'{parameter}:' in listed or f', {parameter}' in listed, parameter


@pytest.mark.parametrize('name', FUNCTIONS)
def test_optional_arguments_are_by_keyword_only(name):
  optional = {
    p.name
    for p in parameters(FUNCTIONS[name])
    if p.default is not p.empty and p.kind is not p.KEYWORD_ONLY
  }
  assert optional == BY_POSITION.get(name, set())


@pytest.mark.parametrize('name', FUNCTIONS)
def test_a_random_key_comes_first(name):
  names = [
    p.name
    for p in parameters(FUNCTIONS[name])
    if p.name == 'key' and 'str' not in str(p.annotation)
  ]
  if names:
    assert parameters(FUNCTIONS[name])[0].name == 'key'


def test_the_exceptions_are_functions():
  assert set(BY_POSITION) <= set(FUNCTIONS)


def loaded_by(code):
  """Top-level modules that a fresh Python has after some code."""
  done = subprocess.run(
    [sys.executable, '-c', f'{code}\nimport sys; print(*sys.modules)'],
    cwd=PACKAGE.parent,
    capture_output=True,
    text=True,
    check=True,
  )
  return {name.partition('.')[0] for name in done.stdout.split()}


def test_nothing_is_imported_before_it_is_used():
  slow = {'av', 'flax', 'grain', 'jax', 'numpy', 'optax', 'orbax', 'PIL'}
  extra = {
    'clu', 'cv2', 'h5py', 'matplotlib', 'netCDF4', 'onnx', 'sklearn',
    'skimage', 'tensorflow_datasets', 'xarray', 'zarr',
  }  # fmt: skip
  loaded = loaded_by('import vidpred_jax as vp; vp.models()')
  assert not loaded & (slow | extra)
  loaded = loaded_by('import vidpred_jax as vp; vp.load, vp.Predictor, vp.save')
  assert 'jax' in loaded
  assert not loaded & ({'grain', 'orbax', 'tensorboardX'} | extra)
  loaded = loaded_by('import vidpred_jax.predict.__main__')
  assert not loaded & ({'grain', 'optax', 'orbax', 'tensorboardX'} | extra)


def test_every_public_name_is_there_and_models_stays_a_function():
  for name in vidpred_jax.__all__:
    assert callable(getattr(vidpred_jax, name)) or inspect.ismodule(
      getattr(vidpred_jax, name)
    )
    assert name in dir(vidpred_jax)
  for name in ('metrics', 'optim', 'ops', 'losses', 'picture', 'video_io'):
    assert inspect.ismodule(getattr(vidpred_jax, name))
  importlib.import_module('vidpred_jax.models.dmvfn')
  assert inspect.isfunction(vidpred_jax.models)
  with pytest.raises(AttributeError, match='no attribute'):
    vidpred_jax.nothing  # noqa: B018


def test_the_citation_has_the_version():
  root = PACKAGE.parent
  project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
  assert (
    f'\nversion: {project["version"]}\n' in (root / 'CITATION.cff').read_text()
  )
  assert vidpred_jax.__version__ in (project['version'], '0+unknown')
