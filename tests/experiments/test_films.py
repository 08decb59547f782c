import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import vidpred_jax as vp
from vidpred_jax import checkpoint, video_io

# The scripts belong to the clone, not to what is installed.
ROOT = str(pathlib.Path(__file__).resolve().parents[2])


@pytest.fixture(scope='module')
def films():
  sys.path.insert(0, ROOT)
  try:
    from experiments import films
  finally:
    sys.path.remove(ROOT)
  return films


@pytest.fixture(scope='module')
def plain(films):
  return films.plain


def moving(seed, length, speed, size=(48, 64)):
  """A smooth texture that moves `speed` pixels a frame to the right."""
  rng = np.random.default_rng(seed)
  waves = rng.uniform(0.1, 0.5, (6, 2)), rng.uniform(0, 6, 6)
  y, x = np.indices(size)
  clip = []
  for t in range(length):
    places = [
      np.sin(b * y + a * (x - speed * t) + c) for (a, b), c in zip(*waves)
    ]
    grey = 128 + 20 * np.sum(places, 0)
    clip.append(np.stack([grey, 0.8 * grey, 255 - grey], -1))
  return np.clip(clip, 0, 255).round().astype(np.uint8)


def write(path, clip):
  path.mkdir()
  for number, frame in enumerate(clip):
    Image.fromarray(frame).save(path / f'{number}.png')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Folders of pictures, so without loss: moving ones, one too short."""
  root = tmp_path_factory.mktemp('films')
  write(root / 'fast', moving(0, 16, 2.0))
  write(root / 'slow', moving(1, 16, 0.5))
  write(root / 'short', moving(2, 4, 1.0))
  write(root / 'still', np.repeat(moving(3, 1, 0), 16, 0))
  return root


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A small DMVFN that routes."""
  path = tmp_path_factory.mktemp('weights') / 'small'
  frames = vp.Frames((0, 1), (2,))
  settings = dict(scales=(2, 1), widths=(8, 8), router_scale=2)
  system = vp.make('dmvfn', frames=frames, **settings)
  clip = np.zeros((1, 3, 16, 16, 3), np.float32)
  checkpoint.save_system(
    path,
    system='dmvfn',
    settings=settings,
    frames=frames,
    variables=jax.jit(system.init)(jax.random.key(0), clip),
  )
  return path


def test_the_command(films, folder, weights, tmp_path, capsys):
  output = tmp_path / 'films.json'
  films.main(
    [
      f'--videos={folder}',
      f'--checkpoint={weights}',
      '--size=32x48',
      '--horizons=1,3',
      '--windows=3',
      '--routes',
      f'--output={output}',
    ]
  )
  result = json.loads(output.read_text())
  by = {'copy', 'small'} | ({'dis'} if films.plain.has_opencv() else set())
  assert set(result['summary']) == {'t+1', 't+3', 'distance 2', 'distance 4'}
  assert set(result['summary']['t+3']) == by
  assert set(result['summary']['distance 2']) == by - {'copy', 'small'} | {
    'average'
  }
  measured = {pathlib.Path(row['film']).name for row in result['films']}
  assert measured == {'fast', 'slow', 'short'}
  # Four frames are enough for one in the middle of three only.
  of_short = {
    row['label'] for row in result['films'] if row['film'].endswith('short')
  }
  assert of_short == {'distance 2'}
  why = {
    pathlib.Path(row['film']).name: row['why'] for row in result['left_out']
  }
  assert 'twice' in why['still'] and 'has 5 frames' in why['short']
  # Six windows of prediction, two a quarter but where they do not divide.
  clips = [row['clips'] for row in result['routes']['small']]
  motion = [row['motion'] for row in result['routes']['small']]
  assert sum(clips) == 6 and motion == sorted(motion)
  assert all(0 <= row['blocks'] <= 2 for row in result['routes']['small'])
  printed = capsys.readouterr().out
  for row in result['films']:
    assert f'{row["psnr/round8"]:.2f}' in printed


def test_repeated_frames_can_be_kept(films, folder):
  options = ['--size=own', '--horizons=1', '--distances=', '--keep-repeated']
  result = films.run(films.parse([f'--videos={folder / "still"}', *options]))
  assert result['summary']['t+1']['copy']['psnr/round8']['mean'] == 60
  assert result['films'][0]['windows'] == 12


def test_numbers_are_those_of_the_frames(films, folder):
  options = ['--size=own', '--horizons=2', '--distances=4', '--windows=2']
  result = films.run(films.parse([f'--videos={folder / "slow"}', *options]))
  clip = video_io.read(folder / 'slow').astype(np.float64)

  def psnr(made, truth):
    return -10 * np.log10(np.mean((made - truth) ** 2) / 255**2)

  expected = {
    # First and last window of four frames, and of five.
    't+2': np.mean([psnr(clip[i + 1], clip[i + 3]) for i in (0, 12)]),
    'distance 4': np.mean(
      [psnr(np.rint((clip[i] + clip[i + 4]) / 2), clip[i + 2]) for i in (0, 11)]
    ),
  }
  for row in result['films']:
    if row['by'] in ('copy', 'average'):
      np.testing.assert_allclose(
        row['psnr/round8'], expected[row['label']], rtol=1e-5
      )


def test_optical_flow_carries_on_and_restores(plain):
  pytest.importorskip('cv2')
  clip = moving(0, 12, 2.0)
  inner = (slice(None), slice(8, -8), slice(16, -8))
  ahead = plain.dis_onwards(clip[:2], 3)
  between = plain.dis_between(clip[[0, 2]], 1)

  def error(made, truth):
    return np.abs(made[inner].astype(float) - truth[inner]).mean()

  for k in range(3):
    copied = error(clip[1:2], clip[2 + k : 3 + k])
    assert error(ahead[k : k + 1], clip[2 + k : 3 + k]) < 0.3 * copied
  assert error(between, clip[1:2]) < 0.3 * error(
    plain.average(clip[[0, 2]], 1), clip[1:2]
  )


def test_bootstrap_and_shares(films):
  rows = [
    {'label': 't+1', 'by': by, 'psnr/round8': p, 'ssim/pmss': 0.5, 'ms': 1.0}
    for by, values in {'copy': (20, 30, 40), 'ours': (21, 29, 43)}.items()
    for p in values
  ]
  found = films.summary(rows)['t+1']
  psnr = found['ours']['psnr/round8']
  assert psnr['mean'] == 31 and psnr['gain'] == 1 and psnr['least_gain'] == -1
  assert psnr['best'] == pytest.approx(2 / 3)
  low, high = psnr['interval']
  assert 21 <= low < 31 < high <= 43
  assert films.summary(rows) == films.summary(rows)
  assert found['copy']['ssim/pmss']['best'] == 1  # equally good


def test_what_cannot_be_asked(films, folder, weights, capsys):
  for wrong in ('--distances=3', '--horizons=0', '--windows=0'):
    with pytest.raises(SystemExit):
      films.parse([f'--videos={folder}', wrong])
  assert 'even' in capsys.readouterr().err
  with pytest.raises(FileNotFoundError, match='no videos'):
    films.run(films.parse([f'--videos={folder / "none"}']))
  with pytest.raises(ValueError, match='right after'):
    films.check_steps('x', vp.Frames((0, 2), (4,)))
