"""Trained models that come with the package, by name.

Each is a folder: `weights.safetensors` and `system.json`, as an export of a run
has them, and `README.md`, a model card. The card says what the model learned
from, under which licences, by which commands, what it reaches and what it
cannot do; its first line of text is what `models` gives.
"""

import os
import pathlib

_FOLDER = pathlib.Path(__file__).parent
_CARD = 'README.md'


def models() -> dict[str, str]:
  """The models that come with the package.

  Returns:
    `{name: one line about it}`, sorted by name.
  """
  cards = sorted(_FOLDER.glob(f'*/{_CARD}'))
  return {card.parent.name: _first_line(card) for card in cards}


def find(name_or_path: str | os.PathLike) -> pathlib.Path:
  """The folder of a model.

  Args:
    name_or_path: a folder, or else one of `models`.

  Returns:
    The folder.

  Raises:
    FileNotFoundError: if it is neither; the names there are stand in the
      message.
  """
  path = pathlib.Path(os.path.expanduser(name_or_path))
  if path.exists():
    return path
  names = list(models())
  if str(name_or_path) in names:
    return _FOLDER / str(name_or_path)
  raise FileNotFoundError(
    f'There is no folder {name_or_path}, and no model of that name comes with '
    f'the package; there are {", ".join(names) or "none"}.'
  )


def _first_line(card: pathlib.Path) -> str:
  """The first line that is neither empty nor a heading."""
  lines = card.read_text(encoding='utf-8').splitlines()
  return next((x for x in lines if x.strip() and not x.startswith('#')), '')
