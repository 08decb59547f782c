"""Frames predicted and restored without a model, by copies and OpenCV's flow.

Functions of the given frames, uint8 [T, H, W, 3], and how many are wanted. They
return frames [N, H, W, 3].
"""

import numpy as np


def has_opencv() -> bool:
  try:
    import cv2  # noqa: F401
  except ImportError:
    return False
  return True


def copy(given, count):
  return np.repeat(given[-1:], count, axis=0)


def middle(given, count):
  """The `count` frames in the middle."""
  beside = (len(given) - count) // 2
  return given[beside : len(given) - beside]


def average(given, count):
  del count
  return np.rint(middle(given, 2).astype(np.float32).mean(0, keepdims=True))


def optical_flow(first, second):
  """DIS flow [H, W, 2], (dx, dy) in pixels, from the first to the second."""
  import cv2

  preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
  grey = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (first, second)]
  return cv2.DISOpticalFlow_create(preset).calc(*grey, None)


def warped(frame, flow):
  """The frame at `x + flow(x)`; beyond its border its border."""
  import cv2

  rows, columns = np.indices(flow.shape[:2], np.float32)
  place = columns + flow[..., 0], rows + flow[..., 1]
  return cv2.remap(
    frame, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
  )


def dis_onwards(given, count):
  flow = optical_flow(given[-1], given[-2])
  return np.stack([warped(given[-1], k * flow) for k in range(1, count + 1)])


def dis_between(given, count):
  del count
  first, second = middle(given, 2)
  halves = [
    warped(first, optical_flow(second, first) / 2),
    warped(second, optical_flow(first, second) / 2),
  ]
  return average(np.stack(halves), 1)
