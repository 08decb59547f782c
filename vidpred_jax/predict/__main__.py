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
`--cuts=FILE`). Where nothing moves new frames are means of the two beside them;
`--whole` computes all of the picture.

Interlaced video is used unchanged, with a warning, unless `--deinterlace` is
given. High dynamic range is mapped to the standard range, with a warning,
unless `--hdr=keep` is given. `--input_fps` is the rate of a folder of pictures.

`--checkpoint` is an exported system, the workdir of a run, or the name of a
model that comes with the package; the default is the package's model for any
film. The default of `--input` is a generated film whose true frames are known.
Input and output are video files or folders of pictures (an output without a
suffix). The output appears when it is complete; an existing output is replaced
only with `--overwrite`. `--overlay=flow,blocks` shows diagnostics of the system
at the right of the frames. The progress bar counts frames that are ready.

Frames as arrays: `--input=clip.npy --output=future.npy`, or `.npz` or `.zarr`,
uint8 [T, H, W, C], or [N, T, H, W, C] of N films, which gives N futures. With
`--samples=S` the output is [S, T, H, W, C], or [N, S, T, H, W, C].

Physical fields (a system trained on fields):

  python -m vidpred_jax.predict --checkpoint=runs/era5 --input=hours.npz \\
    --output=future.npz --num_frames=12

Input and output are arrays in the variables' units: an npz file with an array
`[T, H, W]` for each variable, by its name, or an npy file `[T, H, W, C]`, or
`[T, H, W]` of one variable. The output holds the predicted frames alone.

  python -m vidpred_jax.predict --checkpoint=runs/era5 --input=2018.zarr \\
    --output=forecasts.zarr --num_frames=12 --init_every=24

NetCDF (`.nc`) and Zarr keep coordinates and units. The output has the
dimensions of WeatherBench 2: `time`, when a forecast starts, and
`prediction_timedelta`, how long after; WeatherBench-X scores it. A forecast
starts at the last hour of the input, or with `--init_every=24` at each 0 UTC.
"""

import contextlib
import functools
import os
import pathlib
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
from absl import flags

from vidpred_jax import atomic, command, runtime, video_io
from vidpred_jax.predict import sample, tiling
from vidpred_jax.predict.arrays import is_array, predict_array
from vidpred_jax.predict.fields import predict_field
from vidpred_jax.predict.predictor import Predictor
from vidpred_jax.predict.videos import predict_video, renamed
from vidpred_jax.video_io import scenes

__all__ = [
  'Predictor',
  'define_flags',
  'main',
  'predict_array',
  'predict_field',
  'predict_video',
]

# By whether frames between frames are asked for.
_FOR_ANY_FILM = {False: 'dmvfn-film', True: 'apr-vfi-film'}


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_string(
    'checkpoint', None, 'Exported system, --workdir or name of a model.'
  )
  flags.DEFINE_string(
    'input',
    None,
    'Video, folder of pictures, npy, npz, zarr, nc; none: a generated film.',
  )
  flags.DEFINE_string('output', None, 'The same, to write.')
  flags.DEFINE_integer('num_frames', None, 'How many frames to predict.')
  flags.DEFINE_integer('samples', None, 'How many futures to draw.')
  flags.DEFINE_integer(
    'init_every', None, 'Of NetCDF and Zarr: hours from forecast to forecast.'
  )
  flags.DEFINE_bool('with_input', False, 'Write the input before them.')
  flags.DEFINE_integer('factor', None, 'Interpolate to so many times the rate.')
  flags.DEFINE_string('fps', None, 'Interpolate to this rate: 60, 60000/1001.')
  flags.DEFINE_bool('whole', False, 'Interpolate also where nothing moves.')
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
  flags.DEFINE_integer(
    'seed', 0, 'Of random systems.', lower_bound=0, upper_bound=2**31 - 1
  )
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
  _check_output(options)
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
  data = checkpoint.read_data_spec(chosen)
  _serve(load, options, fps, input_fps, data is not None and data.is_field)


def _check_output(options) -> None:
  """Raises an error, before any work, if nothing can be written."""
  source, output = options.input, os.path.expanduser(options.output)
  with contextlib.suppress(OSError):  # what is not there is told later
    if source is not None and os.path.samefile(source, output):
      raise ValueError(f'--output={output} is the input, which is kept.')
  is_one = options.samples is None or is_array(output)
  first = output if is_one else renamed(output, 0)
  atomic.check_new(first, overwrite=options.overwrite)


def _serve(load, options, fps, input_fps, fields: bool) -> None:
  """Predicts a field, an array or a video, and prints what was written."""
  settings = {
    'num_frames': options.num_frames,
    'overwrite': options.overwrite,
    'key': jax.random.key(options.seed),
    'max_pixels': options.max_pixels,
    'overlap': options.tile_overlap,
    'cut': options.cut,
    'whole': options.whole,
  }
  if fields:
    _refuse(options, 'Physical fields', ('factor', 'samples'))
    count = predict_field(
      load,
      options.input,
      options.output,
      init_every=options.init_every,
      **settings,
    )
  elif options.init_every is not None:
    raise ValueError('--init_every is for systems of physical fields.')
  elif is_array(options.input) or is_array(options.output):
    _refuse(options, 'Arrays')
    count = predict_array(
      load,
      options.input,
      options.output,
      factor=options.factor,
      samples=options.samples,
      **settings,
    )
  else:
    return _predict_videos(load, options, fps, input_fps, settings)
  print(f'{count} frames written to {options.output}')


def _predict_videos(load, options, fps, input_fps, settings) -> None:
  """Serves video files; prints what was written."""
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
    names = [renamed(options.output, s).name for s in ('0', 'mean', 'spread')]
    print(f'{count} frames each written to {", ".join(names)}, ...')


def _refuse(options, what: str, more: Sequence[str] = ()) -> None:
  """Raises ValueError if a flag is given that is for videos alone."""
  for name in (
    'fps', 'with_input', 'overlay', 'input_fps', 'deinterlace', 'hdr', 'cuts',
    'crf', 'codec',
    *more,
  ):  # fmt: skip
    if options[name].present:
      raise ValueError(f'{what} cannot be served --{name}.')


def _rate(name: str, flag) -> Fraction | None:
  """A flag's frames per second."""
  if flag.value is None:
    return None
  with contextlib.suppress(ValueError, ZeroDivisionError, OverflowError):
    rate = Fraction(flag.value)
    float(rate)  # so that it can be said
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
  # What cannot be written is refused before the work.
  video_io.Writer(options.output, fps=1, overwrite=options.overwrite)
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
