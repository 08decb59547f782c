import json

import jax
import numpy as np

from vidpred_jax import cost, runtime, systems


def test_a_measurement_counts_the_route_that_was_taken():
  frames = systems.Frames((0, 1), (2, 3))
  settings = dict(
    frames=frames, scales=(2, 1, 1), widths=(8, 8, 8), router_scale=2
  )
  system = systems.make('dmvfn', **settings)
  video = np.random.default_rng(0).integers(
    0, 256, (2, 4, 32, 48, 3), dtype=np.uint8
  )
  variables = jax.jit(system.init)(runtime.key(0), video)
  report = cost.measure(
    system,
    variables,
    video,
    architecture=systems.make('dmvfn', formulation='published', **settings),
    repeats=2,
  )
  json.dumps(report)
  context = video[:, :2] / np.float32(255)
  _, diagnostics = jax.jit(system.diagnostics)(
    variables, context, jax.random.key(0)
  )
  used = np.asarray(diagnostics['blocks']).sum((0, 1))
  macs = report['macs']
  assert 0 < used.sum() < 12
  for i in range(3):
    # Two clips and two frames of each, in which the block ran `used` times.
    name = f'block_{i}'
    taken = macs['taken']['parts'].get(name, 0)
    assert taken == macs['full']['parts'][name] * used[i] / 4
    assert (macs['executed']['parts'].get(name, 0) > 0) == (used[i] > 0)
  assert macs['taken']['parts']['router'] == macs['full']['parts']['router'] > 0
  assert macs['taken']['per_frame'] == round(macs['taken']['total'] / 4)
  assert report['memory']['peak'] >= report['memory']['temporaries'] > 0
  assert 0 < report['latency']['min_ms'] <= report['latency']['median_ms']
  assert report['parameters']['total'] == sum(
    x.size for x in jax.tree.leaves(variables['params'])
  )
