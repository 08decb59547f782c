"""What is counted in programs for a GPU, and what must not be in them."""

import jax
import jax.numpy as jnp
import pytest

from experiments import lowered


def mixed(x):
  """A map for CPUs alone, a map over four rows, a branch."""
  twos = jax.lax.map(lambda row: row + 1, x.reshape(2, 4))
  y = jax.lax.platform_dependent(
    x,
    twos,
    cpu=lambda x, twos: jnp.sort(x) + twos.reshape(-1),
    default=lambda x, twos: 2 * x,
  )
  y = jax.lax.map(lambda row: 2 * row, y.reshape(4, 2))
  return jax.lax.cond(y.sum() > 0, lambda y: y, lambda y: -y, y)


@pytest.mark.parametrize(
  'platform, kinds, loops',
  [
    ('cuda', ['loops', 'branches'], [4]),
    ('cpu', ['loops', 'sorts', 'loops', 'branches'], [2, 4]),
  ],
)
def test_only_what_the_platform_runs_is_counted(platform, kinds, loops):
  x = jax.ShapeDtypeStruct((8,), jnp.float32)
  rows = lowered.operations(mixed, (x,), platform)
  assert [kind for kind, *_ in rows] == kinds
  assert [count for kind, _, count, _ in rows if kind == 'loops'] == loops


@pytest.mark.parametrize('platform, maps', [('cuda', 0), ('cpu', 1)])
def test_dmvfn_runs_a_batch_at_once_on_a_gpu(platform, maps):
  small = {'scales': (4, 2), 'widths': (12, 8)}
  program = lowered.programs('dmvfn', 5, 32, **small)['prediction']
  rows = lowered.operations(*program, platform)
  assert sum(n == 5 for kind, _, n, _ in rows if kind == 'loops') == maps
