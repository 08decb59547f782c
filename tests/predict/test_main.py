import re
import types
from fractions import Fraction
from unittest import mock

import jax
import numpy as np
import pytest

import vidpred_jax as vp
from tests import commands
from tests.predict.test_fields import KNOWN, hours
from tests.predict.toys import between, forward, moving, write
from vidpred_jax import checkpoint, runtime, systems, video_io, zoo
from vidpred_jax.predict import __main__ as predict


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A small DMVFN, as `main` would export it."""
  path = tmp_path_factory.mktemp('exported') / 'dmvfn'
  frames = systems.Frames((0, 1), (2,))
  settings = dict(scales=(2, 1), widths=(8, 8), router_scale=2)
  system = systems.make('dmvfn', frames=frames, **settings)
  clip = np.zeros((1, 3, 16, 16, 3), np.float32)
  checkpoint.save_system(
    path,
    system='dmvfn',
    settings=settings,
    frames=frames,
    variables=jax.jit(system.init)(runtime.key(0), clip),
  )
  return path


def check_refused(answer, message):
  status, out, err = answer
  assert (status, out) == (2, '')
  assert message in err.splitlines()[-1]
  assert 'Traceback' not in err


def test_the_command_predicts_a_video(exported, tmp_path):
  source = write(tmp_path / 'in.mp4', moving(5, 90, 50), fps=24)
  output = tmp_path / 'out.mp4'
  got = commands.run(
    'vidpred_jax.predict',
    f'--checkpoint={exported}',
    f'--input={source}',
    f'--output={output}',
    '--num_frames=3',
    '--overlay=flow,blocks',
  )
  assert got.returncode == 0, got.stderr
  assert '3 frames' in got.stdout
  (warning,) = got.stderr.splitlines()[:1]
  assert 'these weights were measured on 1' in warning
  info = video_io.probe(output, count=True)
  assert (info.num_frames, info.height, info.width) == (3, 90, 150)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--input=none.mp4'], 'none.mp4'),
    (['--factor=2'], '--factor'),
    (['--fps=fast'], 'expected a number'),
    (['--fps=1e400'], 'expected a number'),
    (['--checkpoint=nowhere'], 'nowhere'),
    (['--output=out.txt'], 'out.txt'),
  ],
)
def test_the_command_refuses_in_one_line(
  exported, folder, tmp_path, forks, arguments, message
):
  got = forks.run(
    'vidpred_jax.predict',
    f'--checkpoint={exported}',
    f'--input={folder}',
    f'--output={tmp_path}/out.mp4',
    *arguments,
  )
  check_refused(got, message)
  assert [p.name for p in tmp_path.iterdir()] == ['in']


@pytest.mark.parametrize('name', ['same', 'link'])
def test_the_command_never_replaces_its_input(exported, tmp_path, forks, name):
  source = write(tmp_path / 'same', moving(4))
  (tmp_path / 'link').symlink_to(source)
  before = video_io.read(source)
  got = forks.run(
    'vidpred_jax.predict',
    f'--checkpoint={exported}',
    f'--input={source}',
    f'--output={tmp_path / name}',
    '--overwrite',
  )
  check_refused(got, 'is the input')
  np.testing.assert_array_equal(video_io.read(source), before)


def test_the_command_knows_fields_from_videos(folder, tmp_path, forks):
  frames = systems.Frames((0, 1), (2, 3))
  settings = dict(hid_s=4, hid_t=8, n_s=2, n_t=2, channels=2)
  system = systems.make('simvp', frames=frames, **settings)
  clip = jax.ShapeDtypeStruct((1, 4, 8, 8, 2), np.float32)
  variables = jax.tree.map(
    lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype),
    jax.eval_shape(system.init, jax.random.key(0), clip),
  )
  weights = tmp_path / 'weights'
  checkpoint.save_system(
    weights,
    system='simvp',
    settings=settings,
    frames=frames,
    variables=variables,
    data=KNOWN,
  )
  source, output = tmp_path / 'in.npy', tmp_path / 'out.npy'
  np.save(source, hours())
  arguments = f'--checkpoint={weights}', f'--output={output}'
  got = forks.run('vidpred_jax.predict', *arguments, f'--input={folder}')
  check_refused(got, 'not from pictures')
  got = forks.run(
    'vidpred_jax.predict', *arguments, f'--input={source}', '--samples=2'
  )
  check_refused(got, '--samples')
  status, out, err = forks.run(
    'vidpred_jax.predict', *arguments, f'--input={source}', '--num_frames=3'
  )
  assert status == 0, err
  assert '3 frames' in out
  seen = (hours()[None, -2:] - KNOWN.mean) / KNOWN.std
  padded = np.pad(
    seen.astype(np.float32), [(0, 0)] * 2 + [(0, 1)] * 2 + [(0, 0)], 'edge'
  )
  predicted = jax.jit(system.predict)(variables, padded, jax.random.key(0))
  expected = np.asarray(predicted)[0, :, :11, :13] * np.float32(KNOWN.std)
  expected += np.float32(KNOWN.mean)
  np.testing.assert_allclose(np.load(output)[:2], expected, rtol=1e-4)


# ------------------------------------------- no input, no checkpoint


def asked(tmp_path, **options):
  """The flags of a command without --input."""
  usual = {'factor': None, 'num_frames': None, 'samples': None, 'seed': 0}
  usual |= {'output': str(tmp_path / 'out.mp4'), 'overwrite': False}
  return types.SimpleNamespace(**usual | options)


def test_without_input_a_film_of_known_truth_is_predicted(tmp_path, capsys):
  predict._try_out(forward, asked(tmp_path, num_frames=3), None)
  said = capsys.readouterr().out
  assert said.startswith('3 frames written')
  assert 'copies of the last frame' in said
  assert len(video_io.read(tmp_path / 'out.mp4')) == 3


def test_without_input_a_film_of_known_truth_is_interpolated(tmp_path, capsys):
  predict._try_out(between, asked(tmp_path, factor=2), None)
  said = capsys.readouterr().out
  assert said.startswith('15 frames written')
  # This system is the mean of the frames around, but for its rounding.
  ours, theirs = re.findall(r'([\d.]+) dB', said)
  assert abs(float(ours) - float(theirs)) < 0.1
  assert len(video_io.read(tmp_path / 'out.mp4')) == 15


@pytest.mark.parametrize('options', [{'samples': 2}, {'fps': Fraction(60)}])
def test_what_a_generated_film_is_not_for_is_refused(tmp_path, options):
  fps = options.pop('fps', None)
  with pytest.raises(ValueError, match='generated film'):
    predict._try_out(forward, asked(tmp_path, **options), fps)


def test_the_model_for_any_film_is_taken_by_what_is_asked():
  assert predict._FOR_ANY_FILM == {False: 'dmvfn-film', True: 'apr-vfi-film'}
  for between_frames, name in predict._FOR_ANY_FILM.items():
    if name in zoo.models():
      assert vp.load(name)[0].frames.interpolates == between_frames


@pytest.mark.parametrize('whole', [False, True])
def test_a_flag_says_that_all_of_the_picture_is_computed(whole, monkeypatch):
  given = {}
  monkeypatch.setattr(
    predict, 'predict_video', lambda *_, **settings: given.update(settings)
  )
  options = mock.Mock(
    input='a.mp4', output='b.mp4', init_every=None, seed=0, whole=whole
  )
  predict._serve(between, options, None, None, False)
  assert given['whole'] is whole
