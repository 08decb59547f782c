"""Clips from video files: a folder, a list or a glob pattern.

Video files and folders of pictures (see `video_io`) are scanned once for their
number of frames, their scene cuts (`video_io.scenes`) and errors. A clip is a
window of T frames, `step` apart, within one scene. `logging` warns about files
that are left out.

Splits are made by file: no file has clips in both splits.
"""

import concurrent.futures
import functools
import glob
import hashlib
import json
import logging
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from vidpred_jax import atomic, video_io
from vidpred_jax.data import validation
from vidpred_jax.data.teacher import dis
from vidpred_jax.video_io import scenes

_LOG = logging.getLogger(__name__)
_CACHE_FORMAT = 2
# Of an index, where it has them.
_ARRAYS = {'pts': np.int64, 'times': np.int64, 'marks': np.uint32}


class Scan(NamedTuple):
  """The result of scanning a file.

  Attributes:
    height: of a frame.
    width: of a frame.
    frames: the index of its frames.
    cuts: numbers of the frames that begin a new scene, without 0.
  """

  height: int
  width: int
  frames: video_io.Index
  cuts: tuple[int, ...]


class VideoClips:
  """A grain random access source of windows of videos.

  Items are dicts with `video` uint8 [T, H, W, 3] and `name`
  (`file@first frame`). Where no `size` is given, files of different sizes give
  items of different sizes, which training must crop to form batches.

  Attributes:
    files: the files of this split, as used.
    unreadable: (file, why) of those left out.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    root: str | os.PathLike | tuple = '',
    size: tuple[int, int] | int | None = None,
    fit: str = 'cover',
    short_side: int | None = None,
    step: int | tuple[int, ...] = 1,
    hop: int | None = None,
    test_fraction: float = 0.2,
    test_files: str | tuple | None = None,
    val_fraction: float = 0.0,
    val_files: str | tuple | None = None,
    on_error: str = 'skip',
    cache_mb: int = 512,
    scan_cache: bool = True,
    stream: int | None = None,
    teacher: str = '',
    flow_pairs: Sequence[tuple[int, int]] = (),
  ):
    """Finds the files of a split and looks through them.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      root: a folder (searched with its subfolders), a file, a glob pattern, or
        several of these.
      size: (H, W) of a clip, or one number for both; None keeps the size of
        each file.
      fit: how `size` is reached: 'cover' keeps the shape of things, resizes
        until the picture covers the size and cuts off the rest evenly;
        'stretch' resizes to it exactly.
      short_side: instead of `size`: resizes so that the shorter side is this.
      step: distance of a clip's frames in the video; of several, there are
        clips of each.
      hop: distance of successive clips; None is 1 for train, and for test the
        length of a clip, so that clips do not overlap.
      test_fraction: share of the files, evenly spread over their sorted names,
        that are for testing.
      test_files: instead of `test_fraction`: the files for testing, as `root`.
      val_fraction: share of the other files, evenly spread over their sorted
        names, that 'val' has instead of 'train'.
      val_files: instead of `val_fraction`: these files, as `root`.
      on_error: 'skip' leaves out files that cannot be read, with a warning;
        'raise' stops at the first.
      cache_mb: memory, per worker process, for frames of the size they are
        given in. Files that fit, in the order of their names, are decoded whole
        and only once; from the others, such as one larger than all of it, each
        clip is decoded from the key frame before it.
      scan_cache: whether to keep what was found about each file in the user's
        cache folder (`$VIDPRED_JAX_CACHE`, else `~/.cache/vidpred_jax`).
      stream: which of a file's video streams; None for the best.
      teacher: 'dis' gives items an estimated `flow`, see `data/teacher.py`;
        empty for none.
      flow_pairs: pairs (of, into) of frames whose flow is wanted.

    Raises:
      ValueError: if a setting is wrong, no clip is long enough or no file
        can be read.
      FileNotFoundError: if there are no videos.
    """
    validation.check(split)
    if fit not in ('cover', 'stretch') or on_error not in ('skip', 'raise'):
      raise ValueError(
        f"fit must be 'cover' or 'stretch' and on_error 'skip' or 'raise', got "
        f'{fit!r} and {on_error!r}.'
      )
    if teacher not in ('', 'dis'):
      raise ValueError(f"teacher must be 'dis' or empty, got {teacher!r}.")
    self._pairs = tuple(flow_pairs) if teacher else ()
    if size is not None and short_side is not None:
      raise ValueError('Give size or short_side, not both.')
    steps = (step,) if isinstance(step, int) else tuple(step)
    least = min(num_frames, *steps, 1 if hop is None else hop)
    if not steps or least < 1:
      raise ValueError(
        'num_frames, step and hop must be at least 1, got '
        f'{num_frames}, {step}, {hop}.'
      )
    if not 0 <= test_fraction <= 1 or not 0 <= val_fraction < 1:
      raise ValueError(
        'test_fraction must lie in [0, 1] and val_fraction in [0, 1), got '
        f'{test_fraction} and {val_fraction}.'
      )
    self._num_frames, self._stream = num_frames, stream
    self._size = (size, size) if isinstance(size, int) else size
    self._fit, self._short_side = fit, short_side
    self._root = root

    held_out = split == 'test'
    files = _split(held_out, find(root), 'test', test_fraction, test_files)
    if split == 'val' or not held_out and (val_fraction or val_files):
      held_out = split == 'val'
      files = _split(held_out, files, 'val', val_fraction, val_files)
    self.files, self._scans, self.unreadable = _readable(
      files, _scan_all(files, stream, scan_cache), on_error
    )
    rows, counts = _windows(self._scans, num_frames, steps, hop, split)
    if not rows:
      reasons = ''.join(f'\n  {why}' for _, why in self.unreadable[:5])
      raise ValueError(
        f'No scene in the {len(files)} {split} files of {root} has '
        f'{(num_frames - 1) * min(steps) + 1} frames; '
        f'{len(self.unreadable)} files cannot be read.{reasons}'
      )
    used = {row[0] for row in rows}
    short = [str(p) for f, p in enumerate(self.files) if f not in used]
    if short:
      _LOG.warning(
        'Left out, no scene of %d frames: %s',
        (num_frames - 1) * min(steps) + 1, ', '.join(short),
      )  # fmt: skip
    if self.unreadable or short:
      _LOG.warning(
        'Of %d files for %s %d are left out.',
        len(files), split, len(self.unreadable) + len(short),
      )  # fmt: skip
    self._rows = np.array(rows)
    self._ends = np.cumsum(counts)
    self._kept = self._fitting(cache_mb * 2**20)
    self._cache: dict[int, np.ndarray] = {}
    self._locks = [threading.Lock() for _ in self._kept]

  def _fitting(self, room: int) -> tuple[bool, ...]:
    """Which files fit whole into so many bytes, in their order."""
    kept = []
    for scan in self._scans:
      size = scan.frames.num_frames * 3 * self._pixels(scan)
      kept.append(size <= room)
      room -= size if kept[-1] else 0
    return tuple(kept)

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __repr__(self) -> str:
    return f'VideoClips({len(self.files)} files of {self._root})'

  def __getstate__(self) -> dict:
    # Worker processes decode for themselves.
    return self.__dict__ | {'_locks': None, '_cache': {}}

  def __setstate__(self, state: dict) -> None:
    self.__dict__ = state
    self._locks = [threading.Lock() for _ in self._kept]

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    row = int(np.searchsorted(self._ends, i, side='right'))
    before = int(self._ends[row - 1]) if row else 0
    f, begin, step, hop = (int(v) for v in self._rows[row])
    start = begin + (i - before) * hop
    video = self._clip(f, start, step)
    item = {'video': video, 'name': f'{self.files[f]}@{start}'}
    if self._pairs:
      item['flow'] = dis(video, self._pairs)
    return item

  def _clip(self, f: int, start: int, step: int) -> np.ndarray:
    scan = self._scans[f]
    read = functools.partial(
      video_io.read, size=self._resized(scan), stream=self._stream
    )
    if not self._kept[f]:
      clip = read(
        self.files[f],
        start=start,
        count=self._num_frames,
        step=step,
        index=scan.frames,
      )
      return self._cut(clip)
    with self._locks[f]:
      if f not in self._cache:
        frames = read(self.files[f], count=scan.frames.num_frames)
        self._cache[f] = np.ascontiguousarray(self._cut(frames))
    stop = start + (self._num_frames - 1) * step + 1
    return self._cache[f][start:stop:step].copy()

  def _resized(self, scan: Scan) -> tuple[int, int]:
    """The size (H, W) to which a file's frames are resized before cropping."""
    shape = np.array((scan.height, scan.width))
    if self._size is not None:
      scale = np.array(self._size) / shape
      shape = shape * (scale.max() if self._fit == 'cover' else scale)
    elif self._short_side is not None:
      shape = shape * (self._short_side / shape.min())
    height, width = np.rint(shape)
    return int(height), int(width)

  def _pixels(self, scan: Scan) -> int:
    return int(np.prod(self._size or self._resized(scan)))

  def _cut(self, clip: np.ndarray) -> np.ndarray:
    if self._size is None:
      return clip
    i, j = ((n - m) // 2 for n, m in zip(clip.shape[1:3], self._size))
    return clip[:, i : i + self._size[0], j : j + self._size[1]]


def _readable(files, scans, on_error: str):
  """Sorts files by whether their scan is a `Scan` or an error.

  Returns:
    The files that can be read, their scans, and (file, why) of the others.
  """
  kept, known, unreadable = [], [], []
  for path, scan in zip(files, scans):
    if isinstance(scan, Scan):
      kept.append(path)
      known.append(scan)
    elif on_error == 'raise':
      raise scan
    else:
      _LOG.warning('Left out: %s', scan)
      unreadable.append((path, str(scan)))
  return kept, known, unreadable


def _windows(
  scans: Sequence[Scan],
  num_frames: int,
  steps: Sequence[int],
  hop: int | None,
  split: str,
) -> tuple[list[tuple[int, int, int, int]], list[int]]:
  """The scenes with room for a clip.

  Returns:
    One row for each, (file, first frame, step, hop), and how many clips it has.
  """
  rows, counts = [], []
  for step in steps:
    length = (num_frames - 1) * step + 1
    apart = hop or (1 if split == 'train' else length)
    for f, scan in enumerate(scans):
      borders = (0, *scan.cuts, scan.frames.num_frames)
      for begin, end in zip(borders, borders[1:]):
        if end - begin >= length:
          rows.append((f, begin, step, apart))
          counts.append((end - begin - length) // apart + 1)
  return rows, counts


def find(root) -> list[pathlib.Path]:
  """Video files and folders of pictures: see `root` of `VideoClips`.

  Raises:
    FileNotFoundError: if nothing is found for one of them.
  """
  if not isinstance(root, (str, os.PathLike)):
    return sorted({path for part in root for path in find(part)})
  if not str(root):
    raise FileNotFoundError(
      "The source 'videos' needs root: a folder with videos, a file, a glob "
      'pattern like "clips/*.mp4", or several of these.'
    )
  path = pathlib.Path(root).expanduser()
  if path.is_dir():
    paths = video_io.find_videos(path)
  elif path.is_file():
    paths = [path]
  else:
    paths = [pathlib.Path(p) for p in glob.glob(str(path), recursive=True)]
  if not paths:
    raise FileNotFoundError(f'There are no videos at {root}.')
  return sorted(paths)


def scan_file(path: pathlib.Path, stream: int | None = None) -> Scan:
  """Scans a file; except for its index the memory is bounded.

  Raises:
    ValueError: if it cannot be read.
  """
  info = video_io.probe(path, stream=stream)
  for line in video_io.notices(info):
    _LOG.warning('%s', line.split(' --')[0])
  finder = scenes.Finder()
  index, shape = video_io.indexed(
    path, scenes.THUMBNAIL, stream=stream, see=finder.see
  )
  finder.end()
  return Scan(*shape, index, tuple(finder.cuts))


def _split(held_out, files, name, fraction, listed) -> list[pathlib.Path]:
  """The files that are held out for a split, or the others; both need some."""
  if listed is not None:
    test = {p.resolve() for p in find(listed)}
    in_test = [p.resolve() in test for p in files]
    # Files that are held out need not lie among the others.
    if held_out:
      return find(listed)
  else:
    # Every k-th by name, at least one on either side.
    share = fraction * np.arange(len(files) + 1) + 1e-9
    in_test = list(np.diff(np.floor(share)) > 0)
    if 0 < fraction < 1 and len(files) > 1:
      in_test[-1] |= not any(in_test)
      in_test[0] &= not all(in_test)
  chosen = [p for p, test in zip(files, in_test) if test == held_out]
  if not chosen:
    split = name if held_out else 'train'
    raise ValueError(
      f'None of the {len(files)} files is left for {split}; set '
      f'{name}_fraction or {name}_files, or add files.'
    )
  return chosen


def _scan_all(files, stream, cache) -> list[Scan | ValueError]:
  """Scans files; returns for each the scan or the reason why it failed."""

  def attempt(path):
    try:
      return _cached_scan(path, stream) if cache else scan_file(path, stream)
    except (ValueError, OSError) as error:
      return error

  workers = min(8, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    return list(pool.map(attempt, files))


def _cached_scan(path: pathlib.Path, stream) -> Scan:
  place = _cache_folder()
  if place is None:
    return scan_file(path, stream)
  entry = place / f'{_fingerprint(path, stream)}.json'
  try:
    kept = json.loads(entry.read_text())
    arrays: Iterator[Any] = (
      kept[k] if kept[k] is None else np.array(kept[k], kind)
      for k, kind in _ARRAYS.items()
    )
    index = video_io.Index(
      **dict(zip(_ARRAYS, arrays)),
      num_frames=kept['num_frames'],
      unit=Fraction(kept['unit']),
      crop=tuple(kept['crop']),
    )
    return Scan(kept['height'], kept['width'], index, tuple(kept['cuts']))
  except (OSError, ValueError, KeyError, TypeError):
    pass  # not kept yet, or not whole
  scan = scan_file(path, stream)
  index = scan.frames
  text = json.dumps(
    {
      'height': scan.height,
      'width': scan.width,
      'num_frames': index.num_frames,
      'unit': str(index.unit),
      'crop': index.crop,
      **{
        k: None if getattr(index, k) is None else getattr(index, k).tolist()
        for k in _ARRAYS
      },
      'cuts': scan.cuts,
    }
  )
  try:
    place.mkdir(parents=True, exist_ok=True)
    atomic.write_text(entry, text)
  except OSError as error:
    _LOG.warning('The scan of %s could not be kept: %s', path, error)
  return scan


def _cache_folder() -> pathlib.Path | None:
  """The cache folder, as for compilation: an empty variable means none."""
  home = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
  place = os.environ.get(
    'VIDPRED_JAX_CACHE', str(pathlib.Path(home) / 'vidpred_jax')
  )
  return pathlib.Path(place) / 'scans' if place else None


def _fingerprint(path: pathlib.Path, stream) -> str:
  """Changes when the file, or a picture of the folder, does."""
  parts = sorted(path.iterdir()) if path.is_dir() else [path]
  facts = [_CACHE_FORMAT, str(path.resolve()), stream]
  for part in parts:
    if not part.exists():  # a link to nowhere
      continue
    status = part.stat()
    facts.append((part.name, status.st_size, status.st_mtime_ns))
  return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
