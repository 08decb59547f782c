"""All systems against the published code's numbers."""

import functools
from collections.abc import Iterator

import jax

from experiments import parity
from experiments.accelerator.measuring import concurrently, failure

SYSTEMS = ('ebme', 'simvp', 'rvd', 'dmvfn')


def rows(options, left) -> Iterator[dict]:
  """Arrays that are too far from the published code's, by system and case."""
  if not options.shared:
    yield {'skipped': 'no --shared'}
    return
  before = jax.config.jax_default_matmul_precision
  jax.config.update('jax_default_matmul_precision', 'highest')
  try:
    tables, failures = _parity_tables(options)
    yield from failures
    for (system, title), errors in concurrently(tables, left):
      yield {'system': system, 'case': title} | _verdict(errors)
  finally:
    jax.config.update('jax_default_matmul_precision', before)


def _parity_tables(options):
  """{(system, title): function}, and what could not be prepared."""
  tables, failures = {}, []
  for system in SYSTEMS:
    try:
      found = parity.cases(options.shared, [system])
    except Exception as error:  # one system's arrays are missing
      failures.append({'system': system} | failure(error))
      continue
    for case in found[: 1 if options.tiny else None]:
      tables[system, case.name] = functools.partial(_errors, case)
  return tables, failures


def _errors(case) -> dict:
  """{array: (error, tolerance)}."""
  return {row.array: (row.error, row.tolerance) for row in case.rows()}


def _verdict(errors: dict | Exception) -> dict:
  """Of {array: (error, tolerance)}, or of what kept us from it."""
  if isinstance(errors, Exception):
    return failure(errors)
  shares = {name: error / limit for name, (error, limit) in errors.items()}
  return {
    'arrays': len(errors),
    'worst_share': max(shares.values()),
    'too_far': [name for name, share in shares.items() if not share <= 1],
    'errors': errors,
  }
