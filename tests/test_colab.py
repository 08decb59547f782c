"""Notebooks call the library, define nothing, and run from top to bottom.

The first code cell, tagged 'parameters', sets what is replaced here for speed;
a cell tagged 'install' is not run. Their outputs are stored, as
`jupyter nbconvert --execute` makes them.
"""

import ast
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

import vidpred_jax
from vidpred_jax import __main__ as commands
from vidpred_jax import build

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / 'colab').glob('*.ipynb'))
ALLOWED = {
  'vidpred_jax', 'IPython', 'PIL', 'google', 'jax', 'numpy', 'optax', 'tqdm',
  *sys.stdlib_module_names,
}  # fmt: skip
# Of the parameters, by notebook; the others stay.
QUICK = {
  'apr_vfi': {},
  'dmvfn': {'VARIANT': 'smoke'},
  'rvd': {'FUTURES': 3},
  'simvp': {'STEPS': 2},
}
# How many pictures and films, at least.
SHOWN = {'apr_vfi': 3, 'dmvfn': 3, 'rvd': 3, 'simvp': 2}
# What is said where all went well.
SAID = {
  'apr_vfi': ('8 frames of 256x448', 'PSNR: made'),
  'dmvfn': ('last frame copied', 'psnr/float', 'copy_last', 'M parameters'),
  'rvd': ('3 futures', 'last frame copied', '20 steps: CRPS'),
  'simvp': ('last frame copied', 'RMSE in K', 'System simvp'),
}

# Runs cells, [[name, source, values to set afterwards], ...], in one namespace.
# IPython is not a dependency: a stand-in looks at what is displayed, also as
# the last expression of a cell.
RUNNER = """
import ast, json, pathlib, sys, types
import PIL.Image

def read(data=None, *, filename=None, **options):
  content = pathlib.Path(filename or data).read_bytes()
  assert len(content) > 100
  return content

def display(*shown):
  for x in shown:
    assert isinstance(x, (bytes, PIL.Image.Image)), type(x)
    print('displayed', flush=True)

parts = {'display': display, 'Image': read, 'Video': read}
module = types.ModuleType('IPython.display')
module.__dict__.update(parts)
sys.modules['IPython'] = types.ModuleType('IPython')
sys.modules['IPython'].display = sys.modules['IPython.display'] = module
space = {'__name__': '__main__'}
for name, source, values in json.load(sys.stdin):
  tree = ast.parse(source)
  last = None
  if isinstance(tree.body[-1], ast.Expr):
    last = ast.Expression(tree.body.pop().value)
  exec(compile(tree, name, 'exec'), space)
  if last is not None:
    value = eval(compile(last, name, 'eval'), space)
    if isinstance(value, PIL.Image.Image):
      display(value)
  assert set(values) <= set(space), f'{name} does not set {values}'
  space.update(values)
"""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request):
  """(path, the notebook as a dict), each in turn."""
  return request.param, json.loads(request.param.read_text('utf-8'))


def code(cells):
  """The code cells as [(cell, source)]."""
  return [
    (cell, ''.join(cell['source']))
    for cell in cells
    if cell['cell_type'] == 'code'
  ]


def tags(cell):
  return cell['metadata'].get('tags', [])


def test_there_is_a_notebook_for_every_system():
  systems = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  assert {path.stem for path in NOTEBOOKS} == systems


def test_it_is_a_notebook_with_small_outputs(notebook):
  path, content = notebook
  assert path.stat().st_size < 2**20
  assert content['nbformat'] == 4 and content['nbformat_minor'] >= 5
  assert content['metadata']['kernelspec']['name'] == 'python3'
  assert set(content['metadata']) <= {'kernelspec', 'language_info', 'colab'}
  cells = content['cells']
  ids = [cell['id'] for cell in cells]
  assert len(set(ids)) == len(ids)
  kinds = set()
  for cell in cells:
    expected = {'cell_type', 'id', 'metadata', 'source'}
    if cell['cell_type'] == 'code':
      expected |= {'execution_count', 'outputs'}
      assert cell['execution_count'] is None
      for output in cell['outputs']:
        assert output['output_type'] in ('stream', 'display_data'), cell['id']
        kinds |= set(output.get('data', {}))
        # No folder of the machine that they were made on.
        texts = ''.join(output.get('text', ()))
        assert not re.search(r'/(tmp|root|home|work)/', texts), texts
    else:
      assert cell['cell_type'] == 'markdown'
    assert set(cell) == expected
    assert set(cell['metadata']) <= {'tags'}
    assert cell['source'] and all(isinstance(x, str) for x in cell['source'])
  assert 'image/png' in kinds


def test_the_address_of_the_project_is_the_same_everywhere():
  named = r'github(?:\.com)?/([\w.-]+/vidpred_jax)'
  texts = [path.read_text('utf-8') for path in NOTEBOOKS]
  texts.append((ROOT / 'colab/README.md').read_text('utf-8'))
  addresses = set()
  for text in texts:
    found = re.findall(named, text)
    assert len(found) >= 2  # the badge and the line of pip
    addresses |= set(found)
  assert len(addresses) == 1, addresses
  for path, text in zip(NOTEBOOKS, texts):
    assert f'/blob/main/colab/{path.name})' in text
    assert f'/blob/main/colab/{path.name})' in texts[-1]


def test_every_code_cell_is_introduced(notebook):
  _, content = notebook
  kinds = [cell['cell_type'] for cell in content['cells']]
  assert kinds[0] == 'markdown'
  for before, kind in zip(kinds, kinds[1:]):
    assert kind == 'markdown' or before == 'markdown'


def test_it_defines_nothing_and_imports_the_library(notebook):
  path, content = notebook
  definitions = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
  )
  for _, source in code(content['cells']):
    for node in ast.walk(ast.parse(source, path.name)):  # so no magics either
      assert not isinstance(node, definitions), ast.unparse(node)
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module]
      for name in names:
        assert name.split('.')[0] in ALLOWED, f'{path.name} imports {name}'


def test_the_commands_it_names_exist(notebook):
  _, content = notebook
  text = ''.join(line for cell in content['cells'] for line in cell['source'])
  package = ROOT / 'vidpred_jax'
  for name in set(re.findall(r'vidpred_jax\.(\w+) --', text)):
    places = package / f'{name}.py', package / name / '__main__.py'
    assert any(place.exists() for place in places), name
  for name in set(re.findall(r'`vidpred (\w+) ', text)):
    assert name in commands._COMMANDS, name


def published_weights(name, path):
  """A file of a system's weights under their published names, '' without."""
  source = ROOT.parent / 'shared/parity' / name / 'weights_a.npz'
  if not source.exists():
    return ''
  with np.load(source) as arrays:
    np.savez(path, **{k: arrays[k] for k in arrays if k != 'meta_json'})
  return str(path)


def model_for(path, folder):
  """The notebook's model, or untrained weights where it is not at hand."""
  name = re.search(r"^MODEL = '(.+?)'", path, re.M)[1]
  if name in vidpred_jax.models():
    return name
  recipe = runpy.run_path(ROOT / 'configs' / f'{name.partition("-")[0]}.py')
  config = recipe['get_config']('demo')
  system = build.system(config, config.eval.frames)
  shape = 1, system.frames.length, 32, 32, system.channels
  variables = jax.jit(system.init)(vidpred_jax.key(0), jax.numpy.zeros(shape))
  vidpred_jax.save(system, variables, folder)
  return str(folder)


@pytest.mark.slow
def test_it_runs(notebook, tmp_path):
  path, content = notebook
  cells = [x for x in code(content['cells']) if 'install' not in tags(x[0])]
  assert 'parameters' in tags(cells[0][0])
  values = {'MODEL': model_for(cells[0][1], tmp_path / 'model')}
  values |= QUICK[path.stem]
  if 'WORKDIR' in cells[0][1]:
    values['WORKDIR'] = str(tmp_path / 'run')
  if 'WEIGHTS' in cells[0][1]:
    values['WEIGHTS'] = published_weights(path.stem, tmp_path / 'weights.npz')
  script = [
    (f'{path.name}:{cell["id"]}', source, {} if i else values)
    for i, (cell, source) in enumerate(cells)
  ]
  environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING='utf-8')
  done = subprocess.run(
    [sys.executable, '-c', RUNNER],
    input=json.dumps(script),
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
  for words in SAID[path.stem]:
    assert words in done.stdout, words
  assert done.stdout.count('displayed') >= SHOWN[path.stem]
