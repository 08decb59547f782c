"""What the parts share: calls at once, milliseconds, records of failures."""

import concurrent.futures
import os
import time
import traceback
from collections.abc import Callable

import numpy as np


class Late(Exception):
  """Something was not begun, for lack of time."""


def failure(error: BaseException) -> dict:
  """How an error is recorded; being late is none."""
  if isinstance(error, Late):
    return {'skipped': str(error)}
  return {
    'error': f'{type(error).__name__}: {error}'[:500],
    'traceback': ''.join(traceback.format_exception(error))[-4000:],
  }


def concurrently(calls: dict, left: Callable[[], float]):
  """Yields (name, result or Exception) of functions, most of which compile.

  The first to end comes first. After the time those that have begun are waited
  for; the others are not begun.
  """
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:

    def attempt(function):
      if left() <= 0:
        return Late('no time was left')
      try:
        return function()
      except Exception as error:
        return error

    futures = {pool.submit(attempt, f): name for name, f in calls.items()}
    for future in concurrent.futures.as_completed(futures):
      yield futures[future], future.result()


def milliseconds(call, tiny, repeats=20, seconds=1.0) -> dict:
  """Least and median of at most so many calls and, but for three, seconds."""
  call()
  taken, begin = [], time.perf_counter()
  while len(taken) < (2 if tiny else repeats):
    start = time.perf_counter()
    if len(taken) >= 3 and start - begin > seconds:
      break
    call()
    taken.append(1e3 * (time.perf_counter() - start))
  return {
    'ms': min(taken),
    'median_ms': float(np.median(taken)),
    'calls': len(taken),
  }


def ratios(parts: dict) -> list[dict]:
  """Ours over the better layout of PyTorch, where both were timed."""

  def best(rows):
    found = {}
    for row in rows:
      if 'ms' in row:
        key = row['system'], row['name'], row['precision']
        found[key] = min(row['ms'], found.get(key, row['ms']))
    return found

  ours, theirs = best(parts.get('times', [])), best(parts.get('torch', []))
  return [
    {
      'system': key[0],
      'name': key[1],
      'precision': key[2],
      'ours_ms': ours[key],
      'torch_ms': theirs[key],
      'ratio': ours[key] / theirs[key],
    }
    for key in ours
    if key in theirs
  ]
