"""Ctrl-C in a command: one line and exit status 130, at any time.

Importing JAX takes seconds. What Ctrl-C raises then is a page of traceback, or
is lost in a library. Nothing is open yet, so the process ends at once. Later it
raises KeyboardInterrupt, so that what is open is put away.
"""

import _thread
import os
import signal
import sys
import threading

_AGAIN = 0.05  # seconds, after which the callback has ended


def is_command() -> bool:
  """Whether this process is being started by `python -m vidpred_jax...`.

  `sys.argv[0]` is '-m' while Python looks for the module.
  """
  return sys.argv[:1] == ['-m'] and any(
    'vidpred_jax' in argument for argument in sys.orig_argv
  )


def begin() -> None:
  """From here on Ctrl-C ends the process; not where it is ignored already."""
  if (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
    and 'VIDPRED_JAX_TRACEBACK' not in os.environ
  ):
    signal.signal(signal.SIGINT, _end)


def end() -> None:
  """From here on Ctrl-C raises KeyboardInterrupt, which does not get lost.

  2026-11: Python prints and forgets what is raised in a callback of its garbage
  collector, as JAX has one, or in a `__del__`. It is raised again then.
  """
  if signal.getsignal(signal.SIGINT) is _end:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  shown, main = sys.unraisablehook, threading.get_ident()

  def hook(unraisable):
    if unraisable.exc_type is KeyboardInterrupt:
      threading.Timer(_AGAIN, _interrupt, (main,)).start()
    else:
      shown(unraisable)

  sys.unraisablehook = hook


def _interrupt(thread: int) -> None:
  """Raises KeyboardInterrupt in the main thread, also while it sleeps."""
  if hasattr(signal, 'pthread_kill'):
    signal.pthread_kill(thread, signal.SIGINT)
  else:  # Windows
    _thread.interrupt_main()


def _end(number, _) -> None:
  os.write(2, b'\nInterrupted.\n')
  os._exit(128 + number)
