"""Estimated flow of films, as a teacher for models.

The true flow of films is unknown. Classical dense inverse search (Kroeger et
al., ECCV 2016, OpenCV's implementation) estimates it. The estimate is used
where both directions agree. Only training needs OpenCV.
"""

from collections.abc import Sequence

import numpy as np


def dis(video: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
  """Estimates flow by dense inverse search.

  Args:
    video: uint8 [T, H, W, 3], RGB, H and W at least 16.
    pairs: P pairs (of, into) of frames.

  Returns:
    float32 [P, H, W, 2], (dx, dy) from each pixel of frame `of` to the same
    point in frame `into`; NaN where that is outside, or where the way there and
    back ends further than 0.5 pixels plus 5 % of the way from its start.

  Raises:
    ImportError: without OpenCV.
  """
  cv2 = _opencv()
  estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
  height, width = grey[0].shape
  here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
  here = here.astype(np.float32)
  flows = []
  for of, into in pairs:
    forward = estimator.calc(grey[of], grey[into], None)
    backward = estimator.calc(grey[into], grey[of], None)
    place = here + forward
    backward = cv2.remap(backward, place, None, cv2.INTER_LINEAR)
    error = np.linalg.norm(forward + backward, axis=-1)
    agreed = error < 0.5 + 0.05 * np.linalg.norm(forward, axis=-1)
    agreed &= ((place >= 0) & (place <= (width - 1, height - 1))).all(-1)
    flows.append(np.where(agreed[..., None], forward, np.float32(np.nan)))
  return np.stack(flows)


def _opencv():
  try:
    import cv2
  except ImportError:
    raise ImportError(
      "teacher='dis' needs OpenCV: pip install opencv-python-headless"
    ) from None
  # Loader threads and processes are parallel already.
  cv2.setNumThreads(1)
  return cv2
