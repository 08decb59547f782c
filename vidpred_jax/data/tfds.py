"""Clips from data sets that TensorFlow Datasets has prepared as ArrayRecord.

Reading needs the package tensorflow-datasets and no TensorFlow. Preparing does,
once and on any machine, for most data sets:

  tfds build bair_robot_pushing_small --file_format=array_record

Then `name='bair_robot_pushing_small', key='image_aux1'` are its films. The key
is the path of the frames in an example: of episodes such as those of Open
X-Embodiment 'steps/observation/image'. It leads to a sequence of images or to
an array `[T, H, W, C]` of bytes. `Video` features are decoded by TensorFlow
alone and are refused.
"""

import concurrent.futures
import functools
import importlib.util
import os
import pathlib
import threading

import numpy as np

from vidpred_jax.data import validation, windows

# Of episodes of unknown length: so many clips each before the order repeats.
_DRAWS = 100


class TfdsClips:
  """A grain random access source of windows of films or episodes.

  Items are dicts with `video` uint8 [T, H, W, C] and `name`
  (`split/example@first frame`).

  Clips follow one another without overlap. For training they begin anywhere:
  each of an example whose length the data set states is an item of its own; of
  others the first frame is drawn, as a function of the item.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    name: str = '',
    key: str = '',
    data_dir: str | os.PathLike | None = None,
    train_split: str = 'train',
    test_split: str = 'test',
    val_fraction: float = 0.0,
    step: int = 1,
    hop: int | None = None,
  ):
    """Opens a data set; for testing, counts frames where it does not say.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      name: of the data set, as `tfds build` has it, with its configuration and
        version if there are several: 'davis', 'bridge/0.1.0'.
      key: where the frames of an example are, keys separated by '/'.
      data_dir: where data sets lie; None: ~/tensorflow_datasets.
      train_split: which of its splits is for training; may be a part:
        'train[:90%]'.
      test_split: the same for testing.
      val_fraction: share of the examples for training, the last ones, that
        'val' has instead of 'train'.
      step: distance of a clip's frames.
      hop: distance of successive clips; None is 1 for train, else the length of
        a clip.

    Raises:
      ValueError: if a setting is wrong, or there are no such frames.
      FileNotFoundError: if the data set is not there or not prepared, or the
        package is missing.
    """
    validation.check(split)
    self._split = test_split if split == 'test' else train_split
    self._num_frames, self._step, self._name = num_frames, step, name
    self._key = tuple(part for part in key.split('/') if part)
    self._folder = _folder(name, data_dir)
    self._opened, self._lock = None, threading.Lock()
    self._span = (num_frames - 1) * step + 1
    data_set = self._data_set()
    length = _length(data_set.features, self._key)
    train = split == 'train'
    self._examples = range(len(data_set.records))
    if split != 'test':
      self._examples = validation.part(
        split, len(self._examples), val_fraction, 'examples'
      )
    self._windows = None
    placed = functools.partial(
      windows.Windows, num_frames=num_frames, step=step, hop=hop, overlap=train
    )
    placed(())  # refuses wrong numbers
    if length is not None:
      lengths = np.full(len(self._examples), length)
    elif not train:
      with concurrent.futures.ThreadPoolExecutor(8) as pool:
        lengths = list(
          pool.map(lambda n: len(self._example(n)), self._examples)
        )
    else:
      self._count = len(self._examples) * _DRAWS
      lengths = [len(self._example(self._examples[0]))]
    if length is not None or not train:
      self._windows = placed(lengths)
      self._count = len(self._windows)
    if not self._count:
      raise ValueError(
        f'No example of {name}, {self._split}, has the {self._span} frames '
        f'that a clip needs; the longest has {max(lengths, default=0)}.'
      )
    if self._windows is not None:
      self._windows.warn_of_short(
        lambda k: f'{self._split}/{self._examples[k]}', self._span
      )

  def __len__(self) -> int:
    return self._count

  def __repr__(self) -> str:
    return f'TfdsClips({self._name!r}, {self._split!r}, {len(self)} clips)'

  def __getstate__(self) -> dict:
    return self.__dict__ | {'_opened': None, '_lock': None}

  def __setstate__(self, state: dict) -> None:
    self.__dict__ = state
    self._lock = threading.Lock()

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    if self._windows is not None:
      k, start, _ = self._windows[i]
      n = self._examples[k]
      film = self._example(n)
    else:
      n, film, start = self._drawn(i)
    numbers = range(start, start + self._span, self._step)
    frames = [film.frame(k) for k in numbers]
    for frame in frames:
      if frame.dtype != np.uint8 or frame.shape != frames[0].shape:
        raise ValueError(
          f'{self._name}, example {n}, has frames {frame.dtype} '
          f'{frame.shape} and {frames[0].shape}; expected uint8 [H, W, C] of '
          'one size.'
        )
      if frame.ndim != 3:
        raise ValueError(
          f'{self._name}, example {n}, has frames {list(frame.shape)} at '
          f'{"/".join(self._key)}; expected [H, W, C].'
        )
    return {'video': np.stack(frames), 'name': f'{self._split}/{n}@{start}'}

  def _drawn(self, i: int):
    """Example, its film and first frame of an item; short ones are passed."""
    rng = np.random.default_rng(i)
    for k in range(i, i + len(self._examples)):
      n = self._examples[k % len(self._examples)]
      film = self._example(n)
      if len(film) >= self._span:
        return n, film, int(rng.integers(len(film) - self._span + 1))
    raise ValueError(
      f'No example of {self._name}, {self._split}, has {self._span} frames.'
    )

  def _example(self, n: int) -> '_Film':
    data_set = self._data_set()
    example = data_set.features.deserialize_example_np(data_set.records[n])
    return _Film(example, self._key)

  def _data_set(self):
    with self._lock:
      if self._opened is None:
        self._opened = _DataSet(self._folder, self._split, self._key)
      return self._opened


class _DataSet:
  """A prepared data set: its records, and how to decode them."""

  def __init__(self, folder: pathlib.Path, split: str, key: tuple[str, ...]):
    import tensorflow_datasets as tfds

    # It cannot even be described without TensorFlow.
    if 'video_feature.Video"' in (folder / 'features.json').read_text():
      raise ValueError(
        f'{folder} has Video features, which TensorFlow alone decodes; where '
        "TensorFlow is, write the films to files and take the source 'videos', "
        'or prepare the data set anew with Sequence(Image).'
      )
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
      raise ValueError(
        f'{folder} is prepared as {builder.info.file_format.value}, which '
        'TensorFlow alone reads; prepare it with '
        '--file_format=array_record.'
      )
    known = list(builder.info.splits)
    if split.partition('[')[0] not in known:
      raise ValueError(
        f'{folder} has the splits {", ".join(known)}, not {split!r}.'
      )
    features = builder.info.features
    _check_key(features, key, folder)
    self.features = _narrowed(features, key)
    self.records = builder.as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )


class _Film:
  """The frames of an example: `len(film)`, and each by number."""

  def __init__(self, example, key: tuple[str, ...]):
    # Of steps, whose frames are decoded one by one, the rest of the key is
    # looked up in each.
    self._rest = key
    while self._rest and isinstance(example, dict):
      example, self._rest = example[self._rest[0]], self._rest[1:]
    self._frames = example

  def __len__(self) -> int:
    return len(self._frames)

  def frame(self, k: int) -> np.ndarray:
    """One of them, [H, W, C]."""
    value = self._frames[k]
    for part in self._rest:
      value = value[part]
    return np.asarray(value)


def _folder(name: str, data_dir) -> pathlib.Path:
  """The folder of the newest version of a prepared data set."""
  if not name:
    raise ValueError(
      "The source 'tfds' needs name: a data set that tfds has prepared, such "
      'as bair_robot_pushing_small.'
    )
  home = os.path.expanduser(data_dir or '~/tensorflow_datasets')
  base = pathlib.Path(home) / name
  folders = [
    info.parent
    for pattern in ('', '*/', '*/*/')
    for info in base.glob(f'{pattern}dataset_info.json')
  ]
  if not folders:
    raise FileNotFoundError(
      f'There is no prepared data set at {base}; with TensorFlow, once: '
      f'tfds build {name} --file_format=array_record --data_dir='
      f'{base.parent if data_dir else "DIR"} (https://www.tensorflow.org/'
      'datasets/cli).'
    )
  parents = {path.parent for path in folders}
  if len(parents) > 1:
    raise ValueError(
      f'{base} has several configurations, {", ".join(map(str, parents))}; say '
      'which by name.'
    )
  if importlib.util.find_spec('tensorflow_datasets') is None:
    raise FileNotFoundError(
      f'{base} needs the package tensorflow-datasets: pip install '
      "'vidpred_jax[tfds]'"
    )
  return max(folders, key=_version)


def _version(path: pathlib.Path) -> tuple[int, ...]:
  return tuple(int(x) if x.isdigit() else -1 for x in path.name.split('.'))


def _inner(feature):
  """The feature inside a sequence or data set, else the feature itself."""
  import tensorflow_datasets as tfds

  while isinstance(feature, (tfds.features.Sequence, tfds.features.Dataset)):
    feature = feature.feature
  return feature


def _children(feature) -> dict:
  import tensorflow_datasets as tfds

  feature = _inner(feature)
  known = isinstance(feature, tfds.features.FeaturesDict)
  return dict(feature.items()) if known else {}


def _keys(feature, before: str = '') -> list[str]:
  """Paths of all leaves that have frames."""
  import tensorflow_datasets as tfds

  keys = []
  for name, child in _children(feature).items():
    path = f'{before}{name}'
    keys += _keys(child, f'{path}/')
    leaf = _inner(child)
    tensor = isinstance(leaf, tfds.features.Tensor) and len(leaf.shape) == 4
    if isinstance(leaf, tfds.features.Image) or tensor:
      keys.append(path)
  return keys


def _check_key(features, key: tuple[str, ...], folder) -> None:
  """Raises ValueError unless a key leads to frames."""
  feature = features
  for part in key:
    feature = _children(feature).get(part)
    if feature is None:
      break
  if feature is None or _children(feature) or not key:
    raise ValueError(
      f'{folder} has no frames at the key {"/".join(key)!r}; frames are at '
      f'{", ".join(_keys(features)) or "no key"}.'
    )


def _narrowed(features, key: tuple[str, ...]):
  """The features without those that need not be decoded."""
  import tensorflow_datasets as tfds

  if isinstance(features, tfds.features.Dataset):
    return features  # decoded frame by frame
  if type(features) is tfds.features.Sequence:
    inner = _narrowed(features.feature, key)
    kept = tfds.features.Sequence(inner, length=features._length)
  elif isinstance(features, tfds.features.FeaturesDict) and key:
    kept = tfds.features.FeaturesDict(
      {key[0]: _narrowed(features[key[0]], key[1:])}
    )
  else:
    kept = features
  return kept


def _length(features, key: tuple[str, ...]) -> int | None:
  """Frames of each example, if the data set says so."""
  import tensorflow_datasets as tfds

  feature = features
  for part in (*key, None):
    if isinstance(feature, tfds.features.Sequence):
      return feature._length
    if isinstance(feature, tfds.features.Dataset) or part is None:
      break
    feature = feature[part]
  shape = getattr(feature, 'shape', (None,))
  return shape[0] if isinstance(feature, tfds.features.Tensor) else None
