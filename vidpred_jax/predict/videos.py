"""Prediction of video files: from a film to a film, in bounded memory."""

import collections
import contextlib
import functools
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import tqdm

from vidpred_jax import picture, video_io
from vidpred_jax.predict import inputs, overlap
from vidpred_jax.predict.predictor import Predictor
from vidpred_jax.systems.base import DataSpec, Frames

_LOG = logging.getLogger('vidpred_jax.predict')

# Of the bar over predicted frames: amber, red, green and blue.
_MARK = (1.0, 0.69, 0.23)

# Beyond this, times between two frames are rounded to a grid this fine.
_FINEST = 16


def predict_video(
  load: Callable[..., tuple[Any, Any]],
  source: str | pathlib.Path,
  output: str | pathlib.Path,
  *,
  num_frames: int | None = None,
  factor: int | None = None,
  fps: Fraction | None = None,
  samples: int | None = None,
  with_input: bool = False,
  overlay: Sequence[str] = (),
  audio: bool = True,
  overwrite: bool = False,
  key: jax.Array | None = None,
  progress: bool = False,
  mark: bool = False,
  quality: int | None = None,
  codec: str | None = None,
  reading: Mapping[str, Any] | None = None,
  **settings,
) -> int:
  """Predicts or interpolates a video file.

  Args:
    load: `(**overrides) -> (system, variables)`, as `checkpoint.load` of a
      path; `frames` is overridden for interpolation.
    source: video file or folder of pictures.
    output: the same, to write.
    num_frames: prediction: the number of frames; by default that of the
      system's targets, for a run those of its evaluation.
    factor: interpolation: the factor of the frame rate; 2 by default.
    fps: interpolation: frames per second instead of `factor`.
    samples: prediction: the number of futures, each written to its own file.
    with_input: prediction: write the input before the predicted frames.
    overlay: names of diagnostics that `system.diagnostics` gives; each is shown
      right of the frames. Frames of the input keep those of the frame before.
    audio: whether sound is copied (interpolation, `with_input`).
    overwrite: whether an existing output may be replaced.
    key: for stochastic systems.
    progress: whether to show a bar.
    mark: whether predicted frames that follow the input (`with_input`) have a
      bar of colour at the top.
    quality: of the output, see `video_io.Writer`, as is `codec`.
    codec: see there.
    reading: settings of `video_io.Film`.
    **settings: of `Predictor`.

  Returns:
    The number of frames written to (each) output.

  Raises:
    ValueError: if the request does not fit the system or the video.
    OSError: if a file is missing or cannot be written.
  """
  system, variables = load()
  between = system.frames.interpolates
  inputs.check_request(
    between,
    num_frames=num_frames,
    samples=samples,
    with_input=with_input or None,
    factor=factor,
    fps=fps,
    cuts=(reading or {}).get('cuts'),
    whole=settings.get('whole') or None,
    overlay=overlay,
  )
  _check_overlay(system, variables, overlay)
  cut = {k: v for k, v in settings.items() if k == 'cut'}
  film = video_io.Film(source, **cut, **(reading or {}))
  info = film.info
  write = functools.partial(
    video_io.Writer,
    overwrite=overwrite,
    pixel_aspect=info.pixel_aspect,
    quality=quality,
    codec=codec,
  )
  if film.keeps:
    _check_light(system, samples, overlay)
    write = functools.partial(write, curve=info.curve)
    load = functools.partial(_of_light, load)
    system, variables = load()
  # With its subtitles and chapters, also of a film without sound.
  sound = source if audio and info.codec != 'pictures' else None
  with_diagnostics = bool(overlay)
  if between:
    write = functools.partial(write, output, audio=sound, trim_audio=False)
    of_parts = functools.partial(_of_parts, load, (system, variables))
    writer, shots, total = _restored(
      of_parts, film, factor, fps, key, with_diagnostics, settings, write
    )
    shots = _overlaid(shots, overlay)
    return _write(writer, shots, total, progress, given=1)
  serve = Predictor(system, variables, **settings)
  num_frames = _number(num_frames, len(system.frames.target))
  if with_input:
    writer = write(output, fps=info.fps, audio=sound)
    shots = _continued(serve, film, num_frames, key, with_diagnostics, mark)
    assert info.num_frames is not None
    total, shots = info.num_frames + num_frames, _overlaid(shots, overlay)
    return _write(writer, shots, total, progress, given=info.num_frames)
  fps = info.fps / _step(system.frames)
  clip = _tail(film, system)
  if samples is not None:
    outputs = [renamed(output, s) for s in (*range(samples), 'mean', 'spread')]
    writers = [write(path, fps=fps) for path in outputs]
    futures = serve.stream_samples(clip, num_frames, samples, key)
    return _write_samples(writers, futures, num_frames, progress)
  shots = _untimed(_predicted(serve, clip, num_frames, key, with_diagnostics))
  writer = write(output, fps=fps)
  return _write(writer, _overlaid(shots, overlay), num_frames, progress)


def _of_parts(load, loaded, parts: int):
  """What is loaded, if it divides an interval so; else loads it anew."""
  frames = loaded[0].frames.divided(parts)
  return loaded if loaded[0].frames == frames else load(frames=frames)


def _restored(load, film, factor, fps, key, with_diagnostics, settings, write):
  """A film at a higher rate.

  Returns:
    `(writer, (time or None, shot)s, their number or None)`.
  """
  info = film.info
  parts = _parts(info, factor, fps)
  total, last = None, None
  resampled = fps is not None
  if not resampled:
    fps, last = info.fps * parts, info.last
    total = (info.num_frames - 1) * parts + 1
    if not info.variable and last < 2 / info.fps:
      last = None
  writer = write(fps=fps, last=last)
  serve = Predictor(*load(parts), cuts=film.begins, **settings)
  if not resampled:
    return writer, _interpolated(serve, film, key, with_diagnostics), total
  timed = _frames(film, serve.system.channels)
  shots = serve.resample(
    timed,
    fps,
    key,
    with_diagnostics=with_diagnostics,
    last=info.last,
    ahead=int(fps / info.fps) + 1,
  )
  return writer, _untimed(shots), total


def _number(requested: int | None, measured: int) -> int:
  """The number of frames to predict; warns of more than were measured."""
  if requested is None:
    return measured
  if requested > measured:
    _LOG.warning(
      '%d frames are asked for; these weights were measured on %d. The others '
      'are predicted from predictions, and get worse.', requested, measured,
    )  # fmt: skip
  return requested


def _check_light(system, samples, overlay) -> None:
  """Raises ValueError unless high dynamic range can be kept."""
  if samples is not None or overlay or system.channels != 3:
    raise ValueError(
      'High dynamic range is kept of systems of 3 channels, without '
      '--samples and --overlay; got --hdr=keep.'
    )


def _of_light(load, **overrides):
  """Adapts a system to frames in units of light, with `WHITE` at 1."""
  system, variables = load(**overrides)
  light = DataSpec(
    'field',
    variables=('red', 'green', 'blue'),
    units='light',
    mean=(0.0,) * 3,
    std=(float(video_io.WHITE),) * 3,
  )
  return system._replace(data=light), variables


def _check_overlay(system, variables, overlay: Sequence[str]) -> None:
  """Raises ValueError if the system has no diagnostics of these names."""
  if not overlay:
    return
  if system.diagnostics is None:
    raise ValueError('This system has no diagnostics; got --overlay.')
  side = 4 * system.multiple
  shape = 1, len(system.frames.context), side, side, system.channels
  context = jax.ShapeDtypeStruct(shape, np.float32)
  _, known = jax.eval_shape(
    system.diagnostics, variables, context, jax.random.key(0)
  )
  for name in overlay:
    if name not in known:
      raise ValueError(
        f'Got --overlay={name}; this system has {", ".join(known)}.'
      )


def _parts(info, factor, fps) -> int:
  """The number K of parts of an interval."""
  if fps is None:
    return factor or 2
  ratio = fps / info.fps
  exact = not info.variable and ratio.numerator <= _FINEST
  return max(2, ratio.numerator) if exact else _FINEST


def _step(frames: Frames) -> Fraction:
  """The distance of predicted frames, in frames of the input."""
  return Fraction(max(frames.target) - max(frames.context), len(frames.target))


def _frames(film, channels: int) -> Iterator:
  """Yields (time, frame), grey for a system of one channel."""
  for time, frame in overlap.ahead(film.frames()):
    yield time, _with_channels(frame, channels)


def _with_channels(frames: np.ndarray, channels: int) -> np.ndarray:
  """Converts colour [..., 3] to grey, its luma (BT.601)."""
  if channels != 1 or frames.shape[-1] != 3:
    return frames
  luma = frames @ np.array([[0.299], [0.587], [0.114]], np.float32)
  return np.rint(luma).astype(np.uint8)


def _tail(film, system) -> np.ndarray:
  """The last frames of a video that the system needs."""
  context = system.frames.context
  length = max(context) - min(context) + 1
  return _with_channels(film.last(length), system.channels)


def _untimed(shots: Iterable) -> Iterator:
  """Yields (None, shot): the writer keeps its rate."""
  return ((None, shot) for shot in shots)


def _interpolated(serve, film, key, with_diagnostics) -> Iterator:
  """Yields (time or None, frame or (frame, diagnostics))."""
  times = []

  def timed():
    for time, frame in _frames(film, serve.system.channels):
      times.append(time)
      yield time, frame

  parts = len(serve.system.frames.target) + 1
  # One interval: the next call is started while the last one's frames are used.
  shots = serve.interpolate(
    timed(),
    parts,
    key,
    timed=True,
    with_diagnostics=with_diagnostics,
    ahead=parts - 1,
  )
  for n, shot in enumerate(shots):
    time = None
    if film.info.variable:
      i, k = divmod(n, parts)
      following = times[min(i + 1, len(times) - 1)]
      time = times[i] + (following - times[i]) * Fraction(k, parts)
    yield time, shot


def _predicted(serve, clip, num_frames, key, with_diagnostics) -> Iterator:
  """Yields the frames that follow, and starts the next call meanwhile."""
  return serve.stream(
    clip,
    num_frames,
    key,
    with_diagnostics=with_diagnostics,
    ahead=len(serve.system.frames.target),
  )


def _continued(serve, film, num_frames, key, with_diagnostics, mark):
  """Yields the input and the predictions: (time or None, frame or shot)."""
  frames = serve.system.frames
  length = max(frames.context) - min(frames.context) + 1
  newest = collections.deque(maxlen=length)
  step = _step(frames)
  timed = film.info.variable or step != 1
  for time, frame in _frames(film, serve.system.channels):
    newest.append(frame)
    yield (time if timed else None), (frame, {}) if with_diagnostics else frame
  shots = _predicted(serve, newest, num_frames, key, with_diagnostics)
  for n, shot in enumerate(shots, 1):
    then = time + n * step / film.info.fps if timed else None
    if mark and with_diagnostics:
      shot = _marked(shot[0]), shot[1]
    elif mark:
      shot = _marked(shot)
    yield then, shot


def _marked(frame: np.ndarray) -> np.ndarray:
  """The frame with a bar of colour at the top: it was predicted."""
  frame = frame.copy()
  bar = frame[: max(2, len(frame) // 60)]
  white = 255 if frame.dtype == np.uint8 else video_io.WHITE
  colour = np.array(_MARK if frame.shape[-1] == 3 else (1,)) * white
  bar[:] = colour.astype(frame.dtype)
  return frame


def _overlaid(shots: Iterable, overlay: Sequence[str]) -> Iterator:
  """Yields (time, picture): frames with their diagnostics at the right.

  Args:
    shots: (time, frame), or with an overlay (time, (frame, diagnostics)).
    overlay: names of diagnostics.
  """
  longest, panels = 0.0, None
  if not overlay:
    yield from shots
    return
  for time, (frame, diagnostics) in shots:
    if diagnostics:
      panels = []
      for name in overlay:
        detail = diagnostics[name]
        if detail.ndim == 1:
          panels.append(picture.block_bars(detail, *frame.shape[:2]))
        elif detail.shape[-1] == 2:
          # One scale for all frames so far, so that colours hardly change.
          longest = max(longest, picture.largest_magnitude(detail))
          panels.append(picture.flow_to_rgb(detail, longest))
        else:
          panels.append(picture.to_rgb(detail))
    blank = [np.zeros_like(frame)] * len(overlay)
    yield time, picture.hstack([frame, *(panels or blank)])


def _write(
  writer, timed_pictures: Iterable, total, progress: bool, *, given: int = 0
) -> int:
  """Writes (time or None, picture)s; returns their number."""
  count = 0
  with writer, overlap.behind(writer.write) as write:
    for time, image in _bar(timed_pictures, total, progress, given=given):
      write(_colour(image), time)
      count += 1
  return count


def _colour(image: np.ndarray) -> np.ndarray:
  """Converts frames for a writer: grey to colour, floats to 16 bits."""
  if image.dtype.kind == 'f':
    return np.rint(image.clip(0, video_io.WHITE)).astype(np.uint16)
  return np.ascontiguousarray(picture.to_rgb(image))


def _write_samples(writers, futures: Iterable, total, progress: bool) -> int:
  """Writes each future, their mean and their spread to a file of its own."""
  count = 0
  with contextlib.ExitStack() as stack:
    for writer in writers:
      stack.enter_context(writer)

    def write_all(images):
      for writer, image in zip(writers, images):
        writer.write(_colour(image))

    write = stack.enter_context(overlap.behind(write_all, 1))
    for future in _bar(futures, total, progress):
      spread = np.rint(1020 * np.minimum(future.spread, 0.25)).astype(np.uint8)
      write((*future.frames, future.mean, spread))
      count += 1
  return count


def _bar(
  items: Iterable, total: int | None, progress: bool, *, given: int = 0
) -> Iterator:
  """A progress bar, if wanted and if stderr is a terminal.

  Args:
    items: what is counted.
    total: how many there are, if that is known.
    progress: whether a bar is wanted.
    given: how many come before the model is needed, which is compiled then.
  """
  hidden = None if progress else True
  with tqdm.tqdm(total=total, unit=' frames', disable=hidden) as bar:
    if not given:
      bar.set_description('compiling')
    for count, item in enumerate(items, 1):
      if count == given:
        bar.set_description('compiling')
      elif count == given + 1:
        bar.set_description('predict')
      yield item
      bar.update()


def renamed(path: str | pathlib.Path, suffix: int | str) -> pathlib.Path:
  """The file of one future: `future_0.mp4`, `future_mean.mp4`."""
  path = pathlib.Path(path)
  return path.with_name(f'{path.stem}_{suffix}{path.suffix}')
