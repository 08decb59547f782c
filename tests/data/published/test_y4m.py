import av
import numpy as np
import pytest

from tests.data.published.tiny import pictures, planes, write_y4m
from vidpred_jax import video_io
from vidpred_jax.data.published import y4m


@pytest.mark.parametrize('kind', ['420p10', '420jpeg'])
def test_as_ffmpeg_converts(tmp_path, kind):
  """Against FFmpeg's own reader and what it puts in between formats."""
  path = tmp_path / 'a.y4m'
  frames = [pictures(k) for k in range(5)]
  if kind == '420jpeg':
    frames = [[(p >> 2).astype(np.uint8) for p in f] for f in frames]
  write_y4m(path, frames, kind)
  got = y4m.read(path, range(1, 5, 3))
  assert got.shape == (2, 48, 64, 3) and got.dtype == np.uint8
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    graph = av.filter.Graph()
    chain = [
      graph.add_buffer(template=stream),
      graph.add('format', 'rgb24'),
      graph.add('buffersink'),
    ]
    graph.link_nodes(*chain).configure()
    wanted = []
    for frame in container.decode(stream):
      graph.push(frame)
      wanted.append(graph.pull().to_ndarray())
  np.testing.assert_array_equal(got, np.stack(wanted)[[1, 4]])
  # Near to the conversion used elsewhere, but not it.
  exact = video_io.read(path)[[1, 4]].astype(int)
  assert 0 < (exact - got).mean() < 2.5


def test_a_file_that_ends_early(tmp_path):
  path = tmp_path / 'a.y4m'
  write_y4m(path, [planes(300)] * 4)
  path.write_bytes(path.read_bytes()[:-1])
  assert y4m.probe(path).num_frames == 3
  assert y4m.read(path, range(3)).shape[0] == 3
  with pytest.raises(ValueError, match='3 frames; frame 3 was'):
    y4m.read(path, range(1, 4))


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', 'no y4m file'),
    (b'YUV4MPEG2 W8 H8', 'no y4m file'),
    (b'YUV4MPEG2 W8 Hx C420\n', 'no y4m file'),
    (b'YUV4MPEG2 W8 H8 C444p12\n', 'holds 444p12; expected one of 420'),
    (b'YUV4MPEG2 W8 H7 C420\n', '7x8; expected even'),
    (b'YUV4MPEG2 W2 H2 C420\nFRAMEX' + bytes(6), 'frame 0 does not begin'),
  ],
)
def test_other_files(tmp_path, content, message):
  path = tmp_path / 'a.y4m'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    y4m.read(path, range(1))
  assert str(path) in str(error.value)
