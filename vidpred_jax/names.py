"""Names that are not there are answered with those that are, in one wording."""

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

T = TypeVar('T')


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
  """`table[name]`.

  Args:
    kind: what the names are of, such as 'system'.
    name: the one that is asked for.
    table: what there is, by name.

  Raises:
    ValueError: if there is none of that name; lists those there are.
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
  """Raises ValueError if there are settings that the owner does not have.

  Args:
    owner: whose they are, such as 'dmvfn'.
    settings: names that are given.
    known: names that it has.
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
