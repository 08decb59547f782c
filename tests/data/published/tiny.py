"""Tiny frames that say which ones they are, under the data sets' names."""

import numpy as np
from PIL import Image

from vidpred_jax.data.published import folders


def ramp(level, size=(8, 12)):
  """Brighter by one from column to column."""
  row = np.arange(size[1], dtype=np.uint8)[None, :, None] + np.uint8(level)
  return np.ascontiguousarray(np.broadcast_to(row, (*size, 3)))


def save(path, level, size=(8, 12)):
  """A picture of `ramp`."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(ramp(level, size)).save(path)


def levels(clip):
  """Which frames these are."""
  return clip[:, 0, 0, 0].tolist()


def source(dataset, root, split='test', num_frames=3, size=None):
  return folders.FrameClips(
    split, num_frames, dataset=dataset, root=root, size=size
  )


def write_y4m(path, frames, kind='420p10'):
  """Planes [Y, U, V] of each frame, as the clips of Xiph are stored."""
  height, width = frames[0][0].shape
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('wb') as file:
    header = f'YUV4MPEG2 W{width} H{height} F60:1 Ip A1:1 C{kind} XYSCSS=420P10'
    file.write(header.encode() + b'\n')
    for planes in frames:
      file.write(b'FRAME\n' + b''.join(p.tobytes() for p in planes))


def planes(level, size=(8, 12), dtype='<u2'):
  """Grey of 10 bits."""
  half = (size[0] // 2, size[1] // 2)
  return [
    np.full(shape, value, dtype)
    for shape, value in ((size, level), (half, 512), (half, 512))
  ]


def pictures(seed, size=(48, 64)):
  """Planes of 10 bits with something in them."""
  rng = np.random.default_rng(seed)
  half = (size[0] // 2, size[1] // 2)
  return [
    rng.integers(64, top, shape).astype('<u2')
    for shape, top in ((size, 941), (half, 961), (half, 961))
  ]
