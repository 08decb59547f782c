"""A model card for the export of a run: what it is, saw and reaches."""

import json
from collections.abc import Mapping
from typing import Any

from vidpred_jax import compare
from vidpred_jax.config import given

# Of a configuration, beside its data.
_TRAINING = ('steps', 'batch_size', 'seed', 'init_from', 'schedule', 'augment')


def text(name: str, config, results: Mapping[str, Any]) -> str:
  """Writes the card.

  Args:
    name: of the run.
    config: its configuration.
    results: the content of the run's `results.json`.

  Returns:
    Markdown. What a program cannot know, it says is to be filled in.
  """
  protocol, versions = results['protocol'], results['versions']
  table = 'Nothing.\n'
  if results['metrics']:
    rows = compare.rows({name: results}, per_frame=True)
    table = compare.render(rows, 'md')
  frames = config.frames
  # Objects of a user's own tell their number, too.
  source = protocol['source'].removesuffix(f' of {results["clips"]} clips')
  training = {k: v for k, v in config.to_dict().items() if k in _TRAINING}
  return f"""# {name}

{config.system}, trained with vidpred_jax {versions['vidpred_jax']}. It learned
to make the frames {list(frames.target)} of a clip from {list(frames.context)},
and was measured with {protocol['target']} from {protocol['context']}.
`vidpred predict --checkpoint=FOLDER` and `vidpred_jax.load(FOLDER)` use it.

## Settings

{_listed(given(config.model))}

## Learned from

{_data(config)}

Under which licence these data are is to be filled in.

## Made by

{_listed(training)}
- Python {versions['python']}, jax {versions['jax']}, {versions['device']}

## Measured

{results['clips']} clips of {source}, split {protocol['split']}.

{table}
## Cannot

What it was not made for, and where it fails, is to be filled in.
"""


def _data(config) -> str:
  """What the data are, as far as the configuration knows."""
  settings = given(config.data)
  if settings != {'source': 'own'}:
    return _listed(settings)
  length = 1 + max((*config.frames.context, *config.frames.target))
  return (
    f"Objects of one's own, in batches of {config.batch_size} clips of {length}"
    ' frames.\nWhat they show is to be filled in.'
  )


def _listed(settings: Mapping[str, Any]) -> str:
  """Settings as lines of a list, without those that are empty."""
  return '\n'.join(
    f'- `{name}`: {json.dumps(value)}'
    for name, value in settings.items()
    if value not in (None, '', {}, ())
  )
