"""The split 'val': the last part of the training data, held out.

A run that is evaluated while it trains, and keeps its best checkpoint, chooses
by this split and never by the one that is reported.
"""

SPLITS = ('train', 'val', 'test')


def check(split: str) -> None:
  """Raises ValueError for an unknown split."""
  if split not in SPLITS:
    raise ValueError(f"split must be 'train', 'val' or 'test', got {split!r}.")


def check_fractions(test: float, val: float) -> None:
  """Raises ValueError unless such shares can be held out, `val` of the rest."""
  if not 0 <= test <= 1 or not 0 <= val < 1:
    raise ValueError(
      'test_fraction must lie in [0, 1] and val_fraction in [0, 1), got '
      f'{test} and {val}.'
    )


def part(split: str, count: int, fraction: float, what: str) -> range:
  """Chooses the training items that belong to a split.

  Args:
    split: 'train' or 'val'.
    count: how many things there are for training, in a fixed order.
    fraction: share of them, the last ones, that are held out for 'val'.
    what: what they are, for messages: 'episodes'.

  Returns:
    Their numbers. With a fraction of 0 'train' has all.

  Raises:
    ValueError: if the fraction leaves nothing for the split.
  """
  if not 0 <= fraction < 1:
    raise ValueError(f'val_fraction must lie in [0, 1), got {fraction}.')
  held_out = round(fraction * count)
  chosen = {
    'train': range(count - held_out),
    'val': range(count - held_out, count),
  }[split]
  if not chosen:
    raise ValueError(
      f'val_fraction={fraction} of {count} {what} for training leaves none for '
      f"'{split}'; expected a share such as 0.1 that leaves some for either."
    )
  return chosen
