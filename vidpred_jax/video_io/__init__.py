"""Video files and folders of pictures <-> uint8 RGB frames, in bounded memory.

A frame is uint8 `[H, W, 3]`, RGB, as a player shows it. Rotation and mirror
flags (phones) are applied. Grey becomes three equal channels. Transparency is
composed over black. More than 8 bits are reduced to 8, and high dynamic range
is mapped to the standard range. Crop flags are applied. Non-square pixels are
not resampled; `probe` returns their shape and `Writer` stores it. Formats that
are read and written: mp4, m4v, mov, mkv, webm, avi, gif, y4m and folders of
pictures. Formats that are only read: all others that FFmpeg decodes, raw H.264
and H.265, and picture files, which may hold several pictures (animated PNG,
WebP and AVIF, pages of TIFF). In a folder each file holds one picture, or it is
an error. Floating point numbers are 0 for black to 1 for white; in EXR and
Radiance, where they are light, they get the curve of sRGB; others are refused.

Of several video streams FFmpeg's best one is read (the default one or the
largest), unless `stream` gives its number among the file's video streams.

Times are seconds after the first frame, as fractions, by the time stamps of the
decoded frames. Pictures in a folder are frames in natural order (2 before 10)
at `FOLDER_FPS`. A packet that cannot be decoded is skipped with a warning. A
truncated file is an error; a broadcast (MPEG-TS, MPEG-PS) that ends within a
packet gets a warning, as it has no end of its own. So does a file behind which
another was joined that FFmpeg does not read.

`logging` warns about everything that is changed or left out. Every error about
a file is a `ValueError` that names it, or an `OSError`
(`FileNotFoundError`, `FileExistsError`, disk full).
"""

from vidpred_jax.video_io.films import WHITE, Film, notices
from vidpred_jax.video_io.pictures import (
  IMAGE_SUFFIXES,
  VIDEO_SUFFIXES,
  check,
  find_pictures,
  find_videos,
  in_order,
  is_of_a_system,
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
  'check',
  'find_pictures',
  'find_videos',
  'frames',
  'in_order',
  'index',
  'indexed',
  'is_of_a_system',
  'natural_key',
  'probe',
  'read',
  'read_last',
  'notices',
]
