"""Films in any of FFmpeg's containers."""

from fractions import Fraction

import av
import numpy as np

from vidpred_jax import video_io


class Pipe:
  """A file that a muxer cannot go back in."""

  def __init__(self, path):
    self.file = open(path, 'wb')
    self.write = self.file.write


def muxed(path, codec, frames, options=None, piped=False):
  """Writes RGB frames as FFmpeg does to a file, or to a pipe."""
  pipe = Pipe(path) if piped else None
  formats = {
    'm2ts': 'mpegts', 'ts': 'mpegts', 'mpg': 'mpeg', 'mkv': 'matroska',
    'wmv': 'asf', 'y4m': 'yuv4mpegpipe',
  }  # fmt: skip
  name = path.suffix[1:]
  pixels = {'mjpeg': 'yuvj420p', 'gif': 'rgb8'}.get(codec, 'yuv420p')
  with av.open(
    pipe or str(path),
    'w',
    format=formats.get(name, name),
    options=options or {},
  ) as output:
    stream = output.add_stream(codec, rate=25)
    stream.codec_context.thread_count = 1  # or one run in 30 differs
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = pixels
    for frame in frames:
      output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
    output.mux(stream.encode())
  if pipe is not None:
    pipe.file.close()
  return path


def clip_of(number, size=(64, 96)):
  """Frames that all differ: a bar moves over noise."""
  noise = np.random.default_rng(0).integers(0, 90, (*size, 3), np.uint8)
  clip = np.repeat(noise[None], number, axis=0)
  for t, frame in enumerate(clip):
    at = (3 * t) % (size[1] - 8)
    frame[:, at : at + 8] = 60 + (40 * t) % 180
  return clip


def encode(path, clip, codec='libx264', times=None, last=None, **settings):
  """Writes packets as they come; times in milliseconds."""
  options = settings.pop('options', {})
  with av.open(str(path), 'w', format=settings.pop('container', None)) as c:
    stream = c.add_stream(codec, rate=25, options=options)
    stream.height, stream.width = clip.shape[1:3]
    stream.pix_fmt = settings.pop('pixels', 'yuv420p')
    if times is not None:
      stream.codec_context.time_base = Fraction(1, 1000)
    packets = []
    for t, frame in enumerate(clip):
      picture = av.VideoFrame.from_ndarray(frame, 'rgb24')
      if times is not None:
        picture.pts, picture.time_base = times[t], Fraction(1, 1000)
      packets += stream.encode(picture)
    packets += stream.encode()
    for n, packet in enumerate(packets):
      if times is not None and last is not None:
        until = times[n + 1] if n + 1 < len(times) else times[n] + last
        packet.duration = until - times[n]
      c.mux(packet)
  return path


def times_of(path):
  return [float(time) for time, _ in video_io.frames(path)]
