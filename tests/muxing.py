"""Films in any of FFmpeg's containers."""

import av


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
