import pytest

from vidpred_jax import data, metrics, names, systems
from vidpred_jax.train import optim


def test_a_name_is_chosen_or_answered_with_those_there_are():
  assert names.choose('fruit', 'fig', {'pear': 4, 'fig': 3}) == 3
  with pytest.raises(ValueError, match='no fruit .nut.; there are fig, pear.'):
    names.choose('fruit', 'nut', {'pear': 4, 'fig': 3})


def test_settings_are_those_of_their_owner():
  names.check_settings('fig', ['size'], ('size', 'hue'))
  with pytest.raises(ValueError, match='fig has no setting b, c; it has size.'):
    names.check_settings('fig', ['c', 'size', 'b'], ('size',))
  with pytest.raises(ValueError, match='it has none'):
    names.check_settings('fig', ['size'], ())


def test_every_room_answers_in_these_words():
  frames = systems.Frames((0, 1), (2,))
  for kind, call in {
    'system': lambda: systems.make('nut', frames=frames),
    'metric': lambda: metrics.make('nut'),
    'data source': lambda: data.make_source('nut', split='a', num_frames=3),
    'schedule': lambda: optim.schedule('nut', peak=1.0, steps=3),
    'optimiser': lambda: optim.make({}, lambda step: 1.0, name='nut'),
  }.items():
    with pytest.raises(ValueError, match=f"no {kind} 'nut'; there are .*, "):
      call()
  with pytest.raises(ValueError, match='dmvfn has no setting betta; it has sc'):
    systems.make('dmvfn', frames=frames, betta=0.3)
  with pytest.raises(ValueError, match='ssim/pmss has .* windows; it has none'):
    metrics.make('ssim/pmss', windows=3)


def test_frames_are_counted_from_the_last_one_known_before():
  assert names.of_frames((0, 1), (2, 4)) == ['t+1', 't+3']
  assert names.of_frames((0, 8), (1, 7)) == ['t+1', 't+7']
  assert names.of_frames((0, 2, 4, 6), (3,)) == ['t+1']
