"""The companions of a film's pictures: sound, subtitles, chapters, title.

They are copied without transcoding. The container must be able to hold the best
sound track; other companions that it cannot hold are left out with a warning.
"""

import contextlib
import io
import itertools
import logging
import pathlib
from collections.abc import Iterator
from fractions import Fraction

import av

from vidpred_jax.video_io import decoding, timing
from vidpred_jax.video_io.opening import TAGS, open_video

_LOG = logging.getLogger(__name__)

_SUFFIXES = {
  'matroska': '.mkv',
  'mp4': '.mp4',
  'mov': '.mov',
  'webm': '.webm',
  'avi': '.avi',
}
_WITH_CHAPTERS = ('matroska', 'webm', 'mp4', 'mov')
# Packets have no times; pictures would move with sound that is before them.
_STARTS_AT_ONCE = ('avi',)
_NEAR = Fraction(1, 20)  # seconds that nobody hears
_TRIED = 32  # packets
_REPEATS = av.format.Flags.ts_nonstrict.value


class Companions:
  """Copies the companions of one film into another while it is written."""

  def __init__(
    self,
    output,
    target: pathlib.Path,
    path: pathlib.Path,
    start: Fraction,
    stack: contextlib.ExitStack,
  ):
    """Adds the streams to a container whose header is not yet written.

    Args:
      output: PyAV's container.
      target: its name, for messages.
      path: of the film they are copied from.
      start: the second of that film's video that is 0 in the output.
      stack: closes the film.

    Raises:
      ValueError: if the container cannot hold the sound, or would move it.
    """
    kind = output.format.name
    self._at_once = kind in _STARTS_AT_ONCE
    source, video = stack.enter_context(open_video(path, None))
    self._begin = decoding.first_stamp(path, None) + start
    self._from_start = not start
    self._output, self._path = output, path
    self._resets = source.format.name in decoding.RESETTING
    self._streams = {}
    dropped = self._add(source, target)
    if dropped:
      _LOG.warning('%s leaves out of %s: %s.', target, path, ', '.join(dropped))
    self._packets = self._timed(source, video) if self._streams else iter(())
    self._next = next(self._packets, None)
    if self._at_once and self._next is not None:
      time, _ = self._next
      if time > _NEAR:
        raise ValueError(
          f'{target}: the sound of {path} begins {float(time):.2f} s after the '
          f'video, and {kind} cannot hold such a start; write to .mkv, or '
          'leave the sound out (--noaudio).'
        )

  def _add(self, source, target: pathlib.Path) -> list[str]:
    """Adds streams, chapters, attachments and the title to the container.

    Returns:
      What it cannot hold, in words.
    """
    output, path, kind = self._output, self._path, self._output.format.name
    dropped = []
    known = [s for s in source.streams.audio if s.codec_context is not None]
    if len(known) < len(source.streams.audio):
      dropped.append('sound of a coding that is not known')
    best = source.streams.best('audio') if known else None
    best = best if best in known else (known or [None])[0]
    if best is not None and not _holds(kind, path, best):
      others = [x for k, x in _SUFFIXES.items() if _holds(k, path, best)]
      advice = f'write to {" or ".join(others)}, or ' if others else ''
      raise ValueError(
        f'{target}: {kind} cannot hold the sound of {path} '
        f'({best.codec_context.name}); {advice}convert the sound first (to AAC '
        'or Opus), or leave it out (--noaudio).'
      )
    for stream in (*known, *source.streams.subtitles):
      if stream is not best and not _holds(kind, path, stream):
        dropped.append(_described(stream))
        continue
      copy = output.add_stream_from_template(stream)
      for name in ('language', 'title'):
        if name in stream.metadata:
          copy.metadata[name] = stream.metadata[name]
      self._streams[stream.index] = copy
    if source.metadata.get('title'):
      output.metadata['title'] = source.metadata['title']
    chapters = source.chapters()
    if chapters and kind in _WITH_CHAPTERS:
      output.set_chapters([_moved(c, self._begin) for c in chapters])
    elif chapters:
      dropped.append(f'{len(chapters)} chapters')
    for file in source.streams.attachments:  # fonts of subtitles
      name = _readable(file.name)
      if kind == 'matroska':
        output.add_attachment(name, file.mimetype, file.data)
      else:
        dropped.append(f'the attachment {name}')
    return dropped

  def mux(self, until: Fraction | None) -> None:
    """Copies the packets before `until`; None: all packets."""
    while self._next is not None:
      time, packet = self._next
      if until is not None and time >= until:
        return
      self._output.mux(packet)
      self._next = next(self._packets, None)

  def _timed(self, source, video) -> Iterator[tuple[Fraction, av.Packet]]:
    """Yields (time in the output, packet); restarted clocks are continued."""
    inputs = {s.index: s for s in source.streams if s.index in self._streams}
    offsets, epochs, ends = [Fraction(0)], {}, {}
    delays, early = {}, {}
    repeats = bool(self._output.format.flags & _REPEATS)
    orders = {number: _Order(repeats) for number in inputs}
    for packet in source.demux([video, *inputs.values()]):
      number, unit = packet.stream.index, packet.stream.time_base
      if packet.pts is None or not packet.size:
        continue
      if packet.dts is None and number == video.index:
        continue  # frames that are not in the order of their stamps
      at = (packet.pts if packet.dts is None else packet.dts) * unit
      epoch = epochs.setdefault(number, 0)
      ahead = at - ends.get(number, at)
      if ahead < -1 or (self._resets and ahead > timing.JUMP):
        epoch = epochs[number] = epoch + 1
        follows = ends[number] + offsets[epoch - 1] - at
        if epoch == len(offsets):
          offsets.append(follows)
        elif number == video.index:
          offsets[epoch] = follows
      ends[number] = at + (packet.duration or 0) * unit
      if number == video.index:
        continue
      move = offsets[epoch] - self._begin
      time, lasts = packet.pts * unit + move, (packet.duration or 0) * unit
      # Before the first frame lies only the run-up of the decoder.
      end = time + lasts / 2 if self._at_once else time + lasts + _NEAR
      if end < 0 or (time < 0 and not self._from_start):
        early.setdefault(number, time)
        continue
      self._tell_early(packet.stream, early.pop(number, time), time)
      if self._at_once:
        late = delays.setdefault(number, max(-time, Fraction(0)))
        time, move = time + late, move + late
      shift = round(move / unit)
      packet.pts += shift
      packet.dts = packet.pts if packet.dts is None else packet.dts + shift
      if orders[number].put(packet):
        packet.stream = self._streams[number]
        yield time, packet
    for number, first in early.items():  # sound that ends before the video
      self._tell_early(inputs[number], first, Fraction(0))

  def _tell_early(self, stream, first: Fraction, time: Fraction) -> None:
    if self._from_start and stream.type == 'audio' and time - first > 2 * _NEAR:
      _LOG.warning(
        '%s: %.2f s of sound before its first frame are left out.',
        self._path, time - first,
      )  # fmt: skip


class _Order:
  """Brings the packets of a stream in the order that a container demands."""

  def __init__(self, repeats: bool):
    """
    Args:
      repeats: whether the container may hold the same time stamp twice.
    """
    self._least = 0 if repeats else 1  # ticks between packets
    self._stamp: int | None = None  # of the packet before, in its file
    self._written, self._end = 0, 0

  def put(self, packet) -> bool:
    """Moves a packet behind the one before; False if it is to be left out.

    Where parts were joined they may overlap a little. The packets of a block
    may all have its time, and those of a film in coarse ticks that of others.
    """
    is_sound, before = packet.stream.type == 'audio', self._stamp
    if before is not None:
      if packet.dts < before and is_sound:
        return False
      follows = packet.dts == before and is_sound and packet.duration > 1
      least = self._end if follows else self._written + self._least
      moved = max(least - packet.dts, 0)
      self._stamp = max(packet.dts, before)
      packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
    else:
      self._stamp = packet.dts
    self._written = packet.dts
    self._end = packet.dts + (packet.duration or 0)
    return True


def _holds(kind: str, path: pathlib.Path, stream) -> bool:
  """Tries whether a kind of container can hold a stream of a film."""
  file, times = io.BytesIO(), []
  with contextlib.suppress(ValueError, av.error.FFmpegError):
    with open_video(path, None) as (source, _):
      output = av.open(file, 'w', format=kind, **TAGS)
      with contextlib.closing(output):
        copy = output.add_stream_from_template(stream)
        output.start_encoding()
        if stream.type != 'audio':
          return True  # subtitles may be far
        packets = _growing(source.demux(source.streams[stream.index]))
        for packet in itertools.islice(packets, _TRIED):
          times.append(_interval(packet))
          packet.stream = copy
          output.mux(packet)
    return kind not in _STARTS_AT_ONCE or _same_times(file, times)
  return False


def _same_times(file: io.BytesIO, times: list[tuple]) -> bool:
  """Whether sound that was written at these times is read at these times."""
  file.seek(0)
  with av.open(file, 'r', **TAGS) as container:
    packets = container.demux(audio=0)
    found = [_interval(p) for p in packets if p.size and p.pts is not None]
  if not found or not times:
    return not times
  lengths = [x[-1][1] - x[0][0] for x in (times, found)]
  return abs(lengths[1] - lengths[0]) <= max(2 * _NEAR, lengths[0] / 4)


def _interval(packet) -> tuple[Fraction, Fraction]:
  """When a packet begins and ends, in seconds."""
  unit = packet.time_base
  return packet.pts * unit, (packet.pts + (packet.duration or 0)) * unit


def _growing(packets) -> Iterator[av.Packet]:
  """Yields the packets of one stream whose time stamps grow."""
  last = None
  for packet in packets:
    if packet.size and None not in (packet.pts, packet.dts):
      if last is None or packet.dts > last:
        last = packet.dts
        yield packet


def of(path: pathlib.Path) -> list[str]:
  """The companions of a film, in words."""
  with open_video(path, None) as (source, _):
    others = (*source.streams.audio, *source.streams.subtitles)
    found = [_described(x) for x in others if x.codec_context is not None]
    if source.chapters():
      found.append(f'{len(source.chapters())} chapters')
    names = [_readable(x.name) for x in source.streams.attachments]
    return found + [f'the attachment {name}' for name in names]


def _readable(name: str) -> str:
  """A name whose bytes may be no UTF-8."""
  return name.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')


def _described(stream) -> str:
  kind = {'audio': 'sound', 'subtitle': 'subtitles'}[stream.type]
  context, language = stream.codec_context, stream.metadata.get('language')
  coding = context.name if context is not None else 'of a coding not known'
  return f'{kind} ({", ".join(x for x in (coding, language) if x)})'


def _moved(chapter: dict, begin: Fraction) -> dict:
  shift = round(begin / chapter['time_base'])
  start, end = (max(chapter[k] - shift, 0) for k in ('start', 'end'))
  return chapter | {'start': start, 'end': end}
