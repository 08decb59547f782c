"""Weight files that are small and mean harm, or damaged, end soon in words."""

import os
import pathlib
import resource
import time

import numpy as np
import pytest

from tests.convert import harm
from vidpred_jax import convert
from vidpred_jax.convert import weights


@pytest.mark.parametrize('name', harm.HARMFUL)
def test_a_harmful_file_ends_soon_and_in_words(name, tmp_path):
  path = tmp_path / 'x.pth'
  path.write_bytes(harm.HARMFUL[name]())
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  start = time.time()
  with pytest.raises(ValueError) as error:
    convert.from_torch('dmvfn', convert.read_torch(path))
  assert time.time() - start < 20
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert after - before < 600 << 10  # kB
  assert len(str(error.value)) < 3000


@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_what_is_no_file_is_refused(kind, tmp_path):
  path = {'pipe': tmp_path / 'p', 'device': '/dev/zero', 'folder': tmp_path}
  if kind == 'pipe':
    os.mkfifo(path[kind])
  with pytest.raises(ValueError, match='no ordinary'):
    convert.read_torch(path[kind])


def test_every_damaged_byte_of_a_file_ends_in_words(tmp_path):
  """Flipped, cut and filled: pickles in zip and before, npz."""
  rng = np.random.default_rng(0)
  good = harm.good_zip()
  path = tmp_path / 'x'
  path.write_bytes(good)
  assert convert.read_torch(path)['w'].shape == (2, 2)
  files = pathlib.Path(__file__).parent / 'torch_files'
  legacy = (files / 'legacy.pth').read_bytes()
  for content in (good, harm.npz(), legacy):
    for n in range(600):
      damaged = bytearray(content)
      at = int(rng.integers(len(damaged)))
      if n % 3 == 0:
        damaged[at] ^= 1 << int(rng.integers(8))
      elif n % 3 == 1:
        del damaged[at:]
      else:
        damaged[at : at + 8] = rng.bytes(8)
      path.write_bytes(damaged)
      try:
        convert.read_torch(path)
      except ValueError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_taken_when_asked_for(value, tmp_path):
  """Real numbers that are too large for float32 are not finite there."""
  names = {'w': ('params/w', 'vector')}
  expected = {'params': {'w': np.zeros(2, np.float32)}}
  found = weights.rearrange(names, {'w': np.array([value, 0.0])}, expected)
  assert not np.isfinite(found['params']['w']).all()


def test_published_weights_are_looked_at_too(shared):
  flow = shared / 'data' / 'weights' / 'ebme' / 'ebme_bi-flownet.pkl'
  arrays = dict(convert.read_torch(flow))
  name = next(iter(arrays))
  arrays[name] = np.full_like(arrays[name], np.nan)
  with pytest.raises(ValueError, match='1 of .* not finite.*allow_nonfinite'):
    convert.from_torch('apr_vfi', arrays, synthesis='warp')
  convert.from_torch('apr_vfi', arrays, synthesis='warp', allow_nonfinite=True)
