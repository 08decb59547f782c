"""Opens video files, also those with streams that PyAV does not know."""

import contextlib
import errno
import pathlib

import av
from av.sidedata import sidedata

from vidpred_jax import atomic

# Old programs wrote tags that are no UTF-8. Their bytes are kept, and copied as
# they are; PyAV 19 does so unasked.
TAGS: dict = {}
if int(av.__version__.split('.')[0]) < 19:
  TAGS['metadata_errors'] = 'surrogateescape'
_RAW_FORMATS = {
  '.264': 'h264',
  '.h264': 'h264',
  '.avc': 'h264',
  '.265': 'hevc',
  '.h265': 'hevc',
  '.hevc': 'hevc',
}


def _unnamed(kind, value):
  """A member for a kind of side data that PyAV has no name for yet.

  2026-11: without it PyAV 18.1 refuses every frame that carries one, such as
  EXIF in JPEG (31) with FFmpeg 8.
  """
  member = object.__new__(kind)
  member._name_, member._value_ = f'UNNAMED_{value}', value
  return member


sidedata.Type._missing_ = classmethod(_unnamed)  # type: ignore


def address(path: pathlib.Path) -> str:
  """The address by which FFmpeg opens a file of any name.

  Without it the name `12:30:05.mp4` is taken for a protocol, and
  `concat:a.mp4` reads another file.
  """
  return f'file:{path}'


@contextlib.contextmanager
def open_video(path: pathlib.Path, stream: int | None, most: int | None = None):
  """Opens a file: (container, video stream); FFmpeg's errors name the file.

  Args:
    path: the file.
    stream: which of its video streams; None for the best.
    most: pixels of a picture; one with more is not decoded.
  """
  if not path.exists():
    raise FileNotFoundError(f'There is no file or folder {path}.')
  atomic.check_ordinary(path)
  limits = None if most is None else {'max_pixels': str(most)}
  with naming(f'{path} is not a video that can be read, or it is damaged'):
    with av.open(
      address(path),
      format=_RAW_FORMATS.get(path.suffix.lower()),
      options=limits,
      **TAGS,
    ) as container:
      video = _video_stream(path, container, stream)
      if limits is not None:
        video.codec_context.options = limits
      # Or H.264 and H.265 are cropped at the left in large steps only.
      video.codec_context.flags |= av.codec.context.Flags.unaligned
      if video.codec_context.name == 'hevc':
        # Or one lost frame takes all along until the next key frame.
        video.codec_context.flags |= av.codec.context.Flags.output_corrupt
      yield container, video


@contextlib.contextmanager
def naming(problem: str):
  """Turns FFmpeg's errors about contents into a `ValueError` with the name.

  Errors of the machine (a full disk, no permission) stay an `OSError`.
  """
  try:
    yield
  except av.error.FFmpegError as e:
    if isinstance(e, OSError) and e.errno != errno.EPERM:
      raise  # that one is FFmpeg's for what its parts refuse
    raise ValueError(f'{problem} ({e.strerror or type(e).__name__}).') from e


def _video_stream(path, container, stream: int | None):
  # Cover pictures of music files count as video streams.
  videos = [
    s
    for s in container.streams.video
    if s.codec_context is not None
    and not s.disposition & av.stream.Disposition.attached_pic
  ]
  if not videos:
    raise ValueError(f'{path} has no video stream that can be decoded.')
  if stream is None:
    best = container.streams.best('video')
    return best if best in videos else videos[0]
  if not 0 <= stream < len(videos):
    raise ValueError(
      f'{path} has {len(videos)} video streams; there is no number {stream}.'
    )
  return videos[stream]
