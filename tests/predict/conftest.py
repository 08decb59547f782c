import pytest

from tests.predict.toys import moving, write


@pytest.fixture
def folder(tmp_path):
  """A folder with six pictures, stored without loss."""
  return write(tmp_path / 'in', moving(6))
