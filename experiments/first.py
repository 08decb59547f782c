"""What does one wait for before the first number or frame?

  python -m experiments.first --film=A.mp4 [--output=first.json]

Each row is a process of its own, with an empty compilation cache and once more
with that cache filled:
- `import`: `import vidpred_jax`, beyond what Python itself takes;
- `init NAME`: `system.init` of a system with its default settings, 64x64, and
  the same under `jax.jit`, after the imports;
- `predict`, `predict --factor=2`: from the command to its end, for the first
  frames of the film with the models of the package, imports included.

Given are seconds of processor time, which other programs on the machine change
little. Take a short film: its frames are part of what is measured.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

_IMPORT = """
import time
begin = time.process_time()
import vidpred_jax
print(time.process_time() - begin)
"""
_INIT = """
import sys, time
import jax
from vidpred_jax import runtime, systems
name, context, target, compiled = sys.argv[1:]
runtime.setup()
indices = [tuple(map(int, x.split(','))) for x in (context, target)]
frames = systems.Frames(*indices)
system = systems.make(name, frames=frames)
shape = (1, frames.length, 64, 64, system.channels)
clip, key = jax.numpy.zeros(shape), jax.block_until_ready(runtime.key(0))
init = runtime.jit(system.init) if compiled == 'True' else system.init
begin = time.process_time()
jax.block_until_ready(init(key, clip))
print(time.process_time() - begin)
"""
_FRAMES = {
  'dmvfn': ('0,1', '2'),
  'simvp': ('0,1,2,3,4,5,6,7,8,9', '10,11,12,13,14,15,16,17,18,19'),
  'rvd': ('0,1', '2'),
  'apr_vfi': ('0,2', '1'),
}


def rows(film: str, scratch: pathlib.Path) -> dict[str, list[str]]:
  """The arguments of Python for each row."""
  commands = {'import': ['-c', _IMPORT]}
  for name, frames in _FRAMES.items():
    for compiled in (False, True):
      row = f'init {name}{", jit" * compiled}'
      commands[row] = ['-c', _INIT, name, *frames, str(compiled)]
  predict = ['-m', 'vidpred_jax', 'predict', f'--input={film}', '--overwrite']
  commands['predict'] = [*predict, f'--output={scratch / "a.mp4"}']
  commands['predict --factor=2'] = [
    *predict,
    f'--output={scratch / "b.mp4"}',
    '--factor=2',
  ]
  return commands


def seconds(arguments: list[str], cache: pathlib.Path) -> float:
  """What the program prints last, or else all its processor time."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    [sys.executable, *arguments],
    env=os.environ | {'VIDPRED_JAX_CACHE': str(cache)},
    capture_output=True,
    text=True,
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  if done.returncode:
    raise RuntimeError(f'{arguments} failed: {done.stderr[-2000:]}')
  if arguments[0] == '-c':
    return float(done.stdout.split()[-1])
  return sum(
    getattr(after, name) - getattr(before, name)
    for name in ('ru_utime', 'ru_stime')
  )


def main(argv=None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--film', required=True)
  parser.add_argument('--output', help='a JSON file of the table')
  options = parser.parse_args(argv)
  film = os.path.abspath(options.film)
  table = {}
  print('| | nothing cached | again |\n| --- | ---: | ---: |')
  with tempfile.TemporaryDirectory() as folder:
    scratch = pathlib.Path(folder)
    for row, arguments in rows(film, scratch).items():
      cache = scratch / f'cache {row}'
      table[row] = [round(seconds(arguments, cache), 2) for _ in range(2)]
      print(f'| {row} | {table[row][0]} | {table[row][1]} |', flush=True)
  if options.output:
    pathlib.Path(options.output).write_text(json.dumps(table, indent=2) + '\n')


if __name__ == '__main__':
  main()
