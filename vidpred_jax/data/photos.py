"""Photographs in motion: clips whose motion is known exactly.

Smooth random motion moves photographs that come with the package
(`bundled/README.md` has their sources and licences): translation, rotation and
zoom, each with a slowly changing speed. Cut-outs of other photographs move in
front of the background, which they cover and uncover. A folder of more
photographs can be added to those of training.

A clip is uint8 `[T, H, W, 3]`, RGB; grey photographs have three equal channels.
The flow is `[P, H, W, 2]`, (dx, dy) in pixels, for P pairs (of, into) of
frames: from each pixel of frame `of` to the same point in frame `into`. It is
NaN where that point is hidden in frame `into`, or where the soft edge of a
cut-out mixes two layers.

Camera effects can be added: motion blur, changes of light, noise, and JPEG
coding. All are off by default.

Every layer is cut out of its photograph once per clip, low-pass filtered to the
clip's resolution and stored at twice its pixel density. All frames sample this
texture bilinearly. So moving pictures neither alias nor flicker between sharp
and soft as they cross pixel borders.

The photographs of the two splits are disjoint:

  train: astronaut, coffee, rocket, hubble_deep_field, retina (the inside of
    the disc), ihc, brick, grass, coins
  test: chelsea, camera, gravel
"""

import functools
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vidpred_jax import video_io
from vidpred_jax.data import camera, validation
from vidpred_jax.data.layers import DENSITY, Layer, flow

PHOTOS = {
  'train': (
    'astronaut.webp',
    'coffee.webp',
    'rocket.jpg',
    'hubble_deep_field.jpg',
    'retina.jpg',
    'ihc.webp',
    'brick.png',
    'grass.png',
    'coins.png',
  ),
  'test': ('chelsea.webp', 'camera.png', 'gravel.png'),
}

_BUNDLED = pathlib.Path(__file__).parent / 'bundled'
# Photographs are shrunk to this short side: more detail is never shown.
_SHORT_SIDE = 512
_NUM_CLIPS = {'train': 100_000, 'val': 64, 'test': 64}
# Of random numbers, so that no two splits have the same clips.
_STREAMS = {'test': 0, 'train': 1, 'val': 2}


class PhotosInMotion:
  """A grain random access source; item `i` is a function of (seed, split, i).

  Items are dicts with `video` uint8 [T, H, W, 3] and `name`, and with
  `flow_pairs` also `flow` float32 [P, H, W, 2]: where it is not NaN,
  `video[into]` sampled at `(x, y) + flow[p]` is `video[of]` up to resampling
  and what the camera adds.
  """

  kind = 'image'

  def __init__(
    self,
    split: str,
    num_frames: int,
    *,
    size: tuple[int, int] | int = (96, 96),
    max_speed: float = 5.0,
    min_speed: float = 0.0,
    still: float = 0.0,
    rotation: float = 0.03,
    zoom: float = 0.02,
    cutouts: int = 1,
    border: float = 0.0,
    shutter: float = 0.0,
    light: float = 0.0,
    noise: float = 0.0,
    coding: float = 0.0,
    folder: str | os.PathLike = '',
    num_clips: int | None = None,
    seed: int = 0,
    val_fraction: float = 0.0,
    flow_pairs: Sequence[tuple[int, int]] = (),
  ):
    """Makes the source.

    Args:
      split: 'train', 'val' or 'test'.
      num_frames: frames per clip, T.
      size: (H, W) of a clip, or one number for both.
      max_speed: greatest speed of a layer's centre, pixels per frame. Each
        layer draws its own peak speed, at least a quarter of this.
      min_speed: if above 0, peak speeds are drawn between this and `max_speed`
        instead, evenly in their logarithm, so that slow motion is as frequent
        as fast.
      still: probability of a layer to stand still.
      rotation: greatest turning speed of a layer, radians per frame.
      zoom: greatest relative change of a layer's scale per frame.
      cutouts: number of cut-outs that move in front, 0 or more.
      border: probability of a clip to have bars of one colour along its sides,
        mostly black, that stand still in front of all else.
      shutter: longest exposure, as a share of the time between frames, in
        [0, 1]. Each clip draws its own, and moving things blur.
      light: greatest change of contrast and, as a share of white, of
        brightness over a clip, in [0, 1]; both change evenly in time.
      noise: greatest standard deviation of the noise, in levels of 255; each
        clip draws its own.
      coding: probability of a clip to be coded as JPEG, at a quality drawn
        from 40 to 95.
      folder: more photographs (JPEG, PNG or WebP, searched with subfolders) for
        the split 'train'; the split 'test' stays as it is.
      num_clips: length of the source; None is 100 000 for train, 64 for test.
      seed: other seeds make other clips of the same photographs.
      flow_pairs: pairs (of, into) of frames whose flow items have.

    Raises:
      ValueError: on an unknown split or a setting out of range.
      FileNotFoundError: if the folder has no photograph.
    """
    validation.check(split)
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
    if not 0 <= min_speed <= max(max_speed, 0) or noise < 0:
      raise ValueError(
        'min_speed must lie in [0, max_speed] and noise must not be negative, '
        f'got min_speed={min_speed}, max_speed={max_speed}, noise={noise}.'
      )
    shares = {
      'still': still, 'border': border, 'shutter': shutter, 'light': light,
      'coding': coding,
    }  # fmt: skip
    for name, share in shares.items():
      if not 0 <= share <= 1:
        raise ValueError(f'{name} must lie in [0, 1], got {share}.')
    flow_pairs = tuple((int(of), int(into)) for of, into in flow_pairs)
    if any(not 0 <= t < num_frames for pair in flow_pairs for t in pair):
      raise ValueError(
        f'flow_pairs must be numbers of the {num_frames} frames, got '
        f'{flow_pairs}.'
      )
    self._length = _NUM_CLIPS[split] if num_clips is None else num_clips
    if self._length < 1:
      raise ValueError(f'num_clips must be at least 1, got {num_clips}.')
    self._split, self._num_frames, self._size = split, num_frames, size
    self._speeds, self._still = (min_speed, max_speed), still
    self._rotation, self._zoom, self._cutouts = rotation, zoom, cutouts
    self._border, self._shutter, self._light = border, shutter, light
    self._noise, self._coding = noise, coding
    self._seed, self._flow_pairs = seed, flow_pairs
    stored = 'test' if split == 'test' else 'train'
    self._photos = tuple(_BUNDLED / name for name in PHOTOS[stored])
    if folder and stored == 'train':
      self._photos += _photographs(folder)
    if stored == 'train':
      count = len(self._photos)
      chosen = validation.part(split, count, val_fraction, 'photographs')
      self._photos = self._photos[chosen.start : chosen.stop]
    if cutouts and len(self._photos) < 2:
      raise ValueError(
        f"val_fraction={val_fraction} leaves one photograph for '{split}'; "
        'expected two or more: one behind, others in front.'
      )

  def __len__(self) -> int:
    return self._length

  def __repr__(self) -> str:
    return (
      f'PhotosInMotion({self._split!r}, {self._num_frames}, size={self._size})'
    )

  def __getitem__(self, index) -> dict:
    index = range(self._length)[index]
    rng = np.random.default_rng([self._seed, _STREAMS[self._split], index])
    # The background's photograph is not shown again in front of itself.
    back, *front = rng.permutation(len(self._photos))
    layers = [self._background(rng, self._photos[back])]
    for k in range(self._cutouts):
      layers.append(self._cutout(rng, self._photos[front[k % len(front)]]))
    if self._border and rng.uniform() < self._border:
      layers.append(self._bars(rng))
    frames, alphas = camera.exposed(rng, layers, self._size, self._shutter)
    video = camera.lit(rng, frames, self._light)
    video = camera.noisy(rng, video, self._noise)
    video = np.rint(np.clip(video, 0, 255)).astype(np.uint8)
    item = {
      'video': camera.coded(rng, video, self._coding),
      'name': f'{self._split}/{index:06d}-{self._photos[back].stem}',
    }
    if self._flow_pairs:
      item['flow'] = flow(layers, alphas, self._flow_pairs)
    return item

  def _background(self, rng, photo: pathlib.Path) -> Layer:
    """Makes the layer that covers the whole frame at all times."""
    height, width = self._size
    maps = self._motion(rng, place=(width / 2, height / 2))
    corners = np.array([[0, width, 0, width], [0, 0, height, height]])
    covered = maps
    if self._shutter and len(maps) > 1:  # also half an exposure further
      ends = 1.5 * maps[[0, -1]] - 0.5 * maps[[1, -2]]
      covered = np.concatenate([maps, ends])
    places = covered[:, :, :2] @ corners + covered[:, :, 2:]
    low, high = places.min((0, 2)) - 1, places.max((0, 2)) + 1
    texture = _cut(rng, _photo(photo), high - low)
    return Layer(texture, _to_texture(maps, low), None)

  def _cutout(self, rng, photo: pathlib.Path) -> Layer:
    """Makes a layer of a smooth random shape, cut out of a photograph."""
    height, width = self._size
    radius = min(height, width) * rng.uniform(0.15, 0.35)
    maps = self._motion(rng, place=rng.uniform(0.1, 0.9, 2) * (width, height))
    extent = np.full(2, 2 * radius)
    texture = _cut(rng, _photo(photo), extent)
    mask = _shape(rng, texture.size, edge=1.5 * DENSITY)
    return Layer(texture, _to_texture(maps, -extent / 2), mask)

  def _bars(self, rng) -> Layer:
    """Makes the layer of still bars along sides of the frame."""
    height, width = self._size
    # Some films have a line of one pixel, others bars of an eighth.
    most = math.log(max(2, min(height, width) / 8))
    left, top, right, bottom = np.exp(rng.uniform(0, most, 4)).round()
    pair = rng.integers(3)  # at the sides, above and below, or all around
    left, right = (left, right) if pair != 1 else (0, 0)
    top, bottom = (top, bottom) if pair != 0 else (0, 0)
    level = 0 if rng.uniform() < 0.8 else int(rng.integers(256))
    margin = 2  # outside of the frame, so that its edge is covered
    side = (width + 2 * margin) * DENSITY, (height + 2 * margin) * DENSITY
    mask = Image.new('L', side, 255)
    inside = (left, top, width - right, height - bottom)
    x0, y0, x1, y1 = (round((x + margin) * DENSITY) for x in inside)
    mask.paste(0, (x0, y0, x1, y1))
    still = np.tile(np.eye(2, 3), (self._num_frames, 1, 1))
    texture = Image.new('RGB', side, (level, level, level))
    return Layer(texture, _to_texture(still, np.full(2, -margin)), mask)

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

    slow, fast = self._speeds
    if slow:
      speed = math.exp(rng.uniform(math.log(slow), math.log(fast)))
    else:
      speed = fast * rng.uniform(0.25, 1.0)
    moves = not (self._still and rng.uniform() < self._still)
    speed *= moves
    heading = rng.uniform(0, 2 * np.pi)
    x = swing(speed * np.cos(heading))
    y = swing(speed * np.sin(heading))
    angle = swing(moves * self._rotation * rng.uniform(-1, 1))
    scale = np.exp(swing(moves * self._zoom * rng.uniform(-1, 1)))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    origin = np.stack([x + place[0], y + place[1]], -1)
    return np.concatenate([linear, -linear @ origin[:, :, None]], -1)


def _photographs(folder: str | os.PathLike) -> tuple[pathlib.Path, ...]:
  """Finds the photographs in a folder and its subfolders, by name."""
  root = pathlib.Path(os.path.expanduser(folder))
  paths = video_io.find_pictures(root)
  if not paths:
    endings = ', '.join(sorted(video_io.IMAGE_SUFFIXES))
    raise FileNotFoundError(f'There are no photographs ({endings}) in {root}.')
  for path in paths:  # now, not when one is drawn in the midst of training
    video_io.check(path)
  return tuple(paths)


@functools.lru_cache(maxsize=128)
def _photo(path: pathlib.Path) -> Image.Image:
  photo = Image.fromarray(video_io.read(path, count=1)[0])
  if path.name == 'retina.jpg':  # black outside of a disc
    margin = 0.15
    width, height = photo.size
    photo = photo.crop(
      (
        round(margin * width),
        round(margin * height),
        round((1 - margin) * width),
        round((1 - margin) * height),
      )
    )
  shrink = _SHORT_SIDE / min(photo.size)
  if shrink < 1:
    width, height = photo.size
    size = round(width * shrink), round(height * shrink)
    photo = photo.resize(size, Image.Resampling.LANCZOS)
  return photo


def _cut(rng, photo: Image.Image, extent: np.ndarray) -> Image.Image:
  """Cuts a random part of a photograph as a texture.

  Args:
    rng: the random generator.
    photo: the photograph.
    extent: (width, height) of the texture in clip pixels.

  Returns:
    The part, `DENSITY` times `extent` in size, without detail finer than clip
    pixels.
  """
  # Photo pixels per clip pixel: at most what fits, and where there is room
  # neither enlarged nor shrunk so much that the motion leaves no trace.
  fits = min(np.array(photo.size) / extent)
  high = min(fits, 3.0)
  low = min(1.0, high)
  interval = math.exp(rng.uniform(math.log(low), math.log(high)))
  side = np.minimum(extent * interval, photo.size)
  corner = rng.uniform(0, 1, 2) * (photo.size - side)
  left, top = map(float, corner)
  right, bottom = map(float, np.minimum(corner + side, photo.size))
  box = left, top, right, bottom
  width, height = extent
  size = math.ceil(width), math.ceil(height)
  dense = round(width * DENSITY), round(height * DENSITY)
  if interval <= 1:
    return photo.resize(dense, Image.Resampling.BICUBIC, box=box)
  coarse = photo.resize(size, Image.Resampling.LANCZOS, box=box)
  return coarse.resize(dense, Image.Resampling.BICUBIC)


def _to_texture(maps: np.ndarray, corner: np.ndarray) -> np.ndarray:
  """Converts maps to a layer's coordinates to maps to its texture's pixels."""
  maps = maps.copy()
  maps[:, :, 2] -= corner
  return maps * DENSITY


def _shape(rng, size: tuple[int, int], edge: float) -> Image.Image:
  """The opacity of a smooth random shape that touches no border of `size`."""
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
