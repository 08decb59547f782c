"""Sequences of frames on disk: one reader for all formats of the data sets.

A sequence is a list of pictures, a folder of pictures, a video file, a Norpix
`.seq` file, a `.y4m` file, an episode of RoboNet (`.hdf5`) or a part of what
was prepared (`.json`). Clips are uint8
`[T, H, W, 3]`, RGB.
"""

import importlib.util
import tempfile
from typing import NamedTuple

import numpy as np

from vidpred_jax import video_io
from vidpred_jax.data import prepared
from vidpred_jax.data.files import reading
from vidpred_jax.data.published import norpix, resize, y4m


class Sequence(NamedTuple):
  """A sequence of frames.

  Attributes:
    name: for messages and results.
    frames: paths of the frames; or one path of a video file or folder, which is
      looked into only when it is read.
    first: of one path: number of the frame that this run begins with.
    step: of one path: distance of the frames of this run.
    number: of one path: how many frames this run has; None: all that there are.
    hop: distance of the windows where they go backwards; None: their length.
    camera: of an episode of RoboNet; None: drawn by the number of the clip.
  """

  name: str
  frames: tuple[str, ...] | str
  first: int = 0
  step: int = 1
  number: int | None = None
  hop: int | None = None
  camera: int | None = 0


def length(sequence: Sequence) -> int:
  """The number of frames of a sequence."""
  if not isinstance(sequence.frames, str):
    return len(sequence.frames)
  if sequence.number is not None:
    return sequence.number
  path = sequence.frames
  if path.endswith('.seq'):
    number = norpix.probe(path).num_frames or norpix.count(path)
  elif path.endswith('.y4m'):
    number = y4m.probe(path).num_frames
  elif path.endswith('.hdf5'):
    number = _episode_length(path)
  else:
    number = video_io.probe(path).num_frames or video_io.index(path).num_frames
  return max(-(-(number - sequence.first) // sequence.step), 0)


def read(
  sequence: Sequence,
  start: int,
  count: int,
  *,
  step: int = 1,
  size: tuple[int, int] | None = None,
  fit: str = 'linear',
  seed: int = 0,
) -> np.ndarray:
  """Reads frames of a sequence.

  Args:
    sequence: of which.
    start: the first frame.
    count: how many frames, T.
    step: their distance.
    size: (H, W) to bring them to; None: as on disk.
    fit: how, a function of `resize`.
    seed: of the camera, where it is drawn.

  Returns:
    uint8 [T, H, W, 3].

  Raises:
    ValueError: if it is too short, a frame is damaged or they differ in size.
    FileNotFoundError: if a frame is missing.
  """
  path = sequence.frames
  if isinstance(path, str):
    begin = sequence.first + start * sequence.step
    numbers = range(begin, begin + count * step * sequence.step)
    numbers = numbers[:: step * sequence.step]
    if path.endswith('.json'):
      frames = prepared.read(path, numbers)
    elif path.endswith('.seq'):
      frames = norpix.read(path, numbers)
    elif path.endswith('.y4m'):
      frames = y4m.read(path, numbers)
    elif path.endswith('.hdf5'):
      frames = _episode(path, sequence.camera, numbers, seed)
    else:
      frames = video_io.read(path, start=begin, count=count, step=numbers.step)
  else:
    paths = path[start : start + (count - 1) * step + 1 : step]
    if len(paths) < count:
      raise ValueError(
        f'The sequence {sequence.name} has {len(path)} frames; {count} from '
        f'frame {start} on were asked for.'
      )
    frames = [video_io.read(p)[0] for p in paths]
  if size is not None:
    bring, size = getattr(resize, fit), tuple(size)
    frames = [x if x.shape[:2] == size else bring(x, size) for x in frames]
  shapes = {frame.shape for frame in frames}
  if len(shapes) > 1:
    raise ValueError(f'The frames of {sequence.name} differ in size: {shapes}.')
  return np.stack(list(frames))


def _hdf5(path: str):
  if importlib.util.find_spec('h5py') is None:
    raise FileNotFoundError(
      f"{path} needs the package h5py: pip install 'vidpred_jax[fields]'"
    )
  import h5py

  return h5py.File(path, 'r')


def _cameras(file) -> list:
  """The group of each camera of an episode of RoboNet."""
  env = file['env']
  return [env[f'cam{k}_video'] for k in range(int(env.attrs['n_cams']))]


def _episode_length(path: str) -> int:
  with reading(path, 'episode of RoboNet'), _hdf5(path) as file:
    camera = _cameras(file)[0]
    if 'frames' in camera:
      return int(camera['frames'].attrs['T'])
    return len(camera)


def _episode(path: str, camera: int | None, numbers: range, seed: int):
  """Frames of an episode of RoboNet: one mp4 file, or a JPEG file each."""
  film, files = None, []
  with reading(path, 'episode of RoboNet'), _hdf5(path) as file:
    cameras = _cameras(file)
    if camera is None:
      camera = int(np.random.default_rng(seed).integers(len(cameras)))
    group = cameras[camera]
    length = len(group)
    if 'frames' in group:
      order = group['frames'].attrs['image_format']
      film = group['frames'][:].tobytes()
    else:
      order = group['frame0'].attrs['image_format']
      known = numbers if numbers[-1] < length else ()
      files = [group[f'frame{k}'][:].tobytes() for k in known]
  if film is not None:
    with reading(path, 'episode of RoboNet'):
      frames = _film(film, numbers)
    return frames[..., ::-1] if order == 'BGR' else frames
  if not files:
    raise ValueError(
      f'{path} has {length} frames; frame {numbers[-1]} was asked for.'
    )
  pairs = zip(numbers, files)
  frames = np.stack([norpix.decoded(path, k, data) for k, data in pairs])
  # The writer took its arrays for BGR.
  return frames if order == 'BGR' else frames[..., ::-1]


def _film(data: bytes, numbers: range) -> np.ndarray:
  with tempfile.NamedTemporaryFile(suffix='.mp4') as file:
    file.write(data)
    file.flush()
    return video_io.read(
      file.name, start=numbers.start, count=len(numbers), step=numbers.step
    )
