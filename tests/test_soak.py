"""A tenth of the soak, and all of it where it is asked for; see `soak`."""

import pytest

from tests import soak


@pytest.mark.parametrize(
  'name, count',
  [('weights', 60), ('exports', 40), ('runs', 15), ('films', 60)],
)
def test_a_tenth_of_the_soak_finds_nothing(name, count, tmp_path):
  parts = soak.soak([name], seed=1, count=count, minutes=0.15, kept=tmp_path)
  assert parts[0].tried
  assert not parts[0].faults, soak.table(parts)


@pytest.mark.slow
@pytest.mark.parametrize('name', soak.PARTS)
def test_the_soak_finds_nothing(name, tmp_path):
  parts = soak.soak([name], seed=0, count=400, minutes=10, kept=tmp_path)
  assert not parts[0].faults, soak.table(parts)
