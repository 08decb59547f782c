"""Pictures and folders: what is a frame, what is a video, in which order."""

import os
import pathlib
import re

import numpy as np
from PIL import Image, ImageOps

VIDEO_SUFFIXES = frozenset(
  '.mp4 .m4v .mov .mkv .webm .avi .gif .y4m .mpg .mpeg .ts .wmv .flv '
  '.264 .h264 .265 .hevc'.split()
)
IMAGE_SUFFIXES = frozenset(
  '.png .jpg .jpeg .bmp .ppm .pgm .tif .tiff .webp'.split()
)


def find_videos(folder) -> list[pathlib.Path]:
  """Video files and folders of pictures anywhere below `folder`, sorted."""
  found, seen = [], set()
  for root, folders, names in os.walk(folder, followlinks=True):
    real = os.path.realpath(root)
    if real in seen:  # a link leads back
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(n for n in folders if not n.startswith('.'))
    suffixes = {n: pathlib.Path(n).suffix.lower() for n in names if n[0] != '.'}
    found += [
      pathlib.Path(root, n) for n, s in suffixes.items() if s in VIDEO_SUFFIXES
    ]
    if any(s in IMAGE_SUFFIXES for s in suffixes.values()):
      found.append(pathlib.Path(root))
  return sorted(found)


def natural_key(name: str) -> list:
  """Sort key that puts `frame2` before `frame10`."""
  parts = re.split(r'(\d+)', name)
  return [(int(p), p) if p.isdigit() else (0, p) for p in parts]


def over_black(rgba: np.ndarray) -> np.ndarray:
  """RGBA uint8 [H, W, 4] laid over black, [H, W, 3]."""
  alpha = rgba[:, :, 3:].astype(np.uint16)
  return ((rgba[:, :, :3] * alpha + 127) // 255).astype(np.uint8)


def find(path: pathlib.Path) -> list[pathlib.Path] | None:
  """The pictures of a folder, or a single one; None for another file."""
  if path.is_dir():
    found = [
      p
      for p in path.iterdir()
      if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != '.'
    ]
    if not found:
      raise ValueError(
        f'The folder {path} holds no pictures '
        f'({", ".join(sorted(IMAGE_SUFFIXES))}).'
      )
    return sorted(found, key=lambda p: natural_key(p.name))
  if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
    return [path]
  return None


def read(path: pathlib.Path) -> np.ndarray:
  """A picture file as it is shown, uint8 [H, W, 3]."""
  try:
    with Image.open(path) as image:
      image = ImageOps.exif_transpose(image)
      if image.mode.startswith('I'):  # 16-bit grey
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = ((grey + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
      if image.has_transparency_data:
        return over_black(np.asarray(image.convert('RGBA')))
      return np.array(image.convert('RGB'))
  except (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
  ) as e:
    if isinstance(e, OSError) and e.errno is not None:
      raise
    raise ValueError(
      f'{path} is not a picture that can be read, or it is damaged ({e}).'
    ) from e
