import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vidpred_jax import cost, runtime, systems
from vidpred_jax.cost import macs
from vidpred_jax.ops import conv as ops


def total(fn, *args, run=False):
  return cost.count_macs(fn, *args, run=run).total()


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


# ---------------------------------------------------------- by hand, one by one


def test_products_of_matrices():
  assert total(jnp.dot, shape(3, 5), shape(5, 7)) == 3 * 5 * 7
  assert total(jnp.matmul, shape(4, 3, 5), shape(4, 5, 7)) == 4 * 3 * 5 * 7

  def contract(a, b):
    return jnp.einsum('abc,bcd->ad', a, b)

  assert total(contract, shape(2, 3, 4), shape(3, 4, 5)) == 2 * 3 * 4 * 5


def conv(x, w, stride=(1, 1), padding='VALID', **settings):
  return lax.conv_general_dilated(
    x, w, stride, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    **settings,
  )  # fmt: skip


def test_a_convolution():
  count = total(conv, shape(2, 10, 12, 3), shape(3, 3, 3, 8))
  assert count == 2 * 8 * 10 * 8 * 3 * 9

  # Padding counts, stride leaves a quarter.
  def strided(x, w):
    return conv(x, w, (2, 2), [(1, 1), (1, 1)])

  assert total(strided, shape(1, 8, 8, 4), shape(3, 3, 4, 6)) == 16 * 6 * 4 * 9


@pytest.mark.parametrize('groups', [1, 2, 8])
def test_a_grouped_convolution(groups):
  def grouped(x, w):
    return conv(x, w, feature_group_count=groups)

  count = total(grouped, shape(1, 7, 7, 8), shape(3, 3, 8 // groups, 16))
  assert count == 25 * 16 * 8 * 9 // groups


@pytest.mark.parametrize('size, stride, pad', [(4, 2, 1), (3, 2, 1), (5, 3, 2)])
def test_a_transposed_convolution_costs_its_input_times_its_kernel(
  size, stride, pad
):
  """Not the zeros between; taps that fall off the edge may count."""
  side, channels, outputs = 6, 3, 5

  def transposed(x, w):
    return conv(
      x,
      w,
      padding=[(size - 1 - pad, size - 1 - pad)] * 2,
      lhs_dilation=(stride, stride),
    )

  x, w = np.ones((side, side)), np.ones((size, size))
  # Put every input's kernel into a large canvas, keep what is not cut off.
  length = (side - 1) * stride + size
  canvas = np.zeros((length, length))
  for i in range(side):
    for j in range(side):
      canvas[i * stride :][:size, j * stride : j * stride + size] += x[i, j] * w
  kept = canvas[pad : length - pad, pad : length - pad].sum()
  count = total(
    transposed,
    shape(1, side, side, channels),
    shape(size, size, channels, outputs),
  )
  most = side**2 * size**2
  assert kept * channels * outputs <= count <= most * channels * outputs
  if (size, stride, pad) == (4, 2, 1):
    assert count == most * channels * outputs


def test_gradients_of_a_convolution_cost_as_much_as_itself():
  args = shape(2, 9, 9, 4), shape(3, 3, 4, 6)
  forward = 2 * 7 * 7 * 6 * 4 * 9

  def loss(x, w):
    return jnp.sum(conv(x, w) ** 2)

  both = total(jax.grad(loss, (0, 1)), *args)
  # The input's gradient convolves its padding, too.
  assert both == forward + forward + 2 * 9 * 9 * 6 * 4 * 9
  weight = total(jax.grad(loss, 1), *args)
  assert weight == 2 * forward


def test_loops_count_as_often_as_they_run():
  x = shape(4, 4)

  def scanned(x):
    return lax.scan(lambda c, _: (c @ c, c @ c), x, length=5)

  assert total(scanned, x) == 5 * 2 * 64

  def kept(x):
    return lax.scan(lambda c, _: (c @ c, c @ c), x, length=5)[0]

  assert total(kept, x) == 5 * 64  # what nobody reads is not computed

  def fori(x):
    return lax.fori_loop(0, 7, lambda i, c: c @ c, x)

  assert total(fori, x) == 7 * 64

  def mapped(x):
    return lax.map(lambda r: r @ x, x)

  assert total(mapped, x) == 4 * 16

  def nested(x):
    return lax.fori_loop(0, 3, lambda i, c: fori(c), x)

  assert total(nested, x) == 21 * 64
  assert total(jax.vmap(scanned), shape(3, 4, 4)) == 3 * 5 * 2 * 64


def test_wrapped_calls_are_looked_into():
  @jax.custom_jvp
  def jvp(x):
    return x @ x

  jvp.defjvp(lambda p, t: (jvp(*p), t[0]))

  @jax.custom_vjp
  def vjp(x):
    return x @ x

  vjp.defvjp(lambda x: (vjp(x), None), lambda r, g: (g,))

  def fn(x):
    x = jax.jit(lambda y: y @ y)(x)
    x = jax.checkpoint(lambda y: y @ y)(x)
    return vjp(jvp(x))

  for run in (False, True):
    assert total(fn, jnp.eye(3), run=run) == 4 * 27


def test_dead_code_is_free():
  def fn(x):
    _ = x @ x
    return jax.jit(lambda y: (y @ y, y @ y @ y))(x)[0]

  assert total(fn, shape(4, 4)) == 64


def test_branches():
  def fn(k, x):
    return lax.switch(k, [lambda y: y, lambda y: y @ y, lambda y: y @ y @ y], x)

  x = jnp.eye(4)
  assert total(fn, jnp.int32(0), x) == 128  # the dearest
  for k in range(3):
    assert total(fn, jnp.int32(k), x, run=True) == 64 * k
  # Out of range is clamped, as JAX does.
  assert total(fn, jnp.int32(9), x, run=True) == 128


def test_a_running_count_follows_each_sample_of_a_batch():
  def fn(gates, x):
    def one(sample):
      gates, x = sample
      for gate in gates:
        x = lax.cond(gate, lambda y: y @ y, lambda y: y, x)
      return x

    return lax.map(one, (gates, x))

  gates = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], bool)
  x = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
  assert total(fn, gates, x, run=True) == 5 * 64
  assert total(fn, gates, x) == 9 * 64


def test_a_running_count_follows_while_loops():
  def fn(n, x):
    return lax.while_loop(
      lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] @ x), (0, x)
    )[1]

  x = jnp.eye(3)
  assert total(fn, 5, x, run=True) == 5 * 27
  with pytest.raises(ValueError, match='run=True'):
    total(fn, 5, x)

  def free(n, x):
    return lax.while_loop(lambda y: y.sum() < n, lambda y: y + 1, x)

  assert total(free, 5.0, x) == 0


def test_a_loop_may_say_how_often_it_runs_at_most():
  def fn(n, x):
    def body(i, y):
      with jax.named_scope('inner'):
        return jax.lax.fori_loop(0, 2, lambda i, z: z @ x, y)

    with jax.named_scope('at_most_7_times'):
      return lax.fori_loop(0, n, body, x)

  x = jnp.eye(3)
  assert total(fn, 5, x) == 7 * 2 * 27
  assert total(fn, 5, x, run=True) == 5 * 2 * 27

  # It says so of itself only, not of loops inside.
  def nested(n, x):
    with jax.named_scope('at_most_7_times'):
      return lax.fori_loop(0, n, lambda i, y: fn_free(n, y), x)

  def fn_free(n, x):
    return lax.fori_loop(0, n, lambda i, y: y @ y, x)

  with pytest.raises(ValueError, match='run=True'):
    total(nested, 5, x)

  def within(n, x):
    with jax.named_scope('at_most_2_times'), jax.named_scope('at_most_9_times'):
      return fn_free(n, x)

  assert total(within, 5, x) == 9 * 27
  assert total(jax.vmap(within, (None, 0)), 5, x[None]) == 9 * 27

  def elsewhere(n, x):
    with jax.named_scope('at_most_9_times'), jax.named_scope('other'):
      return fn_free(n, x)

  with pytest.raises(ValueError, match='run=True'):
    total(elsewhere, 5, x)


def test_a_loop_that_is_different_for_each_sample_is_not_run():
  def fn(n, x):
    return lax.fori_loop(0, n, lambda i, y: y @ x, x)

  with pytest.raises(ValueError, match='a while loop under vmap'):
    total(jax.vmap(fn), jnp.array([1, 2]), jnp.ones((2, 3, 3)), run=True)


def test_of_what_is_for_one_platform_that_of_this_one_counts():
  def fn(x):
    here = {macs._platform(): lambda y: y @ y}
    return lax.platform_dependent(x, **here, default=lambda y: y @ y @ y)

  def other(x):
    return lax.platform_dependent(
      x, tpu=lambda y: y @ y @ y, default=lambda y: y @ y
    )

  x = jnp.eye(3)
  for run in (False, True):
    assert total(fn, x, run=run) == total(other, x, run=run) == 27

  with pytest.raises(ValueError, match='no branch for'):
    total(lambda x: lax.platform_dependent(x, tpu=lambda y: y @ y), x)

  def elsewhere_only(n, x):
    free = lambda y: y + 1  # noqa: E731
    body = lambda i, y: lax.platform_dependent(  # noqa: E731
      y, tpu=lambda y: y @ x, default=free
    )
    return lax.fori_loop(0, n, body, x)

  assert total(elsewhere_only, 5, x) == 0


def test_a_running_count_computes_what_the_program_computes():
  """Branches inside scans (also reversed ones), loops, jits: same values."""
  seen = {}

  def fn(x, key):
    def body(c, row):
      c = lax.cond(row.sum() > 0, lambda: c @ x, lambda: c + 1)
      return c, (c.sum(), row * 2)

    carry, (sums, rows) = lax.scan(body, x, x, reverse=True)
    looped = lax.while_loop(
      lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.tanh(s[1] @ x)), (0, carry)
    )[1]
    noise = jax.random.normal(key, x.shape)
    inner = jax.jit(lambda a: lax.cond(a[0, 0] > 0, lambda: a @ a, lambda: a))
    return {'sums': sums, 'rows': rows, 'end': inner(looped + noise)}

  def recorded(x, key):
    out = fn(x, key)
    jax.debug.callback(lambda o: seen.update(o), out)
    return out

  x = np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)
  key = jax.random.key(3)
  cost.count_macs(recorded, x, key, run=True)
  jax.effects_barrier()
  expected = fn(x, key)
  for name in expected:
    np.testing.assert_allclose(seen[name], expected[name], rtol=2e-5)


def test_resizing_counts_in_its_scope_only():
  def fn(x):
    with jax.named_scope('bilinear'):
      y = x * 0.5 + x * 0.25
    return y * 3 + x @ x

  count = cost.count_macs(fn, shape(4, 4))
  assert count == {'bilinear': 32, '': 64}
  assert total(jax.vmap(fn), shape(2, 4, 4)) == 2 * (32 + 64)


@pytest.mark.parametrize('dilation', [1, 3])
def test_a_depthwise_convolution_counts_the_same_in_every_form(dilation):
  x, kernel = jnp.ones((2, 6, 7, 3)), jnp.ones((5, 5, 3))

  def written(x, kernel):
    return ops.depthwise(x, kernel, dilation=dilation)

  for run in (False, True):
    assert total(written, x, kernel, run=run) == 25 * x.size
  # Neither is the dearest of several, nor that of this platform only.
  equations = jax.make_jaxpr(written)(x, kernel).eqns
  assert not any(macs._depends(eqn, '') for eqn in equations)


def test_what_cannot_be_seen_is_refused():
  def fn(x):
    out = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda y: y, out, x)

  with pytest.raises(ValueError, match='pure_callback'):
    total(fn, shape(4))


# -------------------------------------------------------------------- by part


def test_parts_are_the_submodules():
  import flax.linen as nn

  class Block(nn.Module):
    def setup(self):
      self.conv = nn.Conv(4, (3, 3), use_bias=False)
      self.dense = nn.Dense(2)

    def __call__(self, x):
      return self.work(self.conv(x))

    def work(self, x):
      return self.dense(x)

  class Net(nn.Module):
    def setup(self):
      self.first, self.second = Block(), Block()
      self.router = nn.Dense(1)

    def __call__(self, x):
      on = self.router(x.mean((1, 2)))[0, 0] > 0
      a, b = self.first(x), self.second(x)
      return jnp.where(on, a, b) + x @ jnp.ones((4, 2))

  net = Net()
  x = jnp.ones((1, 8, 8, 4))
  variables = net.init(jax.random.key(0), x)
  block = 64 * 4 * 4 * 9 + 64 * 4 * 2
  expected = {'first': block, 'router': 4, 'second': block, 'other': 64 * 8}
  count = cost.count_macs(net.apply, variables, x)
  assert cost.by_part(count, variables['params']) == expected
  # Behind jit, remat and cond the parts are still known.
  jitted = jax.jit(jax.checkpoint(net.apply))

  def chosen(k, v, x):
    return lax.cond(k, jitted, lambda v, x: x[..., :2], v, x)

  for run in (False, True):
    count = cost.count_macs(chosen, True, variables, x, run=run)
    assert cost.by_part(count, variables['params']) == expected
  grad = jax.grad(lambda v: jnp.sum(net.apply(v, x)))
  count = cost.by_part(cost.count_macs(grad, variables), variables['params'])
  assert count['first'] == count['second'] > block
  sizes = cost.parameters(variables)
  assert sizes == {'first': 144 + 10, 'second': 154, 'router': 5}


# ---------------------------------------------------------------------- DMVFN

# Height, width: G of all nine blocks with resizing, and of the router, of the
# published network (counted with fvcore).
DMVFN = {
  (512, 1024): (24.523, 5.755),
  (256, 832): (9.962, 2.338),
  (256, 448): (5.364, 1.259),
  (720, 1280): (43.107, 10.115),
  (480, 864): (19.398, 4.552),
}
DMVFN_BLOCKS = {(512, 1024): (2.632, 2.519, 3.023)}


@pytest.fixture(scope='module')
def published():
  system = systems.make(
    'dmvfn',
    frames=systems.Frames((0, 1), (2,)),
    formulation='published',
    inference_routing='threshold',
  )
  clip = shape(1, 3, 64, 64, 3)
  return system, jax.eval_shape(system.init, jax.random.key(0), clip)


@pytest.mark.parametrize('size', DMVFN)
def test_dmvfn_costs_what_the_published_network_does(published, size):
  system, variables = published
  count = cost.by_part(
    cost.count_macs(
      system.predict, variables, shape(1, 2, *size, 3), jax.random.key(0)
    ),
    variables['params'],
  )
  blocks, router = DMVFN[size]
  assert count.pop('router') / 1e9 == pytest.approx(router, rel=5e-3)
  assert set(count) == {f'block_{i}' for i in range(9)}
  assert sum(count.values()) / 1e9 == pytest.approx(blocks, rel=5e-3)
  for third, expected in enumerate(DMVFN_BLOCKS.get(size, ())):
    for i in range(3):
      macs = count[f'block_{3 * third + i}']
      assert macs / 1e9 == pytest.approx(expected, rel=5e-3)


# -------------------------------------------------------------------- APR-VFI


def test_patches_are_counted_where_they_are_processed():
  settings = dict(
    frames=systems.Frames((0, 2), (1,)),
    patch=16,
    widths=(12, 8, 10),
    depths=(2, 2, 1),
    features=8,
    context_channels=2,
    context_hidden=8,
    levels=1,
    keep_ratios=(0.25, 0.6),
  )
  routed = systems.make('apr_vfi', **settings, inference_routing='ratios')
  video = np.random.default_rng(0).integers(
    0, 256, (1, 3, 64, 80, 3), dtype=np.uint8
  )
  variables = jax.jit(routed.init)(runtime.key(0), video)
  key, pair = jax.random.key(0), video[:, ::2] / np.float32(255)
  names = ['block_0', 'block_1', 'block_2', 'router']

  def parts(system, run):
    count = cost.count_macs(system.predict, variables, pair, key, run=run)
    return cost.by_part(count, names)

  full, taken = parts(routed, False), parts(routed, True)
  # 20 patches; 8 at a time, and the last of these may be there twice.
  assert jax.default_backend() == 'cpu'
  chunks = {1: 8, 2: 16}  # 5 and 12 of them
  for block, patches in chunks.items():
    name = f'block_{block}'
    assert taken[name] / full[name] == patches / 24
  for name in ('block_0', 'router', 'other'):
    assert taken[name] == full[name] > 0
  dense = systems.make('apr_vfi', **settings | {'synthesis': 'patches'})
  dense = cost.by_part(
    cost.count_macs(
      lambda v, x: dense.loss(v, x, key)[1][1]['psnr'],
      variables,
      np.float32(video / 255),
    ),
    names,
  )
  for name in ('block_0', 'block_1', 'block_2', 'other'):
    assert full[name] == dense[name] * (24 / 20 if name in names[1:3] else 1)
