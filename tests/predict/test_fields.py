"""Physical fields in their units, as arrays and as files."""

import jax
import numpy as np
import pytest

from tests.predict.toys import (
  VARIABLES,
  clip_of,
  damped,
  make,
  noisy,
  straight,
)  # fmt: skip
from vidpred_jax import checkpoint, systems
from vidpred_jax.predict import __main__ as predict
from vidpred_jax.predict import predictor
from vidpred_jax.systems import base

KNOWN = base.DataSpec(
  'field',
  variables=('t2m', 'z500'),
  units='K, m^2/s^2',
  mean=(280.0, 5e4),
  std=(9.0, 700.0),
)
FIELD = np.array(KNOWN.mean), np.array(KNOWN.std)


def fields_of(length, height=20, width=28):
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(length, height, width, 2))
  return (FIELD[0] + FIELD[1] * noise).astype(np.float32)


@pytest.mark.parametrize('tile', [None, (16, 16)])
def test_fields_are_predicted_in_units_of_their_own(tile):
  """A linear motion is the same in any units; nothing is clipped or rounded."""
  system = make(damped)._replace(channels=2, data=KNOWN)
  serve = predictor.Predictor(system, VARIABLES, tile=tile, overlap=8)
  clip = fields_of(3)
  got = serve.predict(clip, 3)
  assert got.shape == (3, 20, 28, 2) and got.dtype == np.float32
  a, b = clip[-2:].astype(float)
  for frame in got:
    a, b = b, b + 0.5 * (b - a)
    np.testing.assert_allclose(frame, b, rtol=1e-5)


def test_a_system_of_fields_sees_them_normalised():
  seen = []

  def keep(x, context, key):
    del x, key
    jax.debug.callback(lambda c: seen.append(np.array(c)), context)
    return context[:, -1:]

  system = make(keep, multiple=4)._replace(channels=2, data=KNOWN)
  predictor.Predictor(system, VARIABLES).predict(fields_of(2), 1)
  jax.effects_barrier()
  expected = (fields_of(2).astype(float) - FIELD[0]) / FIELD[1]
  np.testing.assert_allclose(seen[0][0], expected, atol=1e-4)


def test_futures_of_fields_vary_in_their_units():
  system = make(noisy, stochastic=True)._replace(channels=2, data=KNOWN)
  serve = predictor.Predictor(system, VARIABLES)
  futures = serve.samples(fields_of(2), 1, 3)
  np.testing.assert_array_equal(futures.mean, futures.frames.mean(0))
  np.testing.assert_array_equal(futures.spread, futures.frames.std(0))
  ratio = futures.spread[..., 1].mean() / futures.spread[..., 0].mean()
  assert 66 < ratio < 90  # 700 / 9


@pytest.mark.parametrize(
  'clip, message',
  [
    (clip_of(2, channels=2), 'floating.*got uint8'),
    (list(clip_of(2, channels=2)), 'floating.*got uint8'),
    (np.full((2, 8, 8, 2), np.nan, np.float32), 'not finite'),
  ],
)
def test_what_is_no_field_is_refused(clip, message):
  serve = predictor.Predictor(
    make(damped)._replace(channels=2, data=KNOWN), VARIABLES
  )
  with pytest.raises(ValueError, match=message):
    serve.predict(clip, 1)


def test_a_loaded_system_of_fields_is_served_in_their_units(tmp_path):
  """What an export says of its clips goes where its weights go."""
  frames = base.Frames((0, 1), (2, 3))
  settings = {'channels': 2, 'hid_s': 4, 'hid_t': 8, 'n_s': 2, 'n_t': 2}
  system = systems.make('simvp', frames=frames, **settings)
  clip = fields_of(2, 8, 12)
  video = np.zeros((1, 4, 8, 12, 2), np.float32)
  variables = jax.jit(system.init)(jax.random.key(0), video)
  checkpoint.save_system(
    tmp_path / 'a',
    system='simvp',
    settings=settings,
    frames=frames,
    variables=variables,
    data=KNOWN,
  )
  given = ((clip - FIELD[0]) / FIELD[1]).astype(np.float32)[None]
  expected = jax.jit(system.predict)(variables, given, jax.random.key(0))[0]
  expected = np.float64(expected) * FIELD[1] + FIELD[0]
  for serve in (
    predictor.Predictor.load(tmp_path / 'a'),
    predictor.Predictor(*checkpoint.load(tmp_path / 'a')),
    predictor.Predictor.load(tmp_path / 'a', max_pixels=4096, dtype='float32'),
  ):
    assert serve.system.data == KNOWN
    got = serve.predict(clip, 2)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
  with pytest.raises(ValueError, match='floating.*got uint8'):
    serve.predict(clip_of(2, 8, 12, channels=2), 2)


# ---------------------------------------------------------------------- files


def loaded():
  return straight(data=KNOWN, channels=2)


def hours(length=5):
  rng = np.random.default_rng(0)
  fields = KNOWN.mean + rng.normal(size=(length, 11, 13, 2)) * KNOWN.std
  return fields.astype(np.float32)


def test_fields_go_from_arrays_to_arrays(tmp_path):
  clip = hours()
  last, step = clip[-1].astype(float), clip[-1].astype(float) - clip[-2]
  expected = np.stack([last + step, last + 2 * step])
  np.save(tmp_path / 'in.npy', clip)
  t2m, z500 = np.moveaxis(clip, -1, 0)
  np.savez(tmp_path / 'in.npz', z500=z500, t2m=t2m, time=np.arange(5))
  for source, output in (('in.npy', 'a.npy'), ('in.npz', 'a.npz')):
    paths = tmp_path / source, tmp_path / output
    assert predict.predict_field(loaded, *paths, num_frames=2) == 2
    got = np.load(paths[1])
    if output == 'a.npz':
      got = np.stack([got[name] for name in KNOWN.variables], -1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    with pytest.raises(FileExistsError, match=output):
      predict.predict_field(loaded, *paths)
    predict.predict_field(loaded, *paths, overwrite=True)
  assert np.load(tmp_path / 'a.npy').shape == (1, 11, 13, 2)
  assert len(list(tmp_path.iterdir())) == 4


def test_one_variable_needs_no_axis(tmp_path):
  known = KNOWN._replace(mean=(280.0,), std=(9.0,), variables=('t2m',))
  np.save(tmp_path / 'in.npy', hours()[..., 0])
  load = lambda: straight(data=known, channels=1)  # noqa: E731
  paths = tmp_path / 'in.npy', tmp_path / 'out.npy'
  predict.predict_field(load, *paths, num_frames=3)
  assert np.load(paths[1]).shape == (3, 11, 13)


@pytest.mark.parametrize(
  'array, message',
  [
    (hours()[..., :1], r'has 1 arrays.*each of t2m, z500'),
    (hours()[0], 'each of t2m, z500'),
    (hours()[:1], '1 frame'),
    (hours().astype(str), 'expected numbers'),
    (np.array([{}]), 'damaged or no npy'),
  ],
)
def test_other_arrays_are_refused(array, message, tmp_path):
  np.save(tmp_path / 'in.npy', array)
  with pytest.raises(ValueError, match=message):
    predict.predict_field(loaded, tmp_path / 'in.npy', tmp_path / 'out.npy')
  assert [p.name for p in tmp_path.iterdir()] == ['in.npy']


@pytest.mark.parametrize(
  'paths', [('in.mp4', 'out.npy'), ('in.npy', 'out.gif'), ('in', 'out')]
)
def test_fields_are_no_videos(paths, tmp_path):
  paths = [tmp_path / path for path in paths]
  with pytest.raises(ValueError, match='learned from physical fields.*t2m'):
    predict.predict_field(loaded, *paths)
