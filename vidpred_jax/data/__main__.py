"""Compares a data set on disk with its protocol, or prepares one.

python -m vidpred_jax.data --check=kitti --root=data/kitti

compares a data set with the counts of its protocol. The exit status is 0 if the
data set is complete, 1 if something is missing or differs, 2 if it cannot be
read.

python -m vidpred_jax.data --prepare=cityscapes --root=data/cityscapes \\
  --output=prepared/cityscapes

decodes and resizes every frame once and writes all as ArrayRecord files, in
parallel. After a kill the same command continues. `--prepare` is

  - a published data set; training then reads it by `--config.data.root=OUTPUT`,
    with the same clips;
  - a folder of videos, a file or a pattern, with `--size=HxW`;
  - or a source by its name, with its settings: `--prepare=arrays
    --set root=my.npy`. Sources whose clips are made up or drawn are written
    as so many `--num_frames` each.

The variant `prepared` of each configuration reads the last two.

Without `--check` and `--prepare` the command lists the data sets.
"""

import os
import sys
from typing import Any

from absl import flags

from vidpred_jax import command, names
from vidpred_jax.data import digits, fields, pipeline, prepare, traffic
from vidpred_jax.data.published import folders
from vidpred_jax.data.published.prediction import PROTOCOLS

# Data sets that do not lie on disk as frames.
_COUNTERS = {
  'moving_mnist': digits.count,
  'weatherbench': fields.count,
  'taxibj': traffic.count,
}


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_enum(
    'check', None, sorted(PROTOCOLS), 'The data set to check; none: list them.'
  )
  flags.DEFINE_string('root', None, 'Where it lies.')
  flags.DEFINE_string(
    'prepare', None, 'A data set, a source, or a folder of videos to prepare.'
  )
  flags.DEFINE_string('output', None, 'Folder to prepare it in.')
  flags.DEFINE_list('splits', ['train', 'test'], 'Which of it.')
  flags.DEFINE_string('size', None, 'HxW to which frames are resized.')
  flags.DEFINE_multi_string(
    'set', [], 'A setting of the source, name=value; repeatable.'
  )
  flags.DEFINE_integer(
    'num_frames', 1, 'Of a clip, where clips are written.', lower_bound=1
  )
  flags.DEFINE_integer(
    'workers', None, 'Processes; by default one a processor.', lower_bound=0
  )
  flags.DEFINE_bool('compress', False, 'Compress frames, without loss.')
  flags.DEFINE_integer('shard_mb', 256, 'Size of a file.', lower_bound=1)


def check(dataset: str, root: str) -> tuple[str, bool]:
  """Compares the files on disk with the expected counts.

  Args:
    dataset: one of `PROTOCOLS`.
    root: where it lies.

  Returns:
    A table, and whether all of it is as expected.
  """
  protocol = PROTOCOLS[dataset]
  rows, notes, good = [('split', 'clips', 'expected', 'state')], [], True
  for split, expected in protocol.counts.items():
    try:
      clips, absent = _found(dataset, root, split)
    except (FileNotFoundError, ValueError) as error:
      rows.append((split, '0', str(expected.clips), 'missing'))
      notes.append(str(error))
      good = False
      continue
    if absent:
      state = f'{len(absent)} files missing'
      notes.append(f'{split}: missing {", ".join(absent[:3])}, ...')
    elif clips == expected.clips:
      state = 'ok'
    else:
      state = 'differs' if expected.exact else 'differs (number unconfirmed)'
    good &= not absent and (clips == expected.clips or not expected.exact)
    rows.append((split, str(clips), str(expected.clips), state))
    if expected.note:
      notes.append(f'{split}: {expected.note}')
  widths = [max(len(row[k]) for row in rows) for k in range(4)]
  lines = ['  '.join(c.ljust(w) for c, w in zip(r, widths)) for r in rows]
  size = 'x'.join(map(str, protocol.size)) if protocol.size else 'as on disk'
  return '\n'.join(
    [
      f'{protocol.title}, {root}',
      *(line.rstrip() for line in lines),
      f'size: {size}; {protocol.resize}',
      f'protocol: {protocol.protocol}',
      *notes,
    ]
  ), good


def _found(dataset: str, root: str, split: str) -> tuple[int, list[str]]:
  """The number of clips of a split on disk, and the missing files."""
  if dataset in _COUNTERS:
    return _COUNTERS[dataset](root, split), []
  sequences = folders.find(dataset, root, split)
  return folders.count(dataset, sequences), folders.missing(sequences)


def chosen(name: str, root: str | None, size: str | None, settings) -> dict:
  """The source that is to be prepared, and its settings.

  Args:
    name: of a source or a published data set, or where videos are.
    root: where the data lie.
    size: 'HxW', or None.
    settings: others, by name.

  Returns:
    `source` and the settings.

  Raises:
    ValueError: if there is none of that name.
  """
  settings = dict(settings)
  if root is not None:
    settings['root'] = root
  if size is not None:
    settings['size'] = command.parse_size(size)
  made = _source(name)
  if 'root' in made and 'root' in settings:
    raise ValueError(
      f'Got --prepare={name}, a place of videos, and root={settings["root"]!r}.'
    )
  known = pipeline.settings_of(made['source'])
  names.check_settings(f'The data source {made["source"]!r}', settings, known)
  return made | settings


def _source(name: str) -> dict[str, Any]:
  """The source of that name, and what follows from it."""
  if name in pipeline.SOURCES:
    return {'source': name}
  if name in PROTOCOLS:
    source = PROTOCOLS[name].source
    return {'source': source} | (
      {'dataset': name} if source == 'frames' else {}
    )
  if not os.path.exists(name) and not set(name) & set('/*?.'):
    raise ValueError(
      f'Got --prepare={name}, which is no folder; expected videos, one of the '
      f'sources {", ".join(pipeline.SOURCES)} or one of the data sets '
      f'{", ".join(PROTOCOLS)}.'
    )
  # Each frame is asked for once.
  return {'source': 'videos', 'root': name, 'cache_mb': 0}


def main(argv) -> None:
  """Counts, prepares or lists."""
  del argv
  options = flags.FLAGS
  if options.prepare is not None:
    _prepare(options)
    return
  if options.check is None:
    if options.root is not None or options.output is not None:
      raise ValueError('--root and --output are for --check and --prepare.')
    for name, protocol in PROTOCOLS.items():
      print(f'{name}: {protocol.title}\n  {protocol.url}\n  {protocol.licence}')
    return
  if options.root is None:
    raise ValueError('--check needs --root=FOLDER.')
  table, good = check(options.check, options.root)
  print(table)
  sys.exit(0 if good else 1)


def _prepare(options) -> None:
  if options.output is None or options.check is not None:
    raise ValueError('--prepare needs --output=FOLDER, and no --check.')
  settings = chosen(
    options.prepare,
    options.root,
    options.size,
    command.parse_settings(options.set),
  )
  counts = prepare.prepare(
    settings.pop('source'),
    options.output,
    splits=options.splits,
    num_frames=options.num_frames,
    workers=options.workers,
    compress=options.compress,
    shard_mb=options.shard_mb,
    progress=True,
    **settings,
  )
  said = ', '.join(f'{n} frames for {split}' for split, n in counts.items())
  print(f'{said}, in {options.output}')


if __name__ == '__main__':
  command.run(main, define_flags)
