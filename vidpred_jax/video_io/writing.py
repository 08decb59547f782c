"""Writing: `Writer`. The contract is the package's."""

import contextlib
import logging
import pathlib
import re
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from vidpred_jax import atomic
from vidpred_jax.video_io import hdr, showing
from vidpred_jax.video_io.companions import Companions
from vidpred_jax.video_io.opening import address, naming

_LOG = logging.getLogger(__name__)


class _Coding(NamedTuple):
  """How a kind of file is written.

  Attributes:
    container: FFmpeg's name of it.
    codec: FFmpeg's name of the encoder.
    quality: the encoder's name of its quality setting, None if it is lossless.
    timed: whether frames may have times of their own.
    audio: whether it can hold sound.
    shape: whether it can hold the shape of pixels through PyAV.
    options: further settings of the encoder.
  """

  container: str
  codec: str
  quality: str | None
  timed: bool = True
  audio: bool = True
  shape: bool = True
  options: dict = {}


# Colours are averaged over two columns: their place is the middle (1).
_H264 = {'preset': 'medium', 'x264-params': 'chromaloc=1'}
_CODINGS = {
  '.mp4': _Coding('mp4', 'libx264', 'crf', options=_H264),
  '.m4v': _Coding('mp4', 'libx264', 'crf', options=_H264),
  '.mov': _Coding('mov', 'libx264', 'crf', options=_H264),
  '.mkv': _Coding('matroska', 'libx264', 'crf', options=_H264),
  '.webm': _Coding(
    'webm',
    'libvpx-vp9',
    'crf',
    shape=False,
    options={'b:v': '0', 'cpu-used': '4'},
  ),
  '.avi': _Coding('avi', 'mpeg4', 'q', timed=False),
  '.gif': _Coding('gif', 'gif', None, audio=False),
  '.y4m': _Coding(
    'yuv4mpegpipe',
    'wrapped_avframe',
    None,
    timed=False,
    audio=False,
    shape=False,
  ),
}


# With 10 bits: of frames of high dynamic range.
_DEEP = {'libx264': 'libx265'}
_FASTEST_GIF = 50  # frames a second; what is faster players slow down to 10


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
    last: Fraction | None = None,
    pixel_aspect: Fraction | float = 1,
    curve: str | None = None,
  ):
    """Opens nothing yet; the first frame determines the size.

    Args:
      path: what to write.
      fps: frames per second; ignored for a folder.
      overwrite: whether an existing file, or folder of pictures written by a
        Writer, may be replaced.
      quality: of H.264 and VP9 (0 best .. 51 or 63), default 18 and 28; of
        MPEG-4 (1 best .. 31), default 3.
      audio: a video file whose sound, subtitles and chapters are copied,
        unchanged, or None. It may have none. Ignored for gif, y4m and folders,
        which can hold none.
      audio_start: the second of that file's video that the first frame is.
      trim_audio: whether sound after the last frame is left out.
      last: for how many seconds the last frame is shown; None for 1 / fps.
      pixel_aspect: width over height of a pixel as it is shown. Where the kind
        of file cannot hold it (webm, y4m, folders) frames are widened or
        narrowed to square pixels.
      curve: 'pq' or 'hlg' for frames of high dynamic range, which are uint16
        [H, W, 3], code values times 65535 of BT.2020 colours; they are stored
        with 10 bits (H.265).

    Raises:
      ValueError: if there is no such kind of file, or it cannot hold this.
      FileExistsError: if `path` exists and may not be replaced.
      FileNotFoundError: if its folder does not exist.
    """
    self._path = pathlib.Path(path).expanduser()
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
    if suffix == '.gif' and self._fps > _FASTEST_GIF:
      raise ValueError(
        f'{self._path}: a GIF shows at most {_FASTEST_GIF} frames per second, '
        f'got {float(self._fps):g}; ask for fewer (--fps={_FASTEST_GIF}), or '
        'write another kind of file.'
      )
    if curve is not None and (
      self._coding is None or self._coding.codec not in _DEEP
    ):
      raise ValueError(
        f'{self._path}: this kind of file cannot keep high dynamic range; '
        'write to .mkv, .mp4 or .mov, or map it (--hdr=tonemap).'
      )
    self._curve, self._last = curve, last
    self._aspect = Fraction(pixel_aspect).limit_denominator(1 << 16)
    self._squares = self._aspect != 1 and not (
      self._coding and self._coding.shape
    )
    if self._squares:
      _LOG.warning(
        '%s cannot hold pixels %.3f times as wide as high; frames are resized.',
        self._path, float(self._aspect),
      )  # fmt: skip
    self._overwrite, self._quality = overwrite, quality
    self._audio_path = audio if self._coding and self._coding.audio else None
    self._audio_start, self._trim_audio = Fraction(audio_start), trim_audio
    self._check_target()
    self._part = atomic.beside(self._path)
    self._container = self._stream = self._companions = None
    self._shape = self._time_base = self._waiting = None
    self._count, self._left_out, self._end = 0, 0, Fraction(0)
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
        atomic.put(self._part, self._path)
    finally:
      with contextlib.suppress(Exception):
        self._stack.close()
      atomic.remove(self._part)

  def write(self, frame: np.ndarray, time: Fraction | float | None = None):
    """Appends a frame.

    Args:
      frame: uint8 [H, W, 3], RGB (uint16 with a `curve`).
      time: seconds after the first frame at which it is shown, growing; None
        for one frame per 1 / fps. Given for all frames or for none.

    Raises:
      ValueError: if its type or size is not that of the first frame, or this
        kind of file has no times.
      OSError: if it cannot be written.
    """
    frame = np.asarray(frame)
    kind = np.dtype(np.uint8 if self._curve is None else np.uint16)
    if frame.dtype != kind or frame.ndim != 3 or frame.shape[2] != 3:
      raise ValueError(
        f'A frame must be {kind} [H, W, 3], got {frame.dtype} {frame.shape}.'
      )
    if self._squares:
      width = round(frame.shape[1] * self._aspect / 2) * 2 or 1
      image = Image.fromarray(frame).resize(
        (width, frame.shape[0]), Image.Resampling.BICUBIC
      )
      frame = np.asarray(image)
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
    stamp = round(begin / self._time_base)
    ahead = stamp - self._stamp if self._count else 1
    if ahead <= 0:
      raise ValueError(
        f'{self._path}: the time of frame {self._count}, {float(begin)} s, is '
        'not after the one before.'
      )
    if self._coding.codec == 'gif' and self._count and ahead < 2:
      self._left_out += 1
      return
    self._stamp, self._end = stamp, begin + 1 / self._fps
    picture = self._picture(frame)
    picture.time_base, picture.pts = self._time_base, stamp
    # The last one waits: it alone may be shown longer than the others.
    self._waiting, picture = picture, self._waiting
    with naming(f'{self._path} could not be written'):
      if self._companions is not None:
        self._companions.mux(until=begin)
      if picture is not None:
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
        'frames with times. Give them one (--fps), or write to .mkv.'
      )
    options = {'movflags': '+faststart'} if coding.container == 'mp4' else {}
    if coding.codec == 'gif' and self._last is not None:
      options['final_delay'] = str(min(round(100 * self._last), 65535))
    self._container = self._stack.enter_context(
      av.open(
        address(self._part), 'w', format=coding.container, options=options
      )
    )
    options, codec = dict(coding.options), coding.codec
    if coding.quality == 'crf':
      default = 18 if coding.codec == 'libx264' else 28
      options['crf'] = str(default if self._quality is None else self._quality)
    if self._last is not None and codec == 'libx264':
      # MP4 keeps durations in the order of decoding; they must be one.
      options['bf'] = '0'
    if self._curve is not None:
      codec = _DEEP[codec]
    if codec == 'libx265':
      options.pop('x264-params')
      options['x265-params'] = 'log-level=error:hdr10=1:repeat-headers=1'
    stream = self._container.add_stream(codec, rate=self._fps, options=options)
    context = stream.codec_context
    context.width, context.height = width, height
    context.pix_fmt = self._pixel_format()
    if codec == 'libx265' and coding.container != 'matroska':
      context.codec_tag = 'hvc1'  # other players want it
    if not self._squares and self._aspect != 1:
      context.sample_aspect_ratio = self._aspect
    self._time_base = Fraction(1, 90_000) if timed else 1 / self._fps
    if coding.codec == 'gif':
      self._time_base = Fraction(1, 100)
    context.time_base = self._time_base
    if coding.quality == 'q':
      context.qmin = context.qmax = self._quality or 3
    if coding.quality == 'crf':
      # BT.709 (BT.2020 of high dynamic range), limited, and labelled so.
      primaries, curve, matrix = 1, 1, 1
      if self._curve is not None:
        primaries, curve, matrix = 9, hdr.NUMBERS[self._curve], 9
      context.color_primaries, context.color_trc = primaries, curve
      context.colorspace, context.color_range = matrix, 1
    self._stream = stream
    if self._audio_path is not None:
      source = pathlib.Path(self._audio_path).expanduser()
      if not source.is_dir():
        self._companions = Companions(
          self._container, self._path, source, self._audio_start, self._stack
        )

  def _pixel_format(self) -> str:
    if self._coding.codec == 'gif':
      return 'pal8'
    if self._curve is not None:
      return 'yuv420p10le'
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
    if self._curve is not None:
      form, matrix = 'rgb48le', 'BT2020'
    else:
      # What carries no label is read by its size.
      labelled = self._coding.quality == 'crf'
      by_size = showing.matrix_by_size(*frame.shape[:2])
      form, matrix = 'rgb24', 'ITU709' if labelled else by_size
    return av.VideoFrame.from_ndarray(
      np.ascontiguousarray(frame), form
    ).reformat(
      format=self._pixel_format(),
      dst_colorspace=matrix,
      dst_color_range='MPEG',
      interpolation=showing.ACCURATE,
    )

  def _finish(self) -> None:
    if self._container is None:
      return
    last = 1 / self._fps if self._last is None else self._last
    end = self._end + last - 1 / self._fps
    with naming(f'{self._path} could not be written'):
      if self._companions is not None:
        self._companions.mux(until=end if self._trim_audio else None)
      packets = self._stream.encode(self._waiting) + self._stream.encode()
      for packet in packets:
        if packet.pts == self._stamp:
          packet.duration = round(last / packet.time_base)
      self._container.mux(packets)
      self._stack.close()
    if self._left_out:
      _LOG.warning(
        '%s: %d frames that a GIF cannot show, less than 0.02 s after others, '
        'are left out.', self._path, self._left_out,
      )  # fmt: skip
