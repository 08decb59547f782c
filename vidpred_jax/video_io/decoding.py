"""Decoded frames with their times; decoding errors are skipped.

This is the behaviour of a player. A packet that cannot be decoded is skipped, a
packet without a picture adds no frame, and a frame is shown at the time stamp
of its packet. Not all files have such stamps:

  - those of AVI, and of some streams in MXF and ASF, are in the order of
    decoding: a frame is shown at the stamp of the packet that completes it;
  - raw streams, such as H.264 without a container, have none: their frames are
    shown at the rate in their header.
"""

import collections
import contextlib
import itertools
import logging
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av

from vidpred_jax.video_io import endings, matroska, timing
from vidpred_jax.video_io.opening import open_video

_LOG = logging.getLogger(__name__)

_LOOKED_AT = 40  # packets in which stamps are compared
_LAST, _HIDDEN = 64, 16  # packets that may wait for each other; bytes of a mark
_TALLEST = 2800  # rows of MPEG-2 whose slices have numbers of their own
# Their clocks may be set anew.
RESETTING = frozenset({'mpegts', 'mpeg', 'mpegtsraw', 'vob'})
# Packets of these may hold a frame that is not shown.
_UNSHOWN = ('vp8', 'vp9', 'av1', 'theora')
# What libavcodec's own decoders do not see.
_ALPHA = {'vp8': 'libvpx', 'vp9': 'libvpx-vp9'}


class Shot(NamedTuple):
  """A decoded frame.

  Attributes:
    frame: PyAV's.
    stamp: its time stamp in the file, if it has one of its own; by it the frame
      is found again after a seek.
  """

  frame: Any
  stamp: int | None


def decoded(
  path, stream: int | None, fps: Fraction | None = None
) -> Iterator[tuple[Fraction, Shot]]:
  """Yields (seconds after the first, frame) from the beginning.

  Args:
    path: a video file.
    stream: which of its video streams.
    fps: of a file without times.

  Raises:
    ValueError: at the end, if it is truncated or holds no frame; if frames
      differ in size or more packets are damaged than not.
  """
  with open_video(path, stream) as (container, video):
    unit, usual = video.time_base, 1 / (fps or timing.label(video))
    resets = container.format.name in RESETTING
    is_gif = container.format.name == 'gif'
  stamped = ((stamp, shot) for shot, stamp in _stamped(path, stream))
  if fps is not None:
    stamped = _unstamped(path, stamped, fps)
  timed = timing.mended(stamped, unit, usual, resets)
  yield from timing.as_browsers(timed) if is_gif else timed


def _unstamped(path, stamped, fps):
  """Raises ValueError for a rate if the file has times."""
  for stamp, shot in stamped:
    _check_unstamped(path, stamp, fps)
    yield stamp, shot


def _check_unstamped(path, stamp: int | None, fps: Fraction | None) -> None:
  if fps is not None and stamp is not None:
    raise ValueError(
      f'{path} says itself when its frames are shown; got {fps} frames per '
      'second for it.'
    )


def _stamped(path, stream) -> Generator[tuple[Shot, int | None]]:
  """Yields (frame, time stamp or place), threaded until a packet is bad.

  With several threads an error takes frames beside it along, and among the last
  frames it is not even told. So from the first one on a single thread decodes,
  once more from the beginning.
  """
  count = 0
  for threads in ('AUTO', 'NONE'):
    problems, spoilt = [], []
    frames = _pass(path, stream, threads, problems)
    for n, item in enumerate(frames):
      if item[0].frame.is_corrupt:
        spoilt.append(n)
      if n >= count:
        yield item
        count += 1
      if problems and threads == 'AUTO':
        break
    frames.close()
    if spoilt and not (problems and threads == 'AUTO'):
      _LOG.warning(
        '%s: damaged frames: %d, the first is number %d.',
        path, len(spoilt), spoilt[0],
      )  # fmt: skip
    if not problems:
      return
  _LOG.warning(
    '%s: %d packets are damaged and were passed over.', path, len(problems)
  )


def _pass(path, stream, threads, problems):
  first, bad, good = None, 0, 0
  clock, ends = _clock(path, stream), _Ends()
  with open_video(path, stream) as (container, video):
    video.thread_type = threads
    decode, coding = _decoder(video), video.codec_context.name
    # A recording may begin within a picture.
    begun = container.format.name not in RESETTING and not timing.is_raw(video)
    for packet in packets(container, video, problems):
      if coding in ('mpeg1video', 'mpeg2video') and packet.size:
        # The decoder passes such a packet over in silence.
        tall = video.height > _TALLEST
        lost, has_head = _headless(bytes(packet), coding, tall)
        if lost and begun:
          problems += lost * ['slices without the head of their picture']
          bad += lost
          if threads == 'AUTO':
            return
        begun |= has_head
      try:
        frames = ends.of(packet, decode(packet))
      except av.error.FFmpegError as error:
        problems.append(str(error))
        bad += 1
        if threads == 'AUTO':
          return
        continue
      for frame in frames:
        if coding == 'hevc' and frame.is_corrupt and not good:
          continue  # a recording that begins between key frames
        shape = frame.height, frame.width
        first = first or shape
        if shape != first:
          raise ValueError(
            f'{path}: frame {good} is {shape[0]}x{shape[1]}, but the first '
            f'frame is {first[0]}x{first[1]}; all frames must have one size.'
          )
        good += 1
        stamp = frame.pts if clock == 'shown' else None
        place = frame.dts if stamp is None and clock != 'none' else stamp
        yield Shot(frame, stamp), place
    if threads == 'AUTO' and coding not in _UNSHOWN and ends.lost():
      problems.append('the last packets')
      return
    _check_end(path, container, video)
    if 'matroska' in container.format.name.split(','):
      _tell_lost(path, stream)
    if not good:
      raise ValueError(f'{path} holds no frame that can be decoded.')
    if bad > good:
      raise ValueError(
        f'{path} is damaged: of {bad + good} packets {bad} cannot be decoded.'
      )


class _Ends:
  """The last packets and frames, to see whether each packet gave a frame."""

  def __init__(self):
    self._packets = collections.deque(maxlen=_LAST)
    self._frames = collections.deque(maxlen=4 * _LAST)

  def of(self, packet, frames: list) -> list:
    """Notes a packet and the frames that came of it; returns these."""
    if packet.size > _HIDDEN and not packet.is_discard:
      self._packets.append(packet.dts if packet.pts is None else packet.pts)
    for frame in frames:
      self._frames += [frame.pts, frame.dts]
    return frames

  def lost(self) -> bool:
    """Whether a packet gave none; those without a stamp are not counted."""
    return not {*self._packets} <= {*self._frames, None}


def _headless(data: bytes, coding: str, tall: bool) -> tuple[int, bool]:
  """Counts pictures of MPEG-1 or MPEG-2 in a packet that have lost their head.

  Their slices stand by themselves or, since a head begins a packet, behind
  those of the picture before, from the top row on again. Rows of a tall picture
  have their numbers again and again.

  Returns:
    The number, and whether some picture has a head.
  """
  lost, row, has_head, known = 0, 0, False, False
  for start in re.finditer(rb'\x00\x00\x01(.)', data, re.DOTALL):
    kind, place = start[1][0], start.end() + 1
    # Without a type of MPEG-1 the decoder takes no slice of it.
    if kind == 0 and (
      coding == 'mpeg2video'
      or data[place : place + 1]
      and data[place] >> 3 & 7 in (1, 2, 3)
    ):
      row, known, has_head = 0, True, True
    elif 1 <= kind <= 0xAF:
      lost += (kind < row and not tall) or not known
      row, known = kind, True
  return lost, has_head


def _clock(path, stream) -> str:
  """What the time stamps of a file are.

  Returns:
    'shown': when frames are shown; 'decoded': when packets are decoded; 'none'.
  """
  with open_video(path, stream) as (container, video):
    if timing.is_raw(video):
      return 'none'
    if container.format.name == 'avi':
      return 'decoded'
    if not video.codec_context.has_b_frames:
      return 'shown'
    some = itertools.islice(packets(container, video, []), _LOOKED_AT)
    some = [packet for packet in some if packet.size]
    stamps = [packet.pts for packet in some]
    if None in stamps or not _grow(stamps):
      return 'shown'
    # Either no frame waits for another, or the stamps are not the frames' own.
    shown = []
    decode = _decoder(video)
    for packet in some:
      with contextlib.suppress(av.error.FFmpegError):
        shown += [frame.pts for frame in decode(packet)]
  return 'shown' if _grow(s for s in shown if s is not None) else 'decoded'


def _grow(stamps: Iterable[int]) -> bool:
  return all(a < b for a, b in itertools.pairwise(stamps))


def _check_end(path, container, video) -> None:
  lost, joined = endings.find(path, container, video)
  if joined is not None:
    _LOG.warning(
      '%s: files were joined in it; only the first is read whole, the next '
      'begins at byte %d.', path, joined,
    )  # fmt: skip
  if lost is None:
    return
  if container.format.name in endings.BROADCAST:
    _LOG.warning('%s ends within a packet: %s.', path, lost)
    return
  raise ValueError(f'{path} is truncated: {lost}.')


def _tell_lost(path, stream) -> None:
  """Warns of frames of a Matroska file that FFmpeg passes over in silence."""
  with endings.contents(path) as data:
    places = matroska.breaks(data)
    if not places:
      return
    size, goes_on = len(data), matroska.resumes(data, places[-1])
  with open_video(path, stream) as (container, video):
    unit, end = video.time_base, None
    step = max(1, round(1 / timing.label(video) / unit))
    if container.duration is not None:
      end = int(Fraction(container.duration, 10**6) / unit)
    found = [
      (packet.pos, packet.pts)
      for packet in packets(container, video, [])
      if packet.size and None not in (packet.pos, packet.pts)
    ]
  if not found:
    return  # an error follows
  number, stamp = matroska.lost(places, found, end, step)
  if end is None and goes_on and max(found)[0] < places[-1]:
    # Nothing else tells how many frames the rest of the file held.
    stamp = max(stamp for _, stamp in found) if number == 0 else stamp
    rest = round(len(found) * (size - places[-1]) / places[-1])
    number = None if number is None else number + rest
  if number != 0:
    _LOG.warning(
      '%s is damaged: %s are lost, the first after %.2f s.', path,
      'frames' if number is None else f'about {number} frames', stamp * unit,
    )  # fmt: skip


def decoded_from(
  path, stream: int | None, stamp: int | None, back: float | None
) -> Iterator[Shot]:
  """Yields frames from a key frame `back` seconds before a time stamp on.

  Args:
    path: a video file.
    stream: which of its video streams.
    stamp: the time stamp in the file.
    back: None to begin at the beginning.
  """
  with open_video(path, stream) as (container, video):
    video.thread_type = 'NONE'  # faster for short clips
    if back is not None and stamp is not None:
      offset = stamp - int(Fraction(back) / video.time_base)
      # Some containers cannot, or not be read from there. Then nothing is
      # found, or too little; who looks for a frame reads from the beginning.
      with contextlib.suppress(av.error.FFmpegError):
        container.seek(offset, stream=video, backward=True)
        yield from shots(container, video)
    else:
      yield from shots(container, video)


def packets(container, video, problems: list[str]):
  """Yields the packets of a stream; damaged data between them are skipped.

  So are empty ones, with which Theora says that the picture stays. The very
  last packet, without a time, lets the decoder end.
  """
  for _ in range(2):  # the second time what the decoder still holds
    try:
      for packet in container.demux(video):
        if packet.size or packet.dts is None:
          yield packet
      return
    except av.error.InvalidDataError as error:
      problems.append(str(error))


def _decoder(video):
  """The decoder of a stream, which keeps transparency."""
  name = _ALPHA.get(video.codec_context.name)
  tags = {key.lower(): value for key, value in video.metadata.items()}
  if name is not None and tags.get('alpha_mode') == '1':
    with contextlib.suppress(ValueError, av.error.FFmpegError):
      context = av.CodecContext.create(name, 'r')
      return lambda packet: context.decode(packet if packet.size else None)
  return lambda packet: packet.decode()


def mark(frame) -> int:
  """A checksum of some rows of the first plane, to distinguish frames.

  With the palette, which some files have once, at their beginning.
  """
  plane = frame.planes[0]
  data, step = memoryview(plane), plane.line_size
  width, rows = min(abs(step), frame.width), frame.height
  value = 0
  if frame.format.name == 'pal8':
    value = zlib.crc32(memoryview(frame.planes[1]))
  for row in range(0, rows, max(1, rows // 16)):
    begin = row * abs(step)
    value = zlib.crc32(data[begin : begin + width], value)
  return value


def shots(container, video) -> Iterator[Shot]:
  """Yields the frames of an open stream from its position; skips errors."""
  decode = _decoder(video)
  for packet in packets(container, video, []):
    with contextlib.suppress(av.error.FFmpegError):
      for frame in decode(packet):
        yield Shot(frame, frame.pts)


def last(path, count: int, stream: int | None) -> list[Shot]:
  """The last frames of a file, decoded from two positions and compared."""
  seeks = _clock(path, stream) == 'shown'
  with open_video(path, stream) as (container, video):
    duration, begin = video.duration, video.start_time or 0
    if duration is None and container.duration is not None:
      duration = int(Fraction(container.duration, 10**6) / video.time_base)
    unit = video.time_base
  before, landed = None, None
  back = 2 + count / 10
  while seeks and duration and back < duration * unit:
    first, kept = None, collections.deque(maxlen=count)
    for shot in decoded_from(path, stream, begin + duration, back):
      first = shot.stamp if first is None else first
      kept.append(shot)
    marks = [(s.stamp, mark(s.frame)) for s in kept]
    if first is not None and len(kept) == count and first != landed:
      if marks == before:
        with open_video(path, stream) as (container, video):
          _check_end(path, container, video)
        return list(kept)
      before, landed = marks, first
    back *= 2
  kept = collections.deque(maxlen=count)
  kept.extend(shot for _, shot in decoded(path, stream))
  return list(kept)


def packet_times(
  path, stream: int | None, fps: Fraction | None = None
) -> tuple[list[Fraction], Fraction | None]:
  """The times of frames according to packets, and the last frame's duration.

  Nothing is decoded, unless some packets have no time stamp; a packet that
  gives no frame is taken for one.
  """
  clock = _clock(path, stream)
  with open_video(path, stream) as (container, video):
    unit, usual = video.time_base, 1 / (fps or timing.label(video))
    resets = container.format.name in RESETTING
    is_gif = container.format.name == 'gif'
    # The order shown, parts with a clock of their own one after the other.
    parts, lasting, decoded_at, reordered = [[]], {}, None, False
    joined = endings.find(path, container, video).joined
    for pts, dts, duration in _from_key_frame(container, video, joined):
      stamp = {'shown': pts, 'decoded': dts}.get(clock)
      _check_unstamped(path, stamp, fps)
      if dts is not None and decoded_at is not None:
        ahead = (dts - decoded_at) * unit
        if ahead < -1 or (resets and ahead > timing.JUMP):
          parts.append([])
      decoded_at = dts if dts is not None else decoded_at
      reordered |= clock == 'shown' and dts not in (None, stamp)
      parts[-1].append(stamp)
      lasting[stamp] = duration
    end = (video.start_time or 0) + (video.duration or 0)
    # Here a packet's duration is that until the next one in decoding order.
    by_end = reordered and 'mov' in container.format.name.split(',')
  some = [s is None for part in parts for s in part]
  if any(some) and not all(some):
    return [time for time, _ in decoded(path, stream, fps)], None
  stamps, longest = [], None
  for part in parts:
    known = sorted(s for s in part if s is not None)
    stamps += known or part
    longest = lasting[stamps[-1]] if stamps else None
  if by_end and len(stamps) > 1 and None not in stamps:
    steps = [b - a for a, b in zip(stamps, stamps[1:]) if b > a]
    longest = end - stamps[-1] if end > stamps[-1] else min(steps, default=0)
  timed = timing.mended(((s, None) for s in stamps), unit, usual, resets)
  last = (longest or 0) * unit or None
  if clock == 'none':
    last = None  # FFmpeg's are those of 25 frames per second
  if is_gif:
    timed, last = timing.as_browsers(timed), last and timing.lasting(last)
  return [t for t, _ in timed], last


def _from_key_frame(
  container, video, end: int | None
) -> Iterator[tuple[int | None, int | None, int | None]]:
  """Yields (pts, dts, duration) of packets that decode; all without a key.

  Those from the byte `end` on are of another file.
  """
  skipped, first, begun = [], None, False
  for packet in packets(container, video, []):
    is_other = None not in (end, packet.pos) and packet.pos >= end
    if not packet.size or packet.is_discard or is_other:
      continue
    facts = packet.pts, packet.dts, packet.duration
    if not begun and not packet.is_keyframe:
      skipped.append(facts)
      continue
    if not begun and skipped:
      first = packet.pts  # what is shown before it refers to what is missing
    begun = True
    if None in (first, packet.pts) or packet.pts >= first:
      yield facts
  if not begun:
    yield from skipped


def first_stamp(path, stream: int | None) -> Fraction:
  """The time stamp of the first decoded frame, in seconds.

  Raises:
    ValueError: if there is no frame.
  """
  with open_video(path, stream) as (_, video):
    unit = video.time_base
  frames = _stamped(path, stream)
  with contextlib.closing(frames):
    for _, stamp in frames:
      return (stamp or 0) * unit
  raise ValueError(f'{path} holds no frame that can be decoded.')
