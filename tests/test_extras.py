"""No extra is imported unless it is used."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXTRAS = (
  'clu',
  'cv2',
  'h5py',
  'matplotlib',
  'netCDF4',
  'tensorflow',
  'tensorflow_datasets',
  'torch',
  'xarray',
  'zarr',
)


@pytest.mark.parametrize(
  'modules',
  ['vidpred_jax', 'vidpred_jax.data, vidpred_jax.main, vidpred_jax.build'],
)
def test_importing_loads_no_extra(modules):
  code = f'import sys; import {modules}; print(*sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert not done.returncode, done.stderr
  assert not {*EXTRAS} & {*done.stdout.split()}
