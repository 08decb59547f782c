"""What is replaced is whole, old or new."""

import pytest

from vidpred_jax import atomic


def test_a_file_and_a_folder_appear_when_they_are_complete(tmp_path):
  for _ in range(2):  # made, then replaced
    with atomic.replacing(tmp_path / 'a.txt') as partial:
      assert partial.parent == tmp_path and partial.suffix == '.txt'
      partial.write_text('new')
    with atomic.replacing(tmp_path / 'b') as partial:
      partial.mkdir()
      (partial / 'c').write_text('new')
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*')}
    assert names == {'a.txt', 'b', 'b/c'}
    (tmp_path / 'b' / 'd').write_text('of the old folder')


def test_after_an_error_the_old_one_is_there_and_nothing_else(tmp_path):
  atomic.write_text(tmp_path / 'a', 'old')
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'c').write_text('old')
  for name in 'ab':
    with pytest.raises(OSError, match='full'):
      with atomic.replacing(tmp_path / name) as partial:
        partial.write_text('half of')
        raise OSError('full')
  with pytest.raises(OSError):  # the block made nothing
    with atomic.replacing(tmp_path / 'b'):
      pass
  assert sorted(p.name for p in tmp_path.iterdir()) == ['a', 'b']
  assert (tmp_path / 'a').read_text() == 'old'
  assert (tmp_path / 'b' / 'c').read_text() == 'old'
