"""Notebooks call the library, define nothing, and run from top to bottom.

The first code cell, tagged 'parameters', sets CHECKOUT, VARIANT, WORKDIR and
perhaps WEIGHTS, which are replaced here; a cell tagged 'install' is not run.
"""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / 'colab').glob('*.ipynb'))
ALLOWED = {'vidpred_jax', 'numpy', 'PIL', 'IPython', *sys.stdlib_module_names}

# Runs cells, [[name, source, values to set afterwards], ...], in one namespace.
# IPython is not a dependency: a stand-in looks at what is displayed.
RUNNER = """
import json, pathlib, sys, types
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
  exec(compile(source, name, 'exec'), space)
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


def test_there_is_a_notebook():
  assert NOTEBOOKS


def test_it_is_a_notebook_without_outputs(notebook):
  _, content = notebook
  assert content['nbformat'] == 4 and content['nbformat_minor'] >= 5
  assert content['metadata']['kernelspec']['name'] == 'python3'
  assert set(content['metadata']) <= {'kernelspec', 'language_info', 'colab'}
  cells = content['cells']
  ids = [cell['id'] for cell in cells]
  assert len(set(ids)) == len(ids)
  for cell in cells:
    expected = {'cell_type', 'id', 'metadata', 'source'}
    if cell['cell_type'] == 'code':
      expected |= {'execution_count', 'outputs'}
      assert cell['outputs'] == [] and cell['execution_count'] is None
    else:
      assert cell['cell_type'] == 'markdown'
    assert set(cell) == expected
    assert set(cell['metadata']) <= {'tags'}
    assert cell['source'] and all(isinstance(x, str) for x in cell['source'])


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
  named = set(re.findall(r'vidpred_jax\.(\w+) --', text))
  package = ROOT / 'vidpred_jax'
  for name in named:
    places = package / f'{name}.py', package / name / '__main__.py'
    assert any(place.exists() for place in places), name
  assert named


def published_weights(name, path):
  """A file of a system's weights under their published names, '' without."""
  source = ROOT.parent / 'shared/parity' / name / 'weights_a.npz'
  if not source.exists():
    return ''
  with np.load(source) as arrays:
    np.savez(path, **{k: arrays[k] for k in arrays if k != 'meta_json'})
  return str(path)


def test_it_runs(notebook, tmp_path):
  path, content = notebook
  cells = [x for x in code(content['cells']) if 'install' not in tags(x[0])]
  assert 'parameters' in tags(cells[0][0])
  values = {
    'CHECKOUT': str(ROOT),
    'VARIANT': 'smoke',
    'WORKDIR': str(tmp_path / 'run'),
  }
  if 'WEIGHTS' in cells[0][1]:
    values['WEIGHTS'] = published_weights(path.stem, tmp_path / 'weights.npz')
  script = [
    (f'{path.name}:{cell["id"]}', source, {} if i else values)
    for i, (cell, source) in enumerate(cells)
  ]
  environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING='utf-8')
  environment['XLA_FLAGS'] = (
    '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
  )
  done = subprocess.run(
    [sys.executable, '-c', RUNNER],
    input=json.dumps(script),
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
  assert 'psnr/float' in done.stdout and 'copy_last' in done.stdout
  # What is displayed only with weights is indented.
  pattern = r'^ *display\(' if values.get('WEIGHTS') else r'^display\('
  shown = sum(len(re.findall(pattern, x, re.M)) for _, x, _ in script)
  assert done.stdout.count('displayed') == shown > 0
