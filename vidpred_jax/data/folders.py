"""Clips from the published data sets, as folders of frames on disk.

`PROTOCOLS` (in `protocols`) says what each data set is; here its files are
found, checked and read. Nothing is downloaded and nothing on disk is changed:
frames are resized when they are read.

A sequence is a run of frames; a clip is T frames of it. For testing a clip
begins where the published protocol's window begins; for training anywhere.
"""

import functools
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np
from absl import logging

from vidpred_jax import video_io
from vidpred_jax.data import resize
from vidpred_jax.data.protocols import KITTI_DRIVES, PROTOCOLS

# Clips of the 'random' kind: so many of each video before the order repeats.
_DRAWS = 100


class Sequence(NamedTuple):
  """A run of frames.

  Attributes:
    name: for messages and results.
    frames: paths of the frames; or one path of a video file or folder, which is
      looked into only when it is read.
  """

  name: str
  frames: tuple[str, ...] | str


class FrameClips:
  """A grain random access source of one of the published data sets.

  Items are dicts with `video` uint8 [T, H, W, 3] and `name`.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    dataset: str = 'cityscapes',
    root: str | os.PathLike = '',
    size: tuple[int, int] | None | str = 'protocol',
  ):
    """Finds the sequences.

    Args:
      split: 'train' or 'test'.
      num_frames: frames per clip, T.
      dataset: one of `PROTOCOLS`.
      root: where it lies.
      size: (H, W) to resize to; 'protocol' for the published one; None for the
        size on disk.

    Raises:
      ValueError: on an unknown data set or split, or if clips are too short.
      FileNotFoundError: if it is not at `root`; says where to get it.
    """
    protocol = _protocol(dataset)
    self._dataset, self._split, self._num_frames = dataset, split, num_frames
    self._size = protocol.size if size == 'protocol' else size
    self._sequences = find(dataset, root, split)
    self._random = split == 'train' and protocol.train == 'random'
    if split == 'test' and num_frames > protocol.window:
      raise ValueError(
        f'A test clip of {dataset} has {protocol.window} frames; '
        f'{num_frames} were asked for.'
      )
    if self._random:
      counts = [_DRAWS] * len(self._sequences)
    elif split == 'test' and protocol.test == 'first':
      counts = [1] * len(self._sequences)
    else:
      window = protocol.window if split == 'test' else num_frames
      counts = [max(len(s.frames) - window + 1, 0) for s in self._sequences]
    self._ends = np.cumsum(counts)
    if not self._ends[-1]:
      raise ValueError(f'No sequence of {dataset} has {num_frames} frames.')
    expected = protocol.counts[split]
    found = count(dataset, self._sequences, split)
    if found != expected.clips:
      logging.warning(
        '%s %s: %d clips at %s, %d expected. '
        'python -m vidpred_jax.data --check %s --root %s says more.',
        dataset, split, found, root, expected.clips, dataset, root,
      )  # fmt: skip

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __repr__(self) -> str:
    return f'FrameClips({self._dataset!r}, {self._split!r}, {len(self)} clips)'

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    if self._random:
      # Videos in turn, so that each epoch of the videos has all of them.
      sequence = self._sequences[i % len(self._sequences)]
      start, step = self._draw(sequence, np.random.default_rng(i))
    else:
      row = int(np.searchsorted(self._ends, i, side='right'))
      sequence = self._sequences[row]
      start, step = i - (int(self._ends[row - 1]) if row else 0), 1
    clip = read(sequence, start, self._num_frames, step, self._size)
    return {'video': clip, 'name': f'{sequence.name}@{start}'}

  def _draw(self, sequence: Sequence, rng) -> tuple[int, int]:
    """Start and step as DMVFN draws them: at most 5, and a tenth of a video."""
    number = length(sequence)
    if number < self._num_frames:
      raise ValueError(
        f'{sequence.frames} has {number} frames, {self._num_frames} are needed.'
      )
    most = min(5, max(1, number // max(10, self._num_frames)))
    step = int(rng.integers(1, most + 1))
    return int(rng.integers(0, number - (self._num_frames - 1) * step)), step


def length(sequence: Sequence) -> int:
  """The number of frames of a sequence."""
  if not isinstance(sequence.frames, str):
    return len(sequence.frames)
  info = video_io.probe(sequence.frames)
  return info.num_frames or video_io.index(sequence.frames).num_frames


def read(
  sequence: Sequence, start: int, count: int, step: int, size
) -> np.ndarray:
  """Frames of a sequence, uint8 [count, H, W, 3].

  Raises:
    ValueError: if it is too short, a frame is damaged or they differ in size.
    FileNotFoundError: if a frame is missing.
  """
  if isinstance(sequence.frames, str):
    frames = video_io.read(sequence.frames, start=start, count=count, step=step)
  else:
    paths = sequence.frames[start : start + (count - 1) * step + 1 : step]
    if len(paths) < count:
      raise ValueError(
        f'The sequence {sequence.name} has {len(sequence.frames)} frames; '
        f'{count} from frame {start} on were asked for.'
      )
    frames = [video_io.read(path)[0] for path in paths]
  if size is not None:
    frames = [resize.linear(frame, tuple(size)) for frame in frames]
  shapes = {frame.shape for frame in frames}
  if len(shapes) > 1:
    raise ValueError(f'The frames of {sequence.name} differ in size: {shapes}.')
  return np.stack(frames)


def count(dataset: str, sequences: list[Sequence], split: str) -> int:
  """Clips as the published number counts them: windows for KITTI."""
  protocol = PROTOCOLS[dataset]
  if protocol.test != 'all':
    return len(sequences)
  return sum(max(len(s.frames) - protocol.window + 1, 0) for s in sequences)


def find(dataset: str, root, split: str) -> list[Sequence]:
  """The sequences of a split on disk.

  Raises:
    ValueError: on an unknown data set or split.
    FileNotFoundError: if there are none; says where to get the data set.
  """
  protocol = _protocol(dataset)
  if split not in protocol.counts:
    raise ValueError(
      f'{dataset} has the splits {", ".join(protocol.counts)}, not {split!r}.'
    )
  root = pathlib.Path(root).expanduser()
  found = _FINDERS[dataset](root, split) or _prepared(root, split)
  if not found:
    raise FileNotFoundError(
      f'{protocol.title} ({split}) is not at {str(root)!r}.\n'
      f'  Get it from: {protocol.url}\n'
      f'  Licence: {protocol.licence}\n'
      f'  Expected there: {protocol.layout}'
    )
  return found


def missing(sequences: list[Sequence]) -> list[str]:
  """Paths that the sequences name and that do not exist."""
  absent = []
  known = functools.lru_cache(maxsize=64)(_names)
  for sequence in sequences:
    paths = sequence.frames
    for path in (paths,) if isinstance(paths, str) else paths:
      folder, name = os.path.split(path)
      if name not in known(folder):
        absent.append(path)
  return absent


def _names(folder: str) -> frozenset[str]:
  try:
    return frozenset(os.listdir(folder))
  except OSError:
    return frozenset()


def _protocol(dataset: str):
  if dataset not in PROTOCOLS:
    raise ValueError(
      f'There is no data set {dataset!r}; there are '
      f'{", ".join(sorted(PROTOCOLS))}.'
    )
  return PROTOCOLS[dataset]


def _pictures(folder: pathlib.Path) -> tuple[str, ...]:
  names = [
    n for n in _names(str(folder))
    if os.path.splitext(n)[1].lower() in video_io.IMAGE_SUFFIXES
  ]  # fmt: skip
  names.sort(key=video_io.natural_key)
  return tuple(str(folder / n) for n in names)


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in folder.iterdir() if p.is_dir())


def _first(*places: pathlib.Path) -> pathlib.Path | None:
  return next((p for p in places if p.exists()), None)


def _prepared(root: pathlib.Path, split: str) -> list[Sequence]:
  """One folder of frames per clip, as DMVFN's scripts write them."""
  place = root / split
  if not place.is_dir():
    return []
  found = ((p.name, _pictures(p)) for p in _folders(place))
  return [Sequence(name, frames) for name, frames in found if frames]


def _cityscapes(root, split):
  name = {'train': 'train', 'test': 'val'}[split]
  place = _first(root / 'leftImg8bit_sequence' / name, root / name)
  if (
    place is None
    or name == 'train'
    and not any(place.glob('*/*_leftImg8bit.png'))
  ):
    return []
  sequences = []
  for city in _folders(place):
    frames = _pictures(city)
    for k in range(0, len(frames), 30):
      clip = frames[k : k + 30]
      ends = [_drive_and_frame(clip[j]) for j in (0, -1)]
      if ends[0][0] != ends[1][0] or ends[1][1] - ends[0][1] != 29:
        raise ValueError(
          f'{city} does not hold runs of 30 frames: from '
          f'{os.path.basename(clip[0])} on frames are missing.'
        )
      sequences.append(Sequence(f'{city.name}/{k // 30:04d}', clip))
  return sequences


def _drive_and_frame(path: str) -> tuple[str, int]:
  """What the name of a picture of Cityscapes says."""
  fields = re.fullmatch(r'[^_]+_(\d+)_(\d+)_.*', os.path.basename(path))
  if fields is None:
    raise ValueError(
      f'{path} is no frame of Cityscapes; expected names like '
      '<city>_<drive>_<frame>_leftImg8bit.png.'
    )
  return fields[1], int(fields[2])


def _kitti(root, split):
  cameras = {'train': ('image_02', 'image_03'), 'test': ('image_02',)}[split]
  sequences = []
  for drive in KITTI_DRIVES[split]:
    place = _first(root / drive, root / drive[:10] / drive)
    for camera in cameras if place else ():
      frames = _pictures(place / camera / 'data')
      if frames:
        sequences.append(Sequence(f'{drive}/{camera}', frames))
  return sequences


def _ucf101(root, split):
  name = f'{split}list01.txt'
  listed = _first(root / name, root / 'ucfTrainTestlist' / name)
  if listed is None:
    return []
  videos = [x.split()[0] for x in listed.read_text().splitlines() if x.strip()]
  for base in (root / 'UCF-101', root):
    if any((base / v).exists() for v in videos):
      return [Sequence(v[:-4], str(base / v)) for v in videos]
  for base in (root / 'jpegs_256', root):
    stems = [pathlib.PurePosixPath(v).stem for v in videos]
    if any((base / s).is_dir() for s in stems):
      return [Sequence(s, str(base / s)) for s in stems]
  return []


def _vimeo90k(root, split):
  base = _first(root / 'vimeo_triplet') or root
  listed = base / f'tri_{split}list.txt'
  if listed.is_file() and (base / 'sequences').is_dir():
    names = [x.strip() for x in listed.read_text().splitlines() if x.strip()]
    places = [base / 'sequences' / n for n in names]
  else:
    target = _first(root / 'vimeo_interp_test' / 'target', root / 'target')
    if split == 'train' or target is None:
      return []
    places = [b for a in _folders(target) for b in _folders(a)]
  return [
    Sequence(
      f'{p.parent.name}/{p.name}',
      tuple(str(p / f'im{k}.png') for k in (1, 2, 3)),
    )
    for p in places
  ]


def _davis17(root, split):
  base = _first(root / 'DAVIS') or root
  name = {'train': 'train', 'test': 'val'}[split]
  listed = base / 'ImageSets' / '2017' / f'{name}.txt'
  if not listed.is_file():
    return []
  names = [x.strip() for x in listed.read_text().splitlines() if x.strip()]
  frames = base / 'JPEGImages' / '480p'
  return [Sequence(n, _pictures(frames / n)) for n in names]


def _listed(root, split, *, name: str, window: int, step: int):
  """Windows of a list: `<folder and beginning of the name>,<first frame>`."""
  listed = root / f'{split}.txt'
  if not listed.is_file():
    return []
  places = {}
  sequences = []
  for line in listed.read_text().splitlines():
    fields = [f.strip() for f in line.split(',')]
    first = next((k for k, f in enumerate(fields) if f.isdigit()), 0)
    if not first:
      continue
    folder, prefix = os.path.split(''.join(fields[:first]))
    if folder not in places:
      places[folder] = _tail(root, folder)
    start = int(fields[first])
    frames = tuple(
      os.path.join(places[folder], name.format(prefix, start + k * step))
      for k in range(window)
    )
    label = '/'.join(re.split(r'[/\\]', folder)[-2:])
    sequences.append(Sequence(f'{label}/{prefix}{start}', frames))
  return sequences


def _tail(root: pathlib.Path, folder: str) -> str:
  """A folder of another machine: its longest end that exists below `root`."""
  parts = [p for p in re.split(r'[/\\]', folder) if p]
  for k in range(len(parts)):
    if root.joinpath(*parts[k:]).is_dir():
      return str(root.joinpath(*parts[k:]))
  return str(root.joinpath(*parts[-2:]))


_FINDERS = {
  'cityscapes': _cityscapes,
  'kitti': _kitti,
  'ucf101': _ucf101,
  'vimeo90k': _vimeo90k,
  'davis17': _davis17,
  'ucfsports': functools.partial(_listed, name='{}{}.png', window=10, step=1),
  'human36m': functools.partial(_listed, name='{}{:06d}.jpg', window=8, step=5),
}
