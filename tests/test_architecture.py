"""The map of the house holds: who imports whom, what files are called."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'vidpred_jax'

# room -> what it may import of ours; every room may import itself.
ALLOWED = {
  'params': (),
  'ops': (),
  'video_io': (),
  'picture': (),
  'runtime': (),
  'torch_file': (),
  'zoo': (),
  'data': ('video_io',),
  'models': ('ops',),
  'losses': ('ops',),
  'metrics': ('ops', 'models.features'),
  'systems': ('ops', 'models', 'losses'),
  'optim': ('params',),
  'checkpoint': ('params', 'systems', 'zoo'),
  'convert': (
    'ops',
    'params',
    'runtime',
    'torch_file',
    'systems',
    'models',
    'checkpoint',
  ),
  'workdirs': ('checkpoint',),
  'report': ('picture', 'video_io'),
  'scores': ('metrics', 'runtime', 'systems'),
  'evaluate': (
    'checkpoint',
    'convert',
    'data',
    'metrics',
    'report',
    'runtime',
    'scores',
    'systems',
  ),
  'train': (
    'checkpoint',
    'convert',
    'data',
    'evaluate',
    'metrics',
    'optim',
    'params',
    'runtime',
    'systems',
    'workdirs',
  ),
  'tiles': (),
  'frame_rate': ('video_io.scenes',),
  'predictor': (
    'frame_rate',
    'runtime',
    'systems',
    'tiles',
    'video_io.scenes',
  ),
  'predict': (
    'checkpoint',
    'data.files',
    'picture',
    'predictor',
    'runtime',
    'systems',
    'tiles',
    'video_io',
  ),
  'cost': ('checkpoint', 'runtime', 'systems', 'video_io'),
  'simulation': ('data', 'ops', 'runtime'),
  'main': ('train', 'evaluate', 'runtime'),
  '__init__': ('zoo', 'convert', 'checkpoint', 'predictor', 'systems'),
}


def modules(path):
  return sorted(p for p in path.rglob('*.py') if '__pycache__' not in p.parts)


def imports(path):
  """Full dotted names of ours that a file imports, functions included."""
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found += [a.name for a in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative import'
      found += [f'{node.module}.{a.name}' for a in node.names]
  return found


@pytest.mark.parametrize('path', modules(PACKAGE), ids=str)
def test_imports_point_downwards(path):
  parts = path.relative_to(PACKAGE).with_suffix('').parts
  room = parts[0]
  assert room in ALLOWED, f'{path} is in a room without a place on the map'
  for name in imports(path):
    if not name.startswith('vidpred_jax.'):
      continue
    target = name.removeprefix('vidpred_jax.')
    ok = (room, *ALLOWED[room])
    assert any(target == a or target.startswith(a + '.') for a in ok), (
      f'{path.relative_to(ROOT)} ({room}) imports {name}'
    )


def test_a_system_never_imports_another():
  shared = {'base', 'rollout', '__init__'}
  for path in modules(PACKAGE / 'systems'):
    if path.stem in shared:
      continue
    for name in imports(path):
      if name.startswith('vidpred_jax.systems.'):
        assert name.split('.')[2] in shared, (path, name)


def test_data_is_numpy_and_grain_only():
  for path in modules(PACKAGE / 'data'):
    tops = {name.split('.')[0] for name in imports(path)}
    assert not tops & {'jax', 'flax', 'optax'}, path


@pytest.mark.parametrize('path', modules(ROOT / 'configs'), ids=str)
def test_configs_import_ml_collections_only(path):
  assert {n.split('.')[0] for n in imports(path)} == {'ml_collections'}


def test_torch_and_tensorflow_are_never_imported():
  for path in modules(ROOT / 'vidpred_jax'):
    tops = {name.split('.')[0] for name in imports(path)}
    # OpenCV teaches, to those who have it.
    tops -= {'cv2'} if path.name == 'teacher.py' else set()
    assert not tops & {'torch', 'torchvision', 'tensorflow', 'cv2'}, path


def test_no_room_without_a_name():
  for path in modules(ROOT / 'vidpred_jax'):
    assert path.stem not in {'utils', 'common', 'helpers', 'misc'}, path


def test_no_jit_below_the_programs():
  for room in ('ops', 'models', 'losses.py', 'systems', 'metrics'):
    place = PACKAGE / room
    for path in modules(place) if place.is_dir() else [place]:
      assert 'jax.jit(' not in path.read_text(), path
      assert 'runtime' not in ' '.join(imports(path)), path
