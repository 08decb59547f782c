"""Trains and evaluates the system of a configuration file.

python -m vidpred_jax.main --config=configs/dmvfn.py:demo --workdir=runs/demo

With `--seeds=3` it does so three times, from the seeds config.seed, + 1 and + 2
in the folders seed0, seed1, ... of the workdir, and writes means and deviations
of their results to seeds.json.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from vidpred_jax import command, runtime


def define_flags() -> None:
  """Defines the flags of this command."""
  config_flags.DEFINE_config_file(
    'config', None, 'Configuration file, with variants: FILE.py:a,b'
  )
  flags.DEFINE_string('workdir', None, 'Folder of the run, or an address.')
  flags.DEFINE_list('mode', ['train', 'eval'], 'Any of train, eval.')
  flags.DEFINE_integer('seeds', None, 'Train from this many seeds.')
  flags.DEFINE_bool('distributed', False, 'Join the processes of a cluster.')
  flags.DEFINE_string('coordinator', None, 'host:port of process 0.')
  flags.DEFINE_integer('num_processes', None, 'Number of processes.')
  flags.DEFINE_integer('process_id', None, 'Number of this process, from 0.')
  command.require('config', 'workdir')


def main(argv) -> None:
  """Runs the modes in order."""
  del argv
  options = flags.FLAGS
  unknown = set(options.mode) - {'train', 'eval'}
  if unknown or not options.mode:
    raise ValueError(f'--mode is any of train, eval; got {options.mode}.')
  if not options.coordinator and (
    options.num_processes is not None or options.process_id is not None
  ):
    raise ValueError('--num_processes and --process_id need --coordinator.')
  if options.seeds is not None and options.seeds < 1:
    raise ValueError(f'--seeds must be at least 1, got {options.seeds}.')
  runtime.setup()
  if options.distributed or options.coordinator:
    runtime.initialize_distributed(
      options.coordinator, options.num_processes, options.process_id
    )
  # After the runtime is set up: importing the rooms allocates.
  import jax

  from vidpred_jax import atomic, build, storage
  from vidpred_jax.evaluate import report, seeds
  from vidpred_jax.evaluate import run as evaluation
  from vidpred_jax.train import loop

  config, workdir, measure = options.config, options.workdir, None
  if jax.process_index() == 0 and not atomic.is_address(workdir):
    place = pathlib.Path(workdir) / 'config.json'
    atomic.check_new(place, overwrite=True, parents=True)
  config = build.completed(config)
  if 'eval' in options.mode:
    # Before training, so that a mistake shows at once.
    planned = build.evaluation(config)
    if 'train' in options.mode:
      build.check_frames(config, planned)
    measure = evaluation.make_measure(config, planned)
  runs = {config.seed: workdir}
  if options.seeds:
    runs = {
      seed: f'{workdir.rstrip("/")}/seed{seed}'
      for seed in range(config.seed, config.seed + options.seeds)
    }
  results = []
  for config.seed, folder in runs.items():
    if 'train' in options.mode and not loop.run(config, folder, measure):
      print('Stopped and saved. The same command goes on from here.')
      return
    if 'eval' in options.mode:
      results.append(evaluation.run(config, folder, measure))
  if options.seeds and results:
    summary = {'seeds': list(runs), **seeds.summary(results)}
    print(f'\n{seeds.table(summary)}')
    if jax.process_index() == 0:
      path = f'{workdir.rstrip("/")}/seeds.json'
      storage.write_text(path, report.as_json(summary))


if __name__ == '__main__':
  command.run(main, define_flags)
