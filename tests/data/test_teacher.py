import sys

import numpy as np
import pytest

from vidpred_jax import data
from vidpred_jax.data import teacher

PAIRS = ((2, 0), (2, 1))


def photos(**settings):
  settings = {'size': (96, 128), 'max_speed': 6.0, 'cutouts': 1} | settings
  return data.make_source(
    'photos', split='test', num_frames=3, flow_pairs=PAIRS, **settings
  )


def test_the_teacher_is_right_where_it_says_something():
  pytest.importorskip('cv2')
  off, known = [], []
  for i in range(8):
    item = photos()[i]
    flow = teacher.dis(item['video'], PAIRS)
    assert flow.shape == (2, 96, 128, 2) and flow.dtype == np.float32
    error = np.linalg.norm(flow - item['flow'], axis=-1)
    off.append(np.nanmedian(error))
    known.append(np.isfinite(flow).mean())
  assert np.mean(off) < 0.5 and np.mean(known) > 0.5


def test_what_leaves_the_frame_is_unknown():
  pytest.importorskip('cv2')
  still = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
  still = still.repeat(4, 0)[:64].repeat(4, 1)[:, :96]
  video = np.stack([np.roll(still, 8 * t, 1) for t in range(3)])
  flow = teacher.dis(video, ((1, 2),))[0]
  assert np.isnan(flow[:, -4:]).mean() > 0.7
  np.testing.assert_allclose(np.nanmedian(flow[..., 0]), 8, atol=0.5)


def test_without_opencv_the_message_says_how_to_get_it(monkeypatch):
  monkeypatch.setitem(sys.modules, 'cv2', None)
  with pytest.raises(ImportError, match='opencv-python-headless'):
    teacher.dis(np.zeros((2, 16, 16, 3), np.uint8), ((1, 0),))
