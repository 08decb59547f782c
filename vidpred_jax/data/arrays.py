"""Clips from arrays of one's own: `.npy`, `.npz` and `.zarr` files.

A file holds one film, `[T, H, W, C]`, or several of one length,
`[N, T, H, W, C]`. All have the same H, W and C. What is not compressed is
mapped into memory: files may be larger than it. A compressed npz file is held
in memory, by each worker process anew; of Zarr the chunks that are asked for
are read.

The values are an 'image', uint8 or floats in [0, 1], or a 'field' of any
numbers, each channel normalised by its mean and standard deviation over all
frames of the training split.

No film has frames in two splits, but where there is one film alone: it is cut
in time.
"""

import functools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

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
_BLOCK = 2**24  # values that statistics take at once


class Arrays:
  """A grain random access source of windows of arrays.

  Items are dicts with `video` [T, H, W, C], uint8 or float32, and `name`
  (`file[film]@first frame`).

  Attributes:
    kind: 'image' or 'field'.
    mean: of a field, float32 [C], of the training split.
    std: likewise.
    variables: of a field, names of the channels.
    units: of a field, of the channels, one text.
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
    """Finds the films of a split; reads headers and, of fields, the training.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      root: a folder (searched with its subfolders), a file, a glob pattern, or
        several of these. Where the names of all files of a folder, or of its
        subfolders, say train, val or test (`train.npy`, `test/0001.npy`), those
        are the splits.
      array: which array of npz files and of groups of Zarr; may be empty if
        each has but one.
      kind: 'image' (uint8, or floats in [0, 1]), 'field' (any numbers), or
        'auto': bytes are images, floats are fields.
      test_fraction: of several files, the share that is for testing, evenly
        spread over their sorted names; of one file, of its films, the last
        ones; of one film, of its frames, the last ones.
      val_fraction: likewise for 'val', of what is not for testing: files evenly
        spread, or the films or frames before those for testing.
      test_files: instead of `test_fraction`: the files for testing, as `root`.
      val_files: likewise for 'val'.
      step: distance of a clip's frames; of several, there are clips of each.
      hop: distance of successive clips; None is 1 for train, else the length of
        a clip, so that clips do not overlap.
      colour: whether grey images are given as three equal channels; other
        numbers of channels than 1 and 3 are then refused.
      variables: of a field, names of the channels; by default c0, c1, ...
      units: of a field, of the channels.
      mean: of a field, of each channel, instead of that of the training split.
      std: likewise.

    Raises:
      ValueError: if a setting is wrong, a file is none of that kind, files
        differ in H, W, C or type, no film is long enough or a value is missing.
      FileNotFoundError: if there are no files.
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
    if not len(self._windows):
      least = (num_frames - 1) * np.min(step) + 1
      raise ValueError(
        f'No {split} film of {root} has the {least} frames that a clip needs; '
        f'the longest has {self._films.lengths.max()}. What a clip needs say '
        'frames.context, frames.target and step.'
      )
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
    """Frames of one of `runs`, as items have them.

    Args:
      run: which.
      start: the first frame.
      stop: the one after the last.
      step: their distance.

    Returns:
      uint8 or float32 [T, H, W, C].

    Raises:
      ValueError: if a value is not finite or, of images, out of range.
    """
    clip = self._films.read(run, start, stop, step)
    if clip.dtype != np.uint8 or self.kind == 'field':
      clip = clip.astype(np.float32)
      good = np.isfinite(clip).all()
      if self.kind == 'image':
        good = good and clip.min() >= 0 and clip.max() <= 1
      if not good:
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
    """Sets what a field has: names, units and statistics of the channels."""
    channels = self._shape[-1]
    self.variables = tuple(variables) or tuple(f'c{k}' for k in range(channels))
    self.units = units
    if not mean or not std:
      found = _statistics(*films('train').key)
      mean, std = mean or found[0], std or found[1]
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
  """Films in files: where each is, and its frames.

  Attributes:
    lengths: frames of each film, int64 [R].
    frame: (H, W, C).
    dtype: of the files.
    key: arguments of `_statistics`; others when the files are.
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
      array: which array of each.
      split: of which the films are; used with `fractions` alone.
      fractions: of the films of one file that are for 'test', and of the rest
        for 'val'; None: all films of all files are taken.
    """
    self.paths = tuple(paths)
    rows, headers, stamps = [], [], []
    for f, path in enumerate(paths):
      stamps.append(array_files.stamp(path, array))
      values = array_files.opened(*stamps[f])
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
    """Of a film: its file and number."""
    f, n, _, _ = self._rows[run]
    path = self.paths[f]
    return f'{path}[{n}]' if self._of(f).ndim == 5 else str(path)

  def read(self, run: int, start: int, stop: int, step: int) -> np.ndarray:
    """Frames of a film [T, H, W, C]."""
    f, n, first, _ = (int(x) for x in self._rows[run])
    part = slice(first + start, first + stop, step)
    values = self._of(f)
    with files.reading(self.paths[f], 'file of arrays'):
      return np.asarray(values[n, part] if values.ndim == 5 else values[part])

  def _of(self, f: int):
    return array_files.opened(*self.key[0][f])


def _find(root) -> list[pathlib.Path]:
  def within(folder):
    if folder.suffix == '.zarr':
      return [folder]
    found = [p for s in array_files.SUFFIXES for p in folder.rglob(f'*{s}')]
    # What lies within a Zarr folder is part of it.
    return [p for p in found if not any(q.suffix == '.zarr' for q in p.parents)]

  paths = files.find(root, within, 'arrays', 'clips/*.npy')
  for path in paths:
    if path.suffix not in array_files.SUFFIXES:
      raise ValueError(
        f'{path} is none of {", ".join(array_files.SUFFIXES)}; a folder of '
        "films needs the source 'videos'."
      )
  return paths


def _split_files(root, split, fractions, listed) -> list[pathlib.Path] | None:
  """The files of a split; None if there is one file for all of them."""
  if all(x is None for x in listed.values()):
    paths = _find(root)
    # A file that is named is split, whatever its name says.
    is_named = isinstance(root, (str, os.PathLike)) and paths == [
      pathlib.Path(root).expanduser()
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
  """The split that the name of a file, or of its folder, speaks of."""
  names = [path.stem]
  if isinstance(root, (str, os.PathLike)):
    base = pathlib.Path(root).expanduser()
    if base.is_dir() and base in path.parents:
      names += path.relative_to(base).parts[:-1]
  words = {w for name in names for w in re.split('[^a-z]+', name.lower())}
  found = {_SPLITS[word] for word in words if word in _SPLITS}
  if len(found) > 1:
    raise ValueError(
      f'The name {path} says {" and ".join(sorted(found))}; expected one.'
    )
  return found.pop() if found else None


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
  """All frames in order, float32 [t, H, W, C], some at a time."""
  size = max(1, _BLOCK // int(np.prod(films.frame)))
  for run, length in enumerate(films.lengths):
    for start in range(0, int(length), size):
      stop = min(start + size, int(length))
      block = films.read(run, start, stop, 1).astype(np.float32)
      if not np.isfinite(block).all():
        raise ValueError(
          f'{films.name(run)}, frames {start} to {stop - 1}, has values that '
          'are not finite; a field needs all of them.'
        )
      yield block
