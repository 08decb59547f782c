"""The map of the house holds: who imports whom, what files are called."""

import ast
import io
import pathlib
import pkgutil
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'vidpred_jax'

# The house from the ground up, a dict a floor: room -> what it may import of
# ours. Every room may import itself, and else from the floors below alone; a
# command, `x.__main__`, stands on a floor of its own choice above its room.
FLOORS = (
  {
    'atomic': (),
    'names': (),
    'params': (),
    'ops': (),
    'config': (),
    'runtime': (),
    'starting': (),
    'stored': (),
    'zoo': (),
  },
  {
    'models': ('ops',),
    'command': ('atomic', 'starting'),
    'video_io': ('atomic', 'names'),
    'picture': ('atomic',),
    'storage': ('atomic',),
  },
  {
    'compare': ('atomic', 'command', 'names', 'storage', 'stored'),
    'data': ('atomic', 'names', 'storage', 'stored', 'video_io'),
    'losses': (),
    'metrics': ('models.features', 'names', 'ops'),
  },
  {
    'data.__main__': ('command', 'data', 'names'),
    'simulation': ('atomic', 'command', 'data', 'runtime'),
    'systems': ('losses', 'models', 'names', 'ops'),
  },
  {
    'checkpoint': (
      'atomic',
      'params',
      'storage',
      'stored',
      'systems',
      'zoo',
    ),
    'convert': ('atomic', 'ops', 'params', 'models', 'stored', 'systems'),
    'cost': ('runtime',),
    'ranges': ('systems',),
  },
  {
    'build': ('config', 'convert', 'data', 'metrics', 'ranges', 'systems'),
    'convert.__main__': ('atomic', 'checkpoint', 'command', 'convert'),
    'export': (
      'atomic',
      'checkpoint',
      'command',
      'convert',
      'runtime',
      'systems',
    ),
  },
  {
    'evaluate': (
      'atomic',
      'build',
      'checkpoint',
      'compare',
      'config',
      'data',
      'metrics',
      'names',
      'picture',
      'runtime',
      'systems',
      'video_io',
    ),
    'predict': (
      'atomic',
      'checkpoint',
      'data',
      'picture',
      'runtime',
      'systems',
      'video_io',
    ),
    'cost.__main__': (
      'build',
      'checkpoint',
      'command',
      'cost',
      'params',
      'runtime',
      'video_io',
    ),
  },
  {
    'train': (
      'atomic',
      'build',
      'checkpoint',
      'config',
      'convert',
      'data',
      'evaluate',
      'metrics',
      'names',
      'params',
      'runtime',
      'stored',
      'systems',
    ),
    'predict.__main__': (
      'atomic',
      'checkpoint',
      'command',
      'predict',
      'runtime',
      'video_io',
    ),
    '__init__': (
      'checkpoint',
      'predict',
      'runtime',
      'starting',
      'systems',
      'zoo',
    ),
  },
  {
    'main': (
      'atomic',
      'build',
      'command',
      'evaluate',
      'runtime',
      'storage',
      'train',
    )
  },
  {'__main__': ('starting',)},
)
ALLOWED = {room: may for floor in FLOORS for room, may in floor.items()}


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


def room_of(path):
  """The room that a file of the package belongs to."""
  parts = path.relative_to(PACKAGE).with_suffix('').parts
  command = '.'.join(parts)
  return command if command in ALLOWED else parts[0]


def ours(path):
  """What a file imports of the package, without the package's name."""
  return [
    name.removeprefix('vidpred_jax.')
    for name in imports(path)
    if name.startswith('vidpred_jax.')
  ]


def lies_in(name, room):
  return name == room or name.startswith(room + '.')


@pytest.mark.parametrize('path', modules(PACKAGE), ids=str)
def test_imports_point_downwards(path):
  room = room_of(path)
  assert room in ALLOWED, f'{path} is in a room without a place on the map'
  for name in ours(path):
    assert any(lies_in(name, other) for other in (room, *ALLOWED[room])), (
      f'{path.relative_to(ROOT)} ({room}) imports {name}'
    )


def test_the_map_points_downwards():
  below = set()
  for floor in FLOORS:
    for room, may in floor.items():
      above = {name for name in may if name.split('.')[0] not in below}
      assert not above, f'{room} may import {above} from its floor or above'
    below |= set(floor)


def test_the_map_names_no_more_than_there_is():
  used = {room: set() for room in ALLOWED}
  for path in modules(PACKAGE):
    room = room_of(path)
    for name in ours(path):
      used[room] |= {other for other in ALLOWED[room] if lies_in(name, other)}
  for room, may in ALLOWED.items():
    place = PACKAGE.joinpath(*room.split('.'))
    assert place.is_dir() or place.with_suffix('.py').is_file(), room
    assert set(may) == used[room], f'{room} does not import all that it may'


def test_the_design_page_has_this_map():
  page = (ROOT / 'docs/design.md').read_text()
  _, _, table = page.partition('| floor | room | may import |\n')
  rows = table.partition('\n\n')[0].splitlines()[1:]
  assert rows == [
    f'| {number} | `{room}` | '
    f'{", ".join(f"`{x}`" for x in may) or "nothing of ours"} |'
    for number, floor in enumerate(FLOORS)
    for room, may in floor.items()
  ]


def test_the_design_page_finds_the_equations_of_the_papers():
  page = (ROOT / 'docs/design.md').read_text()
  rows = re.findall(r'^\| [^|]+ \| ([\d, to]+) \| `(\S+)` \|$', page, re.M)
  assert len(rows) > 10
  for numbers, name in rows:
    parts = name.split('.')
    depth = 1 if (PACKAGE / f'{parts[0]}.py').exists() else 2
    place = f'{".".join(parts[:depth])}:{".".join(parts[depth:])}'
    text = pkgutil.resolve_name(f'vidpred_jax.{place}').__doc__
    said = ' '.join(re.findall(r'equations? [-\d, and]+', text))
    numbers = set(re.findall(r'\d+', numbers))
    assert numbers <= set(re.findall(r'\d+', said)), name


def test_the_api_pages_have_every_module():
  pages = (ROOT / 'docs/api').glob('*.md')
  listed = [
    line.removeprefix('::: ')
    for page in pages
    for line in page.read_text().splitlines()
    if line.startswith('::: ')
  ]
  names = [
    '.'.join(p.relative_to(ROOT).with_suffix('').parts)
    for p in modules(PACKAGE)
    if p.stem != '__main__'
  ]
  names = [name.removesuffix('.__init__') for name in names]
  assert sorted(listed) == sorted(names)


def test_a_system_never_imports_another():
  shared = {'base', 'rollout', 'settings', '__init__'}
  systems = 'apr_vfi', 'dmvfn', 'rvd', 'simvp'
  for path in modules(PACKAGE / 'systems'):
    if path.stem in shared:
      continue
    of = [x for x in systems if path.stem.startswith(x)] or [path.stem]
    for name in imports(path):
      if name.startswith('vidpred_jax.systems.'):
        room = name.split('.')[2]
        assert room in shared or room.startswith(f'{of[0]}_'), (path, name)


def test_data_is_numpy_and_grain_only():
  for path in modules(PACKAGE / 'data'):
    tops = {name.split('.')[0] for name in imports(path)}
    assert not tops & {'jax', 'flax', 'optax'}, path


@pytest.mark.parametrize('path', modules(ROOT / 'configs'), ids=str)
def test_configs_import_ml_collections_and_the_base_only(path):
  for name in imports(path):
    assert lies_in(name, 'ml_collections') or lies_in(
      name, 'vidpred_jax.config'
    ), name


def test_the_base_configuration_imports_ml_collections_only():
  names = imports(PACKAGE / 'config.py')
  assert {name.split('.')[0] for name in names} <= {
    'collections',
    'ml_collections',
  }


def test_torch_and_tensorflow_are_never_imported():
  for path in modules(ROOT / 'vidpred_jax'):
    tops = {name.split('.')[0] for name in imports(path)}
    # OpenCV teaches and resizes, for those who have it.
    tops -= {'cv2'} if path.name in ('teacher.py', 'resize.py') else set()
    assert not tops & {'torch', 'torchvision', 'tensorflow', 'cv2'}, path


def test_no_room_without_a_name():
  for path in modules(ROOT / 'vidpred_jax'):
    assert path.stem not in {'utils', 'common', 'helpers', 'misc'}, path


# Files longer than 500 lines and functions longer than 60: each is a list of
# things of one kind.
TABLES = {
  'experiments/tables/rows.py',  # every row of the papers' tables
  'vidpred_jax/config.py:base',  # every field of the configuration
  # A match, with every opcode of a pickle.
  'vidpred_jax/convert/torch_pickle.py:_step',
}


def code_lines(source):
  """{function: lines of code}, without docstrings, comments and blank lines."""
  blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
  blank |= {tokenize.DEDENT, tokenize.ENDMARKER}
  lines = set()
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type not in blank:
      lines |= set(range(token.start[0], token.end[0] + 1))
  result = {}
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef):
      documented = ast.get_docstring(node) is not None
      begin = node.body[0].end_lineno + 1 if documented else node.body[0].lineno
      body = lines & set(range(begin, node.end_lineno + 1))
      result[node.name] = max(len(body), result.get(node.name, 0))
  return result


def test_code_is_counted_without_what_is_said_about_it():
  words = '  """Says.\n\n  More.\n  """\n  # why\n\n'
  source = f'def f(x):\n{words}  y = (\n    x,\n  )\n  return y\n'
  assert code_lines(source) == {'f': 4}


def test_files_and_functions_are_short():
  long = []
  rooms = 'vidpred_jax', 'tests', 'experiments', 'configs'
  for path in (p for room in rooms for p in modules(ROOT / room)):
    source, name = path.read_text(), path.relative_to(ROOT).as_posix()
    if len(source.splitlines()) > 500:
      long.append(name)
    for function, count in code_lines(source).items():
      if count > 60:
        long.append(f'{name}:{function}')
  assert set(long) == TABLES


def test_no_jit_below_the_programs():
  rooms = ('ops', 'models', 'losses', 'systems', 'metrics')
  for path in modules(PACKAGE):
    if room_of(path) in rooms:
      assert not compiles(path.read_text()), path


def compiles(source):
  """Names in a text by which a function could be compiled."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Attribute):
      names.add(node.attr)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
      names |= {part for a in node.names for part in a.name.split('.')}
    elif isinstance(node, ast.Name):
      names.add(node.id)
  return names & {'jit', 'pjit', 'pmap', 'runtime', 'aot'}


@pytest.mark.parametrize(
  'source',
  [
    'f = jax.jit(g)',
    'jit = functools.partial(jax.jit, static_argnums=0)',
    'from jax import jit as compiled',
    '@jax.jit\ndef f(x): pass',
    'from vidpred_jax import runtime',
  ],
)
def test_jit_is_seen_however_it_is_written(source):
  assert compiles(source)
