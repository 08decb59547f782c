"""Video files and folders of pictures <-> uint8 RGB frames, in bounded memory.

A frame is uint8 `[H, W, 3]`, RGB, as it should be shown: rotation and mirror
flags (phones) are applied, grey becomes three equal channels, transparency is
laid over black, more than 8 bits are reduced to 8, high dynamic range is mapped
to the standard one, and what flags say is no part of the picture is cropped.
Non-square pixels are left as stored; `probe` says their shape and `Writer`
stores it. Read and written: mp4, m4v, mov, mkv, webm, avi, gif, y4m and folders
of pictures; read only: whatever else FFmpeg decodes, raw H.264 and H.265, and
single pictures, of which one file may hold several (animated PNG, WebP and
AVIF, pages of TIFF).

Of several video streams the best is taken (FFmpeg's choice: the default one or
the largest), unless `stream` gives its number among the file's video streams.

Times are seconds after the first frame, as fractions, by the time stamps of
what is decoded. Pictures in a folder are frames in natural order (2 before 10)
at `FOLDER_FPS`. A packet that cannot be decoded is passed over, with a warning;
a file whose end is missing is an error.

What is changed or left out is said by warnings of `logging`. Every error about
a file is a `ValueError` that names it, or an `OSError`
(`FileNotFoundError`, `FileExistsError`, disk full).
"""

from vidpred_jax.video_io.films import WHITE, Film, told
from vidpred_jax.video_io.pictures import (
  IMAGE_SUFFIXES,
  VIDEO_SUFFIXES,
  find_videos,
  in_order,
  natural_key,
)
from vidpred_jax.video_io.reading import (
  FOLDER_FPS,
  Index,
  Info,
  frames,
  index,
  indexed,
  probe,
  read,
  read_last,
)
from vidpred_jax.video_io.writing import Writer

__all__ = [
  'FOLDER_FPS',
  'IMAGE_SUFFIXES',
  'VIDEO_SUFFIXES',
  'Film',
  'Index',
  'Info',
  'WHITE',
  'Writer',
  'find_videos',
  'frames',
  'in_order',
  'index',
  'indexed',
  'natural_key',
  'probe',
  'read',
  'read_last',
  'told',
]
