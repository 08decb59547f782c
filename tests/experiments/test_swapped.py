"""Parts of one SimVP in another."""

import sys

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import swapped
from vidpred_jax import checkpoint, params, runtime, systems

SETTINGS = {
  'channels': 1, 'hid_s': 4, 'hid_t': 8, 'n_s': 2, 'n_t': 2,
  'translator': 'gsta',
}  # fmt: skip


def run(folder, seed, clips=0):
  """A system that was not trained, and clips as a run keeps them."""
  frames = systems.Frames((0, 1), (2, 3))
  system = systems.make('simvp', frames=frames, **SETTINGS)
  video = jax.ShapeDtypeStruct((1, 4, 16, 16, 1), np.float32)
  variables = system.init(runtime.key(seed), video)
  checkpoint.export(system, variables, folder)
  if clips:
    key = np.random.default_rng(0)
    video = key.integers(0, 256, (clips, 4, 16, 16, 1), np.uint8)
    np.savez(
      folder / 'predictions.npz', context=video[:, :2], target=video[:, 2:]
    )
  return system, variables


def test_each_part_is_that_of_the_other(tmp_path, monkeypatch, capsys):
  _, early = run(tmp_path / 'a', 0, clips=18)  # more than a batch of 16
  _, late = run(tmp_path / 'b', 1)
  output = tmp_path / 'out'
  arguments = [str(tmp_path / 'a'), str(tmp_path / 'b'), f'--output={output}']
  monkeypatch.setattr(sys, 'argv', ['swapped', *arguments])
  swapped.main()
  said = capsys.readouterr().out.splitlines()
  assert said[0].startswith('18 clips, mse/sum_chw')
  rows = {line.split()[0]: line.split()[1:] for line in said[1:6]}
  assert list(rows) == ['early', *swapped.PARTS, 'late']
  assert len({numbers[0] for numbers in rows.values()}) == 5
  assert rows['early'][1:] == ['0.000', '+-', '0.000']
  with np.load(tmp_path / 'a' / 'predictions.npz') as saved:
    context, target = (
      np.float32(saved[x]) / 255 for x in ('context', 'target')
    )
  ours, theirs = (params.flatten(x) for x in (early, late))
  for part in swapped.PARTS:
    system, variables = checkpoint.load(output / part)
    for name, leaf in params.flatten(variables).items():
      own = name.split('/')[1].startswith(part[:8])  # translation, translator
      np.testing.assert_array_equal(leaf, (theirs if own else ours)[name])
    shown = np.concatenate(
      [system.predict(variables, x[None], runtime.key(0)) for x in context]
    )
    error = np.square(shown - target).sum((2, 3, 4)).mean()
    assert float(rows[part][0]) == pytest.approx(error, abs=1e-3)
  image = np.asarray(Image.open(output / 'swapped.png'))
  assert image.shape == (6 * 16, 2 * 16, 3)
  first = np.round(255 * target[0, 0, :, :, 0])
  np.testing.assert_array_equal(image[:16, :16, 0], first)


def test_other_weights_are_refused(tmp_path, monkeypatch, capsys):
  run(tmp_path / 'a', 0)  # without clips
  monkeypatch.setattr(sys, 'argv', ['swapped', *2 * [str(tmp_path / 'a')]])
  with pytest.raises(SystemExit):
    swapped.main()
  assert 'predictions.npz does not exist' in capsys.readouterr().err
  first, second = (
    {'params': {'encoder': {'kernel': np.zeros(n)}}} for n in (2, 3)
  )
  with pytest.raises(ValueError, match=r'kernel is \(3,\), expected \(2,\)'):
    swapped.swapped(first, second)
