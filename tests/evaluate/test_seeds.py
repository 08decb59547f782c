import numpy as np
import pytest

from vidpred_jax.evaluate import seeds


def result(*values):
  return {
    'metrics': {
      'psnr/float': {
        'mean': float(np.mean(values)),
        'per_frame': list(values),
        'cumulative': list(values),
      },
    }
  }


def test_means_and_deviations_are_those_of_a_sample():
  found = seeds.summary([result(1.0, 3.0), result(2.0, 8.0), result(6.0, 4.0)])
  assert found['runs'] == 3
  psnr = found['metrics']['psnr/float']
  assert psnr['mean']['each'] == [2.0, 5.0, 5.0]
  assert psnr['mean']['mean'] == 4.0
  np.testing.assert_allclose(psnr['mean']['deviation'], np.sqrt(3))
  np.testing.assert_allclose(psnr['per_frame']['mean'], [3, 5])
  np.testing.assert_allclose(
    psnr['per_frame']['deviation'], np.std([[1, 3], [2, 8], [6, 4]], 0, ddof=1)
  )
  assert 'psnr/float  4.0000 +- 1.7321' in seeds.table(found)


def test_one_seed_has_no_deviation_and_none_is_an_error():
  found = seeds.summary([result(1.0, 3.0)])
  assert found['metrics']['psnr/float']['per_frame']['deviation'] == [0, 0]
  other = {'metrics': {'ssim/pmss': {}}}
  for results in ([], [result(1.0), other]):
    with pytest.raises(ValueError, match='same metrics'):
      seeds.summary(results)
