"""Moving MNIST: digits that move straight, bounce off the borders and overlap.

A clip shows digits of 28x28 pixels on black. Each digit starts at a random
position with a random direction. Per frame it moves a tenth of the distance
that it can move within the frame. At a border it stops exactly there and turns
back. Where digits overlap the brighter pixel is shown. The test set was made in
this way (Srivastava et al. 2015); published training code generates new clips
without end in the same way.

Clips are uint8 `[T, H, W, 1]`, a function of (split, number of the clip).

The digits of the two splits are disjoint:

  'sklearn': the 8x8 digits of UCI that scikit-learn has, which come with the
    package, enlarged to 20x20 with a margin of 4 like MNIST's; the last 360 of
    1797 are for testing.
  'mnist': the IDX files in `root`, compressed or not. The test clips are the
    published 10,000 of `mnist_test_seq.npy`, if `root` holds that file and the
    clips have 2 digits, 64x64 pixels and at most 20 frames. Otherwise they are
    generated, as `repr(source)` says: from the 10,000 test digits or, without
    these, from the last 10,000 training digits, which training then leaves out.

Differences from the reference:
  - Training has `2**30` clips; the published loader calls 10,000 new ones an
    epoch.
"""

import functools
import gzip
import math
import os
import pathlib

import numpy as np
from PIL import Image

from vidpred_jax.data import validation
from vidpred_jax.data.files import reading
from vidpred_jax.data.published.prediction import absent

SIDE = 28
# The share of its room that a digit crosses in one frame.
_STEP = 0.1
_TRAIN_CLIPS = 2**30
_FIXED = 'mnist_test_seq.npy'
_BUNDLED = pathlib.Path(__file__).parent / 'bundled' / 'digits.npz'
_HELD_OUT = {'sklearn': 360, 'mnist': 10_000}
# Of random numbers, so that no two splits have the same clips.
_STREAMS = {'train': 0, 'test': 1, 'val': 2}


class MovingDigits:
  """A grain random access source; item `i` is a function of (split, i).

  Items are dicts with `video` uint8 [T, H, W, 1] and `name`.
  """

  kind = 'image'
  epoch = 10_000  # clips that published epochs have

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    digits: str = 'sklearn',
    root: str | os.PathLike = '',
    num_digits: int = 2,
    size: tuple[int, int] | int = (64, 64),
    test_clips: int = 10_000,
    val_fraction: float = 0.0,
  ):
    """Loads the digits.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      digits: 'sklearn', 'mnist', or 'auto': MNIST where `root` holds it.
      root: for 'mnist', the folder with its files.
      num_digits: how many move, at least 1.
      size: (H, W) of a clip, or one number for both, at least 28 each.
      test_clips: number of clips for testing; of the published ones, the first.
        As many are for validation.
      val_fraction: share of the digits for training, the last ones, of which
        the clips of 'val' are made instead.

    Raises:
      ValueError: on an unknown split or a setting out of range, or if a file is
        damaged.
      FileNotFoundError: if the files are not at `root`; says where to get them.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    validation.check(split)
    if digits == 'auto':
      digits = 'mnist' if _holds_mnist(root, split) else 'sklearn'
    if digits not in _HELD_OUT:
      raise ValueError(
        f"digits must be 'sklearn', 'mnist' or 'auto', got {digits!r}."
      )
    if len(sides) != 2 or min(sides) < SIDE:
      raise ValueError(
        f'size must be (H, W), at least {SIDE} each, got {sides}.'
      )
    if min(num_frames, num_digits, test_clips) < 1:
      raise ValueError(
        'num_frames, num_digits and test_clips must be at least 1, got '
        f'{num_frames}, {num_digits}, {test_clips}.'
      )
    self._split, self._num_frames, self._size = split, num_frames, sides
    self._num_digits, self._fixed = num_digits, None
    self._length = _TRAIN_CLIPS if split == 'train' else test_clips
    published = num_digits == 2 and sides == (64, 64)
    drawn_from = 'test' if split == 'test' else 'train'
    if digits == 'sklearn':
      images = _divided(_bundled(), digits, drawn_from)
      self._digits = _held_out(images, split, val_fraction)
      self._title = 'generated clips of digits of UCI'
      return
    place = _place(root, drawn_from)
    fixed = place / _FIXED
    if split == 'test' and fixed.is_file() and published and num_frames <= 20:
      self._fixed = _fixed_clips(fixed)
      self._length = min(test_clips, self._fixed.shape[1])
      self._title = f'clips of {_FIXED}'
      return
    images, which = _mnist_digits(place, drawn_from)
    self._digits = _held_out(images, split, val_fraction)
    self._title = f'generated clips of {which}'

  def __len__(self) -> int:
    return self._length

  def __repr__(self) -> str:
    return f'MovingDigits({self._split!r}: {self._length} {self._title})'

  def __getitem__(self, index) -> dict:
    index = range(self._length)[index]
    name = f'{self._split}/{index:06d}'
    if self._fixed is not None:
      clip = np.array(self._fixed[: self._num_frames, index, :, :, None])
      return {'video': clip, 'name': name}
    rng = np.random.default_rng([_STREAMS[self._split], index])
    clip = np.zeros((self._num_frames, *self._size), np.uint8)
    for _ in range(self._num_digits):
      digit = self._digits[rng.integers(len(self._digits))]
      for frame, (i, j) in zip(clip, self._path(rng)):
        part = frame[i : i + SIDE, j : j + SIDE]
        np.maximum(part, digit, out=part)
    return {'video': clip[..., None], 'name': name}

  def _path(self, rng) -> list[tuple[int, int]]:
    """Upper left corner (row, column) of a digit in each frame."""
    (y, x), angle = rng.random(2), 2 * math.pi * rng.random()
    dy, dx = _STEP * math.sin(angle), _STEP * math.cos(angle)
    height, width = (side - SIDE for side in self._size)
    corners = []
    for _ in range(self._num_frames):
      (y, dy), (x, dx) = _moved(y, dy), _moved(x, dx)
      corners.append((int(height * y), int(width * x)))
    return corners


def _moved(place: float, speed: float) -> tuple[float, float]:
  """One step in [0, 1]: the new position, and the speed after it."""
  place += speed
  if 0 < place < 1:
    return place, speed
  return min(max(place, 0.0), 1.0), -speed


def count(root, split: str) -> int:
  """Counts the training digits or the test clips in `root`.

  Raises:
    FileNotFoundError: if `root` does not hold them.
  """
  place = _place(root, split)
  if split == 'test':
    if not (place / _FIXED).is_file():
      raise FileNotFoundError(absent('moving_mnist', root, split))
    return _fixed_clips(place / _FIXED).shape[1]
  train = _idx_file(place, 'train')
  if train is None:
    raise FileNotFoundError(absent('moving_mnist', root, split))
  return len(_idx(train))


def _held_out(digits: np.ndarray, split: str, fraction: float) -> np.ndarray:
  """Without those of 'val', or these alone."""
  if split == 'test':
    return digits
  chosen = validation.part(split, len(digits), fraction, 'digits')
  return digits[chosen.start : chosen.stop]


def _divided(digits: np.ndarray, name: str, split: str) -> np.ndarray:
  first = len(digits) - _HELD_OUT[name]
  if first < 1:
    raise ValueError(
      f'There are {len(digits)} digits; more than {_HELD_OUT[name]} are needed '
      'to hold some out for testing.'
    )
  return digits[:first] if split == 'train' else digits[first:]


@functools.cache
def _bundled() -> np.ndarray:
  """The digits that come with the package, uint8 [1797, 28, 28]."""
  with np.load(_BUNDLED) as arrays:
    images = arrays['images']  # 0 to 16
  digits = np.zeros((len(images), SIDE, SIDE), np.uint8)
  for digit, image in zip(digits, images):
    small = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    small = small.resize((20, 20), Image.Resampling.BICUBIC)
    digit[4:-4, 4:-4] = np.asarray(small)
  return digits


def _holds_mnist(root, split) -> bool:
  try:
    _place(root, split)
  except FileNotFoundError:
    return False
  return True


def _place(root, split: str) -> pathlib.Path:
  """The folder in `root` that holds the files of MNIST."""
  root = pathlib.Path(os.path.expanduser(root))
  for place in (root, root / 'moving_mnist', root / 'MNIST' / 'raw'):
    if (place / _FIXED).is_file() or _idx_file(place, 'train'):
      return place
  raise FileNotFoundError(absent('moving_mnist', root, split))


def _idx_file(place: pathlib.Path, part: str) -> pathlib.Path | None:
  stem = {'train': 'train-images', 'test': 't10k-images'}[part]
  names = (f'{stem}{dot}idx3-ubyte{gz}' for dot in '-.' for gz in ('', '.gz'))
  return next((place / n for n in names if (place / n).is_file()), None)


def _mnist_digits(place: pathlib.Path, split: str) -> tuple[np.ndarray, str]:
  """The digits of a split, and their description."""
  train, test = _idx_file(place, 'train'), _idx_file(place, 'test')
  if split == 'test' and test is not None:
    return _idx(test), 'test digits of MNIST'
  if train is None:
    raise FileNotFoundError(absent('moving_mnist', place, split))
  if test is None and not (place / _FIXED).is_file():
    digits = _divided(_idx(train), 'mnist', split)
    part = 'last' if split == 'test' else 'first'
    return digits, f'training digits of MNIST, the {part} {len(digits)}'
  if split == 'train':
    return _idx(train), 'training digits of MNIST'
  raise FileNotFoundError(
    f'{place / _FIXED} has 20 frames of 64x64 with 2 digits. Other clips are '
    'generated, which needs t10k-images-idx3-ubyte.gz beside it.'
  )


@functools.lru_cache(maxsize=4)
def _idx(path: pathlib.Path) -> np.ndarray:
  """Pictures of an IDX file, uint8 [N, 28, 28]."""
  data = path.read_bytes()
  if path.suffix == '.gz':
    with reading(path, 'gzip file'):
      data = gzip.decompress(data)
  header = np.frombuffer(data[:16], '>u4')
  wanted = (2051, SIDE, SIDE)
  if len(header) < 4 or (header[0], *header[2:]) != wanted:
    raise ValueError(
      f'{path} is no IDX file of 28x28 pictures; it begins with '
      f'{header.tolist()}, expected [2051, N, 28, 28].'
    )
  if len(data) != 16 + header[1] * SIDE**2:
    raise ValueError(
      f'{path} is damaged: {len(data)} bytes do not hold {header[1]} pictures.'
    )
  return np.frombuffer(data, np.uint8, offset=16).reshape(-1, SIDE, SIDE)


def _fixed_clips(path: pathlib.Path) -> np.ndarray:
  """The published test clips, uint8 [20, N, 64, 64], on disk."""
  with reading(path, 'npy file'):
    clips = np.lib.format.open_memmap(path, mode='r')
  if clips.dtype != np.uint8 or clips.ndim != 4 or clips.shape[::2] != (20, 64):
    raise ValueError(
      f'{path} holds {clips.dtype} {clips.shape}; expected uint8 '
      '(20, N, 64, 64).'
    )
  return clips
