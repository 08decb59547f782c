"""Clips from the user's arrays: `.npy`, `.npz` and `.zarr` files.

A file holds one film, `[T, H, W, C]`, or several of one length,
`[N, T, H, W, C]`. All have the same H, W and C. Uncompressed files are mapped
into memory and may be larger than it. A compressed npz file is held in memory
by each worker process. Zarr files are read chunk by chunk.

The values are images, uint8 or floats in [0, 1], or fields of any numbers. Each
channel of a field is normalised by its mean and standard deviation over all
frames of the training split.

No film has frames in two splits, except a single film: it is cut in time.
"""

import functools
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from vidpred_jax import video_io
from vidpred_jax.data import array_files, files, validation, windows
from vidpred_jax.data.moments import moments

# Words in the name of a file, or of its folder, that say what it is for.
_SPLITS = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'test': 'test',
  'testing': 'test',
}
_LOG = logging.getLogger(__name__)
_BLOCK = 2**24  # values that statistics take at once
_MOST_COLOURS = 32  # channels of images of bytes; more are hardly last


class Arrays:
  """A grain random access source of windows of arrays.

  Items are dicts with `video` [T, H, W, C], uint8 or float32, and `name`
  (`file[film]@first frame`).

  Attributes:
    kind: 'image' or 'field'.
    mean: float32 [C], the mean of a field's channels in the training split.
    std: float32 [C], the standard deviation likewise.
    variables: names of a field's channels.
    units: units of a field's channels, one text.
    latitudes: None.
  """

  latitudes = None

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike | tuple = '',
    array: str = '',
    kind: str = 'auto',
    test_fraction: float = 0.2,
    val_fraction: float = 0.0,
    test_files: str | tuple | None = None,
    val_files: str | tuple | None = None,
    step: int | tuple[int, ...] = 1,
    hop: int | None = None,
    colour: bool = False,
    variables: Sequence[str] = (),
    units: str = '',
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
  ):
    """Finds the films of a split and reads their headers.

    Of a field it also reads the training split, for mean and deviation.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      root: a folder (searched with its subfolders), a file, a glob pattern, or
        several of these. Where the names of all files or their folders say
        train, val or test (`train.npy`, `test/0001.npy`), those are the splits.
      array: name of the array in npz files and Zarr groups; may be empty if
        each has one array.
      kind: 'image' (uint8, or floats in [0, 1]), 'field' (any numbers), or
        'auto': uint8 are images, floats are fields.
      test_fraction: the share for testing. Several files: of the files, evenly
        spread over their sorted names. One file: of its films, the last ones.
        One film: of its frames, the last ones.
      val_fraction: the share of the rest for 'val': files evenly spread, or the
        films or frames before those for testing.
      test_files: instead of `test_fraction`: the files for testing, as `root`.
      val_files: likewise for 'val'.
      step: distance of a clip's frames; several steps give clips of each.
      hop: distance of successive clips; None is 1 for train, else the length of
        a clip, so that clips do not overlap.
      colour: whether clips have three channels; grey images are then repeated,
        and frames of other than 1 or 3 channels are refused.
      variables: names of a field's channels; by default c0, c1, ...
      units: units of a field's channels.
      mean: mean of each channel of a field, instead of the training split's.
      std: standard deviation likewise.

    Raises:
      ValueError: if a setting is wrong, a file has another format, files differ
        in H, W, C or type, no film is long enough or a value is not finite.
      FileNotFoundError: if `root` has no files.
    """
    validation.check(split)
    validation.check_fractions(test_fraction, val_fraction)
    if kind not in ('auto', 'image', 'field'):
      raise ValueError(
        f"kind must be 'auto', 'image' or 'field', got {kind!r}."
      )
    self._split, self._num_frames, self._root = split, num_frames, root
    self._array, self._colour = array, colour
    films = functools.partial(
      self._films_of,
      fractions={'test': test_fraction, 'val': val_fraction},
      listed={'test': test_files, 'val': val_files},
    )
    self._films = films(split)
    self._shape, dtype = self._films.frame, self._films.dtype
    if kind == 'auto':
      kind = 'image' if dtype == np.uint8 else 'field'
      if dtype.kind != 'f' and dtype != np.uint8:
        raise ValueError(
          f'{root} holds {dtype}; images are uint8, other whole numbers need '
          "kind='field'."
        )
      _check_order(root, self._shape, kind)
    if kind == 'image' and dtype != np.uint8 and dtype.kind != 'f':
      raise ValueError(
        f'{root} holds {dtype}; expected images of uint8, or of floats in '
        '[0, 1].'
      )
    self.kind = kind
    channels = self._shape[-1]
    if colour and channels not in ((1, 3) if kind == 'image' else (3,)):
      raise ValueError(
        f'{root} has frames of {channels} channels; this needs 3 (RGB), or '
        '1 (grey) of images.'
      )
    self._windows = windows.Windows(
      self._films.lengths,
      num_frames,
      step=step,
      hop=hop,
      overlap=split == 'train',
    )
    least = (num_frames - 1) * np.min(step) + 1
    if not len(self._windows):
      raise ValueError(
        f'No {split} film of {root} has the {least} frames that a clip needs; '
        f'the longest has {self._films.lengths.max()}. What a clip needs say '
        'frames.context, frames.target and step.'
      )
    self._windows.warn_of_short(self._films.name, least)
    if kind == 'field':
      self._describe(films, variables, units, mean, std)

  def __len__(self) -> int:
    return len(self._windows)

  def __repr__(self) -> str:
    size = 'x'.join(map(str, self._shape))
    return (
      f'Arrays({self._split!r}, {len(self)} clips of {size} of {self._root})'
    )

  def __getitem__(self, i) -> dict:
    film, start, step = self._windows[i]
    stop = start + (self._num_frames - 1) * step + 1
    return {
      'video': self.frames(film, start, stop, step),
      'name': f'{self._films.name(film)}@{start}',
    }

  @property
  def runs(self) -> list[tuple[str, int]]:
    """(name, number of frames) of each film of the split."""
    lengths = self._films.lengths.tolist()
    return [(self._films.name(run), n) for run, n in enumerate(lengths)]

  def frames(self, run: int, start: int, stop: int, step: int = 1):
    """Reads frames of one of `runs`, with the values of items.

    Args:
      run: index of the run.
      start: index of the first frame.
      stop: index after the last frame.
      step: distance of the frames.

    Returns:
      uint8 or float32 [T, H, W, C].

    Raises:
      ValueError: if a value is not finite or, of images, out of range.
    """
    clip = self._films.read(run, start, stop, step)
    if clip.dtype != np.uint8 or self.kind == 'field':
      clip = clip.astype(np.float32)
      valid = np.isfinite(clip).all()
      if self.kind == 'image':
        valid = valid and clip.min() >= 0 and clip.max() <= 1
      if not valid:
        low, high = clip.min(), clip.max()
        raise ValueError(
          f'{self._films.name(run)}, frames {start} to {stop - 1}, lies in '
          f'[{low:.4g}, {high:.4g}]; expected '
          + (
            "[0, 1], or set kind to 'field'."
            if self.kind == 'image'
            else 'finite numbers.'
          )
        )
    if self.kind == 'field':
      clip = (clip - self.mean) / self.std
    elif self._colour and clip.shape[-1] == 1:
      clip = np.repeat(clip, 3, -1)
    return np.array(clip, order='C')

  def _films_of(self, split: str, *, fractions, listed) -> 'Films':
    paths = _split_files(self._root, split, fractions, listed)
    if paths is not None:
      return Films(paths, self._array, split, None)
    # One file: its films, or the frames of its only film.
    return Films(
      _find(self._root),
      self._array,
      split,
      (fractions['test'], fractions['val']),
    )

  def _describe(self, films, variables, units, mean, std) -> None:
    """Sets names, units and statistics of a field's channels."""
    channels = self._shape[-1]
    self.variables = tuple(variables) or tuple(f'c{k}' for k in range(channels))
    self.units = units
    if not mean or not std:
      means, deviations = _statistics(*films('train').key)
      mean, std = mean or means, std or deviations
    self.mean, self.std = (np.array(x, np.float32) for x in (mean, std))
    for name, x in (
      ('variables', self.variables),
      ('mean', self.mean),
      ('std', self.std),
    ):
      if len(x) != channels:
        raise ValueError(
          f'{self._root} has {channels} channels; {name} has {len(x)}.'
        )
    for k in np.flatnonzero(~(self.std > 0)):
      raise ValueError(
        f'The channel {self.variables[k]} of {self._root} is the same '
        'everywhere; it cannot be normalised.'
      )


class Films:
  """Films in files: their places and their frames.

  Attributes:
    lengths: number of frames of each film, int64 [R].
    frame: (H, W, C), the shape of a frame.
    dtype: type of the files' values.
    key: arguments of `_statistics`; they change when a file does.
  """

  def __init__(
    self,
    paths: Sequence[pathlib.Path],
    array: str,
    split: str,
    fractions: tuple[float, float] | None,
  ):
    """Reads the headers.

    Args:
      paths: the files.
      array: name of the array in each file.
      split: the split to take by `fractions`.
      fractions: shares of one file's films for 'test', and of the rest for
        'val'; None: all films of all files are taken.
    """
    self.paths = tuple(paths)
    rows, headers, stamps = [], [], []
    for f, path in enumerate(paths):
      stamps.append(array_files.stamp(path, array))
      values = array_files.opened(*stamps[f])
      if lost := array_files.unwritten(values):
        _LOG.warning(
          '%s: %d parts of the array are in no file and are read as %s.',
          path,
          lost,
          values.fill_value,
        )
      headers.append((tuple(values.shape[-3:]), values.dtype))
      length = values.shape[-4]
      count = values.shape[0] if len(values.shape) == 5 else 1
      first = np.zeros(count, np.int64)
      rows.append(
        np.stack([first + f, np.arange(count), first, first + length], 1)
      )
    self.frame, self.dtype = headers[0]
    for path, header in zip(paths, headers):
      if header != headers[0]:
        raise ValueError(
          'Files differ in [H, W, C] or type: '
          f'{paths[0]} has {list(self.frame)} of {self.dtype}, '
          f'{path} has {list(header[0])} of {header[1]}.'
        )
    self._rows = np.concatenate(rows)
    if fractions is not None:
      self._rows = _part(self._rows, split, fractions)
    self.lengths = self._rows[:, 3] - self._rows[:, 2]
    self.key = (tuple(stamps), array, split, fractions)

  def name(self, run: int) -> str:
    """The name of a film: its file, with its number if it has several."""
    f, n, _, _ = self._rows[run]
    path = self.paths[f]
    return f'{path}[{n}]' if self._of(f).ndim == 5 else str(path)

  def read(self, run: int, start: int, stop: int, step: int) -> np.ndarray:
    """Reads frames of a film, [T, H, W, C]."""
    f, n, first, _ = (int(x) for x in self._rows[run])
    part = slice(first + start, first + stop, step)
    values = self._of(f)
    with files.reading(self.paths[f], 'file of arrays'):
      return np.asarray(values[n, part] if values.ndim == 5 else values[part])

  def _of(self, f: int):
    return array_files.opened(*self.key[0][f])


def _check_order(root, shape: Sequence[int], kind: str) -> None:
  """Raises ValueError if the channels are hardly last, as they have to be.

  PyTorch's [N, C, H, W] and grey films [N, T, H, W] look like [T, H, W, C].
  """
  height, width, channels = shape
  first = height <= 4 < width
  many = kind == 'image' and channels > _MOST_COLOURS
  if channels > 4 and (first or many or width == channels):
    raise ValueError(
      f'{root} has frames [H, W, C] of {list(shape)}; expected the channels '
      'last, as np.moveaxis(x, -3, -1) puts them, and one channel, x[..., '
      f"None], of grey frames. If {channels} are channels, say kind='{kind}'."
    )


def _find(root) -> list[pathlib.Path]:
  def within(folder):
    if folder.suffix.lower() == '.zarr':
      return [folder]
    paths = [
      p
      for p in folder.rglob('*')
      if p.suffix.lower() in array_files.SUFFIXES
      and not any(map(video_io.is_of_a_system, p.relative_to(folder).parts))
    ]
    # Files within a Zarr folder are parts of it.
    return [
      p
      for p in paths
      if not any(q.suffix.lower() == '.zarr' for q in p.parents)
    ]

  paths = files.find(root, within, 'arrays', 'clips/*.npy')
  for path in paths:
    if path.suffix.lower() not in array_files.SUFFIXES:
      raise ValueError(
        f'{path} is none of {", ".join(array_files.SUFFIXES)}; a folder of '
        "films needs the source 'videos'."
      )
  return paths


def _split_files(root, split, fractions, listed) -> list[pathlib.Path] | None:
  """The files of a split; None if one file holds all splits."""
  if all(x is None for x in listed.values()):
    paths = _find(root)
    # A single named file holds all splits, whatever its name.
    is_named = isinstance(root, (str, os.PathLike)) and paths == [
      pathlib.Path(os.path.expanduser(root))
    ]
    labels = [] if is_named else [_label(path, root) for path in paths]
    if any(labels):
      unnamed = [path for path, label in zip(paths, labels) if label is None]
      if unnamed:
        raise ValueError(
          f'Some names below {root} say train, val or test, {unnamed[0]} does '
          'not; name all of them, or give test_files.'
        )
      fractions = fractions | {'test': 0.0}
      listed = {
        name: [p for p, label in zip(paths, labels) if label == name] or None
        for name in listed
      }
    elif len(paths) == 1:
      return None
  return files.of_split(split, root, _find, fractions=fractions, listed=listed)


def _label(path: pathlib.Path, root) -> str | None:
  """The split in the name of a file or of its folders, or None."""
  names = [path.stem]
  if isinstance(root, (str, os.PathLike)):
    base = pathlib.Path(os.path.expanduser(root))
    if base.is_dir() and base in path.parents:
      names += path.relative_to(base).parts[:-1]
  words = {w for name in names for w in re.split('[^a-z]+', name.lower())}
  splits = {_SPLITS[word] for word in words if word in _SPLITS}
  if len(splits) > 1:
    raise ValueError(
      f'The name {path} says {" and ".join(sorted(splits))}; expected one.'
    )
  return splits.pop() if splits else None


def _part(rows: np.ndarray, split: str, fractions) -> np.ndarray:
  """The films of a split of one file, or the frames of its only film."""
  alone = len(rows) == 1
  total = int(rows[0, 3]) if alone else len(rows)
  test = round(fractions[0] * total)
  if 0 < fractions[0] < 1 and total > 1:
    test = min(max(test, 1), total - 1)
  val = round(fractions[1] * (total - test))
  ends = {
    'train': (0, total - test - val),
    'val': (total - test - val, total - test),
    'test': (total - test, total),
  }
  first, last = ends[split]
  if first == last:
    raise files.none_left(split, total, 'frames' if alone else 'films')
  if alone:
    rows = rows.copy()
    rows[0, 2:] = first, last
    return rows
  return rows[first:last]


@functools.lru_cache(maxsize=16)
def _statistics(stamps, array, split, fractions):
  """Mean and standard deviation of each channel, of all frames of a split."""
  paths = tuple(pathlib.Path(stamp[0]) for stamp in stamps)
  mean, std = moments(_blocks(Films(paths, array, split, fractions)))
  return tuple(mean.tolist()), tuple(std.tolist())


def _blocks(films: Films) -> Iterator[np.ndarray]:
  """Yields all frames in order, float32 [t, H, W, C] with a few frames each."""
  size = max(1, _BLOCK // int(np.prod(films.frame)))
  for run, length in enumerate(films.lengths):
    for start in range(0, int(length), size):
      stop = min(start + size, int(length))
      block = films.read(run, start, stop, 1).astype(np.float32)
      if not np.isfinite(block).all():
        raise ValueError(
          f'{films.name(run)}, frames {start} to {stop - 1}, has values that '
          'are not finite.'
        )
      yield block
