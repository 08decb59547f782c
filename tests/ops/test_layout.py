import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.arrays import gradients, normal
from vidpred_jax import runtime
from vidpred_jax.ops import layout


def test_concatenate():
  parts = [normal(i, 2, 3, 4, n) for i, n in enumerate((3, 1, 5))]
  np.testing.assert_array_equal(
    layout.concatenate(parts), jnp.concatenate(parts, -1)
  )


def test_depth_to_space_puts_pixels_in_the_order_of_the_rows():
  image = np.arange(2 * 6 * 4 * 3).reshape(2, 6, 4, 3)
  corners = [image[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
  folded = jnp.asarray(np.stack(corners, 3))
  np.testing.assert_array_equal(layout.depth_to_space(folded), image)


def test_apart_changes_nothing(platform):
  x = normal(0, 2, 3, 5, 4, 6)

  def materialized(x):
    return layout.materialize(
      layout.materialize(2 * x), function=layout.depth_to_space
    )

  ours = gradients(materialized, x)
  theirs = gradients(lambda x: layout.depth_to_space(2 * x), x)
  for a, b in zip(ours, theirs):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(jax.vmap(materialized)(x[None])[0], ours[0])
  np.testing.assert_array_equal(jax.jvp(materialized, (x,), (x,))[1], ours[0])


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='on CPUs only')
def test_apart_is_left_by_the_compiler():
  def loss(x):
    return jnp.sum(jnp.sin(layout.materialize(2 * x)))

  program = jax.jit(jax.value_and_grad(loss)).lower(normal(0, 4, 5)).compile()
  assert program.as_text().count(' conditional(') == 2


def test_apart_on_several_devices():
  mesh = runtime.mesh()
  split = jax.P('data')
  x = normal(0, 2 * mesh.size, 3)
  materialized = jax.shard_map(
    layout.materialize, mesh=mesh, in_specs=split, out_specs=split
  )
  np.testing.assert_array_equal(jax.jit(materialized)(x), x)
