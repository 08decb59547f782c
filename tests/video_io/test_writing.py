"""Films are written as they were given, or not at all."""

import resource
from fractions import Fraction

import numpy as np
import pytest

from tests.video_io.clips import add_sound, clip_of, sound_packets, write
from vidpred_jax import video_io


class TestWriter:
  def test_refuses_to_overwrite_unless_told(self, tmp_path):
    path = write(tmp_path / 'a.mp4', clip_of(3))
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match='a.mp4'):
      video_io.Writer(path, fps=25)
    assert path.read_bytes() == before
    write(path, clip_of(5), overwrite=True)
    assert video_io.index(path).num_frames == 5

  def test_never_replaces_a_folder_of_something_else(self, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'holiday.png').write_bytes(b'x')
    with pytest.raises(FileExistsError, match='something else'):
      write(tmp_path / 'mine', clip_of(2), overwrite=True)
    assert (tmp_path / 'mine' / 'holiday.png').exists()
    write(tmp_path / 'frames', clip_of(4))
    write(tmp_path / 'frames', clip_of(2), overwrite=True)
    assert len(list((tmp_path / 'frames').iterdir())) == 2

  @pytest.mark.parametrize('name', ['a.mp4', 'folder'])
  def test_an_error_leaves_things_as_they_were(self, tmp_path, name):
    path = write(tmp_path / name, clip_of(3))
    before = video_io.read(path)
    with pytest.raises(RuntimeError, match='power'):
      with video_io.Writer(path, fps=25, overwrite=True) as writer:
        for frame in clip_of(10):
          writer.write(frame)
        raise RuntimeError('power cut')
    np.testing.assert_array_equal(video_io.read(path), before)
    assert [p.name for p in tmp_path.iterdir()] == [name]

  @pytest.mark.parametrize('name', ['a.mp4', 'a.y4m'])
  def test_full_disk(self, tmp_path, name):
    path = write(tmp_path / name, clip_of(2))
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (40, 96, 96, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
      with pytest.raises(OSError):
        write(path, noise, overwrite=True)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]

  def test_wrong_input(self, tmp_path):
    with pytest.raises(ValueError, match='no frame was written'):
      write(tmp_path / 'a.mp4', [])
    with pytest.raises(ValueError, match='cannot write .doc'):
      video_io.Writer(tmp_path / 'a.doc', fps=25)
    with pytest.raises(ValueError, match='fps must be positive'):
      video_io.Writer(tmp_path / 'a.mp4', fps=0)
    with pytest.raises(FileNotFoundError, match='no folder'):
      video_io.Writer(tmp_path / 'none' / 'a.mp4', fps=25)
    with pytest.raises(ValueError, match='uint8'):
      write(tmp_path / 'a.mp4', clip_of(2).astype(np.float32))
    with pytest.raises(ValueError, match='the first was'):
      write(tmp_path / 'a.mp4', [clip_of(1)[0], clip_of(1, 24, 24)[0]])
    with pytest.raises(ValueError, match='not after the one before'):
      write(tmp_path / 'a.mp4', clip_of(2), times=[0, 0])
    with pytest.raises(ValueError, match='one frame rate'):
      write(tmp_path / 'a.avi', clip_of(2), times=[0, 1])
    assert not list(tmp_path.iterdir())

  @pytest.mark.parametrize('name', ['a.mkv', 'a.gif', 'a'])
  @pytest.mark.parametrize('fps', [Fraction(1, 10**17), -1, 0, 10**12])
  def test_rates_that_nothing_has(self, tmp_path, name, fps):
    with pytest.raises(ValueError, match='a.* fps must be positive, .* got '):
      video_io.Writer(tmp_path / name, fps=fps)

  def test_a_file_that_cannot_be_opened_leaves_nothing(self, tmp_path):
    mute = write(tmp_path / 'mute.mp4', clip_of(3))
    lost = tmp_path / 'lost.mp4'
    frame = clip_of(1)[0]
    writer = video_io.Writer(tmp_path / 'a.mp4', fps=25, audio=lost)
    with pytest.raises(FileNotFoundError):  # after its container was opened
      writer.write(frame)
    assert list(tmp_path.iterdir()) == [mute]
    # The same object writes once the reason is gone.
    lost.write_bytes(mute.read_bytes())
    with writer:
      writer.write(frame)
    assert video_io.index(tmp_path / 'a.mp4').num_frames == 1
    single = video_io.Writer(tmp_path / 'a.avi', fps=25)
    with single:
      with pytest.raises(ValueError, match='one frame rate'):
        single.write(frame, time=0)
      single.write(frame)
    assert video_io.index(tmp_path / 'a.avi').num_frames == 1

  def test_takes_nothing_after_its_block(self, tmp_path):
    with video_io.Writer(tmp_path / 'a.mp4', fps=25) as writer:
      writer.write(clip_of(1)[0])
    with pytest.raises(ValueError, match='a.mp4 has ended'):
      writer.write(clip_of(1)[0])
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']


class TestSound:
  @pytest.mark.parametrize('name', ['a.mp4', 'a.mov', 'a.mkv'])
  def test_is_copied_bit_by_bit_and_trimmed(self, tmp_path, name):
    source = add_sound(tmp_path / 'source.mp4', seconds=4)
    path = write(tmp_path / name, clip_of(50), audio=source)
    before, after = sound_packets(source), sound_packets(path)
    assert video_io.probe(path).has_audio
    assert [d for _, d in after] == [d for _, d in before[: len(after)]]
    np.testing.assert_allclose(
      [t for t, _ in after], [t for t, _ in before[: len(after)]], atol=2e-3
    )
    assert 1.9 < after[-1][0] < 2.0  # 50 frames of 1/25 s
    assert [t for t, _ in video_io.frames(path)][-1] == Fraction(49, 25)

  def test_is_kept_on_request(self, tmp_path):
    source = add_sound(tmp_path / 'source.mp4', seconds=4)
    path = write(
      tmp_path / 'a.mp4', clip_of(50), audio=source, trim_audio=False
    )
    assert len(sound_packets(path)) == len(sound_packets(source))

  def test_from_a_later_start(self, tmp_path):
    source = add_sound(tmp_path / 'source.mp4', seconds=4)
    path = write(tmp_path / 'a.mp4', clip_of(25), audio=source, audio_start=2)
    wanted = [(t - 2, d) for t, d in sound_packets(source) if 2 <= t < 3]
    got = sound_packets(path)
    assert [d for _, d in got] == [d for _, d in wanted]
    np.testing.assert_allclose(
      [t for t, _ in got], [t for t, _ in wanted], atol=1e-3
    )

  def test_where_there_can_be_none(self, tmp_path):
    source = add_sound(tmp_path / 'source.mp4', seconds=1)
    for name in ('a.gif', 'a.y4m', 'frames'):
      write(tmp_path / name, clip_of(3), audio=source)
    with pytest.raises(ValueError, match='cannot hold the sound'):
      write(tmp_path / 'a.webm', clip_of(3), audio=source)
    silent = write(tmp_path / 'silent.mp4', clip_of(3))
    path = write(tmp_path / 'b.mp4', clip_of(3), audio=silent)
    assert not video_io.probe(path).has_audio
