"""Encoding: an open file of frames of one size, or an open folder of pictures.

Both exist only while they accept frames: a failed opening closes everything it
has opened. `writing.Writer` removes incomplete files.
"""

import contextlib
import logging
import pathlib
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from vidpred_jax import names
from vidpred_jax.video_io import hdr, showing
from vidpred_jax.video_io.companions import Companions
from vidpred_jax.video_io.opening import TAGS, address, naming

_LOG = logging.getLogger(__name__)


class Coding(NamedTuple):
  """The encoding of a kind of file.

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
CODINGS = {
  '.mp4': Coding('mp4', 'libx264', 'crf', options=_H264),
  '.m4v': Coding('mp4', 'libx264', 'crf', options=_H264),
  '.mov': Coding('mov', 'libx264', 'crf', options=_H264),
  '.mkv': Coding('matroska', 'libx264', 'crf', options=_H264),
  '.webm': Coding(
    'webm',
    'libvpx-vp9',
    'crf',
    shape=False,
    options={'b:v': '0', 'cpu-used': '4'},
  ),
  '.avi': Coding('avi', 'mpeg4', 'q', timed=False),
  '.gif': Coding('gif', 'gif', None, audio=False),
  '.y4m': Coding(
    'yuv4mpegpipe',
    'wrapped_avframe',
    None,
    timed=False,
    audio=False,
    shape=False,
  ),
}


# The best and the worst quality of each encoder that has one.
QUALITIES = {
  'libx264': (0, 51),
  'libx265': (0, 51),
  'libvpx-vp9': (0, 63),
  'mpeg4': (1, 31),
}
# With 10 bits: of frames of high dynamic range.
DEEP = {'libx264': 'libx265', 'libx265': 'libx265'}

# Other codecs by the names that people use, and the containers that hold them.
CODECS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
  'h264': (('mp4', 'mov', 'matroska'), {'codec': 'libx264', 'options': _H264}),
  'h265': (
    ('mp4', 'mov', 'matroska'),
    {'codec': 'libx265', 'options': {'preset': 'medium'}},
  ),
  'vp9': (
    ('webm', 'matroska'),
    {
      'codec': 'libvpx-vp9',
      'options': {'b:v': '0', 'cpu-used': '4', 'row-mt': '1'},
    },
  ),
  # Loses nothing: red, green and blue as they are.
  'ffv1': (('matroska',), {'codec': 'ffv1', 'quality': None, 'options': {}}),
}


def with_codec(coding: Coding, name: str) -> Coding:
  """Another codec in the same kind of file.

  Args:
    coding: of the kind of file.
    name: one of `CODECS`.

  Returns:
    The coding with that codec.

  Raises:
    ValueError: if there is no such codec, or this kind of file cannot hold it.
  """
  containers, changes = names.choose('codec', name, CODECS)
  if coding.container not in containers:
    raise ValueError(
      f'The codec {name} goes into {", ".join(containers)}; got a file of the '
      f'kind {coding.container}.'
    )
  return coding._replace(**changes)


class Style(NamedTuple):
  """The settings of a written file.

  Attributes:
    coding: of its kind.
    fps: frames per second.
    quality: the encoder's setting; None for the default.
    last: for how many seconds the last frame is shown; None for 1 / fps.
    aspect: width over height of a pixel.
    curve: 'pq' or 'hlg' of frames of high dynamic range, or None.
    audio: the film whose sound, subtitles and chapters are copied, or None.
    audio_start: the second of that film that the first frame is.
    trim_audio: whether sound after the last frame is left out.
  """

  coding: Coding
  fps: Fraction
  quality: int | None
  last: Fraction | None
  aspect: Fraction
  curve: str | None
  audio: pathlib.Path | None
  audio_start: Fraction
  trim_audio: bool


class Folder:
  """An open folder of pictures `frame_000000.png`.

  Attributes:
    count: frames written.
    shape: of each, [H, W, 3].
  """

  def __init__(self, part: pathlib.Path, shape: tuple[int, ...]):
    """Makes the folder `part`."""
    part.mkdir()
    self.count, self.shape = 0, shape
    self._part = part

  def add(self, frame: np.ndarray, time: Fraction | None) -> None:
    """Writes a frame uint8 [H, W, 3]; a folder has no times."""
    del time
    name = self._part / f'frame_{self.count:06d}.png'
    Image.fromarray(frame).save(name, compress_level=3)
    self.count += 1

  def finish(self) -> None:
    """Does nothing: a folder has no pending frames."""

  def close(self) -> None:
    """Does nothing: a folder has no open file."""


class Film:
  """An open video file.

  Attributes:
    count: frames written.
    shape: of each, [H, W, 3].
  """

  def __init__(
    self,
    part: pathlib.Path,
    path: pathlib.Path,
    style: Style,
    shape: tuple[int, ...],
    *,
    timed: bool,
  ):
    """Opens the file `part`, to be called `path`.

    Args:
      part: the file.
      path: its later name, for messages.
      style: how it is written.
      shape: of the frames, [H, W, 3].
      timed: whether frames have times of their own.

    Raises:
      ValueError: if the kind of file cannot hold times, or the sound.
      OSError: if it cannot be opened.
    """
    coding = style.coding
    if timed and not coding.timed:
      raise ValueError(
        f'{path}: {coding.container} has one frame rate; it cannot hold '
        'frames with times. Give them one (--fps), or write to .mkv.'
      )
    self.count, self.shape = 0, shape
    self._path, self._style = path, style
    self._pixels = _pixel_format(style, shape)
    self._time_base = Fraction(1, 90_000) if timed else 1 / style.fps
    if coding.codec == 'gif':
      self._time_base = Fraction(1, 100)
    self._waiting: av.VideoFrame | None = None
    self._companions: Companions | None = None
    self._stamp, self._end, self._left_out = 0, Fraction(0), 0
    with contextlib.ExitStack() as stack:
      self._container = stack.enter_context(_container(part, style))
      self._stream = _stream(
        self._container, style, shape, self._pixels, self._time_base
      )
      if style.audio is not None and not style.audio.is_dir():
        self._companions = Companions(
          self._container, path, style.audio, style.audio_start, stack
        )
      self._stack = stack.pop_all()

  def add(self, frame: np.ndarray, time: Fraction | None) -> None:
    """Writes a frame.

    Args:
      frame: uint8 [H, W, 3], or uint16 of high dynamic range.
      time: seconds after the first frame; None for one frame per 1 / fps.

    Raises:
      ValueError: if the time is not after the one before.
      OSError: if it cannot be written.
    """
    begin = self.count / self._style.fps if time is None else time
    stamp = round(begin / self._time_base)
    ahead = stamp - self._stamp if self.count else 1
    if ahead <= 0:
      raise ValueError(
        f'{self._path}: the time of frame {self.count}, {float(begin)} s, is '
        'not after the one before.'
      )
    if self._style.coding.codec == 'gif' and self.count and ahead < 2:
      self._left_out += 1
      return
    self._stamp, self._end = stamp, begin + 1 / self._style.fps
    picture = _picture(frame, self._style, self._pixels)
    picture.time_base, picture.pts = self._time_base, stamp
    # The last one waits: it alone may be shown longer than the others.
    before, self._waiting = self._waiting, picture
    with naming(f'{self._path} could not be written'):
      if self._companions is not None:
        self._companions.mux(until=begin)
      if before is not None:
        self._container.mux(self._stream.encode(before))
    self.count += 1

  def finish(self) -> None:
    """Writes the pending packets and closes the file.

    Raises:
      OSError: if it cannot be written.
    """
    style = self._style
    last = 1 / style.fps if style.last is None else style.last
    end = self._end + last - 1 / style.fps
    with naming(f'{self._path} could not be written'):
      if self._companions is not None:
        self._companions.mux(until=end if style.trim_audio else None)
      packets = self._stream.encode(self._waiting) + self._stream.encode()
      for packet in packets:
        if self.count == 1:  # x265 leaves it undefined for a lone frame
          packet.dts = packet.pts
        if packet.pts == self._stamp:
          packet.duration = round(last / packet.time_base)
      self._container.mux(packets)
      self._stack.close()
    if self._left_out:
      _LOG.warning(
        '%s: %d frames that a GIF cannot show, less than 0.02 s after others, '
        'are left out.', self._path, self._left_out,
      )  # fmt: skip

  def close(self) -> None:
    """Closes an abandoned file; its errors are ignored."""
    with contextlib.suppress(Exception):
      self._stack.close()


def _container(
  part: pathlib.Path, style: Style
) -> av.container.OutputContainer:
  coding = style.coding
  options = {'movflags': '+faststart'} if coding.container == 'mp4' else {}
  if coding.codec == 'gif' and style.last is not None:
    options['final_delay'] = str(min(round(100 * style.last), 65535))
  return av.open(
    address(part), 'w', format=coding.container, options=options, **TAGS
  )


def _stream(container, style: Style, shape, pixels: str, time_base: Fraction):
  """Adds the stream of pictures to a container."""
  coding = style.coding
  options, codec = dict(coding.options), coding.codec
  if coding.quality == 'crf':
    default = 28 if coding.codec == 'libvpx-vp9' else 18
    options['crf'] = str(default if style.quality is None else style.quality)
  if style.last is not None and codec == 'libx264':
    # MP4 keeps durations in the order of decoding; they must be one.
    options['bf'] = '0'
  if style.curve is not None:
    codec = DEEP[codec]
  if codec == 'libx265':
    options.pop('x264-params', None)
    settings = ['log-level=error']
    if style.curve is not None:
      settings += ['hdr10=1', 'repeat-headers=1']
    elif style.last is not None:
      settings += ['bframes=0']
    options['x265-params'] = ':'.join(settings)
  stream = container.add_stream(codec, rate=style.fps, options=options)
  context = stream.codec_context
  context.height, context.width = shape[:2]
  context.pix_fmt, context.time_base = pixels, time_base
  if codec == 'libx265' and coding.container != 'matroska':
    context.codec_tag = 'hvc1'  # other players want it
  if style.aspect != 1:
    context.sample_aspect_ratio = style.aspect
  if coding.quality == 'q':
    context.qmin = context.qmax = style.quality or 3
  if coding.quality == 'crf':
    # BT.709 (BT.2020 of high dynamic range), limited, and labelled so.
    primaries, curve, matrix = 1, 1, 1
    if style.curve is not None:
      primaries, curve, matrix = 9, hdr.NUMBERS[style.curve], 9
    context.color_primaries, context.color_trc = primaries, curve
    context.colorspace, context.color_range = matrix, 1
  return stream


def _pixel_format(style: Style, shape: tuple[int, ...]) -> str:
  codec = style.coding.codec
  if codec == 'gif':
    return 'pal8'
  if codec == 'ffv1':
    return 'bgr0'
  if style.curve is not None:
    return 'yuv420p10le'
  odd = shape[0] % 2 or shape[1] % 2
  if codec == 'wrapped_avframe' or (odd and codec in DEEP):
    return 'yuv444p'
  return 'yuv420p'


def _picture(frame: np.ndarray, style: Style, pixels: str) -> av.VideoFrame:
  if pixels == 'pal8':
    image = Image.fromarray(frame).quantize(
      256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    palette = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(colours), 1:] = colours
    # Its types know of one array only.
    both: Any = np.asarray(image), palette
    return av.VideoFrame.from_ndarray(both, 'pal8')
  if pixels == 'bgr0':
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), 'rgb24')
    return picture.reformat(format=pixels)
  if style.curve is not None:
    form, matrix = 'rgb48le', 'BT2020'
  else:
    # What carries no label is read by its size.
    labelled = style.coding.quality == 'crf'
    by_size = showing.matrix_by_size(*frame.shape[:2])
    form, matrix = 'rgb24', 'ITU709' if labelled else by_size
  return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), form).reformat(
    format=pixels,
    dst_colorspace=matrix,
    dst_color_range='MPEG',
    interpolation=showing.ACCURATE,
  )
