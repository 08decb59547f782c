"""Films that the tests write."""

import av
import numpy as np

from vidpred_jax import video_io


def clip_of(num_frames, height=48, width=64):
  """Coloured quarters with a bar that moves down: every frame differs."""
  y, x = np.mgrid[:height, :width]
  colours = np.array(
    [[220, 30, 40], [30, 200, 60], [40, 50, 210], [240, 230, 20]], np.uint8
  )
  frame = colours[2 * (y >= height // 2) + (x >= width // 2)]
  clip = np.repeat(frame[None], num_frames, axis=0)
  for t in range(num_frames):
    clip[t, t % (height - 4) : t % (height - 4) + 4] = 128
  return clip


def write(path, clip, fps=25, times=None, **settings):
  with video_io.Writer(path, fps=fps, **settings) as writer:
    for t, frame in enumerate(clip):
      writer.write(frame, None if times is None else times[t])
  return path


def encode(path, clip, rotation=None, pixels='yuv444p', container=None):
  """Writes H.264 through PyAV alone; `rotation` is a (degrees, flip) pair."""
  with av.open(str(path), 'w', format=container) as output:
    stream = output.add_stream('libx264', rate=25, options={'crf': '5'})
    stream.codec_context.thread_count = 1  # or one run in 30 differs
    stream.height, stream.width = clip.shape[1:3]
    stream.pix_fmt = pixels
    if rotation is not None:
      stream.set_display_rotation(rotation[0], hflip=rotation[1])
    for frame in clip:
      output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
    output.mux(stream.encode())
  return path


def add_sound(path, seconds, codec='aac', rate=48_000):
  """A file with a black video and a tone."""
  with av.open(str(path), 'w') as output:
    video = output.add_stream('libx264', rate=25, options={'crf': '40'})
    video.width, video.height = 32, 32
    sound = output.add_stream(codec, rate=rate)
    for _ in range(round(25 * seconds)):
      black = np.zeros((32, 32, 3), np.uint8)
      output.mux(video.encode(av.VideoFrame.from_ndarray(black, 'rgb24')))
    output.mux(video.encode())
    time = np.arange(round(rate * seconds)) / rate
    tone = (np.sin(2 * np.pi * 440 * time) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(
      np.repeat(tone, 2)[None], format='s16', layout='stereo'
    )
    frame.sample_rate, frame.pts = rate, 0
    output.mux(sound.encode(frame))
    output.mux(sound.encode())
  return path


def sound_packets(path):
  """Packets of sound, with their times after the first frame."""
  with av.open(str(path)) as container:
    stream = container.streams.best('audio')
    video = container.streams.best('video')
    begin = video.start_time * video.time_base
    return [
      (float(p.pts * stream.time_base - begin), bytes(p))
      for p in container.demux(stream)
      if p.size
    ]


# Greatest mean error of a colour value; the first six halve the colours.
