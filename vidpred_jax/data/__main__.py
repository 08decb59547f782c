"""Compares a data set on disk with the counts of its protocol.

python -m vidpred_jax.data --check kitti --root data/kitti

Without `--check` it lists the data sets. The exit status is 0 if the data set
is complete, 1 if something is missing or differs, 2 if it cannot be read.
"""

import sys

from absl import app, flags

from vidpred_jax.data import digits, fields, traffic
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


def main(argv) -> None:
  """Runs the command; a user's error is one line and exit status 2."""
  try:
    _main(argv)
  except (ValueError, OSError) as error:
    print('Error:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)


def _main(argv) -> None:
  if len(argv) > 1:
    raise ValueError(
      f'Got the argument {argv[1]!r}; options are written --name=value.'
    )
  if flags.FLAGS.check is None:
    for name, protocol in PROTOCOLS.items():
      print(f'{name}: {protocol.title}\n  {protocol.url}\n  {protocol.licence}')
    return
  if flags.FLAGS.root is None:
    raise ValueError('--check needs --root=FOLDER.')
  table, good = check(flags.FLAGS.check, flags.FLAGS.root)
  print(table)
  sys.exit(0 if good else 1)


if __name__ == '__main__':
  define_flags()
  app.run(main)
