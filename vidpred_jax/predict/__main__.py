"""Predicts or interpolates video files and arrays of physical fields.

Prediction (any system that predicts):

  python -m vidpred_jax.predict --checkpoint=runs/demo --input=clip.mp4 \\
    --output=future.mp4 --num_frames=5

predicts the frames after the clip. The output holds the predicted frames
alone, with `--with_input` the input before them. A stochastic system draws
`--samples=S` futures: `future_0.mp4` and so on, with `future_mean.mp4` and
`future_spread.mp4` (standard deviation; white is a quarter of the range from
black to white, or more). `--set name=value` replaces a setting of the system,
such as RVD's 1600 steps: `--set sampler=dpm++ --set sampling_steps=25`, or the
frames it sees: `--set frames='((0, 1, 2, 3), (4, 5, 6, 7))'`.

Interpolation (any system that interpolates):

  python -m vidpred_jax.predict --checkpoint=DIR --input=a.mp4 \\
    --output=b.mp4 --factor=2

makes a video of K times the frame rate. `--fps=60` makes a video of that rate
and of the same duration, by the times of the frames. Sound, subtitles and
chapters are copied. Nothing is blended across a scene cut (`--cut`, or the list
`--cuts=FILE`).

Interlaced video is used unchanged, with a warning, unless `--deinterlace` is
given. High dynamic range is mapped to the standard range, with a warning,
unless `--hdr=keep` is given. `--input_fps` is the rate of a folder of pictures.

`--checkpoint` is an exported system, the workdir of a run, or the name of a
model that comes with the package; the default is the package's model for any
film. The default of `--input` is a generated film whose true frames are known.
Input and output are video files or folders of pictures (an output without a
suffix). The output appears when it is complete; an existing output is replaced
only with `--overwrite`. `--overlay=flow,blocks` shows diagnostics of the system
at the right of the frames. The progress bar counts written frames.

Physical fields (a system trained on fields):

  python -m vidpred_jax.predict --checkpoint=runs/era5 --input=hours.npz \\
    --output=future.npz --num_frames=12

Input and output are arrays in the variables' units: an npz file with an array
`[T, H, W]` for each variable, by its name, or an npy file `[T, H, W, C]`, or
`[T, H, W]` of one variable. The output holds the predicted frames alone.
"""

import collections
import contextlib
import functools
import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import tqdm
from absl import flags

from vidpred_jax import command, picture, runtime, video_io
from vidpred_jax.predict import sample, tiling
from vidpred_jax.predict.fields import predict_field
from vidpred_jax.predict.predictor import Predictor
from vidpred_jax.systems.base import DataSpec, Frames
from vidpred_jax.video_io import scenes

__all__ = [
  'Predictor',
  'define_flags',
  'main',
  'predict_field',
  'predict_video',
]

_LOG = logging.getLogger('vidpred_jax.predict')

# By whether frames between frames are asked for.
_FOR_ANY_FILM = {False: 'dmvfn-film', True: 'apr-vfi-film'}

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
  _check_request(
    between,
    num_frames=num_frames,
    samples=samples,
    with_input=with_input or None,
    factor=factor,
    fps=fps,
  )
  if samples is not None and (with_input or overlay):
    raise ValueError('Got --samples together with --with_input or --overlay.')
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
    if samples is not None or overlay or system.channels != 3:
      raise ValueError(
        'High dynamic range is kept of systems of 3 channels, without '
        '--samples and --overlay; got --hdr=keep.'
      )
    write = functools.partial(write, curve=info.curve)
    load = functools.partial(_of_light, load)
    system, variables = load()
  sound = source if audio and info.has_audio else None
  with_diagnostics = bool(overlay)
  if between:
    parts = _parts(info, factor, fps)
    frames = Frames((0, parts), tuple(range(1, parts)))
    total, last = None, None
    if fps is None:
      assert info.num_frames is not None and info.last is not None
      fps, last = info.fps * parts, info.last
      total = (info.num_frames - 1) * parts + 1
      if not info.variable and last < 2 / info.fps:
        last = None
    writer = write(output, fps=fps, audio=sound, trim_audio=False, last=last)
    serve = Predictor(*load(frames=frames), cuts=film.begins, **settings)
    if total is not None:
      shots = _interpolated(serve, film, key, with_diagnostics)
    else:
      timed = _frames(film, system.channels)
      shots = serve.resample(
        timed, fps, key, with_diagnostics=with_diagnostics, last=info.last
      )
      shots = _untimed(shots)
    shots = _overlaid(shots, overlay)
    return _write(writer, shots, total, progress, given=1)
  serve = Predictor(system, variables, **settings)
  measured = len(system.frames.target)
  num_frames = measured if num_frames is None else num_frames
  if num_frames > measured:
    _LOG.warning(
      '%d frames are asked for; these weights were measured on %d. The others '
      'are predicted from predictions, and get worse.', num_frames, measured,
    )  # fmt: skip
  if with_input:
    writer = write(output, fps=info.fps, audio=sound)
    shots = _continued(serve, film, num_frames, key, with_diagnostics, mark)
    assert info.num_frames is not None
    total, shots = info.num_frames + num_frames, _overlaid(shots, overlay)
    return _write(writer, shots, total, progress, given=info.num_frames)
  fps = info.fps / _step(system.frames)
  clip = _tail(film, system)
  if samples is not None:
    outputs = [_renamed(output, s) for s in (*range(samples), 'mean', 'spread')]
    writers = [write(path, fps=fps) for path in outputs]
    futures = serve.stream_samples(clip, num_frames, samples, key)
    return _write_samples(writers, futures, num_frames, progress)
  shots = _untimed(
    serve.stream(clip, num_frames, key, with_diagnostics=with_diagnostics)
  )
  writer = write(output, fps=fps)
  return _write(writer, _overlaid(shots, overlay), num_frames, progress)


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


def _check_request(between: bool, **asked) -> None:
  """Raises ValueError unless a system of this kind serves the request."""
  wrong, does = ('factor', 'fps'), 'predicts what follows'
  if between:
    wrong = ('num_frames', 'samples', 'with_input')
    does = 'interpolates between frames'
  for name in wrong:
    if asked[name] is not None:
      raise ValueError(f'This system {does}; it cannot serve --{name}.')
  factor, fps = asked['factor'], asked['fps']
  if factor is not None and fps is not None:
    raise ValueError('Got both --factor and --fps, expected one of them.')
  if factor is not None and factor < 2:
    raise ValueError(f'Got --factor={factor}, expected 2 or more.')
  if fps is not None and fps <= 0:
    raise ValueError(f'Got --fps={fps}, expected a positive number.')


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
  for time, frame in film.frames():
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

  def frames():
    for time, frame in _frames(film, serve.system.channels):
      times.append(time)
      yield frame

  parts = serve.system.frames.context[-1]
  shots = serve.interpolate(
    frames(), parts, key, with_diagnostics=with_diagnostics
  )
  for n, shot in enumerate(shots):
    time = None
    if film.info.variable:
      i, k = divmod(n, parts)
      following = times[min(i + 1, len(times) - 1)]
      time = times[i] + (following - times[i]) * Fraction(k, parts)
    yield time, shot


def _continued(serve, film, num_frames, key, with_diagnostics, mark):
  """Yields the input and the predictions: (time or None, frame or shot)."""
  frames = serve.system.frames
  length = max(frames.context) - min(frames.context) + 1
  context = collections.deque(maxlen=length)
  step = _step(frames)
  timed = film.info.variable or step != 1
  for time, frame in _frames(film, serve.system.channels):
    context.append(frame)
    yield (time if timed else None), (frame, {}) if with_diagnostics else frame
  shots = serve.stream(
    context, num_frames, key, with_diagnostics=with_diagnostics
  )
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
        if name not in diagnostics:
          raise ValueError(
            f'Got --overlay={name}; this system has {", ".join(diagnostics)}.'
          )
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
  with writer:
    for time, image in _bar(timed_pictures, total, progress, given=given):
      writer.write(_colour(image), time)
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
    for future in _bar(futures, total, progress):
      spread = np.rint(1020 * np.minimum(future.spread, 0.25)).astype(np.uint8)
      for writer, image in zip(writers, (*future.frames, future.mean, spread)):
        writer.write(_colour(image))
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


def _renamed(path, suffix) -> pathlib.Path:
  path = pathlib.Path(path)
  return path.with_name(f'{path.stem}_{suffix}{path.suffix}')


# -------------------------------------------------------------------- command


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_string(
    'checkpoint', None, 'Exported system, --workdir or name of a model.'
  )
  flags.DEFINE_string(
    'input',
    None,
    'Video, folder of pictures, npz, npy; none: a generated film.',
  )
  flags.DEFINE_string('output', None, 'The same, to write.')
  flags.DEFINE_integer('num_frames', None, 'How many frames to predict.')
  flags.DEFINE_integer('samples', None, 'How many futures to draw.')
  flags.DEFINE_bool('with_input', False, 'Write the input before them.')
  flags.DEFINE_integer('factor', None, 'Interpolate to so many times the rate.')
  flags.DEFINE_string('fps', None, 'Interpolate to this rate: 60, 60000/1001.')
  flags.DEFINE_list('overlay', [], 'Show beside: flow, mask, blocks, routes.')
  flags.DEFINE_bool('audio', True, 'Copy sound, subtitles and chapters.')
  flags.DEFINE_string('input_fps', None, 'Rate of a folder or raw H.264; 25.')
  flags.DEFINE_bool('deinterlace', False, 'One moment of two in each frame.')
  flags.DEFINE_enum(
    'hdr', 'tonemap', ['tonemap', 'keep'], 'High dynamic range: map it or keep.'
  )
  flags.DEFINE_string('cuts', None, 'A list of frames that begin a scene.')
  flags.DEFINE_bool('mark', True, 'A bar over what was predicted, with_input.')
  flags.DEFINE_integer('crf', None, 'Quality of the output, 0 is best; 18.')
  flags.DEFINE_string('codec', None, 'h264, h265, vp9 or ffv1 (lossless).')
  flags.DEFINE_bool('overwrite', False, 'Replace an existing output.')
  flags.DEFINE_bool(
    'allow_nonfinite', False, 'Take weights that are infinite or no numbers.'
  )
  flags.DEFINE_integer('seed', 0, 'Of random systems.')
  flags.DEFINE_multi_string(
    'set', [], 'A setting of the system, name=value; repeatable.'
  )
  flags.DEFINE_integer(
    'max_pixels', tiling.MAX_PIXELS, 'Larger frames are cut into tiles.'
  )
  flags.DEFINE_integer('tile_overlap', tiling.OVERLAP, 'Of tiles, in pixels.')
  flags.DEFINE_float(
    'cut',
    scenes.MIN_SIMILARITY,
    'Interpolation: frames less alike may be of two scenes, -1 to 1.',
  )
  command.require('output')


def main(argv) -> None:
  """Reads, predicts and writes; prints what was written."""
  del argv
  options = flags.FLAGS
  fps, input_fps = (_rate(name, options[name]) for name in ('fps', 'input_fps'))
  runtime.setup()
  from vidpred_jax import checkpoint

  chosen = options.checkpoint
  if chosen is None:
    between = options.factor is not None or fps is not None
    chosen = _FOR_ANY_FILM[between]
    print(f'Model: {chosen}, which comes with the package.')
  load = functools.partial(
    checkpoint.load,
    chosen,
    allow_nonfinite=options.allow_nonfinite,
    **command.parse_settings(options.set),
  )
  if options.input is None:
    return _try_out(load, options, fps)
  settings = {
    'num_frames': options.num_frames,
    'overwrite': options.overwrite,
    'key': jax.random.key(options.seed),
    'max_pixels': options.max_pixels,
    'overlap': options.tile_overlap,
    'cut': options.cut,
  }
  data = checkpoint.read_data_spec(chosen)
  if data is not None and data.is_field:
    for name in (
      'factor', 'fps', 'samples', 'with_input', 'overlay', 'input_fps',
      'deinterlace', 'hdr', 'cuts', 'crf', 'codec',
    ):  # fmt: skip
      if options[name].present:
        raise ValueError(f'Physical fields cannot be served --{name}.')
    count = predict_field(load, options.input, options.output, **settings)
  else:
    count = predict_video(
      load,
      options.input,
      options.output,
      factor=options.factor,
      fps=fps,
      samples=options.samples,
      with_input=options.with_input,
      overlay=options.overlay,
      audio=options.audio,
      progress=True,
      mark=options.mark,
      quality=options.crf,
      codec=options.codec,
      reading={
        'fps': input_fps,
        'deinterlace': options.deinterlace,
        'hdr': options.hdr,
        'cuts': options.cuts,
      },
      **settings,
    )
  if options.samples is None:
    print(f'{count} frames written to {options.output}')
  else:
    names = [_renamed(options.output, s).name for s in ('0', 'mean', 'spread')]
    print(f'{count} frames each written to {", ".join(names)}, ...')


def _rate(name: str, flag) -> Fraction | None:
  """A flag's frames per second."""
  if flag.value is None:
    return None
  with contextlib.suppress(ValueError, ZeroDivisionError):
    rate = Fraction(flag.value)
    if rate > 0 or name == 'fps':
      return rate
  raise ValueError(
    f'Got --{name}={flag.value}, expected a number such as 60 or 60000/1001.'
  )


def _try_out(load, options, fps) -> None:
  """Predicts or restores a film whose true frames are known."""
  if fps is not None or options.samples is not None:
    raise ValueError(
      'Without --input there is a generated film, for --num_frames or --factor.'
    )
  frames = load()[0].frames
  factor = (options.factor or 2) if frames.interpolates else None
  count = options.num_frames or len(frames.target)
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    given, made = folder / 'given', folder / 'made'
    truth = sample.write(given, num_frames=count, factor=factor)
    settings: dict[str, Any] = {
      'num_frames': None if factor else count,
      'factor': factor,
      'key': jax.random.key(options.seed),
    }
    # Once as pictures, which lose nothing, to compare, once as asked for.
    predict_video(load, given, made, progress=True, **settings)
    _rewrite(made, options.output, overwrite=options.overwrite)
    last = None if factor else video_io.read(given)[-1]
    said = sample.compare(video_io.read(made), truth, last=last, factor=factor)
  print(f'{len(truth)} frames written to {options.output}: {said}')


def _rewrite(source, output, *, overwrite) -> None:
  """Writes the frames of one file or folder to another."""
  fps = video_io.probe(source).fps
  with video_io.Writer(output, fps=fps, overwrite=overwrite) as writer:
    for _, frame in video_io.frames(source):
      writer.write(frame)


if __name__ == '__main__':
  command.run(main, define_flags)
