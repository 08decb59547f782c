"""A generated film with known frames, to try a model on.

The film shows photographs in motion, on which no shipped model was trained. A
model gets a part of the frames, as lossless pictures, and its results are
compared with the frames that were left out.
"""

import pathlib

import numpy as np

from vidpred_jax import video_io

_SIZE = (256, 448)
_NUM_INPUT = 8


def frames(count: int) -> np.ndarray:
  """The film, uint8 [count, 256, 448, 3]."""
  from vidpred_jax import data  # grain and Orbax, half a second

  source = data.make_source(
    'photos', split='test', num_frames=count, size=_SIZE, max_speed=6.0
  )
  return source[1]['video']


def write(
  folder: pathlib.Path, *, num_frames: int | None, factor: int | None
) -> np.ndarray:
  """Writes the model's input, a part of the film.

  Args:
    folder: the folder for the pictures; it is created.
    num_frames: prediction: the number of frames after the input.
    factor: interpolation: every `factor`-th frame is input.

  Returns:
    The true frames, uint8 [N, H, W, 3]: those after the input, or for
    interpolation all frames of the film.
  """
  if factor is None:
    film = frames(_NUM_INPUT + (num_frames or 0))
    given, truth = film[:_NUM_INPUT], film[_NUM_INPUT:]
  else:
    truth = frames((_NUM_INPUT - 1) * factor + 1)
    given = truth[::factor]
  with video_io.Writer(folder, fps=25) as writer:
    for frame in given:
      writer.write(frame)
  return truth


def compare(
  made: np.ndarray,
  truth: np.ndarray,
  *,
  last: np.ndarray | None = None,
  factor: int | None = None,
) -> str:
  """Compares frames with the truth, in a sentence.

  Args:
    made: uint8 [N, H, W, 3].
    truth: the same shape.
    last: prediction: the last input frame [H, W, 3]; copies of it are the
      baseline.
    factor: interpolation: every `factor`-th frame was input; the mean of the
      two input frames around a frame is the baseline.

  Returns:
    The mean PSNR of the new frames, of the model's and of the baseline's.
  """
  if factor is not None:
    name = 'the mean of the frames around'
    given = truth[::factor].astype(np.float32)
    mean = (given[:-1] + given[1:]) / 2
    wanted = np.array([t for t in range(len(truth)) if t % factor])
    simple = np.zeros(truth.shape, np.float32)
    simple[wanted] = mean[wanted // factor]
  else:
    assert last is not None
    name = 'copies of the last frame'
    wanted = np.arange(len(truth))
    simple = np.broadcast_to(last, truth.shape)
  ours, theirs = (
    np.mean([_psnr(frames[t], truth[t]) for t in wanted])
    for frames in (made, simple)
  )
  return f'PSNR {ours:.2f} dB against the true frames; {name}: {theirs:.2f} dB'


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
  error = np.square(a.astype(np.float32) - b.astype(np.float32)).mean()
  return float(10 * np.log10(255**2 / max(error, 1e-3)))
