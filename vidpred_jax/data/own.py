"""Clips from a Python object: any with `len(x)` and `x[i]`.

`x[i]` is an array `[T, H, W, C]`, or a dict with such an array as `video`. It
depends on `i` alone. If it has more frames than a clip, the first are taken.
The values are images, uint8 or floats in [0, 1]. An object of physical fields
has the attribute `kind` 'field', and `mean`, `std`, `variables` and `units` as
in the module `data`; its values are normalised already.

Example:
  class Clips:
    def __init__(self, films):
      self.films = films  # uint8 [N, T, H, W, C]

    def __len__(self):
      return len(self.films)

    def __getitem__(self, i):
      return self.films[i]

  batches = data.train_iterator(
    Clips(films), num_frames=20, batch_size=16, seed=0
  )

  # A run, from a checkout; `arrays` leaves channels and metrics to the clips.
  from configs import simvp
  from vidpred_jax.evaluate import run as evaluation
  from vidpred_jax.train import loop

  config = simvp.get_config('arrays,small')
  sources = {'train': Clips(films), 'test': Clips(others)}
  loop.run(config, 'runs/mine', sources=sources)
  evaluation.run(config, 'runs/mine', sources=sources)
"""

import numpy as np


class OwnClips:
  """A grain random access source of the clips of an object.

  Items are dicts with `video` [T, H, W, C], uint8 or float32, and `name`.

  Attributes:
    kind: 'image' or 'field', that of the object; 'image' if it has none.
    mean, std, variables, units, latitudes: of fields, those of the object.
  """

  def __init__(self, clips, num_frames: int):
    """Reads the first clip, so that a mistake shows at once.

    Args:
      clips: the object.
      num_frames: frames per clip, T.

    Raises:
      ValueError: if the object is no source of clips.
    """
    if not (hasattr(clips, '__len__') and hasattr(clips, '__getitem__')):
      raise ValueError(
        f'Got {type(clips).__name__}; a source is a name or has __len__ and '
        '__getitem__.'
      )
    self._clips, self._num_frames = clips, num_frames
    self.kind = getattr(clips, 'kind', 'image')
    if self.kind not in ('image', 'field'):
      raise ValueError(
        f"{clips!r} has the kind {self.kind!r}; expected 'image' or 'field'."
      )
    if self.kind == 'field':
      needed = ('mean', 'std', 'variables', 'units')
      missing = [name for name in needed if not hasattr(clips, name)]
      if missing:
        raise ValueError(
          f'{clips!r} has physical fields and no {", ".join(missing)}.'
        )
      for name in needed:
        setattr(self, name, getattr(clips, name))
      self.latitudes = getattr(clips, 'latitudes', None)
    if not len(self):
      raise ValueError(f'{clips!r} has no clips.')
    self[0]

  @property
  def climatology(self) -> np.ndarray | None:
    """The mean field [H, W, C] of the object, in the units, if it has one."""
    return getattr(self._clips, 'climatology', None)

  def __len__(self) -> int:
    return len(self._clips)

  def __repr__(self) -> str:
    return f'{type(self._clips).__name__} of {len(self)} clips'

  def __getitem__(self, i) -> dict:
    i = range(len(self))[i]
    item = self._clips[i]
    item = dict(item) if isinstance(item, dict) else {'video': item}
    if 'video' not in item:
      raise ValueError(
        f'Clip {i} of {self} has {", ".join(map(str, item))}; expected video.'
      )
    video = np.asarray(item['video'])
    if video.ndim != 4 or len(video) < self._num_frames:
      raise ValueError(
        f'Clip {i} of {self} has the shape {list(video.shape)}; expected '
        f'[T, H, W, C] with at least {self._num_frames} frames.'
      )
    video = video[: self._num_frames]
    if video.dtype != np.uint8 or self.kind == 'field':
      if video.dtype.kind != 'f':
        raise ValueError(
          f'Clip {i} of {self} is {video.dtype}; expected uint8 or floats.'
        )
      video = video.astype(np.float32)
      low, high = video.min(), video.max()
      if not np.isfinite([low, high]).all():
        raise ValueError(f'Clip {i} of {self} has values that are not finite.')
      if self.kind == 'image' and not 0 <= low <= high <= 1:
        raise ValueError(
          f'Clip {i} of {self} lies in [{low:.4g}, {high:.4g}]; expected '
          'images in [0, 1].'
        )
    return {'name': str(i), **item, 'video': video}
