"""Damaged packets of films cost their own frame, and it is told."""

import re

import av
import numpy as np
import pytest

from tests import muxing


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4', 'a.flv'])
@pytest.mark.parametrize('place', [-1, -3])
def test_a_bad_packet_at_the_end_takes_no_frame_along(
  tmp_path, caplog, name, place
):
  """Threads that are being emptied tell no error."""
  path = muxing.muxed(tmp_path / name, 'libx264', muxing.clip_of(30))
  with av.open(str(path)) as container:
    packets = [bytes(p) for p in container.demux(video=0) if p.size]
  data = path.read_bytes()
  bad = b'\xff' * 6 + packets[place][6:]
  path.write_bytes(data.replace(packets[place], bad))
  assert len(muxing.times_of(path)) == 29
  assert f'{name}: 1 packets are damaged' in caplog.text


@pytest.mark.parametrize('codec', ['mpeg1video', 'mpeg2video'])
@pytest.mark.parametrize('name', ['a.ts', 'a.mpg', 'a.mkv'])
def test_slices_behind_those_of_another_picture(tmp_path, caplog, name, codec):
  """Parsers put its slices behind those of the picture before."""
  path = muxing.muxed(tmp_path / name, codec, muxing.clip_of(25))
  data = path.read_bytes()
  heads = [m.start() for m in re.finditer(rb'\x00\x00\x01\x00', data)]
  assert len(muxing.times_of(path)) == 25 and not caplog.records
  at = heads[len(heads) // 2]
  path.write_bytes(data[:at] + b'\xff' * 4 + data[at + 4 :])
  assert len(muxing.times_of(path)) == 24
  assert f'{name}: 1 packets are damaged' in caplog.text


def test_rows_of_a_tall_picture_have_numbers_twice(tmp_path, caplog):
  clip = np.tile(muxing.clip_of(4), (1, 90, 1, 1))[:, :2880]
  path = muxing.muxed(tmp_path / 'a.mkv', 'mpeg2video', clip)
  assert len(muxing.times_of(path)) == 4 and not caplog.records
