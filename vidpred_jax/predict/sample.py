"""A film whose frames are all known, to try a model on.

Photographs in motion that no shipped model was trained on, written as pictures,
which lose nothing. What a model makes of a part of the frames is compared with
the frames that were left out.
"""

import pathlib

import numpy as np

from vidpred_jax import data, video_io

_SIZE = (256, 448)
_SEEN = 8


def frames(count: int) -> np.ndarray:
  """The film, uint8 [count, 256, 448, 3]."""
  source = data.make_source(
    'photos', split='test', num_frames=count, size=_SIZE, max_speed=6.0
  )
  return source[1]['video']


def write(
  folder: pathlib.Path, *, num_frames: int | None, factor: int | None
) -> np.ndarray:
  """Writes the part of the film that a model sees.

  Args:
    folder: where to write pictures; it is made.
    num_frames: prediction: how many frames follow those that are written.
    factor: interpolation: every `factor`-th frame is written.

  Returns:
    The frames that are to be made, uint8 [N, H, W, 3]: those that follow, or
    all frames of the film.
  """
  if factor is None:
    film = frames(_SEEN + (num_frames or 0))
    seen, truth = film[:_SEEN], film[_SEEN:]
  else:
    truth = frames((_SEEN - 1) * factor + 1)
    seen = truth[::factor]
  with video_io.Writer(folder, fps=25) as writer:
    for frame in seen:
      writer.write(frame)
  return truth


def compare(
  made: np.ndarray,
  truth: np.ndarray,
  *,
  last: np.ndarray | None = None,
  factor: int | None = None,
) -> str:
  """How near frames come to the truth, in a sentence.

  Args:
    made: uint8 [N, H, W, 3].
    truth: the same shape.
    last: prediction: the last frame seen [H, W, 3], to copy instead.
    factor: interpolation: every `factor`-th frame was seen; the mean of the two
      around stands in for the others.

  Returns:
    The mean PSNR of the frames that were not seen, of the model's and of the
    simple ones.
  """
  if factor is not None:
    name = 'the mean of the frames around'
    seen = truth[::factor].astype(np.float32)
    mean = (seen[:-1] + seen[1:]) / 2
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
