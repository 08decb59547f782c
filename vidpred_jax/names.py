"""Look-ups by name whose errors list the known names; names of frames."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar('T')


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
  """Returns `table[name]`.

  Args:
    kind: the kind of things in the table, such as 'system'.
    name: the name to look up.
    table: the known names and their values.

  Raises:
    ValueError: for an unknown name; the message lists the known names.
  """
  check(kind, name, table)
  return table[name]


def check(kind: str, name: str, known: Collection[str]) -> None:
  """Raises ValueError unless `name` is known; `kind` as for `choose`."""
  if name not in known:
    raise ValueError(
      f'There is no {kind} {name!r}; there are {", ".join(sorted(known))}.'
    )


def check_settings(
  owner: str,
  settings: Iterable[str],
  known: Collection[str],
  renamed: Mapping[str, str] | None = None,
) -> None:
  """Raises ValueError for settings that the owner does not have.

  Args:
    owner: the owner of the settings, such as 'dmvfn'.
    settings: the given names.
    known: the owner's names.
    renamed: {old name: new name}, for the message.
  """
  unknown = sorted(set(settings) - set(known))
  if unknown:
    new = {x: (renamed or {}).get(x) for x in unknown}
    named = [f'{x} ({y} now)' if y else x for x, y in new.items()]
    raise ValueError(
      f'{owner} has no setting {", ".join(named)}; it has '
      f'{", ".join(known) or "none"}.'
    )


def of_frames(context: Sequence[int], target: Sequence[int]) -> list[str]:
  """Names target frames for a table.

  Args:
    context: indices of the context frames.
    target: indices of the target frames.

  Returns:
    Names such as `t+1`, counted from the last context frame before them.
  """
  start = max(t for t in context if t < min(target))
  return [f't{t - start:+d}' for t in target]
