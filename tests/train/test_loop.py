import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from vidpred_jax import (
  build,
  checkpoint,
  command,
  data,
  params,
  runtime,
  systems,
)
from vidpred_jax.data import pipeline
from vidpred_jax.evaluate import run as evaluation
from vidpred_jax.train import loop, optim, update
from vidpred_jax.train import workdir as folder

FRAMES = systems.Frames((0, 1), (2,))


def smoke_config(name):
  return command.configuration(command.config_file(f'{name}:smoke'))


def tiny_config(**changes):
  """A run of the toy on clips of 32x32."""
  config = smoke_config('dmvfn')
  config.system, config.model = 'toy', ConfigDict()
  config.data.size = (32, 32)
  config.update_from_flattened_dict(changes)
  return config


def setup(rule, ema=None, **settings):
  system = systems.make('toy', frames=FRAMES, **settings)
  video = jax.random.uniform(jax.random.key(5), (8, 3, 32, 32, system.channels))
  variables = jax.jit(system.init)(runtime.key(0), video)
  state = update.TrainState(
    jnp.int32(0),
    variables['params'],
    {},
    rule.init(variables['params']),
    variables['params'] if ema else {},
  )
  return system, state, video


def close(a, b, **kwargs):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      np.asarray(x, np.float32), np.asarray(y, np.float32), **kwargs
    ),
    a,
    b,
  )


# ------------------------------------------------------------------ the step


def test_accumulated_micro_batches_are_one_batch():
  rule = optax.sgd(0.1)
  system, state, video = setup(rule, draws=False)
  whole, values = jax.jit(update.make_train_step(system, rule))(
    state, {'video': video}, jax.random.key(0)
  )
  parts, others = jax.jit(update.make_train_step(system, rule, accumulate=4))(
    state, {'video': video}, jax.random.key(0)
  )
  close(whole.params, parts.params, atol=1e-6)
  close(values['loss'], others['loss'], rtol=1e-5)
  close(values['grad_norm'], others['grad_norm'], rtol=1e-4)


def test_images_may_be_uint8():
  rule = optax.sgd(0.1)
  system, state, video = setup(rule)
  video = jnp.round(video * 255).astype(jnp.uint8)
  step = jax.jit(update.make_train_step(system, rule))
  _, a = step(state, {'video': video}, jax.random.key(0))
  _, b = step(
    state, {'video': video.astype(jnp.float32) / 255}, jax.random.key(0)
  )
  close(a['loss'], b['loss'], rtol=1e-6)


def test_ema_follows_the_parameters():
  rule = optax.sgd(0.1)
  system, state, video = setup(rule, ema=True)
  ema = {'decay': 0.75, 'every': 1, 'start': 0}
  step = jax.jit(update.make_train_step(system, rule, ema=ema))
  new, _ = step(state, {'video': video}, jax.random.key(0))
  expected = jax.tree.map(
    lambda old, new: 0.75 * old + 0.25 * new, state.params, new.params
  )
  close(new.ema, expected, atol=1e-6)


def test_the_key_of_a_step_is_a_function_of_the_step():
  rule = optax.sgd(0.0)
  system, state, video = setup(rule)
  step = jax.jit(update.make_train_step(system, rule))
  later = state._replace(step=jnp.int32(11))
  losses = [
    float(step(s, {'video': video}, jax.random.key(0))[1]['loss'])
    for s in (state, state, later)
  ]
  assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize('shard_params', [False, True])
def test_eight_devices_train_like_one(shard_params):
  rule = optax.adam(1e-3)
  # So wide that there are arrays to split.
  system, state, video = setup(rule, channels=24)
  # Adam's first step is the sign of the gradient: compare after SGD instead.
  rule = optax.sgd(0.1)
  state = state._replace(opt_state=rule.init(state.params))
  step = update.make_train_step(system, rule)
  results = []
  for devices in (jax.devices()[:1], jax.devices()):
    mesh = runtime.mesh(devices)
    places = update.shardings(state, mesh, shard_params=shard_params)
    placed = jax.device_put(state, places)
    clip = jax.device_put(video, runtime.batch_sharding(mesh))
    new, values = jax.jit(step)(placed, {'video': clip}, jax.random.key(0))
    results.append(jax.device_get((new.params, values)))
  close(results[0], results[1], atol=2e-6, rtol=2e-5)


def test_shard_params_really_splits_the_large_arrays():
  mesh = runtime.mesh()
  state = update.TrainState(
    jnp.int32(0),
    {'kernel': jnp.zeros((3, 3, 64, 24)), 'bias': jnp.zeros((24,))},
    {},
    (),
    {},
  )
  placed = jax.device_put(
    state, update.shardings(state, mesh, shard_params=True)
  )
  kernel = placed.params['kernel'].addressable_shards[0].data
  assert kernel.shape == (3, 3, 8, 24)
  assert placed.params['bias'].addressable_shards[0].data.shape == (24,)


# ------------------------------------------------------------------- the run


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'a'
  config = tiny_config(steps=4, checkpoint_every=2, log_every=1)
  assert loop.run(config, workdir)
  return config, workdir


def test_a_run_leaves_what_the_readme_says(finished):
  _, workdir = finished
  names = {p.name for p in workdir.iterdir()}
  assert {'config.json', 'checkpoints', 'metrics.jsonl', 'export'} <= names
  assert checkpoint.read_data_spec(workdir) == systems.DataSpec()
  assert any(name.startswith('events') for name in names)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  logged = [json.loads(line) for line in lines]
  assert [x['step'] for x in logged] == [1, 2, 3, 4]
  assert all(np.isfinite(x['loss']) for x in logged)


def test_weights_can_be_loaded_from_the_run(finished):
  config, workdir = finished
  system, variables = checkpoint.load(workdir)
  # What it is for, not what it was trained on.
  assert config.frames.target == (2,)
  assert config.eval.frames.target == (2, 3)
  assert system.frames == ((0, 1), (2, 3))
  _, exported = checkpoint.load(workdir / 'export')
  jax.tree.map(np.testing.assert_array_equal, variables, exported)


def test_an_interrupted_run_goes_on_bit_for_bit(
  finished, tmp_path, monkeypatch
):
  config, workdir = finished
  original = loop.checkpoint.save

  def save_then_die(saved, step, *args, **kwargs):
    original(saved, step, *args, **kwargs)
    if step == 2:
      raise RuntimeError('the plug was pulled')

  with monkeypatch.context() as patch:
    patch.setattr(loop.checkpoint, 'save', save_then_die)
    with pytest.raises(RuntimeError, match='pulled'):
      loop.run(config, tmp_path / 'b')
  assert not (tmp_path / 'b' / 'export').exists()
  before, _ = checkpoint.load(tmp_path / 'b')  # an unfinished run loads too
  assert before.frames == ((0, 1), (2, 3))
  assert loop.run(config, tmp_path / 'b')
  _, a = checkpoint.read(workdir)
  _, b = checkpoint.read(tmp_path / 'b')
  jax.tree.map(np.testing.assert_array_equal, a, b)
  logs = [
    [json.loads(x) for x in (d / 'metrics.jsonl').read_text().splitlines()]
    for d in (workdir, tmp_path / 'b')
  ]
  for line in logs[0] + logs[1]:  # the clock is another
    for name in ('clips_per_second', 'epoch_seconds', 'data_wait'):
      line.pop(name, None)
  assert logs[0] == logs[1]


def test_a_finished_run_does_not_train_again(finished):
  config, workdir = finished
  before = (workdir / 'metrics.jsonl').read_text()
  assert loop.run(config, workdir)
  assert (workdir / 'metrics.jsonl').read_text() == before


def test_the_workdir_of_another_run_is_refused_and_untouched(finished):
  _, workdir = finished
  before = sorted((p, p.stat().st_mtime_ns) for p in workdir.rglob('*'))
  with pytest.raises(ValueError, match='another run.*seed: 0 there, 1 asked'):
    loop.run(tiny_config(steps=4, seed=1), workdir)
  after = sorted((p, p.stat().st_mtime_ns) for p in workdir.rglob('*'))
  assert before == after


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
  tmp_path, monkeypatch
):
  config = tiny_config(steps=9, checkpoint_every=2)
  make = optim.make

  def exploding(parameters, schedule, **kwargs):
    rule = make(parameters, schedule, **kwargs)

    def poisoned(grads, state, values=None):
      count, inner = state
      updates, inner = rule.update(grads, inner, values)
      bad = jnp.where(count == 4, jnp.nan, 0.0)
      updates = jax.tree.map(lambda u: u + bad, updates)
      return updates, (count + 1, inner)

    return optax.GradientTransformation(
      lambda p: (jnp.int32(0), rule.init(p)), poisoned
    )

  monkeypatch.setattr(optim, 'make', exploding)
  with pytest.raises(ValueError, match='Step 5: update_norm is nan'):
    loop.run(config, tmp_path / 'a')
  with checkpoint.manager(tmp_path / 'a', read_only=True) as saved:
    assert saved.latest_step() == 4
  _, variables = checkpoint.read(tmp_path / 'a')
  for leaf in jax.tree.leaves(variables):
    assert np.isfinite(leaf).all()


def test_frozen_parts_and_init_from(finished, tmp_path):
  _, workdir = finished
  config = tiny_config(
    **{
      'steps': 2,
      'seed': 3,
      'schedule.warmup': 0,
      'init_from': str(workdir),
      'init_match': 'block_0/.*',
      'optim.frozen': ('block_0/.*',),
    }
  )
  assert loop.run(config, tmp_path / 'a')
  _, first = checkpoint.read(workdir)
  _, second = checkpoint.read(tmp_path / 'a')
  a, b = params.flatten(first['params']), params.flatten(second['params'])
  for name in a:
    assert np.array_equal(a[name], b[name]) == name.startswith('block_0/')


def test_batch_statistics_come_along_with_init_from(tmp_path):
  config = tiny_config(
    **{
      'steps': 1,
      'schedule.name': 'constant',
      'schedule.peak': 1e-9,
      'schedule.warmup': 0,
    }
  )
  config.model = ConfigDict({'statistics': True})
  assert loop.run(config, tmp_path / 'a')
  config.init_from = str(tmp_path / 'a')
  assert loop.run(config, tmp_path / 'b')
  first, second = (
    params.flatten(checkpoint.read(tmp_path / x)[1]['batch_stats'])
    for x in 'ab'
  )
  for name, got in second.items():
    # Both steps saw the same batch; the first began with 0.
    assert first[name].min() > 0
    np.testing.assert_allclose(got, 1.9 * first[name], rtol=1e-5)


def test_the_best_checkpoint_is_exported(tmp_path):
  config = tiny_config(
    **{
      'steps': 6,
      'keep': 1,
      'checkpoint_every': 100,
      'eval.every': 2,
      'eval.best': 'psnr/float',
      'eval.quick_limit': 8,
      'data.val_fraction': 0.2,
      'schedule.peak': 0.05,
    }
  )
  assert loop.run(config, tmp_path / 'a')
  lines = (tmp_path / 'a' / 'metrics.jsonl').read_text().splitlines()
  found = {
    x['step']: x['psnr/float']
    for x in map(json.loads, lines)
    if 'psnr/float' in x
  }
  assert set(found) == {2, 4, 6}
  best = max(found, key=found.get)
  with checkpoint.manager(
    tmp_path / 'a', best=('psnr/float', True), read_only=True
  ) as saved:
    assert saved.best_step() == best
    state = checkpoint.restore(saved, best)
  _, exported = checkpoint.read(tmp_path / 'a' / 'export')
  jax.tree.map(
    np.testing.assert_array_equal, exported['params'], state['params']
  )


def test_a_failed_first_try_does_not_own_the_workdir(tmp_path):
  with pytest.raises(ValueError, match='batch_size is 12, which 8 devices'):
    loop.run(tiny_config(batch_size=12), tmp_path / 'a')
  assert loop.run(
    tiny_config(steps=2, **{'schedule.warmup': 0}), tmp_path / 'a'
  )


def test_a_log_line_cut_by_a_crash_does_not_stop_the_next_try(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text(
    '{"step": 1, "loss": 2.0}\n{"step": 2, "lo'
  )
  with folder.log(tmp_path, 5) as write:
    write(6, {'loss': 1.0})
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 6]


def test_frozen_nets_of_the_loss_are_not_exported(tmp_path, monkeypatch):
  monkeypatch.setitem(
    update.convert.FEATURES, 'vgg', lambda path: {'w': np.ones(3, np.float32)}
  )
  config = tiny_config(
    **{'steps': 2, 'schedule.warmup': 0, 'features.vgg': 'vgg19.pth'}
  )
  assert loop.run(config, tmp_path / 'a')
  _, variables = checkpoint.load(tmp_path / 'a')
  assert set(variables) == {'params'}
  (tmp_path / 'a' / 'export').rename(tmp_path / 'export')
  _, variables = checkpoint.load(tmp_path / 'a')  # from the checkpoints
  assert set(variables) == {'params'}


def test_fields_are_read_once_and_described_in_the_export(
  tmp_path, monkeypatch
):
  rng = np.random.default_rng(0)
  values = rng.normal(280, 9, (60, 8, 8)).astype(np.float32)
  np.savez(tmp_path / 'hours.npz', t2m=values)
  config = tiny_config(
    **{
      'steps': 2,
      'schedule.warmup': 0,
      'eval.every': 1,
      'eval.limit': 0,
      'eval.metrics': ('mae/mean',),
      'eval.show': 0,
      'schedule.peak': 1e-9,
    }
  )
  with config.unlocked():
    config.data = ConfigDict(
      {
        'source': 'weather',
        'root': str(tmp_path / 'hours.npz'),
        'val_fraction': 0.2,
      }
    )
    config.eval.data = ConfigDict()
    config.model = ConfigDict({'channels': 1})
  made, make_source = [], data.make_source

  def counted(name, **settings):
    made.append((settings['split'], settings['num_frames']))
    return make_source(name, **settings)

  for room in (data, pipeline):
    monkeypatch.setattr(room, 'make_source', counted)
  described = build.evaluation(config)
  measure = evaluation.make_measure(config, described)
  assert loop.run(config, tmp_path / 'a', measure)
  report = evaluation.run(config, tmp_path / 'a', measure)
  assert report['clips'] == len(described.source)
  assert made == [('test', 4), ('val', 4), ('train', 3)]
  spec = checkpoint.read_data_spec(tmp_path / 'a' / 'export')
  assert (spec.kind, spec.units, spec.variables) == ('field', 'K', ('t2m',))
  # Of the training split, without the fifth that is for validation.
  assert spec.mean == pytest.approx([values[:38].mean()], rel=1e-6)
  assert spec.std == pytest.approx([values[:38].std()], rel=1e-5)
  (tmp_path / 'a' / 'export').rename(tmp_path / 'export')
  assert checkpoint.read_data_spec(tmp_path / 'a') == spec
