"""Clips from video files: a folder, a list or a glob pattern.

Video files and folders of pictures (see `video_io`) are scanned once for their
number of frames, their scene cuts (`video_io.scenes`) and errors. A clip is a
window of T frames, `step` apart, within one scene. `logging` warns about files
that are left out.

Splits are made by file: no file has clips in both splits.
"""

import concurrent.futures
import functools
import hashlib
import itertools
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
from vidpred_jax.data import files, validation, windows
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
    index: of its frames.
    cuts: numbers of the frames that begin a new scene, without 0.
  """

  height: int
  width: int
  index: video_io.Index  # type: ignore[assignment]
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
    validation.check_fractions(test_fraction, val_fraction)
    placed = functools.partial(
      windows.Windows,
      num_frames=num_frames,
      step=step,
      hop=hop,
      overlap=split == 'train',
    )
    placed(())  # numbers that cannot be show before files are read
    self._num_frames, self._stream = num_frames, stream
    self._size = (size, size) if isinstance(size, int) else size
    self._fit, self._short_side = fit, short_side
    self._root = root

    paths = files.of_split(
      split,
      root,
      find,
      fractions={'test': test_fraction, 'val': val_fraction},
      listed={'test': test_files, 'val': val_files},
    )
    self.files, self._scans, self.unreadable = _readable(
      paths, _scan_all(paths, stream, scan_cache), on_error
    )
    self._scenes = _scenes(self._scans)
    self._windows = placed(self._scenes[:, 2] - self._scenes[:, 1])
    steps = (step,) if isinstance(step, int) else step
    if not len(self._windows):
      reasons = ''.join(f'\n  {why}' for _, why in self.unreadable[:5])
      raise ValueError(
        f'No scene in the {len(paths)} {split} files of {root} has '
        f'{(num_frames - 1) * min(steps) + 1} frames; '
        f'{len(self.unreadable)} files cannot be read.{reasons}'
      )
    self._report_left_out(split, (num_frames - 1) * min(steps) + 1)
    self._kept = self._fitting(cache_mb * 2**20)
    self._cache: dict[int, np.ndarray] = {}
    self._locks = [threading.Lock() for _ in self._kept]

  def _report_left_out(self, split: str, length: int) -> None:
    """Warns of files without a clip: no scene has `length` frames."""
    used = set(self._scenes[self._windows.used, 0].tolist())
    short = [str(p) for f, p in enumerate(self.files) if f not in used]
    if short:
      _LOG.warning(
        'Left out, no scene of %d frames: %s', length, ', '.join(short)
      )
    if self.unreadable or short:
      _LOG.warning(
        'Of %d files for %s %d are left out.',
        len(self.files) + len(self.unreadable),
        split,
        len(self.unreadable) + len(short),
      )

  def _fitting(self, room: int) -> tuple[bool, ...]:
    """For each file in order, whether it fits into the rest of `room` bytes."""
    kept = []
    for scan in self._scans:
      size = scan.index.num_frames * 3 * self._pixels(scan)
      kept.append(size <= room)
      room -= size if kept[-1] else 0
    return tuple(kept)

  def __len__(self) -> int:
    return len(self._windows)

  def __repr__(self) -> str:
    return f'VideoClips({len(self.files)} files of {self._root})'

  def __getstate__(self) -> dict:
    # Worker processes decode for themselves.
    return self.__dict__ | {'_locks': None, '_cache': {}}

  def __setstate__(self, state: dict) -> None:
    self.__dict__ = state
    self._locks = [threading.Lock() for _ in self._kept]

  def __getitem__(self, i) -> dict:
    scene, start, step = self._windows[i]
    f, begin, _ = (int(x) for x in self._scenes[scene])
    start += begin
    video = self._clip(f, start, step, self._num_frames)
    item = {'video': video, 'name': f'{self.files[f]}@{start}'}
    if self._pairs:
      item['flow'] = dis(video, self._pairs)
    return item

  @property
  def runs(self) -> list[tuple[str, int]]:
    """(name, number of frames) of each scene."""
    return [
      (f'{self.files[f]}@{begin}', int(end - begin))
      for f, begin, end in self._scenes
    ]

  def frames(
    self, run: int, start: int, stop: int, step: int = 1
  ) -> np.ndarray:
    """Frames of one of `runs`, as items have them, uint8 [T, H, W, 3].

    Args:
      run: index of the run.
      start: the first frame.
      stop: the one after the last.
      step: their distance.
    """
    f, begin, _ = (int(x) for x in self._scenes[run])
    numbers = range(begin + start, begin + stop, step)
    return self._clip(f, numbers.start, step, len(numbers))

  def _clip(self, f: int, start: int, step: int, count: int) -> np.ndarray:
    scan = self._scans[f]
    read = functools.partial(
      video_io.read, size=self._resized(scan), stream=self._stream
    )
    if not self._kept[f]:
      clip = read(
        self.files[f],
        start=start,
        count=count,
        step=step,
        index=scan.index,
      )
      return self._cut(clip)
    with self._locks[f]:
      if f not in self._cache:
        frames = read(self.files[f], count=scan.index.num_frames)
        self._cache[f] = np.ascontiguousarray(self._cut(frames))
    stop = start + (count - 1) * step + 1
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


def _scenes(scans: Sequence[Scan]) -> np.ndarray:
  """Rows (file, first frame, one after the last) of scenes, int64 [R, 3]."""
  rows = [
    (f, *borders)
    for f, scan in enumerate(scans)
    for borders in itertools.pairwise((0, *scan.cuts, scan.index.num_frames))
  ]
  return np.array(rows, np.int64).reshape(-1, 3)


def find(root) -> list[pathlib.Path]:
  """Video files and folders of pictures: see `root` of `VideoClips`.

  Raises:
    FileNotFoundError: if nothing is found for one of them.
  """
  return files.find(root, video_io.find_videos, 'videos', 'clips/*.mp4')


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


def _scan_all(paths, stream, cache) -> list[Scan | ValueError]:
  """Scans files; returns for each the scan or the reason why it failed."""

  def attempt(path):
    try:
      return _cached_scan(path, stream) if cache else scan_file(path, stream)
    except (ValueError, OSError) as error:
      return error

  workers = min(8, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    return list(pool.map(attempt, paths))


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
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    pass  # not kept yet, or not whole
  scan = scan_file(path, stream)
  index = scan.index
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
  facts = [_CACHE_FORMAT, os.path.realpath(path), stream]
  for part in parts:
    if not part.exists():  # a link to nowhere
      continue
    status = part.stat()
    facts.append((part.name, status.st_size, status.st_mtime_ns))
  return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
