"""Photographs in motion: clips whose motion is known exactly.

Real photographs from the scikit-image wheel (nothing is downloaded) are moved
by smooth random motion: translation, rotation and zoom, each with its own
slowly changing speed. In front of the photograph move cut-outs of other
photographs, which cover and uncover what is behind them.

A clip is uint8 `[T, H, W, 3]`, RGB; grey photographs have three equal channels.
Flow is `[T-1, H, W, 2]`, (dx, dy) in pixels: `flow[t]` says for each pixel of
frame `t + 1` where in frame `t` the same point lies (backward flow).

Every layer is cut out of its photograph once per clip, low-passed to the
clip's resolution and stored at twice its pixel density; all frames sample this
one texture bilinearly. So a moving picture neither aliases nor flickers
between sharp and soft as it crosses pixel borders.

The photographs of the two splits are disjoint:

  train: astronaut, coffee, rocket, hubble_deep_field, retina (the inside of
    the disc), ihc, brick, grass, coins, moon
  test: chelsea, motorcycle_left, camera, gravel
"""

import functools
import importlib.util
import math
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

PHOTOS = {
  'train': (
    'astronaut.png',
    'coffee.png',
    'rocket.jpg',
    'hubble_deep_field.jpg',
    'retina.jpg',
    'ihc.png',
    'brick.png',
    'grass.png',
    'coins.png',
    'moon.png',
  ),
  'test': ('chelsea.png', 'motorcycle_left.png', 'camera.png', 'gravel.png'),
}

# Photographs are shrunk to this short side: more detail is never shown.
_SHORT_SIDE = 512
# Texture pixels per clip pixel.
_DENSITY = 2
_NUM_CLIPS = {'train': 100_000, 'test': 64}


class PhotosInMotion:
  """A grain random access source; item `i` is a function of (seed, split, i).

  Items are dicts with `video` uint8 [T, H, W, 3] and `name`, and with
  `with_flow` also `flow` float32 [T-1, H, W, 2] and `visible` bool
  [T-1, H, W]: whether the point seen at a pixel of frame `t + 1` is seen in
  frame `t`, inside the image and away from the soft edge of a cut-out. There
  `video[t]` sampled at `(x, y) + flow[t]` is `video[t + 1]` up to resampling.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    size: tuple[int, int] | int = (96, 96),
    max_speed: float = 5.0,
    rotation: float = 0.03,
    zoom: float = 0.02,
    cutouts: int = 1,
    num_clips: int | None = None,
    seed: int = 0,
    with_flow: bool = False,
  ):
    """Makes the source.

    Args:
      split: 'train' or 'test'.
      num_frames: frames per clip, T.
      size: (H, W) of a clip, or one number for both.
      max_speed: greatest speed of a layer's centre, pixels per frame. Each
        layer draws its own peak speed, at least a quarter of this.
      rotation: greatest turning speed of a layer, radians per frame.
      zoom: greatest relative change of a layer's scale per frame.
      cutouts: number of cut-outs that move in front, 0 or more.
      num_clips: length of the source; None is 100 000 for train, 64 for test.
      seed: other seeds make other clips of the same photographs.
      with_flow: whether items have `flow` and `visible`.

    Raises:
      ValueError: on an unknown split or a setting out of range.
      FileNotFoundError: if scikit-image's photographs are not installed.
    """
    if split not in PHOTOS:
      raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or min(size) < 8:
      raise ValueError(f'size must be (H, W), at least 8 each, got {size}.')
    if num_frames < 1:
      raise ValueError(f'num_frames must be at least 1, got {num_frames}.')
    if max_speed < 0 or rotation < 0 or not 0 <= zoom < 0.2 or cutouts < 0:
      raise ValueError(
        'max_speed, rotation and cutouts must not be negative and zoom must '
        f'lie in [0, 0.2), got max_speed={max_speed}, rotation={rotation}, '
        f'zoom={zoom}, cutouts={cutouts}.'
      )
    self._length = _NUM_CLIPS[split] if num_clips is None else num_clips
    if self._length < 1:
      raise ValueError(f'num_clips must be at least 1, got {num_clips}.')
    self._split, self._num_frames, self._size = split, num_frames, size
    self._speed = max_speed
    self._rotation, self._zoom, self._cutouts = rotation, zoom, cutouts
    self._seed, self._with_flow = seed, with_flow
    for name in PHOTOS[split]:
      _path(name)

  def __len__(self) -> int:
    return self._length

  def __repr__(self) -> str:
    return (
      f'PhotosInMotion({self._split!r}, {self._num_frames}, size={self._size})'
    )

  def __getitem__(self, index) -> dict:
    index = range(self._length)[index]
    rng = np.random.default_rng(
      [self._seed, sorted(PHOTOS).index(self._split), index]
    )
    names = PHOTOS[self._split]
    # The background's photograph is not shown again in front of itself.
    back, *front = rng.permutation(len(names))
    layers = [self._background(rng, names[back])]
    for k in range(self._cutouts):
      name = names[front[k % len(front)]]
      layers.append(self._cutout(rng, name))
    frames, alphas = zip(
      *(self._frame(layers, t) for t in range(self._num_frames))
    )
    item = {
      'video': np.stack(frames),
      'name': f'{self._split}/{index:06d}-{names[back].split(".")[0]}',
    }
    if self._with_flow:
      item['flow'], item['visible'] = _flow(layers, np.stack(alphas))
    return item

  def _background(self, rng, name: str) -> '_Layer':
    """A layer that covers the whole frame at all times."""
    height, width = self._size
    maps = self._motion(rng, place=(width / 2, height / 2))
    corners = np.array([[0, width, 0, width], [0, 0, height, height]])
    places = maps[:, :, :2] @ corners + maps[:, :, 2:]
    low, high = places.min((0, 2)) - 1, places.max((0, 2)) + 1
    texture = _cut(rng, _photo(name), high - low)
    return _Layer(texture, _to_texture(maps, low), None)

  def _cutout(self, rng, name: str) -> '_Layer':
    """A smooth random shape cut out of a photograph."""
    height, width = self._size
    radius = min(height, width) * rng.uniform(0.15, 0.35)
    maps = self._motion(rng, place=rng.uniform(0.1, 0.9, 2) * (width, height))
    extent = np.full(2, 2 * radius)
    texture = _cut(rng, _photo(name), extent)
    mask = _shape(rng, texture.size, edge=1.5 * _DENSITY)
    return _Layer(texture, _to_texture(maps, -extent / 2), mask)

  def _motion(self, rng, place) -> np.ndarray:
    """Maps [T, 2, 3] from clip coordinates to a layer's own, in clip pixels.

    Position, angle and logarithm of scale each follow a sine with a period of
    30 to 90 frames: the speed changes slowly and smoothly, and clips of any
    length stay within bounds. The middle of the clip is a time of at least
    half the greatest speed.

    Args:
      rng: the random generator.
      place: where in the clip, (x, y), the layer's origin lies at that time.
    """
    time = np.arange(self._num_frames) - (self._num_frames - 1) / 2

    def swing(speed):
      omega = 2 * np.pi / rng.uniform(30, 90)
      phase = rng.uniform(-np.pi / 3, np.pi / 3)
      return speed / omega * (np.sin(omega * time + phase) - np.sin(phase))

    speed = self._speed * rng.uniform(0.25, 1.0)
    heading = rng.uniform(0, 2 * np.pi)
    x = swing(speed * np.cos(heading))
    y = swing(speed * np.sin(heading))
    angle = swing(self._rotation * rng.uniform(-1, 1))
    scale = np.exp(swing(self._zoom * rng.uniform(-1, 1)))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    origin = np.stack([x + place[0], y + place[1]], -1)
    return np.concatenate([linear, -linear @ origin[:, :, None]], -1)

  def _frame(self, layers, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame `t` uint8 [H, W, 3], and the opacity of each layer [L, H, W]."""
    height, width = self._size
    picture, alphas = None, []
    for layer in layers:
      image = _sample(layer.texture, layer.maps[t], self._size)
      if layer.mask is None:
        picture = image.astype(np.float32)
        alphas.append(np.ones((height, width), np.float32))
        continue
      alpha = _sample(layer.mask, layer.maps[t], self._size) / np.float32(255)
      picture += alpha[:, :, None] * (image - picture)
      alphas.append(alpha)
    return np.rint(picture).astype(np.uint8), np.stack(alphas)


class _Layer(NamedTuple):
  """One moving picture.

  Attributes:
    texture: RGB image.
    maps: [T, 2, 3], clip coordinates (x, y) to texture coordinates; both count
      from the corner of the first pixel.
    mask: opacity, an image like the texture; None if opaque everywhere.
  """

  texture: Image.Image
  maps: np.ndarray
  mask: Image.Image | None


def _path(name: str) -> pathlib.Path:
  spec = importlib.util.find_spec('skimage')
  if spec is None or spec.origin is None:
    raise FileNotFoundError(
      "The source 'photos' needs the package scikit-image: "
      'pip install scikit-image'
    )
  path = pathlib.Path(spec.origin).parent / 'data' / name
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} is missing: this scikit-image does not carry the photograph.'
    )
  return path


@functools.lru_cache(maxsize=32)
def _photo(name: str) -> Image.Image:
  with Image.open(_path(name)) as image:
    photo = image.convert('RGB')
  if name == 'retina.jpg':  # black outside of a disc
    margin = 0.15
    width, height = photo.size
    photo = photo.crop(
      tuple(
        round(v)
        for v in (
          margin * width,
          margin * height,
          (1 - margin) * width,
          (1 - margin) * height,
        )
      )
    )
  shrink = _SHORT_SIDE / min(photo.size)
  if shrink < 1:
    size = tuple(round(side * shrink) for side in photo.size)
    photo = photo.resize(size, Image.Resampling.LANCZOS)
  return photo


def _cut(rng, photo: Image.Image, extent: np.ndarray) -> Image.Image:
  """A random part of a photo as a texture.

  Args:
    rng: the random generator.
    photo: the photograph.
    extent: (width, height) of the texture in clip pixels.

  Returns:
    The part, `_DENSITY` times `extent` in size, without detail finer than clip
    pixels.
  """
  # Photo pixels per clip pixel: at most what fits, and where there is room
  # neither enlarged nor shrunk so much that the motion leaves no trace.
  fits = min(np.array(photo.size) / extent)
  high = min(fits, 3.0)
  low = min(1.0, high)
  pitch = math.exp(rng.uniform(math.log(low), math.log(high)))
  side = np.minimum(extent * pitch, photo.size)
  corner = rng.uniform(0, 1, 2) * (photo.size - side)
  box = tuple(
    float(v) for v in (*corner, *np.minimum(corner + side, photo.size))
  )
  size = tuple(int(math.ceil(v)) for v in extent)
  fine = tuple(int(round(v * _DENSITY)) for v in extent)
  if pitch <= 1:
    return photo.resize(fine, Image.Resampling.BICUBIC, box=box)
  coarse = photo.resize(size, Image.Resampling.LANCZOS, box=box)
  return coarse.resize(fine, Image.Resampling.BICUBIC)


def _to_texture(maps: np.ndarray, corner: np.ndarray) -> np.ndarray:
  """Maps to a layer's coordinates as maps to pixels of its texture."""
  maps = maps.copy()
  maps[:, :, 2] -= corner
  return maps * _DENSITY


def _shape(rng, size: tuple[int, int], edge: float) -> Image.Image:
  """Opacity of a smooth random shape that touches no border of `size`."""
  width, height = size
  x = np.arange(width, dtype=np.float32) + 0.5 - width / 2
  y = np.arange(height, dtype=np.float32)[:, None] + 0.5 - height / 2
  # Radius as a short Fourier series of the angle, by powers of the direction.
  radius = np.maximum(np.hypot(x, y), 1e-6)
  direction = (x + 1j * y).astype(np.complex64) / radius
  border, wave = np.zeros_like(radius), np.ones_like(direction)
  reach = 0.0
  for order in range(1, 6):
    wave = wave * direction
    if order == 1:
      continue
    amplitude = rng.uniform(0, 0.45) / order
    turn = np.complex64(amplitude * np.exp(2j * np.pi * rng.uniform()))
    border += (wave * turn).real
    reach += amplitude
  limit = min(width, height) / 2 - edge - 1
  border = (1 + border) * (limit / (1 + reach))
  # Distance to the border, to first order, in texture pixels.
  alpha = np.clip((border - radius) / edge + 0.5, 0, 1)
  return Image.fromarray(np.rint(alpha * 255).astype(np.uint8))


def _sample(image: Image.Image, place: np.ndarray, size) -> np.ndarray:
  """The image at affine places, bilinearly; zero outside. uint8 [H, W, ...]."""
  height, width = size
  return np.asarray(
    image.transform(
      (width, height),
      Image.Transform.AFFINE,
      tuple(place.ravel()),
      Image.Resampling.BILINEAR,
    )
  )


def _flow(layers, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Exact backward flow and visibility from the layers' maps.

  Args:
    layers: back to front.
    alphas: [T, L, H, W], their opacities.

  Returns:
    flow float32 [T-1, H, W, 2] and visible bool [T-1, H, W].
  """
  num_frames, num_layers, height, width = alphas.shape
  x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
  here = np.stack([x, y, np.ones_like(x)], -1)
  order = np.arange(num_layers)[:, None, None]
  # The layer on top at each pixel, and -1 where two layers mix.
  tops = np.where(alphas > 0.5, order, 0).max(1)
  mixed = ((alphas > 0) & (alphas < 1) & (order >= tops[:, None])).any(1)
  pure = np.where(mixed, -1, tops)

  flow = np.zeros((num_frames - 1, height, width, 2), np.float32)
  visible = np.zeros((num_frames - 1, height, width), bool)
  for t in range(num_frames - 1):
    for k, layer in enumerate(layers):
      old, new = layer.maps[t], layer.maps[t + 1]
      back = np.linalg.solve(old[:, :2], new - [[0, 0, 1]] * old[:, 2:])
      there = here @ back.T
      top = tops[t + 1] == k
      flow[t][top] = (there - here[..., :2])[top]
      # All four pixels that bilinear sampling reads must show this layer.
      corner = np.floor(there - 0.5).astype(int)
      inside = ((corner >= 0) & (corner < (width - 1, height - 1))).all(-1)
      i = np.clip(corner[..., 1], 0, height - 2)
      j = np.clip(corner[..., 0], 0, width - 2)
      same = np.ones_like(top)
      for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
        same &= pure[t, i + di, j + dj] == k
      visible[t] |= (pure[t + 1] == k) & inside & same
  return flow, visible
