"""Steps in turns with PyTorch's, and the kinds of their operations."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmark import steps
from experiments.pairs import __main__ as pairs
from experiments.pairs import kinds


def test_no_moment_counts_twice():
  """A loop with two operations, the second with a part on another thread."""
  own = kinds.own_times(
    [
      ('part', 6.0, 3.0),
      ('loop', 1.0, 9.0),
      ('first', 1.0, 2.0),
      ('second', 5.0, 2.0),
      ('after', 12.0, 1.0),
    ]
  )
  assert own == {'loop': 3, 'first': 2, 'second': 1, 'part': 3, 'after': 1}


def test_kinds_of_what_xla_compiles():
  def function(x, kernel, deep, where):
    options = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', **options)
    z = jax.lax.conv_general_dilated(
      x, deep, (1, 1), 'SAME', feature_group_count=8, **options
    )
    return y, z, x[:, where], jnp.tanh(x), x.transpose(3, 1, 2, 0)

  shapes = (2, 16, 16, 8), (3, 3, 8, 8), (3, 3, 1, 8)
  args = [jnp.ones(shape) for shape in shapes]
  compiled = jax.jit(function).lower(*args, jnp.arange(5)).compile()
  found = set(kinds.of_hlo(compiled.as_text()).values())
  assert found >= {kinds.DENSE, kinds.DEPTHWISE, kinds.LOOPS, kinds.COPIES}
  assert kinds.GATHERS in found and kinds.REDUCTIONS not in found


# As XLA 0.10 writes a product for its library.
_LIBRARY = """HloModule jit_f

%inner (p: f32[4,4]) -> f32[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  ROOT %dot.1 = f32[4,4]{1,0} dot(%p, %p), lhs_contracting_dims={1}
}

%moved (q: f32[4,4]) -> f32[4,4] {
  %q = f32[4,4]{1,0} parameter(0)
  ROOT %t = f32[4,4]{0,1} transpose(%q), dimensions={1,0}
}

ENTRY %main (a: f32[4,4]) -> (f32[4,4], f32[4,4]) {
  %a = f32[4,4]{1,0} parameter(0)
  %ynn_fusion.1 = f32[4,4]{1,0} fusion(%a), kind=kCustom, calls=%inner
  %other = f32[4,4]{1,0} fusion(%a), kind=kLoop, calls=%moved
  %called = f32[4,4]{1,0} call(%a), to_apply=%inner
  %b = f32[4,4]{1,0} custom-call(%a), custom_call_target="__onednn$matmul"
  ROOT %all = (f32[4,4]{1,0}, f32[4,4]{1,0}) tuple(%ynn_fusion.1, %other)
}
"""


def test_fusions_and_calls_are_what_is_in_them():
  found = kinds.of_hlo(_LIBRARY)
  assert found['ynn_fusion.1'] == found['called'] == kinds.DENSE
  assert found['b'] == kinds.DENSE and found['other'] == kinds.COPIES


@pytest.mark.parametrize(
  'name, shapes, kind',
  [
    ('mkldnn_convolution', [(1, 6, 8, 8), (6, 6, 3, 3), (6,)], kinds.DENSE),
    ('mkldnn_convolution', [(1, 6, 8, 8), (6, 1, 3, 3)], kinds.DEPTHWISE),
    # Of one channel to six: nothing depthwise, forward or backward.
    ('mkldnn_convolution', [(1, 1, 8, 8), (6, 1, 3, 3)], kinds.DENSE),
    (
      'convolution_backward',
      [(1, 6, 8, 8), (1, 1, 8, 8), (6, 1, 3, 3)],
      kinds.DENSE,
    ),
    ('addmm', [(4,), (2, 3), (3, 4)], kinds.DENSE),
    ('native_group_norm_backward', [], kinds.REDUCTIONS),
    ('var_mean', [], kinds.REDUCTIONS),
    ('copy_', [], kinds.COPIES),
    ('scatter_add_', [], kinds.GATHERS),
    ('tanh', [], kinds.LOOPS),
    ('maximum', [], kinds.LOOPS),
    ('mul_', [], kinds.LOOPS),
    ('t', [], kinds.REST),
    ('as_strided', [], kinds.REST),
  ],
)
def test_kinds_of_pytorch(name, shapes, kind):
  assert kinds.of_pytorch(f'aten::{name}', shapes) == kind


@pytest.mark.parametrize('name', pairs.STEPS)
def test_the_steps_of_both_libraries(name):
  step = steps.STEPS[name](True)
  assert step.macs() > 0
  assert jax.tree.leaves(jax.eval_shape(step.program, *step.args))
  assert set(steps.STEPS) == set(pairs.STEPS)


@pytest.mark.parametrize('name', pairs.STEPS)
def test_the_steps_of_pytorch(name):
  torch = pytest.importorskip('torch')
  from experiments.pytorch import steps as of_pytorch

  assert set(of_pytorch.STEPS) == set(pairs.STEPS)
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  try:
    of_pytorch.STEPS[name](torch.channels_last, True)()
  finally:
    torch.set_num_threads(threads)


def test_the_command(tmp_path, capsys):
  pytest.importorskip('torch')
  output = tmp_path / 'pairs.json'
  arguments = ['--tiny', '--steps=rvd64', '--profile', f'--output={output}']
  assert pairs.main(arguments) == 0
  row = json.loads(output.read_text())['rvd64']
  (pairing,) = row['pairings']
  ratio = pairing['ours']['ms'] / pairing['default']['ms']
  assert row['ratio']['default'] == ratio > 0
  for library in ('ours', 'PyTorch'):
    profile = row['profile'][library]
    by_kind = profile['kinds']
    assert set(by_kind) == set(kinds.KINDS)
    assert sum(by_kind.values()) == pytest.approx(profile['ms'])
    assert by_kind[kinds.DENSE] > 0 and by_kind[kinds.LOOPS] > 0
    assert len(profile['longest']) == 10
  said = capsys.readouterr().out
  assert 'median' in said and kinds.DEPTHWISE in said


def test_without_pytorch(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert pairs.main([]) == 1
  assert 'pip install torch' in capsys.readouterr().err


@pytest.mark.parametrize('wrong', ['--steps=speed', '--pairings=0'])
def test_wrong_settings(wrong):
  with pytest.raises(SystemExit):
    pairs.main([wrong])


def test_what_others_use_is_a_share(monkeypatch):
  seen = iter([[10, 0, 5, 100, 0, 0, 0, 0], [40, 0, 5, 160, 10, 0, 0, 0]])
  monkeypatch.setattr(pairs, '_ticks', lambda: next(seen))
  assert pairs.busy(0) == pytest.approx(0.3)
