"""Writing: `Writer`. The contract is the package's."""

import contextlib
import os
import pathlib
import re
import shutil
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from vidpred_jax.video_io.opening import naming, open_video
from vidpred_jax.video_io.showing import ACCURATE


class _Coding(NamedTuple):
  """How a kind of file is written.

  Attributes:
    container: FFmpeg's name of it.
    codec: FFmpeg's name of the encoder.
    quality: the encoder's name of its quality setting, None if it is lossless.
    timed: whether frames may have times of their own.
    audio: whether it can hold sound.
    options: further settings of the encoder.
  """

  container: str
  codec: str
  quality: str | None
  timed: bool = True
  audio: bool = True
  options: dict = {}


# Colours are averaged over two columns: their place is the middle (1).
_H264 = {'preset': 'medium', 'x264-params': 'chromaloc=1'}
_CODINGS = {
  '.mp4': _Coding('mp4', 'libx264', 'crf', options=_H264),
  '.m4v': _Coding('mp4', 'libx264', 'crf', options=_H264),
  '.mov': _Coding('mov', 'libx264', 'crf', options=_H264),
  '.mkv': _Coding('matroska', 'libx264', 'crf', options=_H264),
  '.webm': _Coding(
    'webm', 'libvpx-vp9', 'crf', options={'b:v': '0', 'cpu-used': '4'}
  ),
  '.avi': _Coding('avi', 'mpeg4', 'q', timed=False),
  '.gif': _Coding('gif', 'gif', None, audio=False),
  '.y4m': _Coding(
    'yuv4mpegpipe', 'wrapped_avframe', None, timed=False, audio=False
  ),
}


class Writer:
  """Writes frames to a video file or a folder of pictures, one at a time.

  A context manager. The file appears under its name only when the block ends
  without an error; until then it is a hidden file beside it, which an error
  removes. What existed before is intact until it is replaced.

  The kind of file follows from the name: mp4, m4v, mov, mkv (H.264), webm
  (VP9), avi (MPEG-4), gif (256 colours per frame, times in 1/100 s), y4m
  (uncompressed 4:4:4); without a suffix a folder of `frame_000000.png`.
  Colour is stored at half resolution, as players expect; H.264 with an odd
  width or height is stored in 4:4:4, at its exact size, which browsers may
  refuse to play. The size read back is always the size written.

  Example:
    with Writer('out.mp4', fps=info.fps, audio='in.mp4') as writer:
      for frame in frames:
        writer.write(frame)
  """

  def __init__(
    self,
    path,
    *,
    fps: Fraction | float,
    overwrite: bool = False,
    quality: int | None = None,
    audio=None,
    audio_start: Fraction | float = 0,
    trim_audio: bool = True,
  ):
    """Opens nothing yet; the first frame determines the size.

    Args:
      path: what to write.
      fps: frames per second; ignored for a folder.
      overwrite: whether an existing file, or folder of pictures written by a
        Writer, may be replaced.
      quality: of H.264 and VP9 (0 best .. 51 or 63), default 18 and 28; of
        MPEG-4 (1 best .. 31), default 3.
      audio: a video file whose sound is copied, unchanged, or None. It may
        have none. Ignored for gif, y4m and folders, which can hold none.
      audio_start: the second of that file's video that the first frame is.
      trim_audio: whether sound after the last frame is left out.

    Raises:
      ValueError: if there is no such kind of file.
      FileExistsError: if `path` exists and may not be replaced.
      FileNotFoundError: if its folder does not exist.
    """
    self._path = pathlib.Path(path)
    suffix = self._path.suffix.lower()
    if suffix not in _CODINGS and suffix:
      raise ValueError(
        f'{self._path}: cannot write {suffix}; there are '
        f'{", ".join(_CODINGS)}, and folders, without a suffix.'
      )
    self._coding = _CODINGS.get(suffix)
    self._fps = Fraction(fps).limit_denominator(1001)
    if self._fps <= 0:
      raise ValueError(f'fps must be positive, got {fps}.')
    self._overwrite, self._quality = overwrite, quality
    self._audio_path = audio if self._coding and self._coding.audio else None
    self._audio_start, self._trim_audio = Fraction(audio_start), trim_audio
    self._check_target()
    self._part = self._path.with_name(
      f'.{self._path.stem}.part{os.getpid()}{self._path.suffix}'
    )
    self._container = self._stream = self._audio = None
    self._shape = self._time_base = None
    self._count, self._end = 0, Fraction(0)
    self._stack = contextlib.ExitStack()

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, kind, error, trace) -> None:
    try:
      if kind is None:
        if not self._count:
          raise ValueError(f'{self._path}: no frame was written.')
        self._finish()
        self._check_target()
        _replace(self._part, self._path)
    finally:
      with contextlib.suppress(Exception):
        self._stack.close()
      if self._part.is_dir():
        shutil.rmtree(self._part, ignore_errors=True)
      else:
        self._part.unlink(missing_ok=True)

  def write(self, frame: np.ndarray, time: Fraction | float | None = None):
    """Appends a frame.

    Args:
      frame: uint8 [H, W, 3], RGB.
      time: seconds after the first frame at which it is shown, growing; None
        for one frame per 1 / fps. Given for all frames or for none.

    Raises:
      ValueError: if its type or size is not that of the first frame, or this
        kind of file has no times.
      OSError: if it cannot be written.
    """
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
      raise ValueError(
        f'A frame must be uint8 [H, W, 3], got {frame.dtype} {frame.shape}.'
      )
    if self._shape is None:
      self._shape = frame.shape
      self._start(timed=time is not None)
    if frame.shape != self._shape:
      raise ValueError(
        f'{self._path}: frame {self._count} is {frame.shape}, the first was '
        f'{self._shape}.'
      )
    if self._coding is None:
      name = self._part / f'frame_{self._count:06d}.png'
      Image.fromarray(frame).save(name, compress_level=3)
      self._count += 1
      return
    begin = self._count / self._fps if time is None else Fraction(time)
    picture = self._picture(frame)
    picture.time_base = self._time_base
    picture.pts = round(begin / self._time_base)
    if self._count and picture.pts <= self._pts:
      raise ValueError(
        f'{self._path}: the time of frame {self._count}, {float(begin)} s, is '
        'not after the one before.'
      )
    self._pts, self._end = picture.pts, begin + 1 / self._fps
    with naming(f'{self._path} could not be written'):
      self._mux_audio(until=begin)
      self._container.mux(self._stream.encode(picture))
    self._count += 1

  def _check_target(self) -> None:
    path = self._path
    if not path.parent.is_dir():
      raise FileNotFoundError(f'There is no folder {path.parent}.')
    if not path.exists():
      return
    if not self._overwrite:
      raise FileExistsError(f'{path} exists and is not overwritten.')
    if path.is_dir() != (self._coding is None) or (
      path.is_dir()
      and any(
        not re.fullmatch(r'frame_\d{6}\.png', p.name) for p in path.iterdir()
      )
    ):
      raise FileExistsError(
        f'{path} holds something else than what would replace it.'
      )

  def _start(self, timed: bool) -> None:
    coding, (height, width, _) = self._coding, self._shape
    if coding is None:
      self._part.mkdir()
      return
    if timed and not coding.timed:
      raise ValueError(
        f'{self._path}: {coding.container} has one frame rate; it cannot hold '
        'frames with times.'
      )
    options = {'movflags': '+faststart'} if coding.container == 'mp4' else {}
    self._container = self._stack.enter_context(
      av.open(str(self._part), 'w', format=coding.container, options=options)
    )
    options = dict(coding.options)
    if coding.quality == 'crf':
      default = 18 if coding.codec == 'libx264' else 28
      options['crf'] = str(default if self._quality is None else self._quality)
    stream = self._container.add_stream(
      coding.codec, rate=self._fps, options=options
    )
    context = stream.codec_context
    context.width, context.height = width, height
    context.pix_fmt = self._pixel_format()
    self._time_base = Fraction(1, 90_000) if timed else 1 / self._fps
    if coding.codec == 'gif':
      self._time_base = Fraction(1, 100)
    context.time_base = self._time_base
    if coding.quality == 'q':
      context.qmin = context.qmax = self._quality or 3
    if coding.quality == 'crf':
      # BT.709, limited range, and labelled so.
      context.colorspace = context.color_primaries = context.color_trc = 1
      context.color_range = 1
    self._stream = stream
    if self._audio_path is not None:
      self._start_audio()

  def _pixel_format(self) -> str:
    if self._coding.codec == 'gif':
      return 'pal8'
    odd = self._shape[0] % 2 or self._shape[1] % 2
    if self._coding.codec == 'wrapped_avframe' or (
      odd and self._coding.codec == 'libx264'
    ):
      return 'yuv444p'
    return 'yuv420p'

  def _picture(self, frame: np.ndarray) -> av.VideoFrame:
    if self._coding.codec == 'gif':
      image = Image.fromarray(frame).quantize(
        256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
      )
      palette = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
      colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
      palette[: len(colours), 1:] = colours
      return av.VideoFrame.from_ndarray((np.asarray(image), palette), 'pal8')
    # What carries no label is read as BT.601.
    labelled = self._coding.quality == 'crf'
    return av.VideoFrame.from_ndarray(
      np.ascontiguousarray(frame), 'rgb24'
    ).reformat(
      format=self._pixel_format(),
      dst_colorspace='ITU709' if labelled else 'ITU601',
      dst_color_range='MPEG',
      interpolation=ACCURATE,
    )

  def _start_audio(self) -> None:
    path = pathlib.Path(self._audio_path)
    if path.is_dir():
      return
    source, video = self._stack.enter_context(open_video(path, None))
    if not source.streams.audio:
      return
    audio = source.streams.best('audio')
    try:
      stream = self._container.add_stream_from_template(audio)
    except ValueError as e:
      raise ValueError(
        f'{self._path}: {self._coding.container} cannot hold the sound of '
        f'{path} ({audio.codec_context.name}); write to .mkv, or leave the '
        'sound out.'
      ) from e
    begin = self._audio_start + (video.start_time or 0) * video.time_base
    shift = round(begin / audio.time_base)

    def packets():
      for packet in source.demux(audio):
        if packet.pts is None or packet.dts is None or not packet.size:
          continue
        packet.pts -= shift
        packet.dts -= shift
        # Before the first frame lies only the run-up of the decoder.
        if packet.pts < 0 and self._audio_start:
          continue
        time = packet.pts * audio.time_base
        packet.stream = stream
        yield time, packet

    self._audio = packets()
    self._next_audio = next(self._audio, None)

  def _mux_audio(self, until: Fraction | None) -> None:
    """Copies the sound before `until`, all of it if None."""
    while self._audio is not None and self._next_audio is not None:
      time, packet = self._next_audio
      if until is not None and time >= until:
        return
      self._container.mux(packet)
      self._next_audio = next(self._audio, None)

  def _finish(self) -> None:
    if self._container is None:
      return
    with naming(f'{self._path} could not be written'):
      self._mux_audio(until=self._end if self._trim_audio else None)
      self._container.mux(self._stream.encode())
      self._stack.close()


def _replace(part: pathlib.Path, path: pathlib.Path) -> None:
  if not path.is_dir():
    os.replace(part, path)
    return
  old = part.with_name(part.name + '.old')
  os.replace(path, old)
  os.replace(part, path)
  shutil.rmtree(old, ignore_errors=True)
