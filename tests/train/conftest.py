import pytest

from tests.train import toy
from vidpred_jax import ranges, systems
from vidpred_jax.systems import settings as rules


@pytest.fixture(autouse=True, scope='module')
def toy_system():
  """In the modules of this folder 'toy' is the name of a system."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(systems.SYSTEMS, 'toy', toy)
    patch.setitem(ranges.RANGES, 'system', rules.one_of(systems.SYSTEMS))
    yield
