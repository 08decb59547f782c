"""The layouts of the published data sets: from a folder to its sequences.

Each data set has a function `(root, split) -> list of Sequence`, which is empty
if the data set is missing; `FINDERS` names the functions. They read only names
of files, lists and headers. `prediction` describes the layouts in words.
"""

import functools
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from vidpred_jax import video_io
from vidpred_jax.data.files import reading
from vidpred_jax.data.published.interpolation import (
  SNUFILM_LEVELS,
  XIPH_CLIPS,
  XIPH_FRAMES,
)
from vidpred_jax.data.published.prediction import (
  KITTI_DRIVES,
  KTH_PERSONS,
  PREDNET_DRIVES,
  PROTOCOLS,
)
from vidpred_jax.data.published.sequences import Sequence, length

# Actions in which the person leaves the picture: short runs, many windows.
_FAST = ('jogging', 'running')
_ACTIONS = ('boxing', 'handclapping', 'handwaving', 'walking', *_FAST)


def names(folder: str) -> frozenset[str]:
  """The names in a folder; none if the folder is missing."""
  try:
    found = os.listdir(folder)
  except OSError:
    return frozenset()
  return frozenset(n for n in found if not video_io.is_of_a_system(n))


def _pictures(folder: pathlib.Path) -> tuple[str, ...]:
  listed = [
    n for n in names(str(folder))
    if os.path.splitext(n)[1].lower() in video_io.IMAGE_SUFFIXES
  ]  # fmt: skip
  listed.sort(key=video_io.natural_key)
  return tuple(str(folder / n) for n in listed)


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  found = (p for p in folder.iterdir() if not video_io.is_of_a_system(p.name))
  return sorted(p for p in found if p.is_dir())


def _first(*places: pathlib.Path) -> pathlib.Path | None:
  return next((p for p in places if p.exists()), None)


def prepared(root: pathlib.Path, split: str) -> list[Sequence]:
  """One folder of frames per clip, as DMVFN's scripts write them."""
  place = root / split
  if not place.is_dir():
    return []
  folders = ((p.name, _pictures(p)) for p in _folders(place))
  return [Sequence(name, frames) for name, frames in folders if frames]


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
  """Parses the name of a picture of Cityscapes."""
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


def _vimeo90k(root, split, *, kind: str = 'triplet', frames: int = 3):
  base = _first(root / f'vimeo_{kind}') or root
  listed = base / f'{kind[:3]}_{split}list.txt'
  if listed.is_file() and (base / 'sequences').is_dir():
    clips = [x.strip() for x in listed.read_text().splitlines() if x.strip()]
    places = [base / 'sequences' / c for c in clips]
  else:
    target = _first(root / 'vimeo_interp_test' / 'target', root / 'target')
    if split == 'train' or kind != 'triplet' or target is None:
      return []
    places = [b for a in _folders(target) for b in _folders(a)]
  return [
    Sequence(
      f'{p.parent.name}/{p.name}',
      tuple(str(p / f'im{k}.png') for k in range(1, frames + 1)),
    )
    for p in places
  ]


def _davis17(root, split):
  base = _first(root / 'DAVIS') or root
  name = {'train': 'train', 'test': 'val'}[split]
  listed = base / 'ImageSets' / '2017' / f'{name}.txt'
  if not listed.is_file():
    return []
  clips = [x.strip() for x in listed.read_text().splitlines() if x.strip()]
  frames = base / 'JPEGImages' / '480p'
  return [Sequence(c, _pictures(frames / c)) for c in clips]


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
  """Maps a folder of another machine to its longest tail below `root`."""
  parts = [p for p in re.split(r'[/\\]', folder) if p]
  for k in range(len(parts)):
    if root.joinpath(*parts[k:]).is_dir():
      return str(root.joinpath(*parts[k:]))
  return str(root.joinpath(*parts[-2:]))


def _bair(root, split):
  """Episodes one or two folders deep."""
  place = _first(root / 'processed_data' / split, root / split)
  sequences = []
  for folder in _folders(place) if place else ():
    for episode in (folder, *_folders(folder)):
      frames = _pictures(episode)
      if frames:
        sequences.append(Sequence(str(episode.relative_to(place)), frames))
  return sequences


def _kth_64(root, split):
  sequences = _kth_of(root, KTH_PERSONS[split])
  if split == 'train':
    return sequences
  # From the 13th frame on, or the last where a window fits.
  late = []
  window = PROTOCOLS['kth_64'].window
  for sequence in sequences:
    number = length(sequence)
    skip = min(12, number - window)
    if skip < 0:
      continue
    if isinstance(sequence.frames, str):
      late.append(
        sequence._replace(first=sequence.first + skip, number=number - skip)
      )
    else:
      late.append(sequence._replace(frames=sequence.frames[skip:]))
  return late


def _kth(root, split):
  persons = {'train': range(1, 17), 'test': range(17, 26)}[split]
  return _kth_of(root, persons)


def _kth_of(root, persons):
  base = _first(root / 'kth') or root
  annotated = _annotated(base / '00sequences.txt')
  sequences = []
  for action in _ACTIONS:
    hop = 3 if action in _FAST else None
    for name in sorted(names(str(base / action))):
      if not re.match(r'person\d\d_', name) or int(name[6:8]) not in persons:
        continue
      path, label = base / action / name, name.split('_uncomp')[0]
      if path.is_dir():
        for part in _runs(_pictures(path)):
          first = _number(part[0])
          sequences.append(Sequence(f'{label}/{first}', part, hop=hop))
      elif path.suffix == '.avi':
        if not annotated:
          raise FileNotFoundError(
            f'{base / "00sequences.txt"} is missing: it says in which frames '
            'of the videos there is a person.'
          )
        for first, number in annotated.get(label, ()):
          sequences.append(
            Sequence(
              f'{label}/{first + 1}', str(path), first, number=number, hop=hop
            )
          )
  return sequences


def _annotated(path: pathlib.Path) -> dict[str, list[tuple[int, int]]]:
  """First frame (from 0) and length of the runs that KTH's list names.

  Ranges that follow one another are one run, as they are for whoever looks at
  the numbers of the frames; a few are listed out of order or overlap.
  """
  runs = {}
  for line in path.read_text().splitlines() if path.is_file() else ():
    match = re.match(r'(person\d\d_\w+_d\d)\s+frames\s+(.*)', line)
    if match is None:
      continue
    frames = set()
    for first, last in re.findall(r'(\d+)\s*-\s*(\d+)', match[2]):
      frames.update(range(int(first) - 1, int(last)))
    runs[match[1]] = [(r[0], len(r)) for r in _consecutive(sorted(frames))]
  return runs


def _consecutive(values, key=lambda v: v) -> list[list]:
  """Cuts a list at gaps between the numbers `key` of its items."""
  pairs = enumerate(values)
  groups = itertools.groupby(pairs, lambda pair: key(pair[1]) - pair[0])
  return [[value for _, value in group] for _, group in groups]


def _number(path: str) -> int:
  digits = re.findall(r'\d+', os.path.basename(path))
  if not digits:
    raise ValueError(f'{path} has no number in its name.')
  return int(digits[-1])


def _runs(paths) -> list[tuple[str, ...]]:
  """Groups pictures into runs of consecutive numbers."""
  return [tuple(run) for run in _consecutive(paths, _number)]


def _caltech(root, split):
  sequences = []
  if split == 'train':
    base = _first(root / 'kitti') or root
    for drive in PREDNET_DRIVES:
      for category in ('', 'city', 'residential', 'road'):
        start = base / category
        place = _first(start / drive, start / drive[:10] / drive)
        frames = _pictures(place / 'image_03' / 'data') if place else ()
        if frames:
          sequences.append(Sequence(drive, frames))
          break
    return sequences
  base = _first(root / 'caltech') or root
  for k in range(6, 11):
    place = base / f'set{k:02d}'
    for name in sorted(names(str(place)), key=video_io.natural_key):
      path = place / name
      if not path.is_dir() and path.suffix not in ('.seq', '.avi', '.mp4'):
        continue
      # 30 frames a second; the published loader keeps the 3rd, the 6th, ...
      run = Sequence(f'{place.name}/{path.stem}', str(path), first=2, step=3)
      sequences.append(run._replace(number=length(run)))
  return sequences


def _robonet(root, split):
  files = _first(root / 'hdf5') or root
  lists = {
    k: _list(root, f'robonet_{k}.json', list) for k in ('train', 'val', 'test')
  }
  chosen = lists[split]
  if chosen is None and split == 'train':
    known = {n for k in ('val', 'test') for n in lists[k] or ()}
    here = {n for n in names(str(files)) if n.endswith('.hdf5')}
    # Without both lists nobody knows what must not be trained on.
    if lists['val'] is not None and lists['test'] is not None:
      chosen = sorted(here - known, key=video_io.natural_key)
  camera = 0 if split == 'train' else None
  return [
    Sequence(n.removesuffix('.hdf5'), str(files / n), camera=camera)
    for n in chosen or ()
  ]


def _bridgedata(root, split):
  listed = _list(root, f'bridgedata_{split}.json', dict) or {}
  base = _first(root / 'bridge_data_v1') or root
  return [
    Sequence(
      folder, tuple(str(base / folder / f'im_{k}.jpg') for k in range(number))
    )
    for folder, number in listed.items()
    if number >= 12
  ]


def _list(root: pathlib.Path, name: str, kind: type):
  """Reads a list of PredBench; None if it is missing."""
  path = _first(root / name, root / 'annotations' / name)
  if path is None:
    return None
  with reading(path, 'list of PredBench'):
    found = json.loads(path.read_text())
  if not isinstance(found, kind):
    raise ValueError(
      f'{path} holds a {type(found).__name__}, expected a {kind.__name__}.'
    )
  return found


def _ucf101_triplets(root, split):
  del split
  base = _first(root / 'ucf101_interp_ours') or root
  names = ('frame_00.png', 'frame_01_gt.png', 'frame_02.png')
  places = base.glob('*/frame_01_gt.png')
  folders = sorted((p.parent for p in places), key=_natural)
  return [
    Sequence(p.name, tuple(str(p / name) for name in names)) for p in folders
  ]


def _natural(path: pathlib.Path):
  return video_io.natural_key(path.name)


def _snufilm(root, split, *, level: str):
  del split
  name = f'test-{level}.txt'
  listed = _first(root / name, root / 'eval_modes' / name)
  if listed is None:
    return []
  places, sequences = {}, []
  for line in listed.read_text().splitlines():
    paths = line.split()
    if not paths:
      continue
    if len(paths) != 3:
      raise ValueError(
        f'{listed} has a line of {len(paths)} paths; expected three.'
      )
    frames = []
    for path in paths:
      folder, picture = os.path.split(path)
      if folder not in places:
        places[folder] = _tail(root, folder)
      frames.append(os.path.join(places[folder], picture))
    clip = os.path.basename(os.path.dirname(paths[1]))
    stem = os.path.splitext(os.path.basename(paths[1]))[0]
    sequences.append(Sequence(f'{clip}/{stem}', tuple(frames)))
  return sequences


def _x4k1000fps(root, split):
  if split == 'test':
    base = _first(root / 'test') or root
    clips = sorted(p for p in base.glob('Type*/*') if p.is_dir())
    return [
      Sequence(f'{p.parent.name}/{p.name}', _pictures(p)[::4]) for p in clips
    ]
  base = _first(root / 'train', root / 'encoded_train')
  sequences = []
  for scene in _folders(base) if base else ():
    for name in sorted(names(str(scene)), key=video_io.natural_key):
      # Names of folders have dots, too.
      path, stem = scene / name, name.removesuffix('.mp4')
      if path.is_dir():
        sequences.append(Sequence(f'{scene.name}/{stem}', _pictures(path)))
      elif name.endswith('.mp4'):
        run = Sequence(f'{scene.name}/{stem}', str(path), number=65)
        sequences.append(run)
  return sequences


def _middlebury(root, split):
  del split
  truths = sorted((root / 'other-gt-interp').glob('*/frame10i11.png'))
  sequences = []
  for truth in truths:
    place = root / 'other-data' / truth.parent.name
    frames = (place / 'frame10.png', truth, place / 'frame11.png')
    sequences.append(Sequence(place.name, tuple(map(str, frames))))
  return sequences


def _xiph(root, split):
  del split
  base = _first(root / 'netflix') or root
  here, sequences = names(str(base)), []
  for clip in XIPH_CLIPS:
    film = f'Netflix_{clip}_4096x2160_60fps_10bit_420.y4m'
    for k in XIPH_FRAMES:
      if film in here:
        run = Sequence(f'{clip}/{k}', str(base / film), first=k - 2, number=3)
      elif f'{clip}-{k:03d}.png' in here:
        paths = (base / f'{clip}-{n:03d}.png' for n in (k - 1, k, k + 1))
        run = Sequence(f'{clip}/{k}', tuple(map(str, paths)))
      else:
        continue
      sequences.append(run)
  return sequences


FINDERS: dict[str, Callable[[Any, str], list[Sequence]]] = {
  'cityscapes': _cityscapes,
  'kitti': _kitti,
  'ucf101': _ucf101,
  'vimeo90k': _vimeo90k,
  'davis17': _davis17,
  'ucfsports': functools.partial(_listed, name='{}{}.png', window=10, step=1),
  'human36m': functools.partial(_listed, name='{}{:06d}.jpg', window=8, step=5),
  'kth': _kth,
  'caltech': _caltech,
  'human36m_256': functools.partial(
    _listed, name='{}{:06d}.jpg', window=8, step=5
  ),
  'robonet': _robonet,
  'bridgedata': _bridgedata,
  'bair': _bair,
  'kth_64': _kth_64,
  'cityscapes_128': _cityscapes,
  'vimeo90k_septuplets': functools.partial(
    _vimeo90k, kind='septuplet', frames=7
  ),
  'ucf101_triplets': _ucf101_triplets,
  **{
    f'snufilm_{level}': functools.partial(_snufilm, level=level)
    for level in SNUFILM_LEVELS
  },
  'x4k1000fps': _x4k1000fps,
  'middlebury': _middlebury,
  'xiph_2k': _xiph,
  'xiph_4k': _xiph,
}
