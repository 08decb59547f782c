"""Reading videos: `probe`, `index`, `frames`, `read`.

The package's docstring has their contract."""

import collections
import itertools
import os
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from PIL import Image

from vidpred_jax.video_io import (
  cropping,
  decoding,
  fields,
  pictures,
  showing,
  timing,
)
from vidpred_jax.video_io.opening import open_video

FOLDER_FPS = Fraction(25)
_LOOKED_AT = 6  # frames in which `probe` looks for fields


class Info(NamedTuple):
  """The result of `probe`.

  Attributes:
    path: the file or folder.
    width: of a frame as it is shown.
    height: of a frame as it is shown.
    fps: frames per second: the header's, or if the times were looked at the
      mean without pauses.
    num_frames: None if the header does not say and nothing was counted.
    duration: seconds, the last frame's included; None if unknown.
    has_audio: whether there is an audio stream.
    variable: whether the frame rate varies; None unless looked at.
    codec: name of the coding, 'pictures' for a folder.
    last: for how many seconds the last frame is shown; None unless looked at.
    shortest: the least distance of frames in seconds; None likewise.
    pixel_aspect: width over height of a pixel as it is shown.
    curve: 'pq' or 'hlg' of high dynamic range, else None.
    interlaced: whether frames hold two moments each.
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
  last: Fraction | None = None
  shortest: Fraction | None = None
  pixel_aspect: Fraction = Fraction(1)
  curve: str | None = None
  interlaced: bool = False


class Index(NamedTuple):
  """The index of a file's frames, made by decoding them.

  Attributes:
    num_frames: exact.
    pts: int64 [num_frames], each frame's time stamp in the file; None where
      they have none of their own or not all different ones: then reading
      starts at frame 0.
    unit: seconds per unit of `times`, or per frame.
    times: int64 [num_frames] after the first frame; None: `unit` apart.
    marks: uint32 [num_frames], by which a frame found by seeking is checked.
    last: for how many seconds the last frame is shown; None if unknown.
    crop: rows and columns that are no part of the picture, see `cropping`.
  """

  num_frames: int
  pts: np.ndarray | None
  unit: Fraction
  times: np.ndarray | None = None
  marks: np.ndarray | None = None
  last: Fraction | None = None
  crop: cropping.Crop = (0, 0, 0, 0)

  def time(self, i: int) -> Fraction:
    """Seconds from the first frame to frame `i`."""
    return (i if self.times is None else int(self.times[i])) * self.unit


def probe(
  path,
  *,
  count: bool = False,
  times: bool = False,
  stream: int | None = None,
  fps: Fraction | None = None,
) -> Info:
  """Probes a video file or folder of pictures; decodes a few frames.

  Args:
    path: file or folder.
    count: whether to decode the whole file for the exact `num_frames`,
      `duration`, `fps`, `variable`, `last` and `shortest`.
    times: whether to go through the file without decoding it for the same;
      packets that give no frame are counted too.
    stream: which of the video streams; None for the best.
    fps: frames per second of what has no times of its own: a folder of pictures
      (25 by default), raw H.264.

  Returns:
    The facts.

  Raises:
    ValueError: if it is not a video, is damaged or an empty folder, or has
      times of its own and `fps` is given.
    FileNotFoundError: if `path` does not exist.
  """
  path = pathlib.Path(os.path.expanduser(path))
  folder = pictures.find(path)
  if folder is not None:
    return _probe_pictures(path, folder, fps)
  with open_video(path, stream) as (container, video):
    video.thread_type = 'NONE'
    shots = decoding.shots(container, video)
    heads = list(itertools.islice(shots, _LOOKED_AT))
    if not heads:
      raise ValueError(f'{path} holds no frame that can be decoded.')
    crop = cropping.read(path, container.format.name, video.index)
    shown = showing.view(heads[0].frame, crop)
    height, width = showing.image(heads[0].frame, shown).shape[:2]
    header, tick = fps or timing.label(video), video.time_base
    number = video.frames or None
    duration = None
    if video.duration is not None:
      duration = float(video.duration * video.time_base)
    elif container.duration is not None:
      duration = container.duration / 1e6
    has_audio = bool(container.streams.audio)
    codec = video.codec_context.name
    aspect = Fraction(video.sample_aspect_ratio or 1)
    interlaced = fields.is_interlaced(video, [s.frame for s in heads])
  info = Info(
    path, width, height, header, number, duration, has_audio, None, codec,
    pixel_aspect=1 / aspect if shown.swaps else aspect,
    curve=shown.curve,
    interlaced=interlaced,
  )  # fmt: skip
  if count:
    whole = index(path, stream=stream, fps=fps)
    moments = [whole.time(i) for i in range(whole.num_frames)]
    last = whole.last
  elif times:
    moments, last = decoding.packet_times(path, stream, fps)
  else:
    return info
  rate = timing.rate(moments, tick, header)
  last = last or 1 / rate.fps
  return info._replace(
    fps=rate.fps,
    variable=rate.variable,
    shortest=rate.shortest,
    num_frames=len(moments),
    last=last,
    duration=float(moments[-1] + last),
  )


def _probe_pictures(path, folder, fps) -> Info:
  height, width = next(pictures.read(folder.pictures)).shape[:2]
  moments, last = _picture_times(path, folder, fps)
  rate = timing.rate(moments, Fraction(1, 1000), fps or FOLDER_FPS)
  return Info(
    path, width, height, rate.fps, len(moments), float(moments[-1] + last),
    False, rate.variable, 'pictures', last, rate.shortest,
  )  # fmt: skip


def _picture_times(path, folder, fps) -> tuple[list[Fraction], Fraction]:
  """The time of each picture, and the duration of the last one."""
  if folder.times is None:
    rate = Fraction(fps or FOLDER_FPS)
    return [n / rate for n in range(len(folder.pictures))], 1 / rate
  if fps is not None:
    raise ValueError(
      f'{path} says itself when its pictures are shown; got {fps} frames per '
      'second for it.'
    )
  return folder.times, folder.last


def index(
  path, *, stream: int | None = None, fps: Fraction | None = None
) -> Index:
  """Finds every frame of a file by decoding it.

  Args:
    path: file or folder.
    stream: which of the video streams; None for the best.
    fps: as for `probe`.

  Returns:
    The index, which `read` takes to seek by.

  Raises:
    ValueError: if it is not a video, or is truncated.
  """
  return indexed(path, None, stream=stream, fps=fps)[0]


def indexed(
  path,
  size: tuple[int, int] | None,
  *,
  stream: int | None = None,
  fps: Fraction | None = None,
  see=None,
) -> tuple[Index, tuple[int, int]]:
  """As `index`, and passes every frame, resized, to a function.

  Args:
    path: file or folder.
    size: (H, W) of what `see` is given.
    stream: which of the video streams; None for the best.
    fps: as for `probe`.
    see: called with uint8 [H, W, 3] of each frame, or None.

  Returns:
    The index, and (H, W) of the frames.
  """
  path = pathlib.Path(os.path.expanduser(path))
  folder = pictures.find(path)
  if folder is not None:
    moments, last = _picture_times(path, folder, fps)
    first, shape = None, (0, 0)
    for picture, image in zip(folder.pictures, pictures.read(folder.pictures)):
      first, shape = first or (picture.path.name, image.shape), image.shape[:2]
      _check_size(path, first, picture.path.name, image.shape)
      if see is None:
        break
      see(image if size is None else _resized(image, size))
    times = np.array([int(t * 100_000) for t in moments], np.int64)
    unit = Fraction(1, 100_000)
    return Index(len(moments), None, unit, times, None, last), shape
  stamps, moments, marks, shown, shape = [], [], [], None, (0, 0)
  crop, tick = _crop(path, stream)
  for time, shot in decoding.decoded(path, stream, fps):
    if shown is None:
      shown = showing.view(shot.frame, crop)
      shape = showing.shape(shot.frame, shown)
    stamps.append(shot.stamp)
    moments.append(time)
    marks.append(decoding.mark(shot.frame))
    if see is not None:
      see(showing.image(shot.frame, shown, size))
  del shot
  pts = None
  if None not in stamps:
    pts = np.array(stamps, np.int64)
    pts = pts if (np.diff(pts) > 0).all() else None
  # A frame that waited for a stamp lies between ticks.
  unit = tick / 2520
  times = np.array([round(t / unit) for t in moments], np.int64)
  _, lasting = decoding.packet_times(path, stream, fps)
  return Index(
    len(times), pts, unit, times, np.array(marks, np.uint32), lasting, crop
  ), shape


def _crop(path, stream):
  with open_video(path, stream) as (container, video):
    crop = cropping.read(path, container.format.name, video.index)
    return crop, video.time_base


def frames(
  path,
  *,
  start: int = 0,
  stop: int | None = None,
  step: int = 1,
  size: tuple[int, int] | None = None,
  stream: int | None = None,
  fps: Fraction | None = None,
  deinterlace: bool = False,
  keep_hdr: bool = False,
) -> Iterator[tuple[Fraction, np.ndarray]]:
  """Streams frames `start`, `start + step`, ... before `stop`.

  The file is decoded from its beginning; `read` with an index seeks.

  Args:
    path: file or folder.
    start: number of the first frame.
    stop: number of the frame to stop before; None for the end of the video.
    step: 2 gives every other frame.
    size: (H, W) to resize to, bicubic with antialiasing; None for none.
    stream: which of the video streams; None for the best.
    fps: as for `probe`.
    deinterlace: whether each frame is made one moment of its two.
    keep_hdr: whether high dynamic range stays: uint16 code values then.

  Yields:
    (time, frame): seconds after the first frame of the file, uint8 [H, W, 3].

  Raises:
    ValueError: if it is not a video or is truncated, or frames differ in size.
    FileNotFoundError: if `path` does not exist.
  """
  if start < 0 or step < 1:
    raise ValueError(f'start={start} must be >= 0 and step={step} >= 1.')
  showing.check_size(size)
  path = pathlib.Path(os.path.expanduser(path))
  folder = pictures.find(path)
  if folder is not None:
    moments, _ = _picture_times(path, folder, fps)
    chosen = slice(start, stop, step)
    first, wanted = None, folder.pictures[chosen]
    for time, picture, image in zip(
      moments[chosen], wanted, pictures.read(wanted)
    ):
      first = first or (picture.path.name, image.shape)
      _check_size(path, first, picture.path.name, image.shape)
      yield time, image if size is None else _resized(image, size)
    return
  timed = decoding.decoded(path, stream, fps)
  if deinterlace:
    timed = fields.deinterlaced(timed)
  shown, (crop, _) = None, _crop(path, stream)
  for i, (time, shot) in enumerate(timed):
    if stop is not None and i >= stop:
      return
    shown = shown or showing.view(shot.frame, crop, keep_hdr)
    if i >= start and (i - start) % step == 0:
      yield time, showing.image(shot.frame, shown, size)


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
  """Reads exactly `count` frames, `step` apart, from frame `start` on.

  Args:
    path: file or folder.
    start: number of the first frame.
    count: how many; None for all to the end.
    step: distance of the frames.
    size: (H, W) to resize to, bicubic with antialiasing; None for none.
    stream: which of the video streams; None for the best.
    index: of this file, from `index(path)`: with it, it is decoded from the key
      frame before `start` only.

  Returns:
    uint8 [T, H, W, 3].

  Raises:
    ValueError: as `frames`, and if there are not so many frames.
  """
  path = pathlib.Path(os.path.expanduser(path))
  showing.check_size(size)
  if start < 0 or step < 1 or (count is not None and count < 1):
    raise ValueError(
      f'Got start={start}, step={step} and count={count}; expected a start of '
      'at least 0, the others of at least 1.'
    )
  stop = None if count is None else start + (count - 1) * step + 1
  if index is None or index.pts is None or not start:
    timed = frames(
      path, start=start, stop=stop, step=step, size=size, stream=stream
    )
    clip = [image for _, image in timed]
  else:
    clip = _sought(path, index, range(start, stop or index.num_frames, step),
                   size, stream)  # fmt: skip
  if not clip or (count is not None and len(clip) < count):
    raise ValueError(
      f'{path} has no {count or 1} frames from frame {start} on with step '
      f'{step}; found {len(clip)}.'
    )
  return np.stack(clip)


def read_last(
  path,
  count: int,
  *,
  stream: int | None = None,
  deinterlace: bool = False,
  keep_hdr: bool = False,
) -> np.ndarray:
  """Reads the last `count` frames, or all if the file has fewer.

  Decodes from two key frames near the end, one behind the other, further and
  further in front until both give the same frames.

  Args:
    path: file or folder.
    count: how many, at least 1.
    stream: which of the video streams; None for the best.
    deinterlace: as for `frames`.
    keep_hdr: as for `frames`.

  Returns:
    [T, H, W, 3], as `frames` gives them.

  Raises:
    ValueError: as `frames`.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if count < 1:
    raise ValueError(f'Got count={count}, expected at least 1.')
  folder = pictures.find(path)
  if folder is not None:
    start = max(len(folder.pictures) - count, 0)
    return np.stack([image for _, image in frames(path, start=start)])
  shots = decoding.last(path, count + deinterlace, stream)
  if deinterlace:
    timed = fields.deinterlaced((Fraction(0), shot) for shot in shots)
    shots = [shot for _, shot in timed][-count:]
  crop, _ = _crop(path, stream)
  shown = showing.view(shots[0].frame, crop, keep_hdr)
  return np.stack([showing.image(shot.frame, shown) for shot in shots])


def _sought(path, index, wanted, size, stream) -> list[np.ndarray]:
  """Yields frames by index, decoding from the previous key frame.

  Some files' key frames do not stand where their index says, and what follows
  a key frame may need what is before it. So every frame is checked: if a seek
  lands behind it, finds nothing or another picture, it is repeated from further
  in front.
  """
  wanted = [i for i in wanted if i < index.num_frames]
  if not wanted:
    return []
  shown, missing, images = None, collections.deque(wanted), []
  for back in (0, 1, 5, None):
    target = int(index.pts[missing[0]])
    for shot in decoding.decoded_from(path, stream, target, back):
      i = missing[0]
      if shot.stamp is None or shot.stamp < index.pts[i]:
        continue
      if shot.stamp > index.pts[i]:
        break
      checked = back is None or index.marks is None
      if not checked and decoding.mark(shot.frame) != index.marks[i]:
        break
      shown = shown or showing.view(shot.frame, index.crop)
      images.append(showing.image(shot.frame, shown, size))
      missing.popleft()
      if not missing:
        return images
  raise ValueError(
    f'{path}: frame {missing[0]} could not be decoded again; the file was '
    'changed, or is damaged.'
  )


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  picture = Image.fromarray(image)
  bicubic = Image.Resampling.BICUBIC
  return np.asarray(picture.resize((size[1], size[0]), bicubic))


def _check_size(path, first, name, shape) -> None:
  if shape[:2] != first[1][:2]:
    raise ValueError(
      f'{path}: {name} is {shape[0]}x{shape[1]}, but {first[0]} is '
      f'{first[1][0]}x{first[1][1]}; all frames must have one size.'
    )
