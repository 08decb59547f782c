"""Reading: `probe`, `index`, `frames`, `read`; contract in the package."""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

from vidpred_jax.video_io import pictures

FOLDER_FPS = Fraction(25)

_RAW_FORMATS = {
  '.264': 'h264',
  '.h264': 'h264',
  '.265': 'hevc',
  '.hevc': 'hevc',
}
# Without these flags conversion darkens by 0.5 to 3 levels.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
ACCURATE = int(_EXACT | Interpolation.BILINEAR)
_RESIZE = int(_EXACT | Interpolation.BICUBIC)  # widened when it shrinks
# These containers do not say when a frame is shown, or say it wrongly.
_UNTIMED = frozenset({'avi', 'h264', 'hevc'})


class Info(NamedTuple):
  """What `probe` finds.

  Attributes:
    path: the file or folder.
    width: of a frame as it is shown.
    height: of a frame as it is shown.
    fps: mean frames per second.
    num_frames: None if the header does not say and `count` is off.
    duration: seconds; None if unknown.
    has_audio: whether there is an audio stream.
    variable: whether the frame rate varies; None unless counted.
    codec: name of the coding, 'pictures' for a folder.
  """

  path: pathlib.Path
  width: int
  height: int
  fps: Fraction
  num_frames: int | None
  duration: float | None
  has_audio: bool
  variable: bool | None
  codec: str


class Index(NamedTuple):
  """Where the frames of a file are.

  Attributes:
    num_frames: exact.
    pts: int64 [num_frames], each frame's time stamp in the file; None where
      frames have none: they are `unit` apart, and reading starts at frame 0.
    unit: seconds per unit of `pts`, or per frame.
  """

  num_frames: int
  pts: np.ndarray | None
  unit: Fraction

  def time(self, i: int) -> Fraction:
    """Seconds from the first frame to frame `i`."""
    if self.pts is None:
      return i * self.unit
    return int(self.pts[i] - self.pts[0]) * self.unit


def probe(path, *, count: bool = False, stream: int | None = None) -> Info:
  """Looks at a video file or folder of pictures; decodes one frame.

  Args:
    path: file or folder.
    count: whether to go through the whole file (without decoding where that
      is possible) for the exact `num_frames`, `duration` and `variable`.
    stream: which of the video streams; None for the best.

  Returns:
    The facts.

  Raises:
    ValueError: if it is not a video, is damaged or an empty folder.
    FileNotFoundError: if there is nothing.
  """
  path = pathlib.Path(path)
  files = pictures.find(path)
  if files is not None:
    height, width = pictures.read(files[0]).shape[:2]
    number = len(files)
    return Info(
      path, width, height, FOLDER_FPS, number, float(number / FOLDER_FPS),
      False, False, 'pictures',
    )  # fmt: skip
  with open_video(path, stream) as (container, video):
    first = next((f for p in container.demux(video) for f in p.decode()), None)
    if first is None:
      raise ValueError(f'{path} holds no frame that can be decoded.')
    height, width = _image(first, _turn(first)).shape[:2]
    fps, tick = _rate(video), video.time_base
    number = video.frames or None
    duration = None
    if video.duration is not None:
      duration = float(video.duration * video.time_base)
    elif container.duration is not None:
      duration = container.duration / 1e6
    has_audio = bool(container.streams.audio)
    codec = video.codec_context.name
  variable = None
  if count:
    found = index(path, stream=stream)
    number = found.num_frames
    times = [float(found.time(i)) for i in range(number)]
    variable = False
    if number > 1:
      steps = np.diff(times)
      usual = float(np.median(steps))
      # Time stamps are rounded to ticks where a frame takes several.
      slack = 1.01 * float(tick) if usual > 1.5 * tick else 0
      slack = max(slack, 0.01 * usual)
      variable = bool(steps.max() - steps.min() > slack)
      duration = times[-1] + usual
      if variable:
        fps = Fraction((number - 1) / times[-1]).limit_denominator(1001)
  return Info(
    path, width, height, fps, number, duration, has_audio, variable, codec
  )


def index(path, *, stream: int | None = None) -> Index:
  """Finds every frame of a file; most kinds need no decoding for it.

  Args:
    path: file or folder.
    stream: which of the video streams; None for the best.

  Returns:
    The index, which `read` takes to save doing this again.

  Raises:
    ValueError: if it is not a video, or is truncated.
  """
  path = pathlib.Path(path)
  files = pictures.find(path)
  if files is not None:
    return Index(len(files), None, 1 / FOLDER_FPS)
  found = _packet_index(path, stream)
  if found is not None:
    return found
  with open_video(path, stream) as (_, video):
    unit = 1 / _rate(video)
  return Index(sum(1 for _ in _decoded(path, stream)), None, unit)


def frames(
  path,
  *,
  start: int = 0,
  stop: int | None = None,
  step: int = 1,
  size: tuple[int, int] | None = None,
  stream: int | None = None,
) -> Iterator[tuple[Fraction, np.ndarray]]:
  """Streams frames `start`, `start + step`, ... before `stop`.

  Args:
    path: file or folder.
    start: number of the first frame.
    stop: number of the frame to stop before; None for the end of the video.
    step: 2 gives every other frame.
    size: (H, W) to resize to, bicubic with antialiasing; None for none.
    stream: which of the video streams; None for the best.

  Yields:
    (time, frame): seconds after the first frame of the file, uint8 [H, W, 3].

  Raises:
    ValueError: if it is not a video or is truncated, if a frame is damaged or
      its size differs from the others'.
    FileNotFoundError: if there is nothing.
  """
  if start < 0 or step < 1:
    raise ValueError(f'start={start} must be >= 0 and step={step} >= 1.')
  path = pathlib.Path(path)
  files = pictures.find(path)
  if files is not None:
    first = None
    for i in range(len(files))[start:stop:step]:
      image = pictures.read(files[i])
      first = first or (files[i].name, image.shape)
      _check_size(path, first, files[i].name, image.shape)
      if size is not None:
        picture = Image.fromarray(image)
        bicubic = Image.Resampling.BICUBIC
        image = np.asarray(picture.resize((size[1], size[0]), bicubic))
      yield i / FOLDER_FPS, image
    return
  found = _packet_index(path, stream) if start else None
  yield from _range(path, found, start, stop, step, size, stream)


def read(
  path,
  *,
  start: int = 0,
  count: int | None = None,
  step: int = 1,
  size: tuple[int, int] | None = None,
  stream: int | None = None,
  index: Index | None = None,
) -> np.ndarray:
  """Reads `count` frames, `step` apart, from frame `start` on: exactly those.

  Seeks to the key frame before `start` and decodes from there.

  Args:
    path: file or folder.
    start: number of the first frame.
    count: how many; None for all to the end.
    step: distance of the frames.
    size: (H, W) to resize to, bicubic with antialiasing; None for none.
    stream: which of the video streams; None for the best.
    index: of this file, from `index(path)`; without it the file is gone
      through once more.

  Returns:
    uint8 [T, H, W, 3].

  Raises:
    ValueError: as `frames`, and if there are not so many frames.
  """
  path = pathlib.Path(path)
  stop = None if count is None else start + (count - 1) * step + 1
  if index is None or index.pts is None or pictures.find(path) is not None:
    found = frames(
      path, start=start, stop=stop, step=step, size=size, stream=stream
    )
  else:
    found = _range(path, index, start, stop, step, size, stream)
  clip = [image for _, image in found]
  if not clip or (count is not None and len(clip) < count):
    raise ValueError(
      f'{path} has no {count or 1} frames from frame {start} on with step '
      f'{step}; found {len(clip)}.'
    )
  return np.stack(clip)


def _packet_index(path, stream) -> Index | None:
  """The index from the packets' time stamps; None if these do not serve."""
  with open_video(path, stream) as (container, video):
    if container.format.name in _UNTIMED:
      return None
    packets, stamps = 0, []
    for packet in container.demux(video):
      packets += packet.size > 0
      if packet.size and not packet.is_discard:
        stamps.append(packet.pts)
    known = [s for s in stamps if s is not None]
    _check_complete(path, video, packets, max(known, default=None))
    if not known or len(set(known)) < len(stamps):
      return None
    return Index(
      len(known), np.sort(np.array(known, np.int64)), video.time_base
    )


def _range(path, found, start, stop, step, size, stream):
  """`frames` of a video file; seeks if there is an index with time stamps."""
  turn = None
  if found is None or found.pts is None or not start:
    for i, (time, frame) in enumerate(_decoded(path, stream)):
      turn = turn or _turn(frame)
      if stop is not None and i >= stop:
        return
      if i >= start and (i - start) % step == 0:
        yield time, _image(frame, turn, size)
    return
  wanted = range(found.num_frames)[start:stop:step]
  if not wanted:
    return
  number = {int(found.pts[i]): i for i in wanted}
  target = int(found.pts[start])
  # Some files' key frames do not stand where their index says: if the seek
  # lands behind the target, it is repeated from further in front.
  for back in (0, 1, None):
    missing = dict(number)
    late = False
    for frame in _decoded_from(path, stream, target, back):
      if missing and frame.pts is not None and frame.pts > target:
        late = target in missing
        if late:
          break
      i = missing.pop(frame.pts, None)
      if i is not None:
        turn = turn or _turn(frame)
        yield found.time(i), _image(frame, turn, size)
      if not missing:
        return
    if not late:
      break
  raise ValueError(
    f'{path}: frame {min(missing.values())} could not be decoded; the file is '
    'damaged or truncated.'
  )


def _decoded(path, stream):
  """Yields (time, av frame) from the beginning; checks that all is there."""
  with open_video(path, stream) as (container, video):
    video.thread_type = 'AUTO'
    trusted = container.format.name not in _UNTIMED
    first = origin = end = None
    packets = i = 0
    for packet in container.demux(video):
      packets += packet.size > 0
      for frame in packet.decode():
        first = first or ('the first frame', (frame.height, frame.width))
        _check_size(path, first, f'frame {i}', (frame.height, frame.width))
        if trusted and frame.pts is not None:
          origin = frame.pts if origin is None else origin
          end = frame.pts
          time = (frame.pts - origin) * video.time_base
        else:
          time = i / _rate(video)
        yield time, frame
        i += 1
    _check_complete(path, video, packets, end)
    if not i:
      raise ValueError(f'{path} holds no frame that can be decoded.')


def _decoded_from(path, stream, pts, back):
  """Yields av frames from the key frame `back` seconds before `pts` on."""
  with open_video(path, stream) as (container, video):
    video.thread_type = 'NONE'  # faster for short clips
    if back is not None:
      offset = pts - int(back / video.time_base)
      container.seek(offset, stream=video, backward=True)
    for packet in container.demux(video):
      yield from packet.decode()


@contextlib.contextmanager
def open_video(path: pathlib.Path, stream: int | None):
  """Opens a file: (container, video stream); FFmpeg's errors name the file."""
  if not path.exists():
    raise FileNotFoundError(f'There is no file or folder {path}.')
  with naming(f'{path} is not a video that can be read, or it is damaged'):
    with av.open(
      str(path), format=_RAW_FORMATS.get(path.suffix.lower())
    ) as container:
      yield container, _video_stream(path, container, stream)


@contextlib.contextmanager
def naming(problem: str):
  """Turns FFmpeg's errors about contents into a `ValueError` that says which.

  Errors of the machine (a full disk, no permission) stay an `OSError`.
  """
  try:
    yield
  except av.error.FFmpegError as e:
    if isinstance(e, OSError):
      raise
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
    raise ValueError(f'{path} has no video stream.')
  if stream is None:
    best = container.streams.best('video')
    return best if best in videos else videos[0]
  if not 0 <= stream < len(videos):
    raise ValueError(
      f'{path} has {len(videos)} video streams; there is no number {stream}.'
    )
  return videos[stream]


def _rate(video) -> Fraction:
  return Fraction(video.average_rate or video.guessed_rate or FOLDER_FPS)


def _check_complete(path, video, packets: int, end) -> None:
  """Refuses a file that ends before what its header announces.

  Args:
    path: the file.
    video: its stream.
    packets: how many there are.
    end: the last time stamp; None if there are none.
  """
  if packets < video.frames:
    raise ValueError(
      f'{path} is truncated: it announces {video.frames} frames and holds '
      f'{packets}.'
    )
  # Matroska files carry no number of frames but, mostly, a duration.
  found = re.fullmatch(
    r'(\d+):(\d+):([\d.]+)', video.metadata.get('DURATION', '')
  )
  if found and end is not None:
    hours, minutes, seconds = (Fraction(part) for part in found.groups())
    announced = 3600 * hours + 60 * minutes + seconds
    held = end * video.time_base
    if held + max(Fraction(1, 2), 2 / _rate(video)) < announced:
      raise ValueError(
        f'{path} is truncated: it announces {float(announced):.2f} s and holds '
        f'{float(held):.2f} s.'
      )


def _check_size(path, first, name, shape) -> None:
  if shape[:2] != first[1][:2]:
    raise ValueError(
      f'{path}: {name} is {shape[0]}x{shape[1]}, but {first[0]} is '
      f'{first[1][0]}x{first[1][1]}; all frames must have one size.'
    )


def _turn(frame) -> tuple[int, int, int, int]:
  """How a frame is to be turned: (x, y) -> (a x + c y, b x + d y).

  Only right angles can be meant. To be asked once per file: PyAV's side data
  keep a frame alive until the garbage collector runs.
  """
  matrix = frame.side_data.get('DISPLAYMATRIX')
  if matrix is None:
    return 1, 0, 0, 1
  a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5])
  return int(a), int(b), int(c), int(d)


def _image(frame, turn, size: tuple[int, int] | None = None) -> np.ndarray:
  """An FFmpeg frame as it is shown, uint8 [H, W, 3], resized to (H, W)."""
  a, b, c, d = turn
  swaps = abs(b) + abs(c) == 2 and abs(a) + abs(d) == 0

  form, flags, shape = 'rgb24', ACCURATE, {}
  if frame.format.name == 'pal8' or any(
    part.is_alpha for part in frame.format.components
  ):
    form = 'rgba'
  height, width = (size or (0, 0))[:: -1 if swaps else 1]
  if size is not None and (height, width) != (frame.height, frame.width):
    flags, shape = _RESIZE, {'height': height, 'width': width}
  image = frame.reformat(format=form, interpolation=flags, **shape).to_ndarray()
  image = pictures.over_black(image) if form == 'rgba' else image
  if swaps:
    image, a, d = image.transpose(1, 0, 2), c, b
  if a < 0:
    image = image[:, ::-1]
  if d < 0:
    image = image[::-1]
  return np.ascontiguousarray(image)
