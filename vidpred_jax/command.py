"""The command line: settings by name, and a user's error as one line.

Commands (`main`, `predict`, `convert`, `cost`, `simulation`) end with
`run(main, define_flags)`.
"""

import ast
import atexit
import contextlib
import gc
import importlib.util
import itertools
import logging as python_logging
import os
import pathlib
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging

from vidpred_jax import atomic, starting

_LONGEST = 2000  # letters of a message
_LARGEST = 1 << 15  # side of a frame
_TRACEBACK = 'VIDPRED_JAX_TRACEBACK'  # set: errors show their traceback
# A word, or a path as a shell gives it.
_WORD = r'(?:[A-Za-z~]|\.{0,2}/)[\w+./~*-]*'
# What may be an address of object storage.
_ANYWHERE = (
  '--checkpoint',
  '--workdir',
  '--config.init_from',
  '--config.data.root',
  '--config.eval.data.root',
)
_NO_MEMORY = 'RESOURCE_EXHAUSTED'  # of an accelerator, or of XLA on a CPU
_MISSING = 'This command also needs'
_PACKAGE = pathlib.Path(__file__).parent
# Installed, the recipes lie in the package; in a checkout beside it.
_CONFIGS = next(
  (
    x / 'configs'
    for x in (_PACKAGE, _PACKAGE.parent)
    if (x / 'configs').is_dir()
  ),
  _PACKAGE / 'configs',
)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
  """`['name=value', ...]` -> dict; values are literals, words or paths."""
  settings = {}
  for text in texts:
    name, equals, value = text.partition('=')
    if not equals or not name.isidentifier():
      raise ValueError(f'--set must be name=value, got {text!r}.')
    if name == 'allow_nonfinite':
      raise ValueError('--allow_nonfinite is a flag of its own, not of --set.')
    if name in settings:
      raise ValueError(f'--set {name} is given twice.')
    try:
      settings[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
      if not re.fullmatch(_WORD, value):
        raise ValueError(
          f'--set {name}: {value[:80]!r} is neither a Python literal nor a '
          'word or path.'
        ) from None
      settings[name] = value
  return settings


def parse_size(text: str) -> tuple[int, int]:
  """`'256x448'` -> (256, 448), the height and width that `--size` names."""
  sides = re.fullmatch(r'([0-9]{1,9})x([0-9]{1,9})', text)
  height, width = map(int, sides.groups()) if sides else (0, 0)
  if not 1 <= min(height, width) <= max(height, width) <= _LARGEST:
    raise ValueError(
      f'Got --size={text}, expected HxW such as 256x448, sides of 1 to '
      f'{_LARGEST}.'
    )
  return height, width


def config_file(chosen: str) -> str:
  """Finds the configuration file that `--config` names.

  Args:
    chosen: `FILE` or `FILE:VARIANTS`. A file that is not there may be one of
      the package's: `configs/dmvfn.py`, `dmvfn.py` or `dmvfn`.

  Returns:
    The same with the file's path.

  Raises:
    FileNotFoundError: if it is neither; the names there are stand in the
      message.
  """
  path, colon, variants = chosen.partition(':')
  named = pathlib.Path(path)
  if named.is_file():
    return chosen
  own = sorted(x.stem for x in _CONFIGS.glob('*.py') if x.stem != '__init__')
  if named.parent.name in ('', 'configs') and len(named.parts) <= 2:
    stem = named.stem if named.suffix == '.py' else named.name
    if stem in own:
      return f'{_CONFIGS / stem}.py{colon}{variants}'
  raise FileNotFoundError(
    f'There is no configuration file {path}; the package has '
    f'{", ".join(f"{x}.py" for x in own)}.'
  )


def configuration(chosen: str):
  """Makes the configuration that a file describes.

  Args:
    chosen: as for `config_file`: 'dmvfn.py:small' is the package's.

  Returns:
    A `ConfigDict`; None if the file is no Python.

  Raises:
    FileNotFoundError: if there is no such file.
  """
  path, _, variants = config_file(chosen).partition(':')
  spec = importlib.util.spec_from_file_location('configuration', path)
  if spec is None or spec.loader is None:
    return None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*[variants] if variants else [])


def require(*names: str) -> None:
  """Marks flags that must be given; one message names all that are missing.

  One that is empty counts as not given.

  Args:
    *names: of flags that are defined.
  """

  def check(values):
    missing = [f'--{name}' for name in names if values[name] in (None, '')]
    if missing:
      raise flags.ValidationError(f'{_MISSING} {", ".join(missing)}.')
    return True

  flags.register_multi_flags_validator(list(names), check)


def run(main, define_flags, *, takes_names: bool = False) -> None:
  """Runs a command; a user's error is one line on stderr and exit status 2.

  Args:
    main: `main(argv)`.
    define_flags: called before the flags are parsed.
    takes_names: whether arguments without dashes are accepted.
  """

  def parse(argv):
    try:
      for before, argument in itertools.pairwise(['', *argv]):
        name, equals, value = argument.partition('=')
        if not equals:
          name, value = before, argument
        # A name may follow a flag that has its value, or takes none.
        is_name = takes_names and not equals and not _takes_value(before)
        if name not in _ANYWHERE and not is_name:
          atomic.check_local(value)
      argv = _with_config_file(argv)
      rest = flags.FLAGS(argv)
      _check_texts()
      return rest
    except flags.Error as error:
      # A config file's own error comes wrapped in the text of a traceback.
      lines = [x.strip() for x in str(error).splitlines() if x.strip()]
      before, missing, names = lines[-1].partition(_MISSING)
      said = missing + names or before.removeprefix('ValueError: ')
      _complain(ValueError(said))
    except (AttributeError, KeyError) as error:  # an unknown field
      _complain(_unknown_field(argv) or ValueError(error.args[0]))
    except (ValueError, OSError, TypeError) as error:  # an invalid value
      _complain(error)
    except SystemExit as ended:  # after --help, which is no error
      sys.exit(0 if ended.code == 1 else ended.code)
    except Exception as error:  # of a configuration file, which is a program
      _complain(ValueError(f'{type(error).__name__}: {error}'))

  def guarded(argv):
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.FATAL)
      _quieten_failed_writes()
    _show_warnings()
    # Pillow's; `video_io` has bounds of its own.
    warnings.filterwarnings('ignore', 'Image size .* exceeds limit')
    try:
      starting.end()
      if len(argv) > 1 and not takes_names:
        raise ValueError(
          f'Got the argument {argv[1]!r}; options are written --name=value.'
        )
      return main(argv)
    except (ValueError, OSError) as error:
      _complain(error)
    except (MemoryError, RuntimeError) as error:  # XLA's are RuntimeErrors
      if not isinstance(error, MemoryError) and _NO_MEMORY not in str(error):
        raise
      _complain(
        MemoryError(
          'There is not enough memory; smaller frames, fewer at once or a '
          f'smaller model need less ({str(error).strip()[:300]}).'
        )
      )
    except KeyboardInterrupt:
      if os.environ.get(_TRACEBACK):
        raise
      # It is said once; libraries end in their own time.
      signal.signal(signal.SIGINT, signal.SIG_IGN)
      print('\nInterrupted.', file=sys.stderr)
      sys.exit(128 + signal.SIGINT)

  define_flags()
  # At its end the interpreter looks for garbage among all that was imported.
  atexit.register(gc.freeze)
  app.run(guarded, flags_parser=parse)


def _takes_value(argument: str) -> bool:
  """Whether the next argument is the value of this flag."""
  name = argument.lstrip('-')
  is_flag = argument[:1] == '-' and name in flags.FLAGS
  return is_flag and not flags.FLAGS[name].boolean


def _check_texts() -> None:
  """Raises ValueError for a text without meaning, such as a path that is empty.

  What follows `--input` without a value is taken for it: `--input --overwrite`.
  """
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    if not flag.present or '.' in name or flag.flag_type() != 'string':
      continue
    if flag.value == '' or re.match(r'-(\D|$)', flag.value or 'none'):
      raise ValueError(f'Got --{name}={flag.value}, expected a value.')


def _with_config_file(argv: Sequence[str]) -> list[str]:
  """The arguments, with the path of the configuration file that is meant."""
  resolved, is_next = [], False
  for argument in argv:
    name, equals, value = argument.partition('=')
    if is_next:
      argument = config_file(argument)
    elif name in ('--config', '-config') and equals and value:
      argument = f'{name}={config_file(value)}'
    is_next = argument in ('--config', '-config')
    resolved.append(argument)
  return resolved


def _unknown_field(argv: Sequence[str]) -> ValueError | None:
  """The first `--config.a.b=value` that names no field of the configuration."""
  chosen = [x.partition('=')[2] for x in argv if x.startswith('--config=')]
  config = configuration(chosen[-1]) if chosen and chosen[-1] else None
  if config is None:
    return None
  for argument in argv:
    if not argument.startswith('--config.'):
      continue
    section, name = config, 'config'
    for field in argument.partition('=')[0].split('.')[1:]:
      fields = list(section) if hasattr(section, 'keys') else []
      if field not in fields:
        return ValueError(
          f'--{name} has no field {field!r}; it has '
          f'{", ".join(fields) or "none"}.'
        )
      section, name = section[field], f'{name}.{field}'
  return None


class _Formatter(python_logging.Formatter):
  """A warning on one line."""

  def format(self, record: python_logging.LogRecord) -> str:
    return f'Warning: {printable(record.getMessage())}'


class _AboveBar(python_logging.StreamHandler):
  """Writes a line of its own to stderr, also while a bar is shown there."""

  def emit(self, record: python_logging.LogRecord) -> None:
    bars = sys.modules.get('tqdm')
    if bars is None:
      return super().emit(record)
    with contextlib.suppress(OSError, ValueError):  # a terminal that has gone
      bars.tqdm.write(self.format(record), file=sys.stderr)


def _show_warnings() -> None:
  """Shows the package's own warnings on stderr, one line each."""
  ours = python_logging.getLogger('vidpred_jax')
  shown = _AboveBar(sys.stderr)
  shown.setFormatter(_Formatter())
  ours.addHandler(shown)
  ours.setLevel(python_logging.WARNING)
  ours.propagate = False


def _quieten_failed_writes() -> None:
  """Hides the tracebacks that Orbax prints after a failed write.

  `checkpoint.save` raises the failure itself. asyncio logs it as well, and the
  threads of TensorStore, whose event loop the first failure closed, pass theirs
  to `sys.unraisablehook`.
  """
  python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited')
  shown = sys.unraisablehook

  def hook(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      shown(unraisable)

  sys.unraisablehook = hook


def _complain(error: Exception) -> None:
  """Prints an error on one line, or raises it under VIDPRED_JAX_TRACEBACK."""
  if os.environ.get(_TRACEBACK):
    raise error
  print(f'Error: {printable(str(error))}', file=sys.stderr)
  sys.exit(2)


def printable(text: str) -> str:
  """A text on one line as a terminal may show it, whoever wrote it.

  Characters that would steer the terminal or turn the line around are written
  as escapes; of a long text the middle is left out.
  """
  text = ' '.join(text[: 4 * _LONGEST].split())
  if len(text) > _LONGEST:
    text = f'{text[: _LONGEST // 2]} [...] {text[-_LONGEST // 2 :]}'
  return ''.join(
    x if x.isprintable() else x.encode('unicode_escape').decode() for x in text
  )
