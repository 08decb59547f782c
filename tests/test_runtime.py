import jax.numpy as jnp
from absl import logging

from vidpred_jax import runtime


def test_an_option_that_xla_does_not_have_is_left_out_and_logged(monkeypatch):
  said = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *a: said.append(text % a)
  )
  for name, value in (('xla_no_such_option', 1), ('xla_nor_this', 'A,B')):
    function = runtime.jit(lambda x: x + 1, cpu_options=((name, value),))
    assert function(jnp.float32(1)) == 2
    assert function(jnp.float32(2)) == 3
    assert len([line for line in said if name in line]) == 1
    assert 'left out' in said[-1] and 'No such compile option' in said[-1]
    assert not runtime.accepted(name, value)


def test_a_value_that_an_option_does_not_take_is_left_out(monkeypatch):
  monkeypatch.setattr(logging, 'warning', lambda *args: None)
  name = 'xla_backend_optimization_level'
  assert runtime.accepted(name, 1)
  assert not runtime.accepted(name, 'fast')


def test_the_options_that_are_used_are_known_here():
  for name, value in runtime._CPU_OPTIONS.items():
    assert runtime.accepted(name, value)
