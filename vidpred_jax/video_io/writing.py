"""Writing videos: `Writer`. The package's docstring has its contract."""

import logging
import os
import pathlib
import re
from fractions import Fraction

import numpy as np
from PIL import Image

from vidpred_jax import atomic
from vidpred_jax.video_io import companions, encoding, timing

_LOG = logging.getLogger(__name__)


_RATES = 10**6  # frames a second at most, and seconds a frame
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
    codec: str | None = None,
    audio=None,
    audio_start: Fraction | float = 0,
    trim_audio: bool = True,
    last: Fraction | None = None,
    pixel_aspect: Fraction | float = 1,
    curve: str | None = None,
  ):
    """Opens nothing: the first frame determines the size.

    Args:
      path: what to write.
      fps: frames per second; ignored for a folder.
      overwrite: whether an existing file, or folder of pictures written by a
        Writer, may be replaced.
      quality: of H.264, H.265 (0 best .. 51; 18 by default) and VP9 (0 best ..
        63; 28 by default); of MPEG-4 (1 best .. 31), default 3.
      codec: in place of that of the kind of file: 'h264', 'h265', 'vp9', or
        'ffv1', which loses nothing.
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
    self._path = pathlib.Path(os.path.expanduser(path))
    coding = _coding(self._path)
    if codec is not None:
      if coding is None:
        raise ValueError(f'{self._path}: a folder of pictures has no codec.')
      coding = encoding.with_codec(coding, codec)
    if quality is not None and (coding is None or coding.quality is None):
      raise ValueError(
        f'{self._path}: this kind of file has no quality to set.'
      )
    if quality is not None and coding is not None:
      best, worst = encoding.QUALITIES[coding.codec]
      if not best <= quality <= worst:
        raise ValueError(
          f'{self._path}: got the quality {quality} (--crf), expected {best} '
          f'(best) to {worst}.'
        )
    rate = _rate(self._path, fps)
    if coding and coding.codec == 'gif' and rate > _FASTEST_GIF:
      raise ValueError(
        f'{self._path}: a GIF shows at most {_FASTEST_GIF} frames per second, '
        f'got {float(rate):g}; write another kind of file or, when frames are '
        f'interpolated, ask for fewer (--fps={_FASTEST_GIF}).'
      )
    if curve is not None and (
      coding is None or coding.codec not in encoding.DEEP
    ):
      raise ValueError(
        f'{self._path}: this kind of file cannot keep high dynamic range; '
        'write to .mkv, .mp4 or .mov, or map it (--hdr=tonemap).'
      )
    if audio and not (coding and coding.audio):
      _tell_left_out(self._path, audio)
    aspect = Fraction(pixel_aspect).limit_denominator(1 << 16)
    self._widening, self._curve = Fraction(1), curve
    if aspect != 1 and not (coding and coding.shape):
      _LOG.warning(
        '%s cannot hold pixels %.3f times as wide as high; frames are resized.',
        self._path, float(aspect),
      )  # fmt: skip
      self._widening, aspect = aspect, Fraction(1)
    self._style = coding and encoding.Style(
      coding,
      rate,
      quality,
      last,
      aspect,
      curve,
      pathlib.Path(os.path.expanduser(audio))
      if audio and coding.audio
      else None,
      Fraction(audio_start),
      trim_audio,
    )
    self._overwrite = overwrite
    self._check_target()
    self._part = atomic.beside(self._path)
    self._open: encoding.Film | encoding.Folder | None = None
    self._ended = False

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, kind, error, trace) -> None:
    self._ended = True
    try:
      if kind is None:
        if self._open is None or not self._open.count:
          raise ValueError(f'{self._path}: no frame was written.')
        with atomic.naming(self._path, self._part):
          self._open.finish()
          self._check_target()
          atomic.put(self._part, self._path)
    finally:
      if self._open is not None:
        self._open.close()
      atomic.remove(self._part)

  def write(
    self, frame: np.ndarray, time: Fraction | float | None = None
  ) -> None:
    """Appends a frame.

    Args:
      frame: uint8 [H, W, 3], RGB (uint16 with a `curve`).
      time: seconds after the first frame at which it is shown, growing; None
        for one frame per 1 / fps. Given for all frames or for none.

    Raises:
      ValueError: if its type or size is not that of the first frame, this kind
        of file has no times, or the block has ended.
      OSError: if it cannot be written.
    """
    if self._ended:
      raise ValueError(f'{self._path} has ended and takes no more frames.')
    frame = np.asarray(frame)
    kind = np.dtype(np.uint8 if self._curve is None else np.uint16)
    if frame.dtype != kind or frame.ndim != 3 or frame.shape[2] != 3:
      raise ValueError(
        f'A frame must be {kind} [H, W, 3], got {frame.dtype} {frame.shape}.'
      )
    if self._widening != 1:
      width = round(frame.shape[1] * self._widening / 2) * 2 or 1
      image = Image.fromarray(frame).resize(
        (width, frame.shape[0]), Image.Resampling.BICUBIC
      )
      frame = np.asarray(image)
    with atomic.naming(self._path, self._part):
      self._add(frame, None if time is None else Fraction(time))

  def _add(self, frame: np.ndarray, time: Fraction | None) -> None:
    if self._open is None:
      self._open = self._opened(frame.shape, timed=time is not None)
    if frame.shape != self._open.shape:
      raise ValueError(
        f'{self._path}: frame {self._open.count} is {frame.shape}, the first '
        f'was {self._open.shape}.'
      )
    self._open.add(frame, time)

  def _opened(self, shape, *, timed: bool) -> encoding.Film | encoding.Folder:
    """Opens the hidden file; a failed opening leaves no file."""
    try:
      if self._style is None:
        return encoding.Folder(self._part, shape)
      return encoding.Film(
        self._part, self._path, self._style, shape, timed=timed
      )
    except BaseException:
      atomic.remove(self._part)
      raise

  def _check_target(self) -> None:
    path = self._path
    atomic.check_new(path, overwrite=self._overwrite)
    if (
      path.exists()
      and path.is_dir() != (self._style is None)
      or (
        path.is_dir()
        and any(
          not re.fullmatch(r'frame_\d{6}\.png', p.name) for p in path.iterdir()
        )
      )
    ):
      raise FileExistsError(
        f'{path} holds something else than what would replace it.'
      )


def _tell_left_out(path: pathlib.Path, source) -> None:
  left = companions.of(pathlib.Path(os.path.expanduser(source)))
  if left:
    _LOG.warning('%s leaves out of %s: %s.', path, source, ', '.join(left))


def _rate(path: pathlib.Path, fps: Fraction | float) -> Fraction:
  """A frame rate that files can have."""
  rate = timing.rounded(Fraction(fps))
  if not 1 <= rate * _RATES <= _RATES**2:
    raise ValueError(
      f'{path}: fps must be positive, from {1 / _RATES:g} to {_RATES:g}; got '
      f'{float(rate):g}.'
    )
  return rate


def _coding(path: pathlib.Path) -> encoding.Coding | None:
  """The encoding of a file of this name; None for a folder."""
  suffix = path.suffix.lower()
  if path.name.lower() in encoding.CODINGS:
    raise ValueError(f'{path} has an ending, expected a name before it.')
  if suffix and suffix not in encoding.CODINGS:
    raise ValueError(
      f'{path}: cannot write {suffix}; there are '
      f'{", ".join(encoding.CODINGS)}, and folders, without a suffix.'
    )
  return encoding.CODINGS.get(suffix)
