"""Every route of a small DMVFN."""

import jax
import numpy as np
import pytest

from experiments import routes
from vidpred_jax import checkpoint, losses, runtime, systems
from vidpred_jax.models import dmvfn, initial


@pytest.fixture(scope='module')
def small():
  model = dmvfn.DMVFN(scales=(2, 1), widths=(8, 8), router_outputs=0)
  pair = jax.ShapeDtypeStruct((1, 2, 16, 16, 3), np.float32)
  return model, initial.draw(runtime.key(0), model, pair)['params']


def test_a_route_gives_what_the_network_gives_with_these_gates(small):
  model, params = small
  video = np.random.default_rng(0).random((2, 3, 16, 16, 3), np.float32)
  got = routes.losses_of_routes(model, params, video)
  assert got.shape == (2, 4)

  @jax.jit
  def expected(gates):
    shown = model.apply({'params': params}, video[:, :2], gates).frames[-1]
    return losses.laplacian(shown, video[:, 2])

  for s, gates in enumerate(routes.all_routes(2)):
    gates = np.tile(np.float32(gates), (2, 1))
    np.testing.assert_allclose(got[:, s], expected(gates), rtol=1e-4)


def test_the_command_finds_what_there_is_to_route(small, tmp_path, capsys):
  model, params = small
  settings = {'scales': (2, 1), 'widths': (8, 8), 'routing': 'none'}
  frames = systems.Frames((0, 1), (2,))
  checkpoint.save_system(
    tmp_path / 'a',
    system='dmvfn',
    settings=settings,
    frames=frames,
    variables={'params': jax.device_get(params)},
  )
  found = routes.measured(tmp_path / 'a', clips=6, size=16, max_speed=2.0)
  assert found.loss.shape == (6, 4) and set(found.third) == {0, 1, 2}
  # Slow clips want the first block, all others the second.
  loss = np.where(found.third[:, None] == 0, [3.0, 2, 1, 1], [3.0, 1, 2, 1])
  text = routes.table(found._replace(loss=loss))
  assert '  1: 01 1.3333, 10 01 01 1.0000, 1.0000' in text
  with pytest.raises(ValueError, match='multiple of 8'):
    routes.measured(tmp_path / 'a', clips=6, size=20, max_speed=2.0)


def made(loss, motion):
  rng = np.random.default_rng(0)
  return routes.Losses(
    routes.all_routes(2),
    np.float32(loss),
    rng.random((len(motion), 8, 8, 6), np.float32),
    motion,
    np.digitize(motion, np.quantile(motion, [1 / 3, 2 / 3])),
  )


def test_there_is_something_to_route_where_losses_follow_the_motion():
  found = made(np.zeros((9, 4)), np.linspace(0.1, 9, 9))
  best = routes.with_something_to_route(found).loss[:, 1:3].argmin(1)
  assert list(best) == [0] * 4 + [best[4]] + [1] * 4


@pytest.mark.parametrize('standardised', [True, False])
def test_a_router_that_is_trained_finds_the_block_that_helps(standardised):
  loss = np.tile([2.0, 3.0, 1.0, 2.0], (16, 1))  # the second block harms
  found = made(loss, np.linspace(0.1, 9, 16))
  gates, clips = routes.trained_routes(
    found, runtime.key(0), steps=60, standardised=standardised, rate=1e-2
  )
  assert list(clips) == [3, 7, 11, 15]
  assert gates.tolist() == [[1, 0]] * 4
  assert routes.told(found, gates, clips) == (
    '1 routes, loss 1.0000, use of blocks: slow 1.00 0.00; medium 1.00 0.00; '
    'fast 1.00 0.00'
  )
