"""Picture files and folders: which files are frames, and in which order."""

import contextlib
import functools
import importlib.util
import logging
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from PIL import (
  ExifTags,
  Image,
  ImageOps,
  UnidentifiedImageError,
  features,
)

from vidpred_jax.video_io import levels, opening, renders, showing, timing

_LOG = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
  '.mp4 .m4v .mp4v .mov .hdmov .qt .f4v .ismv .3gp .3g2 .mj2 .insv .mkv .mk3d '
  '.webm .avi .divx .gif .apng .y4m .mpg .mpeg .mpe .m1v .m2v .mp2v .mpv .mpv2 '
  '.m2p .mod .tod .vob .vro .evo .ts .mts .m2ts .m2t .tp .trp .wtv .wmv .asf '
  '.flv .swf .rm .rmvb .ogv .ogm .mxf .dv .dif .gxf .nut .ivf .obu .drc .amv '
  '.mjpg .mjpeg .264 .h264 .avc .265 .h265 .hevc'.split()
)
_HEIC = ('.heic', '.heif', '.hif')
IMAGE_SUFFIXES = frozenset(
  '.png .jpg .jpeg .jpe .jfif .bmp .dib .ppm .pgm .pbm .pnm .pfm .tif .tiff '
  '.webp .jp2 .j2k .jpx .tga .avif .qoi .pcx .sgi .dds .psd '
  '.exr .hdr .dpx'.split()
)
# Those of renderers and scanners, which FFmpeg reads.
_BY_FFMPEG = ('.exr', '.hdr', '.dpx')
# Where several pictures in one file follow each other in time. (A JPEG of a
# phone may hold a second one, of the brightness of the first.)
_SEQUENCES = ('PNG', 'WEBP', 'AVIF', 'TIFF', 'HEIF')


# Beside what begins with a dot: of Windows, macOS and network storage.
_OF_SYSTEMS = frozenset(
  'thumbs.db desktop.ini $recycle.bin __macosx @eadir #recycle'.split()
) | {'system volume information', 'lost+found'}
# Pixels of a picture, of any and for each of its bytes.
_MOST_OF_ANY, _MOST_PACKED = 40_000_000, 50
_PIECE = 1 << 20  # bytes of a file to hold at once


class Picture(NamedTuple):
  """One picture: a file, and its place in it unless it is the only one."""

  path: pathlib.Path
  page: int | None = None


class Pictures(NamedTuple):
  """The frames of a folder or file.

  Attributes:
    pictures: in their order.
    times: seconds after the first one; None if they have none of their own.
    last: for how many seconds the last one is shown; None likewise.
  """

  pictures: list[Picture]
  times: list[Fraction] | None = None
  last: Fraction | None = None


def find_videos(folder) -> list[pathlib.Path]:
  """Video files and folders of pictures anywhere below `folder`, sorted.

  A single picture beside films is given by itself, and so are all pictures of a
  folder whose first holds several (animations, stacks). `logging` warns of what
  is neither by its name, of links to nothing and of folders that cannot be
  read.
  """
  videos = []
  for root, paths in _walked(folder, 'films or pictures', VIDEO_SUFFIXES):
    films = [p for p in paths if p.suffix.lower() in VIDEO_SUFFIXES]
    videos += films
    pages = [p for p in paths if _is_picture(p)]
    # A cover, or films of several pictures.
    if pages and (len(pages) == 1 if films else _is_sequence(pages[0])):
      videos += pages
    elif pages:
      videos.append(root)
  return sorted(videos)


def find_pictures(folder) -> list[pathlib.Path]:
  """Picture files anywhere below `folder`, sorted; warns as `find_videos`."""
  return sorted(p for _, paths in _walked(folder, 'pictures') for p in paths)


def _walked(
  folder, kind: str, endings: Iterable[str] = ()
) -> Iterator[tuple[pathlib.Path, list[pathlib.Path]]]:
  """Yields folders, and the pictures and files of other endings in each."""
  known, visited, others = {*endings, *IMAGE_SUFFIXES, *_HEIC}, set(), []
  for root, folders, names in os.walk(folder, onerror=_warn, followlinks=True):
    real = os.path.realpath(root)
    if real in visited:  # a link leads back
      folders.clear()
      continue
    visited.add(real)
    folders[:] = sorted(n for n in folders if not is_of_a_system(n))
    paths, left = [], []
    for path in (pathlib.Path(root, n) for n in sorted(names)):
      is_known = path.suffix.lower() in known and _is_file(path)
      (paths if is_known else left).append(path)
    others += [p.name for p in left if not is_of_a_system(p.name)]
    yield pathlib.Path(root), paths
  _tell_passed(folder, kind, others)


def _tell_passed(folder, what: str, names: list[str]) -> None:
  if names:
    more = f' and {len(names) - 8} more' if len(names) > 8 else ''
    _LOG.warning(
      'Passed over in %s, no %s: %s%s', folder, what, ', '.join(names[:8]), more
    )


def _warn(error: OSError) -> None:
  _LOG.warning('Left out: %s', error)


def is_of_a_system(name: str) -> bool:
  """Whether nobody has put a file or folder of this name there."""
  return name.startswith('.') or name.lower() in _OF_SYSTEMS


def _is_file(path: pathlib.Path) -> bool:
  """Whether a path is a file: no folder, broken link or hidden file."""
  return not is_of_a_system(path.name) and path.is_file()


def _is_picture(path: pathlib.Path) -> bool:
  return path.suffix.lower() in (*IMAGE_SUFFIXES, *_HEIC)


def _is_sequence(path: pathlib.Path) -> bool:
  """Whether a file holds several pictures of one size; False if damaged."""
  with contextlib.suppress(ValueError, OSError), _reading(path):
    with _open(path) as image:
      return _number(image) > 1
  return False


def films_beside(folder: pathlib.Path) -> str:
  """The names of some films in a folder, in words; '' if there are none."""
  names = sorted(
    p.name
    for p in folder.iterdir()
    if p.suffix.lower() in VIDEO_SUFFIXES and _is_file(p)
  )
  return ', '.join(names[:3]) + ', ...' * (len(names) > 3)


def natural_key(name: str) -> list:
  """Sort key that puts `frame2` before `frame10`, `b` and `B` after `a`."""
  parts = re.split(r'([0-9]+)', name)
  key = [(int(p), '') if n % 2 else (0, p.lower()) for n, p in enumerate(parts)]
  return [*key, (0, name)]


def in_order(names: Iterable[str]) -> list[str]:
  """Sorts names in natural order, with signs and fractions as numbers.

  `f-2, f-1, f0` are numbers with a sign if one of the set has none, and `0.033,
  0.5` are fractions if of different lengths with a zero in front; otherwise the
  hyphen and the dot divide words.
  """
  names = list(names)
  stems = [os.path.splitext(n)[0] for n in names]
  fractions = [m[1] for s in stems for m in re.finditer(r'\d\.(\d+)', s)]
  is_fraction = len({len(f) for f in fractions}) > 1 and any(
    f[0] == '0' for f in fractions
  )
  signed = [re.fullmatch(r'(.*?)(-?)([0-9.]+)', s) for s in stems]
  positive = {m[1] for m in signed if m and not m[2]}
  negative = {m[1] for m in signed if m and m[2]}
  has_sign = bool(positive & negative)

  def key(name):
    stem = os.path.splitext(name)[0]
    if is_fraction:
      stem = re.sub(
        r'(\d)\.(\d+)', lambda m: f'{m[1]}.{m[2].ljust(12, "0")}', stem
      )
    match = re.fullmatch(r'(.*?)-([0-9.]+)', stem)
    if has_sign and match and match[1] in positive:
      inner = natural_key(match[2])
      return natural_key(match[1])[:-1] + [(-1 - inner[1][0], '')], name
    return natural_key(stem), name

  return sorted(names, key=key)


def find(path: pathlib.Path) -> Pictures | None:
  """The pictures of a folder, or of a picture file; None for another file."""
  if path.is_dir():
    pages = {
      p.name: p for p in path.iterdir() if _is_picture(p) and _is_file(p)
    }
    films = films_beside(path) if len(pages) < 2 else ''
    if films:
      raise ValueError(
        f'The folder {path} holds films ({films}) and no pictures of one; '
        'expected one of its films, or a folder of pictures.'
      )
    if not pages:
      raise ValueError(
        f'The folder {path} holds no pictures '
        f'({", ".join(sorted(IMAGE_SUFFIXES))}).'
      )
    _tell_others(path)
    return Pictures([Picture(pages[n]) for n in in_order(pages)])
  if _is_picture(path) and path.is_file():
    return _pages(path)
  return None


@functools.cache
def _tell_others(folder: pathlib.Path) -> None:
  """Warns once of files that look like others, but are no pictures."""
  files = [p for p in folder.iterdir() if _is_file(p) and not _is_picture(p)]
  notes = ('.txt', '.json', '.csv', '.xml', '.md', '.db', '.ini')
  others = sorted(p.name for p in files if p.suffix.lower() not in notes)
  _tell_passed(folder, 'pictures', others)


def _pages(path: pathlib.Path) -> Pictures:
  """The pictures of one file."""
  with _reading(path), _open(path) as image:
    number = getattr(image, 'n_frames', 1)
    if number == 1 or image.format not in _SEQUENCES:
      return Pictures([Picture(path)])
    first = 1 if getattr(image, 'default_image', False) else 0
    pages, lasting, size = [], [], None
    for page in range(first, number):
      image.seek(page)
      if image.format != 'TIFF':
        image.load()  # only now its duration is known
      size = size or image.size
      if image.size == size:
        pages.append(Picture(path, page))
        lasting.append(image.info.get('duration') or 0)
  if len(pages) < number - first:
    _LOG.warning(
      '%s holds %d pictures; %d of another size than the first are left out.',
      path, number, number - first - len(pages),
    )  # fmt: skip
  if not any(lasting):
    return Pictures(pages)
  steps = [Fraction(ms / 1000).limit_denominator(100_000) for ms in lasting]
  steps = [timing.lasting(step) for step in steps]
  times = [sum(steps[:n], Fraction(0)) for n in range(len(steps))]
  return Pictures(pages, times, steps[-1])


def read(pictures: Iterable[Picture]) -> Iterator[np.ndarray]:
  """Yields pictures as a viewer shows them, uint8 [H, W, 3].

  Raises:
    ValueError: if one is damaged, holds numbers that are no colours, or is one
      of a folder and holds several pictures.
  """
  image = path = None
  try:
    for picture in pictures:
      with _reading(picture.path):
        if image is None or picture.path != path:
          if image is not None:
            image.close()
          image, path = _open(picture.path), picture.path
        number = 1 if picture.page is not None else _number(image)
        if picture.page is not None and picture.page != image.tell():
          image.seek(picture.page)
        is_deep, shown = _is_deep(image), _rgb(image)
        # No number needs more than 12 of 16 bits, and some more than 8.
        if is_deep and 0 < shown.max(initial=0) <= 16:
          _tell_dark(path.parent)
      if number > 1:
        raise ValueError(
          f'{path} holds {number} pictures; expected one in each file of a '
          'folder. Give this file by itself, or save its pictures one by one.'
        )
      yield shown
  finally:
    if image is not None:
      image.close()


def _is_deep(image: Image.Image) -> bool:
  """Whether an image that is not loaded yet has 16 bits for each colour."""
  return image.mode.startswith('I') or any(
    ';16' in str(tile[3]) for tile in getattr(image, 'tile', ())
  )


@functools.cache
def _tell_dark(folder: pathlib.Path) -> None:
  """Warns once of a folder."""
  _LOG.warning(
    'A picture of 16 bits in %s holds no number above 4095 and is dark, others '
    'may be, too. If 12 bits or fewer are meant, multiply them; of grey TIFF '
    'the tag MaxSampleValue may say so.',
    folder,
  )


def _number(image: Image.Image) -> int:
  """How many pictures an image is; 1 if the second is of another size."""
  number = getattr(image, 'n_frames', 1)
  if number == 1 or image.format not in _SEQUENCES:
    return 1
  size = image.size
  image.seek(1)
  same = image.size == size
  image.seek(0)
  return number if same else 1


def check(path: pathlib.Path) -> None:
  """Raises ValueError if the head of a picture file is damaged or none.

  Nothing is decoded, so it is quick; what lies behind may be damaged still.

  Args:
    path: the file.
  """
  with _reading(path):
    _open(path).close()


def _open(path: pathlib.Path) -> Image.Image:
  """Opens a picture whose header and size go together.

  A picture of one colour may be packed a thousand times; no camera or program
  that works makes one of many million pixels.
  """
  image = _opened(path)
  width, height = image.size
  size = path.stat().st_size
  if width * height > _most_pixels(size):
    image.close()
    raise ValueError(
      f'its header says {width}x{height} pixels, of which {size} bytes are here'
    )
  if image.format == 'PNG':
    try:
      _check_png(path)
    except ValueError:
      image.close()
      raise
  return image


def _most_pixels(size: int) -> int:
  """How many pixels a picture file of so many bytes may have."""
  return max(_MOST_OF_ANY, _MOST_PACKED * size)


def _check_png(path: pathlib.Path) -> None:
  """Compares the sums of the parts that a PNG picture is made of.

  Pillow does not look at those of the pixels; what is damaged would be black
  or coloured.
  """
  with open(path, 'rb') as file:
    file.seek(8)
    while len(head := file.read(8)) == 8:
      length, kind = int.from_bytes(head[:4], 'big'), head[4:]
      if kind in (b'IDAT', b'fdAT', b'PLTE'):
        found = zlib.crc32(kind)
        for begin in range(0, length, _PIECE):
          found = zlib.crc32(file.read(min(_PIECE, length - begin)), found)
        if file.read(4) != found.to_bytes(4, 'big'):
          raise ValueError('the sum of a part differs')
      elif kind == b'IEND':
        return
      else:
        file.seek(length + 4, os.SEEK_CUR)


def _opened(path: pathlib.Path) -> Image.Image:
  suffix = path.suffix.lower()
  if suffix in _HEIC:
    _heif()
  if suffix == '.avif' and not features.check('avif'):
    raise ValueError('this Pillow reads no AVIF; install a newer one')
  if suffix in _BY_FFMPEG or (suffix == '.pfm' and _begins(path, b'PF')):
    return _by_ffmpeg(path)  # Pillow reads grey ones of PFM
  image = Image.open(path)
  if image.format == 'TIFF':
    # 2026-11: Pillow 13 maps files of this name to memory, and those that are
    # turned by a tag with rows of the wrong length.
    image.filename = ''
  return image


def _begins(path: pathlib.Path, head: bytes) -> bool:
  with open(path, 'rb') as file:
    return file.read(len(head)) == head


def _by_ffmpeg(path: pathlib.Path) -> Image.Image:
  most = _most_pixels(path.stat().st_size)
  if _begins(path, b'v/1\x01'):
    renders.check_exr(path.read_bytes())
  elif _begins(path, b'#?'):
    with open(path, 'rb') as file:
      renders.check_radiance(file.read(_PIECE))
  with opening.open_video(path, None, most) as (container, video):
    frame = next(container.decode(video))
    if path.suffix.lower() == '.hdr':
      frame.color_trc = levels.LINEAR  # always; FFmpeg does not say it
    return Image.fromarray(showing.image(frame, showing.view(frame)))


@functools.cache
def _heif() -> None:
  """Registers HEIC with Pillow; FFmpeg would decode only one tile."""
  if importlib.util.find_spec('pillow_heif') is None:
    raise ValueError(
      'HEIC needs the package pillow-heif: pip install pillow-heif; or save '
      'it as PNG'
    )
  import pillow_heif

  pillow_heif.register_heif_opener()


def _rgb(image: Image.Image) -> np.ndarray:
  turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
  shown = ImageOps.exif_transpose(image) if turned else image
  if shown.mode == 'F' or shown.mode.startswith('I'):
    grey = levels.grey(np.asarray(shown), image)
    return np.repeat(grey[:, :, None], 3, axis=2)
  if 2 in np.ravel(getattr(image, 'tag_v2', {}).get(339, 1)):
    raise ValueError('its numbers have a sign; expected 0 to 255')
  _check_white(image)
  mode = 'RGBA' if shown.has_transparency_data else 'RGB'
  made = np.empty((shown.height, shown.width, 3), np.uint8)
  for rows in levels.bands(shown.height, shown.width):
    part = shown.crop((0, rows.start, shown.width, rows.stop))
    band = np.asarray(part if part.mode == mode else part.convert(mode))
    made[rows] = levels.over_black(band) if mode == 'RGBA' else band
  return made


def _check_white(image: Image.Image) -> None:
  """Raises ValueError if white of RGB TIFF is below what its bits can say.

  Pillow gives 8 of 16 bits, of which too few would be left.
  """
  tags = getattr(image, 'tag_v2', {})
  full = (1 << int(np.ravel(tags.get(258, 8))[0])) - 1
  white = int(np.max(tags.get(281, full)))
  if full > 255 and 255 < white < full:
    raise ValueError(
      f'its MaxSampleValue is {white}; expected {full} of colours. Bring its '
      'numbers to that range first'
    )


@contextlib.contextmanager
def _reading(path: pathlib.Path):
  """A context whose errors about contents name the file."""
  try:
    yield
  except (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
  ) as e:
    if isinstance(e, OSError) and e.errno is not None:
      raise
    why = str(e)
    if isinstance(e, UnidentifiedImageError):
      why = 'no kind that Pillow knows'
      if path.suffix.lower() in ('.tif', '.tiff'):
        why += '; TIFF may have 8 or 16 bits, or grey numbers of 32 bits'
    raise ValueError(
      f'{path} is not a picture that can be read, or it is damaged ({why}).'
    ) from e
