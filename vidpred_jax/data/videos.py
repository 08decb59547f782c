"""Clips from video files: a folder, a list, a glob pattern of any videos.

Video files and folders of pictures (see `video_io`) are looked through once:
how many frames they have, where their scenes change, whether they can be read.
A clip is a window of T frames, `step` apart, inside one scene.

Where a scene changes says `video_io.scenes`. What is left out, and why, is said
in warnings of `logging`.

Splits are made by file: no file has clips in both.
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
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from vidpred_jax import atomic, video_io
from vidpred_jax.data import files, windows
from vidpred_jax.data.teacher import dis
from vidpred_jax.video_io import scenes

_LOG = logging.getLogger(__name__)
_CACHE_FORMAT = 2
# Of an index, where it has them.
_ARRAYS = {'pts': np.int64, 'times': np.int64, 'marks': np.uint32}


class Scan(NamedTuple):
  """What is known of a file after looking through it.

  Attributes:
    height: of a frame.
    width: of a frame.
    index: where its frames are.
    cuts: numbers of the frames that begin a new scene, without 0.
  """

  height: int
  width: int
  index: video_io.Index
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
    on_error: str = 'skip',
    cache_mb: int = 512,
    scan_cache: bool = True,
    stream: int | None = None,
    teacher: str = '',
    flow_pairs: Sequence[tuple[int, int]] = (),
  ):
    """Finds the files of a split and looks through them.

    Args:
      split: 'train' or 'test'.
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
    if split not in ('train', 'test'):
      raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
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
    train = split == 'train'
    placed = functools.partial(
      windows.Windows, num_frames=num_frames, step=step, hop=hop, overlap=train
    )
    placed(())  # numbers that cannot be show before files are read
    if not 0 <= test_fraction <= 1:
      raise ValueError(
        f'test_fraction must lie in [0, 1], got {test_fraction}.'
      )
    self._num_frames, self._stream = num_frames, stream
    self._size = (size, size) if isinstance(size, int) else size
    self._fit, self._short_side = fit, short_side
    self._root = root

    paths = _split(split, find(root), test_fraction, test_files)
    self.files, self._scans, self.unreadable = [], [], []
    for path, scan in zip(paths, _scan_all(paths, stream, scan_cache)):
      if isinstance(scan, Scan):
        self.files.append(path)
        self._scans.append(scan)
      elif on_error == 'raise':
        raise scan
      else:
        _LOG.warning('Left out: %s', scan)
        self.unreadable.append((path, str(scan)))

    # Of each scene: file, first frame, the one after the last.
    self._scenes = np.array(
      [
        (f, *borders)
        for f, scan in enumerate(self._scans)
        for borders in itertools.pairwise(
          (0, *scan.cuts, scan.index.num_frames)
        )
      ]
    ).reshape(-1, 3)
    self._windows = placed(self._scenes[:, 2] - self._scenes[:, 1])
    steps = (step,) if isinstance(step, int) else step
    if not len(self._windows):
      reasons = ''.join(f'\n  {why}' for _, why in self.unreadable[:5])
      raise ValueError(
        f'No scene in the {len(paths)} {split} files of {root} has '
        f'{(num_frames - 1) * min(steps) + 1} frames; '
        f'{len(self.unreadable)} files cannot be read.{reasons}'
      )
    used = set(self._scenes[self._windows.used, 0].tolist())
    short = [str(p) for f, p in enumerate(self.files) if f not in used]
    if short:
      _LOG.warning(
        'Left out, no scene of %d frames: %s',
        (num_frames - 1) * min(steps) + 1, ', '.join(short),
      )  # fmt: skip
    if self.unreadable or short:
      _LOG.warning(
        'Of %d files for %s %d are left out.',
        len(paths), split, len(self.unreadable) + len(short),
      )  # fmt: skip
    # In the order of the files, each that still fits whole.
    kept, room = [], cache_mb * 2**20
    for scan in self._scans:
      size = scan.index.num_frames * 3 * self._pixels(scan)
      kept.append(size <= room)
      room -= size if kept[-1] else 0
    self._kept, self._cache = tuple(kept), {}
    self._locks = [threading.Lock() for _ in kept]

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
      run: which.
      start: the first frame.
      stop: the one after the last.
      step: their distance.
    """
    f, begin, _ = (int(x) for x in self._scenes[run])
    numbers = range(begin + start, begin + stop, step)
    return self._clip(f, numbers.start, step, len(numbers))

  def _clip(self, f: int, start: int, step: int, count: int) -> np.ndarray:
    scan = self._scans[f]
    settings = {'size': self._resized(scan), 'stream': self._stream}
    if not self._kept[f]:
      clip = video_io.read(
        self.files[f],
        start=start,
        count=count,
        step=step,
        index=scan.index,
        **settings,
      )
      return self._cut(clip)
    with self._locks[f]:
      if f not in self._cache:
        frames = video_io.read(
          self.files[f], count=scan.index.num_frames, **settings
        )
        self._cache[f] = np.ascontiguousarray(self._cut(frames))
    stop = start + (count - 1) * step + 1
    return self._cache[f][start:stop:step].copy()

  def _resized(self, scan: Scan) -> tuple[int, int]:
    """(H, W) to which a file's frames are resized, before the rest is cut."""
    shape = np.array((scan.height, scan.width))
    if self._size is not None:
      scale = np.array(self._size) / shape
      shape = shape * (scale.max() if self._fit == 'cover' else scale)
    elif self._short_side is not None:
      shape = shape * (self._short_side / shape.min())
    return tuple(int(v) for v in np.rint(shape))

  def _pixels(self, scan: Scan) -> int:
    return int(np.prod(self._size or self._resized(scan)))

  def _cut(self, clip: np.ndarray) -> np.ndarray:
    if self._size is None:
      return clip
    i, j = ((n - m) // 2 for n, m in zip(clip.shape[1:3], self._size))
    return clip[:, i : i + self._size[0], j : j + self._size[1]]


def find(root) -> list[pathlib.Path]:
  """Video files and folders of pictures: see `root` of `VideoClips`.

  Raises:
    FileNotFoundError: if nothing is found for one of them.
  """
  return files.find(root, video_io.find_videos, 'videos', 'clips/*.mp4')


def scan_file(path: pathlib.Path, stream: int | None = None) -> Scan:
  """Looks through a file of any length in bounded memory, but for its index.

  Raises:
    ValueError: if it cannot be read.
  """
  info = video_io.probe(path, stream=stream)
  for line in video_io.told(info):
    _LOG.warning('%s', line.split(' --')[0])
  finder = scenes.Finder()
  index, shape = video_io.indexed(
    path, scenes.THUMBNAIL, stream=stream, see=finder.see
  )
  finder.end()
  return Scan(*shape, index, tuple(finder.cuts))


def _split(split, paths, test_fraction, test_files) -> list[pathlib.Path]:
  """The files of a split; both splits need some."""
  if test_files is not None:
    test = {p.resolve() for p in find(test_files)}
    in_test = [p.resolve() in test for p in paths]
    # Files for testing need not lie among the others.
    if split == 'test':
      return find(test_files)
  else:
    in_test = files.spread(len(paths), test_fraction)
  chosen = [p for p, test in zip(paths, in_test) if test == (split == 'test')]
  if not chosen:
    raise ValueError(
      f'None of the {len(paths)} files is left for {split}; set test_fraction '
      'or test_files, or add files.'
    )
  return chosen


def _scan_all(paths, stream, cache) -> list[Scan | ValueError]:
  """Scans, or the reason why there is none, of each file."""

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
    arrays = (
      kept[k] if kept[k] is None else np.array(kept[k], kind)
      for k, kind in _ARRAYS.items()
    )
    index = video_io.Index(
      **{k: x for k, x in zip(_ARRAYS, arrays)},
      num_frames=kept['num_frames'],
      unit=Fraction(kept['unit']),
      crop=tuple(kept['crop']),
    )
    return Scan(kept['height'], kept['width'], index, tuple(kept['cuts']))
  except (OSError, ValueError, KeyError, TypeError):
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
  """As the compilation cache: the variable, set empty, means none."""
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
